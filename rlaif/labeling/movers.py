"""Which edited principle moved the labels most. `causes` and `Movement` are pure; `find_movers` reads for them.

What is known depends on the runs. With `all` principles in every question a label that moved can only be laid at the
door of everything that changed in its objective: of one principle, where one changed. With one principle drawn for each
comparison (`--principles sample`) the ledgers tell which was drawn, and each verdict that moved belongs to the edited
principle that was drawn before or after the edit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from rlaif.constitution import Constitution, Objective
from rlaif.labeling.ledgers import Judged, PairJudged, RunLedger, comparisons
from rlaif.types import Frozen, Verdict

# Verdicts under the same key are the same; this is the last digit of a sum.
_ROUNDING = 1e-9


class Cause(Frozen):
    """One edit that can move labels; `principle` is `None` for the question and for the principles' order."""

    principle: str | None
    change: Literal["added", "removed", "reworded", "reweighted", "reworded and reweighted", "question", "order"]


class Mover(Frozen):
    """How far an edit moved an objective, or several edits that cannot be told apart.

    `basis` is `verdicts` where the judgments for which an edited principle was drawn are compared, same pair, order and
    sample, else `labels`. `mean_shift` is the mean of |new p_a - old p_a| over the `compared`. `flipped` counts the
    objective's labels that flipped by it, `flipped_share` their share of the flips of all objectives.
    """

    objective: str
    causes: tuple[Cause, ...]
    basis: Literal["verdicts", "labels"]
    compared: int
    mean_shift: float | None
    flipped: int
    flipped_share: float | None


class Flipped(Protocol):
    """What is needed of an objective's flips."""

    @property
    def compared(self) -> int:
        """Pairs with a preference in both runs."""

    @property
    def mean_shift(self) -> float | None:
        """Mean of |new p_a - old p_a|."""

    @property
    def flipped_ids(self) -> tuple[str, ...]:
        """The pairs whose label flipped."""


def causes(old: Objective, new: Objective, *, drawn: bool) -> tuple[Cause, ...]:
    """Name what changed in an objective as far as a judge can tell; a weight above 0 matters only for drawing."""
    before = {rule.id: rule for rule in old.active}
    after = {rule.id: rule for rule in new.active}
    found = [Cause(principle=None, change="question")] if old.question != new.question else []
    for name in dict.fromkeys([*before, *after]):
        one, other = before.get(name), after.get(name)
        if one is None or other is None:
            found.append(Cause(principle=name, change="removed" if other is None else "added"))
            continue
        reworded, reweighted = one.text != other.text, drawn and one.weight != other.weight
        if reworded and reweighted:
            found.append(Cause(principle=name, change="reworded and reweighted"))
        elif reworded or reweighted:
            found.append(Cause(principle=name, change="reworded" if reworded else "reweighted"))
    if [name for name in before if name in after] != [name for name in after if name in before]:
        found.append(Cause(principle=None, change="order"))
    return tuple(found)


@dataclass
class _Shift:
    compared: int = 0
    total: float = 0.0
    flipped: int = 0


