"""`rlaif runs shard`."""

from __future__ import annotations

from pathlib import Path

import click

from rlaif.cli.options import counted, data_options, json_option


@click.command("shard", short_help="Split a dataset into parts to label apart.")
@click.argument("data")
@click.option("--parts", type=click.IntRange(1, 500), required=True, metavar="N", help="How many parts, 1 to 500.")
@click.option("--out", required=True, metavar="FOLDER", help="A new folder for the parts.")
@data_options
@json_option
def shard_command(
    data: str,
    parts: int,
    out: str,
    columns: str | None,
    split: str | None,
    config: str | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """Split DATA, anything that `rlaif label` reads, into N files of JSON Lines, and print the commands to run next.

    Every pair is in one part, with the id that it has in the whole dataset. Pairs of one prompt stay together, so that
    a judge's prefix cache and a split by conversation work as before. Parts are about equally much work: the
    characters of prompts and responses, and 2,000 more a pair for what is written about it. The same command writes
    the same bytes. Rows that cannot be used go to FOLDER/rejects.jsonl.

    \b
    Example:
      rlaif runs shard pairs.jsonl --parts 4 --out parts
    """
    from rlaif.data.pairs import parse_columns
    from rlaif.labeling.settings import DataSettings
    from rlaif.labeling.shard import shard

    source = DataSettings(data=data, columns=parse_columns(columns), split=split, config=config, limit=limit)
    summary = shard(source, parts, Path(out))
    if as_json:
        click.echo(summary.model_dump_json())
        return
    noun = "prompt" if summary.prompts_only else "pair"
    click.echo(
        f"{counted(summary.rows, noun)} in {counted(len(summary.parts), 'part')}, "
        f"{counted(summary.rejected, 'row')} rejected -> {summary.out}"
    )
    for part in summary.parts:
        click.echo(
            f"  {part.file}: {counted(part.rows, noun)} of {counted(part.conversations, 'conversation')}, "
            f"{counted(part.characters, 'character')}"
        )
    click.echo("Next, each on a machine of its own, with the same --judge, --constitution and other options:")
    for command in summary.commands[:-1]:
        click.echo(f"  {command}")
    click.echo("Then, with the runs in one place:")
    click.echo(f"  {summary.commands[-1]}")
    if summary.rejected:
        click.echo(f"Why rows were rejected, with their lines: {summary.out}/rejects.jsonl", err=True)
