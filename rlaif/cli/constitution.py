"""`rlaif constitution`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rlaif.cli.lazy import LazyGroup
from rlaif.cli.options import counted, json_option
from rlaif.cli.words import marked, value, word
from rlaif.errors import InputError

if TYPE_CHECKING:
    from rlaif.constitution import Constitution, Principle

_COMMANDS = {
    "lint": ("rlaif.cli.lint", "lint_constitutions", "Print every problem of constitutions, with file and line."),
    "show": (__name__, "constitution_show", "Print a constitution: objectives, weights, principles."),
    "diff": (__name__, "constitution_diff", "Print what changed between two, and which labels flip."),
    "test": ("rlaif.cli.cases", "test_constitution", "Ask a judge each principle's own cases."),
    "new": ("rlaif.cli.new", "new_constitution", "Write a new constitution after a few questions."),
    "set": ("rlaif.cli.edit", "set_constitution", "Change single values of a file; all else in it stays."),
    "schema": ("rlaif.cli.new", "constitution_schema", "Print the JSON Schema that editors check the YAML with."),
}


@click.group("constitution", cls=LazyGroup, places=_COMMANDS)
def constitution_group() -> None:
    """Write, check, test and compare constitutions."""


@click.command("show")
@click.argument("name", metavar="NAME|FILE")
@json_option
def constitution_show(name: str, as_json: bool) -> None:
    """Print a constitution: its objectives, weights and principles with their ids.

    \b
    Example:
      rlaif constitution show hhh
    """
    from rlaif.constitution import load_constitution

    constitution = load_constitution(name)
    if as_json:
        found = {**constitution.model_dump(mode="json"), "digest": constitution.digest}
        click.echo(json.dumps(found, ensure_ascii=False))
        return
    for line in _shown(constitution):
        click.echo(line)


@click.command("diff")
@click.argument("old")
@click.argument("new")
@click.argument("runs", nargs=-1, metavar="[OLD_RUN NEW_RUN]")
@click.option("--human", metavar="FILE", help="Human labels to hold both runs against, by majority, in McNemar's test.")
@click.option(
    "--show",
    "examples",
    type=click.IntRange(0),
    default=3,
    show_default=True,
    metavar="N",
    help="Print N of the flips with both rationales.",
)
@json_option
def constitution_diff(
    old: str, new: str, runs: tuple[str, ...], human: str | None, examples: int, as_json: bool
) -> None:
    """Print what changed from OLD to NEW, two constitutions by name or file.

    With OLD_RUN labelled under OLD and NEW_RUN under NEW, each a run's folder or a labels.jsonl: also which labels
    flip, in all and by tag, towards what, and by which edit. The share is that of the pairs with a preference for a or
    b in both runs. An update in the same folder replaces its labels.jsonl; copy it first (the copy holds no
    rationales).

    McNemar's test asks whether the flips lean to one side: to what people prefer with --human, else to the responses
    that the data calls chosen, else to the longer ones. Which edit moved most is told by principle where both runs are
    folders made with --principles sample, else by objective.

    \b
    Examples:
      rlaif constitution diff hhh my.yaml
      rlaif constitution diff hhh my.yaml runs/hhh runs/mine --human human.jsonl
      cp runs/first/labels.jsonl before.jsonl
      rlaif label pairs.jsonl --constitution my.yaml --out runs/first --update
      rlaif constitution diff hhh my.yaml before.jsonl runs/first
    """
    from rlaif.constitution import load_constitution
    from rlaif.constitution.diff import diff_constitutions

    if len(runs) not in (0, 2):
        given = counted(len(runs), "run")
        raise InputError(f"{given} given; give none or two, the one labelled under {old} and the one under {new}.")
    if human is not None and not runs:
        raise InputError("--human: there are no labels to hold against it; give OLD_RUN and NEW_RUN as well.")
    before, after = load_constitution(old), load_constitution(new)
    changes = diff_constitutions(before, after)
    flips = None
    if runs:
        from rlaif.labeling.flips import compare_runs

        flips = compare_runs(Path(runs[0]), Path(runs[1]), before, after, human=human, examples=examples)
    if as_json:
        found = {**changes.model_dump(mode="json"), "flips": flips.model_dump(mode="json") if flips else None}
        click.echo(json.dumps(found, ensure_ascii=False))
        return
    from rlaif.cli.diff_report import changed

    lines = [*changed(changes)]
    if flips is not None:
        from rlaif.cli.flips_report import flipped

        lines += flipped(flips)
    for line in lines:
        click.echo(line)


def _shown(constitution: Constitution) -> Iterator[str]:
    yield f"{constitution.reference}, version {word(constitution.version)}"
    yield from marked("", constitution.description)
    for name, objective in constitution.objectives.items():
        yield ""
        yield from marked("", f"{name}, weight {value(objective.weight)}: {objective.question}")
        for principle in objective.principles:
            yield from marked("  ", f"{principle.id}{_weight(principle)}: {principle.text}")
    rule = constitution.aggregation
    yield ""
    yield f"aggregation: {rule.method}"
    if rule.floors:
        yield f"  floors: {value(rule.floors)}"
    for tag, weights in rule.by_tag.items():
        yield f"  by_tag {word(tag)}: {value(weights)}"


def _weight(principle: Principle) -> str:
    if principle.weight == 0:
        return " (turned off)"
    return "" if principle.weight == 1 else f" (weight {value(principle.weight)})"
