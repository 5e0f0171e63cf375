"""The linter: each fault with its line and code, what is left alone, hostile files, and the command."""

from __future__ import annotations

import json
import os
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner

from rlaif.characters import hidden_characters, look_alikes
from rlaif.cli.lint import lint_constitutions
from rlaif.constitution.extends import MAX_BYTES
from rlaif.constitution.lint import CODES, estimate_tokens, lint_constitution, lint_text
from rlaif.constitution.load import parse_constitution
from rlaif.constitution.wording import against, aims, meaning, relation
from rlaif.errors import InputError
from rlaif.findings import Finding, Place, found
from tests.broken_constitutions import SOUND, Broken, corpus
from tests.conftest import ROOT, Cli
from tests.patience import ends

CORPUS = list(corpus())
SHIPPED = sorted(path.stem for path in (ROOT / "constitutions").glob("*.yaml"))


def told(text: str) -> list[tuple[int, str, str]]:
    """Line, severity and code of each finding, sorted."""
    return sorted((each.line, each.severity, each.code) for each in lint_text(text, "c.yaml"))


def refused(text: str) -> list[str]:
    """The loader's error, a line a problem; nothing if the text loads."""
    try:
        parse_constitution(text, "c.yaml")
    except InputError as error:
        return str(error).splitlines()
    return []


def test_the_corpus_is_large_and_holds_every_code_but_those_of_files() -> None:
    assert len(CORPUS) >= 200
    assert len({broken.name for broken in CORPUS}) == len(CORPUS)
    of_files = {"not-found", "unreadable", "too-large", "not-utf8", "too-many", "zero-weight"}
    assert {code for broken in CORPUS for _, _, code in broken.expected} == CODES.keys() - of_files


@pytest.mark.parametrize("broken", CORPUS, ids=lambda broken: broken.name)
def test_a_broken_file_gives_the_expected_findings_and_lines(broken: Broken) -> None:
    assert told(broken.text) == list(broken.expected)
    errors = [each for each in lint_text(broken.text, "c.yaml") if each.severity == "error"]
    # What the loader refuses are the linter's errors, and nothing else.
    assert refused(broken.text) == [f"c.yaml:{each.line}: {each.message}" for each in errors]


def test_a_sound_file_gives_nothing_and_line_ends_do_not_matter() -> None:
    assert told(SOUND) == []
    for broken in CORPUS[:60]:
        assert told(broken.text.replace("\n", "\r\n")) == list(broken.expected), broken.name


@pytest.mark.parametrize("name", SHIPPED)
def test_what_ships_is_clean(name: str) -> None:
    assert [str(each) for each in lint_constitution(name)] == []


def test_weights_of_0() -> None:
    off = SOUND.replace("weight: 0.4", "weight: 0").replace("weight: 0.6", "weight: 1")
    # It has a floor, and counts for pairs that are tagged medical.
    assert told(off) == []
    no_tags = off.partition("  by_tag:")[0]
    assert told(no_tags) == [(37, "warning", "idle-floor")]
    assert told(no_tags.replace("  floors: {honest: 0.2}\n", "")) == [(26, "warning", "zero-weight")]
    both = SOUND.replace("weight: 0.4", "weight: 0").replace("weight: 0.6", "weight: 0")
    assert (4, "error", "all-off") in told(both)


def test_objectives_that_are_all_without_a_weight_count_the_same() -> None:
    assert told(SOUND.replace("    weight: 0.6\n", "").replace("    weight: 0.4\n", "")) == []


def test_a_principle_that_is_turned_off_may_be_said_again() -> None:
    twice = SOUND.replace("states nothing false.", "does what was asked.")
    assert (30, "error", "same-principle") in told(twice)
    assert told(twice.replace("        weight: 2\n", "        weight: 0\n")) == []


@pytest.mark.parametrize(("context", "long"), [(48, True), (200, False)])
def test_the_context_decides_what_is_too_long(context: int, long: bool) -> None:
    # helpful: "Question: Which response helps more?" (36), and two lines "- Prefer the response that ..." of 47 and
    # 53 characters, with two line ends 138 characters: 35 tokens, over half of 48 and under half of 200.
    found_long = [each for each in lint_text(SOUND, "c.yaml", context=context) if each.code == "too-long"]
    assert [(each.line, "35 tokens" in each.message) for each in found_long][:1] == ([(5, True)] if long else [])


def test_tokens_are_counted_as_one_wishes() -> None:
    assert estimate_tokens("") == 0
    assert estimate_tokens("abcde") == 2
    assert estimate_tokens("\u6f22\u5b57abcd") == 3
    by_words = lint_text(SOUND, "c.yaml", context=40, count_tokens=lambda text: len(text.split()))
    # helpful: 5 words of the question, and 9 and 10 of the lines with their hyphens: 24, over 20.
    # honest: 6 and 8; the cases are shorter still.
    assert [(each.line, each.code) for each in by_words] == [(5, "too-long")]


