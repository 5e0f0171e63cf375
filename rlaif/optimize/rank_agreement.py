"""How far two rewards agree on the same responses: which of two is better, in what order, and by how much. Pure.

A margin is the reward of the first response of a pair less that of the second. Which one is first is a matter of
chance, so every figure here is the same when any pair is turned round: correlations of margins are those of all pairs
taken both ways, (m1, m2) and (-m1, -m2), so that the centre is 0 and a common lean to one side is not thrown away.

Intervals are the bootstrap's, with pairs of one prompt drawn together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rlaif.agreement.bias import Sampling, drawn_or
from rlaif.agreement.bootstrap import bootstrap
from rlaif.agreement.metrics import Figure
from rlaif.rewards.preferences import Floats, Ints
from rlaif.stats import wilson

Bools = npt.NDArray[np.bool_]

MOST_PAIRS = 300
"""Pairs of one row that are compared; of more than 24 candidates so many are drawn."""

# Comparisons for an interval of Kendall's tau: beyond them each pair is held against a part of the others.
_COMPARISONS = 20_000_000
_CELLS = 4_000_000  # numbers held at once
_NONE = "neither prefers a response of any pair"


@dataclass(frozen=True)
class ResponsePairs:
    """Two responses to the same prompt each: their places among all responses, and the prompt, each (pairs,)."""

    first: Ints
    second: Ints
    prompt: Ints

    def __len__(self) -> int:
        return len(self.first)

    def margins(self, rewards: Floats) -> Floats:
        """Reward of the first response less that of the second, (responses, …) -> (pairs, …)."""
        found: Floats = rewards[self.first] - rewards[self.second]
        return found


@dataclass(frozen=True)
class Ranking:
    """Mean rank correlation within the rows that have more than two responses and are ordered by both rewards."""

    rows: int
    kendall: Figure
    spearman: Figure


def response_pairs(row_of: Ints, prompt_of: Ints, *, seed: int = 0) -> ResponsePairs:
    """All pairs of responses that stand in one row, of long rows `MOST_PAIRS` drawn by the seed.

    Args:
        row_of: the row of each response, (responses,), in any order.
        prompt_of: a number for its prompt, (responses,).
        seed: of the draw; a row's pairs depend on its number and size alone.
    """
    order = np.argsort(row_of, kind="stable")
    rows, starts, sizes = np.unique(row_of[order], return_index=True, return_counts=True)
    first: list[Ints] = []
    second: list[Ints] = []
    for row, start, size in zip(rows.tolist(), starts.tolist(), sizes.tolist(), strict=True):
        i, j = np.triu_indices(size, 1)
        if len(i) > MOST_PAIRS:
            kept = np.sort(np.random.default_rng([seed, row]).choice(len(i), MOST_PAIRS, replace=False))
            i, j = i[kept], j[kept]
        first.append(order[start + i])
        second.append(order[start + j])
    none = np.zeros(0, dtype=np.int64)
    one, other = (np.concatenate([none, *each]).astype(np.int64) for each in (first, second))
    return ResponsePairs(one, other, prompt_of[one])


def same_preference(first: Floats, second: Floats) -> Floats:
    """Whether two rewards prefer the same response, from their margins, (pairs,).

    1 the same, 0 the other one, one half where just one of them prefers none, nan where neither does.
    """
    one, other = np.sign(first), np.sign(second)
    return np.where((one == 0) & (other == 0), np.nan, 0.5 + 0.5 * one * other)


def opposed(first: Floats, second: Floats) -> Bools:
    """Where two rewards prefer different responses, (pairs,)."""
    found: Bools = first * second < 0
    return found


def rms(margins: Floats) -> float:
    """Root mean square of margins, their natural unit; 0 where all are."""
    return float(np.sqrt(np.mean(np.square(margins)))) if len(margins) else 0.0


def clearness(first: Floats, second: Floats) -> Floats:
    """How clearly both rewards prefer a response: the smaller of the two margins in units of their size, (pairs,)."""
    units = [rms(margins) or 1.0 for margins in (first, second)]
    return np.minimum(np.abs(first) / units[0], np.abs(second) / units[1])


def clear_half(first: Floats, second: Floats) -> Bools:
    """The half of the pairs that are clearest to both rewards, (pairs,); where either prefers none is never in."""
    clear = clearness(first, second)
    known = clear > 0
    found: Bools = known & (clear >= np.median(clear[known])) if known.any() else known
    return found


def mean_figure(values: Floats, clusters: Ints, sampling: Sampling, reason: str, *, share: bool = False) -> Figure:
    """Mean of the values that are known with its interval; a share of too little variety has Wilson's.

    Args:
        values: (cases,); nan is left out.
        clusters: cases that are drawn together, (cases,).
        sampling: how intervals are drawn.
        reason: why there is no figure, where no value is known.
        share: whether the values are 0 to 1.
    """
    known = np.isfinite(values)
    if not known.any():
        return Figure(None, reason=reason)
    values, clusters = values[known], clusters[known]
    profiles = np.column_stack([values, np.ones(len(values))])
    spread = bootstrap(profiles, lambda sums: sums[:, 0] / sums[:, 1], clusters, sampling.resamples, sampling.seed)
    # What is drawn together counts once: so many cases are the least that are known.
    groups = len(np.unique(clusters))
    safe = wilson(min(float(values.mean()) * groups, groups), groups) if share else None
    return Figure(float(values.mean()), drawn_or(spread, safe), spread.reason)


def pearson(first: Floats, second: Floats, clusters: Ints, sampling: Sampling) -> Figure:
    """Correlation of two rewards' margins, each pair taken both ways, (pairs,)."""
    return _cosine(first, second, clusters, sampling)


