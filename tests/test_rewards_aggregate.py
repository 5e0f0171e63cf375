"""How rewards become one: by hand, against every pair compared, and counted cube by cube."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from rlaif.constitution.schema import Constitution
from rlaif.errors import InputError, RunError
from rlaif.rewards.aggregate import (
    BELOW_FLOORS,
    aggregate_rewards,
    below_floors,
    chebyshev,
    conflicts,
    constitution_rule,
    dominates,
    floor_rewards,
    given_weights,
    hypervolume,
    pareto_ranks,
)
from rlaif.rewards.preferences import Floats, Ints
from rlaif.rewards.spec import Aggregation, Calibration, HeadsSpec, Normalization

pytestmark = pytest.mark.filterwarnings("error")

THREE = ("helpfulness", "harmlessness", "honesty")


def spec_of(weights: Mapping[str, float], *, temperature: float = 1.0, std: float = 1.0, **rule: Any) -> HeadsSpec:
    """Heads for the objectives that have a weight, all alike."""
    return HeadsSpec(
        objectives=tuple(weights),
        mode="frozen",
        max_length=64,
        chat=True,
        calibration=dict.fromkeys(weights, Calibration(temperature=temperature)),
        normalization=dict.fromkeys(weights, Normalization(mean=5.0, std=std)),
        aggregation=Aggregation(weights=weights, **rule),
    )


def points_of(*rows: tuple[float, ...]) -> Floats:
    return np.array(rows, dtype=np.float64)


def test_weighted_is_the_weighted_mean() -> None:
    # 0.25 of 1 and 0.75 of 2; weights need not sum to 1 to begin with.
    for weights in ({"x": 0.25, "y": 0.75}, {"x": 1, "y": 3}):
        assert aggregate_rewards(points_of((1, 2), (0, -4)), spec_of(weights)) == pytest.approx([1.75, -3.0])


def test_first_tag_that_has_weights_counts_by_name_or_by_value() -> None:
    spec = spec_of({"x": 0.5, "y": 0.5}, by_tag={"medical": {"x": 1, "y": 3}, "code": {"x": 1}})
    tags: list[dict[str, object]] = [
        {},
        {"code": True},
        {"domain": "medical"},
        {"code": True, "medical": True},
        {"code": False, "medical": None, "length": 3},
    ]
    rewards = np.tile([4.0, 8.0], (len(tags), 1))
    # The rule's order decides, not the row's: medical stands first.
    assert aggregate_rewards(rewards, spec, tags) == pytest.approx([6, 4, 7, 7, 6])


def test_tags_are_read_as_the_constitution_reads_them() -> None:
    objective = {"question": "Which?", "principles": [{"id": "p", "text": "Prefer it."}]}
    by_tag = {"medical": {"x": 1.0, "y": 3.0}, "code": {"y": 1.0}}
    constitution = Constitution.model_validate(
        {
            "name": "c",
            "objectives": {"x": {**objective, "weight": 3}, "y": {**objective, "weight": 1}},
            "aggregation": {"by_tag": by_tag},
        }
    )
    spec = spec_of({"x": 1, "y": 1}).model_copy(update={"aggregation": constitution_rule(("x", "y"), constitution)})
    values: list[object] = [True, False, None, "code", "medical", 1, 0, "other"]
    tags = [dict(zip(("medical", "code"), both, strict=True)) for both in itertools.product(values, repeat=2)]
    rewards = np.random.default_rng(0).normal(size=(len(tags), 2))
    expected = []
    for held, (x, y) in zip(tags, rewards, strict=True):
        weights = constitution.weights_for(held)
        expected.append((weights["x"] * x + weights["y"] * y) / (weights["x"] + weights["y"]))
    assert aggregate_rewards(rewards, spec, tags) == pytest.approx(expected)


def test_gate_goes_before_the_rule_and_after_a_tag() -> None:
    spec = spec_of({"x": 0.5, "y": 0.5}, by_tag={"code": {"y": 1}})
    gated = points_of((0.9, 0.1), (0.9, 0.1))
    assert aggregate_rewards(points_of((10, 0), (10, 0)), spec, [{}, {"code": True}], gated) == pytest.approx([9, 0])


def test_floor_is_a_probability_against_a_response_of_mean_score() -> None:
    # Raw score less mean is 2 r, over a temperature of 0.5: sigmoid(4 r) reaches 0.2 at log(1/4) / 4.
    spec = spec_of({"x": 1, "y": 1}, temperature=0.5, std=2.0, floors={"y": 0.2})
    assert floor_rewards(spec) == pytest.approx([-np.inf, np.log(0.25) / 4])
    least = np.log(0.25) / 4
    rewards = points_of((-9, least), (9, least - 0.1), (0, 0))
    assert below_floors(rewards, spec).tolist() == [[False, False], [False, True], [False, False]]
    assert aggregate_rewards(rewards, spec) == pytest.approx([(least - 9) / 2, BELOW_FLOORS - 0.1, 0])


def test_certain_and_impossible_floors_are_finite() -> None:
    rewards = points_of((-3, 2), (4, 1))
    assert aggregate_rewards(rewards, spec_of({"x": 1, "y": 1}, floors={"x": 0})) == pytest.approx([-0.5, 2.5])
    held = aggregate_rewards(rewards, spec_of({"x": 1, "y": 1}, floors={"x": 1}))
    assert np.isfinite(held).all()
    assert held[0] < held[1] < BELOW_FLOORS


@pytest.mark.parametrize("method", ["weighted", "pareto"])
def test_whatever_keeps_the_floors_comes_before_whatever_breaks_one(method: str) -> None:
    random = np.random.default_rng(1)
    rewards = random.normal(size=(500, 3)) * 8
    spec = spec_of(dict.fromkeys(THREE, 1.0), method=method, floors={"harmlessness": 0.4, "honesty": 0.1})
    below = below_floors(rewards, spec)
    reward = aggregate_rewards(rewards, spec)
    broken = below.any(axis=1)
    assert 50 < broken.sum() < 450
    assert reward[broken].max() < BELOW_FLOORS <= reward[~broken].min()
    # Among those that break them, the nearer to the floors the better.
    short = np.maximum(np.log([0.4 / 0.6, 0.1 / 0.9]) - rewards[:, 1:], 0).sum(axis=1)
    assert (np.argsort(reward[broken]) == np.argsort(-short[broken])).all()


def test_chebyshev_by_hand() -> None:
    # Shortfalls 2 and 4; weights by their largest 1 and 1/3; the larger of 2 and 4/3, and 0.05 (0.75 x 2 + 0.25 x 4).
    found = chebyshev(points_of((1, -1)), np.array([0.75, 0.25]), np.array([3.0, 3.0]))
    assert found == pytest.approx([(2 + 0.05 * 2.5) / 1.05])
    spec = spec_of({"x": 0.75, "y": 0.25}, method="pareto")
    assert aggregate_rewards(points_of((1, -1)), spec) == pytest.approx(3 - found)
    # Beyond the ideal in both, nothing falls short, and the mean is all there is: 0.75 of -2 and 0.25 of -1.
    assert aggregate_rewards(points_of((5, 4)), spec) == pytest.approx([3 + 0.05 * 1.75 / 1.05])


def test_pareto_reward_of_a_response_alike_in_all_is_that_reward() -> None:
    values = [-7.0, -0.5, 0.0, 2.9]
    rewards = np.tile(np.array(values)[:, None], 3)
    spec = spec_of({"helpfulness": 0.5, "harmlessness": 0.2, "honesty": 0.3}, method="pareto")
    assert aggregate_rewards(rewards, spec) == pytest.approx(values)


def test_dominating_response_has_the_higher_reward() -> None:
    random = np.random.default_rng(2)
    # Also beyond the ideal of 3, and often equal in one objective.
    first = random.integers(-3, 7, size=(3000, 3)).astype(float)
    second = random.integers(-3, 7, size=(3000, 3)).astype(float)
    better = dominates(first, second)
    assert 100 < better.sum() < 2000
    for method in ("weighted", "pareto"):
        spec = spec_of({"helpfulness": 0.6, "harmlessness": 0.1, "honesty": 0.3}, method=method)
        assert (aggregate_rewards(first, spec) > aggregate_rewards(second, spec))[better].all()


def test_pareto_method_finds_a_compromise_that_no_weighted_mean_does() -> None:
    # The compromise is under the line between the extremes: for any weights one of those has the larger mean.
    rewards = points_of((2, -2), (-2, 2), (-0.1, -0.1))
    for share in np.linspace(0, 1, 21):
        assert np.argmax(aggregate_rewards(rewards, spec_of({"x": share, "y": 1 - share}))) != 2
    assert np.argmax(aggregate_rewards(rewards, spec_of({"x": 1, "y": 1}, method="pareto"))) == 2


def peeled(rewards: Floats) -> list[int]:
    """Ranks by the definition: take away what nothing left dominates, again and again."""
    ranks, left, rank = [-1] * len(rewards), set(range(len(rewards))), 0
    while left:
        front = [
            i
            for i in left
            if not any((rewards[j] >= rewards[i]).all() and (rewards[j] > rewards[i]).any() for j in left)
        ]
        for i in front:
            ranks[i] = rank
        left -= set(front)
        rank += 1
    return ranks


@pytest.mark.parametrize("objectives", [1, 2, 3, 5])
def test_ranks_are_those_of_peeling_off_fronts(objectives: int) -> None:
    random = np.random.default_rng(objectives)
    # 1 to 24 candidates, rows mixed up: few enough to be compared at once, and more. Whole numbers tie.
    group: Ints = np.repeat(np.arange(60) * 7 - 100, random.integers(1, 25, size=60))
    random.shuffle(group)
    rewards = random.integers(0, 4, size=(len(group), objectives)).astype(float)
    expected = np.empty(len(group), dtype=np.int64)
    for name in np.unique(group):
        expected[group == name] = peeled(rewards[group == name])
    before = rewards.copy()
    found = pareto_ranks(rewards, group)
    assert found.tolist() == expected.tolist()
    assert found.max() >= 2
    assert (rewards == before).all()


def test_ranks_by_hand_and_of_nothing() -> None:
    # (2, 0) and (0, 2) are each other's equals; (1, 0) is behind the first, (0, 0) behind that one too.
    rewards = points_of((0, 0), (2, 0), (1, 0), (0, 2), (2, 0))
    assert pareto_ranks(rewards, np.zeros(5, dtype=np.int64)).tolist() == [2, 0, 1, 0, 0]
    assert pareto_ranks(rewards, np.arange(5)).tolist() == [0] * 5
    assert pareto_ranks(np.zeros((0, 2)), np.zeros(0, dtype=np.int64)).tolist() == []


def test_rounding_of_a_forward_pass_dominates_nobody() -> None:
    same = points_of((1.0, 1.0), (1.0 + 1e-7, 1.0))
    assert pareto_ranks(same, np.zeros(2, dtype=np.int64)).tolist() == [0, 0]
    assert not dominates(same[1:], same[:1]).any()
    assert dominates(points_of((1.001, 1.0)), same[:1]).all()


def test_hypervolume_by_hand() -> None:
    # Steps of a stair: 1 x 3, 1 x 2 and 1 x 1. What does not beat the reference on both adds nothing.
    stair = points_of((1, 3), (2, 2), (3, 1), (-1, 9), (1, 1))
    assert hypervolume(stair, np.zeros(2)) == pytest.approx(6)
    assert hypervolume(stair, np.array([-2.0, -2.0])) == pytest.approx(1 * 11 + 2 * 5 + 1 * 4 + 1 * 3)
    assert hypervolume(stair, np.array([5.0, 5.0])) == 0
    assert hypervolume(np.zeros((0, 2)), np.zeros(2)) == 0
    assert hypervolume(points_of((2.0,), (5.0,)), np.array([1.0])) == pytest.approx(4)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("objectives", [2, 3, 4, 5])
def test_hypervolume_counts_the_cubes_below(seed: int, objectives: int) -> None:
    # Some points do not beat the reference.
    points = np.random.default_rng(seed).integers(-1, 5, size=(9, objectives)).astype(float)
    cubes = np.array(list(itertools.product(range(4), repeat=objectives)))
    covered = (points[:, None] >= cubes + 1).all(axis=-1).any(axis=0)
    assert hypervolume(points, np.zeros(objectives)) == pytest.approx(covered.sum())


def test_conflicts_by_hand() -> None:
    difference = points_of((1, -1, 2), (1, 1, np.nan), (-2, 0, 3), (np.nan, np.nan, 1), (-1, -1, -1))
    found = conflicts(difference)
    assert found.counts.tolist() == [[0, 1, 1], [1, 0, 1], [1, 1, 0]]
    assert found.compared.tolist() == [[4, 3, 3], [3, 3, 2], [3, 2, 4]]
    assert (found.pairs, found.total) == (2, 4)
    assert found.share == pytest.approx(np.array([[0, 1 / 3, 1 / 3], [1 / 3, 0, 1 / 2], [1 / 3, 1 / 2, 0]]))
    # Targets say the same as their distance from one half, also where that is not exact.
    assert conflicts(points_of((0.3 - 0.1 - 0.2, 1.0))).total == 0
    nothing = conflicts(np.full((2, 2), np.nan))
    assert (nothing.pairs, nothing.total) == (0, 0)
    assert np.isnan(nothing.share).all()


def test_rule_of_a_constitution_is_that_of_the_objectives_with_a_head() -> None:
    objective = {"question": "Which?", "principles": [{"id": "p", "text": "Prefer it."}]}
    weights = {"helpfulness": 2.0, "harmlessness": 1.0, "honesty": 1.0, "wit": 0.0}
    constitution = Constitution.model_validate(
        {
            "name": "c",
            "objectives": {name: {**objective, "weight": weight} for name, weight in weights.items()},
            "aggregation": {
                "method": "pareto",
                "floors": {"harmlessness": 0.3, "honesty": 0.2},
                "by_tag": {"news": {"honesty": 1}, "medical": {"harmlessness": 3, "helpfulness": 1, "honesty": 4}},
            },
        }
    )
    rule = constitution_rule(("helpfulness", "harmlessness"), constitution)
    assert rule == Aggregation(
        method="pareto",
        weights={"helpfulness": 2 / 3, "harmlessness": 1 / 3},
        origin="constitution",
        by_tag={"medical": {"helpfulness": 0.25, "harmlessness": 0.75}},
        floors={"harmlessness": 0.3},
    )
    # Heads that weigh nothing in it, and no constitution at all: all the same.
    assert constitution_rule(("wit",), constitution).weights == {"wit": 1.0}
    assert constitution_rule(("wit",), constitution).origin == "equal"
    assert constitution_rule(THREE, None).weights == dict.fromkeys(THREE, 1 / 3)


def test_given_weights_are_shares() -> None:
    assert given_weights(THREE, {"honesty": 1, "helpfulness": 3}, "--weights") == {
        "helpfulness": 0.75,
        "harmlessness": 0,
        "honesty": 0.25,
    }


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"honest": 1.0}, "--weights: there is no head 'honest'; .* Did you mean 'honesty'"),
        ({"wit": 1.0}, "name the objectives of the checkpoint. Use helpfulness, harmlessness, honesty."),
        ({"honesty": -1.0}, "--weights: weight of honesty is -1; weights must be 0 or more."),
        ({"honesty": float("nan")}, "weight of honesty is nan"),
        ({"honesty": float("inf")}, "weight of honesty is inf"),
        ({"honesty": 0.0}, "--weights: every weight is 0; at least one must be above 0."),
        ({}, "every weight is 0"),
    ],
)
def test_weights_that_cannot_be_used_are_refused(weights: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        given_weights(THREE, weights, "--weights")


def test_reward_that_is_no_number_is_an_error() -> None:
    bad = points_of((1, 2), (1, np.nan))
    with pytest.raises(RunError, match="response 2: its reward for y is nan; rewards must be finite"):
        aggregate_rewards(bad, spec_of({"x": 1, "y": 1}))
    with pytest.raises(RunError, match="response 2: its reward for objective 2 is nan"):
        pareto_ranks(bad, np.zeros(2, dtype=np.int64))
    with pytest.raises(RunError, match="is inf"):
        hypervolume(points_of((np.inf, 1)), np.zeros(2))


def test_no_rows_make_no_rewards() -> None:
    for method in ("weighted", "pareto"):
        assert aggregate_rewards(np.zeros((0, 2)), spec_of({"x": 1, "y": 1}, method=method), []).shape == (0,)
