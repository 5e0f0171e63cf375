"""The pictures of a comparison of reward models, each with how to read it or why there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rlaif.optimize.compare_rewards_results import REWARD, Agreement, ComparedPair, Drift, Measure, RewardComparison
from rlaif.report.curves import ShareCell, share_matrix
from rlaif.report.figures import Axis, Point, Row, canvas, dot_plot, fitted
from rlaif.report.page import Picture, readable
from rlaif.report.svg import EDGE, FIRST, INK, LINE, PAPER, SECOND, SOFT, to_markup
from rlaif.report.wording import counted, number_point, share_point, tag_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Points = Sequence[tuple[float, float]]

_WIDTH = 340.0
_MOST_ROWS = 14
_MOST_NAMES = 9
_BARS = "The bar is the 95% interval."


def matrices(found: RewardComparison, names: Mapping[str, str]) -> tuple[Picture, ...]:
    """A matrix of all models for the aggregate and for each objective that several share."""
    models = [model.name for model in found.models]
    objectives = list(dict.fromkeys(name for pair in found.compared for name in pair.objectives))
    made = []
    for number, objective in enumerate([REWARD, *objectives]):
        held = {
            (pair.first, pair.second): pair.reward if number == 0 else pair.objectives[objective]
            for pair in found.compared
            if number == 0 or objective in pair.objectives
        }
        shown = [name for name in models if any(name in both for both in held)]
        title = "Same preference, aggregate" if number == 0 else f"Same preference, {fitted(objective, 40)}"
        if len(shown) > _MOST_NAMES:
            made.append(Picture(title=title, caption="", reason=f"{len(shown)} models do not fit; see the table."))
            continue
        cells = {}
        for (first, second), one in held.items():
            i, j = sorted((shown.index(first), shown.index(second)))
            cells[i, j] = ShareCell(share=one.same.value, n=one.n)
            cells[j, i] = ShareCell(share=one.same_clear.value, n=one.clear)
        words = ("all pairs of responses", "the half both find clearest")
        svg = share_matrix(f"matrix-{number}", title, [names[name] for name in shown], cells, words)
        caption = (
            "How often two models prefer the same response. Where the lower half is not much above the upper one they "
            "part in what they want, not only in doubt."
        )
        made.append(Picture(title=title, caption=caption, svg=svg))
    return tuple(made)


def agreements(pair: ComparedPair, name: str) -> Picture:
    """Two models: how often they prefer the same response, by objective."""
    each = {**pair.objectives, REWARD: pair.reward}
    rows = [
        Row(
            label="aggregate" if one is pair.reward else objective,
            note=counted(one.n),
            points=(_share(one.same, 0), _share(one.same_clear, 1)),
        )
        for objective, one in list(each.items())[-_MOST_ROWS:]
    ]
    caption = (
        "A coin agrees on half of the pairs. Where the second figure is not much above the first, the two part in what "
        f"they want, not only in doubt. {_BARS}"
    )
    title = "Prefer the same response"
    axis = Axis(label="of the pairs", reference=0.5)
    return _dots(name, title, caption, rows, ("all pairs", "clearest half"), axis, "")


def groups(one: Agreement, name: str) -> tuple[Picture, ...]:
    """Agreement by length and by tag, and who people side with."""
    made = []
    if one.by_length:
        rows = [
            Row(label=group.label, note=counted(group.n), points=(_share(group.same, 0),))
            for group in one.by_length
            if group.n
        ]
        caption = (
            "By how much longer one response is than the other, in characters. Where they agree less the more lengths "
            f"differ, one of them goes by length more than the other. {_BARS}"
        )
        made.append(_dots(f"{name}-length", "By length", caption, rows, ("",), Axis(label="prefer the same"), ""))
    if one.by_tag:
        least = sorted(one.by_tag, key=lambda group: group.same.value if group.same.value is not None else 1.0)
        rows = [
            Row(label=f"{group.tag}: {tag_text(group.value)}", note=counted(group.n), points=(_share(group.same, 0),))
            for group in least[:_MOST_ROWS]
        ]
        caption = f"The tags of the pairs, the least alike first. {_BARS}"
        made.append(_dots(f"{name}-tags", "By tag", caption, rows, ("",), Axis(label="prefer the same"), ""))
    return tuple(made)


def people(pair: ComparedPair, names: Mapping[str, str], name: str) -> Picture | None:
    """How often each model prefers what people do, and who is right where they part; `None` without labels."""
    each = {**pair.objectives, "aggregate": pair.reward}
    rows = []
    for objective, one in each.items():
        if one.labels is not None:
            rows.append(
                Row(
                    label=objective,
                    note=counted(one.labels.n),
                    points=(_share(one.labels.first, 0), _share(one.labels.second, 1)),
                )
            )
            rows.append(
                Row(
                    label=f"{fitted(objective, 16)}, where they part",
                    note=counted(one.labels.parting),
                    points=(
                        _share(one.labels.first_right, 0),
                        _share(_rest(one.labels.first_right), 1),
                    ),
                )
            )
    if not rows:
        return None
    caption = (
        "How often each prefers the response that most people prefer; where they part one of the two is right, so that "
        f"the figures make 100%. {_BARS}"
    )
    who = fitted(names[pair.first], 20), fitted(names[pair.second], 20)
    axis = Axis(label="agrees with people", reference=0.5)
    return _dots(name, "Who people side with", caption, rows[:_MOST_ROWS], who, axis, "")


def _rest(measure: Measure) -> Measure:
    value = None if measure.value is None else 1 - measure.value
    return Measure(value=value, ci=None if measure.ci is None else (1 - measure.ci[1], 1 - measure.ci[0]))


def margin_scatter(name: str, title: str, points: Points, first: str, second: str, one: Agreement) -> Picture:
    """Margins of pairs by both models: in the upper left and lower right they prefer different responses."""
    if not one.n:
        return Picture(title=title, caption="", reason="neither model prefers a response of any pair")
    size, left, foot, head = 264.0, 46.0, 44.0, 48.0
    height = size + foot + head
    figure, axes = canvas(height, (left, foot, size, size))
    for spine in ("left", "bottom"):
        axes.spines[spine].set_visible(True)
        axes.spines[spine].set_color(EDGE)
    axes.tick_params(length=0, colors=SOFT, labelsize=11.5)
    axes.grid(color=LINE, linewidth=1)
    axes.set_axisbelow(True)
    _symmetric(axes, points)
    axes.axhline(0, color=SOFT, linewidth=1.2)
    axes.axvline(0, color=SOFT, linewidth=1.2)
    legend = (("prefer the same", FIRST, "o", False), ("part", SECOND, "D", True))
    for place, (label, colour, marker, parting) in enumerate(legend):
        some = [point for point in points if (point[0] * point[1] < 0) == parting]
        looks: dict[str, Any] = {"marker": marker, "markersize": 4.0, "markeredgecolor": colour, "markeredgewidth": 1.0}
        looks |= {"linestyle": "none", "markerfacecolor": PAPER if parting else colour, "color": colour}
        axes.plot([point[0] for point in some], [point[1] for point in some], **looks)
        x = 0.02 + 0.48 * place
        axes.plot([x], [1 + 36 / size], transform=axes.transAxes, clip_on=False, **{**looks, "markersize": 7.0})
        axes.text(x + 0.03, 1 + 36 / size, label, transform=axes.transAxes, color=INK, fontsize=12, va="center")
    axes.set_xlabel(f"margin, {fitted(first, 34)}", color=SOFT, fontsize=12, labelpad=5)
    axes.text(0, 1 + 14 / size, f"margin, {fitted(second, 34)}", transform=axes.transAxes, color=SOFT, fontsize=12)
    parted = sum(1 for x, y in points if x * y < 0)
    said = (
        f"Margins of {len(points):,} pairs by {fitted(first, 60)} and {fitted(second, 60)}; on {parted:,} of them they "
        "prefer different responses."
    )
    shown = f"{len(points):,} of {one.n:,}" if len(points) < one.n else f"{len(points):,}"
    caption = (
        f"Each mark is one of {shown} pairs of responses: reward of the first less that of the second, in standard "
        "deviations of the rewards. Far out in the upper left or lower right corner both are clear and contradict each "
        "other."
    )
    return Picture(title=title, caption=caption, svg=to_markup(figure, name, readable(title), readable(said)))


def _symmetric(axes: Axes, points: Points) -> None:
    """The same limits on both sides of 0; both axes have units of their own."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    for which, setter, axis in ((0, axes.set_xlim, axes.xaxis), (1, axes.set_ylim, axes.yaxis)):
        most = max((abs(point[which]) for point in points), default=0.0) * 1.06 or 1.0
        setter(-most, most)
        axis.set_major_locator(MaxNLocator(5))
        axis.set_major_formatter(FuncFormatter(lambda given, _: f"{given:,.10g}".replace("-", "−")))


