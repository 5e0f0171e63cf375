"""What the schema refuses, said in the terms of the file: the line, the fact and the fix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from rlaif.constitution.findings import finding
from rlaif.constitution.schema import Aggregation, Case, Constitution, Objective, Principle
from rlaif.constitution.views import objectives_of
from rlaif.constitution.yaml_tree import Node
from rlaif.errors import nearest
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
_EXPECTED = {
    "string_type": "a text",
    "float_type": "a number",
    "float_parsing": "a number",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "model_type": "a mapping",
}
# Of a file that is wrong throughout, so many are told.
_MOST = 500


def validate(tree: Node) -> tuple[Constitution | None, list[Finding]]:
    """Check a whole tree against the schema; the constitution is `None` if anything is found."""
    findings = [
        finding("wrong-type", node.place, f"{_where(tree, location)} is {_shown(node.value)}; expected a number.")
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


def _where(tree: Node, location: Location) -> str:
    """How a message names a place: principles by id, and what is counted from 1, as `rlaif constitution set` does."""
    if len(location) < 4 or location[0] != "objectives" or not isinstance(location[3], int):
        name = str(location[-1]) if location else "the file"
        return f"{name} in {'.'.join(map(str, location[:-1]))}" if len(location) > 1 else name
    held = tree.at(*location[:4], "id")
    name = (held.text or "").strip() if held else ""
    where = f"principle {name[:64]!r}" if name else f"principle {location[3] + 1} of {location[1]}"
    rest = location[4:]
    if rest[:1] == ("cases",) and len(rest) > 1:
        where, rest = f"case {int(rest[1]) + 1} of {where}", rest[2:]
    entry = f" {int(rest[1]) + 1}" if len(rest) > 1 else ""
    return f"{rest[0]}{entry} in {where}" if rest else where


def _shown(value: Any) -> str:
    if isinstance(value, (str, int, float)):
        shown = str(value).lower() if isinstance(value, bool) else repr(value)
        return shown if len(shown) <= 60 else shown[:57] + "…'"
    return "a list" if isinstance(value, list) else "a mapping" if isinstance(value, dict) else "empty"


def _expected(kind: str, location: Location, context: Mapping[str, Any]) -> str:
    if kind == "literal_error":
        return str(context["expected"]).replace("'", "")
    if kind == "finite_number":
        return "a finite number"
    expected = _EXPECTED.get(kind, "another kind of value")
    if kind == "model_type":
        keys = _MODELS[_model_at((*location, ""))].model_fields
        expected += f" with the keys {', '.join(keys)}"
    return expected


def _explain(tree: Node, location: Location, error: dict[str, Any]) -> tuple[str, str]:
    """The code of what pydantic found, and the fact, the expectation and the fix."""
    name, where = str(location[-1]) if location else "the file", _where(tree, location)
    kind, value, context = str(error["type"]), error.get("input"), error.get("ctx", {})
    code, shown = _CODES.get(kind, "wrong-type"), _shown(value)
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
    if kind == "string_too_long":
        return code, f"{where} is {shown}; use at most {context['max_length']} characters."
    if kind == "string_type" and isinstance(value, (int, float)):
        read = "true or false" if isinstance(value, bool) else "a number"
        return code, f"{where} is {shown}, which YAML reads as {read}; put it in quotes."
    if kind == "value_error":
        return code, f"{where}: {context.get('error', error['msg'])}."
    return code, f"{where} is {shown}; expected {_expected(kind, location, context)}."


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
