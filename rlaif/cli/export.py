"""`rlaif export`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import click

from rlaif.cli.options import json_option
from rlaif.cli.score import weights_option


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


# What writes each format; another one is another entry.
_FORMATS: dict[str, Callable[[str, str, Mapping[str, float] | None, bool], None]] = {"reward-model": _reward_model}


@click.command("export", short_help="Write heads as one reward model for other trainers.")
@click.argument("source", metavar="HEADS")
@click.option("--format", "layout", type=click.Choice(list(_FORMATS)), required=True, help="What to write.")
@click.option("--out", required=True, metavar="DIR", help="A new folder, or an earlier export.")
@weights_option
@json_option
def export_command(source: str, layout: str, out: str, weights: dict[str, float] | None, as_json: bool) -> None:
    """Write what rlaif made in the form that other tools take.

    reward-model: HEADS as a sequence classifier with one label (num_labels=1), its score the weighted sum of the
    normalized rewards, equal to the heads' reward up to a constant. transformers, TRL (RewardTrainer, GRPOTrainer),
    OpenRLHF and vLLM load it as any reward model. Floors, weights by tag and the Pareto rule are not linear: what is
    left out is told.

    \b
    Examples:
      rlaif export heads --format reward-model --out reward-model
      rlaif export heads --format reward-model --weights helpfulness=0.7,honesty=0.3 --out reward-model
    """
    _FORMATS[layout](source, out, weights, as_json)
