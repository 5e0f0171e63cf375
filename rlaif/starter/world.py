"""The starter's small world: entities, the grammar that fills its sentences, and what is kept for held-out tests."""

from __future__ import annotations

import hashlib
import itertools
import random
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from rlaif.starter.families import Split, read_texts

_ALTERNATIVES = re.compile(r"\(([^()]*)\)")
_SLOT = re.compile(r"\{(\w+)\}")
_ARTICLE = re.compile(r"\b([Aa]) (?=[aeiouAEIOU])")
# Names of these kinds can be made up.
_INVENTED = frozenset({"topic", "thing", "person", "place_start", "place_end", "valuable"})
_LOWER = frozenset({"topic", "thing", "place_end", "valuable"})


@cache
def _held_out_names(kind: str) -> frozenset[str]:
    return frozenset(texts()["entities"][kind]["heldout"])


@cache
def texts() -> dict[str, Any]:
    """All sentences and entities."""
    found: dict[str, Any] = read_texts("texts.yaml")
    return found


def held_out(*names: str) -> bool:
    """Whether a combination is kept for validation and test: one in five, by hash."""
    return hashlib.sha256("+".join(sorted(names)).encode()).digest()[0] < 51


class World:
    """Draws entities and sentences of one split.

    Args:
        split: `train` or a held-out one; their names, topics, things and places have nothing in common.
        rng: where all chance comes from.
        invented: share of names that are made up for the occasion, so that they can only be read: from a few dozen a
            model learns to guess a name. A policy should not learn to make up words itself.
    """

    def __init__(self, split: Split, rng: random.Random, invented: float = 0.0) -> None:
        self.split = split
        self.rng = rng
        self.invented = invented
        self._side = "train" if split == "train" else "heldout"

    def entity(self, kind: str) -> str:
        """Draw a new entity."""
        if kind == "place":
            return self.entity("place_start") + self.entity("place_end")
        if kind in ("street", "street2"):
            return f"{self.entity('place_start')} {self.rng.choice(('Lane', 'Street', 'Road', 'Row'))}"
        if kind == "owner":
            kind = "person"
        if kind in ("number", "number2"):
            return str(self.rng.randint(2, 99))
        if kind == "phone":
            return f"{self.rng.randint(200, 999)} {self.rng.randint(1000, 9999)}"
        if self.invented and kind in _INVENTED and self.rng.random() < self.invented:
            return self._invented(kind)
        found: str = self.rng.choice(texts()["entities"][kind][self._side])
        return found

    def _invented(self, kind: str) -> str:
        """A name that nobody bears: one that can only be copied, or compared, letter by letter."""
        while True:
            name = self.invented_word()
            name = name if kind in _LOWER else upper_first(name)
            if len(name) > 2 and name not in _held_out_names(kind):
                return name

    def invented_word(self) -> str:
        """One to three syllables that mean nothing."""
        return "".join(self._syllable() for _ in range(self.rng.randint(1, 3)))

    def _syllable(self) -> str:
        return "".join(self.rng.choice(texts()["syllables"][half]) for half in ("onsets", "rimes"))

    def other(self, kind: str, *but: str) -> str:
        """Draw an entity that is none of some others."""
        while (found := self.entity(kind)) in but:
            pass
        return found

    def fill(self, text: str, slots: Mapping[str, str]) -> str:
        """Choose alternatives, fill slots from `slots`, and draw what is not there."""
        while "(" in text:
            text = _ALTERNATIVES.sub(lambda match: self.rng.choice(match.group(1).split("|")), text)

        def value(match: re.Match[str]) -> str:
            name = match.group(1)
            lower = lower_first(name)
            found = slots.get(lower) or self.entity(lower)
            return upper_first(found) if name != lower else found

        return _ARTICLE.sub(r"\1n ", _SLOT.sub(value, text))

    def one_of(self, options: Sequence[str], slots: Mapping[str, str]) -> str:
        """Fill one of some sentences."""
        return self.fill(self.rng.choice(options), slots)

    def some_of(self, options: Sequence[str], count: int, slots: Mapping[str, str]) -> list[str]:
        """Fill several different sentences; as many as there are at most."""
        return [self.fill(text, slots) for text in self.rng.sample(list(options), min(count, len(options)))]


def alternatives(text: str) -> set[str]:
    """Every text that one with `(a|b)` stands for."""
    pieces = [[piece] if n % 2 == 0 else piece.split("|") for n, piece in enumerate(_ALTERNATIVES.split(text))]
    return {re.sub(" +", " ", "".join(chosen)).strip() for chosen in itertools.product(*pieces)}


def upper_first(text: str) -> str:
    """Begin a sentence."""
    return text[:1].upper() + text[1:]


def lower_first(text: str) -> str:
    """Go on with a sentence."""
    return text[:1].lower() + text[1:]
