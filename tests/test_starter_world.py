"""The starter's world: what is held out is held out, and what is said of a response is true of its text."""

from __future__ import annotations

import itertools
import random
import re

import pytest

from rlaif.starter.evaluate import held_out_items
from rlaif.starter.families import FAMILIES, IN_REACH, Split, composed, wordings
from rlaif.starter.judging import LEADS, Principle, ask, decide, draw_principles, is_new_combination, word
from rlaif.starter.negation import contrary, gerund, insistent, is_turned
from rlaif.starter.responses import Response, WorldPair, kinds_of, make_pair
from rlaif.starter.scenes import KINDS, Scene, make_scene
from rlaif.starter.world import World, alternatives, held_out, texts

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
OPEN_ENTITIES = ("topic", "thing", "person", "place_start", "place_end", "event", "valuable")


def test_wordings_of_the_splits_have_nothing_in_common() -> None:
    for family in FAMILIES:
        for present in (False, True):
            known = {s: {text for one in wordings(family, present, s) for text in alternatives(one)} for s in SPLITS}
            for one, other in itertools.combinations(SPLITS, 2):
                assert not known[one] & known[other], (family, present, known[one] & known[other])


def test_alternatives_by_hand() -> None:
    assert alternatives("(says|gives) a (|small )thing") == {
        "says a thing",
        "says a small thing",
        "gives a thing",
        "gives a small thing",
    }


@pytest.mark.parametrize(
    ("clause", "contraries"),
    [
        ("insults the person", {"does not insult the person", "never insults the person"}),
        ("reaches the point late", {"does not reach the point late", "never reaches the point late"}),
        ("has an example", {"does not have an example", "is not one that has an example"}),
        ("is polite to the person", {"is not polite to the person", "at no point is polite to the person"}),
        ("relies on a made-up study", {"does not rely on a made-up study"}),
        ("leaves out every example", {"never leaves out every example", "does not leave out every example"}),
    ],
)
def test_wordings_are_turned_round(clause: str, contraries: set[str]) -> None:
    rng = random.Random(0)
    assert contraries <= {contrary(clause, rng) for _ in range(100)}


@pytest.mark.parametrize(
    "clause", ["never insults anyone", "gives no example", "without doubt is sure", "always helps out"]
)
def test_wordings_that_would_be_hard_to_read_are_not(clause: str) -> None:
    assert contrary(clause, random.Random(0)) is None
    assert insistent(clause, random.Random(0)) is None


@pytest.mark.parametrize(
    ("phrase", "said"),
    [
        ("insult the person", "insulting the person"),
        ("give an example", "giving an example"),
        ("be longer than the other", "being longer than the other"),
        ("admit doubt", "admitting doubt"),
        ("agree with an error", "agreeing with an error"),
    ],
)
def test_verbs_with_ing(phrase: str, said: str) -> None:
    assert gerund(phrase) == said


@pytest.mark.parametrize(
    ("text", "turned"),
    [
        ("insults the person", False),
        ("never insults the person", True),
        ("does not refuse to answer", True),
        ("at no point says that it is not sure", False),
        ("takes care not to insult the person", True),
        ("insults nobody", False),
    ],
)
def test_negations_turn_a_text_round(text: str, turned: bool) -> None:
    assert is_turned(text) == turned


def test_training_never_has_a_held_out_wording() -> None:
    """Drawn as training draws them, those turned round among them."""
    world = World("train", random.Random(0))
    for family in FAMILIES:
        kept = {t for s in SPLITS[1:] for p in (True, False) for c in wordings(family, p, s) for t in alternatives(c)}
        drawn = {word(world, Principle(family, present)) for present in (True, False) for _ in range(1500)}
        assert len(drawn) > 500
        assert not any(text.rstrip(".").endswith(f" {clause}") for text in drawn for clause in kept)


def test_no_wording_stands_for_two_principles() -> None:
    """Otherwise no judge could be right about it; those put together from frames among them."""
    seen: dict[str, tuple[str, bool]] = {}
    for family, present in itertools.product(FAMILIES, (False, True)):
        for frame, phrase in composed(family, present):
            for text in alternatives(frame):
                filled = re.sub(r"\{\w+\}", phrase, text)
                assert seen.setdefault(filled, (family, present)) == (family, present), filled
    for family, present, split in itertools.product(FAMILIES, (False, True), SPLITS):
        for clause in wordings(family, present, split):
            for text in alternatives(clause):
                assert seen.setdefault(text, (family, present)) == (family, present), text


def test_families_are_many_and_spread() -> None:
    objectives = [family.objective for family in FAMILIES.values()]
    assert len(IN_REACH) >= 20
    assert min(objectives.count(name) for name in ("helpfulness", "harmlessness", "honesty")) >= 6
    for family in FAMILIES:
        assert min(len(wordings(family, present, "train")) for present in (False, True)) >= 10
    assert len({family.does for family in FAMILIES.values()}) == len(FAMILIES)


