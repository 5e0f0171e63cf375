"""`rlaif constitution show` and `diff`: what changed in the rules. Which labels flip is in `test_label_flips.py`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from rlaif.constitution.diff import ConstitutionDiff, diff_constitutions
from rlaif.constitution.load import load_constitution, parse_constitution
from tests.conftest import ROOT, Cli
from tests.test_constitution import GOOD as OLD

NEW = """\
name: small
version: 1.1.0
objectives:
  helpful:
    weight: 0.5
    question: Which helps the person more?
    principles:
      - id: answers
        text: |-
          Prefer the whole answer.
          Nothing else.
      - id: clear
        text: Prefer the clear one.
        weight: 2
  kind:
    weight: 0.5
    question: Which is kinder?
    principles:
      - {id: no-insults, text: Prefer the one without insults.}
aggregation:
  method: pareto
  floors: {kind: 0.25}
  by_tag:
    sums: {helpful: 1}
"""

PRINTED = """\
version: 1.0.0 -> 1.1.0
helpful:
  weight: 0.6 -> 0.5
  question
    - Which helps more?
    + Which helps the person more?
  short removed, weight 0
    - Prefer the short one.
  clear added, weight 2
    + Prefer the clear one.
  answers reworded
    - Prefer the answer.
    + Prefer the whole answer.
    + Nothing else.
honest: removed
  weight: 0.4 -> none
  question
    - Which is more honest?
  true-things removed
    - Prefer what is true.
kind: added
  weight: none -> 0.5
  question
    + Which is kinder?
  no-insults added
    + Prefer the one without insults.
aggregation:
  method: weighted -> pareto
  floors.honest: 0.2 -> none
  floors.kind: none -> 0.25
  by_tag.medical: honest 1 -> none
  by_tag.sums: helpful 0.5, honest 0.5 -> helpful 1
"""


def diff_of(before: str, after: str) -> ConstitutionDiff:
    """The difference that one replacement in OLD makes."""
    changed = OLD.replace(before, after)
    assert changed != OLD
    return diff_constitutions(parse_constitution(OLD, "old.yaml"), parse_constitution(changed, "new.yaml"))


TWO_TAGS = "    medical: {honest: 1}\n    sums: {helpful: 0.5, honest: 0.5}\n"
SWAPPED_TAGS = "    sums: {helpful: 0.5, honest: 0.5}\n    medical: {honest: 1}\n"
PRINCIPLES = """\
      - id: answers
        text: Prefer the answer.
      - id: short
        text: Prefer the short one.
        weight: 0
"""
SWAPPED_PRINCIPLES = """\
      - id: short
        text: Prefer the short one.
        weight: 0
      - id: answers
        text: Prefer the answer.
