"""`rlaif evaluate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from rlaif.cli.options import json_option, objectives_option

_EXAMPLES = 8


@click.command("evaluate", short_help="Measure trained heads on labels: accuracy, calibration, length, by tag.")
@click.argument("heads")
@click.argument("labels", nargs=-1, required=True)
@objectives_option
@click.option(
    "--resamples", type=click.IntRange(0), default=1000, show_default=True, help="Of the bootstrap; 0 for none."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the resamples.")
@click.option("--batch-tokens", type=click.IntRange(1), metavar="N", help="Tokens of a batch, padding counted.")
@click.option("--device", metavar="cpu|cuda|…", help="The GPU where there is one, else the CPU.")
@click.option("--columns", metavar="N=C,…", help="Which column is which, as prompt=question,response_a=first.")
@click.option("--html", metavar="FILE", help="Write a report page: pictures, tables, and pairs to read.")
@json_option
def evaluate_command(
    heads: str, labels: tuple[str, ...], html: str | None, columns: str | None, as_json: bool, **options: Any
) -> None:
    """How good are trained heads? Holds HEADS, a folder of rlaif train-heads, against LABELS, with intervals.

    LABELS are what training takes: a run of rlaif label, its labels.jsonl, preference data (prompt, chosen, rejected),
    or PAIRS+LABELS for files kept apart; :NAME, or :OLD=NEW, names the objective. Take labels that the heads were not
    trained on: on others every figure is too good. Labels of the objective `overall` are held against the aggregate.

    \b
    Examples:
      rlaif evaluate heads runs/second
      rlaif evaluate heads pairs.jsonl+human.jsonl --html evaluation.html
      rlaif evaluate heads preferences.jsonl:harmlessness --json
    """
    from rlaif.data.pairs import parse_columns
    from rlaif.files import check_output
    from rlaif.rewards.evaluate_heads import evaluate_heads

    if html is not None:
        check_output("--html", Path(html), [*labels, *(part for each in labels for part in each.split("+"))])
    bar = click.progressbar(length=1, label="scoring", file=sys.stderr, hidden=not _terminal())

    def step(done: int, of: int) -> None:
        bar.length = of
        bar.update(done - bar.pos)

    with bar:
        found = evaluate_heads(
            heads,
            labels,
            columns=parse_columns(columns) if columns else None,
            examples=_EXAMPLES if html else 0,
            watch=step if _terminal() else None,
            **options,
        )
    for note in found.notes:
        click.echo(f"Note: {note}", err=True)
    if html is not None:
        from rlaif.rewards.report import write_report

        write_report(Path(html), found.spec, found.evaluation, examples=found.examples, held_out=False)
    if as_json:
        click.echo(found.evaluation.model_dump_json())
        return
    from rlaif.cli.evaluate_report import evaluation_shown

    for line in evaluation_shown(found.evaluation):
        click.echo(line)
    if html is not None:
        click.echo(f"Report: {html}", err=True)


def _terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()
