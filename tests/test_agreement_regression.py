"""The logistic slope: by hand, against statsmodels, and where there is none."""

from __future__ import annotations

import math

import numpy as np
import pytest
import statsmodels.api as sm

from rlaif.agreement.metrics import Figure, Floats
from rlaif.agreement.regression import logistic_slope, slope_gap
from tests.agreement_inputs import outcomes

pytestmark = pytest.mark.filterwarnings("error")


def feature(seed: int, n: int) -> Floats:
    # Not centred and of another scale: standardising is part of the work.
    return np.random.default_rng(seed).normal(size=n) * 7 + 3


def lines(seed: int, n: int) -> tuple[Floats, Floats]:
    x = feature(seed, n)
    return x, outcomes(seed + 1, (x - 3) / 7)


def by_statsmodels(x: Floats, y: Floats, weights: Floats) -> tuple[float, float, float]:
    """Slope and interval of a generalised linear model, which knows fractions and weights."""
    mean = np.average(x, weights=weights)
    spread = math.sqrt(np.average((x - mean) ** 2, weights=weights))
    design = sm.add_constant((x - mean) / spread)
    fit = sm.GLM(y, design, family=sm.families.Binomial(), freq_weights=weights).fit(tol=1e-12)
    low, high = fit.conf_int()[1]
    return float(fit.params[1]), float(low), float(high)


def test_by_hand() -> None:
    # On x = 1 three of four, on x = 0 one of four: odds 3 and 1/3, log ratio ln 9 for a step of two deviations.
    x = np.array([1.0] * 4 + [0.0] * 4)
    found = logistic_slope(x, np.array([1.0, 1, 1, 0, 0, 0, 0, 1]))
    error = math.sqrt(1 / 3 + 1 + 1 + 1 / 3) / 2
    slope = math.log(9) / 2
    assert found.n == 8
    assert found.value == pytest.approx(slope)
    assert found.ci == pytest.approx((slope - 1.959963984540054 * error, slope + 1.959963984540054 * error))
    assert found.reason is None


def test_statsmodels_finds_the_same() -> None:
    defined = 0
    for seed in range(200):
        x, y = lines(seed, 8 + seed)
        weights = np.random.default_rng(seed).integers(1, 4, len(x)).astype(float)
        if seed % 2:
            weights[:] = 1
        found = logistic_slope(x, y, weights)
        if found.value is None:
            continue
        defined += 1
        slope, low, high = by_statsmodels(x, y, weights)
        assert found.value == pytest.approx(slope, rel=1e-6)
        assert found.ci == pytest.approx((low, high), rel=1e-6, abs=1e-5)
    assert defined > 190


def test_whole_outcomes_are_statsmodels_logit() -> None:
    x = feature(3, 300)
    y = outcomes(4, (x - 3) / 7, ties=0)
    fit = sm.Logit(y, sm.add_constant((x - x.mean()) / x.std())).fit(disp=0, tol=1e-12)
    found = logistic_slope(x, y)
    assert found.value == pytest.approx(fit.params[1], rel=1e-8)
    assert found.ci == pytest.approx(tuple(fit.conf_int()[1]), rel=1e-8)


def test_weights_count_pairs_several_times() -> None:
    x, y = lines(5, 40)
    weights = np.arange(40) % 3
    repeated = logistic_slope(x.repeat(weights), y.repeat(weights))
    weighted = logistic_slope(x, y, weights.astype(float))
    assert weighted.value == pytest.approx(repeated.value, rel=1e-9)
    assert weighted.ci == pytest.approx(repeated.ci, rel=1e-9)
    # Pairs of no weight are not there.
    assert weighted.n == int((weights > 0).sum())


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_scale_and_sign_of_the_feature(scale: float) -> None:
    x, y = lines(6, 80)
    plain, other = logistic_slope(x, y), logistic_slope(-scale * x, y)
    assert plain.value is not None
    assert other.value == pytest.approx(-plain.value)
    assert logistic_slope(x, 1 - y).value == pytest.approx(-plain.value)


def test_far_out_pairs_do_not_throw_the_fit_off() -> None:
    x = np.concatenate([np.linspace(-1, 1, 200), [400.0, 500.0]])
    y = np.concatenate([np.tile([0.0, 1.0], 100), [1.0, 1.0]])
    slope, low, high = by_statsmodels(x, y, np.ones(len(x)))
    found = logistic_slope(x, y)
    assert found.value == pytest.approx(slope, rel=1e-5)
    assert found.ci == pytest.approx((low, high), rel=1e-4)


