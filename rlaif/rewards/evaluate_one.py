"""One head against the labels of its objective: every figure, seen from the preferred response, never from side a."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from rlaif.agreement.bias import Sampling, drawn_or
from rlaif.agreement.bootstrap import bootstrap, paired_difference
from rlaif.agreement.calibration import sigmoid
from rlaif.agreement.metrics import Figure
from rlaif.agreement.notes import Notes
from rlaif.agreement.regression import slope_gap
from rlaif.agreement.results import Rate
from rlaif.agreement.texts import FEATURES
from rlaif.rewards.calibrate import LEAST, ReliabilityBin, calibrate_head, expected_calibration_error, reliability
from rlaif.rewards.evaluation import Certainty, EnsembleEvaluation, FormPreference, Margin, Reliability
from rlaif.rewards.preferences import Floats, Ints
from rlaif.stats import wilson

Bools = npt.NDArray[np.bool_]

_ALIKE = 10  # lengths that differ by one part in so many count as equal
_CERTAINTY = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_MOST_BARS = 24
_ROUNDING = 1e-9


@dataclass(frozen=True)
class View:
    """Pairs with a label under one objective, row by row.

    `log_odds` are of a, at the checkpoint's temperature; `target` is the label's probability of a; `length` is in
    characters, (pairs, 2); `form` has a bit a feature, (pairs, 2); pairs with the same prompt have the same `group`.
    """

    log_odds: Floats
    temperature: float
    target: Floats
    length: Ints
    form: Ints
    group: Ints

    def __len__(self) -> int:
        return len(self.target)

    @cached_property
    def decided(self) -> Bools:
        """Whether the label takes a side."""
        sided: Bools = self.target != 0.5
        return sided

    @cached_property
    def right(self) -> Floats:
        """1 where head and label prefer the same response, 0 the other, 0.5 where the head's scores are equal."""
        same: Floats = 0.5 + 0.5 * np.sign(self.log_odds) * np.sign(self.target - 0.5)
        return same

    @cached_property
    def p_a(self) -> Floats:
        """The head's probability of a."""
        return sigmoid(self.log_odds)

    def take(self, rows: Bools) -> View:
        """Some of the rows."""
        columns = (self.target[rows], self.length[rows], self.form[rows], self.group[rows])
        return View(self.log_odds[rows], self.temperature, *columns)


def repeated(group: Ints) -> Ints | None:
    """What pairs are to be drawn together by; `None` where no prompt repeats, so that each is drawn by itself."""
    return group if len(np.unique(group)) < len(group) else None


def share(score: Floats, group: Ints, sampling: Sampling) -> Rate:
    """Mean of scores 0 to 1 with Wilson's interval, or the bootstrap's where prompts repeat, (pairs,)."""
    n, total = len(score), float(score.sum())
    if not n:
        return Rate(n=0, value=None, ci=None)
    ci, clusters = wilson(total, n), repeated(group)
    if clusters is not None and sampling.resamples:
        profiles = np.column_stack([score, np.ones(n)])
        drawn = bootstrap(profiles, _means, clusters, sampling.resamples, sampling.seed)
        ci = drawn_or(drawn, ci) or ci
    return Rate(n=n, value=total / n, ci=ci)


def _means(sums: Floats) -> Floats:
    means: Floats = sums[:, 0] / sums[:, 1]
    return means


def _plain(reason: str | None) -> str:
    """A reason of the statistics of two raters, in words of head and labels."""
    text = (reason or "not defined on this data").removeprefix("of the first rater: ")
    return text.replace("of the second rater: ", "of the labels: ")


@dataclass(frozen=True)
class Calibrated:
    """How far the head's probabilities hold; fields as in `ObjectiveEvaluation`."""

    ece: float | None = None
    ece_by_chance: float | None = None
    ece_uncalibrated: float | None = None
    ece_refitted: float | None = None
    brier: float | None = None
    log_loss: float | None = None
    temperature_here: float | None = None
    bins: tuple[Reliability, ...] = ()


