"""Fold verdicts, or ratings, into a label: both orders, all samples, all objectives. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean

from rlaif.constitution import Constitution
from rlaif.labeling.verdicts import p_higher, rating_probabilities
from rlaif.stats import tempered
from rlaif.types import (
    Label,
    ObjectiveLabel,
    Order,
    OverallLabel,
    Pair,
    ParetoVerdict,
    Preference,
    Provenance,
    Status,
    Verdict,
)

# The last digits of a sum depend on its order; without this, swapping a pair could make a tie a preference.
ROUNDING = 1e-9


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
    read = sum(map(len, by_order.values()))
    return ObjectiveLabel.model_construct(
        p_a=p_a,
        preference=preference(p_a),
        order_gap=abs(means["ab"] - means["ba"]) if len(means) == 2 else None,
        verdicts=read,
        abstained=len(verdicts) - read,
        truncated=sum(verdict.status == "truncated" for verdict in verdicts),
        choice_mass=_mean([verdict.choice_mass for verdict in verdicts]),
        reasons=dict(sorted(Counter(verdict.status for verdict in verdicts if verdict.p_a is None).items())),
    )


def fold_ratings(ratings: Sequence[Verdict]) -> ObjectiveLabel:
    """Fold the ratings of one pair's responses under one objective: of a in order `ab`, of b in order `ba`.

    Of each sample `p_a` is the probability that a's rating is higher than b's, with half of the probability that they
    are equal, the two drawn independently; then the mean over samples. A sample of which either rating was not read
    abstains, and counts once.
    """
    by_sample: dict[int, list[Verdict]] = {}
    for rating in sorted(ratings, key=lambda rating: (rating.sample, rating.order)):
        by_sample.setdefault(rating.sample, []).append(rating)
    compared: list[float] = []
    missing: Counter[Status] = Counter()
    truncated = 0
    for both in by_sample.values():
        p = compare_ratings(both)
        if p is None:
            missing[next((rating.status for rating in both if rating.rating is None), "unread")] += 1
        else:
            compared.append(p)
            truncated += any(rating.status == "truncated" for rating in both)
    p_a = fmean(compared) if compared else None
    return ObjectiveLabel.model_construct(
        p_a=p_a,
        preference=preference(p_a),
        order_gap=None,
        verdicts=len(compared),
        abstained=len(by_sample) - len(compared),
        truncated=truncated,
        choice_mass=_mean([rating.choice_mass for rating in ratings]),
        reasons=dict(sorted(missing.items())),
        rating_a=_mean([rating.rating for rating in ratings if rating.order == "ab"]),
        rating_b=_mean([rating.rating for rating in ratings if rating.order == "ba"]),
    )


def compare_ratings(both: Sequence[Verdict]) -> float | None:
    """Probability that response a is rated higher; `None` unless the ratings of a and of b were both read."""
    read = {rating.order: rating_probabilities(rating.rating_logprobs) for rating in both if rating.rating is not None}
    return p_higher(read["ab"], read["ba"]) if len(read) == 2 else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def preference(p_a: float | None) -> Preference | None:
    """Tell which response a probability prefers; `None` stays `None`."""
    if p_a is None:
        return None
    return "tie" if abs(p_a - 0.5) < ROUNDING else "a" if p_a > 0.5 else "b"


def calibrated(label: ObjectiveLabel, temperature: float) -> ObjectiveLabel:
    """Put a folded label's `p_a` right by a temperature; a tie stays one.

    The temperature is fitted on the folded `p_a`, so it is applied there, and not to the verdict of either order:
    `order_gap` still tells how the judge's own verdicts differ.
    """
    if label.p_a is None or label.preference == "tie":
        return label
    p_a = tempered(label.p_a, temperature)
    return label.model_copy(update={"p_a": p_a, "preference": preference(p_a)})


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
    least = {name: floor - ROUNDING for name, floor in floors.items() if name in probabilities}
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
    *,
    rated: bool = False,
    temperatures: Mapping[str, float] | None = None,
) -> Label:
    """Fold every verdict of one pair, or every rating where it is `rated`, into its line of `labels.jsonl`.

    Objectives that `temperatures` names are calibrated before they make the overall label.
    """
    by_objective: dict[str, list[Verdict]] = {name: [] for name in objectives}
    for verdict in verdicts:
        by_objective[verdict.objective].append(verdict)
    fold = fold_ratings if rated else fold_objective
    labels = {name: fold(mine) for name, mine in by_objective.items()}
    labels |= {name: calibrated(labels[name], t) for name, t in (temperatures or {}).items()}
    return label_of(constitution, pair, labels, provenance)


def label_of(
    constitution: Constitution, pair: Pair, labels: Mapping[str, ObjectiveLabel], provenance: Provenance
) -> Label:
    """Make a pair's line of `labels.jsonl` from the labels of its objectives."""
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
