"""More pictures: curves over training steps, a histogram around nought, and a matrix of shares.

All are 340 units wide as those of `rlaif.report.figures`, and told in words for screen readers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rlaif.report.figures import Interval, canvas, fitted
from rlaif.report.page import DASH, readable
from rlaif.report.svg import EDGE, FIRST, INK, LINE, PAPER, SECOND, SOFT, THIRD, to_markup
from rlaif.types import Frozen

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH = 340.0
_COLOURS = (FIRST, SECOND, THIRD)
_MARKERS = ("o", "D", "s")
_DASHES: tuple[Any, ...] = ((0, ()), (0, (5, 2)), (0, (1.5, 1.5)))


class Curve(Frozen):
    """One line of a picture: (x, y) from left to right. Measured seldom it has markers, and `best` is one of its x.

    `band` is an interval of y for each point, or nothing.
    """

    label: str
    points: tuple[tuple[float, float], ...]
    series: int = 0
    faint: bool = False
    best: float | None = None
    band: tuple[Interval, ...] = ()


def line_chart(
    name: str,
    title: str,
    curves: Sequence[Curve],
    x_label: str,
    y_label: str,
    reference: float | None = None,
    *,
    ticks: Mapping[str, float] | None = None,
    limits: Interval | None = None,
) -> str:
    """Draw curves over one axis; `reference` is a dashed line, as the loss of a coin. Faint curves have no legend.

    `ticks` are the x to name, where numbers would not do; `limits` those of y, for pictures that are compared.
    """
    named = [curve for curve in curves if curve.label and not curve.faint]
    legend = 22.0 * len(named) + 4
    size, left, foot = 190.0, 46.0, 44.0
    figure, axes = _framed(size + foot + legend, (left, foot, _WIDTH - left - 12, size))
    for curve in curves:
        colour, dash = _COLOURS[curve.series % 3], _DASHES[curve.series // 3 % 3]
        x, y = [point[0] for point in curve.points], [point[1] for point in curve.points]
        if curve.faint:
            axes.plot(x, y, color=colour, linewidth=1.3, alpha=0.5, zorder=2)
            continue
        if curve.band:
            low, high = zip(*curve.band, strict=True)
            axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0, zorder=2)
        axes.plot(x, y, color=colour, linewidth=2.2, linestyle=dash, zorder=3, **_marks(curve))
        for point in curve.points:
            if point[0] == curve.best:
                axes.plot(*point, color=colour, zorder=4, **_dot(curve.series, filled=True))
    if reference is not None:
        axes.axhline(reference, color=SOFT, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
    axes.margins(x=0.03, y=0.08)
    if limits is not None:
        axes.set_ylim(*limits)
    _number_ticks(axes)
    if ticks is not None:
        axes.set_xticks(list(ticks.values()), list(ticks))
    axes.set_xlabel(x_label, color=SOFT, fontsize=12, labelpad=5)
    for place, curve in enumerate(named):
        _legend_line(figure, curve, size + foot + legend - 12 - 22 * place, size + foot + legend)
    said = " ".join(_said(curve) for curve in curves if not curve.faint or not named)
    return to_markup(figure, name, readable(title), readable(f"{y_label} by {x_label}. {said}"))


def _marks(curve: Curve) -> dict[str, Any]:
    """Markers where points are few enough to tell apart."""
    return _dot(curve.series, filled=False) if len(curve.points) <= 24 else {}


def _dot(series: int, filled: bool) -> dict[str, Any]:
    colour = _COLOURS[series % 3]
    return {
        "marker": _MARKERS[series % 3],
        "markersize": 9.0 if filled else 6.0,
        "markerfacecolor": colour if filled else PAPER,
        "markeredgecolor": colour,
        "markeredgewidth": 1.6,
    }


def _legend_line(figure: Figure, curve: Curve, y: float, height: float) -> None:
    from matplotlib.lines import Line2D

    colour, dash = _COLOURS[curve.series % 3], _DASHES[curve.series // 3 % 3]
    xs, ys = [12 / _WIDTH, 40 / _WIDTH], [y / height] * 2
    figure.add_artist(Line2D(xs, ys, color=colour, linewidth=2.2, linestyle=dash))
    if _marks(curve):
        middle = [26 / _WIDTH], [y / height]
        figure.add_artist(Line2D(*middle, color=colour, **_dot(curve.series, filled=False)))
    figure.text(50 / _WIDTH, y / height, fitted(curve.label, 42), color=INK, fontsize=12, va="center")


def _said(curve: Curve) -> str:
    (_, first), (_, last) = curve.points[0], curve.points[-1]
    best = next((f", {y:.3f} at the best, {x:g}" for x, y in curve.points if x == curve.best), "")
    return f"{fitted(curve.label, 60)}: from {first:.3f} to {last:.3f}{best}."


def histogram(
    name: str, title: str, edges: Sequence[float], counts: Sequence[int], x_label: str, sides: tuple[str, str]
) -> str:
    """Draw counts between edges, those below 0 in another colour; `sides` tell of what is left and right of it.

    `edges` are one more than `counts`; the outer bins are told to hold all beyond.
    """
    size, left, foot, head = 190.0, 12.0, 44.0, 30.0
    figure, axes = _framed(size + foot + head, (left, foot, _WIDTH - 2 * left, size))
    for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
        wrong = high <= 0
        room = (high - low) * 0.08
        axes.bar(
            low + room,
            count,
            width=high - low - 2 * room,
            align="edge",
            color=SECOND if wrong else FIRST,
            alpha=0.85 if wrong else 1,
            linewidth=0,
        )
    axes.axvline(0, color=INK, linewidth=1.6)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0, max(max(counts), 1) * 1.04)
    _number_ticks(axes)
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(x_label, color=SOFT, fontsize=12, labelpad=5)
    height = size + foot + head
    for side, x, align, colour in zip(sides, (left, _WIDTH - left), ("left", "right"), (SECOND, FIRST), strict=True):
        figure.text(x / _WIDTH, 1 - 12 / height, side, color=colour, fontsize=12.5, va="center", ha=align)
    said = f"{x_label}. {sum(counts):,} in all, from {edges[0]:g} to {edges[-1]:g}: {sides[0]}, {sides[1]}."
    return to_markup(figure, name, readable(title), readable(said.replace("-", "−")))


class ConfidencePoint(Frozen):
    """One bin: mean confidence as it is used, the same before calibration, the share that is right, its interval."""

    n: int
    confidence: float
    before: float | None
    share: float
    ci: Interval


def confidence_curve(name: str, title: str, points: Sequence[ConfidencePoint], x_label: str, y_label: str) -> str:
    """Draw how often a choice is right by how sure it was, from one half on; what knows itself is on the diagonal."""
    from matplotlib.ticker import FuncFormatter

    size, left, foot = 230.0, 50.0, 44.0
    legend = 26.0 if any(point.before is not None for point in points) else 4.0
    height = size + foot + legend
    figure, axes = _framed(height, (left, foot, _WIDTH - left - 14, size))
    low = min((min(point.ci[0], point.share) for point in points), default=0.5)
    bottom = max(math.floor(min(low, 0.5) * 10 + 1e-9) / 10, 0.0)
    axes.set_xlim(0.49, 1.01)
    axes.set_ylim(bottom, 1.005)
    axes.set_xticks([0.5, 0.6, 0.7, 0.8, 0.9, 1])
    tenths = range(round(bottom * 10), 11)
    axes.set_yticks([each / 10 for each in tenths if len(tenths) <= 7 or each % 2 == 0])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda given, _: f"{given:.0%}"))
    axes.set_xlabel(x_label, color=SOFT, fontsize=12, labelpad=5)
    axes.text(0.03, 0.955, y_label, color=SOFT, fontsize=12, va="center", transform=axes.transAxes)
    axes.plot([0.5, 1], [0.5, 1], color=SOFT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    said = []
    for point in points:
        axes.plot([point.confidence] * 2, point.ci, color=FIRST, linewidth=2, zorder=2)
        if point.before is not None:
            axes.plot([point.before], [point.share], color=THIRD, linestyle="none", zorder=3, **_dot(2, filled=False))
        axes.plot([point.confidence], [point.share], color=FIRST, zorder=4, **_dot(0, filled=True))
        before = "" if point.before is None else f", {point.before:.2f} before calibration"
        share = f"{point.share:.1%} of {point.n:,} ({point.ci[0]:.1%} to {point.ci[1]:.1%})"
        said.append(f"{point.confidence:.2f}{before}: {share}.")
    if legend > 4:
        _legend_dots(figure, (("calibrated", 0), ("before", 2)), height)
    return to_markup(figure, name, readable(title), readable(f"{y_label} by {x_label}. " + " ".join(said)))


def _legend_dots(figure: Figure, series: Sequence[tuple[str, int]], height: float) -> None:
    from matplotlib.lines import Line2D

    x, y = 54.0, (height - 11) / height
    for label, number in series:
        figure.add_artist(Line2D([x / _WIDTH], [y], linestyle="none", **_dot(number, filled=number == 0)))
        figure.text((x + 10) / _WIDTH, y, label, color=INK, fontsize=12, va="center")
        x += 10 + 6.6 * len(label) + 22


class ShareCell(Frozen):
    """One cell of a matrix: a share, and how many cases it is of; `None` is a dash."""

    share: float | None
    n: int = 0


def share_matrix(
    name: str,
    title: str,
    names: Sequence[str],
    cells: Mapping[tuple[int, int], ShareCell],
    words: tuple[str, str],
) -> str:
    """Draw shares between things, row by column, shaded by their size; the diagonal stays empty.

    Columns go by the rows' numbers, since long names do not fit above them. `words` say what the upper right and the
    lower left half hold, each with its colour.
    """
    count = len(names)
    left, top, foot = 138.0, 56.0, 6.0
    side = (_WIDTH - left - 8) / count
    high = min(side, 58.0)
    height = top + high * count + foot
    figure, axes = canvas(height, (0, 0, _WIDTH, height))
    axes.set_axis_off()
    axes.set_xlim(0, _WIDTH)
    axes.set_ylim(height, 0)
    for line, corner, word, colour in ((11, "◥", words[0], FIRST), (29, "◣", words[1], SECOND)):
        axes.text(8, line, corner, color=colour, fontsize=12, va="center")
        axes.text(26, line, fitted(word, 52), color=INK, fontsize=12, va="center")
    said = []
    for i, row in enumerate(names):
        y = top + high * (i + 0.5)
        axes.text(8, y, f"{i + 1}", ha="left", va="center", color=SOFT, fontsize=12.5)
        axes.text(24, y, fitted(row, 17), ha="left", va="center", color=INK, fontsize=12.5)
        axes.text(left + side * (i + 0.5), top - 10, f"{i + 1}", ha="center", va="center", color=SOFT, fontsize=12.5)
        for j, column in enumerate(names):
            box = (left + side * j, top + high * i, side, high)
            if i == j:
                _box(axes, box, LINE, 0.5)
                continue
            cell = cells.get((i, j), ShareCell(share=None))
            _share_cell(axes, box, cell, FIRST if j > i else SECOND)
            shown = DASH if cell.share is None else f"{cell.share:.1%} of {cell.n:,}"
            said.append(f"{fitted(row, 40)} and {fitted(column, 40)}, {words[0] if j > i else words[1]}: {shown}.")
    return to_markup(figure, name, readable(title), readable(" ".join(said)))


def _share_cell(axes: Axes, box: tuple[float, float, float, float], cell: ShareCell, colour: str) -> None:
    x, y, wide, high = box
    _box(axes, box, colour, 0.04 + 0.5 * (cell.share or 0.0))
    small = wide < 40
    text = DASH if cell.share is None else f"{cell.share:.0%}"
    lift = 0 if small or cell.share is None else 7
    axes.text(
        x + wide / 2, y + high / 2 - lift, text, ha="center", va="center", color=INK, fontsize=11 if small else 14
    )
    if lift:
        axes.text(x + wide / 2, y + high / 2 + 11, f"of {cell.n:,}", ha="center", va="center", color=INK, fontsize=10.5)


def _box(axes: Axes, box: tuple[float, float, float, float], colour: str, alpha: float) -> None:
    from matplotlib.patches import Rectangle

    x, y, wide, high = box
    inner = (x + 1.5, y + 1.5), wide - 3, high - 3
    axes.add_patch(Rectangle(*inner, facecolor=colour, edgecolor="none", alpha=alpha))
    axes.add_patch(Rectangle(*inner, facecolor="none", edgecolor=LINE, linewidth=1))


def _framed(height: float, box: tuple[float, float, float, float]) -> tuple[Figure, Axes]:
    """A figure with axes in `box` (left, bottom, width, height), lines left and below, and a grid behind."""
    figure, axes = canvas(height, box)
    for spine in ("left", "bottom"):
        axes.spines[spine].set_visible(True)
        axes.spines[spine].set_color(EDGE)
    axes.tick_params(colors=SOFT, labelsize=11.5)
    # The lowest label of the one axis and the first of the other meet in the corner.
    axes.tick_params(axis="x", pad=7)
    axes.grid(color=LINE, linewidth=1)
    axes.set_axisbelow(True)
    return figure, axes


def _number_ticks(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5))
        axis.set_major_formatter(FuncFormatter(lambda given, _: f"{given:,.10g}".replace("-", "−")))
