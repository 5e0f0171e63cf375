"""Weights learned from overall preferences: against scipy's minimiser, and the intervals against the truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize

from rlaif.errors import InputError, RunError
from rlaif.rewards.calibrate import win_probability
from rlaif.rewards.preferences import Floats, Ints
from rlaif.rewards.weights import PRIOR, cross_entropy, fit_scaled, learn_weights

pytestmark = pytest.mark.filterwarnings("error")

TRUE = np.array([0.5, 0.3, 0.2])


def preferred(seed: int, pairs: int, scaled: Floats) -> tuple[Floats, Floats]:
    """Differences of rewards, the first two of them correlated, and what people prefer overall, 1 or 0."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(pairs, len(scaled)))
    x[:, 1] += 0.5 * x[:, 0]
    return x, (random.random(pairs) < win_probability(x @ scaled, 1.0)).astype(float)


def each(pairs: int) -> Ints:
    return np.arange(pairs)


def scipy_fit(x: Floats, y: Floats, w: Floats) -> Floats:
    """The same posterior by a method that knows nothing of Newton's."""

    def loss(u: Floats) -> float:
        odds = x @ u
        return float(w @ (np.logaddexp(0, odds) - y * odds) + (u**2).sum() / (2 * PRIOR**2))

    bounds = [(0, None)] * x.shape[1]
    settings = {"ftol": 1e-15, "gtol": 1e-9, "maxiter": 2000, "maxfun": 20_000}
    found = optimize.minimize(loss, np.full(x.shape[1], 0.5), bounds=bounds, method="L-BFGS-B", options=settings)
    result: Floats = found.x
    return result


@pytest.mark.parametrize("seed", range(10))
def test_fit_is_the_best_that_scipy_finds(seed: int) -> None:
    random = np.random.default_rng(50 + seed)
    objectives, pairs = int(random.integers(1, 6)), int(random.integers(15, 300))
    # Some objectives of weight 0, some that speak against what people prefer.
    x, y = preferred(seed, pairs, random.choice([-1.0, 0.0, 0.5, 2.0], max(objectives, 2)))
    y = np.where(random.random(pairs) < 0.2, random.random(pairs), y)
    w = random.choice([0.2, 1.0, 3.0], pairs)
    found = fit_scaled(x, y, w)
    assert found.min() >= 0
    assert found == pytest.approx(scipy_fit(x, y, w), abs=2e-4)


@pytest.mark.parametrize("seed", [749, 2117, 1, 2, 3])
def test_outliers_do_not_lead_the_fit_astray(seed: int) -> None:
    # On the first two Newton's whole steps go round in circles.
    random = np.random.default_rng(seed)
    pairs, objectives = int(random.integers(10, 30)), int(random.integers(1, 4))
    x = random.standard_t(0.8, size=(pairs, objectives)) * random.choice([0.1, 1, 10])
    y = (random.random(pairs) < random.choice([0.5, 0.7, 1.0])).astype(float)
    y = np.where(x[:, 0] > 0, y, 1 - y)
    u = fit_scaled(x, y, np.ones(pairs))
    # At the least there is no slope, or the weight is 0 and would be less.
    slope = (win_probability(x @ u, 1.0) - y) @ x + u / PRIOR**2
    assert (u >= 0).all()
    assert np.abs(slope[u > 0]) == pytest.approx(0, abs=1e-5)
    assert (slope[u == 0] >= 0).all()


