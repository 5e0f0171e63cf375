"""Edit a constitution file as a careful person would: the value that is meant changes, every other byte stays.

    file = ConstitutionFile.load("mine.yaml")
    file.set("harmlessness.no-cruelty.weight", 0)
    file.add_principle("honesty", "says-sources", "Prefer the response that says where a claim comes from.")
    file.save()

Comments, order, quotes, folded texts, indentation, line ends and a byte order mark stay. Nothing is written before
`save`, and nothing that would not load.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlaif.characters import hidden_characters
from rlaif.constitution.extends import whole_tree
from rlaif.constitution.keys import STRIPPED, Names, Target, Value, find_key, known_fields
from rlaif.constitution.load import MAX_BYTES, parse_constitution
from rlaif.constitution.schema import Case, Constitution
from rlaif.constitution.splice import Location, YamlText
from rlaif.errors import InputError, RunError
from rlaif.files import replacing
from rlaif.findings import printable
from rlaif.shipped import shipped_folder

_WRITABLE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
_BOM = b"\xef\xbb\xbf"
# Mappings that say nothing when they are empty.
_OPTIONAL = frozenset({"aggregation", "floors", "by_tag"})


class ConstitutionFile:
    """A constitution file that is being edited; make one with `load`.

    Of a file that extends others, what is inherited can be changed too: the change is written into this file, over the
    parent's value, and the parent stays as it is.
    """

    def __init__(self, path: Path, raw: bytes) -> None:
        self.path = path
        self._raw = raw
        self._yaml = YamlText(raw.removeprefix(_BOM).decode("utf-8"), str(path))
        self._first = self._yaml.text
        self._written = False
        self._inherited: tuple[YamlText, dict[str, Any]] | None = None

    @classmethod
    def load(cls, path: str | Path) -> ConstitutionFile:
        """Read a file. It may hold values that are refused (so that they can be set right), but must be YAML.

        Raises:
            InputError: the file cannot be read, is no YAML, or holds no mapping.
        """
        path = Path(path)
        known = {file.stem for file in shipped_folder("constitutions").glob("*.yaml")}
        if str(path) in known and not path.exists():
            hint = f"start a file of your own with rlaif constitution new my.yaml --from {path}"
            raise InputError(f"{path}: comes with rlaif and stays as it is; {hint}.")
        try:
            # Nothing is ever written to a pipe or a device, and opening one may wait for ever.
            size = path.stat().st_size
            if not path.is_file():
                raise InputError(f"{path}: not a file; give a constitution's .yaml file.")
            raw = path.read_bytes() if size <= MAX_BYTES else None
        except OSError as error:
            hint = "give a file; make one with rlaif constitution new"
            raise InputError(f"{path}: cannot be read ({error.strerror}); {hint}.") from None
        if raw is None:
            raise InputError(f"{path}: too large; a constitution is at most {MAX_BYTES:,} bytes.")
        try:
            return cls(path, raw)
        except UnicodeDecodeError as error:
            line = raw[: error.start].count(b"\n") + 1
            raise InputError(f"{path}:{line}: invalid UTF-8; save the file as UTF-8.") from None

    @property
    def text(self) -> str:
        """The text with all edits, without a byte order mark."""
        return self._yaml.text

    @property
    def changed(self) -> bool:
        """Whether there is anything to save."""
        return self.text != self._first

    def set(self, key: str, value: Value) -> None:
        """Set what `key` names: `harmlessness.no-cruelty.weight`, `aggregation.floors.honesty`, `version` (`find_key`).

        Raises:
            InputError: there is no such thing, the value cannot stand in a constitution, or it is shared through an
                anchor and cannot change alone.
        """
        target = self.find(key)
        if isinstance(value, (bool, float, int)) and (isinstance(value, bool) or not math.isfinite(value)):
            raise InputError(f"{self.path}: {key} is {value}; expected a finite number, a text, a list or a mapping.")
        self._refuse_hidden(key, value)
        self._assign(target.path, value)

    def unset(self, key: str) -> None:
        """Remove what `key` names, so that its default (or what is inherited) counts."""
        target = self.find(key)
        location = self._location(target.path)
        if location is None or not self._yaml.holds(location):
            raise InputError(f"{self.path}: {key} is not set in this file; there is nothing to remove.")
        self._drop(location)

    def find(self, key: str) -> Target:
        """What a key names in this file as it is now."""
        return find_key(key, self._names(), str(self.path))

    def value(self, key: str) -> Any:
        """What this file itself says of a key; `None` where it says nothing."""
        location = self._location(self.find(key).path)
        return self._yaml.value(location) if location is not None else None

    @property
    def written(self) -> bool:
        """Whether `save` has written anything."""
        return self._written

    def add_objective(self, name: str, values: Mapping[str, Any]) -> None:
        """Add an objective at the end: its question, weight and principles, as the file writes them."""
        names = self._names()
        if name in names.objectives:
            raise InputError(f"{self.path}: there is an objective {name!r} already; set its keys instead.")
        self._refuse_hidden(name, values)
        self._assign(("objectives", name), values)

    def add_principle(
        self,
        objective: str,
        id: str,
        text: str,
        *,
        weight: float = 1.0,
        source: str | None = None,
        tags: Sequence[str] = (),
        cases: Sequence[Case] = (),
    ) -> None:
        """Add a principle at the end of an objective, laid out as those before it."""
        names = self._names()
        home = names.home(id)
        if home is not None:
            raise InputError(f"{self.path}: {home} has a principle {id!r} already; give the new one an id of its own.")
        find_key(f"objectives.{objective}.weight", names, str(self.path))
        values: dict[str, Any] = {"id": id, "text": text.strip()}
        values |= {"weight": weight} if weight != 1 else {}
        values |= {"source": source} if source is not None else {}
        values |= {"tags": list(tags)} if tags else {}
        values |= {"cases": [each.model_dump() for each in cases]} if cases else {}
        self._refuse_hidden(id, values)
        self._append(("objectives", objective, "principles"), values)

    def remove_principle(self, id: str) -> None:
        """Remove a principle with the comments inside it; a comment above it stays, since it may be a heading."""
        home = self._home(id)
        location = self._location(("objectives", home, "principles", id))
        if location is None:
            inherited = "stands in what this file extends; set its weight to 0 to turn it off"
            raise InputError(f"{self.path}: principle {id!r} {inherited}.")
        before = self._yaml
        if len(before.value(location[:-1])) == 1 and "extends" not in before.data:
            hint = "add another one first, or take out the objective"
            raise InputError(f"{self.path}:{before.line(location)}: {id!r} is the only principle of {home}; {hint}.")
        self._drop(location, prune=True)
        if self._names().home(id) is not None:
            self._yaml = before
            hint = f"set its weight to 0 to turn it off, or unset {id}.text and so on to have it as it is there"
            raise InputError(f"{self.path}: principle {id!r} stands in what this file extends too; {hint}.")

    def add_case(self, principle_id: str, prompt: str, better: str, worse: str) -> None:
        """Add a case at the end of a principle's.

        A principle that is inherited with its cases gets them written into this file, since cases are replaced whole.
        """
        path = ("objectives", self._home(principle_id), "principles", principle_id)
        case = Case(prompt=prompt, better=better, worse=worse).model_dump()
        self._refuse_hidden(principle_id, case)
        location = self._location(path)
        rules = _rules(_mapping(self._merged(), "objectives")[path[1]])
        inherited = next(rule for rule in rules if rule.get("id") == principle_id).get("cases")
        if (location is None or not self._yaml.holds((*location, "cases"))) and inherited:
            self._assign((*path, "cases"), [*inherited, case])
        else:
            self._append((*path, "cases"), case)

    def check(self) -> Constitution:
        """The constitution that the text holds now.

        Raises:
            InputError: it would not load; one line for each problem.
        """
        return parse_constitution(self.text, str(self.path))

    def save(self) -> Constitution:
        """Write the file, whole or not at all, if anything changed and it loads.

        Raises:
            InputError: the result would not load; the file is untouched.
            RunError: the file is read-only or cannot be written, or somebody else wrote to it in the meantime.
        """
        constitution = self.check()
        if not self.changed:
            return constitution
        # A link stays a link: the file that it leads to is replaced.
        path = self.path.resolve() if self.path.is_symlink() else self.path
        if not path.is_file() or path.read_bytes() != self._raw:
            raise RunError(f"{self.path}: was changed by another program since it was read; nothing was written.")
        if not path.stat().st_mode & _WRITABLE or not os.access(path, os.W_OK):
            # Another file could be put in its place, but somebody said that it is to stay.
            raise RunError(f"{self.path}: is read-only; nothing was written. Make it writable first (chmod u+w).")
        raw = (_BOM if self._raw.startswith(_BOM) else b"") + self.text.encode()
        with replacing(path) as file:
            file.write(raw.decode("utf-8"))
        self._raw, self._first, self._written = raw, self.text, True
        return constitution

    def _merged(self) -> dict[str, Any]:
        """The values of the file over what it extends; also of one that does not load."""
        if "extends" not in self._yaml.data:
            return self._yaml.data
        if self._inherited is None or self._inherited[0] is not self._yaml:
            tree, findings = whole_tree(self.text, str(self.path))
            if tree is None:
                raise InputError("\n".join(f"{each.file}:{each.line}: {each.message}" for each in findings))
            self._inherited = self._yaml, tree.plain()
        return self._inherited[1]

    def _names(self) -> Names:
        merged = self._merged()
        return Names(
            objectives={
                name: tuple(str(rule["id"]) for rule in _rules(objective) if "id" in rule)
                for name, objective in _mapping(merged, "objectives").items()
            },
            tags=tuple(_mapping(_mapping(merged, "aggregation"), "by_tag")),
        )

    def _home(self, id: str) -> str:
        """The objective of a principle; an unknown one is refused with the nearest that is known."""
        names = self._names()
        home = names.home(id)
        if home is None:
            if id not in names.objectives:
                self.find(f"{id}.text")
            raise InputError(f"{self.path}: {id!r} is no principle; give the id of one.")
        return home

    def _location(self, path: Location) -> Location | None:
        """Where a path is in this file's own lists; `None` where it names a principle that is only inherited."""
        location: Location = ()
        for number, part in enumerate(path):
            if number == 3 and path[0] == "objectives":
                listed = self._yaml.value(location)
                ids = [each.get("id") if isinstance(each, dict) else None for each in listed or ()]
                if part not in ids:
                    return None
                location = (*location, ids.index(part))
            else:
                location = (*location, part)
        return location

    def _refuse_hidden(self, key: str, value: Any) -> None:
        """Refuse a text with a character that nobody sees: no file that holds one loads."""
        for text in _texts(value):
            for each in hidden_characters(text.replace("\r", "\n")):
                fact = f"holds the non-printing character {each.name}; leave it out"
                raise InputError(f"{self.path}: {printable(key)}: the text {fact}.")

    def _assign(self, path: Location, value: Any) -> None:
        """Set the value at a path; what is missing on the way is made."""
        location = self._location(path)
        known = self._yaml.value(location) if location is not None else None
        if location is not None and self._yaml.holds(location):
            if isinstance(value, Mapping) and isinstance(known, dict) and value and known:
                self._assign_entries(path, location, known, value)
                return
            value = _as_written(path, value, known)
            if value != known:
                self._yaml = self._yaml.replace(location, value)
            return
        if len(path) == 7:
            raise InputError(f"{self.path}: {path[3]} has no case {int(path[5]) + 1} in this file; add it first.")
        depth = len(path) - 1
        while depth and not self._stands(path[:depth]):
            depth -= 1
        if depth == 3 and path[0] == "objectives":
            (item,) = _nested(path, 3, value)
            self._append(path[:3], item)
            return
        place = self._location(path[:depth])
        assert place is not None
        self._put(place, str(path[depth]), _nested(path, depth + 1, value), known_fields(path[:depth]))

    def _put(self, place: Location, key: str, value: Any, order: Sequence[str]) -> None:
        if self._yaml.value(place) in (None, {}, []) and place and self._yaml.holds(place):
            # `floors:` with nothing behind it.
            self._yaml = self._yaml.replace(place, {key: value})
        else:
            self._yaml = self._yaml.add_key(place, key, value, order)

    def _assign_entries(self, path: Location, location: Location, known: Any, value: Mapping[str, Any]) -> None:
        """Set a mapping entry by entry, so that comments beside those that stay are kept."""
        for key, item in value.items():
            self._assign((*path, key), item)
        for key in known:
            if key not in value:
                self._yaml = self._yaml.remove((*location, key))

    def _append(self, path: Location, item: Mapping[str, Any]) -> None:
        location = self._location(path)
        if location is not None and self._yaml.value(location):
            self._yaml = self._yaml.add_item(location, item)
        else:
            self._assign(path, [item])

    def _stands(self, path: Location) -> bool:
        location = self._location(path)
        return location is not None and (not location or self._yaml.holds(location))

    def _drop(self, location: Location, prune: bool = False) -> None:
        """Remove a value, and what would be left empty around it."""
        parent = location[:-1]
        while len(self._yaml.value(parent)) == 1 and parent and (prune or self._may_go(parent)):
            location, parent = parent, parent[:-1]
        self._yaml = self._yaml.remove(location)

    def _may_go(self, location: Location) -> bool:
        return location[-1] in _OPTIONAL or (len(location) == 3 and location[1] == "by_tag")


