"""Fold verdicts into a label: both orders, all samples, all objectives. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean

from rlaif.constitution import Constitution
from rlaif.types import (
    Label,
    ObjectiveLabel,
    Order,
    OverallLabel,
    Pair,
    ParetoVerdict,
    Preference,
    Provenance,
    Verdict,
)

# The last digits of a sum depend on its order; without this, swapping a pair could make a tie a preference.
_ROUNDING = 1e-9


def fold_objective(verdicts: Sequence[Verdict]) -> ObjectiveLabel:
    """Fold the verdicts of one pair and objective.

    `p_a` is the mean over samples within each order, then over the orders, so that neither place counts more when
    some samples were not read: 0.9 for `ab` and 0.7 for `ba` give 0.8 with an order gap of 0.2.
    """
    by_order: dict[Order, list[float]] = {}
    for verdict in verdicts:
        if verdict.p_a is not None:
            by_order.setdefault(verdict.order, []).append(verdict.p_a)
    means = {order: fmean(values) for order, values in by_order.items()}
    p_a = fmean(means.values()) if means else None
    masses = [verdict.choice_mass for verdict in verdicts if verdict.choice_mass is not None]
    read = sum(map(len, by_order.values()))
    return ObjectiveLabel.model_construct(
        p_a=p_a,
        preference=preference(p_a),
        order_gap=abs(means["ab"] - means["ba"]) if len(means) == 2 else None,
        verdicts=read,
        abstained=len(verdicts) - read,
        truncated=sum(verdict.status == "truncated" for verdict in verdicts),
        choice_mass=fmean(masses) if masses else None,
        reasons=dict(sorted(Counter(verdict.status for verdict in verdicts if verdict.p_a is None).items())),
    )


def preference(p_a: float | None) -> Preference | None:
    """Tell which response a probability prefers; `None` stays `None`."""
    if p_a is None:
        return None
    return "tie" if abs(p_a - 0.5) < _ROUNDING else "a" if p_a > 0.5 else "b"


def fold_overall(
    constitution: Constitution, tags: Mapping[str, object], labels: Mapping[str, ObjectiveLabel]
) -> OverallLabel:
    """Combine the objectives by the constitution's aggregation.

    Weighted: the mean of the objectives' `p_a`, by weight, over those that have one. A response whose win probability
    on an objective is under that objective's floor cannot be preferred: the overall `p_a` is held to that objective's
    side. Two floors that bar both responses leave the mean as it is. Pareto: the response that no objective speaks
    against; a conflict between objectives has no preference.
    """
    probabilities = {name: label.p_a for name, label in labels.items() if label.p_a is not None}
    weights = constitution.weights_for(tags)
    total = sum(weights[name] for name in probabilities)
    p_a = sum(weights[name] * p for name, p in probabilities.items()) / total if total > 0 else None
    method = constitution.aggregation.method
    # An objective of weight 0 is turned off, also for the Pareto comparison.
    pareto = pareto_verdict([p for name, p in probabilities.items() if weights[name] > 0])
    floors: tuple[str, ...] = ()
    if p_a is not None and method == "weighted":
        p_a, floors = _hold_floors(p_a, probabilities, constitution.aggregation.floors)
    if method == "pareto":
        p_a = None if pareto in (None, "conflict") else 0.5 if pareto == "tie" else p_a
    return OverallLabel.model_construct(
        p_a=p_a, preference=preference(p_a), method=method, pareto=pareto, floors=floors
    )


def _hold_floors(
    p_a: float, probabilities: Mapping[str, float], floors: Mapping[str, float]
) -> tuple[float, tuple[str, ...]]:
    least = {name: floor - _ROUNDING for name, floor in floors.items() if name in probabilities}
    bars_a = [name for name, floor in least.items() if probabilities[name] < floor]
    bars_b = [name for name, floor in least.items() if 1 - probabilities[name] < floor]
    if bars_a and not bars_b:
        held = min(p_a, *(probabilities[name] for name in bars_a))
    elif bars_b and not bars_a:
        held = max(p_a, *(probabilities[name] for name in bars_b))
    else:
        return p_a, ()
    return held, tuple(bars_a or bars_b) if held != p_a else ()


def pareto_verdict(probabilities: Sequence[float]) -> ParetoVerdict | None:
    """Compare two responses objective by objective: `a` or `b` where none speaks against it, else `conflict`."""
    if not probabilities:
        return None
    sides = {preference(p) for p in probabilities} - {"tie"}
    if len(sides) == 2:
        return "conflict"
    if not sides:
        return "tie"
    return "a" if "a" in sides else "b"


def fold_label(
    constitution: Constitution,
    pair: Pair,
    objectives: Sequence[str],
    verdicts: Sequence[Verdict],
    provenance: Provenance,
) -> Label:
    """Fold every verdict of one pair into its line of `labels.jsonl`."""
    by_objective: dict[str, list[Verdict]] = {name: [] for name in objectives}
    for verdict in verdicts:
        by_objective[verdict.objective].append(verdict)
    labels = {name: fold_objective(mine) for name, mine in by_objective.items()}
    return Label.model_construct(
        id=pair.id,
        prompt=pair.prompt,
        response_a=pair.response_a,
        response_b=pair.response_b,
        tags=pair.tags,
        labels=labels,
        overall=fold_overall(constitution, pair.tags, labels),
        provenance=provenance,
    )
