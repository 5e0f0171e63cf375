"""Read a constitution from YAML; every problem is reported at once, with its file and line."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.reader import ReaderError

from rlaif.constitution.schema import Aggregation, Case, Constitution, Objective, Principle
from rlaif.errors import InputError
from rlaif.shipped import find_shipped

MAX_BYTES = 2**20
_MAX_NODES = 50_000
_MODELS: dict[str, type[BaseModel]] = {
    "constitution": Constitution,
    "objective": Objective,
    "principle": Principle,
    "case": Case,
    "aggregation": Aggregation,
}


def load_constitution(name: str | Path) -> Constitution:
    """Load a constitution by the name of a shipped one (`hhh`) or by file.

    Raises:
        InputError: one line for each problem found, as `FILE:LINE: fact; expectation. Fix.`
    """
    path = find_shipped("constitutions", str(name), ".yaml")
    return parse_constitution(_read(path), str(path))


def _read(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from None
    if len(raw) > MAX_BYTES:
        raise InputError(f"{path}: {len(raw):,} bytes; a constitution is at most {MAX_BYTES:,} bytes.")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise InputError(f"{path}:{line}: invalid UTF-8; save the file as UTF-8.") from None


def parse_constitution(text: str, place: str) -> Constitution:
    """Parse and check the YAML `text`; `place` names it in errors."""
    try:
        tree = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        # Of a key given twice, ruamel would quote both values at length.
        fact = (error.problem or error.context or "not YAML").partition(" with value ")[0].strip()
        raise InputError(f"{place}:{line}: {fact}; the file must be plain YAML with each key once.") from None
    except (YAMLError, ValueError, RecursionError) as error:
        fact = "nested too deeply" if isinstance(error, RecursionError) else str(error).splitlines()[0]
        line = text[: error.position].count("\n") + 1 if isinstance(error, ReaderError) else 1
        raise InputError(f"{place}:{line}: {fact}; the file must be plain YAML.") from None
    if not isinstance(tree, CommentedMap):
        raise InputError(f"{place}:1: the file holds no mapping; expected the keys name, objectives, aggregation.")
    if _count_nodes(tree) > _MAX_NODES:
        raise InputError(f"{place}:1: the file unfolds to over {_MAX_NODES:,} values; remove repeated YAML aliases.")
    problems = list(_problems(tree))
    if problems:
        raise InputError("\n".join(f"{place}:{line}: {what}" for line, what in sorted(problems)))
    return Constitution.model_validate(_plain(tree))


def _count_nodes(tree: Any) -> int:
    count, stack = 0, [tree]
    while stack and count <= _MAX_NODES:
        node = stack.pop()
        count += 1
        if isinstance(node, dict):
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(node)
    return count


def _plain(node: Any) -> Any:
    if isinstance(node, dict):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    # ruamel's scalars subclass the plain types; pydantic and json are to see only those.
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node


def _problems(tree: CommentedMap) -> Iterator[tuple[int, str]]:
    try:
        Constitution.model_validate(_plain(tree))
    except ValidationError as errors:
        for error in errors.errors():
            if error["type"] == "too_short" and error["input"]:
                # Entries that are wrong themselves are not counted; they have been named.
                continue
            location = tuple(part for part in error["loc"] if part != "[key]")
            yield _line(tree, location), _explain(tree, location, cast("dict[str, Any]", error))
    yield from _cross_checks(tree)


def _cross_checks(tree: CommentedMap) -> Iterator[tuple[int, str]]:
    objectives = tree.get("objectives")
    if not isinstance(objectives, dict):
        return
    seen: dict[str, int] = {}
    for name, objective in objectives.items():
        principles = objective.get("principles") if isinstance(objective, dict) else None
        for number, principle in enumerate(principles if isinstance(principles, list) else []):
            if not isinstance(principle, dict) or not isinstance(principle.get("id"), str):
                continue
            line = _line(tree, ("objectives", name, "principles", number, "id"))
            if principle["id"] in seen:
                first = seen[principle["id"]]
                yield (
                    line,
                    f"principle id {principle['id']!r} is used on line {first} too; give each its own id.",
                )
            seen.setdefault(principle["id"], line)
    aggregation = tree.get("aggregation")
    if not isinstance(aggregation, dict):
        return
    places: list[tuple[tuple[Any, ...], Any]] = [(("aggregation", "floors"), aggregation.get("floors"))]
    by_tag = aggregation.get("by_tag")
    for tag, weights in (by_tag if isinstance(by_tag, dict) else {}).items():
        places.append((("aggregation", "by_tag", tag), weights))
    for location, named in places:
        for name in named if isinstance(named, dict) else ():
            if name not in objectives:
                known = ", ".join(map(str, objectives))
                fix = _nearest(str(name), [str(key) for key in objectives])
                yield (
                    _line(tree, (*location, name)),
                    f"{location[1]} names {name!r}; the objectives are {known}.{fix}",
                )


def _line(tree: CommentedMap, location: tuple[Any, ...]) -> int:
    """1-based line of the deepest part of `location` that stands in the file."""
    node: Any = tree
    line = 1
    for part in location:
        key = next((k for k in node if str(k) == str(part)), None) if isinstance(node, CommentedMap) else part
        if isinstance(node, CommentedMap) and key is not None and key in (node.lc.data or {}):
            line = node.lc.key(key)[0] + 1
            node = node[key]
        elif isinstance(node, CommentedSeq) and isinstance(key, int) and key < len(node):
            line = node.lc.item(key)[0] + 1
            node = node[key]
        else:
            break
    return line


def _model_at(location: tuple[Any, ...]) -> str:
    """Name of the schema model that the last part of `location` is a key of."""
    if location[:1] == ("aggregation",):
        return "aggregation"
    names = {1: "constitution", 3: "objective", 5: "principle", 7: "case"}
    return names.get(len(location), "constitution") if len(location) == 1 or location[0] == "objectives" else "case"


def _nearest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _explain(tree: CommentedMap, location: tuple[Any, ...], error: dict[str, Any]) -> str:
    name = str(location[-1]) if location else "the file"
    where = f"{name} in {'.'.join(map(str, location[:-1]))}" if len(location) > 1 else name
    kind, value, context = error["type"], error.get("input"), error.get("ctx", {})
    shown = repr(value) if isinstance(value, (str, int, float, bool)) else type(value).__name__
    shown = shown if len(shown) <= 60 else shown[:57] + "…'"
    if kind == "extra_forbidden":
        known = list(_MODELS[_model_at(location)].model_fields)
        return f"unknown key {where}; known keys are {', '.join(known)}.{_nearest(name, known)}"
    if kind == "missing":
        return f"{where} is missing; add it."
    if kind == "greater_than_equal":
        hint = " Use 0 to turn the principle off." if name == "weight" and "principles" in location else ""
        return f"{where} is {shown}; it must be {context['ge']:g} or more.{hint}"
    if kind == "less_than_equal":
        return f"{where} is {shown}; it must be {context['le']:g} or less."
    if kind == "string_pattern_mismatch":
        return f"{where} is {shown}; use letters, digits, - and _ only."
    if kind in {"too_short", "string_too_short"}:
        return f"{where} is empty; it needs at least one entry or some text."
    if kind == "string_type" and isinstance(value, (int, float, bool)):
        return f"{where} is {shown}, which YAML reads as {type(value).__name__}; put it in quotes."
    if kind == "value_error":
        return f"{where}: {context.get('error', error['msg'])}."
    return f"{where} is {shown}; {error['msg'][:1].lower()}{error['msg'][1:]}."
