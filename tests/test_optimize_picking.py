"""Rules of picking: numbers worked out by hand, and the Pareto front drawn the long way."""

from __future__ import annotations

from itertools import combinations
from math import log
from typing import Any

import numpy as np
import pytest

from rlaif.errors import InputError
from rlaif.optimize.candidates import Pool
from rlaif.optimize.picking import RULES, best_of_n_kl, best_rows, check_rule, rule_scores, rules_for
from rlaif.rewards.aggregate import IDEAL, aggregate_rewards, below_floors, chebyshev, pareto_ranks
from rlaif.rewards.preferences import Floats
from rlaif.rewards.spec import Aggregation, HeadsSpec
from rlaif.types import Message
from tests.reward_examples import spec_of

NAMES = ("kind", "brief")


def spec(weights: tuple[float, ...] = (0.75, 0.25), members: int = 1, **rule: Any) -> HeadsSpec:
    """Two objectives, or more."""
    names = (*NAMES, "true")[: len(weights)]
    return spec_of(
        names, members=members, aggregation=Aggregation(weights=dict(zip(names, weights, strict=True)), **rule)
    )


def pool(rule: HeadsSpec, *prompts: list[list[float]], members: Floats | None = None) -> Pool:
    """Candidates with these rewards, a list a prompt; each is named by its place."""
    rewards = np.array([row for rows in prompts for row in rows], dtype=np.float64)
    prompt_of = np.repeat(np.arange(len(prompts)), [len(rows) for rows in prompts])
    return Pool(
        ids=[f"p{place}" for place in range(len(prompts))],
        prompts=[(Message(role="user", content=f"Ask {place}"),) for place in range(len(prompts))],
        tags=[{} for _ in prompts],
        responses=[tuple(f"{place}" for place in range(len(rows))) for rows in prompts],
        objectives=rule.objectives,
        rewards=rewards,
        members=members,
        reward=aggregate_rewards(rewards, rule),
        prompt_of=prompt_of,
        below=below_floors(rewards, rule),
    )


# One prompt, three candidates: balanced, the best in the first objective alone, the best in the second alone.
THREE = [[1.0, 1.0], [2.0, -1.0], [0.0, 3.0]]


def picked(rule: str, given: HeadsSpec, candidates: Pool, k: float = 1.0) -> list[int]:
    """The row of each prompt's pick."""
    return [int(row) for row in best_rows(candidates, rule_scores(candidates, given, rule, k))]


def test_each_rule_by_hand_without_an_ensemble() -> None:
    given = spec()
    candidates = pool(given, THREE)
    # 0.75 * 1 + 0.25 * 1; 0.75 * 2 - 0.25; 0.25 * 3.
    assert rule_scores(candidates, given, "weighted") == pytest.approx([1.0, 1.25, 0.75])
    # Short of 3 by (2, 2), (1, 4), (3, 0); the second weighs a third of the first; 0.05 of the weighted mean beside it.
    expected = [3 - (2 + 0.05 * 2) / 1.05, 3 - (4 / 3 + 0.05 * 1.75) / 1.05, 3 - (3 + 0.05 * 2.25) / 1.05]
    assert rule_scores(candidates, given, "pareto") == pytest.approx(expected)
    assert rule_scores(candidates, given, "brief").tolist() == [1, -1, 3]
    assert rule_scores(candidates, given, "objective:kind").tolist() == [1, 2, 0]
    assert [picked(rule, given, candidates) for rule in ("weighted", "pareto", "brief", "kind")] == [[1], [1], [2], [1]]


def test_ensemble_rules_by_hand() -> None:
    given = spec((0.5, 0.5), members=2)
    # Members' weighted means: 1 and 1; 3 and -1 (mean 1, deviation 8^0.5); 1.5 and 0.9 (mean 1.2, deviation 0.18^0.5).
    members = np.array([[[1, 1], [1, 1]], [[4, 2], [-2, 0]], [[1, 2], [0.9, 0.9]]], dtype=np.float64)
    candidates = pool(given, members.mean(axis=1).tolist(), members=members)
    assert rule_scores(candidates, given, "weighted") == pytest.approx([1, 1, 1.2])
    assert rule_scores(candidates, given, "worst-member") == pytest.approx([1, -1, 0.9])
    assert rule_scores(candidates, given, "lower-bound", 1.0) == pytest.approx([1, 1 - 8**0.5, 1.2 - 0.18**0.5])
    assert rule_scores(candidates, given, "lower-bound", 0.0) == pytest.approx([1, 1, 1.2])
    assert picked("lower-bound", given, candidates, 0.1) == [2]
    assert picked("lower-bound", given, candidates, 1.0) == [0]
    assert picked("worst-member", given, candidates) == [0]


