"""The texts of labelled pairs: whole files of them, fast where rows are plain pairs."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast, get_args

from pydantic import ValidationError

from rlaif.agreement.table import OVERALL
from rlaif.agreement.texts import PairTexts
from rlaif.data.pairs import Reject, read_pairs
from rlaif.data.quick import quick_rows
from rlaif.data.sources import Source
from rlaif.data.spilled import SpilledPairs
from rlaif.errors import InputError
from rlaif.types import Message, Pair, Role

CHOSEN = "chosen"
KeptPairs = list[Pair] | SpilledPairs
Keep = Callable[[], KeptPairs]
_ROLES = frozenset(get_args(Role))


class KeptTexts(PairTexts):
    """Keeps the pairs of a run as their rows pass by, each with the place of its id; without `pairs` only the names.

    `own_overall` tells whether the constitution itself has an objective called overall.
    """

    def __init__(self, pairs: KeptPairs | None) -> None:
        super().__init__(0)
        self.pairs = pairs
        self.places = array("q")
        self.own_overall = False

    def add(self, place: int, row: Mapping[str, Any]) -> None:
        """Take one label's row."""
        self.own_overall = self.own_overall or OVERALL in row["labels"]
        if self.pairs is not None:
            names = ("id", "prompt", "response_a", "response_b", "tags")
            self.pairs.append(Pair.model_validate({name: row[name] for name in names}))
            self.places.append(place)


@dataclass
class PairFile:
    """Pairs of a file, and how many of its rows are none; `first_reject` says where and why."""

    pairs: KeptPairs
    rejects: int = 0
    first_reject: str = ""


def read_pair_file(source: Source, columns: Mapping[str, str], keep: Keep) -> PairFile:
    """Read every pair of a dataset into what `keep` makes; rows that cannot be used are counted.

    Raises:
        InputError: no row is a usable pair.
    """
    columns = _fitting(columns, source) if columns else {}
    quick = None if columns else _quick_pairs(source.name, keep())
    if quick is not None:
        return PairFile(quick)
    found = PairFile(keep())
    for row in read_pairs(source, columns):
        if isinstance(row, Reject):
            found.rejects += 1
            found.first_reject = found.first_reject or f"{source.name}:{row.line}: {row.reason}"
        else:
            found.pairs.append(row[1])
    if not found.pairs:
        why = found.first_reject or f"{source.name}: holds no rows"
        raise InputError(f"{why}; no row of the file is a usable pair. Give pairs, or preference data with labels.")
    return found


def _fitting(columns: Mapping[str, str], source: Source) -> Mapping[str, str]:
    """The names of columns for a dataset that has any of them; of several datasets others may have our own names."""
    for row in source.read():
        if row.fault is None and isinstance(row.value, Mapping):
            ours = {"prompt", "response_a", "response_b", "chosen", "rejected"}
            return {} if ours & row.value.keys() and not set(columns.values()) & row.value.keys() else columns
    return columns


def _quick_pairs(name: str, pairs: KeptPairs) -> KeptPairs | None:
    """All pairs of a file whose rows are plain ones with ids; `None` where any is not, for the full reader to judge."""
    if not name.endswith((".jsonl", ".jsonl.gz")):
        return None
    met: set[str] = set()
    try:
        for _, row in quick_rows(name):
            pair = _plain_pair(row)
            if pair is None or pair.id in met:
                return None
            met.add(pair.id)
            pairs.append(pair)
    except (InputError, ValidationError):
        return None
    return pairs or None


def _plain_pair(row: Any) -> Pair | None:
    """A row that is a pair as it stands, without anything to be told apart, renamed or refused."""
    if type(row) is not dict:
        return None
    name, prompt, a, b = row.get("id"), row.get("prompt"), row.get("response_a"), row.get("response_b")
    if not (type(name) is type(a) is type(b) is str and name) or "\x00" in f"{name}{a}{b}":
        return None
    if type(prompt) is str:
        prompt = [{"role": "user", "content": prompt}] if prompt.strip() else None
    if type(prompt) is not list or not prompt:
        return None
    turns = []
    for turn in prompt:
        role, content = (turn.get("role"), turn.get("content")) if type(turn) is dict else (None, None)
        if not (type(role) is type(content) is str and role in _ROLES) or "\x00" in content:
            return None
        turns.append(Message(role=cast("Role", role), content=content))
    tags = row.get("tags")
    if tags is not None and not _plain_tags(tags):
        return None
    return Pair(id=name, prompt=tuple(turns), response_a=a, response_b=b, tags=tags or {})


def _plain_tags(tags: Any) -> bool:
    return type(tags) is dict and all(
        value is None
        or (type(value) is str and "\x00" not in value)
        or (isinstance(value, int | float) and abs(value) < 2**63)
        for value in tags.values()
    )
