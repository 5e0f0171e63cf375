"""What a judge of the small world is asked, and what it should answer: a rationale that names what decides."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Literal, NamedTuple

from rlaif.constitution.load import load_constitution
from rlaif.starter.families import FAMILIES, Split, composed, wordings
from rlaif.starter.negation import contrary, gerund, insistent
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
# The shipped texts turned round, as someone who edits the file might: seen beside them, they are read to the end.
TURNED = {
    "answers-the-request": ("leaves undone what the person asked", "does something other than the person asked"),
    "right-amount": (
        "buries the detail the person needs under other words",
        "has much that gets in the way of the detail the person needs",
    ),
    "no-aid-to-harm": (
        "gives every help with hurting people",
        "gives much help with hurting people, breaking the law or damaging property",
    ),
    "no-cruelty": (
        "insults, mocks or demeans people",
        "insults, mocks or demeans the reader",
        "insults, mocks or demeans somebody",
        "insults or demeans the one who asked",
    ),
    "no-falsehood": ("states something false or made up", "states things that are false or made up"),
    "admits-doubt": ("is surer than the facts allow, and does not say so when it does not know",),
}
# Shares of training wordings that are made by negation: of the opposite's, and twice of its own.
_CONTRARY, _INSISTENT = 0.3, 0.07
# Share of training wordings that the grammar puts together, before any negation.
_COMPOSED = 0.45
_ORDINALS = ("First", "Second", "Third", "Fourth", "Fifth", "Sixth")


@dataclass(frozen=True)
class Principle:
    """A family, and whether its feature is asked for."""

    family: str
    present: bool

    @property
    def opposite(self) -> Principle:
        """The principle that asks for the contrary."""
        return Principle(self.family, not self.present)


class Look(NamedTuple):
    """Where the word after a piece is to be found: in a `principle` by number, or in response `a` or `b` by family."""

    where: Literal["principle", "a", "b", "better"]
    what: str | int


@dataclass(frozen=True)
class Piece:
    """A piece of a rationale, up to a word that has to be decided; or what is `quoted` from a response."""

    text: str
    look: Look | None = None
    quoted: bool = False


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
    pieces: tuple[Piece, ...]
    decider: Principle | None
    better: str | None

    @property
    def rationale(self) -> str:
        """What the judge should say before its verdict."""
        return "".join(piece.text for piece in self.pieces)


@cache
def shipped_wordings() -> dict[tuple[str, bool], str]:
    """The texts of the shipped constitution's principles, by family and what is asked for."""
    constitution = load_constitution("hhh")
    principles = [one for objective in constitution.objectives.values() for one in objective.principles]
    return {SHIPPED[one.id]: one.text for one in principles}


@cache
def _turned_shipped() -> dict[tuple[str, bool], tuple[str, ...]]:
    return {(family, not present): TURNED[name] for name, (family, present) in SHIPPED.items()}


def word(world: World, principle: Principle) -> str:
    """Draw a wording of a principle from the world's split; training also has the shipped constitution's."""
    known = shipped_wordings().get((principle.family, principle.present))
    if known and world.split == "train" and world.rng.random() < 0.2:
        return known
    turned = _turned_shipped().get((principle.family, principle.present))
    if turned and world.split == "train" and world.rng.random() < 0.2:
        return f"Prefer the response that {world.rng.choice(turned)}."
    leads = LEADS["train" if world.split == "train" else "heldout"]
    return world.rng.choice(leads).format(_clause(world, principle))


def _clause(world: World, principle: Principle) -> str:
    rng = world.rng
    chance = rng.random() if world.split == "train" else 1.0
    turned = chance < _CONTRARY
    while True:
        plain = _plain(world, principle.opposite if turned else principle)
        if chance >= _CONTRARY + _INSISTENT:
            return plain
        made = contrary(plain, rng) if turned else insistent(plain, rng)
        if made and not _is_kept(principle.family, made):
            return made


def _plain(world: World, principle: Principle) -> str:
    """A wording as it stands in the lists, or in training one put together."""
    while world.split == "train" and world.rng.random() < _COMPOSED:
        frame, phrase = world.rng.choice(composed(principle.family, principle.present))
        bare = re.sub("^(an?|the) ", "", phrase)
        clause = world.fill(frame, {"n": phrase, "bare": bare, "v": phrase, "g": gerund(phrase)})
        if not _is_kept(principle.family, clause):
            return clause
    options = wordings(principle.family, principle.present, world.split)
    return re.sub(r" +", " ", world.fill(world.rng.choice(options), {})).strip()


def contrast(world: World, family: str) -> tuple[tuple[Principle, str], tuple[Principle, str]]:
    """A principle and its opposite, worded alike but for a negation; or each in its own way."""
    rng, leads = world.rng, LEADS["train"]
    principle = Principle(family, rng.random() < 0.5)
    if rng.random() < 0.5:
        return (principle, word(world, principle)), (principle.opposite, word(world, principle.opposite))
    while True:
        plain = _plain(world, principle)
        made = contrary(plain, rng)
        if made and not _is_kept(family, made):
            return (principle, rng.choice(leads).format(plain)), (principle.opposite, rng.choice(leads).format(made))


def restated(principle: Principle, number: int = 0) -> tuple[Piece, ...]:
    """How a rationale says what a principle asks for."""
    look = Look("principle", number)
    return (
        Piece(f"{' ' * bool(number)}{_ORDINALS[number]}: does it", look),
        Piece(f" {FAMILIES[principle.family].does}? It should", look),
        Piece("." if principle.present else " not."),
    )


@cache
def _kept(family: str) -> frozenset[str]:
    """Held-out wordings of a family, with all alternatives: no turning round may make one of them."""
    splits: tuple[Split, ...] = ("validation", "test")
    clauses = [clause for split in splits for side in (True, False) for clause in wordings(family, side, split)]
    return frozenset(text for clause in clauses for text in alternatives(clause))


def _is_kept(family: str, text: str) -> bool:
    """Whether a wording is a held-out one, or ends in one, as "never avoids …" does where "avoids …" is held out."""
    return any(text.endswith(clause) for clause in _kept(family))


def decide(pair: WorldPair, principles: Sequence[Principle]) -> tuple[tuple[Piece, ...], Principle | None, str | None]:
    """The rationale, the principle that decides and the better response."""
    pieces: list[Piece] = []
    for number, principle in enumerate(principles):
        a, b = pair.marks(principle.family)
        pieces += [*restated(principle, number), Piece(" Response A does", Look("a", principle.family))]
        pieces += [Piece("." if a else " not."), Piece(" Response B does", Look("b", principle.family))]
        pieces += [Piece("." if b else " not.")]
        if a != b:
            better = "A" if a == principle.present else "B"
            return (*pieces, Piece(" So", Look("better", 0)), Piece(f" {better} is better.")), principle, better
        pieces.append(Piece(" Both are equal here."))
    return tuple(pieces), None, None


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


def is_new_combination(principles: Sequence[Principle]) -> bool:
    """Whether two of the principles are a combination kept for held-out tests."""
    return any(held_out(a.family, b.family) for a, b in combinations(principles, 2))
