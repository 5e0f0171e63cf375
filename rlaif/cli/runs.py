"""`rlaif runs`: split a labelling over machines by hand, and put its runs together."""

from __future__ import annotations

import click

from rlaif.cli.lazy import LazyGroup

_COMMANDS = {
    "shard": ("rlaif.cli.shard", "shard_command", "Split a dataset into parts to label apart."),
    "merge": ("rlaif.cli.merge", "merge_command", "Put runs of one labelling together."),
}


@click.group("runs", cls=LazyGroup, places=_COMMANDS)
def runs_group() -> None:
    """Label on several machines without a cluster: split the data, label each part, put the runs together.

    \b
    Example:
      rlaif runs shard pairs.jsonl --parts 4 --out parts
      rlaif label parts/part-1-of-4.jsonl --out runs/parts-1-of-4
      rlaif runs merge runs/parts-?-of-4 --data pairs.jsonl --out runs/parts-merged
    """
