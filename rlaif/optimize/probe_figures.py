"""Shifts and turned preferences to figures with intervals, and the rule. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlaif.optimize.changes import Change
from rlaif.optimize.probe_results import ChangeResult, Interval, ProbeFigures, ProbeRule
from rlaif.rewards.preferences import Floats, Ints
from rlaif.stats import t_quantile, wilson

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Measured:
    """What a change did.

    Attributes:
        applied: responses that it was made to.
        not_applied: responses to which it does not apply.
        shifts: changed less original, (responses, rewards), the aggregate in the last column; nan where not known.
        shift_prompt: the prompt of each, (responses,).
        turned: 1 where a pair's preference turns, or a response does not lose, 0 where not, (cases, rewards); nan where
            there was no preference to turn, or it is not known.
        turned_prompt: the prompt of each case, (cases,).
    """

    applied: int
    not_applied: int
    shifts: Floats
    shift_prompt: Ints
    turned: Floats
    turned_prompt: Ints


def change_result(change: Change, found: Measured, rewards: Sequence[str], rule: ProbeRule) -> ChangeResult:
    """The figures of a change for each reward, the aggregate last, and whether it fails.

    What must lose is decided by the aggregate alone: a response that no longer answers may rightly gain under one
    objective, as a refusal does where only harm counts.
    """
    figures = {}
    for column, name in enumerate(rewards):
        decides = change.expectation != "lower" or column == len(rewards) - 1
        figures[name] = _figures(change, found, column, rule, decides=decides)
    results = [each.result for each in figures.values() if each.decides]
    return ChangeResult(
        name=change.name,
        expectation=change.expectation,
        text=change.text,
        applied=found.applied,
        not_applied=found.not_applied,
        figures=figures,
        result="fail" if "fail" in results else "pass" if "pass" in results else "not measured",
    )


def _figures(change: Change, found: Measured, column: int, rule: ProbeRule, *, decides: bool) -> ProbeFigures:
    shift, turned = found.shifts[:, column], found.turned[:, column]
    known, cases = np.isfinite(shift), np.isfinite(turned)
    prompts = len(np.unique(found.shift_prompt[known]))
    mean, mean_ci = clustered_mean(shift[known], found.shift_prompt[known])
    rate, rate_ci = clustered_share(turned[cases], found.turned_prompt[cases])
    enough = prompts >= rule.min_prompts
    rated = len(np.unique(found.turned_prompt[cases])) >= rule.min_prompts
    faults = _faults(change, mean_ci if enough else None, rate_ci if rated else None, rule)
    reason = None
    if not enough:
        reason = f"changed in {prompts:,} {'prompt' if prompts == 1 else 'prompts'}, of at least {rule.min_prompts:,}"
    return ProbeFigures(
        n=int(known.sum()),
        prompts=prompts,
        shift=mean,
        shift_ci=mean_ci,
        size=float(np.abs(shift[known]).mean()) if known.any() else None,
        rate_of="responses" if change.expectation == "lower" else "pairs",
        rate=rate,
        rate_ci=rate_ci,
        rate_n=int(cases.sum()),
        decides=decides,
        result="not measured" if not enough else "fail" if faults else "pass",
        faults=faults,
        reason=reason,
    )


def _faults(change: Change, shift: Interval | None, rate: Interval | None, rule: ProbeRule) -> tuple[str, ...]:
    """What lies beyond a limit, in words."""
    faults = []
    if change.expectation == "lower":
        if rate is not None and rate[0] > rule.max_missed:
            faults.append("does not lose")
        return tuple(faults)
    if shift is not None and shift[0] > rule.max_shift:
        faults.append("gains")
    # A pair's margin that grows turns nothing, and one that shrinks is told by the pairs that turn.
    if shift is not None and shift[1] < -rule.max_shift and change.expectation == "same":
        faults.append("loses")
    if rate is not None and rate[0] > rule.max_flips:
        faults.append("turns pairs")
    return tuple(faults)


def clustered_mean(values: Floats, clusters: Ints) -> tuple[float | None, Interval | None]:
    """Mean of values, and its 95% interval where values of one cluster belong together.

    The variance is that of the clusters' summed deviations, the quantile Student's with one less degree of freedom than
    there are clusters. Of single values that is the usual interval of a mean; of fewer than two clusters there is none.

    Source: Cameron and Miller (2015), A practitioner's guide to cluster-robust inference.

    Args:
        values: (values,), finite.
        clusters: what each belongs to, (values,).
    """
    if not len(values):
        return None, None
    mean = float(values.mean())
    groups, error = _deviation(values, clusters)
    if groups < 2:
        return mean, None
    half = t_quantile(groups - 1) * error
    return mean, (mean - half, mean + half)


def clustered_share(values: Floats, clusters: Ints) -> tuple[float | None, Interval | None]:
    """Share of ones among zeros and ones, and its 95% interval: Wilson's, of as many cases as the clusters are worth.

    Cases of one cluster that agree count for less: the number of cases is divided by the design effect, the variance by
    cluster over that of single cases. Where all agree nothing tells of it, and each cluster counts once.

    Source: Korn and Graubard (1998), Confidence intervals for proportions with small expected number of positive counts
    estimated from survey data; Kish (1965), Survey Sampling.
    """
    count = len(values)
    if not count:
        return None, None
    share = float(values.mean())
    groups, error = _deviation(values, clusters)
    worth = float(count)
    if groups < count:
        simple = share * (1 - share) / count
        worth = count * min(1.0, simple / error**2) if simple > _ROUNDING and error > 0 and groups > 1 else groups
    cases = max(1, math.floor(worth + _ROUNDING))
    return share, wilson(share * cases, cases)


def _deviation(values: Floats, clusters: Ints) -> tuple[int, float]:
    """Number of clusters, and the standard error of the mean by them (0 for a single one)."""
    _, which = np.unique(clusters, return_inverse=True)
    sums = np.bincount(which, weights=values - values.mean())
    groups = len(sums)
    if groups < 2:
        return groups, 0.0
    return groups, math.sqrt(groups / (groups - 1) * float(sums @ sums)) / len(values)


def aggregate_deviation(rewards: Floats, weights: Floats) -> float:
    """Standard deviation of a weighted mean of rewards whose own deviations are 1, by their correlations.

    Of one objective it is 1, of two that go together 1, of two unrelated ones with equal weights 0.71. So a shift of
    the aggregate compares with those of the objectives, whatever spread the responses at hand have, and floors, which
    put responses far away, do not blow it up.

    Args:
        rewards: (responses, objectives), finite.
        weights: summing to 1, (objectives,).
    """
    centred = rewards - rewards.mean(axis=0)
    spread = np.sqrt((centred**2).mean(axis=0))
    scaled = np.divide(centred, spread, out=np.zeros_like(centred), where=spread > _ROUNDING)
    correlation = scaled.T @ scaled / max(len(rewards), 1)
    np.fill_diagonal(correlation, 1.0)
    return math.sqrt(float(weights @ correlation @ weights))
