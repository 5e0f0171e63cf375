"""`rlaif prompt`."""

from __future__ import annotations

import json
from typing import Any

import click

from rlaif.cli.lazy import LazyGroup
from rlaif.cli.options import data_options, json_option
from rlaif.errors import InputError

_COMMANDS = {
    "lint": ("rlaif.cli.lint", "lint_prompts", "Print every problem of templates, with file and line."),
    "show": (__name__, "prompt_show", "Print the exact messages a template makes of one pair."),
}


@click.group("prompt", cls=LazyGroup, places=_COMMANDS)
def prompt_group() -> None:
    """Check templates, and look at the prompts a judge reads."""


@click.command("show")
@click.argument("template")
@click.option("--constitution", default="hhh", show_default=True, metavar="NAME|FILE")
@click.option("--pair", "pairs", required=True, metavar="FILE", help="A file of pairs; the first is shown, or --id.")
@click.option("--id", "pair_id", help="Show the pair with this id.")
@click.option("--objective", "objectives", multiple=True, metavar="NAME", help="Only this objective; repeatable.")
@click.option("--order", type=click.Choice(["ab", "ba"]), default="ab", show_default=True)
@data_options
@json_option
def prompt_show(
    template: str,
    constitution: str,
    pairs: str,
    pair_id: str | None,
    objectives: tuple[str, ...],
    order: str,
    as_json: bool,
    **data: Any,
) -> None:
    """Print the exact messages that TEMPLATE makes of one pair, for each objective.

    \b
    Example:
      rlaif prompt show pairwise-cot --constitution hhh --pair pairs.jsonl --objective honesty
    """
    from rlaif.data.pairs import Reject
    from rlaif.engines.base import ModelIdentity
    from rlaif.labeling.api import label_settings
    from rlaif.labeling.run import LabelRun

    settings = label_settings(pairs, ".", constitution=constitution, template=template, objectives=objectives, **data)
    run = LabelRun(settings)
    usable = (row[1] for row in run.rows() if not isinstance(row, Reject))
    pair = next((pair for pair in usable if pair_id in (None, pair.id)), None)
    if pair is None:
        raise InputError(f"{pairs}: holds no usable pair{f' with id {pair_id!r}' if pair_id else ''}.")
    planner = run.planner(ModelIdentity(name="", digest=""))
    requests = [request for request in planner.requests(pair) if request.order == order]
    if as_json:
        click.echo(json.dumps([request.model_dump() for request in requests], ensure_ascii=False))
        return
    for request in requests:
        click.secho(f"=== {request.objective}, order {request.order}", bold=True)
        for turn in request.messages:
            click.secho(f"--- {turn.role}", bold=True)
            click.echo(turn.content)
        given = "the judge writes its rationale, then:" if request.rationale is None else "read at once:"
        click.secho(f"--- assistant ({given})", bold=True)
        click.echo(f"{request.verdict_prefix} {' or '.join(request.choices)}")
