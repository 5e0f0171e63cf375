"""Name one value of a constitution: `harmlessness.no-cruelty.weight`, `aggregation.floors.harmlessness`, `version`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NoReturn

from rlaif.constitution.schema import Aggregation, Case, Constitution, Objective, Principle
from rlaif.constitution.spans import read_data
from rlaif.errors import InputError, nearest
from rlaif.findings import printable
from rlaif.types import Frozen

Kind = Literal["number", "text", "texts", "numbers"]
Value = str | float | Sequence[str] | Mapping[str, Any]

# The keys of each part, in the order in which a file is written.
TOP_KEYS = ("name", "version", "description", "extends", "objectives", "aggregation")
OBJECTIVE_KEYS = tuple(Objective.model_fields)
PRINCIPLE_KEYS = tuple(Principle.model_fields)
CASE_KEYS = tuple(Case.model_fields)
AGGREGATION_KEYS = tuple(Aggregation.model_fields)
# Blanks around these mean nothing.
STRIPPED = frozenset({"text", "question", "prompt"})

_SHOWN = 12
_KINDS: dict[str, Kind] = {"weight": "number", "tags": "texts", "extends": "texts"}


class Target(Frozen):
    """What a key names.

    `path` leads to it from the top: keys, the id of a principle behind `principles`, and a case's number (from 0)
    behind `cases`.
    """

    key: str
    path: tuple[str | int, ...]
    kind: Kind


class Names(Frozen):
    """The names that a key may hold: the objectives with their principles' ids, and the tags of `by_tag`."""

    objectives: Mapping[str, tuple[str, ...]]
    tags: tuple[str, ...] = ()

    def home(self, principle: str) -> str | None:
        """The objective that holds the principle."""
        return next((name for name, ids in self.objectives.items() if principle in ids), None)


def find_key(key: str, names: Names, place: str) -> Target:
    """Find what a key names; `place` is what errors call the file.

    The first part is a key of the file, an objective, or a principle's id, in this order. `objectives` and
    `principles` may be written or left out. A case is `PRINCIPLE.cases.1.better`, counted from 1.

    Raises:
        InputError: there is no such thing; the message names the nearest that is there.
    """
    return _Finder(key, names, place).find()


