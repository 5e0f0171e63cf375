"""Several servers of one model: load spread over them, and nothing lost or asked twice when one fails."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

import rlaif as package
from rlaif.engines.base import EngineArgs
from rlaif.engines.dialect import Dialect, learn_dialect
from rlaif.engines.http import HttpClient
from rlaif.engines.served import identify_served, server_urls
from rlaif.engines.server import ServerEngine
from rlaif.engines.servers import Servers
from rlaif.errors import InputError, RunError
from rlaif.types import JudgeRequest
from tests.conftest import ROOT, Cli, environment, made_pairs, read_lines, write_lines
from tests.processes import answered, interrupt, start, wait_for
from tests.stub_server import RunningStub, StubServer, StubSettings
from tests.test_faults import judgments
from tests.test_http import ask

PROBE = "Answer with the letter A."


def questions(stub: RunningStub) -> list[dict[str, Any]]:
    """What a stub was asked, but for the requests that tell how it is spoken to."""
    return [body for body in stub.state.bodies if body["messages"][-1]["content"] != PROBE]


class Held(StubServer):
    """Answers no question until `released()`, or for 30 seconds."""

    def __init__(self, released: Callable[[], bool]) -> None:
        super().__init__(StubSettings(), keep_bodies=True)
        self._released = released

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        deadline = time.monotonic() + 30
        while body["messages"][-1]["content"] != PROBE and not self._released() and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        return await super()._chat(request)


@contextmanager
def process(port: int = 0, delay: float = 0.0) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A stub in a process of its own, and its address."""
    command = [sys.executable, str(ROOT / "tests" / "stub_server.py"), "--port", str(port), "--delay", str(delay)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment())
    try:
        assert server.stdout is not None
        yield server, server.stdout.readline().strip()
    finally:
        server.kill()
        server.communicate()


def free_port() -> int:
    """A port where nobody listens."""
    with RunningStub() as stub:
        return int(stub.url.rpartition(":")[2])


def engine_for(*urls: str, **options: Any) -> ServerEngine:
    return ServerEngine(identify_served(urls, None), urls, EngineArgs({"patience": "30"}), **options)


def until(done: Callable[[], bool], deadline_s: float = 60) -> Iterator[JudgeRequest]:
    """Questions without end, until `done()`."""
    deadline = time.monotonic() + deadline_s
    number = 0
    while not done():
        assert time.monotonic() < deadline, "it does not come"
        yield ask(number)
        number += 1


def test_a_slow_server_gets_what_it_can_hold_and_a_fast_one_the_rest(tmp_path: Path, pairs: Path) -> None:
    """Of 4 in flight each holds 2. One never answers, so all that is answered is the other's: 72 less 2."""
    slow, fast = RunningStub(), RunningStub(keep_bodies=True)
    slow.server = Held(lambda: len(questions(fast)) >= 70)
    with slow, fast:
        summary = package.label(
            pairs, tmp_path / "run", base_url=[slow.url, fast.url], template="direct", concurrency=4
        )
        assert (summary.judgments, summary.abstained) == (72, 0)
        assert len(questions(fast)) == 70
        # And one that tells how it is spoken to.
        assert (sum(slow.state.good.values()), sum(fast.state.good.values())) == (2 + 1, 70 + 1)


def test_both_are_asked_and_the_labels_are_those_of_one(tmp_path: Path) -> None:
    data = write_lines(tmp_path / "pairs.jsonl", made_pairs(40))
    with RunningStub(keep_bodies=True) as one, RunningStub(keep_bodies=True) as two:
        package.label(data, tmp_path / "one", base_url=one.url)
        one.state.bodies.clear()
        package.label(data, tmp_path / "two", base_url=(one.url, two.url + "/v1"), concurrency=32)
        counts = len(questions(one)), len(questions(two))
        assert sum(counts) == 2 * 240
        # Of the first 32 in flight none has more than 20, a quarter above the mean: 12 are left, of two requests each.
        assert min(counts) >= 24
        # A verdict is read where its rationale was written: of each question both steps are at one server.
        for stub in (one, two):
            bodies = [body["messages"] for body in questions(stub)]
            read = [messages[:-1] for messages in bodies if messages[-1]["role"] == "assistant"]
            written = [messages for messages in bodies if messages[-1]["role"] == "user"]
            assert sorted(map(str, read)) == sorted(map(str, written))
    assert judgments(tmp_path / "one") == judgments(tmp_path / "two")
    same = [(tmp_path / name / "labels.jsonl").read_bytes() for name in ("one", "two")]
    assert same[0] == same[1]


