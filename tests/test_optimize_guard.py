"""Guards of several objectives: advantages by hand, multipliers by hand, and means that are known exactly."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.reward_guard import TOLERANCE, make_world, measured, train
from rlaif.errors import InputError
from rlaif.optimize.guard import ParetoGuard
from rlaif.optimize.lagrange import Lagrangian, floors_of
from rlaif.optimize.reference import Reference
from rlaif.optimize.shaping import Batch, Running, block
from rlaif.rewards.preferences import Floats
from tests.heads_examples import make_spec

# Within the group both have mean 0; their variances are 1 and 1/2, their covariance -1/2.
GAIN, LOSS = (1.0, 1.0, -1.0, -1.0), (-1.0, 0.0, 1.0, 0.0)


def batch_of(
    *objectives: Sequence[float], weights: Sequence[float] = (1.0, 0.0), prompts: Sequence[str] = "pppp"
) -> Batch:
    """One step with these rewards, a list an objective."""
    names = ("gain", "loss", "third")[: len(objectives)]
    return Batch(names, np.array(objectives).T, np.array(weights), list(prompts))


def grpo(rewards: Floats, group: int) -> torch.Tensor:
    """GRPO's advantages in float32, (completions,)."""
    each = torch.tensor(rewards, dtype=torch.float32).view(-1, group)
    return ((each - each.mean(1, keepdim=True)) / (each.std(1, keepdim=True) + 1e-4)).view(-1)


def rloo(rewards: Floats, group: int) -> torch.Tensor:
    """RLOO's advantages in float32, (completions,)."""
    each = torch.tensor(rewards, dtype=torch.float32).view(-1, group)
    return (each - (each.sum(1, keepdim=True) - each) / (group - 1)).view(-1)


def blocked_rewards(rewards: Sequence[float], blocked: Sequence[int], groups: Sequence[int]) -> Floats:
    return block(np.array(rewards), np.array(blocked, dtype=bool), np.array(groups))


def test_a_blocked_completion_gets_the_least_reward_and_no_praise() -> None:
    lowered = blocked_rewards([1, 2, 4, 5], [0, 0, 0, 1], [0, 0, 0, 0])
    assert lowered.tolist() == [1, 2, 4, 1]
    # Mean 2, squares 1 + 0 + 4 + 1 over 3: a deviation of the root of 2.
    assert grpo(lowered, 4).tolist() == pytest.approx([-0.7071, 0, 1.4142, -0.7071], abs=1e-3)
    # 1 - (2 + 4 + 1) / 3, 2 - (1 + 4 + 1) / 3, 4 - (1 + 2 + 1) / 3.
    assert rloo(lowered, 4).tolist() == pytest.approx([-4 / 3, 0, 8 / 3, -4 / 3])


def test_of_two_blocked_completions_neither_is_praised() -> None:
    # With its own reward of 1 the first would have 1 - (-8 + 1 + 1) / 3 = 3 under RLOO.
    lowered = blocked_rewards([1, -8, 1, 1.5], [1, 1, 0, 0], [0, 0, 0, 0])
    assert lowered.tolist() == [-8, -8, 1, 1.5]
    assert rloo(lowered, 4)[0] == pytest.approx(-8 - (-8 + 1 + 1.5) / 3)
    assert (grpo(lowered, 4)[:2] < 0).all()


def test_a_group_of_blocked_completions_teaches_nothing_and_other_groups_are_as_they_were() -> None:
    lowered = blocked_rewards([0.1, 0.7, 0.30001, 3, 2, 1], [1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1])
    assert lowered[3:].tolist() == [3, 2, 1]
    assert grpo(lowered, 3)[:3].tolist() == [0, 0, 0]
    assert rloo(lowered, 3)[:3].tolist() == [0, 0, 0]


def test_no_advantage_of_a_blocked_completion_is_positive() -> None:
    draw = np.random.default_rng(0)
    met = 0
    for size in (2, 3, 7, 8, 16):
        for _ in range(200):
            rewards, blocked = draw.normal(scale=3, size=size * 4), draw.random(size * 4) < draw.random()
            lowered = block(rewards, blocked, np.arange(4).repeat(size))
            assert (lowered <= rewards).all()
            assert (lowered[~blocked] == rewards[~blocked]).all()
            for advantages in (grpo(lowered, size), rloo(lowered, size)):
                assert (advantages[torch.tensor(blocked)] <= 0).all()
            met += int(blocked.sum())
    assert met > 5000


