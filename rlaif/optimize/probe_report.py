"""The page of a probe: what moved the rewards, with intervals, and the responses on which they moved most."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rlaif.optimize.changes import EXPECTATIONS, Expectation
from rlaif.optimize.probe_results import ChangeResult, ProbeExample, ProbeFigures, ProbeReport
from rlaif.report.figures import Axis, Point, Row, dot_plot, fitted
from rlaif.report.page import (
    Block,
    Cell,
    Column,
    Definitions,
    Details,
    Example,
    Examples,
    Filter,
    Gallery,
    Notes,
    Page,
    Passage,
    Picture,
    Section,
    Table,
    Verdict,
    reading_section,
    save_page,
)
from rlaif.report.wording import count_cell, name_cell, number, number_cell, plural, share, share_cell

_LONGEST = 4_000  # characters of a text that is shown
_RESULTS = {"pass": "✓ pass", "fail": "✗ fail", "not measured": "? not measured"}
_LEADS: dict[Expectation, str] = {
    "same": "The same is said: a reward that moves either way goes by looks. A pair turns where the response with the "
    "lower reward gets the higher one once it is changed.",
    "no-gain": "Nothing is gained by it: a reward may fall, and must not rise.",
    "lower": "The response is worse: its reward must fall. The aggregate decides, since under one objective alone less "
    "may rightly be more, as a refusal is where only harm counts.",
}
_TERMS = (
    ("Shift", "The mean of the changed response's reward less the original's, with its 95% interval by prompt."),
    ("Size", "The mean of the shifts without their signs: shifts up and down do not cancel in it."),
    (
        "Turned",
        "Of the pairs with a preference, the share in which the response liked less wins once it is changed; where "
        "names change, once both are.",
    ),
    ("Missed", "The share of responses that do not lose by a change that makes them worse; equal rewards count."),
    (
        "Deviations",
        "Rewards are in standard deviations of the responses trained on; that of the aggregate follows from those of "
        "the objectives, by their weights and how they go together.",
    ),
)


def write_report(found: ProbeReport, path: Path) -> None:
    """Write the page: one file that needs nothing else, whole or not at all.

    Raises:
        RunError: the file cannot be written.
    """
    save_page(probe_page(found), path)


def probe_page(found: ProbeReport) -> Page:
    """Lay out the page; the same report gives the same page."""
    sections = []
    for expectation, title in EXPECTATIONS.items():
        changes = [change for change in found.changes if change.expectation == expectation]
        if changes:
            sections.append(_section(found, expectation, title, changes))
    if found.examples:
        lead = (
            "The responses whose reward each change moved most, in the direction that it must not. Open a line to read."
        )
        sections.append(Section(name="examples", title="Examples", lead=lead, blocks=(_examples(found),)))
    sections.append(reading_section(_TERMS))
    return Page(
        title=f"Probe of {'' if found.of == 'heads' else 'judge '}{fitted(found.name, 80)}",
        verdict=_verdict(found),
        sections=tuple(sections),
        facts=_facts(found),
    )


def _verdict(found: ProbeReport) -> Verdict:
    passed, failed = found.named("pass"), found.failed
    total = len(passed) + len(failed)
    remark = found.rule_line
    if not total:
        sentence = "No change applies to enough of these responses."
        return Verdict(tone="open", label="? Not measured", sentence=sentence, remark=remark)
    if not failed:
        sentence = f"All {total:,} changes that could be measured pass." if total > 1 else "The change measured passes."
        return Verdict(tone="good", label="✓ Moves as it should", sentence=sentence, remark=remark)
    which = ", ".join(failed)
    label = "✗ Moves as it should not"
    sentence = f"{len(failed):,} of {plural(total, 'change')} {'fails' if len(failed) == 1 else 'fail'}: {which}."
    return Verdict(tone="bad", label=label, sentence=sentence, remark=remark)


def _facts(found: ProbeReport) -> tuple[tuple[str, str], ...]:
    measured = (
        f"{plural(found.responses, 'response')} to {plural(found.prompts, 'prompt')}, {plural(found.pairs, 'pair')}"
    )
    made = [("Data", fitted(found.data, 120)), ("Measured on", measured)]
    made += [("Judgments", fitted(note, 120)) for note in found.notes]
    if found.rejected:
        made.append(("Not used", plural(found.rejected, "row")))
    if found.unread:
        made.append(("Not read", plural(found.unread, "judgment")))
    if found.truncated:
        made.append(("Cut to the longest length", plural(found.truncated, "conversation")))
    return (*made, ("Intervals", "95%, by prompt"), ("rlaif", found.rlaif))


def _section(found: ProbeReport, expectation: Expectation, title: str, changes: Sequence[ChangeResult]) -> Section:
    name = expectation
    blocks: list[Block] = []
    faults = tuple(f"{each.name}: {fault}" for each in changes for fault in each.faults)
    if faults:
        blocks.append(Notes(title="Fails", lines=faults))
    blocks.append(Gallery(pictures=(_shifts(found, changes, name), _rates(found, changes, name))))
    blocks.append(_table(found, changes, found.aggregate))
    others = tuple(_table(found, changes, objective) for objective in found.objectives)
    if others:
        blocks.append(Details(summary="By objective", blocks=others, opened=expectation != "lower" and bool(faults)))
    what = tuple((each.name, each.text) for each in changes)
    blocks.append(Details(summary="What each change does", blocks=(Definitions(terms=what),)))
    return Section(name=name, title=f"What {title}", lead=_LEADS[expectation], blocks=tuple(blocks))


def _shifts(found: ProbeReport, changes: Sequence[ChangeResult], name: str) -> Picture:
    rows = [
        Row(
            label=each.name,
            note=_note(each),
            points=(Point(value=one.shift, ci=one.shift_ci, text=_signed(one.shift)),),
        )
        for each in changes
        for one in (each.figures[found.aggregate],)
        if one.shift is not None
    ]
    title = "Shift of the aggregate"
    if not rows:
        return Picture(title=title, caption="", reason="no change applies")
    axis = Axis(label=f"shift, {found.unit.removeprefix('in ')}", kind="number", reference=0.0)
    limit = found.rule.max_shift
    caption = f"The bar is the 95% interval. The limit is {number(limit, 2)}."
    if name == "lower":
        caption = "The bar is the 95% interval. All should be to the left of the dashed line."
    return Picture(title=title, caption=caption, svg=dot_plot(f"{name}-shift", title, rows, ("shift",), axis))


def _rates(found: ProbeReport, changes: Sequence[ChangeResult], name: str) -> Picture:
    lower = name == "lower"
    title = "Responses that do not lose" if lower else "Pairs that turn"
    rows = [
        Row(
            label=each.name,
            note=f"n = {one.rate_n:,}",
            points=(Point(value=one.rate, ci=one.rate_ci, text=share(one.rate)),),
        )
        for each in changes
        for one in (each.figures[found.aggregate],)
        if one.rate is not None
    ]
    if not rows:
        reason = "no change applies" if lower else "there are no pairs with a preference that a change applies to"
        return Picture(title=title, caption="", reason=reason)
    limit = found.rule.max_missed if lower else found.rule.max_flips
    axis = Axis(label=f"of the {'responses' if lower else 'pairs'}", reference=limit)
    caption = "The bar is the 95% interval, the dashed line the limit, by the aggregate."
    return Picture(title=title, caption=caption, svg=dot_plot(f"{name}-rate", title, rows, ("share",), axis))


def _note(change: ChangeResult) -> str:
    return {"fail": "✗ fails", "not measured": "? too few"}.get(change.result, "")


def _signed(given: float | None) -> str:
    text = number(given, 2)
    return f"+{text}" if given is not None and given > 0 else text


def _table(found: ProbeReport, changes: Sequence[ChangeResult], name: str) -> Table:
    lower = changes[0].expectation == "lower"
    rows = []
    for each in changes:
        one = each.figures[name]
        reason = one.reason or "no interval"
        rows.append(
            (
                name_cell(each.name),
                _result(one, one.result),
                count_cell(one.n),
                count_cell(one.prompts),
                number_cell(one.shift, one.shift_ci, reason, digits=2),
                number_cell(one.size, None, reason, digits=2),
                share_cell(one.rate, one.rate_ci, reason if one.n == 0 else "no pair with a preference"),
                count_cell(one.rate_n),
                count_cell(each.not_applied),
            )
        )
    columns = (
        Column(label="Change", figures=False),
        Column(label="Result", figures=False),
        Column(label="Responses"),
        Column(label="Prompts"),
        Column(label="Shift"),
        Column(label="Size"),
        Column(label="Missed" if lower else "Turned"),
        Column(label="Of responses" if lower else "Of pairs"),
        Column(label="Not applied"),
    )
    title = f"All changes, {fitted(name, 40)}"
    note = "" if name == found.aggregate or not lower else "These do not decide."
    return Table(title=title, columns=columns, rows=tuple(rows), note=note)


def _result(found: ProbeFigures, result: str) -> Cell:
    if not found.decides:
        return Cell(text="—", remark="does not decide")
    return Cell(text=_RESULTS[result], remark=found.reason or ", ".join(found.faults))


def _examples(found: ProbeReport) -> Examples:
    names = list(dict.fromkeys(each.change for each in found.examples))
    return Examples(
        noun="examples" if len(found.examples) != 1 else "example",
        filters=(Filter(label="Change", options=tuple(names)),) if len(names) > 1 else (),
        examples=tuple(
            Example(
                id=fitted(each.id, 80),
                summary=_summary(each, found),
                passages=tuple(_passages(each, found)),
                picks=((names.index(each.change),),) if len(names) > 1 else (),
            )
            for each in found.examples
        ),
    )


def _summary(each: ProbeExample, found: ProbeReport) -> str:
    if found.of == "judge":
        return f"{each.change}: log-odds of the changed one {_signed(each.shift)}"
    return f"{each.change}: reward {number(each.before, 2)} to {number(each.after, 2)} ({_signed(each.shift)})"


def _passages(each: ProbeExample, found: ProbeReport) -> list[Passage]:
    last = each.prompt[-1].content if each.prompt else ""
    before, after = (
        ("", "") if found.of == "judge" else (f", reward {number(each.before, 2)}", f", reward {number(each.after, 2)}")
    )
    return [
        _passage("Prompt", last, wide=True),
        _passage(f"Original{before}", each.original),
        _passage(f"Changed{after}", each.changed),
    ]


def _passage(label: str, text: str, *, wide: bool = False) -> Passage:
    left = max(0, len(text) - _LONGEST)
    return Passage(label=label, text=f"{text[:_LONGEST]}…" if left else text, left_out=left, wide=wide)
