"""`rlaif constitution`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rlaif.cli.options import counted, json_option
from rlaif.errors import InputError

if TYPE_CHECKING:
    from rlaif.constitution import Constitution, Principle
    from rlaif.constitution.diff import Change, ConstitutionDiff, ObjectiveDiff, Value
    from rlaif.labeling.flips import LabelFlips, RunFlips

_IDS_SHOWN = 5
_COLUMNS = ("compared", "flipped", "share", "to tie", "from tie", "lost", "gained")


@click.group("constitution", short_help="Look at constitutions and what changed in them.")
def constitution_group() -> None:
    """Look at constitutions and what changed in them."""


@constitution_group.command("show")
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
        value = {**constitution.model_dump(mode="json"), "digest": constitution.digest}
        click.echo(json.dumps(value, ensure_ascii=False))
        return
    for line in _shown(constitution):
        click.echo(line)


@constitution_group.command("diff")
@click.argument("old")
@click.argument("new")
@click.argument("runs", nargs=-1, metavar="[OLD_RUN NEW_RUN]")
@json_option
def constitution_diff(old: str, new: str, runs: tuple[str, ...], as_json: bool) -> None:
    """Print what changed from OLD to NEW, two constitutions by name or file.

    With OLD_RUN labelled under OLD and NEW_RUN under NEW, each a run's folder or a labels.jsonl: also which labels
    flip. An update in the same folder replaces its labels.jsonl; copy it first. The share is that of the pairs with
    a preference for a or b in both runs.

    \b
    Examples:
      rlaif constitution diff hhh my.yaml
      cp runs/first/labels.jsonl before.jsonl
      rlaif label pairs.jsonl --constitution my.yaml --out runs/first --update
      rlaif constitution diff hhh my.yaml before.jsonl runs/first
    """
    from rlaif.constitution import load_constitution
    from rlaif.constitution.diff import diff_constitutions

    if len(runs) not in (0, 2):
        given = counted(len(runs), "run")
        raise InputError(f"{given} given; give none or two, the one labelled under {old} and the one under {new}.")
    before, after = load_constitution(old), load_constitution(new)
    changes = diff_constitutions(before, after)
    flips = None
    if runs:
        from rlaif.labeling.flips import compare_runs

        flips = compare_runs(Path(runs[0]), Path(runs[1]), before, after)
    if as_json:
        value = {**changes.model_dump(mode="json"), "flips": flips.model_dump(mode="json") if flips else None}
        click.echo(json.dumps(value, ensure_ascii=False))
        return
    for line in (*_changed(changes), *(_flipped(flips) if flips else ())):
        click.echo(line)


def _shown(constitution: Constitution) -> Iterator[str]:
    yield f"{constitution.reference}, version {_word(constitution.version)}"
    yield from _marked("", constitution.description)
    for name, objective in constitution.objectives.items():
        yield ""
        yield from _marked("", f"{name}, weight {_value(objective.weight)}: {objective.question}")
        for principle in objective.principles:
            yield from _marked("  ", f"{principle.id}{_weight(principle)}: {principle.text}")
    rule = constitution.aggregation
    yield ""
    yield f"aggregation: {rule.method}"
    if rule.floors:
        yield f"  floors: {_value(rule.floors)}"
    for tag, weights in rule.by_tag.items():
        yield f"  by_tag {_word(tag)}: {_value(weights)}"


def _weight(principle: Principle) -> str:
    if principle.weight == 0:
        return " (turned off)"
    return "" if principle.weight == 1 else f" (weight {_value(principle.weight)})"


def _changed(diff: ConstitutionDiff) -> Iterator[str]:
    yield f"{diff.old} -> {diff.new}"
    if diff.same:
        yield "No change: both hold the same rules."
    for change in diff.about:
        yield _line(change)
    for name, objective in diff.objectives.items():
        fate = "added" if name in diff.objectives_added else "removed" if name in diff.objectives_removed else ""
        yield f"{name}: {fate}" if fate else f"{name}:"
        yield from _changed_objective(objective)
    if diff.aggregation:
        yield "aggregation:"
    for change in diff.aggregation:
        yield f"  {_line(change)}"


def _changed_objective(diff: ObjectiveDiff) -> Iterator[str]:
    if diff.weight:
        yield f"  {_line(diff.weight)}"
    if diff.question:
        yield "  question"
        yield from _both_texts(diff.question)
    for word, mark, rules in (("removed", "-", diff.removed), ("added", "+", diff.added)):
        for rule in rules:
            yield f"  {rule.id} {word}{'' if rule.weight == 1 else f', weight {_value(rule.weight)}'}"
            yield from _marked(f"    {mark} ", rule.text)
    for change in diff.reworded:
        yield f"  {change.what} reworded"
        yield from _both_texts(change)
    for change in diff.reweighted:
        yield f"  {change.what} reweighted: {_value(change.before)} -> {_value(change.after)}"
    for name, fields in diff.annotated.items():
        yield f"  {name}: other {', '.join(fields)} (not shown to a judge)"
    if diff.order:
        yield f"  principles in another order: {_value(diff.order.before)} -> {_value(diff.order.after)}"


def _line(change: Change) -> str:
    return f"{_word(change.what)}: {_value(change.before)} -> {_value(change.after)}"


def _both_texts(change: Change) -> Iterator[str]:
    for mark, text in (("-", change.before), ("+", change.after)):
        if text is not None:
            yield from _marked(f"    {mark} ", str(text))


def _marked(mark: str, text: str) -> Iterator[str]:
    """The lines of a text, each behind the mark; what a terminal would obey is escaped."""
    for line in text.splitlines():
        yield mark + "".join(char if char.isprintable() or char == "\t" else ascii(char)[1:-1] for char in line)


def _value(value: Value | Sequence[str]) -> str:
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.12g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_value(number)}" for name, number in value.items()) or "no weights"
    return _word(value) if isinstance(value, str) else ", ".join(map(_word, value))


def _word(text: str) -> str:
    """A text of the user's within a line: quoted where it holds what would break the line or the terminal."""
    return text if text.isprintable() and text else json.dumps(text)


