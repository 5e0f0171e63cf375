"""Pictures of figures with their intervals: rows of dots, a table of counts, a reliability curve.

All are 340 units wide, so that their text is as large as the page's on a phone. Who is who is told by shape and place
as well as by colour, and each picture's description for screen readers holds what it shows.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from rlaif.report.page import DASH, readable
from rlaif.report.svg import EDGE, FIRST, INK, LINE, PAPER, SECOND, SOFT, THIRD, to_markup
from rlaif.types import Frozen

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Interval = tuple[float, float]

_WIDTH = 340.0
_LEFT, _RIGHT = 8.0, 62.0
_HEAD, _TRACK, _GAP = 17.0, 16.0, 9.0
_FOOT, _LEGEND = 38.0, 26.0
_COLOURS = (FIRST, SECOND, THIRD)
_MARKERS = ("o", "D", "s")
_SIZES = (8.0, 7.0, 7.0)
# In units of a row's label: so many narrow characters fit beside its note.
_LABEL_WIDTH = 44


class Point(Frozen):
    """A figure of one of the picture's series, with its interval and as it is written; `None` is a dash."""

    value: float | None
    ci: Interval | None = None
    text: str = DASH
    series: int = 0


class Row(Frozen):
    """One line of a picture: what it is about, a remark to the right, its points, and a mark to compare them with."""

    label: str
    points: tuple[Point, ...]
    note: str = ""
    mark: float | None = None


class Axis(Frozen):
    """What points are measured by; `reference` is a dashed line through all rows. `limits` follow from the points."""

    label: str
    kind: Literal["share", "number"] = "share"
    reference: float | None = None
    limits: Interval | None = None


def dot_plot(name: str, title: str, rows: Sequence[Row], series: Sequence[str], axis: Axis) -> str:
    """Draw a point and its interval for each figure, row by row, each with its value beside it."""
    heights = [_HEAD + _TRACK * len(row.points) + _GAP for row in rows]
    used = sorted({point.series for row in rows for point in row.points}) if len(series) > 1 else []
    legend = _LEGEND if len(used) > 1 else 0.0
    height = sum(heights) + _FOOT + legend
    figure, axes = canvas(height, (_LEFT, _FOOT, _WIDTH - _LEFT - _RIGHT, height - _FOOT))
    low, high = axis.limits or _limits(rows, axis)
    axes.set_xlim(low, high)
    axes.set_ylim(height - _FOOT, 0)
    _ticks(axes, axis, low, high)
    if legend:
        _legend(axes, [(series[number], number) for number in used])
    top = legend
    for row, taken in zip(rows, heights, strict=True):
        # Lines run behind the points alone, not through the labels.
        lines = (top + _HEAD - 1, top + taken - _GAP + 1)
        axes.vlines(list(axes.get_xticks()), lines[0], lines[1], color=LINE, linewidth=1, zorder=1)
        if axis.reference is not None:
            axes.plot([axis.reference] * 2, lines, color=SOFT, linewidth=1.2, linestyle=(0, (3, 2)), zorder=1)
        _row(axes, row, top)
        top += taken
    described = f"{axis.label}. " + " ".join(_said(row, series) for row in rows)
    return to_markup(figure, name, readable(title), readable(described))


def count_table(name: str, title: str, counts: Mapping[str, Mapping[str, int]], rows: str, columns: str) -> str:
    """Draw a table of counts, `counts[row][column]`, shaded by the share of the row."""
    row_names = list(counts)
    column_names = list(dict.fromkeys(column for given in counts.values() for column in given))
    side, left, top = 236.0, 62.0, 44.0
    wide, high = (_WIDTH - left - 10) / len(column_names), side / len(row_names)
    figure, axes = canvas(top + side + 6, (0, 0, _WIDTH, top + side + 6))
    axes.set_axis_off()
    axes.set_xlim(0, _WIDTH)
    axes.set_ylim(top + side + 6, 0)
    axes.text(left + (_WIDTH - left - 10) / 2, 12, columns, ha="center", va="center", color=SOFT, fontsize=12)
    axes.text(12, top + side / 2, rows, ha="center", va="center", rotation=90, color=SOFT, fontsize=12)
    said = []
    for i, row in enumerate(row_names):
        total = sum(counts[row].values())
        y = top + high * i
        axes.text(left - 9, y + high / 2, fitted(row, 6), ha="right", va="center", color=INK, fontsize=12.5)
        for j, column in enumerate(column_names):
            if i == 0:
                x = left + wide * (j + 0.5)
                axes.text(x, top - 12, fitted(column, 12), ha="center", va="center", color=INK, fontsize=12.5)
            count = counts[row].get(column, 0)
            _count_cell(axes, (left + wide * j, y, wide, high), count, total)
            said.append(f"{rows} {row}, {columns} {column}: {count:,}.")
    return to_markup(figure, name, readable(title), readable(" ".join(said)))


