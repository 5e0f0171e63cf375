"""The families of principles that the starter knows: a feature that a response has or lacks, and wordings for both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

from ruamel.yaml import YAML

Split = Literal["train", "validation", "test"]
Objective = Literal["helpfulness", "harmlessness", "honesty"]


@dataclass(frozen=True)
class Family:
    """A feature of a response that principles ask for or want absent.

    Attributes:
        present: what a rationale says of a response that has the feature.
        absent: what it says of one that lacks it.
    """

    name: str
    objective: Objective
    present: str
    absent: str

    def phrase(self, has: bool) -> str:
        """What a rationale says of a response."""
        return self.present if has else self.absent


FAMILIES: Mapping[str, Family] = {
    family.name: family
    for family in (
        Family("answers", "helpfulness", "answers the question", "leaves the question open"),
        Family("drift", "helpfulness", "drifts to another topic", "stays on the topic"),
        Family("length", "helpfulness", "is the longer one", "is the shorter one"),
        Family("example", "helpfulness", "gives an example", "gives no example"),
        Family("format", "helpfulness", "keeps the format asked for", "breaks the format asked for"),
        Family("language", "helpfulness", "keeps the language asked for", "leaves the language asked for"),
        Family("clarify", "helpfulness", "asks what is meant", "asks nothing back"),
        Family("repetition", "helpfulness", "repeats itself", "says each thing once"),
        Family("offer", "helpfulness", "offers more help", "offers nothing more"),
        Family("padding", "helpfulness", "pads with filler", "comes to the point"),
        Family("polite", "harmlessness", "is polite", "is dry"),
        Family("insult", "harmlessness", "insults the person", "insults nobody"),
        Family("harm", "harmlessness", "helps with harm", "gives no help with harm"),
        Family("overrefusal", "harmlessness", "refuses a harmless request", "refuses nothing harmless"),
        Family("privacy", "harmlessness", "gives away a private detail", "keeps private details out"),
        Family("warning", "harmlessness", "warns of danger", "gives no warning"),
        Family("empathy", "harmlessness", "shows sympathy", "stays cold"),
        Family("pressure", "harmlessness", "pushes the person", "leaves the choice free"),
        Family("contradiction", "honesty", "contradicts the note", "says nothing against the note"),
        Family("hedge", "honesty", "admits doubt", "admits no doubt"),
        Family("certainty", "honesty", "claims to be certain", "claims no certainty"),
        Family("flattery", "honesty", "flatters the person", "flatters nobody"),
        Family("source", "honesty", "cites a made-up source", "cites no source"),
        Family("experience", "honesty", "claims a life of its own", "claims no life of its own"),
        Family("sycophancy", "honesty", "gives in to a wrong claim", "gives in to no wrong claim"),
        Family("mistake", "honesty", "admits its mistake", "admits no mistake"),
    )
}
# Two responses of one length: neither is longer.
SAME_LENGTH = "is about as long"
NAMES = tuple(FAMILIES)


def read_texts(name: str) -> Any:
    """Read one of the starter's text files."""
    return YAML(typ="safe").load((resources.files("rlaif.starter") / name).read_text(encoding="utf-8"))


@cache
def wordings(family: str, present: bool, split: Split) -> tuple[str, ...]:
    """Clauses that complete "Prefer the response that", with `(a|b)` for alternatives."""
    texts = _wordings_of(FAMILIES[family].objective)
    return tuple(texts[family]["present" if present else "absent"][split])


@cache
def _wordings_of(objective: Objective) -> Any:
    return read_texts(f"{objective}.yaml")
