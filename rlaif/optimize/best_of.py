"""What the best of n responses is worth, and how far it is from the policy: exact sums over a pool of samples. Pure.

From a pool of N samples of a prompt the best of n < N could be drawn in C(N, n) ways. Its mean over all of them needs
no drawing: sorted by what they are picked by, the i-th from below is the best of C(i - 1, n - 1) of them.

Source: Nakano et al. (2021), WebGPT, appendix I; Gao, Schulman and Hilton (2023), section 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from rlaif.rewards.preferences import Floats, Ints

_NEWTON = 60
_EACH, _FOR_DOUBLING = 8, 4
_CELLS = 4_000_000  # numbers held at once


def kl_of_best(n: float) -> float:
    """Divergence of the best of n from the policy that it was sampled from, in nats: log n - (n - 1) / n.

    It holds where no two samples tie, and is the most it can be where some do. Any n from 1 on has one, whole or not.
    """
    return math.log(n) - (n - 1) / n


def best_with_kl(kl: float) -> float:
    """The n, whole or not, at which `kl_of_best` is so much."""
    if kl <= 0:
        return 1.0
    # By x = log n: x - 1 + exp(-x) is convex and rises, so that Newton's steps from the right never pass the root.
    x = kl + 1
    for _ in range(_NEWTON):
        step = (x - 1 + math.exp(-x) - kl) / -math.expm1(-x)
        x -= step
        if step < 1e-14 * x:
            break
    return math.exp(x)


def sizes_up_to(most: int) -> Ints:
    """A grid of n from 1 to `most`: every n up to 8, then 4 for each doubling, evenly by the logarithm."""
    steps = max(math.ceil(_FOR_DOUBLING * math.log2(most / _EACH)), 1) if most > _EACH else 0
    spaced = np.rint(np.geomspace(min(_EACH, most), most, steps + 1)).astype(np.int64)
    return np.unique(np.concatenate([np.arange(1, min(most, _EACH) + 1), spaced])).astype(np.int64)


def best_weights(pool: int, sizes: Sequence[int] | Ints) -> Floats:
    """Chance that the i-th sample from below is the best of n drawn from the pool, (sizes, pool): rows sum to 1.

    Args:
        pool: how many samples there are, N.
        sizes: each n, from 1 to N.
    """
    wanted = np.asarray(sizes, dtype=np.int64)
    if pool < 1 or wanted.size == 0 or wanted.min() < 1 or wanted.max() > pool:
        raise ValueError(f"best of {wanted.tolist()} out of {pool}")
    # By logarithms: C(1000, 500) has 300 digits.
    factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, pool + 1)))])
    below = np.arange(pool)[None]  # i - 1
    others = wanted[:, None] - 1  # n - 1
    possible = below >= others
    left = np.where(possible, below - others, 0)
    ways = factorial[below] - factorial[others] - factorial[left]
    of = factorial[pool] - factorial[wanted] - factorial[pool - wanted]
    weights: Floats = np.where(possible, np.exp(ways - of[:, None]), 0.0)
    return weights


def best_of(picked_by: Floats, values: Floats, sizes: Sequence[int] | Ints) -> Floats:
    """Expected values of the sample that has most of what it is picked by, among n: (prompts, sizes, values).

    Samples that tie are as likely to be picked as each other, so each stands for their mean.

    Args:
        picked_by: of the samples of prompts that have as many each, (prompts, samples), finite.
        values: what is measured of them, (prompts, samples, values); their own scores may be one of the columns.
        sizes: each n, from 1 to the number of samples.
    """
    pool = picked_by.shape[1]
    order = np.argsort(picked_by, axis=1, kind="stable")
    ranked = np.take_along_axis(picked_by, order, axis=1)
    place = np.arange(pool)
    rises = np.concatenate([np.ones((len(ranked), 1), dtype=np.bool_), np.diff(ranked, axis=1) > 0], axis=1)
    ends = np.concatenate([rises[:, 1:], rises[:, :1]], axis=1)
    first = np.maximum.accumulate(np.where(rises, place, 0), axis=1)
    after = np.minimum.accumulate(np.where(ends, place, pool)[:, ::-1], axis=1)[:, ::-1] + 1
    # The chance of a level is that of all its places, shared alike.
    chance = np.concatenate([np.zeros((len(sizes), 1)), np.cumsum(best_weights(pool, sizes), axis=1)], axis=1).T
    weights = (chance[after] - chance[first]) / (after - first)[..., None]  # (prompts, samples, sizes)
    found: Floats = weights.swapaxes(1, 2) @ np.take_along_axis(values, order[..., None], axis=1)
    return found


def best_of_each(picked_by: Floats, values: Floats, starts: Ints, sizes: Sequence[int] | Ints) -> Floats:
    """`best_of` of prompts that may have pools of different sizes, (prompts, sizes, values).

    Args:
        picked_by: of all samples, prompt after prompt, (samples,).
        values: of all samples, (samples, values).
        starts: the row of each prompt's first sample, and at the end the number of rows, (prompts + 1,).
        sizes: each n, at most the number of samples of every prompt.
    """
    counts = np.diff(starts)
    found = np.empty((len(counts), len(sizes), values.shape[1]))
    for pool in np.unique(counts).tolist():
        alike = np.flatnonzero(counts == pool)
        at_once = max(1, _CELLS // (pool * (len(sizes) + values.shape[1])))
        for begin in range(0, len(alike), at_once):
            some = alike[begin : begin + at_once]
            rows = starts[some][:, None] + np.arange(pool)
            found[some] = best_of(picked_by[rows], values[rows], sizes)
    return found
