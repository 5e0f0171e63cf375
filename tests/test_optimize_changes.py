"""The changes of a probe: what each makes of a text, where it does not apply, and that it follows from the texts."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest

from rlaif.errors import InputError
from rlaif.optimize.changes import CHANGES, Change, Subject, Variant, choose_changes
from rlaif.optimize.wording import refuses, sentences, stands_alone
from rlaif.types import Message
from tests.conftest import ROOT

BY_NAME = {change.name: change for change in CHANGES}
ANSWER = "The Danube is long. It runs through ten countries. Ships can use most of it."


def turns(text: str) -> tuple[Message, ...]:
    """A prompt of one turn."""
    return (Message(role="user", content=text),)


def changed(name: str, response: str, prompt: str = "Name a river.", donor: str | None = None) -> str | None:
    """The changed response, `None` where the change does not apply."""
    variant = BY_NAME[name].apply(Subject(turns(prompt), response, donor))
    return None if variant is None else variant.changed


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("trailing-space", "Yes.\n", "Yes.  \n\n   \n"),
        ("closing", "Yes.", "Yes.\n\nI hope this helps!"),
        (
            "bold",
            "Go home. The Danube is long.",
            "**Go home**. **The Danube is** long.",
        ),
        ("list", "Go home. Dr. Lee is in.", "- Go home.\n- Dr. Lee is in."),
        ("typos", "It is a letter.", {"It is a lteter.", "It is a letetr."}),
        (
            "order",
            "Some tips for rain:\n- Take a coat.\n- Wear boots.\n- Look at the sky.",
            {
                f"Some tips for rain:\n{rest}"
                for rest in (
                    "- Take a coat.\n- Look at the sky.\n- Wear boots.",
                    "- Wear boots.\n- Take a coat.\n- Look at the sky.",
                    "- Wear boots.\n- Look at the sky.\n- Take a coat.",
                    "- Look at the sky.\n- Take a coat.\n- Wear boots.",
                    "- Look at the sky.\n- Wear boots.\n- Take a coat.",
                )
            },
        ),
        (
            "order",
            "Rain is near. The sky is grey. Birds fly low.",
            "Rain is near. Birds fly low. The sky is grey.",
        ),
        ("repeat", "One. Two is more.", "One. Two is more. Two is more."),
        ("repeat", "One.\n\nTwo is more.", "One.\n\nTwo is more.\n\nTwo is more."),
        ("confident", "Yes.", "Certainly. There is no doubt about it: Yes."),
        ("empty", "Yes.", ""),
        ("first-sentence", ANSWER, "The Danube is long."),
        ("truncated", "The Danube runs through ten countries and four capitals.", "The Danube runs through te"),
        ("negated", ANSWER, ANSWER.replace("is long", "is not long")),
        ("negated", "Well. Ships can use it.", "Well. Ships cannot use it."),
        ("negated", "It's long.", "It's not long."),
        ("negated", "It has been closed.", "It has not been closed."),
    ],
)
def test_a_change_makes_of_a_text(name: str, before: str, after: str | set[str]) -> None:
    assert changed(name, before) in ({after} if isinstance(after, str) else after)


@pytest.mark.parametrize(
    ("name", "response"),
    [
        ("bold", "- One\n- Two"),
        ("bold", "**One** two three."),
        ("list", "One sentence only."),
        ("list", "```\nx = 1\n```\nThat is it. Done."),
        ("typos", "A cat sat."),
        ("typos", "```\nreturn letter\n```"),
        # A second sentence that leans on the first, steps, a language whose leaning words are not known.
        ("order", "The sky is grey. It will rain. Birds fly low."),
        ("order", "The sky is grey. First go out. Look for birds."),
        ("order", "1. Boil water.\n2. Add tea.\n3. Wait."),
        ("order", "Le ciel est gris. Prenez un manteau. Regardez dehors."),
        ("first-sentence", "One is enough. Two is more."),
        ("truncated", "Too short to cut."),
        ("negated", "I am glad to help."),
        ("negated", "Is it long?"),
        ("negated", "It is not long."),
        ("negated", "You are welcome. It is a pleasure to help."),
        ("negated", "The house has three rooms."),
        ("names", "A river runs by."),
        ("names", "Marie Curie and Paul Newman knew it."),
        ("other-answer", ANSWER),
        *[(name, "I'm sorry, but I can't help with that.") for name in ("empty", "refusal", "negated", "other-answer")],
    ],
)
def test_a_change_does_not_apply(name: str, response: str) -> None:
    assert changed(name, response) is None


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)
def test_nothing_becomes_of_an_empty_response(change: Change) -> None:
    assert change.apply(Subject(turns("Name a river."), " \n", donor="Rain.")) is None


def test_names_change_alike_in_prompt_and_response() -> None:
    prompt = turns("Where does Anna live? Does Ben know?")
    variant = BY_NAME["names"].apply(Subject(prompt, "Anna lives with Ben's aunt. Ben knows."))
    assert variant is not None
    asked = variant.changed_prompt[0].content
    found = re.fullmatch(r"Where does (\w+) live\? Does (\w+) know\?", asked)
    assert found
    her, his = found.groups()
    assert variant.changed == f"{her} lives with {his}'s aunt. {his} knows."
    assert {her, his}.isdisjoint({"Anna", "Ben"})
    assert her != his
    # Both responses of a pair get the same names.
    other = BY_NAME["names"].apply(Subject(prompt, "I do not know."))
    assert other is not None
    assert (other.changed_prompt, other.changed) == (variant.changed_prompt, "I do not know.")


def test_agreement_is_with_a_claim_that_the_person_makes() -> None:
    variant = BY_NAME["agreement"].apply(Subject(turns("Name a river."), "The Danube."))
    assert variant is not None
    claim = re.search(r"I am sure that (.+)\.$", variant.prompt[0].content)
    assert claim
    assert variant.original == "The Danube."
    assert variant.changed == f"You are absolutely right that {claim[1]}. The Danube."
    assert variant.changed_prompt == variant.prompt
    assert BY_NAME["agreement"].apply(Subject((Message(role="assistant", content="Hm."),), "Yes.")) is None


def test_another_prompt_s_answer_takes_the_place_of_the_answer() -> None:
    assert changed("other-answer", ANSWER, donor="The moon pulls the water.") == "The moon pulls the water."
    assert changed("other-answer", ANSWER, donor=ANSWER) is None


def example_subjects() -> list[Subject]:
    """Responses of the example pairs."""
    lines = (ROOT / "examples" / "pairs.jsonl").read_text(encoding="utf-8").splitlines()[:60]
    rows = [json.loads(line) for line in lines]
    return [
        Subject(tuple(map(Message.model_validate, row["prompt"])), row[side], rows[place - 1]["response_a"])
        for place, row in enumerate(rows)
        for side in ("response_a", "response_b")
    ]


def words(text: str) -> Counter[str]:
    """The words of a text, without markup."""
    return Counter(re.findall(r"\w+", text))


def applied(name: str) -> list[Variant]:
    """All variants of the example responses."""
    made = [BY_NAME[name].apply(subject) for subject in example_subjects()]
    return [variant for variant in made if variant is not None]


@pytest.mark.parametrize("name", ["trailing-space", "bold", "list", "order"])
def test_what_only_looks_different_has_the_same_words(name: str) -> None:
    found = applied(name)
    assert len(found) > 0
    assert all(words(each.changed) == words(each.original) for each in found)


def test_typos_keep_first_letters_last_letters_and_numbers_of_words() -> None:
    found = applied("typos")
    assert len(found) > 80
    for each in found:
        pairs = [(a, b) for a, b in zip(each.original.split(), each.changed.split(), strict=True) if a != b]
        assert 1 <= len(pairs) <= max(1, len(each.original.split()) // 15)
        for a, b in pairs:
            assert (a[0], sorted(a)) == (b[0], sorted(b))


def test_a_negation_adds_one_word_to_a_sentence_that_denies_nothing() -> None:
    found = applied("negated")
    assert len(found) > 60
    for each in found:
        before, after = (words(text.replace("cannot", "can not")) for text in (each.original, each.changed))
        assert after - before == Counter(["not"])


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)
def test_a_change_follows_from_the_texts_and_changes_something(change: Change) -> None:
    first, again = ([change.apply(subject) for subject in example_subjects()] for _ in range(2))
    assert first == again
    for variant in filter(None, first):
        assert (variant.prompt, variant.original) != (variant.changed_prompt, variant.changed)
        assert variant.changed_prompt[-1].role == "user"


def test_sentences_end_where_people_end_them() -> None:
    text = 'Dr. Lee paid 3.50 coins, e.g. for tea. Was it good? Yes!\nNo. 5 is next… "Stop." 你好。再见。'
    assert sentences(text) == [
        "Dr. Lee paid 3.50 coins, e.g. for tea.",
        "Was it good?",
        "Yes!",
        "No. 5 is next…",
        '"Stop."',
        "你好。",
        "再见。",
    ]


def test_a_sentence_that_leans_on_another_does_not_stand_alone() -> None:
    assert stands_alone("Birds fly low.")
    assert not stands_alone("They fly low.")
    assert not stands_alone("Then birds fly low.")
    assert not stands_alone("Do birds fly low?")


def test_a_refusal_is_one_only_while_it_is_short() -> None:
    assert refuses("I'm sorry, but I can't help with that.")
    assert refuses("I cannot answer this question.")
    assert not refuses("You cannot swim there, the river is cold.")
    assert not refuses("Sorry for the delay. " + "The river runs to the sea. " * 12)


def test_changes_are_chosen_by_name() -> None:
    assert [change.name for change in choose_changes(["typos", "closing"])] == ["closing", "typos"]
    assert len(choose_changes(skip=["closing"])) == len(CHANGES) - 1
    with pytest.raises(InputError, match=r"--only closng: no such change; .* Did you mean 'closing'\?"):
        choose_changes(["closng"])
    with pytest.raises(InputError, match="no change is left"):
        choose_changes(["closing"], ["closing"])
