"""Everything that keeps a constitution from being used, all at once: a file loads if and only if nothing is found."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rlaif.constitution.extends import read_source, whole_tree
from rlaif.constitution.findings import finding
from rlaif.constitution.schema import Constitution
from rlaif.constitution.schema_errors import validate
from rlaif.constitution.views import CaseView, ObjectiveView, PrincipleView, objectives_of
from rlaif.constitution.yaml_tree import Node
from rlaif.errors import InputError, nearest
from rlaif.findings import Finding, Place, ordered
from rlaif.shipped import find_shipped

_TEMPLATE = re.compile(r"\{\{|\{%|\{#")


class Checked(NamedTuple):
    """What a file holds: the constitution if it can be used, the tree if it is YAML, and the errors."""

    constitution: Constitution | None
    tree: Node | None
    errors: tuple[Finding, ...]


def check_file(name: str | Path) -> Checked:
    """Check a constitution given by the name of a shipped one or by file, with all that it extends."""
    try:
        path = find_shipped("constitutions", str(name), ".yaml")
    except (InputError, OSError, ValueError) as error:
        fact = str(error).removeprefix(f"{name}: ")
        return Checked(None, None, (finding("not-found", Place(str(name), 1), fact),))
    text, findings = read_source(path, Place(str(path), 1))
    return check_text(text, str(path)) if text is not None else Checked(None, None, tuple(findings))


def check_text(text: str, file: str) -> Checked:
    """Check the YAML `text`; `file` names it in findings, and what it extends is looked for from there."""
    tree, findings = whole_tree(text, file)
    if tree is None:
        return Checked(None, None, ordered(findings))
    constitution, problems = validate(tree)
    objectives = objectives_of(tree)
    errors = ordered([*findings, *problems, *_cross_checks(tree, objectives), *_texts(objectives)])
    return Checked(None if errors else constitution, tree, errors)


def _cross_checks(tree: Node, objectives: tuple[ObjectiveView, ...]) -> Iterator[Finding]:
    seen: dict[str, Place] = {}
    for principle in (each for objective in objectives for each in objective.principles):
        if principle.id is None:
            continue
        place, name = principle.id.place, principle.id.text or ""
        if name in seen:
            first = there(seen[name], place)
            yield finding("duplicate-id", place, f"principle id {name!r} is used {first} too; give each its own id.")
        seen.setdefault(name, place)
    held = tree.at("objectives")
    if held is None or not isinstance(held.value, dict):
        return
    names = list(held.value)
    for where, named in _named_objectives(tree):
        for name, node in named.entries.items():
            if name not in names:
                fix = nearest(name, names)
                fact = f"{where} names {name[:64]!r}; the objectives are {', '.join(names[:20])}.{fix}"
                yield finding("unknown-objective", node.place, fact)


def _named_objectives(tree: Node) -> Iterator[tuple[str, Node]]:
    floors, by_tag = tree.at("aggregation", "floors"), tree.at("aggregation", "by_tag")
    if floors is not None:
        yield "floors", floors
    for weights in (by_tag.entries if by_tag else {}).values():
        yield "by_tag", weights


def _texts(objectives: tuple[ObjectiveView, ...]) -> Iterator[Finding]:
    seen: dict[str, PrincipleView] = {}
    for objective in objectives:
        if objective.question is not None:
            yield from _template_syntax(objective.question, f"the question of {objective.name}")
        for principle in objective.principles:
            if principle.text is not None:
                yield from _template_syntax(principle.text, f"principle {principle.label!r}")
            yield from (problem for case in principle.cases for problem in _same_responses(case, principle.label))
        for principle in objective.active:
            words = " ".join(principle.words.split())
            # A principle that is turned off may be said again elsewhere.
            if words and words in seen and principle.text is not None:
                other = seen[words]
                first = there(other.node.place, principle.node.place)
                fact = f"principle {principle.label!r} says word for word what {other.label!r} {first} says; keep one."
                yield finding("same-principle", principle.text.place, fact)
            seen.setdefault(words, principle)


def _template_syntax(node: Node, where: str) -> Iterator[Finding]:
    for piece in dict.fromkeys(_TEMPLATE.findall(node.text or "")):
        fact = f"{where} holds {piece}, which is template syntax and is not filled in here; write the text out."
        yield finding("template-syntax", node.spot(piece), fact)


def _same_responses(case: CaseView, label: str) -> Iterator[Finding]:
    if case.better is None or case.worse is None:
        return
    better, worse = case.better.text or "", case.worse.text or ""
    if bare(better) == bare(worse):
        how = "the same" if better == worse else "the same but for spaces and capitals"
        fact = f"better and worse of a case of {label!r} are {how}; write two responses that the principle tells apart."
        yield finding("same-responses", case.worse.place, fact)


def bare(text: str) -> str:
    """The text without differences in spaces and capitals."""
    return " ".join(text.casefold().split())


def there(place: Place, seen_from: Place) -> str:
    """`on line 8`, with the file where it is another one."""
    return f"on line {place.line}" if place.file == seen_from.file else f"in {place.file}:{place.line}"
