"""The same constitution laid out in many ways: what people's files look like, with comments in every gap."""

from __future__ import annotations

import random
from itertools import count

from rlaif.constitution import Constitution
from rlaif.constitution.schema import Objective, Principle


def layout_of(constitution: Constitution, seed: int) -> str:
    """Write a constitution as YAML in a way that follows from the seed, every comment with a number of its own."""
    return _Writer(seed).write(constitution)


class _Writer:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.step = self.random.choice([1, 2, 3, 4])
        self.dash = self.random.choice([0, 1, 2, 4])
        self.gap = self.random.choice([2, 2, 3, 4])
        self.comments = self.random.choice([0.0, 0.2, 0.6])
        self.numbers = count(1)
        self.lines: list[str] = []

    def write(self, constitution: Constitution) -> str:
        self.note(0)
        self.key(0, "name", constitution.name)
        self.key(0, "version", constitution.version)
        self.key(0, "description", constitution.description)
        self.open(0, "objectives")
        for name, objective in constitution.objectives.items():
            self.objective(self.step, name, objective)
        rules = constitution.aggregation
        self.open(0, "aggregation")
        self.key(self.step, "method", rules.method)
        self.weights(self.step, "floors", dict(rules.floors))
        if rules.by_tag:
            self.open(self.step, "by_tag")
            for tag, weights in rules.by_tag.items():
                self.weights(2 * self.step, tag, dict(weights))
        end = self.random.choice(["\r\n", "\n", "\n"])
        text = end.join(self.lines) + self.random.choice([end, end, "", 2 * end])
        return self.random.choice(["", "", "\ufeff"]) + text

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def note(self, indent: int) -> None:
        """Perhaps a comment, perhaps a blank line."""
        if self.chance(self.comments):
            self.lines.append(" " * indent + f"# note {next(self.numbers)}: it's [one] {{of}} many")
        if self.chance(self.comments / 3):
            self.lines.append("")

    def end(self) -> str:
        return f"{' ' * self.random.randint(1, 4)}# beside {next(self.numbers)}" if self.chance(self.comments) else ""

    def open(self, indent: int, key: str) -> None:
        self.lines.append(f"{' ' * indent}{key}:{self.end()}")
        self.note(indent)

    def objective(self, indent: int, name: str, objective: Objective) -> None:
        self.open(indent, name)
        inner = indent + self.step
        self.key(inner, "weight", objective.weight)
        self.key(inner, "question", objective.question)
        if self.chance(0.15):
            items = ", ".join(self.flow_principle(each) for each in objective.principles)
            self.lines.append(f"{' ' * inner}principles: [{items}]{self.end()}")
            return
        self.open(inner, "principles")
        for principle in objective.principles:
            self.principle(inner + self.dash, principle)

    def principle(self, indent: int, principle: Principle) -> None:
        if self.chance(0.15):
            self.lines.append(f"{' ' * indent}- {self.flow_principle(principle)}{self.end()}")
            return
        inner, first = indent + self.gap, len(self.lines)
        self.key(inner, "id", principle.id)
        self.key(inner, "text", principle.text)
        if principle.weight != 1 or self.chance(0.2):
            self.key(inner, "weight", principle.weight)
        if principle.cases:
            self.open(inner, "cases")
            for case in principle.cases:
                start = len(self.lines)
                for key, value in case.model_dump().items():
                    self.key(inner + self.dash + self.gap, key, value)
                self.dashed(start, inner + self.dash)
        self.dashed(first, indent)

    def dashed(self, line: int, indent: int) -> None:
        self.lines[line] = " " * indent + "-" + self.lines[line][indent + 1 :]

    def flow_principle(self, principle: Principle) -> str:
        cases = ", ".join(
            "{" + ", ".join(f"{key}: {self.quoted(value)}" for key, value in case.model_dump().items()) + "}"
            for case in principle.cases
        )
        parts = [f"id: {principle.id}", f"text: {self.quoted(principle.text)}", f"weight: {principle.weight:g}"]
        return "{" + ", ".join([*parts, *([f"cases: [{cases}]"] if cases else [])]) + "}"

    def weights(self, indent: int, key: str, weights: dict[str, float]) -> None:
        if not weights:
            return
        if self.chance(0.5):
            space = self.random.choice(["", " "])
            held = ", ".join(f"{name}: {weight:g}" for name, weight in weights.items())
            self.lines.append(f"{' ' * indent}{key}: {{{space}{held}{space}}}{self.end()}")
            return
        self.open(indent, key)
        for name, weight in weights.items():
            self.key(indent + self.step, name, weight)

    def key(self, indent: int, key: str, value: str | float) -> None:
        name = f"{' ' * indent}{key}:{' ' * self.random.choice([1, 1, 1, 3])}"
        if isinstance(value, str):
            self.text(name, indent, value)
        else:
            self.lines.append(f"{name}{self.random.choice([f'{value:g}', repr(value)])}{self.end()}")
        if key != "id":
            self.note(indent)

    def text(self, name: str, indent: int, value: str) -> None:
        kind = self.random.choice(["plain", "plain", "quoted", "folded", "literal", "wrapped"])
        inner = " " * (indent + self.random.choice([1, 2, 4]))
        words = value.split(" ")
        half = max(len(words) // 2, 1)
        plain = not any(sign in value for sign in (": ", " #", '"', "'")) and value[:1].isalpha()
        if "\n" in value or (kind == "literal" and value == value.strip()):
            self.lines += [f"{name}|-{self.end()}", *(f"{inner}{line}" for line in value.split("\n"))]
        elif kind == "folded" and len(words) > 3:
            rows = [" ".join(words[:half]), " ".join(words[half:])]
            self.lines += [f"{name}>-{self.end()}", *(inner + row for row in rows)]
        elif kind == "wrapped" and len(words) > 3 and plain:
            self.lines += [name + " ".join(words[:half]), inner + " ".join(words[half:]) + self.end()]
        else:
            self.lines.append(name + (value if plain and kind == "plain" else self.quoted(value)) + self.end())

    def quoted(self, value: str) -> str:
        if "\n" in value or (self.chance(0.5) and "\\" not in value):
            return '"' + value.replace('"', '\\"').replace("\n", "\\n") + '"'
        return "'" + value.replace("'", "''") + "'"
