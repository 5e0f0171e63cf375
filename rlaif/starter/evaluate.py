"""Measure a starter checkpoint on held-out questions of the small world, through the engine that users have."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from rlaif.engines.base import Engine
from rlaif.labeling.ask import chunks
from rlaif.labeling.verdicts import read_choice
from rlaif.prompts import Template
from rlaif.starter.families import IN_REACH, OUT_OF_REACH, Split
from rlaif.starter.judging import Principle, Question, ask, decide, is_new_combination, word
from rlaif.starter.responses import WorldPair, kinds_of, make_pair
from rlaif.starter.world import World
from rlaif.types import JudgeRequest, Order

BLANK = "Prefer the better response."


@dataclass(frozen=True)
class Item:
    """A question about a pair, and the family that decides it."""

    id: str
    pair: WorldPair
    question: Question
    family: str
    new_combination: bool


@dataclass(frozen=True)
class Answer:
    """What the judge said of an item: P(a is better) by order, and its rationales."""

    item: Item
    p_a: dict[Order, float]
    rationales: dict[Order, str]

    @property
    def mean(self) -> float:
        """P(a is better), both orders together."""
        return sum(self.p_a.values()) / len(self.p_a)

    @property
    def right(self) -> bool:
        """Whether both orders together favour the better response."""
        return (self.mean > 0.5) == (self.item.question.better == "A") and self.mean != 0.5

    @property
    def consistent(self) -> bool:
        """Whether both orders favour the same response."""
        return len({p > 0.5 for p in self.p_a.values()}) == 1


def held_out_items(split: Split, per_family: int, seed: int = 0, families: Sequence[str] = IN_REACH) -> list[Item]:
    """Draw questions with wordings and entities of a split, each of the families deciding `per_family` of them.

    Every second one has several principles, two of which training never had together.
    """
    world = World(split, random.Random(f"{split}/{seed}"))
    items = []
    for family in families:
        for number in range(per_family):
            item = None
            while item is None:
                item = _draw(world, family, f"{family}-{number}", combined=number % 2 == 1)
            items.append(item)
    return items


def _draw(world: World, family: str, identity: str, *, combined: bool) -> Item | None:
    pair = make_pair(world, family, world.rng.choice(kinds_of(family)))
    principles: tuple[Principle, ...] = (Principle(family, world.rng.random() < 0.5),)
    if combined:
        others = [name for name in pair.decided() if name != family and name not in OUT_OF_REACH]
        same = [name for name in others if name not in pair.deciding()]
        before = world.rng.sample(same, min(len(same), world.rng.choice((0, 1))))
        after = world.rng.sample([name for name in others if name not in before], world.rng.choice((1, 1, 2)))
        principles = tuple(
            Principle(name, world.rng.random() < 0.5) if name != family else principles[0]
            for name in (*before, family, *after)
        )
        if not is_new_combination(principles):
            return None
    question = ask(world, pair, principles)
    return Item(identity, pair, question, family, combined)


def judge(
    engine: Engine, template: Template, items: Iterable[Item], *, texts: Callable[[Item], Sequence[str]] | None = None
) -> Iterator[Answer]:
    """Ask about each item in both orders; `texts` replaces the principles shown."""
    for some in chunks(items, 512):
        requests: dict[str, tuple[Item, Order]] = {}
        made = []
        orders: tuple[Order, Order] = ("ab", "ba")
        for item, order in itertools.product(some, orders):
            pair = item.pair.pair(item.id)
            shown = pair if order == "ab" else pair.swap()
            asked = template.objective("", item.question.question, tuple(texts(item) if texts else item.question.texts))
            messages = template.messages(template.system(), template.pair(shown), asked)
            key = hashlib.sha256(f"{item.id}/{order}".encode()).hexdigest()
            requests[key] = item, order
            head = template.head
            made.append(
                JudgeRequest(
                    key=key, pair_id=item.id, messages=messages, order=order, verdict_prefix=head.verdict,
                    choices=head.choices, rationale=None if head.rationale else "", max_tokens=160,
                )
            )  # fmt: skip
        found: dict[str, tuple[dict[Order, float], dict[Order, str]]] = {item.id: ({}, {}) for item in some}
        for completion in engine.complete(made):
            item, order = requests[completion.key]
            p_first = read_choice(template.head.choices, completion).p_first
            if p_first is not None:
                found[item.id][0][order] = p_first if order == "ab" else 1 - p_first
                found[item.id][1][order] = completion.rationale
        yield from (Answer(item, *found[item.id]) for item in some)


def states_what_decides(answer: Answer, order: Order) -> bool:
    """Whether a rationale says of both responses what is true in the deciding family, naming what is asked for."""
    decider = answer.item.question.decider
    assert decider is not None, "a tie has no decider"
    pair = answer.item.pair
    shown = pair if order == "ab" else pair.swapped()
    claim = "".join(piece.text for piece in decide(shown, [decider])[0]).partition(": ")[2].rpartition(" So")[0]
    return claim in answer.rationales.get(order, "")


def opposite_texts(split: Split, seed: int = 0) -> Callable[[Item], Sequence[str]]:
    """The same principles, the deciding one worded as its opposite."""

    def texts(item: Item) -> Sequence[str]:
        world = World(split, random.Random(f"{item.id}/{seed}"))
        decider = item.question.decider
        return [
            word(world, one.opposite) if one == decider else text
            for one, text in zip(item.question.principles, item.question.texts, strict=True)
        ]

    return texts


def calibration_error(answers: Sequence[Answer], bins: int = 10) -> float:
    """Expected calibration error of the favoured response's probability, bins of equal mass."""
    points = sorted((max(one.mean, 1 - one.mean), one.right) for one in answers)
    total = 0.0
    for n in range(bins):
        part = points[n * len(points) // bins : (n + 1) * len(points) // bins]
        if part:
            confidence = sum(p for p, _ in part) / len(part)
            total += len(part) / len(points) * abs(confidence - sum(right for _, right in part) / len(part))
    return total
