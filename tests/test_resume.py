"""Killed, interrupted, out of disk: nothing that was written is lost, and the same command goes on."""

from __future__ import annotations

import os
import signal
import sqlite3
from pathlib import Path

import pytest

from tests.conftest import Cli, made_pairs, write_lines
from tests.processes import answered, interrupt, kill_and_continue, start, wait_for
from tests.stub_server import RunningStub, StubSettings


def test_killed_five_times_against_a_server(tmp_path: Path, rlaif: Cli) -> None:
    data = write_lines(tmp_path / "pairs.jsonl", made_pairs(100))
    with RunningStub(StubSettings(delay_s=0.05)) as stub:
        common = (data, "--base-url", stub.url, "--template", "direct", "--concurrency", "16")
        assert rlaif("label", *common, "--out", tmp_path / "whole").returncode == 0
        run = tmp_path / "killed"
        met, out = kill_and_continue(run, ("label", *common, "--out", run), 600, seed=1)
    assert met >= 3
    assert "600 judgments" in out
    assert (run / "labels.jsonl").read_bytes() == (tmp_path / "whole" / "labels.jsonl").read_bytes()
    with sqlite3.connect(run / "judgments.db") as db:
        assert db.execute("SELECT count(*) FROM completions").fetchone() == (600,)


def test_killed_five_times_with_transformers(tmp_path: Path, tiny_judge: Path, rlaif: Cli) -> None:
    data = write_lines(tmp_path / "pairs.jsonl", made_pairs(80))
    common = (data, "--judge", tiny_judge, "--engine", "transformers", "--max-tokens", "6", "--objective", "honesty")
    assert rlaif("label", *common, "--out", tmp_path / "whole").returncode == 0
    run = tmp_path / "killed"
    met, out = kill_and_continue(run, ("label", *common, "--out", run), 160, seed=2)
    assert met >= 3
    assert "160 judgments" in out
    assert (run / "labels.jsonl").read_bytes() == (tmp_path / "whole" / "labels.jsonl").read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_at_once_and_says_how_to_go_on(number: int, tmp_path: Path, rlaif: Cli) -> None:
    data = write_lines(tmp_path / "pairs.jsonl", made_pairs(60))
    run = tmp_path / "run"
    with RunningStub(StubSettings(delay_s=0.2)) as stub:
        arguments = ("label", data, "--base-url", stub.url, "--template", "direct", "--concurrency", "8", "--out", run)
        process = start(*arguments)
        wait_for(run, 20, process)
        took, err = interrupt(process, number)
        assert took < 2
        assert f"answers so far are kept in {run}. Give the same command to continue." in err
        kept = answered(run)
        assert 20 <= kept < 360
    with RunningStub() as stub:
        done = rlaif("label", data, "--base-url", stub.url, "--template", "direct", "--out", run)
        assert f"{360 - kept} asked, {kept} reused" in done.stdout


def test_no_interrupt_is_lost(tmp_path: Path) -> None:
    """Whatever the loop was doing when the signal came."""
    data = write_lines(tmp_path / "pairs.jsonl", made_pairs(2000))
    # Slow enough that a busy machine does not end the run before the signal: 19 seconds of answers.
    with RunningStub(StubSettings(delay_s=0.2)) as stub:
        for number in range(6):
            run = tmp_path / str(number)
            process = start("label", data, "--base-url", stub.url, "--template", "direct", "--out", run)
            wait_for(run, 100 + 137 * number, process)
            interrupt(process, signal.SIGTERM if number % 2 else signal.SIGINT)


def test_an_interrupt_while_a_model_computes(tmp_path: Path, tiny_judge: Path) -> None:
    data = write_lines(tmp_path / "pairs.jsonl", made_pairs(60))
    run = tmp_path / "run"
    process = start("label", data, "--judge", tiny_judge, "--engine", "transformers", "--max-tokens", "9", "--out", run)
    wait_for(run, 64, process)
    took, _ = interrupt(process)
    assert took < 2
    assert answered(run) >= 64


def test_a_disk_that_fills_up(tmp_path: Path, stub: RunningStub, rlaif: Cli) -> None:
    data = write_lines(tmp_path / "pairs.jsonl", made_pairs(300))
    run = tmp_path / "run"
    arguments = ("label", data, "--base-url", stub.url, "--template", "direct", "--out", run)
    process = start(*arguments, limit_bytes=900_000)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.strip().count("\n") == 0, err
    assert "free some space" in err
    assert "what was committed is kept" in err
    kept = answered(run)
    assert 0 < kept < 1800
    done = rlaif(*arguments)
    assert f"1,800 judgments: {1800 - kept:,} asked, {kept:,} reused" in done.stdout, done.stderr


def test_a_file_that_cannot_be_replaced(tmp_path: Path, pairs: Path, stub: RunningStub, rlaif: Cli) -> None:
    """`labels.jsonl` cannot be written: one line, and the answers stay."""
    run = tmp_path / "run"
    arguments = ("label", pairs, "--base-url", stub.url, "--template", "direct", "--out", run)
    assert rlaif(*arguments, "--objective", "honesty").returncode == 0
    (run / "labels.jsonl").unlink()
    (run / "labels.jsonl").mkdir()
    done = rlaif(*arguments, "--update")
    assert done.returncode == 1
    assert f"{run}/labels.jsonl: cannot be written" in done.stderr
    assert answered(run) == 72
    (run / "labels.jsonl").rmdir()
    assert "0 asked, 72 reused" in rlaif(*arguments).stdout


def test_a_folder_that_cannot_be_written(tmp_path: Path, pairs: Path, stub: RunningStub, rlaif: Cli) -> None:
    (tmp_path / "file").write_text("in the way")
    done = rlaif("label", pairs, "--base-url", stub.url, "--out", tmp_path / "file" / "run")
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert str(tmp_path / "file" / "run") in done.stderr
    assert stub.state.count == 0
    if os.geteuid() != 0:
        return
    read_only = Path("/proc/self/rlaif-run")
    done = rlaif("label", pairs, "--base-url", stub.url, "--out", read_only)
    assert done.returncode == 1
    assert f"{read_only}: cannot be written" in done.stderr


def test_two_processes_do_not_write_one_run(tmp_path: Path, rlaif: Cli) -> None:
    data = write_lines(tmp_path / "pairs.jsonl", made_pairs(60))
    run = tmp_path / "run"
    with RunningStub(StubSettings(delay_s=0.2)) as stub:
        arguments = ("label", data, "--base-url", stub.url, "--template", "direct", "--concurrency", "8", "--out", run)
        process = start(*arguments)
        wait_for(run, 10, process)
        second = rlaif(*arguments)
        process.kill()
        process.communicate()
    assert second.returncode == 1
    assert "another process is writing this run" in second.stderr
