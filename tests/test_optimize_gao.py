"""The law of over-optimisation: by hand, against other ways to the same numbers, and against curves it is known of."""

from __future__ import annotations

import math

import numpy as np
import pytest
import statsmodels.api as sm

from benchmarks.gao_recovery import Setting, distances, recovered, simulated_candidates
from rlaif.optimize.best_of import best_of, best_with_kl, sizes_up_to
from rlaif.optimize.gao import GaoFit, fit_points, fit_prompts, mean_interval
from rlaif.rewards.preferences import Floats
from rlaif.stats import t_quantile

pytestmark = pytest.mark.filterwarnings("error")

FURTHEST = 1.8
DISTANCE = np.linspace(0, FURTHEST, 12)


def law(alpha: float, beta: float) -> Floats:
    return DISTANCE * (alpha - beta * DISTANCE)


def prompts_of(alpha: float, beta: float, *, prompts: int = 40, noise: float = 0.2, seed: int = 0) -> Floats:
    """Curves of prompts that differ in height, each with noise that is common to all of its points."""
    random = np.random.default_rng(seed)
    return law(alpha, beta) + noise * random.normal(size=(prompts, 1)) * DISTANCE


def fit_of(alpha: float, beta: float, errors: tuple[float, float] = (0.1, 0.05), dof: int = 10_000) -> GaoFit:
    return GaoFit(alpha, beta, np.diag(np.square(errors)), dof)


def test_curves_without_noise_give_their_own_numbers() -> None:
    curves = np.stack([law(1.0, 0.4), law(2.0, 0.6)])
    fit = fit_prompts(DISTANCE, curves)
    assert (fit.alpha, fit.beta) == pytest.approx((1.5, 0.5))
    # Of two prompts the mean's error is half their difference, and t with 1 degree of freedom reaches 12.706 of it.
    assert fit.alpha_ci == pytest.approx((1.5 - 12.7062 * 0.5, 1.5 + 12.7062 * 0.5), abs=1e-3)
    assert fit.beta_ci == pytest.approx((0.5 - 12.7062 * 0.1, 0.5 + 12.7062 * 0.1), abs=1e-3)
    assert fit.misfit == pytest.approx(0, abs=1e-12)
    # By hand at d = 1: 1.5 - 0.5 gold, and a slope of 1.5 - 2 * 0.5.
    assert (fit.value(1.0), fit.slope(1.0)) == pytest.approx((1.0, 0.5))


def test_mean_of_the_fits_is_the_fit_of_the_mean() -> None:
    curves = prompts_of(0.9, 0.3) + 0.1 * np.random.default_rng(1).normal(size=(40, 12))
    one, mean = fit_prompts(DISTANCE, curves), fit_points(DISTANCE, curves.mean(axis=0))
    assert (one.alpha, one.beta) == pytest.approx((mean.alpha, mean.beta))


def test_points_of_one_curve_agree_with_ordinary_regression() -> None:
    values = law(0.9, 0.3) + 0.05 * (DISTANCE > 0) * np.random.default_rng(3).normal(size=12)
    fit = fit_points(DISTANCE, values)
    # The first point is 0 by definition and tells the regression nothing, so it is left out.
    regression = sm.OLS(values[1:], np.column_stack([DISTANCE, -(DISTANCE**2)])[1:]).fit()
    assert (fit.alpha, fit.beta) == pytest.approx(tuple(regression.params))
    intervals = regression.conf_int()
    assert fit.alpha_ci == pytest.approx(tuple(intervals[0]))
    assert fit.beta_ci == pytest.approx(tuple(intervals[1]))


def test_intervals_over_prompts_are_those_of_t() -> None:
    values = np.array([[1.0, 5.0], [2.0, 5.0], [6.0, 5.0]])
    # Mean 3, deviation sqrt(7), t with 2 degrees of freedom 4.3027.
    half = 4.302653 * math.sqrt(7 / 3)
    assert mean_interval(values)[:, 0] == pytest.approx([3 - half, 3 + half], rel=1e-6)
    assert mean_interval(values)[:, 1] == pytest.approx([5, 5])
    assert np.isnan(mean_interval(values[:1])).all()
    assert t_quantile(1_000_000) == pytest.approx(1.95996, abs=1e-4)


@pytest.mark.parametrize(
    "setting",
    [
        Setting("candidates", 1.0, 0.35, prompts=40, pool=32),
        Setting("candidates", 0.5, 0.0, prompts=20, pool=16),
        Setting("curves", 1.0, 0.35, prompts=40, noise=0.5),
        Setting("points", 1.0, 0.35, noise=0.05),
    ],
    ids=lambda setting: f"{setting.kind}-{setting.beta}",
)
def test_known_alpha_and_beta_lie_within_their_intervals(setting: Setting) -> None:
    # Of one hundred alone the number would say little: right intervals reach 93 with seven seeds of eight.
    held = recovered(setting, 400, seed=0)[:, :2].reshape(4, 100, 2).sum(axis=1)
    assert (held.mean(axis=0) >= 93).all(), held


