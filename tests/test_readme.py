"""Every command of the README runs, with a server that stands in for the judge, and prints what the README says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rlaif.constitution.load import parse_constitution
from tests.conftest import ROOT, environment
from tests.stub_server import RunningStub

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with what a clone has at its top level."""
    for name in ("examples", "constitutions", "prompts"):
        shutil.copytree(ROOT / name, tmp_path / name)
    scripts = tmp_path / "bin"
    scripts.mkdir()
    (scripts / "rlaif").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m rlaif "$@"\n')
    (scripts / "rlaif").chmod(0o755)
    # The sqlite3 shell is not everywhere; Python's module reads the same file.
    query = "import sqlite3, sys\nfor row in sqlite3.connect(sys.argv[1]).execute(sys.argv[2]): print(*row, sep='|')"
    (scripts / "sqlite3").write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{query}" "$@"\n')
    (scripts / "sqlite3").chmod(0o755)
    return tmp_path


def test_the_commands_run_in_order_and_print_what_is_shown(folder: Path) -> None:
    printed = ""
    with RunningStub() as stub:
        for block in blocks("bash"):
            command = block.replace("http://127.0.0.1:8000", stub.url).replace("Qwen/Qwen3-8B", "stub")
            env = {**environment(), "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}
            done = subprocess.run(
                ["bash", "-euc", command], cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False
            )
            assert done.returncode == 0, f"{command}\n{done.stderr}"
            printed += done.stdout
        for code in blocks("python"):
            text = code.replace("http://127.0.0.1:8000", stub.url)
            done = subprocess.run(
                [sys.executable, "-c", text], cwd=folder, env=environment(), capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
            assert done.stdout == "300 1800 0\n"
    shown = re.findall(r"^    ([\d,]+ (?:pairs labelled|judgments).*)$", README, re.MULTILINE)
    assert len(shown) == 6
    assert all(line in printed for line in shown)
    parts = r"honesty\b|  no-falsehood|    [-+] Prefer|\d+ pairs in both"
    changed = re.findall(rf"^    ((?:{parts}).*)$", README, re.MULTILINE)
    assert len(changed) == 7
    assert set(changed) <= set(printed.splitlines())


def test_the_constitution_shown_is_one() -> None:
    (text,) = blocks("yaml")
    constitution = parse_constitution(text, "README.md")
    assert constitution.weights_for({"billing": True}) == {"helpfulness": 0.3, "honesty": 0.7}


def test_files_that_are_linked_exist() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert all((ROOT / link).exists() for link in links if "://" not in link)
