"""Human labels: what people preferred, and the majority of each pair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from rlaif.data.sources import Row, open_source
from rlaif.errors import InputError
from rlaif.types import Preference

_FIELDS = ("id", "annotator", "objective", "preference")
_PREFERENCES: tuple[Preference, ...] = get_args(Preference)


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


def read_human_labels(data: str) -> HumanLabels:
    """Read rows of `{"id", "annotator", "objective", "preference": "a"|"b"|"tie"}`, in any format that pairs come in.

    Raises:
        InputError: the file cannot be read or holds none, a row is no human label, or an annotator labels a pair twice.
    """
    source = open_source(data)
    votes: dict[tuple[str, str], Counter[Preference]] = {}
    first: dict[tuple[str, str, str], int] = {}
    annotators: set[str] = set()
    for row in source.read():
        pair_id, annotator, objective, preference = _fields(row, source.name)
        key = (pair_id, annotator, objective)
        if key in first:
            raise InputError(
                f"{source.name}:{row.line}: {annotator[:80]!r} labels pair {pair_id[:80]!r} for {objective[:80]!r} "
                f"also on line {first[key]}; each annotator has one label a pair and objective, remove one."
            )
        first[key] = row.line
        annotators.add(annotator)
        votes.setdefault((pair_id, objective), Counter())[preference] += 1
    if not votes:
        raise InputError(f"{source.name}: holds no human labels; expected rows with {', '.join(_FIELDS)}.")
    return HumanLabels(source.name, len(annotators), {key: _most(count) for key, count in votes.items()})


def _fields(row: Row, name: str) -> tuple[str, str, str, Preference]:
    place, value = f"{name}:{row.line}", row.value
    if row.fault is not None:
        raise InputError(f"{place}: {row.fault}; fix or remove the line.")
    if not isinstance(value, Mapping):
        raise InputError(f"{place}: not an object; expected one with {', '.join(_FIELDS)}.")
    found = [_text(value, field, place) for field in _FIELDS]
    preference = next((side for side in _PREFERENCES if side == found[3]), None)
    if preference is None:
        raise InputError(f"{place}: preference is {found[3][:80]!r}; expected a, b or tie. Fix the line.")
    return found[0], found[1], found[2], preference


def _text(row: Mapping[str, Any], field: str, place: str) -> str:
    value = row.get(field)
    if isinstance(value, int) and not isinstance(value, bool) and field in ("id", "annotator"):
        return str(value)
    if not isinstance(value, str) or not value:
        given = "missing" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"
        raise InputError(f"{place}: {field} is {given}; expected a text. A human label has {', '.join(_FIELDS)}.")
    return value


def _most(votes: Counter[Preference]) -> Preference | None:
    (most, count), *others = votes.most_common()
    return None if others and others[0][1] == count else most