def spearman(first: Floats, second: Floats, clusters: Ints, sampling: Sampling) -> Figure:
    """Rank correlation of two rewards' margins, each pair taken both ways, (pairs,).

    The ranks of resamples are those of the data.
    """
    return _cosine(signed_ranks(first), signed_ranks(second), clusters, sampling)


def signed_ranks(margins: Floats) -> Floats:
    """Ranks of margins among all margins taken both ways, less the middle one, (pairs,): 0 stays 0, equals are equal.

    For 3, -1 and 2 among 3, 2, 1, -1, -2 and -3: 2.5, -0.5 and 1.5.
    """
    size = np.abs(margins)
    ordered = np.sort(size)
    below, upto = (np.searchsorted(ordered, size, side=side) for side in ("left", "right"))
    ranks: Floats = np.sign(margins) * (below + upto) / 2
    return ranks


def kendall(first: Floats, second: Floats, clusters: Ints, sampling: Sampling) -> Figure:
    """Kendall's tau-b of two rewards' margins, each pair taken both ways, (pairs,).

    The interval resamples what each pair adds to the sums (to the first order, exact for many pairs).
    """
    if not (first.any() and second.any()):
        return Figure(None, reason="a reward prefers no response of any pair")
    from scipy.stats import kendalltau

    both = [np.concatenate([margins, -margins]) for margins in (first, second)]
    value = float(kendalltau(*both).statistic)
    if not sampling.resamples:
        return Figure(value, reason="no resamples were asked for")
    profiles = _concordance(first, second, sampling.seed)
    whole = profiles.sum(axis=0)

    def tau(sums: Floats) -> Floats:
        # A sum over pairs of pairs moves twice as much as the sum of one side's shares in it.
        moved = np.maximum(2 * sums - whole, [[-np.inf, 0, 0]])
        return np.clip(_ratio(moved[:, 0], np.sqrt(moved[:, 1] * moved[:, 2])), -1, 1)

    spread = bootstrap(profiles, tau, clusters, sampling.resamples, sampling.seed)
    return Figure(value, spread.ci, spread.reason)


