"""The judgments behind a finished run's labels, read from its folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rlaif.constitution import Constitution
from rlaif.labeling.labels import compare_ratings, fold_objective, fold_ratings
from rlaif.labeling.manifest import read_manifest
from rlaif.store import read_verdicts_by_pair
from rlaif.types import ObjectiveLabel, Order, Verdict

# A verdict and its rationale.
Judged = tuple[Verdict, str]
PairJudged = tuple[str, Sequence[Judged]]


class Comparison(NamedTuple):
    """One comparison of a pair's responses; `order` is `None` where both responses were rated on their own."""

    objective: str
    order: Order | None
    sample: int
    principle: str | None
    p_a: float


def comparisons(verdicts: Iterable[Verdict]) -> Iterator[Comparison]:
    """Yield what was read of one pair's verdicts, a verdict each, and a pair of ratings where responses are rated."""
    ratings: dict[tuple[str, int], list[Verdict]] = {}
    for verdict in verdicts:
        if verdict.p_a is not None:
            yield Comparison(verdict.objective, verdict.order, verdict.sample, verdict.principle, verdict.p_a)
        elif verdict.rating is not None:
            ratings.setdefault((verdict.objective, verdict.sample), []).append(verdict)
    for (objective, sample), both in ratings.items():
        p_a = compare_ratings(both)
        if p_a is not None:
            yield Comparison(objective, None, sample, both[0].principle, p_a)


def fold(verdicts: Sequence[Verdict]) -> ObjectiveLabel:
    """Fold verdicts, or ratings, as a label is made of them."""
    rated = any(verdict.rating is not None for verdict in verdicts)
    return (fold_ratings if rated else fold_objective)(verdicts)


@dataclass(frozen=True)
class RunLedger:
    """A run's judgments under one constitution; a ledger that is being updated may hold others too."""

    run: Path
    settings: Mapping[str, Any]
    constitution: str

    @property
    def sampled(self) -> bool:
        """Whether one principle was drawn for each comparison (`--principles sample`)."""
        return self.settings.get("principles") == "sample"

    def pairs(self) -> Iterator[PairJudged]:
        """Read the judgments of one pair after the other, in the order of the ids.

        Raises:
            RunError: the ledger cannot be read.
        """
        return read_verdicts_by_pair(self.run / "judgments.db", self.constitution)

    def of(self, pair_id: str) -> Sequence[Judged]:
        """Read the judgments of one pair."""
        found = read_verdicts_by_pair(self.run / "judgments.db", self.constitution, pair_id)
        return next((judged for _, judged in found), ())


def open_ledger(run: Path, constitution: Constitution) -> RunLedger | None:
    """Open a run's ledger; `None` where there is only a file of labels, or the run has other settings by now.

    Raises:
        InputError: the run's manifest cannot be read.
    """
    if not (run / "judgments.db").is_file():
        return None
    manifest = read_manifest(run)
    if manifest is None or manifest.settings.get("constitution") != constitution.digest:
        return None
    return RunLedger(run, manifest.settings, constitution.digest)
