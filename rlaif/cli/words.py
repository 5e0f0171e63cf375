"""How values and texts of the user's stand in a line, and aligned columns: plain text, to read, pipe and compare."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlaif.constitution.diff import Value


def marked(mark: str, text: str) -> Iterator[str]:
    """The lines of a text, each behind the mark; what a terminal would obey is escaped."""
    for line in text.splitlines():
        yield mark + "".join(char if char.isprintable() or char == "\t" else ascii(char)[1:-1] for char in line)


def value(given: Value | Sequence[str]) -> str:
    """A setting within a line."""
    if given is None:
        return "none"
    if isinstance(given, float):
        return f"{given:.12g}"
    if isinstance(given, Mapping):
        return ", ".join(f"{name} {value(number)}" for name, number in given.items()) or "no weights"
    return word(given) if isinstance(given, str) else ", ".join(map(word, given))


def word(text: str) -> str:
    """A text of the user's within a line: quoted where it holds what would break the line or the terminal."""
    return text if text.isprintable() and text else json.dumps(text)


def cut(text: str, most: int) -> str:
    """A longer text in one line, shortened to so many characters."""
    line = " ".join(text.split())
    line = line if len(line) <= most else f"{line[: most - 1].rstrip()}…"
    return next(marked("", line), "(empty)")


def share(given: float | None) -> str:
    """`12.5%`, or `-` where there is none."""
    return "-" if given is None else f"{given:.1%}"


def number(given: float | None, digits: int = 3) -> str:
    """A number with so many decimals, or `-` where there is none."""
    return "-" if given is None else f"{given:.{digits}f}"


def p_value(given: float | None) -> str:
    """A p-value: to four decimals, since more would say more than is known."""
    return "-" if given is None else "<0.0001" if given < 0.0001 else f"{given:.4f}"


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> Iterator[str]:
    """Lines of a table: the first `left` columns stand to the left, numbers to the right."""
    lines = [head, *rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(head))]
    for line in lines:
        cells = zip(line, widths, range(len(head)), strict=True)
        yield "  ".join(f"{cell:{'<' if place < left else '>'}{width}}" for cell, width, place in cells).rstrip()
