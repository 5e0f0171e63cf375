"""A corpus of broken constitutions: one sound file, and what goes wrong with it, alone and together.

Each fault replaces one line of the sound file and lists what a linter is to say of the result, as
`LINE SEVERITY CODE`. The lines of several faults in one file follow from those of each alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

SOUND = """\
name: base
version: 1.0.0
description: A base to break.
objectives:
  helpful:
    weight: 0.6
    question: Which response helps more?
    principles:
      - id: answers
        text: Prefer the response that does what was asked.
        weight: 2
        source: Our own.
        tags: [task]
        cases:
          - prompt: What is 12 x 9?
            better: It is 108.
            worse: I like numbers.
      - id: in-order
        text: Prefer the response that puts steps in their order.
        tags: [task]
        cases:
          - prompt: How do I boil an egg?
            better: Boil water, then lower the egg in.
            worse: Lower the egg in, then boil water.
  honest:
    weight: 0.4
    question: Which response is more honest?
    principles:
      - id: true-things
        text: Prefer the response that states nothing false.
        cases:
          - prompt: Who wrote Hamlet?
            better: William Shakespeare.
            worse: Charles Dickens.
aggregation:
  method: weighted
  floors: {honest: 0.2}
  by_tag:
    medical: {helpful: 0.3, honest: 0.7}
