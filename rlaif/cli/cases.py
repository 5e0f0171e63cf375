"""`rlaif constitution test`."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rlaif.cli.options import (
    counted,
    engine_options,
    json_option,
    objectives_option,
    progress,
    rationale_options,
    starter_note,
)

if TYPE_CHECKING:
    from rlaif.labeling.cases import CaseResult, CasesReport, ConstitutionReport, Rate

_COLORS = {"pass": "green", "fail": "red", "unread": "yellow"}


@click.command("test", short_help="Ask a judge each principle's own cases.")
@click.argument("constitutions", nargs=-1, required=True, metavar="NAME|FILE...")
@click.option(
    "--judge",
    default="starter",
    show_default=True,
    metavar="starter|HUB_ID|PATH",
    help="The judge: a chat model. The built-in starter knows its own small world only.",
)
@click.option(
    "--template",
    default="pairwise-cot",
    show_default=True,
    metavar="NAME|FILE",
    help="Prompt template; also: direct.",
)
@objectives_option
@click.option(
    "--principle",
    "principles",
    multiple=True,
    metavar="ID",
    help="Only this principle, also one that is turned off; repeatable.",
)
@click.option(
    "--orders",
    type=click.Choice(["both", "ab"]),
    default="both",
    show_default=True,
    help="Ask with the better response in both places, or in one.",
)
@click.option(
    "--with-all",
    is_flag=True,
    help="Ask again with all principles of the objective shown, as a label is made; it does not decide the result.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0.5, 1, max_open=True),
    default=0.5,
    show_default=True,
    help="A case passes where p(better), the mean of both places, is above this.",
)
@rationale_options
@click.option("--rationales", is_flag=True, help="Print what the judge said of each case that does not pass.")
@click.option("--cache", metavar="FILE", help="Keep the answers: the next test asks only what an edit touched.")
@click.option("--out", metavar="FILE", help="Write what --json prints to a file as well.")
@engine_options
@json_option
def test_constitution(
    constitutions: tuple[str, ...], rationales: bool, out: str | None, as_json: bool, **options: Any
) -> None:
    """Ask a judge the cases of constitutions: of each, does it find the better response better?

    A case is asked with its own principle alone, under its objective's question. A case fails that was not read.
    Exit code 1 where a case does not pass, 2 where the constitution or an option cannot be used.

    \b
    Examples:
      rlaif constitution test my.yaml --base-url http://127.0.0.1:8000 --cache cases.db
      rlaif constitution test hhh my.yaml --judge Qwen/Qwen3-8B --objective honesty --rationales
    """
    from rlaif.files import check_output, replacing
    from rlaif.labeling import api

    if out is not None:
        check_output("--out", Path(out), constitutions)
    with progress("cases", starter_note(options)) as watch:
        report = api.check_constitution(*constitutions, watch=watch, **options)
    text = report.model_dump_json()
    if out is not None:
        with replacing(Path(out)) as file:
            file.write(text + "\n")
    if as_json:
        click.echo(text)
    else:
        for line in _report(report, rationales):
            click.echo(line)
        _warn(report)
    if report.total.passed < report.total.cases:
        sys.exit(1)


def _report(report: CasesReport, rationales: bool) -> Iterator[str]:
    yield f"judge {report.judge}, template {report.template}"
    for each in report.constitutions:
        yield ""
        yield f"{each.name} {each.version} ({each.place})"
        yield ""
        yield from _cases(each.cases)
        yield ""
        yield from _rates(each)
        if each.without_cases:
            yield f"without cases: {', '.join(each.without_cases)}"
        if rationales:
            for case in each.cases:
                if case.result != "pass":
                    yield ""
                    yield f"{case.objective}::{case.principle}::case-{case.case}"
                    yield from explain(case, report.threshold)
    yield ""
    if len(report.constitutions) > 1:
        yield f"all: {passed_line(report.total)}"
    yield f"{counted(report.asked + report.reused, 'question')}: {report.asked:,} asked, {report.reused:,} reused"


def _cases(cases: Sequence[CaseResult]) -> Iterator[str]:
    with_all = any(case.p_better_with_all is not None for case in cases)
    head = ("objective", "principle", "case", "p(better)", "order gap", *(("with all",) if with_all else ()), "result")
    rows = [
        (
            case.objective,
            case.principle,
            str(case.case),
            _number(case.p_better),
            _number(case.order_gap),
            *((_number(case.p_better_with_all),) if with_all else ()),
            case.result + (", by place" if case.by_place else ""),
        )
        for case in cases
    ]
    colors = [_COLORS[case.result] for case in cases]
    yield from _table(head, rows, colors)


def _rates(report: ConstitutionReport) -> Iterator[str]:
    head = ("objective", "principle", "passed", "share", "95% interval", "p(better)", "order gap", "by place", "mark")
    objective_of = {case.principle: case.objective for case in report.cases}
    rows = []
    for name, rate in report.objectives.items():
        rows += [
            _rate_row(name, principle, mine)
            for principle, mine in report.principles.items()
            if objective_of[principle] == name
        ]
        rows.append(_rate_row(name, "(all)", rate))
    yield from _table(head, rows)
    yield f"{report.name}: {passed_line(report.total)}"


def _rate_row(objective: str, principle: str, rate: Rate) -> tuple[str, ...]:
    passed, interval = f"{rate.passed}/{rate.cases}", "{:.0%} to {:.0%}".format(*rate.interval)
    figures = (_number(rate.mean_p_better), _number(rate.mean_order_gap), str(rate.by_place))
    return (objective, principle, passed, f"{rate.share:.0%}", interval, *figures, "position" if rate.position else "")


def passed_line(rate: Rate) -> str:
    """`11 of 12 cases passed (…)`, with what was not read and what went by place."""
    low, high = rate.interval
    notes = [f"{rate.unread:,} unread"] if rate.unread else []
    notes += [f"{rate.by_place:,} decided by place"] if rate.by_place else []
    share = f"{rate.share:.0%}, 95% interval {low:.0%} to {high:.0%}"
    return "; ".join([f"{rate.passed:,} of {counted(rate.cases, 'case')} passed ({share})", *notes])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], colors: Sequence[str] = ()) -> Iterator[str]:
    """Align the columns, numbers to the right; a color is of a row's last cell."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    numbers = [all(row[at][:1] in "-0123456789" for row in rows) and bool(name) for at, name in enumerate(head)]

    def line(row: Sequence[str], color: str | None) -> str:
        cells = [
            text.rjust(width) if number else text.ljust(width)
            for text, width, number in zip(row, widths, numbers, strict=True)
        ]
        # Colored after it is padded: a terminal's codes have no width.
        cells[-1] = click.style(row[-1], fg=color) if color else row[-1]
        return "  ".join(cells).rstrip()

    yield line(head, None)
    for at, row in enumerate(rows):
        yield line(row, colors[at] if colors else None)