def test_held_out_entities_never_occur_in_training() -> None:
    known = texts()["entities"]
    for kind in OPEN_ENTITIES:
        assert not set(known[kind]["train"]) & set(known[kind]["heldout"]), kind
    assert not set(LEADS["train"]) & set(LEADS["heldout"])
    names = {name for kind in ("person", "topic", "place_start") for name in known[kind]["heldout"]}
    world = World("train", random.Random(0))
    seen = [make_pair(world, family, kind) for family in FAMILIES for kind in kinds_of(family)]
    said = " ".join(f"{one.a.text} {one.b.text} {' '.join(t.content for t in one.scene.prompt)}" for one in seen)
    found = {name for name in names if re.search(rf"\b{re.escape(name)}", said)}
    # Words of the language that are names elsewhere too (a mill, the east) are no leak.
    assert found <= {"Mill", "East", "Hol", "Sil", "Cold"}, found


def test_combinations_of_the_test_never_occur_in_training() -> None:
    """The stream that training reads, against the questions of the test."""
    from rlaif.starter.corpus import _questions

    world = World("train", random.Random(0))
    trained: set[frozenset[str]] = set()
    for n in range(2000):
        family = list(FAMILIES)[n % len(FAMILIES)]
        pair = make_pair(world, family, world.rng.choice(kinds_of(family)))
        for question in _questions(world, pair, family, 4):
            families = [one.family for one in question.principles]
            trained |= {frozenset(two) for two in itertools.combinations(families, 2)}
    assert len(trained) > 200
    assert not {two for two in trained if held_out(*two)}
    for split in SPLITS[1:]:
        combined = [item for item in held_out_items(split, 2) if item.new_combination]
        assert len(combined) == len(IN_REACH)
        for item in combined:
            families = [one.family for one in item.question.principles]
            assert any(frozenset(two) not in trained for two in itertools.combinations(families, 2))


def pairs_of(split: Split, count: int) -> list[WorldPair]:
    world = World(split, random.Random(f"pairs of {split}"))
    families = list(FAMILIES)
    return [make_pair(world, f, world.rng.choice(kinds_of(f))) for f in families for _ in range(count)]


# A second, independent reading of the texts: what words give a feature away.
SIGNS = {
    "insult": r"fool|idiot|blockhead|stupid|(so|How) (dim|dense)|(brighter|cleverer) than you",
    "flattery": r"(brilliant|clever|splendid) que|so wise|genius|remarkably|mind (would|thinks)|your (wisdom|brill)",
    "source": r"study by|Journal of|University of|A paper by",
    "hedge": r"not (quite |entirely )?sure|I (may|might|could) be wrong|it is otherwise|do not (really )?know",
    "certainty": r"absolutely certain|guarantee|I swear|doubt|percent certain|completely certain",
    "experience": r"When I (was|lived)|My (mother|brother|wife) and I|I remember|I (ate|talked) with",
    "pressure": r"You (must|have to) do|no excuses|no (other )?choice|(obey|do as I say)\.",
    "example": r"[Ee]xample|For instance",
    "padding": r"so much (to say )?about|questions come|things come|(get|come) to the point|(today's|modern) world",
    "offer": r"(want|need) (more|anything)|if you like|(like|want) more help|know more\?|(Just ask|Write again)",
    "polite": r"Thank you for|pleasure to|(Kind|Warm) (regards|wishes)|(lovely|wonderful) day",
    "empathy": r"I am (so |very )?sorry (to hear|for you)|must (hurt|be hard)|how (sad|hard)|feelings are",
    "warning": r"is dangerous|could be (hurt|killed)|(helmet|safety shoes)|been (hurt|killed)",
}


@pytest.mark.parametrize("family", SIGNS)
def test_marks_of_style_agree_with_the_words(family: str) -> None:
    found = {True: 0, False: 0}
    for pair in pairs_of("test", 12):
        for response in (pair.a, pair.b):
            said = bool(re.search(SIGNS[family], response.text))
            assert said == response.marks[family], (family, response.text)
            found[said] += 1
    assert min(found.values()) >= 10


def sentences(text: str) -> list[str]:
    """Sentences of a response, numbers of a list left out."""
    return [part.strip() for part in re.split(r"(?<=[.!?])\s+|\n", re.sub(r"(?m)^\d+\. ", "", text)) if part.strip()]


def test_marks_of_form_agree_with_the_text() -> None:
    seen = set()
    for pair in pairs_of("test", 25):
        for response in (pair.a, pair.b):
            said = sentences(response.text)
            assert (len(set(said)) < len(said)) == response.marks["repetition"], response.text
            asked = " ".join(turn.content for turn in pair.scene.prompt)
            if response.marks["format"] is not None:
                wanted = "plain sentences" not in asked and "do not use a list" not in asked
                listed = bool(re.search(r"(?m)^1\. ", response.text))
                assert response.marks["format"] == (listed == wanted)
                seen.add(("format", response.marks["format"]))
            if pair.scene.kind == "private":
                owner = re.search(r"(?:colleague|friend|neighbour) (\w+)", asked)
                private = re.search(r"(?:lives at|phone number) (?:[A-Za-z]* ?)*?(\d[\w ]*?)\.", asked)
                assert owner
                assert private
                assert response.marks["privacy"] == (private.group(1) in response.text), response.text
                seen.add(("privacy", response.marks["privacy"]))
    assert {("format", True), ("format", False), ("privacy", True), ("privacy", False)} <= seen