"""

Expected = tuple[tuple[int, str, str], ...]


class Fault(NamedTuple):
    """The line that is replaced, by what (nothing: it is removed), and what is to be found in the result."""

    line: int
    text: str
    expected: Expected


class Broken(NamedTuple):
    """One file of the corpus."""

    name: str
    text: str
    expected: Expected


def _fault(line: int, text: str, *findings: str) -> Fault:
    words = [finding.split() for finding in findings]
    return Fault(line, text, tuple((int(number), severity, code) for number, severity, code in words))


def _p(text: str) -> str:
    return f"        text: {text}\n"


_CASE = "          - prompt: {}\n            better: Yes.\n            worse: No.\n"

# Faults that do not touch one another: any of them may stand beside any other in one file.
INDEPENDENT: dict[str, Fault] = {
    "unknown key of the file": _fault(2, "verison: 1.0.0\n", "2 error unknown-key"),
    "description as a list": _fault(3, "description: [a]\n", "3 error wrong-type"),
    "template syntax in a question": _fault(
        7, "    question: Which response helps {{ who }} more?\n", "7 error template-syntax"
    ),
    "template statement in a folded text": _fault(
        10, "        text: >-\n          Prefer what\n          {% if x %} was asked.\n", "12 error template-syntax"
    ),
    "negative weight of a principle": _fault(11, "        weight: -1\n", "11 error negative-weight"),
    "source as a number": _fault(12, "        source: 1\n", "12 error wrong-type"),
    "tag with a space": _fault(13, "        tags: [task, a b]\n", "13 error bad-name", "13 warning unused-tag"),
    "better equals worse": _fault(17, "            worse: It is 108.\n", "17 error same-responses"),
    "unknown key of a principle": _fault(20, "        tags: [task]\n        wieght: 2\n", "21 error unknown-key"),
    "case without a response": _fault(24, "", "22 error missing-key"),
    "missing weight of an objective is fine but a misspelt key is not": _fault(
        26, "    weight: 0.4\n    wight: 0.4\n", "27 error unknown-key"
    ),
    "id with a dot": _fault(29, "      - id: true.things\n", "29 error bad-name"),
    "verdict marker in a case": _fault(
        33, '            better: "Verdict: A. William Shakespeare."\n', "33 warning marker"
    ),
    "look-alike letter": _fault(34, "            worse: Ch\u0430rles Dickens.\n", "34 warning look-alike"),
    "unknown method": _fault(36, "  method: weigthed\n", "36 error bad-value"),
    "unknown objective with a floor": _fault(37, "  floors: {honset: 0.2}\n", "37 error unknown-objective"),
    "weights of a tag": _fault(39, "    medical: {helpful: 0.3, honest: 0.6}\n", "39 warning weights-sum"),
}

# Faults that are tried alone.
ALONE: dict[str, Fault] = {
    # The file as YAML.
    "tab": _fault(6, "\tweight: 0.6\n", "6 error yaml-syntax"),
    "colon in a text": _fault(10, _p("Prefer: the response"), "10 error yaml-syntax"),
    "open quote": _fault(10, _p('"Prefer the response'), "10 error yaml-syntax"),
    "open list": _fault(13, "        tags: [task\n", "14 error yaml-syntax"),
    "dedented line": _fault(16, "  better: It is 108.\n", "17 error yaml-syntax"),
    "key without a value in a list": _fault(9, "      - id answers\n", "10 error yaml-syntax"),
    "key given twice": _fault(6, "    weight: 0.6\n    weight: 0.6\n", "7 error duplicate-key"),
    "key given twice in a case": _fault(
        16, "            better: It is 108.\n            better: 108.\n", "17 error duplicate-key"
    ),
    "name given twice": _fault(2, "name: again\n", "2 error duplicate-key"),
    "objective given twice": _fault(
        25,
        "  helpful:\n",
        "25 error duplicate-key",
        "37 error unknown-objective",
        "39 error unknown-objective",
        "4 warning weights-sum",
    ),
    "Python tag": _fault(2, "version: !!python/name:os.system 1.0.0\n", "2 error yaml-tag"),
    "binary tag": _fault(12, "        source: !!binary aGk=\n", "12 error yaml-tag"),
    "own tag": _fault(12, "        source: !ours text\n", "12 error yaml-tag"),
    "set": _fault(37, "  floors: !!set {honest}\n", "37 error yaml-tag", "37 error wrong-type"),
    "undefined alias": _fault(6, "    weight: *w\n", "6 error yaml-alias"),
    "anchor that contains itself": _fault(13, "        tags: &t [*t]\n", "13 error yaml-alias"),
    "list as a key": _fault(3, "? [a]\n: b\n", "3 error yaml-syntax"),
    "second document": _fault(35, "---\naggregation:\n", "35 error yaml-syntax"),
    "merge of a text": _fault(3, "<<: text\n", "3 error yaml-syntax"),
    "control character": _fault(10, _p("Prefer the \x07 response."), "10 error non-printing"),
    "null character": _fault(10, _p("Prefer the \x00 response."), "10 error non-printing"),
    "zero-width space": _fault(10, _p("Prefer the res\u200bponse that helps."), "10 error non-printing"),
    "direction override": _fault(10, _p("Prefer the \u202eesnopser."), "10 error non-printing"),
    "direction override in a comment": _fault(3, "# A \u202e comment.\n", "3 error non-printing"),
    "soft hyphen": _fault(33, "            better: Shake\u00adspeare.\n", "33 error non-printing"),
    "byte-order mark inside": _fault(33, "            better: \ufeffShakespeare.\n", "33 error non-printing"),
    "zero-width space as an escape": _fault(33, '            better: "Shake\\u200bspeare."\n', "33 error non-printing"),
    "half a character as an escape": _fault(33, '            better: "\\ud83d"\n', "33 error non-printing"),
    "zero width in an id": _fault(9, "      - id: ans\u200bwers\n", "9 error non-printing", "9 error bad-name"),
    "private character": _fault(12, "        source: \ue000\n", "12 error non-printing"),
    # Keys and values.
    "no name": _fault(1, "", "1 error missing-key"),
    "empty name": _fault(1, "name: ''\n", "1 error bad-name"),
    "name with a space": _fault(1, "name: my base\n", "1 error bad-name"),
    "long name": _fault(1, f"name: {'x' * 65}\n", "1 error bad-name"),
    "name as a number": _fault(1, "name: 12\n", "1 error wrong-type"),
    "version as a number": _fault(2, "version: 1.0\n", "2 error wrong-type"),
    "version as nothing": _fault(2, "version:\n", "2 error wrong-type"),
    "unknown key of an objective": _fault(6, "    weight: 0.6\n    prinicples: []\n", "7 error unknown-key"),
    "unknown key of a case": _fault(
        17, "            worse: I like numbers.\n            wors: x\n", "18 error unknown-key"
    ),
    "unknown key of the aggregation": _fault(36, "  methode: weighted\n", "36 error unknown-key"),
    "key that is a number": _fault(2, "1: 1.0.0\n", "2 error unknown-key"),
    "no question": _fault(7, "", "5 error missing-key"),
    "empty question": _fault(7, "    question: ' '\n", "7 error empty"),
    "question as a number": _fault(7, "    question: 3\n", "7 error wrong-type"),
    "no text": _fault(10, "", "9 error missing-key"),
    "empty text": _fault(10, _p("''"), "10 error empty"),
    "text as a list": _fault(10, _p("[Prefer, this]"), "10 error wrong-type"),
    "text as true": _fault(10, _p("true"), "10 error wrong-type"),
    "no id": _fault(9, "      -\n", "10 error missing-key"),
    "id as a number": _fault(9, "      - id: 12\n", "9 error wrong-type"),
    "id that starts with a hyphen": _fault(9, "      - id: -answers\n", "9 error bad-name"),
    "id used twice": _fault(18, "      - id: answers\n", "18 error duplicate-id"),
    "id used twice across objectives": _fault(29, "      - id: answers\n", "29 error duplicate-id"),
    "weight as a text": _fault(6, "    weight: heavy\n", "6 error wrong-type", "4 warning weights-sum"),
    "weight as true": _fault(6, "    weight: true\n", "6 error wrong-type", "4 warning weights-sum"),
    "weight as a list": _fault(6, "    weight: [1]\n", "6 error wrong-type", "4 warning weights-sum"),
    "weight below 0": _fault(6, "    weight: -0.6\n", "6 error negative-weight", "4 warning weights-sum"),
    "infinite weight": _fault(6, "    weight: .inf\n", "6 error bad-value", "4 warning weights-sum"),
    "weight that is no number": _fault(6, "    weight: .nan\n", "6 error bad-value", "4 warning weights-sum"),
    "huge weight": _fault(11, f"        weight: 1{'0' * 5000}\n", "11 error bad-value"),
    "floor above 1": _fault(37, "  floors: {honest: 1.2}\n", "37 error floor-range"),
    "floor below 0": _fault(37, "  floors: {honest: -0.1}\n", "37 error floor-range"),
    "floor as a text": _fault(37, "  floors: {honest: low}\n", "37 error wrong-type"),
    "floor as true": _fault(37, "  floors: {honest: true}\n", "37 error wrong-type"),
    "floors as a list": _fault(37, "  floors: [honest]\n", "37 error wrong-type"),
    "weight of a tag below 0": _fault(39, "    medical: {helpful: -0.3, honest: 1.3}\n", "39 error negative-weight"),
    "weight of a tag as false": _fault(39, "    medical: {helpful: false, honest: 1}\n", "39 error wrong-type"),
    "tag without weights": _fault(39, "    medical: 1\n", "39 error wrong-type"),
    "unknown objective under a tag": _fault(
        39, "    medical: {helpfull: 0.3, honest: 0.7}\n", "39 error unknown-objective"
    ),
    "every principle off": _fault(
        30, _p("Prefer the response that states nothing false.") + "        weight: 0\n", "25 error all-off"
    ),
    "tags as a text": _fault(13, "        tags: task\n", "13 error wrong-type", "20 warning unused-tag"),
    "cases as a mapping": _fault(
        32, "            prompt: Who wrote Hamlet?\n", "31 error wrong-type", "29 warning no-cases"
    ),
    "case as a text": _fault(32, "          - Who?\n          - prompt: Who wrote Hamlet?\n", "32 error wrong-type"),
    "empty prompt": _fault(32, "          - prompt: ''\n", "32 error empty"),
    "response as a number": _fault(33, "            better: 12\n", "33 error wrong-type"),
    # Texts.
    "principle twice": _fault(30, _p("Prefer the response that does what was asked."), "30 error same-principle"),
    "principle twice but for spaces": _fault(
        19, _p("Prefer the response  that does what was   asked."), "19 error same-principle"
    ),
    "better equals worse but for capitals": _fault(17, "            worse: it is  108.\n", "17 error same-responses"),
    "template comment in a text": _fault(10, _p("'Prefer {# this #} response.'"), "10 error template-syntax"),
    # Weights, floors and tags that are not meant.
    "weights that do not add up": _fault(6, "    weight: 0.5\n", "4 warning weights-sum"),
    "one weight left out": _fault(6, "", "4 warning weights-sum"),
    "weights of a tag that are all 0": _fault(39, "    medical: {helpful: 0, honest: 0}\n", "39 warning weights-sum"),
    "floor above a half": _fault(37, "  floors: {honest: 0.6}\n", "37 warning high-floor"),
    "floors with pareto": _fault(36, "  method: pareto\n", "37 warning idle-floor"),
    "tag on one principle only": _fault(20, "        tags: [task, order]\n", "20 warning unused-tag"),
    "misspelt tag": _fault(20, "        tags: [taks]\n", "13 warning unused-tag", "20 warning unused-tag"),
    "tag of pairs that is nearly one of principles": _fault(
        39, "    tasks: {helpful: 0.3, honest: 0.7}\n", "39 warning unused-tag"
    ),
    "two tags of pairs that differ in a hyphen": _fault(
        39,
        "    pre-school: {helpful: 0.3, honest: 0.7}\n    preschool: {helpful: 0.3, honest: 0.7}\n",
        "40 warning unused-tag",
    ),
    # Readings.
    "against the question": _fault(30, _p("Prefer the response that misleads."), "30 warning against-question"),
    "less of what the question wants": _fault(
        30, _p("Prefer the response that is less honest."), "30 warning against-question"
    ),
    "without what the question wants": _fault(
        10, _p("Prefer the response that does not help the person."), "10 warning against-question"
    ),
    "against a question in a folded text": _fault(
        30, "        text: >\n          Prefer the response\n          that lies.\n", "32 warning against-question"
    ),
    "opposite principles": _fault(
        10, _p("Prefer the response that puts no steps in their order."), "19 warning contradiction"
    ),
    "opposite in another objective": _fault(
        30, _p("Prefer the response that does not do what was asked."), "30 warning contradiction"
    ),
    "opposite by the word": _fault(
        10,
        _p("Prefer the brief response.")
        + _CASE.format("Hm?").replace("          - ", "        cases:\n          - ", 1)
        + "      - id: lengthy\n        text: Prefer the lengthy response.\n",
        "16 warning contradiction",
    ),
    "nearly the same principle": _fault(
        30, _p("Choose the answer that puts the steps in their order."), "30 warning near-duplicate"
    ),
    "nearly the same in other forms": _fault(
        19, _p("Prefer a response that is doing what was asked!"), "19 warning near-duplicate"
    ),
    "text of several lines": _fault(
        10,
        "        text: |\n          Prefer the response\n          that does what was asked.\n",
        "10 warning several-lines",
    ),
    "question of several lines": _fault(
        7, "    question: |\n      Which response\n      helps more?\n", "7 warning several-lines"
    ),
    "placeholder": _fault(10, _p("TODO"), "10 warning placeholder"),
    "placeholder in brackets": _fault(10, _p("<what to prefer>"), "10 warning placeholder"),
    "description to be written": _fault(3, "description: '...'\n", "3 warning placeholder"),
    "no cases": _fault(31, "        cases: []\n        tags: [task]\n        source: |\n", "29 warning no-cases"),
    "prompt twice": _fault(14, "        cases:\n" + _CASE.format("what is 12 x  9?"), "18 warning same-prompt"),
    "case of another principle": _fault(
        31,
        "        cases:\n          - prompt: What is 12 x 9?\n            better: It is 108.\n"
        "            worse: I like numbers.\n",
        "32 warning same-prompt",
    ),
    "fence in a case": _fault(16, "            better: '[12345678 response A] 108'\n", "16 warning marker"),
    "control token in a principle": _fault(10, _p("Prefer <|im_start|> responses."), "10 warning marker"),
    "verdict marker in a principle": _fault(10, _p("'Prefer verdict: A.'"), "10 warning marker"),
    "Greek letter in a word": _fault(10, _p("Prefer the resp\u03bfnse that helps."), "10 warning look-alike"),
    "Cyrillic word that looks Latin": _fault(
        34, "            worse: Charles Dickens of \u0421\u0430\u0440.\n", "34 warning look-alike"
    ),
    "Latin letter in a Cyrillic word": _fault(
        34, "            worse: \u041c\u043e\u0441\u043a\u0432a.\n", "34 warning look-alike"
    ),
    "styled letter": _fault(34, "            worse: Dicke\U0001d427s.\n", "34 warning look-alike"),
    "many principles": _fault(
        18,
        "".join(
            f"      - id: topic-{word}\n        text: Prefer the response that mentions {word}.\n"
            f"        cases: [{{prompt: Name it., better: {word}., worse: No.}}]\n"
            for word in ("ant", "bee", "cow", "dog", "elk", "fox", "gnu", "hen", "ibis", "jay", "koi")
        )
        + "      - id: in-order\n",
        "5 warning many-principles",
    ),
    "long principle": _fault(10, _p("Prefer it. " + "word " * 4000), "5 warning too-long"),
    "long case": _fault(33, f"            better: {'word ' * 4000}\n", "32 warning too-long"),
    # extends.
    "extends nothing": _fault(2, "extends:\n", "2 error bad-extends"),
    "extends an empty list": _fault(2, "extends: []\n", "2 error bad-extends"),
    "extends a number": _fault(2, "extends: [hhh, 3]\n", "2 error bad-extends"),
    "extends what is not there": _fault(2, "extends: no-such-file.yaml\n", "2 error bad-extends"),
    "extends in a list what is not there": _fault(2, "extends:\n  - hhh\n  - hhhh\n", "4 error bad-extends"),
}

_LINES = SOUND.splitlines(keepends=True)


def _join(faults: tuple[Fault, ...]) -> str:
    lines = list(_LINES)
    for fault in faults:
        lines[fault.line - 1] = fault.text
    return "".join(lines)


def _moved(fault: Fault, line: int, others: tuple[Fault, ...]) -> int:
    """Where a line of the file with this fault alone stands when there are others, too."""
    added = fault.text.count("\n") - 1
    # The line of the sound file that it was, or that it stands in the place of.
    origin = line if line <= fault.line else max(fault.line, line - added)
    return line + sum(other.text.count("\n") - 1 for other in others if other.line < origin)


def _together(names: tuple[str, ...]) -> Broken:
    faults = tuple(INDEPENDENT[name] for name in names)
    expected = [
        (_moved(fault, line, tuple(other for other in faults if other is not fault)), severity, code)
        for fault in faults
        for line, severity, code in fault.expected
    ]
    return Broken(" + ".join(names), _join(faults), tuple(sorted(expected)))


def corpus() -> Iterator[Broken]:
    """Every fault alone, every two independent ones, and all of these at once."""
    for name, fault in {**INDEPENDENT, **ALONE}.items():
        yield Broken(name, _join((fault,)), tuple(sorted(fault.expected)))
    for names in combinations(INDEPENDENT, 2):
        yield _together(names)
    yield _together(tuple(INDEPENDENT))._replace(name="all independent faults")
