"""The tables of a comparison with people: every figure with its interval, or a dash with the reason."""

from __future__ import annotations

from collections.abc import Sequence

from rlaif.agreement.results import (
    Comparison,
    JudgeComparison,
    JudgeDifference,
    JudgeRanking,
    ObjectiveComparison,
    Rate,
)
from rlaif.report.compare_words import short_verdict
from rlaif.report.figures import fitted
from rlaif.report.page import DASH, Cell, Column, Table
from rlaif.report.tables import Cells, FigureLines, limited_table, tag_table
from rlaif.report.wording import (
    count_cell,
    counted,
    name_cell,
    number_cell,
    p_cell,
    share,
    share_cell,
    shares_between,
    why,
)

_COMMAND = "rlaif compare"


def tables(found: ObjectiveComparison) -> tuple[Table, ...]:
    """All tables of one judge under one objective; those with nothing in them are left out."""
    made = (_figures(found), _annotators(found), _between_people(found), _tags(found), _win_rates(found), _bins(found))
    return tuple(table for table in made if table.rows)


def glance_table(comparison: Comparison) -> Table:
    """One line for each objective."""
    return _judges("All objectives", "Objective", [(name, found) for name, found in comparison.objectives.items()])


def judges_table(comparison: Comparison, objective: str) -> Table:
    """One line for each judge under one objective."""
    judges: tuple[JudgeComparison, ...] = (comparison, *comparison.against)
    known = [(each.judge, each.objectives[objective]) for each in judges if objective in each.objectives]
    return _judges("Every judge, on all pairs that it judged", "Judge", known)


def standings_table(ranking: JudgeRanking) -> Table:
    """Judges and ensembles on the pairs that all judged."""
    rows = [
        (
            name_cell(one.judge, "" if one.kind == "judge" else f"ensemble by {one.kind}"),
            count_cell(one.n),
            share_cell(one.accuracy, one.accuracy_ci),
            number_cell(one.cost, None, "no run at hand tells it", 0),
            Cell(text="best" if one.best else {True: "no", False: "yes", None: DASH}[one.not_worse_than_best]),
        )
        for one in ranking.standings
    ]
    columns = (
        Column(label="Judge", figures=False),
        Column(label="Pairs"),
        Column(label="Accuracy"),
        Column(label="Tokens a pair"),
        Column(label="Worse than the best?", figures=False),
    )
    best = "The cheapest judge that is not significantly worse than the best"
    if ranking.cheapest is not None:
        note = f"{best}: {fitted(ranking.cheapest, 80)}."
    else:
        note = f"{best} is not known: {why(ranking.not_defined, 'cheapest')}."
    return _table("Standings", columns, rows, note)


def differences_table(ranking: JudgeRanking) -> Table:
    """Each two judges on the same pairs."""
    rows = [
        (
            name_cell(f"{fitted(one.first, 38)} minus {fitted(one.second, 38)}"),
            count_cell(one.n),
            share_cell(one.difference, one.difference_ci),
            p_cell(one.p_value, reason="no pair tells them apart").model_copy(update=_tested(one)),
            p_cell(one.p_holm, reason="no pair tells them apart"),
        )
        for one in ranking.differences
    ]
    columns = (
        Column(label="Judges", figures=False),
        Column(label="Pairs"),
        Column(label="Difference in accuracy"),
        Column(label="p"),
        Column(label="p, all tests counted"),
    )
    return _table("Differences between judges", columns, rows, "All tests counted: Holm's correction.")


def _tested(one: JudgeDifference) -> dict[str, str]:
    """Which test gave the p-value, in place of an interval."""
    return {} if one.p_value is None else {"remark": one.test.replace("mcnemar", "McNemar,", 1)}


def _judges(title: str, first: str, known: Sequence[tuple[str, ObjectiveComparison]]) -> Table:
    columns = (
        Column(label=first, figures=False),
        Column(label="May stand in?", figures=False),
        Column(label="Pairs"),
        Column(label="Accuracy"),
        Column(label="A person"),
        Column(label="Cohen's kappa"),
        Column(label="Judged"),
        Column(label="Chooses first"),
        Column(label="Chooses longer"),
        Column(label="Calibration error"),
    )
    rows = []
    for name, found in known:
        reasons = found.not_defined
        rows.append(
            (
                name_cell(name),
                Cell(text=short_verdict(found)),
                count_cell(found.n),
                share_cell(found.accuracy, found.accuracy_ci, why(reasons, "accuracy")),
                share_cell(found.humans.leave_one_out, None, why(reasons, "humans.leave_one_out", "humans")),
                number_cell(found.cohen_kappa, found.cohen_kappa_ci, why(reasons, "cohen_kappa")),
                share_cell(found.coverage, None, why(reasons, "coverage")),
                share_cell(
                    found.position.first_rate, found.position.first_rate_ci, why(reasons, "position.first_rate")
                ),
                share_cell(
                    found.length.judge_longer, found.length.judge_longer_ci, why(reasons, "length.judge_longer")
                ),
                number_cell(found.calibration.ece, None, why(reasons, "calibration.ece")),
            )
        )
    return _table(title, columns, rows, "A person: one annotator against the majority of the others, mean.")


