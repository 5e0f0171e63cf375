"""Mutated constitutions: whatever the bytes, there are findings or the file loads, at once, and both agree.

`RLAIF_FUZZ=20000 pytest tests/test_constitution_fuzz.py` tries as many; each is made from its number alone, so a
failure names the one to look at.
"""

from __future__ import annotations

import os
import random
import re
import time
import traceback
from pathlib import Path

import pytest

from rlaif.constitution.check import check_file
from rlaif.constitution.lint import CODES, lint_constitution
from rlaif.constitution.load import load_constitution
from rlaif.errors import InputError
from tests.broken_constitutions import corpus
from tests.conftest import ROOT

TRIES = int(os.environ.get("RLAIF_FUZZ", "1500"))
PARTS = 4
# Seconds of work that only a search without bound takes; of this process, whatever else the machine does.
SLOW = 20.0

SEEDS = [path.read_bytes() for path in sorted((ROOT / "constitutions").glob("*.yaml"))]
SEEDS += [broken.text.encode() for broken in corpus() if " + " not in broken.name]
SEEDS += [
    b"extends: hhh\nname: mine\nobjectives:\n  honesty:\n    principles:\n      - {id: no-falsehood, weight: 0}\n"
]

TOKENS = [
    *(
        b"[",
        b"]",
        b"{",
        b"}",
        b"{{",
        b"- ",
        b"-",
        b": ",
        b":",
        b"? ",
        b"# ",
        b"&a ",
        b"*a",
        b"*a ",
        b"<<: *a",
        b"!!str ",
    ),
    *(
        b"!!python/object:os.system ",
        b"!!binary ",
        b"!!set ",
        b"!x ",
        b"! ",
        b"|\n",
        b">-\n",
        b"|9\n",
        b"'",
        b'"',
        b"\\",
    ),
    *(b"\t", b"\r", b"\r\n", b"\n", b"\n\n", b" ", b"      ", b"---\n", b"...\n", b"%YAML 1.1\n", b"%TAG ! x\n", b"\0"),
    *(b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\xe2\x80\x8b", b"\xe2\x80\xae", b"\xe2\x80\xa8", b"\xc2\x85", b"\x1b["),
    *(b"~", b"null", b"true", b"yes", b"-1", b"1e999", b".nan", b".inf", b"0x1f", b"9" * 400, b"2001-01-01", b"1:30"),
    *(b"id: ", b"text: ", b"weight: ", b"cases: ", b"extends: hhh\n", b"extends: [hhh, honesty]\n", b"objectives:\n"),
    *(b"aggregation: {floors: {honesty: 2}}\n", b"tags: [a, a]\n", "\u0430".encode(), "\U0001f468\u200d".encode()),
]


def mutated(number: int) -> bytes:
    """Make the file of this number: one to five changes to one of the seeds."""
    draw = random.Random(number)
    data = draw.choice(SEEDS)
    for _ in range(draw.randint(1, 5)):
        data = CHANGES[draw.randrange(len(CHANGES))](draw, data)
    return data


def flip_bytes(draw: random.Random, data: bytes) -> bytes:
    changed = bytearray(data or b"x")
    for _ in range(draw.randint(1, 8)):
        changed[draw.randrange(len(changed))] = draw.randrange(256)
    return bytes(changed)


def insert_token(draw: random.Random, data: bytes) -> bytes:
    place = draw.randint(0, len(data))
    return data[:place] + draw.choice(TOKENS) * draw.choice((1, 1, 1, 2, 40)) + data[place:]


def replace_word(draw: random.Random, data: bytes) -> bytes:
    words = [match.span() for match in re.finditer(rb"[^\s:,\[\]{}]+", data)]
    if not words:
        return insert_token(draw, data)
    start, end = draw.choice(words)
    return data[:start] + draw.choice([*TOKENS, data[slice(*draw.choice(words))]]) + data[end:]


def cut(draw: random.Random, data: bytes) -> bytes:
    start = draw.randint(0, len(data))
    return data[:start] + data[start + draw.randint(1, 60) :]


def change_lines(draw: random.Random, data: bytes) -> bytes:
    """Remove, double, swap or indent lines."""
    lines = data.splitlines(keepends=True) or [b"\n"]
    one, other = draw.randrange(len(lines)), draw.randrange(len(lines))
    kind = draw.randrange(5)
    if kind == 0:
        del lines[one : one + draw.randint(1, 4)]
    elif kind == 1:
        lines[other:other] = lines[one : one + draw.randint(1, 6)]
    elif kind == 2:
        lines[one], lines[other] = lines[other], lines[one]
    elif kind == 3:
        lines[one] = b" " * draw.randint(1, 5) + lines[one]
    else:
        lines[one] = lines[one].lstrip(b" ")
    return b"".join(lines)


def splice(draw: random.Random, data: bytes) -> bytes:
    other = draw.choice(SEEDS)
    return data[: draw.randint(0, len(data))] + other[draw.randint(0, len(other)) :]


CHANGES = (flip_bytes, insert_token, insert_token, replace_word, replace_word, cut, change_lines, change_lines, splice)


def trouble_with(path: Path, data: bytes) -> str | None:
    """What the linter does with a file that it must not do."""
    path.write_bytes(data)
    start = time.process_time()
    try:
        findings = lint_constitution(path)
    except Exception:
        return traceback.format_exc()
    seconds = time.process_time() - start
    if seconds > SLOW:
        return f"{seconds:.2f} s"
    if not all(each.code in CODES and str(each).isprintable() and each.line >= 1 for each in findings):
        return f"odd findings: {findings}"
    errors = [each for each in findings if each.severity == "error"]
    try:
        load_constitution(path)
    except InputError as error:
        if len(str(error).splitlines()) != len(errors) or not errors:
            return f"the loader says {error}, the linter {errors}"
    except Exception:
        return traceback.format_exc()
    else:
        if errors:
            return f"it loads in spite of {errors}"
    return None


@pytest.mark.parametrize("part", range(PARTS))
def test_mutated_files_give_findings_or_load(part: int, tmp_path: Path) -> None:
    path = tmp_path / "mutated.yaml"
    for number in range(part, TRIES, PARTS):
        problem = trouble_with(path, mutated(number))
        assert problem is None, f"file {number}: {problem}"


def test_the_mutations_reach_both_ends(tmp_path: Path) -> None:
    path = tmp_path / "mutated.yaml"
    ends = set()
    for number in range(80):
        path.write_bytes(mutated(number))
        checked = check_file(path)
        ends.add((checked.tree is not None, checked.constitution is not None))
    # No YAML, YAML that is no constitution, and constitutions.
    assert ends == {(False, False), (True, False), (True, True)}
