"""The pictures of a report on heads, each with how to read it or why there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rlaif.agreement.results import Rate
from rlaif.report.curves import (
    ConfidencePoint,
    Curve,
    ShareCell,
    confidence_curve,
    histogram,
    line_chart,
    share_matrix,
)
from rlaif.report.figures import Axis, Point, Row, dot_plot
from rlaif.report.page import Picture
from rlaif.report.wording import counted, number_point, share, share_point, tag_text, why
from rlaif.rewards.evaluation import Change, Evaluation, ObjectiveEvaluation, TrainingPoint
from rlaif.rewards.spec import HeadsSpec

_MOST_ROWS = 14
_MOST_CURVES = 6
_LEAST_PAIRS = 10
_MOST_POINTS = 120
_MOST_NAMES = 9
_COIN_LOSS = 0.6931471805599453
_WHO = ("head", "labels")
_BARS = "The bar is the 95% interval."


def overview(spec: HeadsSpec, evaluation: Evaluation | None, history: Sequence[TrainingPoint]) -> tuple[Picture, ...]:
    """Pictures of all objectives together."""
    made = [] if evaluation is None else [_accuracies(evaluation)]
    if history or spec.mode != "frozen":
        made.append(_training(history))
    if evaluation is not None and len(evaluation.objectives) > 1:
        made.append(_conflicts(evaluation, list(evaluation.objectives)))
    if len(spec.objectives) > 1:
        made.append(_weights(spec))
    return tuple(made)


def pictures(found: ObjectiveEvaluation, name: str) -> tuple[Picture, ...]:
    """All pictures of one head; `name` is unique in the page."""
    made = [_calibration(found, f"{name}-calibration"), _margin(found, f"{name}-margin")]
    made += [_length(found, f"{name}-length"), _slopes(found, f"{name}-slopes")]
    if found.by_certainty:
        made.append(_certainty(found, f"{name}-certainty"))
    if found.by_tag:
        made.append(_tags(found, f"{name}-tags"))
    if found.form:
        made.append(_form(found, f"{name}-form"))
    if found.ensemble is not None:
        made.append(_ensemble(found, f"{name}-ensemble"))
    return tuple(made)


def change_picture(changes: Sequence[Change]) -> Picture:
    """Accuracy before and after a tuning."""
    several = len({change.data for change in changes}) > 1
    rows = [
        Row(
            label=f"{change.objective}, {change.data}" if several else change.objective,
            note=counted(change.n),
            points=(share_point(change.before, None, 1), share_point(change.after)),
        )
        for change in changes[:_MOST_ROWS]
    ]
    caption = (
        "The heads that the training began with, and those that it made, on the same pairs. Where the first are to the "
        f"right, something was forgotten; the table has the interval of each difference.{_rest(changes)}"
    )
    axis = Axis(label="agrees with the labels")
    return _picture("tuned", "Before and after the tuning", caption, rows, ("after", "before"), axis, "")


def _accuracies(evaluation: Evaluation) -> Picture:
    rows = []
    for name, found in list(evaluation.objectives.items())[:_MOST_ROWS]:
        points = [share_point(found.accuracy, found.accuracy_ci)]
        if found.length_only_accuracy is not None:
            points.append(share_point(found.length_only_accuracy, found.length_only_accuracy_ci, 1))
        if name in evaluation.aggregate:
            points.append(_of_aggregate(evaluation, name))
        rows.append(Row(label=name, note=counted(found.n), points=tuple(points)))
    for name in evaluation.aggregate:
        if name not in evaluation.objectives:
            count = counted(evaluation.aggregate[name].n)
            rows.append(Row(label=name, note=count, points=(_of_aggregate(evaluation, name),)))
    told = (
        " The squares are the aggregate reward against the same labels: what one number for all objectives gives up."
        if evaluation.aggregate
        else ""
    )
    caption = (
        "How often the head prefers the response that the label prefers; beside it a rule that takes the longer "
        f"response, or the shorter, whichever is right more often here. The dashed line is a coin.{told} {_BARS}"
        f"{_rest(list(evaluation.objectives))}"
    )
    series = ("head", "length alone", "aggregate reward")
    axis = Axis(label="agrees with the labels", reference=0.5)
    return _picture("accuracy", "Agreement, by objective", caption, rows, series, axis, "no pair has a label")


def _of_aggregate(evaluation: Evaluation, name: str) -> Point:
    found = evaluation.aggregate[name]
    return share_point(found.accuracy, found.accuracy_ci, 2)


def _training(history: Sequence[TrainingPoint]) -> Picture:
    title = "Training"
    trained = _columns(history, "loss")
    held_out = _columns(history, "held_out")
    names = list(dict.fromkeys([*held_out, *trained]))[:_MOST_CURVES]
    if not names:
        return Picture(title=title, caption="", reason="no losses were recorded")
    best = _best(held_out)
    curves = []
    for series, name in enumerate(names):
        bold = name in held_out
        if name in trained:
            curves.append(Curve(label=name, points=_thinned(trained[name]), series=series, faint=bold))
        if bold:
            curves.append(Curve(label=name, points=tuple(held_out[name]), series=series, best=best))
    told = (
        "Bold with markers is the loss on held-out pairs, the filled one that of the weights that were kept; thin is "
        "the loss on the pairs trained on, as a running mean."
        if held_out
        else "The loss on the pairs trained on, as a running mean; nothing was held out."
    )
    caption = (
        f"{told} Where the held-out loss rises while the other falls, the heads learn pairs by heart. The dashed line, "
        f"log 2, is a coin. In nats.{_rest(list(dict.fromkeys([*held_out, *trained])), _MOST_CURVES)}"
    )
    svg = line_chart("training", title, curves, "step", "loss", reference=_COIN_LOSS)
    return Picture(title=title, caption=caption, svg=svg)


def _columns(history: Sequence[TrainingPoint], which: str) -> dict[str, list[tuple[float, float]]]:
    found: dict[str, list[tuple[float, float]]] = {}
    for point in history:
        losses: Mapping[str, float] = point.loss if which == "loss" else point.held_out
        for name, loss in losses.items():
            found.setdefault(name, []).append((float(point.step), loss))
    return found


def _best(held_out: Mapping[str, Sequence[tuple[float, float]]]) -> float | None:
    """The step with the least mean held-out loss."""
    sums: dict[float, list[float]] = {}
    for points in held_out.values():
        for step, loss in points:
            sums.setdefault(step, []).append(loss)
    whole = {step: sum(losses) for step, losses in sums.items() if len(losses) == len(held_out)}
    return min(whole, key=lambda step: (whole[step], step)) if whole else None


def _thinned(points: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Means of neighbours: a loss of single steps is mostly noise, and thousands of points only make the page heavy."""
    size = max(1, -(-len(points) // _MOST_POINTS), len(points) // 24)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return tuple((sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups)


def _conflicts(evaluation: Evaluation, objectives: Sequence[str]) -> Picture:
    names = list(objectives)[:_MOST_NAMES]
    cells = {}
    for found in evaluation.conflicts:
        if found.first in names and found.second in names:
            i, j = names.index(found.first), names.index(found.second)
            cells[i, j] = ShareCell(share=found.labels / found.labelled if found.labelled else None, n=found.labelled)
            cells[j, i] = ShareCell(share=found.heads / found.pairs if found.pairs else None, n=found.pairs)
    title = "Conflicts between objectives"
    caption = (
        "On how many pairs two objectives prefer different responses: by the labels, where both have one, and by the "
        "heads, on all pairs. The more conflicts, the more the weights decide, and the less any one reward can please "
        f"them all.{_rest(list(objectives), _MOST_NAMES)}"
    )
    svg = share_matrix("conflicts", title, names, cells, ("by the labels, above", "by the heads, below"))
    return Picture(title=title, caption=caption, svg=svg)


def _weights(spec: HeadsSpec) -> Picture:
    rule = spec.aggregation
    rows = [
        Row(label=name, points=(share_point(rule.weights.get(name, 0.0), rule.intervals.get(name)),))
        for name in list(spec.objectives)[:_MOST_ROWS]
    ]
    origin = {
        "constitution": "They are the constitution's.",
        "equal": "None were given, so all are equal.",
        "given": "They were given.",
        "learned": f"They were learned from preferences of which response is better on the whole. {_BARS}",
        "gated": "They depend on the prompt, by a gate learned from overall preferences; shown is their mean.",
    }[rule.origin]
    method = (
        "How much each objective counts in the aggregate reward, the weighted sum of the normalised ones."
        if rule.method == "weighted"
        else "How much each objective counts in the distance from the ideal, by which the Pareto method aggregates."
    )
    caption = f"{method} {origin}{_rest(spec.objectives)}"
    return _picture("weights", "Weights", caption, rows, ("weight",), Axis(label="weight"), "")


def _calibration(found: ObjectiveEvaluation, name: str) -> Picture:
    title = "Calibration"
    if not found.bins:
        return Picture(title=title, caption="", reason=why(found.not_defined, "ece"))
    changed = found.temperature != 1
    points = [
        ConfidencePoint(
            n=one.n,
            confidence=one.probability,
            before=one.before if changed else None,
            share=one.share,
            ci=one.ci,
        )
        for one in found.bins
    ]
    squares = " Open squares are the same groups at temperature 1." if changed else ""
    caption = (
        "Pairs in groups of equal size by how sure the head is of the response that it prefers. On the dashed line the "
        "label is on its side as often as it says; below the line the head is too sure of itself."
        f"{squares} {_BARS}"
    )
    svg = confidence_curve(name, title, points, "how sure the head is", "label on its side")
    return Picture(title=title, caption=caption, svg=svg)


def _margin(found: ObjectiveEvaluation, name: str) -> Picture:
    title = "Margins"
    if found.margin is None:
        return Picture(title=title, caption="", reason=why(found.not_defined, "margin"))
    caption = (
        "How far apart the head puts the two responses, towards the label's side, as log-odds: at 1 it is 73% sure of "
        "the right one, at −1 of the wrong one. The outer bars hold all that lies beyond them."
    )
    edges, counts = found.margin.edges, found.margin.counts
    # By the accuracy, which takes equal scores for half right.
    wrong = None if found.accuracy is None else 1 - found.accuracy
    sides = f"{share(wrong)} wrong", f"{share(found.accuracy)} right"
    svg = histogram(name, title, edges, counts, "margin, in log-odds", sides)
    return Picture(title=title, caption=caption, svg=svg)


def _length(found: ObjectiveEvaluation, name: str) -> Picture:
    rows = []
    if found.longer.value is not None:
        points = (_rate(found.longer), _rate(found.label_longer, 1))
        rows.append(Row(label="Prefers the longer response", note=counted(found.longer.n), mark=0.5, points=points))
    if found.equal_length.value is not None:
        note = counted(found.equal_length.n)
        rows.append(Row(label="Right, at equal length", note=note, points=(_rate(found.equal_length),)))
    caption = (
        "Labels may favour longer responses too: a bias is what the head has beyond them. The second row is its "
        f"accuracy where lengths differ by a tenth at most, so that length cannot help it. {_BARS}"
    )
    reason = "no pair of unequal length has a label"
    return _picture(name, "Length", caption, rows, _WHO, Axis(label="share"), reason)


def _slopes(found: ObjectiveEvaluation, name: str) -> Picture:
    given = (
        ("Head", number_point(found.length_slope, found.length_slope_ci)),
        ("Labels", number_point(found.label_length_slope, found.label_length_slope_ci, 1)),
        ("Head minus labels", number_point(found.length_slope_gap, found.length_slope_gap_ci, 2)),
    )
    rows = [Row(label=label, points=(point,)) for label, point in given if point.value is not None]
    caption = (
        "By how much the log-odds of a response rise as it gets longer than the other by one standard deviation. At 0 "
        f"length does not matter; where the last bar does not reach 0, the head goes by length more, or less, than the "
        f"labels do. {_BARS}"
    )
    axis = Axis(label="slope of the length", kind="number", reference=0.0)
    reason = why(found.not_defined, "length_slope", "label_length_slope")
    return _picture(name, "Length, as a slope", caption, rows, ("slope",), axis, reason)


def _certainty(found: ObjectiveEvaluation, name: str) -> Picture:
    rows = [
        Row(
            label=f"Label {one.low:.0%} to {one.high:.0%} sure",
            note=counted(one.n),
            points=(share_point(one.accuracy, one.accuracy_ci),),
        )
        for one in found.by_certainty
    ]
    caption = (
        "Accuracy by how sure the label is. Labels in doubt are hard to agree with, for anybody; if it does not rise "
        f"with their certainty, the labels' probabilities tell little. The dashed line is that of all pairs. {_BARS}"
    )
    axis = Axis(label="agrees with the labels", reference=found.accuracy)
    return _picture(name, "By the label's certainty", caption, rows, ("head",), axis, "")


def _tags(found: ObjectiveEvaluation, name: str) -> Picture:
    # Of a handful of pairs the bar fills the picture and says nothing.
    told = [one for one in found.by_tag if one.n >= _LEAST_PAIRS] or found.by_tag
    shown = set(map(id, sorted(told, key=lambda one: -one.n)[:_MOST_ROWS]))
    rows = [
        Row(
            label=f"{one.tag}: {tag_text(one.value)}",
            note=counted(one.n),
            points=(share_point(one.accuracy, one.accuracy_ci),),
        )
        for one in found.by_tag
        if id(one) in shown
    ]
    caption = (
        "Accuracy among the pairs with each tag. The dashed line is that of all pairs; a bar that does not reach it is "
        f"a kind of pair on which the head is better or worse. {_BARS}{_rest(found.by_tag, len(rows))}"
    )
    axis = Axis(label="agrees with the labels", reference=found.accuracy)
    return _picture(name, "By tag", caption, rows, ("head",), axis, "")


def _form(found: ObjectiveEvaluation, name: str) -> Picture:
    rows = [
        Row(
            label=f"Has {one.feature}",
            note=counted(one.heads.n),
            points=(_rate(one.heads), _rate(one.labels, 1)),
        )
        for one in found.form
    ]
    caption = (
        "Of the pairs where just one response has this form: how often head and labels prefer that one. The dashed "
        f"line is half of them. {_BARS}"
    )
    axis = Axis(label="prefers the one that has it", reference=0.5)
    return _picture(name, "Form", caption, rows, _WHO, axis, "")


def _ensemble(found: ObjectiveEvaluation, name: str) -> Picture:
    known = found.ensemble
    assert known is not None
    given = (("Half where members agree more", known.agreeing), ("Half where they differ more", known.differing))
    rows = [Row(label=label, note=counted(rate.n), points=(_rate(rate),)) for label, rate in given]
    caption = (
        f"{known.members} members, each trained on a resample of the conversations. If the second row is well below "
        f"the first, their deviation tells which scores to trust less. On {known.split:.1%} of the pairs a member "
        f"prefers another response than their mean. {_BARS}"
    )
    axis = Axis(label="agrees with the labels", reference=found.accuracy)
    return _picture(name, "Uncertainty", caption, rows, ("head",), axis, "no pair has a label for a side")


def _rate(rate: Rate, series: int = 0) -> Point:
    return share_point(rate.value, rate.ci, series)


def _rest(every: Sequence[object], most: int = _MOST_ROWS) -> str:
    hidden = len(every) - most
    return f" {hidden:,} more are not drawn." if hidden > 0 else ""


def _picture(
    name: str, title: str, caption: str, rows: Sequence[Row], series: Sequence[str], axis: Axis, reason: str
) -> Picture:
    """A dot plot, or why there is none: a row without a figure is no picture."""
    if not any(point.value is not None for row in rows for point in row.points):
        return Picture(title=title, caption=caption, reason=reason)
    return Picture(title=title, caption=caption, svg=dot_plot(name, title, rows, series, axis))
