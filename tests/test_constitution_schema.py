"""The JSON Schema: made from the models, published beside the shipped files, and refusing what the loader refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlaif.constitution.json_schema import constitution_schema, schema_text
from rlaif.constitution.load import parse_constitution
from rlaif.constitution.schema import Aggregation, Case, Constitution, Objective, Principle
from rlaif.constitution.spans import read_data
from rlaif.errors import InputError
from rlaif.types import Frozen
from tests.conftest import ROOT, Cli
from tests.json_schema import violations

FOLDER = ROOT / "constitutions"
SHIPPED = sorted(FOLDER.glob("*.yaml"))
SCHEMA = constitution_schema()

WHOLE = """\
name: small
version: 1.0.0
objectives:
  helpful:
    weight: 0.6
    question: Which helps more?
    principles:
      - id: answers
        text: Prefer the answer.
        tags: [core]
        cases: [{prompt: Who?, better: Me., worse: You.}]
  honest:
    question: Which is more honest?
    principles:
      - {id: true-things, text: Prefer what is true., source: null}
aggregation:
  method: weighted
  floors: {honest: 0.2}
  by_tag:
    medical: {honest: 1}
"""
# What is changed in WHOLE -> where the schema sees it.
BROKEN: dict[str, tuple[tuple[str, str], str]] = {
    "no name": (("name: small\n", ""), ".name: required"),
    "no objectives": (("objectives:\n", "objectives: {}\nx-objectives:\n"), ".objectives: minProperties"),
    "unknown key": (("version:", "verison:"), ".verison: false"),
    "unknown key of a principle": (("tags:", "tag:"), ".objectives.helpful.principles.0.tag: false"),
    "unknown key of an objective": (("    weight:", "    wieght:"), ".objectives.helpful.wieght: false"),
    "unknown key of the aggregation": (("floors:", "floor:"), ".aggregation.floor: false"),
    "unknown key of a case": (("prompt:", "prompts:"), ".objectives.helpful.principles.0.cases.0.prompt: required"),
    "missing question": (
        ("    question: Which helps more?\n", ""),
        ".objectives.helpful.question: required",
    ),
    "missing text": (("        text: Prefer the answer.\n", ""), ".objectives.helpful.principles.0.text: required"),
    "missing id": (("{id: true-things, ", "{"), ".objectives.honest.principles.0.id: required"),
    "empty text": (("Prefer the answer.", '" "'), ".objectives.helpful.principles.0.text: pattern"),
    "number for a text": (("1.0.0", "1.0"), ".version: type"),
    "text for a number": (("weight: 0.6", "weight: heavy"), ".objectives.helpful.weight: type"),
    "negative weight": (("weight: 0.6", "weight: -1"), ".objectives.helpful.weight: minimum"),
    "name with a space": (("  honest:\n", "  ho nest:\n"), ".objectives.ho nest: false"),
    "long name": (("name: small", f"name: {'n' * 65}"), ".name: maxLength"),
    "long name of an objective": (("  honest:\n", f"  {'n' * 65}:\n"), f".objectives.{'n' * 65}: maxLength"),
    "id with a space": (("id: answers", "id: an swers"), ".objectives.helpful.principles.0.id: pattern"),
    "tag with a space": (("[core]", "[the core]"), ".objectives.helpful.principles.0.tags.0: pattern"),
    "floor above 1": (("floors: {honest: 0.2}", "floors: {honest: 1.2}"), ".aggregation.floors.honest: maximum"),
    "negative weight of a tag": (
        ("medical: {honest: 1}", "medical: {honest: -1}"),
        ".aggregation.by_tag.medical.honest",
    ),
    "unknown method": (("method: weighted", "method: mean"), ".aggregation.method: enum"),
    "principle as a text": (
        ("{id: true-things, text: Prefer what is true., source: null}", "Prefer what is true."),
        ".objectives.honest.principles.0: type",
    ),
    "every principle turned off": (
        ("source: null}", "weight: 0}"),
        ".objectives.honest.principles: contains",
    ),
    "case without a worse response": (
        (", worse: You.", ""),
        ".objectives.helpful.principles.0.cases.0.worse: required",
    ),
}
CHILDREN = {
    "nothing of its own": ("name: mine\nextends: hhh\n", True),
    "a list of parents": ("name: mine\nextends: [hhh]\n", True),
    "one weight": ("name: mine\nextends: hhh\nobjectives: {honesty: {weight: 0.5}}\n", True),
    "a principle off": (
        "name: mine\nextends: hhh\nobjectives: {honesty: {principles: [{id: no-falsehood, weight: 0}]}}\n",
        True,
    ),
    "no name": ("extends: hhh\n", False),
    "a number": ("name: mine\nextends: 3\n", False),
    "an empty list": ("name: mine\nextends: []\n", False),
    "a principle without id": ("name: mine\nextends: hhh\nobjectives: {honesty: {principles: [{weight: 0}]}}\n", False),
    "a negative weight": ("name: mine\nextends: hhh\nobjectives: {honesty: {weight: -1}}\n", False),
    "an unknown key": ("name: mine\nextends: hhh\nobjectives: {honesty: {wieght: 1}}\n", False),
}


def refused(text: str) -> list[str]:
    return list(violations(read_data(text), SCHEMA, SCHEMA))


def changed(problem: str) -> str:
    (before, after), _ = BROKEN[problem]
    assert before in WHOLE
    return WHOLE.replace(before, after)


def loads(text: str) -> bool:
    try:
        parse_constitution(text, "c.yaml")
    except InputError:
        return False
    return True


def test_the_published_schema_is_the_one_the_models_make() -> None:
    fix = "run: python -m rlaif.constitution.json_schema > constitutions/schema.json"
    assert (FOLDER / "schema.json").read_text(encoding="utf-8") == schema_text(), fix


def test_the_command_prints_it(rlaif: Cli) -> None:
    done = rlaif("constitution", "schema")
    assert done.returncode == 0
    assert json.loads(done.stdout) == SCHEMA


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.stem))
def test_every_shipped_constitution_refers_to_it_and_is_valid(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    first = text.splitlines()[0]
    assert first == "# yaml-language-server: $schema=schema.json"
    assert (path.parent / first.partition("$schema=")[2]).is_file()
    assert refused(text) == []


def test_a_whole_file_is_valid() -> None:
    assert refused(WHOLE) == []
    assert loads(WHOLE)


@pytest.mark.parametrize("problem", BROKEN)
def test_what_the_loader_refuses_the_schema_refuses(problem: str) -> None:
    text = changed(problem)
    assert not loads(text)
    assert any(each.startswith(BROKEN[problem][1]) for each in refused(text)), refused(text)


def test_every_objective_turned_off() -> None:
    honest = "    question: Which is more honest?\n"
    off = WHOLE.replace("weight: 0.6", "weight: 0").replace(honest, f"    weight: 0\n{honest}")
    assert not loads(off)
    assert refused(off) == [".objectives: not"]


@pytest.mark.parametrize("child", CHILDREN)
def test_a_file_that_extends_may_leave_out_what_it_inherits(child: str) -> None:
    text, valid = CHILDREN[child]
    assert loads(text) is valid
    assert (refused(text) == []) is valid


def test_every_key_is_described() -> None:
    described: dict[str, tuple[type[Frozen], Any]] = {
        model.__name__: (model, SCHEMA["$defs"][model.__name__]) for model in (Case, Principle, Objective, Aggregation)
    }
    described["Constitution"] = (Constitution, SCHEMA)
    for model, part in described.values():
        assert set(part["properties"]) - {"extends"} == set(model.model_fields)
        assert part["additionalProperties"] is False
        for key, value in part["properties"].items():
            assert value["description"].endswith("."), key
            reference = "$ref" in value
            assert reference or value["title"], key
            assert reference or value.get("examples") or value.get("enum"), key
            assert ("default" in value) == (key != "extends" and not model.model_fields[key].is_required()), key


def test_another_validator_says_the_same() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(SCHEMA)
    validator.check_schema(SCHEMA)
    texts = [WHOLE, *map(changed, BROKEN), *(text for text, _ in CHILDREN.values())]
    texts += [path.read_text(encoding="utf-8") for path in SHIPPED]
    for text in texts:
        assert validator.is_valid(read_data(text)) == (refused(text) == []), text
