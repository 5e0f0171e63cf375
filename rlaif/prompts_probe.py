"""Render a template with texts that can be found again, and see what becomes of them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rlaif.prompts import Template
from rlaif.types import Message, Pair

QUOTED = ("prompt", "response_a", "response_b", "response", "critique")
_FENCED = re.compile(r"^\[(\w{8}) [^\]\n]+\]\n.*?^\[\1 end of [^\]\n]+\]", re.DOTALL | re.MULTILINE)
# Each text is one word many times over, so that any part of it that is shown is known; the word holds no character
# that a template would be expected to change.
_WORDS = {"prompt": "qoprompt", "response_a": "qoalpha", "response_b": "qobeta", "response": "qoresponse"}
_LENGTHS = ((3, 4), (1, 900), (40, 40))
_ONE, _OTHER = "Prefer what qoprincipleone says.", "Prefer what qoprincipletwo says."

Problem = tuple[str, str, str]


def probes(template: Template) -> Iterator[Problem]:
    """Yield (code, block, fact) for each thing that is shown wrongly.

    Raises:
        InputError: the template cannot be rendered.
    """
    template.system()
    kind = template.head.kind
    if kind == "comparison":
        for first, second in _LENGTHS:
            yield from _comparison(template, first, second)
    else:
        for length, _ in _LENGTHS:
            yield from _one_response(template, length)
    if kind in ("comparison", "rating"):
        yield from _objective(template)
    elif kind == "critique":
        yield from _asked(template, "principle")
    else:
        yield from _asked(template, "critique")


def _text(name: str, words: int) -> str:
    return " ".join([_WORDS[name]] * words)


def _turns() -> tuple[Message, ...]:
    roles: tuple[tuple[str, int], ...] = (("system", 2), ("user", 3), ("assistant", 4), ("user", 5))
    return tuple(Message.model_validate({"role": role, "content": _text("prompt", words)}) for role, words in roles)


def _comparison(template: Template, first: int, second: int) -> Iterator[Problem]:
    a, b = _text("response_a", first), _text("response_b", second)
    pair = Pair(id="probe", prompt=_turns(), response_a=a, response_b=b)
    forth, back = template.pair(pair), template.pair(pair.swap())
    yield from _quotes(forth, "pair", {"response_a": a, "response_b": b})
    marked = _marked(forth, ("response_b", "response_a"))
    if marked != _marked(back, ("response_a", "response_b")):
        fact = "the prompt changes by more than the responses when these change places; treat both alike."
        yield "order-leak", "pair", fact
    times = [marked.count(mark) for mark in ("<1>", "<2>")]
    if all(times) and times[0] != times[1]:
        yield "order-leak", "pair", "one response is shown more often than the other; treat both alike."


def _marked(shown: str, names: tuple[str, str]) -> str:
    """The prompt with all that is shown of each response as one mark, of whatever length; a cut is told elsewhere."""
    for mark, name in zip(("<1>", "<2>"), names, strict=True):
        word = _WORDS[name]
        shown = re.sub(rf"{word}(?: {word})*(?: q\w*)?(?:\.\.\.|…)?", mark, shown, flags=re.IGNORECASE)
    return shown


def _one_response(template: Template, words: int) -> Iterator[Problem]:
    text = _text("response", words)
    yield from _quotes(template.response(_turns(), text), "response", {"response": text})


def _quotes(shown: str, block: str, texts: dict[str, str]) -> Iterator[Problem]:
    outside = _FENCED.sub("", shown).casefold()
    for name, text in {**texts, "prompt": _turns()[-1].content}.items():
        word = _WORDS[name]
        if word in outside:
            fact = f"{name} is shown outside a fence, where it can pass for the prompt itself; put it into one."
            yield "no-fence", block, fact
        if word not in shown.casefold():
            code = "no-conversation" if name == "prompt" else "not-shown"
            yield code, block, f"{name} is not shown to the judge; put it into a fence."
        elif not re.search(rf"(?<!{word} ){re.escape(text)}(?! {word})", shown):
            yield "changed", block, f"{name} is not shown as it is; a judge is to see all of it, unchanged."


def _objective(template: Template) -> Iterator[Problem]:
    shown = template.objective("qoobjective", "Which qoquestion?", (_ONE, _OTHER))
    for name, texts in (("question", ("Which qoquestion?",)), ("principles", (_ONE, _OTHER))):
        absent = [text for text in texts if text not in shown]
        if absent:
            part = "none of" if len(absent) == len(texts) else "not all of"
            yield "not-shown", "objective", f"block objective shows {part} the {name}; show it as it is."
    template.objective("qoobjective", "Which?", (_ONE,))


def _asked(template: Template, block: str) -> Iterator[Problem]:
    texts = {"principle": _ONE} | ({"critique": "qocritique qocritique"} if block == "critique" else {})
    turns = _turns()
    whole = template.request(turns, "qoresponse", _ONE, "qocritique qocritique")[-1].content
    asked = whole.removeprefix(template.response(turns, "qoresponse"))
    for name, text in texts.items():
        if text not in asked:
            yield "not-shown", block, f"block {block} does not show the {name}; show it as it is."
    if "qocritique" in _FENCED.sub("", asked):
        yield "no-fence", block, "critique is shown outside a fence; put it into one."
