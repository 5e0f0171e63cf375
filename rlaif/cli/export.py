"""`rlaif export`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rlaif.cli.options import counted, json_option
from rlaif.cli.score import weights_option

if TYPE_CHECKING:
    from rlaif.optimize.preference_files import PreferenceSummary

_REWARD_MODEL = "reward-model"
_PREFERENCES = ("trl", "trl-conversational", "openrlhf", "dpo")
# Which options belong to which source, by the name of their parameter.
_OF_HEADS = frozenset({"weights"})
_OF_LABELS = frozenset({"objective", "min_margin", "ties", "margin", "columns"})
# How the trainer is told what it reads, where the file alone does not say so.
_HINTS: Mapping[str, str] = {
    "trl": "TRL joins prompt and response as they stand, without a chat template; a chat model wants "
    "--format trl-conversational.",
    "openrlhf": "train with --apply_chat_template and without --prompt_key: chosen and rejected hold the prompt too.",
}


@click.command("export", short_help="Write labels or heads as other trainers take them.")
@click.argument("sources", metavar="LABELS|HEADS", nargs=-1, required=True)
@click.option(
    "--format",
    "layout",
    type=click.Choice([*_PREFERENCES, _REWARD_MODEL]),
    required=True,
    help="What to write: labels in one of the first four, heads as reward-model.",
)
@click.option(
    "--out",
    required=True,
    metavar="PATH",
    help="Labels: .jsonl, .parquet, or a folder (saved dataset). Heads: a folder.",
)
@click.option("--objective", metavar="NAME", help="Which label decides; the overall one, or the only one.")
@click.option(
    "--min-margin",
    type=click.FloatRange(0),
    default=0.0,
    metavar="M",
    help="Leave out pairs with less between both: of probabilities, 0 to 1; of scores, in rewards.",
)
@click.option(
    "--ties",
    type=click.Choice(["drop", "both"]),
    default="drop",
    show_default=True,
    help="Leave ties out, or write each in both orders.",
)
@click.option(
    "--margin",
    is_flag=True,
    help="Add the column margin: the log-odds of the label, at most 3. TRL's RewardTrainer uses it unasked.",
)
@click.option("--columns", metavar="N=C,…", help="Which column is which, as prompt=question,response_a=first.")
@weights_option
@json_option
@click.pass_context
def export_command(
    ctx: click.Context, /, sources: tuple[str, ...], layout: str, out: str, as_json: bool, **options: Any
) -> None:
    """Write what rlaif made in the form that other tools take.

    LABELS are what train-heads takes: a run of rlaif label, its labels.jsonl, preference data, or PAIRS+LABELS for
    files kept apart; several become one. A row is a pair, the preferred response as chosen. Scored candidates do too
    (OUT.candidates.jsonl of rlaif reward best-of-n, or DATA+SCORES with what rlaif score wrote): each prompt's best and
    worst make a pair.

    \b
    trl                 prompt, chosen, rejected as texts (prompts of one turn)
    trl-conversational  prompt, chosen, rejected as messages: RewardTrainer, DPOTrainer, GRPOTrainer
    dpo                 the same; also axolotl's chat_template.default with field_messages: prompt
    openrlhf            chosen and rejected as whole conversations, context_messages as the prompt

    Every row has the soft label p_chosen and its weight, of scores reward_chosen and reward_rejected. Ties, equal
    responses and pairs without a label are left out and counted.

    reward-model: HEADS as a sequence classifier with one label (num_labels=1), its score the weighted sum of the
    normalized rewards, equal to the heads' reward up to a constant. transformers, TRL (RewardTrainer, GRPOTrainer),
    OpenRLHF and vLLM load it as any reward model. Floors, weights by tag and the Pareto rule are not linear: what is
    left out is told.

    \b
    Examples:
      rlaif export runs/first --format trl-conversational --out preferences.jsonl
      rlaif export pairs.jsonl+human.jsonl --objective helpfulness --format openrlhf --out preferences.parquet
      rlaif export picks.candidates.jsonl --format dpo --min-margin 0.5 --out dpo.jsonl
      rlaif export heads --format reward-model --weights helpfulness=0.7,honesty=0.3 --out reward-model
    """
    heads = layout == _REWARD_MODEL
    _refuse_others(ctx, layout, _OF_LABELS if heads else _OF_HEADS)
    if not heads:
        options.pop("weights")
        _preferences(sources, layout, out, as_json, **options)
    elif len(sources) > 1:
        raise click.UsageError("--format reward-model takes one folder of HEADS.")
    else:
        _reward_model(sources[0], out, options["weights"], as_json)


def _refuse_others(ctx: click.Context, layout: str, names: frozenset[str]) -> None:
    """Refuse the options of another kind of source: they would be left out without a word."""
    for option in ctx.command.params:
        given = ctx.get_parameter_source(option.name or "")
        if option.name in names and given is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{option.opts[0]} is not for --format {layout}.")


def _reward_model(source: str, out: str, weights: Mapping[str, float] | None, as_json: bool) -> None:
    from rlaif.rewards.export import export_reward_model

    summary = export_reward_model(source, out, weights)
    if as_json:
        click.echo(summary.model_dump_json())
        return
    told = ", ".join(f"{name} {weight:.3g}" for name, weight in summary.weights.items())
    click.echo(f"one reward of {told} -> {summary.out}")
    if summary.constant:
        click.echo(f"the heads' reward is its score plus {summary.constant:.4g}")
    for note in summary.notes:
        click.echo(f"Note: {note}", err=True)


def _preferences(
    sources: tuple[str, ...], layout: Any, out: str, as_json: bool, columns: str | None, **options: Any
) -> None:
    from rlaif.data.pairs import parse_columns
    from rlaif.files import is_stream
    from rlaif.optimize.preference_files import export_preferences

    summary = export_preferences(sources, out, layout, columns=parse_columns(columns), **options)
    # Lines that go to a pipe are not to be mixed with others.
    apart = is_stream(Path(out))
    if as_json:
        click.echo(summary.model_dump_json(), err=apart)
        return
    for line in _shown(summary):
        click.echo(line, err=apart)
    for note in (*summary.notes, *filter(None, [_HINTS.get(summary.format)])):
        click.echo(f"Note: {note}", err=True)


def _shown(summary: PreferenceSummary) -> list[str]:
    turned = f" ({summary.turned:,} of them ties turned)" if summary.turned else ""
    lines = [f"{counted(summary.rows, 'row')}{turned} by {summary.objective} -> {summary.out}"]
    if summary.left_out:
        lines.append("left out: " + ", ".join(f"{reason} {count:,}" for reason, count in summary.left_out.items()))
    if summary.merged:
        lines.append(f"{counted(summary.merged, 'label')} of pairs that several sources have, folded into their rows")
    if summary.mean_doubt:
        lines.append(f"the labels give the rejected response {summary.mean_doubt:.3f} on average")
    return lines
