"""Write values as YAML text in the way a file is laid out already: indentation, quotes, folded blocks, line breaks."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import ScalarNode

from rlaif.constitution.spans import Lines, Span, read_data
from rlaif.errors import InputError

WIDTH = 120
_NARROW = 60
# Another YAML reader (version 1.1) takes these words for true, false or nothing.
_TYPED = re.compile(r"(?i)y|n|yes|no|on|off|true|false|null|~")
_FIRST = "(/$_."
_SINGLE_SPACE = re.compile(r"(?<=\S) (?=\S)")


@dataclass(frozen=True)
class Layout:
    """How a file is laid out.

    `step` is from a key to the keys under it, `dash` from a key to the dashes under it, and `gap` from a dash to what
    stands behind it, in columns.
    """

    newline: str = "\n"
    step: int = 2
    dash: int = 2
    gap: int = 2

    @staticmethod
    def of(text: str, tree: Span) -> Layout:
        """The layout that is found most often in a text."""
        lines = Lines(text)
        newline = "\r\n" if "\r\n" in text else "\r" if "\r" in text and "\n" not in text else "\n"
        steps: Counter[int] = Counter()
        dashes: Counter[int] = Counter()
        gaps: Counter[int] = Counter()
        stack = [tree]
        while stack:
            node = stack.pop()
            for entry in node.entries:
                value = entry.value
                stack.append(value)
                if node.flow or value.flow or not value.entries:
                    continue
                inner = lines.column(value.entries[0].start) - lines.column(entry.start)
                if node.kind == "sequence":
                    gaps[inner] += 1
                elif value.kind == "sequence":
                    dashes[inner] += 1
                else:
                    steps[inner] += 1
        return Layout(newline, _usual(steps, 2), _usual(dashes, 2), _usual(gaps, 2))


def _usual(seen: Counter[int], otherwise: int) -> int:
    return seen.most_common(1)[0][0] if seen else otherwise


def number_text(value: float) -> str:
    """`0.25`, `1`: the shortest text that reads as the number."""
    if value == int(value) and abs(value) < 1e15:
        return str(int(value))
    text = repr(value)
    # YAML reads an exponent only behind a point.
    return text if "e" not in text or "." in text else text.replace("e", ".0e")


def may_be_plain(text: str, *, flow: bool) -> bool:
    """Whether the text needs no quotes, in YAML 1.2 and 1.1; `flow` within brackets or braces."""
    if not text or not text.isprintable() or text != text.strip() or not (text[0].isalnum() or text[0] in _FIRST):
        return False
    if ": " in text or " #" in text or text.endswith(":") or _TYPED.fullmatch(text):
        return False
    if flow and any(char in text for char in ",[]{}:"):
        return False
    return all(_reads_as_text(text, version) for version in ((1, 2), (1, 1)))


def _reads_as_text(text: str, version: tuple[int, int]) -> bool:
    yaml = YAML(typ="safe", pure=True)
    yaml.version = version
    return str(yaml.resolver.resolve(ScalarNode, text, (True, False))) == "tag:yaml.org,2002:str"


def double_quoted(text: str) -> str:
    """The text in double quotes, on one line; what cannot be printed is escaped."""
    parts = []
    for char in text:
        if char in '"\\':
            parts.append("\\" + char)
        elif char.isprintable():
            parts.append(char)
        elif char in "\n\t\r":
            parts.append({"\n": "\\n", "\t": "\\t", "\r": "\\r"}[char])
        else:
            code = ord(char)
            parts.append(f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}")
    return f'"{"".join(parts)}"'


def single_quoted(text: str) -> str:
    """The text in single quotes; only for a text that is printable."""
    return "'" + text.replace("'", "''") + "'"


def flow_text(value: Any) -> str:
    """A value on one line: `{helpfulness: 0.4}`, `[a, b]`, a number, a text."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key_text(key, flow=True)}: {flow_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(flow_text, value)) + "]"
    if isinstance(value, str):
        return value if may_be_plain(value, flow=True) else double_quoted(value)
    return _atom(value)


