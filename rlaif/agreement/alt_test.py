"""The alternative annotator test: may a judge stand in for the people who annotate?

For each annotator in turn the judge takes their place: on each instance it is seen which of the two is closer to the
other annotators. The judge wins over an annotator if it is not worse by `epsilon` or more, which is what a person's
label may cost above the judge's; it passes if it wins over at least half of them.

Source: Calderon, Reichart and Dror (2025), The alternative annotator test for LLM-as-a-judge.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rlaif.agreement.metrics import Floats, Ints
from rlaif.agreement.results import AltTest, AltTestAnnotator

Similarity = Callable[[Any, Any], float]
Scoring = Literal["accuracy", "neg_rmse"] | Similarity

_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Annotations:
    """Labels one a row, all of the same length: instance and annotator count from 0.

    `judge` is the judge's answer on the row's instance; `values` may be codes or measurements.
    """

    instance: Ints
    annotator: Ints
    values: npt.NDArray[Any]
    judge: npt.NDArray[Any]
    names: tuple[str, ...]


def alt_test(
    judge: npt.NDArray[Any],
    annotators: npt.NDArray[Any],
    *,
    scoring: Scoring = "accuracy",
    epsilon: float = 0.2,
    fdr: float = 0.05,
    min_instances: int = 30,
    min_humans: int = 2,
    names: Sequence[str] | None = None,
) -> AltTest:
    """Test a judge against annotators from a table of labels; see `alt_test_of_labels` for what comes back.

    Missing is -1 (any negative number) in arrays of whole numbers, and nan in others.

    Args:
        judge: the judge's labels, (instances,).
        annotators: people's labels, (instances, annotators).
        scoring: see `alt_test_of_labels`, as all that follow but the last.
        epsilon: how much worse the judge may be.
        fdr: level of the Benjamini-Yekutieli procedure.
        min_instances: of an annotator.
        min_humans: of an instance.
        names: of the annotators; without them "1", "2", ...
    """
    there = _there(annotators) & _there(judge)[:, None]
    instance, annotator = np.nonzero(there)
    found = Annotations(
        instance=instance,
        annotator=annotator,
        values=annotators[instance, annotator],
        judge=judge[instance],
        names=tuple(names or (str(number + 1) for number in range(annotators.shape[1]))),
    )
    return alt_test_of_labels(
        found, scoring=scoring, epsilon=epsilon, fdr=fdr, min_instances=min_instances, min_humans=min_humans
    )


def alt_test_of(
    judge: Mapping[str, Hashable],
    annotators: Mapping[str, Mapping[str, Hashable]],
    *,
    scoring: Scoring = "accuracy",
    epsilon: float = 0.2,
    fdr: float = 0.05,
    min_instances: int = 30,
    min_humans: int = 2,
) -> AltTest:
    """Test a judge from mappings, as the published data sets have them; see `alt_test_of_labels`.

    Args:
        judge: {instance: label}.
        annotators: {annotator: {instance: label}}; labels are numbers for `neg_rmse`, anything for the others.
        scoring: see `alt_test_of_labels`, as all that follow.
        epsilon: how much worse the judge may be.
        fdr: level of the Benjamini-Yekutieli procedure.
        min_instances: of an annotator.
        min_humans: of an instance.
    """
    number = {name: place for place, name in enumerate(judge)}
    rows = [
        (number[instance], place, value, judge[instance])
        for place, labels in enumerate(annotators.values())
        for instance, value in labels.items()
        if instance in number
    ]
    values: Sequence[Any] = [row[2] for row in rows]
    judged: Sequence[Any] = [row[3] for row in rows]
    similar: Scoring = scoring
    if scoring != "neg_rmse":
        codes: dict[Hashable, int] = {}
        values, judged = ([codes.setdefault(value, len(codes)) for value in each] for each in (values, judged))
        texts = list(codes)
        if callable(scoring):
            compare = scoring
            similar = lambda first, second: compare(texts[int(first)], texts[int(second)])  # noqa: E731
    found = Annotations(
        instance=np.array([row[0] for row in rows], dtype=np.int64),
        annotator=np.array([row[1] for row in rows], dtype=np.int64),
        values=np.array(values, dtype=np.float64),
        judge=np.array(judged, dtype=np.float64),
        names=tuple(annotators),
    )
    return alt_test_of_labels(
        found, scoring=similar, epsilon=epsilon, fdr=fdr, min_instances=min_instances, min_humans=min_humans
    )


def alt_test_of_labels(
    labels: Annotations,
    *,
    scoring: Scoring = "accuracy",
    epsilon: float = 0.2,
    fdr: float = 0.05,
    min_instances: int = 30,
    min_humans: int = 2,
) -> AltTest:
    """Test a judge from labels one a row, each of an instance that the judge labelled too.

    On an instance judge and annotator are each scored against the other annotators; equal scores count for both. Per
    annotator a one-sided t-test asks whether the mean of (annotator no worse) - (judge no worse) is below `epsilon`,
    and the Benjamini-Yekutieli procedure holds the false discoveries over annotators at `fdr`, however they depend on
    each other. Where all instances come out alike the t-test's limit is taken: p is 0 below `epsilon`, else 1.

    Args:
        labels: the labels.
        scoring: `accuracy` is the share of the others with the same label, `neg_rmse` the negative root of the mean
            squared distance to theirs, a function the mean similarity (of label, other's label) to theirs.
        epsilon: how much worse the judge may be: 0.2 in place of experts, 0.15 skilled people, 0.1 a crowd.
        fdr: level of the Benjamini-Yekutieli procedure.
        min_instances: annotators with fewer instances are left out, with the reason in `left_out`; 2 at least.
        min_humans: instances with labels of fewer people are left out; 2 at least, since one has nobody to be close to.
    """
    people = np.bincount(labels.instance)[labels.instance] if len(labels.instance) else labels.instance
    kept = np.flatnonzero(people >= max(2, min_humans))
    rows = Annotations(
        instance=labels.instance[kept],
        annotator=labels.annotator[kept],
        values=labels.values[kept],
        judge=labels.judge[kept],
        names=labels.names,
    )
    lead = _judge_lead(rows, scoring)
    size = len(rows.names)
    n = np.bincount(rows.annotator, minlength=size)
    judge_wins = np.bincount(rows.annotator[lead >= 0], minlength=size)
    human_wins = np.bincount(rows.annotator[lead <= 0], minlength=size)
    unequal = np.bincount(rows.annotator[lead != 0], minlength=size)
    tested = np.flatnonzero(n >= max(2, min_instances))
    p_values = [_t_test(int(human_wins[i] - judge_wins[i]), int(unequal[i]), int(n[i]), epsilon) for i in tested]
    rejected = _benjamini_yekutieli(p_values, fdr)
    per_annotator = {
        rows.names[i]: AltTestAnnotator(
            n=int(n[i]),
            judge=float(judge_wins[i] / n[i]),
            human=float(human_wins[i] / n[i]),
            p_value=p,
            rejected=won,
        )
        for i, p, won in zip(tested, p_values, rejected, strict=True)
    }
    needed = max(2, min_instances)
    left_out = {
        name: f"{n[i]} instance{'' if n[i] == 1 else 's'} that the judge and {max(2, min_humans)} people or more "
        f"labelled; at least {needed} are needed"
        for i, name in enumerate(rows.names)
        if name not in per_annotator
    }
    if not per_annotator:
        reason = "there are no annotators"
        if rows.names:
            reason = f"no annotator has {needed} instances that the judge and {max(2, min_humans)} people labelled"
        if len(rows.names) == 1:
            reason = "one annotator, so that there is nobody else to be as close to"
        return AltTest(
            epsilon=epsilon,
            winning_rate=None,
            advantage_probability=None,
            passed=None,
            per_annotator={},
            left_out=left_out,
            reason=reason,
        )
    winning_rate = sum(rejected) / len(rejected)
    return AltTest(
        epsilon=epsilon,
        winning_rate=winning_rate,
        advantage_probability=sum(each.judge for each in per_annotator.values()) / len(per_annotator),
        passed=winning_rate >= 0.5,
        per_annotator=per_annotator,
        left_out=left_out,
    )


def _there(labels: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    present: npt.NDArray[np.bool_] = labels >= 0 if labels.dtype.kind in "iu" else ~np.isnan(labels)
    return present


def _judge_lead(rows: Annotations, scoring: Scoring) -> Floats:
    """Positive where the judge is closer to the other annotators than the row's own, 0 where as close, (labels,)."""
    if not len(rows.instance):
        return np.zeros(0)
    if scoring == "accuracy":
        codes = np.unique(np.concatenate([rows.values, rows.judge]), return_inverse=True)[1]
        values, judge = codes[: len(rows.values)].astype(np.int64), codes[len(rows.values) :].astype(np.int64)
        # Instance and label as one number: labels of an instance that are the same are counted, never listed.
        kinds = int(codes.max()) + 1
        cells, place, times = np.unique(rows.instance * kinds + values, return_inverse=True, return_counts=True)
        same_as_human = times[place] - 1
        wanted = rows.instance * kinds + judge
        at = np.minimum(np.searchsorted(cells, wanted), len(cells) - 1)
        same_as_judge = np.where(cells[at] == wanted, times[at], 0) - (values == judge)
        return np.asarray(same_as_judge - same_as_human, dtype=np.float64)
    if scoring == "neg_rmse":
        values, judge = rows.values.astype(np.float64), rows.judge.astype(np.float64)
        others = np.bincount(rows.instance)[rows.instance] - 1
        total = np.bincount(rows.instance, weights=values)[rows.instance] - values
        # The sums of squared distances x and y have to the others differ by (x - y) (k (x + y) - 2 total). The second
        # factor is 0 where both are as far from the others' mean, which rounding must not turn into a win.
        from_middle = others * (values + judge) - 2 * total
        scale = others * (np.abs(values) + np.abs(judge)) + 2 * np.abs(total)
        from_middle = np.where(np.abs(from_middle) <= _ROUNDING * scale, 0, from_middle)
        return np.asarray((values - judge) * from_middle, dtype=np.float64)
    return _similarity_lead(rows, scoring)


def _similarity_lead(rows: Annotations, similarity: Similarity) -> Floats:
    """The judge's lead by a function of two labels, which is asked once for each two that meet."""
    known: dict[tuple[Any, Any], float] = {}

    def alike(first: Any, second: Any) -> float:
        if (first, second) not in known:
            known[first, second] = float(similarity(first, second))
        return known[first, second]

    lead = np.zeros(len(rows.instance))
    order = np.argsort(rows.instance, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(rows.instance[order])) + 1):
        values, judge = rows.values[group].tolist(), rows.judge[group[0]].item()
        for place, row in enumerate(group):
            others = values[:place] + values[place + 1 :]
            difference = sum(alike(judge, other) for other in others) - sum(alike(values[place], o) for o in others)
            lead[row] = 0.0 if abs(difference) <= _ROUNDING * len(others) else difference
    return lead


def _t_test(total: int, unequal: int, n: int, epsilon: float) -> float:
    """One-sided p-value for a mean below `epsilon` of `n` differences: `unequal` are 1 or -1, the rest 0."""
    from scipy.special import stdtr

    mean = total / n
    # Whole numbers: the sum of squares of such differences is their number.
    variance = (unequal * n - total * total) / (n * (n - 1))
    if variance == 0:
        return 0.0 if mean < epsilon else 1.0
    return float(stdtr(n - 1, (mean - epsilon) / (variance / n) ** 0.5))


def _benjamini_yekutieli(p_values: Sequence[float], level: float) -> list[bool]:
    if not p_values:
        return []
    # As scipy.stats.false_discovery_control(method="by"), whose import alone takes longer than the whole comparison.
    size = len(p_values)
    order, ranks = np.argsort(p_values), np.arange(1, size + 1)
    stepped = np.array(p_values)[order] * size * (1 / ranks).sum() / ranks
    adjusted = np.empty(size)
    adjusted[order] = np.minimum.accumulate(stepped[::-1])[::-1]
    return [bool(p <= level) for p in adjusted]