def calibration(view: View, notes: Notes) -> Calibrated:
    """Measure the calibration of P(a), and of P(a) at temperature 1, on all pairs with a label."""
    if not len(view):
        for name in ("ece", "brier", "log_loss", "temperature_here"):
            notes.missing(name, "no pair has a label")
        return Calibrated()
    once, p = np.ones(len(view)), view.p_a
    refitted = calibrate_head("", view.log_odds, view.target, once, view.group)
    here: float | None = refitted.temperature * view.temperature
    if len(view) < LEAST or not view.log_odds.any():
        here = None
        notes.missing("temperature_here", refitted.reason)
    if refitted.ece is None:
        notes.missing("ece_refitted", refitted.reason)
    table = reliability(p, view.target, once)
    brier = float(((p - view.target) ** 2).mean())
    # A label between 0 and 1 is that much of each answer.
    loss = float((np.logaddexp(0, view.log_odds) - view.target * view.log_odds).mean())
    return Calibrated(
        ece=expected_calibration_error(p, view.target, once),
        ece_by_chance=_ece_by_chance(table, brier, float((p * (1 - p)).mean())),
        ece_uncalibrated=expected_calibration_error(sigmoid(view.log_odds * view.temperature), view.target, once),
        ece_refitted=refitted.ece,
        brier=brier,
        log_loss=loss,
        temperature_here=here,
        bins=tuple(_bin(one, view.temperature) for one in table),
    )


def _bin(one: ReliabilityBin, temperature: float) -> Reliability:
    odds = math.log(one.said) - math.log(max(1 - one.said, _ROUNDING))
    before = float(sigmoid(np.array([odds * temperature]))[0])
    ci = wilson(min(one.found * one.pairs, one.pairs), one.pairs)
    return Reliability(n=one.pairs, probability=one.said, before=before, share=one.found, ci=ci)


def _ece_by_chance(bins: tuple[ReliabilityBin, ...], error: float, spread: float) -> float | None:
    """The mean |deviation| of shares from exact probabilities: sqrt(2/pi) of their standard deviation, bin by bin.

    Labels of 0 and 1 vary by p (1 - p); soft ones less, in the ratio of the squared error to it.
    """
    n = sum(one.pairs for one in bins)
    if not n or not spread:
        return None
    ratio = min(1.0, error / spread)
    return sum(math.sqrt(2 / math.pi * ratio * one.said * (1 - one.said) * one.pairs) for one in bins) / n


def margin(view: View) -> Margin | None:
    """The distribution of the log-odds of the response that the label prefers."""
    side = view.log_odds[view.decided] * np.sign(view.target[view.decided] - 0.5)
    if not len(side):
        return None
    low, high = (float(each) for each in np.quantile(side, [0.005, 0.995]))
    low, high = min(low, 0.0), max(high, 0.0)
    width = _nice((high - low) / (_MOST_BARS - 2) or 0.1)
    first, last = math.floor(low / width + _ROUNDING), max(math.ceil(high / width - _ROUNDING), 1)
    first = min(first, -1)
    # Each bin holds its lower edge: equal scores, no mistake and no success, stand right of 0.
    place = np.clip(np.floor(side / width), first, last - 1).astype(np.int64) - first
    return Margin(
        mean=float(side.mean()),
        median=float(np.median(side)),
        edges=tuple(round(width * each, 10) for each in range(first, last + 1)),
        counts=tuple(int(count) for count in np.bincount(place, minlength=last - first)),
    )


def _nice(width: float) -> float:
    """The next 1, 2 or 5 times a power of ten that is not smaller."""
    power = 10.0 ** math.floor(math.log10(width))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= width * (1 - _ROUNDING))


@dataclass(frozen=True)
class Lengths:
    """Whether the head goes by length; fields as in `ObjectiveEvaluation`."""

    head: Figure
    labels: Figure
    gap: Figure
    rule: str | None
    only: Rate
    over: Figure
    longer: Rate
    label_longer: Rate
    equal: Rate