def _concordance(first: Floats, second: Floats, seed: int) -> Floats:
    """For each margin against the others both ways: orders alike less unlike, and those each orders, (pairs, 3)."""
    count = len(first)
    partners = np.arange(count)
    if count * count > _COMPARISONS:
        partners = np.random.default_rng([seed, 1]).permutation(count)[: max(_COMPARISONS // count, 100)]
    mine = [np.concatenate([margins[partners], -margins[partners]]) for margins in (first, second)]
    found = np.empty((count, 3))
    step = max(1, _CELLS // len(mine[0]))
    for start in range(0, count, step):
        part = slice(start, start + step)
        one, other = (
            np.sign(margins[part, None] - against).astype(np.int8)
            for margins, against in zip((first, second), mine, strict=True)
        )
        found[part] = np.column_stack(
            [(one * other).sum(axis=1, dtype=np.int64), (one != 0).sum(axis=1), (other != 0).sum(axis=1)]
        )
    return found


def within_rows(first: Floats, second: Floats, row_of: Ints, prompt_of: Ints, sampling: Sampling) -> Ranking | None:
    """Mean Kendall tau-b and Spearman correlation of two rewards among the responses of a row; `None` without rows.

    Rows of one or two responses are left out (a pair has an order, but no degree of it), and so are rows that either
    reward does not order at all.

    Args:
        first: one reward of each response, (responses,).
        second: the other.
        row_of: the row of each response, (responses,).
        prompt_of: a number for its prompt; rows of one prompt are drawn together.
        sampling: how intervals are drawn.
    """
    order = np.argsort(row_of, kind="stable")
    _, starts, sizes = np.unique(row_of[order], return_index=True, return_counts=True)
    taus: list[Floats] = []
    rhos: list[Floats] = []
    clusters: list[Ints] = []
    for size in np.unique(sizes[sizes > 2]).tolist():
        rows = order[starts[sizes == size][:, None] + np.arange(size)]  # (rows, size)
        step = max(1, _CELLS // (size * size))
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            one, other = (
                np.sign(reward[some][:, :, None] - reward[some][:, None]).astype(np.int8) for reward in (first, second)
            )
            alike = (one * other).sum(axis=(1, 2), dtype=np.int64)
            taus.append(_ratio(alike, np.sqrt((one != 0).sum(axis=(1, 2)) * (other != 0).sum(axis=(1, 2)) * 1.0)))
            # A rank, less the middle one, is half of the wins less the losses.
            ranks = [signs.sum(axis=2, dtype=np.float64) for signs in (one, other)]
            both, each = (ranks[0] * ranks[1]).sum(axis=1), [np.square(rank).sum(axis=1) for rank in ranks]
            rhos.append(_ratio(both, np.sqrt(each[0] * each[1])))
            clusters.append(prompt_of[some[:, 0]])
    if not taus:
        return None
    group = np.concatenate(clusters)
    tau, rho = np.concatenate(taus), np.concatenate(rhos)
    reason = "no row is ordered by both"
    return Ranking(
        rows=int(np.isfinite(tau).sum()),
        kendall=mean_figure(tau, group, sampling, reason),
        spearman=mean_figure(rho, group, sampling, reason),
    )


def _cosine(first: Floats, second: Floats, clusters: Ints, sampling: Sampling) -> Figure:
    profiles = np.column_stack([first * second, np.square(first), np.square(second)])

    def statistic(sums: Floats) -> Floats:
        return _ratio(sums[:, 0], np.sqrt(sums[:, 1] * sums[:, 2]))

    value = float(statistic(profiles.sum(axis=0, keepdims=True))[0])
    if np.isnan(value):
        return Figure(None, reason="a reward prefers no response of any pair" if len(first) else _NONE)
    spread = bootstrap(profiles, statistic, clusters, sampling.resamples, sampling.seed)
    return Figure(value, spread.ci, spread.reason)


def _ratio(over: npt.NDArray[np.number], under: Floats) -> Floats:
    ratio: Floats = np.divide(over, under, out=np.full(over.shape, np.nan), where=under > 0)
    return ratio