PARTED = "the feature parts the outcomes without an exception, so that no slope is steep enough"
SAME = "every pair has the same outcome"


@pytest.mark.parametrize(
    ("x", "y", "n", "reason"),
    [
        ((), (), 0, "no pairs; at least 2 are needed"),
        ((1,), (1,), 1, "1 pair; at least 2 are needed"),
        ((np.nan, 1, 2), (1, np.nan, 1), 1, "1 pair; at least 2 are needed"),
        ((2, 2, 2), (1, 0, 1), 3, "the feature is the same on all pairs"),
        ((1, 2, 3), (1, 1, 1), 3, SAME),
        ((1, 2, 3), (0, 0, 0), 3, SAME),
        ((1, 2, 3, 4), (0, 0, 1, 1), 4, PARTED),
        ((1, 2, 3, 4), (1, 1, 0, 0), 4, PARTED),
        # They meet in one point: the likelihood still rises without end.
        ((1, 2, 2, 3), (0, 0, 1, 1), 4, PARTED),
        ((1, 2, 3), (0, 0.5, 1), 3, PARTED),
    ],
)
def test_what_is_not_defined_says_why(x: tuple[float, ...], y: tuple[float, ...], n: int, reason: str) -> None:
    found = logistic_slope(np.array(x, dtype=float), np.array(y, dtype=float))
    assert (found.n, found.value, found.ci, found.reason) == (n, None, None, reason)
    gap = slope_gap(np.array(x, dtype=float), np.array(y, dtype=float), np.array(y, dtype=float))
    assert gap == Figure(None, reason=f"of the first rater: {reason}")


def test_ties_alone_have_no_slope() -> None:
    found = logistic_slope(np.array([1.0, 2.0, 5.0]), np.full(3, 0.5))
    assert found.value == pytest.approx(0, abs=1e-12)
    # The information is 3/4 on the standardised feature.
    assert found.ci == pytest.approx((-1.959963984540054 / 0.75**0.5, 1.959963984540054 / 0.75**0.5))


def test_gap_of_one_and_the_same_is_nothing() -> None:
    x, y = lines(7, 60)
    found = slope_gap(x, y, y)
    assert (found.value, found.reason) == (0, None)
    assert found.ci == pytest.approx((0, 0), abs=1e-12)


@pytest.mark.parametrize("clustered", [False, True])
def test_gap_has_the_interval_of_fitting_every_resample(clustered: bool) -> None:
    x = feature(8, 500)
    first, second = (outcomes(seed, (x - 3) / 7, slope=slope) for seed, slope in ((9, 1.2), (10, 0.4)))
    clusters = np.arange(500) // 5 if clustered else None
    found = slope_gap(x, first, second, clusters, resamples=4000)
    standard = (x - x.mean()) / x.std()
    random = np.random.default_rng(0)
    gaps = []
    for _ in range(400):
        rows = random.integers(500, size=500)
        if clustered:
            rows = (random.integers(100, size=100)[:, None] * 5 + np.arange(5)).ravel()
        # On the feature standardised once: slopes of a resample's own scale would differ by that scale.
        slopes = [logistic_slope(standard[rows], y[rows]).value or 0 for y in (first, second)]
        gaps.append((slopes[0] - slopes[1]) / standard[rows].std())
    one, two = (logistic_slope(x, y).value or 0 for y in (first, second))
    assert found.value == pytest.approx(one - two)
    assert found.ci is not None
    low, high = np.quantile(gaps, [0.025, 0.975])
    # The ends of 400 refits are themselves known to about a tenth of the width.
    assert found.ci == pytest.approx((low, high), abs=0.1 * (high - low))
    assert found.ci[0] > 0


def test_gap_leaves_out_pairs_without_all_three() -> None:
    x, y = lines(11, 50)
    other = outcomes(12, x)
    gaps = np.arange(50) % 5 == 0
    with_gaps = slope_gap(x, np.where(gaps, np.nan, y), other, resamples=50)
    assert with_gaps == slope_gap(x[~gaps], y[~gaps], other[~gaps], resamples=50)
    assert with_gaps.ci is not None
    assert slope_gap(x, y, np.ones(50)).reason == f"of the second rater: {SAME}"
    assert slope_gap(x, y, other, resamples=0).reason == "no resamples were asked for"
