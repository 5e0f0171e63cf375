"""The order of training: every pair once an epoch, like lengths together, and the same again for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from rlaif.rewards.schedule import BatchOrder, Plan, make_marks, make_plan
from rlaif.rewards.tokens import EncodedPair


def make_pairs(count: int) -> list[EncodedPair]:
    draw = np.random.default_rng(0)
    return [EncodedPair([1] * int(draw.integers(5, 60)), [2] * 4, [3] * 6) for _ in range(count)]


def plan_of(pairs: list[EncodedPair], **options: float) -> Plan:
    chosen = {"budget": 300, "epochs": 2.0, "seed": 0, **options}
    return make_plan(pairs, one_pass=True, **chosen)  # type: ignore[arg-type]


def epochs_of(plan: Plan) -> list[list[int]]:
    """Rows of each epoch that count."""
    starts = (0, *plan.ends)
    return [
        [row for batch in plan.batches[start:end] for row in batch if row >= 0]
        for start, end in zip(starts, plan.ends, strict=False)
    ]


@pytest.mark.parametrize(("processes", "accumulate"), [(1, 1), (3, 1), (2, 4)])
def test_every_pair_is_there_once_an_epoch(processes: int, accumulate: int) -> None:
    pairs = make_pairs(200)
    plan = plan_of(pairs, processes=processes, accumulate=accumulate)
    assert [sorted(rows) for rows in epochs_of(plan)] == [list(range(200))] * 2
    # No process is ever without a batch, and no step has a foot in two epochs.
    assert len(plan.batches) == plan.steps * processes * accumulate
    assert plan.epoch_steps == tuple(end / (processes * accumulate) for end in plan.ends)
    assert list(BatchOrder(plan)) == [list(batch) for batch in plan.batches]
    assert plan.per_epoch == sum(batch[0] >= 0 for batch in plan.batches[: plan.ends[0]])


def test_batches_keep_to_the_budget_and_the_largest_is_the_first() -> None:
    pairs = make_pairs(200)
    plan = plan_of(pairs)
    tokens = [sum(pairs[row].tokens for row in batch) for batch in plan.batches]
    padded = [len(batch) * max(pairs[row].tokens for row in batch) for batch in plan.batches]
    assert max(padded) <= 300
    assert tokens[0] == max(tokens[: plan.ends[0]])
    # Like lengths share a batch: little is padded, though batches are drawn anew for each epoch.
    assert sum(padded) < 1.1 * sum(tokens)
    first = {frozenset(batch) for batch in plan.batches[: plan.ends[0]]}
    second = {frozenset(batch) for batch in plan.batches[plan.ends[0] :]}
    assert len(first & second) < 0.3 * len(first)


def test_a_pair_over_the_budget_is_a_batch_of_its_own() -> None:
    pairs = [*make_pairs(5), EncodedPair([1] * 500, [2], [3])]
    plan = plan_of(pairs, epochs=1)
    assert list(plan.batches[0]) == [5]


def test_the_seed_decides_the_order() -> None:
    pairs = make_pairs(50)
    assert plan_of(pairs) == plan_of(pairs)
    assert plan_of(pairs) != plan_of(pairs, seed=1)


def test_processes_get_batches_of_like_size() -> None:
    pairs = make_pairs(400)
    plan = plan_of(pairs, processes=4, epochs=1)
    sizes = [sum(pairs[row].tokens for row in batch) for batch in plan.batches]
    together = [sizes[start : start + 4] for start in range(0, len(sizes) - 4, 4)]
    apart = np.mean([max(step) - min(step) for step in together])
    drawn = np.random.default_rng(0).permutation(sizes)
    assert apart < 0.6 * np.mean(
        [drawn[start : start + 4].max() - drawn[start : start + 4].min() for start in range(0, len(drawn) - 4, 4)]
    )


def test_a_part_of_an_epoch_has_a_part_of_the_batches() -> None:
    pairs = make_pairs(200)
    whole, part = plan_of(pairs, epochs=1), plan_of(pairs, epochs=1.5)
    assert part.ends[0] == whole.ends[0]
    assert part.ends[1] - part.ends[0] == -(-whole.ends[0] // 2) or abs(part.ends[1] - 1.5 * whole.ends[0]) <= 2
    assert plan_of(pairs, epochs=0.01).steps == 1


def test_epochs_are_told_from_steps() -> None:
    plan = Plan([[0]] * 6, (4, 6))
    assert [plan.epoch_at(step) for step in (0, 2, 4, 5, 6)] == [0, 0.5, 1, 1.5, 2]


def test_marks_measure_each_epoch_and_save_what_is_measured() -> None:
    plan = Plan([[0]] * 20, (10, 20))
    marks = make_marks(plan, evaluations=2, save_steps=7, measured=True)
    assert sorted(marks.evaluations) == [5, 10, 15, 20]
    assert sorted(marks.saves) == [5, 7, 10, 14, 15, 20]
    assert marks.logs == frozenset(range(1, 21))
    unmeasured = make_marks(plan, evaluations=2, save_steps=7, measured=False)
    assert unmeasured.evaluations == frozenset()
    assert sorted(unmeasured.saves) == [7, 14, 20]


def test_a_long_training_is_logged_and_saved_now_and_then() -> None:
    plan = Plan([[0]] * 40_000, (40_000,))
    marks = make_marks(plan, evaluations=1, save_steps=None, measured=True)
    assert len(marks.saves) == 80
    assert len(marks.logs) < 400
    assert marks.saves <= marks.logs
