"""The comparison with peers: its words, its stub, and our own driver; the peers themselves are not installed here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.common import stub_server
from benchmarks.compare_peers import spread, verdict
from benchmarks.peers.clock import as_text
from benchmarks.peers.labelling import OURS, run_once
from benchmarks.peers.stub import PeersStub
from tests.stub_server import StubSettings, probability_of


def test_it_says_where_it_is_behind() -> None:
    assert verdict(26.0, 25.0) == "reached"
    assert verdict(12.34, 25.0) == "not reached: 12.3 of 25"
    assert verdict(0.65, 2.0) == "behind: 0.65 times"
    assert spread({"median": 1234.5, "min": 1000.0, "max": 2000.4}) == "1,234 (1,000 to 2,000)"


def test_a_conversation_in_one_text() -> None:
    turns = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
    assert as_text("Hello") == as_text(turns[:1]) == "Hello"
    assert as_text(turns) == "User: Hello\n\nAssistant: Hi"


def answer(text: str, **options: Any) -> tuple[dict[str, Any], bool]:
    """The stub's choice, and whether the first response is to win."""
    messages = [{"role": "user", "content": text}]
    stub = PeersStub(StubSettings(plain=True))
    (choice,) = stub._answer({"messages": messages, **options})["choices"]
    return choice, probability_of(messages) > 0.5


def test_every_peer_is_answered_as_it_asks() -> None:
    choice, first = answer("(write a feedback for criteria) [RESULT] (A or B)")
    assert choice["message"]["content"].endswith("[RESULT] A" if first else "[RESULT] B")
    choice, first = answer("### Output\n#### Output for Text 1\n")
    ratings = ("Rating: 4\n", "Rating: 2\n")
    one, other = choice["message"]["content"].split("\n\n")
    assert (ratings if first else ratings[::-1]) == tuple(
        next(each for each in ratings if each in part) for part in (one, other)
    )
    choice, first = answer("## Best Model Identifier", logprobs=True)
    (place,) = choice["logprobs"]["content"]
    assert {each["token"] for each in place["top_logprobs"]} == {"m", "M"}
    assert choice["message"]["content"] == place["token"] == ("m" if first else "M")


def test_our_driver_reads_every_verdict(tmp_path: Path) -> None:
    with stub_server("--plain", module="benchmarks.peers.stub") as url:
        run, versions = run_once(OURS[0]._replace(pairs=20), tmp_path, tmp_path, {"plain": url})
    assert run.pairs_per_s > 0
    assert run.pairs_per_cpu_s > 0
    assert "aiohttp" in versions
