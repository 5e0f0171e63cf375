"""`extends`: what a child overrides, what it inherits, and where problems are said to be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlaif import load_constitution
from rlaif.constitution.extends import MAX_CHAIN
from rlaif.constitution.lint import lint_constitution
from rlaif.errors import InputError
from tests.conftest import Cli
from tests.patience import ends

BASE = """\
name: base
version: 1.0.0
description: The base.
objectives:
  helpful:
    weight: 0.6
    question: Which response helps more?
    principles:
      - id: answers
        text: Prefer the response that does what was asked.
        cases: [{prompt: What is 12 x 9?, better: It is 108., worse: I like numbers.}]
      - id: in-order
        text: Prefer the response that puts steps in their order.
        cases: [{prompt: How do I boil an egg?, better: Boil water first., worse: Peel it first.}]
  honest:
    weight: 0.4
    question: Which response is more honest?
    principles:
      - id: true-things
        text: Prefer the response that states nothing false.
        cases: [{prompt: Who wrote Hamlet?, better: Shakespeare., worse: Dickens.}]
aggregation:
  method: weighted
  floors: {honest: 0.2, helpful: 0.1}
  by_tag:
    medical: {helpful: 0.3, honest: 0.7}
    sums: {helpful: 1}
"""


def write(folder: Path, **texts: str) -> Path:
    """Write `NAME.yaml` for each text; returns the first."""
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder / f"{next(iter(texts))}.yaml"


def problems(path: Path) -> list[tuple[str, int, str]]:
    """File, line and code of each finding; the loader agrees on whether there is an error."""
    findings = lint_constitution(path)
    errors = [each for each in findings if each.severity == "error"]
    if errors:
        with pytest.raises(InputError) as caught:
            load_constitution(path)
        assert str(caught.value).splitlines() == [f"{each.file}:{each.line}: {each.message}" for each in errors]
    else:
        load_constitution(path)
    return [(Path(each.file).name, each.line, each.code) for each in findings]


def test_a_child_that_changes_nothing_has_the_rules_of_its_parent(tmp_path: Path) -> None:
    child = write(tmp_path, child="name: base\nversion: 1.0.0\ndescription: The base.\nextends: base.yaml\n", base=BASE)
    assert problems(child) == []
    assert load_constitution(child) == load_constitution(tmp_path / "base.yaml")
    # extends is how a file is written, not what it says.
    assert load_constitution(child).digest == load_constitution(tmp_path / "base.yaml").digest


def test_what_a_child_gives_replaces_what_it_inherits(tmp_path: Path) -> None:
    child = write(
        tmp_path,
        child="""\
extends: base.yaml
name: child
objectives:
  kind:
    weight: 0.2
    question: Which response is kinder?
    principles:
      - {id: warm, text: Prefer the warm response., cases: [{prompt: Hi., better: Hello!, worse: What?}]}
  helpful:
    weight: 0.4
    principles:
      - {id: new, text: Prefer the response with an example., cases: [{prompt: A., better: B., worse: C.}]}
      - {id: in-order, weight: 0}
      - {id: answers, text: Prefer the response that answers.}
aggregation:
  floors: {honest: 0.3}
  by_tag:
    medical: {honest: 1}
    law: {kind: 0.5, honest: 0.5}
