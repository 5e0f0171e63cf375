"""Measures of agreement between raters, from counts; a measure that is not defined says why.

Preferences are codes: 0 a, 1 b, 2 tie, -1 none (no label, or the judge abstained). Each measure is there twice: for one
table of counts as a `Figure`, and for many at once (`accuracies`, `kappas`, `ac1s`, `alphas`), with nan where it is not
defined, for `rlaif.agreement.bootstrap`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from rlaif.agreement.results import Interval, Ties
from rlaif.stats import wilson

Codes = npt.NDArray[np.int8]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

CATEGORIES = 3  # a, b, tie


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure with its 95% interval; where either is not defined it is `None`, and `reason` says why."""

    value: float | None
    ci: Interval | None = None
    reason: str | None = None


def _fixed(*rows: tuple[float, float, float]) -> Floats:
    matrix: Floats = np.array(rows, dtype=np.float64)
    matrix.setflags(write=False)
    return matrix


_ALL = _fixed((1, 1, 1), (1, 1, 1), (1, 1, 1))

TIES: Mapping[Ties, tuple[Floats, Floats]] = MappingProxyType(
    {
        # A tie is a third answer, right only for a tie.
        "count": (_fixed((1, 0, 0), (0, 1, 0), (0, 0, 1)), _ALL),
        # Where just one of the two says tie, the other has half of it right: a coin would decide.
        "half": (_fixed((1, 0, 0.5), (0, 1, 0.5), (0.5, 0.5, 1)), _ALL),
        # Only pairs on which both took a side.
        "drop": (_fixed((1, 0, 0), (0, 1, 0), (0, 0, 0)), _fixed((1, 1, 0), (1, 1, 0), (0, 0, 0))),
    }
)
"""For each way with ties: the score of each cell of a confusion matrix, and whether the cell counts, each (3, 3)."""


def confusion(first: npt.NDArray[np.integer], second: npt.NDArray[np.integer]) -> Ints:
    """Count the pairs by both preferences, (3, 3): rows are the first rater's; pairs that either left out are not in.

    Args:
        first: codes, (pairs,).
        second: codes of the same pairs.
    """
    both = (first >= 0) & (second >= 0)
    places = first[both].astype(np.int64) * CATEGORIES + second[both]
    return np.bincount(places, minlength=CATEGORIES**2).astype(np.int64).reshape(CATEGORIES, CATEGORIES)


def cells(first: npt.NDArray[np.integer], second: npt.NDArray[np.integer]) -> Floats:
    """Profiles of pairs for the bootstrap, (pairs, 9): 1 in the pair's cell of the confusion matrix, row by row."""
    both = np.flatnonzero((first >= 0) & (second >= 0))
    profiles = np.zeros((len(first), CATEGORIES**2))
    profiles[both, first[both].astype(np.int64) * CATEGORIES + second[both]] = 1
    return profiles


