"""The sandbox of templates: none runs or grows without bound, and what prompts need is not touched."""

from __future__ import annotations

import pytest

from rlaif.errors import InputError
from rlaif.prompts import Template
from rlaif.prompts_lint import lint_template_text
from rlaif.types import Message, Pair
from tests.patience import ends
from tests.test_prompts_lint import SOUND

ROUNDS = "over 100,000 rounds of loops and calls; a prompt needs few, so loop over less"
NUMBER = "is too large a number for a prompt; use a smaller one"
WIDTH = "a text is padded to a width of 10,000 or more; use a smaller one"
NESTED = "two long texts or lists are put into one another; make one of them shorter"
GROWS = "{% set ns = namespace(x='ab', y=['ab']) %}{% for n in range(99) %}<>{% endfor %}"
LONG = "{% set x = 'a'.ljust(900000) %}"

BOMBS = {
    "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}": ROUNDS,
    "{% for a in response_a %}{% for b in response_a %}{% for c in response_a %}{% endfor %}{% endfor %}{% endfor %}"
    * 9: ROUNDS,
    "{% for a in range(9999) %}{% set x = range(9999) %}{% endfor %}": ROUNDS,
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(20) }}": ROUNDS,
    "{% for a in range(9999) %}" + "x" * 9000 + "{% endfor %}": ROUNDS,
    "{% set x = range(90000) | list %}{% for a in range(9999) %}{{ x | sum }}{% endfor %}": ROUNDS,
    "{{ 'a' * 10 ** 10 }}": "the result of * is too large; a prompt needs no such number or text",
    "{{ 99 ** 99 ** 99 }}": "the result of ** is too large; a prompt needs no such number or text",
    "{{ 'a'.ljust(10 ** 10) }}": f"10000000000 {NUMBER}",
    "{{ 'a' | center(10 ** 10) }}": f"10000000000 {NUMBER}",
    "{{ '{:>{}}'.format(3, 10 ** 10) }}": f"10000000000 {NUMBER}",
    "{{ '%99999d' % 3 }}": WIDTH,
    "{{ '%*d' % (99999, 3) }}": WIDTH,
    "{{ '%99999d' | format(3) }}": WIDTH,
    "{{ '{:>99999}'.format(3) }}": WIDTH,
    GROWS.replace("<>", "{% set ns.x = ns.x ~ ns.x %}"): "a text or list of over ",
    GROWS.replace("<>", "{% set ns.x = ns.x + ns.x %}"): "the result of + is too large",
    GROWS.replace("<>", "{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}"): "characters are shown; no judge reads",
    GROWS.replace("<>", "{% set ns.y = [ns.y, ns.y] %}"): "a text or list of over ",
    GROWS.replace("<>", "{% set ns.y = (ns.y, ns.y) %}"): "a text or list of over ",
    GROWS.replace("<>", "{% set ns.y = {1: ns.y, 2: ns.y} %}"): "a text or list of over ",
    GROWS.replace("<>", "{% set ns.x = [ns.x, ns.x] | join %}"): "a text or list of over ",
    LONG + "{{ x | replace('a', x) | length }}": NESTED,
    LONG + "{{ x.replace('a', x) | length }}": NESTED,
    "{{ 'x' }}{% for n in range(30) %}" + LONG + "{{ x }}{% endfor %}": "characters are shown; no judge reads",
}
REFUSED = {
    "{% for a in response_a recursive %}{{ loop(a) }}{% endfor %}": "recursive loops are not for prompts",
    # The same pair is to give the same prompt.
    "{{ [1, 2] | random }}": "No filter named 'random'",
    "{{ lipsum() }}": "'lipsum' is undefined",
}


def with_code(code: str) -> str:
    """A sound template with the code in the fourth line of its body."""
    return SOUND.replace("{{ conversation(prompt) }}", "{{ conversation(prompt) }}\n" + code)


def a_pair(words: int = 3) -> Pair:
    turns = (Message(role="user", content="Which?"),)
    return Pair(id="one", prompt=turns, response_a="good " * words, response_b="bad " * words)


@pytest.mark.parametrize("code", [*BOMBS, *REFUSED])
def test_a_bomb_is_found_at_its_line_soon(code: str) -> None:
    with ends():
        (found, *_) = lint_template_text(with_code(code), "t.j2")
    assert (found.severity, found.line) == ("error", 10)
    assert {**BOMBS, **REFUSED}[code] in found.message


@pytest.mark.parametrize("code", BOMBS)
def test_a_bomb_fails_when_pairs_are_labelled(code: str) -> None:
    template = Template(with_code(code), "t.j2")
    with pytest.raises(InputError, match=r"^t\.j2:10: block pair: ") as caught:
        template.pair(a_pair(words=900))
    assert BOMBS[code] in str(caught.value)


ORDINARY = {
    "{% for turn in prompt %}{{ loop.index }}/{{ loop.length }} {{ turn.role }}{% endfor %}": "1/1 user",
    "{{ ['a', 'b'] | join(', ') }} {{ 2 ** 10 + 7 % 4 * 3 }}": "a, b 1033",
    "{{ '%5d' % 42 }}|{{ '{:>5}'.format(42) }}|{{ 'a'.ljust(3) }}|{{ 'ab' * 2 }}": "   42|   42|a  |abab",
    "{% set n = namespace(sum=0) %}{% for x in range(50) %}{% set n.sum = n.sum + x %}{% endfor %}{{ n.sum }}": "1225",
    "{% macro twice(x) %}{{ x ~ x }}{% endmacro %}{{ twice('ab') }} {{ {'k': (1, 2)}['k'][1] }}": "abab 2",
    "{% for a, b in [(1, 2), (3, 4)] if a > 1 %}{{ a }}{{ b }}{% else %}none{% endfor %}": "34",
}


@pytest.mark.parametrize("code", ORDINARY)
def test_what_a_prompt_needs_is_shown(code: str) -> None:
    template = Template(with_code(code), "t.j2")
    assert ORDINARY[code] in template.pair(a_pair())


def test_long_responses_are_shown_whole() -> None:
    # 2.5 million characters for each response: the bound grows with what is quoted.
    pair = a_pair(words=500_000)
    shown = Template(SOUND, "t.j2").pair(pair)
    assert pair.response_a in shown
    assert pair.response_b in shown


def test_each_rendering_has_a_budget_of_its_own() -> None:
    template = Template(with_code("{% for n in range(40000) %}{% endfor %}"), "t.j2")
    first = template.pair(a_pair())
    assert [template.pair(a_pair()) for _ in range(3)] == [first] * 3
