"""Change single values of a YAML text, and no character beside them.

Nothing is parsed and written anew: the source of one value is cut out of the text and another is put in its place. The
result is read again and has to hold exactly the values that were wanted, else another way to write the value is tried.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from rlaif.constitution.layout import WIDTH, Layout, block_lines, flow_text, item_lines, key_text, text_forms
from rlaif.constitution.spans import Entry, Lines, Span, read_data, read_tree
from rlaif.errors import InputError

Location = tuple[str | int, ...]

_HEADER_COMMENT = re.compile(r"[|>][0-9+-]*([ \t]+#[^\r\n]*)")
_PROPERTIES = re.compile(r"(?:[&!]\S*\s+)*(?:[&!]\S*\Z)?")


class YamlText:
    """A YAML text that holds a mapping. It never changes; each edit returns another.

    Args:
        text: The text, without a byte order mark.
        place: What errors call it.

    Raises:
        InputError: the text is no YAML or holds no mapping.
    """

    def __init__(self, text: str, place: str) -> None:
        self.text, self.place, self.data, self.tree = text, place, read_data(text, place), read_tree(text)
        self.lines = Lines(text)
        self.layout = Layout.of(text, self.tree)

    def value(self, location: Location) -> Any:
        """The plain value at a location; `None` where there is none."""
        value: Any = self.data
        for part in location:
            try:
                value = value[part]
            except (KeyError, IndexError, TypeError):
                return None
        return value

    def line(self, location: Location) -> int:
        """Line of the deepest part of a location that stands in the text, from 1."""
        node, line = self.tree, 1
        for part in location:
            entry = node.entry(part)
            if entry is None:
                break
            node, line = entry.value, self.lines.number(entry.start)
        return line

    def holds(self, location: Location) -> bool:
        """Whether something is written at the location, and not taken over from elsewhere by an alias."""
        return self._entry(location) is not None

    def replace(self, location: Location, value: Any) -> YamlText:
        """Put another value where one is; its quotes, folding and indentation stay as far as they can hold it."""
        entry = self._entry(location)
        if entry is None:
            raise self._refused(location)
        node = entry.value
        source = self.text[node.start : node.end]
        found = _PROPERTIES.match(source) if node.kind != "alias" else None
        properties = found[0] if found else ""
        column = self.lines.column(node.start + len(properties))
        header = _HEADER_COMMENT.match(source, len(properties)) if node.style in ("|", ">") else None

        def spliced() -> Iterator[str]:
            for kept in dict.fromkeys((properties, "")):
                for form in self._forms(value, entry, source[len(properties) :], column):
                    gap = " " if node.start == entry.mark else ""
                    # A block's comment stands in its first line; a value that is no block has it behind.
                    tail = header[1] if header and form[:1] not in ("|", ">") else ""
                    yield self._cut(node.start, node.end, f"{gap}{kept}{form}{tail}")

        return self._right(spliced(), _put(self.data, location, value), location)

    def add_key(self, location: Location, key: str, value: Any, order: Sequence[str] = ()) -> YamlText:
        """Put a key into the mapping at `location`: behind those that come before it in `order`, or last."""
        node = self._collection(location, "mapping")
        wanted = _put(self.data, (*location, key), value)
        earlier = order[: order.index(key)] if key in order else [each.key.value for each in node.entries if each.key]
        before = [entry for entry in node.entries if entry.key is not None and entry.key.value in earlier]
        if node.flow:
            text = f"{key_text(key, flow=True)}: {flow_text(value)}"
            return self._right([self._into_flow(node, before[-1] if before else None, text)], wanted, location)
        first = node.entries[0]
        # Behind a dash there is no line to put before.
        leads = not before and not self.text[self.lines.start(first.start) : first.start].strip()
        rows = block_lines({key: value}, self.lines.column(first.start), self.layout)
        if leads:
            texts = self._insert(self.lines.start(first.start), rows)
        else:
            spaced = isinstance(value, Mapping) and self._spaced(node.entries, otherwise=not location)
            texts = self._insert(self._behind(before[-1] if before else first), [""] * spaced + rows)
        return self._right(texts, wanted, location)

    def add_item(self, location: Location, value: Mapping[str, Any]) -> YamlText:
        """Put a mapping at the end of the list at `location`, laid out as those before it."""
        node = self._collection(location, "sequence")
        wanted = _put(self.data, location, [*self.value(location), value])
        if node.flow:
            last = node.entries[-1] if node.entries else None
            return self._right([self._into_flow(node, last, flow_text(value))], wanted, location)
        last = node.entries[-1]
        column = self.lines.column(last.start)
        rows = item_lines(value, column, self.layout)
        if all(each.value.flow for each in node.entries):
            gap = " " * max(last.value.start - last.mark, 1)
            row = f"{' ' * column}-{gap}{flow_text(value)}"
            rows = [row] if len(row) <= WIDTH else rows
        spaced = len(node.entries) > 1 and self._spaced(node.entries)
        return self._right(self._insert(self._behind(last), [""] * spaced + rows), wanted, location)

    def remove(self, location: Location) -> YamlText:
        """Take out a key or an item with the comments inside it. Comments above it stay."""
        parent, entry = self._node(location[:-1]), self._entry(location)
        if parent is None or entry is None:
            raise self._refused(location)
        wanted = _without(self.data, location)
        others = [each for each in parent.entries if each is not entry]
        if not others:
            empty = "[]" if parent.kind == "sequence" else "{}"
            return self._right([self._cut(parent.start, parent.end, empty)], wanted, location)
        at = parent.entries.index(entry)
        if parent.flow:
            start, end = (entry.start, others[0].start) if at == 0 else (others[at - 1].end, entry.end)
            return self._right([self._cut(start, end, "")], wanted, location)
        start, end = self.lines.start(entry.start), self._behind(entry)
        if self.text[start : entry.start].strip():
            # It shares its line with a dash: the next key moves up to it.
            start, end = entry.start, others[0].start
        elif start > 0 and not self.lines.line(start - 1).strip():
            while end < len(self.text) and not self.lines.line(end).strip():
                end = self.lines.next(end)
        return self._right([self._cut(start, end, "")], wanted, location)

    def _entry(self, location: Location) -> Entry | None:
        node, entry = self.tree, None
        for part in location:
            entry = node.entry(part)
            if entry is None:
                return None
            node = entry.value
        return entry

    def _node(self, location: Location) -> Span | None:
        if not location:
            return self.tree
        entry = self._entry(location)
        return entry.value if entry else None

    def _collection(self, location: Location, kind: str) -> Span:
        node = self._node(location)
        if node is None or node.kind != kind:
            raise self._refused(location)
        return node

    def _forms(self, value: Any, entry: Entry, old: str, column: int) -> Iterator[str]:
        """Ways to write a value in the place of an old one."""
        node = entry.value
        flow = self._in_flow(entry)
        if isinstance(value, str):
            style = old if node.kind == "scalar" else ""
            indent = self.lines.column(entry.start)
            yield from text_forms(value, self.layout, indent=indent, column=column, flow=flow, old=style)
            return
        if isinstance(value, (list, tuple)) and value and node.kind == "sequence" and not node.flow:
            dash = self.layout.newline + " " * self.lines.column(node.entries[0].start) + "-"
            gap = " " * (self.layout.gap - 1)
            yield "".join(f"{dash}{gap}{flow_text(each)}" for each in value).lstrip("\r\n ")
        yield flow_text(value)

    def _in_flow(self, entry: Entry) -> bool:
        stack = [(self.tree, False)]
        while stack:
            node, flow = stack.pop()
            for each in node.entries:
                if each is entry:
                    return flow or node.flow
                stack.append((each.value, flow or node.flow))
        return False

    def _spaced(self, entries: Sequence[Entry], otherwise: bool = False) -> bool:
        """Whether blank lines part the entries that take several lines; `otherwise` where none follows another."""
        pairs = list(pairwise(entries))
        large = [(one, two) for one, two in pairs if two.value.entries and not two.value.flow]
        if not large:
            return otherwise or len(entries) == 1
        return any(not line.strip() for one, two in large for line in self._between(one, two))

    def _between(self, one: Entry, two: Entry) -> list[str]:
        return self.text[self.lines.next(one.end) : self.lines.start(two.start)].splitlines()

    def _behind(self, entry: Entry) -> int:
        """Where the line after an entry begins, behind comments that are indented as a part of it."""
        column = self.lines.column(entry.start)
        end = place = self.lines.next(entry.end)
        while place < len(self.text):
            line = self.lines.line(place)
            content = line.lstrip()
            place = self.lines.next(place)
            if content.startswith("#") and len(line) - len(content) > column:
                end = place
            elif content:
                break
        return end

    def _into_flow(self, node: Span, before: Entry | None, text: str) -> str:
        if not node.entries:
            opening = self.text.rindex("{" if node.kind == "mapping" else "[", node.start, node.end)
            return self._cut(opening + 1, node.end - 1, text)
        if before is None:
            return self._cut(node.entries[0].start, node.entries[0].start, f"{text}, ")
        return self._cut(before.end, before.end, f", {text}")

    def _insert(self, offset: int, rows: Sequence[str]) -> Iterator[str]:
        newline = self.layout.newline
        added = newline.join(rows)
        if offset > 0 and self.text[offset - 1] not in "\r\n":
            # The last line of the file has no break, and gets one only if the value ends in one.
            yield self._cut(offset, offset, newline + added)
            added = newline + added
        yield self._cut(offset, offset, added + newline)

    def _cut(self, start: int, end: int, text: str) -> str:
        return self.text[:start] + text + self.text[end:]

    def _right(self, texts: Iterable[str], wanted: Any, location: Location) -> YamlText:
        for text in texts:
            try:
                edited = YamlText(text, self.place)
            except InputError:
                continue
            if edited.data == wanted:
                return edited
        raise self._refused(location)

    def _refused(self, location: Location) -> InputError:
        what = ".".join(map(str, location)) or "the file"
        return InputError(
            f"{self.place}:{self.line(location)}: {what} cannot be changed alone as it is written here, with an "
            "anchor, an alias, a merge key, a tag or a key behind a question mark. Edit it by hand."
        )


def _put(data: Any, location: Location, value: Any) -> Any:
    if not location:
        return _listed(value)
    part, *rest = location
    if isinstance(data, list):
        return [_put(each, tuple(rest), value) if at == part else each for at, each in enumerate(data)]
    known = data if isinstance(data, dict) else {}
    return {**known, part: _put(known.get(part), tuple(rest), value)}


def _without(data: Any, location: Location) -> Any:
    part, *rest = location
    if not rest:
        if isinstance(data, list):
            return [each for at, each in enumerate(data) if at != part]
        return {key: item for key, item in data.items() if key != part}
    return _put(data, (part,), _without(data[part], tuple(rest)))


def _listed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _listed(item) for key, item in value.items()}
    return [_listed(item) for item in value] if isinstance(value, (list, tuple)) else value
