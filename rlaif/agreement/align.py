"""People's votes and a judge's labels of one objective on the same pairs, in columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rlaif.agreement.metrics import CATEGORIES, Codes, Floats, Ints
from rlaif.agreement.table import Folded
from rlaif.data.human import HumanVotes

Bools = npt.NDArray[np.bool_]
# Of a preference: how much of a win for a it is; the last place is none (-1).
SCORES: Floats = np.array([1.0, 0.0, 0.5, np.nan])


@dataclass(frozen=True)
class People:
    """Votes of one objective.

    `pairs` holds the places of the pairs that were labelled, ascending, (pairs,); `counts` how many preferred a, b and
    neither, (pairs, 3); `gold` what most preferred, -1 where no preference leads alone. The votes themselves are rows:
    `vote_pair` the row of `pairs`, `vote_annotator` the place in `names`, `vote` the preference, each (votes,).
    """

    pairs: Ints
    counts: Ints
    gold: Codes
    vote_pair: Ints
    vote_annotator: Ints
    vote: Codes
    names: tuple[str, ...]


@dataclass(frozen=True)
class Aligned:
    """A judge's labels on the pairs that people labelled, row by row of `people.pairs`.

    `judge` is -1 where there is no preference, `judged` whether there is a label at all, even an abstention. The floats
    are nan where not known. `folded` holds all of the judge's labels, also of pairs that nobody labelled.
    """

    people: People
    judge: Codes
    judged: Bools
    p_a: Floats
    ab: Codes
    ba: Codes
    folded: Folded

    @property
    def scored(self) -> Bools:
        """Pairs with a preference of the judge and a majority of people."""
        return (self.judge >= 0) & (self.people.gold >= 0)


def majority(counts: Ints) -> Codes:
    """The preference with the most votes, -1 where none leads alone, (pairs, 3) -> (pairs,)."""
    best = counts.max(axis=1, keepdims=True)
    alone = ((counts == best).sum(axis=1) == 1) & (best[:, 0] > 0)
    return np.where(alone, counts.argmax(axis=1), -1).astype(np.int8)


def people_of(votes: HumanVotes, objective: str) -> People:
    """Take the votes of one objective out of the file's columns."""
    mine = np.frombuffer(votes.objective, np.int32) == votes.objectives[objective]
    vote = np.frombuffer(votes.preference, np.int8)[mine]
    pairs, rows = np.unique(np.frombuffer(votes.pair, np.int32)[mine].astype(np.int64), return_inverse=True)
    cells = np.bincount(rows * CATEGORIES + vote, minlength=len(pairs) * CATEGORIES)
    counts = cells.astype(np.int64).reshape(-1, CATEGORIES)
    # Only those who labelled this objective, so that the others are no annotators without labels.
    there, annotator = np.unique(np.frombuffer(votes.annotator, np.int32)[mine], return_inverse=True)
    names = list(votes.annotators)
    return People(
        pairs=pairs,
        counts=counts,
        gold=majority(counts),
        vote_pair=rows.astype(np.int64),
        vote_annotator=annotator.astype(np.int64),
        vote=vote,
        names=tuple(names[place] for place in there),
    )


def align(people: People, folded: Folded) -> Aligned:
    """Bring a judge's labels into the order of people's pairs."""
    size = int(max(people.pairs.max(initial=-1), folded.pair.max(initial=-1))) + 1
    row_of = np.full(size, -1, dtype=np.int64)
    row_of[folded.pair] = np.arange(len(folded.pair))
    rows = row_of[people.pairs]
    judged = rows >= 0
    nothing = len(folded.pair) == 0

    def taken(column: Codes) -> Codes:
        return np.where(judged, -1 if nothing else column[rows], -1).astype(np.int8)

    return Aligned(
        people=people,
        judge=taken(folded.preference),
        judged=judged,
        p_a=np.where(judged, np.nan if nothing else folded.p_a[rows], np.nan),
        ab=taken(folded.ab),
        ba=taken(folded.ba),
        folded=folded,
    )


def one_hot(codes: Codes) -> Ints:
    """A vote each as counts, (pairs,) -> (pairs, 3); nothing where there is none."""
    counts = np.zeros((len(codes), CATEGORIES), dtype=np.int64)
    there = np.flatnonzero(codes >= 0)
    counts[there, codes[there]] = 1
    return counts
