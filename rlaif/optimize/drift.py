"""Whether two samples of features are of one distribution: energy distance, a permutation test, who lies outside. Pure.

Features are first divided by their pooled deviation, number by number, so that the few directions of a language model
that are a thousand times as wide as the rest do not decide alone. With |.| the Euclidean distance, X and X' from the
one sample and Y and Y' from the other, the energy statistic is

    2 E|X - Y| - E|X - X'| - E|Y - Y'|,

0 for equal distributions and above 0 for all others; divided by 2 E|X - Y| it is between 0 and 1.

Source: Székely and Rizzo (2013), Energy statistics: a class of statistics based on distances.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rlaif.rewards.preferences import Floats, Ints

Bools = npt.NDArray[np.bool_]

NEIGHBOURS = 5
"""How far out an example is: its mean distance to so many nearest examples of the reference."""

_CELLS = 4_000_000  # numbers held at once
_ROUNDING = 1e-10  # of a statistic's scale: permutations that give the same split give the same figure


@dataclass(frozen=True)
class Energy:
    """The energy statistic and what it is compared with.

    Attributes:
        statistic: 2 E|X - Y| - E|X - X'| - E|Y - Y'|, in pooled deviations.
        share: the same by 2 E|X - Y|, 0 to 1.
        by_chance: mean of `share` over permutations: of finite samples it is never 0.
        p_value: how often a permutation gives as much or more, the observation counted as one.
        permutations: how many.
    """

    statistic: float
    share: float
    by_chance: float
    p_value: float
    permutations: int


@dataclass(frozen=True)
class Outliers:
    """How far examples lie from a reference.

    Attributes:
        distance: of each new example to its nearest of the reference, by the median of the reference's own, (new,).
        rank: share of the reference that lies at least as far from the rest of it, (new,).
        edge: distance that a twentieth of the reference lies beyond.
    """

    distance: Floats
    rank: Floats
    edge: float


def pairwise_distances(features: npt.ArrayLike) -> Floats:
    """Distances between all rows after each column is divided by its deviation, (rows, width) -> (rows, rows).

    Columns that are constant say nothing and are left out.
    """
    points = np.asarray(features, dtype=np.float64)
    points = points - points.mean(axis=0)
    scale = points.std(axis=0)
    # A constant column of large numbers has a deviation of rounding errors.
    told = scale > 1e-9 * max(float(scale.max(initial=0.0)), 1e-300)
    points = points[:, told] / scale[told]
    square = np.square(points).sum(axis=1)
    found: Floats = np.empty((len(points), len(points)))
    step = max(1, _CELLS // max(len(points), 1))
    for start in range(0, len(points), step):
        part = slice(start, start + step)
        block = square[part, None] + square - 2 * (points[part] @ points.T)
        found[part] = np.sqrt(np.maximum(block, 0))
    np.fill_diagonal(found, 0.0)
    return (found + found.T) / 2


def energy(
    distances: Floats, new: Bools, *, permutations: int = 999, seed: int = 0, matched: Ints | None = None
) -> Energy:
    """Energy distance of the rows that are new from the others, with a permutation test.

    Under the hypothesis that both are of one distribution each split into samples of these sizes is as likely. Where
    rows of both samples belong together, as two responses to one prompt do, only the two are exchanged: the split is
    as it may have been, and what the prompts have in common does not hide a difference.

    Args:
        distances: between all rows, (rows, rows).
        new: which rows are of the second sample, (rows,); at least one of each.
        permutations: how many, one at least.
        seed: of the permutations.
        matched: a number of 0 or more that just one row of each sample has, -1 for rows of their own, (rows,).

    Raises:
        ValueError: a sample is empty, or rows that are matched do not come in twos.
    """
    count = int(new.sum())
    if not 0 < count < len(new) or permutations < 1:
        raise ValueError(f"{count} of {len(new)} rows are new, {permutations} permutations; expected some of each")
    observed, between = _statistics(distances, new[None])
    share = observed / np.where(between > 0, between, 1.0)
    random = np.random.default_rng(seed)
    found, shares = [], []
    step = max(1, _CELLS // len(new))
    for start in range(0, permutations, step):
        splits = _splits(new, matched, min(step, permutations - start), random)
        statistic, between = _statistics(distances, splits)
        found.append(statistic)
        shares.append(statistic / np.where(between > 0, between, 1.0))
    as_much = np.concatenate(found) >= observed[0] - _ROUNDING * max(float(distances.max()), 1e-300)
    return Energy(
        statistic=float(max(observed[0], 0.0)),
        share=float(max(share[0], 0.0)),
        by_chance=float(np.concatenate(shares).mean()),
        p_value=(1 + int(as_much.sum())) / (1 + permutations),
        permutations=permutations,
    )


def _statistics(distances: Floats, splits: Bools) -> tuple[Floats, Floats]:
    """The energy statistic and 2 E|X - Y| of many splits of the same rows, (splits, rows) -> (splits,) each."""
    chosen = splits.astype(np.float64)
    n = chosen.sum(axis=1)
    m = len(distances) - n
    # One product for all: sums of distances to the new rows, and the rest of each row's sum to the others.
    to_new = chosen @ distances
    to_old = distances.sum(axis=0) - to_new
    within_new = (to_new * chosen).sum(axis=1) / n**2
    between = 2 * (to_old * chosen).sum(axis=1) / (n * m)
    within_old = (to_old * (1 - chosen)).sum(axis=1) / m**2
    return between - within_new - within_old, between


def _splits(new: Bools, matched: Ints | None, count: int, random: np.random.Generator) -> Bools:
    """Splits that are as likely as the one at hand, (count, rows)."""
    free = np.ones(len(new), dtype=np.bool_) if matched is None else matched < 0
    splits = np.tile(new, (count, 1))
    splits[:, free] = random.permuted(np.tile(new[free], (count, 1)), axis=1)
    if matched is not None and not free.all():
        there, here = (
            np.flatnonzero(~free & side)[np.argsort(matched[~free & side], kind="stable")] for side in (~new, new)
        )
        if not np.array_equal(matched[there], matched[here]) or len(np.unique(matched[here])) != len(here):
            raise ValueError("rows that are matched do not come in twos, one of each sample")
        turned = random.random((count, len(here))) < 0.5
        splits[:, there], splits[:, here] = turned, ~turned
    return splits


def outliers(distances: Floats, new: Bools, neighbours: int = NEIGHBOURS) -> Outliers:
    """How far each new example lies from the reference, beside how far the reference's own lie from each other.

    An example of the reference is not its own neighbour.

    Args:
        distances: between all rows, (rows, rows).
        new: which rows are new, (rows,).
        neighbours: see `NEIGHBOURS`; of a smaller reference all.
    """
    old = np.flatnonzero(~new)
    if len(old) < 3:
        raise ValueError(f"{len(old)} examples of reference; expected three or more")
    kept = min(neighbours, len(old) - 1)
    own = np.sort(distances[np.ix_(old, old)], axis=1)[:, 1 : kept + 1].mean(axis=1)
    others = np.sort(distances[np.ix_(np.flatnonzero(new), old)], axis=1)[:, :kept].mean(axis=1)
    unit = float(np.median(own)) or 1.0
    ordered = np.sort(own)
    farther = len(own) - np.searchsorted(ordered, others, side="left")
    return Outliers(others / unit, farther / len(own), float(np.quantile(own, 0.95)) / unit)
