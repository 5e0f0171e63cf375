"""Constitutions: what loads, what is refused, and where each problem is said to be."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from rlaif import load_constitution
from rlaif.constitution import Constitution
from rlaif.constitution.load import MAX_BYTES, parse_constitution
from rlaif.errors import InputError

GOOD = """\
name: small
version: 1.0.0
objectives:
  helpful:
    weight: 0.6
    question: Which helps more?
    principles:
      - id: answers
        text: Prefer the answer.
      - id: short
        text: Prefer the short one.
        weight: 0
  honest:
    weight: 0.4
    question: Which is more honest?
    principles:
      - {id: true-things, text: Prefer what is true.}
aggregation:
  method: weighted
  floors: {honest: 0.2}
  by_tag:
    medical: {honest: 1}
    sums: {helpful: 0.5, honest: 0.5}
"""

FOLDED = """\
      - text: >-
          Prefer what
          is true.
        id: true-things
"""
SWAPPED = "    question: Which helps more?\n    weight: 0.6\n"

BY_TAG = ("    medical: {honest: 1}\n", "    sums: {helpful: 0.5, honest: 0.5}\n")


def problems(text: str) -> list[str]:
    """Each line of the error, without the file's name."""
    with pytest.raises(InputError) as caught:
        parse_constitution(text, "c.yaml")
    lines = str(caught.value).splitlines()
    assert all(line.startswith("c.yaml:") for line in lines)
    return [line.removeprefix("c.yaml:") for line in lines]


def test_the_shipped_constitution() -> None:
    hhh = load_constitution("hhh")
    assert list(hhh.objectives) == ["helpfulness", "harmlessness", "honesty"]
    assert sum(objective.weight for objective in hhh.objectives.values()) == pytest.approx(1)
    principles = [principle for objective in hhh.objectives.values() for principle in objective.principles]
    assert len({principle.id for principle in principles}) == len(principles) == 6
    assert all(len(principle.cases) >= 2 for principle in principles)
    assert hhh.aggregation.floors == {"harmlessness": 0.2}


def test_a_file_is_loaded_like_a_shipped_one(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("\ufeff" + GOOD, encoding="utf-8")
    loaded = load_constitution(tmp_path / "mine.yaml")
    assert loaded == parse_constitution(GOOD, "c.yaml")
    assert [principle.id for principle in loaded.objectives["helpful"].active] == ["answers"]


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (("name: small\n", "# Ours.\nname:   small   # the name\n"), True),
        (("      - {id: true-things, text: Prefer what is true.}", FOLDED), True),
        (("floors: {honest: 0.2}", "floors:\n    honest: 2.0e-1"), True),
        (("    weight: 0.6\n    question: Which helps more?\n", SWAPPED), True),
        (("sums: {helpful: 0.5, honest: 0.5}", "sums: {honest: 0.5, helpful: 0.5}"), True),
        # The first entry that matches wins, so their order is a rule.
        ((BY_TAG[0] + BY_TAG[1], BY_TAG[1] + BY_TAG[0]), False),
        (("weight: 0.6", "weight: 0.5"), False),
        (("Prefer the answer.", "Prefer the answer!"), False),
        (("version: 1.0.0", "version: 1.0.1"), False),
        (("medical: {honest: 1}", "medical: {honest: 0.5}"), False),
    ],
)
def test_the_digest_follows_from_the_rules_and_not_from_the_layout(change: tuple[str, str], same: bool) -> None:
    changed = GOOD.replace(*change)
    assert changed != GOOD
    before, after = parse_constitution(GOOD, "c.yaml").digest, parse_constitution(changed, "c.yaml").digest
    assert (before == after) == same