def _mapping(values: Any, key: str) -> dict[str, Any]:
    """The mapping at a key; an empty one where there is something else, as in a file that does not load."""
    held = values.get(key) if isinstance(values, dict) else None
    return held if isinstance(held, dict) else {}


def _rules(objective: Any) -> list[dict[str, Any]]:
    held = objective.get("principles") if isinstance(objective, dict) else None
    return [rule for rule in held if isinstance(rule, dict)] if isinstance(held, list) else []


def _texts(value: Any) -> Iterator[str]:
    """The texts in a value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from (*_texts(key), *_texts(item))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)


def _nested(path: Location, depth: int, value: Any) -> Any:
    """The value with the part of its path from `depth` on wrapped around it."""
    for number in range(len(path) - 1, depth - 1, -1):
        part = path[number]
        if number == 3 and path[0] == "objectives":
            value = [{"id": part, **value}]
        else:
            value = {part: value}
    return value


def _as_written(path: Location, value: Any, known: Any) -> Any:
    """A text as it is to stand in the file: blanks around it only where the old one has them and they mean nothing."""
    if path[-1] in STRIPPED and isinstance(value, str) and isinstance(known, str):
        value = value.strip()
        return known if value == known.strip() else value + known[len(known.rstrip("\n")) :]
    return list(value) if isinstance(value, (list, tuple)) else value