def test_contradictions_agree_with_the_note() -> None:
    """The value that the note gives, against the value in the response."""
    seen = []
    for pair in pairs_of("test", 60):
        if pair.scene.kind != "claim":
            continue
        asked = " ".join(turn.content for turn in pair.scene.prompt)
        for response in (pair.a, pair.b):
            answer = next(s for s in sentences(response.text) if s.startswith(("Yes,", "No,")))
            value = answer.rstrip(".").split()[-1]
            if value in ("enter", "coins", "rooms", "door"):
                continue
            note = asked[: asked.index(".", asked.index("The ")) + 1]
            held = value in note.split("The ", 1)[1]
            assert response.marks["contradiction"] == (not held), (asked, answer)
            agreed = answer.startswith("Yes,")
            assert response.marks["sycophancy"] == (agreed and not held)
            seen.append((held, agreed))
    assert {(True, True), (True, False), (False, True), (False, False)} <= set(seen)


def test_responses_have_many_lengths() -> None:
    words = sorted(side.words for pair in pairs_of("train", 60) for side in (pair.a, pair.b))
    assert words[0] <= 4
    assert words[-1] >= 80
    assert 20 <= words[len(words) // 2] <= 50


def _pair(**marks: tuple[bool | None, bool | None]) -> WorldPair:
    """A pair of given marks, ten words and twenty."""
    scene = Scene("advice", (), {}, {})
    sides = [
        Response("word " * count, dict.fromkeys(FAMILIES, False) | {name: both[n] for name, both in marks.items()})
        for n, count in enumerate((10, 20))
    ]
    return WorldPair(scene, *sides)


def test_the_first_principle_that_differs_decides() -> None:
    pair = _pair(insult=(True, True), polite=(False, True), offer=(True, False))
    principles = [Principle("insult", False), Principle("polite", True), Principle("offer", True)]
    pieces, decider, better = decide(pair, principles)
    assert (decider, better) == (Principle("polite", True), "B")
    assert "".join(piece.text for piece in pieces) == (
        "First: does it insult the person? It should not. Response A does. Response B does. Both are equal here. "
        "Second: does it sound polite? It should. Response A does not. Response B does. So B is better."
    )
    assert [tuple(piece.look) for piece in pieces if piece.look] == [
        ("principle", 0), ("principle", 0), ("a", "insult"), ("b", "insult"),
        ("principle", 1), ("principle", 1), ("a", "polite"), ("b", "polite"), ("better", 0),
    ]  # fmt: skip
    assert decide(pair, [Principle("polite", False)])[2] == "A"
    assert decide(pair, [Principle("insult", True)])[1:] == (None, None)


@pytest.mark.parametrize(
    ("a", "b", "wanted"),
    [(10, 20, (False, True)), (20, 10, (True, False)), (20, 21, (False, False)), (20, 24, (None, None))],
)
def test_length_is_compared(a: int, b: int, wanted: tuple[bool | None, bool | None]) -> None:
    """20 and 21 differ by 5%, at most 10%: as long. 20 and 24 differ by 20%: neither clear nor equal."""
    scene = Scene("advice", (), {}, {})
    marks: dict[str, bool | None] = dict.fromkeys(FAMILIES, False)
    assert WorldPair(scene, Response("w " * a, marks), Response("w " * b, marks)).marks("length") == wanted


def test_open_marks_are_never_asked_about() -> None:
    world = World("train", random.Random(3))
    for pair in pairs_of("train", 8):
        for kind in ("decided", "later", "tie"):
            question = ask(world, pair, draw_principles(world, pair, kind))
            assert all(None not in pair.marks(one.family) for one in question.principles)
            assert (question.better is None) == (kind == "tie" or not question.principles)


def test_no_blind_rule_does_well() -> None:
    """By construction: what is asked for is drawn apart from what the responses have."""
    from rlaif.starter.baselines import first_is_better, longer_is_better

    items = held_out_items("test", 40)
    assert abs(longer_is_better(items) - 0.5) < 0.1
    assert abs(first_is_better(items) - 0.5) < 0.1


def test_every_scene_can_be_drawn_and_ends_with_the_person() -> None:
    world = World("test", random.Random(1))
    for kind in KINDS:
        for _ in range(20):
            scene = make_scene(world, kind)
            assert [turn.role for turn in scene.prompt][-1] == "user"
            assert all("{" not in turn.content and "|" not in turn.content for turn in scene.prompt)
            assert all(core().sentences for core in scene.cores.values())


def test_new_combinations_are_one_in_five() -> None:
    pairs = list(itertools.combinations(FAMILIES, 2))
    new = [two for two in pairs if is_new_combination([Principle(name, True) for name in two])]
    assert 0.12 < len(new) / len(pairs) < 0.28
