"""What changed between two constitutions. Pure; the difference is empty exactly when the digests are equal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rlaif.constitution.schema import Aggregation, Constitution, Objective, Principle
from rlaif.types import Frozen

Value = str | float | tuple[str, ...] | Mapping[str, float] | None


class Change(Frozen):
    """One thing before and after; `None` where it is not there. `what` is a field, or the id of a principle."""

    what: str
    before: Value
    after: Value


class Rule(Frozen):
    """A principle that stands in this objective in one of the two constitutions only."""

    id: str
    text: str
    weight: float


class ObjectiveDiff(Frozen):
    """What changed in one objective; of one that was added or removed, all of it.

    `annotated` names the principles of which a judge sees no change: their source, tags or cases differ.
    `order` holds the ids of the principles in both, where these stand in another order (a judge reads them in it).
    """

    weight: Change | None = None
    question: Change | None = None
    added: tuple[Rule, ...] = ()
    removed: tuple[Rule, ...] = ()
    reworded: tuple[Change, ...] = ()
    reweighted: tuple[Change, ...] = ()
    annotated: Mapping[str, tuple[str, ...]] = {}
    order: Change | None = None


class ConstitutionDiff(Frozen):
    """What changed between two constitutions.

    `old` and `new` are their references. `about` holds changes of name, version and description. `objectives` holds
    those that differ, the added and removed ones included.
    """

    old: str
    new: str
    same: bool
    about: tuple[Change, ...]
    objectives_added: tuple[str, ...]
    objectives_removed: tuple[str, ...]
    objectives: Mapping[str, ObjectiveDiff]
    aggregation: tuple[Change, ...]


def diff_constitutions(old: Constitution, new: Constitution) -> ConstitutionDiff:
    """Compare two constitutions, objectives by their name and principles by their id within an objective.

    A principle that moved to another objective is removed from the one and added to the other.
    """
    names = dict.fromkeys([*old.objectives, *new.objectives])
    objectives = {name: _objective(old.objectives.get(name), new.objectives.get(name)) for name in names}
    about = tuple(
        Change(what=field, before=getattr(old, field), after=getattr(new, field))
        for field in ("name", "version", "description")
        if getattr(old, field) != getattr(new, field)
    )
    return ConstitutionDiff(
        old=old.reference,
        new=new.reference,
        same=old.digest == new.digest,
        about=about,
        objectives_added=tuple(name for name in names if name not in old.objectives),
        objectives_removed=tuple(name for name in names if name not in new.objectives),
        objectives={name: each for name, each in objectives.items() if each != ObjectiveDiff()},
        aggregation=tuple(_aggregation(old.aggregation, new.aggregation)),
    )


def _objective(old: Objective | None, new: Objective | None) -> ObjectiveDiff:
    before = {rule.id: rule for rule in old.principles} if old else {}
    after = {rule.id: rule for rule in new.principles} if new else {}
    both = [(rule, after[rule.id]) for rule in before.values() if rule.id in after]
    annotated = {one.id: _annotations(one, other) for one, other in both}
    return ObjectiveDiff(
        weight=_change("weight", old.weight if old else None, new.weight if new else None),
        question=_change("question", old.question if old else None, new.question if new else None),
        added=tuple(_rule(rule) for rule in after.values() if rule.id not in before),
        removed=tuple(_rule(rule) for rule in before.values() if rule.id not in after),
        reworded=tuple(
            Change(what=one.id, before=one.text, after=other.text) for one, other in both if one.text != other.text
        ),
        reweighted=tuple(
            Change(what=one.id, before=one.weight, after=other.weight)
            for one, other in both
            if one.weight != other.weight
        ),
        annotated={name: fields for name, fields in annotated.items() if fields},
        order=_change("order", tuple(name for name in before if name in after), tuple(n for n in after if n in before)),
    )


def _change(what: str, before: Value, after: Value) -> Change | None:
    return Change(what=what, before=before, after=after) if before != after else None


def _rule(principle: Principle) -> Rule:
    return Rule(id=principle.id, text=principle.text, weight=principle.weight)


def _annotations(old: Principle, new: Principle) -> tuple[str, ...]:
    return tuple(field for field in ("source", "tags", "cases") if getattr(old, field) != getattr(new, field))


def _aggregation(old: Aggregation, new: Aggregation) -> Iterator[Change]:
    if old.method != new.method:
        yield Change(what="method", before=old.method, after=new.method)
    for name in dict.fromkeys([*old.floors, *new.floors]):
        if old.floors.get(name) != new.floors.get(name):
            yield Change(what=f"floors.{name}", before=old.floors.get(name), after=new.floors.get(name))
    for tag in dict.fromkeys([*old.by_tag, *new.by_tag]):
        if old.by_tag.get(tag) != new.by_tag.get(tag):
            yield Change(what=f"by_tag.{tag}", before=old.by_tag.get(tag), after=new.by_tag.get(tag))
    # The first tag that a pair carries decides, so the tags' order is a rule; the floors' is not.
    appended = [tag for tag in old.by_tag if tag in new.by_tag] + [tag for tag in new.by_tag if tag not in old.by_tag]
    if list(new.by_tag) != appended:
        yield Change(what="by_tag order", before=tuple(old.by_tag), after=tuple(new.by_tag))
