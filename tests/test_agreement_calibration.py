"""Calibration: by hand, against scikit-learn and scipy, and where nothing can be fitted."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from rlaif.agreement.calibration import apply_temperature, calibrate, fit_temperature
from rlaif.agreement.metrics import Floats
from rlaif.agreement.results import Calibration
from rlaif.stats import wilson

pytestmark = pytest.mark.filterwarnings("error")


def too_sure(seed: int, n: int, temperature: float = 2.0, ties: float = 0.0) -> tuple[Floats, Floats]:
    """A judge's probabilities whose log-odds are that many times too large, and what people say."""
    random = np.random.default_rng(seed)
    odds = random.normal(size=n)
    human = (random.random(n) < 1 / (1 + np.exp(-odds))).astype(float)
    human = np.where(random.random(n) < ties, 0.5, human)
    return 1 / (1 + np.exp(-odds * temperature)), human


def test_by_hand() -> None:
    """A judge who says 0.9 each time and is right seven times of ten."""
    found = calibrate(np.full(10, 0.9), np.array([1.0] * 7 + [0.0] * 3))
    assert found.n == 10
    assert found.ece == pytest.approx(0.2)
    assert found.brier == pytest.approx((7 * 0.1**2 + 3 * 0.9**2) / 10)
    # 0.9 has odds of 9, and 0.7 of 7/3.
    assert found.temperature == pytest.approx(math.log(9) / math.log(7 / 3))
    (only,) = found.bins
    assert (only.n, only.human) == (10, 0.7)
    assert only.p_a == pytest.approx(0.9)
    assert only.ci == wilson(7, 10)


def test_temperature_of_exact_odds_is_applied_exactly() -> None:
    # Odds of 9 become their square root, 3, and those of 1/9 become 1/3.
    assert apply_temperature([0.9, 0.1, 0.5], 2) == pytest.approx([0.75, 0.25, 0.5])
    assert apply_temperature([0.3], 1) == pytest.approx([0.3])
    assert apply_temperature([1.0, 0.0], 1) == pytest.approx([1 - 1e-6, 1e-6])


@pytest.mark.parametrize("seed", range(20))
def test_scikit_learn_finds_the_same_error_and_picture(seed: int) -> None:
    p, human = too_sure(seed, 400)
    found = calibrate(p, human)
    assert found.brier == pytest.approx(brier_score_loss(human, p))
    shares, means = calibration_curve(human, p, n_bins=10, strategy="quantile")
    assert [each.n for each in found.bins] == [40] * 10
    assert [each.p_a for each in found.bins] == pytest.approx(means)
    assert [each.human for each in found.bins] == pytest.approx(shares)
    assert found.ece == pytest.approx(np.abs(shares - means).mean())


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("ties", [0, 0.2])
def test_temperature_is_the_best_that_scipy_finds(seed: int, ties: float) -> None:
    p, human = too_sure(seed, 60, ties=ties)
    # A tie is half of each answer.
    wins, losses = human, 1 - human

    def loss(log_temperature: float) -> float:
        q = apply_temperature(p, math.exp(log_temperature))
        labels = np.repeat([1, 0], len(q))
        return float(log_loss(labels, np.concatenate([q, q]), sample_weight=np.concatenate([wins, losses])))

    best = optimize.minimize_scalar(loss, bounds=(-4, 6), method="bounded", options={"xatol": 1e-9})
    temperature = fit_temperature(p, human).value
    assert temperature is not None
    assert loss(math.log(temperature)) <= best.fun + 1e-12
    if best.x < 5.9:
        assert temperature == pytest.approx(math.exp(best.x), rel=1e-4)


def test_putting_right_helps_on_pairs_not_fitted_on() -> None:
    p, human = too_sure(1, 4000, temperature=3)
    found = calibrate(p, human)
    assert found.temperature == pytest.approx(3, rel=0.1)
    assert found.ece is not None
    assert found.ece_after is not None
    assert found.brier is not None
    assert found.brier_after is not None
    assert found.ece > 0.1
    assert found.ece_after < 0.03
    # Of a judge put right the squared error is that of the true probabilities.
    odds = np.log(p / (1 - p)) / 3
    assert found.brier_after == pytest.approx(brier_score_loss(human, 1 / (1 + np.exp(-odds))), abs=1e-3)
    assert calibrate(p, human) == found