def test_what_was_not_scored_counts_for_nothing() -> None:
    lowered = blocked_rewards([math.nan, 2, 4], [1, 1, 0], [0, 0, 0])
    assert math.isnan(lowered[0])
    assert lowered[1:].tolist() == [2, 4]
    rewards = batch_of([1, 2, math.nan, 6], [0, 0, 0, 0])
    shaped = ParetoGuard(0.5, 0.0, responses="always").shape(rewards)
    assert np.isnan(shaped.reward).tolist() == [False, False, True, False]
    assert shaped.metrics["guard/gap/gain"] == pytest.approx(3)


def test_a_running_mean_forgets_and_knows_its_error() -> None:
    running = Running(memory=4)
    running.add(np.array([[1.0], [3.0]]), np.array([2.0, 2.0]))
    # Variance of two values 1 and 3: 2; the error of their mean is the root of 2 / 2.
    assert running.mean.item() == 2.0
    assert running.error.item() == pytest.approx(1.0)
    running.add(np.array([[5.0]]), np.array([4.0]))
    # Four completions later the first four count 1/e.
    assert running.mean.item() == pytest.approx((4 * 2 / math.e + 4 * 5) / (4 / math.e + 4))
    again = Running(memory=4)
    again.load_state_dict(json.loads(json.dumps(running.state_dict())))
    assert (again.mean.item(), again.error.item()) == (running.mean.item(), running.error.item())


@pytest.mark.parametrize(
    ("reference", "added"),
    [
        # At its reference, and above it, the weighted reward counts as it is.
        (0.0, 0.0),
        (-1.0, 0.0),
        # Half-way no covariance with it may be below 0: -1/2 + mu / 2 = 0.
        (0.1, 1.0),
        # At the limit it has to be the product of both deviations, 1 and the root of 1/2.
        (0.2, 1 + math.sqrt(2)),
        # A quarter of the way down half of that may be lost: mu / 2 = 1/2 - root(1/2) / 2.
        (0.05, 1 - math.sqrt(0.5)),
    ],
)
def test_the_reward_is_changed_as_far_as_a_mean_needs(reference: float, added: float) -> None:
    guard = ParetoGuard(0.2, {"gain": 0.0, "loss": reference}, responses="never")
    shaped = guard.shape(batch_of(GAIN, LOSS))
    # A hundredth of the mean variance, 0.0075, is added to the variance of 0.5.
    expected = added * 0.5 / 0.5075
    assert shaped.metrics["guard/added/loss"] == pytest.approx(expected)
    assert shaped.metrics["guard/gap/loss"] == pytest.approx(-reference)
    by_hand = (np.array(GAIN) + expected * np.array(LOSS)) / (1 + expected)
    assert shaped.reward == pytest.approx(by_hand)


def test_opposed_objectives_that_both_fell_leave_finite_multipliers() -> None:
    opposite = tuple(-value for value in GAIN)
    guard = ParetoGuard(0.1, {"gain": 1.0, "loss": 1.0}, responses="never")
    shaped = guard.shape(batch_of(GAIN, opposite, weights=(0.5, 0.5)))
    assert np.isfinite(shaped.reward).all()
    assert shaped.metrics["guard/added/gain"] == pytest.approx(shaped.metrics["guard/added/loss"])


def blocked_by(guard: ParetoGuard, batch: Batch) -> list[bool]:
    blocked: list[bool] = guard.shape(batch).blocked.tolist()
    return blocked


def test_which_responses_are_blocked() -> None:
    fallen, kept = {"gain": 0.0, "loss": 0.3}, {"gain": 0.0, "loss": 0.1}
    batch = batch_of(GAIN, LOSS)
    # Less 0.3 the second objective is -1.3, -0.3, 0.7 and -0.3, and its mean is below the tolerance.
    assert blocked_by(ParetoGuard(0.2, fallen), batch) == [True, True, False, True]
    # Less 0.1 it is -1.1, -0.1, 0.9 and -0.1, and its mean is not.
    assert blocked_by(ParetoGuard(0.2, kept), batch) == [False] * 4
    # The first objective is below in the last two.
    assert blocked_by(ParetoGuard(0.2, kept, responses="always"), batch) == [True, False, True, True]
    assert blocked_by(ParetoGuard(0.2, fallen, responses="never"), batch) == [False] * 4


@pytest.mark.parametrize(
    "guard",
    [
        ParetoGuard({"gain": 0.2}, {"gain": 0.0, "loss": 9.0}, responses="always"),
        ParetoGuard(0.2, {"gain": 0.0}, responses="always"),
    ],
)
def test_what_is_not_named_is_not_guarded(guard: ParetoGuard) -> None:
    shaped = guard.shape(batch_of(GAIN, LOSS))
    assert shaped.blocked.tolist() == [False, False, True, True]
    assert not [name for name in shaped.metrics if name.endswith("loss")]
    assert shaped.reward.tolist() == [1, 1, -1, -1]


