"""How the principles of a run look in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rlaif.cli.options import counted
from rlaif.cli.words import aligned, number, share, word
from rlaif.labeling.attribution import (
    ENOUGH,
    RARELY,
    Conflict,
    Estimate,
    Interval,
    Place,
    PrincipleReport,
    PrincipleUse,
)

_CONFLICTS_SHOWN = 10
_METHODS = {
    "only": "the only principle of its objective",
    "named": "named in the conclusion",
    "numbered": "the last numbered step",
    "overlap": "shared words",
}


def principles_shown(run: str, report: PrincipleReport) -> Iterator[str]:
    """Lines that say what each principle did, which are in conflict and which never matter."""
    if report.estimate is not None:
        yield from _estimate(run, report.estimate)
        if not report.uses:
            return
    else:
        yield f"{run}: measured on {counted(report.pairs, 'pair')}, one principle drawn for each comparison"
    yield f"decided: p_a is {report.margin:g} or more from 0.5"
    if report.estimate is None:
        yield "opposed: of the pairs that it and the objective's other principles decided, those where the two differ"
    else:
        yield "opposed: of the pairs that it and the objective's other judgments (mostly the other order) decided,"
        yield "those where the two differ"
    yield ""
    yield from _uses(report)
    if report.samples == 1 and report.estimate is None:
        yield "opposed needs more than one draw for a pair: label with --samples 2 or more"
    yield ""
    yield from _conflicts(report.conflicts)
    yield ""
    yield f"never matters, asked {ENOUGH} times or more and decided in under {RARELY:.0%}: {_never(report.uses)}"
    few = [use for use in report.uses if use.asked - use.unread < ENOUGH]
    if few:
        names = "all" if len(few) == len(report.uses) else _names(few)
        yield f"asked under {ENOUGH} times, too few to say: {names}"
    if report.never_drawn:
        yield f"never drawn: {_names(report.never_drawn)}"


def _estimate(run: str, estimate: Estimate) -> Iterator[str]:
    yield f"{run}: an estimate read from rationales, since every question showed all principles of its objective;"
    yield "label with --principles sample to measure it"
    found = f"{estimate.found:,} of {counted(estimate.judgments, 'judgment')} that took a side"
    yield f"a principle was found for {found}{f' ({share(estimate.coverage)})' if estimate.judgments else ''}"
    methods = [f"{_METHODS[name]} {count:,}" for name, count in estimate.methods.items()]
    if methods:
        yield f"found by: {', '.join(methods)}"


def _uses(report: PrincipleReport) -> Iterator[str]:
    measured = report.estimate is None
    head = ["objective", "principle", "drawn" if measured else "judgments", "decided", "share", "confidence"]
    head += ["order gap"] if measured else []
    rows = [
        (
            word(use.objective),
            word(use.principle),
            f"{use.asked:,}" + (f" ({use.unread:,} unread)" if use.unread else ""),
            f"{use.decided:,}",
            share(use.decided_share),
            number(use.confidence, 2),
            *([number(use.order_gap, 2)] if measured else []),
            *_rate(use.opposed, use.compared, use.opposed_share, use.opposed_interval),
        )
        for use in report.uses
    ]
    yield from aligned([*head, "opposed", "share", "95% interval"], rows, left=2)


def _rate(count: int, of: int, rate: float | None, interval: Interval) -> tuple[str, str, str]:
    if rate is None:
        return "-", "-", "-"
    return f"{count:,}/{of:,}", share(rate), f"{interval[0]:.0%} to {interval[1]:.0%}"


def _conflicts(conflicts: Sequence[Conflict]) -> Iterator[str]:
    if not conflicts:
        yield "conflicts: none; no two principles took different sides on a pair"
        return
    yield "conflicts, two principles that took different sides on the same pair, the surest first:"
    rows = [
        (
            f"{one.objective}/{one.principle}",
            f"{one.other_objective}/{one.other_principle}",
            *_rate(one.opposed, one.both, one.opposed_share, one.opposed_interval),
        )
        for one in conflicts[:_CONFLICTS_SHOWN]
    ]
    yield from aligned(("principle", "and", "opposed", "share", "95% interval"), rows, left=2)
    if len(conflicts) > _CONFLICTS_SHOWN:
        yield f"and {len(conflicts) - _CONFLICTS_SHOWN:,} more (all with --json)"


def _never(uses: Sequence[PrincipleUse]) -> str:
    return _names([use for use in uses if use.never_matters]) or "none"


def _names(places: Sequence[PrincipleUse | Place]) -> str:
    return ", ".join(f"{place.objective}/{place.principle}" for place in places)