"""
NOTHING: dict[str, Any] = {"about": [], "objectives": {}, "aggregation": []}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("name: small\n", "# Ours.\nname:   small\n"), {}),
        (("floors: {honest: 0.2}", "floors: {honest: 2.0e-1}"), {}),
        (("name: small", "name: tiny"), {"about": [("name", "small", "tiny")]}),
        (
            ("version: 1.0.0", "description: Ours."),
            {"about": [("version", "1.0.0", "0.0.0"), ("description", "", "Ours.")]},
        ),
        (("weight: 0.6", "weight: 0.7"), {"objectives": {"helpful": {"weight": ("weight", 0.6, 0.7)}}}),
        (
            ("Which helps more?", "Which helps?"),
            {"objectives": {"helpful": {"question": ("question", "Which helps more?", "Which helps?")}}},
        ),
        (
            ("Prefer the answer.", "Prefer the answer!"),
            {"objectives": {"helpful": {"reworded": [("answers", "Prefer the answer.", "Prefer the answer!")]}}},
        ),
        (("        weight: 0\n", ""), {"objectives": {"helpful": {"reweighted": [("short", 0.0, 1.0)]}}}),
        (
            ("id: answers", "id: replies"),
            {
                "objectives": {
                    "helpful": {
                        "added": [{"id": "replies", "text": "Prefer the answer.", "weight": 1.0}],
                        "removed": [{"id": "answers", "text": "Prefer the answer.", "weight": 1.0}],
                    }
                }
            },
        ),
        (
            ("id: answers\n", "id: answers\n        source: ours\n        tags: [x]\n"),
            {"objectives": {"helpful": {"annotated": {"answers": ["source", "tags"]}}}},
        ),
        (
            ("id: answers\n", "id: answers\n        cases: [{prompt: p, better: b, worse: w}]\n"),
            {"objectives": {"helpful": {"annotated": {"answers": ["cases"]}}}},
        ),
        (
            (PRINCIPLES, SWAPPED_PRINCIPLES),
            {"objectives": {"helpful": {"order": ("order", ["answers", "short"], ["short", "answers"])}}},
        ),
        (("method: weighted", "method: pareto"), {"aggregation": [("method", "weighted", "pareto")]}),
        (("floors: {honest: 0.2}", "floors: {}"), {"aggregation": [("floors.honest", 0.2, None)]}),
        (
            ("floors: {honest: 0.2}", "floors: {honest: 0.2, helpful: 0}"),
            {"aggregation": [("floors.helpful", None, 0.0)]},
        ),
        (
            ("medical: {honest: 1}", "medical: {}"),
            {"aggregation": [("by_tag.medical", {"honest": 1.0}, {})]},
        ),
        (
            (TWO_TAGS, SWAPPED_TAGS),
            {"aggregation": [("by_tag order", ["medical", "sums"], ["sums", "medical"])]},
        ),
        # A tag behind the others is only added; one before them can take their pairs, so its place is told.
        ((TWO_TAGS, TWO_TAGS + "    law: {}\n"), {"aggregation": [("by_tag.law", None, {})]}),
        (
            (TWO_TAGS, "    law: {}\n" + TWO_TAGS),
            {
                "aggregation": [
                    ("by_tag.law", None, {}),
                    ("by_tag order", ["medical", "sums"], ["law", "medical", "sums"]),
                ]
            },
        ),
    ],
)
def test_each_change_is_told_and_nothing_else(change: tuple[str, str], expected: dict[str, Any]) -> None:
    def plain(value: Any) -> Any:
        """Changes as (what, before, after), and no empty entries."""
        if isinstance(value, dict) and value.keys() == {"what", "before", "after"}:
            return (value["what"], value["before"], value["after"])
        if isinstance(value, dict):
            return {key: plain(each) for key, each in value.items()}
        return [plain(each) for each in value] if isinstance(value, list) else value

    found = diff_of(*change)
    value = plain(found.model_dump(mode="json"))
    for name, objective in value["objectives"].items():
        value["objectives"][name] = {key: each for key, each in objective.items() if each not in (None, [], {})}
    assert {key: value[key] for key in NOTHING} == {**NOTHING, **expected}
    assert (found.objectives_added, found.objectives_removed) == ((), ())
    # The same, exactly when the digest says so.
    assert found.same == (expected == {}) == (found.old == found.new)


def test_a_principle_that_moved_is_removed_and_added() -> None:
    moved = OLD.replace("      - id: short\n        text: Prefer the short one.\n        weight: 0\n", "")
    moved = moved.replace(
        "      - {id: true", "      - {id: short, text: Prefer the short one., weight: 0}\n      - {id: true"
    )
    found = diff_constitutions(parse_constitution(OLD, "old.yaml"), parse_constitution(moved, "new.yaml"))
    assert [rule.id for rule in found.objectives["helpful"].removed] == ["short"]
    assert [rule.id for rule in found.objectives["honest"].added] == ["short"]
    assert found.objectives["honest"].order is None


def write_constitutions(folder: Path) -> tuple[Path, Path]:
    """Write OLD and NEW."""
    old, new = folder / "old.yaml", folder / "new.yaml"
    old.write_text(OLD, encoding="utf-8")
    new.write_text(NEW, encoding="utf-8")
    return old, new


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """OLD and NEW in files."""
    return write_constitutions(tmp_path)


def test_the_difference_is_printed(files: tuple[Path, Path], rlaif: Cli) -> None:
    done = rlaif("constitution", "diff", *files)
    assert (done.returncode, done.stderr) == (0, "")
    first, _, rest = done.stdout.partition("\n")
    assert first == " -> ".join(load_constitution(file).reference for file in files)
    assert re.fullmatch(r"small@[0-9a-f]{12} -> small@[0-9a-f]{12}", first)
    assert rest == PRINTED
    value = json.loads(rlaif("constitution", "diff", *files, "--json").stdout)
    assert (value["objectives_added"], value["objectives_removed"]) == (["kind"], ["honest"])
    assert value["same"] is False
    assert value["flips"] is None
    assert value["objectives"]["helpful"]["reworded"] == [
        {"what": "answers", "before": "Prefer the answer.", "after": "Prefer the whole answer.\nNothing else."}
    ]


def test_a_constitution_and_itself(rlaif: Cli) -> None:
    reference = load_constitution("hhh").reference
    done = rlaif("constitution", "diff", "hhh", ROOT / "constitutions" / "hhh.yaml")
    assert done.stdout == f"{reference} -> {reference}\nNo change: both hold the same rules.\n"


def test_what_a_terminal_would_obey_is_escaped(files: tuple[Path, Path], rlaif: Cli) -> None:
    old, new = files
    new.write_text(OLD.replace("Prefer the answer.", '"Prefer\\e[2Jit."').replace("1.0.0", '"1\\n2"'), encoding="utf-8")
    done = rlaif("constitution", "diff", old, new)
    assert 'version: 1.0.0 -> "1\\n2"\n' in done.stdout
    assert "    + Prefer\\x1b[2Jit.\n" in done.stdout
    assert "\\x1b" in rlaif("constitution", "show", new).stdout


def test_show(files: tuple[Path, Path], rlaif: Cli) -> None:
    old, _ = files
    done = rlaif("constitution", "show", old)
    assert done.stdout.splitlines() == [
        f"{load_constitution(old).reference}, version 1.0.0",
        "",
        "helpful, weight 0.6: Which helps more?",
        "  answers: Prefer the answer.",
        "  short (turned off): Prefer the short one.",
        "",
        "honest, weight 0.4: Which is more honest?",
        "  true-things: Prefer what is true.",
        "",
        "aggregation: weighted",
        "  floors: honest 0.2",
        "  by_tag medical: honest 1",
        "  by_tag sums: helpful 0.5, honest 0.5",
    ]
    value = json.loads(rlaif("constitution", "show", "hhh", "--json").stdout)
    assert list(value["objectives"]) == ["helpfulness", "harmlessness", "honesty"]
    assert value["digest"] == load_constitution("hhh").digest


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["diff", "hhh", "hh"], "Error: hh: no such file, and not one of the shipped constitutions: "),
        (["show", "hh"], "Error: hh: no such file, and not one of the shipped constitutions: "),
        (["diff", "hhh", "{broken}"], "Error: {broken}:5: weight in objectives.helpful is -1; it must be 0 or more."),
        (["diff", "hhh", "hhh", "x"], "Error: 1 run given; give none or two, the one labelled under hhh and"),
        (["diff", "hhh", "hhh", "x", "y", "z"], "Error: 3 runs given; give none or two"),
    ],
)
def test_a_mistake_is_answered_by_one_line(arguments: list[str], expected: str, tmp_path: Path, rlaif: Cli) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text(OLD.replace("weight: 0.6", "weight: -1"), encoding="utf-8")
    done = rlaif("constitution", *(word.replace("{broken}", str(broken)) for word in arguments))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(expected.replace("{broken}", str(broken)))
    assert done.stderr.count("\n") == 1
