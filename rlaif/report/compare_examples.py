"""The pairs on which judge and people differ, to read and to filter, within a size that a browser opens at once."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Sequence
from itertools import chain, zip_longest

from rlaif.agreement.results import Comparison, Disagreement
from rlaif.report.figures import fitted
from rlaif.report.page import Example, Examples, Filter, Passage, readable
from rlaif.report.wording import number, tag_text

MOST_SHOWN = 200
# Of the page, in bytes: the pictures and tables have the rest.
_ROOM = 2_100_000
_LIMITS = (20_000, 10_000, 6_000, 4_000, 2_500, 1_500, 1_000, 600, 300, 150)
_MOST_OPTIONS = 60
_MOST_PASSAGES = 24
_ORDERS = {"ab": "Judge's reasons, a shown first", "ba": "Judge's reasons, b shown first"}
_SHORT = 200


def disagreements(comparison: Comparison, most: int = MOST_SHOWN) -> Examples:
    """The first disagreements of each objective in turn, with the count of those that are not on the page."""
    shown = _in_turn(comparison.examples)[:most]
    total = sum(len(set(found.disagreements)) for found in comparison.objectives.values())
    rest = max(total, len(comparison.examples)) - len(shown)
    filters = _filters(shown)
    passages = [_passages(one) for one in shown]
    limit = _limit(passages)
    return Examples(
        noun="disagreements" if len(shown) != 1 else "disagreement",
        filters=tuple(
            Filter(label=label, options=tuple(fitted(each, 60) for each in options)) for label, options in filters
        ),
        examples=tuple(
            Example(
                id=fitted(one.id, 80),
                summary=_summary(one),
                passages=tuple(_cut(each, limit) for each in texts),
                picks=tuple(
                    tuple(place for place, option in enumerate(options) if option in _values(one, label))
                    for label, options in filters
                ),
            )
            for one, texts in zip(shown, passages, strict=True)
        ),
        more=f"{rest:,} more are not on this page; rlaif compare --json names them all." if rest > 0 else "",
    )


def _in_turn(every: Sequence[Disagreement]) -> list[Disagreement]:
    """One of each objective after the other, so that no objective fills the page alone."""
    groups: dict[str, list[Disagreement]] = {}
    for one in every:
        groups.setdefault(one.objective, []).append(one)
    return [one for one in chain.from_iterable(zip_longest(*groups.values())) if one is not None]


def _direction(one: Disagreement) -> str:
    return f"people {one.human}, judge {one.preference}"


def _values(one: Disagreement, label: str) -> set[str]:
    if label == "Objective":
        return {one.objective}
    if label == "Judge":
        return {one.judge}
    return (
        {_direction(one)}
        if label == "Direction"
        else {f"{name}: {tag_text(value)}" for name, value in one.tags.items()}
    )


def _filters(shown: Sequence[Disagreement]) -> list[tuple[str, list[str]]]:
    """The filters that leave something out, each with its options."""
    found = []
    for label in ("Objective", "Judge", "Direction", "Tag"):
        counts = Counter(value for one in shown for value in sorted(_values(one, label)))
        if label == "Tag":
            # A tag of one pair alone, as a source's number, is found by its text.
            counts = Counter({value: n for value, n in counts.most_common(_MOST_OPTIONS) if n > 1})
        options = sorted(counts)
        if len(options) > 1 or (label == "Tag" and options):
            found.append((label, options))
    return found


def _summary(one: Disagreement) -> str:
    votes = Counter(one.votes.values())
    told = ", ".join(f"{side} {votes[side]}" for side in ("a", "b", "tie") if votes[side])
    people = f"people {one.human}" + (f" ({told})" if len(one.votes) > 1 else "")
    sure = "" if one.p_a is None else f" (p_a {number(one.p_a, 2)})"
    return f"{fitted(one.objective, 40)}: {people}, judge {one.preference}{sure}"


def _passages(one: Disagreement) -> list[Passage]:
    turns = one.prompt or ()
    alone = len(turns) == 1
    made = [
        Passage(label="Prompt" if alone else f"Prompt, {turn.role}", text=turn.content, wide=True)
        for turn in turns[-_MOST_PASSAGES:]
    ]
    for side, text in (("a", one.response_a), ("b", one.response_b)):
        if text is not None:
            said = [who for who, choice in (("people", one.human), ("judge", one.preference)) if choice == side]
            preferred = f", preferred by {' and '.join(said)}" if said else ""
            made.append(Passage(label=f"Response {side}{preferred}", text=text, marked=one.human == side))
    if one.prompt is None and not made:
        made.append(Passage(label="Texts", text="Not at hand: give the pairs with --pairs FILE.", wide=True))
    reasons = sorted(one.rationales.items(), key=lambda item: (item[0] not in _ORDERS, item[0]))
    for order, text in reasons[:_MOST_PASSAGES]:
        label = _ORDERS.get(order, f"Judge's reasons, {fitted(order, 30)}" if order else "Judge's reasons")
        made.append(Passage(label=label, text=text, wide=len(one.rationales) == 1))
    if len(one.votes) > 1:
        made.append(_list("Annotators", dict(one.votes.items())))
    if one.tags:
        made.append(_list("Tags", {name: tag_text(value) for name, value in one.tags.items()}))
    return made


def _list(label: str, items: dict[str, str]) -> Passage:
    parts = [f"{fitted(name, 60)}: {fitted(value, _SHORT)}" for name, value in list(items.items())[:_MOST_PASSAGES]]
    return Passage(label=label, text=", ".join(parts), wide=True)


def _limit(passages: Sequence[Sequence[Passage]]) -> int:
    """The most characters of a text with which all of them fit on the page."""
    for limit in _LIMITS:
        # 220 bytes of markup around each passage.
        if sum(_bytes(each.text[:limit]) + 220 for texts in passages for each in texts) <= _ROOM:
            return limit
    return _LIMITS[-1]


def _bytes(text: str) -> int:
    return len(html.escape(readable(text)).encode())


def _cut(passage: Passage, limit: int) -> Passage:
    left = len(passage.text) - limit
    # A few characters more are not worth a remark.
    if left <= 40:
        return passage
    return passage.model_copy(update={"text": f"{passage.text[:limit]}…", "left_out": left})
