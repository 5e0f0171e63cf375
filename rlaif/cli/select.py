"""`rlaif select`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from rlaif.cli.options import counted, json_option

_REASONS = {
    "uncertain": "near 0.5",
    "order_gap": "order gap",
    "abstained": "abstained",
    "ensemble": "heads disagree",
    "conflict": "objectives in conflict",
    "remainder": "the most in doubt of what is left",
    "diverse": "unlike the others",
    "random": "drawn at random",
}


def _weights(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> dict[str, float]:
    found: dict[str, float] = {}
    for item in value:
        name, _, text = item.partition("=")
        try:
            found[name.strip().replace("-", "_")] = float(text)
        except ValueError:
            raise click.BadParameter(f"{item}: expected CRITERION=NUMBER, as in order_gap=0.5.") from None
    return found


@click.command("select", short_help="Pick the pairs most worth a person's time, with the reason for each.")
@click.argument("source", metavar="RUN|SCORES")
@click.option("--n", type=click.IntRange(1), required=True, help="How many pairs.")
@click.option("--out", required=True, metavar="FILE", help="The pairs, JSON Lines, the first to label first.")
@click.option("--pairs", metavar="FILE", help="For SCORES: the pairs that were scored, with their texts.")
@click.option("--objective", "objectives", multiple=True, metavar="NAME", help="Only this objective; repeatable.")
@click.option(
    "--human",
    multiple=True,
    metavar="FILE",
    help="Leave out the pairs that people have labelled (with --objective: for that objective); repeatable.",
)
@click.option(
    "--diversity",
    type=click.FloatRange(0, 1),
    default=0.3,
    show_default=True,
    help="0 takes the highest scores; the higher, the less alike the pairs are.",
)
@click.option(
    "--random",
    type=click.FloatRange(0, 1),
    default=0.1,
    show_default=True,
    help="Share that is drawn from all pairs with equal chance, before any is chosen.",
)
@click.option(
    "--embedder",
    default="lexical",
    show_default=True,
    metavar="lexical|HUB_ID|PATH",
    help="What tells how alike pairs are: their rare words, or a transformer's mean hidden state.",
)
@click.option(
    "--candidates",
    type=click.IntRange(1),
    metavar="N",
    help="Look for diversity among the N highest scores.  [default: 10 for each pair chosen, at least 1000]",
)
@click.option(
    "--weight",
    "weights",
    multiple=True,
    metavar="CRITERION=W",
    callback=_weights,
    help="Weight of uncertain, order_gap, abstained, ensemble (1 each) or conflict (0.5); 0 turns it off; repeatable.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the random share and of ties.")
@json_option
def select_command(source: str, out: str, as_json: bool, **options: Any) -> None:
    """Pick N pairs for people to label: those whose labels are most in doubt, unlike each other, with reasons.

    In doubt is a label with p_a near 0.5, a large gap between the two orders, verdicts that were not read, heads of an
    ensemble that disagree, or objectives that prefer different responses. The score is 0 to 1, the mean over the
    objectives.

    Agreement measured on doubtful pairs is too low for the rest. The pairs drawn at random (kind "random") are a
    simple random sample of all pairs, also if labelling stops early: use their labels alone to estimate how good the
    judge is. Their inclusion_probability is random pairs / all pairs; the chosen ones have none. Pairs with human
    labels are left out before, so the sample stands for those without.

    OUT is what `rlaif review` and `rlaif label` read; each pair has a key "select" with rank, kind, score, reasons and
    inclusion_probability.

    \b
    Examples:
      rlaif select runs/first --n 200 --out to-label.jsonl
      rlaif select runs/first --n 200 --human labels.jsonl --objective honesty --out more.jsonl
      rlaif select scores.jsonl --pairs pairs.jsonl --n 200 --diversity 0.5 --out to-label.jsonl
    """
    from rlaif.agreement.select import select
    from rlaif.files import is_stream

    with _progress() as watch:
        summary = select(source, out, watch=watch, **options)
    # Lines that go to a pipe are not to be mixed with others.
    apart = is_stream(Path(out))
    if as_json:
        click.echo(summary.model_dump_json(), err=apart)
        return
    click.echo(
        f"{counted(summary.selected, 'pair')} of {summary.pool:,} -> {summary.out}: {summary.chosen:,} chosen, "
        f"{summary.random:,} drawn at random",
        err=apart,
    )
    if summary.mean_score_chosen is not None:
        means = f"mean score {summary.mean_score_chosen:.3f} of the chosen, {summary.mean_score_pool:.3f} of all"
        click.echo(means, err=apart)
    for name, count in summary.by_reason.items():
        click.echo(f"  {count:>7,}  {_REASONS[name]}", err=apart)
    if summary.already_labelled:
        click.echo(f"Left out: {counted(summary.already_labelled, 'pair')} with human labels.", err=True)
    if summary.unknown_labelled:
        click.echo(
            f"Note: the human labels name {counted(summary.unknown_labelled, 'pair')} not in {source}.", err=True
        )
    if summary.without_texts:
        click.echo(f"Left out: {counted(summary.without_texts, 'pair')} with scores, not in --pairs.", err=True)
    if summary.selected < options["n"]:
        click.echo(f"Note: there were only {counted(summary.pool, 'pair')} to select from.", err=True)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None] | None]:
    """Show on stderr how many pairs were embedded, where it is a terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("comparing pairs", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
