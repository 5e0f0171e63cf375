"""The pictures of a comparison with people, each with how to read it or why there is none."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from rlaif.agreement.results import (
    AltTest,
    Calibration,
    JudgeRanking,
    JudgeStanding,
    LengthBias,
    ObjectiveComparison,
    PositionBias,
    Rate,
    SelfPreference,
    TagAgreement,
)
from rlaif.report.figures import Axis, Point, ReliabilityPoint, Row, count_table, dot_plot, reliability
from rlaif.report.page import Picture
from rlaif.report.wording import counted, number_point, p_value, share_point, tag_text, why
from rlaif.stats import wilson

# More rows than these make a picture that nobody reads; the tables hold them all.
_MOST_ROWS = 14
_WHO = ("judge", "people")
_BARS = "The bar is the 95% interval."


def pictures(found: ObjectiveComparison, name: str) -> tuple[Picture, ...]:
    """All pictures of one judge under one objective; `name` is unique in the page."""
    makers: tuple[Callable[[ObjectiveComparison, str], Picture | None], ...] = (
        _agreement,
        _alt_test,
        _confusion,
        _position,
        _length,
        _slopes,
        _calibration,
        _form,
        _by_tag,
        _win_rates,
    )
    made = (make(found, f"{name}-{make.__name__.strip('_').replace('_', '-')}") for make in makers)
    return tuple(picture for picture in made if picture is not None)


def ranking_picture(ranking: JudgeRanking, name: str) -> Picture:
    """How the judges rank under one objective."""
    shown = [each for each in ranking.standings if each.accuracy is not None][:_MOST_ROWS]
    rows = [
        Row(label=each.judge, note=_standing(each), points=(share_point(each.accuracy, each.accuracy_ci),))
        for each in shown
    ]
    title = "Judges, the best first"
    caption = (
        "Accuracy on the pairs that all of them judged. Overlapping bars do not mean that two judges are equal, since "
        f"both saw the same pairs: the remarks and the differences below tell. {_BARS}{_rest(ranking.standings, shown)}"
    )
    axis = Axis(label="agrees with the people's majority")
    return _picture(name, title, caption, rows, ("judge",), axis, "no judge has an accuracy on the pairs all judged")


def _agreement(found: ObjectiveComparison, name: str) -> Picture:
    people = found.humans
    rows = [
        Row(label="Judge, all pairs", note=counted(found.n), points=(share_point(found.accuracy, found.accuracy_ci),))
    ]
    if people.leave_one_out is not None:
        points = (share_point(people.judge_leave_one_out), share_point(people.leave_one_out, series=1))
        rows.append(Row(label="Against the others, mean", points=points))
    annotators = list(people.per_annotator.items())
    for annotator, left in annotators[:_MOST_ROWS]:
        rows.append(
            Row(label=annotator, note=counted(left.annotator.n), points=(_rate(left.judge), _rate(left.annotator, 1)))
        )
    if people.leave_one_out is None:
        ceiling = f"No ceiling is drawn: {why(found.not_defined, 'humans.leave_one_out', 'humans')}."
    else:
        ceiling = (
            "Below it each annotator against the majority of the others, and the judge against the same majorities: "
            "that is the ceiling, and a judge on a level with people has its dot beside or right of theirs."
        )
    caption = (
        f"The first row is how often the judge prefers what most people prefer. {ceiling} {_BARS}"
        f"{_rest(annotators, annotators[:_MOST_ROWS])}"
    )
    axis = Axis(label="agrees with the majority")
    reason = why(found.not_defined, "accuracy")
    return _picture(name, "Agreement, and its ceiling", caption, rows, _WHO, axis, reason)


def _alt_test(found: ObjectiveComparison, name: str) -> Picture:
    test: AltTest = found.alt_test
    each = list(test.per_annotator.items())
    rows = [
        Row(
            label=annotator,
            note=f"p {p_value(one.p_value)}{', won' if one.rejected else ''}",
            mark=max(one.human - test.epsilon, 0.0),
            points=(_of(one.judge, one.n), _of(one.human, one.n, 1)),
        )
        for annotator, one in each[:_MOST_ROWS]
    ]
    caption = (
        "For each annotator: on how many pairs the judge, or they, agree at least as well with the other annotators. "
        f"The upright mark lies {test.epsilon:g} left of the person, the price of their time: the judge wins where it "
        "is right of the mark by more than chance, and passes if it wins for at least half of the annotators. The "
        f"wins are those that stay when all tests are counted. {_BARS}{_rest(each, each[:_MOST_ROWS])}"
    )
    left = "; ".join(dict.fromkeys(test.left_out.values()))
    reason = left or why(found.not_defined, "alt_test.winning_rate")
    axis = Axis(label="as close to the others")
    return _picture(name, "May it stand in? The alternative annotator test", caption, rows, _WHO, axis, reason)


def _confusion(found: ObjectiveComparison, name: str) -> Picture:
    title = "What people prefer, and what the judge does"
    caption = "Each row is what most people prefer, with the judge's choice of those pairs. On the diagonal both agree."
    known = [side for side in ("a", "b", "tie") if _occurs(found, side)]
    known += sorted(set(found.confusion) - {"a", "b", "tie"})
    if not any(sum(row.values()) for row in found.confusion.values()):
        return Picture(title=title, caption=caption, reason=why(found.not_defined, "confusion", "accuracy"))
    counts = {row: {column: found.confusion.get(row, {}).get(column, 0) for column in known} for row in known}
    return Picture(title=title, caption=caption, svg=count_table(name, title, counts, "people", "judge"))


def _occurs(found: ObjectiveComparison, side: str) -> bool:
    """Whether a preference is in use: a row and a column of noughts for ties tell nothing."""
    column = sum(row.get(side, 0) for row in found.confusion.values())
    return side != "tie" or column + sum(found.confusion.get(side, {}).values()) > 0


def _position(found: ObjectiveComparison, name: str) -> Picture:
    bias: PositionBias = found.position
    named = {"ab": "Right, a shown first", "ba": "Right, b shown first", "mean": "Right, mean", "both": "Right in both"}
    rows = []
    if bias.first_rate is not None:
        point = share_point(bias.first_rate, bias.first_rate_ci)
        rows.append(Row(label="Chooses what is shown first", mark=0.5, points=(point,)))
    if bias.agreement is not None:
        point = share_point(bias.agreement, bias.agreement_ci)
        rows.append(Row(label="Same verdict in both orders", note=counted(bias.n), points=(point,)))
    rows += [Row(label=named[key], points=(share_point(bias.accuracy[key]),)) for key in named if key in bias.accuracy]
    caption = (
        "Each pair was shown in both orders. A judge that reads, not counts places, chooses the first response half of "
        f"the time (the upright mark) and says the same in both orders. {_BARS}"
    )
    axis, reason = Axis(label="share"), why(found.not_defined, "position.first_rate", "position.agreement")
    return _picture(name, "Position", caption, rows, ("judge",), axis, reason)


def _length(found: ObjectiveComparison, name: str) -> Picture:
    bias: LengthBias = found.length
    points = (
        share_point(bias.judge_longer, bias.judge_longer_ci),
        share_point(bias.human_longer, bias.human_longer_ci, 1),
    )
    rows = []
    if bias.judge_longer is not None or bias.human_longer is not None:
        rows.append(Row(label="Prefers the longer response", note=counted(bias.n), mark=0.5, points=points))
    controlled = bias.controlled_agreement
    if controlled.value is not None:
        rows.append(Row(label="Judge right, equal length", note=counted(controlled.n), points=(_rate(controlled),)))
    caption = (
        "People may like longer responses too: a bias is what the judge has beyond them. The second row is its "
        f"accuracy where the lengths differ by a tenth at most, so that length cannot help it. {_BARS}"
    )
    reason = why(found.not_defined, "length.judge_longer", "length")
    return _picture(name, "Length", caption, rows, _WHO, Axis(label="share"), reason)


def _slopes(found: ObjectiveComparison, name: str) -> Picture:
    bias: LengthBias = found.length
    given = (
        ("Judge", number_point(bias.judge_slope.value, bias.judge_slope.ci)),
        ("People", number_point(bias.human_slope.value, bias.human_slope.ci, 1)),
        ("Judge minus people", number_point(bias.slope_gap, bias.slope_gap_ci, 2)),
    )
    rows = [Row(label=label, points=(point,)) for label, point in given if point.value is not None]
    caption = (
        "How much more likely a becomes, on the scale of log-odds, as it gets longer than b by one standard deviation. "
        f"At 0 length does not matter; where the last bar does not reach 0, judge and people differ. {_BARS}"
    )
    axis = Axis(label="slope of the length", kind="number", reference=0.0)
    reason = why(found.not_defined, "length.judge_slope", "length.human_slope", "length")
    return _picture(name, "Length, as a slope", caption, rows, ("slope",), axis, reason)


def _calibration(found: ObjectiveComparison, name: str) -> Picture:
    known: Calibration = found.calibration
    title = "Calibration"
    caption = (
        "Pairs in groups of equal size by the judge's p_a, the probability that a is better. On the diagonal people "
        "prefer a as often as the judge says; a line flatter than it is a judge too sure of itself. Open squares show "
        "the same groups with the fitted temperature, applied to their mean. The bar is the 95% interval."
    )
    if not known.bins:
        return Picture(
            title=title, caption=caption, reason=why(found.not_defined, "calibration.ece", "calibration.bins")
        )
    points = [
        ReliabilityPoint(
            n=one.n, probability=one.p_a, after=_cooled(one.p_a, known.temperature), share=one.human, ci=one.ci
        )
        for one in known.bins
    ]
    return Picture(title=title, caption=caption, svg=reliability(name, title, points, "judge's p_a", "people prefer a"))


def _cooled(p: float, temperature: float | None) -> float | None:
    """A probability with its log-odds divided by the temperature."""
    if not temperature:
        return None
    if p <= 0 or p >= 1:
        return p
    return 1 / (1 + math.exp(-math.log(p / (1 - p)) / temperature))


def _form(found: ObjectiveComparison, name: str) -> Picture | None:
    if not (found.format or found.self_preference or {"format", "self_preference"} & found.not_defined.keys()):
        return None
    each: list[tuple[str, Rate, Rate]] = [(f"Has {one.feature}", one.judge, one.human) for one in found.format]
    each += [(_own(one), one.judge, one.human) for one in found.self_preference]
    rows = [
        Row(label=label, note=counted(judge.n), points=(_rate(judge), _rate(people, 1)))
        for label, judge, people in each
        if judge.value is not None or people.value is not None
    ]
    caption = (
        "Of the pairs where just one response has this form, or was written by the judge's own model: how often the "
        f"judge and people prefer that one. The dashed line is half of them. {_BARS}{_rest(rows, rows[:_MOST_ROWS])}"
    )
    axis = Axis(label="prefers the one that has it", reference=0.5)
    reason = why(found.not_defined, "format", "self_preference")
    return _picture(name, "Form and own responses", caption, rows[:_MOST_ROWS], _WHO, axis, reason)


def _own(one: SelfPreference) -> str:
    return f"Written by {one.generator}"


def _by_tag(found: ObjectiveComparison, name: str) -> Picture | None:
    if not found.by_tag and "by_tag" not in found.not_defined:
        return None
    known = [one for one in found.by_tag if one.accuracy is not None]
    shown = set(map(id, sorted(known, key=lambda one: -one.n)[:_MOST_ROWS]))
    rows = [
        Row(label=tag_label(one), note=counted(one.n), points=(share_point(one.accuracy, one.accuracy_ci),))
        for one in known
        if id(one) in shown
    ]
    caption = (
        "Accuracy among the pairs with each tag. The dashed line is that of all pairs; a bar that does not reach it is "
        f"a kind of pair on which the judge is better or worse. {_BARS}{_rest(known, rows)}"
    )
    axis = Axis(label="agrees with the majority", reference=found.accuracy)
    reason = why(found.not_defined, "by_tag")
    return _picture(name, "By tag", caption, rows, ("judge",), axis, reason)


def tag_label(one: TagAgreement) -> str:
    """A tag and its value in one line."""
    return f"{one.tag}: {tag_text(one.value)}"


def _win_rates(found: ObjectiveComparison, name: str) -> Picture | None:
    if not found.win_rates:
        return None
    rows = [
        Row(
            label=one.name,
            note=f"{one.labelled:,} of {one.judged:,}",
            points=(
                share_point(one.human, one.human_ci, 1),
                share_point(one.powered, one.powered_ci, 2),
                share_point(one.judge, None, 0),
            ),
        )
        for one in found.win_rates
        if one.human is not None or one.powered is not None
    ]
    caption = (
        "How often people prefer these responses: by their own labels alone, and with the judge's labels of all pairs "
        "corrected by theirs, which is valid however wrong the judge is. The remark counts the pairs with human "
        f"labels. {_BARS}{_rest(rows, rows[:_MOST_ROWS])}"
    )
    axis, reason = Axis(label="preferred", reference=0.5), why(found.not_defined, "win_rates")
    series = ("judge alone", "people", "people and judge")
    return _picture(name, "Win rates", caption, rows[:_MOST_ROWS], series, axis, reason)


def _standing(one: JudgeStanding) -> str:
    ensemble = "" if one.kind == "judge" else f"{one.kind}, "
    if one.best:
        return f"{ensemble}best"
    told = {True: "not worse", False: "worse", None: ""}[one.not_worse_than_best]
    return f"{ensemble}{told}".removesuffix(", ")


def _rate(rate: Rate, series: int = 0) -> Point:
    return share_point(rate.value, rate.ci, series)


def _of(value: float, n: int, series: int = 0) -> Point:
    """A share of yes and no among `n`, with Wilson's interval."""
    return share_point(value, wilson(round(value * n), n) if n else None, series)


def _rest(every: Sequence[object], shown: Sequence[object]) -> str:
    hidden = len(every) - len(shown)
    return f" {hidden:,} more are in the table below." if hidden > 0 else ""


def _picture(
    name: str, title: str, caption: str, rows: Sequence[Row], series: Sequence[str], axis: Axis, reason: str
) -> Picture:
    """A dot plot, or why there is none: a row without a figure is no picture."""
    if not any(point.value is not None for row in rows for point in row.points):
        return Picture(title=title, caption=caption, reason=reason)
    return Picture(title=title, caption=caption, svg=dot_plot(name, title, rows, series, axis))
