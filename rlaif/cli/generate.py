"""`rlaif generate`."""

from __future__ import annotations

from typing import Any

import click

from rlaif.cli.options import data_options, engine_options, json_option, progress, starter_note


@click.command("generate", short_help="Sample a policy's responses to prompts.")
@click.argument("prompts")
@click.option("--policy", required=True, metavar="starter|HUB_ID|PATH", help="The model that answers.")
@click.option("--n", type=click.IntRange(1), default=2, show_default=True, help="Responses a prompt.")
@click.option(
    "--out",
    required=True,
    metavar="FILE",
    help="JSON Lines, a line a prompt; the same command again continues.",
)
@click.option("--temperature", type=click.FloatRange(0, 10), default=1.0, show_default=True)
@click.option("--max-tokens", type=click.IntRange(1), default=512, show_default=True, help="Longest response.")
@data_options
@engine_options
@json_option
def generate_command(prompts: str, out: str, as_json: bool, **options: Any) -> None:
    """Sample responses of a policy to each row of PROMPTS (any file with a prompt column).

    With --n 2 the lines are pairs that `rlaif label` takes as they are.

    \b
    Example:
      rlaif generate prompts.jsonl --policy Qwen/Qwen3-0.6B --n 2 --out responses.jsonl
    """
    from rlaif.labeling import api

    with progress("prompts", starter_note(options)) as watch:
        summary = api.generate(prompts, out, watch=watch, **options)
    if as_json:
        click.echo(summary.model_dump_json())
        return
    click.echo(f"{summary.responses:,} responses to {summary.prompts:,} prompts -> {summary.out}")
    click.echo(
        f"{summary.asked:,} asked, {summary.reused:,} reused, {summary.failed:,} failed, "
        f"{summary.rejected:,} rows rejected"
    )
