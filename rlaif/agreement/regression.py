"""Logistic regression on one feature: does a judge, or do people, go by it?"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from rlaif.agreement.bootstrap import bootstrap
from rlaif.agreement.metrics import Figure, Floats
from rlaif.agreement.results import Slope

_Z = NormalDist().inv_cdf(0.975)
_COLUMNS = 5  # of a fit's profile: two of the score, three of the information


@dataclass(frozen=True, slots=True)
class _Fit:
    """Intercept and slope on the standardised feature, the slope's standard error, and the profiles at the peak."""

    intercept: float
    slope: float
    error: float
    profiles: Floats


def logistic_slope(x: Floats, y: Floats, weights: Floats | None = None) -> Slope:
    """Change of the log-odds of y for one standard deviation more of x, with Wald's 95% interval.

    Fitted with an intercept by maximum likelihood; a tie (0.5) is half a 1 and half a 0. Where x parts the ones from
    the noughts the likelihood rises without end, so that the slope is not defined.

    Args:
        x: the feature, (pairs,); nan is left out. It is standardised here, by the population's standard deviation.
        y: 1, 0, or 0.5 for a tie, (pairs,); nan is left out.
        weights: how often each pair counts, (pairs,); without them once.
    """
    times = np.ones(len(x)) if weights is None else weights.astype(np.float64)
    kept = np.isfinite(x) & np.isfinite(y) & (times > 0)
    x, y, times = x[kept].astype(np.float64), y[kept].astype(np.float64), times[kept]
    fit = _fit(x, y, times)
    if isinstance(fit, str):
        return Slope(n=len(x), value=None, ci=None, reason=fit)
    ci = fit.slope - _Z * fit.error, fit.slope + _Z * fit.error
    return Slope(n=len(x), value=fit.slope, ci=ci)


def slope_gap(
    x: Floats,
    y_first: Floats,
    y_second: Floats,
    clusters: npt.NDArray[np.generic] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Figure:
    """Slope of the first less that of the second on the same pairs, with the paired bootstrap's interval.

    Each resample takes one step of Newton's method from the fit of all pairs, which is as exact as the bootstrap itself
    (Davidson and MacKinnon 1999, Bootstrap testing in nonlinear models) and needs no more than sums over pairs.

    Args:
        x: the feature, (pairs,).
        y_first: 1, 0 or 0.5, (pairs,), as in `logistic_slope`; pairs with a nan in any of the three are left out.
        y_second: the same of the other rater.
        clusters: as in `rlaif.agreement.bootstrap.resample_sums`.
        resamples: how many; 0 for no interval.
        seed: of the random numbers.
    """
    kept = np.isfinite(x) & np.isfinite(y_first) & np.isfinite(y_second)
    x, once = x[kept].astype(np.float64), np.ones(int(kept.sum()))
    fits = [_fit(x, y[kept].astype(np.float64), once) for y in (y_first, y_second)]
    for which, fit in zip(("first", "second"), fits, strict=True):
        if isinstance(fit, str):
            return Figure(None, reason=f"of the {which} rater: {fit}")
    first, second = (fit for fit in fits if isinstance(fit, _Fit))
    gap = first.slope - second.slope

    def gaps(sums: Floats) -> Floats:
        moved: Floats = gap + _step(sums[:, :_COLUMNS]) - _step(sums[:, _COLUMNS:])
        return moved

    profiles = np.column_stack([first.profiles, second.profiles])
    spread = bootstrap(profiles, gaps, None if clusters is None else clusters[kept], resamples, seed)
    return Figure(gap, spread.ci, spread.reason)


def _fit(x: Floats, y: Floats, times: Floats) -> _Fit | str:
    """Fit by Newton's method with halved steps, or say why there is nothing to fit."""
    if len(x) < 2:
        return f"{len(x) or 'no'} pair{'' if len(x) == 1 else 's'}; at least 2 are needed"
    if (x == x[0]).all():
        return "the feature is the same on all pairs"
    ones, noughts = x[y > 0], x[y < 1]
    if not len(ones) or not len(noughts):
        return "every pair has the same outcome"
    # On one feature this is all there is to separation: the two ranges do not overlap, or meet in one point.
    if ones.min() >= noughts.max() or noughts.min() >= ones.max():
        return "the feature parts the outcomes without an exception, so that no slope is steep enough"
    total = times.sum()
    mean = times @ x / total
    x = x - mean
    x /= np.sqrt(times @ (x * x) / total)
    beta = np.zeros(2)
    loss = _loss(beta, x, y, times)
    for _ in range(100):
        sums = times @ _profiles(beta, x, y)
        step = np.array([_step(sums[None], 0)[0], _step(sums[None])[0]])
        while not (ahead := _loss(beta + step, x, y, times)) <= loss and np.abs(step).max() > 1e-12:
            step /= 2
        beta, loss = beta + step, ahead
        if np.abs(step).max() <= 1e-10 * (1 + np.abs(beta).max()):
            break
    profiles = _profiles(beta, x, y)
    _, _, a, b, c = times @ profiles
    variance = a / (a * c - b * b)
    return _Fit(float(beta[0]), float(beta[1]), float(np.sqrt(variance)), profiles)


def _loss(beta: Floats, x: Floats, y: Floats, times: Floats) -> float:
    eta = beta[0] + beta[1] * x
    return float(times @ (np.logaddexp(0, eta) - y * eta))


def _profiles(beta: Floats, x: Floats, y: Floats) -> Floats:
    """Each pair's part in score and information at `beta`, (pairs, 5)."""
    p = 0.5 * (1 + np.tanh((beta[0] + beta[1] * x) / 2))
    error, information = y - p, p * (1 - p)
    return np.column_stack([error, error * x, information, information * x, information * x * x])


def _step(sums: Floats, which: int = 1) -> Floats:
    """Newton's step of the slope (`which` 0: of the intercept) from sums of profiles, (sums, 5) -> (sums,)."""
    u, v, a, b, c = sums.T
    determinant = a * c - b * b
    over = a * v - b * u if which else c * u - b * v
    # Nothing to go by where a resample drew one value of the feature only.
    possible = determinant > 1e-12 * a * c
    step: Floats = np.divide(over, determinant, out=np.full(len(sums), np.nan), where=possible)
    return step
