"""McNemar's test between two runs: whether an edit moves labels towards or away from a reference. Pure.

The test compares two yes-or-no outcomes of the same pairs, here that of the old run's label and of the new one's.
Which response stands as a is arbitrary, so "prefers a" is no outcome; the label has to be held against a reference:

| reference  | yes                                                              | taken                                |
|------------|------------------------------------------------------------------|--------------------------------------|
| `human`    | the label is what most annotators prefer for that objective      | where human labels are given         |
| `chosen`   | the label is the response that the data calls chosen (its tag)   | else, where any pair tells           |
| `longer`   | the label is the response with more characters                   | else: a drift to length, not quality |

A pair counts where both runs prefer a or b and the reference names one of them: a tie is neither yes nor no.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from rlaif.data.human import HumanLabels
from rlaif.errors import InputError
from rlaif.labeling.matches import Match, decided
from rlaif.stats import mcnemar
from rlaif.types import Frozen, Label, Preference

Reference = Literal["human", "chosen", "longer"]
# Human labels of this objective are held against the overall label.
OVERALL = "overall"


class McNemarTest(Frozen):
    """The test for one objective, or overall.

    `old_yes` and `new_yes` count the pairs whose label is the reference's in either run, `only_old` and `only_new`
    those where that is so in one run alone (b and c of the test). The p-values are two-sided, `None` where b + c is 0.
    """

    pairs: int
    old_yes: int
    new_yes: int
    only_old: int
    only_new: int
    p_exact: float | None
    p_mid: float | None


class ReferenceTests(Frozen):
    """The tests of all objectives against one reference; `source` is the file of human labels and `annotators` theirs.

    `without` counts the matched pairs for which the reference names neither response.
    """

    reference: Reference
    source: str | None
    annotators: int | None
    objectives: Mapping[str, McNemarTest]
    overall: McNemarTest
    without: int


@dataclass
class _Table:
    """The 2 x 2 table of one objective."""

    both: int = 0
    only_old: int = 0
    only_new: int = 0
    neither: int = 0

    def add(self, old: bool, new: bool) -> None:
        self.both += old and new
        self.only_old += old and not new
        self.only_new += new and not old
        self.neither += not (old or new)

    def total(self) -> McNemarTest:
        test = mcnemar(self.only_old, self.only_new)
        return McNemarTest(
            pairs=self.both + self.only_old + self.only_new + self.neither,
            old_yes=self.both + self.only_old,
            new_yes=self.both + self.only_new,
            only_old=self.only_old,
            only_new=self.only_new,
            p_exact=test.p_exact,
            p_mid=test.p_mid,
        )


class _Against:
    """Fills the tables of one reference."""

    def __init__(self, reference: Reference, human: HumanLabels | None = None) -> None:
        self.reference: Reference = reference
        self.used = self._without = 0
        self._human = human
        self._tables: dict[str | None, _Table] = {}

    def add(self, match: Match) -> None:
        known = False
        for name, old, new in match.standings():
            table = self._tables.setdefault(name, _Table())
            side = self._side(match.label, name)
            known = known or side in ("a", "b")
            if side in ("a", "b") and decided(old, new):
                table.add(old.preference == side, new.preference == side)
        self.used += known
        self._without += not known

    def _side(self, label: Label, objective: str | None) -> Preference | None:
        if self._human is not None:
            return self._human.majority.get((label.id, objective or OVERALL))
        if self.reference == "chosen":
            side = label.tags.get("chosen")
            return "a" if side == "a" else "b" if side == "b" else None
        a, b = len(label.response_a), len(label.response_b)
        return "tie" if a == b else "a" if a > b else "b"

    def total(self) -> ReferenceTests:
        return ReferenceTests(
            reference=self.reference,
            source=self._human.name if self._human else None,
            annotators=self._human.annotators if self._human else None,
            objectives={name: table.total() for name, table in self._tables.items() if name is not None},
            overall=self._tables.get(None, _Table()).total(),
            without=self._without,
        )


class AgainstReference:
    """Holds labels against the reference that is at hand, as matches pass by."""

    def __init__(self, human: HumanLabels | None = None) -> None:
        self._human = human
        names: tuple[Reference, ...] = ("human",) if human else ("chosen", "longer")
        self._all = [_Against(name, human) for name in names]

    def add(self, match: Match) -> None:
        """Count one pair."""
        for each in self._all:
            each.add(match)

    def total(self) -> ReferenceTests:
        """The tests against the first reference that names a response of any pair.

        Raises:
            InputError: there are human labels, and none is of a pair and objective of the runs.
        """
        found = next((each for each in self._all if each.used), self._all[-1])
        if self._human is not None and not found.used:
            runs = ", ".join([*found.total().objectives, OVERALL])
            theirs = ", ".join(name[:80] for name in self._human.objectives[:8])
            raise InputError(
                f"{self._human.name}: no majority for a or b on any pair and objective that both runs label; its "
                f"objectives are {theirs}, the runs' are {runs}. Give labels of the same ids and objectives."
            )
        return found.total()
