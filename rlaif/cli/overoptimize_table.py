"""How over-optimisation reads in a terminal of 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from rlaif.cli.options import counted
from rlaif.cli.words import aligned, cut, number, word
from rlaif.optimize.overoptimize_results import OverOptimization, RuleCurve
from rlaif.optimize.overoptimize_words import gamed_words, rule_name

_WIDTH, _LONGEST = 80, 18
_COURSE = {"falls": "gold falls", "rises": "still rises", "open": "not sure"}


def overoptimization_shown(found: OverOptimization) -> Iterator[str]:
    """The lines of the whole."""
    yield from _wrapped(
        f"{word(found.proxy)} against {word(found.gold)} ({found.gold_kind}), {counted(found.candidates, 'candidate')} "
        f"of {counted(found.prompts, 'prompt')}, n up to {found.max_n}:"
    )
    head = ("picked by", "peak n", "95% interval", "KL", "at peak", f"at {found.max_n}", "at the end")
    yield from (f"  {line}" for line in aligned(head, [_row(rule) for rule in found.rules]))
    yield from _wrapped(
        "Gold over that of one response, in standard deviations among the candidates of a prompt.", "  "
    )
    if not all(rule.fits for rule in found.rules):
        yield from _wrapped("* The law does not fit this curve; --json and --html have what was measured.", "  ")
    mine = [each for each in found.objectives if each.rule == found.rules[0].rule]
    if mine:
        yield ""
        yield f"Picked by {rule_name(found.rules[0].rule)}, from n = {mine[0].from_n} to {found.max_n}:"
        rows = [
            [cut(each.objective, _LONGEST), f"{each.proxy_change:+.2f}", f"{each.gold_change:+.2f}", gamed_words(each)]
            for each in mine
        ]
        yield from (f"  {line}" for line in aligned(("objective", "proxy", "gold", ""), rows))
    for note in found.notes:
        yield from _wrapped(f"Note: {note}")
    yield ""
    yield from _wrapped(found.advice)


def _row(rule: RuleCurve) -> list[str]:
    peak = rule.peak
    name = cut(rule_name(rule.rule), _LONGEST) + ("" if rule.fits else "*")
    end = [f"{rule.points[-1].gold:+.2f}", _COURSE[rule.course]]
    if peak is None:
        return [name, "-", "-", "-", "-", *end]
    high = "…" if peak.n_ci[1] is None else number(peak.n_ci[1], 1)
    return [
        name,
        number(peak.n, 1),
        f"{number(peak.n_ci[0], 1)} to {high}",
        number(peak.kl, 2),
        f"{peak.gold:+.2f}",
        *end,
    ]


def _wrapped(text: str, indent: str = "") -> Iterator[str]:
    yield from textwrap.wrap(
        text, _WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
