"""How the difference of two constitutions looks in a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rlaif.cli.words import marked, value, word
from rlaif.constitution.diff import Change, ConstitutionDiff, ObjectiveDiff


def changed(diff: ConstitutionDiff) -> Iterator[str]:
    """Lines that say what changed, objective by objective."""
    yield f"{diff.old} -> {diff.new}"
    if diff.same:
        yield "No change: both hold the same rules."
    for change in diff.about:
        yield changed_line(change)
    for name, objective in diff.objectives.items():
        fate = "added" if name in diff.objectives_added else "removed" if name in diff.objectives_removed else ""
        yield f"{name}: {fate}" if fate else f"{name}:"
        yield from _changed_objective(objective)
    if diff.aggregation:
        yield "aggregation:"
    for change in diff.aggregation:
        yield f"  {changed_line(change)}"


def _changed_objective(diff: ObjectiveDiff) -> Iterator[str]:
    if diff.weight:
        yield f"  {changed_line(diff.weight)}"
    if diff.question:
        yield "  question"
        yield from _both_texts(diff.question)
    for fate, mark, rules in (("removed", "-", diff.removed), ("added", "+", diff.added)):
        for rule in rules:
            yield f"  {rule.id} {fate}{'' if rule.weight == 1 else f', weight {value(rule.weight)}'}"
            yield from marked(f"    {mark} ", rule.text)
    for change in diff.reworded:
        yield f"  {change.what} reworded"
        yield from _both_texts(change)
    for change in diff.reweighted:
        yield f"  {change.what} reweighted: {value(change.before)} -> {value(change.after)}"
    for name, fields in diff.annotated.items():
        yield f"  {name}: other {', '.join(fields)} (not shown to a judge)"
    if diff.order:
        yield f"  principles in another order: {value(diff.order.before)} -> {value(diff.order.after)}"


def changed_line(change: Change) -> str:
    """One change within a line."""
    return f"{word(change.what)}: {value(change.before)} -> {value(change.after)}"


def _both_texts(change: Change) -> Iterator[str]:
    for mark, text in (("-", change.before), ("+", change.after)):
        if text is not None:
            yield from marked(f"    {mark} ", str(text))
