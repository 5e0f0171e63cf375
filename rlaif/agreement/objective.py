"""One judge against people under one objective: every figure of the comparison."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from rlaif.agreement import bias
from rlaif.agreement.align import Aligned, one_hot
from rlaif.agreement.alt_test import Annotations, alt_test_of_labels
from rlaif.agreement.bias import PairView, Sampling, drawn_or
from rlaif.agreement.bootstrap import Spread, bootstrap
from rlaif.agreement.calibration import calibrate
from rlaif.agreement.metrics import (
    TIES,
    Floats,
    Ints,
    ac1s,
    accuracies,
    accuracy,
    accuracy_scores,
    alpha_profiles,
    alphas,
    cells,
    cohen_kappa,
    confusion,
    gwet_ac1,
    kappas,
    krippendorff_alpha,
    used_categories,
)
from rlaif.agreement.notes import Notes
from rlaif.agreement.people import humans
from rlaif.agreement.ppi import powered_mean
from rlaif.agreement.results import AltTest, Interval, ObjectiveComparison, TagAgreement, Ties, WinRate
from rlaif.agreement.texts import PairTexts
from rlaif.data.human import PREFERENCES
from rlaif.stats import wilson

FEW = 30
_LOW_MASS, _LOW_COVERAGE, _MANY_SPLIT = 0.5, 0.9, 0.05
_SLIGHT = 0.2  # agreement that Landis and Koch (1977) call slight
_MOST_GENERATORS = 50


@dataclass(frozen=True)
class Asked:
    """What a comparison is asked for."""

    ties: Ties
    sampling: Sampling
    epsilon: float
    generator: str | None = None


@dataclass(frozen=True)
class Known:
    """What is known of the pairs: the gatherer of their texts, the view of this objective's, and all writers."""

    texts: PairTexts
    view: PairView
    writers: Ints


def compare_objective(
    aligned: Aligned, known: Known, judge: str, asked: Asked, why_no_orders: str, ids: list[str]
) -> ObjectiveComparison:
    """Compute everything; what is not defined on the data is told in `not_defined`.

    Args:
        aligned: the judge's labels beside people's votes.
        known: what is known of the pairs.
        judge: its name.
        asked: ways with ties, resamples, and the like.
        why_no_orders: why there would be no verdicts of each order.
        ids: of pairs, by place.
    """
    people, scored, notes = aligned.people, aligned.scored, Notes()
    gold, said = people.gold[scored], aligned.judge[scored]
    table = confusion(gold, said)
    share, kappa, ac1 = accuracy(table, asked.ties), cohen_kappa(table), gwet_ac1(table)
    with_judge = people.counts + one_hot(aligned.judge)
    # Of pairs that the judge left out the people alone say nothing of the judge.
    alpha = krippendorff_alpha(with_judge[aligned.judge >= 0])
    spreads = _spreads(aligned, known.view, table, with_judge, asked)
    covered = int((aligned.judge >= 0).sum())
    calibration = calibrate(aligned.p_a[scored], bias.scores(gold))
    if calibration.temperature is None:
        notes.missing("calibration.temperature" if calibration.n else "calibration", calibration.reason)
    elif calibration.ece_after is None:
        notes.missing("calibration.ece_after", calibration.reason)
    if not len(people.pairs):
        notes.missing("coverage", "people labelled no pair")
    mass = aligned.folded.mass[np.isfinite(aligned.folded.mass)]
    generators = known.texts.generators
    mine = (asked.generator,) if asked.generator else _own(judge, generators)
    alt_test = _alt_test(aligned, asked.epsilon, notes)
    found = ObjectiveComparison(
        n=int(scored.sum()),
        coverage=covered / len(people.pairs) if len(people.pairs) else None,
        abstained=int((aligned.judged & (aligned.judge < 0)).sum()),
        not_judged=int((~aligned.judged).sum()),
        ties=asked.ties,
        accuracy=notes.value("accuracy", share),
        # Wilson's is the better one of a rate, unless pairs of one prompt depend on each other.
        accuracy_ci=share.ci if known.view.clusters is None else drawn_or(spreads.get("accuracy"), share.ci),
        cohen_kappa=notes.value("cohen_kappa", kappa),
        cohen_kappa_ci=_ci("cohen_kappa", spreads, kappa.value, notes),
        krippendorff_alpha=notes.value("krippendorff_alpha", alpha),
        krippendorff_alpha_ci=_ci("krippendorff_alpha", spreads, alpha.value, notes),
        gwet_ac1=notes.value("gwet_ac1", ac1),
        gwet_ac1_ci=_ci("gwet_ac1", spreads, ac1.value, notes),
        confusion={
            human: {mine: int(table[x, y]) for y, mine in enumerate(PREFERENCES)} for x, human in enumerate(PREFERENCES)
        },
        humans=humans(aligned, asked.ties, notes),
        position=bias.position(aligned, asked.ties, asked.sampling, why_no_orders, notes),
        length=bias.length(aligned, known.view, asked.ties, asked.sampling, notes),
        format=bias.form(aligned, known.view, notes),
        self_preference=bias.self_preference(aligned, known.view, generators, mine, notes),
        calibration=calibration,
        alt_test=alt_test,
        win_rates=tuple(_win_rates(aligned, known, notes)),
        by_tag=tuple(_by_tag(aligned, known, asked.ties, notes)),
        disagreements=tuple(ids[people.pairs[row]] for row in disagreements(aligned, asked.ties)),
        choice_mass=float(mass.mean()) if len(mass) else None,
    )
    untold = int((scored & ~known.view.known).sum()) if known.view.known.any() else 0
    return found.model_copy(update={"not_defined": notes.reasons, "warnings": tuple(_warnings(found, untold))})


