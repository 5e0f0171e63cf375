"""How an evaluation of heads reads in a terminal of 80 columns: a line an objective, then what to look out for."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from rlaif.agreement.results import Interval, TagAgreement
from rlaif.cli.options import counted
from rlaif.cli.words import aligned, cut, number, share, word
from rlaif.rewards.evaluation import Conflict, Evaluation, ObjectiveEvaluation

_WIDTH = 80
_MOST_TAGS = 8
_MOST_CONFLICTS = 6
_LEAST_IN_GROUP = 10
_LONGEST = 24


def evaluation_shown(found: Evaluation) -> Iterator[str]:
    """The lines of a whole evaluation."""
    yield from _wrapped(
        f"{word(found.heads) if found.heads else 'Heads'} on {counted(found.pairs, 'pair')} of "
        f"{counted(found.conversations, 'conversation')}:",
        "",
    )
    rows = [
        [
            cut(name, _LONGEST),
            f"{one.n:,}",
            share(one.accuracy),
            _ci(one.accuracy_ci),
            share(one.length_only_accuracy),
            number(one.ece),
            "-" if one.length_slope_gap is None else f"{one.length_slope_gap:+.2f}",
        ]
        for name, one in found.objectives.items()
    ]
    for line in aligned(("objective", "pairs", "agree", "95% interval", "by length", "ECE", "slope"), rows):
        yield f"  {line}".rstrip()
    yield from _wrapped(
        "by length: the best rule by length alone. ECE: calibration error. slope: how much more than the labels the "
        "head goes by length."
    )
    for name, one in found.objectives.items():
        lines = list(_objective(one))
        if lines:
            yield ""
            yield f"{cut(name, _WIDTH - 1)}:"
            yield from lines
    yield from _together(found)


def _objective(found: ObjectiveEvaluation) -> Iterator[str]:
    if found.accuracy is None:
        yield from _wrapped(f"Not measured: {found.not_defined.get('accuracy', 'nothing to compare')}.")
        return
    parts = []
    if found.ties:
        parts.append(f"{counted(found.ties, 'tie')} apart")
    if found.equal_length.value is not None:
        equal = counted(found.equal_length.n, "pair")
        parts.append(f"right on {share(found.equal_length.value)} of {equal} of about equal length")
    if found.ece is not None and found.ece_by_chance is not None:
        here = "" if found.temperature_here is None else f", these pairs ask for {found.temperature_here:.2f}"
        parts.append(f"temperature {found.temperature:.2f}{here}")
        parts.append(f"chance alone gives an ECE of about {number(found.ece_by_chance)}")
    if found.ensemble is not None and found.ensemble.agreeing.value is not None:
        parts.append(
            f"right on {share(found.ensemble.agreeing.value)} where the {found.ensemble.members} members agree more, "
            f"{share(found.ensemble.differing.value)} where they differ more"
        )
    if parts:
        text = "; ".join(parts)
        yield from _wrapped(f"{text[0].upper()}{text[1:]}.")
    yield from _tags(found.by_tag)
    for warning in found.warnings:
        yield from _wrapped(f"Warning: {warning}")


def _tags(groups: tuple[TagAgreement, ...]) -> Iterator[str]:
    told = sorted((one for one in groups if one.n >= _LEAST_IN_GROUP), key=lambda one: -one.n)
    rows = [
        [cut(f"{one.tag}: {one.value}", 40), f"{one.n:,}", share(one.accuracy), _ci(one.accuracy_ci)]
        for one in told[:_MOST_TAGS]
    ]
    if rows:
        for line in aligned(("by tag", "pairs", "agree", "95% interval"), rows):
            yield f"  {line}"
    if len(groups) > len(rows):
        yield from _wrapped(f"{len(groups) - len(rows):,} more groups by tag: --json or --html.")


def _together(found: Evaluation) -> Iterator[str]:
    aggregate = [
        f"{cut(name, _LONGEST)} {share(one.accuracy)}"
        for name, one in found.aggregate.items()
        if one.accuracy is not None
    ]
    conflicts = [_conflict(one) for one in found.conflicts[:_MOST_CONFLICTS] if one.pairs]
    if aggregate or conflicts or found.not_scored:
        yield ""
    if aggregate:
        yield from _wrapped(f"The aggregate reward agrees with the labels of {', '.join(aggregate)}.", "")
    for line in conflicts:
        yield from _wrapped(line, "")
    if len(found.conflicts) > _MOST_CONFLICTS:
        yield from _wrapped(f"{len(found.conflicts) - _MOST_CONFLICTS:,} more conflicts: --json or --html.", "")
    if found.not_scored:
        names = ", ".join(cut(name, _LONGEST) for name in found.not_scored[:8])
        yield from _wrapped(f"Labels without a head, not measured: {names}.", "")


def _conflict(one: Conflict) -> str:
    labels = f", their labels on {one.labels / one.labelled:.1%} of {one.labelled:,}" if one.labelled else ""
    return (
        f"Conflict: {cut(one.first, _LONGEST)} and {cut(one.second, _LONGEST)} prefer different responses on "
        f"{one.heads / one.pairs:.1%} of {counted(one.pairs, 'pair')}{labels}."
    )


def _ci(ci: Interval | None) -> str:
    return "-" if ci is None else f"{share(ci[0])} to {share(ci[1])}"


def _wrapped(text: str, indent: str = "  ") -> Iterator[str]:
    yield from textwrap.wrap(
        text, _WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
