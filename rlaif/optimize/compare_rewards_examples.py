"""Pairs on which reward models part, to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rlaif.optimize.compare_rewards_results import REWARD, PartedTexts
from rlaif.report.figures import fitted
from rlaif.report.page import Example, Examples, Filter, Passage
from rlaif.report.wording import number, tag_text

_MOST_TURNS = 12
_LONGEST = 4_000


def parted_examples(texts: Sequence[PartedTexts], names: Mapping[str, str]) -> Examples:
    """Examples in the order of the models; `names` are the models' short ones."""

    def who(one: PartedTexts) -> str:
        return f"{fitted(names[one.first], 30)} and {fitted(names[one.second], 30)}"

    def about(one: PartedTexts) -> str:
        return "aggregate" if one.objective == REWARD else fitted(one.objective, 60)

    kept = [
        (label, told, options)
        for label, told in (("Models", who), ("Objective", about))
        if len(options := list(dict.fromkeys(map(told, texts)))) > 1
    ]
    return Examples(
        noun="pair" if len(texts) == 1 else "pairs",
        filters=tuple(Filter(label=label, options=tuple(options)) for label, _, options in kept),
        examples=tuple(
            Example(
                id=fitted(one.pair.id, 80),
                summary=f"{about(one)}: {fitted(names[one.first], 30)} {_side(one, one.pair.first_margin)}, "
                f"{fitted(names[one.second], 30)} {_side(one, one.pair.second_margin)}",
                passages=tuple(_passages(one, names)),
                picks=tuple((options.index(told(one)),) for _, told, options in kept),
            )
            for one in texts
        ),
    )


def _side(one: PartedTexts, margin: float) -> str:
    return f"prefers {one.pair.responses[0 if margin > 0 else 1]} (by {number(abs(margin), 2)})"


def _passages(one: PartedTexts, names: Mapping[str, str]) -> list[Passage]:
    alone = len(one.prompt) == 1
    made = [
        _passage("Prompt" if alone else f"Prompt, {turn.role}", turn.content, wide=True)
        for turn in one.prompt[-_MOST_TURNS:]
    ]
    for place, (name, text) in enumerate(zip(one.pair.responses, one.texts, strict=True)):
        said = [
            fitted(names[model], 30)
            for model, margin in ((one.first, one.pair.first_margin), (one.second, one.pair.second_margin))
            if (margin > 0) == (place == 0)
        ]
        people_too = one.pair.people == name
        said += ["people"] if people_too else []
        heading = f"Response {name}, preferred by {' and '.join(said)}"
        made.append(_passage(heading, text, marked=people_too))
    if one.tags:
        tags = ", ".join(f"{fitted(name, 60)}: {fitted(tag_text(value), 200)}" for name, value in one.tags.items())
        made.append(Passage(label="Tags", text=tags, wide=True))
    return made


def _passage(label: str, text: str, wide: bool = False, marked: bool = False) -> Passage:
    left = max(len(text) - _LONGEST, 0)
    return Passage(label=label, text=text[:_LONGEST], left_out=left, wide=wide, marked=marked)