def _spreads(aligned: Aligned, view: PairView, table: Ints, with_judge: Ints, asked: Asked) -> dict[str, Spread]:
    sampling = asked.sampling
    if not sampling.resamples:
        return {}
    scored, judged = aligned.scored, aligned.judge >= 0
    # Two raters' AC1 on a scale of the answers that either used.
    categories = used_categories((table.sum(axis=0) + table.sum(axis=1))[None])
    profiles = cells(aligned.people.gold[scored], aligned.judge[scored])
    clusters = None if view.clusters is None else view.clusters[scored]
    # All of the same resamples: seed and profiles are the same.
    found = {}
    for name, statistic in (
        ("accuracy", lambda sums: accuracies(sums, asked.ties)),
        ("cohen_kappa", kappas),
        ("gwet_ac1", lambda sums: ac1s(_ac1_sums(sums), categories)),
    ):
        found[name] = bootstrap(profiles, statistic, clusters, sampling.resamples, sampling.seed)
    several = judged & (with_judge.sum(axis=1) >= 2)
    clusters = None if view.clusters is None else view.clusters[several]
    found["krippendorff_alpha"] = bootstrap(
        alpha_profiles(with_judge[several]), alphas, clusters, sampling.resamples, sampling.seed
    )
    return found


def _ac1_sums(sums: Floats) -> Floats:
    """Sums of `ac1_profiles` of two raters from confusion matrices, (tables, 9) -> (tables, 6)."""
    square = sums.reshape(-1, 3, 3)
    n = square.sum(axis=(1, 2))
    shares = (square.sum(axis=1) + square.sum(axis=2)) / 2
    return np.column_stack([n, np.trace(square, axis1=1, axis2=2), n, shares])


def _ci(name: str, spreads: dict[str, Spread], value: float | None, notes: Notes) -> Interval | None:
    if value is None:
        return None
    if name not in spreads:
        notes.missing(f"{name}_ci", "no resamples were asked for")
        return None
    ci = notes.spread(f"{name}_ci", spreads[name])
    if ci is not None and ci[0] == ci[1]:
        notes.missing(f"{name}_ci", "every resample gives the same value, and no width would claim certainty")
        return None
    return ci


def _alt_test(aligned: Aligned, epsilon: float, notes: Notes) -> AltTest:
    people = aligned.people
    judge = aligned.judge[people.vote_pair]
    there = judge >= 0
    found = alt_test_of_labels(
        Annotations(
            instance=people.vote_pair[there],
            annotator=people.vote_annotator[there],
            values=people.vote[there],
            judge=judge[there],
            names=people.names,
        ),
        epsilon=epsilon,
    )
    if found.winning_rate is None:
        notes.missing("alt_test", found.reason)
    return found


def _own(judge: str, generators: dict[str, int]) -> tuple[str, ...]:
    """Generators with the judge's own name, whoever published it."""
    name = judge.rpartition("/")[2].casefold()
    return tuple(each for each in generators if each.rpartition("/")[2].casefold() == name)


