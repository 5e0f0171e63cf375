"""The page on several machines runs as it stands: every command in order, with what it prints."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.console import Console, Step, difference, read_steps, rewritten
from tests.stub_server import RunningStub

PAGE = ROOT / "docs" / "runs.md"


def test_the_commands_print_what_is_shown(tmp_path: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    steps = read_steps(page)
    with RunningStub() as stub:
        at_the_stub = [
            Step(step.line, step.command.replace("http://127.0.0.1:8000", stub.url), step.output) for step in steps
        ]
        printed = Console.fresh(tmp_path).follow(at_the_stub)
    if os.environ.get("RLAIF_REWRITE_DOCS") == "1":
        PAGE.write_text(rewritten(page, printed), encoding="utf-8")
        pytest.skip(f"{PAGE.name} now shows what this run printed; read its difference, then run this again")
    found = [text for step, output in zip(steps, printed, strict=True) if (text := difference(step, output))]
    assert not found, "\n".join([*found, "RLAIF_REWRITE_DOCS=1 writes what is printed now into the page."])
