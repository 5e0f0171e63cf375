"""What the schema refuses, said in the terms of the file: the line, the fact and the fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from rlaif.constitution.findings import finding
from rlaif.constitution.schema import Aggregation, Case, Constitution, Objective, Principle
from rlaif.constitution.views import objectives_of
from rlaif.constitution.yaml_tree import Node
from rlaif.findings import Finding

Location = tuple[str | int, ...]
_MODELS: dict[str, type[BaseModel]] = {
    "constitution": Constitution,
    "objective": Objective,
    "principle": Principle,
    "case": Case,
    "aggregation": Aggregation,
}
_CODES = {
    "extra_forbidden": "unknown-key",
    "missing": "missing-key",
    "finite_number": "bad-value",
    "literal_error": "bad-value",
    "string_pattern_mismatch": "bad-name",
    "string_too_long": "bad-name",
    "too_short": "empty",
    "string_too_short": "empty",
    "value_error": "all-off",
}
# Of a file that is wrong throughout, so many are told.
_MOST = 500


def validate(tree: Node) -> tuple[Constitution | None, list[Finding]]:
    """Check a whole tree against the schema; the constitution is `None` if anything is found."""
    findings = [
        finding("wrong-type", node.place, f"{_where(location)} is {str(node.value).lower()}; it must be a number.")
        for location, node in _switches(tree)
    ]
    try:
        constitution = Constitution.model_validate(tree.plain())
    except ValidationError as errors:
        every = errors.errors(include_url=False)
        for error in every[:_MOST]:
            if error["type"] == "too_short" and error["input"]:
                # Entries that are wrong themselves are not counted; they have been named.
                continue
            location = tuple(part for part in error["loc"] if part != "[key]")
            node, _ = tree.deepest(location)
            code, fact = _explain(tree, location, cast("dict[str, Any]", error))
            findings.append(finding(code, node.place, fact))
        if len(every) > _MOST:
            findings.append(finding("too-many", tree.place, f"{len(every):,} problems; only {_MOST} are listed."))
        return None, findings
    return (None if findings else constitution), findings


def nearest(word: str, known: list[str]) -> str:
    """` Did you mean 'weight'?`, or nothing where no known word is near."""
    close = difflib.get_close_matches(word[:64], known, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _switches(tree: Node) -> Iterator[tuple[Location, Node]]:
    """Weights and floors that are true or false, which pydantic would read as 1 and 0."""
    places: list[Location] = []
    for name, objective in (tree.entries["objectives"].entries if "objectives" in tree.entries else {}).items():
        places.append(("objectives", name, "weight"))
        listed = objective.at("principles")
        count = len(listed.items) if listed else 0
        places += [("objectives", name, "principles", number, "weight") for number in range(count)]
    floors, tags = tree.at("aggregation", "floors"), tree.at("aggregation", "by_tag")
    places += [("aggregation", "floors", name) for name in (floors.entries if floors else ())]
    for tag, weights in (tags.entries if tags else {}).items():
        places += [("aggregation", "by_tag", tag, name) for name in weights.entries]
    for place in places:
        node = tree.at(*place)
        if node is not None and isinstance(node.value, bool):
            yield place, node


def _model_at(location: Location) -> str:
    """Name of the schema model that the last part of `location` is a key of."""
    if location[:1] == ("aggregation",):
        return "aggregation"
    names = {1: "constitution", 3: "objective", 5: "principle", 7: "case"}
    return names.get(len(location), "constitution") if len(location) == 1 or location[0] == "objectives" else "case"


def _where(location: Location) -> str:
    name = str(location[-1]) if location else "the file"
    return f"{name} in {'.'.join(map(str, location[:-1]))}" if len(location) > 1 else name


def _explain(tree: Node, location: Location, error: dict[str, Any]) -> tuple[str, str]:
    name, where = str(location[-1]) if location else "the file", _where(location)
    kind, value, context = str(error["type"]), error.get("input"), error.get("ctx", {})
    code = _CODES.get(kind, "wrong-type")
    shown = repr(value) if isinstance(value, (str, int, float, bool)) else type(value).__name__
    shown = shown if len(shown) <= 60 else shown[:57] + "…'"
    if kind == "extra_forbidden":
        model = _model_at(location)
        known = list(_MODELS[model].model_fields)
        known[3:3] = ["extends"] if model == "constitution" else []
        return code, f"unknown key {where}; known keys are {', '.join(known)}.{nearest(name, known)}"
    if kind == "missing":
        return code, f"{where} is missing; add it.{_meant(tree, location)}"
    if kind == "greater_than_equal":
        hint = " Use 0 to turn the principle off." if name == "weight" and "principles" in location else ""
        code = "floor-range" if "floors" in location[:2] else "negative-weight"
        return code, f"{where} is {shown}; it must be {context['ge']:g} or more.{hint}"
    if kind == "less_than_equal":
        return "floor-range", f"{where} is {shown}; it must be {context['le']:g} or less."
    if kind == "string_pattern_mismatch":
        return code, f"{where} is {shown}; use letters, digits, - and _ only."
    if kind in {"too_short", "string_too_short"}:
        return code, f"{where} is empty; it needs at least one entry or some text."
    if kind == "string_type" and isinstance(value, (int, float, bool)):
        return code, f"{where} is {shown}, which YAML reads as {type(value).__name__}; put it in quotes."
    if kind == "value_error":
        return code, f"{where}: {context.get('error', error['msg'])}."
    return code, f"{where} is {shown}; {error['msg'][:1].lower()}{error['msg'][1:]}."


def _meant(tree: Node, location: Location) -> str:
    """Of an incomplete principle or objective, that of another file which it may have been put over."""
    if len(location) not in (3, 5):
        return ""
    node = tree.at(*location[:-1])
    if node is None:
        return ""
    views = objectives_of(tree)
    if len(location) == 5:
        held = node.at("id")
        name = (held.text or "") if held else ""
        others = {each.label: each.node for view in views for each in view.principles}
    else:
        name, others = str(location[1]), {view.name: view.node for view in views}
    inherited = [each for each, other in others.items() if other.place.file != node.place.file]
    if not inherited or not name:
        return ""
    what = "principle has this id" if len(location) == 5 else "objective has this name"
    return f" No inherited {what}.{nearest(name, inherited)}"
