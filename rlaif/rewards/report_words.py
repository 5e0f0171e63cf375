"""What an evaluation of heads comes to, in a sentence and in large print."""

from __future__ import annotations

from rlaif.report.figures import fitted
from rlaif.report.page import Fact, Facts, Tone, Verdict
from rlaif.report.wording import number, plural, share, shares_between, why
from rlaif.rewards.evaluation import Evaluation, ObjectiveEvaluation

FEW = 30
_COIN, _LENGTH, _FEW, _NONE = "coin", "length", "few", "none"
_UNKNOWN = "? Not measured"
_LABELS: dict[Tone, str] = {
    "good": "✓ Better than a coin, and than length alone",
    "bad": "✗ Not better than a coin",
    "open": "? Not told by these labels",
}


def standing(found: ObjectiveEvaluation) -> str:
    """In a word what an objective's head is: `good`, or what keeps it from being so."""
    if found.accuracy_ci is None:
        return _NONE
    if found.n < FEW:
        return _FEW
    if found.accuracy_ci[0] <= 0.5:
        return _COIN
    if found.over_length_ci is not None and found.over_length_ci[0] <= 0:
        return _LENGTH
    return "good"


def tone(found: ObjectiveEvaluation) -> Tone:
    """Good, bad, or not told."""
    tones: dict[str, Tone] = {"good": "good", _COIN: "bad"}
    return tones.get(standing(found), "open")


def short_standing(found: ObjectiveEvaluation) -> str:
    """The standing as a table says it."""
    return {
        "good": "better than length",
        _COIN: "not told from a coin",
        _LENGTH: "not told from length",
        _FEW: "too few labels",
        _NONE: "no labels",
    }[standing(found)]


def verdict(evaluation: Evaluation | None, held_out: bool) -> Verdict:
    """How often the heads agree with labels, and whether that is more than a coin, or length alone, would."""
    if evaluation is None:
        nothing = (
            "Nothing was held out, so that nobody knows how good these heads are; rlaif evaluate measures them on "
            "other labels."
        )
        return Verdict(tone="open", label=_UNKNOWN, sentence=nothing)
    known = {name: found for name, found in evaluation.objectives.items() if found.n}
    if not known:
        return _without_heads(evaluation)
    tones = {tone(found) for found in known.values()}
    overall: Tone = "bad" if "bad" in tones else "open" if "open" in tones else "good"
    label = _LABELS[overall]
    if overall == "bad" and len(tones) > 1:
        label = "✗ Under some objective not better than a coin"
    if overall == "open" and all(standing(found) in ("good", _LENGTH) for found in known.values()):
        label = "? Better than a coin, but maybe not than length alone"
    labels = "labels that they were not trained on" if held_out else "these labels"
    if len(known) == 1:
        [(name, found)] = known.items()
        between = f" ({shares_between(found.accuracy_ci)})" if found.accuracy_ci else ""
        held = "held-out pairs" if held_out else "pairs"
        sentence = (
            f"The head of {fitted(name, 40)} agrees with the labels of {share(found.accuracy)} of {found.n:,} {held}"
        )
        sentence = f"{sentence}{between}."
    else:
        each = ", ".join(f"{fitted(name, 40)} {share(found.accuracy)}" for name, found in known.items())
        sentence = f"The heads agree with {labels}: {each}."
    return Verdict(tone=overall, label=label, sentence=sentence, remark=_remark(known))


def _without_heads(evaluation: Evaluation) -> Verdict:
    """What labels say that none of the heads is held against: nothing, or how good the aggregate is overall."""
    overall = next((each for each in evaluation.aggregate.values() if each.accuracy_ci is not None), None)
    if overall is None or overall.accuracy_ci is None:
        sentence = "None of these labels takes a side, so that nothing is measured."
        return Verdict(tone="open", label=_UNKNOWN, sentence=sentence)
    better = overall.accuracy_ci[0] > 0.5
    between = shares_between(overall.accuracy_ci)
    return Verdict(
        tone="good" if better else "bad",
        label="✓ Better than a coin" if better else _LABELS["bad"],
        sentence=f"The aggregate reward agrees with the overall labels of {share(overall.accuracy)} of "
        f"{plural(overall.n, 'pair')} ({between}).",
        remark="The labels are of which response is better on the whole, under no single objective.",
    )


def _remark(known: dict[str, ObjectiveEvaluation]) -> str:
    several = len(known) > 1
    rules = ", ".join(
        f"{fitted(name, 40) + ' ' if several else ''}{share(found.length_only_accuracy)} (the {found.length_only_rule})"
        for name, found in known.items()
        if found.length_only_rule is not None
    )
    errors = [100 * found.ece for found in known.values() if found.ece is not None]
    parts = [f"A rule by length alone reaches {rules}."] if rules else []
    if errors:
        worst = f"{number(max(errors), 1)} points"
        span = f"{number(min(errors), 1)} to {worst}" if several else worst
        parts.append(f"Their probabilities are off by {span} on average.")
    return " ".join(parts)


def facts(found: ObjectiveEvaluation) -> Facts:
    """The figures that a reader looks for first."""
    reasons = found.not_defined
    over = (
        f"{_signed(found.over_length)} points over the {found.length_only_rule} response"
        if found.over_length is not None
        else ""
    )
    chance = (
        f"chance alone gives about {number(100 * found.ece_by_chance, 1)}" if found.ece_by_chance is not None else ""
    )
    here = "" if found.temperature_here is None else f"these pairs ask for {number(found.temperature_here, 2)}"
    return Facts(
        facts=(
            Fact(
                label="Agrees with the labels",
                value=share(found.accuracy),
                remark=shares_between(found.accuracy_ci) if found.accuracy is not None else why(reasons, "accuracy"),
            ),
            Fact(
                label="Length alone",
                value=share(found.length_only_accuracy),
                remark=over or why(reasons, "length_only_accuracy"),
            ),
            Fact(
                label="Calibration error (ECE)",
                value="—" if found.ece is None else f"{number(100 * found.ece, 1)} points",
                remark=chance or why(reasons, "ece"),
            ),
            Fact(
                label="Temperature",
                value=number(found.temperature, 2),
                remark=here or why(reasons, "temperature_here"),
            ),
            Fact(
                label="Pairs with a label for a side",
                value=f"{found.n:,}",
                remark=plural(found.ties, "tie") + " apart",
            ),
        )
    )


def _signed(given: float) -> str:
    text = number(100 * given, 1)
    return text if text.startswith("−") else f"+{text}"
