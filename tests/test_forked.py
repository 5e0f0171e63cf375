"""A command in a fork is a command: its files, folder, environment, exit code and end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import Cli, environment, write_lines
from tests.forked import rlaif_program
from tests.processes import wait_for
from tests.stub_server import RunningStub, StubSettings

LINUX = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="commands are forked on Linux only")


def test_exit_codes_streams_folder_and_environment(tmp_path: Path) -> None:
    write_lines(tmp_path / "pairs.jsonl", [{"id": "p", "prompt": "Hello?", "response_a": "Hi.", "response_b": "No."}])
    command = [*rlaif_program(), "label", "--out", "run", "--dry-run", "--json"]
    done = subprocess.run(
        [*command, "pairs.jsonl"], capture_output=True, text=True, cwd=tmp_path, env=environment(), check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["pairs"] == 1
    missing = subprocess.run([*command, "none.jsonl"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert missing.returncode == 2
    assert "none.jsonl" in missing.stderr
    assert missing.stdout == ""
    debug = {**environment(), "RLAIF_DEBUG": "1"}
    traced = subprocess.run([*command, "none.jsonl"], capture_output=True, text=True, env=debug, check=False)
    assert "Traceback" in traced.stderr
    assert traced.returncode == 1


def test_it_is_called_by_its_name(rlaif: Cli) -> None:
    assert rlaif("label", "--nothing").stderr.startswith("Usage: rlaif label")


@LINUX
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_whoever_ends_the_program_ends_the_command(number: signal.Signals, tmp_path: Path, pairs: Path) -> None:
    run = tmp_path / "run"
    with RunningStub(StubSettings(delay_s=0.5)) as server:
        command = [*rlaif_program(), "label", pairs, "--base-url", server.url, "--concurrency", "1", "--out", run]
        program = subprocess.Popen(
            list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment()
        )
        try:
            wait_for(run, 1, program)
            os.kill(program.pid, number)
            said = program.communicate(timeout=60)[0]
        finally:
            program.kill()
        assert program.returncode == (1 if number == signal.SIGTERM else -signal.SIGKILL)
        assert ("continue" in said) == (number == signal.SIGTERM)
        # What was asked before may still be answered.
        time.sleep(1.0)
        before = server.state.count
        time.sleep(1.5)
        assert server.state.count == before