""",
        base=BASE,
    )
    assert problems(child) == []
    merged, base = load_constitution(child), load_constitution(tmp_path / "base.yaml")
    assert (merged.name, merged.version, merged.description) == ("child", "0.0.0", "")
    assert {name: each.weight for name, each in merged.objectives.items()} == {
        "helpful": 0.4,
        "honest": 0.4,
        "kind": 0.2,
    }
    assert merged.objectives["honest"] == base.objectives["honest"]
    helpful, before = merged.objectives["helpful"], base.objectives["helpful"]
    assert helpful.question == before.question
    assert [(each.id, each.text, each.weight) for each in helpful.principles] == [
        ("answers", "Prefer the response that answers.", 1.0),
        ("in-order", before.principles[1].text, 0.0),
        ("new", "Prefer the response with an example.", 1.0),
    ]
    assert helpful.principles[0].cases == before.principles[0].cases
    assert merged.aggregation.method == "weighted"
    assert merged.aggregation.floors == {"honest": 0.3, "helpful": 0.1}
    assert list(merged.aggregation.by_tag.items()) == [
        ("medical", {"honest": 1}),
        ("sums", {"helpful": 1}),
        ("law", {"kind": 0.5, "honest": 0.5}),
    ]


def test_a_shipped_constitution_is_extended_by_name(tmp_path: Path) -> None:
    child = write(
        tmp_path,
        child="extends: hhh\nname: mine\nobjectives:\n  harmlessness:\n    principles:\n"
        "      - {id: no-cruelty, weight: 0}\n",
    )
    assert problems(child) == []
    hhh, mine = load_constitution("hhh"), load_constitution(child)
    assert [each.id for each in mine.objectives["harmlessness"].active] == ["no-aid-to-harm"]
    assert mine.objectives["honesty"] == hhh.objectives["honesty"]
    # A file of the child's folder comes before a shipped one.
    (tmp_path / "hhh").write_text(BASE, encoding="utf-8")
    child.write_text("extends: hhh\nname: mine\n", encoding="utf-8")
    assert list(load_constitution(child).objectives) == ["helpful", "honest"]


def test_paths_go_from_the_file_that_names_them(tmp_path: Path) -> None:
    write(tmp_path / "team", base=BASE, middle="name: middle\nextends: base.yaml\n")
    child = write(tmp_path / "mine", child="name: child\nextends: ../team/middle.yaml\n")
    assert problems(child) == []
    assert list(load_constitution(child).objectives) == ["helpful", "honest"]


def test_of_several_parents_the_later_one_wins(tmp_path: Path) -> None:
    first = "name: a\nextends: base.yaml\nobjectives: {helpful: {weight: 0.7}, honest: {weight: 0.3}}\n"
    second = "name: b\nextends: base.yaml\nobjectives: {helpful: {question: Which is of more use?}}\n"
    texts = {"base": BASE, "first": first, "second": second}
    child = write(tmp_path, child="name: c\nextends: [second.yaml, first.yaml]\n", **texts)
    assert problems(child) == []
    helpful = load_constitution(child).objectives["helpful"]
    # What a parent inherits counts as its own: first.yaml says base.yaml's question again.
    assert (helpful.weight, helpful.question) == (0.7, "Which response helps more?")
    child.write_text("name: c\nextends: [first.yaml, second.yaml]\n", encoding="utf-8")
    helpful = load_constitution(child).objectives["helpful"]
    assert (helpful.weight, helpful.question) == (0.6, "Which is of more use?")


def test_a_problem_is_told_where_the_value_stands(tmp_path: Path) -> None:
    base = BASE.replace("weight: 0.4", "weight: -1").replace("nothing false", "nothing {{ false }}")
    child = write(
        tmp_path,
        child="name: child\nextends: base.yaml\nobjectives:\n  helpful:\n    wieght: 0.5\n    principles:\n"
        "      - {id: answers, weight: -2}\n      - {id: in-ordr, weight: 0}\n",
        base=base,
    )
    assert problems(child) == [
        ("child.yaml", 3, "weights-sum"),
        ("child.yaml", 5, "unknown-key"),
        ("child.yaml", 7, "negative-weight"),
        ("child.yaml", 8, "missing-key"),
        ("base.yaml", 16, "negative-weight"),
        ("base.yaml", 20, "template-syntax"),
    ]
    told = [each.message for each in lint_constitution(child)]
    assert told[3].startswith("text in principle 'in-ordr' is missing; add it. No inherited principle has")
    assert told[3].endswith("Did you mean 'in-order'?")


def test_an_objective_whose_name_is_misspelt(tmp_path: Path) -> None:
    child = write(tmp_path, child="name: c\nextends: base.yaml\nobjectives:\n  honset: {weight: 0.1}\n", base=BASE)
    findings = [each for each in lint_constitution(child) if each.code == "missing-key"]
    rest = "add it. No inherited objective has this name. Did you mean 'honest'?"
    assert [(each.line, each.message) for each in findings] == [
        (4, f"{key} in objectives.honset is missing; {rest}") for key in ("question", "principles")
    ]


def test_a_principle_cannot_change_its_objective(tmp_path: Path) -> None:
    moved = "objectives:\n  honest:\n    principles:\n      - {id: answers, text: Prefer it.}\n"
    child = write(tmp_path, child=f"name: c\nextends: base.yaml\n{moved}", base=BASE)
    assert ("child.yaml", 6, "duplicate-id") in problems(child)
    (twice,) = (each for each in lint_constitution(child) if each.code == "duplicate-id")
    assert twice.message == f"principle id 'answers' is used in {tmp_path / 'base.yaml'}:9 too; give each its own id."


def test_an_id_that_the_child_gives_twice(tmp_path: Path) -> None:
    twice = "      - {id: answers, weight: 2}\n      - {id: answers, text: Prefer this one.}\n"
    child = write(
        tmp_path, child=f"name: c\nextends: base.yaml\nobjectives:\n  helpful:\n    principles:\n{twice}", base=BASE
    )
    assert ("child.yaml", 7, "duplicate-id") in problems(child)


@pytest.mark.parametrize(
    ("files", "circle", "line"),
    [
        ({"a": "name: a\nextends: a.yaml\n"}, "a.yaml -> a.yaml", ("a.yaml", 2)),
        (
            {
                "a": "extends: b.yaml\nname: a\n",
                "b": "name: b\nextends:\n  - c.yaml\n",
                "c": "name: c\nextends: b.yaml\n",
            },
            "b.yaml -> c.yaml -> b.yaml",
            ("c.yaml", 2),
        ),
    ],
)
def test_circles_are_refused_with_the_chain(
    tmp_path: Path, files: dict[str, str], circle: str, line: tuple[str, int]
) -> None:
    assert problems(write(tmp_path, **files)) == [(*line, "bad-extends")]
    (finding,) = lint_constitution(tmp_path / "a.yaml")
    named = circle.replace("a.yaml", str(tmp_path / "a.yaml"))
    for name in "bc":
        named = named.replace(f"{name}.yaml", str(tmp_path / f"{name}.yaml"))
    assert finding.message == f"extends goes in a circle: {named}; remove one of these."


def test_a_chain_ends_somewhere(tmp_path: Path) -> None:
    def chain(length: int) -> Path:
        texts = {f"f{number}": f"name: f{number}\nextends: f{number + 1}.yaml\n" for number in range(length - 1)}
        return write(tmp_path, **texts, **{f"f{length - 1}": BASE})

    assert problems(chain(MAX_CHAIN)) == []
    assert problems(chain(MAX_CHAIN + 1)) == [(f"f{MAX_CHAIN - 1}.yaml", 2, "bad-extends")]


def test_many_ways_to_one_parent_are_read_once(tmp_path: Path) -> None:
    # Two parents each, twelve levels: 4,096 ways to the base.
    texts = {}
    for number in range(12):
        parents = "base.yaml" if number == 11 else f"l{number + 1}.yaml, r{number + 1}.yaml"
        texts[f"l{number}"] = texts[f"r{number}"] = f"name: x\nextends: [{parents}]\n"
    assert problems(write(tmp_path, **texts, base=BASE)) == []


def test_the_files_are_together_no_larger_than_one_may_be(tmp_path: Path) -> None:
    padding = "# " + "x" * 100_000 + "\n"
    files = {"a": "name: a\nextends: b.yaml\n", "b": "name: b\nextends: c.yaml\n", "c": BASE}
    child = write(tmp_path, **{name: text + padding for name, text in files.items()})
    assert problems(child) == [("c.yaml", 1, "too-large")]


@ends()
def test_many_small_files_are_refused_at_once(tmp_path: Path) -> None:
    many = {f"f{number}": f"name: f{number}\n" for number in range(100)}
    # Seven lists of fourteen files each, under one.
    for group in range(7):
        parents = ", ".join(f"f{group * 14 + number}.yaml" for number in range(14))
        many[f"g{group}"] = f"name: g\nextends: [{parents}]\n"
    child = write(tmp_path, child=f"name: c\nextends: [{', '.join(f'g{group}.yaml' for group in range(7))}]\n", **many)
    assert problems(child) == [("g4.yaml", 2, "bad-extends")]
    child.write_text("name: c\nextends: [" + "f1.yaml, " * 17 + "]\n", encoding="utf-8")
    assert problems(child) == [("child.yaml", 2, "bad-extends")]
    large = "name: x\nunknown: &a [" + "x, " * 99 + "]\nmore: [" + "*a, " * 60 + "]\n"
    child = write(tmp_path, child="name: c\nextends: [one.yaml, two.yaml]\n", one=large, two=large)
    assert problems(child) == [("two.yaml", 1, "too-large")]


@pytest.mark.parametrize("parent", ["none.yaml", "/none/none.yaml", "hhhh", "..", "'a\0b'", "x" * 5000, "~/x.yaml"])
def test_parents_that_are_not_there(tmp_path: Path, parent: str) -> None:
    child = write(tmp_path, child=f"name: c\nextends:\n  - hhh\n  - {parent}\n")
    codes = {("child.yaml", 4, "bad-extends")} | ({("child.yaml", 4, "non-printing")} if "\0" in parent else set())
    assert set(problems(child)) == codes


def test_a_parent_that_is_broken_is_told_of_alone(tmp_path: Path) -> None:
    child = write(tmp_path, child="name: c\nextends: base.yaml\n", base=BASE.replace("  honest:", "\thonest:"))
    assert problems(child) == [("base.yaml", 15, "yaml-syntax")]
    (tmp_path / "base.yaml").write_bytes(b"name: \xff\n")
    assert problems(child) == [("base.yaml", 1, "not-utf8")]


def test_show_prints_what_is_merged(rlaif: Cli, tmp_path: Path) -> None:
    child = write(tmp_path, child="name: c\nextends: base.yaml\nobjectives: {honest: {question: True?}}\n", base=BASE)
    done = rlaif("constitution", "show", child, "--json")
    assert done.returncode == 0
    shown = json.loads(done.stdout)
    assert "extends" not in shown
    assert {name: each["question"] for name, each in shown["objectives"].items()} == {
        "helpful": "Which response helps more?",
        "honest": "True?",
    }
    assert shown["digest"] == load_constitution(child).digest
