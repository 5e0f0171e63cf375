"""`rlaif train-heads`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from rlaif.cli.options import counted, json_option

if TYPE_CHECKING:
    from rlaif.rewards.train import TrainSummary


@click.command("train-heads", short_help="Train reward heads from preference labels.")
@click.argument("labels", nargs=-1, required=True)
@click.option("--out", required=True, metavar="HEADS", help="Folder of the checkpoint.")
@click.option(
    "--backbone", default="starter", show_default=True, metavar="MODEL", help="starter, a hub id or a folder."
)
@click.option(
    "--mode",
    type=click.Choice(["frozen", "lora", "full"]),
    default="frozen",
    show_default=True,
    help="frozen: solve the heads on the backbone's features. lora, full: train the backbone too.",
)
@click.option(
    "--aggregate",
    type=click.Choice(["weighted", "pareto"]),
    help="How rewards become one; the constitution's way by default. pareto also trains so that no objective gains at "
    "another's cost.",
)
@click.option("--constitution", metavar="NAME|FILE", help="Takes weights, floors and tags from it.")
@click.option("--objective", "objectives", multiple=True, metavar="NAME", help="Only this objective; repeatable.")
@click.option(
    "--ensemble", type=click.IntRange(1), default=5, show_default=True, help="Members, for the deviation of a score."
)
@click.option("--epochs", type=click.FloatRange(0, min_open=True), help="Of lora and full.")
@click.option("--lr", type=click.FloatRange(0, min_open=True), help="Learning rate of lora and full.")
@click.option("--batch-tokens", type=click.IntRange(1), metavar="N", help="Tokens of a batch, padding counted.")
@click.option(
    "--accumulate",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="Batches of a step, one after the other: so many GPUs in one.",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    help="What lora and full compute in; the weights stay in float32. bfloat16 on a GPU, else float32, by default.",
)
@click.option("--max-length", type=click.IntRange(8), metavar="N", help="Longest conversation in tokens.")
@click.option(
    "--eval",
    "held_out",
    default="0.1",
    show_default=True,
    metavar="FRACTION|LABELS",
    help="What is held out: a share of the conversations, or other labels.",
)
@click.option("--init-from", metavar="HEADS", help="Go on from these heads, and report what they forget.")
@click.option("--length-control", is_flag=True, help="Take the effect of length out of the scores.")
@click.option(
    "--learn-weights", metavar="HUMAN", help="Learn the objectives' weights from overall preferences, PAIRS+LABELS."
)
@click.option("--gate", is_flag=True, help="With --learn-weights: weights that depend on the prompt.")
@click.option(
    "--confidence",
    type=click.Choice(["none", "order-gap"]),
    default="none",
    show_default=True,
    help="order-gap: a judge's label counts the less, the further its two orders part.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="The GPU where there is one, by default.")
@click.option("--cache", metavar="FOLDER", help="Where features are kept, in place of the user's cache folder.")
@click.option("--columns", metavar="A=B,…", help="Names of columns of plain preference data, ours=theirs.")
@json_option
def train_heads_command(labels: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Train one reward head an objective on a shared backbone, calibrate them, and write an ordinary checkpoint.

    LABELS are runs of rlaif label, their labels.jsonl, preference data (prompt, chosen, rejected), or PAIRS+LABELS for
    files kept apart, people's labels or recorded judges'; @WEIGHT at the end says what a source counts, :NAME names
    the objective of preference data. An objective may be missing on some pairs. The same command again continues.

    \b
    Examples:
      rlaif train-heads runs/first --out heads
      rlaif train-heads runs/first pairs.jsonl+human.jsonl@2 --mode full --epochs 2 --out heads
      rlaif train-heads runs/first --aggregate pareto --mode lora --backbone Qwen/Qwen3-0.6B --out heads
    """
    from rlaif.rewards.train import train_heads

    found = train_heads(labels, progress=_told, **options)
    if os.environ.get("RANK", "0") != "0":
        # Of several processes that train together, one tells.
        return
    if as_json:
        click.echo(found.model_dump_json())
        return
    _print(found)


def _told(line: str) -> None:
    import sys

    if sys.stderr is not None and sys.stderr.isatty():
        click.echo(line, err=True)


def _print(found: TrainSummary) -> None:
    from rlaif.cli.evaluate_report import evaluation_shown

    for note in found.notes:
        click.echo(f"Note: {note}", err=True)
    held = counted(found.held_out_pairs, "held-out pair")
    click.echo(
        f"{counted(found.pairs, 'pair')}, {held}; {counted(len(found.objectives), 'objective')}, {found.mode}, "
        f"{counted(found.members, 'member')}, {found.seconds:.0f} s"
    )
    if found.evaluation is not None:
        for line in evaluation_shown(found.evaluation):
            click.echo(line)
    click.echo(f"Heads: {found.out}   Report: {found.out}/report.html", err=True)
