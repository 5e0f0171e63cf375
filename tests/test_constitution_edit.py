"""Edits of a constitution file: the value that is meant changes, and not one byte beside it."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from rlaif import load_constitution
from rlaif.constitution import Case, Constitution
from rlaif.constitution.edit import ConstitutionFile
from rlaif.constitution.load import parse_constitution
from rlaif.errors import InputError, RunError
from tests.conftest import ROOT, Cli
from tests.yaml_variants import layout_of

SMALL = """\
# Ours.
name: small  # short
version: '1.0'

objectives:
    # What helps.
    helpful:
        weight: 0.6 # was 0.5
        question: "Which helps more?"
        principles:
        -   id: answers   # the first
            # About the text.
            text: >-   # folded
                Prefer the answer that is complete,
                and correct.
            # After the text.
        -   id: short
            text: Prefer the short
              one.
            weight: 0
        # At the end.

    honest:
        question: |
            Which is more honest?
        principles:
        - {id: true-things, text: 'Prefer what''s true.'} # in braces

aggregation: {method: weighted, floors: { honest: 0.2 }}
# The end."""

CHILD = """\
# Mine.
name: mine
extends: hhh
"""

# Each edit, and the lines of SMALL that it takes out and puts in.
SETTINGS: dict[str, tuple[str, Any, str, str]] = {
    "a number with a comment behind it": (
        "helpful.weight",
        0.25,
        "        weight: 0.6 # was 0.5",
        "        weight: 0.25 # was 0.5",
    ),
    "a whole number": ("short.weight", 2.0, "            weight: 0\n", "            weight: 2\n"),
    "a plain text": ("name", "tiny", "name: small  # short", "name: tiny  # short"),
    "a text in single quotes": ("version", "1.1", "version: '1.0'", "version: '1.1'"),
    "a text in double quotes": (
        "helpful.question",
        'Which "helps"?',
        '        question: "Which helps more?"',
        '        question: "Which \\"helps\\"?"',
    ),
    "a folded text, in its width": (
        "answers.text",
        "Prefer the answer that is complete and correct and that says no more than was asked for.",
        "                Prefer the answer that is complete,\n                and correct.",
        # 60 characters a line at most: no line of the old one is longer.
        "                Prefer the answer that is complete and\n"
        "                correct and that says no more than was asked\n"
        "                for.",
    ),
    "a plain text over two lines": (
        "short.text",
        "Prefer the one that is shorter.",
        "            text: Prefer the short\n              one.",
        "            text: Prefer the one\n              that is shorter.",
    ),
    "a text that needs quotes now": (
        "name",
        "yes",
        "name: small  # short",
        'name: "yes"  # short',
    ),
    "a block of text, with its line end": (
        "honest.question",
        "Which is truer?",
        "            Which is more honest?",
        "            Which is truer?",
    ),
    "a text in braces": ("true-things.text", "It's so.", "'Prefer what''s true.'", "'It''s so.'"),
    "a key that was not there, in its place": (
        "answers.weight",
        0.5,
        "                and correct.\n",
        "                and correct.\n            weight: 0.5\n",
    ),
    "a key before all others": (
        "honest.weight",
        0.4,
        "    honest:\n",
        "    honest:\n        weight: 0.4\n",
    ),
    "a key in braces": ("true-things.weight", 2, "true.'}", "true.', weight: 2}"),
    "a list": ("answers.tags", ["core", "a-b"], "and correct.\n", "and correct.\n            tags: [core, a-b]\n"),
    "a floor": ("aggregation.floors.helpful", 0.1, "{ honest: 0.2 }", "{ honest: 0.2, helpful: 0.1 }"),
    "weights of a tag": (
        "aggregation.by_tag.medical.honest",
        1,
        "{ honest: 0.2 }}",
        "{ honest: 0.2 }, by_tag: {medical: {honest: 1}}}",
    ),
}

# What a text may hold that YAML would read otherwise.
TEXTS = (
    "Short.",
    "Prefer: this # not",
    "yes",
    "1.0",
    " a lead and a trail ",
    "two  spaces, and\ttabs",
    "two\nlines",
    "a paragraph\n\n  and a deeper one\n",
    "long words " * 40,
    'it\'s "both"',
    "- dash",
    "grün, 日本",
    "ends with:",
    "null",
    "back \\n slash",
    "x" * 300,
    "[a, b]",
    "#",
    "%",
    "@at",
    "long: colon " * 20,
)
COMMENT = re.compile(r"# (?:note|beside) \d+")