def _win_rates(aligned: Aligned, known: Known, notes: Notes) -> Iterator[WinRate]:
    """Each generator's share of wins; without generators side a's."""
    folded, people = aligned.folded, aligned.people
    size = len(known.writers)
    truth, judged = np.full(size, np.nan), np.full(size, np.nan)
    truth[people.pairs] = bias.scores(people.gold)
    there = folded.preference >= 0
    sure = np.isfinite(folded.p_a[there]).all()
    judged[folded.pair[there]] = folded.p_a[there] if sure else bias.scores(folded.preference[there])
    names = known.texts.generators
    if len(names) > _MOST_GENERATORS:
        notes.missing("win_rates", f"{len(names)} generators; the win rates of at most {_MOST_GENERATORS} are told")
        return
    for name, place in names.items() if names else (("a", -1),):
        own = known.writers == place
        one = np.flatnonzero(own[:, 0] != own[:, 1]) if names else np.arange(size)
        # On side b a win is a's loss.
        as_a = own[one, 0] if names else np.ones(size, dtype=np.bool_)
        human, judge = (np.where(as_a, each[one], 1 - each[one]) for each in (truth, judged))
        both = np.isfinite(human) & np.isfinite(judge)
        others = judge[np.isnan(human) & np.isfinite(judge)]
        powered = powered_mean(human[both], judge[both], others)
        if powered.powered.value is None:
            notes.missing(f"win_rates.{name}.powered", powered.powered.reason)
        yield WinRate(
            name=name,
            labelled=int(both.sum()),
            judged=int(np.isfinite(judge).sum()),
            human=powered.human.value,
            human_ci=powered.human.ci,
            judge=powered.judge,
            powered=powered.powered.value,
            powered_ci=powered.powered.ci,
            gain=powered.gain,
        )


def _by_tag(aligned: Aligned, known: Known, ties: Ties, notes: Notes) -> Iterator[TagAgreement]:
    if not known.texts.any:
        notes.missing("by_tag", "the tags of the pairs are not known; give them with --pairs")
        return
    if known.texts.tags_left_out:
        names = ", ".join(sorted(known.texts.tags_left_out)[:8])
        notes.missing("by_tag.left_out", f"tags with more than 20 values make no groups: {names}")
    scores, counted = accuracy_scores(aligned.people.gold, aligned.judge, ties)
    whole = int(counted.sum())
    for name, column in known.texts.tags():
        codes = column.codes[aligned.people.pairs]
        groups = [(place, counted & (codes == place)) for place in range(len(column.values))]
        for place, mine in sorted(groups, key=lambda group: -int(group[1].sum())):
            n = int(mine.sum())
            # A group that holds every pair says nothing new.
            if not 0 < n < whole:
                continue
            right = float(scores[mine].sum())
            yield TagAgreement(
                tag=name, value=column.values[place], n=n, accuracy=right / n, accuracy_ci=wilson(right, n)
            )


def disagreements(aligned: Aligned, ties: Ties) -> Ints:
    """Rows of the pairs on which judge and people differ, the surest first: of the judge, then of people."""
    gold, judge = aligned.people.gold, aligned.judge
    counts = TIES[ties][1]
    differ = aligned.scored & (gold != judge) & (counts[np.maximum(gold, 0), np.maximum(judge, 0)] > 0)
    rows = np.flatnonzero(differ)
    sure = np.nan_to_num(np.abs(aligned.p_a[rows] - 0.5), nan=-1.0)
    votes = np.sort(aligned.people.counts[rows], axis=1)
    return rows[np.lexsort((rows, -(votes[:, 2] - votes[:, 1]), -sure))]


def _warnings(found: ObjectiveComparison, untold: int) -> Iterator[str]:
    people = found.humans
    if not found.n:
        yield "No pair has a preference of the judge and a majority of people, so nothing is scored."
    elif found.n < FEW:
        what = f"{found.n} pair{'' if found.n == 1 else 's'} with labels of judge and people"
        yield f"Only {what}: the figures say little."
    if untold:
        yield f"The texts of {untold:,} of {found.n:,} pairs are not known; lengths, form and tags are of the others."
    if people.alpha is not None and people.alpha < _SLIGHT:
        yield (
            f"People hardly agree with each other (alpha {people.alpha:.2f}): a judge that is as close to them as they "
            "are to each other may still be of little use."
        )
    if people.annotators < 2:
        yield "One annotator: how far people agree with each other, the judge's ceiling, is not known."
    if found.coverage is not None and found.coverage < _LOW_COVERAGE:
        yield (
            f"The judge gave a preference for {found.coverage:.1%} of the pairs that people labelled "
            f"({found.abstained:,} abstentions, {found.not_judged:,} without a label); the others may be harder."
        )
    if people.pairs and people.no_majority / people.pairs > _MANY_SPLIT:
        yield f"{people.no_majority:,} of {people.pairs:,} pairs have no majority of people and are not scored."
    if found.choice_mass is not None and found.choice_mass < _LOW_MASS:
        yield (
            f"The judge put only {found.choice_mass:.1%} of its probability on the choices; it may not follow its "
            "template."
        )
    short = len(found.alt_test.left_out)
    if short and people.annotators > 1:
        yield (
            f"Alternative annotator test: {short} of {people.annotators} annotators have too few pairs for it (30 that "
            "somebody else labelled too)."
        )
