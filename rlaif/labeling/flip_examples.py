"""A few flips to read: the pair, and what the judge said of it in both runs."""

from __future__ import annotations

import hashlib
import heapq

from rlaif.labeling.ledgers import RunLedger
from rlaif.labeling.matches import Match, Standing, flips
from rlaif.types import Frozen, Message, Preference


class Said(Frozen):
    """One judgment behind a label; `rating` is that of the response that `order` puts first, if asked for."""

    order: str
    sample: int
    principle: str | None
    status: str
    p_a: float | None
    rating: float | None = None
    rationale: str


class Told(Frozen):
    """One run's label in a flip; `judgments` are `None` where only a file of labels is there, which holds none."""

    p_a: float | None
    preference: Preference | None
    judgments: tuple[Said, ...] | None = None


class Example(Frozen):
    """One label that flipped; `objective` is `None` for the overall label, which the aggregation makes."""

    id: str
    objective: str | None
    prompt: tuple[Message, ...]
    response_a: str
    response_b: str
    old: Told
    new: Told


class Sampler:
    """Keeps a sample of the flips, the same each time: those whose digests are the smallest.

    Overall labels are shown only where no objective flipped: then the aggregation alone made the difference.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: dict[bool, list[tuple[int, str, Example]]] = {True: [], False: []}

    def add(self, match: Match) -> None:
        """See one pair."""
        for name, old, new in match.standings():
            if self._size and flips(old, new):
                # The heap's head is the largest digest kept.
                rank = -int.from_bytes(hashlib.sha256(f"{match.label.id}\x00{name}".encode()).digest()[:8])
                heap = self._kept[name is None]
                if len(heap) < self._size:
                    heapq.heappush(heap, (rank, match.label.id, _example(match, name, old, new)))
                elif rank > heap[0][0]:
                    heapq.heapreplace(heap, (rank, match.label.id, _example(match, name, old, new)))

    def total(self) -> tuple[Example, ...]:
        """The sample, in the order of the objectives' names and the ids."""
        kept = [example for _, _, example in self._kept[False] or self._kept[True]]
        return tuple(sorted(kept, key=lambda one: (one.objective or "", one.id)))


def _example(match: Match, name: str | None, old: Standing, new: Standing) -> Example:
    label = match.label
    return Example(
        id=label.id,
        objective=name,
        prompt=label.prompt,
        response_a=label.response_a,
        response_b=label.response_b,
        old=Told(p_a=old.p_a, preference=old.preference),
        new=Told(p_a=new.p_a, preference=new.preference),
    )


def with_rationales(example: Example, old: RunLedger | None, new: RunLedger | None) -> Example:
    """Add what the judge said, from the runs' ledgers where there are any."""
    if example.objective is None:
        return example
    told = {"old": _told(example, example.old, old), "new": _told(example, example.new, new)}
    return example.model_copy(update=told)


def _told(example: Example, told: Told, ledger: RunLedger | None) -> Told:
    if ledger is None:
        return told
    said = tuple(
        Said(
            order=verdict.order,
            sample=verdict.sample,
            principle=verdict.principle,
            status=verdict.status,
            p_a=verdict.p_a,
            rating=verdict.rating,
            rationale=rationale.strip(),
        )
        for verdict, rationale in ledger.of(example.id)
        if verdict.objective == example.objective
    )
    return told.model_copy(update={"judgments": said})