@pytest.mark.parametrize(
    ("question", "rule", "word"),
    [
        ("Which response is more honest?", "Prefer the response that misleads the user.", "misleads"),
        ("Which response is more honest?", "Choose the less honest answer.", "honest"),
        ("Which response is more honest?", "Prefer the response that contains false statements.", "false"),
        ("Which response is more honest?", "Prefer the response that doesn't tell the truth.", "truth"),
        ("Which response does less harm?", "Prefer the response that is more harmful.", "harmful"),
        ("Which response does less harm?", "Prefer the response that insults the person.", "insults"),
        ("Which response is more harmful?", "Prefer the safer response.", "safer"),
        ("Which response is shorter?", "Prefer the longer response.", "longer"),
        # Left alone: a negation behind, a condition, another verb, another axis, a question that wants both.
        ("Which response does less harm?", "Prefer the response that insults nobody.", None),
        ("Which response does less harm?", "Prefer the response that gives no help with hurting people.", None),
        ("Which response does less harm?", "Prefer the response that refuses harmful requests.", None),
        ("Which response does less harm?", "Prefer the response that warns of danger.", None),
        ("Which response does less harm?", "Prefer the response that is harmful only if asked.", None),
        ("Which response is more honest?", "Prefer the response that is longer.", None),
        ("Which response is short, and not too short?", "Prefer the response that is long.", None),
        ("Which response is more honest?", "Never mislead the user.", None),
    ],
)
def test_a_rule_against_its_question(question: str, rule: str, word: str | None) -> None:
    assert against(question, rule) == word


def test_what_questions_want() -> None:
    assert aims("Which response does less harm?") == {"harm": 1}
    assert aims("Which response is more harmful?") == {"harm": -1}
    assert aims("Which response is clear without being rude?") == {"clarity": 1, "harm": 1, "manners": 1}
    assert aims("Which response would you choose?") == {}


@pytest.mark.parametrize(
    ("one", "other", "related"),
    [
        ("Prefer the response that is polite.", "Choose the courteous answer.", "same"),
        ("Prefer the response that cites sources.", "Prefer a response citing its sources!", "same"),
        ("Prefer the response that cites sources.", "Prefer the response that cites no sources.", "opposite"),
        ("Prefer the shorter response.", "Prefer the longer response.", "opposite"),
        ("Prefer the response that insults nobody.", "Prefer the response that insults the user.", "opposite"),
        ("Prefer the response that is not too long.", "Prefer the response that is not too short.", None),
        ("Prefer the short one if both are right.", "Prefer the long one if both are right.", None),
        ("Prefer the response that is warm.", "Prefer the response that is brief.", None),
        ("Prefer it.", "Choose it.", None),
    ],
)
def test_what_two_rules_are_to_each_other(one: str, other: str, related: str | None) -> None:
    assert relation(meaning(one), meaning(other)) == related
    assert relation(meaning(other), meaning(one)) == related


@pytest.mark.parametrize(
    "text",
    [
        "Grüße, naïve café — “quotes” …",
        "\u041f\u0440\u0435\u0434\u043f\u043e\u0447\u0442\u0438 \u0447\u0435\u0441\u0442\u043d\u044b\u0439.",
        "\u05e9\u05dc\u05d5\u05dd (abc)\u200f, \u05ea\u05d5\u05d3\u05d4",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "\u0915\u094d\u200d\u0937",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f 1\ufe0f\u20e3",
        "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
        "5 \u03bcm, \u0394x, \u03b2-carotene, \u03c0r",
        "\u6f22\u5b57\uff21\uff22\u3000\u304b\u306a",
        "one\ttwo\r\nthree\u00a0four",
    ],
)
def test_characters_with_a_use_are_left_alone(text: str) -> None:
    assert list(hidden_characters(text)) == []
    assert list(look_alikes(text)) == []


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a\u200db", "U+200D ZERO WIDTH JOINER"),
        ("a\ufe0fb", "U+FE0F VARIATION SELECTOR-16"),
        ("left\u200fright", "U+200F RIGHT-TO-LEFT MARK"),
        ("\u05e9\u202e\u05d5", "U+202E RIGHT-TO-LEFT OVERRIDE"),
        ("a\U000e0041", "U+E0041 TAG LATIN CAPITAL LETTER A"),
        ("a\rb", "U+000D"),
        ("\ud83d", "U+D83D"),
        ("\u3164", "U+3164 HANGUL FILLER"),
    ],
)
def test_characters_that_nobody_sees(text: str, name: str) -> None:
    assert [each.name for each in hidden_characters(text)] == [name]


def bomb() -> str:
    text = "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
    for before, name in pairwise("abcdefghijk"):
        text += f"{name}: &{name} [{','.join([f'*{before}'] * 10)}]\n"
    return text


