"""What curves of over-optimisation come to, in words."""

from __future__ import annotations

from collections.abc import Sequence

from rlaif.optimize.overoptimize_results import CurvePoint, ObjectiveCurve, RuleCurve

OBJECTIVE = "objective:"


def rule_name(rule: str) -> str:
    """A rule as people read it: `only helpfulness` for `objective:helpfulness`."""
    return f"only {rule.removeprefix(OBJECTIVE)}" if rule.startswith(OBJECTIVE) else rule


def advice(rules: Sequence[RuleCurve], gamed: Sequence[str]) -> str:
    """One sentence: where to stop under the first rule, why, and which rule goes further."""
    first = rules[0]
    last = first.points[-1]
    parts = [_told(first, last)]
    if first.course == "falls":
        further = _further(rules)
        if further is not None:
            parts.append(_goes_further(further, last.n))
    if gamed:
        parts.append(f"{_listed(gamed)} {'is' if len(gamed) == 1 else 'are'} being gamed")
    return "; ".join(parts) + "."


def _told(first: RuleCurve, last: CurvePoint) -> str:
    name = rule_name(first.rule)
    if first.course == "rises":
        return (
            f"No peak up to n = {last.n} (KL {last.kl:.1f}): picking by {name} still raises gold there, by "
            f"{last.gold:.2f} standard deviations over one response"
        )
    if first.course == "open":
        if first.peak is not None:
            return (
                f"Gold seems to peak at n = {max(round(first.peak.n), 1)} (KL {first.peak.kl:.1f}), but that it falls "
                f"up to n = {last.n} cannot be told from chance: take more prompts, or a larger n"
            )
        return (
            f"Nothing sure up to n = {last.n} (KL {last.kl:.1f}): whether gold rises or falls at the end cannot be "
            "told from chance; take more prompts, or a larger n"
        )
    if first.stop_n == 1:
        return (
            f"Do not pick by {name}: gold falls from n = 2 on, by {first.fall:.2f} standard deviations at n = {last.n}"
        )
    gain = first.stop_gold_ci
    unsure = "" if gain is not None and gain[0] > 0 else ", where it is not surely above that of one response"
    return (
        f"Stop at n = {first.stop_n} (KL {first.stop_kl:.1f}){unsure}: beyond it gold falls, by {first.fall:.2f} "
        f"standard deviations at n = {last.n}"
    )


def _further(rules: Sequence[RuleCurve]) -> RuleCurve | None:
    """The rule with the most gold of those that surely peak later; single objectives aside."""
    later = [
        rule
        for rule in rules[1:]
        if rule.later_ci is not None and rule.later_ci[0] > 0 and not rule.rule.startswith(OBJECTIVE)
    ]
    return max(later, key=lambda rule: rule.stop_gold, default=None)


def _goes_further(rule: RuleCurve, most: int) -> str:
    if rule.course == "falls":
        return f"{rule_name(rule.rule)} peaks later, at n = {rule.stop_n}"
    still = "still rises" if rule.course == "rises" else "does not surely fall"
    return f"{rule_name(rule.rule)} {still} at n = {most}"


def gamed_words(curve: ObjectiveCurve) -> str:
    """What gold does while the proxy rises."""
    return {
        "falls": "gamed: gold falls",
        "stays": "gamed: gold stays",
        "rises": "gold rises too",
        "open": "cannot be told",
        "idle": "proxy does not rise",
    }[curve.gold_does]


def course_words(rule: RuleCurve) -> str:
    """What gold does at the end of the range."""
    return {"falls": "gold falls", "rises": "gold still rises", "open": "gold cannot be told"}[rule.course]


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