def _figures(found: ObjectiveComparison) -> Table:
    """Every figure on a line, with what it is and its interval."""
    lines = FigureLines(found.not_defined)
    humans, position, length, known = found.humans, found.position, found.length, found.calibration
    ties = {"count": "a tie is one of three answers", "half": "a tie on one side counts half", "drop": "ties left out"}
    lines.share(
        "accuracy", "Accuracy", f"against the people's majority; {ties[found.ties]}", found.accuracy, found.accuracy_ci
    )
    chance = "beyond chance, by what each side prefers how often"
    lines.number("cohen_kappa", "Cohen's kappa", chance, found.cohen_kappa, found.cohen_kappa_ci)
    alpha, alpha_ci = found.krippendorff_alpha, found.krippendorff_alpha_ci
    lines.number("krippendorff_alpha", "Krippendorff's alpha", "the judge as one more annotator", alpha, alpha_ci)
    lines.number(
        "gwet_ac1", "Gwet's AC1", "beyond chance, steady where one answer is rare", found.gwet_ac1, found.gwet_ac1_ci
    )
    lines.share("coverage", "Coverage", "pairs with a preference of the judge's", found.coverage)
    mass = "probability that the judge put on the choices at all"
    lines.share("choice_mass", "Choice mass", mass, found.choice_mass)
    lines.share("humans.leave_one_out", "A person against the others", "mean over annotators", humans.leave_one_out)
    judge_left = humans.judge_leave_one_out
    lines.share("humans.judge_leave_one_out", "The judge in their place", "on the same pairs", judge_left)
    lines.number("humans.alpha", "Krippendorff's alpha among people", "", humans.alpha)
    lines.number("humans.ac1", "Gwet's AC1 among people", "", humans.ac1)
    test = found.alt_test
    won = f"share of annotators whom the judge may replace, epsilon {test.epsilon:g}"
    lines.share("alt_test.winning_rate", "Winning rate", won, test.winning_rate)
    advantage = "chance that the judge is at least as close to the others as an annotator"
    lines.share("alt_test.advantage_probability", "Advantage probability", advantage, test.advantage_probability)
    first, first_ci = position.first_rate, position.first_rate_ci
    lines.share("position.first_rate", "Chooses what is shown first", "half is no bias", first, first_ci)
    both = f"of {position.n:,} pairs judged in both"
    lines.share("position.agreement", "Same verdict in both orders", both, position.agreement, position.agreement_ci)
    between_orders = position.kappa_between_orders
    lines.number("position.kappa_between_orders", "Kappa between the orders", "beyond chance", between_orders)
    longer = f"of {length.n:,} pairs of unequal length"
    lines.share("length.judge_longer", "Judge chooses the longer", longer, length.judge_longer, length.judge_longer_ci)
    lines.share("length.human_longer", "People choose the longer", longer, length.human_longer, length.human_longer_ci)
    apart = "judge's slope minus people's, log-odds for one standard deviation of length"
    lines.number("length.slope_gap", "Length slope apart", apart, length.slope_gap, length.slope_gap_ci)
    equal = length.controlled_agreement
    meaning = f"of {equal.n:,} pairs whose lengths differ by a tenth at most"
    lines.share("length.controlled_agreement", "Accuracy at equal length", meaning, equal.value, equal.ci)
    lines.number("calibration.ece", "Calibration error", "mean distance from the diagonal (ECE)", known.ece)
    lines.number("calibration.ece_after", "Calibration error, fitted", "with the fitted temperature", known.ece_after)
    lines.number("calibration.brier", "Brier score", "mean squared distance; 0.25 knows nothing", known.brier)
    lines.number("calibration.brier_after", "Brier score, fitted", "with the fitted temperature", known.brier_after)
    hot = "above 1 the judge is too sure, below 1 too shy"
    lines.number("calibration.temperature", "Temperature", hot, known.temperature)
    return lines.table()