def length(view: View, sampling: Sampling, notes: Notes) -> Lengths:
    """Hold the head's probabilities and the labels against the lengths."""
    decided = view.take(view.decided)
    towards = np.sign(decided.length[:, 0] - decided.length[:, 1]) * np.sign(decided.target - 0.5)
    longer = 0.5 + 0.5 * towards
    rule, score = ("shorter", 1 - longer) if longer.sum() * 2 < len(longer) else ("longer", longer)
    over = paired_difference(decided.right, score, decided.group, sampling.resamples, sampling.seed)
    head, labels, gap = _slopes(view, sampling)
    for name, figure in (("length_slope", head), ("label_length_slope", labels), ("length_slope_gap", gap)):
        notes.value(name, Figure(figure.value, figure.ci, _plain(figure.reason)))
        if figure.value is not None and figure.ci is None:
            notes.missing(f"{name}_ci", _plain(figure.reason))
    a, b = decided.length.T
    alike = np.abs(a - b) * _ALIKE <= np.maximum(a, b)
    unequal = view.take(view.length[:, 0] != view.length[:, 1])
    grew = np.sign(unequal.length[:, 0] - unequal.length[:, 1])
    chosen = 0.5 + 0.5 * grew * np.sign(unequal.log_odds)
    sided = unequal.decided
    preferred = (0.5 + 0.5 * grew * np.sign(unequal.target - 0.5))[sided]
    return Lengths(
        head=head,
        labels=labels,
        gap=gap,
        rule=rule if len(longer) else None,
        only=share(score, decided.group, sampling),
        over=over,
        longer=share(chosen, unequal.group, sampling),
        label_longer=share(preferred, unequal.group[sided], sampling),
        equal=share(decided.right[alike], decided.group[alike], sampling),
    )


def _slopes(view: View, sampling: Sampling) -> tuple[Figure, Figure, Figure]:
    """Slopes on the length of head and labels, and their gap, each with the bootstrap's interval.

    Each pair stands there both ways round, so that the intercept is 0 and no order of the sides matters; both go into
    one group, so that the intervals do not take them for two.
    """
    kept = view.take(view.length[:, 0] != view.length[:, 1])
    # One more, since a response may be empty.
    x = np.log1p(kept.length[:, 0]) - np.log1p(kept.length[:, 1])
    x, group = np.concatenate([x, -x]), np.concatenate([kept.group, kept.group])
    p, target = (np.concatenate([each, 1 - each]) for each in (kept.p_a, kept.target))
    # A rater without any preference has slope 0: the gap to it is the slope itself.
    none = np.full(len(x), 0.5)
    if len(kept) < 2:
        few = Figure(None, reason=f"{len(kept) or 'no'} pair{'s' * (len(kept) != 1)} of unequal length")
        return few, few, few
    first, second, third = (
        slope_gap(x, left, right, group, sampling.resamples, sampling.seed)
        for left, right in ((p, none), (target, none), (p, target))
    )
    return first, second, third


def by_certainty(view: View, sampling: Sampling) -> Iterator[Certainty]:
    """Accuracy by how sure the label is; nothing where labels are never in doubt."""
    sure = np.maximum(view.target, 1 - view.target)
    if not ((sure > 0.5) & (sure < 1)).any():
        return
    for low, high in pairwise(_CERTAINTY):
        last = high == _CERTAINTY[-1]
        rows = view.decided & (sure >= low - _ROUNDING) & ((sure < high - _ROUNDING) | last)
        found = share(view.right[rows], view.group[rows], sampling)
        if found.value is not None:
            yield Certainty(low=low, high=high, n=found.n, accuracy=found.value, accuracy_ci=found.ci)


def form(view: View, sampling: Sampling) -> Iterator[FormPreference]:
    """Choice of the response that alone has a feature of form, by head and labels; features that none has are left."""
    for bit, feature in enumerate(FEATURES):
        has = (view.form >> bit) & 1
        one = view.take(view.decided & (has[:, 0] != has[:, 1]))
        if not len(one):
            continue
        holder = np.sign(((one.form[:, 0] >> bit) & 1) - 0.5)
        heads, labels = (0.5 + 0.5 * holder * np.sign(each) for each in (one.log_odds, one.target - 0.5))
        yield FormPreference(
            feature=feature, heads=share(heads, one.group, sampling), labels=share(labels, one.group, sampling)
        )


def ensemble(view: View, log_odds: Floats, sampling: Sampling) -> EnsembleEvaluation | None:
    """Where the members differ, is the head wrong more often? Members' log-odds of a, (pairs, members)."""
    if not len(view) or log_odds.shape[1] < 2:
        return None
    deviation = log_odds.std(axis=1, ddof=1)
    other_side = (np.sign(log_odds) * np.sign(view.log_odds)[:, None] < 0).any(axis=1)
    decided = np.flatnonzero(view.decided)
    order = decided[np.argsort(deviation[decided], kind="stable")]
    halves = order[: len(order) // 2], order[len(order) // 2 :]
    agreeing, differing = (share(view.right[rows], view.group[rows], sampling) for rows in halves)
    return EnsembleEvaluation(
        members=log_odds.shape[1],
        deviation=float(np.median(deviation)),
        split=float(other_side.mean()),
        agreeing=agreeing,
        differing=differing,
    )