def test_intervals_hold_as_often_as_they_say() -> None:
    # Of 800 intervals of 95% a share under 93% or over 97% comes by chance once in a hundred times.
    held = recovered(Setting("candidates", 0.8, 0.3, prompts=20, pool=16), 800, seed=1)[:, :2].mean(axis=0)
    assert ((held > 0.93) & (held < 0.97)).all(), held


def test_taking_the_points_for_independent_would_be_wrong() -> None:
    # The reason for resampling prompts: on the mean curve alone, whose points share their samples, the intervals of
    # ordinary least squares hold the truth far too seldom.
    setting = Setting("candidates", 1.0, 0.35, prompts=30, pool=32)
    held = 0
    for seed in range(60):
        proxy, gold = simulated_candidates(setting, np.random.default_rng([9, seed]))
        curve = best_of(proxy, gold[..., None], sizes_up_to(32))[..., 0].mean(axis=0)
        ci = fit_points(distances(32), curve - curve[0]).alpha_ci
        assert ci is not None
        held += ci[0] <= 1.0 <= ci[1]
    assert held < 45


def test_peak_by_hand() -> None:
    peak = fit_of(1.0, 0.5).peak(FURTHEST)
    assert peak is not None
    # 1 / (2 * 0.5) = 1, KL 1, and there 1 * (1 - 0.5) = 0.5 of gold; log n - (n - 1) / n = 1 has n = 6.305.
    assert (peak.distance, peak.kl, peak.value) == pytest.approx((1.0, 1.0, 0.5))
    assert peak.n == pytest.approx(6.3054, abs=1e-3)
    assert peak.n == pytest.approx(best_with_kl(1.0))


def test_interval_of_the_peak_is_where_the_slope_may_be_nought() -> None:
    # By trying every place: Fieller's interval is the places whose slope's interval holds 0.
    fit = fit_of(1.0, 0.5, errors=(0.1, 0.06), dof=30)
    places = np.linspace(0, FURTHEST, 20_001)
    slopes = np.array([fit.slope_ci(place) for place in places])
    flat = places[(slopes[:, 0] <= 0) & (slopes[:, 1] >= 0)]
    peak = fit.peak(FURTHEST)
    assert peak is not None
    assert peak.distance_ci == pytest.approx((flat[0], flat[-1]), abs=1e-3)
    assert peak.n_ci == pytest.approx((best_with_kl(flat[0] ** 2), best_with_kl(flat[-1] ** 2)), rel=1e-2)


def test_end_of_the_peak_that_cannot_be_told_is_open() -> None:
    peak = fit_of(1.0, 0.4, errors=(0.1, 0.15)).peak(FURTHEST)
    assert peak is not None
    assert peak.distance == pytest.approx(1.25)
    assert peak.distance_ci[0] > 0.5
    assert peak.distance_ci[1] is None
    assert (peak.kl_ci[1], peak.n_ci[1]) == (None, None)


@pytest.mark.parametrize(
    ("alpha", "beta"),
    [(1.0, 0.2), (1.0, 0.0), (1.0, -0.3), (-0.5, -1.0)],
    ids=["beyond the range", "straight", "hollow", "down and up again"],
)
def test_curve_that_is_highest_at_its_end_has_no_peak(alpha: float, beta: float) -> None:
    fit = fit_of(alpha, beta)
    assert fit.highest(FURTHEST) == FURTHEST
    assert fit.peak(FURTHEST) is None


@pytest.mark.parametrize(("alpha", "beta"), [(-0.5, 0.3), (-1.0, 0.0), (-1.0, -0.1)])
def test_gold_that_falls_from_the_first_peaks_at_one_response(alpha: float, beta: float) -> None:
    peak = fit_of(alpha, beta).peak(FURTHEST)
    assert peak is not None
    assert (peak.distance, peak.n, peak.value) == (0.0, 1.0, 0.0)
    assert list(peak.distance_ci) == pytest.approx([0.0, 0.0])


def test_one_prompt_has_a_fit_and_no_interval() -> None:
    fit = fit_prompts(DISTANCE, law(1.0, 0.5)[None])
    assert (fit.alpha, fit.beta) == pytest.approx((1.0, 0.5))
    assert (fit.alpha_ci, fit.beta_ci, fit.slope_ci(1.0)) == (None, None, None)
    peak = fit.peak(FURTHEST)
    assert peak is not None
    assert peak.distance_ci == (0.0, None)


def test_curve_of_another_form_is_told() -> None:
    # Up to d = 1.2 gold does not move, then it falls off: no parabola through 0 does that.
    curves = np.where(DISTANCE > 1.2, -3 * (DISTANCE - 1.2), 0.0) + prompts_of(0.0, 0.0, noise=0.02)
    assert fit_prompts(DISTANCE, curves).misfit > 0.1
    noise = 0.3 * np.random.default_rng(5).normal(size=(40, 12)) * (DISTANCE > 0)
    assert fit_prompts(DISTANCE, prompts_of(1.0, 0.4) + noise).misfit < 0.02


def test_fit_needs_two_distances() -> None:
    with pytest.raises(ValueError, match="two distances"):
        fit_prompts(np.array([0.0, 0.5]), np.zeros((3, 2)))