def test_a_server_is_killed_in_the_middle(tmp_path: Path) -> None:
    data = write_lines(tmp_path / "pairs.jsonl", made_pairs(60))
    run = tmp_path / "run"
    with process(delay=0.05) as (killed, first), process(delay=0.05) as (_, second):
        urls = ("--base-url", first, "--base-url", second)
        labelling = start("label", data, *urls, "--template", "direct", "--concurrency", "8", "--out", run)
        wait_for(run, 60, labelling)
        killed.send_signal(signal.SIGKILL)
        out, err = labelling.communicate(timeout=60)
        seen = asyncio.run(get(f"{second}/seen"))
    assert labelling.returncode == 0, err
    assert "360 judgments: 360 asked, 0 reused, 0 abstained" in out
    assert err.count("\n") == 1, err
    assert err.startswith(f"Note: {first} is out (")
    # Nothing was asked twice of the one that stayed.
    assert set(seen["good"].values()) == {1}
    with RunningStub() as stub:
        package.label(data, tmp_path / "one", base_url=stub.url, template="direct")
    assert len(judgments(run)) == 360
    assert judgments(run) == judgments(tmp_path / "one")
    assert (run / "labels.jsonl").read_bytes() == (tmp_path / "one" / "labels.jsonl").read_bytes()


async def get(url: str) -> Any:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return await answer.json()


def test_a_server_comes_back_on_its_port(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    with ExitStack() as stack:
        stays = stack.enter_context(RunningStub(StubSettings(delay_s=0.01)))
        first = RunningStub(port=port)
        first.__enter__()
        engine = engine_for(first.url, stays.url, concurrency=8)
        running = engine.complete(until(lambda: "is back" in caplog.text and len(questions(again)) > 50))
        again = RunningStub(keep_bodies=True, port=port)
        keys = [next(running).key for _ in range(30)]
        first.__exit__(None, None, None)
        while "is out" not in caplog.text:
            keys.append(next(running).key)
        stack.enter_context(again)
        keys += [completion.key for completion in running]
        engine.close()
        assert sum(again.state.good.values()) > 50
    assert len(keys) == len(set(keys))
    assert keys
    assert [record.message.partition(" (")[0] for record in caplog.records] == [
        f"Note: {first.url} is out",
        f"Note: {first.url} is back.",
    ]


def test_a_server_that_is_off_at_the_start_joins_later(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    with RunningStub(StubSettings(delay_s=0.01)) as stays:
        engine = engine_for(f"http://127.0.0.1:{port}", stays.url, concurrency=8)
        late = RunningStub(keep_bodies=True, port=port)
        running = engine.complete(until(lambda: len(questions(late)) > 50))
        next(running)
        assert "begins without it" in caplog.text
        with late:
            assert all(completion.error is None for completion in running)
            engine.close()


def test_another_model_that_comes_later_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    with RunningStub(StubSettings(delay_s=0.01)) as stays:
        engine = engine_for(f"http://127.0.0.1:{port}", stays.url, concurrency=8)
        other = RunningStub(StubSettings(model="other"), keep_bodies=True, port=port)
        running = engine.complete(until(lambda: "is left out" in caplog.text))
        next(running)
        with other:
            assert all(completion.error is None for completion in running)
            engine.close()
            assert other.state.bodies == []
    assert "is left out: serves other, and the others stub; serve the same model" in caplog.text


def test_a_server_that_changes_its_model_gives_no_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = write_lines(tmp_path / "pairs.jsonl", made_pairs(40))
    with RunningStub(StubSettings(renamed_after=20)) as one, RunningStub() as two:
        urls = [one.url, two.url]
        summary = package.label(data, tmp_path / "run", base_url=urls, template="direct", concurrency=8)
    assert (summary.judgments, summary.abstained) == (240, 0)
    assert f"{one.url} is out (status 404: The model stub does not exist.)" in caplog.text


def test_all_are_down_and_another_number_of_them_goes_on(tmp_path: Path, pairs: Path, rlaif: Cli) -> None:
    run = tmp_path / "run"
    common = ("label", pairs, "--out", run, "--template", "direct", "--concurrency", "8")
    with RunningStub(StubSettings(stop_after=15)) as one, RunningStub(StubSettings(stop_after=15)) as two:
        urls = ("--base-url", one.url, "--base-url", two.url)
        done = rlaif(*common, *urls, "--engine-arg", "patience=1")
        assert done.returncode == 1
        *notes, line = done.stderr.splitlines()
        assert all(note.startswith("Note: ") for note in notes)
        assert line.startswith("Error: no good answer for ")
        assert f"from any server: {one.url} (" in line
        assert f"), {two.url} (" in line
        assert "give the same command to continue" in line
        kept = answered(run)
        # 15 good answers each, one of which told how the server is spoken to.
        assert kept == 28
    with RunningStub() as one, RunningStub() as two, RunningStub() as three:
        three_urls = [part for stub in (one, two, three) for part in ("--base-url", stub.url)]
        done = rlaif(*common, *three_urls)
        assert done.returncode == 0, done.stderr
        assert f"72 judgments: {72 - kept} asked, {kept} reused, 0 abstained" in done.stdout
        assert manifest_of(run)["options"]["engine"]["base_url"] == [one.url, two.url, three.url]
        assert "0 asked, 72 reused" in rlaif(*common, "--base-url", two.url).stdout
        assert manifest_of(run)["options"]["engine"]["base_url"] == two.url


def manifest_of(run: Path) -> dict[str, Any]:
    """A run's manifest."""
    found: dict[str, Any] = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    return found


def test_an_interrupt_ends_at_once_with_one_that_is_off(tmp_path: Path) -> None:
    data = write_lines(tmp_path / "pairs.jsonl", made_pairs(60))
    with RunningStub(StubSettings(delay_s=0.2)) as stub:
        urls = ("--base-url", stub.url, "--base-url", f"http://127.0.0.1:{free_port()}")
        labelling = start("label", data, *urls, "--template", "direct", "--concurrency", "8", "--out", tmp_path / "run")
        wait_for(tmp_path / "run", 8, labelling)
        took, err = interrupt(labelling)
    assert took < 2
    assert "begins without it" in err


def test_none_is_there(tmp_path: Path, pairs: Path) -> None:
    urls = [f"http://127.0.0.1:{free_port()}" for _ in range(2)]
    with pytest.raises(RunError, match=r"no good answer for .* from any server: .*ConnectorError.*, http.*Connector"):
        identify_served(urls, None, patience_s=0.2)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"model": "other"}, "{two}: serves other, and {one} stub; serve the same model from the same place there, or"),
        ({"root": "/b"}, "{two}: serves stub loaded from /b, and {one} from elsewhere; serve the same model"),
        ({"max_model_len": 50_000}, "{two}: differs from {one} in max_model_len (50000, not 100000); start both with"),
        ({"plain": True}, "{two}: differs from {one} in being vLLM (False, not True); start both with the same"),
    ],
)
def test_servers_that_differ_are_refused(
    settings: dict[str, Any], error: str, tmp_path: Path, pairs: Path, rlaif: Cli
) -> None:
    with RunningStub() as one, RunningStub(StubSettings(**settings)) as two:
        done = rlaif("label", pairs, "--base-url", one.url, "--base-url", two.url, "--out", tmp_path / "run")
        assert done.returncode == 2
        assert done.stderr.startswith("Error: " + error.format(one=one.url, two=two.url)), done.stderr
        assert done.stderr.count("\n") == 1
        assert max(sum(one.state.good.values()), sum(two.state.good.values())) <= 1


