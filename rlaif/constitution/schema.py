"""What a constitution may hold. Every model refuses unknown keys."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from rlaif.types import Frozen

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=64)]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Case(Frozen):
    """A test of one principle: of two responses to a prompt, which it prefers."""

    prompt: Text
    better: str
    worse: str


class Principle(Frozen):
    """One rule for preferring a response. A weight of 0 turns it off."""

    id: Name
    text: Text
    weight: Weight = 1.0
    source: str | None = None
    tags: tuple[Name, ...] = ()
    cases: tuple[Case, ...] = ()


class Objective(Frozen):
    """A question with its principles; each objective gets a label of its own."""

    weight: Weight = 1.0
    question: Text
    principles: Annotated[tuple[Principle, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _asks_something(self) -> Objective:
        if not self.active:
            raise ValueError("every principle has weight 0; give at least one a weight above 0")
        return self

    @property
    def active(self) -> tuple[Principle, ...]:
        """The principles that are not turned off."""
        return tuple(principle for principle in self.principles if principle.weight > 0)


class Aggregation(Frozen):
    """How the objectives make one preference.

    `floors` are the least win probability (0 to 1) a response needs on an objective to be preferred.
    `by_tag` replaces the objectives' weights for pairs that carry the tag.
    """

    method: Literal["weighted", "pareto"] = "weighted"
    floors: Mapping[str, Share] = Field(default_factory=dict)
    by_tag: Mapping[str, Mapping[str, Weight]] = Field(default_factory=dict)


class Constitution(Frozen):
    """The objectives of a judge, and how they are combined."""

    name: Name
    version: str = "0.0.0"
    description: str = ""
    objectives: Annotated[Mapping[Name, Objective], Field(min_length=1)]
    aggregation: Aggregation = Aggregation()

    @field_validator("objectives")
    @classmethod
    def _weighs_something(cls, objectives: Mapping[str, Objective]) -> Mapping[str, Objective]:
        if not any(objective.weight > 0 for objective in objectives.values()):
            raise ValueError("every objective has weight 0; give at least one a weight above 0")
        return objectives

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content: the same for the same rules, however the file is laid out."""
        values = self.model_dump(mode="json")
        # The one place where order means something: the first entry that matches wins.
        values["aggregation"]["by_tag"] = list(values["aggregation"]["by_tag"].items())
        canonical = json.dumps(values, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def reference(self) -> str:
        """Name and first digits of the digest, as a label's provenance holds them."""
        return f"{self.name}@{self.digest[:12]}"

    def weights_for(self, tags: Mapping[str, object]) -> dict[str, float]:
        """Weight of each objective for a pair with these tags (the first matching `by_tag` entry wins).

        A tag matches by its name (`{"medical": true}`) or by its value (`{"domain": "medical"}`).
        """
        held = {name for name, value in tags.items() if value not in (False, None)}
        held |= {value for value in tags.values() if isinstance(value, str)}
        for tag, weights in self.aggregation.by_tag.items():
            if tag in held:
                return {name: weights.get(name, 0.0) for name in self.objectives}
        return {name: objective.weight for name, objective in self.objectives.items()}
