"""`rlaif prompt lint`: each fault of a template with its line and code, and what is left alone."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from rlaif.prompts import Template
from rlaif.prompts_lint import CODES, MAX_BYTES, lint_template, lint_template_text
from tests.conftest import ROOT, Cli
from tests.patience import ends

SHIPPED = sorted(path.stem for path in (ROOT / "prompts").glob("*.j2"))

SOUND = """\
---
verdict: "Verdict:"
choices: [A, B]
---
{% block system %}
Compare the responses. End with "Verdict: A" or "Verdict: B".
{% endblock %}
{% block pair %}
{{ conversation(prompt) }}
{{ fence("response A", response_a) }}
{{ fence("response B", response_b) }}
{% endblock %}
{% block objective %}
Question: {{ question }}
{% for principle in principles %}
- {{ principle }}
{% endfor %}
{% endblock %}
"""
RATING = """\
---
kind: rating
verdict: "Rating:"
---
{% block system %}
Rate from 1 to 10. End with "Rating: 7".
{% endblock %}
{% block response %}
{{ conversation(prompt) }}
{{ fence("response", response) }}
{% endblock %}
{% block objective %}
{{ question }} {{ principles | join(" ") }}
{% endblock %}
"""
REVISION = """\
---
kind: revision
---
{% block response %}
{{ conversation(prompt) }}
{{ fence("response", response) }}
{% endblock %}
{% block critique %}
{{ principle }}
{{ fence("critique", critique) }}
{% endblock %}
"""
CRITIQUE = """\
---
kind: critique
---
{% block response %}
{{ conversation(prompt) }}
{{ fence("response", response) }}
{% endblock %}
{% block principle %}
{{ principle }}
{% endblock %}
"""
TOKENS = (
    *(b"{{", b"}}", b"{%", b"%}", b"{#", b"{% if x %}", b"{% block a %}", b"{% endblock %}", b"{% raw %}", b"[", b"\n"),
    *(b"{% for a in prompt %}", b"{% endfor %}", b"{% set a = response_a %}", b"{{ self.pair() }}", b"{{ super() }}"),
    *(
        b"|length",
        b"{% macro a() %}",
        b"{% call a() %}",
        b"{% extends 'a' %}",
        b"{{ lipsum() }}",
        b"\0",
        b"---\n",
        b"'",
    ),
)
A = '{{ fence("response A", response_a) }}'
B = '{{ fence("response B", response_b) }}'
SYSTEM = 'Compare the responses. End with "Verdict: A" or "Verdict: B".'


def told(text: str) -> list[str]:
    """`LINE CODE` of each finding."""
    return [f"{each.line} {each.code}" for each in lint_template_text(text, "t.j2")]


FAULTS: dict[str, tuple[str, tuple[str, str], list[str]]] = {
    "no head": (SOUND, ('---\nverdict: "Verdict:"\nchoices: [A, B]\n---\n', ""), ["1 head"]),
    "head that is not YAML": (SOUND, ("[A, B]", "[A, B"), ["4 head"]),
    "two wrong values in the head": (
        SOUND,
        ('verdict: "Verdict:"\nchoices: [A, B]', "verdict: ''\nrationale: maybe"),
        ["2 head", "3 head"],
    ),
    "unknown key": (SOUND, ("verdict:", "verdikt:"), ["2 unknown-key"]),
    "unknown kind": (SOUND, ("---\nverdict", "---\nkind: compare\nverdict"), ["2 head"]),
    "three choices": (SOUND, ("[A, B]", "[A, B, C]"), ["3 head"]),
    "verdict of a text": (REVISION, ("kind: revision", 'kind: revision\nverdict: "V:"'), ["1 head"]),
    "open tag": (SOUND, ("{{ question }}", "{{ question }"), ["14 syntax"]),
    "unknown filter": (SOUND, ("{{ question }}", "{{ question | shout }}"), ["14 syntax"]),
    "open block": (SOUND, ("{% endfor %}\n{% endblock %}\n", "{% endfor %}\n"), ["17 syntax"]),
    "block twice": (SOUND, ("block objective", "block pair"), ["13 syntax"]),
    "thirty loops in one another": (
        SOUND,
        ("{{ question }}", "{% for x in principles %}" * 30 + "{{ question }}" + "{% endfor %}" * 30),
        ["5 syntax"],
    ),
    "another file": (SOUND, ("Question:", "{% include 'other.j2' %}"), ["14 other-file"]),
    "missing block": (SOUND, ("block objective", "block objektive"), ["1 missing-block", "13 unknown-block"]),
    "misspelt system": (
        SOUND,
        ("block system", "block sytem"),
        ["2 no-verdict", "5 unknown-block"],
    ),
    "block of another kind": (CRITIQUE, ("kind: critique", "kind: revision"), ["1 missing-block", "8 unknown-block"]),
    "undefined variables, all of them": (
        SOUND,
        (f"{A}\n{B}", f"{A} {{{{ respons_b }}}}\n{B}\n{{{{ question }}}}"),
        ["10 undefined-variable", "12 undefined-variable"],
    ),
    "undefined in a branch that is not taken": (
        SOUND,
        ("Question:", "{% if question == 'x' %}{{ nothing }}{% endif %}"),
        ["14 undefined-variable"],
    ),
    "set outside of the block": (
        SOUND,
        ("{% block pair %}\n", "{% set a = 'A' %}\n{% block pair %}\n{{ a }}\n"),
        ["8 outside-blocks", "10 undefined-variable"],
    ),
    "fails on an ordinary pair": (SOUND, ("{{ question }}", "{{ question + 1 }}"), ["14 render"]),
    "response outside a fence": (SOUND, (A, "{{ response_a }}"), ["10 no-fence"]),
    "both outside a fence": (
        SOUND,
        (f"{A}\n{B}", "A: {{ response_a }}\nB: {{ response_b }}"),
        ["10 no-fence", "11 no-fence"],
    ),
    "response outside a fence, under another name": (
        SOUND,
        (A, "{% set first = response_a %}{{ first }}"),
        ["8 no-fence"],
    ),
    "response in a fence and outside": (SOUND, (A, A + "\n{{ response_a[:20] }}"), ["11 no-fence", "8 order-leak"]),
    "conversation without a fence": (
        SOUND,
        ("{{ conversation(prompt) }}", "{% for turn in prompt %}{{ turn.content }}{% endfor %}\n"),
        ["8 no-fence"],
    ),
    "critique outside a fence": (REVISION, ('{{ fence("critique", critique) }}', "{{ critique }}"), ["10 no-fence"]),
    "rating without a fence": (RATING, ('{{ fence("response", response) }}', "{{ response }}"), ["10 no-fence"]),
    "response that is missing": (SOUND, (f"{B}\n", ""), ["8 not-shown"]),
    "response that is never printed": (SOUND, (B, "{% set b = response_b %}"), ["8 not-shown"]),
    "no question": (SOUND, ("Question: {{ question }}\n", ""), ["13 not-shown"]),
    "no principles": (SOUND, ("- {{ principle }}\n", ""), ["13 not-shown"]),
    "first principle only": (
        SOUND,
        ("{% for principle in principles %}\n- {{ principle }}\n{% endfor %}", "{{ principles[0] }}"),
        ["13 not-shown"],
    ),
    "no principle in a critique": (CRITIQUE, ("{{ principle }}", "The principle."), ["8 not-shown"]),
    "no critique": (REVISION, ('{{ fence("critique", critique) }}\n', ""), ["8 not-shown"]),
    "no conversation": (SOUND, ("{{ conversation(prompt) }}\n", ""), ["8 no-conversation"]),
    "cut response": (
        SOUND,
        ("response_a)", "response_a[:100])"),
        ["8 changed"],
    ),
    "response in capitals": (SOUND, ("response_b)", "response_b | upper)"), ["8 changed"]),
    "length that leaks": (
        SOUND,
        (A, A + "\n{% if response_a | length > 500 %}Mind the length.{% endif %}"),
        ["11 depends-on-response", "11 order-leak"],
    ),
    "length of one that leaks": (
        SOUND,
        (A, A + "\n{{ response_a | length }}"),
        ["11 depends-on-response", "11 order-leak"],
    ),
    "first one only that leaks": (
        SOUND,
        (B, B + "\n\n{{ fence('first response again', response_a) }}"),
        ["8 order-leak"],
    ),
    "word that decides": (
        SOUND,
        (A, A + "\n{% if 'sorry' in response_a %}It is sorry.{% endif %}"),
        ["11 depends-on-response"],
    ),
    "verdict that is never asked for": (SOUND, (SYSTEM, "Compare. Say A or B."), ["2 no-verdict"]),
    "other verdict than the head's": (SOUND, ('verdict: "Verdict:"', 'verdict: "Answer:"'), ["2 no-verdict"]),
    "rating that is never asked for": (RATING, ('End with "Rating: 7".', ""), ["3 no-verdict"]),
    "choices that only the quoted parts name": (SOUND, (SYSTEM, 'End with "Verdict:".'), []),
    "choices that are never named": (SOUND, ("[A, B]", "[one, two]"), ["3 no-choices"]),
    "rating without its range": (RATING, ("from 1 to 10", "it"), ["1 no-choices"]),
    "choices that begin alike": (
        SOUND,
        (
            f"[A, B]\n---\n{{% block system %}}\n{SYSTEM}",
            "[A, AB]\n---\n{% block system %}\nEnd with Verdict: A or AB.",
        ),
        ["3 same-start"],
    ),
    "choices of one letter": (
        SOUND,
        (
            f"[A, B]\n---\n{{% block system %}}\n{SYSTEM}",
            "[one, other]\n---\n{% block system %}\nVerdict: one or other.",
        ),
        ["3 same-letter"],
    ),
    "text between the blocks": (SOUND, ("{% block pair %}", "Now judge.\n{% block pair %}"), ["8 outside-blocks"]),
    "control token": (SOUND, (SYSTEM, f"<|im_start|>system\n{SYSTEM}"), ["6 control-token"]),
    "control token of another format": (SOUND, (SYSTEM, f"{SYSTEM} [INST]"), ["6 control-token"]),
    "zero-width space": (SOUND, ("Compare the", "Compare\u200b the"), ["6 non-printing"]),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_told_with_its_line(name: str) -> None:
    text, change, expected = FAULTS[name]
    changed = text.replace(*change)
    assert changed != text
    assert sorted(told(changed)) == sorted(expected)
    if all(each.severity == "warning" for each in lint_template_text(changed, "t.j2")):
        assert Template(changed, "t.j2").head.kind


def test_the_faults_hold_every_code_but_those_of_files() -> None:
    seen = {finding.split()[1] for _, _, expected in FAULTS.values() for finding in expected}
    assert seen == CODES.keys() - {"not-found", "unreadable"}


@pytest.mark.parametrize(
    "text", [SOUND, RATING, REVISION, CRITIQUE], ids=["comparison", "rating", "revision", "critique"]
)
def test_sound_templates_give_nothing(text: str) -> None:
    assert told(text) == []
    assert told(text.replace("\n", "\r\n")) == []


@pytest.mark.parametrize("name", SHIPPED)
def test_what_ships_is_clean(name: str) -> None:
    assert [str(each) for each in lint_template(name)] == []


def test_what_is_sound_in_other_ways() -> None:
    direct = SOUND.replace("choices: [A, B]", "choices: [A, B]\nrationale: false").replace('"Verdict: A" or', "A or")
    assert told(direct.replace('"Verdict: B"', "B")) == []
    macro = SOUND.replace(
        "{% block pair %}", "{% block pair %}\n{% macro show(name, text) %}{{ fence(name, text) }}{% endmacro %}"
    ).replace(A, '{{ show("response A", response_a) }}')
    # The call is not a fence to the eye, so it is told; rendering it shows no harm.
    assert told(macro) == ["11 no-fence"]
    inner = SOUND.replace(A, "{% block first %}" + A + "{% endblock %}\n")
    assert told(inner) == []
    asked_last = SOUND.replace(f"{{% block system %}}\n{SYSTEM}\n{{% endblock %}}\n", "").replace(
        "Question:", f"{SYSTEM}\n"
    )
    assert told(asked_last) == []


def test_all_faults_of_a_template_are_told_at_once() -> None:
    broken = SOUND
    for change in (
        ("verdict:", "verdikt:"),
        ("Compare the", "<|user|> Compare the"),
        (A, "{{ response_a }}"),
        ("{{ question }}", "{{ questoin }}"),
    ):
        broken = broken.replace(*change)
    assert told(broken) == [
        "2 unknown-key",
        "6 control-token",
        "10 no-fence",
        "13 not-shown",
        "14 undefined-variable",
    ]
    (undefined,) = (each for each in lint_template_text(broken, "t.j2") if each.code == "undefined-variable")
    assert undefined.message == (
        "'questoin' is undefined; block objective is given objective, principles, question. Did you mean 'question'?"
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "---\n---\n",
        "---\n- a\n---\n",
        "---\n&a [*a]\n---\n",
        "---\n" + "[" * 5000 + "\n---\n",
        "---\n\x00\n---\n",
        "---\n---\n" + "{{" * 5000,
        "---\n---\n{{ " + "(" * 5000 + " }}",
        "---\n---\n{% block pair %}{{ 1/0 }}{% endblock %}{% block objective %}{% endblock %}",
        SOUND.replace("{{ question }}", "{{ ''.__class__.__mro__ }}"),
        SOUND.replace("{{ question }}", "{{ range(1000000000) | list }}"),
        SOUND.replace("{{ question }}", "{{ self.objective() }}"),
    ],
)
def test_hostile_templates_are_told_soon(text: str) -> None:
    with ends():
        findings = lint_template_text(text, "t.j2")
    assert any(each.severity == "error" for each in findings)
    assert all(str(each).isprintable() and each.line >= 1 for each in findings)


def test_mutated_templates_give_findings() -> None:
    seeds = [text.replace(*change).encode() for text, change, _ in FAULTS.values()]
    for number in range(300):
        draw = random.Random(number)
        data = draw.choice(seeds)
        for _ in range(draw.randint(1, 4)):
            place = draw.randint(0, len(data))
            data = data[:place] + draw.choice(TOKENS) + data[place + draw.choice((0, 0, 1, 12)) :]
        text = data.decode("utf-8", "replace")
        findings = lint_template_text(text, "t.j2")
        assert all(str(each).isprintable() and 1 <= each.line <= text.count("\n") + 2 for each in findings), number
        if all(each.severity == "warning" for each in findings):
            assert Template(text, "t.j2").place == "t.j2", number


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "t.j2"
    path.write_bytes(SOUND.encode().replace(b"Question", b"Quest\xffon"))
    assert [(each.line, each.code) for each in lint_template(path)] == [(14, "unreadable")]
    path.write_bytes(b"x" * (MAX_BYTES + 1))
    assert [each.code for each in lint_template(path)] == ["unreadable"]
    (near,) = lint_template("pairwise-cod")
    assert (near.code, near.message.endswith("Did you mean pairwise-cot?")) == ("not-found", True)


def test_the_command(rlaif: Cli, tmp_path: Path) -> None:
    path = tmp_path / "mine.j2"
    path.write_text(SOUND.replace(A, "{{ response_a }}"), encoding="utf-8")
    fact = "response_a is shown outside a fence, where it can pass for the prompt itself"
    fix = 'use {{ fence("…", response_a) }}.'
    done = rlaif("prompt", "lint", "direct", path)
    assert (done.returncode, done.stdout) == (2, f"{path}:10: error: {fact}; {fix} [no-fence]\n")
    assert done.stderr == "2 files: 1 error, 0 warnings.\n"
    as_json = json.loads(rlaif("prompt", "lint", *SHIPPED, "--json", "--strict").stdout)
    assert as_json == {"findings": [], "errors": 0, "warnings": 0}
