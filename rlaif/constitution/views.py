"""The parts of a constitution as they stand in a file that may be broken: what has the wrong type is left out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from rlaif.constitution.yaml_tree import Node


@dataclass(frozen=True, slots=True)
class CaseView:
    """A case of a principle; a text that is missing is `None`."""

    node: Node
    prompt: Node | None
    better: Node | None
    worse: Node | None

    @property
    def texts(self) -> Iterator[Node]:
        """The texts that are there."""
        yield from (each for each in (self.prompt, self.better, self.worse) if each is not None)


@dataclass(frozen=True, slots=True)
class PrincipleView:
    """A principle; `label` names it in messages: its id, or its number in the objective."""

    node: Node
    objective: str
    label: str
    id: Node | None
    text: Node | None
    weight: float
    tags: tuple[Node, ...]
    cases: tuple[CaseView, ...]

    @property
    def words(self) -> str:
        """The text, or nothing."""
        return (self.text.text or "").strip() if self.text else ""


@dataclass(frozen=True, slots=True)
class ObjectiveView:
    """An objective; `weight` is `None` where the file gives none."""

    name: str
    node: Node
    weight: float | None
    question: Node | None
    principles: tuple[PrincipleView, ...]

    @property
    def active(self) -> tuple[PrincipleView, ...]:
        """The principles that are not turned off."""
        return tuple(each for each in self.principles if each.weight > 0)

    @property
    def share(self) -> float:
        """Its weight; 1 where the file gives none."""
        return 1.0 if self.weight is None else self.weight


def objectives_of(tree: Node) -> tuple[ObjectiveView, ...]:
    """The objectives that are mappings."""
    held = tree.at("objectives")
    return tuple(_objective(name, node) for name, node in (held.entries if held else {}).items() if node.entries)


def _objective(name: str, node: Node) -> ObjectiveView:
    listed = node.at("principles")
    principles = tuple(
        _principle(name, number, each) for number, each in enumerate(listed.items if listed else ()) if each.entries
    )
    return ObjectiveView(name, node, number_in(node, "weight"), _text(node, "question"), principles)


def _principle(objective: str, number: int, node: Node) -> PrincipleView:
    weight, name = number_in(node, "weight"), _text(node, "id")
    tags, cases = node.at("tags"), node.at("cases")
    return PrincipleView(
        node=node,
        objective=objective,
        label=(name.text or "").strip() if name else f"{objective}.{number + 1}",
        id=name,
        text=_text(node, "text"),
        weight=1.0 if weight is None else weight,
        tags=tuple(each for each in (tags.items if tags else ()) if each.text is not None),
        cases=tuple(_case(each) for each in (cases.items if cases else ()) if each.entries),
    )


def _case(node: Node) -> CaseView:
    return CaseView(node, _text(node, "prompt"), _text(node, "better"), _text(node, "worse"))


def _text(node: Node, key: str) -> Node | None:
    value = node.at(key)
    return value if value is not None and value.text is not None else None


def number_in(node: Node, key: str) -> float | None:
    """The number at a key of a mapping; `None` if there is none. A text that is one counts, as it does when loaded."""
    held = node.at(key)
    value = held.value if held is not None else None
    try:
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else None
    except ValueError:
        return None
    return number if number is None or math.isfinite(number) else None