class ReliabilityPoint(Frozen):
    """One bin: the mean probability, the same after calibration, and the share of cases with the share's interval."""

    n: int
    probability: float
    after: float | None
    share: float
    ci: Interval


def reliability(name: str, title: str, points: Sequence[ReliabilityPoint], x_label: str, y_label: str) -> str:
    """Draw how often what was given a probability is so; a judge that knows how sure to be lies on the diagonal."""
    from matplotlib.ticker import FuncFormatter

    size, left, foot = 264.0, 46.0, 44.0
    legend = _LEGEND if any(point.after is not None for point in points) else 4.0
    height = size + foot + legend
    figure, axes = canvas(height, (left, foot, size, size))
    for spine in ("left", "bottom"):
        axes.spines[spine].set_visible(True)
        axes.spines[spine].set_color(EDGE)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    ticks = [0, 0.25, 0.5, 0.75, 1]
    axes.set_xticks(ticks)
    axes.set_yticks(ticks)
    axes.tick_params(length=0, colors=SOFT, labelsize=11.5)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda given, _: f"{given:g}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda given, _: f"{given:.0%}"))
    axes.grid(color=LINE, linewidth=1)
    axes.set_axisbelow(True)
    axes.set_xlabel(x_label, color=SOFT, fontsize=12, labelpad=5)
    # Above the axis and level: text that stands upright is slow to read.
    axes.text(0.03, 0.955, y_label, color=SOFT, fontsize=12, va="center", transform=axes.transAxes)
    axes.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle=(0, (4, 3)))
    said = []
    for point in points:
        axes.plot([point.probability] * 2, point.ci, color=FIRST, linewidth=2)
        if point.after is not None:
            _marker(axes, point.after, point.share, 2)
        _marker(axes, point.probability, point.share, 0)
        after = "" if point.after is None else f", {point.after:.2f} when calibrated"
        low, high = point.ci
        said.append(f"p {point.probability:.2f}{after}: {point.share:.1%} of {point.n:,} ({low:.1%} to {high:.1%}).")
    if legend == _LEGEND:
        _legend(axes, [("as given", 0), ("calibrated", 2)])
    return to_markup(figure, name, readable(title), readable(f"{y_label} by {x_label}. " + " ".join(said)))


def fitted(text: str, most: int) -> str:
    """A text in one line of at most so many narrow characters; wide ones, as of Chinese, count two."""
    line = readable(" ".join(text[: 4 * most].split()))
    width = kept = 0
    for place, char in enumerate(line):
        # The ellipsis takes one.
        kept = place if width < most else kept
        width += 2 if unicodedata.east_asian_width(char) in "WF" else 1
        if width > most:
            return f"{line[: max(kept, 1)].rstrip()}…"
    return f"{line}…" if len(text) > 4 * most else line