def test_a_named_model_is_wanted_of_each(tmp_path: Path) -> None:
    with RunningStub() as one, RunningStub(StubSettings(model="other")) as two:
        with pytest.raises(InputError, match=r"serves other, and .* stub"):
            identify_served([one.url, two.url], "stub")
        with pytest.raises(InputError, match="serves stub, not other; name one with --judge"):
            identify_served([one.url, two.url], "other")
        assert identify_served([one.url, one.url.replace("127.0.0.1", "localhost")], None).name == "stub"


@pytest.mark.parametrize("again", ["http://HOST:8000", "http://host:8000/v1", "http://host:8000/"])
def test_a_server_given_twice(again: str, tmp_path: Path, pairs: Path) -> None:
    with pytest.raises(InputError, match=f"^--base-url {again}: the same server is given twice; give each once.$"):
        package.label(pairs, tmp_path / "run", base_url=["http://host:8000", again])
    assert server_urls(["http://host:8000", "http://host:8001/v1"]) == ("http://host:8000", "http://host:8001")


def test_a_bad_address_among_several_is_named(tmp_path: Path, pairs: Path, rlaif: Cli) -> None:
    urls = ("--base-url", "http://host:8000", "--base-url", "host:8000")
    done = rlaif("label", pairs, *urls, "--out", tmp_path / "run")
    assert (done.returncode, done.stderr) == (
        2,
        "Error: --base-url host:8000: expected an address such as http://127.0.0.1:8000.\n",
    )


