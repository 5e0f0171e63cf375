"""Where each value of a YAML text stands, to the character: what an edit that touches nothing else has to know."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from ruamel.yaml import YAML
from ruamel.yaml.events import (
    AliasEvent,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
)
from ruamel.yaml.tokens import BlockEntryToken, ValueToken

from rlaif.constitution.yaml_tree import parse_tree
from rlaif.errors import InputError

_BREAK = re.compile(r"\r\n|\r|\n")
_COLON = re.compile(r"[ \t]*:")
_FINAL_BREAK = re.compile(r"(?:\r\n|\r|\n)\Z")
_KEEPS = re.compile(r"(?:[&!]\S*\s+)*[|>][0-9]?\+")


@dataclass(frozen=True)
class Span:
    """A value and its place: `text[start:end]`, an anchor or a tag before it included.

    The end of a block, be it of text or of keys, is that of its last line with content, before the line's break.
    `style` is that of a scalar: `"` `'` `|` `>`, or empty for a plain one.
    """

    kind: Literal["scalar", "mapping", "sequence", "alias"]
    start: int
    end: int
    style: str = ""
    flow: bool = False
    value: str = ""
    anchor: str | None = None
    entries: tuple[Entry, ...] = ()

    def entry(self, key: str | int) -> Entry | None:
        """The entry under a key of a mapping, or the nth of a sequence (from 0); `None` where there is none."""
        if self.kind == "sequence":
            return self.entries[key] if isinstance(key, int) and 0 <= key < len(self.entries) else None
        return next((each for each in self.entries if each.key is not None and each.key.value == str(key)), None)


@dataclass(frozen=True)
class Entry:
    """What stands in a collection. `start` is that of the key, or of the dash; `mark` is behind the colon or dash."""

    start: int
    mark: int
    key: Span | None
    value: Span

    @property
    def end(self) -> int:
        """Behind the last character of the value; of an empty one behind the colon or dash."""
        return max(self.mark, self.value.end)


@dataclass(frozen=True)
class Lines:
    """The lines of a text."""

    text: str
    starts: list[int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "starts", [0, *(found.end() for found in _BREAK.finditer(self.text))])

    def start(self, offset: int) -> int:
        """Start of the line that holds the offset."""
        return self.starts[bisect_right(self.starts, offset) - 1]

    def next(self, offset: int) -> int:
        """Start of the line after it; the text's end after the last."""
        place = bisect_right(self.starts, offset)
        return self.starts[place] if place < len(self.starts) else len(self.text)

    def number(self, offset: int) -> int:
        """Number of the line, from 1."""
        return bisect_right(self.starts, offset)

    def column(self, offset: int) -> int:
        """Characters before the offset in its line."""
        return offset - self.start(offset)

    def line(self, offset: int) -> str:
        """The line that holds the offset, without its break."""
        return self.text[self.start(offset) : self.next(offset)].rstrip("\r\n")


def read_data(text: str, place: str = "") -> dict[str, Any]:
    """The plain values of a YAML text that holds a mapping, as the loader reads them; each alias a copy of its own.

    Raises:
        InputError: the text is not plain YAML or holds no mapping.
    """
    tree, findings = parse_tree(text, place)
    if tree is None or findings:
        raise InputError("\n".join(f"{each.file}:{each.line}: {each.message}" for each in findings))
    values: dict[str, Any] = tree.plain()
    return values


def read_tree(text: str) -> Span:
    """The mapping that a YAML text holds, with the place of each value; only of a text that can be read as data."""
    return _Reader(text).read()


class _Reader:
    """Reads one text; the events say what there is, and where."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.lines = Lines(text)
        self.events: Iterator[Any] = YAML(typ="safe", pure=True).parse(text)

    def read(self) -> Span:
        return self._node(next(event for event in self.events if isinstance(event, NodeEvent)), 0)

    def _node(self, event: Any, after: int) -> Span:
        """Read the node whose first event is given; `after` is where an empty one stands."""
        start, end = event.start_mark.index, event.end_mark.index
        if isinstance(event, AliasEvent):
            return Span("alias", start, end, anchor=event.anchor)
        if isinstance(event, ScalarEvent):
            style = event.style or ""
            if style in ("|", ">"):
                end = self._content_end(start, end)
            elif start == end:
                # The mark of an empty value is at whatever comes next.
                start = end = after
            return Span("scalar", start, end, style, value=event.value, anchor=event.anchor)
        mapping = isinstance(event, MappingStartEvent)
        entries, closed = self._pairs() if mapping else self._items(bool(event.flow_style))
        end = closed if event.flow_style or not entries else entries[-1].end
        kind: Literal["mapping", "sequence"] = "mapping" if mapping else "sequence"
        return Span(kind, start, end, flow=bool(event.flow_style), anchor=event.anchor, entries=entries)

    def _pairs(self) -> tuple[tuple[Entry, ...], int]:
        entries = []
        while not isinstance(event := next(self.events), MappingEndEvent):
            key = self._node(event, event.start_mark.index)
            mark = self._behind_colon(key.end)
            entries.append(Entry(key.start, mark, key, self._node(next(self.events), mark)))
        return tuple(entries), event.end_mark.index

    def _items(self, flow: bool) -> tuple[tuple[Entry, ...], int]:
        entries = []
        while not isinstance(event := next(self.events), SequenceEndEvent):
            empty = isinstance(event, ScalarEvent) and event.start_mark.index == event.end_mark.index
            dash = event.start_mark.index if flow else self._dash(event.start_mark.index, empty)
            mark = dash if flow else dash + 1
            entries.append(Entry(dash, mark, None, self._node(event, mark)))
        return tuple(entries), event.end_mark.index

    def _behind_colon(self, end: int) -> int:
        found = _COLON.match(self.text, end)
        if found:
            return found.end()
        # Below a key that is written with a question mark.
        return next((mark + 1 for mark in self._marks[0] if mark >= end), end)

    def _dash(self, start: int, empty: bool) -> int:
        """The dash of the item that begins at `start`; the mark of an empty one is at whatever comes next."""
        before = self.text[self.lines.start(start) : start].rstrip(" ")
        if before.endswith("-") and not empty:
            return self.lines.start(start) + len(before) - 1
        return self._marks[1][bisect_left(self._marks[1], start) - 1]

    @cached_property
    def _marks(self) -> tuple[list[int], list[int]]:
        """Places of all colons behind keys and dashes before items: a second reading, for what is seldom written."""
        colons, dashes = [], []
        for token in YAML(typ="safe", pure=True).scan(self.text):
            if isinstance(token, ValueToken):
                colons.append(token.start_mark.index)
            elif isinstance(token, BlockEntryToken):
                dashes.append(token.start_mark.index)
        return colons, dashes

    def _content_end(self, start: int, end: int) -> int:
        """End of a block of text from `start` to `end`, without the blank lines after it that mean nothing."""
        block = self.text[start:end]
        if _KEEPS.match(block):
            final = _FINAL_BREAK.search(block)
            return start + final.start() if final else end
        last = start + len(block.rstrip()) - 1
        return last + len(self.lines.line(last)) - self.lines.column(last)
