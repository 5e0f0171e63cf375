"""Human labels: what people preferred, a vote each, and the majority of each pair."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from rlaif.data.quick import quick_rows
from rlaif.errors import InputError
from rlaif.types import Preference

_FIELDS = ("id", "annotator", "objective", "preference")
PREFERENCES: tuple[Preference, ...] = get_args(Preference)
# How a preference stands in a column; -1 there is none.
CODES: Mapping[str, int] = {preference: code for code, preference in enumerate(PREFERENCES)}


@dataclass
class HumanVotes:
    """Human labels in columns, a row each, in the order of the file.

    `pair`, `annotator` and `objective` hold places in `ids`, `annotators` and `objectives` (names in the order in which
    they were met), `preference` 0 for a, 1 for b and 2 for a tie.
    """

    name: str
    ids: dict[str, int] = field(default_factory=dict)
    annotators: dict[str, int] = field(default_factory=dict)
    objectives: dict[str, int] = field(default_factory=dict)
    pair: array[int] = field(default_factory=lambda: array("i"))
    annotator: array[int] = field(default_factory=lambda: array("i"))
    objective: array[int] = field(default_factory=lambda: array("i"))
    preference: array[int] = field(default_factory=lambda: array("b"))
    line: array[int] = field(default_factory=lambda: array("i"))


@dataclass(frozen=True)
class HumanLabels:
    """What most annotators preferred, by pair and objective.

    `majority` is `None` where no preference has more voices than each other one.
    """

    name: str
    annotators: int
    majority: Mapping[tuple[str, str], Preference | None]

    @property
    def objectives(self) -> tuple[str, ...]:
        """The objectives that were labelled, in the order in which they were met."""
        return tuple(dict.fromkeys(objective for _, objective in self.majority))


def read_human_votes(data: str) -> HumanVotes:
    """Read rows of `{"id", "annotator", "objective", "preference": "a"|"b"|"tie"}`, in any format that pairs come in.

    Raises:
        InputError: the file cannot be read or holds none, a row is no human label, or an annotator labels a pair twice.
    """
    votes = HumanVotes(data)
    ids, annotators, objectives = votes.ids, votes.annotators, votes.objectives
    add_pair, add_annotator = votes.pair.append, votes.annotator.append
    add_objective, add_preference, add_line = votes.objective.append, votes.preference.append, votes.line.append
    for line, row in quick_rows(data):
        try:
            pair, annotator, objective = row["id"], row["annotator"], row["objective"]
            code = CODES[row["preference"]]
        except (KeyError, TypeError, IndexError):
            pair, annotator, objective, code = _fields(row, f"{data}:{line}")
        if not (type(pair) is type(annotator) is type(objective) is str and pair and annotator and objective):
            pair, annotator, objective, code = _fields(row, f"{data}:{line}")
        add_pair(ids.setdefault(pair, len(ids)))
        add_annotator(annotators.setdefault(annotator, len(annotators)))
        add_objective(objectives.setdefault(objective, len(objectives)))
        add_preference(code)
        add_line(line)
    if not votes.pair:
        raise InputError(f"{data}: holds no human labels; expected rows with {', '.join(_FIELDS)}.")
    _refuse_twice(votes)
    return votes


def read_human_labels(data: str) -> HumanLabels:
    """Read human labels and take the majority of each pair and objective.

    Raises:
        InputError: see `read_human_votes`.
    """
    votes = read_human_votes(data)
    pairs, objectives = list(votes.ids), list(votes.objectives)
    counts: dict[tuple[int, int], Counter[int]] = {}
    for pair, objective, code in zip(votes.pair, votes.objective, votes.preference, strict=True):
        counts.setdefault((pair, objective), Counter())[code] += 1
    majority = {(pairs[pair], objectives[objective]): _most(count) for (pair, objective), count in counts.items()}
    return HumanLabels(votes.name, len(votes.annotators), majority)


def _refuse_twice(votes: HumanVotes) -> None:
    import numpy as np

    codes = np.frombuffer(votes.pair, np.int32).astype(np.int64) * len(votes.annotators)
    codes = (codes + np.frombuffer(votes.annotator, np.int32)) * len(votes.objectives)
    codes += np.frombuffer(votes.objective, np.int32)
    # Stable, so that of equal ones the earlier line comes first.
    order = np.argsort(codes, kind="stable")
    again = order[1:][np.diff(codes[order]) == 0]
    if not again.size:
        return
    row = int(again.min())
    first = int(np.flatnonzero(codes == codes[row])[0])
    pair, annotator = list(votes.ids)[votes.pair[row]], list(votes.annotators)[votes.annotator[row]]
    objective = list(votes.objectives)[votes.objective[row]]
    raise InputError(
        f"{votes.name}:{votes.line[row]}: {annotator[:80]!r} labels pair {pair[:80]!r} for {objective[:80]!r} "
        f"also on line {votes.line[first]}; each annotator has one label a pair and objective, remove one."
    )


def _fields(row: Any, place: str) -> tuple[str, str, str, int]:
    if not isinstance(row, Mapping):
        raise InputError(f"{place}: not an object; expected one with {', '.join(_FIELDS)}.")
    pair, annotator, objective = (_text(row, name, place) for name in _FIELDS[:-1])
    preference = row.get("preference")
    if not isinstance(preference, str) or preference not in CODES:
        given = repr(preference[:80]) if isinstance(preference, str) else _given(row, "preference")
        raise InputError(
            f"{place}: preference is {given}; expected a, b or tie. Fix the line, or remove it where nobody chose."
        )
    return pair, annotator, objective, CODES[preference]


def _text(row: Mapping[str, Any], name: str, place: str) -> str:
    value = row.get(name)
    if isinstance(value, int) and not isinstance(value, bool) and name in ("id", "annotator"):
        return str(value)
    if not isinstance(value, str) or not value:
        expected = f"expected a text. A human label has {', '.join(_FIELDS)}."
        raise InputError(f"{place}: {name} is {_given(row, name)}; {expected}")
    return value


def _given(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if value is None:
        return "null" if name in row else "missing"
    return f"{type(value).__name__} {str(value)[:40]!r}"


def _most(votes: Counter[int]) -> Preference | None:
    (most, count), *others = votes.most_common()
    return None if others and others[0][1] == count else PREFERENCES[most]
