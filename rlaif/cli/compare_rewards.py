"""`rlaif reward compare`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from rlaif.cli.options import data_options, json_option, objectives_option


@click.command("compare", short_help="Compare reward models on the same pairs.")
@click.argument("models", nargs=-1, required=True, metavar="H1 H2 [H3…]")
@click.option("--data", metavar="PAIRS", help="Pairs or candidates, as rlaif score takes them; scores do without.")
@click.option("--labels", metavar="HUMAN", help="People's labels of the pairs: who is right where models part?")
@click.option(
    "--reference",
    metavar="DATA",
    help="Has PAIRS drifted from these data? A folder of heads stands for what they were trained on.",
)
@objectives_option
@click.option(
    "--resamples", type=click.IntRange(0), default=1000, show_default=True, help="Of the bootstrap; 0 for none."
)
@click.option("--permutations", type=click.IntRange(1), default=999, show_default=True, help="Of the test of drift.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of every draw.")
@click.option("--batch-tokens", type=click.IntRange(1), metavar="N", help="Tokens of a batch, padding counted.")
@click.option("--device", metavar="cpu|cuda|…", help="The GPU where there is one, else the CPU.")
@data_options
@click.option("--html", metavar="FILE", help="Write a report page: pictures, tables, and pairs to read.")
@json_option
def compare_rewards_command(
    models: tuple[str, ...], data: str | None, html: str | None, as_json: bool, **options: Any
) -> None:
    """Do reward models agree, and where do they part? Holds two or more against each other on the same responses.

    A model is a folder of rlaif train-heads, or a file that rlaif score wrote. For every two of them, by objective and
    for the aggregate: how often both prefer the same response, rank correlations, by length and by tag, and the pairs
    on which they part the most. With --labels, on which side people are there.

    With --reference it also tells whether the data are unlike those of before: by the energy distance of the backbone's
    features, with a permutation test, and by what became of the rewards.

    \b
    Examples:
      rlaif reward compare heads/one heads/two --data pairs.jsonl
      rlaif reward compare scores-1.jsonl scores-2.jsonl scores-3.jsonl --html models.html
      rlaif reward compare heads/one heads/two --data new.jsonl --labels human.jsonl --reference heads/one
    """
    from rlaif.files import check_output
    from rlaif.optimize.compare_rewards import compare_rewards

    if html is not None:
        read = [*models, data, options["labels"], options["reference"]]
        check_output("--html", Path(html), [each for each in read if each is not None])
    terminal = sys.stderr is not None and sys.stderr.isatty()
    bar = click.progressbar(length=1, label="scoring", file=sys.stderr, hidden=not terminal)

    def step(done: int, of: int) -> None:
        bar.length = of
        bar.update(done - bar.pos)

    with bar:
        found = compare_rewards(models, data, watch=step if terminal else None, **options)
    for note in found.comparison.notes:
        click.echo(f"Note: {note}", err=True)
    if html is not None:
        from rlaif.optimize.compare_rewards_report import write_report

        write_report(Path(html), found)
    if as_json:
        click.echo(found.comparison.model_dump_json())
        return
    from rlaif.cli.compare_rewards_report import comparison_shown

    for line in comparison_shown(found.comparison):
        click.echo(line)
    if html is not None:
        click.echo(f"Report: {html}", err=True)