def test_prompts_are_compared_each_with_its_own_reference() -> None:
    reference = Reference(("gain",), np.array([0.0]), {"easy": np.array([5.0]), "hard": np.array([-5.0])})
    batch = Batch(("gain",), np.array([[4.0], [6.0], [-4.0], [-6.0], [1.0]]), np.ones(1), ["easy"] * 2 + ["hard"] * 3)
    shaped = ParetoGuard(0.5, reference, responses="always").shape(batch)
    assert shaped.blocked.tolist() == [True, False, False, True, False]
    # Group means 5 and -3 less 5 and -5, weighed by 2 and 3 completions.
    assert shaped.metrics["guard/gap/gain"] == pytest.approx(6 / 5)
    unseen = Batch(("gain",), np.array([[-1.0], [1.0]]), np.ones(1), ["new", "new"])
    assert blocked_by(ParetoGuard(0.5, reference, responses="always"), unseen) == [True, False]


def test_a_reference_is_kept_in_a_file(tmp_path: Path) -> None:
    reference = Reference(("gain", "loss"), np.array([0.1, -2.0]), {"p": np.array([1 / 3, 4.0])})
    reference.save(tmp_path / "reference.json")
    again = Reference.load(tmp_path / "reference.json")
    assert again.objectives == reference.objectives
    assert again.of(["p", "q"]).tolist() == [[1 / 3, 4.0], [0.1, -2.0]]
    (tmp_path / "reference.json").write_text('{"format": 1, "objectives": ["a"], "overall": [1, 2], "by_prompt": {}}')
    with pytest.raises(InputError, match="its numbers do not go with its objectives"):
        Reference.load(tmp_path / "reference.json")
    with pytest.raises(InputError, match="other: no reference rewards"):
        Reference.load(tmp_path / "other")


def test_without_a_reference_the_first_steps_are_one() -> None:
    guard = ParetoGuard(0.5, first=2, responses="always")
    for level in (1.0, 3.0):
        shaped = guard.shape(batch_of([level, level + 2], weights=[1.0], prompts="pp"))
        assert shaped.reward.tolist() == [level, level + 2]
        assert not shaped.blocked.any()
    # Means 2 and 4, so 3.
    shaped = guard.shape(batch_of([2.4, 3.6], weights=[1.0], prompts="pp"))
    assert shaped.blocked.tolist() == [True, False]
    assert shaped.metrics["guard/gap/gain"] == pytest.approx(0.0)


def steps_of(count: int, seed: int) -> list[Batch]:
    draw = np.random.default_rng(seed)
    prompts = [f"p{place}" for place in range(4) for _ in range(4)]
    return [
        Batch(("gain", "loss"), draw.normal(size=(16, 2)) - step / 10, np.array([0.8, 0.2]), prompts)
        for step in range(count)
    ]


def make_guard(**given: Any) -> ParetoGuard:
    return ParetoGuard(0.2, floors={"loss": -0.1}, first=2, **given)


def test_a_guard_goes_on_from_its_state() -> None:
    whole, first = make_guard(), make_guard()
    steps = steps_of(8, seed=1)
    expected = [whole.shape(step) for step in steps]
    for step in steps[:5]:
        first.shape(step)
    state = json.loads(json.dumps(first.state_dict()))
    resumed = make_guard()
    resumed.load_state_dict(state)
    for step, shaped in zip(steps[5:], expected[5:], strict=True):
        found = resumed.shape(step)
        assert found.reward.tolist() == shaped.reward.tolist()
        assert found.metrics == shaped.metrics
    # Anew it would not be the same.
    assert make_guard().shape(steps[5]).reward.tolist() != expected[5].reward.tolist()
    with pytest.raises(InputError, match="one has floors and the other none"):
        ParetoGuard(0.2).load_state_dict(state)
    with pytest.raises(InputError, match="it is of loss; expected gain"):
        ParetoGuard(0.2, floors={"gain": 0.0}).load_state_dict(state)


def test_evaluation_leaves_a_guard_as_it_was() -> None:
    guard = make_guard()
    steps = steps_of(6, seed=2)
    for step in steps[:4]:
        guard.shape(step)
    before = json.dumps(guard.state_dict())
    guard.shape(steps[4], learn=False)
    assert json.dumps(guard.state_dict()) == before
    guard.shape(steps[4])
    assert json.dumps(guard.state_dict()) != before