def explain(case: CaseResult, threshold: float) -> Iterator[str]:
    """The lines that tell why a case has its result: p, the texts, and what the judge wrote each time."""
    if case.p_better is None:
        yield "not read: there is no verdict to go by"
    else:
        gap = "" if case.order_gap is None else f", order gap {case.order_gap:.3f}"
        place = "; decided by place" if case.by_place else ""
        side = "above" if case.result == "pass" else "not above"
        yield f"p(better) {case.p_better:.3f}, {side} {threshold:g}{gap}{place}"
    texts = (("principle", case.text), ("prompt", case.prompt), ("better", case.better), ("worse", case.worse))
    for name, text in texts:
        yield from _indented(f"  {name}: ", text or "(empty)")
    for showing in case.showings:
        figures = (("p(better)", showing.p_better), ("rating", showing.rating))
        read = [f"{name} {value:.3f}" for name, value in figures if value is not None]
        cut = ", cut at the longest rationale" if showing.status == "truncated" else ""
        yield f"  {showing.shown}: {read[0] if read else showing.status}{cut}"
        if showing.reason:
            yield from _indented("    reason: ", showing.reason)
        yield from _indented("    ", showing.rationale.strip() or "(no rationale)")


def _indented(mark: str, text: str) -> Iterator[str]:
    """The lines of a text, the first behind the mark; what a terminal would obey is escaped."""
    for at, line in enumerate(text.splitlines()):
        start = mark if at == 0 else " " * len(mark)
        shown = "".join(char if char.isprintable() or char == "\t" else ascii(char)[1:-1] for char in line)
        yield (start + shown).rstrip()


def _warn(report: CasesReport) -> None:
    showings = [showing for case in report.cases for showing in case.showings]
    reasons = Counter(showing.reason or showing.status for showing in showings if not showing.read)
    for reason, count in reasons.most_common():
        click.echo(f"Not read {counted(count, 'time')}: {reason}", err=True)
    cut = sum(showing.status == "truncated" for showing in showings)
    if cut:
        click.echo(f"Note: {counted(cut, 'rationale')} cut at --max-tokens, and read all the same.", err=True)
    if report.mean_choice_mass is not None and report.mean_choice_mass < 0.5:
        click.echo(
            f"Warning: the judge put only {report.mean_choice_mass:.1%} of its probability on the choices; it may not "
            "follow this template. Look at what it wrote: --rationales.",
            err=True,
        )
