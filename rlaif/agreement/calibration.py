"""How far `p_a` is a probability, against people, and the temperature that makes it more of one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rlaif.agreement.metrics import Figure, Floats
from rlaif.agreement.results import Calibration, CalibrationBin
from rlaif.stats import CLIP, wilson

BINS = 10
FOLDS = 5

_PER_BIN = 10
_LEAST = 10  # pairs to cross-validate with: two a fold


def calibrate(p_a: Floats, human: Floats, *, bins: int = BINS) -> Calibration:
    """Measure calibration against people; pairs with a nan in either are left out.

    ECE is the mean distance between mean `p_a` and people's share over bins of about equally many pairs, at least 10
    where there are several. Brier is the mean squared error: a tie of people is 1/2. `ece_after` and `brier_after` are
    of probabilities that have been put right by the temperature of the other four fifths of the pairs.

    Args:
        p_a: the judge's probabilities, (pairs,).
        human: 1 where people prefer a, 0 b, 0.5 tie, (pairs,).
        bins: how many at most.
    """
    there = np.isfinite(p_a) & np.isfinite(human)
    p, y = p_a[there].astype(np.float64), human[there].astype(np.float64)
    if not len(p):
        reason = "no pair has a probability of the judge and a preference of people"
        return Calibration(n=0, ece=None, brier=None, temperature=None, ece_after=None, brier_after=None, reason=reason)
    whole = fit_temperature(p, y)
    after = None if whole.value is None else _cross_validated(p, y)
    table = _binned(p, y, bins)
    return Calibration(
        n=len(p),
        ece=_ece(table),
        brier=_brier(p, y),
        temperature=whole.value,
        ece_after=None if after is None else _ece(_binned(after, y, bins)),
        brier_after=None if after is None else _brier(after, y),
        bins=table,
        reason=whole.reason or ("too few pairs, or too much alike, to cross-validate" if after is None else None),
    )


def apply_temperature(p: npt.ArrayLike, t: float) -> Floats:
    """Divide the log-odds of probabilities by a temperature; those nearer to 0 or 1 than 1e-6 are first taken there."""
    result: Floats = sigmoid(log_odds(np.asarray(p, dtype=np.float64)) / t)
    return result


def fit_temperature(p: Floats, y: Floats) -> Figure:
    """Temperature of the largest likelihood, by Newton's method; a tie is half of each answer.

    Probabilities nearer to 0 or 1 than 1e-6 are taken there. The temperature is not defined where the likelihood has no
    peak: at certainty the judge is right throughout, at a coin's toss it tells nothing or the wrong way.

    Args:
        p: probabilities, (pairs,).
        y: 1, 0, or 0.5 for a tie, (pairs,).
    """
    odds = log_odds(p)
    if not odds.any():
        return Figure(None, reason="every p_a is one half, which no temperature changes" if len(p) else "no pairs")

    # By the inverse b of the temperature the loss is convex; its slope at 0 and far out tells whether it has a least.
    def slope(b: float) -> tuple[float, float]:
        q = sigmoid(odds * b)
        return float(odds @ (q - y)), float((odds * odds) @ (q * (1 - q)))

    if not np.where(odds > 0, 1 - y, y)[odds != 0].any():
        return Figure(None, reason="the judge is on people's side on every pair, so that no certainty is too much")
    if slope(0)[0] >= -1e-12 * float(np.abs(odds).sum()):
        return Figure(None, reason="the judge's certainty is no better than a coin at telling people's preference")
    low, high = 0.0, 1.0
    while slope(high)[0] < 0:
        low, high = high, high * 2
    b = (low + high) / 2
    for _ in range(100):
        first, second = slope(b)
        low, high = (b, high) if first < 0 else (low, b)
        step = b - first / second if second > 0 else low
        # Newton's step, but never out of where the least is known to be.
        ahead = step if low < step < high else (low + high) / 2
        if abs(ahead - b) <= 1e-12 * b:
            break
        b = ahead
    return Figure(1 / b)


def _cross_validated(p: Floats, y: Floats) -> Floats | None:
    """Probabilities, each put right by the temperature of the folds it is not in; `None` where a fold has none."""
    if len(p) < _LEAST:
        return None
    # By position alone: the same pairs fall into the same folds whatever they are named.
    fold = np.random.default_rng(0).permutation(len(p)) % FOLDS
    after = np.empty_like(p)
    for number in range(FOLDS):
        temperature = fit_temperature(p[fold != number], y[fold != number]).value
        if temperature is None:
            return None
        after[fold == number] = apply_temperature(p[fold == number], temperature)
    return after


def _binned(p: Floats, y: Floats, most: int) -> tuple[CalibrationBin, ...]:
    """Cut into bins of about equally many pairs, never between equal probabilities."""
    order = np.argsort(p, kind="stable")
    p, y, n = p[order], y[order], len(p)
    wanted = min(most, max(1, n // _PER_BIN))
    _, run, length = np.unique(p, return_inverse=True, return_counts=True)
    end = np.cumsum(length)
    # A run of equal probabilities goes where its middle falls (twice the middle, to stay with whole numbers). Middles
    # on an edge go to the bin that is nearer to the centre, so that exchanging a and b changes no bin.
    middle = (2 * end - length) * wanted
    key = 2 * (middle // (2 * n)) + 1
    on_edge = middle % (2 * n) == 0
    key = np.where(on_edge & (middle > n * wanted), key - 2, key)
    key = np.where(on_edge & (middle == n * wanted), key - 1, key)[run]
    starts = np.flatnonzero(np.diff(key, prepend=-1))
    sizes = np.diff(starts, append=n)
    predicted, said = np.add.reduceat(p, starts) / sizes, np.add.reduceat(y, starts)
    return tuple(
        CalibrationBin(n=int(size), p_a=float(mean), human=float(total / size), ci=wilson(float(total), int(size)))
        for size, mean, total in zip(sizes, predicted, said, strict=True)
    )


def _ece(table: tuple[CalibrationBin, ...]) -> float:
    return sum(each.n * abs(each.p_a - each.human) for each in table) / sum(each.n for each in table)


def _brier(p: Floats, y: Floats) -> float:
    return float(((p - y) ** 2).mean())


def log_odds(p: Floats | float, clip: float = CLIP) -> Floats:
    """Log-odds of probabilities; nearer to 0 or 1 than `clip` they are taken for it."""
    kept = np.clip(p, clip, 1 - clip)
    result: Floats = np.log(kept) - np.log1p(-kept)
    return result


def sigmoid(x: Floats) -> Floats:
    """1 / (1 + exp(-x)); by tanh nothing overflows."""
    result: Floats = 0.5 * (1 + np.tanh(x / 2))
    return result
