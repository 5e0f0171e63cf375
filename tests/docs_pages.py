"""The pages of the documentation: which code blocks they have, and how a page is followed from top to bottom.

A `console` block is run command by command and its output compared (`tests/console.py`). A `python` block is run as a
program; a `text` block right below it is what it prints. A `yaml` block is a constitution, a `json` block JSON. Nothing
else may stand on a page unless `NOT_RUN` in `tests/test_docs_pages.py` says why.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from tests.console import Console, Step, difference, read_steps, rewritten
from tests.stub_server import RunningStub

STUB = "http://127.0.0.1:8000"


@dataclass(frozen=True)
class Block:
    """A code block: the page's line on which its text begins, its language ("" for none), and the text."""

    line: int
    language: str
    text: str

    @property
    def first_line(self) -> str:
        """By which a block is named."""
        return self.text.partition("\n")[0].strip()


def blocks_of(page: str) -> list[Block]:
    """Every code block of a page, fenced or indented, in order."""
    blocks = []
    for token in MarkdownIt().parse(page):
        if token.type in ("fence", "code_block") and token.map:
            fenced = token.type == "fence"
            blocks.append(Block(token.map[0] + 1 + fenced, token.info.split(" ")[0] if fenced else "", token.content))
    return blocks


def programs_of(page: str, skip: Collection[str] = ()) -> list[tuple[Block, Block | None]]:
    """The Python blocks, each with the block below it that shows what it prints, if there is one."""
    lines, blocks = page.splitlines(), blocks_of(page)
    found: list[tuple[Block, Block | None]] = []
    for block, after in zip(blocks, [*blocks[1:], None], strict=True):
        if block.language != "python" or block.first_line in skip:
            continue
        end = block.line + block.text.count("\n")
        between = "".join(lines[end : after.line - 2]).strip() if after else "text"
        found.append((block, after if after and after.language == "text" and not between else None))
    return found


def program_steps(page: str, skip: Collection[str] = ()) -> list[Step]:
    """The Python blocks as commands."""
    return [
        Step(block.line, f"python - <<'END_OF_BLOCK'\n{block.text}END_OF_BLOCK", shown.text if shown else "")
        for block, shown in programs_of(page, skip)
    ]


def with_programs_shown(page: str, printed: list[str], skip: Collection[str] = ()) -> str:
    """The page with `printed` in the blocks below its programs, an entry a program."""
    lines = page.splitlines(keepends=True)
    for (_, shown), output in reversed([*zip(programs_of(page, skip), printed, strict=True)]):
        if shown:
            start = shown.line - 1
            lines[start : start + shown.text.count("\n")] = [f"{line.rstrip()}\n" for line in output.splitlines()]
    return "".join(lines)


def follow_page(path: Path, console: Console, *, skip: Collection[str] = (), any_decimals: bool = False) -> None:
    """Run what a page says to run, in its order, beside a server that stands in for a judge, and compare the output.

    `RLAIF_REWRITE_DOCS=1` writes what is printed into the page instead.

    Args:
        path: the page.
        console: where to run it.
        skip: first lines of blocks that are not run.
        any_decimals: numbers with decimals are not compared.
    """
    page = path.read_text(encoding="utf-8")
    commands, programs = read_steps(page, skip), program_steps(page, skip)
    steps = sorted([*commands, *programs], key=lambda step: step.line)
    with RunningStub() as stub:
        printed = console.follow([replace(step, command=step.command.replace(STUB, stub.url)) for step in steps])
    outputs = {step.line: text.replace(stub.url, STUB) for step, text in zip(steps, printed, strict=True)}
    if os.environ.get("RLAIF_REWRITE_DOCS") == "1":
        # From programs to commands: the one changes how many lines stand above the other.
        page = with_programs_shown(page, [outputs[step.line] for step in programs], skip)
        path.write_text(rewritten(page, [outputs[step.line] for step in commands], skip), encoding="utf-8")
        pytest.skip(f"{path.name} now shows what this run printed; read its difference, then run this again")
    compared = [step for step in steps if step not in programs or step.output]
    found = [difference(step, outputs[step.line], any_decimals=any_decimals) for step in compared]
    told = [text for text in found if text]
    assert not told, "\n".join([*told, "RLAIF_REWRITE_DOCS=1 writes what is printed now into the page."])


def rlaif_commands(text: str) -> list[str]:
    """The `rlaif …` commands of a block, continued lines joined."""
    joined = text.replace("\\\n", " ")
    return re.findall(r"^(?:\$ )?(rlaif .+)$", joined, re.MULTILINE)
