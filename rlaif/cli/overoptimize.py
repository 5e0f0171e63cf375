"""`rlaif reward overoptimize`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rlaif.cli.options import (
    data_options,
    engine_options,
    json_option,
    objectives_option,
    progress,
    rationale_options,
    starter_note,
    update_option,
)
from rlaif.cli.score import scoring_progress

_JUDGE = (
    "constitution",
    "template",
    "orders",
    "objectives",
    "temperature",
    "max_tokens",
    "engine",
    "base_url",
    "concurrency",
    "engine_args",
    "update",
)


def read_rules(ctx: click.Context, param: click.Parameter, value: str | None) -> list[str] | None:
    """Read `RULE,…`."""
    if value is None:
        return None
    found = [name for name in (part.strip() for part in value.split(",")) if name]
    if not found:
        raise click.BadParameter("no rule; expected some, as weighted,worst-member.")
    return list(dict.fromkeys(found))


@click.command("overoptimize", short_help="See where more optimisation stops helping.")
@click.argument("candidates")
@click.option("--proxy", required=True, metavar="HEADS", help="The reward that is optimised: trained heads.")
@click.option(
    "--gold",
    required=True,
    metavar="HEADS|FILE|RUN|JUDGE",
    help="What is really wanted: other heads; a file of scores, as rlaif score writes; labels of pairs of candidates; "
    "or a judge (starter, a path or hub id), which compares each candidate with the first.",
)
@click.option(
    "--max-n", type=click.IntRange(3), metavar="N", help="Largest n; what 9 of 10 prompts have candidates for."
)
@click.option(
    "--rules",
    metavar="RULE,…",
    callback=read_rules,
    help="weighted, pareto, lower-bound, worst-member, or objectives; the first is what others are held against. "
    "Default: all that the heads allow.",
)
@click.option(
    "--k", type=click.FloatRange(0), default=1.0, show_default=True, help="Deviations that lower-bound takes off."
)
@click.option(
    "--resamples", type=click.IntRange(0), default=1000, show_default=True, help="Of the bootstrap; 0 for none."
)
@click.option("--html", metavar="FILE", help="Write a report page with pictures.")
@click.option(
    "--run",
    metavar="FOLDER",
    help="Where a judge's answers are kept; the same command again continues. Default: beside --html, else CANDIDATES.",
)
@click.option("--constitution", default="hhh", show_default=True, metavar="NAME|FILE", help="Of a judge.")
@click.option("--template", default="pairwise-cot", show_default=True, metavar="NAME|FILE", help="Of a judge.")
@click.option(
    "--orders",
    type=click.Choice(["both", "ab"]),
    default="both",
    show_default=True,
    help="A judge is asked with the responses in both places, or one.",
)
@objectives_option
@rationale_options
@update_option
@click.option("--device", metavar="cpu|cuda|…", help="Of heads: the GPU where there is one, else the CPU.")
@data_options
@engine_options
@json_option
def overoptimize_command(
    candidates: str, proxy: str, gold: str, html: str | None, run: str | None, as_json: bool, **options: Any
) -> None:
    """Where does more optimisation stop helping? Follows proxy and gold over the best of n = 1, 2, … responses.

    CANDIDATES holds prompts with many responses each, as rlaif generate --n 64 writes them, or OUT.candidates.jsonl of
    rlaif reward best-of-n. The best of n is computed from all candidates without drawing, for each rule that picks.
    Gold is fitted by R = d (alpha - beta d), d the root of the KL (Gao et al. 2023), with intervals over prompts; told
    are the n where gold is highest, which objectives are being gamed, and when to stop.

    \b
    Examples:
      rlaif reward overoptimize responses.jsonl --proxy heads --gold big-heads --html overoptimization.html
      rlaif reward overoptimize responses.jsonl --proxy heads --gold starter --constitution hhh --json
    """
    from rlaif.files import check_output
    from rlaif.optimize.overoptimize import overoptimize

    if html is not None:
        read = [candidates, *(each for each in (proxy, gold) if Path(each).exists())]
        check_output("--html", Path(html), read)
    folder = Path(run) if run is not None else _run_folder(Path(html or candidates))
    judge = {name: options.pop(name) for name in _JUDGE}
    judge["seed"] = options["seed"]
    note = starter_note({"judge": gold, "base_url": judge["base_url"]}) if not Path(gold).exists() else None
    with progress("comparisons", note) as watch_judge, scoring_progress() as watch:
        found = overoptimize(
            candidates, proxy=proxy, gold=gold, judge=judge, run=folder, watch=watch, watch_judge=watch_judge, **options
        )
    if html is not None:
        from rlaif.optimize.overoptimize_report import write_report

        write_report(Path(html), found)
    if as_json:
        click.echo(found.model_dump_json())
    else:
        from rlaif.cli.overoptimize_table import overoptimization_shown

        for line in overoptimization_shown(found):
            click.echo(line)
    if html is not None:
        click.echo(f"Report: {html}", err=True)


def _run_folder(beside: Path) -> Path:
    return beside.with_name(f"{beside.name.partition('.')[0]}.gold")
