"""The law of reward over-optimisation for best-of-n, fitted: R(d) = d (alpha - beta d), d the root of the KL. Pure.

The law is linear in alpha and beta, so least squares has no start to choose and no local minimum. The points of a curve
are made of the same samples and are far from independent; what is independent are the prompts. So each prompt's own
curve is fitted with the same design: the mean of the fits is the fit of the mean curve, and how they differ gives the
intervals, whatever the correlation along a curve.

Source: Gao, Schulman and Hilton (2023), Scaling laws for reward model overoptimization; Fieller (1954), Some problems
in interval estimation, for the peak, which is a ratio.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rlaif.optimize.best_of import best_with_kl
from rlaif.rewards.preferences import Floats
from rlaif.stats import t_quantile

Interval = tuple[float, float]
_CONFIDENCE = 0.95


def mean_interval(values: Floats, confidence: float = _CONFIDENCE) -> Floats:
    """Intervals of means over prompts, by Student's t, (2, ...): nan with fewer than two prompts.

    Args:
        values: (prompts, ...).
        confidence: of the intervals.
    """
    mean, prompts = values.mean(axis=0), len(values)
    if prompts < 2:
        return np.full((2, *mean.shape), np.nan)
    half = t_quantile(prompts - 1, confidence) * values.std(axis=0, ddof=1) / math.sqrt(prompts)
    return np.stack([mean - half, mean + half])


@dataclass(frozen=True)
class Peak:
    """Where a fitted curve is highest, and how surely.

    `distance` is the root of `kl`, in nats; `n` is what gives so much. The intervals are of all places at which the
    slope may be 0: an end is `None` where it lies beyond the range that was measured, or cannot be told.
    """

    distance: float
    distance_ci: tuple[float, float | None]
    value: float

    @property
    def kl(self) -> float:
        """In nats."""
        return self.distance**2

    @property
    def n(self) -> float:
        """Not rounded."""
        return best_with_kl(self.kl)

    @property
    def kl_ci(self) -> tuple[float, float | None]:
        """In nats."""
        low, high = self.distance_ci
        return low**2, None if high is None else high**2

    @property
    def n_ci(self) -> tuple[float, float | None]:
        """Not rounded."""
        low, high = self.kl_ci
        return best_with_kl(low), None if high is None else best_with_kl(high)


@dataclass(frozen=True)
class GaoFit:
    """Estimates and what is known of their errors.

    Attributes:
        alpha: slope at d = 0, gold's unit by the root of a nat.
        beta: half of what the slope loses by each further root of a nat; over-optimisation where it is above 0.
        covariance: of alpha and beta, (2, 2).
        dof: degrees of freedom of the intervals; 0 where none can be given.
        misfit: the largest distance of the measured curve from the fitted one that chance does not explain; 0 where
            there is none.
    """

    alpha: float
    beta: float
    covariance: Floats
    dof: int
    misfit: float = 0.0

    @property
    def alpha_ci(self) -> Interval | None:
        """95%."""
        return self._interval(self.alpha, float(self.covariance[0, 0]))

    @property
    def beta_ci(self) -> Interval | None:
        """95%."""
        return self._interval(self.beta, float(self.covariance[1, 1]))

    def value(self, distance: float) -> float:
        """Gold at a distance, relative to the policy's own."""
        return distance * (self.alpha - self.beta * distance)

    def slope(self, distance: float) -> float:
        """What gold still gains by a further root of a nat."""
        return self.alpha - 2 * self.beta * distance

    def slope_ci(self, distance: float) -> Interval | None:
        """95%."""
        part = np.array([1.0, -2 * distance])
        return self._interval(self.slope(distance), float(part @ self.covariance @ part))

    def highest(self, furthest: float) -> float:
        """The distance, from 0 to the furthest that was measured, at which the fitted curve is highest."""
        if self.beta > 0:
            return min(max(self.alpha / (2 * self.beta), 0.0), furthest)
        return furthest if self.value(furthest) > 0 else 0.0

    def peak(self, furthest: float) -> Peak | None:
        """The peak, where it lies short of the furthest distance that was measured; else `None`.

        A peak at 0 says that gold falls from the first: one response is as good as the best of more.
        """
        place = self.highest(furthest)
        if place >= furthest:
            return None
        low, high = self._flat(furthest)
        # With a hollow curve the best end is no place where the slope is 0.
        return Peak(place, (min(low, place), high if high is None else max(high, place)), self.value(place))

    def _flat(self, furthest: float) -> tuple[float, float | None]:
        """From where on the slope may be 0, and from where on it cannot be any more; `None` beyond the furthest.

        The slope at d is surely above 0 where alpha - 2 beta d > t s(d), surely below where it is under -t s(d), with
        s(d) its standard error: the ends are roots of (alpha - 2 beta d)^2 = t^2 s(d)^2, Fieller's interval.
        """
        if not self.dof:
            return 0.0, None
        t2 = t_quantile(self.dof) ** 2
        (aa, ab), (_, bb) = self.covariance
        roots = _roots(4 * (self.beta**2 - t2 * bb), -4 * (self.alpha * self.beta - t2 * ab), self.alpha**2 - t2 * aa)
        after = [root for root in roots if root > 0]
        start = self.slope_ci(0.0)
        assert start is not None
        low = after[0] if start[0] > 0 and after else furthest if start[0] > 0 else 0.0
        end = self.slope_ci(furthest)
        assert end is not None
        if end[1] >= 0:
            return min(low, furthest), None
        # Below 0 at the end: since the last change of sign, or from the first.
        before = [root for root in roots if 0 < root < furthest]
        return min(low, furthest), before[-1] if before else 0.0

    def _interval(self, middle: float, variance: float) -> Interval | None:
        if not self.dof:
            return None
        half = t_quantile(self.dof) * math.sqrt(max(variance, 0.0))
        return middle - half, middle + half


