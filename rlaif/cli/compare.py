"""`rlaif compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rlaif.cli.options import json_option

if TYPE_CHECKING:
    from rlaif.agreement.results import Comparison


@click.command("compare", short_help="Compare a judge's labels with people's: agreement, biases, calibration.")
@click.argument("labels")
@click.argument("human")
@click.option(
    "--against",
    multiple=True,
    metavar="LABELS",
    help="Labels of another judge, to rank them; repeatable.",
)
@click.option("--pairs", metavar="FILE", help="The pairs, where LABELS does not hold their texts (recorded labels).")
@click.option("--objective", "objectives", multiple=True, metavar="NAME", help="Compare this objective; repeatable.")
@click.option(
    "--ties",
    type=click.Choice(["count", "half", "drop"]),
    default="count",
    show_default=True,
    help="count: a tie is a third answer. half: half right against a or b. drop: leave out pairs with a tie.",
)
@click.option(
    "--resamples", type=click.IntRange(0), default=1000, show_default=True, help="Of the bootstrap; 0 for none."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the resamples.")
@click.option(
    "--epsilon",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.2,
    show_default=True,
    help="How much worse than an annotator the judge may be: 0.2 in place of experts, 0.1 of a crowd.",
)
@click.option(
    "--generator",
    metavar="NAME",
    help="The judge's own model as the tags generator_a and generator_b name it, to measure self-preference.",
)
@click.option(
    "--calibrate", metavar="OUT", help="Write the temperature that puts p_a right, of each objective, to a file."
)
@click.option("--html", metavar="FILE", help="Write a report page: pictures, tables, and disagreements to read.")
@json_option
def compare_command(
    labels: str, human: str, calibrate: str | None, html: str | None, as_json: bool, **options: Any
) -> None:
    """How far can a judge's labels be trusted? Compares them with people's, with intervals.

    LABELS is a run's folder (with it the order of each verdict, rationales and tokens are known), a labels.jsonl, or
    recorded judge labels: {"id", "judge", "objective", "preference", "p_a"?, "order"?, "rationale"?} a line. HUMAN
    holds {"id", "annotator", "objective", "preference"} a line; the preference is a, b or tie, and people's is that of
    the majority. An abstention is shown and never scored. Of recorded labels in both orders the preference is that of
    the mean p_a, or without p_a the one that both share, else a tie.

    \b
    Examples:
      rlaif compare runs/first human.jsonl
      rlaif compare runs/first human.jsonl --against runs/second --html report.html
      rlaif compare recorded.jsonl human.jsonl --pairs pairs.jsonl --json
    """
    from rlaif.agreement.compare import EXAMPLES, compare
    from rlaif.errors import InputError
    from rlaif.files import check_output

    # Before the work: people's labels are the last file to be written over by mistake.
    inputs = [labels, human, *options["against"], *filter(None, [options["pairs"]])]
    for option, file in (("--calibrate", calibrate), ("--html", html)):
        if file is not None:
            check_output(option, Path(file), inputs)
    if calibrate is not None and html is not None and Path(calibrate).resolve() == Path(html).resolve():
        raise InputError(f"--html {html}: also the file of --calibrate; choose another file.")
    found = compare(labels, human, examples=EXAMPLES if html else 0, **options)
    if html is not None:
        from rlaif.report.compare_page import write_page

        write_page(found, Path(html))
    if as_json:
        click.echo(found.model_dump_json())
    else:
        _print(found)
    # Last: without a temperature to write the figures are told all the same.
    if calibrate is not None:
        from rlaif.agreement.calibration_file import write_calibration

        write_calibration(found, found.human, Path(calibrate))
    if as_json:
        return
    for what, file in (("Calibration", calibrate), ("Report", html)):
        if file is not None:
            click.echo(f"{what}: {file}", err=True)


def _print(found: Comparison) -> None:
    from rlaif.cli.compare_report import comparison_shown

    for line in comparison_shown(found):
        click.echo(line)