class _Finder:
    def __init__(self, key: str, names: Names, place: str) -> None:
        self.key, self.names, self.place = key, names, place

    def find(self) -> Target:
        first, *rest = self.key.split(".")
        if first == "objectives" and rest:
            return self.in_objective(rest)
        if first == "aggregation" and rest:
            return self.in_aggregation(rest)
        if first in TOP_KEYS and first not in ("objectives", "aggregation"):
            return self.field((), [first, *rest], TOP_KEYS)
        if first in self.names.objectives or first in TOP_KEYS:
            return self.in_objective([first, *rest])
        home = self.names.home(first)
        if home is None:
            ids = [each for ids in self.names.objectives.values() for each in ids]
            keys = [each for each in TOP_KEYS if each != "objectives"]
            self.unknown(first, "no objective, principle or key of the file", [*ids, *self.names.objectives, *keys])
        return self.in_principle(home, [first, *rest])

    def in_objective(self, parts: Sequence[str]) -> Target:
        name, *rest = parts
        if name not in self.names.objectives:
            self.unknown(name, "no objective", self.names.objectives)
        if not rest:
            self.incomplete(OBJECTIVE_KEYS[:-1])
        if rest[0] == "principles":
            rest = rest[1:]
        elif rest[0] in OBJECTIVE_KEYS:
            return self.field(("objectives", name), rest, OBJECTIVE_KEYS)
        if not rest:
            self.incomplete(self.names.objectives[name])
        return self.in_principle(name, rest)

    def in_principle(self, objective: str, parts: Sequence[str]) -> Target:
        name, *rest = parts
        ids = self.names.objectives[objective]
        if name not in ids:
            self.unknown(name, f"no principle or key of {objective}", [*ids, *OBJECTIVE_KEYS[:-1]])
        place = ("objectives", objective, "principles", name)
        if not rest:
            self.incomplete(PRINCIPLE_KEYS)
        if rest[0] != "cases":
            return self.field(place, rest, PRINCIPLE_KEYS)
        if len(rest) < 3 or not rest[1].isdecimal() or int(rest[1]) < 1:
            self.fail(f"a case is named as {name}.cases.1.better, counted from 1")
        return self.field((*place, "cases", int(rest[1]) - 1), rest[2:], CASE_KEYS)

    def in_aggregation(self, parts: Sequence[str]) -> Target:
        first, *rest = parts
        if first == "method" and not rest:
            return Target(key=self.key, path=("aggregation", "method"), kind="text")
        if first == "floors":
            if len(rest) > 1 or (rest and rest[0] not in self.names.objectives):
                self.unknown(".".join(rest), "no objective", self.names.objectives)
            return Target(key=self.key, path=("aggregation", *parts), kind="number" if rest else "numbers")
        if first != "by_tag":
            self.unknown(first, "no key of aggregation", AGGREGATION_KEYS)
        if not rest:
            self.incomplete(self.names.tags or ("TAG",))
        # A tag may hold dots itself.
        whole = ".".join(rest)
        if whole in self.names.tags or len(rest) == 1:
            return Target(key=self.key, path=("aggregation", "by_tag", whole), kind="numbers")
        if rest[-1] not in self.names.objectives:
            self.unknown(rest[-1], "no objective", self.names.objectives)
        path = ("aggregation", "by_tag", ".".join(rest[:-1]), rest[-1])
        return Target(key=self.key, path=path, kind="number")

    def field(self, path: tuple[str | int, ...], parts: Sequence[str], known: Sequence[str]) -> Target:
        name, *rest = parts
        if name not in known:
            self.unknown(name, f"no key of {path[-1] if isinstance(path[-1], str) else 'a case'}", known)
        if rest:
            self.fail(f"{name} holds nothing named {rest[0]!r}; leave out .{'.'.join(rest)}")
        return Target(key=self.key, path=(*path, name), kind=_KINDS.get(name, "text"))

    def incomplete(self, known: Iterable[str]) -> NoReturn:
        self.fail(f"names no single value; add one of {', '.join(known)}, as in {self.key}.{next(iter(known))}")

    def unknown(self, word: str, fact: str, known: Iterable[str]) -> NoReturn:
        names = list(dict.fromkeys(known))
        shown = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
        self.fail(f"{word!r} is {fact}; known are {shown}.{nearest(word, names)}", end="")

    def fail(self, fact: str, end: str = ".") -> NoReturn:
        # Names are those of a file that may not load, so they may hold anything.
        raise InputError(printable(f"{self.place}: {self.key}: {fact}{end}"))


def read_value(text: str, target: Target, place: str) -> Value:
    """Read the value of a `KEY=VALUE`: a number, a text taken as it is, `a,b`, or `{honesty: 0.6, helpfulness: 0.4}`.

    Raises:
        InputError: a number was expected, or the list or mapping cannot be read.
    """
    wrong = f"{place}: {target.key} is {text!r}"
    if target.kind == "text":
        return text
    if target.kind == "number":
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise InputError(f"{wrong}; expected a number, as 0.5.")
        return number
    try:
        value = read_data(f"value: {text}")["value"] if text.strip()[:1] in ("[", "{") else None
    except InputError:
        raise InputError(f"{wrong}; it is not closed or not plain YAML.") from None
    if target.kind == "numbers":
        numbers = isinstance(value, dict) and all(type(each) in (int, float) for each in value.values())
        if not numbers:
            raise InputError(f"{wrong}; expected weights of objectives, as {{honesty: 0.6, helpfulness: 0.4}}.")
        assert isinstance(value, dict)
        return value
    if isinstance(value, list):
        return [str(each) for each in value]
    if target.path == ("extends",) and "," not in text:
        return text.strip()
    return [each.strip() for each in text.split(",") if each.strip()]


def known_fields(path: Sequence[str | int]) -> tuple[str, ...]:
    """The keys that may stand in the mapping at a target's path, in the order in which a file is written."""
    if not path:
        return TOP_KEYS
    if path[0] == "aggregation":
        return AGGREGATION_KEYS if len(path) == 1 else ()
    return {2: OBJECTIVE_KEYS, 4: PRINCIPLE_KEYS, 6: CASE_KEYS}.get(len(path), ())


assert set(TOP_KEYS) - {"extends"} == set(Constitution.model_fields)