class Movement:
    """Lays what moved at the door of the edits.

    Args:
        edits: the causes by objective; objectives without any are left out.
        flipped: the ids of the pairs whose label flipped, by objective.
    """

    def __init__(self, edits: Mapping[str, tuple[Cause, ...]], flipped: Mapping[str, Collection[str]]) -> None:
        self._edits = {name: found for name, found in edits.items() if found}
        self._flipped = {name: frozenset(ids) for name, ids in flipped.items()}
        self._shifts: dict[tuple[str, tuple[Cause, ...]], _Shift] = {}

    def add_pair(self, pair_id: str, old: Sequence[Verdict], new: Sequence[Verdict]) -> None:
        """Compare the verdicts of one pair, those of the same objective, order and sample."""
        before = {(one.objective, one.order, one.sample): one for one in comparisons(old)}
        moved: dict[str, set[Cause]] = {}
        for now in comparisons(new):
            earlier = before.get((now.objective, now.order, now.sample))
            found = self._behind(now.objective, earlier.principle, now.principle) if earlier else ()
            if earlier and found:
                shift, distance = self._of(now.objective, found), abs(now.p_a - earlier.p_a)
                shift.compared += 1
                shift.total += distance
                if distance > _ROUNDING:
                    moved.setdefault(now.objective, set()).update(found)
        for name, found_here in moved.items():
            if pair_id in self._flipped.get(name, ()):
                self._of(name, tuple(cause for cause in self._edits[name] if cause in found_here)).flipped += 1

    def _behind(self, objective: str, before: str | None, after: str | None) -> tuple[Cause, ...]:
        """The edits behind a verdict for which these principles were drawn."""
        edits = self._edits.get(objective, ())
        if before != after:
            # Another draw comes of a principle that came, went or weighs otherwise: one of the two, or any of them.
            mine = [cause for cause in edits if cause.principle is not None and cause.principle in (before, after)]
            mine = mine or [cause for cause in edits if cause.change != "question"]
        else:
            mine = [cause for cause in edits if cause.principle == before and cause.change.startswith("reworded")]
        return tuple(cause for cause in edits if cause in mine or cause.change == "question")

    def _of(self, objective: str, found: tuple[Cause, ...]) -> _Shift:
        return self._shifts.setdefault((objective, found), _Shift())

    def total(self) -> tuple[Mover, ...]:
        """What moved, by the largest shift first."""
        flips = sum(len(ids) for ids in self._flipped.values())
        movers = [
            Mover(
                objective=name,
                causes=found,
                basis="verdicts",
                compared=shift.compared,
                mean_shift=shift.total / shift.compared if shift.compared else None,
                flipped=shift.flipped,
                flipped_share=shift.flipped / flips if flips else None,
            )
            for (name, found), shift in self._shifts.items()
        ]
        return _largest_first(movers)


def movers_of_labels(edits: Mapping[str, tuple[Cause, ...]], flips: Mapping[str, Flipped]) -> tuple[Mover, ...]:
    """Lay each objective's labels at the door of all that changed in it."""
    total = sum(len(each.flipped_ids) for each in flips.values())
    movers = [
        Mover(
            objective=name,
            causes=found,
            basis="labels",
            compared=flips[name].compared,
            mean_shift=flips[name].mean_shift,
            flipped=len(flips[name].flipped_ids),
            flipped_share=len(flips[name].flipped_ids) / total if total else None,
        )
        for name, found in edits.items()
        if found and name in flips
    ]
    return _largest_first(movers)


def _largest_first(movers: Iterable[Mover]) -> tuple[Mover, ...]:
    return tuple(sorted(movers, key=lambda one: (-(one.mean_shift or 0.0), -one.flipped, one.objective)))


def find_movers(
    old: Constitution,
    new: Constitution,
    flips: Mapping[str, Flipped],
    ledgers: tuple[RunLedger | None, RunLedger | None],
    other_content: Collection[str],
) -> tuple[Mover, ...]:
    """Find what moved the labels, from the ledgers of two runs that drew principles, else from the labels.

    Raises:
        RunError: a ledger cannot be read.
    """
    before, after = ledgers
    # Without a manifest nobody knows whether weights had a say.
    drawn = any(run is None or run.sampled for run in ledgers)
    edits = {
        name: causes(objective, new.objectives[name], drawn=drawn)
        for name, objective in old.objectives.items()
        if name in new.objectives and name in flips
    }
    if before is None or after is None or not (before.sampled and after.sampled):
        return movers_of_labels(edits, flips)
    movement = Movement(edits, {name: each.flipped_ids for name, each in flips.items()})
    for pair_id, earlier, later in _joined(before.pairs(), after.pairs()):
        if pair_id not in other_content:
            movement.add_pair(pair_id, [one for one, _ in earlier], [one for one, _ in later])
    return movement.total()


def _joined(
    old: Iterator[PairJudged], new: Iterator[PairJudged]
) -> Iterator[tuple[str, Sequence[Judged], Sequence[Judged]]]:
    """The pairs in both; each side comes in the order of the ids."""
    one, other = next(old, None), next(new, None)
    while one is not None and other is not None:
        if one[0] == other[0]:
            yield one[0], one[1], other[1]
            one, other = next(old, None), next(new, None)
        elif one[0] < other[0]:
            one = next(old, None)
        else:
            other = next(new, None)
