"""The tables of a report on heads: every figure with its interval, or a dash with the reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rlaif.report.figures import fitted
from rlaif.report.page import Cell, Column, Table
from rlaif.report.tables import FigureLines, limited_table, tag_table
from rlaif.report.wording import (
    count_cell,
    name_cell,
    number,
    number_cell,
    share_cell,
    why,
)
from rlaif.rewards.evaluation import Change, Evaluation, ObjectiveEvaluation
from rlaif.rewards.report_words import short_standing
from rlaif.rewards.spec import HeadsSpec

_COMMAND = "rlaif evaluate"
_MOST_SETTINGS = 80


def glance_table(evaluation: Evaluation, spec: HeadsSpec) -> Table:
    """One line for each objective."""
    rows = []
    for name, found in evaluation.objectives.items():
        reasons = found.not_defined
        validated = spec.calibration[name].ece if name in spec.calibration else None
        rows.append(
            (
                name_cell(name),
                Cell(text=short_standing(found)),
                count_cell(found.n),
                share_cell(found.accuracy, found.accuracy_ci, why(reasons, "accuracy")),
                share_cell(
                    found.length_only_accuracy, found.length_only_accuracy_ci, why(reasons, "length_only_accuracy")
                ),
                number_cell(found.ece, None, why(reasons, "ece")).model_copy(update=_validated(found, validated)),
                number_cell(found.brier, None, why(reasons, "brier")),
                number_cell(
                    found.length_slope_gap, found.length_slope_gap_ci, why(reasons, "length_slope_gap"), digits=2
                ),
                number_cell(spec.aggregation.weights.get(name, 0.0), spec.aggregation.intervals.get(name), digits=2),
            )
        )
    columns = (
        Column(label="Objective", figures=False),
        Column(label="Standing", figures=False),
        Column(label="Pairs"),
        Column(label="Accuracy"),
        Column(label="Length alone"),
        Column(label="Calibration error"),
        Column(label="Brier"),
        Column(label="Length slope over labels'"),
        Column(label="Weight"),
    )
    return limited_table("All objectives", columns, rows, command=_COMMAND)


def _validated(found: ObjectiveEvaluation, validated: float | None) -> dict[str, str]:
    return {} if found.ece is None or validated is None else {"remark": f"in training {number(validated)}"}


def tables(found: ObjectiveEvaluation) -> tuple[Table, ...]:
    """All tables of one head; those with nothing in them are left out."""
    made = (_figures(found), _tags(found), _bins(found))
    return tuple(each for each in made if each.rows)


def changes_table(changes: Sequence[Change]) -> Table:
    """Accuracy before and after a tuning, with the interval of the difference."""
    rows = [
        (
            name_cell(change.objective),
            name_cell(change.data),
            count_cell(change.n),
            share_cell(change.before),
            share_cell(change.after),
            share_cell(change.difference, change.difference_ci),
        )
        for change in changes
    ]
    columns = (
        Column(label="Objective", figures=False),
        Column(label="Pairs of", figures=False),
        Column(label="Pairs"),
        Column(label="Before"),
        Column(label="After"),
        Column(label="Difference"),
    )
    return limited_table(
        "Before and after the tuning",
        columns,
        rows,
        "The interval is of the difference on the same pairs.",
        command=_COMMAND,
    )


def heads_table(spec: HeadsSpec) -> Table:
    """What `rlaif.json` says of each head."""
    rows = []
    for name in spec.objectives:
        known, norm = spec.calibration.get(name), spec.normalization.get(name)
        floor = spec.aggregation.floors.get(name)
        ece = None if known is None else known.ece
        reason = (known.reason if known is not None else None) or "not measured"
        rows.append(
            (
                name_cell(name),
                number_cell(None if known is None else known.temperature, digits=2),
                count_cell(0 if known is None else known.pairs),
                number_cell(ece, None, reason),
                number_cell(None if norm is None else norm.mean, digits=3),
                number_cell(None if norm is None else norm.std, digits=3),
                number_cell(spec.aggregation.weights.get(name, 0.0), spec.aggregation.intervals.get(name), digits=3),
                number_cell(floor, None, "none", digits=2),
            )
        )
    columns = (
        Column(label="Objective", figures=False),
        Column(label="Temperature"),
        Column(label="Fitted on pairs"),
        Column(label="Calibration error"),
        Column(label="Mean score"),
        Column(label="Deviation"),
        Column(label="Weight"),
        Column(label="Floor"),
    )
    note = (
        "A reward is (score - mean) / deviation; P(a is better) is the logistic function of the score difference by "
        "the temperature. The calibration error is cross-validated."
    )
    return limited_table("Heads", columns, rows, note, command=_COMMAND)


def tag_weights_table(spec: HeadsSpec) -> Table:
    """Weights of pairs with a tag of their own."""
    rows = [
        (name_cell(tag), *(number_cell(weights.get(name, 0.0), digits=3) for name in spec.objectives))
        for tag, weights in spec.aggregation.by_tag.items()
    ]
    columns = (Column(label="Tag", figures=False), *(Column(label=fitted(name, 40)) for name in spec.objectives))
    return limited_table("Weights by tag", columns, rows, command=_COMMAND)


def settings_table(spec: HeadsSpec) -> Table:
    """How the heads were made, a setting a line."""
    known: dict[str, Any] = {
        "mode": spec.mode,
        "members": spec.members,
        "longest conversation": f"{spec.max_length:,} tokens",
        "conversations": "by the tokenizer's chat template" if spec.chat else "as plain text",
        "aggregation": f"{spec.aggregation.method}, weights {spec.aggregation.origin}",
        **spec.provenance,
        # The summary holds the whole evaluation again.
        **{name: value for name, value in spec.metrics.items() if name != "summary"},
    }
    rows = [(name_cell(name), Cell(text=fitted(text, 200))) for name, text in flattened(known)]
    columns = (Column(label="Setting", figures=False), Column(label="Value", figures=False))
    return limited_table("How they were made", columns, rows[:_MOST_SETTINGS], command=_COMMAND)


def flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested values as lines, `settings.lr: 0.0002`; what is empty is left out."""
    for name, value in values.items():
        key = f"{prefix}{name}".replace("_", " ") if not prefix else f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from flattened(value, f"{key}.")
        elif isinstance(value, list | tuple) and any(isinstance(each, Mapping) for each in value):
            for place, each in enumerate(value, 1):
                yield from flattened(each if isinstance(each, Mapping) else {"value": each}, f"{key} {place}.")
        elif isinstance(value, list | tuple):
            if value:
                yield key, ", ".join(map(_text, value))
        elif value is not None and value != "":
            yield key, _text(value)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}".replace("-", "−") if abs(value) >= 1e-4 or value == 0 else f"{value:g}"
    # As it can be given again: a seed has no commas.
    return str(value)


