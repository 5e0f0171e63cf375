"""`rlaif revise`."""

from __future__ import annotations

from typing import Any

import click

from rlaif.cli.options import (
    counted,
    data_options,
    engine_options,
    json_option,
    objectives_option,
    policy_base_url_option,
    progress,
    starter_note,
    update_option,
)


@click.command("revise", short_help="Write critiques and revisions, and the pairs they make.")
@click.argument("prompts")
@click.option(
    "--constitution",
    default="hhh",
    show_default=True,
    metavar="NAME|FILE",
    help="The principles to criticise by.",
)
@click.option(
    "--judge",
    default="starter",
    show_default=True,
    metavar="starter|HUB_ID|PATH",
    help="The chat model that writes critiques and revisions.",
)
@click.option(
    "--policy",
    metavar="starter|HUB_ID|PATH",
    help="The model that writes first responses, where a row has none.  [default: the judge]",
)
@policy_base_url_option
@click.option(
    "--out",
    required=True,
    metavar="FILE",
    help="JSON Lines, a line a chain; .sft, .pairs and .rejects files go beside it. The same command again continues.",
)
@click.option("--rounds", type=click.IntRange(1), default=1, show_default=True, help="Critiques and revisions a chain.")
@click.option("--n", type=click.IntRange(1), default=1, show_default=True, help="Chains a prompt.")
@objectives_option
@click.option(
    "--principles",
    type=click.Choice(["sample"]),
    default="sample",
    show_default=True,
    expose_value=False,
    help="One principle drawn for each round by weight, none twice in a chain until all were drawn.",
)
@click.option("--critique-template", default="critique", show_default=True, metavar="NAME|FILE")
@click.option("--revision-template", default="revision", show_default=True, metavar="NAME|FILE")
@click.option(
    "--temperature",
    type=click.FloatRange(0, 10),
    default=1.0,
    show_default=True,
    help="Of first responses.",
)
@click.option(
    "--revision-temperature",
    type=click.FloatRange(0, 10),
    default=0.0,
    show_default=True,
    help="Of critiques and revisions.",
)
@click.option("--max-tokens", type=click.IntRange(1), default=512, show_default=True, help="Longest text of each kind.")
@update_option
@click.option("--dry-run", is_flag=True, help="Print how many requests it would take; ask nothing.")
@data_options
@engine_options
@json_option
def revise_command(prompts: str, out: str, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Answer each row of PROMPTS, then criticise and revise the answer by principles of a constitution.

    A row that holds a response keeps it as the first one (--columns response=NAME says which column). With OUT come
    OUT.sft.jsonl, prompt and last revision as TRL's SFTTrainer takes them, and OUT.pairs.jsonl, first response against
    last revision as `rlaif label` takes them.

    \b
    Examples:
      rlaif revise prompts.jsonl --judge Qwen/Qwen3-8B --rounds 2 --out revised.jsonl
      rlaif revise answers.jsonl --columns response=answer --base-url http://127.0.0.1:8000 --out revised.jsonl
      rlaif label revised.pairs.jsonl --base-url http://127.0.0.1:8000 --out runs/revised
    """
    from rlaif.labeling import api

    note = starter_note(options)
    if dry_run:
        plan = api.revise_dry_run(prompts, out, **options)
        if note:
            click.echo(note, err=True)
        if as_json:
            click.echo(plan.model_dump_json())
            return
        unusable = counted(plan.rejected, "row")
        click.echo(
            f"{counted(plan.prompts, 'prompt')}, {counted(plan.chains, 'chain')}, {unusable} that cannot be used"
        )
        click.echo(f"{plan.requests:,} requests, {plan.answered:,} answered already, at most {plan.to_ask:,} to ask")
        click.echo(f"at most {plan.most_new_tokens:,} new tokens")
        return
    with progress("prompts", note) as watch:
        summary = api.revise(prompts, out, watch=watch, **options)
    if as_json:
        click.echo(summary.model_dump_json())
        return
    click.echo(f"{counted(summary.chains, 'chain')} of {counted(summary.prompts, 'prompt')} -> {summary.out}")
    click.echo(f"{counted(summary.chains, 'training row')} -> {summary.sft_file}")
    click.echo(f"{counted(summary.pairs, 'pair')}, {summary.unchanged:,} unchanged -> {summary.pairs_file}")
    click.echo(
        f"{summary.asked:,} asked, {summary.reused:,} reused, {counted(summary.failed, 'chain')} failed, "
        f"{counted(summary.rejected, 'row')} rejected"
    )
    if summary.failed or summary.rejected:
        click.echo(f"Why, with their lines: {summary.rejects_file}", err=True)
    if summary.truncated:
        click.echo(
            f"Note: {counted(summary.truncated, 'revision')} cut at --max-tokens; leave rows whose finish_reason is "
            "length out of a training, or allow more tokens with --update.",
            err=True,
        )
