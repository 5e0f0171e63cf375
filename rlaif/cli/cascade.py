"""The options of a cascade, and how what it did looks in a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

from rlaif.cli.options import counted
from rlaif.cli.words import aligned, share, word

if TYPE_CHECKING:
    from rlaif.labeling.cascade_results import Agreement, CascadeReport, CascadeTokens, Tokens
    from rlaif.labeling.count import CascadePlan
    from rlaif.labeling.dry_run import DryRun

_F = TypeVar("_F", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--cascade",
        metavar="STAGE,STAGE[,…]",
        help="Ask the first stage first, and the next one where it is unsure or its orders disagree. A stage is a "
        "template, TEMPLATE@JUDGE, or a judge that is asked the template before it; a judge may be a server's URL.",
    ),
    click.option(
        "--cascade-agreement",
        type=click.FloatRange(0.5, 1, min_open=True, max_open=True),
        metavar="SHARE",
        help="Agreement with the last stage that accepted verdicts are to have.  [default: 0.9]",
    ),
    click.option(
        "--cascade-sample",
        type=click.IntRange(1),
        metavar="N",
        help="Pairs that are asked in every stage to set each threshold.  [default: 200]",
    ),
    click.option(
        "--cascade-labels",
        metavar="HUMAN",
        help="Set the thresholds for agreement with these human labels, not with the last stage.",
    ),
    click.option(
        "--cascade-threshold",
        type=click.FloatRange(0.5, 1),
        metavar="P",
        help="Accept from this confidence on; no sample is asked, and the agreement is not known.",
    ),
)


def cascade_options(command: _F) -> _F:
    """Add the options of a cascade."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def cascade_planned(plan: CascadePlan, most: DryRun) -> Iterator[str]:
    """Lines that say what a cascade would ask, at least and at most, and of which stage."""
    for counted_, when in ((plan.least, "if one stage decides all"), (most, "if every pair comes to every stage")):
        about = "" if counted_.tokens_exact else "about "
        yield (
            f"{when}: {counted_.requests:,} requests, {counted_.to_ask:,} to ask; {about}{counted_.prompt_tokens:,} "
            f"prompt tokens, at most {counted_.most_new_tokens:,} new tokens"
        )
    if plan.sample:
        yield f"for the thresholds {counted(plan.sample, 'pair')} are asked in every stage, and counted in both"
    head = ("stage", "to ask of the sample", "prompt tokens", "of all pairs", "prompt tokens")
    rows = [
        (word(stage.name), *(f"{n:,}" for each in (stage.sample, stage.all) for n in (each.to_ask, each.prompt_tokens)))
        for stage in plan.stages
    ]
    yield from aligned(head, rows)


def cascade_shown(report: CascadeReport) -> Iterator[str]:
    """Lines that say where pairs were decided, what that took, and how far the labels agree with the reference."""
    rows = []
    for stage in report.stages:
        for name, part in stage.objectives.items():
            last = stage is report.stages[-1]
            gone = (part.asked - part.accepted) / part.asked if part.asked else None
            reasons = tuple("-" if last else f"{count:,}" for count in (part.unsure, part.inconsistent, part.unread))
            threshold = "-" if part.threshold is None else f"{part.threshold:g}"
            escalated = "-" if last else share(gone)
            counts = (f"{part.asked:,}", f"{part.accepted:,}", *reasons, escalated, f"{part.tokens:,}")
            rows.append((word(stage.name), word(name), threshold, *counts))
    head = ("stage", "objective", "from", "asked", "accepted", "unsure", "orders", "unread", "escalated", "tokens")
    yield from aligned(head, rows, left=2)
    yield ""
    yield from _tokens(report.tokens, word(report.stages[-1].name))
    if report.wanted is None:
        yield "Agreement is not known: the threshold was given, and no sample was asked in every stage."
        return
    reference = word(str(report.reference))
    yield ""
    yield f"Agreement with {reference}, on a sample of {counted(report.sample, 'pair')}:"
    yield from _agreements(report)
    yield from _promise(report, reference)


def _tokens(tokens: CascadeTokens, last: str) -> Iterator[str]:
    yield f"Tokens: {_read_and_written(tokens.spent)}"
    if tokens.sample.total:
        yield f"  for the thresholds alone: {_read_and_written(tokens.sample)}"
    if tokens.last_stage is None or tokens.saved is None:
        yield f"  what {last} alone would take is not known: it was not asked"
        return
    part = share(abs(tokens.saved) / tokens.last_stage.total) if tokens.last_stage.total else "-"
    told = f"saved: {tokens.saved:,}" if tokens.saved >= 0 else f"none saved: {-tokens.saved:,} more"
    yield f"  {last} alone would take about {_read_and_written(tokens.last_stage)}; {told} ({part})"


def _read_and_written(tokens: Tokens) -> str:
    return f"{tokens.total:,} ({tokens.prompt:,} read, {tokens.completion:,} written)"


def _agreements(report: CascadeReport) -> Iterator[str]:
    earlier = report.stages[:-1]
    head = ["objective", *(f"accepted by {word(stage.name)}" for stage in earlier), "all labels"]
    if report.last_stage_agreement:
        head.append(f"{word(report.stages[-1].name)} alone")
    rows = []
    for name, whole in report.agreement.items():
        cells = [_agreement(stage.objectives[name].agreement) for stage in earlier]
        alone = [_agreement(report.last_stage_agreement[name])] if report.last_stage_agreement else []
        rows.append((word(name), *cells, _agreement(whole), *alone))
    yield from aligned(head, rows)


def _agreement(found: Agreement | None) -> str:
    if found is None or not found.n:
        return "-"
    return f"{share(found.share)} of {found.n:,} ({share(found.ci[0])} to {share(found.ci[1])})"


def _promise(report: CascadeReport, reference: str) -> Iterator[str]:
    if any(part.threshold is not None for stage in report.stages for part in stage.objectives.values()):
        yield (
            f"With {report.confidence:.0%} confidence, what a stage accepts under an objective agrees with {reference} "
            f"in {share(report.wanted)} or more."
        )
    for stage in report.stages[:-1]:
        for name, part in stage.objectives.items():
            if part.why is not None:
                yield f"{word(stage.name)} decides nothing of {word(name)}: {part.why}."
