"""Pages whose commands are run: ```console blocks of `$ command` lines with what each prints below it.

A command goes on over lines that end in a backslash and to the end of its here-document. Output is compared as it is
printed, stdout and stderr in one, with two allowances: how long pytest or a training took is not compared, and a number
with two or more decimals may differ by one in its last digit, since processors round sums differently. Whole numbers,
percentages (they follow from whole numbers) and words are compared exactly.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Collection
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from tests.conftest import ROOT
from tests.forked import rlaif_program
from tests.test_pytest_plugin import pytest_command

_BLOCK = re.compile(r"(?<=^```console\n).*?(?=^```$)", re.DOTALL | re.MULTILINE)
_HERE_DOCUMENT = re.compile(r"<<'?(\w+)'?")
_ANY_DECIMAL = re.compile(r"(?<![\w.])[-+]?\d+\.\d+(?!\w|\.\d)")
_DECIMALS = re.compile(r"(?<![\w.])\d+\.\d{2,}(?!\w|\.\d)")
_DURATION = re.compile(r"\bin \d+\.\d\ds(?: \(\d+:\d\d:\d\d\))?|(?<=members, )\d+ s$", re.MULTILINE)


@dataclass(frozen=True)
class Step:
    """A command of a page, the page's line on which it stands, and the output shown below it."""

    line: int
    command: str
    output: str


def fenced(page: str, language: str) -> list[str]:
    """The fenced blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


def read_steps(page: str, skip: Collection[str] = ()) -> list[Step]:
    """The commands of a page's console blocks, in order, without the blocks that begin with a line of `skip`.

    Raises:
        ValueError: output stands before any command.
    """
    blocks = [block for block in _BLOCK.finditer(page) if _first_line(block[0]) not in skip]
    return [step for block in blocks for step in _steps(block[0], page.count("\n", 0, block.start()))]


def _first_line(block: str) -> str:
    return block.partition("\n")[0]


def _steps(block: str, before: int) -> list[Step]:
    """Steps of one block that has `before` lines of the page above it."""
    lines = block.splitlines()
    steps: list[Step] = []
    place = 0
    while place < len(lines):
        if not lines[place].startswith("$ "):
            raise ValueError(f"line {before + place + 1}: output without a command above it")
        start, place = place, _end_of_command(lines, place)
        end = next((at for at in range(place, len(lines)) if lines[at].startswith("$ ")), len(lines))
        command = "\n".join(lines[start:place]).removeprefix("$ ")
        steps.append(Step(before + start + 1, command, "".join(f"{line}\n" for line in lines[place:end])))
        place = end
    return steps


def _end_of_command(lines: list[str], start: int) -> int:
    """The index after the last line of the command that begins at `start`."""
    opened = _HERE_DOCUMENT.search(lines[start])
    if opened:
        return lines.index(opened[1], start) + 1
    return next(at for at in range(start, len(lines)) if not lines[at].endswith("\\")) + 1


def rewritten(page: str, printed: list[str], skip: Collection[str] = ()) -> str:
    """The page with `printed` in place of what it shows, an entry a step; `ValueError` where that cannot be shown."""
    outputs = iter(printed)

    def block(found: re.Match[str]) -> str:
        if _first_line(found[0]) in skip:
            return found[0]
        return "".join(f"$ {step.command}\n{_as_shown(next(outputs))}" for step in _steps(found[0], 0))

    page = _BLOCK.sub(block, page)
    if [step.output for step in read_steps(page, skip)] != [_as_shown(output) for output in printed]:
        raise ValueError("an output looks like a command or like the end of a block")
    return page


def _as_shown(output: str) -> str:
    """Output without the spaces at the end of lines, which a page cannot keep, and with a last line that ends."""
    return "".join(f"{line.rstrip()}\n" for line in output.splitlines())


def difference(step: Step, printed: str, *, any_decimals: bool = False) -> str | None:
    """What `printed` has otherwise than the page: its first line that differs; `None` if there is none.

    With `any_decimals` numbers with decimals may be others: those of trained heads and samples move with the processor.
    """
    shown, seen = (_DURATION.sub("in a while", _as_shown(text)).splitlines() for text in (step.output, printed))
    if any_decimals:
        shown, seen = ([" ".join(_ANY_DECIMAL.sub("#", line).split()) for line in lines] for lines in (shown, seen))
    for place in range(max(len(shown), len(seen))):
        expected, got = ("".join(lines[place : place + 1]) for lines in (shown, seen))
        if place >= min(len(shown), len(seen)) or not _same(expected, got):
            first = step.command.splitlines()[0]
            return f"line {step.line}: $ {first}\n  shown:   {expected}\n  printed: {got}"
    return None


def _same(shown: str, printed: str) -> bool:
    """Whether two lines are the same but for the last digit of decimals, which may make a column wider."""
    if shown == printed:
        return True
    words = [" ".join(_DECIMALS.sub("#", line).split()) for line in (shown, printed)]
    numbers = [_DECIMALS.findall(line) for line in (shown, printed)]
    return bool(numbers[0]) and words[0] == words[1] and all(map(_close, *numbers))


def _close(shown: str, printed: str) -> bool:
    one, other = Decimal(shown), Decimal(printed)
    places = one.as_tuple().exponent
    return places == other.as_tuple().exponent and abs(one - other) <= Decimal((0, (1,), int(places)))


@dataclass
class Console:
    """A shell in a new folder with what a clone has at its top level, and `rlaif` and `pytest` of this checkout."""

    folder: Path
    environment: dict[str, str]
    status: int = field(default=0, init=False)

    @classmethod
    def fresh(cls, tmp_path: Path) -> Console:
        """Make the folder, in `tmp_path`."""
        folder, programs = tmp_path / "clone", tmp_path / "bin"
        for name in ("examples", "constitutions", "prompts"):
            shutil.copytree(ROOT / name, folder / name)
        programs.mkdir()
        tests, environment = pytest_command()
        # The sqlite3 shell is not everywhere; Python's module reads the same file.
        query = (
            "import sqlite3, sys\nfor row in sqlite3.connect(sys.argv[1]).execute(sys.argv[2]): print(*row, sep='|')"
        )
        python = {"sqlite3": [sys.executable, "-c", query], "python": [sys.executable]}
        for name, command in {"rlaif": rlaif_program(), "pytest": tests, **python}.items():
            (programs / name).write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
        for program in programs.iterdir():
            program.chmod(0o755)
        for colours in ("FORCE_COLOR", "PY_COLORS"):
            environment.pop(colours, None)
        path = f"{programs}{os.pathsep}{environment['PATH']}"
        return cls(folder, {**environment, "PATH": path, "COLUMNS": "80", "NO_COLOR": "1"})

    def run(self, command: str) -> str:
        """Run a command, in which `$?` is the last one's exit code; what it prints, stdout and stderr as they come."""
        if self.status:
            options, script = "-uc", f"(exit {self.status})\n{command}"
        else:
            options, script = "-euc", command
        done = subprocess.run(
            ["bash", "-o", "pipefail", options, script],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
        )
        self.status = done.returncode
        return done.stdout

    def follow(self, steps: list[Step]) -> list[str]:
        """Run a page's steps in order; one may fail only where `echo $?` comes next and so shows that it is meant."""
        printed = []
        for place, step in enumerate(steps):
            printed.append(self.run(step.command))
            meant = [after.command for after in steps[place + 1 : place + 2]] == ["echo $?"]
            assert self.status == 0 or meant, f"line {step.line}: $ {step.command}\n{printed[-1]}"
        return printed
