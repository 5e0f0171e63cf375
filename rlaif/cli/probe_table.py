"""How a probe reads in a terminal of 80 columns: a line a change, more where an objective fails, and the rule."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from rlaif.cli.options import counted
from rlaif.cli.words import aligned, cut, share, word
from rlaif.optimize.changes import CHANGES, EXPECTATIONS
from rlaif.optimize.probe_results import ChangeResult, Interval, ProbeFigures, ProbeReport

_WIDTH = 80
_LABEL = 16
_EXPLAINED = 4
_RATES = {"pairs": "turned", "responses": "missed"}
_WORDS = {
    "same": "shift: changed less original. turned: pairs that turn as the losing response is changed. The first line "
    "of a change is the aggregate's; objectives that fail stand below it.",
    "no-gain": "It may fall, and must not rise.",
    "lower": "missed: responses that do not lose by it.",
}


def report_shown(found: ProbeReport) -> Iterator[str]:
    """The lines of a whole report."""
    kind = "" if found.of == "heads" else "judge "
    unit = "deviations of the reward" if found.of == "heads" else "log-odds"
    yield from wrapped(
        f"{kind}{word(found.name)} on {counted(found.responses, 'response')} to {counted(found.prompts, 'prompt')} "
        f"({counted(found.pairs, 'pair')}); shifts in {unit}."
    )
    for expectation, title in EXPECTATIONS.items():
        changes = [each for each in found.changes if each.expectation == expectation]
        measured = [each for each in changes if each.result != "not measured"]
        if measured:
            rate = _RATES[measured[0].figures[found.aggregate].rate_of]
            head = (title, "n", "shift", "95% interval", rate, "95% interval", "")
            yield ""
            yield from aligned(head, [row for each in measured for row in _rows(each, found)])
            yield from wrapped(_WORDS[expectation], "  ")
    yield ""
    for each in found.changes:
        if each.result == "not measured":
            reason = each.figures[found.aggregate].reason or "nothing to measure"
            yield from wrapped(f"Not measured: {each.name}, {reason}.")
    yield from wrapped(found.rule_line)
    for note in found.notes:
        yield from wrapped(f"{note}.")
    if found.rejected:
        yield from wrapped(f"{counted(found.rejected, 'row')} could not be used.")
    if found.unread:
        yield from wrapped(f"{counted(found.unread, 'judgment')} could not be read, and count nowhere.")
    yield from wrapped(verdict_line(found))


def verdict_line(found: ProbeReport) -> str:
    """How many changes pass, and which fail; of a few also why."""
    passed, failed = found.named("pass"), found.failed
    total = f"{len(passed)} of {counted(len(passed) + len(failed), 'change')} passed"
    if not failed:
        return f"{total}."
    if len(failed) > _EXPLAINED:
        return f"{total}; failed: {', '.join(failed)}."
    what = [f"{each.name} ({_grouped(each)})" for each in found.changes if each.result == "fail"]
    return f"{total}; failed: {'; '.join(what)}."


def _grouped(change: ChangeResult) -> str:
    """Faults with the rewards that they are under: `gains under helpfulness, reward`."""
    under: dict[str, list[str]] = {}
    for name, found in change.figures.items():
        if found.decides:
            for fault in found.faults:
                under.setdefault(fault, []).append(cut(name, 24))
    return ", ".join(f"{fault} under {' and '.join(names)}" for fault, names in under.items())


def _rows(change: ChangeResult, found: ProbeReport) -> Iterator[list[str]]:
    """The aggregate's figures, and those of each objective that fails."""
    yield _row(change.name, change.figures[found.aggregate], change.result)
    for name in found.objectives:
        one = change.figures[name]
        if one.decides and one.result == "fail":
            yield _row(f"  {name}", one, one.result)


def _row(label: str, found: ProbeFigures, result: str) -> list[str]:
    indent = len(label) - len(label.lstrip())
    return [
        label[:indent] + cut(label, _LABEL - indent),
        f"{found.n:,}",
        "-" if found.shift is None else f"{found.shift:+.2f}",
        _numbers(found.shift_ci),
        share(found.rate),
        "-" if found.rate_ci is None else f"{100 * found.rate_ci[0]:.1f} to {share(found.rate_ci[1])}",
        {"pass": "pass", "fail": "FAIL"}.get(result, "-"),
    ]


def _numbers(ci: Interval | None) -> str:
    return "-" if ci is None else f"{ci[0]:+.2f} to {ci[1]:+.2f}"


def changes_shown() -> Iterator[str]:
    """Every change with what it does."""
    for expectation, title in EXPECTATIONS.items():
        yield f"{title}:"
        for change in CHANGES:
            if change.expectation == expectation:
                yield from textwrap.wrap(
                    change.text, _WIDTH, initial_indent=f"  {change.name:<15} ", subsequent_indent=" " * 18
                )
        yield ""


def wrapped(text: str, indent: str = "") -> Iterator[str]:
    """A text in lines of the terminal's width."""
    yield from textwrap.wrap(
        text, _WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