ONE_PROBLEM: dict[str, tuple[tuple[str, str], str]] = {
    "unknown key": (
        ("version: 1.0.0", "verison: 1.0.0"),
        "2: unknown key verison; known keys are name, version, description, extends, objectives, aggregation. "
        "Did you mean 'version'?",
    ),
    "unknown key of a principle": (
        ("        text: Prefer the short one.\n", "        text: Prefer the short one.\n        wieght: 2\n"),
        "12: unknown key wieght in principle 'short'; known keys are id, text, weight, source, tags, "
        "cases. Did you mean 'weight'?",
    ),
    "unknown key of the aggregation": (
        ("method: weighted", "methode: weighted"),
        "19: unknown key methode in aggregation; known keys are method, floors, by_tag. Did you mean 'method'?",
    ),
    "missing question": (
        ("    question: Which is more honest?\n", ""),
        "13: question in objectives.honest is missing; add it.",
    ),
    "negative weight of an objective": (
        ("weight: 0.4", "weight: -1"),
        "14: weight in objectives.honest is -1; it must be 0 or more.",
    ),
    "negative weight of a principle": (
        ("weight: 0\n", "weight: -1\n"),
        "12: weight in principle 'short' is -1; it must be 0 or more. Use 0 to turn the principle off.",
    ),
    "floor above 1": (
        ("floors: {honest: 0.2}", "floors: {honest: 1.5}"),
        "20: honest in aggregation.floors is 1.5; it must be 1 or less.",
    ),
    "principle id used twice": (
        ("id: true-things", "id: answers"),
        "17: principle id 'answers' is used on line 8 too; give each its own id.",
    ),
    "floor of an unknown objective": (
        ("floors: {honest: 0.2}", "floors: {onest: 0.2}"),
        "20: floors names 'onest'; the objectives are helpful, honest. Did you mean 'honest'?",
    ),
    "by_tag with an unknown objective": (
        ("sums: {helpful: 0.5", "sums: {harmless: 0.5"),
        "23: by_tag names 'harmless'; the objectives are helpful, honest.",
    ),
    "key given twice": (
        ("    weight: 0.4\n", "    weight: 0.4\n    weight: 0.5\n"),
        "15: key 'weight' is given twice; give each key once.",
    ),
    "objective given twice": (
        ("  honest:\n", "  helpful:\n"),
        "13: key 'helpful' is given twice; give each key once.",
    ),
    "tab": (
        ("    weight: 0.4\n", "\tweight: 0.4\n"),
        "14: a tab where YAML takes spaces only; put spaces.",
    ),
    "a colon in a text": (
        ("question: Which is more honest?", "question: Say: which is more honest?"),
        "15: a colon where no key can stand; put a text that holds ': ' in quotes, and start the keys of a mapping in "
        "one column.",
    ),
    "a bracket that stays open": (
        ("weight: 0.4\n", "weight: [0.4\n"),
        "15: ] or a comma is missing; close what is opened on line 14.",
    ),
    "a quote that stays open": (
        ("weight: 0.4\n", 'weight: "0.4\n'),
        "14: a quote is opened here and never closed; close it.",
    ),
    "a value that begins with a sign of YAML's": (
        ("weight: 0.4\n", "weight: @0.4\n"),
        "14: a value cannot begin with @; put a text that begins with @ in quotes.",
    ),
    "a line that is indented by itself": (
        ("    question: Which is more", "   question: Which is more"),
        "15: this line fits none above it; start the keys of a mapping, or the dashes of a list, in one column.",
    ),
    "an escape that is none": (
        ("weight: 0.4\n", 'weight: "\\q"\n'),
        "14: \\q means nothing in double quotes; use single quotes.",
    ),
    "control character": (
        ("Which is more", "Which \x07 is more"),
        "15: non-printing character U+0007; remove it.",
    ),
    "unknown alias": (
        ("weight: 0.4", "weight: *w"),
        "14: *w refers to no anchor; put a text that begins with * in quotes.",
    ),
    "number for a text": (
        ("version: 1.0.0", "version: 1.0"),
        "2: version is 1.0, which YAML reads as a number; put it in quotes.",
    ),
    "text for a number": (
        ("weight: 0.4", "weight: heavy"),
        "14: weight in objectives.honest is 'heavy'; expected a number.",
    ),
    "infinite weight": (
        ("weight: 0.4", "weight: .inf"),
        "14: weight in objectives.honest is inf; expected a finite number.",
    ),
    "empty text": (
        ("text: Prefer the answer.", 'text: " "'),
        "9: text in principle 'answers' is empty; it needs at least one entry or some text.",
    ),
    "principle as a text": (
        ("{id: true-things, text: Prefer what is true.}", "Prefer what is true."),
        "17: principle 1 of honest is 'Prefer what is true.'; expected a mapping with the keys id, text, weight, "
        "source, tags, cases.",
    ),
    "name with a space": (
        ("  honest:\n", "  ho nest:\n"),
        "13: ho nest in objectives is 'ho nest'; use letters, digits, - and _ only.",
    ),
    "every principle turned off": (
        ("text: Prefer the answer.", "text: Prefer the answer.\n        weight: 0"),
        "4: helpful in objectives: every principle has weight 0; give at least one a weight above 0.",
    ),
}


@pytest.mark.parametrize("problem", ONE_PROBLEM)
def test_a_problem_is_named_with_its_line(problem: str) -> None:
    change, expected = ONE_PROBLEM[problem]
    changed = GOOD.replace(*change)
    assert changed != GOOD
    found = problems(changed)
    # A renamed objective is missing where the aggregation names it, too.
    assert found[0] == expected
    assert all("names 'honest'" in other for other in found[1:])


def test_every_objective_turned_off() -> None:
    off = GOOD.replace("weight: 0.6", "weight: 0").replace("weight: 0.4", "weight: 0")
    assert problems(off) == ["3: objectives: every objective has weight 0; give at least one a weight above 0."]


