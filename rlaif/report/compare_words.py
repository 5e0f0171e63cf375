"""What a comparison with people comes to, in a sentence."""

from __future__ import annotations

from rlaif.agreement.results import Comparison, ObjectiveComparison
from rlaif.report.figures import fitted
from rlaif.report.page import Fact, Facts, Tone, Verdict
from rlaif.report.wording import number, numbers_between, plural, share, shares_between, why

_LABELS: dict[Tone, str] = {
    "good": "✓ May stand in for people",
    "bad": "✗ Should not stand in for people",
    "open": "? Cannot be told from these labels",
}


def verdict(comparison: Comparison) -> Verdict:
    """May the judge stand in for people, how often does it agree with them, and how often do they with each other?"""
    judge = fitted(comparison.judge, 60)
    tones = {name: tone(found) for name, found in comparison.objectives.items()}
    if len(tones) == 1:
        [(name, found)] = comparison.objectives.items()
        under = "" if name == "overall" else f" under {fitted(name, 40)}"
        told = {
            "good": f"{judge} may stand in for people{under}",
            "bad": f"{judge} should not stand in for people{under}",
            "open": f"Whether {judge} may stand in for people{under} cannot be told",
        }[tones[name]]
        return Verdict(
            tone=tones[name],
            label=_LABELS[tones[name]],
            sentence=f"{told}: {_agrees(found)}.",
            remark=_by_the_test(found),
        )
    return _several(judge, comparison, tones)


def tone(found: ObjectiveComparison) -> Tone:
    """Whether the alternative annotator test passes, fails, or could not be done."""
    passed = found.alt_test.passed
    return "open" if passed is None else "good" if passed else "bad"


def short_verdict(found: ObjectiveComparison) -> str:
    """The verdict in a word, for a table."""
    return {"good": "yes", "bad": "no", "open": "cannot be told"}[tone(found)]


def facts(found: ObjectiveComparison) -> Facts:
    """The figures that the verdict rests on, in large print."""
    people, reasons = found.humans, found.not_defined
    leave_out = (
        f"the judge in their place {share(people.judge_leave_one_out)}"
        if people.leave_one_out is not None
        else why(reasons, "humans.leave_one_out", "humans")
    )
    accuracy = shares_between(found.accuracy_ci) if found.accuracy is not None else why(reasons, "accuracy")
    kappa = numbers_between(found.cohen_kappa_ci) if found.cohen_kappa is not None else why(reasons, "cohen_kappa")
    return Facts(
        facts=(
            Fact(label="Judge agrees with the majority", value=share(found.accuracy), remark=accuracy),
            Fact(label="A person agrees with the others", value=share(people.leave_one_out), remark=leave_out),
            Fact(label="Cohen's kappa", value=number(found.cohen_kappa), remark=kappa),
            Fact(
                label="Judged, of the pairs people labelled",
                value=share(found.coverage),
                remark=f"{found.abstained:,} abstained, {found.not_judged:,} not judged"
                if found.coverage is not None
                else why(reasons, "coverage"),
            ),
            Fact(
                label="Pairs compared",
                value=f"{found.n:,}",
                remark=f"{plural(people.annotators, 'annotator')}, {plural(people.labels, 'label')}; "
                f"{plural(people.no_majority, 'pair')} without a majority",
            ),
        )
    )


def _agrees(found: ObjectiveComparison) -> str:
    if found.accuracy is None:
        return f"no agreement is defined ({why(found.not_defined, 'accuracy')})"
    between = f" ({shares_between(found.accuracy_ci)})" if found.accuracy_ci else ""
    judge = f"it agrees with most people on {share(found.accuracy)} of {plural(found.n, 'pair')}{between}"
    people = found.humans.leave_one_out
    if people is None:
        return f"{judge}; how far people agree with each other is not known"
    return f"{judge}, where a person agrees with most of the others on {share(people)}"


def _by_the_test(found: ObjectiveComparison) -> str:
    test = found.alt_test
    if test.winning_rate is None:
        return f"The alternative annotator test could not be done: {why(found.not_defined, 'alt_test.winning_rate')}."
    won, of = sum(one.rejected for one in test.per_annotator.values()), len(test.per_annotator)
    advantage = (
        ""
        if test.advantage_probability is None
        else " It is at least as close to the others as an annotator is with probability "
        f"{number(test.advantage_probability)}."
    )
    return (
        f"By the alternative annotator test (epsilon {test.epsilon:g}) the judge wins for {won:,} of {of:,} "
        f"annotators; it passes from half of them on.{advantage}"
    )


def _several(judge: str, comparison: Comparison, tones: dict[str, Tone]) -> Verdict:
    if not tones:
        return Verdict(tone="open", label=_LABELS["open"], sentence=f"There is nothing to compare {judge} with.")
    kinds = {kind: [fitted(name, 40) for name, each in tones.items() if each == kind] for kind in _LABELS}
    parts = []
    if kinds["good"]:
        parts.append(f"{judge} may stand in for people under {_listed(kinds['good'])}")
    if kinds["bad"]:
        lead = "not under" if parts else f"{judge} should not stand in for people under"
        parts.append(f"{lead} {_listed(kinds['bad'])}")
    if kinds["open"]:
        lead = "for" if parts else f"Whether {judge} may stand in for people cannot be told for"
        parts.append(f"{lead} {_listed(kinds['open'])}{' it cannot be told' if parts else ''}")
    agreed = "; ".join(
        f"{fitted(name, 40)} {share(found.accuracy)}"
        + (f" (a person {share(found.humans.leave_one_out)})" if found.humans.leave_one_out is not None else "")
        for name, found in comparison.objectives.items()
    )
    # The page is as good as its worst part.
    overall: Tone = "bad" if kinds["bad"] else "open" if kinds["open"] else "good"
    label = "✗ Not under every objective" if kinds["bad"] and kinds["good"] else _LABELS[overall]
    return Verdict(
        tone=overall,
        label=label,
        sentence=f"{'; '.join(parts)}.",
        remark=f"It agrees with most people on: {agreed}. The verdict is the alternative annotator test's.",
    )


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
