"""`rlaif prompt`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from rlaif.cli.lazy import LazyGroup
from rlaif.cli.options import data_options, json_option, objectives_option
from rlaif.errors import InputError, nearest

if TYPE_CHECKING:
    from rlaif.labeling.run import LabelRun
    from rlaif.prompts import Template
    from rlaif.types import Message, Pair

_JUDGE = "pairwise-cot"
_NO_CRITIQUE = "(the judge's critique; give one with --critique)"
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
@objectives_option
@click.option(
    "--order",
    type=click.Choice(["ab", "ba"]),
    default="ab",
    show_default=True,
    help="Which response is shown first; a critique or a revision is of that one.",
)
@click.option(
    "--principle", "principles", multiple=True, metavar="ID", help="Critique, revision: only by this one; repeatable."
)
@click.option("--critique", metavar="TEXT", help="Revision: the critique to show in it.")
@data_options
@json_option
def prompt_show(
    template: str,
    constitution: str,
    pairs: str,
    pair_id: str | None,
    objectives: tuple[str, ...],
    order: str,
    principles: tuple[str, ...],
    critique: str | None,
    as_json: bool,
    **data: Any,
) -> None:
    """Print the exact messages that TEMPLATE makes of one pair, for each objective.

    A critique or a revision is shown for each principle, with response_a.

    \b
    Examples:
      rlaif prompt show pairwise-cot --constitution hhh --pair pairs.jsonl --objective honesty
      rlaif prompt show revision --pair pairs.jsonl --principle no-cruelty --critique "It mocks the person."
    """
    from rlaif.labeling.api import label_settings
    from rlaif.labeling.run import LabelRun
    from rlaif.prompts import load_template

    found = load_template(template)
    judges = found.head.kind in ("comparison", "rating")
    if judges and principles:
        raise InputError(f"--principle: a {found.head.kind} shows all of an objective; give --objective.")
    if found.head.kind != "revision" and critique is not None:
        raise InputError(f"--critique: a {found.head.kind} shows none; leave it out, or give a template of a revision.")
    # The data is read as rlaif label reads it, whatever the template.
    judge = template if judges else _JUDGE
    run = LabelRun(label_settings(pairs, ".", constitution=constitution, template=judge, objectives=objectives, **data))
    pair = _pair(run, pairs, pair_id)
    if judges:
        _show_verdicts(run, pair, order, as_json)
    else:
        text = _NO_CRITIQUE if critique is None else critique
        _show_texts(run, found, pair if order == "ab" else pair.swap(), principles, text, as_json)


def _pair(run: LabelRun, name: str, pair_id: str | None) -> Pair:
    from rlaif.data.pairs import Reject

    usable = (row[1] for row in run.rows() if not isinstance(row, Reject))
    pair = next((pair for pair in usable if pair_id in (None, pair.id)), None)
    if pair is None:
        raise InputError(f"{name}: holds no usable pair{f' with id {pair_id!r}' if pair_id else ''}.")
    return pair


def _show_verdicts(run: LabelRun, pair: Pair, order: str, as_json: bool) -> None:
    from rlaif.engines.base import ModelIdentity

    planner = run.planner(ModelIdentity(name="", digest=""))
    requests = [request for request in planner.requests(pair) if request.order == order]
    if as_json:
        click.echo(json.dumps([request.model_dump() for request in requests], ensure_ascii=False))
        return
    for request in requests:
        _show(f"{request.objective}, order {request.order}", request.messages)
        given = "the judge writes its rationale, then:" if request.rationale is None else "read at once:"
        click.secho(f"--- assistant ({given})", bold=True)
        click.echo(f"{request.verdict_prefix} {' or '.join(request.choices)}")


def _show_texts(
    run: LabelRun, template: Template, pair: Pair, chosen: Sequence[str], critique: str, as_json: bool
) -> None:
    kind = template.head.kind
    rules = [(name, rule) for name in run.objectives for rule in run.constitution.objectives[name].active]
    known = [rule.id for _, rule in rules]
    for name in chosen:
        if name not in known:
            fact = f"--principle {name}: not one that counts here; there are {', '.join(known)}."
            raise InputError(fact + nearest(name, known))
    shown = [
        (name, rule.id, template.request(pair.prompt, pair.response_a, rule.text, critique))
        for name, rule in rules
        if not chosen or rule.id in chosen
    ]
    if as_json:
        rows = [
            {"objective": name, "principle": rule, "messages": [turn.model_dump() for turn in messages]}
            for name, rule, messages in shown
        ]
        click.echo(json.dumps(rows, ensure_ascii=False))
        return
    for name, rule, messages in shown:
        _show(f"{kind} by {rule} ({name})", messages)
        click.secho(f"--- assistant (writes its {kind})", bold=True)


def _show(title: str, messages: Sequence[Message]) -> None:
    click.secho(f"=== {title}", bold=True)
    for turn in messages:
        click.secho(f"--- {turn.role}", bold=True)
        click.echo(turn.content)