def _atom(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return number_text(value)


def key_text(key: Any, *, flow: bool = False) -> str:
    """A key, in quotes where it needs them."""
    text = str(key)
    return text if may_be_plain(text, flow=flow) and ":" not in text else double_quoted(text)


def text_forms(value: str, layout: Layout, *, indent: int, column: int, flow: bool, old: str = "") -> Iterator[str]:
    """Ways to write a text, the most fitting first; the last one is always right.

    Args:
        value: The text.
        layout: The file's.
        indent: Column of the key that the text belongs to.
        column: Column where the text begins.
        flow: Within brackets or braces.
        old: The source of what stood there; its style is kept where it can be.
    """
    plain, lines = may_be_plain(value, flow=flow), old.splitlines()
    if old and not flow and old[0] in "|>":
        yield from _block_forms(value, layout, indent, lines)
    if len(lines) > 1 and old[0] not in "|>":
        yield from _wrapped_forms(value, layout, column, lines, plain)
    if old and old[0] in "'\"" and len(lines) == 1:
        # The other quote, if it saves escapes; double quotes where there is no other way.
        if old[0] == "'" and value.isprintable():
            yield single_quoted(value)
        yield double_quoted(value)
    if "\n" in value and not flow:
        yield from _block_forms(value, layout, indent, ["|"])
    if plain and (column + len(value) <= WIDTH or flow):
        yield value
    if not flow and column + len(value) > WIDTH and value.isprintable():
        yield from _block_forms(value, layout, indent, [">"])
    if plain:
        yield value
    yield double_quoted(value)


def _block_forms(value: str, layout: Layout, indent: int, old: Sequence[str]) -> Iterator[str]:
    """The text as a block of the old one's kind, depth and width."""
    header = old[0].split("#")[0].strip()
    comment = old[0][len(header) :] if "#" in old[0] else ""
    content = [line for line in old[1:] if line.strip()]
    depth = len(content[0]) - len(content[0].lstrip(" ")) if content else indent + layout.step
    folded = header[0] == ">"
    # Of a single line nobody knows where its writer would break.
    width = max(_NARROW, *(len(line) for line in content)) if len(content) > 1 else WIDTH
    body = value.rstrip("\n")
    breaks = len(value) - len(body)
    chomp = "-" if breaks == 0 else "" if breaks == 1 else "+"
    paragraphs = body.split("\n")
    if folded and not (len(content) == 1 and len(paragraphs) == 1 and len(body) + depth <= WIDTH):
        paragraphs = [line for each in paragraphs for line in (*_wrap(each, width - depth), "")][:-1]
    rows = [" " * depth + line if line else "" for line in paragraphs] + [""] * max(breaks - 1, 0)
    yield layout.newline.join([f"{header[0]}{chomp}{comment}", *rows])


def _wrapped_forms(value: str, layout: Layout, column: int, old: Sequence[str], plain: bool) -> Iterator[str]:
    """The text over several lines, as the old one was; a break reads as a space, so only single spaces may break."""
    content = [line for line in old[1:] if line.strip()] or [" " * column]
    depth = len(content[0]) - len(content[0].lstrip(" "))
    width = max(column + len(old[0]), *(len(line) for line in content))
    quote = old[0][0] if old[0][0] in "'\"" else ""
    if not quote and not plain:
        return
    source = single_quoted(value) if quote == "'" else double_quoted(value) if quote else value
    # The first row begins behind its key, the others at their depth.
    filler = "x" * (column - depth - 1)
    rows = _wrap(f"{filler} {source}" if filler else source, width - depth)
    rows[0] = rows[0][len(filler) + 1 :] if filler else rows[0]
    yield layout.newline.join([rows[0], *(" " * depth + row for row in rows[1:])])


def _wrap(text: str, width: int) -> list[str]:
    """Rows of at most `width` characters, broken at single spaces only: a break is read as one."""
    rows: list[str] = []
    for word in _SINGLE_SPACE.split(text):
        if rows and len(rows[-1]) + 1 + len(word) <= width:
            rows[-1] += f" {word}"
        else:
            rows.append(word)
    return rows


def block_lines(value: Mapping[str, Any], indent: int, layout: Layout) -> list[str]:
    """Lines of a mapping with its keys at column `indent`; what holds only numbers or words goes on one line."""
    lines: list[str] = []
    for key, item in value.items():
        name = f"{' ' * indent}{key_text(key)}:"
        if _is_simple(item):
            lines.append(f"{name} {flow_text(item)}")
        elif isinstance(item, Mapping):
            lines += [name, *block_lines(item, indent + layout.step, layout)]
        elif isinstance(item, (list, tuple)):
            lines.append(name)
            for each in item:
                lines += item_lines(each, indent + layout.dash, layout)
        else:
            forms = text_forms(str(item), layout, indent=indent, column=len(name) + 1, flow=False)
            lines += f"{name} {_right(str(item), forms, indent)}".split(layout.newline)
    return lines


def item_lines(value: Mapping[str, Any], indent: int, layout: Layout) -> list[str]:
    """Lines of one mapping of a list, its dash at column `indent`."""
    first, *rest = block_lines(value, indent + layout.gap, layout)
    return [" " * indent + "-" + " " * (layout.gap - 1) + first.lstrip(" "), *rest]


def _right(value: str, forms: Iterator[str], indent: int) -> str:
    """The first form that reads as the text."""
    for form in forms:
        try:
            if read_data(f"{' ' * indent}x: {form}\n") == {"x": value}:
                return form
        except InputError:
            continue
    return double_quoted(value)


def _is_simple(value: Any) -> bool:
    if isinstance(value, Mapping):
        # Weights of objectives, not the keys of an objective.
        return "weight" not in value and all(
            not isinstance(each, (str, Mapping, list, tuple)) for each in value.values()
        )
    if isinstance(value, (list, tuple)):
        return all(not isinstance(each, (Mapping, list, tuple)) for each in value)
    return not isinstance(value, str)
