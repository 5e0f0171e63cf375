"""How fast the whole pipeline drives a server that answers at once, beside a bare client that does nothing else.

    python -m benchmarks.http_throughput [--pairs 2000]

Reading, rendering, keys, ledger and labels are all on; the wall time is that of the whole command, Python's start
included. The bare client posts one fixed body from memory with the same connections and reads no answer.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

import aiohttp
import orjson

from benchmarks.common import keep, print_table, rlaif_label, stub_server, write_pairs
from rlaif.constitution import load_constitution
from rlaif.data.pairs import Reject, read_pairs
from rlaif.data.sources import open_source
from rlaif.engines.dialect import Dialect
from rlaif.labeling.plan import Planner
from rlaif.prompts import load_template


def first_body(data: Path) -> bytes:
    """A body as rlaif sends it, for the first pair."""
    constitution = load_constitution("hhh")
    planner = Planner(constitution, load_template("direct"), "", objectives=tuple(constitution.objectives))
    row = next(row for row in read_pairs(open_source(str(data)), {}) if not isinstance(row, Reject))
    dialect = Dialect("stub", True, True, 20, choice_ids={"A": (65, 165), "B": (66, 166)})
    return orjson.dumps(dialect.reading(planner.requests(row[1])[0], "Verdict:"))


async def bare_client(url: str, body: bytes, requests: int, connections: int) -> float:
    """Requests a second of aiohttp alone."""
    left = iter(range(requests))
    connector = aiohttp.TCPConnector(limit=connections)
    headers = {"Content-Type": "application/json"}
    async with aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), headers=headers
    ) as session:

        async def work() -> None:
            for _ in left:
                async with session.post(f"{url}/v1/chat/completions", data=body) as answer:
                    await answer.read()

        start = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(connections)))
        return requests / (time.perf_counter() - start)


def run_bare(url: str, body: bytes, requests: int) -> float:
    """The bare client on the loop that rlaif uses."""
    import uvloop

    return float(uvloop.run(bare_client(url, body, requests, 128)))


def main() -> None:
    """Measure three times and print the median run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=2000)
    count = parser.parse_args().pairs
    with tempfile.TemporaryDirectory() as folder, stub_server() as url:
        data = write_pairs(Path(folder) / "pairs.jsonl", count)
        body = first_body(data)
        runs = []
        for number in range(3):
            bare = run_bare(url, body, 12_000)
            start = time.perf_counter()
            out = Path(folder) / f"run{number}"
            summary = rlaif_label(data, "--base-url", url, "--template", "direct", "--out", out)
            wall = time.perf_counter() - start
            assert summary["judgments"] == summary["asked"] == 6 * count
            runs.append((summary["judgments"] / wall, bare, wall))
    whole, bare, wall = sorted(runs)[1]
    rows = [
        ("rlaif label, whole command", f"{whole:,.0f}", f"{whole / bare:.2f}"),
        ("aiohttp alone, one fixed body", f"{bare:,.0f}", "1.00"),
    ]
    print_table(("what", "judgments/s", "of the bare client"), rows)
    print(f"{6 * count:,} judgments of {count:,} pairs in {wall:.1f} s, median of 3 runs; the bar is 2,000 judgments/s")
    keep(
        "http_throughput", {"judgments_per_s": round(whole), "bare_per_s": round(bare), "ratio": round(whole / bare, 3)}
    )


if __name__ == "__main__":
    main()
