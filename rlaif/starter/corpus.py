"""The training corpus: an endless, seeded stream of rows, the same for the same step on every machine."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

from rlaif.starter.encode import Encoder, Row
from rlaif.starter.families import IN_REACH
from rlaif.starter.judging import (
    Piece,
    Principle,
    Question,
    ask,
    contrast,
    draw_principles,
    is_new_combination,
    restated,
    word,
)
from rlaif.starter.mending import criticised, decided, dropped, garbled, mended, rated
from rlaif.starter.responses import Response, WorldPair, kinds_of, make_pair
from rlaif.starter.world import World

_BLOCK = 128  # rows
# How often a family decides the pairs: more often where the conversation has to be compared with the response, or the
# response with itself, than where a single sentence tells.
_WEIGHTS = {
    "language": 6.0, "repetition": 8.0, "drift": 6.0, "contradiction": 8.0, "format": 5.0, "privacy": 6.0,
    "answers": 6.0, "sycophancy": 5.0, "mistake": 3.0,
}  # fmt: skip
# How often a family's principles are drilled: more often where wordings are hard to tell apart from others'.
_DRILLED = {
    "clarify": 4.0, "sycophancy": 4.0, "pressure": 4.0, "contradiction": 4.0, "privacy": 4.0, "answers": 2.0,
    "source": 2.0, "certainty": 2.0, "overrefusal": 3.0, "example": 2.0, "experience": 2.0, "empathy": 2.0,
}  # fmt: skip
# Share of responses with a critique or a revision that have words nobody knows: a copy is to be one to the letter.
_GARBLED = 0.4
# Share of revisions that only take out what the critique quotes, whatever the principle: to read the critique.
_CUT = 0.5


@dataclass(frozen=True)
class Mix:
    """Shares of the corpus.

    Attributes:
        policy: share of rows that teach the policy.
        single: share of rows about one response: ratings, critiques and revisions.
        drill: share of the judge's rows that only restate principles, each beside its opposite in like words.
        direct: share of the judge's rows that ask for a verdict without a rationale.
        questions: branches a pair.
        noise: share of verdicts turned round, so that a verdict is no surer than the judge is right.
        invented: share of made-up names where a response is judged or revised.
        families: those that decide the pairs.
    """

    policy: float = 0.10
    single: float = 0.42
    drill: float = 0.2
    direct: float = 0.12
    questions: int = 5
    noise: float = 0.0
    invented: float = 0.25
    families: tuple[str, ...] = IN_REACH


def _questions(world: World, pair: WorldPair, family: str, count: int) -> Iterator[Question]:
    """Questions about a pair: the family it was made for both ways round, then others."""
    wanted = Principle(family, world.rng.random() < 0.5)
    yield ask(world, pair, [wanted])
    yield ask(world, pair, [wanted.opposite])
    made = 2
    while made < count:
        kind = world.rng.choice(("decided", "decided", "decided", "later", "later", "tie"))
        principles = draw_principles(world, pair, kind)
        if principles and not is_new_combination(principles):
            yield ask(world, pair, principles)
            made += 1


def rows(encoder: Encoder, seed: str, mix: Mix) -> Iterator[Row]:
    """An endless stream of rows."""
    rng = random.Random(seed)
    world, plain = World("train", rng, mix.invented), World("train", rng)
    weights = [_WEIGHTS.get(family, 1.0) for family in mix.families]
    drilled = [_DRILLED.get(family, 1.0) for family in mix.families]

    def family_drawn() -> str:
        return rng.choices(mix.families, weights)[0]

    while True:
        if rng.random() < mix.policy:
            pairs = [_pair(plain, family_drawn()) for _ in range(4)]
            yield encoder.answered([(pair.scene.prompt, side.text) for pair in pairs for side in (pair.a, pair.b)])
            continue
        if rng.random() < mix.single:
            yield _about_one(encoder, world, family_drawn())
            continue
        if rng.random() < mix.drill:
            twos = [contrast(world, one) for one in rng.choices(mix.families, drilled, k=6)]
            yield encoder.drilled([one for two in twos for one in two])
            continue
        family = family_drawn()
        pair = _pair(world, family)
        questions = list(_questions(world, pair, family, mix.questions))
        verdicts = []
        for question in questions:
            verdict = question.better or rng.choice("AB")
            verdicts.append("BA"["AB".index(verdict)] if question.better and rng.random() < mix.noise else verdict)
        yield encoder.judged(pair, questions, verdicts, reason=rng.random() >= mix.direct)


def _about_one(encoder: Encoder, world: World, family: str) -> Row:
    """A rating, a critique or a revision of one response, the family it was made for both ways round."""
    rng = world.rng
    pair = _pair(world, family)
    response = rng.choice((pair.a, pair.b))
    known = decided(response)
    families = [family if family in known else rng.choice(known), *rng.sample(known, 2)]
    principles = [Principle(families[0], True), Principle(families[0], False)]
    principles += [Principle(name, rng.random() < 0.5) for name in families[1:]]
    rng.shuffle(principles)
    what = rng.choice(("rating", "rating", "critique", "critique", "revision", "revision", "revision", "revision"))
    if what != "rating" and rng.random() < _GARBLED:
        response = garbled(world, pair.scene, response)
    if what == "rating":
        return encoder.rated(pair.scene, response, [_rating(world, pair, response, one) for one in principles])
    if what == "revision" and rng.random() < _CUT and (cuts := _cuts(world, pair, response)):
        return encoder.revised(pair.scene, response, cuts)
    worded = [(one, word(world, one)) for one in principles]
    if what == "critique":
        return encoder.criticised(
            pair.scene, response, [(one, text, criticised(response, one)) for one, text in worded]
        )
    made = []
    for one, text in worded:
        better = mended(world, pair.scene, response, one)
        if better is not None:
            said = "".join(piece.text for piece in criticised(response, one))
            made.append((text, said, better))
    return encoder.revised(pair.scene, response, made) if made else _about_one(encoder, world, family)


def _cuts(world: World, pair: WorldPair, response: Response) -> list[tuple[str, str, Response]]:
    """A principle, a critique and the response without what it quotes, for up to four of its sentences."""
    rng = world.rng
    sentences = sorted({sentence for sentence, _ in response.parts})
    made = []
    for sentence in rng.sample(sentences, min(4, len(sentences))):
        rest = dropped(pair.scene, response, sentence)
        if rest is not None:
            families = {name for one, said in response.parts if one == sentence for name in said}
            principle = Principle(rng.choice(sorted(families) or list(IN_REACH)), False)
            asked = "".join(piece.text for piece in restated(principle)[1:])
            said = f"Does it{asked} The response does: {sentence} So this should change."
            made.append((word(world, principle), said, rest))
    return made


def _rating(
    world: World, pair: WorldPair, response: Response, principle: Principle
) -> tuple[Question, tuple[Piece, ...], int]:
    """A question with one to three principles, what is said of them, and a rating that is one off now and then."""
    rng = world.rng
    others = [name for name in decided(response) if name != principle.family]
    more = [Principle(name, rng.random() < 0.5) for name in rng.sample(others, rng.choice((0, 0, 1, 2)))]
    principles = [principle, *more]
    if is_new_combination(principles):
        principles = [principle]
    pieces, rating = rated(response, principles)
    rating = min(10, max(1, rating + rng.choice((-1, 0, 0, 0, 1))))
    return ask(world, pair, principles), pieces, rating


def _pair(world: World, family: str) -> WorldPair:
    return make_pair(world, family, world.rng.choice(kinds_of(family)))


def batches(
    encoder: Encoder, seed: str, mix: Mix, tokens: int, start: tuple[int, int] = (0, 0)
) -> Iterator[tuple[tuple[int, int], list[Row]]]:
    """Batches of about `tokens` padded tokens, rows of like length together, each with where the next one starts.

    A place is (block, batch in it). A block has its own seed, so that a run continues without drawing those before it.
    """
    for block in itertools.count(start[0]):
        stream = rows(encoder, f"{seed}/{block}", mix)
        pool = sorted(itertools.islice(stream, _BLOCK), key=lambda row: len(row.ids))
        made: list[list[Row]] = [[]]
        for row in pool:
            if made[-1] and len(row.ids) * (len(made[-1]) + 1) > tokens:
                made.append([])
            made[-1].append(row)
        random.Random(f"{seed}/{block}/order").shuffle(made)
        for number, batch in enumerate(made):
            if (block, number) >= start:
                yield (block, number + 1), batch
