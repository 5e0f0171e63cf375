"""What a comparison must know of the pairs themselves: lengths, form, prompts, tags and generators, not the texts."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlaif.agreement.metrics import Ints
from rlaif.data.pairs import Reject, read_pairs
from rlaif.data.quick import quick_rows
from rlaif.data.sources import open_source
from rlaif.errors import InputError
from rlaif.types import TagValue

FEATURES = ("lists", "headings", "bold", "code")
# Says which response was chosen, and so is no group of pairs.
_NOT_A_GROUP = "chosen"
_MOST_VALUES = 20
_ITEM = re.compile(r"\s*(?:[-*+•]|\d{1,3}[.)])\s+\S")
_HEADING = re.compile(r" {0,3}#{1,6}\s+\S")
_BOLD = re.compile(r"\*\*[^*\s](?:[^*\n]*[^*\s])?\*\*|__[^_\s](?:[^_\n]*[^_\s])?__")
_GENERATORS = ("generator_a", "generator_b")


def form(text: str) -> int:
    """Which features of form a response has, as bits in the order of `FEATURES`.

    Lists: two lines or more that begin with a bullet or a number. Headings: a line that begins with one to six # and
    a space. Bold: words between ** or __ within a line. Code: a fence of three backticks, or a span between backticks.
    """
    bits = 0
    if "\n" in text or "#" in text:
        items = 0
        for line in text.split("\n"):
            head = line.lstrip()[:1]
            # The first character tells most lines apart without a pattern.
            if head and (head in "-*+•" or head.isdigit()):
                items += _ITEM.match(line) is not None
            elif head == "#" and not bits & 2 and _HEADING.match(line):
                bits |= 2
        bits |= items >= 2
    if ("**" in text or "__" in text) and _BOLD.search(text):
        bits |= 4
    if text.count("`") >= 2:
        bits |= 8
    return bits


def generators(tags: Mapping[str, Any]) -> tuple[str, str] | None:
    """Who wrote response a and b: the tags `generator_a` and `generator_b`, or `cmp_key` as `first_second`."""
    first, second = tags.get("generator_a"), tags.get("generator_b")
    if isinstance(first, str) and isinstance(second, str):
        return first, second
    both = tags.get("cmp_key")
    if isinstance(both, str) and both.count("_") == 1:
        first, second = both.split("_")
        return (first, second) if first and second else None
    return None


@dataclass(frozen=True)
class TagColumn:
    """One tag: the place of each pair's value in `values`, -1 without the tag, (people's pairs,)."""

    codes: Ints
    values: tuple[TagValue, ...]


class PairTexts:
    """Gathers what is told of pairs as their rows pass by; the texts themselves are not kept.

    Args:
        pairs: how many pairs people labelled. Their places come first; of others only the generators are kept.
    """

    def __init__(self, pairs: int) -> None:
        self._pairs = pairs
        self.known = np.zeros(pairs, dtype=np.bool_)
        self.length = np.zeros((pairs, 2), dtype=np.int64)
        self.form = np.zeros((pairs, 2), dtype=np.uint8)
        self.prompt = np.full(pairs, -1, dtype=np.int64)
        self._prompts: dict[int, int] = {}
        # By the type as well: 1, 1.0 and true are one key to Python, and not to a reader.
        self._tags: dict[str, tuple[array[int], array[int], dict[tuple[type, TagValue], int]]] = {}
        self.tags_left_out: dict[str, None] = {}
        self.generators: dict[str, int] = {}
        self._written = array("i"), array("i"), array("i")

    @property
    def any(self) -> bool:
        """Whether the texts of any pair that people labelled are known."""
        return bool(self.known.any())

    def add(self, place: int, row: Mapping[str, Any]) -> None:
        """Take one pair's row (`prompt`, `response_a`, `response_b`, maybe `tags`); the first row of a pair counts."""
        tags = row.get("tags") or {}
        if place >= self._pairs:
            self._add_generators(place, tags)
            return
        if self.known[place]:
            return
        self._add_generators(place, tags)
        self.known[place] = True
        a, b, prompt = row["response_a"], row["response_b"], row["prompt"]
        self.length[place] = len(a), len(b)
        self.form[place] = form(a), form(b)
        # Only equality matters; the places go by when a prompt was first met, so that they are the same every time.
        if not isinstance(prompt, str):
            turns = tuple((turn["role"], turn["content"]) for turn in prompt)
            prompt = turns[0][1] if len(turns) == 1 and turns[0][0] == "user" else turns
        self.prompt[place] = self._prompts.setdefault(hash(prompt), len(self._prompts))
        for name, value in tags.items():
            self._add_tag(place, name, value)

    def _add_tag(self, place: int, name: str, value: TagValue) -> None:
        if name == _NOT_A_GROUP or name in self.tags_left_out or name in _GENERATORS:
            return
        pairs, codes, values = self._tags.setdefault(name, (array("i"), array("i"), {}))
        code = values.setdefault((type(value), value), len(values))
        if len(values) > _MOST_VALUES:
            del self._tags[name]
            self.tags_left_out[name] = None
            return
        pairs.append(place)
        codes.append(code)

    def _add_generators(self, place: int, tags: Mapping[str, Any]) -> None:
        both = generators(tags) if tags else None
        if both is not None:
            for column, value in zip(
                self._written,
                (place, *(self.generators.setdefault(one, len(self.generators)) for one in both)),
                strict=True,
            ):
                column.append(value)

    def tags(self) -> Iterator[tuple[str, TagColumn]]:
        """Each tag that makes groups, by name."""
        for name, (pairs, codes, values) in sorted(self._tags.items()):
            column = np.full(self._pairs, -1, dtype=np.int64)
            column[np.frombuffer(pairs, np.int32)] = np.frombuffer(codes, np.int32)
            yield name, TagColumn(column, tuple(value for _, value in values))

    def written_by(self, pairs: int) -> Ints:
        """Places in `generators` of who wrote a and b, (pairs, 2); -1 where that is not known."""
        writers = np.full((pairs, 2), -1, dtype=np.int64)
        if self._written[0]:
            places, first, second = (np.frombuffer(column, np.int32) for column in self._written)
            writers[places[::-1]] = np.column_stack([first, second])[::-1]
        return writers


