"""How far people agree with each other: the ceiling of what agreement with them can mean."""

from __future__ import annotations

import numpy as np

from rlaif.agreement.align import Aligned, majority
from rlaif.agreement.metrics import (
    CATEGORIES,
    TIES,
    Figure,
    Ints,
    accuracies,
    accuracy,
    cohen_kappa,
    gwet_ac1_many,
    krippendorff_alpha,
)
from rlaif.agreement.notes import Notes
from rlaif.agreement.results import Humans, LeftOut, Rate, Ties

# Of a crowd of thousands a table of everybody with everybody would be of no use.
MOST_COUPLES = 1000
_ALONE = "one annotator: how far people agree with each other is not known"


def humans(aligned: Aligned, ties: Ties, notes: Notes) -> Humans:
    """Agreement among people, and each of them and the judge in their place against the others' majority."""
    people = aligned.people
    alone = len(people.names) < 2
    couples, kappas, left_out = [], {}, 0
    if not alone:
        couples = _couples(aligned)
        couples, left_out = couples[:MOST_COUPLES], max(0, len(couples) - MOST_COUPLES)
    for name, table in sorted(couples, key=lambda couple: couple[0]):
        kappa = cohen_kappa(table)
        if kappa.value is None:
            notes.missing(f"humans.pairwise_kappa.{name}", kappa.reason)
        else:
            kappas[name] = kappa.value
    if left_out:
        notes.missing("humans.pairwise_kappa", f"the {MOST_COUPLES} pairs of annotators with most pairs in common only")
    elif not couples:
        notes.missing("humans.pairwise_kappa", _ALONE if alone else "no two annotators labelled the same pair")
    per_annotator = {} if alone else _leave_one_out(aligned, ties)
    scored = [each for each in per_annotator.values() if each.annotator.value is not None]
    if not scored:
        why = "no pair with a judge's preference where the others have a majority"
        notes.missing("humans.leave_one_out", _ALONE if alone else why)
    return Humans(
        annotators=len(people.names),
        labels=len(people.vote),
        pairs=len(people.pairs),
        no_majority=int((people.gold < 0).sum()),
        pairwise_kappa=kappas,
        alpha=notes.value("humans.alpha", Figure(None, reason=_ALONE) if alone else krippendorff_alpha(people.counts)),
        ac1=notes.value("humans.ac1", Figure(None, reason=_ALONE) if alone else gwet_ac1_many(people.counts)),
        leave_one_out=_mean([each.annotator.value for each in scored]),
        judge_leave_one_out=_mean([each.judge.value for each in scored]),
        per_annotator=per_annotator,
    )


def _mean(values: list[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def _couples(aligned: Aligned) -> list[tuple[str, Ints]]:
    """The confusion matrix of each two annotators with pairs in common, most pairs first."""
    people = aligned.people
    # By name, so that x of "x|y" is the lower one.
    ranks = np.argsort(np.argsort(np.array(people.names, dtype=object)))
    order = np.lexsort((ranks[people.vote_annotator], people.vote_pair))
    pair, who, vote = people.vote_pair[order], ranks[people.vote_annotator][order], people.vote[order].astype(np.int64)
    size, cells = len(people.names), CATEGORIES**2
    totals = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    # Votes of a pair stand together: each meets the next, then the one after next, until none does.
    for step in range(1, int(people.counts.sum(axis=1).max(initial=0))):
        same = np.flatnonzero(pair[step:] == pair[:-step])
        first, second = same, same + step
        keys = (who[first] * size + who[second]) * cells + vote[first] * CATEGORIES + vote[second]
        found, counts = np.unique(np.concatenate([totals[0], keys]), return_inverse=True)
        weights = np.concatenate([totals[1], np.ones(len(keys), dtype=np.int64)])
        totals = found, np.bincount(counts, weights=weights).astype(np.int64)
    couples, place = np.unique(totals[0] // cells, return_inverse=True)
    tables = np.zeros((len(couples), cells), dtype=np.int64)
    tables[place, totals[0] % cells] = totals[1]
    names = sorted(people.names)
    by_pairs = np.argsort(-tables.sum(axis=1), kind="stable")
    return [
        (f"{names[couples[row] // size]}|{names[couples[row] % size]}", tables[row].reshape(CATEGORIES, CATEGORIES))
        for row in by_pairs
    ]


def _leave_one_out(aligned: Aligned, ties: Ties) -> dict[str, LeftOut]:
    """Each annotator, and the judge, against the majority of the others on the same pairs."""
    people = aligned.people
    others = people.counts[people.vote_pair]
    others[np.arange(len(people.vote)), people.vote] -= 1
    gold, judge = majority(others), aligned.judge[people.vote_pair]
    counted = (gold >= 0) & (judge >= 0)
    who = people.vote_annotator[counted]
    right, stands, own = (each[counted].astype(np.int64) for each in (gold, judge, people.vote))
    size, cells = len(people.names), CATEGORIES**2
    tables = [
        np.bincount(who * cells + right * CATEGORIES + said, minlength=size * cells).reshape(
            size, CATEGORIES, CATEGORIES
        )
        for said in (own, stands)
    ]
    defined = ~np.isnan(accuracies(tables[0].reshape(size, cells).astype(np.float64), ties))
    return {
        name: LeftOut(annotator=rate_of(tables[0][row], ties), judge=rate_of(tables[1][row], ties))
        for row, name in enumerate(people.names)
        if defined[row]
    }


def rate_of(table: Ints, ties: Ties) -> Rate:
    """Accuracy of a confusion matrix as a rate."""
    figure = accuracy(table, ties)
    return Rate(n=int((table * TIES[ties][1]).sum()), value=figure.value, ci=figure.ci)
