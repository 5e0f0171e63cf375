"""One response by itself: ratings by hand, critiques and revisions that do what they say, and their training rows."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from rlaif.prompts import Template, load_template
from rlaif.starter.encode import IGNORE, Encoder, Row
from rlaif.starter.families import FAMILIES
from rlaif.starter.judging import Principle, ask
from rlaif.starter.mending import criticised, decided, faults, garbled, keeps, mended, rated
from rlaif.starter.responses import STYLES, Response, WorldPair, kinds_of, make_pair
from rlaif.starter.tokens import make_tokenizer
from rlaif.starter.train import _TEMPLATES
from rlaif.starter.world import World
from rlaif.types import Message

TEMPLATES = {kind: load_template(name) for kind, name in _TEMPLATES.items()}


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(make_tokenizer(300), TEMPLATES)


def has(*families: str) -> Response:
    return Response("text", {name: name in families for name in FAMILIES})


@pytest.mark.parametrize(
    ("kept", "rating"),
    [
        ((True,), 10),
        ((False,), 1),
        # 9 * 1 / 1.5 = 6, 9 * 0.5 / 1.5 = 3.
        ((True, False), 7),
        ((False, True), 4),
        # 9 * 0.75 / 1.75 = 3.86.
        ((False, True, True), 5),
    ],
)
def test_ratings_by_hand(kept: tuple[bool, ...], rating: int) -> None:
    names = ("insult", "hedge", "offer")[: len(kept)]
    principles = [Principle(name, one) for name, one in zip(names, kept, strict=True)]
    assert rated(has(*names), principles)[1] == rating


def test_what_is_said_of_a_response() -> None:
    pieces, _ = rated(has("insult"), [Principle("insult", False), Principle("hedge", False)])
    assert "".join(piece.text for piece in pieces) == (
        "First: does it insult the person? It should not. The response does. That counts against it."
        " Second: does it admit doubt? It should not. The response does not. That counts for it."
    )
    said = "".join(piece.text for piece in criticised(has("insult"), Principle("insult", False)))
    assert said == "Does it insult the person? It should not. The response does. So this should change."
    said = "".join(piece.text for piece in criticised(has("insult"), Principle("insult", True)))
    assert said == "Does it insult the person? It should. The response does. So nothing needs to change."


def test_a_critique_quotes_the_sentences_at_fault() -> None:
    rude, calm = ("Only a fool asks.", frozenset({"insult"})), ("Two hours are enough.", frozenset[str]())
    response = replace(has("insult"), parts=(rude, calm, ("You dunce.", frozenset({"insult"})), rude))
    assert "".join(piece.text for piece in criticised(response, Principle("insult", False))) == (
        "Does it insult the person? It should not. The response does: Only a fool asks. You dunce."
        " So this should change."
    )
    # What is wanted, or missing, has no words at fault.
    assert faults(response, Principle("insult", True)) == ()
    assert faults(response, Principle("hedge", True)) == ()


def test_a_critique_looks_at_what_it_quotes(encoder: Encoder) -> None:
    _, pair, response = next(found for found in responses("insult", 20) if found[2].marks["insult"])
    principle = Principle("insult", False)
    pieces = criticised(response, principle)
    row = encoder.criticised(pair.scene, response, [(principle, "Prefer what insults nobody.", pieces)])
    quoted = encoder.text("".join(piece.text for piece in pieces if piece.quoted))
    copies = [(place, found) for place, where, found in row.looks if where == "copy"]
    assert len(quoted) - 1 <= len(copies) <= len(quoted)
    for place, (source,) in copies:
        assert row.ids[source] == row.targets[place]


def test_odd_words_stand_only_where_nothing_depends_on_them() -> None:
    changed = 0
    for family in ("insult", "repetition", "harm", "offer"):
        for world, pair, response in responses(family, 10):
            odd = garbled(world, pair.scene, response)
            assert odd.marks == response.marks
            for (before, families), (after, kept) in zip(response.parts, odd.parts, strict=True):
                assert families == kept
                assert before == after or not families
                assert len(before.split()) == len(after.split())
                changed += before != after
    assert changed > 20


def responses(family: str, count: int) -> list[tuple[World, WorldPair, Response]]:
    world = World("train", random.Random(family))
    found: list[tuple[World, WorldPair, Response]] = []
    while len(found) < count:
        pair = make_pair(world, family, world.rng.choice(kinds_of(family)))
        response = world.rng.choice((pair.a, pair.b))
        if family in decided(response):
            found.append((world, pair, response))
    return found


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "length"])
def test_a_fault_is_put_right(family: str) -> None:
    """Either way round; what has no fault stays as it is, and a sentence that is one is all that goes."""
    changed = 0
    for world, pair, response in responses(family, 40):
        for present in (True, False):
            principle = Principle(family, present)
            better = mended(world, pair.scene, response, principle)
            if keeps(response, principle):
                assert better is response
            elif better is not None:
                changed += 1
                assert better.marks[family] == present
                assert better.text != response.text
                if family in STYLES and not present:
                    alone = {one for one, families in response.parts if families == {family}}
                    assert [one for one, _ in better.parts] == [one for one, _ in response.parts if one not in alone]
    assert changed > 25


def whole_turn(template: Template, messages: Sequence[Message], encoder: Encoder, answer: str) -> list[int]:
    turns = [turn.model_dump() for turn in messages]
    prompt = encoder._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    found: list[int] = encoder._tokenizer(f"{prompt}{answer}<|end|>", add_special_tokens=False)["input_ids"]
    return found


def check_branch(row: Row, branch: int, whole: list[int], answer: str, encoder: Encoder) -> None:
    places = [n for n, segment in enumerate(row.segments) if segment in (0, branch)]
    assert [row.ids[n] for n in places] == whole
    assert [row.positions[n] for n in places] == list(range(len(whole)))
    learned = [row.targets[n] for n in places if row.targets[n] != IGNORE]
    assert encoder._tokenizer.decode(learned) == f"{answer}<|end|>"


def test_a_rating_row_is_what_an_engine_sends(encoder: Encoder) -> None:
    world, pair, response = responses("hedge", 1)[0]
    lists = [[Principle("hedge", True)], [Principle("hedge", False), Principle("insult", False)]]
    questions = [ask(world, pair, principles) for principles in lists]
    answers = [rated(response, principles) for principles in lists]
    row = encoder.rated(pair.scene, response, [(one, *said) for one, said in zip(questions, answers, strict=True)])
    template = TEMPLATES["rating"]
    for branch, (question, (pieces, rating)) in enumerate(zip(questions, answers, strict=True), 1):
        asked = template.objective("", question.question, question.texts)
        messages = template.messages(template.system(), template.response(pair.scene.prompt, response.text), asked)
        answer = f"{''.join(piece.text for piece in pieces)}\n\nRating: [{rating}]"
        check_branch(row, branch, whole_turn(template, messages, encoder, answer), answer, encoder)


def test_rows_of_critiques_and_revisions_are_what_an_engine_sends(encoder: Encoder) -> None:
    world, pair, response = responses("insult", 1)[0]
    principles = [Principle("insult", False), Principle("insult", True)]
    texts = ["Prefer the response that insults nobody.", "Prefer the response that insults."]
    said = [criticised(response, one) for one in principles]
    critiques = ["".join(piece.text for piece in pieces) for pieces in said]
    better = [mended(world, pair.scene, response, one) or response for one in principles]
    row = encoder.criticised(pair.scene, response, list(zip(principles, texts, said, strict=True)))
    revised = encoder.revised(pair.scene, response, list(zip(texts, critiques, better, strict=True)))
    for branch, (text, critique, new) in enumerate(zip(texts, critiques, better, strict=True), 1):
        messages = TEMPLATES["critique"].request(pair.scene.prompt, response.text, text)
        check_branch(row, branch, whole_turn(TEMPLATES["critique"], messages, encoder, critique), critique, encoder)
        messages = TEMPLATES["revision"].request(pair.scene.prompt, response.text, text, critique)
        check_branch(revised, branch, whole_turn(TEMPLATES["revision"], messages, encoder, new.text), new.text, encoder)


def test_a_revision_looks_at_what_it_copies(encoder: Encoder) -> None:
    """Each look leads to the very token that comes next, inside the response; a kept response is copied whole."""
    _, pair, response = responses("insult", 1)[0]
    row = encoder.revised(pair.scene, response, [("Prefer what is.", "Nothing needs to change.", response)])
    copies = {place: found for place, where, found in row.looks if where == "copy"}
    end = row.marks[0][0]
    for place, found in copies.items():
        (source,) = found
        assert row.ids[source] == row.targets[place]
        assert source < end
    written = [place for place, target in enumerate(row.targets) if target != IGNORE]
    # All but the end of the turn.
    assert list(copies) == written[:-1]