def _roots(square: float, linear: float, constant: float) -> list[float]:
    """Real roots of a quadratic, from left to right."""
    if square == 0:
        return [-constant / linear] if linear else []
    inside = linear**2 - 4 * square * constant
    if inside < 0:
        return []
    # Without taking the difference of two near numbers.
    far = -(linear + math.copysign(math.sqrt(inside), linear)) / 2
    return sorted({far / square, constant / far} if far else {0.0})


def fit_prompts(distance: Floats, curves: Floats) -> GaoFit:
    """Fit the curves of prompts: the mean of their fits, with what they differ by for an error.

    Args:
        distance: root of the KL at each point, (points,); at least two differ and are not 0.
        curves: gold of each prompt relative to its own at distance 0, (prompts, points).
    """
    design = _design(distance)
    each = curves @ np.linalg.pinv(design).T  # (prompts, 2)
    alpha, beta = each.mean(axis=0).tolist()
    prompts = len(each)
    if prompts < 2:
        return GaoFit(alpha, beta, np.full((2, 2), np.nan), 0)
    covariance: Floats = np.asarray(np.cov(each, rowvar=False), dtype=np.float64) / prompts
    return GaoFit(alpha, beta, covariance, prompts - 1, _misfit(curves - each @ design.T))


def fit_points(distance: Floats, values: Floats) -> GaoFit:
    """Fit one curve of which only the points are known: intervals as if the points had independent errors.

    Args:
        distance: root of the KL at each point, (points,); at least two differ and are not 0.
        values: gold relative to that at distance 0, (points,).
    """
    design = _design(distance)
    found = np.linalg.pinv(design) @ values
    left = values - design @ found
    # A point at distance 0 is 0 by what gold is measured from, and no observation.
    dof = int((distance > 0).sum()) - 2
    variance = float(left @ left) / dof if dof > 0 else math.nan
    covariance: Floats = np.asarray(variance * np.linalg.inv(design.T @ design), dtype=np.float64)
    return GaoFit(float(found[0]), float(found[1]), covariance, max(dof, 0))


def _design(distance: Floats) -> Floats:
    if len(np.unique(distance[distance > 0])) < 2:
        raise ValueError("a fit takes at least two distances above 0")
    return np.column_stack([distance, -(distance**2)])


def _misfit(left: Floats) -> float:
    """The largest mean residual that is sure not to be 0, with the confidence shared among the points."""
    points = left.shape[1]
    low, high = mean_interval(left, 1 - (1 - _CONFIDENCE) / points)
    sure = (low > 0) | (high < 0)
    return float(np.abs(left.mean(axis=0)[sure]).max(initial=0.0))
