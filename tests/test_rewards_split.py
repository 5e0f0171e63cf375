"""Training and held-out pairs: apart by conversation, stable, and both there for every objective."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from rlaif.data.conversations import conversation_digest
from rlaif.errors import InputError
from rlaif.rewards.preferences import Preferences
from rlaif.rewards.sources import read_preferences
from rlaif.rewards.split import separate, split_preferences
from rlaif.types import Message, Pair


def preferences(prompts: Sequence[str], labelled: Sequence[Sequence[bool]] | None = None) -> Preferences:
    """A pair a prompt, its id the row's number, with the labels that are asked for; by default all of one objective."""
    there = np.ones((len(prompts), 1), dtype=bool) if labelled is None else np.array(labelled, dtype=bool)
    pairs = [
        Pair(id=str(row), prompt=(Message(role="user", content=text),), response_a="x", response_b="y")
        for row, text in enumerate(prompts)
    ]
    groups: dict[bytes, int] = {}
    group = [groups.setdefault(conversation_digest(pair.prompt), len(groups)) for pair in pairs]
    return Preferences(
        tuple(f"objective {column}" for column in range(there.shape[1])),
        pairs,
        np.where(there, 1.0, np.nan),
        there.astype(np.float64),
        np.array(group, dtype=np.int64),
    )


def ids(found: Preferences) -> list[int]:
    """The rows that a part was made of."""
    return [int(pair.id) for pair in found.pairs]


def questions(count: int) -> list[str]:
    """Different prompts."""
    return [f"Question {number}?" for number in range(count)]


def test_no_conversation_is_on_both_sides_and_nothing_is_lost() -> None:
    prompts = [f"Question  {number % 40}?" if number % 3 else f"Question {number % 40}? " for number in range(200)]
    whole = preferences(prompts)
    assert len(set(whole.group)) == 40
    training, held = split_preferences(whole, fraction=0.3, seed=1)
    assert sorted(ids(training) + ids(held)) == list(range(200))
    assert ids(training) == sorted(ids(training))
    assert set(training.group) & set(held.group) == set()
    assert len(held) % 5 == 0
    for part in (training, held):
        assert part.target.shape == part.weight.shape == (len(part), 1)
        assert [whole.group[row] for row in ids(part)] == part.group.tolist()


def test_the_fraction_holds_on_average_and_the_seed_draws_another() -> None:
    whole = preferences(questions(4000))
    drawn = [set(ids(split_preferences(whole, fraction=0.2, seed=seed)[1])) for seed in range(5)]
    for held in drawn:
        # Four standard deviations of 4,000 draws: 4 x sqrt(4000 x 0.2 x 0.8) = 101.
        assert abs(len(held) - 800) < 101
    # Independent draws share 0.2 x 0.2 of all; four standard deviations are 4 x sqrt(4000 x 0.04 x 0.96) = 50.
    assert abs(len(drawn[0] & drawn[1]) - 160) < 50
    again = split_preferences(whole, fraction=0.2, seed=0)[1]
    assert set(ids(again)) == drawn[0]


def test_a_pair_keeps_its_side_when_the_data_grows_shrinks_or_is_shuffled() -> None:
    small, large = (split_preferences(preferences(questions(count)), fraction=0.25, seed=7) for count in (300, 900))
    assert [row for row in ids(large[1]) if row < 300] == ids(small[1])
    turned = split_preferences(preferences(questions(900)[::-1]), fraction=0.25, seed=7)[1]
    assert sorted(899 - row for row in ids(turned)) == ids(large[1])
    # A larger fraction only adds to what is held out.
    more = split_preferences(preferences(questions(900)), fraction=0.5, seed=7)[1]
    assert set(ids(large[1])) < set(ids(more))


@pytest.mark.parametrize("seed", range(10))
def test_every_objective_is_on_both_sides_where_it_can_be(seed: int) -> None:
    # Of 200 conversations the second objective has two, the third one.
    labelled = [[True, row in (3, 150), row == 60] for row in range(200)]
    training, held = split_preferences(preferences(questions(200), labelled), fraction=0.1, seed=seed)
    assert training.labelled[1:].tolist() == [1, 1]
    assert held.labelled[1:].tolist() == [1, 0]
    plain = split_preferences(preferences(questions(200)), fraction=0.1, seed=seed)
    assert len(set(ids(plain[1])) ^ set(ids(held))) <= 2


def test_few_conversations() -> None:
    for seed in range(10):
        training, held = split_preferences(preferences(questions(2)), fraction=0.1, seed=seed)
        assert (len(training), len(held)) == (1, 1)
        for prompts in (["Why?"], ["Why?", "Why? "]):
            training, held = split_preferences(preferences(prompts), fraction=0.9, seed=seed)
            assert (len(training), len(held)) == (len(prompts), 0)


def test_nothing_is_held_out_of_nothing_or_at_fraction_zero() -> None:
    training, held = split_preferences(preferences(questions(50)), fraction=0, seed=0)
    assert (len(training), len(held)) == (50, 0)
    assert held.target.shape == (0, 1)
    none = preferences([]).take(np.zeros(0, dtype=np.int64))
    assert [len(part) for part in split_preferences(none, fraction=0.5, seed=0)] == [0, 0]


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 2.0, float("nan"), float("inf")])
def test_a_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(InputError, match="expected a fraction of 0 or more and less than 1"):
        split_preferences(preferences(questions(3)), fraction=fraction, seed=0)


def test_conversations_of_a_held_out_file_leave_training() -> None:
    training, held = preferences([*questions(6), "Question 2?"]), preferences(["Question  2?", "Else?", "Question 5? "])
    left, removed = separate(training, held)
    assert (ids(left), removed) == ([0, 1, 3, 4], 3)
    assert left.notes == ("3 pairs share their conversation with the held-out file and are not trained on.",)
    assert separate(left, held) == (left, 0)
    with pytest.raises(InputError, match="nothing is left to train on"):
        separate(training, preferences(questions(9)))


def test_real_conversations_are_apart(shared: Path) -> None:
    sources = [
        f"{shared}/hh-rlhf/pairs.jsonl+{shared}/hh-rlhf/human_labels.jsonl",
        f"{shared}/pandalm/pairs.jsonl+{shared}/pandalm/human_labels.jsonl:overall=helpfulness",
    ]
    whole = read_preferences(sources)
    training, held = split_preferences(whole, fraction=0.2, seed=0)
    texts = [{tuple((t.role, t.content) for t in pair.prompt) for pair in part.pairs} for part in (training, held)]
    assert texts[0] & texts[1] == set()
    assert len(training) + len(held) == len(whole)
    # PandaLM asks each of its 170 questions of up to ten couples of models, so that its shares scatter more.
    for column, tolerance in ((0, 0.05), (1, 0.12)):
        assert abs(held.labelled[column] / whole.labelled[column] - 0.2) < tolerance
    # One source alone draws the same side for each of its pairs.
    alone = split_preferences(read_preferences(sources[1:]), fraction=0.2, seed=0)[1]
    assert {pair.id for pair in alone.pairs} == {
        pair.id for pair, known in zip(held.pairs, held.weight[:, 1] > 0, strict=True) if known
    }
