"""Pictures of over-optimisation: proxy and gold against the distance from the policy, a panel a rule."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rlaif.optimize.overoptimize_results import CurvePoint, Interval, ObjectiveCurve, OverOptimization, RuleCurve
from rlaif.optimize.overoptimize_words import course_words, gamed_words, rule_name
from rlaif.report.curves import Curve, line_chart
from rlaif.report.page import Picture
from rlaif.report.wording import number

_GOLD, _PROXY, _FITTED = 0, 1, 5
_SMOOTH, _MARKERS = 48, 13
_X = "n, spaced by the root of the KL"
_Y = "standard deviations over one response"


def rule_pictures(found: OverOptimization) -> tuple[Picture, ...]:
    """A panel a rule, all with the same axes."""
    limits = _limits(found.rules)
    return tuple(_rule_picture(rule, place, limits) for place, rule in enumerate(found.rules))


def _rule_picture(rule: RuleCurve, place: int, limits: Interval) -> Picture:
    name = rule_name(rule.rule)
    title = f"Picked by {name}"
    furthest = rule.points[-1].distance
    points = thinned(rule)
    peak = None if rule.peak is None else math.sqrt(rule.peak.kl)
    places = sorted(
        {furthest * step / _SMOOTH for step in range(_SMOOTH + 1)} | ({peak} if peak is not None else set())
    )
    curves = (
        Curve(
            label="proxy",
            points=tuple((point.distance, point.proxy) for point in points),
            series=_PROXY,
            band=_band([point.proxy_ci for point in points]),
        ),
        Curve(
            label="gold",
            points=tuple((point.distance, point.gold) for point in points),
            series=_GOLD,
            band=_band([point.gold_ci for point in points]),
            best=None if rule.fits else _distance(rule, rule.best_n),
        ),
        Curve(
            label="gold, fitted" + ("" if rule.peak is None else f": peak at n = {number(rule.peak.n, 1)}"),
            points=tuple((d, d * (rule.alpha - rule.beta * d)) for d in places),
            series=_FITTED,
            best=peak if rule.fits else None,
        ),
    )
    svg = line_chart(f"rule-{place}", title, curves, _X, _Y, reference=0.0, ticks=n_ticks(rule.points), limits=limits)
    caption = f"At n = {rule.points[-1].n} {course_words(rule)}."
    if not rule.fits:
        caption += " The law does not fit; the dot is the highest point measured."
    return Picture(title=title, caption=f"{caption} Up: {_Y}; bands are 95%.", svg=svg)


def objective_pictures(found: OverOptimization) -> tuple[Picture, ...]:
    """Proxy and gold of each objective under the first rule."""
    first = found.rules[0]
    mine = [each for each in found.objectives if each.rule == first.rule]
    return tuple(_objective_picture(each, first, place) for place, each in enumerate(mine))


def _objective_picture(curve: ObjectiveCurve, rule: RuleCurve, place: int) -> Picture:
    title = f"{curve.objective}, picked by {rule_name(rule.rule)}"
    distances = [point.distance for point in rule.points]
    curves = [
        Curve(label=label, points=tuple(zip(distances, values, strict=True)), series=series)
        for label, values, series in (("its proxy", curve.proxy, _PROXY), ("its gold", curve.gold, _GOLD))
    ]
    svg = line_chart(f"objective-{place}", title, curves, _X, _Y, reference=0.0, ticks=n_ticks(rule.points))
    words = gamed_words(curve)
    return Picture(title=title, caption=f"{words[0].upper()}{words[1:]} from n = {curve.from_n} on.", svg=svg)


def thinned(rule: RuleCurve) -> list[CurvePoint]:
    """Points far enough apart for markers; the highest that was measured and the last are always among them."""
    last = rule.points[-1]
    chosen = [rule.points[0]]
    for point in rule.points[1:]:
        far = point.distance - chosen[-1].distance >= last.distance / _MARKERS
        if point.n in (rule.best_n, last.n) or (far and last.distance - point.distance >= last.distance / _MARKERS):
            chosen.append(point)
    return chosen


def n_ticks(points: Sequence[CurvePoint]) -> dict[str, float]:
    """Where to name n on the axis: 1, 2, 4, 8 and so on, and the last, none on top of another."""
    last = points[-1]
    chosen, n = {"1": 0.0}, 2
    room = last.distance / 11
    for point in points:
        if point.n >= n and point.n < last.n:
            if point.distance - max(chosen.values()) > room and last.distance - point.distance > room:
                chosen[f"{point.n:,}"] = point.distance
            n = point.n * 2
    return {**chosen, f"{last.n:,}": last.distance}


def _distance(rule: RuleCurve, n: int) -> float:
    return next(point.distance for point in rule.points if point.n == n)


def _band(intervals: Sequence[Interval | None]) -> tuple[Interval, ...]:
    known = [each for each in intervals if each is not None]
    return tuple(known) if len(known) == len(intervals) else ()


def _limits(rules: Sequence[RuleCurve]) -> Interval:
    """Bounds that hold all curves of all rules with their bands."""
    values = [0.0]
    for rule in rules:
        for point in rule.points:
            values += [point.proxy, point.gold, *(point.proxy_ci or ()), *(point.gold_ci or ())]
        values += [rule.peak.gold] if rule.peak is not None else []
    room = (max(values) - min(values) or 1.0) * 0.06
    return min(values) - room, max(values) + room