def accuracy_scores(
    human: npt.NDArray[np.integer], judge: npt.NDArray[np.integer], ties: Ties
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Score each pair 0 to 1, and say whether it counts at all, each (pairs,); of a pair left out the score is 0."""
    scores, counts = TIES[ties]
    both = (human >= 0) & (judge >= 0)
    rows, columns = np.where(both, human, 0), np.where(both, judge, 0)
    counted: npt.NDArray[np.bool_] = both & (counts[rows, columns] > 0)
    return np.where(counted, scores[rows, columns], 0.0), counted


def accuracies(tables: Floats, ties: Ties) -> Floats:
    """Accuracy of many confusion matrices, (tables, 9) -> (tables,)."""
    scores, counts = TIES[ties]
    return _ratio(tables @ scores.ravel(), tables @ counts.ravel())


def accuracy(table: Ints, ties: Ties) -> Figure:
    """Share of pairs on which the judge agrees with people, with Wilson's interval.

    With `half` the scores are 0, 1/2 and 1. Such scores vary less than those of 0 and 1 with the same mean, so that
    Wilson's interval of the mean errs on the safe side; the bootstrap's is sharper.

    Args:
        table: confusion matrix, (3, 3).
        ties: how ties count, see `TIES`.
    """
    scores, counts = TIES[ties]
    n = int((table * counts).sum())
    if not n:
        return Figure(None, reason=_nothing(table, "no pair is left without ties"))
    right = float((table * scores).sum())
    return Figure(right / n, wilson(right, n))


def kappas(tables: Floats) -> Floats:
    """Cohen's kappa of many confusion matrices, (tables, 9) -> (tables,)."""
    square = tables.reshape(-1, CATEGORIES, CATEGORIES)
    n = square.sum(axis=(1, 2))
    # In counts of pairs times n: whole numbers, so that 1 - 1 is 0.
    by_chance = (square.sum(axis=2) * square.sum(axis=1)).sum(axis=1)
    return _ratio(n * np.trace(square, axis1=1, axis2=2) - by_chance, n * n - by_chance)


def cohen_kappa(table: Ints) -> Figure:
    """Agreement of two raters beyond what their own shares of answers would give by chance; 1 is perfect, 0 chance.

    The interval is the bootstrap's matter. Source: Cohen (1960), A coefficient of agreement for nominal scales.
    """
    alike = "both give one and the same answer everywhere, so that agreement by chance is already complete"
    return _figure(kappas(table.reshape(1, -1).astype(np.float64)), _nothing(table, alike))


def ac1_profiles(counts: npt.NDArray[np.number]) -> Floats:
    """Profiles of pairs for `ac1s`, (pairs, 3 + categories), from the raters per category, (pairs, categories).

    Columns: whether two raters or more, their share of agreeing rater pairs, whether any rater, shares of categories.
    """
    raters = counts.sum(axis=1).astype(np.float64)
    several, any_rater = raters >= 2, raters >= 1
    agreeing = _ratio((counts * (counts - 1.0)).sum(axis=1), raters * (raters - 1))
    shares = counts / np.where(any_rater, raters, 1)[:, None]
    return np.column_stack([several, np.where(several, agreeing, 0), any_rater, shares]).astype(np.float64)


def ac1s(sums: Floats, categories: int) -> Floats:
    """Gwet's AC1 of many sums of `ac1_profiles`, (sums, 3 + categories) -> (sums,), on a scale of `categories`."""
    observed, shares = _ratio(sums[:, 1], sums[:, 0]), _ratio(sums[:, 3:], sums[:, 2:3])
    by_chance = (shares * (1 - shares)).sum(axis=1) / (max(categories, 2) - 1)
    return _ratio(observed - by_chance, 1 - by_chance)


def used_categories(counts: npt.NDArray[np.number]) -> int:
    """How many categories anyone used, 2 at least: the scale's length for Gwet's AC1."""
    return max(2, int((counts.sum(axis=0) > 0).sum()))


def gwet_ac1_many(counts: npt.NDArray[np.number], categories: int | None = None) -> Figure:
    """Agreement beyond chance that stays steady where almost all answers are the same, for any number of raters.

    Source: Gwet (2008), Computing inter-rater reliability and its variance in the presence of high agreement, with
    missing ratings as in his Handbook of inter-rater reliability (2014).

    Args:
        counts: raters per category of each pair, (pairs, categories); pairs with one rater tell the shares only.
        categories: length of the scale; without it as many as were used, at least 2.
    """
    sums = ac1_profiles(counts).sum(axis=0, keepdims=True)
    return _figure(ac1s(sums, categories or used_categories(counts)), _no_couples(counts))


def gwet_ac1(table: Ints, categories: int | None = None) -> Figure:
    """Gwet's AC1 of two raters from their confusion matrix, see `gwet_ac1_many`."""
    shares = table.sum(axis=0) + table.sum(axis=1)
    n = table.sum()
    sums = np.array([[n, np.trace(table), n, *(shares / 2)]], dtype=np.float64)
    return _figure(ac1s(sums, categories or used_categories(shares[None])), _nothing(table, ""))


def alpha_profiles(counts: npt.NDArray[np.number]) -> Floats:
    """Profiles of pairs for `alphas`, (pairs, categories + 1), from the raters per category, (pairs, categories).

    Columns: the ratings of each category that meet another rating of the pair, and the coincidences that agree.
    """
    raters = counts.sum(axis=1, keepdims=True).astype(np.float64)
    paired = np.where(raters >= 2, counts, 0.0)
    agreeing = _ratio((paired * (paired - 1)).sum(axis=1), np.maximum(raters[:, 0] - 1, 1))
    return np.column_stack([paired, np.where(raters[:, 0] >= 2, agreeing, 0)])


def alphas(sums: Floats) -> Floats:
    """Krippendorff's alpha of many sums of `alpha_profiles`, (sums, categories + 1) -> (sums,)."""
    ratings, agreeing = sums[:, :-1], sums[:, -1]
    n = ratings.sum(axis=1)
    values: Floats = 1 - _ratio((n - 1) * (n - agreeing), n * n - (ratings * ratings).sum(axis=1))
    return values


def krippendorff_alpha(counts: npt.NDArray[np.number]) -> Figure:
    """Krippendorff's alpha for names (nominal data), any number of raters; pairs with fewer than two are left out.

    Source: Krippendorff (2011), Computing Krippendorff's alpha-reliability.

    Args:
        counts: raters per category of each pair, (pairs, categories).
    """
    alike = "all ratings are the same, so that no disagreement could be expected"
    return _figure(alphas(alpha_profiles(counts).sum(axis=0, keepdims=True)), _no_couples(counts) or alike)


def _ratio(over: Floats, under: Floats) -> Floats:
    """Divide; nan where there is nothing to divide by."""
    defined = np.broadcast_to(under > 0, over.shape)
    ratio: Floats = np.divide(over, under, out=np.full(over.shape, np.nan), where=defined)
    return ratio


def _figure(values: Floats, reason: str | None) -> Figure:
    value = float(values[0])
    return Figure(None, reason=reason) if np.isnan(value) else Figure(value)


def _nothing(table: Ints, otherwise: str) -> str:
    return otherwise if table.sum() else "no pair has a preference of both"


def _no_couples(counts: npt.NDArray[np.number]) -> str | None:
    return None if (counts.sum(axis=1) >= 2).any() else "no pair has two ratings"
