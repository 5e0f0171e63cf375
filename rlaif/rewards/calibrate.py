"""What makes raw scores mean something: a temperature for probabilities, mean and deviation for rewards. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlaif.errors import RunError
from rlaif.rewards.preferences import Floats, Ints
from rlaif.rewards.spec import Calibration, Normalization

BINS = 10
FOLDS = 5
LEAST = 10  # pairs to fit a temperature on: two a fold

_PER_BIN = 10
# Pulls the log-odds to a root mean square of 1, where a response that is liked better is so with probability 0.73, as
# hard as about five pairs do. So the fit has an end also where a few pairs are all right or all wrong.
_PRIOR = 1.0
_CONSTANT = 1e-6  # relative: scores are float32 sums


def win_probability(difference: Floats, temperature: float | Floats) -> Floats:
    """P(a is better) from raw scores of a less those of b; by tanh, so that nothing overflows."""
    result: Floats = 0.5 * (1 + np.tanh(difference / (2 * np.asarray(temperature))))
    return result


def calibrate_heads(
    objectives: Sequence[str], difference: Floats, target: Floats, weight: Floats, group: Ints
) -> dict[str, Calibration]:
    """Fit a temperature for each head on pairs that it was not trained on.

    Args:
        objectives: names of the columns.
        difference: raw score of a less that of b, (pairs, objectives).
        target: P(a is better), (pairs, objectives); nan where there is no label.
        weight: what a label counts, (pairs, objectives); 0 where there is none.
        group: the conversation of each pair, (pairs,).

    Raises:
        RunError: a score of a labelled pair is not finite.
    """
    return {
        name: calibrate_head(name, difference[:, k], target[:, k], weight[:, k], group)
        for k, name in enumerate(objectives)
    }


def calibrate_head(objective: str, difference: Floats, target: Floats, weight: Floats, group: Ints) -> Calibration:
    """Fit one head's temperature; the error is of pairs put right by the temperature of the other conversations.

    Args:
        objective: for the error.
        difference: (pairs,), and so the rest, as of `calibrate_heads`.
        target: nan where there is no label.
        weight: 0 where there is none.
        group: the conversation of each pair.

    Raises:
        RunError: a score of a labelled pair is not finite.
    """
    there = (weight > 0) & np.isfinite(target)
    d, y, w = difference[there], target[there], weight[there]
    if not np.isfinite(d).all():
        raise RunError(
            f"{objective}: a score of a held-out pair is not finite; scores must be numbers. "
            "Train with a lower --lr, or in float32."
        )
    pairs = len(d)
    if pairs < LEAST:
        some = "no held-out pair has a label" if not pairs else f"{pairs} held-out pair{'s' if pairs > 1 else ''}"
        return Calibration(pairs=pairs, reason=f"{some}; a temperature needs {LEAST}")
    if not d.any():
        return Calibration(pairs=pairs, reason="every held-out pair has equal scores, which no temperature changes")
    temperature = fit_temperature(d, y, w)
    after = _cross_validated(d, y, w, group[there])
    reason = None
    if after is None:
        reason = "all held-out pairs are of one conversation, so that nothing is left to measure calibration on"
    elif _slope(d, y, w, 0.0) >= 0:
        reason = "on held-out pairs the scores are no better than a coin, so probabilities are held near one half"
    ece = None if after is None else expected_calibration_error(after, y, w)
    return Calibration(temperature=temperature, pairs=pairs, ece=ece, reason=reason)


def fit_temperature(difference: Floats, target: Floats, weight: Floats) -> float:
    """Temperature of the largest posterior, by Newton's method.

    Minimises the weighted cross-entropy of sigmoid(difference / T) and the soft targets, plus s - log(s) with s the
    root mean square of difference / T: a weak prior (Gamma, peak 1) that follows the scores' unit, so that twice the
    scores have twice the temperature. The loss is convex in 1/T.

    Args:
        difference: (pairs,), not all 0.
        target: P(a is better), (pairs,).
        weight: above 0, (pairs,).
    """
    unit = float(np.sqrt(weight @ (difference * difference) / weight.sum()))
    d = difference / unit
    squares = weight * d * d

    def slope(s: float) -> tuple[float, float]:
        q = win_probability(d * s, 1.0)
        return _slope(d, target, weight, s) + _PRIOR * (1 - 1 / s), float(squares @ (q * (1 - q))) + _PRIOR / (s * s)

    low, high = 0.0, 1.0
    while slope(high)[0] < 0:
        low, high = high, high * 2
    s = high if not low else (low + high) / 2
    for _ in range(200):
        first, second = slope(s)
        low, high = (s, high) if first < 0 else (low, s)
        step = s - first / second
        # Newton's step, but never out of where the least is known to be.
        ahead = step if low < step < high else (low + high) / 2
        done, s = abs(ahead - s) <= 1e-12 * s, ahead
        if done:
            break
    return unit / s


def _slope(d: Floats, y: Floats, w: Floats, s: float) -> float:
    """Derivative of the cross-entropy by the inverse temperature."""
    return float((w * d) @ (win_probability(d * s, 1.0) - y))


def _cross_validated(d: Floats, y: Floats, w: Floats, group: Ints) -> Floats | None:
    """Probabilities, each by the temperature of conversations it is not one of; `None` with one conversation."""
    _, number = np.unique(group, return_inverse=True)
    groups = int(number.max()) + 1
    if groups < 2:
        return None
    fold = (np.random.default_rng(0).permutation(groups) % min(FOLDS, groups))[number]
    after = np.empty_like(d)
    for index in range(min(FOLDS, groups)):
        out = fold == index
        rest = ~out
        # Equal scores on all the rest tell nothing of the temperature.
        temperature = fit_temperature(d[rest], y[rest], w[rest]) if d[rest].any() else 1.0
        after[out] = win_probability(d[out], temperature)
    return after


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Pairs on which the preferred response is given about the same probability.

    `said` is the mean probability of the response that the head prefers, 0.5 to 1, `found` the labels' mean for that
    response, `weight` the sum of the labels' weights.
    """

    pairs: int
    weight: float
    said: float
    found: float