def test_equal_probabilities_stay_in_one_bin() -> None:
    # Of twenty pairs two bins; the run of twelve 0.8 has its middle (14th) in the upper one.
    p = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75] + [0.8] * 12)
    found = calibrate(p, np.array([0.0] * 8 + [1.0] * 12))
    assert [each.n for each in found.bins] == [8, 12]
    assert [each.p_a for each in found.bins] == pytest.approx([0.44375, 0.8])


def test_few_pairs_make_few_bins() -> None:
    for n, bins in ((1, 1), (19, 1), (20, 2), (57, 5), (1000, 10)):
        p = (np.arange(n) + 0.5) / n
        sizes = [each.n for each in calibrate(p, (np.arange(n) % 2).astype(float)).bins]
        assert len(sizes) == bins
        assert sum(sizes) == n
        assert max(sizes) - min(sizes) <= 1 or bins == 5


def test_exchanging_a_and_b_changes_nothing() -> None:
    for seed in range(200):
        random = np.random.default_rng(seed)
        n = int(random.integers(1, 80))
        # Eighths: 1 - p is exact.
        p, human = random.integers(0, 9, n) / 8, random.choice([0.0, 0.5, 1.0], n)
        one, other = calibrate(p, human), calibrate(1 - p, 1 - human)
        assert [each.n for each in one.bins] == [each.n for each in other.bins][::-1]
        for name in ("ece", "brier", "temperature", "ece_after", "brier_after"):
            here, there = getattr(one, name), getattr(other, name)
            assert (here is None) == (there is None)
            assert here is None or there == pytest.approx(here, rel=1e-8, abs=1e-9), (seed, name)
        assert other.reason == one.reason


NOTHING = "no pair has a probability of the judge and a preference of people"
SURE = "the judge is on people's side on every pair, so that no certainty is too much"
COIN = "the judge's certainty is no better than a coin at telling people's preference"


@pytest.mark.parametrize(
    ("p", "human", "n", "ece", "reason"),
    [
        ((), (), 0, None, NOTHING),
        ((np.nan, 0.5), (1, np.nan), 0, None, NOTHING),
        ((0.8,), (1,), 1, 0.2, SURE),
        ((0.8,), (0,), 1, 0.8, COIN),
        ((0.8, 0.9, 0.2), (1, 1, 0), 3, 1 / 30, SURE),
        ((0.5, 0.5), (1, 0), 2, 0, "every p_a is one half, which no temperature changes"),
        ((0.8, 0.8), (1, 0), 2, 0.3, COIN),
        ((0.8, 0.8), (0.5, 0.5), 2, 0.3, COIN),
        ((1.0, 0.0), (0, 1), 2, 0, COIN),
    ],
)
def test_what_is_not_defined_says_why(
    p: tuple[float, ...], human: tuple[float, ...], n: int, ece: float | None, reason: str
) -> None:
    found = calibrate(np.array(p, dtype=float), np.array(human, dtype=float))
    assert (found.n, found.temperature, found.ece_after, found.reason) == (n, None, None, reason)
    assert found.ece == (None if ece is None else pytest.approx(ece))
    assert (found.brier is None) == (n == 0)


def test_too_few_pairs_to_cross_validate() -> None:
    found = calibrate(np.array([0.9, 0.9, 0.8]), np.array([1.0, 0.0, 1.0]))
    assert found.temperature is not None
    assert (found.ece_after, found.brier_after) == (None, None)
    assert found.reason == "too few pairs, or too much alike, to cross-validate"


def test_every_figure_is_a_number_or_none() -> None:
    for seed in range(200):
        random = np.random.default_rng(seed)
        n = int(random.integers(0, 40))
        p = random.choice([0.0, 1e-9, 0.3, 0.5, 0.99, 1.0, np.nan], n)
        found = calibrate(p, random.choice([0.0, 0.5, 1.0, np.nan], n))
        # No nan survives being written as JSON and read with all types checked.
        assert Calibration.model_validate_json(found.model_dump_json()) == found
        assert (found.reason is None) == (found.ece_after is not None)
