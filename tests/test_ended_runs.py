"""A run that has ended: the same command finds it so, unless something of it was touched."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rlaif import LabelSummary
from rlaif.store import Ledger
from tests.conftest import Cli
from tests.stub_server import RunningStub


@pytest.fixture
def command(pairs: Path, stub: RunningStub, tmp_path: Path) -> tuple[object, ...]:
    return ("label", pairs, "--base-url", stub.url, "--template", "direct", "--out", tmp_path / "run", "--json")


def labelled(rlaif: Cli, command: tuple[object, ...]) -> LabelSummary:
    done = rlaif(*command)
    assert done.returncode == 0, done.stderr
    return LabelSummary.model_validate_json(done.stdout)


def without_session(summary: LabelSummary) -> dict[str, Any]:
    return summary.model_dump(exclude={"asked", "reused", "seconds"})


def test_an_ended_run_is_told_again_from_what_it_left(
    command: tuple[object, ...], tmp_path: Path, rlaif: Cli, stub: RunningStub
) -> None:
    run = tmp_path / "run"
    first = labelled(rlaif, command)
    labels, asked = (run / "labels.jsonl").read_bytes(), len(stub.state.bodies)
    # Nobody goes through a ledger that another holds.
    with closing(Ledger(run / "judgments.db")):
        again = labelled(rlaif, command)
    assert (again.asked, again.reused) == (0, first.asked) != (0, 0)
    assert without_session(again) == without_session(first)
    assert (run / "labels.jsonl").read_bytes() == labels
    assert len(stub.state.bodies) == asked
    third = labelled(rlaif, command)
    assert (third.asked, third.reused) == (0, first.asked)
    session = json.loads((run / "manifest.json").read_text())["last_session"]
    assert (session["asked"], session["reused"]) == (0, first.asked)


@pytest.mark.parametrize("touched", ["labels edited", "labels gone", "answers gone", "copied"])
def test_what_was_touched_is_made_again(touched: str, command: tuple[object, ...], tmp_path: Path, rlaif: Cli) -> None:
    run = tmp_path / "run"
    first = labelled(rlaif, command)
    labels = (run / "labels.jsonl").read_bytes()
    if touched == "labels edited":
        (run / "labels.jsonl").write_bytes(labels.replace(b"0.", b"1.", 1))
    elif touched == "labels gone":
        (run / "labels.jsonl").unlink()
    elif touched == "copied":
        shutil.copytree(run, tmp_path / "copy")
        shutil.rmtree(run)
        (tmp_path / "copy").rename(run)
    else:
        with closing(sqlite3.connect(run / "judgments.db")) as db, db:
            db.execute("DELETE FROM completions WHERE key = (SELECT min(key) FROM completions)")
    again = labelled(rlaif, command)
    assert again.asked == (touched == "answers gone")
    assert without_session(again) == without_session(first)
    assert (run / "labels.jsonl").read_bytes() == labels
