"""`rlaif reward probe`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from rlaif.cli.options import (
    counted,
    data_options,
    engine_options,
    json_option,
    objectives_option,
    progress,
    rationale_options,
    starter_note,
)
from rlaif.cli.score import scoring_progress

if TYPE_CHECKING:
    from rlaif.optimize.probe_results import ProbeReport

_DATA = ("columns", "split", "config", "limit")
_RULE = ("only", "skip", "objectives", "max_shift", "max_flips", "max_missed", "min_prompts")
_HEADS = ("batch_tokens", "device")
_JUDGE = (
    *("out", "constitution", "template", "temperature", "max_tokens"),
    *("engine", "base_url", "concurrency", "engine_args", "seed"),
)


@click.command("probe", short_help="Change responses and see whether rewards move as they should.")
@click.argument("pairs", required=False)
@click.option("--heads", metavar="HEADS", help="Trained heads: a folder of rlaif train-heads, or a hub id.")
@click.option("--judge", metavar="starter|HUB_ID|PATH", help="A judge in place of heads.")
@click.option("--list", "listed", is_flag=True, help="List the changes, and what each is for.")
@click.option("--only", multiple=True, metavar="NAME", help="Only this change; repeatable.")
@click.option("--skip", multiple=True, metavar="NAME", help="All but this change; repeatable.")
@objectives_option
@click.option(
    "--max-shift",
    type=click.FloatRange(0),
    default=0.25,
    show_default=True,
    help="Most that the mean reward may move, in its deviations; of a judge in log-odds.",
)
@click.option(
    "--max-flips",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.1,
    show_default=True,
    help="Largest share of pairs that may turn.",
)
@click.option(
    "--max-missed",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.25,
    show_default=True,
    help="Largest share of responses made worse that need not lose by it.",
)
@click.option(
    "--min-prompts",
    type=click.IntRange(2),
    default=20,
    show_default=True,
    help="Fewest prompts with a change for it to be measured.",
)
@click.option("--batch-tokens", type=click.IntRange(1), metavar="N", help="Heads: tokens of a batch, padding counted.")
@click.option("--device", metavar="cpu|cuda|…", help="Heads: the GPU where there is one, else the CPU.")
@click.option("--constitution", default="hhh", show_default=True, metavar="NAME|FILE", help="Judge: what it goes by.")
@click.option(
    "--template", default="pairwise-cot", show_default=True, metavar="NAME|FILE", help="Judge: its prompt template."
)
@click.option("--out", metavar="FOLDER", help="Judge: keep all judgments; the same command again continues.")
@rationale_options
@engine_options
@data_options
@click.option("--html", metavar="FILE", help="Write a report page: pictures, tables, and responses to read.")
@json_option
def probe_command(
    pairs: str | None,
    heads: str | None,
    judge: str | None,
    listed: bool,
    html: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Do rewards follow what a response says, or how it looks? Changes the responses of PAIRS and measures.

    Some changes must not matter (spaces, a closing phrase, bold, typos), some must not gain (praise, repetition, a note
    to the grader), some must lose (no answer, a fact denied, harm added). PAIRS is any data that rlaif score takes.
    A shift has an interval by prompt; a pair turns where the losing response wins once it is changed.

    \b
    Exit code 1 where a change fails:
      shift            its interval lies wholly beyond --max-shift
      turned pairs     the interval of their share lies above --max-flips
      must lose        the interval of the share that does not, above --max-missed

    \b
    Examples:
      rlaif reward probe pairs.jsonl --heads heads --html probe.html
      rlaif reward probe pairs.jsonl --judge Qwen/Qwen3-8B --limit 100 --out probes
      rlaif reward probe --list
    """
    if listed:
        from rlaif.cli.probe_table import changes_shown

        click.echo("\n".join(changes_shown()).rstrip())
        return
    _check_usage(click.get_current_context(), pairs, heads, judge)
    assert pairs is not None, "checked"
    if html is not None:
        from rlaif.files import check_output

        check_output("--html", Path(html), [pairs])
    shared = {name: options[name] for name in (*_DATA, *_RULE)}
    if heads is not None:
        found = _probe_heads(pairs, heads, {**shared, **{name: options[name] for name in _HEADS}})
    else:
        assert judge is not None, "checked"
        found = _probe_judge(pairs, judge, {**shared, **{name: options[name] for name in _JUDGE}})
    if html is not None:
        from rlaif.optimize.probe_report import write_report

        write_report(found, Path(html))
    if as_json:
        click.echo(found.model_dump_json())
    else:
        _print(found)
        if html is not None:
            click.echo(f"Report: {html}", err=True)
    if found.failed:
        sys.exit(1)


def _check_usage(ctx: click.Context, pairs: str | None, heads: str | None, judge: str | None) -> None:
    if pairs is None:
        raise click.UsageError("Missing argument 'PAIRS'.")
    if (heads is None) == (judge is None):
        raise click.UsageError("give --heads HEADS or --judge MODEL, one of the two.")
    what, others = ("--heads", _JUDGE) if heads is not None else ("--judge", _HEADS)
    for param in ctx.command.params:
        if param.name in others and ctx.get_parameter_source(str(param.name)) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{param.opts[0]} does not go with {what}; drop one of them.")


def _probe_heads(pairs: str, heads: str, options: dict[str, Any]) -> ProbeReport:
    from rlaif.optimize.probe import probe_heads

    with scoring_progress() as watch:
        return probe_heads(pairs, heads, watch=watch, **options)


def _probe_judge(pairs: str, judge: str, options: dict[str, Any]) -> ProbeReport:
    from rlaif.optimize.probe_judge import probe_judge

    with progress("comparisons", starter_note({**options, "judge": judge})) as watch:
        return probe_judge(pairs, judge, watch=watch, **options)


def _print(found: ProbeReport) -> None:
    from rlaif.cli.probe_table import report_shown

    for line in report_shown(found):
        click.echo(line)
    if found.truncated:
        click.echo(
            f"Note: {counted(found.truncated, 'conversation')} cut to the longest length the heads take; the end, "
            "with the response, was kept.",
            err=True,
        )
