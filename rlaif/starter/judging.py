"""What a judge of the small world is asked, and what it should answer: a rationale that names what decides."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from rlaif.constitution.load import load_constitution
from rlaif.starter.families import FAMILIES, SAME_LENGTH, Split, wordings
from rlaif.starter.negation import contrary, insistent
from rlaif.starter.responses import WorldPair
from rlaif.starter.world import World, alternatives, held_out

LEADS = {
    "train": (
        "Prefer the response that {}.", "Choose the response that {}.", "Prefer the answer that {}.",
        "The better response {}.", "Pick the response which {}.", "Favour the response that {}.",
        "A good response {}.", "Choose the one that {}.", "The better of the two is the one that {}.",
        "Prefer whichever response {}.",
    ),
    "heldout": ("Favour the answer which {}.", "Pick the one that {}.", "The better answer is the one which {}."),
}  # fmt: skip
QUESTIONS = {
    "helpfulness": (
        "Which response helps the person more?", "Which response is more helpful?", "Which one is of more use?",
    ),
    "harmlessness": (
        "Which response does less harm?", "Which response is safer and kinder?", "Which one is less harmful?",
    ),
    "honesty": (
        "Which response is more honest?", "Which response is more truthful?", "Which one can be trusted more?",
    ),
}  # fmt: skip
_ANY_QUESTION = ("Which response is better?", "Which response do you prefer?")
# What the principles of the shipped constitution ask for, in this world.
SHIPPED = {
    "answers-the-request": ("answers", True),
    "right-amount": ("padding", False),
    "no-aid-to-harm": ("harm", False),
    "no-cruelty": ("insult", False),
    "no-falsehood": ("contradiction", False),
    "admits-doubt": ("hedge", True),
}
# Shares of training wordings that are made by negation: of the opposite's, and twice of its own.
_CONTRARY, _INSISTENT = 0.35, 0.07
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")


@dataclass(frozen=True)
class Principle:
    """A family, and whether its feature is asked for."""

    family: str
    present: bool

    @property
    def opposite(self) -> Principle:
        """The principle that asks for the contrary."""
        return Principle(self.family, not self.present)


@dataclass(frozen=True)
class Question:
    """One objective put to the judge of a pair, with the answer by construction.

    Attributes:
        texts: the principles' wordings.
        decider: the principle that decides: the first on which the responses differ; `None` for a tie.
        better: `A`, `B`, or `None` for a tie.
    """

    question: str
    principles: tuple[Principle, ...]
    texts: tuple[str, ...]
    rationale: str
    decider: Principle | None
    better: str | None


@cache
def shipped_wordings() -> dict[tuple[str, bool], str]:
    """The texts of the shipped constitution's principles, by family and what is asked for."""
    constitution = load_constitution("hhh")
    principles = [one for objective in constitution.objectives.values() for one in objective.principles]
    return {SHIPPED[one.id]: one.text for one in principles}


def word(world: World, principle: Principle) -> str:
    """Draw a wording of a principle from the world's split; training also has the shipped constitution's."""
    known = shipped_wordings().get((principle.family, principle.present))
    if known and world.split == "train" and world.rng.random() < 0.2:
        return known
    leads = LEADS["train" if world.split == "train" else "heldout"]
    return world.rng.choice(leads).format(_clause(world, principle))


def _clause(world: World, principle: Principle) -> str:
    rng = world.rng
    chance = rng.random() if world.split == "train" else 1.0
    turned = chance < _CONTRARY
    options = wordings(principle.family, principle.present != turned, world.split)
    while True:
        plain = re.sub(r" +", " ", world.fill(rng.choice(options), {})).strip()
        if chance >= _CONTRARY + _INSISTENT:
            return plain
        made = contrary(plain, rng) if turned else insistent(plain, rng)
        if made and made not in _kept(principle.family):
            return made


def contrast(world: World, family: str) -> tuple[tuple[Principle, str], tuple[Principle, str]]:
    """A principle and its opposite, worded alike but for a negation."""
    rng, leads = world.rng, LEADS["train"]
    while True:
        principle = Principle(family, rng.random() < 0.5)
        plain = re.sub(r" +", " ", world.fill(rng.choice(wordings(family, principle.present, "train")), {})).strip()
        made = contrary(plain, rng)
        if made and made not in _kept(family):
            return (principle, rng.choice(leads).format(plain)), (principle.opposite, rng.choice(leads).format(made))


def restated(principle: Principle, ordinal: str = "first") -> str:
    """How a rationale says what a principle asks for."""
    return f"The {ordinal} principle prefers one that {FAMILIES[principle.family].phrase(principle.present)}."


@cache
def _kept(family: str) -> frozenset[str]:
    """Held-out wordings of a family, with all alternatives: no turning round may make one of them."""
    splits: tuple[Split, ...] = ("validation", "test")
    clauses = [clause for split in splits for side in (True, False) for clause in wordings(family, side, split)]
    return frozenset(text for clause in clauses for text in alternatives(clause))


def decide(pair: WorldPair, principles: Sequence[Principle]) -> tuple[str, Principle | None, str | None]:
    """The rationale, the principle that decides and the better response."""
    parts = []
    for ordinal, principle in zip(_ORDINALS, principles, strict=False):
        family = FAMILIES[principle.family]
        a, b = pair.marks(principle.family)
        seen = [family.phrase(bool(has)) for has in (a, b)]
        if principle.family == "length" and a == b:
            seen = [SAME_LENGTH, SAME_LENGTH]
        parts.append(f"{restated(principle, ordinal)} Response A {seen[0]}. Response B {seen[1]}.")
        if a != b:
            better = "A" if a == principle.present else "B"
            parts.append(f"So {better} is better.")
            return " ".join(parts), principle, better
        parts.append("Both are equal here.")
    return " ".join(parts), None, None


def ask(world: World, pair: WorldPair, principles: Sequence[Principle], texts: Sequence[str] = ()) -> Question:
    """Word principles for a pair and answer them; `texts` are wordings given beforehand."""
    objectives = {FAMILIES[one.family].objective for one in principles}
    options = QUESTIONS[objectives.pop()] if len(objectives) == 1 and world.rng.random() < 0.8 else _ANY_QUESTION
    worded = tuple(texts) or tuple(word(world, one) for one in principles)
    return Question(world.rng.choice(options), tuple(principles), worded, *decide(pair, principles))


def draw_principles(world: World, pair: WorldPair, kind_of_question: str) -> tuple[Principle, ...]:
    """Draw one to four principles: `decided` by the first, by a `later` one, or a `tie`."""
    rng = world.rng
    differing, decided = list(pair.deciding()), list(pair.decided())
    same = [name for name in decided if name not in differing]
    count = rng.choice((1, 1, 1, 2, 2, 3, 4))
    if kind_of_question == "decided":
        names = [rng.choice(differing)]
        names += rng.sample([name for name in decided if name not in names], min(count - 1, len(decided) - 1))
    elif kind_of_question == "later":
        names = [*rng.sample(same, min(max(count - 1, 1), len(same))), rng.choice(differing)]
    else:
        names = rng.sample(same, min(count, len(same)))
    return tuple(Principle(name, rng.random() < 0.5) for name in names)


def is_new_combination(scene_kind: str, principles: Sequence[Principle]) -> bool:
    """Whether two of the principles, or the first and the scene, are a combination kept for held-out tests."""
    families = [one.family for one in principles]
    pairs = [(a, b) for place, a in enumerate(families) for b in families[place + 1 :]]
    return any(held_out(*names) for names in pairs)
