"""Pairs on which the heads are most surely right and wrong, to read."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, zip_longest

from rlaif.report.figures import fitted
from rlaif.report.page import Example, Examples, Filter, Passage
from rlaif.report.wording import number, tag_text
from rlaif.rewards.evaluation import ScoredPair

_MOST_SHOWN = 120
_MOST_TURNS = 24
_LIMITS = (12_000, 6_000, 4_000, 2_500, 1_500, 800, 400)
_ROOM = 1_500_000
_HOW = {True: "right", False: "wrong"}


def scored_pairs(pairs: Sequence[ScoredPair]) -> Examples:
    """Examples in turn: of each objective the surest mistake, then the surest hit, and so on."""
    shown = _in_turn(pairs)[:_MOST_SHOWN]
    objectives = list(dict.fromkeys(one.objective for one in shown))
    filters = [("Objective", objectives), ("Head", ["wrong", "right"])]
    kept = [(label, options) for label, options in filters if len({_value(one, label) for one in shown}) > 1]
    limit = _limit(shown)
    return Examples(
        noun="pairs" if len(shown) != 1 else "pair",
        filters=tuple(
            Filter(label=label, options=tuple(fitted(each, 60) for each in options)) for label, options in kept
        ),
        examples=tuple(
            Example(
                id=fitted(one.id, 80),
                summary=_summary(one),
                passages=tuple(_passages(one, limit)),
                picks=tuple((options.index(_value(one, label)),) for label, options in kept),
            )
            for one in shown
        ),
    )


def _in_turn(pairs: Sequence[ScoredPair]) -> list[ScoredPair]:
    groups: dict[tuple[bool, str], list[ScoredPair]] = {}
    for one in pairs:
        groups.setdefault((one.right, one.objective), []).append(one)
    ordered = [groups[key] for key in sorted(groups, key=lambda key: key[0])]
    return [one for one in chain.from_iterable(zip_longest(*ordered)) if one is not None]


def _value(one: ScoredPair, label: str) -> str:
    return one.objective if label == "Objective" else _HOW[one.right]


def _summary(one: ScoredPair) -> str:
    label, head = ("a" if p > 0.5 else "b" for p in (one.target, one.p_a))
    sure = f"label {label} (p_a {number(one.target, 2)}), head {head} (p_a {number(one.p_a, 2)})"
    return f"{fitted(one.objective, 40)}, {_HOW[one.right]}: {sure}"


def _limit(shown: Sequence[ScoredPair]) -> int:
    """The most characters of a text with which all fit on the page."""
    for limit in _LIMITS:
        texts = chain.from_iterable(
            (one.response_a, one.response_b, *(turn.content for turn in one.prompt)) for one in shown
        )
        if sum(len(text[:limit].encode("utf-8", "replace")) + 300 for text in texts) <= _ROOM:
            return limit
    return _LIMITS[-1]


def _passages(one: ScoredPair, limit: int) -> list[Passage]:
    alone = len(one.prompt) == 1
    made = [
        _passage("Prompt" if alone else f"Prompt, {turn.role}", turn.content, limit, wide=True)
        for turn in one.prompt[-_MOST_TURNS:]
    ]
    label, head = ("a" if p > 0.5 else "b" for p in (one.target, one.p_a))
    for place, (side, text) in enumerate((("a", one.response_a), ("b", one.response_b))):
        said = [who for who, choice in (("label", label), ("head", head)) if choice == side]
        preferred = f", preferred by {' and '.join(said)}" if said else ""
        reward = number(one.rewards[one.objective][place], 2)
        heading = f"Response {side}{preferred}, reward {reward}"
        made.append(_passage(heading, text, limit, marked=label == side))
    rewards = ", ".join(
        f"{fitted(name, 40)}: a {number(a, 2)}, b {number(b, 2)}" for name, (a, b) in one.rewards.items()
    )
    if len(one.rewards) > 1:
        made.append(Passage(label="Rewards", text=rewards, wide=True))
    if one.tags:
        tags = ", ".join(f"{fitted(name, 60)}: {fitted(tag_text(value), 200)}" for name, value in one.tags.items())
        made.append(Passage(label="Tags", text=tags, wide=True))
    return made


def _passage(label: str, text: str, limit: int, wide: bool = False, marked: bool = False) -> Passage:
    left = len(text) - limit
    # A few characters more are not worth a remark.
    if left <= 40:
        return Passage(label=label, text=text, wide=wide, marked=marked)
    return Passage(label=label, text=f"{text[:limit]}…", left_out=left, wide=wide, marked=marked)
