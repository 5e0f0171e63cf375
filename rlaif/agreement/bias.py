"""What moves a judge besides quality: places, length, form, and responses of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlaif.agreement.align import SCORES, Aligned, Bools
from rlaif.agreement.bootstrap import Spread, bootstrap
from rlaif.agreement.metrics import Codes, Floats, Ints, accuracy, accuracy_scores, cohen_kappa, confusion
from rlaif.agreement.notes import Notes
from rlaif.agreement.people import rate_of
from rlaif.agreement.regression import logistic_slope, slope_gap
from rlaif.agreement.results import FormatBias, Interval, LengthBias, PositionBias, Rate, SelfPreference, Slope, Ties
from rlaif.agreement.texts import FEATURES
from rlaif.stats import wilson

NO_TEXTS = "the texts of the pairs are not known; give them with --pairs"
_ROUNDING = 1e-9
_TIE = 2


@dataclass(frozen=True)
class PairView:
    """What is known of the pairs, row by row of the pairs that people labelled.

    `known` says of which the texts are, `length` is in characters, `form` has a bit a feature; `clusters` are equal
    where prompts are, `None` where no prompt repeats or none is known.
    """

    known: Bools
    length: Ints
    form: Ints
    writers: Ints
    clusters: Ints | None


@dataclass(frozen=True)
class Sampling:
    """How intervals are drawn."""

    resamples: int
    seed: int


def rate(right: float, n: int) -> Rate:
    """A share with Wilson's interval, `None` where n is 0."""
    return Rate(n=n, value=right / n if n else None, ci=wilson(right, n) if n else None)


def drawn_or(spread: Spread | None, otherwise: Interval | None) -> Interval | None:
    """The interval of resamples, or the other where none was drawn, or where all resamples are the same.

    Of data without exception a resample has none either, and an interval of no width would claim certainty.
    """
    if spread is None or spread.ci is None or spread.ci[0] == spread.ci[1]:
        return otherwise
    return spread.ci


def position(aligned: Aligned, ties: Ties, sampling: Sampling, why_no_orders: str, notes: Notes) -> PositionBias:
    """Compare the verdicts of the two orders, over all that the judge labelled; accuracy where people did too."""
    folded = aligned.folded
    both = (folded.ab >= 0) & (folded.ba >= 0)
    ab, ba = folded.ab[both], folded.ba[both]
    if not len(ab):
        return _from_gaps(aligned, why_no_orders, notes)
    # A verdict is for the first place where it is for a in ab, and for b in ba.
    first = (ab == 0).astype(np.int64) + (ba == 1)
    decided = (ab != _TIE).astype(np.int64) + (ba != _TIE)
    verdicts = int(decided.sum())
    first_rate = rate(float(first.sum()), verdicts)
    ci = first_rate.ci
    if verdicts and sampling.resamples:
        # Two verdicts of a pair depend on each other, so pairs are drawn.
        drawn = bootstrap(
            np.column_stack([first, decided]),
            lambda sums: sums[:, 0] / sums[:, 1],
            None,
            sampling.resamples,
            sampling.seed,
        )
        ci = drawn_or(drawn, ci)
    between = confusion(ab, ba)
    agreement = rate(float(np.trace(between)), len(ab))
    if not verdicts:
        notes.missing("position.first_rate", "every verdict is a tie")
    accuracies, kappas = _by_order(aligned, ties, notes)
    return PositionBias(
        n=len(ab),
        agreement=agreement.value,
        agreement_ci=agreement.ci,
        first_rate=first_rate.value,
        first_rate_ci=ci,
        kappa_between_orders=notes.value("position.kappa_between_orders", cohen_kappa(between)),
        accuracy=accuracies,
        kappa=kappas,
    )


def _by_order(aligned: Aligned, ties: Ties, notes: Notes) -> tuple[dict[str, float], dict[str, float]]:
    there = (aligned.ab >= 0) & (aligned.ba >= 0) & (aligned.people.gold >= 0)
    gold = aligned.people.gold[there]
    accuracies, kappas = {}, {}
    right = np.ones(len(gold), dtype=np.bool_)
    counted = np.ones(len(gold), dtype=np.bool_)
    for order, said in (("ab", aligned.ab[there]), ("ba", aligned.ba[there])):
        table = confusion(gold, said)
        share = notes.value(f"position.accuracy.{order}", accuracy(table, ties))
        kappa = notes.value(f"position.kappa.{order}", cohen_kappa(table))
        if share is not None:
            accuracies[order] = share
        if kappa is not None:
            kappas[order] = kappa
        scores, counts = accuracy_scores(gold, said, ties)
        right &= scores == 1
        counted &= counts
    if len(accuracies) == 2:
        accuracies["mean"] = (accuracies["ab"] + accuracies["ba"]) / 2
    if counted.any():
        accuracies["both"] = float(right[counted].mean())
    return accuracies, kappas


