"""`rlaif label`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from rlaif.cli.cascade import cascade_options, cascade_planned, cascade_shown
from rlaif.cli.options import (
    cluster_options,
    counted,
    data_options,
    json_option,
    objectives_option,
    policy_base_url_option,
    progress,
    rationale_options,
    starter_note,
    update_option,
)
from rlaif.cli.words import cut, word

if TYPE_CHECKING:
    from rlaif.labeling.calibration import AppliedCalibration


@click.command("label", short_help="Label preference data with a judge and a constitution.")
@click.argument("data")
@click.option("--out", required=True, metavar="RUN", help="Folder of the run; the same command again continues it.")
@click.option(
    "--constitution",
    default="hhh",
    show_default=True,
    metavar="NAME|FILE",
    help="The principles to judge by.",
)
@click.option(
    "--judge",
    default="starter",
    show_default=True,
    metavar="starter|HUB_ID|PATH",
    help="The judge: a chat model. The built-in starter shows the flow in its own small world; it is not for real "
    "labels.",
)
@click.option(
    "--template",
    default="pairwise-cot",
    show_default=True,
    metavar="NAME|FILE",
    help="Prompt template; also: direct, few-shot, rating.",
)
@objectives_option
@click.option(
    "--principles",
    type=click.Choice(["all", "sample"]),
    default="all",
    show_default=True,
    help="Show every principle, or one drawn for each comparison.",
)
@click.option(
    "--orders",
    type=click.Choice(["both", "ab"]),
    default="both",
    show_default=True,
    help="Ask with the responses in both places, or one.",
)
@click.option(
    "--samples",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Rationales a question; needs --temperature.",
)
@rationale_options
@click.option(
    "--policy",
    metavar="starter|HUB_ID|PATH",
    help="For prompts only: sample two responses each from this model, and label them.",
)
@policy_base_url_option
@click.option(
    "--policy-temperature",
    type=click.FloatRange(0, 10),
    default=1.0,
    show_default=True,
    help="Of the policy.",
)
@click.option(
    "--policy-max-tokens",
    type=click.IntRange(1),
    default=512,
    show_default=True,
    help="Longest response of the policy.",
)
@click.option(
    "--calibration",
    metavar="FILE",
    help="Put p_a right by the temperatures that rlaif compare --calibrate wrote; asks nothing more.",
)
@cascade_options
@update_option
@click.option("--dry-run", is_flag=True, help="Print how many requests and prompt tokens it would take; ask nothing.")
@click.option("--strict", is_flag=True, help="Stop before any work if a row cannot be used.")
@data_options
@cluster_options
@json_option
def label_command(data: str, out: str, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Label the pairs of DATA: for each objective, the probability that response a is better.

    DATA is a .jsonl, .json, .csv or .parquet file, a saved datasets folder or a hub id, with the columns prompt,
    response_a and response_b, or chosen and rejected, or prompt alone (then --policy samples two responses each).

    \b
    Examples:
      rlaif label pairs.jsonl --base-url http://127.0.0.1:8000 --out runs/first
      rlaif label pairs.jsonl --judge ./my-judge --engine transformers --template direct --out runs/quick
      rlaif label pairs.jsonl --judge Qwen/Qwen3-8B --constitution my.yaml --out runs/first --update
      rlaif label pairs.jsonl --base-url http://127.0.0.1:8000 --cascade direct,pairwise-cot --out runs/cheap
      rlaif label pairs.jsonl --judge Qwen/Qwen3-8B --engine ray --replicas 4 --out runs/wide
    """
    from rlaif.labeling import api

    note = starter_note(options)
    if dry_run:
        plan = api.dry_run(data, out, **options)
        if note:
            click.echo(note, err=True)
        if as_json:
            click.echo(plan.model_dump_json())
            return
        click.echo(f"{counted(plan.pairs, 'pair')}, {counted(plan.rejected, 'row')} that cannot be used")
        if plan.cascade is not None:
            click.echo("\n".join(cascade_planned(plan.cascade, plan)))
            return
        about = "" if plan.tokens_exact else "about "
        click.echo(f"{plan.requests:,} requests, {plan.answered:,} answered already, {plan.to_ask:,} to ask")
        click.echo(f"{about}{plan.prompt_tokens:,} prompt tokens, at most {plan.most_new_tokens:,} new tokens")
        return
    with progress("pairs", note) as watch:
        summary = api.label(data, out, watch=watch, **options)
    if as_json:
        click.echo(summary.model_dump_json())
        return
    click.echo(
        f"{counted(summary.pairs, 'pair')} labelled, {counted(summary.rejected, 'row')} rejected "
        f"-> {summary.run}/labels.jsonl"
    )
    click.echo(
        f"{summary.judgments:,} judgments: {summary.asked:,} asked, {summary.reused:,} reused, "
        f"{summary.abstained:,} abstained"
    )
    if summary.calibration is not None:
        _tell_calibration(summary.calibration)
    if summary.cascade is not None:
        click.echo("\n".join(["", *cascade_shown(summary.cascade)]))
    if summary.rejected:
        click.echo(f"Why rows were rejected, with their lines: {summary.run}/rejects.jsonl", err=True)
    for reason, count in summary.reasons:
        click.echo(f"Abstained {counted(count, 'time')}: {reason}", err=True)
    truncated = summary.statuses.get("truncated", 0)
    if truncated:
        click.echo(
            f"Note: {truncated:,} rationales were cut at --max-tokens; their verdicts were read all the same.",
            err=True,
        )
    if summary.mean_choice_mass is not None and summary.mean_choice_mass < 0.5:
        click.echo(
            f"Warning: the judge put only {summary.mean_choice_mass:.1%} of its probability on the choices; it may not "
            "follow this template. Look at a few: rlaif show.",
            err=True,
        )


def _tell_calibration(found: AppliedCalibration) -> None:
    told = ", ".join(f"{word(name)} by temperature {t:.3g}" for name, t in found.temperatures.items())
    click.echo(f"Calibrated: {told}")
    for name, why in found.uncalibrated.items():
        click.echo(f"Note: no temperature is applied to {word(name)}: {cut(why, 200)}.", err=True)
