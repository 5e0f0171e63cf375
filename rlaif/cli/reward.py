"""`rlaif reward`: what rewards are used for, and whether they still mean what they should."""

from __future__ import annotations

import click

from rlaif.cli.lazy import LazyGroup

_COMMANDS = {
    "best-of-n": ("rlaif.cli.best_of_n", "best_of_n_command", "Sample responses and pick the best by reward."),
    "overoptimize": ("rlaif.cli.overoptimize", "overoptimize_command", "See where more optimisation stops helping."),
    "probe": ("rlaif.cli.probe", "probe_command", "Change responses and see whether rewards move as they should."),
    "compare": ("rlaif.cli.compare_rewards", "compare_rewards_command", "Compare reward models on the same pairs."),
    "serve": ("rlaif.cli.serve", "serve_command", "Serve scores over HTTP."),
}


@click.group("reward", cls=LazyGroup, places=_COMMANDS)
def reward_group() -> None:
    """Use rewards, and see when they stop meaning what they should.

    \b
    Example:
      rlaif reward best-of-n prompts.jsonl --policy starter --heads heads --n 16 --out picks.jsonl
    """