def test_conversations_that_say_the_same_leave_nothing_open() -> None:
    # Every resample is the same data, whose scale only the prior holds.
    x = np.tile([[1.0, -0.2], [0.5, 1.0]], (20, 1))
    found = learn_weights(x, np.ones(40), np.ones(40), each(40) // 2, resamples=50)
    assert found.weights.min() > 0.1
    assert found.intervals == pytest.approx(np.column_stack([found.weights, found.weights]), abs=1e-9)


def test_targets_that_are_exact_give_the_exact_weights() -> None:
    x, _ = preferred(0, 3000, TRUE)
    found = learn_weights(x, win_probability(x @ TRUE, 0.5), np.full(3000, 1e4), each(3000), resamples=0)
    assert found.weights == pytest.approx(TRUE, abs=1e-6)
    assert found.scale == pytest.approx(2, rel=1e-6)
    assert found.loss == pytest.approx(cross_entropy(2 * x @ TRUE, win_probability(x @ TRUE, 0.5)).mean())
    assert np.isnan(found.intervals).all()
    assert found.reason == "no resamples were asked for"
    assert found.intervals_by_objective("xyz") == {}


def test_one_objective_has_all_the_weight() -> None:
    x, y = preferred(1, 100, np.array([1.0, 0.0]))
    found = learn_weights(x[:, :1], y, np.ones(100), each(100))
    assert found.by_objective(["only"]) == {"only": 1.0}
    assert found.intervals_by_objective(["only"]) == {"only": (1.0, 1.0)}


def test_objective_that_speaks_against_people_gets_nothing() -> None:
    x, y = preferred(2, 2000, np.array([2.0, 0.0, -1.0]))
    found = learn_weights(x, y, np.ones(2000), each(2000), resamples=200)
    assert found.weights[2] == 0
    assert found.intervals[2].tolist() == [0, 0]
    assert found.weights.sum() == pytest.approx(1)
    # Left out, it changes nothing.
    assert found.weights[:2] == pytest.approx(
        learn_weights(x[:, :2], y, np.ones(2000), each(2000), resamples=0).weights
    )


def coverage(copies: int, *, whole: bool) -> Floats:
    """Share of 200 data sets whose intervals hold the true weights, each pair there several times."""
    held = np.zeros(3)
    for seed in range(200):
        x, y = (np.repeat(part, copies, axis=0) for part in preferred(1000 + seed, 300, 1.5 * TRUE))
        group = each(300).repeat(copies) if whole else each(300 * copies)
        found = learn_weights(x, y, np.ones(len(x)), group, resamples=200, seed=seed)
        held += (found.intervals[:, 0] <= TRUE) & (found.intervals[:, 1] >= TRUE)
    return held / 200


def test_intervals_hold_the_true_weights_19_times_in_20() -> None:
    # Of 200 draws with probability 0.95, fewer than 180 have odds of 1 to 400 against them.
    held = coverage(1, whole=True)
    assert held.min() >= 0.9
    assert 0.92 <= held.mean() <= 0.985


def test_pairs_of_one_conversation_are_drawn_together() -> None:
    assert coverage(4, whole=True).min() >= 0.9
    # Were they drawn apart the intervals would be half as wide: two thirds hold the truth.
    assert coverage(4, whole=False).max() <= 0.8


def test_intervals_are_those_of_fitting_every_resample() -> None:
    x, y = preferred(3, 250, 1.5 * TRUE)
    group = each(250) // 2
    random = np.random.default_rng(3)
    shares = []
    for _ in range(400):
        times = np.bincount(random.integers(125, size=125), minlength=125)[group].astype(float)
        u = fit_scaled(x, y, times)
        shares.append(u / u.sum())
    expected = np.quantile(shares, [0.025, 0.975], axis=0).T
    found = learn_weights(x, y, np.ones(250), group, resamples=4000)
    assert found.reason is None
    assert found.intervals == pytest.approx(expected, abs=0.04)
    assert ((found.intervals[:, 0] < found.weights) & (found.weights < found.intervals[:, 1])).all()


def test_same_preferences_give_the_same_weights_and_exchanging_a_and_b_changes_nothing() -> None:
    x, y = preferred(4, 200, TRUE)
    w, group = np.ones(200), each(200) // 3
    found = learn_weights(x, y, w, group, seed=5)
    again = learn_weights(x, y, w, group, seed=5)
    assert (again.intervals == found.intervals).all()
    side = np.random.default_rng(0).choice([-1.0, 1.0], 200)
    other = learn_weights(x * side[:, None], np.where(side > 0, y, 1 - y), w, group, seed=5)
    assert other.weights == pytest.approx(found.weights, abs=1e-8)
    assert other.intervals == pytest.approx(found.intervals, abs=1e-6)


def test_preferences_without_an_exception_leave_the_scale_finite() -> None:
    x, _ = preferred(5, 40, TRUE)
    found = learn_weights(x, (x @ TRUE > 0).astype(float), np.ones(40), each(40))
    assert 3 < found.scale < 40
    assert found.weights == pytest.approx(TRUE, abs=0.2)
    assert np.isfinite(found.intervals).all()


def test_pairs_without_a_preference_do_not_count() -> None:
    x, y = preferred(6, 100, TRUE)
    known = each(100) % 4 > 0
    target, weight = np.where(known, y, np.nan), known.astype(float)
    bad = np.where(known[:, None], x, np.nan)
    found = learn_weights(bad, target, weight, each(100), resamples=50)
    expected = learn_weights(x[known], y[known], np.ones(75), each(100)[known], resamples=50)
    assert found.pairs == 75
    assert (found.weights == expected.weights).all()
    assert (found.intervals == expected.intervals).all()


def test_one_conversation_has_weights_but_no_intervals() -> None:
    x, y = preferred(7, 60, TRUE)
    found = learn_weights(x, y, np.ones(60), np.zeros(60, dtype=np.int64))
    assert found.weights.sum() == pytest.approx(1)
    assert np.isnan(found.intervals).all()
    assert found.reason == "one conversation cannot be resampled; at least two are needed"


def test_what_cannot_be_learned_from_is_refused() -> None:
    x, y = preferred(8, 500, 3 * TRUE)
    with pytest.raises(InputError, match="9 of the pairs have one; at least 10 are needed"):
        learn_weights(x[:9], y[:9], np.ones(9), each(9))
    with pytest.raises(InputError, match="every objective's rewards speak against them"):
        learn_weights(-x, y, np.ones(500), each(500))
    with pytest.raises(InputError, match="or do not differ"):
        learn_weights(0 * x, y, np.ones(500), each(500))
    x[3, 1] = np.inf
    with pytest.raises(RunError, match="a reward is not finite"):
        learn_weights(x, y, np.ones(500), each(500))