ROOM = MAX_BYTES - 100
HOSTILE: dict[str, tuple[str, str]] = {
    "aliases that unfold without bound": (bomb(), "too-large"),
    "anchor cycle": ("name: &a [*a]\n", "yaml-alias"),
    "anchor cycle in a mapping": ("name: &a {b: {c: *a}}\n", "yaml-alias"),
    "lists in lists": ("[" * ROOM, "yaml-syntax"),
    "mappings in mappings": ("{" * ROOM, "yaml-syntax"),
    "list items in list items": ("- " * (ROOM // 2), "yaml-syntax"),
    "keys in keys": ("? " * (ROOM // 2), "yaml-syntax"),
    "indent by indent": ("".join(f"{' ' * depth}a:\n" for depth in range(700)), "yaml-syntax"),
    "a long list": (f"name: [{'a,' * (ROOM // 2)}]", "too-large"),
    "many keys": ("".join(f"k{number}: v\n" for number in range(25_000)), "too-large"),
    "many tags": ("name:\n" + "- !!str x\n" * 25_000, "too-large"),
    "many anchors": ("name:\n" + "".join(f"- &a{number} x\n" for number in range(16_000)), "too-large"),
    "aliases of aliases": ("".join(f"a{n}: &a{n} [*a{n - 1}]\n" if n else "a0: &a0 [x]\n" for n in range(500)), "yaml"),
    "merges of merges": (
        "".join(f"a{n}: &a{n} {{<<: *a{n - 1}, k{n}: 1}}\n" if n else "a0: &a0 {x: 1}\n" for n in range(500)),
        "too-large",
    ),
    "one long word": ("name: " + "a" * ROOM, "missing-key"),
    "one long text": ("name: " + "word " * (ROOM // 5), "missing-key"),
    "one long name in quotes": (f'name: "{"x" * ROOM}"', "missing-key"),
    "open quote to the end": ('name: "' + "w \n" * (ROOM // 3), "yaml-syntax"),
    "comments": ("# c\n" * (ROOM // 4), "yaml-syntax"),
    "empty lines": ("\n" * ROOM, "yaml-syntax"),
    "directives": ("%a b\n" * (ROOM // 5), "yaml-syntax"),
    "documents": ("---\n" * (ROOM // 4), "yaml-syntax"),
    "null characters": ("\0" * ROOM, "yaml-syntax"),
    "zero-width characters": ("name: " + "\u200b" * (ROOM // 3), "non-printing"),
    "joiners": ("name: " + "\u200d\u0915" * (ROOM // 6), "missing-key"),
    "look-alikes": (SOUND + "# " + "a\u0430b " * (ROOM // 8), ""),
    "many unknown keys": ("name: x\n" + "".join(f"k{number}: v\n" for number in range(4_000)), "too-many"),
    "an integer of many digits": (f"name: {'9' * ROOM}", "missing-key"),
    "a power without bound": ("name: 1e999999999", "missing-key"),
    "a time": ("name: 2001-12-14t21:59:43.10-05:00", "bad-name"),
    "many principles": (
        "name: x\nobjectives:\n  o:\n    question: Which?\n    principles:\n"
        + "".join(f"      - {{id: p{n}, text: Prefer what is {n} and {n * n}.}}\n" for n in range(1_900)),
        "many-principles",
    ),
    "the same principle many times": (
        "name: x\nobjectives:\n  o:\n    question: Which?\n    principles: &p\n"
        + "".join(f"      - {{id: p{n}, text: Prefer it.}}\n" for n in range(1_900)),
        "same-principle",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_told_soon(name: str) -> None:
    text, code = HOSTILE[name]
    assert len(text.encode()) <= MAX_BYTES
    with ends():
        findings = lint_text(text, "c.yaml")
    assert len(findings) < 10_000
    assert any(each.code.startswith(code) for each in findings) if code else not findings
    assert all(str(each).isprintable() and len(str(each)) < 700 for each in findings)


def test_files_that_cannot_be_read_are_findings_too(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(SOUND.encode().replace(b"Shakespeare", b"Sh\xe4kespeare"))
    assert [(each.line, each.code) for each in lint_constitution(path)] == [(33, "not-utf8")]
    with path.open("wb") as file:
        file.truncate(50 * 2**20)
    with ends():
        (large,) = lint_constitution(path)
    fact = "52,428,800 bytes; a constitution, with what it extends, is at most 262,144 bytes."
    assert str(large) == f"{path}:1: error: {fact} [too-large]"
    assert [each.code for each in lint_constitution(tmp_path)] == ["not-found"]
    (near,) = lint_constitution("hh")
    assert (near.code, near.line, near.message.endswith("Did you mean hhh?")) == ("not-found", 1, True)
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    assert [each.code for each in lint_constitution(pipe)] == ["not-found"]
    path.write_text("\ufeff" + SOUND.replace("name: base\n", "name: base # \ufeff\n"), encoding="utf-8")
    assert [(each.line, each.code) for each in lint_constitution(path)] == [(1, "non-printing")]


def test_plain_yaml_is_read_as_it_is_meant() -> None:
    shared = SOUND.replace("tags: [task]", "tags: &t [task]", 1).replace(
        "tags: [task]\n        cases", "tags: *t\n        cases"
    )
    assert shared.count("*t") == 1
    merged = SOUND.replace(
        "    weight: 0.4\n    question: Which response is more honest?\n",
        "    <<: {weight: 0.1, question: Which response is more honest?}\n    weight: 0.4\n",
    )
    tagged = SOUND.replace("version: 1.0.0", "version: !!str 1.0.0").replace("weight: 0.6", "weight: !!float 0.6")
    quoted = SOUND.replace("version: 1.0.0", "\"version\": '1.0.0'").replace("name: base", "name: !!str base")
    again = SOUND.replace("better: It is 108.", "better: &x It is 108.").replace("worse: Charles", "worse: &x Charles")
    digest = parse_constitution(SOUND, "c.yaml").digest
    for text in (shared, merged, tagged, quoted, again):
        assert text != SOUND
        assert told(text) == []
        assert parse_constitution(text, "c.yaml").digest == digest


def test_a_github_command_holds_what_would_break_it_escaped() -> None:
    one = found("error", "some-code", Place("a:b,c%.yaml", 3, 5), "100% of\nit: a, b")
    assert one.github == "::error file=a%3Ab%2Cc%25.yaml,line=3,col=5,title=some-code::100%25 of it: a, b"
    assert str(one) == "a:b,c%.yaml:3: error: 100% of it: a, b [some-code]"
    assert found("warning", "x", Place("c.yaml", 1), "\x1b[31m\u202e").message == "\\x1b[31m\\u202e"
    assert Finding(file="f", line=1, severity="warning", code="c", message="a\r\nb").github == (
        "::warning file=f,line=1,title=c::a%0D%0Ab"
    )


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def lines_of(done: subprocess.CompletedProcess[str]) -> tuple[int, list[str], str]:
    return done.returncode, done.stdout.splitlines(), done.stderr.strip()


def test_the_command(rlaif: Cli, tmp_path: Path) -> None:
    wrong = write(tmp_path, "wrong.yaml", SOUND.replace("verison", "").replace("version", "verison"))
    doubtful = write(tmp_path, "doubtful.yaml", SOUND.replace("weight: 0.6", "weight: 0.5"))
    known = "name, version, description, extends, objectives, aggregation"
    error = f"unknown key verison; known keys are {known}. Did you mean 'version'?"
    warning = (
        "the objectives' weights add up to 0.9; only their ratios count, so make them add up to 1 to show the shares."
    )
    both = [f"{wrong}:2: error: {error} [unknown-key]", f"{doubtful}:4: warning: {warning} [weights-sum]"]
    assert lines_of(rlaif("constitution", "lint", wrong, "hhh", doubtful)) == (
        2,
        both,
        "3 files: 1 error, 1 warning.",
    )
    assert lines_of(rlaif("constitution", "lint", "hhh")) == (0, [], "1 file: no problem found.")
    assert lines_of(rlaif("constitution", "lint", doubtful))[0] == 0
    assert lines_of(rlaif("constitution", "lint", doubtful, "--strict"))[0] == 2
    assert lines_of(rlaif("constitution", "lint", wrong, "--format", "github")) == (
        2,
        [f"::error file={wrong},line=2,col=1,title=unknown-key::{error}"],
        "1 file: 1 error, 0 warnings.",
    )
    done = rlaif("constitution", "lint", doubtful, "--json")
    assert json.loads(done.stdout) == {
        "findings": [
            {
                "file": str(doubtful),
                "line": 4,
                "column": 1,
                "severity": "warning",
                "code": "weights-sum",
                "message": warning,
            }
        ],
        "errors": 0,
        "warnings": 1,
    }
    assert done.stderr == ""


def test_the_command_counts_with_a_tokenizer(tiny_judge: Path, tmp_path: Path) -> None:
    sound = str(write(tmp_path, "sound.yaml", SOUND))
    options = [sound, "--context", "20", "--tokenizer", str(tiny_judge), "--json"]
    done = CliRunner().invoke(lint_constitutions, options, catch_exceptions=False)
    assert {each["code"] for each in json.loads(done.stdout)["findings"]} == {"too-long"}
    with pytest.raises(InputError, match=r"--tokenizer .*none: cannot be loaded"):
        lint_constitutions.main([sound, "--tokenizer", str(tmp_path / "none")], standalone_mode=False)
