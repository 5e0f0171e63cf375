"""Curves of proxy and gold over the best of n, rule by rule, and what they come to. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rlaif.agreement.bootstrap import resample_sums
from rlaif.optimize.best_of import best_of_each, kl_of_best, sizes_up_to
from rlaif.optimize.gao import GaoFit, fit_prompts, mean_interval
from rlaif.optimize.overoptimize_results import (
    Course,
    CurvePoint,
    Interval,
    ObjectiveCurve,
    PeakFigure,
    Reality,
    RuleCurve,
)
from rlaif.rewards.preferences import Floats, Ints

# The fit is gone by unless it is surely off by more than this share of what gold moves by in all.
_OFF = 0.15
_STAYS = 0.25


@dataclass(frozen=True)
class Grid:
    """The n at which curves are measured."""

    sizes: Ints
    kl: Floats
    distance: Floats

    @classmethod
    def up_to(cls, most: int) -> Grid:
        """From 1 to the largest n."""
        sizes = sizes_up_to(most)
        kl = np.array([kl_of_best(n) for n in sizes.tolist()])
        return cls(sizes, kl, np.sqrt(kl))


@dataclass(frozen=True)
class Columns:
    """Candidates of prompts that all have enough of them, prompt after prompt.

    Attributes:
        rows: which of all candidates they are.
        starts: the place in `rows` of each prompt's first, and at the end their number.
    """

    rows: Ints
    starts: Ints

    @classmethod
    def of(cls, known: Floats, prompt_of: Ints, least: int) -> Columns:
        """The candidates that have a value, of prompts that have at least so many of these."""
        finite = np.isfinite(known)
        counts = np.bincount(prompt_of[finite], minlength=int(prompt_of[-1]) + 1)
        rows = np.flatnonzero(finite & (counts >= least)[prompt_of])
        return cls(rows, np.concatenate([[0], np.cumsum(counts[counts >= least])]).astype(np.int64))

    @property
    def prompts(self) -> int:
        """How many."""
        return len(self.starts) - 1

    def deviation(self, values: Floats) -> float:
        """Standard deviation among the candidates of a prompt, pooled over prompts."""
        if not len(self.rows):
            return 0.0
        counts = np.diff(self.starts)
        given = values[self.rows]
        means = np.add.reduceat(given, self.starts[:-1]) / counts
        inner = given - np.repeat(means, counts)
        found = math.sqrt(float(inner @ inner) / max(int((counts - 1).sum()), 1))
        # What rounding leaves of equal values is no deviation.
        return found if found > 1e-9 * float(np.abs(given).max(initial=0.0)) else 0.0

    def curves(self, picked_by: Floats, values: Sequence[Floats], grid: Grid) -> Floats:
        """Values of the best of n less those of one response, in deviations, (prompts, sizes, values)."""
        units = np.array([self.deviation(each) or 1.0 for each in values])
        stacked = np.column_stack([each[self.rows] for each in values]) / units
        found = best_of_each(picked_by[self.rows], stacked, self.starts, grid.sizes)
        relative: Floats = found - found[:, :1]
        return relative


@dataclass(frozen=True)
class Measured:
    """A rule's curves, prompt by prompt, and the fit of gold's."""

    rule: str
    proxy: Floats  # (prompts, sizes)
    gold: Floats  # (prompts, sizes)
    fit: GaoFit
    grid: Grid

    @property
    def fits(self) -> bool:
        """Whether the fit says what the curve does."""
        mean = self.gold.mean(axis=0)
        return self.fit.misfit <= _OFF * float(np.ptp(mean))

    def highest(self) -> float:
        """Distance at which gold is highest: by the fit, or where it fails as measured."""
        if self.fits:
            return self.fit.highest(float(self.grid.distance[-1]))
        return float(self.grid.distance[int(np.argmax(self.gold.mean(axis=0)))])


def measure_rule(rule: str, columns: Columns, picked_by: Floats, proxy: Floats, gold: Floats, grid: Grid) -> Measured:
    """The curves of one rule.

    Args:
        columns: the candidates.
        picked_by: what the rule compares, (all candidates,).
        proxy: what is told of it, (all candidates,).
        gold: (all candidates,).
        grid: the n.
    """
    curves = columns.curves(picked_by, [proxy, gold], grid)
    return Measured(rule, curves[..., 0], curves[..., 1], fit_prompts(grid.distance, curves[..., 1]), grid)


def rule_curves(measured: Sequence[Measured], resamples: int, seed: int) -> tuple[RuleCurve, ...]:
    """What the curves of all rules come to; the same prompts are drawn for all, so that rules compare."""
    sizes = len(measured[0].grid.sizes)
    sums: Floats | None = None
    if resamples and len(measured[0].gold) > 1:
        profiles = np.concatenate([each.gold for each in measured], axis=1)
        sums = resample_sums(profiles, None, resamples, seed) / len(profiles)
    drawn = [None if sums is None else sums[:, place * sizes : (place + 1) * sizes] for place in range(len(measured))]
    found: list[RuleCurve] = []
    first: Floats | None = None
    for place, (each, means) in enumerate(zip(measured, drawn, strict=True)):
        at = None if means is None else _highest_of(each, means)
        first = at if place == 0 else first
        curve = _rule_curve(each, means)
        if place:
            ci = None if at is None or first is None else _percentiles(at - first)
            curve = curve.model_copy(update={"later": each.highest() - measured[0].highest(), "later_ci": ci})
        found.append(curve)
    return tuple(found)


def _highest_of(measured: Measured, means: Floats) -> Floats:
    """Where gold is highest in each resample, (resamples,): the way that it is told of the whole."""
    distance = measured.grid.distance
    if not measured.fits:
        measured_at: Floats = distance[np.argmax(means, axis=1)]
        return measured_at
    furthest = float(distance[-1])
    design = np.column_stack([distance, -(distance**2)])
    alpha, beta = (means @ np.linalg.pinv(design).T).T
    hollow = np.where(alpha - beta * furthest > 0, furthest, 0.0)
    top = np.divide(alpha, 2 * beta, out=np.zeros_like(alpha), where=beta > 0)
    found: Floats = np.where(beta > 0, np.clip(top, 0, furthest), hollow)
    return found


def _rule_curve(measured: Measured, means: Floats | None) -> RuleCurve:
    grid, fit = measured.grid, measured.fit
    furthest, most = float(grid.distance[-1]), int(grid.sizes[-1])
    mean = measured.gold.mean(axis=0)
    best = int(np.argmax(mean))
    course = _course(measured)
    stop = _stop(measured) if course == "falls" else most
    # Between two n of the grid gold is taken to be on the line that joins them.
    share = np.zeros(len(grid.sizes))
    right = int(np.searchsorted(grid.sizes, stop))
    where = math.sqrt(kl_of_best(stop))
    if grid.sizes[right] == stop:
        share[right] = 1.0
    else:
        left, end = grid.distance[right - 1], grid.distance[right]
        share[right] = (where - left) / (end - left)
        share[right - 1] = 1 - share[right]
    at_stop = measured.gold @ share
    peak = fit.peak(furthest)
    return RuleCurve(
        rule=measured.rule,
        points=_points(measured),
        alpha=fit.alpha,
        alpha_ci=fit.alpha_ci,
        beta=fit.beta,
        beta_ci=fit.beta_ci,
        misfit=fit.misfit,
        fits=measured.fits,
        peak=None
        if peak is None
        else PeakFigure(n=peak.n, n_ci=peak.n_ci, kl=peak.kl, kl_ci=peak.kl_ci, gold=peak.value),
        no_peak=None if peak is not None else _no_peak(fit, most),
        best_n=int(grid.sizes[best]),
        best_n_ci=None if means is None else _percentiles(grid.sizes[np.argmax(means, axis=1)]),
        end_slope=fit.slope(furthest),
        end_slope_ci=fit.slope_ci(furthest),
        course=course,
        stop_n=stop,
        stop_kl=kl_of_best(stop),
        stop_gold=float(at_stop.mean()),
        stop_gold_ci=_interval(at_stop),
        fall=float((at_stop - measured.gold[:, -1]).mean()),
        fall_ci=_interval(at_stop - measured.gold[:, -1]),
    )


def _no_peak(fit: GaoFit, most: int) -> str:
    return (
        f"the fitted peak is beyond n = {most}" if fit.beta > 0 else f"the fitted curve does not bend down, n = {most}"
    )


def _course(measured: Measured) -> Course:
    """What gold does at the end of the range, where that is sure."""
    if measured.fits:
        ci = measured.fit.slope_ci(float(measured.grid.distance[-1]))
    else:
        ci = _gain_after_best(measured.gold)
    if ci is None or (ci[0] <= 0 <= ci[1]):
        return "open"
    return "rises" if ci[0] > 0 else "falls"


def _gain_after_best(gold: Floats) -> Interval | None:
    """What gold gains from its highest point on, with the point chosen on the other half of the prompts.

    Chosen on the same prompts the point would be high by chance, and every curve would seem to fall behind it. Where
    the highest is the last, the gain is that of the last half of the range.
    """
    half, last = np.arange(len(gold)) % 2, gold.shape[1] - 1
    found = np.empty(len(gold))
    for side in (0, 1):
        if not (half != side).any():
            return None
        best = int(np.argmax(gold[half != side].mean(axis=0)))
        best = best if best < last else last // 2
        found[half == side] = (gold[:, -1] - gold[:, best])[half == side]
    return _interval(found)


def _stop(measured: Measured) -> int:
    """The whole n at which gold is highest."""
    grid, fit = measured.grid, measured.fit
    peak = fit.peak(float(grid.distance[-1]))
    if not measured.fits or peak is None:
        return int(grid.sizes[int(np.argmax(measured.gold.mean(axis=0)))])
    low = max(math.floor(peak.n), 1)
    return max((low, min(low + 1, int(grid.sizes[-1]))), key=lambda n: fit.value(math.sqrt(kl_of_best(n))))


def _points(measured: Measured) -> tuple[CurvePoint, ...]:
    grid = measured.grid
    proxy_ci, gold_ci = mean_interval(measured.proxy), mean_interval(measured.gold)
    return tuple(
        CurvePoint(
            n=int(grid.sizes[place]),
            kl=float(grid.kl[place]),
            distance=float(grid.distance[place]),
            proxy=float(measured.proxy[:, place].mean()),
            proxy_ci=_known(proxy_ci[:, place]),
            gold=float(measured.gold[:, place].mean()),
            gold_ci=_known(gold_ci[:, place]),
        )
        for place in range(len(grid.sizes))
    )


def objective_curves(
    rule: str,
    picked_by: Floats,
    proxies: Mapping[str, Floats],
    golds: Mapping[str, Floats],
    prompt_of: Ints,
    grid: Grid,
) -> tuple[ObjectiveCurve, ...]:
    """Proxy and gold of each objective that both have; one whose gold no prompt has enough of is left out."""
    found = []
    for name, proxy in proxies.items():
        columns = None if name not in golds else Columns.of(golds[name], prompt_of, int(grid.sizes[-1]))
        if columns is None or not columns.deviation(golds[name]):
            continue
        curves = columns.curves(picked_by, [proxy, golds[name]], grid)
        half = int(np.argmin(np.abs(grid.distance - grid.distance[-1] / 2)))
        change = curves[:, -1] - curves[:, half]  # (prompts, 2)
        proxy_ci, gold_ci = _interval(change[:, 0]), _interval(change[:, 1])
        means = curves.mean(axis=0)
        found.append(
            ObjectiveCurve(
                rule=rule,
                objective=name,
                proxy=tuple(means[:, 0].tolist()),
                gold=tuple(means[:, 1].tolist()),
                from_n=int(grid.sizes[half]),
                proxy_change=float(change[:, 0].mean()),
                proxy_change_ci=proxy_ci,
                gold_change=float(change[:, 1].mean()),
                gold_change_ci=gold_ci,
                gold_does=_reality(float(change[:, 0].mean()), proxy_ci, gold_ci),
            )
        )
    return tuple(found)


def _reality(proxy: float, proxy_ci: Interval | None, gold_ci: Interval | None) -> Reality:
    if proxy_ci is None or gold_ci is None:
        return "open"
    if proxy_ci[0] <= 0:
        return "idle"
    if gold_ci[1] < 0:
        return "falls"
    if gold_ci[0] > 0:
        return "rises"
    return "stays" if gold_ci[1] < _STAYS * proxy else "open"


def _interval(values: Floats) -> Interval | None:
    return _known(mean_interval(values))


def _known(ci: Floats) -> Interval | None:
    return (float(ci[0]), float(ci[1])) if np.isfinite(ci).all() else None


def _percentiles(values: Floats | Ints) -> Interval:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
