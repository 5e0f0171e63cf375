"""Heads on features that stay: against other solvers, by hand, and on data with a hole in it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from rlaif.errors import InputError
from rlaif.rewards.frozen import STRENGTHS, Solved, solve_heads
from rlaif.rewards.logistic import Singles
from rlaif.rewards.preferences import Floats, Ints


def correlated(rows: int, width: int, seed: int = 0) -> Singles:
    """Features such as a network gives: of unlike sizes, and each going along with others."""
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((rows, width)) * np.arange(1, width + 1) ** -0.7
    made: Singles = (mixed @ rng.standard_normal((width, width)) * rng.uniform(0.1, 5, width)).astype(np.float32)
    return made


def outcomes(features: Singles, objectives: int, seed: int = 1, strength: float = 1.0) -> Floats:
    """Choices drawn from a Bradley-Terry model, 1 or 0, (rows, objectives)."""
    rng = np.random.default_rng(seed)
    score = features @ rng.standard_normal((features.shape[1], objectives))
    drawn: Floats = (rng.random(score.shape) < expit(strength * score / score.std(axis=0))).astype(np.float64)
    return drawn


def solved(
    features: Any, target: Floats, weight: Floats | None = None, *, group: Ints | None = None, **options: Any
) -> Solved:
    """Solve with what most tests have in common: every label counts once, every pair is a conversation."""
    weight = np.isfinite(target).astype(np.float64) if weight is None else weight
    group = np.arange(len(target)) if group is None else group
    return solve_heads(features, target, weight, group=group, **{"members": 1, "seed": 0, "l2": [0.01], **options})


def by_sklearn(features: Singles, target: Floats, weight: Floats, l2: float) -> Floats:
    """Weights of one objective by scikit-learn: a soft target is a 1 and a 0, each with its share."""
    unit = np.sqrt(np.mean(features.astype(np.float64) ** 2, axis=0))
    twice = np.concatenate([features, features]) / unit
    share = np.concatenate([weight * target, weight * (1 - target)])
    labels = np.repeat([1, 0], len(features))
    model = LogisticRegression(
        solver="newton-cholesky", C=1 / (l2 * weight.sum()), fit_intercept=False, tol=1e-10, max_iter=10_000
    )
    found: Floats = model.fit(twice, labels, sample_weight=share).coef_[0] / unit
    return found


@pytest.mark.parametrize(("rows", "width", "l2"), [(3000, 40, 1e-4), (3000, 40, 0.3), (60, 90, 0.01), (120, 1600, 0.1)])
def test_heads_are_those_of_another_solver(rows: int, width: int, l2: float) -> None:
    features = correlated(rows, width)
    rng = np.random.default_rng(2)
    target = np.where(rng.random((rows, 3)) < 0.5, outcomes(features, 3), rng.random((rows, 3)))
    weight = rng.uniform(0.2, 2, target.shape)
    found = solved(features, target, weight, l2=[l2])
    assert found.gap <= 1e-7
    for objective in range(3):
        expected = by_sklearn(features, target[:, objective], weight[:, objective], l2)
        np.testing.assert_allclose(found.weights[objective, 0], expected, atol=1e-4 * np.abs(expected).max())
        score = features @ expected
        loss = np.average(np.logaddexp(0, score) - target[:, objective] * score, weights=weight[:, objective])
        assert found.loss[objective, 0] == pytest.approx(loss, abs=1e-6)


def test_one_pair_by_hand() -> None:
    # The feature 2 is 1 in its own unit. There the minimum of log(1 + exp(-v)) + l2 v²/2 is where sigmoid(-v) = l2 v,
    # with l2 = sigmoid(-1) at v = 1: a weight of 1/2 on the feature as it came.
    found = solved(np.array([[2.0, 0.0]], np.float32), np.array([[1.0]]), l2=[float(expit(-1.0))])
    np.testing.assert_allclose(found.weights, [[[0.5, 0.0]]], atol=1e-6)
    assert found.loss == pytest.approx(np.log1p(np.exp(-1)), abs=1e-6)


def test_ties_alone_say_nothing() -> None:
    assert np.abs(solved(correlated(50, 4), np.full((50, 1), 0.5)).weights).max() < 1e-7


def test_a_and_b_may_change_places() -> None:
    features = correlated(400, 12)
    target = outcomes(features, 2)
    turned = np.random.default_rng(5).random(400) < 0.5
    other = solved(np.where(turned[:, None], -features, features), np.where(turned[:, None], 1 - target, target))
    np.testing.assert_allclose(other.weights, solved(features, target).weights, atol=1e-6)


def test_chosen_always_first_is_no_trouble() -> None:
    features = correlated(300, 5)
    target = outcomes(features, 1)
    found = solved(np.where(target == 1, features, -features), np.ones((300, 1)), l2=STRENGTHS)
    assert ((features @ found.mean[0] > 0) == target[:, 0]).mean() > 0.6
    np.testing.assert_allclose(found.weights, solved(features, target, l2=[found.l2[0]]).weights, atol=1e-6)


def test_a_missing_label_counts_for_nothing() -> None:
    features = correlated(500, 8)
    target = outcomes(features, 2)
    target[:200, 0] = np.nan
    weight = np.ones((500, 2))
    weight[400:, 1] = 0
    together = solved(features, target, weight)
    for objective, labelled in enumerate((np.arange(500) >= 200, np.arange(500) < 400)):
        shown = np.where(labelled, target[:, objective], 0.5)
        expected = by_sklearn(features, shown, labelled.astype(np.float64), 0.01)
        np.testing.assert_allclose(together.weights[objective, 0], expected, atol=1e-4 * np.abs(expected).max())


def with_length(features: Singles, length: Floats, target: Floats, l2: float) -> Floats:
    """Weights and slope by scipy, the slope without a penalty."""
    unit = np.sqrt(np.mean(features.astype(np.float64) ** 2, axis=0))
    table = np.column_stack([features / unit, length])

    def loss(beta: Floats) -> tuple[float, Floats]:
        score = table @ beta
        pull = np.append(l2 * beta[:-1], 0.0)
        value = np.mean(np.logaddexp(0, score) - target * score) + pull @ beta / 2
        return float(value), table.T @ (expit(score) - target) / len(target) + pull

    start = np.zeros(table.shape[1])
    found: Floats = minimize(loss, start, jac=True, method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-9}).x
    return np.append(found[:-1] / unit, found[-1])


def test_length_has_a_slope_of_its_own() -> None:
    features, rng = correlated(2000, 6), np.random.default_rng(3)
    length = 0.7 * rng.standard_normal(2000) + 0.1 * features[:, 0]
    target = (rng.random(2000) < expit(2 * length + 0.3 * features[:, 1])).astype(np.float64)
    found = solved(features, target[:, None], length=length, l2=[0.05])
    expected = with_length(features, length, target, 0.05)
    np.testing.assert_allclose(found.weights[0, 0], expected[:-1], atol=1e-4)
    assert found.length[0] == pytest.approx(expected[-1], abs=1e-3)
    # Without the covariate, length speaks through the feature that goes along with it.
    assert solved(features, target[:, None], l2=[0.05]).weights[0, 0, 0] > found.weights[0, 0, 0] + 0.05


def test_lengths_that_part_the_outcomes_stay_finite() -> None:
    length = np.array([1.0, 2.0, -1.0])
    found = solved(correlated(3, 2), np.array([[1.0], [1.0], [0.0]]), length=length)
    assert 3 < found.length[0] < 30
    same = solved(correlated(3, 2), np.array([[1.0], [1.0], [0.0]]), length=np.zeros(3))
    assert same.length[0] == 0
    np.testing.assert_allclose(same.weights, solved(correlated(3, 2), np.array([[1.0], [1.0], [0.0]])).weights)


def test_members_spread_as_the_weights_are_uncertain() -> None:
    # Each conversation twice: the cluster-robust standard errors, which are about the root of 2 above the naive ones.
    once = correlated(1500, 3)
    target = np.repeat(outcomes(once, 1), 2, axis=0)
    features, group = np.repeat(once, 2, axis=0), np.repeat(np.arange(1500), 2)
    found = solved(features, target, group=group, members=200, l2=[1e-6])
    beta = found.mean[0].astype(np.float64)
    p = expit(once @ beta)
    bread = np.linalg.inv((once * (p * (1 - p))[:, None]).T @ once)
    scores = once * (target[::2, 0] - p)[:, None]
    errors = np.sqrt(np.diag(bread @ (scores.T @ scores) @ bread))
    np.testing.assert_allclose(found.weights[0].std(axis=0), errors, rtol=0.2)
    np.testing.assert_allclose(beta, solved(features, target, l2=[1e-6]).mean[0], atol=0.3 * errors.max())


def test_members_are_the_same_among_more_and_in_every_run() -> None:
    features = correlated(300, 5)
    target = outcomes(features, 2)
    five, three = (solved(features, target, members=members) for members in (5, 3))
    np.testing.assert_allclose(five.weights[:, :3], three.weights, atol=1e-6)
    assert (five.weights == solved(features, target, members=5).weights).all()
    assert np.ptp(five.weights, axis=1).min() > 1e-4
    assert np.abs(solved(features, target, members=5, seed=1).weights - five.weights).max() > 1e-3


def test_members_of_a_rare_objective_all_learn() -> None:
    features = correlated(400, 4)
    target = outcomes(features, 2)
    target[2:, 1] = np.nan
    found = solved(features, target, members=8)
    assert np.abs(found.weights[1]).max(axis=1).min() > 0.01


def test_strength_follows_what_there_is_to_learn() -> None:
    features = correlated(600, 30)
    noise = np.random.default_rng(9).integers(0, 2, (600, 1)).astype(np.float64)
    found = solved(features, np.hstack([outcomes(features, 1, strength=8), noise]), l2=None)
    assert found.strengths == STRENGTHS
    assert found.l2[0] <= 1e-2
    assert found.l2[1] >= 10
    np.testing.assert_allclose(found.l2, [STRENGTHS[best] for best in found.heldout_loss.argmin(axis=1)])
    assert found.heldout_loss[0].min() < 0.3
    assert found.heldout_loss[1].min() == pytest.approx(np.log(2), abs=0.01)
    again = solved(features, noise, l2=[found.l2[1]])
    np.testing.assert_allclose(found.weights[1], again.weights[0], atol=1e-6)


def test_heldout_loss_is_the_loss_on_pairs_not_seen() -> None:
    features = correlated(22_000, 6)
    target = outcomes(features, 1)
    found = solved(features[:2000], target[:2000], l2=[1e-4, 1.0])
    for number, l2 in enumerate(found.strengths):
        score = features[2000:] @ solved(features[:2000], target[:2000], l2=[l2]).mean[0]
        fresh = np.mean(np.logaddexp(0, score) - target[2000:, 0] * score)
        assert found.heldout_loss[0, number] == pytest.approx(fresh, abs=0.02)


def test_copies_of_a_pair_are_held_out_together() -> None:
    # Outcomes are noise: a copy left in training would tell them, and a weak penalty would look best.
    once = correlated(60, 50)
    target = np.repeat(np.random.default_rng(4).integers(0, 2, (60, 1)).astype(np.float64), 6, axis=0)
    features, group = np.repeat(once, 6, axis=0), np.repeat(np.arange(60), 6)
    assert solved(features, target, group=group, l2=None).l2[0] >= 1
    assert solved(features, target, l2=None).l2[0] <= 1e-2


def test_a_single_conversation_leaves_nothing_to_compare() -> None:
    found = solved(correlated(4, 3), np.ones((4, 1)), group=np.zeros(4, np.int64), l2=None, members=3)
    assert np.isnan(found.heldout_loss).all()
    assert found.l2[0] == STRENGTHS[len(STRENGTHS) // 2]
    assert np.isfinite(found.weights).all()


class OnDemand:
    """Rows that are computed as they are asked for, and remember what was asked."""

    def __init__(self, values: Singles) -> None:
        self.values = values
        self.most = 0

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def __getitem__(self, rows: slice | Ints, /) -> Singles:
        found = self.values[rows] + np.float32(0)
        self.most = max(self.most, len(found))
        return found


def test_features_need_not_be_in_memory(tmp_path: Path) -> None:
    features = correlated(70_000, 4)
    target = outcomes(features, 1)
    lazy = OnDemand(features)
    expected = solved(features, target, l2=None)
    np.testing.assert_allclose(solved(lazy, target, l2=None).weights, expected.weights, atol=1e-6)
    assert lazy.most < len(features)
    np.save(tmp_path / "features.npy", features)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
        np.testing.assert_allclose(solved(mapped, target, l2=None).weights, expected.weights, atol=1e-6)


def test_doubles_are_taken_too() -> None:
    features = correlated(100, 4)
    target = outcomes(features, 1)
    np.testing.assert_allclose(
        solved(features.astype(np.float64), target).weights, solved(features, target).weights, atol=1e-7
    )


def test_a_feature_that_never_differs_gets_no_weight() -> None:
    features = correlated(100, 3)
    features[:, 1] = 0
    target = outcomes(features, 1)
    found = solved(features, target)
    assert found.weights[0, 0, 1] == 0
    np.testing.assert_allclose(found.weights[..., [0, 2]], solved(features[:, [0, 2]], target).weights, atol=1e-6)
    assert (solved(np.zeros((5, 3), np.float32), np.ones((5, 1))).weights == 0).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_finds_the_same() -> None:
    features = correlated(5000, 20)
    target = outcomes(features, 3)
    on_gpu = solved(features, target, members=3, device=torch.device("cuda"))
    np.testing.assert_allclose(on_gpu.weights, solved(features, target, members=3).weights, atol=1e-5)


def test_what_cannot_be_solved_is_said() -> None:
    features = correlated(4, 2)
    target = np.array([[1.0, np.nan]] * 4)
    with pytest.raises(InputError, match=r"objective 'honesty': no labels among 4 pairs; .* leave the objective out"):
        solved(features, target, objectives=["helpfulness", "honesty"])
    with pytest.raises(InputError, match="expected strengths above 0"):
        solved(features, target[:, :1], l2=[0.0])
    features[2, 1] = np.inf
    with pytest.raises(InputError, match="features are not all finite numbers"):
        solved(features, target[:, :1])