def _figures(found: ObjectiveEvaluation) -> Table:
    """Every figure on a line, with what it is and its interval."""
    lines = FigureLines(found.not_defined)
    lines.share("accuracy", "Accuracy", "ties left out, equal scores half right", found.accuracy, found.accuracy_ci)
    rule = f"always the {found.length_only_rule} response" if found.length_only_rule else ""
    only = found.length_only_accuracy
    lines.share("length_only_accuracy", "Length alone", rule, only, found.length_only_accuracy_ci)
    lines.share("over_length", "Head over length alone", "on the same pairs", found.over_length, found.over_length_ci)
    equal = found.equal_length
    tenth = f"of {equal.n:,} pairs whose lengths differ by a tenth at most"
    lines.share("equal_length", "Accuracy at equal length", tenth, equal.value, equal.ci)
    lines.number("ece", "Calibration error", "mean distance from the diagonal (ECE)", found.ece)
    lines.number("ece", "… by chance", "of exact probabilities on so many pairs, about", found.ece_by_chance)
    lines.number("ece", "… at temperature 1", "without the calibration", found.ece_uncalibrated)
    lines.number("ece_refitted", "… refitted", "at the temperature of these pairs, cross-validated", found.ece_refitted)
    lines.number("brier", "Brier score", "mean squared distance; 0.25 knows nothing", found.brier)
    lines.number("log_loss", "Log loss", "in nats; 0.693 knows nothing", found.log_loss)
    lines.number("temperature", "Temperature", "as in the checkpoint", found.temperature)
    asked = "above the checkpoint's, the head is too sure"
    lines.number("temperature_here", "Temperature of these pairs", asked, found.temperature_here)
    if found.margin is not None:
        lines.number("margin", "Mean margin", "log-odds towards the label", found.margin.mean)
        lines.number("margin", "Median margin", "log-odds towards the label", found.margin.median)
    longer = f"of {found.longer.n:,} pairs of unequal length"
    lines.share("length_slope", "Head prefers the longer", longer, found.longer.value, found.longer.ci)
    labelled = found.label_longer
    lines.share("label_length_slope", "Labels prefer the longer", "ties left out", labelled.value, labelled.ci)
    unit = "log-odds for one standard deviation of log(length)"
    lines.number("length_slope", "Length slope, head", unit, found.length_slope, found.length_slope_ci)
    label_slope, label_slope_ci = found.label_length_slope, found.label_length_slope_ci
    lines.number("label_length_slope", "Length slope, labels", unit, label_slope, label_slope_ci)
    gap, gap_ci = found.length_slope_gap, found.length_slope_gap_ci
    lines.number("length_slope_gap", "Length slope, head minus labels", unit, gap, gap_ci)
    if found.ensemble is not None:
        known = found.ensemble
        lines.number("ensemble", "Members' deviation", "of the score difference, median, in log-odds", known.deviation)
        lines.share("ensemble", "Pairs with a member on the other side", f"of {known.members} members", known.split)
        half = "on the half of pairs with the smaller deviation"
        lines.share("ensemble", "Accuracy where members agree", half, known.agreeing.value, known.agreeing.ci)
        rest = "on the other half"
        lines.share("ensemble", "Accuracy where they differ", rest, known.differing.value, known.differing.ci)
    return lines.table()


def _tags(found: ObjectiveEvaluation) -> Table:
    return tag_table(found.by_tag, found.not_defined.get("by_tag.left_out"), command=_COMMAND)


def _bins(found: ObjectiveEvaluation) -> Table:
    rows = [
        (number_cell(one.probability), number_cell(one.before), count_cell(one.n), share_cell(one.share, one.ci))
        for one in found.bins
    ]
    columns = (
        Column(label="How sure the head is, mean", figures=False),
        Column(label="At temperature 1"),
        Column(label="Pairs"),
        Column(label="Label on its side"),
    )
    return limited_table("Calibration", columns, rows, command=_COMMAND)
