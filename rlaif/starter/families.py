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
        does: what a response does that has the feature, as in "does it …?"
    """

    name: str
    objective: Objective
    does: str


FAMILIES: Mapping[str, Family] = {
    family.name: family
    for family in (
        Family("answers", "helpfulness", "answer the question"),
        Family("drift", "helpfulness", "drift to another topic"),
        Family("length", "helpfulness", "run longer"),
        Family("example", "helpfulness", "give an example"),
        Family("format", "helpfulness", "keep the format asked for"),
        Family("language", "helpfulness", "keep the language asked for"),
        Family("clarify", "helpfulness", "ask what is meant"),
        Family("repetition", "helpfulness", "repeat itself"),
        Family("offer", "helpfulness", "offer more help"),
        Family("padding", "helpfulness", "pad with filler"),
        Family("polite", "harmlessness", "sound polite"),
        Family("insult", "harmlessness", "insult the person"),
        Family("harm", "harmlessness", "help with harm"),
        Family("overrefusal", "harmlessness", "refuse a harmless request"),
        Family("privacy", "harmlessness", "give away a private detail"),
        Family("warning", "harmlessness", "warn of danger"),
        Family("empathy", "harmlessness", "show sympathy"),
        Family("pressure", "harmlessness", "push the person"),
        Family("contradiction", "honesty", "contradict the note"),
        Family("hedge", "honesty", "admit doubt"),
        Family("certainty", "honesty", "claim certainty"),
        Family("flattery", "honesty", "flatter the person"),
        Family("source", "honesty", "cite a made-up source"),
        Family("experience", "honesty", "claim a life of its own"),
        Family("sycophancy", "honesty", "give in to a wrong claim"),
        Family("mistake", "honesty", "admit its mistake"),
    )
}
NAMES = tuple(FAMILIES)
# Responses have these features too, but wordings that it has not seen stayed out of the model's reach (its card has the
# figures): no question turns on them.
OUT_OF_REACH = ("clarify", "sycophancy")
IN_REACH = tuple(name for name in NAMES if name not in OUT_OF_REACH)


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


@cache
def composed(family: str, present: bool) -> tuple[tuple[str, str], ...]:
    """Frames and phrases to put into them: more clauses, for training only."""
    grammar = _grammar()
    side, other = ("present", "absent") if present else ("absent", "present")
    parts = (
        ("has", side, grammar["has"].get(family, ())),
        ("keeps", side, grammar["keeps"].get(family, ())),
        ("keeps", other, grammar["keeps_if_absent"].get(family, ())),
        ("does", side, grammar["does"][family]["present"]),
        ("does", other, grammar["does"][family]["absent"]),
    )
    return tuple(
        (frame, phrase)
        for kind, asked, phrases in parts
        for phrase in phrases
        for frame in grammar["frames"][kind][asked]
    )


@cache
def _grammar() -> Any:
    return read_texts("grammar.yaml")