@pytest.mark.parametrize("method", ["weighted", "pareto"])
@pytest.mark.parametrize("floors", [{}, {"brief": 0.4}])
def test_the_rule_that_the_heads_have_is_their_reward(method: Any, floors: dict[str, float]) -> None:
    given = spec((0.5, 0.3, 0.2), method=method, floors=floors)
    points = np.random.default_rng(3).normal(size=(200, 3))
    candidates = pool(given, points.tolist())
    # The Pareto rule rounds to five digits.
    assert rule_scores(candidates, given, method) == pytest.approx(candidates.reward, abs=1e-4)


@pytest.mark.parametrize("floors", [{}, {"kind": 0.5, "true": 0.3}, {"brief": 0.999}])
def test_the_pareto_pick_is_the_best_of_the_front_with_floors_first(floors: dict[str, float]) -> None:
    weights = (0.5, 0.3, 0.2)
    given = spec(weights, floors=floors)
    points = np.random.default_rng(5).normal(size=(300, 6, 3)).round(1)
    candidates = pool(given, *points.tolist())
    picks = picked("pareto", given, candidates)
    for place, (rows, pick) in enumerate(zip(points, picks, strict=True)):
        allowed = np.flatnonzero(~below_floors(rows, given).any(axis=1))
        if not len(allowed):
            continue
        front = allowed[pareto_ranks(rows[allowed], np.zeros(len(allowed), dtype=np.int64)) == 0]
        near = IDEAL - chebyshev(rows[front], np.array(weights), np.full(3, IDEAL))
        assert pick - 6 * place in front
        assert near[front.tolist().index(pick - 6 * place)] == pytest.approx(near.max(), abs=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_a_score_does_not_depend_on_the_other_candidates(rule: str) -> None:
    given = spec((0.5, 0.5), members=4, floors={"brief": 0.4})
    members = np.random.default_rng(7).normal(size=(6, 4, 2))
    rewards = members.mean(axis=1)
    whole = rule_scores(pool(given, rewards.tolist(), members=members), given, rule)
    for rows in map(list, combinations(range(6), 3)):
        part = pool(given, rewards[rows].tolist(), members=members[rows])
        assert rule_scores(part, given, rule) == pytest.approx(whole[rows])


def test_floors_go_before_every_rule_but_a_single_objective() -> None:
    # With temperature 1 and deviation 1 the floor 0.5 of brief is a reward of 0.
    given = spec((0.9, 0.1), members=2, floors={"brief": 0.5})
    rewards = np.array([[9.0, -0.1], [-9.0, 0.1], [8.0, -0.3]])
    members = np.stack([rewards, rewards], axis=1)
    candidates = pool(given, rewards.tolist(), members=members)
    assert candidates.below.tolist() == [[False, True], [False, False], [False, True]]
    for rule in RULES:
        assert picked(rule, given, candidates) == [1]
        scores = rule_scores(candidates, given, rule)
        assert scores[[0, 2]] == pytest.approx([-10.1, -10.3]), "the further short, the lower"
    assert picked("kind", given, candidates) == [0]
    # Where all are under the floor, the nearest to it.
    alone = pool(given, rewards[[2, 0]].tolist(), members=members[[2, 0]])
    assert picked("weighted", given, alone) == [1]


def test_of_equally_good_candidates_the_first_is_taken_in_every_prompt() -> None:
    given = spec((0.5, 0.5))
    candidates = pool(given, [[0, 0], [2, 0], [0, 2], [1, 1]], [[5, 5]], [[1, 1], [1, 1]])
    assert picked("weighted", given, candidates) == [1, 4, 5]
    # What comes after the sixth digit is rounding of a forward pass.
    assert best_rows(candidates, np.array([0, 1, 1 + 4e-7, 0, 5, 1, 1 + 4e-6])).tolist() == [1, 4, 6]


def test_unknown_rules_and_ensemble_rules_without_an_ensemble_are_one_error() -> None:
    alone, ensemble = spec(), spec(members=3)
    assert rules_for(alone) == ("weighted", "pareto")
    assert rules_for(ensemble) == RULES
    assert check_rule(alone, "kind") == check_rule(alone, "objective:kind") == "objective:kind"
    for rule in ("lower-bound", "worst-member"):
        assert check_rule(ensemble, rule) == rule
        with pytest.raises(InputError, match=f"^--pick {rule}: the heads have no ensemble; .*--ensemble 5"):
            check_rule(alone, rule)
    with pytest.raises(InputError, match=r"--pick kid: no such rule or objective; .*Did you mean 'kind'\?"):
        check_rule(alone, "kid")
    with pytest.raises(InputError, match="scored without an ensemble"):
        rule_scores(pool(ensemble, THREE), ensemble, "worst-member")


def test_kl_of_the_best_of_n() -> None:
    # log 2 - 1/2, log 16 - 15/16.
    assert best_of_n_kl([1, 2, 16]) == pytest.approx([0, log(2) - 0.5, 4 * log(2) - 0.9375])