def test_all_problems_are_told_at_once_in_the_order_of_the_file() -> None:
    broken = GOOD
    for change in (
        ("version:", "verison:"),
        ("    question: Which helps more?\n", ""),
        ("weight: 0.4", "weight: -1"),
        ("id: true-things", "id: answers"),
        ("floors: {honest: 0.2}", "floors: {honest: 1.5}"),
        ("sums: {helpful: 0.5", "sums: {harmless: 0.5"),
    ):
        broken = broken.replace(*change)
    found = problems(broken)
    lines = [int(line.partition(":")[0]) for line in found]
    assert lines == [2, 4, 13, 16, 19, 22]
    facts = ("unknown key", "is missing", "is -1", "is used on line 7 too", "is 1.5", "names 'harmless'")
    assert [fact in line for fact, line in zip(facts, found, strict=True)] == [True] * 6


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("", "1: the file holds no mapping; expected the keys name, objectives, aggregation."),
        ("# Nothing yet.\n", "1: the file holds no mapping; expected the keys name, objectives, aggregation."),
        ("- a\n- b\n", "1: the file holds no mapping; expected the keys name, objectives, aggregation."),
        ("name: x\n", "1: objectives is missing; add it."),
        ("name: x\nobjectives: {}\n", "2: objectives is empty; it needs at least one entry or some text."),
        ("name: x\nobjectives: 3\n", "2: objectives is 3; expected a mapping."),
    ],
)
def test_files_that_hold_no_constitution(text: str, fact: str) -> None:
    assert problems(text) == [fact]


def test_a_file_of_nested_aliases_is_refused() -> None:
    letters = "abcdefgh"
    bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
    for before, name in pairwise(letters):
        bomb += f"{name}: &{name} [{','.join([f'*{before}'] * 10)}]\n"
    assert problems(bomb) == ["4: the file unfolds to over 10,000 values; split it, or remove repeated YAML aliases."]


@pytest.mark.parametrize("opening", ["[", "{a: "])
@pytest.mark.parametrize("depth", [60, 120, 180, 220, 260, 320, 1000])
def test_deep_nesting_is_an_error_like_any_other(opening: str, depth: int) -> None:
    closing = "]" if opening == "[" else "}"
    found = problems(f"name: {opening * depth}{closing * depth}\n")
    assert found[0].startswith(("1: name is ", "1: nested too deeply"))


def test_files_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(GOOD.encode().replace(b"Which is more honest?", b"Which is m\xf6re honest?"))
    with pytest.raises(InputError, match=r"c\.yaml:15: invalid UTF-8; save the file as UTF-8\."):
        load_constitution(path)
    path.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(InputError, match=r"c\.yaml:1: 262,145 bytes; a constitution, .* at most 262,144 bytes\."):
        load_constitution(path)


def test_names_that_are_no_file(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"hhhh: no such file, and not one of the shipped constitutions: .*hhh.* Did you"
    ):
        load_constitution("hhhh")
    with pytest.raises(InputError, match=r"not a file; give a \.yaml file or one of .*hhh"):
        load_constitution(tmp_path)


def test_yaml_can_not_run_code(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with pytest.raises(InputError, match=r"c\.yaml:1: name is a list; expected a text"):
        parse_constitution(f"name: !!python/object/apply:os.mkdir ['{mark}']\nobjectives: {{}}\n", "c.yaml")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("tags", "weights"),
    [
        ({}, {"helpful": 0.6, "honest": 0.4}),
        ({"medical": True}, {"helpful": 0.0, "honest": 1.0}),
        ({"medical": False}, {"helpful": 0.6, "honest": 0.4}),
        ({"medical": None}, {"helpful": 0.6, "honest": 0.4}),
        ({"domain": "medical"}, {"helpful": 0.0, "honest": 1.0}),
        ({"domain": "sums"}, {"helpful": 0.5, "honest": 0.5}),
        ({"domain": "law"}, {"helpful": 0.6, "honest": 0.4}),
        # The first entry of the constitution that matches, whatever the order of the tags.
        ({"sums": True, "medical": True}, {"helpful": 0.0, "honest": 1.0}),
    ],
)
def test_weights_by_tag(tags: dict[str, object], weights: dict[str, float]) -> None:
    assert parse_constitution(GOOD, "c.yaml").weights_for(tags) == weights


def test_a_constitution_can_not_be_changed() -> None:
    constitution = parse_constitution(GOOD, "c.yaml")
    with pytest.raises(ValidationError, match="frozen"):
        constitution.name = "other"  # type: ignore[misc]
    values: dict[str, Any] = {**constitution.model_dump(), "extra": 1}
    with pytest.raises(ValidationError, match="extra"):
        Constitution.model_validate(values)