def test_one_that_has_no_time_is_given_none(tmp_path: Path, pairs: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It asks for an hour: what it was given before it said so, at most 2 of 4 in flight, is all that it gets."""
    with RunningStub(StubSettings(kinds=("429",), retry_after="3600")) as busy, RunningStub() as free:
        engine = engine_for(busy.url, free.url, concurrency=4)
        done = [next(running := engine.complete(ask(n) for n in range(100)))]
        busy.server.settings.faults = 1.0
        done += running
        engine.close()
        assert len({completion.key for completion in done}) == 100
        assert all(completion.error is None for completion in done)
        assert 1 <= sum(busy.state.failed.values()) <= 2
    # It is no fault of its.
    assert caplog.text == ""


def test_a_request_that_breaks_every_server_takes_none_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = made_pairs(8)
    rows[5]["prompt"] = "poison"
    data = write_lines(tmp_path / "pairs.jsonl", rows)
    with RunningStub(StubSettings(poison="poison")) as one, RunningStub(StubSettings(poison="poison")) as two:
        summary = package.label(
            data, tmp_path / "run", base_url=[one.url, two.url], template="direct", objectives=["honesty"]
        )
    assert (summary.pairs, summary.rejected, summary.abstained) == (7, 1, 2)
    (reject,) = read_lines(tmp_path / "run" / "rejects.jsonl")
    assert reject["reason"] == "status 500: broken, 12 times, while the server answers others"
    assert caplog.text == ""


def test_servers_that_fail_a_fifth_of_the_time(tmp_path: Path) -> None:
    data = write_lines(tmp_path / "pairs.jsonl", made_pairs(40))
    with RunningStub() as stub:
        package.label(data, tmp_path / "good", base_url=stub.url)
    faulty = [RunningStub(StubSettings(faults=0.2, hang_s=0.3, seed=seed)) for seed in (1, 2)]
    with faulty[0] as one, faulty[1] as two:
        summary = package.label(data, tmp_path / "run", base_url=[one.url, two.url], concurrency=64)
        assert (summary.judgments, summary.asked, summary.abstained) == (240, 240, 0)
        good = [one.state.good, two.state.good]
        learned = set(good[0]) & set(good[1])
        # Nothing was answered well by both but what tells how they are spoken to.
        assert len(learned) == 1
        assert all(count == 1 for each in good for name, count in each.items() if name not in learned)
        assert sum(len(each) for each in good) == 2 * 240 + 2
    assert judgments(tmp_path / "run") == judgments(tmp_path / "good")


def test_a_server_that_hangs_is_found_by_its_health(caplog: pytest.LogCaptureFixture) -> None:
    """Stopped, not killed: its connections stay open, and only a health check tells."""
    caplog.set_level(logging.WARNING)

    async def work(urls: list[str], stopped: subprocess.Popen[str]) -> None:
        servers = Servers(urls, timeout_s=600, patience_s=60, connections=8, token=None, check_every_s=0.2)

        async def learn(client: HttpClient) -> Dialect:
            return await learn_dialect(client, "stub", ask(), None)

        async def question(number: int) -> Any:
            with servers.turn(number) as turn:
                return await turn.post("/v1/chat/completions", dialect.writing(ask(number), stop=True))

        dialect = await servers.open(learn)
        try:
            os.kill(stopped.pid, signal.SIGSTOP)
            answers = await asyncio.gather(*map(question, range(8)))
        finally:
            os.kill(stopped.pid, signal.SIGCONT)
            await servers.close()
        assert all(answer["choices"] for answer in answers)

    with process() as (stopped, first), process() as (_, second):
        asyncio.run(work([first, second], stopped))
    assert f"{first} is out (no answer to a health check within 0.2 s)" in caplog.text


@pytest.mark.parametrize("command", ["generate", "revise", "policy", "cases"])
def test_wherever_a_server_is_named(command: str, tmp_path: Path, pairs: Path, rlaif: Cli) -> None:
    prompts = write_lines(tmp_path / "prompts.jsonl", [{"prompt": f"Question {n}?"} for n in range(12)])
    with RunningStub(keep_bodies=True) as one, RunningStub(keep_bodies=True) as two:
        urls = ("--base-url", one.url, "--base-url", two.url)
        elsewhere = ("--policy-base-url", one.url, "--policy-base-url", two.url, "--base-url", one.url)
        arguments = {
            "generate": ("generate", prompts, "--policy", "stub", *urls, "--out", tmp_path / "out.jsonl"),
            "revise": ("revise", prompts, *urls, "--out", tmp_path / "out.jsonl"),
            "policy": ("label", prompts, "--policy", "stub", *elsewhere, "--out", tmp_path / "run"),
            "cases": ("constitution", "test", "hhh", *urls, "--template", "direct"),
        }
        done = rlaif(*arguments[command], "--concurrency", "4")
        # The stub's verdicts on cases are drawn: some do not pass.
        assert done.returncode == (1 if command == "cases" else 0), done.stderr
        # Of the first 4 in flight each has 2.
        assert min(len(questions(one)), len(questions(two))) >= 2
