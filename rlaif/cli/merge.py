"""`rlaif runs merge`."""

from __future__ import annotations

from pathlib import Path

import click

from rlaif.cli.options import counted, data_options, json_option
from rlaif.errors import InputError


@click.command("merge", short_help="Put runs of one labelling together.")
@click.argument("runs", metavar="RUN…", nargs=-1, required=True)
@click.option("--out", required=True, metavar="RUN", help="A new folder for the merged run.")
@click.option("--data", metavar="DATA", help="The dataset that was split: the merged run is a run over it.")
@data_options
@json_option
def merge_command(
    runs: tuple[str, ...],
    out: str,
    data: str | None,
    columns: str | None,
    split: str | None,
    config: str | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """Put runs with the same settings into one, as `rlaif label` would have written it over the joined data.

    With --data labels stand in the order of DATA, and `rlaif label DATA --out RUN` goes on: it asks nothing that a run
    has answered. Runs that have not ended are taken with what they have, and that command asks the rest.

    Without --data the pairs are those of the runs' labels, one run after the other; RUN/pairs.jsonl holds them, and is
    the DATA of the merged run. Each run must have ended.

    A judgment that several runs have is taken once. Other settings, or different answers to the same question, are
    refused. The runs stay as they are.

    \b
    Examples:
      rlaif runs merge runs/parts-?-of-4 --data pairs.jsonl --out runs/parts-merged
      rlaif runs merge runs/monday runs/tuesday --out runs/both
    """
    given = {"--columns": columns, "--split": split, "--config": config, "--limit": limit}
    needless = next((name for name, value in given.items() if value is not None), None)
    if data is None and needless:
        raise InputError(f"{needless} says how --data is read; add --data, or drop {needless}.")
    from rlaif.data.pairs import parse_columns
    from rlaif.labeling.merge import merge_runs
    from rlaif.labeling.settings import DataSettings

    source = data and DataSettings(data=data, columns=parse_columns(columns), split=split, config=config, limit=limit)
    summary = merge_runs([Path(run) for run in runs], Path(out), source or None)
    if as_json:
        click.echo(summary.model_dump_json())
        return
    twice = f", {summary.repeated:,} of them in several runs" if summary.repeated else ""
    if summary.state == "done":
        click.echo(
            f"{counted(summary.runs, 'run')} merged: {counted(summary.pairs, 'pair')}, "
            f"{counted(summary.judgments, 'judgment')}{twice}, {counted(summary.rejected, 'row')} rejected "
            f"-> {summary.run}/labels.jsonl"
        )
        if data is None:
            click.echo(f"To go on: rlaif label {summary.data} --out {summary.run}, with the runs' other options.")
        return
    click.echo(
        f"{counted(summary.runs, 'run')} merged: {counted(summary.judgments, 'judgment')}{twice} -> {summary.run}, "
        "which has not ended"
    )
    for run in summary.unfinished:
        click.echo(f"{run}: has not ended; what it has is merged.", err=True)
    if summary.missing:
        click.echo(f"{counted(summary.missing, 'pair')} of {data} in none of the runs.", err=True)
    click.echo(
        f"rlaif label {data} --out {summary.run}, with the runs' other options, asks the rest and writes the labels.",
        err=True,
    )
