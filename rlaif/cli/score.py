"""`rlaif score`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from rlaif.cli.options import counted, data_options, json_option


def read_weights(ctx: click.Context, param: click.Parameter, value: str | None) -> dict[str, float] | None:
    """Read `NAME=WEIGHT,…`."""
    if value is None:
        return None
    found: dict[str, float] = {}
    for item in filter(None, (part.strip() for part in value.split(","))):
        name, _, text = item.rpartition("=")
        try:
            found[name.strip()] = float(text)
        except ValueError:
            raise click.BadParameter(f"{item}: expected OBJECTIVE=NUMBER, as in helpfulness=0.7.") from None
    return found


weights_option = click.option(
    "--weights",
    metavar="NAME=W,…",
    callback=read_weights,
    help="Other weights than the checkpoint's, made to sum to 1; an objective that is not named gets 0.",
)

precision_option = click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    help="What to compute in; bfloat16 is faster where the processor knows it, and moves scores by hundredths of a "
    "deviation.  [default: float32 on a CPU, else as the heads were saved]",
)


@click.command("score", short_help="Score responses with trained heads.")
@click.argument("heads")
@click.argument("data")
@click.option("--out", required=True, metavar="FILE", help="JSON Lines, a line a response.")
@weights_option
@click.option("--batch-tokens", type=click.IntRange(1), metavar="N", help="Tokens of a batch, padding counted.")
@click.option("--device", metavar="cpu|cuda|…", help="The GPU where there is one, else the CPU.")
@precision_option
@click.option("--strict", is_flag=True, help="Stop before any work if a row cannot be used.")
@data_options
@json_option
def score_command(heads: str, data: str, out: str, as_json: bool, **options: Any) -> None:
    """Score every response of DATA with HEADS, the folder that `rlaif train-heads` wrote.

    DATA has pairs in any shape that `rlaif label` takes, prompts with a response, or prompts with a list of responses,
    as `rlaif generate` writes them.

    A line is {"id", "response": "a"|"b"|n (from 0), "rewards": {…}, "std": {…}, "reward", "pareto_rank"}. Rewards are
    in standard deviations from the mean response that the heads were trained on; std is how far the members of an
    ensemble are apart, null without one; reward is the aggregate. pareto_rank is among the responses of one row: 0
    where no other is better in one objective and as good in the rest. "below_floors" names the objectives whose floor
    a response does not reach.

    \b
    Examples:
      rlaif score heads pairs.jsonl --out scores.jsonl
      rlaif score heads responses.jsonl --weights helpfulness=0.7,honesty=0.3 --out scores.jsonl
    """
    from rlaif.files import is_stream
    from rlaif.rewards.score import score_file

    with rows_progress() as watch:
        summary = score_file(heads, data, out, watch=watch, **options)
    # Lines that go to a pipe are not to be mixed with others.
    apart = is_stream(Path(out))
    if as_json:
        click.echo(summary.model_dump_json(), err=apart)
        return
    click.echo(
        f"{counted(summary.responses, 'response')} of {counted(summary.rows, 'row')} -> {summary.out}, "
        f"{counted(summary.rejected, 'row')} rejected",
        err=apart,
    )
    for name, count in summary.below_floors.items():
        click.echo(f"{counted(count, 'response')} below the floor of {name}", err=apart)
    if summary.truncated:
        click.echo(
            f"Note: {counted(summary.truncated, 'conversation')} cut to the longest length the heads take; the end, "
            "with the response, was kept.",
            err=True,
        )


@contextmanager
def rows_progress() -> Iterator[Callable[[int, int | None], None] | None]:
    """Show on stderr how many rows were scored, where it is a terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("rows"), BarColumn(bar_width=None), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def scoring_progress() -> Iterator[Callable[[int, int], None] | None]:
    """Show on stderr how many responses were scored, where it is a terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    with click.progressbar(length=1, label="scoring", file=sys.stderr) as bar:

        def step(done: int, of: int) -> None:
            bar.length = of
            bar.update(done - bar.pos)

        yield step
