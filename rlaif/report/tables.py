"""What tables of several reports have in common: every figure on a line, accuracy by tag, and a limit on the rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rlaif.agreement.results import TagAgreement
from rlaif.report.page import DASH, Cell, Column, Table
from rlaif.report.wording import (
    count_cell,
    name_cell,
    number_cell,
    numbers_between,
    share_cell,
    shares_between,
    tag_text,
    why,
)

_MOST_ROWS = 200
Cells = tuple[Cell, ...]
Interval = tuple[float, float]


def limited_table(
    title: str, columns: tuple[Column, ...], rows: Sequence[Cells], note: str = "", *, command: str
) -> Table:
    """A table of so many rows at most; its note says how many are not shown, and which command prints them."""
    said = [note] if note else []
    if len(rows) > _MOST_ROWS:
        said.append(f"{len(rows) - _MOST_ROWS:,} more rows are in {command} --json.")
    return Table(title=title, columns=columns, rows=tuple(rows[:_MOST_ROWS]), note=" ".join(said))


def tag_table(by_tag: Iterable[TagAgreement], left_out: str | None, *, command: str) -> Table:
    """Accuracy by tag, the most pairs first; `left_out` says what is not there."""
    rows = [
        (
            name_cell(one.tag),
            name_cell(tag_text(one.value)),
            count_cell(one.n),
            share_cell(one.accuracy, one.accuracy_ci),
        )
        for one in sorted(by_tag, key=lambda one: -one.n)
    ]
    columns = (
        Column(label="Tag", figures=False),
        Column(label="Value", figures=False),
        Column(label="Pairs"),
        Column(label="Accuracy"),
    )
    return limited_table("By tag", columns, rows, f"Not shown: {left_out}." if left_out else "", command=command)


class FigureLines:
    """Figures, a line each: what it is, its value and its interval.

    Args:
        reasons: why a figure is not defined, by its key.
    """

    def __init__(self, reasons: Mapping[str, str]) -> None:
        self._reasons = reasons
        self._lines: list[Cells] = []

    def share(self, key: str, label: str, meaning: str, given: float | None, ci: Interval | None = None) -> None:
        """Add a share, 0 to 1."""
        value = share_cell(given, None, why(self._reasons, key))
        self._add(label, meaning, value, shares_between(ci))

    def number(self, key: str, label: str, meaning: str, given: float | None, ci: Interval | None = None) -> None:
        """Add a number."""
        value = number_cell(given, None, why(self._reasons, key))
        self._add(label, meaning, value, numbers_between(ci))

    def _add(self, label: str, meaning: str, value: Cell, between: str) -> None:
        self._lines.append((Cell(text=label, remark=meaning), value, Cell(text=between or DASH)))

    def table(self) -> Table:
        """The table of all that was added."""
        columns = (
            Column(label="Figure", figures=False),
            Column(label="Value"),
            Column(label="95% interval", figures=False),
        )
        return Table(title="Every figure", columns=columns, rows=tuple(self._lines))
