"""How a comparison of judge and people reads in a terminal of 80 columns: the verdict first, then why."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from rlaif.agreement.results import (
    Comparison,
    Interval,
    JudgeComparison,
    JudgeRanking,
    ObjectiveComparison,
    Rate,
    TagAgreement,
)
from rlaif.cli.options import counted
from rlaif.cli.words import aligned, cut, number, p_value, share, word

_MOST_TAGS = 8
_MOST_IDS = 5
_LEAST_IN_GROUP = 5
_WIDTH = 80
_LONGEST = 60


def comparison_shown(found: Comparison) -> Iterator[str]:
    """The lines of a whole comparison: every judge, then the ranking."""
    for judge in (found, *found.against):
        yield from _judge(judge)
    for ranking in found.ranking:
        yield from _ranking(ranking)


def _judge(judge: JudgeComparison) -> Iterator[str]:
    # A judge whose name another file shares has the file in its name already.
    name = judge.judge.removesuffix(f" ({judge.labels})")
    yield from _wrapped(f"{_short(name)} ({word(judge.labels)})", "")
    calibration = (judge.provenance or {}).get("calibration")
    if calibration is not None:
        yield from _wrapped(
            f"Its p_a has been calibrated already ({word(calibration)}): a temperature here comes on top of that one."
        )
    if judge.unmatched_labels or judge.unmatched_humans:
        yield from _wrapped(
            f"{counted(judge.unmatched_labels, 'pair')} without a human label, "
            f"{judge.unmatched_humans:,} without one of the judge"
        )
    for name, why in judge.not_compared.items():
        yield from _wrapped(f"{_short(name)}: not compared, {why}")
    for name, objective in judge.objectives.items():
        yield ""
        yield from _objective(_short(name), objective)
    yield ""


def _objective(name: str, found: ObjectiveComparison) -> Iterator[str]:
    yield f"{name}:"
    yield from _wrapped(verdict(found))
    yield from _wrapped(_stand_in(found))
    beyond = [
        _with_interval("kappa", found.cohen_kappa, found.cohen_kappa_ci),
        _with_interval("alpha with the judge as one more annotator", found.krippendorff_alpha, None),
        _with_interval("AC1", found.gwet_ac1, None),
    ]
    yield from _wrapped(f"Beyond chance: {'; '.join(beyond)}.")
    if found.cohen_kappa is None and found.accuracy is not None:
        yield from _wrapped(f"Kappa is not defined: {found.not_defined.get('cohen_kappa', 'too few labels')}.")
    if found.abstained or found.not_judged:
        yield from _wrapped(
            f"Coverage {share(found.coverage)}: {counted(found.abstained, 'abstention')}, "
            f"{counted(found.not_judged, 'pair')} without a label."
        )
    for line in (_position(found), _length(found), _form(found), _own(found), _calibration(found)):
        if line:
            yield from _wrapped(line)
    yield from _wins(found)
    yield from _tags(found.by_tag)
    for warning in found.warnings:
        yield from _wrapped(f"Warning: {warning}")
    if found.disagreements:
        ids = ", ".join(_short(each) for each in found.disagreements[:_MOST_IDS])
        more = len(found.disagreements) - _MOST_IDS
        rest = f" and {more:,} more (all with --json)" if more > 0 else ""
        yield from _wrapped(f"Differs on {ids}{rest}; to read: --html.")


def verdict(found: ObjectiveComparison) -> str:
    """The sentence that says how much judge and people agree, and what people reach among themselves."""
    if found.accuracy is None:
        return f"Agreement with people is not defined: {found.not_defined.get('accuracy', 'nothing to compare')}."
    n = found.n
    if found.ties == "drop":
        n = sum(found.confusion[human][mine] for human in "ab" for mine in "ab")
    how = {"count": "", "half": ", a tie of one side as half", "drop": " without ties"}[found.ties]
    said = f"Agrees with people on {share(found.accuracy)} of {counted(n, 'pair')}{how}{_ci(found.accuracy_ci)}."
    people = found.humans
    if people.leave_one_out is None:
        return f"{said} What people reach among themselves is not known."
    return (
        f"{said} Against the majority of the other annotators a person reaches {share(people.leave_one_out)} and the "
        f"judge {share(people.judge_leave_one_out)} on the same pairs."
    )


def _stand_in(found: ObjectiveComparison) -> str:
    test = found.alt_test
    if test.winning_rate is None:
        return (
            f"Whether it may stand in for people is not tested: {found.not_defined.get('alt_test', 'too few labels')}."
        )
    n = len(test.per_annotator)
    wins = round(test.winning_rate * n)
    return (
        f"{'May' if test.passed else 'May not'} stand in for people (alternative annotator test, epsilon "
        f"{test.epsilon:g}): holds against {wins} of {counted(n, 'annotator')}; at least as good as an annotator with "
        f"probability {number(test.advantage_probability, 2)}."
    )


def _position(found: ObjectiveComparison) -> str:
    place = found.position
    if place.agreement is None:
        return f"Position: not defined, {found.not_defined.get('position', 'no pair was judged in both orders')}."
    said = f"Position: both orders agree on {share(place.agreement)} of {counted(place.n, 'pair')}"
    if place.first_rate is None:
        return f"{said}."
    return f"{said}; the first place wins {share(place.first_rate)}{_ci(place.first_rate_ci)}, 50% is fair."


def _length(found: ObjectiveComparison) -> str:
    length = found.length
    if not length.n:
        return f"Length: not defined, {found.not_defined.get('length', 'all pairs are of equal length')}."
    said = (
        f"Length: picks the longer response {share(length.judge_longer)}{_ci(length.judge_longer_ci)}, people "
        f"{share(length.human_longer)}"
    )
    if length.slope_gap is not None:
        gap = f"{_signed(length.slope_gap)} against people's{_numbers(length.slope_gap_ci)}"
        said += f"; log-odds per standard deviation of log length {gap}"
    even = length.controlled_agreement
    if even.value is not None:
        said += f". Agreement where lengths are within 10%: {share(even.value)} of {even.n:,}"
    return f"{said}."


def _form(found: ObjectiveComparison) -> str:
    told = [f"{each.feature} {_both(each.judge, each.human)}" for each in found.format if each.judge.n and each.human.n]
    return f"Form, where one response has it (judge, people): {'; '.join(told)}." if told else ""


def _own(found: ObjectiveComparison) -> str:
    told = [
        f"{_short(each.generator)} {_both(each.judge, each.human)}" for each in found.self_preference if each.judge.n
    ]
    return f"Its own responses (judge, people): {'; '.join(told)}." if told else ""


def _both(judge: Rate, human: Rate) -> str:
    return f"{share(judge.value)}, {share(human.value)} of {human.n:,}"


def _calibration(found: ObjectiveComparison) -> str:
    fit = found.calibration
    if fit.ece is None:
        return "" if not fit.n else f"Calibration: not defined, {fit.reason}."
    said = f"Calibration: ECE {number(fit.ece)}, Brier {number(fit.brier)}"
    if fit.temperature is None:
        return f"{said}; no temperature, {fit.reason}."
    sure = "too sure" if fit.temperature > 1 else "too unsure"
    after = f" (ECE {number(fit.ece_after)} with it)" if fit.ece_after is not None else ""
    return f"{said}; {sure}, temperature {fit.temperature:.2f}{after}."


def _wins(found: ObjectiveComparison) -> Iterator[str]:
    # Without generators the one rate is that of side a, which is of no interest in itself.
    powered = [each for each in found.win_rates if each.powered is not None and len(found.win_rates) > 1]
    for each in powered[:_MOST_TAGS]:
        yield from _wrapped(
            f"Wins of {_short(each.name)}: {share(each.powered)}{_ci(each.powered_ci)} by {each.labelled:,} human and "
            f"{each.judged:,} judge labels, {share(each.human)}{_ci(each.human_ci)} by the human ones alone; as "
            f"sharp as {number(each.gain, 1)} times the human labels."
        )


def _tags(groups: tuple[TagAgreement, ...]) -> Iterator[str]:
    shown = [each for each in groups if each.accuracy is not None and each.n >= _LEAST_IN_GROUP]
    # Where agreement is lowest is where to look.
    shown = sorted(sorted(shown, key=lambda each: -each.n)[:_MOST_TAGS], key=lambda each: each.accuracy or 0.0)
    if shown:
        rows = [
            [cut(f"{each.tag} = {each.value}", 40), f"{each.n:,}", share(each.accuracy), _ci(each.accuracy_ci).strip()]
            for each in shown
        ]
        for line in aligned(("by tag", "pairs", "agree", "interval"), rows):
            yield f"  {line}"
        if len(groups) > len(shown):
            yield f"  and {counted(len(groups) - len(shown), 'smaller group')} (all with --json)"


def _ranking(ranking: JudgeRanking) -> Iterator[str]:
    n = ranking.standings[0].n
    if not n:
        yield from _wrapped(
            f"Judges, {_short(ranking.objective)}: no pair was judged by all, so they are not ranked.", ""
        )
        yield ""
        return
    yield f"Judges, {_short(ranking.objective)}, on the {counted(n, 'pair')} that all judged:"
    best = next(each.judge for each in ranking.standings if each.best)
    against = {
        (each.second if each.first == best else each.first): each
        for each in ranking.differences
        if best in (each.first, each.second)
    }
    rows = []
    for each in ranking.standings:
        test = against.get(each.judge)
        rows.append(
            [
                cut(each.judge, 32),
                share(each.accuracy),
                _ci(each.accuracy_ci).strip(),
                "best" if each.best else p_value(test.p_holm if test else None),
                "-" if each.cost is None else f"{each.cost:,.0f}",
            ]
        )
    for line in aligned(("judge", "agree", "interval", "p (Holm)", "tokens"), rows):
        yield f"  {line}"
    if ranking.cheapest is not None:
        yield from _wrapped(f"Cheapest that is not significantly worse: {_short(ranking.cheapest)}.")
    yield ""


def _short(name: str) -> str:
    """A name of the user's within a line of the terminal's width."""
    return word(name) if len(name) <= _LONGEST else cut(name, _LONGEST)


def _with_interval(name: str, value: float | None, ci: Interval | None) -> str:
    return f"{name} {number(value)}{_numbers(ci)}"


def _numbers(ci: Interval | None) -> str:
    return "" if ci is None else f" ({number(ci[0])} to {number(ci[1])})"


def _ci(ci: Interval | None) -> str:
    return "" if ci is None else f" ({share(ci[0])} to {share(ci[1])})"


def _signed(value: float) -> str:
    return f"{value:+.2f}"


def _wrapped(text: str, indent: str = "  ") -> Iterator[str]:
    yield from textwrap.wrap(
        text, _WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