def file_with(text: str, folder: Path, *, raw: bool = False) -> ConstitutionFile:
    path = folder / "c.yaml"
    path.write_bytes(text.encode())
    return ConstitutionFile.load(path)


def refusal(call: Callable[..., object], *arguments: object) -> str:
    with pytest.raises(InputError) as caught:
        call(*arguments)
    return str(caught.value)


def test_the_small_file_is_a_constitution() -> None:
    small = parse_constitution(SMALL, "c.yaml")
    assert [rule.id for each in small.objectives.values() for rule in each.principles] == [
        "answers",
        "short",
        "true-things",
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_setting_changes_the_value_alone(setting: str, end: str, tmp_path: Path) -> None:
    key, value, before, after = SETTINGS[setting]
    assert SMALL.count(before) == 1
    wanted = "\ufeff" + SMALL.replace(before, after).replace("\n", end)
    file = file_with("\ufeff" + SMALL.replace("\n", end), tmp_path)
    file.set(key, value)
    file.save()
    assert file.path.read_bytes().decode() == wanted
    assert ConstitutionFile.load(file.path).value(key) == (value if key != "honest.question" else f"{value}\n")


@pytest.mark.parametrize("path", sorted((ROOT / "constitutions").glob("*.yaml")), ids=lambda path: str(path.stem))
def test_a_shipped_file_without_an_edit_is_not_written(path: Path, tmp_path: Path) -> None:
    file = file_with(path.read_text(encoding="utf-8"), tmp_path)
    before = file.path.stat()
    file.save()
    assert not file.written
    assert file.path.stat().st_mtime_ns == before.st_mtime_ns
    assert file.path.read_bytes() == path.read_bytes()


def test_what_is_taken_back_leaves_no_trace(tmp_path: Path) -> None:
    text = (ROOT / "constitutions" / "hhh.yaml").read_text(encoding="utf-8")
    file = file_with(text, tmp_path)
    file.set("honesty.weight", 7.5)
    file.set("right-amount.cases.1.worse", "Short.")
    file.set("aggregation.by_tag.medical.honesty", 1)
    file.set("no-cruelty.weight", 0.5)
    file.add_principle("honesty", "new-one", "Prefer the new one.", cases=[Case(prompt="p", better="b", worse="w")])
    assert file.changed
    file.remove_principle("new-one")
    file.unset("no-cruelty.weight")
    file.unset("aggregation.by_tag.medical.honesty")
    long = load_constitution("hhh").objectives["helpfulness"].principles[1].cases[0].worse
    file.set("right-amount.cases.1.worse", long)
    file.set("honesty.weight", 0.2)
    # The folded text alone may be broken elsewhere.
    assert file.text.split() == text.split()
    assert file.check() == load_constitution("hhh")


@pytest.mark.parametrize("seed", range(16))
def test_any_layout_keeps_its_comments_and_its_bytes(seed: int, tmp_path: Path) -> None:
    model = load_constitution("hhh")
    text = layout_of(model, seed)
    file = file_with(text, tmp_path)
    assert file.save() == model
    assert file.path.read_bytes() == text.encode()
    draw = random.Random(seed)
    for number in range(3):
        before = file.text
        kind, edit, wanted, removed = an_edit(draw, model, number)
        edit(file)
        assert [each for each in COMMENT.findall(before) if each not in removed(before)] == COMMENT.findall(
            file.text
        ), kind
        assert same(file.check(), wanted), kind
        cut, put = differing(before, file.text)
        if kind in ("weight", "floor", "tag"):
            assert re.fullmatch(r"[0-9.]*", cut), kind
        elif kind.startswith("add"):
            assert cut == "", kind
        assert put != cut or kind in ("weight", "floor", "tag"), kind
        model = file.check()
    raw = file.path.read_bytes()
    file.save()
    assert file.path.read_bytes() == (b"\xef\xbb\xbf" if raw[:1] == b"\xef" else b"") + file.text.encode()
    assert ("\r\n" in text) == ("\r\n" in file.text)


Edit = tuple[str, Callable[[ConstitutionFile], None], dict[str, Any], Callable[[str], Sequence[str]]]


def an_edit(draw: random.Random, model: Constitution, number: int) -> Edit:
    """An edit drawn at random, what it makes of the model, and which comments go with it."""
    wanted = model.model_dump(mode="json")
    objective = draw.choice(list(model.objectives))
    rules = wanted["objectives"][objective]["principles"]
    place = draw.randrange(len(rules))
    rule, name = rules[place], rules[place]["id"]
    kind = draw.choice(["weight", "text", "question", "better", "floor", "tag", "add", "add case", "remove"])
    text = draw.choice(TEXTS)

    def nothing(before: str) -> Sequence[str]:
        return ()

    if kind == "weight":
        rule["weight"] = draw.choice([0.5, 2.0, 1e-05, 3.25])
        had = "weight: " in str(rule)
        weight = rule["weight"]
        return (
            kind + ("" if had else " anew"),
            lambda file: file.set(f"{objective}.{name}.weight", weight),
            wanted,
            nothing,
        )
    if kind == "text":
        rule["text"] = f"{text} {number}".strip()
        return kind, lambda file: file.set(f"{name}.text", f"{text} {number}"), wanted, nothing
    if kind == "question":
        wanted["objectives"][objective]["question"] = text.strip()
        return kind, lambda file: file.set(f"{objective}.question", text), wanted, nothing
    if kind == "better":
        rule["cases"][0]["better"] = f"{text}{number}"
        return kind, lambda file: file.set(f"{name}.cases.1.better", f"{text}{number}"), wanted, nothing
    if kind == "floor":
        wanted["aggregation"]["floors"][objective] = 0.15
        return kind, lambda file: file.set(f"aggregation.floors.{objective}", 0.15), wanted, nothing
    if kind == "tag":
        wanted["aggregation"]["by_tag"].setdefault("a.b", {})[objective] = 0.35
        return kind, lambda file: file.set(f"aggregation.by_tag.a.b.{objective}", 0.35), wanted, nothing
    case = Case(prompt=f"{text}?", better=f"{text}+{number}", worse=text)
    if kind == "add":
        new = {
            "id": f"new-{number}",
            "text": f"Prefer {text}{number}".strip(),
            "weight": 1.0,
            "source": None,
            "tags": [],
        }
        rules.append({**new, "cases": [case.model_dump()]})
        added = f"Prefer {text}{number}"
        return kind, lambda file: file.add_principle(objective, f"new-{number}", added, cases=[case]), wanted, nothing
    if kind == "remove" and len(rules) > 1:
        del rules[place]
        return kind, lambda file: file.remove_principle(name), wanted, lambda before: inside(before, name)
    rule["cases"].append(case.model_dump())
    return "add case", lambda file: file.add_case(name, case.prompt, case.better, case.worse), wanted, nothing


def inside(text: str, name: str) -> Sequence[str]:
    """The comments that stand in a principle: from its dash to the next line that is less deep."""
    lines = text.splitlines()
    # An id that is a block of text stands in the line after its key.
    start = next(
        at for at, line in enumerate(lines) if re.search(r"\bid:", line) and name in "".join(lines[at : at + 2])
    )
    if "[{id:" in lines[start]:
        return ()
    depth = lines[start].index("-")
    end = start + 1
    while end < len(lines) and (not lines[end].strip() or len(lines[end]) - len(lines[end].lstrip()) > depth):
        end += 1
    return COMMENT.findall("\n".join(lines[start:end]))


def same(found: Constitution, wanted: dict[str, Any]) -> bool:
    return found.digest == Constitution.model_validate(wanted).digest


def differing(before: str, after: str) -> tuple[str, str]:
    """What was cut out of one text and what was put in its place: all outside of it is the same."""
    start = 0
    while start < min(len(before), len(after)) and before[start] == after[start]:
        start += 1
    end = 0
    while end < min(len(before), len(after)) - start and before[-1 - end] == after[-1 - end]:
        end += 1
    return before[start : len(before) - end], after[start : len(after) - end]


ADDED = """\
            weight: 0
        -   id: kind
            text: Prefer the kind one.
            source: "Us: 2026"
            cases:
            -   prompt: Who?
                better: |-
                    Me.
                    And you.
                worse: "no"
"""


def test_a_principle_is_added_as_those_before_it(tmp_path: Path) -> None:
    file = file_with(SMALL, tmp_path)
    case = Case(prompt="Who?", better="Me.\nAnd you.", worse="no")
    file.add_principle("helpful", "kind", "Prefer the kind one.", source="Us: 2026", cases=[case])
    file.save()
    # The comment in the dashes' column is not a part of the last principle: it stays below.
    assert file.path.read_text(encoding="utf-8") == SMALL.replace("            weight: 0\n", ADDED)


def test_a_principle_in_braces_is_added_in_a_line_of_its_own(tmp_path: Path) -> None:
    file = file_with(SMALL, tmp_path)
    file.add_principle("honest", "sure", "Prefer the sure one.", weight=2, tags=["tone"])
    line = "        - {id: true-things, text: 'Prefer what''s true.'} # in braces\n"
    new = "        - {id: sure, text: Prefer the sure one., weight: 2, tags: [tone]}\n"
    assert file.text == SMALL.replace(line, line + new)
    # One that is too long for a line is written as in the rest of the file.
    file.add_principle("honest", "long", "Prefer the long one." * 5)
    assert f"        -   id: long\n            text: {'Prefer the long one.' * 5}\n" in file.text
    file.check()


def test_a_principle_goes_with_the_comments_inside_it(tmp_path: Path) -> None:
    file = file_with(SMALL, tmp_path)
    file.remove_principle("answers")
    start, end = SMALL.index("        -   id: answers"), SMALL.index("        -   id: short")
    assert file.text == SMALL[:start] + SMALL[end:]


def test_blank_lines_between_principles_stay_single(tmp_path: Path) -> None:
    parts = [f"      - id: p{number}\n        text: Prefer number {number}.\n" for number in range(3)]
    head = "name: x\nobjectives:\n  a:\n    question: Which?\n    principles:\n"
    file = file_with(head + "\n".join(parts), tmp_path)
    file.add_principle("a", "p3", "Prefer number 3.")
    assert file.text == head + "\n".join([*parts, "      - id: p3\n        text: Prefer number 3.\n"])
    file.remove_principle("p1")
    file.remove_principle("p3")
    assert file.text.rstrip() == (head + parts[0] + "\n" + parts[2]).rstrip()


def test_cases_are_added(tmp_path: Path) -> None:
    file = file_with(SMALL, tmp_path)
    file.add_case("answers", "p", "b", "w")
    file.add_case("answers", "q", "c", "x")
    rows = "".join(
        f"            -   prompt: {prompt}\n                better: {better}\n                worse: {worse}\n"
        for prompt, better, worse in (("p", "b", "w"), ("q", "c", "x"))
    )
    text = "                and correct.\n"
    assert file.text == SMALL.replace(text, f"{text}            cases:\n{rows}")
    file.add_case("true-things", "p", "b", "w")
    assert "true.', cases: [{prompt: p, better: b, worse: w}]} # in braces" in file.text
    assert file.check().objectives["honest"].principles[0].cases == (Case(prompt="p", better="b", worse="w"),)


def test_a_value_is_unset_with_what_it_leaves_empty(tmp_path: Path) -> None:
    file = file_with(SMALL, tmp_path)
    file.unset("aggregation.floors.honest")
    file.unset("short.weight")
    file.unset("version")
    wanted = SMALL.replace(", floors: { honest: 0.2 }", "").replace("            weight: 0\n", "")
    assert file.text == wanted.replace("version: '1.0'\n", "")
    file.unset("aggregation.method")
    assert file.text == wanted.replace("version: '1.0'\n", "").replace("aggregation: {method: weighted}\n", "")
    assert refusal(file.unset, "short.weight").endswith(
        "short.weight is not set in this file; there is nothing to remove."
    )


def test_a_mapping_is_set_entry_by_entry(tmp_path: Path) -> None:
    block = "aggregation:\n  floors:\n    # The one that counts.\n    honest: 0.2  # low\n    helpful: 0.1\n"
    text = SMALL[: SMALL.index("aggregation")] + block
    file = file_with(text, tmp_path)
    file.set("aggregation.floors", {"honest": 0.3})
    assert file.text == text.replace("0.2  # low", "0.3  # low").replace("    helpful: 0.1\n", "")


def test_a_file_that_extends_holds_only_what_differs(tmp_path: Path) -> None:
    file = file_with(CHILD, tmp_path)
    file.set("no-cruelty.weight", 0)
    file.set("harmlessness.weight", 0.5)
    file.set("aggregation.floors.honesty", 0.1)
    assert file.text == CHILD + (
        "\nobjectives:\n  harmlessness:\n    weight: 0.5\n    principles:\n      - id: no-cruelty\n"
        "        weight: 0\n\naggregation:\n  floors: {honesty: 0.1}\n"
    )
    made = file.save()
    assert made.aggregation.floors == {"harmlessness": 0.2, "honesty": 0.1}
    assert [rule.id for rule in made.objectives["harmlessness"].active] == ["no-aid-to-harm"]
    file.add_case("no-falsehood", "p", "b", "w")
    assert len(file.check().objectives["honesty"].principles[0].cases) == 3
    assert refusal(file.remove_principle, "admits-doubt").endswith("set its weight to 0 to turn it off.")
    assert "stands in what this file extends too" in refusal(file.remove_principle, "no-cruelty")
    file.add_principle("honesty", "own", "Prefer our own.")
    file.remove_principle("own")
    assert "own" not in file.text
    assert "has no case 1 in this file" in refusal(file.set, "admits-doubt.cases.1.better", "x")


def test_values_that_others_share_are_not_changed(tmp_path: Path) -> None:
    shared = SMALL.replace("weight: 0.6 #", "weight: &w 0.6 #").replace("honest: 0.2", "honest: *w")
    file = file_with(shared, tmp_path)
    assert ":8: objectives.helpful.weight cannot be changed alone" in refusal(file.set, "helpful.weight", 0.1)
    assert file.text == shared
    # The place that only refers to it can get a value of its own.
    file.set("aggregation.floors.honest", 0.3)
    assert file.text == shared.replace("*w", "0.3")
    file.set("helpful.weight", 0.1)
    assert file.check().objectives["helpful"].weight == 0.1


@pytest.mark.parametrize(
    ("key", "fact"),
    [
        ("answer.weight", "'answer' is no objective, principle or key of the file"),
        (
            "helpful.shrt.weight",
            "'shrt' is no principle or key of helpful; known are answers, short, weight, question.",
        ),
        ("helpful.short.wieght", "known are id, text, weight, source, tags, cases. Did you mean 'weight'?"),
        ("aggregation.floors.onest", "'onest' is no objective; known are helpful, honest. Did you mean 'honest'?"),
        ("aggregation.floor", "known are method, floors, by_tag. Did you mean 'floors'?"),
        ("aggregation.by_tag", "names no single value; add one of TAG, as in aggregation.by_tag.TAG."),
        ("helpful", "names no single value; add one of weight, question, as in helpful.weight."),
        ("short.cases.0.better", "a case is named as short.cases.1.better, counted from 1."),
        ("short.cases.1.better", "short has no case 1 in this file; add it first."),
        ("version.major", "version holds nothing named 'major'; leave out .major."),
        ("", "'' is no objective, principle or key of the file"),
    ],
)
def test_a_key_that_names_nothing(key: str, fact: str, tmp_path: Path) -> None:
    file = file_with(SMALL, tmp_path)
    told = refusal(file.set, key, "x")
    assert told.startswith(f"{file.path}: ")
    assert fact in told
    assert "\n" not in told


def test_other_refusals(tmp_path: Path) -> None:
    file = file_with(SMALL, tmp_path)
    assert "'true-things' is the only principle of honest" in refusal(file.remove_principle, "true-things")
    assert "Did you mean 'short'?" in refusal(file.remove_principle, "shor")
    assert "'honest' is no principle" in refusal(file.remove_principle, "honest")
    assert "helpful has a principle 'short' already" in refusal(file.add_principle, "honest", "short", "Prefer x.")
    assert "Did you mean 'honest'?" in refusal(file.add_principle, "honst", "new", "Prefer x.")
    assert "expected a finite number" in refusal(file.set, "helpful.weight", float("inf"))
    assert file.text == SMALL
    path = tmp_path / "broken.yaml"
    for raw, fact in ((b"a: [", "broken.yaml:1"), (b"name: \xff", "invalid UTF-8"), (b"- x\n", "holds no mapping")):
        path.write_bytes(raw)
        assert fact in refusal(ConstitutionFile.load, path)
    assert "rlaif constitution new" in refusal(ConstitutionFile.load, tmp_path / "none.yaml")
    assert "--from hhh" in refusal(ConstitutionFile.load, "hhh")


def test_what_would_not_load_is_not_written(tmp_path: Path) -> None:
    file = file_with(SMALL, tmp_path)
    file.set("honest.weight", -1)
    assert refusal(file.save) == f"{file.path}:24: weight in objectives.honest is -1; it must be 0 or more."
    assert file.path.read_bytes().decode() == SMALL
    # And a file that does not load can be set right.
    broken = file_with(SMALL.replace("0.6", "-0.6"), tmp_path)
    broken.set("helpful.weight", 0.6)
    broken.save()
    assert broken.path.read_bytes().decode() == SMALL


def test_a_file_that_changed_in_the_meantime_is_not_written_over(tmp_path: Path) -> None:
    file = file_with(SMALL, tmp_path)
    file.set("version", "1.1")
    file.path.write_text("# Another program's.\n", encoding="utf-8")
    with pytest.raises(RunError, match=r"was changed by another program since it was read; nothing was written\."):
        file.save()
    assert file.path.read_text(encoding="utf-8") == "# Another program's.\n"


def test_links_and_permissions_stay(tmp_path: Path) -> None:
    file_with(SMALL, tmp_path).path.chmod(0o600)
    link = tmp_path / "link.yaml"
    link.symlink_to(tmp_path / "c.yaml")
    file = ConstitutionFile.load(link)
    file.set("version", "1.1")
    file.save()
    assert link.is_symlink()
    assert (tmp_path / "c.yaml").stat().st_mode & 0o777 == 0o600
    assert "version: '1.1'" in (tmp_path / "c.yaml").read_text(encoding="utf-8")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["c.yaml", "link.yaml"]


def test_the_command_prints_what_changed(rlaif: Cli, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(SMALL, encoding="utf-8")
    arguments = ("helpful.short.weight=1", "answers.text=Prefer a = b.", "aggregation.floors.honest=0.3")
    done = rlaif("constitution", "set", path, *arguments, "version=1.1", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert path.read_text(encoding="utf-8") == SMALL
    done = rlaif("constitution", "set", path, *arguments, "version=1.1", "--unset", "helpful.weight")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[1:] == [
        "version: 1.0 -> 1.1",
        "helpful:",
        "  weight: 0.6 -> 1",
        "  answers reworded",
        "    - Prefer the answer that is complete, and correct.",
        "    + Prefer a = b.",
        "  short reweighted: 0 -> 1",
        "aggregation:",
        "  floors.honest: 0.2 -> 0.3",
    ]
    found = json.loads(rlaif("constitution", "set", path, "name=other", "--json").stdout)
    assert (found["written"], found["diff"]["about"][0]["after"]) == (True, "other")
    assert found["digest"] == load_constitution(path).digest
    assert "No change" in rlaif("constitution", "set", path, "name=other").stdout


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        ((), "nothing to set; give KEY=VALUE"),
        (("name",), "name: expected KEY=VALUE, as version=1.1.0."),
        (("helpful.weight=much",), "helpful.weight is 'much'; expected a number, as 0.5."),
        (("helpful.weight=inf",), "helpful.weight is 'inf'; expected a number, as 0.5."),
        (("helpful.weight=-1",), ":8: weight in objectives.helpful is -1; it must be 0 or more."),
        (("aggregation.floors=low",), "expected weights of objectives, as {honesty: 0.6, helpfulness: 0.4}."),
        (("aggregation.floors={a: [",), "it is not closed or not plain YAML."),
        (("shrt.weight=1",), "Did you mean 'short'?"),
    ],
)
def test_the_command_refuses_in_one_line(arguments: tuple[str, ...], fact: str, rlaif: Cli, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(SMALL, encoding="utf-8")
    done = rlaif("constitution", "set", path, *arguments)
    assert done.returncode == 2
    assert fact in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert path.read_text(encoding="utf-8") == SMALL
