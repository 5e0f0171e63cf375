"""Servers that fail, and servers that can do less than vLLM's."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

import rlaif as package
from rlaif.errors import InputError, RunError
from tests.conftest import Cli, made_pairs, read_lines, write_lines
from tests.stub_server import FAULTS, RunningStub, StubSettings


def judgments(run: Path) -> list[tuple[object, ...]]:
    """Every judgment of a run."""
    with sqlite3.connect(run / "judgments.db") as db:
        query = 'SELECT pair_id, objective, "order", sample, p_a, rationale, status FROM judgments ORDER BY 1, 2, 3, 4'
        return db.execute(query).fetchall()


def test_a_server_that_fails_a_fifth_of_the_time(tmp_path: Path) -> None:
    data = write_lines(tmp_path / "pairs.jsonl", made_pairs(60))
    with RunningStub() as stub:
        package.label(data, tmp_path / "good", base_url=stub.url)
    with RunningStub(StubSettings(faults=0.2, hang_s=0.3)) as stub:
        summary = package.label(data, tmp_path / "run", base_url=stub.url, concurrency=64)
        state = stub.state
    assert (summary.judgments, summary.asked, summary.abstained) == (360, 360, 0)
    assert sum(state.failed.values()) > 50
    # Each question was answered well exactly once: none missing, none paid for twice.
    assert set(state.good.values()) == {1}
    assert len(state.good) == 2 * 360 + 1  # and the one that learns the dialect
    assert judgments(tmp_path / "run") == judgments(tmp_path / "good")
    assert (tmp_path / "run" / "labels.jsonl").read_bytes() == (tmp_path / "good" / "labels.jsonl").read_bytes()


@pytest.mark.parametrize("kind", FAULTS)
def test_every_kind_of_fault_is_asked_again(kind: str, tmp_path: Path, pairs: Path) -> None:
    with RunningStub(StubSettings(faults=0.5, kinds=(kind,), hang_s=0.1)) as stub:
        summary = package.label(pairs, tmp_path / "run", base_url=stub.url, template="direct")
        assert set(stub.state.good.values()) == {1}
    assert (summary.judgments, summary.abstained) == (72, 0)


def test_a_hanging_answer_is_asked_again_after_the_timeout(tmp_path: Path, pairs: Path) -> None:
    with RunningStub(StubSettings(faults=0.1, kinds=("hang",), hang_s=30)) as stub:
        start = time.monotonic()
        args = {"timeout": 0.5}
        summary = package.label(pairs, tmp_path / "run", base_url=stub.url, template="direct", engine_args=args)
        assert time.monotonic() - start < 25  # it did not wait for a hang to end
        assert stub.state.failed
    assert summary.abstained == 0


def test_retry_after_is_honoured(tmp_path: Path) -> None:
    data = write_lines(tmp_path / "pairs.jsonl", made_pairs(1))
    with RunningStub(StubSettings(faults=0.4, kinds=("429",), seed=3)) as stub:
        start = time.monotonic()
        package.label(data, tmp_path / "run", base_url=stub.url, template="direct", concurrency=1)
        waited = sum(stub.state.failed.values())
    assert waited > 0
    assert time.monotonic() - start >= 0.2 * waited


def test_a_server_that_stays_down_ends_the_run_which_continues_later(tmp_path: Path, pairs: Path, rlaif: Cli) -> None:
    run = tmp_path / "run"
    options = ("--template", "direct", "--engine-arg", "patience=2", "--concurrency", "8")
    with RunningStub(StubSettings(stop_after=20)) as stub:
        done = rlaif("label", pairs, "--base-url", stub.url, "--out", run, *options, timeout=30)
        assert done.returncode == 1
        assert "no good answer for 2 s" in done.stderr
        assert "give the same command to continue" in done.stderr
        assert "Traceback" not in done.stderr
        kept = len(judgments(run))
        assert kept == 19  # the other of the 20 good answers told what the server can do
        assert not (run / "labels.jsonl").exists()
    with RunningStub() as stub:
        done = rlaif("label", pairs, "--base-url", stub.url, "--out", run, *options)
        assert done.returncode == 0, done.stderr
        assert f"72 judgments: {72 - kept} asked, {kept} reused, 0 abstained" in done.stdout


def test_no_server_at_all(tmp_path: Path, pairs: Path) -> None:
    with RunningStub() as stub:
        url = stub.url
    with pytest.raises(RunError, match=r"no good answer for .*ClientConnectorError"):
        package.label(pairs, tmp_path / "run", base_url=url)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://"])
def test_an_address_that_is_none(url: str, tmp_path: Path, pairs: Path) -> None:
    with pytest.raises(InputError, match="expected an address such as"):
        package.label(pairs, tmp_path / "run", base_url=url)


def test_a_model_that_is_not_served(stub: RunningStub, tmp_path: Path, pairs: Path) -> None:
    with pytest.raises(InputError, match="serves stub, not Qwen/Qwen3-8B"):
        package.label(pairs, tmp_path / "run", base_url=stub.url, judge="Qwen/Qwen3-8B")


def test_a_server_that_cannot_continue_a_turn_is_read_at_the_marker(tmp_path: Path, pairs: Path) -> None:
    with RunningStub(StubSettings(plain=True), keep_bodies=True) as stub:
        summary = package.label(pairs, tmp_path / "run", base_url=stub.url)
        assert not any(body.get("continue_final_message") for body in stub.state.bodies)
    assert (summary.judgments, summary.abstained) == (72, 0)
    assert summary.mean_choice_mass == pytest.approx(0.9)
    rows = judgments(tmp_path / "run")
    assert all(str(row[5]).endswith(").\n\n") for row in rows)
    assert len({row[4] for row in rows}) == 72


def test_a_server_without_log_probabilities_gives_hard_verdicts(tmp_path: Path, pairs: Path) -> None:
    with RunningStub(StubSettings(plain=True, logprobs=False)) as stub:
        summary = package.label(pairs, tmp_path / "run", base_url=stub.url)
    assert (summary.judgments, summary.abstained, summary.mean_choice_mass) == (72, 0, None)
    with sqlite3.connect(tmp_path / "run" / "judgments.db") as db:
        rows = db.execute('SELECT p_a, hard_choice, "order", choice_mass FROM judgments').fetchall()
    for p_a, choice, order, mass in rows:
        assert p_a == float((choice == "A") == (order == "ab"))
        assert mass is None
    assert {
        label["preference"]
        for line in read_lines(tmp_path / "run" / "labels.jsonl")
        for label in line["labels"].values()
    }


def test_a_model_without_a_system_role_gets_it_in_the_user_turn(tmp_path: Path, pairs: Path) -> None:
    with RunningStub(StubSettings(system_role=False), keep_bodies=True) as stub:
        summary = package.label(pairs, tmp_path / "run", base_url=stub.url, template="direct")
        bodies = [body for body in stub.state.bodies if body.get("continue_final_message")]
    assert summary.abstained == 0
    assert len(bodies) == 72
    assert all(body["messages"][0]["role"] == "user" for body in bodies)
    assert all(body["messages"][0]["content"].startswith("You compare two responses") for body in bodies)


def test_a_server_with_openai_s_newer_parameters(tmp_path: Path, pairs: Path) -> None:
    with RunningStub(StubSettings(plain=True, logprobs=False, newer_openai=True)) as stub:
        summary = package.label(pairs, tmp_path / "run", base_url=stub.url)
    assert (summary.judgments, summary.abstained) == (72, 0)


def test_a_request_that_breaks_the_server_abstains_with_its_reason(tmp_path: Path) -> None:
    rows = made_pairs(8)
    rows[5]["prompt"] = "poison"
    data = write_lines(tmp_path / "pairs.jsonl", rows)
    with RunningStub(StubSettings(poison="poison")) as stub:
        options: dict[str, Any] = {"base_url": stub.url, "template": "direct", "objectives": ["honesty"]}
        summary = package.label(data, tmp_path / "run", **options)
    assert (summary.pairs, summary.rejected, summary.abstained) == (7, 1, 2)
    (reject,) = read_lines(tmp_path / "run" / "rejects.jsonl")
    assert reject["line"] == 6
    assert reject["reason"] == "status 500: broken, 12 times, while the server answers others"


def test_a_server_that_refuses_everything_stops_the_run(tmp_path: Path) -> None:
    data = write_lines(tmp_path / "pairs.jsonl", made_pairs(30))
    with RunningStub(StubSettings(max_model_len=8)) as stub, pytest.raises(RunError, match="refuses every request"):
        package.label(data, tmp_path / "run", base_url=stub.url, template="direct")