def _from_gaps(aligned: Aligned, why_no_orders: str, notes: Notes) -> PositionBias:
    """Tell from mean `p_a` and the gap between the orders whether both are on one side; which was first is not told."""
    folded = aligned.folded
    there = np.isfinite(folded.gap) & np.isfinite(folded.p_a)
    gap, margin = folded.gap[there], np.abs(folded.p_a[there] - 0.5)
    same = (gap < _ROUNDING) | (margin > gap / 2 + _ROUNDING)
    agreement = rate(float(same.sum()), len(gap))
    if not len(gap):
        notes.missing("position", why_no_orders)
    else:
        notes.missing("position.first_rate", "labels alone do not tell the orders apart; give the run's folder")
    return PositionBias(
        n=len(gap),
        agreement=agreement.value,
        agreement_ci=agreement.ci,
        first_rate=None,
        first_rate_ci=None,
        kappa_between_orders=None,
        accuracy={},
        kappa={},
    )


def length(aligned: Aligned, view: PairView, ties: Ties, sampling: Sampling, notes: Notes) -> LengthBias:
    """Hold choices of judge and people against the lengths, on the pairs that both labelled."""
    scored = aligned.scored & view.known
    if not scored.any():
        notes.missing("length", NO_TEXTS if not view.known.any() else "no pair with texts has labels of both")
    a, b = view.length[scored].T
    judge, gold = aligned.judge[scored], aligned.people.gold[scored]
    unequal = a != b
    # One more, since a response may be empty.
    feature = np.log1p(a[unequal]) - np.log1p(b[unequal])
    by_judge, by_people = SCORES[judge[unequal]], SCORES[gold[unequal]]
    longer = np.where(a > b, 0, 1)[unequal]
    judge_longer, human_longer = (_chosen(said[unequal], longer) for said in (judge, gold))
    slopes = logistic_slope(feature, by_judge), logistic_slope(feature, by_people)
    clusters = None if view.clusters is None else view.clusters[scored][unequal]
    gap = slope_gap(feature, by_judge, by_people, clusters, sampling.resamples, sampling.seed)
    alike = np.abs(a - b) * 10 <= np.maximum(a, b)
    if scored.any():
        _note_lengths(notes, slopes, judge_longer, human_longer)
        notes.value("length.slope_gap", gap)
    return LengthBias(
        n=int(unequal.sum()),
        judge_longer=judge_longer.value,
        judge_longer_ci=judge_longer.ci,
        human_longer=human_longer.value,
        human_longer_ci=human_longer.ci,
        judge_slope=slopes[0],
        human_slope=slopes[1],
        slope_gap=gap.value,
        slope_gap_ci=gap.ci,
        controlled_agreement=rate_of(confusion(gold[alike], judge[alike]), ties),
    )


def _note_lengths(notes: Notes, slopes: tuple[Slope, Slope], judge: Rate, human: Rate) -> None:
    for name, slope in zip(("judge_slope", "human_slope"), slopes, strict=True):
        if slope.value is None:
            notes.missing(f"length.{name}", slope.reason)
    for name, each in (("judge_longer", judge), ("human_longer", human)):
        if each.value is None:
            notes.missing(f"length.{name}", "no pair of unequal length with a choice between a and b")


def _chosen(said: Codes, target: Ints) -> Rate:
    """How often the response named by `target` (0 a, 1 b) is chosen, ties aside."""
    decided = (said == 0) | (said == 1)
    return rate(float((said[decided] == target[decided]).sum()), int(decided.sum()))


def form(aligned: Aligned, view: PairView, notes: Notes) -> tuple[FormatBias, ...]:
    """Choice of the response with a feature of form, where just one has it."""
    scored = aligned.scored & view.known
    if not scored.any():
        notes.missing("format", NO_TEXTS if not view.known.any() else "no pair with texts has labels of both")
        return ()
    found = []
    for bit, feature in enumerate(FEATURES):
        has = (view.form >> bit) & 1
        one = np.flatnonzero(scored & (has[:, 0] != has[:, 1]))
        holder = np.where(has[one, 0] == 1, 0, 1)
        judge, human = (_chosen(said[one], holder) for said in (aligned.judge, aligned.people.gold))
        found.append(FormatBias(feature=feature, judge=judge, human=human))
        if not judge.n:
            notes.missing(f"format.{feature}", "no pair where just one response has it")
    return tuple(found)


def self_preference(
    aligned: Aligned, view: PairView, generators: dict[str, int], mine: tuple[str, ...], notes: Notes
) -> tuple[SelfPreference, ...]:
    """Choice of the responses of the judge's own model, where just one of the two is its own."""
    if not generators:
        notes.missing(
            "self_preference", "who wrote the responses is not told; tags generator_a and generator_b tell it"
        )
    elif not mine:
        notes.missing(
            "self_preference", "none of the generators has the judge's name; give its own model's with --generator"
        )
    found = []
    for name in mine:
        own = view.writers == generators.get(name, -2)
        one = np.flatnonzero(aligned.scored & (own[:, 0] != own[:, 1]))
        side = np.where(own[one, 0], 0, 1)
        judge, human = (_chosen(said[one], side) for said in (aligned.judge, aligned.people.gold))
        found.append(SelfPreference(generator=name, judge=judge, human=human))
        if not judge.n:
            notes.missing(f"self_preference.{name}", "no pair that both labelled has just one response of it")
    return tuple(found)


def scores(codes: Codes) -> Floats:
    """Wins of a: 1, 0, 1/2 for a tie, nan for none."""
    found: Floats = SCORES[codes]
    return found
