"""The labels of two runs side by side, pair by pair, and how often they differ. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from rlaif.types import Frozen, Label, Preference


class Standing(NamedTuple):
    """What one run says of one pair, under one objective or overall."""

    preference: Preference | None
    p_a: float | None


@dataclass(frozen=True, slots=True)
class Match:
    """One pair that stands in both runs with the same texts: the old run's standings, and the new run's label."""

    label: Label
    old: tuple[tuple[str, Standing], ...]
    old_overall: Standing

    def standings(self) -> Iterator[tuple[str | None, Standing, Standing]]:
        """Old and new of every objective that is in both, then of the overall label, whose name is `None`."""
        for name, before in self.old:
            if name in self.label.labels:
                now = self.label.labels[name]
                yield name, before, Standing(now.preference, now.p_a)
        yield None, self.old_overall, Standing(self.label.overall.preference, self.label.overall.p_a)


def decided(old: Standing, new: Standing) -> bool:
    """Whether both prefer a or b: neither is a tie or without a preference."""
    return {old.preference, new.preference} <= {"a", "b"}


def flips(old: Standing, new: Standing) -> bool:
    """Whether the preference went from a to b, or from b to a."""
    return decided(old, new) and old.preference != new.preference


@dataclass
class Matching:
    """Goes through two runs, and counts what is not in both.

    `other_content` holds the ids that stand in both with another prompt or other responses. The names of objectives are
    in the order in which they were met.
    """

    pairs: int = 0
    only_old: int = 0
    only_new: int = 0
    other_content: set[str] = field(default_factory=set)
    old_made_with: dict[str, str] = field(default_factory=dict)
    new_made_with: dict[str, str] = field(default_factory=dict)
    # Dictionaries stand for ordered sets.
    old_names: dict[str, None] = field(default_factory=dict)
    new_names: dict[str, None] = field(default_factory=dict)

    def matches(self, old: Iterable[Label], new: Iterable[Label]) -> Iterator[Match]:
        """Yield the pairs that are in both, in the order of the new run; each id stands once in a run.

        Of the old run its standings are held in memory; the new one passes by.
        """
        kept: dict[str, tuple[bytes, tuple[tuple[str, Standing], ...], Standing]] = {}
        for label in _noting(old, self.old_made_with, self.old_names):
            sides = tuple((name, Standing(each.preference, each.p_a)) for name, each in label.labels.items())
            overall = Standing(label.overall.preference, label.overall.p_a)
            kept[label.id] = (_content(label), sides, overall)
        for label in _noting(new, self.new_made_with, self.new_names):
            before = kept.pop(label.id, None)
            if before is None:
                self.only_new += 1
            elif before[0] != _content(label):
                self.other_content.add(label.id)
            else:
                self.pairs += 1
                yield Match(label, before[1], before[2])
        self.only_old = len(kept)


def _noting(labels: Iterable[Label], made_with: dict[str, str], names: dict[str, None]) -> Iterator[Label]:
    """Pass labels on, noting what made the first one and which objectives they have."""
    for label in labels:
        if not made_with:
            made_with.update(judge=label.provenance.judge, template=label.provenance.template)
        names.update(dict.fromkeys(label.labels))
        yield label


def _content(label: Label) -> bytes:
    """Digest of the pair itself: a and b mean something else where the responses differ or changed places."""
    digest = hashlib.sha256()
    parts = [part for turn in label.prompt for part in (turn.role, turn.content)]
    for part in (*parts, label.response_a, label.response_b):
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8))
        digest.update(raw)
    return digest.digest()[:16]


class FlipCount(Frozen):
    """How many labels flipped.

    `compared` counts the pairs with a preference in both runs (a, b or tie), `decided` those with a or b in both.
    `flipped` (a to b, or b to a) is of the decided, and `flipped_share` their share, `None` where there are none.
    """

    compared: int
    decided: int
    flipped: int
    flipped_share: float | None


@dataclass
class Counter:
    """Counts flips as matches pass by."""

    compared: int = 0
    decided: int = 0
    flipped: int = 0

    def add(self, old: Standing, new: Standing) -> None:
        """Count one pair; one without a preference in a run is not compared."""
        self.compared += old.preference is not None and new.preference is not None
        self.decided += decided(old, new)
        self.flipped += flips(old, new)

    def total(self) -> FlipCount:
        """What was counted."""
        share = self.flipped / self.decided if self.decided else None
        return FlipCount(compared=self.compared, decided=self.decided, flipped=self.flipped, flipped_share=share)