def shifts(found: Drift, names: Mapping[str, str], name: str) -> Picture:
    """What became of each reward, in deviations of the reference."""
    several = len(found.rewards) > 1
    rows = []
    for model, each in found.rewards.items():
        for objective, shift in each.items():
            unit = shift.reference_std or 1.0
            value, ci = shift.change.value, shift.change.ci
            scaled = None if value is None else value / unit
            between = None if ci is None else (ci[0] / unit, ci[1] / unit)
            label = "aggregate" if objective == REWARD else objective
            rows.append(
                Row(
                    label=f"{label}, {names[model]}" if several else label,
                    points=(number_point(scaled, between),),
                )
            )
    caption = (
        "Mean reward of the new responses less that of the reference's, by the deviation there. Rewards that rise "
        f"while responses leave what the heads were trained on are worth the least. {_BARS}"
    )
    axis = Axis(label="deviations", kind="number", reference=0.0)
    return _dots(name, "What became of the rewards", caption, rows[:_MOST_ROWS], ("",), axis, "")


def drift_by_tag(found: Drift, name: str) -> Picture | None:
    """Energy distance by tag beside its mean by chance; `None` without tags."""
    if not found.by_tag:
        return None
    rows = [
        Row(
            label=f"{one.tag}: {tag_text(one.value)}",
            note=counted(one.n),
            points=(
                Point(value=one.energy, text=f"{one.energy:.3f}"),
                Point(value=one.by_chance, text=f"{one.by_chance:.3f}", series=1),
            ),
        )
        for one in found.by_tag[:_MOST_ROWS]
    ]
    caption = "Each value of a tag against the reference's responses with the same one, or all where these are too few."
    axis = Axis(label="energy distance", kind="number", reference=0.0)
    return _dots(name, "Drift by tag", caption, rows, ("found", "by chance"), axis, "")


def _share(measure: Measure, series: int) -> Point:
    return share_point(measure.value, measure.ci, series)


def _dots(
    name: str, title: str, caption: str, rows: Sequence[Row], series: Sequence[str], axis: Axis, reason: str
) -> Picture:
    if not rows:
        return Picture(title=title, caption="", reason=reason or "there is nothing to show")
    return Picture(title=title, caption=caption, svg=dot_plot(name, title, rows, series, axis))