def read_texts(data: str, ids: Mapping[str, int], texts: PairTexts) -> None:
    """Read the pairs of a file of pairs that are in `ids`; a row that is no pair is passed over, as `label` does.

    Raises:
        InputError: the file cannot be read, or holds none of these pairs.
    """
    found, other = False, None
    for row in pair_rows(data):
        place = ids.get(row["id"])
        if place is not None:
            texts.add(place, row)
            found = True
        elif other is None:
            other = row["id"]
    if found:
        return
    if other is None:
        raise InputError(f"{data}: holds no pairs; expected rows with id, prompt, response_a and response_b.")
    raise InputError(
        f"{data}: holds none of the pairs that were labelled; its ids look like {other[:40]!r}, those of the labels "
        f"like {next(iter(ids))[:40]!r}. Give the pairs that were labelled."
    )


def pair_rows(data: str) -> Iterator[Mapping[str, Any]]:
    """Rows of pairs, `prompt`, `response_a` and `response_b` as they are given; other shapes go by the full reader.

    Raises:
        InputError: the file cannot be read.
    """
    source = None
    for _, row in quick_rows(data):
        if not _is_plain_pair(row):
            source = open_source(data)
            break
        yield row
    if source is not None:
        for pair in read_pairs(source, {}):
            if not isinstance(pair, Reject):
                yield pair[1].model_dump()


def _is_plain_pair(row: Any) -> bool:
    """Whether a row is a pair as it stands, without anything to be told apart, renamed or refused."""
    if type(row) is not dict or not all(type(row.get(key)) is str for key in ("id", "response_a", "response_b")):
        return False
    prompt, tags = row.get("prompt"), row.get("tags")
    if tags is not None and not (
        type(tags) is dict and all(value is None or isinstance(value, str | int | float) for value in tags.values())
    ):
        return False
    if type(prompt) is list:
        return bool(prompt) and all(
            type(turn) is dict and type(turn.get("role")) is type(turn.get("content")) is str for turn in prompt
        )
    return type(prompt) is str
