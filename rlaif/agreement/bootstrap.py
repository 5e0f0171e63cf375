"""Percentile intervals by resampling pairs, or whole groups of pairs that share a prompt.

A statistic here is a function of sums over pairs: each pair has a profile (its cell of the confusion matrix, say), and
a resample is the sum of the profiles drawn. So a thousand resamples are one small matrix, not a thousand data sets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rlaif.agreement.metrics import Figure, Floats
from rlaif.agreement.results import Interval

_CELLS = 4_000_000  # numbers held at once
_ALIKE = 8  # groups to one profile from which on counting profiles is the faster way


@dataclass(frozen=True, slots=True)
class Spread:
    """An interval from resamples; `undefined` counts those on which the figure is not defined."""

    ci: Interval | None
    undefined: int
    reason: str | None = None


def resample_sums(
    profiles: npt.NDArray[np.number], clusters: npt.NDArray[np.generic] | None, resamples: int, seed: int
) -> Floats:
    """Sums of profiles over resamples with replacement, (resamples, k); equal arguments give equal bytes.

    Groups with the same profile are interchangeable: how often each profile is drawn is multinomial, exactly. Where
    few profiles are equal the groups are drawn themselves.

    Args:
        profiles: one a pair, (pairs, k), finite.
        clusters: what pairs have in common, (pairs,): such pairs are drawn together. `None` draws each by itself.
        resamples: how many.
        seed: of the random numbers.
    """
    groups = _grouped(profiles, clusters)
    random = np.random.default_rng(seed)
    sums = np.zeros((resamples, groups.shape[1]))
    if not len(groups):
        return sums
    kinds, counts = np.unique(groups, axis=0, return_counts=True)
    few = len(kinds) * _ALIKE <= len(groups)
    at_once = max(1, _CELLS // (len(kinds) if few else len(groups)))
    for start in range(0, resamples, at_once):
        size = min(at_once, resamples - start)
        if few:
            drawn = random.multinomial(len(groups), counts / len(groups), size=size)
            sums[start : start + size] = drawn @ kinds
        else:
            for row in range(start, start + size):
                times = np.bincount(random.integers(len(groups), size=len(groups)), minlength=len(groups))
                sums[row] = times @ groups
    return sums


def _grouped(profiles: npt.NDArray[np.number], clusters: npt.NDArray[np.generic] | None) -> Floats:
    """Add up the profiles of each cluster, (clusters, k)."""
    if clusters is None:
        return profiles.astype(np.float64)
    names, group = np.unique(clusters, return_inverse=True)
    columns = [np.bincount(group, weights=column, minlength=len(names)) for column in profiles.T]
    return np.column_stack(columns) if columns else np.zeros((len(names), 0))


def interval(values: Floats, confidence: float = 0.95) -> Spread:
    """Percentile interval of resampled values; nan stands for a resample on which the figure is not defined.

    Those are left out and counted. Where they are more than half, the interval would be that of another question.
    """
    defined = values[np.isfinite(values)]
    undefined = len(values) - len(defined)
    if not len(values):
        return Spread(None, 0, "no resamples were asked for")
    if undefined * 2 > len(values):
        return Spread(None, undefined, f"not defined on {undefined} of {len(values)} resamples")
    low, high = np.quantile(defined, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Spread((float(low), float(high)), undefined)


def bootstrap(
    profiles: npt.NDArray[np.number],
    statistic: Callable[[Floats], Floats],
    clusters: npt.NDArray[np.generic] | None,
    resamples: int,
    seed: int,
) -> Spread:
    """Interval of a statistic of summed profiles; of fewer than two groups that could vary it is not defined.

    Args:
        profiles: one a pair, (pairs, k); pairs with nothing but zeros are not in the data.
        statistic: sums (resamples, k) -> values (resamples,), nan where not defined.
        clusters: as in `resample_sums`.
        resamples: how many; 0 for no interval.
        seed: of the random numbers.
    """
    # A pair that does not count must not be drawn either: the number of pairs that count is no matter of chance.
    counted = profiles.any(axis=1)
    profiles, clusters = profiles[counted], None if clusters is None else clusters[counted]
    groups = len(profiles) if clusters is None else len(np.unique(clusters))
    if resamples and groups < 2:
        what = "pair" if clusters is None else "prompt"
        return Spread(None, 0, f"{'one' if groups else 'no'} {what} cannot be resampled; at least two are needed")
    return interval(statistic(resample_sums(profiles, clusters, resamples, seed)))


def paired_difference(
    right_first: Floats,
    right_second: Floats,
    clusters: npt.NDArray[np.generic] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Figure:
    """Mean score of the first less that of the second on the same pairs, with the paired bootstrap's interval.

    Args:
        right_first: scores 0 to 1 of the first judge, (pairs,); nan where it gave none.
        right_second: those of the second judge; pairs without both are left out.
        clusters: as in `resample_sums`.
        resamples: how many; 0 for no interval.
        seed: of the random numbers.
    """
    difference = right_first - right_second
    scored = np.isfinite(difference)
    if not scored.any():
        return Figure(None, reason="no pair has scores of both")
    # The second column counts pairs: clusters differ in size.
    profiles = np.column_stack([difference[scored], np.ones(int(scored.sum()))])
    kept = None if clusters is None else clusters[scored]
    spread = bootstrap(profiles, lambda sums: sums[:, 0] / sums[:, 1], kept, resamples, seed)
    return Figure(float(difference[scored].mean()), spread.ci, spread.reason)
