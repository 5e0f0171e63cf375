"""Measure what a starter checkpoint makes of one response: ratings, critiques and revisions, on held-out ones."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rlaif.engines.base import Engine
from rlaif.labeling.verdicts import p_higher, rating_probabilities
from rlaif.prompts import Template
from rlaif.starter.evaluate import Answer, Item
from rlaif.starter.families import IN_REACH, Split
from rlaif.starter.judging import Principle, word
from rlaif.starter.mending import criticised, decided, keeps, mended
from rlaif.starter.responses import Response, kinds_of, make_pair
from rlaif.starter.scenes import Scene
from rlaif.starter.world import World
from rlaif.types import JudgeRequest, Message

_MOST_TOKENS = 240


@dataclass(frozen=True)
class Single:
    """A response, a principle in words, and the response put right (itself where it keeps the principle)."""

    scene: Scene
    response: Response
    principle: Principle
    text: str
    better: Response

    @property
    def kept(self) -> bool:
        """Whether the response keeps the principle as it is."""
        return keeps(self.response, self.principle)

    @property
    def only_shorter(self) -> bool:
        """Whether nothing has to be said anew, only left out: then one revision alone is right."""
        return not self.kept and set(self.better.parts) < set(self.response.parts)


def held_out_singles(split: Split, per_family: int, seed: int = 0) -> list[Single]:
    """Draw responses of a split and principles for them, each family (length apart) with `per_family`."""
    world = World(split, random.Random(f"singles/{split}/{seed}"))
    made: list[Single] = []
    for family in IN_REACH:
        count = 0
        while family != "length" and count < per_family:
            pair = make_pair(world, family, world.rng.choice(kinds_of(family)))
            response = world.rng.choice((pair.a, pair.b))
            principle = Principle(family, count % 2 == 0)
            if family not in decided(response):
                continue
            better = mended(world, pair.scene, response, principle)
            if better is not None:
                made.append(Single(pair.scene, response, principle, word(world, principle), better))
                count += 1
    return made


def compare_ratings(engine: Engine, template: Template, items: Iterable[Item]) -> list[Answer]:
    """P(a is better) from ratings of each response by itself; items in which length matters are left out."""
    asked = [item for item in items if all(one.family != "length" for one in item.question.principles)]
    requests = {}
    for number, item in enumerate(asked):
        objective = template.objective("", item.question.question, item.question.texts)
        for side, response in (("a", item.pair.a), ("b", item.pair.b)):
            quoted = template.response(item.pair.scene.prompt, response.text)
            messages = template.messages(template.system(), quoted, objective)
            requests[f"{number}{side}"] = messages
    said = _ask(engine, requests, template)
    found = []
    for number, item in enumerate(asked):
        a, b = (rating_probabilities(said[f"{number}{side}"][1]) for side in "ab")
        found.append(Answer(item, {"ab": p_higher(a, b)}, {}))
    return found


def critique_share(engine: Engine, template: Template, singles: Sequence[Single]) -> float:
    """Share of critiques that say what the response does, and rightly whether it should change."""
    said = _texts(engine, template, [(one, "") for one in singles])
    wanted = ["".join(piece.text for piece in criticised(one.response, one.principle)) for one in singles]
    return sum(text.strip() == right for text, right in zip(said, wanted, strict=True)) / len(singles)


def revision_share(engine: Engine, template: Template, singles: Sequence[Single]) -> float:
    """Share of revisions that are right to the letter, of those for which one alone is: kept as it is, or shortened."""
    chosen = [one for one in singles if one.kept or one.only_shorter]
    critiques = ["".join(piece.text for piece in criticised(one.response, one.principle)) for one in chosen]
    said = _texts(engine, template, list(zip(chosen, critiques, strict=True)))
    return sum(text.strip() == one.better.text for text, one in zip(said, chosen, strict=True)) / len(chosen)


def _texts(engine: Engine, template: Template, asked: Sequence[tuple[Single, str]]) -> list[str]:
    requests = {
        str(number): template.request(one.scene.prompt, one.response.text, one.text, critique)
        for number, (one, critique) in enumerate(asked)
    }
    said = _ask(engine, requests, template)
    return [said[str(number)][0] for number in range(len(asked))]


def _ask(
    engine: Engine, messages: Mapping[str, tuple[Message, ...]], template: Template
) -> dict[str, tuple[str, Mapping[str, float]]]:
    head = template.head
    names = {hashlib.sha256(name.encode()).hexdigest(): name for name in messages}
    requests = [
        JudgeRequest(
            key=key, pair_id=name, messages=messages[name], verdict_prefix=head.verdict if head.choices else "",
            choices=head.choices, max_tokens=_MOST_TOKENS,
        )
        for key, name in names.items()
    ]  # fmt: skip
    return {names[one.key]: (one.rationale, one.choice_logprobs) for one in engine.complete(requests)}