def _annotators(found: ObjectiveComparison) -> Table:
    test = found.alt_test
    rows: list[Cells] = []
    for name in dict.fromkeys([*found.humans.per_annotator, *test.per_annotator, *test.left_out]):
        left, one = found.humans.per_annotator.get(name), test.per_annotator.get(name)
        gone = test.left_out.get(name) or why(found.not_defined, "alt_test.winning_rate")
        alone = why(found.not_defined, "humans.leave_one_out", "humans")
        rows.append(
            (
                name_cell(name),
                _rate_cell(left.annotator if left else None, alone),
                _rate_cell(left.judge if left else None, alone),
                share_cell(one.human if one else None, None, gone),
                share_cell(one.judge if one else None, None, gone),
                p_cell(one.p_value if one else None, gone),
                Cell(text=DASH if one is None else "yes" if one.rejected else "no"),
            )
        )
    columns = (
        Column(label="Annotator", figures=False),
        Column(label="Agrees with the others"),
        Column(label="Judge in their place"),
        Column(label="Test: annotator"),
        Column(label="Test: judge"),
        Column(label="p"),
        Column(label="Judge wins", figures=False),
    )
    note = "Test: the alternative annotator test, by who is at least as close to the other annotators."
    return _table("By annotator", columns, rows, note)


def _between_people(found: ObjectiveComparison) -> Table:
    # Names are joined with "|", which a name may hold as well: the key is shown as it is.
    rows = [(name_cell(each), number_cell(kappa)) for each, kappa in found.humans.pairwise_kappa.items()]
    columns = (Column(label="Annotators", figures=False), Column(label="Cohen's kappa"))
    left_out = found.not_defined.get("humans.pairwise_kappa")
    return _table("People with each other", columns, rows, f"Shown: {left_out}." if left_out else "")


def _tags(found: ObjectiveComparison) -> Table:
    return tag_table(found.by_tag, found.not_defined.get("by_tag.left_out"), command=_COMMAND)


def _win_rates(found: ObjectiveComparison) -> Table:
    reasons = found.not_defined
    rows = [
        (
            name_cell(one.name),
            count_cell(one.labelled),
            count_cell(one.judged),
            share_cell(one.human, one.human_ci, why(reasons, f"win_rates.{one.name}.human", "win_rates")),
            share_cell(one.powered, one.powered_ci, why(reasons, f"win_rates.{one.name}.powered", "win_rates")),
            share_cell(one.judge, None, why(reasons, f"win_rates.{one.name}.judge", "win_rates")),
            number_cell(one.gain, None, why(reasons, f"win_rates.{one.name}.powered", "win_rates"), 2),
        )
        for one in found.win_rates
    ]
    columns = (
        Column(label="Responses", figures=False),
        Column(label="Labelled by people"),
        Column(label="Judged"),
        Column(label="People alone"),
        Column(label="People and judge"),
        Column(label="Judge alone"),
        Column(label="Gain"),
    )
    note = "Gain: so many times as many human labels would give an interval as narrow."
    return _table("Win rates", columns, rows, note)


def _bins(found: ObjectiveComparison) -> Table:
    rows = [(number_cell(one.p_a), count_cell(one.n), share_cell(one.human, one.ci)) for one in found.calibration.bins]
    columns = (Column(label="Judge's mean p_a", figures=False), Column(label="Pairs"), Column(label="People prefer a"))
    return _table("Calibration", columns, rows)


def _rate_cell(rate: Rate | None, reason: str) -> Cell:
    if rate is None or rate.value is None:
        return share_cell(None, None, reason)
    return Cell(text=share(rate.value), remark=f"{shares_between(rate.ci)}, {counted(rate.n)}", sort=rate.value)


def _table(title: str, columns: tuple[Column, ...], rows: Sequence[Cells], note: str = "") -> Table:
    """A table without the columns that hold nothing; its note says why, and how many rows are not shown."""
    said = [note] if note else []
    kept = [place for place in range(len(columns)) if place == 0 or any(row[place].text != DASH for row in rows)]
    for place in sorted(set(range(len(columns))) - set(kept)):
        reason = next((row[place].remark for row in rows if row[place].remark), "")
        if reason:
            said.append(f"{columns[place].label}: not defined, {reason}.")
    shown = [tuple(row[place] for place in kept) for row in rows]
    return limited_table(title, tuple(columns[place] for place in kept), shown, " ".join(said), command=_COMMAND)