def _flipped(flips: RunFlips) -> Iterator[str]:
    yield ""
    apart = ((flips.only_old, "only in OLD_RUN"), (flips.only_new, "only in NEW_RUN"))
    notes = [f"{number:,} {where}" for number, where in apart if number]
    if flips.other_content:
        notes.append(f"{flips.other_content:,} with other texts under the same id")
    yield "; ".join([f"{counted(flips.pairs, 'pair')} in both runs", *notes])
    for change in flips.made_with:
        yield f"another {_line(change)}; flips are not from the constitution alone"
    for where, names in (("OLD_RUN", flips.objectives_only_old), ("NEW_RUN", flips.objectives_only_new)):
        if names:
            yield f"labelled in {where} only: {', '.join(map(_word, names))}"
    rows = [*((_word(name), each) for name, each in flips.objectives.items()), ("overall", flips.overall)]
    wide = max(len(name) for name, _ in rows)
    yield " ".join([" " * wide, *(f"{column:>8}" for column in _COLUMNS)])
    for name, each in rows:
        yield " ".join([f"{name:{wide}}", *(f"{cell:>8}" for cell in _cells(each))])
    for name, each in rows:
        moves = (("flipped", each.flipped_ids), ("to tie", each.became_tie_ids), ("from tie", each.left_tie_ids))
        for what, ids in moves:
            if ids:
                yield f"{name} {what}: {_some(ids)}"


def _cells(flips: LabelFlips) -> tuple[str, ...]:
    share = "-" if flips.flipped_share is None else f"{flips.flipped_share:.1%}"
    counts = (flips.became_tie, flips.left_tie, flips.lost, flips.gained)
    return (f"{flips.compared:,}", f"{flips.flipped:,}", share, *(f"{count:,}" for count in counts))


def _some(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - _IDS_SHOWN:,} more (all with --json)" if len(ids) > _IDS_SHOWN else ""
    return ", ".join(map(_word, ids[:_IDS_SHOWN])) + more
