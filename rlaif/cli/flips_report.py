"""How the flips between two runs look in a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from rlaif.cli.diff_report import changed_line
from rlaif.cli.options import counted
from rlaif.cli.words import aligned, cut, marked, number, p_value, share, word
from rlaif.labeling.flip_examples import Example, Told
from rlaif.labeling.flip_groups import MOST_GROUPS, TagFlips, TagGroups
from rlaif.labeling.flips import LabelFlips, RunFlips
from rlaif.labeling.movers import Cause, Mover
from rlaif.labeling.references import McNemarTest, ReferenceTests
from rlaif.types import TagValue

_IDS_SHOWN = 5
_TEXT_SHOWN = 300
_RATIONALE_SHOWN = 600
_COLUMNS = ("compared", "flipped", "share", "to tie", "from tie", "lost", "gained")
_PLACES = {"ab": "a shown first", "ba": "b shown first"}


def flipped(flips: RunFlips) -> Iterator[str]:
    """Lines that say which labels flipped, where, towards what, by which edit, with examples."""
    yield ""
    yield from _matched(flips)
    rows = [*((word(name), each) for name, each in flips.objectives.items()), ("overall", flips.overall)]
    wide = max(len(name) for name, _ in rows)
    yield " ".join([" " * wide, *(f"{column:>8}" for column in _COLUMNS)])
    for name, each in rows:
        yield " ".join([f"{name:{wide}}", *(f"{cell:>8}" for cell in _cells(each))])
    for name, each in rows:
        moves = (("flipped", each.flipped_ids), ("to tie", each.became_tie_ids), ("from tie", each.left_tie_ids))
        for what, ids in moves:
            if ids:
                yield f"{name} {what}: {_some(ids)}"
    yield from _by_tag(flips.by_tag, list(flips.objectives))
    yield from _mcnemar(flips.mcnemar)
    yield from _moved(flips)
    yield from _examples(flips.examples)


def _matched(flips: RunFlips) -> Iterator[str]:
    apart = ((flips.only_old, "only in OLD_RUN"), (flips.only_new, "only in NEW_RUN"))
    notes = [f"{number:,} {where}" for number, where in apart if number]
    if flips.other_content:
        notes.append(f"{flips.other_content:,} with other texts under the same id")
    yield "; ".join([f"{counted(flips.pairs, 'pair')} in both runs", *notes])
    for change in flips.made_with:
        yield f"another {changed_line(change)}; flips are not from the constitution alone"
    for setting in flips.other_settings:
        yield f"another setting, {word(setting)}; flips are not from the constitution alone"
    for where, names in (("OLD_RUN", flips.objectives_only_old), ("NEW_RUN", flips.objectives_only_new)):
        if names:
            yield f"labelled in {where} only: {', '.join(map(word, names))}"


def _cells(flips: LabelFlips) -> tuple[str, ...]:
    counts = (flips.became_tie, flips.left_tie, flips.lost, flips.gained)
    return (f"{flips.compared:,}", f"{flips.flipped:,}", share(flips.flipped_share), *(f"{one:,}" for one in counts))


def _some(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - _IDS_SHOWN:,} more (all with --json)" if len(ids) > _IDS_SHOWN else ""
    return ", ".join(map(word, ids[:_IDS_SHOWN])) + more


def _by_tag(tags: TagGroups, objectives: Sequence[str]) -> Iterator[str]:
    if not (tags.groups or tags.left_out):
        return
    yield ""
    yield "flipped by tag, of the pairs with a preference for a or b in both runs:"
    # The groups with the most pairs, in the order that keeps a tag's values together.
    largest = sorted(tags.groups, key=lambda group: -group.pairs)[:MOST_GROUPS]
    shown = [group for group in tags.groups if group in largest]
    if shown:
        head = ("tag", "pairs", *map(word, objectives), "overall")
        yield from aligned(head, [_group(group, objectives) for group in shown])
    if len(shown) < len(tags.groups):
        yield f"and {len(tags.groups) - len(shown):,} smaller groups (all with --json)"
    if tags.left_out:
        yield f"left out, over {MOST_GROUPS} values each: {', '.join(map(word, tags.left_out))}"


def _group(group: TagFlips, objectives: Sequence[str]) -> tuple[str, ...]:
    counts = [*(group.objectives.get(name) for name in objectives), group.overall]
    cells = (f"{each.flipped:,}/{each.decided:,} {share(each.flipped_share):>6}" if each else "-" for each in counts)
    return (f"{word(group.tag)}: {_tag_value(group.value)}", f"{group.pairs:,}", *cells)


def _tag_value(given: TagValue) -> str:
    return cut(word(given), 40) if isinstance(given, str) else json.dumps(given)


def _mcnemar(tests: ReferenceTests) -> Iterator[str]:
    yield ""
    if tests.reference == "human":
        people = counted(tests.annotators or 0, "annotator")
        yield f"McNemar's test against {tests.source} ({people}): is the label what most people prefer?"
    elif tests.reference == "chosen":
        yield "McNemar's test against the chosen responses of the data (tag chosen): is the label the chosen one?"
    else:
        yield "McNemar's test against length: is the label the longer response? (For right and wrong, --human FILE.)"
    rows = [*tests.objectives.items(), ("overall", tests.overall)]
    head = ("", "pairs", "old yes", "new yes", "only old", "only new", "exact p", "mid-p")
    yield from aligned(head, [(word(name), *_test(test)) for name, test in rows])


def _test(test: McNemarTest) -> tuple[str, ...]:
    yes = (share(count / test.pairs if test.pairs else None) for count in (test.old_yes, test.new_yes))
    p_values = (p_value(test.p_exact), p_value(test.p_mid))
    return (f"{test.pairs:,}", *yes, f"{test.only_old:,}", f"{test.only_new:,}", *p_values)


def _moved(flips: RunFlips) -> Iterator[str]:
    if not flips.moved:
        return
    yield ""
    yield "moved most, by the mean of |new p_a - old p_a|:"
    head = ("objective", "edit", "shift", "over", "flips")
    total = sum(each.flipped for each in flips.objectives.values())
    yield from aligned(head, [_mover(mover, total) for mover in flips.moved], left=2)
    edited = {mover.objective for mover in flips.moved}
    others = [(name, each.mean_shift) for name, each in flips.objectives.items() if name not in edited]
    moved = [f"{word(name)} {number(shift)}" for name, shift in others if shift is not None and shift >= 0.0005]
    if moved:
        yield f"with no edit that moved it: {', '.join(moved)}; so much the judge differs from run to run"


def _mover(mover: Mover, flips: int) -> tuple[str, ...]:
    noun = mover.basis.removesuffix("s")
    cells = (number(mover.mean_shift), counted(mover.compared, noun), f"{mover.flipped:,} of {flips:,}")
    named = ", ".join(map(_cause, mover.causes))
    return (word(mover.objective), named if len(mover.causes) == 1 else f"several changed together: {named}", *cells)


def _cause(cause: Cause) -> str:
    if cause.principle is not None:
        return f"{cause.principle} {cause.change}"
    return "question reworded" if cause.change == "question" else "principles in another order"


def _examples(examples: Sequence[Example]) -> Iterator[str]:
    for place, example in enumerate(examples, 1):
        yield ""
        yield f"flip {place} of {len(examples)} shown: {word(example.id)}, {_what(example)}"
        for turn in example.prompt:
            yield f"  {turn.role}: {cut(turn.content, _TEXT_SHOWN)}"
        yield f"  response a: {cut(example.response_a, _TEXT_SHOWN)}"
        yield f"  response b: {cut(example.response_b, _TEXT_SHOWN)}"
        if example.objective is not None:
            yield from _told("old", example.old)
            yield from _told("new", example.new)


def _what(example: Example) -> str:
    sides = [f"{told.preference} (p_a {number(told.p_a)})" for told in (example.old, example.new)]
    of = "overall, by the aggregation alone" if example.objective is None else word(example.objective)
    return f"{of}: {' -> '.join(sides)}"


def _told(run: str, told: Told) -> Iterator[str]:
    if told.judgments is None:
        yield f"  {run}: no rationales at hand (a labels.jsonl holds none; give the run's folder)"
        return
    first = min((said.sample for said in told.judgments), default=0)
    for said in told.judgments:
        if said.sample == first:
            by = f", by {said.principle}" if said.principle else ""
            read = f"rating {number(said.rating, 1)}" if said.rating is not None else f"p_a {number(said.p_a)}"
            place = ("of a", "of b")[said.order == "ba"] if said.rating is not None else _PLACES[said.order]
            told_line = cut(said.rationale, _RATIONALE_SHOWN) if said.rationale else f"(no rationale, {said.status})"
            yield from marked("", f"  {run}, {place}{by}, {read}: {told_line}")