def test_multipliers_rise_while_a_floor_is_missed_and_fall_while_it_is_kept() -> None:
    floors = Lagrangian({"loss": 0.5}, rate=0.5, start=0.1)
    batch = batch_of([2.0, 4.0], [0.0, 0.2], weights=(0.75, 0.25), prompts="pp")
    shaped = floors.shape(batch)
    # The mean is 0.1, so 0.4 is missing: log 0.1 + 0.5 * 0.4.
    added = 0.1 * math.exp(0.2)
    assert floors.multipliers == pytest.approx({"loss": added})
    assert shaped.metrics == pytest.approx({"guard/multiplier/loss": added})
    by_hand = [(0.75 * 2 + (0.25 + added) * 0) / (1 + added), (0.75 * 4 + (0.25 + added) * 0.2) / (1 + added)]
    assert shaped.reward.tolist() == pytest.approx(by_hand)
    for _ in range(40):
        floors.shape(batch_of([0.0, 0.0], [9.0, 9.0], prompts="pp"))
    assert floors.multipliers["loss"] == pytest.approx(0.01)
    for _ in range(2000):
        floors.shape(batch_of([0.0, 0.0], [-9.0, -9.0], prompts="pp"))
    assert floors.multipliers["loss"] == pytest.approx(10.0)


def test_floors_of_heads_are_rewards() -> None:
    # A floor of 0.2 with temperature 1.5 and deviation 1.5: log(0.2 / 0.8) * 1.5 / 1.5.
    spec = make_spec(floors={"harmlessness": 0.2})
    assert floors_of(spec) == {"harmlessness": pytest.approx(math.log(0.25))}


def test_the_guard_keeps_every_mean_where_weights_let_one_fall() -> None:
    for seed in (0, 1):
        world = make_world(seed)
        reference = measured(world, seed + 100)
        plain = train(world, None, steps=80, rate=1.5, seed=seed)
        guarded = train(world, ParetoGuard(TOLERANCE, reference), steps=80, rate=1.5, seed=seed)
        strict = train(world, ParetoGuard(TOLERANCE, reference, responses="always"), steps=80, rate=1.5, seed=seed)
        assert plain[-1].min() < -2 * TOLERANCE
        # Exact means of every step, not estimates: a tenth of the tolerance for what samples get wrong.
        assert guarded.min() > -1.1 * TOLERANCE
        assert strict.min() > -1.1 * TOLERANCE
        # And it still learns what it is weighted for.
        assert guarded[-1] @ world.weights > 0.5 * (plain[-1] @ world.weights)
        assert strict[-1] @ world.weights > 0.2


def test_floors_hold_once_the_multipliers_have_settled() -> None:
    world = make_world(3)
    start = measured(world, 103).overall
    floors = dict(zip(world.objectives, start - TOLERANCE, strict=True))
    path = train(world, Lagrangian(floors), steps=250, rate=1.0, seed=3)
    assert path[-50:].mean(axis=0).min() > -TOLERANCE - 0.1
    assert path[-1] @ world.weights > 0.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ParetoGuard(-0.1), "tolerance: all is -0.1; expected a number of 0 or more"),
        (lambda: ParetoGuard(responses="breech"), "Did you mean 'breach'"),  # type: ignore[arg-type]
        (lambda: ParetoGuard(first=0), "first: 0; expected 1 or more"),
        (lambda: ParetoGuard(memory=0), "memory is 0"),
        (lambda: Lagrangian({}), "floors: none given"),
        (lambda: Lagrangian({"loss": math.nan}), "floors: loss is nan"),
        (lambda: Lagrangian({"loss": 0}, start=20), "least <= start <= most"),
        (lambda: Lagrangian({"loss": 0}, rate=0), "rate is 0"),
        (
            lambda: ParetoGuard({"los": 0.1}, 0.0).shape(batch_of(GAIN, LOSS)),
            "no head 'los'.*Did you mean 'loss'",
        ),
        (lambda: ParetoGuard(0.1, {"other": 0.0}).shape(batch_of(GAIN, LOSS)), "reference: there is no head 'other'"),
        (lambda: Lagrangian({"other": 0.0}).shape(batch_of(GAIN, LOSS)), "floors: there is no head 'other'"),
        (
            lambda: ParetoGuard(0.1, Reference(("a",), np.zeros(1))).shape(batch_of(GAIN, LOSS)),
            "reference: it is of a; the heads have gain, loss",
        ),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
