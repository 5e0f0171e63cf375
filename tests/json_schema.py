"""A validator for the part of JSON Schema (draft 2020-12) that our schema uses; an unknown keyword is an error."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

# These say something about the schema and nothing about a value.
ANNOTATIONS = {"$schema", "$defs", "title", "description", "default", "examples"}
# These go with another keyword, and are looked at with it.
TOGETHER = {"then", "else", "additionalProperties"}
TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "null": (type(None),),
}


def violations(value: Any, schema: Mapping[str, Any] | bool, root: Mapping[str, Any], place: str = "") -> Iterator[str]:
    """What in a value the schema refuses, as `PLACE: KEYWORD`."""
    if isinstance(schema, bool):
        if not schema:
            yield f"{place}: false"
        return
    for keyword, argument in schema.items():
        if keyword not in ANNOTATIONS | TOGETHER:
            yield from CHECKS[keyword](value, argument, root, place)
    if isinstance(value, dict):
        rest = schema.get("additionalProperties", True)
        patterns = schema.get("patternProperties", {})
        for key, item in value.items():
            if key not in schema.get("properties", {}) and not any(re.search(each, key) for each in patterns):
                yield from violations(item, rest, root, f"{place}.{key}")
    if "if" in schema:
        branch = "else" if any(violations(value, schema["if"], root)) else "then"
        yield from violations(value, schema.get(branch, True), root, place)


def _type(value: Any, names: str, root: Any, place: str) -> Iterator[str]:
    if not isinstance(value, TYPES[names]) or isinstance(value, bool):
        yield f"{place}: type"


def _each_property(value: Any, schemas: Mapping[str, Any], root: Any, place: str) -> Iterator[str]:
    for key, schema in schemas.items():
        if isinstance(value, dict) and key in value:
            yield from violations(value[key], schema, root, f"{place}.{key}")


def _each_pattern(value: Any, schemas: Mapping[str, Any], root: Any, place: str) -> Iterator[str]:
    for key, item in value.items() if isinstance(value, dict) else ():
        for pattern, schema in schemas.items():
            if re.search(pattern, key):
                yield from violations(item, schema, root, f"{place}.{key}")


def _each_item(value: Any, schema: Any, root: Any, place: str) -> Iterator[str]:
    for number, item in enumerate(value if isinstance(value, list) else ()):
        yield from violations(item, schema, root, f"{place}.{number}")


def _each_name(value: Any, schema: Any, root: Any, place: str) -> Iterator[str]:
    for key in value if isinstance(value, dict) else ():
        yield from violations(key, schema, root, f"{place}.{key}")


def _reference(value: Any, name: str, root: Mapping[str, Any], place: str) -> Iterator[str]:
    yield from violations(value, root["$defs"][name.removeprefix("#/$defs/")], root, place)


def _any_of(value: Any, schemas: list[Any], root: Any, place: str) -> Iterator[str]:
    if all(any(violations(value, each, root)) for each in schemas):
        yield f"{place}: anyOf"


def _not(value: Any, schema: Any, root: Any, place: str) -> Iterator[str]:
    if not any(violations(value, schema, root)):
        yield f"{place}: not"


def _contains(value: Any, schema: Any, root: Any, place: str) -> Iterator[str]:
    if isinstance(value, list) and all(any(violations(item, schema, root)) for item in value):
        yield f"{place}: contains"


def _required(value: Any, names: list[str], root: Any, place: str) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (f"{place}.{name}: required" for name in names if name not in value)


def _unless(keyword: str, kind: tuple[type, ...], holds: Callable[[Any, Any], bool]) -> Callable[..., Iterator[str]]:
    def check(value: Any, argument: Any, root: Any, place: str) -> Iterator[str]:
        if isinstance(value, kind) and not holds(value, argument):
            yield f"{place}: {keyword}"

    return check


CHECKS: dict[str, Callable[..., Iterator[str]]] = {
    "type": _type,
    "properties": _each_property,
    "patternProperties": _each_pattern,
    "items": _each_item,
    "propertyNames": _each_name,
    "$ref": _reference,
    "anyOf": _any_of,
    "not": _not,
    "contains": _contains,
    "required": _required,
    "if": lambda value, argument, root, place: iter(()),
    "const": _unless("const", (object,), lambda value, const: value == const),
    "enum": _unless("enum", (object,), lambda value, values: value in values),
    "minLength": _unless("minLength", (str,), lambda value, least: len(value) >= least),
    "maxLength": _unless("maxLength", (str,), lambda value, most: len(value) <= most),
    "pattern": _unless("pattern", (str,), lambda value, pattern: re.search(pattern, value) is not None),
    "minItems": _unless("minItems", (list,), lambda value, least: len(value) >= least),
    "minProperties": _unless("minProperties", (dict,), lambda value, least: len(value) >= least),
    "minimum": _unless("minimum", (int, float), lambda value, least: value >= least and not math.isnan(value)),
    "maximum": _unless("maximum", (int, float), lambda value, most: value <= most),
    "exclusiveMinimum": _unless("exclusiveMinimum", (int, float), lambda value, least: value > least),
}
