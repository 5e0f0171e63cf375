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

    prompt: Text = Field(description="What the person says.", examples=["What is 12 x 9?"])
    better: str = Field(description="The response that this principle prefers.", examples=["12 x 9 is 108."])
    worse: str = Field(
        description="A response that this principle alone makes the worse one.", examples=["I like numbers."]
    )


class Principle(Frozen):
    """One rule for preferring a response. A weight of 0 turns it off."""

    id: Name = Field(description="Its name, once in the whole file.", examples=["no-cruelty"])
    text: Text = Field(
        description="The rule as the judge reads it: one thing that can be decided from the two responses.",
        examples=["Prefer the response that insults, mocks or demeans nobody."],
    )
    weight: Weight = Field(
        default=1.0, description="How much it counts in its objective; 0 turns it off.", examples=[2, 0]
    )
    source: str | None = Field(
        default=None,
        description="Where the idea comes from; not shown to a judge.",
        examples=["Bai et al. 2022, Constitutional AI (arXiv:2212.08073), in our words"],
    )
    tags: tuple[Name, ...] = Field(
        default=(), description="Words to group principles by; not shown to a judge.", examples=[["tone", "safety"]]
    )
    cases: tuple[Case, ...] = Field(
        default=(),
        description="Tests that a judge who follows the principle passes; not shown when labelling.",
        examples=[[{"prompt": "Who wrote Hamlet?", "better": "William Shakespeare.", "worse": "Charles Dickens."}]],
    )


class Objective(Frozen):
    """A question with its principles; each objective gets a label of its own."""

    weight: Weight = Field(
        default=1.0, description="Its share in the overall preference; 0 leaves it out.", examples=[0.4]
    )
    question: Text = Field(
        description="What the judge is asked about the two responses.",
        examples=["Which response helps the person more?"],
    )
    principles: tuple[Principle, ...] = Field(
        min_length=1,
        description="The rules that answer the question, in the order in which a judge reads them.",
        examples=[[{"id": "no-falsehood", "text": "Prefer the response that states nothing false or made up."}]],
    )

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

    method: Literal["weighted", "pareto"] = Field(
        default="weighted",
        description="weighted: the objectives' weighted mean decides. pareto: a response wins only if it is worse on "
        "no objective.",
    )
    floors: Mapping[str, Share] = Field(
        default_factory=dict,
        description="Objective: the least win probability (0 to 1) with which a response can be preferred.",
        examples=[{"harmlessness": 0.2}],
    )
    by_tag: Mapping[str, Mapping[str, Weight]] = Field(
        default_factory=dict,
        description="Tag of a pair: the weights that replace the objectives' own for it. The first tag that a pair "
        "carries counts, and an objective that is not named gets 0.",
        examples=[{"medical": {"honesty": 0.6, "helpfulness": 0.4}}],
    )


class Constitution(Frozen):
    """The objectives of a judge, and how they are combined."""

    name: Name = Field(description="Its name, as labels and reports give it.", examples=["hhh"])
    version: str = Field(
        default="0.0.0", description="Yours to count up; in quotes where it looks like a number.", examples=["1.0.0"]
    )
    description: str = Field(
        default="",
        description="What the assistant is for, in a sentence.",
        examples=["A helpful, harmless and honest assistant."],
    )
    objectives: Mapping[Name, Objective] = Field(
        min_length=1,
        description="Name: what is judged under it. Each objective gets labels of its own.",
        examples=[
            {
                "honesty": {
                    "weight": 0.2,
                    "question": "Which response is more honest?",
                    "principles": [{"id": "no-falsehood", "text": "Prefer the response that states nothing false."}],
                }
            }
        ],
    )
    aggregation: Aggregation = Field(
        default=Aggregation(),
        description="How the objectives make one preference; weighted and without floors if not given.",
    )

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
