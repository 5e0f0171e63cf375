"""The JSON Schema of a constitution file, with which an editor completes and checks the YAML while it is written.

It is made from the models, so it knows what the loader knows. Two things only the loader can tell: an id that is used
twice, and a name in `aggregation` that is no objective.

    python -m rlaif.constitution.json_schema > constitutions/schema.json
"""

from __future__ import annotations

import json
import sys
from typing import Any

from rlaif.constitution.schema import Constitution

DIALECT = "https://json-schema.org/draft/2020-12/schema"
TITLE = "Constitution for rlaif"

_EXTENDS = {
    "title": "Extends",
    "description": "Constitutions to start from: the name of a shipped one, or a file, from this file's folder. What "
    "is written here is put over theirs: objectives by name, principles by id.",
    "anyOf": [
        {"type": "string", "minLength": 1},
        {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1},
    ],
    "examples": ["hhh", ["hhh", "team.yaml"]],
}
# Matches a principle or an objective that is not turned off.
_ON = {"properties": {"weight": {"exclusiveMinimum": 0}}}
_OFF = {"required": ["weight"], "properties": {"weight": {"const": 0}}}


def constitution_schema() -> dict[str, Any]:
    """Make the schema (draft 2020-12).

    A file that extends another may leave out what it inherits, so what a whole constitution needs stands apart from
    what every file needs.
    """
    schema = Constitution.model_json_schema()
    objectives = schema["properties"]["objectives"]
    # A name that does not match the pattern is an error, not a value of any kind.
    objectives["additionalProperties"] = False
    objective, principle = schema["$defs"]["Objective"], schema["$defs"]["Principle"]
    whole_objective = {
        "required": objective.pop("required"),
        "properties": {"principles": {"items": {"required": principle["required"]}, "contains": _ON}},
    }
    principle["required"] = ["id"]
    whole = {
        "required": schema["required"],
        "properties": {"objectives": {"additionalProperties": whole_objective, "not": {"additionalProperties": _OFF}}},
    }
    for optional in ("floors", "by_tag"):
        # What a factory makes is not written into a schema.
        schema["$defs"]["Aggregation"]["properties"][optional]["default"] = {}
    _finish(schema)
    return {
        "$schema": DIALECT,
        "title": TITLE,
        "description": schema["description"],
        "type": "object",
        "additionalProperties": False,
        "required": ["name"],
        "properties": {"extends": _EXTENDS, **schema["properties"]},
        "if": {"required": ["extends"]},
        "else": whole,
        "$defs": schema["$defs"],
    }


def _finish(node: Any) -> None:
    """Add in place what the models check in ways that pydantic does not write into a schema."""
    if isinstance(node, list):
        for each in node:
            _finish(each)
        return
    if not isinstance(node, dict):
        return
    if node.get("type") == "string" and node.get("minLength") == 1:
        # A text of blanks alone is as empty as none.
        node["pattern"] = r"\S"
    if isinstance(node.get("description"), str):
        # Docstrings are wrapped for Python's readers; an editor wraps by itself.
        node["description"] = " ".join(node["description"].split())
    for each in node.values():
        _finish(each)


def schema_text() -> str:
    """The schema as `constitutions/schema.json` holds it."""
    return json.dumps(constitution_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