def reliability(p: Floats, target: Floats, weight: Floats) -> tuple[ReliabilityBin, ...]:
    """Compare probabilities with labels in at most 10 bins of about equally many pairs, at least 10 in each.

    A pair is seen from the response that the head prefers: which of the two is called a says nothing, and in data that
    always has the better one first everything else would look miscalibrated.

    Args:
        p: P(a is better) by the head, (pairs,).
        target: P(a is better) by the label, (pairs,).
        weight: above 0, (pairs,).
    """
    sure = np.maximum(p, 1 - p)
    # Where the head prefers neither, each of the two is as good a place to look from.
    found = np.where(p == 0.5, 0.5, np.where(p > 0.5, target, 1 - target))
    # Nothing may hang on the rounding of 1 - p.
    order = np.argsort(np.round(sure, 9), kind="stable")
    n = len(p)
    wanted = min(BINS, max(1, n // _PER_BIN))
    _, run, length = np.unique(np.round(sure[order], 9), return_inverse=True, return_counts=True)
    # Equal probabilities stay together: a run of them goes where its middle falls.
    middle = np.cumsum(length) - length / 2
    key = np.minimum(middle * wanted // n, wanted - 1)[run] if n else np.zeros(0)
    rows = (order[key == each] for each in np.unique(key))
    return tuple(
        ReliabilityBin(
            pairs=len(some),
            weight=float(weight[some].sum()),
            said=float(weight[some] @ sure[some] / weight[some].sum()),
            found=float(weight[some] @ found[some] / weight[some].sum()),
        )
        for some in rows
    )


def expected_calibration_error(p: Floats, target: Floats, weight: Floats) -> float:
    """Mean distance between what is said and what is found over the bins of `reliability`, 0 to 1.

    Exchanging a and b in any pair changes nothing.
    """
    table = reliability(p, target, weight)
    return sum(each.weight * abs(each.said - each.found) for each in table) / sum(each.weight for each in table)


def normalize_heads(objectives: Sequence[str], raw: Floats) -> dict[str, Normalization]:
    """Mean and deviation of each head over responses; a head whose scores are all the same has deviation 1.

    Args:
        objectives: names of the columns.
        raw: scores of the responses that were trained on, (responses, objectives).

    Raises:
        RunError: there is no response, or a score is not finite.
    """
    if not len(raw):
        raise RunError("rewards: no response was scored; at least one is needed to normalise. Give more labels.")
    found = {}
    for k, name in enumerate(objectives):
        scores = raw[:, k].astype(np.float64)
        if not np.isfinite(scores).all():
            raise RunError(
                f"{name}: a score of a response trained on is not finite; scores must be numbers. "
                "Train with a lower --lr, or in float32."
            )
        mean, std = float(scores.mean()), float(scores.std())
        if std > _CONSTANT * float(np.abs(scores).max()):
            found[name] = Normalization(mean=mean, std=std)
        else:
            reason = f"all {len(scores)} scores are the same" if len(scores) > 1 else "one score only"
            found[name] = Normalization(mean=mean, std=1.0, reason=reason)
    return found
