"""`rlaif reward serve` under load: what one request at a time gives, what joining them gives, and what happens beyond.

    python -m benchmarks.reward_serve [--seconds 60] [--queue N] [--malformed 10000] [--threads N]
                                      [--precision bfloat16]

The heads are five members on three objectives with random weights on the starter's backbone: a score costs the same,
whatever it means. Every request is one response to a prompt of the starter's world, as OpenRLHF asks for each sample;
eight responses a prompt. The client is a process of its own on the same machine and shares its cores.

`alone`: one client, one request after the other, a batch each. `joined`: 128 clients, each with one request at a time.
`ramp`: requests come at a rate that rises evenly from nothing to twice what `joined` reached, whether answers come or
not; the rate is read off up to the first 429, and everything beyond is 200 or 429. `malformed`: requests that are wrong
by construction, each answered 4xx with its reason. In the end the server is killed and started again on its port.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from benchmarks.common import ROOT, keep, print_table
from rlaif.starter.examples import make_examples
from tests.heads_examples import make_heads
from tests.serving import malformed, series

_EACH = 8
_CLIENTS = 128
_JSON = {"content-type": "application/json"}


def requests_of(count: int) -> list[bytes]:
    """Bodies of single responses, of prompts and responses of the starter's world; no two are the same."""
    bodies: list[bytes] = []
    for row in make_examples(-(-count // _EACH), prompts=0)["pairs.jsonl"]:
        for number in range(_EACH):
            text = f"{row['response_b' if number % 2 else 'response_a']} ({len(bodies)})"
            bodies.append(json.dumps([{"prompt": row["prompt"], "response": text}]).encode())
    return bodies[:count]


@contextmanager
def served(heads: Path, threads: int, *options: object, port: int = 0) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A server of its own."""
    command = [sys.executable, "-m", "rlaif", "reward", "serve", str(heads), "--json", "--port", str(port)]
    process = subprocess.Popen(
        [*command, *map(str, options)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
    )
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"], process
    finally:
        process.kill()
        process.wait()


Seen = tuple[float, float, int]
"""When a request was sent, in seconds from the beginning, how long it took, and its status."""


class Client:
    """Sends requests and notes what came back."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session, self._url = session, url
        self.begun = time.perf_counter()
        self.seen: list[Seen] = []
        self.without_retry = 0

    async def ask(self, body: bytes) -> None:
        """One request."""
        sent = time.perf_counter()
        async with self._session.post(f"{self._url}/score", data=body, headers=_JSON) as answer:
            await answer.read()
            self.without_retry += answer.status == 429 and "Retry-After" not in answer.headers
        self.seen.append((sent - self.begun, time.perf_counter() - sent, answer.status))

    @property
    def statuses(self) -> dict[str, int]:
        """How many answers of each."""
        return {str(status): count for status, count in sorted(Counter(each[2] for each in self.seen).items())}


async def closed(url: str, bodies: Sequence[bytes], clients: int, seconds: float) -> tuple[float, Client]:
    """Requests a second of so many clients, each with one request at a time."""
    left = iter(bodies)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        client = Client(session, url)

        async def one() -> None:
            for body in left:
                if time.perf_counter() - client.begun > seconds:
                    return
                await client.ask(body)

        await asyncio.gather(*(one() for _ in range(clients)))
        return len(client.seen) / (time.perf_counter() - client.begun), client


def measured(url: str, bodies: Sequence[bytes], clients: int, seconds: float) -> tuple[float, float, Client]:
    """Responses a second, and milliseconds of the server's processor time a response."""
    before = asyncio.run(processor(url))
    rate, client = asyncio.run(closed(url, bodies, clients, seconds))
    return rate, 1000 * (asyncio.run(processor(url)) - before) / len(client.seen), client


async def processor(url: str) -> float:
    """Processor seconds that the server took so far: these are the same on a busy machine."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as answer:
        return series(await answer.text())["process_cpu_seconds_total"]


async def ramp(url: str, bodies: Sequence[bytes], top: float, seconds: float) -> Client:
    """Send at a rate that rises evenly from nothing to `top` a second, whether answers come or not."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        client = Client(session, url)
        tasks = []
        for number in range(int(top * seconds / 2)):
            # After t seconds at a rate of top * t / seconds, top * t^2 / (2 * seconds) were sent.
            due = (2 * seconds * number / top) ** 0.5
            await asyncio.sleep(max(0.0, client.begun + due - time.perf_counter()))
            tasks.append(asyncio.create_task(client.ask(bodies[number % len(bodies)])))
        await asyncio.gather(*tasks)
        return client


async def wrong(url: str, count: int) -> dict[str, int]:
    """Statuses of requests that are wrong by construction; exits where one is not answered as it should be."""
    statuses: Counter[str] = Counter()
    turn = asyncio.Semaphore(32)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def one(request: Any) -> None:
            async with turn:
                where = URL(url + request.path, encoded=True)
                headers = {**_JSON, **request.headers}
                async with session.request(request.method, where, data=request.body, headers=headers) as answer:
                    value = await answer.json()
            if answer.status != request.status or not value["error"]["message"].strip():
                sys.exit(f"{request.kind}: {answer.status} {value}")
            statuses[str(answer.status)] += 1

        await asyncio.gather(*(one(request) for request in malformed(count)))
    return dict(sorted(statuses.items()))


def told(line: str) -> None:
    """How far it is, for whoever waits."""
    print(line, file=sys.stderr, flush=True)


def quantile(seconds: Sequence[float], share: float) -> float:
    """In milliseconds."""
    ordered = sorted(seconds)
    return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def below_the_edge(client: Client) -> tuple[float, list[Seen]]:
    """Requests a second in the last five seconds before the first that was turned away, and all that came before it."""
    edge = min((sent for sent, _, status in client.seen if status != 200), default=client.seen[-1][0])
    before = [each for each in client.seen if each[0] < edge]
    last = [each for each in before if each[0] >= edge - 5]
    return len(last) / min(5.0, edge), before


def main() -> None:
    """Measure, print, and keep the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--queue", type=int)
    parser.add_argument("--malformed", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of the model")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        heads = make_heads(Path(folder), "starter", members=5)
        bodies = requests_of(20_000)
        few = options.seconds / 4
        precision = ("--precision", options.precision)
        with served(heads, options.threads, *precision, "--batch-tokens", 1, "--max-wait-ms", 0) as (url, _):
            asyncio.run(closed(url, bodies[:50], 1, 5))
            alone, alone_cpu, single = measured(url, bodies[50:], 1, few)
            told(f"alone: {alone:,.1f} responses/s, {alone_cpu:.1f} ms of the processor each")
        with served(heads, options.threads, *precision) as (url, _):
            asyncio.run(closed(url, bodies[:200], 8, 5))
            joined, joined_cpu, many = measured(url, bodies[200:], _CLIENTS, few)
            told(f"joined: {joined:,.1f} responses/s, {joined_cpu:.1f} ms of the processor each")
        # Half a second of work may wait.
        queue = options.queue or max(16, round(joined / 2))
        with served(heads, options.threads, *precision, "--max-queue", queue) as (url, process):
            asyncio.run(closed(url, bodies[:50], 8, 5))
            ramped = asyncio.run(ramp(url, bodies, 2 * joined, options.seconds))
            told(f"ramp: {ramped.statuses}")
            bad = asyncio.run(wrong(url, options.malformed))
            told(f"malformed: {bad}")
            process.kill()
            process.wait()
            port = int(url.rpartition(":")[2])
        start = time.perf_counter()
        with served(heads, options.threads, *precision, port=port) as (url, _):
            again = time.perf_counter() - start
            _, after = asyncio.run(closed(url, bodies[:50], 8, 30))
    rate, before = below_the_edge(ramped)
    took = [seconds for _, seconds, _ in before]
    # Half of the rate that it stands is where a server should be run.
    calm = [seconds for sent, seconds, _ in before if sent <= options.seconds * rate / (4 * joined)]
    times = [each[1] for each in single.seen], [each[1] for each in many.seen], took, calm
    names = (
        "one at a time",
        f"{_CLIENTS} clients",
        "rising rate, up to the first 429",
        "the same, up to half the rate",
    )
    rates = (f"{alone:,.0f}", f"{joined:,.0f}", f"{rate:,.0f}", f"{rate / 2:,.0f}")
    rows = [
        (name, shown, f"{quantile(each, 0.5):,.0f}", f"{quantile(each, 0.99):,.0f}")
        for name, shown, each in zip(names, rates, times, strict=True)
    ]
    print_table(("load", "responses/s", "p50 ms", "p99 ms"), rows)
    print(f"joining is worth {joined / alone:.1f} times as many responses a second; the bar is 3")
    print(f"the server's processor time a response: {alone_cpu:.1f} ms alone, {joined_cpu:.1f} ms joined")
    print(f"rising to {2 * joined:,.0f}/s in {options.seconds:.0f} s: {ramped.statuses}")
    print(f"{ramped.without_retry} of the 429 without Retry-After; {sum(bad.values()):,} malformed requests: {bad}")
    print(f"killed with SIGKILL, ready again in {again:.1f} s: {after.statuses}")
    keep(
        "reward_serve",
        {
            "alone_per_s": round(alone, 1),
            "joined_per_s": round(joined, 1),
            "ratio": round(joined / alone, 2),
            "alone_cpu_ms": round(alone_cpu, 2),
            "joined_cpu_ms": round(joined_cpu, 2),
            "cpu_ratio": round(alone_cpu / joined_cpu, 2),
            "ramp": {"per_s_before_429": round(rate, 1), "statuses": ramped.statuses},
            "p50_p99_ms": {
                name: [round(quantile(each, q), 1) for q in (0.5, 0.99)]
                for name, each in zip(names, times, strict=True)
            },
            "429_without_retry_after": ramped.without_retry,
            "malformed": bad,
            "restart_s": round(again, 1),
            "threads": options.threads,
            "precision": options.precision,
            "queue": queue,
        },
    )
    assert set(ramped.statuses) <= {"200", "429"}


if __name__ == "__main__":
    main()
