"""Every command of the README runs, with a server that stands in for the judge, and prints what the README says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from rlaif.constitution.load import parse_constitution
from tests.conftest import ROOT
from tests.console import Console, fenced
from tests.stub_server import RunningStub

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_commands_run_in_order_and_print_what_is_shown(tmp_path: Path) -> None:
    console = Console.fresh(tmp_path)
    printed = ""
    with RunningStub() as stub:
        for block in fenced(README, "bash"):
            command = block.replace("http://127.0.0.1:8000", stub.url).replace("Qwen/Qwen3-8B", "stub")
            said = console.run(command)
            assert console.status == 0, f"{command}\n{said}"
            printed += said
        for code in fenced(README, "python"):
            text = code.replace("http://127.0.0.1:8000", stub.url)
            assert console.run(f"python -c {shlex.quote(text)}") == "300 1800 0\n"
    shown = re.findall(r"^    ([\d,]+ (?:pairs labelled|judgments).*)$", README, re.MULTILINE)
    assert len(shown) == 6
    assert all(line in printed for line in shown)
    parts = r"honesty\b|  no-falsehood|    [-+] Prefer|\d+ pairs in both"
    changed = re.findall(rf"^    ((?:{parts}).*)$", README, re.MULTILINE)
    assert len(changed) == 7
    assert set(changed) <= set(printed.splitlines())
    compared = README.partition("    helpfulness:\n")[2].partition("\n\n")[0].splitlines()
    assert len(compared) == 9
    assert {line[4:] for line in compared} <= set(printed.splitlines())
    # What was held out follows from the data; the rest of the table differs in its last digits from machine to machine.
    (trained,) = re.findall(
        r"^    (\d+ pairs, \d+ held-out pairs; 3 objectives, frozen, 5 members), ", README, re.MULTILINE
    )
    assert f"{trained}, " in printed


def test_the_constitution_shown_is_one() -> None:
    (text,) = fenced(README, "yaml")
    constitution = parse_constitution(text, "README.md")
    assert constitution.weights_for({"billing": True}) == {"helpfulness": 0.3, "honesty": 0.7}