def canvas(height: float, box: tuple[float, float, float, float]) -> tuple[Figure, Axes]:
    """A figure in units of 1/72 inch, which are the page's, with bare axes in `box` (left, bottom, width, height)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH / 72, height / 72), dpi=72)
    left, bottom, wide, high = box
    axes = figure.add_axes((left / _WIDTH, bottom / height, wide / _WIDTH, high / height))
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0)
    return figure, axes


def _limits(rows: Sequence[Row], axis: Axis) -> Interval:
    """Bounds that hold every interval: for shares whole tenths, at least four of them apart."""
    values = [row.mark for row in rows] + [axis.reference]
    values += [each for row in rows for point in row.points for each in (point.value, *(point.ci or ()))]
    known = [each for each in values if each is not None]
    low, high = min(known, default=0.0), max(known, default=1.0)
    if axis.kind == "number":
        room = (high - low or 1.0) * 0.08
        return low - room, high + room
    tenth_low, tenth_high = math.floor(low * 10 + 1e-9), math.ceil(high * 10 - 1e-9)
    while tenth_high - tenth_low < 4:
        tenth_low = max(tenth_low - 1, 0)
        tenth_high = min(tenth_high + (tenth_high - tenth_low < 4), 10)
    return tenth_low / 10, tenth_high / 10


def _ticks(axes: Axes, axis: Axis, low: float, high: float) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

    if axis.kind == "share":
        tenths = range(round(low * 10), round(high * 10) + 1)
        step = 2 if len(tenths) > 6 else 1
        axes.xaxis.set_major_locator(FixedLocator([each / 10 for each in tenths if each % step == 0]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda given, _: f"{given:.0%}"))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda given, _: f"{given:g}".replace("-", "−")))
    axes.yaxis.set_visible(False)
    axes.tick_params(axis="x", length=0, colors=SOFT, labelsize=11.5)
    axes.set_xlabel(axis.label, color=SOFT, fontsize=12, labelpad=4)


def _legend(axes: Axes, series: Sequence[tuple[str, int]]) -> None:
    """Name series over the picture, each behind its marker."""
    from matplotlib.lines import Line2D

    box = axes.get_position()
    figure = axes.get_figure(root=True)
    assert figure is not None
    height = figure.get_size_inches()[1] * 72
    x, y = box.x0 * _WIDTH + 4, height - 10
    for name, number in series:
        shown = fitted(name, 22)
        figure.add_artist(Line2D([x / _WIDTH], [y / height], **_looks(number)))
        figure.text((x + 9) / _WIDTH, y / height, shown, color=INK, fontsize=12, va="center")
        x += 9 + 6.6 * len(shown) + 18


def _looks(series: int) -> dict[str, Any]:
    """How the points of a series look: the first filled, the others open."""
    colour = _COLOURS[series % 3]
    return {
        "color": colour,
        "marker": _MARKERS[series % 3],
        "markersize": _SIZES[series % 3],
        "markerfacecolor": colour if series == 0 else PAPER,
        "markeredgecolor": colour,
        "markeredgewidth": 1.8,
        "linestyle": "none",
    }


def _marker(axes: Axes, x: float, y: float, series: int) -> None:
    axes.plot([x], [y], clip_on=False, zorder=3, **_looks(series))


def _row(axes: Axes, row: Row, top: float) -> None:
    edge = axes.get_yaxis_transform()
    room = _LABEL_WIDTH - len(row.note)
    axes.text(0, top + 9, fitted(row.label, room), transform=edge, color=INK, fontsize=12.5, va="center")
    if row.note:
        right = 1 + (_RIGHT - 4) / (_WIDTH - _LEFT - _RIGHT)
        axes.text(right, top + 9, row.note, transform=edge, color=SOFT, fontsize=11.5, va="center", ha="right")
    first, last = top + _HEAD, top + _HEAD + _TRACK * len(row.points)
    if row.mark is not None:
        axes.plot([row.mark] * 2, [first, last], color=INK, linewidth=2)
    for number, point in enumerate(row.points):
        y = first + _TRACK * (number + 0.5)
        axes.plot(axes.get_xlim(), [y, y], color=LINE, linewidth=1, zorder=1)
        if point.ci is not None:
            axes.plot(point.ci, [y, y], color=_COLOURS[point.series % 3], linewidth=2.5, zorder=2)
        if point.value is not None:
            _marker(axes, point.value, y, point.series)
        right = 1 + (_RIGHT - 4) / (_WIDTH - _LEFT - _RIGHT)
        axes.text(right, y, point.text, transform=edge, color=INK, fontsize=12, va="center", ha="right")


def _said(row: Row, series: Sequence[str]) -> str:
    parts = []
    for point in row.points:
        who = f"{series[point.series]} " if len(series) > 1 else ""
        known = point.ci is not None and point.value is not None
        span = (
            f" ({_spoken(point.ci[0], point.text)} to {_spoken(point.ci[1], point.text)})" if known and point.ci else ""
        )
        parts.append(f"{who}{'not defined' if point.value is None else point.text}{span}")
    note = f" ({row.note})" if row.note else ""
    return f"{fitted(row.label, 80)}{note}: {', '.join(parts)}."


def _spoken(value: float, like: str) -> str:
    return (f"{value:.1%}" if like.endswith("%") else f"{value:.2f}").replace("-", "−")


def _count_cell(axes: Axes, box: tuple[float, float, float, float], count: int, total: int) -> None:
    from matplotlib.patches import Rectangle

    x, y, wide, high = box
    share = count / total if total else 0.0
    inner = (x + 1.5, y + 1.5), wide - 3, high - 3
    axes.add_patch(Rectangle(*inner, facecolor=FIRST, edgecolor="none", alpha=0.04 + 0.4 * share))
    axes.add_patch(Rectangle(*inner, facecolor="none", edgecolor=LINE, linewidth=1))
    axes.text(x + wide / 2, y + high / 2 - 8, f"{count:,}", ha="center", va="center", color=INK, fontsize=15)
    text = f"{share:.0%}" if total else DASH
    axes.text(x + wide / 2, y + high / 2 + 11, text, ha="center", va="center", color=INK, fontsize=11.5)
