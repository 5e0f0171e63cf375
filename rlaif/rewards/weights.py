"""Weights of the objectives, learned from people's overall preferences. Pure.

The model is logistic: P(people prefer a) = sigmoid(scale * sum_k weight_k (reward_k of a - reward_k of b)), with no
weight under 0, since nobody is to be paid for being less honest, and the weights summing to 1. It has no intercept:
which response is called a says nothing.

Intervals are of the bootstrap that draws whole conversations: pairs with one prompt are not independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlaif.agreement.bootstrap import interval, resample_sums
from rlaif.errors import InputError, RunError
from rlaif.rewards.calibrate import win_probability
from rlaif.rewards.preferences import Floats, Ints

LEAST = 10  # pairs

# Standard deviation of the normal prior of scale * weight_k: one reward unit more makes the odds e^10 times as high. It
# is felt only where few pairs leave the scale without an end.
PRIOR = 10.0

_STEPS = 100
_SWEEPS = 10_000
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class LearnedWeights:
    """Weights that people's overall preferences ask for.

    Attributes:
        weights: 0 or more, summing to 1, (objectives,).
        intervals: 95%, (objectives, 2); nan where there are none.
        scale: log-odds of one unit of the weighted reward.
        pairs: those with an overall preference.
        loss: mean cross-entropy of these pairs, nats; that of a coin is 0.693.
        reason: why there are no intervals.
    """

    weights: Floats
    intervals: Floats
    scale: float
    pairs: int
    loss: float
    reason: str | None = None

    def by_objective(self, objectives: Sequence[str]) -> dict[str, float]:
        """The weights by name."""
        return {name: float(weight) for name, weight in zip(objectives, self.weights, strict=True)}

    def intervals_by_objective(self, objectives: Sequence[str]) -> dict[str, tuple[float, float]]:
        """The intervals by name; empty where there are none."""
        rows = zip(objectives, self.intervals.tolist(), strict=True)
        return {} if np.isnan(self.intervals).any() else {name: (low, high) for name, (low, high) in rows}


def learn_weights(
    difference: Floats,
    target: Floats,
    weight: Floats,
    group: Ints,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> LearnedWeights:
    """Learn the objectives' weights from overall preferences.

    Args:
        difference: rewards of a less those of b, (pairs, objectives).
        target: P(a is better) overall, (pairs,); nan where there is no preference.
        weight: what a preference counts, (pairs,); 0 where there is none.
        group: the conversation of each pair, (pairs,).
        resamples: for the intervals; 0 for none.
        seed: of the random numbers.

    Raises:
        InputError: fewer than 10 preferences, or every objective speaks against them.
        RunError: a reward is not finite.
    """
    x, y, w, g = labelled(difference, target, weight, group)
    found = fit_scaled(x, y, w)
    scale = float(found.sum())
    if scale <= _TOLERANCE:
        raise InputError(
            "overall preferences: every objective's rewards speak against them, or do not differ; weights cannot be "
            "learned. Look at rlaif evaluate of the heads, or give --weights."
        )
    loss = float(w @ cross_entropy(x @ found, y) / w.sum())
    spread, reason = _intervals(x, y, w, g, found, resamples, seed)
    return LearnedWeights(found / scale, spread, scale, len(x), loss, reason)


def labelled(difference: Floats, target: Floats, weight: Floats, group: Ints) -> tuple[Floats, Floats, Floats, Ints]:
    """The pairs that have an overall preference, of the arguments of `learn_weights`; the same errors."""
    there = (weight > 0) & np.isfinite(target)
    x = np.asarray(difference[there], dtype=np.float64)
    if not np.isfinite(x).all():
        raise RunError(
            "overall preferences: a reward is not finite; rewards must be numbers. Train the heads again, or score in "
            "float32."
        )
    if len(x) < LEAST:
        raise InputError(
            f"overall preferences: {len(x)} of the pairs have one; at least {LEAST} are needed to learn weights. "
            "Label more pairs, or give --weights."
        )
    return x, target[there].astype(np.float64), weight[there].astype(np.float64), group[there]


def cross_entropy(log_odds: Floats, target: Floats) -> Floats:
    """What a probability costs against a soft target, nats, shape as given: log(1 + e^z) - y z."""
    cost: Floats = np.logaddexp(0, log_odds) - target * log_odds
    return cost


def _intervals(
    x: Floats, y: Floats, w: Floats, group: Ints, found: Floats, resamples: int, seed: int
) -> tuple[Floats, str | None]:
    """Percentile intervals of the weights, (objectives, 2), or why there are none.

    Each resample takes one step of Newton's method, held to weights of 0 or more, from the fit of all pairs, which is
    as exact as the bootstrap itself and needs no more than sums over pairs.

    Source: Davidson and MacKinnon (1999), Bootstrap testing in nonlinear models.
    """
    k = x.shape[1]
    none = np.full((k, 2), np.nan)
    if not resamples:
        return none, "no resamples were asked for"
    if len(np.unique(group)) < 2:
        return none, "one conversation cannot be resampled; at least two are needed"
    error, information = _parts(x, y, w, found)
    sums = resample_sums(np.column_stack([error, information]), group, resamples, seed)
    ridge = np.eye(k) / PRIOR**2
    hessian = sums[:, k:].reshape(-1, k, k) + ridge
    # The least of gradient (u - found) + (u - found) hessian (u - found) / 2.
    linear = sums[:, :k] + ridge @ found - hessian @ found
    scaled = _quadratic(hessian, linear, np.tile(found, (resamples, 1)))
    total = scaled.sum(axis=1, keepdims=True)
    shares = np.divide(scaled, total, out=np.full_like(scaled, np.nan), where=total > _TOLERANCE)
    spreads = [interval(column) for column in shares.T]
    found_all = [spread.ci for spread in spreads if spread.ci is not None]
    return (np.array(found_all), None) if len(found_all) == k else (none, spreads[0].reason)


def fit_scaled(x: Floats, y: Floats, w: Floats) -> Floats:
    """Most likely scale * weights under the prior, none below 0, (objectives,).

    Newton's method, each step the least of its quadratic among what is allowed. The loss is strictly convex.

    Args:
        x: differences of rewards, (pairs, objectives).
        y: soft targets, (pairs,).
        w: weights of the pairs, (pairs,).
    """
    k = x.shape[1]
    ridge = np.eye(k) / PRIOR**2
    u = np.zeros(k)
    loss = _loss(x, y, w, u)
    for _ in range(_STEPS):
        error, information = _parts(x, y, w, u)
        hessian = information.sum(axis=0).reshape(k, k) + ridge
        linear = error.sum(axis=0) + ridge @ u - hessian @ u
        step = _quadratic(hessian[None], linear[None], u[None])[0] - u
        # Newton's whole step is nearly always right; where it is not, a part of it is.
        while (ahead := _loss(x, y, w, u + step)) > loss and np.abs(step).max() > _TOLERANCE:
            step /= 2
        u, loss = u + step, ahead
        if np.abs(step).max() <= _TOLERANCE * (1 + u.max()):
            break
    return u


def _parts(x: Floats, y: Floats, w: Floats, u: Floats) -> tuple[Floats, Floats]:
    """Each pair's part in the first and second derivatives, (pairs, objectives) and (pairs, objectives^2)."""
    p = win_probability(x @ u, 1.0)
    error: Floats = (w * (p - y))[:, None] * x
    information: Floats = (w * p * (1 - p))[:, None] * (x[:, :, None] * x[:, None, :]).reshape(len(x), -1)
    return error, information


def _loss(x: Floats, y: Floats, w: Floats, u: Floats) -> float:
    return float(w @ cross_entropy(x @ u, y) + u @ u / (2 * PRIOR**2))


def _quadratic(hessian: Floats, linear: Floats, start: Floats) -> Floats:
    """Least of linear u + u hessian u / 2 over u of 0 or more, for many at once, (fits, objectives).

    Coordinate after coordinate: they are few, and the least along one is known.

    Args:
        hessian: positive definite, (fits, objectives, objectives).
        linear: (fits, objectives).
        start: (fits, objectives).
    """
    u = np.maximum(start, 0.0)
    slope = linear + (hessian @ u[..., None])[..., 0]
    for _ in range(_SWEEPS):
        moved = 0.0
        for k in range(u.shape[1]):
            ahead = np.maximum(u[:, k] - slope[:, k] / hessian[:, k, k], 0.0)
            change = ahead - u[:, k]
            slope += change[:, None] * hessian[:, k]
            u[:, k] = ahead
            moved = max(moved, float(np.abs(change).max()))
        if moved <= _TOLERANCE * (1 + float(u.max())) / 10:
            break
    return u
