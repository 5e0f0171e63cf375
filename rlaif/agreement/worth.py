"""How much a person's look at a pair is worth, and why. Pure: arrays in, numbers and sentences out.

Each criterion has a strength from 0 (the label is safe) to 1 (a coin would do as well):

- `uncertain`: twice the probability that the preference is wrong if `p_a` is right, 2 min(p_a, 1 - p_a).
- `order_gap`: |p_a(ab) - p_a(ba)|, how far the preference hangs on the places.
- `abstained`: the share of verdicts that could not be read; 1 where there is no label at all.
- `ensemble`: twice the probability that two members of the heads' ensemble prefer different responses.
- `conflict`: of a pair, not of an objective: the weaker of the clearest preference for a and the clearest one for b
  among the objectives, clear being |2 p_a - 1|.

Under one objective the criteria combine as independent chances do, 1 - product of (1 - weight strength). A pair's score
is the mean over its objectives, since one look corrects all of them, and then the conflict in the same way.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]

CRITERIA = ("uncertain", "order_gap", "abstained", "ensemble", "conflict")
# A conflict is not a mistake of the judge's: it is worth a look, but half as much.
DEFAULT_WEIGHTS: Mapping[str, float] = {**dict.fromkeys(CRITERIA, 1.0), "conflict": 0.5}
# From this strength on a criterion is given as a reason: p_a within 0.15 of 0.5, and so on.
_TELLING = {"uncertain": 0.7, "order_gap": 0.2, "abstained": 0.0, "ensemble": 0.4, "conflict": 0.2}
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of one pair under one objective; `None` where nothing is.

    `verdicts` and `abstained` count those read and those not; `members_differ` is the probability that two members of
    the ensemble prefer different responses.
    """

    p_a: float | None
    order_gap: float | None = None
    verdicts: int = 0
    abstained: int = 0
    members_differ: float | None = None


UNKNOWN = Known(None)


@dataclass(frozen=True)
class Reason:
    """Why a pair was chosen: the criterion, how strong it is, 0 to 1, and a sentence for people."""

    criterion: str
    strength: float
    text: str


class Table:
    """What is known of every pair, in columns: 40 bytes a pair and objective, however long the texts are."""

    _FIELDS = ("p_a", "order_gap", "verdicts", "abstained", "members_differ")

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.lines = array("q")
        self._columns: dict[str, array[float]] = {}

    def add(self, pair_id: str, line: int, known: Mapping[str, Known]) -> None:
        """Add a pair; an objective that it lacks is unknown."""
        for name in known.keys() - self._columns.keys():
            self._columns[name] = array("d", _row(UNKNOWN) * len(self.ids))
        for name, column in self._columns.items():
            column.extend(_row(known.get(name, UNKNOWN)))
        self.ids.append(pair_id)
        self.lines.append(line)

    @property
    def objectives(self) -> tuple[str, ...]:
        """All objectives met, sorted."""
        return tuple(sorted(self._columns))

    def of(self, objectives: Sequence[str]) -> Mapping[str, Floats]:
        """Return each field as an array (pair, objective), nan where unknown."""
        stacked = np.stack([np.frombuffer(self._columns[name], dtype=np.float64) for name in objectives])
        by_field = stacked.reshape(len(objectives), len(self.ids), len(self._FIELDS))
        return {name: by_field[:, :, place].T for place, name in enumerate(self._FIELDS)}


def _row(known: Known) -> list[float]:
    given = (known.p_a, known.order_gap, float(known.verdicts), float(known.abstained), known.members_differ)
    return [float("nan") if value is None else value for value in given]


class Worth:
    """The scores of a table's pairs under some of its objectives, and the reasons behind them."""

    def __init__(self, table: Table, objectives: Sequence[str], weights: Mapping[str, float] = DEFAULT_WEIGHTS) -> None:
        self._objectives = tuple(objectives)
        self._weights = {**DEFAULT_WEIGHTS, **weights}
        self._known = table.of(objectives)
        p_a, verdicts, abstained = (self._known[name] for name in ("p_a", "verdicts", "abstained"))
        asked = verdicts + abstained
        share = np.divide(abstained, asked, out=np.zeros_like(asked), where=asked > 0)
        # Each (pair, objective); what was not measured adds nothing.
        self._strengths: dict[str, Floats] = {
            "uncertain": np.nan_to_num(2 * np.minimum(p_a, 1 - p_a)),
            "order_gap": np.nan_to_num(self._known["order_gap"]),
            "abstained": np.where(np.isnan(p_a), 1.0, share),
            "ensemble": np.nan_to_num(2 * self._known["members_differ"]),
        }
        clear = np.nan_to_num(2 * p_a - 1)
        self._conflict: Floats = np.maximum(0, np.minimum(clear.max(axis=1), -clear.min(axis=1)))
        safe = np.ones_like(p_a)
        for name, strength in self._strengths.items():
            safe *= 1 - self._weights[name] * strength
        mean = 1 - safe.mean(axis=1)
        self.scores: Floats = 1 - (1 - mean) * (1 - self._weights["conflict"] * self._conflict)

    def reasons(self, pair: int) -> list[Reason]:
        """Name every criterion that tells, the strongest first; where none does, the strongest there is."""
        found = []
        for name in CRITERIA:
            if self._weights[name] == 0:
                continue
            if name == "conflict":
                found.append(Reason(name, float(self._conflict[pair]), self._conflict_text(pair)))
                continue
            for place, objective in enumerate(self._objectives):
                strength = float(self._strengths[name][pair, place])
                found.append(Reason(name, strength, self._text(name, objective, pair, place)))
        found = sorted((each for each in found if each.strength > 0), key=self._weight_of, reverse=True)
        telling = [each for each in found if each.strength >= _TELLING[each.criterion] - _ROUNDING]
        if telling or not found:
            return telling
        return [Reason("remainder", found[0].strength, f"the most in doubt of what is left: {found[0].text}")]

    def _weight_of(self, reason: Reason) -> float:
        return self._weights[reason.criterion] * reason.strength

    def _text(self, criterion: str, objective: str, pair: int, place: int) -> str:
        known = {name: float(values[pair, place]) for name, values in self._known.items()}
        if criterion == "uncertain":
            near = "near 0.5" if self._strengths["uncertain"][pair, place] >= _TELLING["uncertain"] else "unsure"
            return f"{near} in {objective} (p_a {known['p_a']:.2f})"
        if criterion == "order_gap":
            return f"order gap in {objective} ({known['order_gap']:.2f})"
        if criterion == "ensemble":
            return f"heads disagree in {objective} (two of them differ with probability {known['members_differ']:.2f})"
        asked = int(known["verdicts"] + known["abstained"])
        read = f"{int(known['abstained'])} of {asked} verdicts not read" if asked else "no label"
        return f"abstained in {objective} ({read})"

    def _conflict_text(self, pair: int) -> str:
        p_a = self._known["p_a"][pair]
        if np.isnan(p_a).all():
            return "objectives in conflict"
        most, least = int(np.nanargmax(p_a)), int(np.nanargmin(p_a))
        sides = f"{self._objectives[most]} for a, p_a {p_a[most]:.2f}; {self._objectives[least]} for b, p_a"
        return f"objectives in conflict ({sides} {p_a[least]:.2f})"
