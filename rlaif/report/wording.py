"""How figures are written on a page: shares, numbers, intervals, and a dash with the reason where there is none."""

from __future__ import annotations

import json
from collections.abc import Mapping

from rlaif.report.figures import Point, fitted
from rlaif.report.page import DASH, Cell
from rlaif.types import TagValue

Interval = tuple[float, float]
_UNKNOWN = "these data do not define it"


def share(given: float | None) -> str:
    """`71.1%`, or a dash."""
    return DASH if given is None else f"{number(100 * given, 1)}%"


def number(given: float | None, digits: int = 3) -> str:
    """A number with so many decimals and a real minus sign, or a dash; never a negative zero."""
    if given is None:
        return DASH
    text = f"{given:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")


def p_value(given: float | None) -> str:
    """A p-value to three decimals, since more would say more than is known."""
    return DASH if given is None else "< 0.001" if given < 0.001 else f"{given:.3f}"


def shares_between(ci: Interval | None) -> str:
    """`68.2% to 73.8%`, or nothing."""
    return "" if ci is None else f"{share(ci[0])} to {share(ci[1])}"


def numbers_between(ci: Interval | None, digits: int = 3) -> str:
    """`0.421 to 0.552`, or nothing."""
    return "" if ci is None else f"{number(ci[0], digits)} to {number(ci[1], digits)}"


def name_cell(name: str, remark: str = "") -> Cell:
    """A name of the user's for a table, shortened where it is a whole text."""
    return Cell(text=fitted(name, 80), remark=remark)


def tag_text(value: TagValue) -> str:
    """A tag's value as it stands in JSON, but for quotes."""
    return value if isinstance(value, str) else json.dumps(value)


def share_cell(given: float | None, ci: Interval | None = None, reason: str = "") -> Cell:
    """A share for a table, with its interval, or a dash with the reason."""
    return _cell(given, share(given), shares_between(ci), reason)


def number_cell(given: float | None, ci: Interval | None = None, reason: str = "", digits: int = 3) -> Cell:
    """A number for a table, with its interval, or a dash with the reason."""
    return _cell(given, number(given, digits), numbers_between(ci, digits), reason)


def count_cell(given: int) -> Cell:
    """A count for a table."""
    return Cell(text=f"{given:,}", sort=given)


def p_cell(given: float | None, reason: str = "") -> Cell:
    """A p-value for a table."""
    return _cell(given, p_value(given), "", reason)


def share_point(given: float | None, ci: Interval | None = None, series: int = 0) -> Point:
    """A share for a picture."""
    return Point(value=given, ci=ci, text=share(given), series=series)


def number_point(given: float | None, ci: Interval | None = None, series: int = 0) -> Point:
    """A number for a picture."""
    return Point(value=given, ci=ci, text=number(given, 2), series=series)


def plural(n: int, noun: str) -> str:
    """`1 label`, `1,200 labels`."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def counted(n: int) -> str:
    """`n = 1,200`."""
    return f"n = {n:,}"


def why(not_defined: Mapping[str, str], *names: str) -> str:
    """The reason given for the first of these figures that has one: under its name, its block's or its last part's."""
    for name in names:
        block, _, last = name.rpartition(".")
        for key in (name, block, last):
            if key and key in not_defined:
                return not_defined[key]
    return _UNKNOWN


def _cell(given: float | None, text: str, between: str, reason: str) -> Cell:
    return Cell(text=text, remark=(reason or _UNKNOWN) if given is None else between, sort=given)
