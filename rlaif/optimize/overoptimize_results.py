"""What `rlaif reward overoptimize` finds: plain values, as `--json` prints them."""

from __future__ import annotations

from typing import Literal

from rlaif.types import Frozen

Interval = tuple[float, float]
OpenInterval = tuple[float, float | None]

Course = Literal["falls", "rises", "open"]
"""What gold does at the end of the range: falls and rises are sure, open is neither."""

Reality = Literal["falls", "stays", "rises", "open", "idle"]
"""What gold does while the proxy of the same objective rises; idle where the proxy does not rise."""

GoldKind = Literal["heads", "scores", "labels", "judge", "given"]


class CurvePoint(Frozen):
    """The best of n: how far from the policy, and what proxy and gold it has more than one response.

    `kl` is in nats, `distance` its root. Rewards are in standard deviations among the candidates of a prompt.
    """

    n: int
    kl: float
    distance: float
    proxy: float
    proxy_ci: Interval | None
    gold: float
    gold_ci: Interval | None


class PeakFigure(Frozen):
    """Where the fitted curve is highest; an end of an interval is null where it is beyond the range measured."""

    n: float
    n_ci: OpenInterval
    kl: float
    kl_ci: OpenInterval
    gold: float


class RuleCurve(Frozen):
    """What picking by one rule comes to.

    Attributes:
        rule: `weighted`, `pareto`, `lower-bound`, `worst-member` or `objective:NAME`.
        points: from n = 1 to the largest.
        alpha: of R(d) = d (alpha - beta d).
        beta: the same; over-optimisation where it is above 0.
        misfit: the largest distance of the fit from the curve that is not chance; 0 where there is none.
        fits: whether it is small enough to go by the fit; else what was measured is gone by.
        peak: of the fit, within the range measured.
        no_peak: why there is none.
        best_n: at which gold is highest as measured, with the interval of resampled prompts.
        end_slope: what gold gains by a further root of a nat at the end of the range, by the fit.
        course: what gold does there.
        stop_n: the n to take: the peak where gold surely falls beyond it, else the largest.
        stop_gold: gold there.
        fall: gold there less gold at the largest n.
        later: distance of the highest gold from the policy less that under the first rule, in roots of a nat.
    """

    rule: str
    points: tuple[CurvePoint, ...]
    alpha: float
    alpha_ci: Interval | None
    beta: float
    beta_ci: Interval | None
    misfit: float
    fits: bool
    peak: PeakFigure | None
    no_peak: str | None
    best_n: int
    best_n_ci: Interval | None
    end_slope: float
    end_slope_ci: Interval | None
    course: Course
    stop_n: int
    stop_kl: float
    stop_gold: float
    stop_gold_ci: Interval | None
    fall: float
    fall_ci: Interval | None
    later: float | None = None
    later_ci: Interval | None = None


class ObjectiveCurve(Frozen):
    """One objective's proxy and gold under one rule, from n = 1 (where both are 0) to the largest.

    `proxy_change` and `gold_change` are from `from_n`, half the distance, to the end. The objective is gamed where its
    proxy surely rises over this stretch while its gold surely falls, or stays: its interval holds 0 and ends below a
    quarter of what the proxy gains.
    """

    rule: str
    objective: str
    proxy: tuple[float, ...]
    gold: tuple[float, ...]
    from_n: int
    proxy_change: float
    proxy_change_ci: Interval | None
    gold_change: float
    gold_change_ci: Interval | None
    gold_does: Reality

    @property
    def gamed(self) -> bool:
        """Whether the proxy rises while gold does not."""
        return self.gold_does in ("falls", "stays")


class OverOptimization(Frozen):
    """All of it; the first rule is the one that the others are held against.

    Attributes:
        proxy: the heads.
        gold: what they are held against; `gold_kind` says what it is.
        prompts: measured.
        left_out: prompts with fewer than `max_n` candidates that have gold.
        candidates: of the prompts measured.
        without_gold: candidates left out since their gold is not known.
        max_n: the largest n.
        gold_std: gold's standard deviation among the candidates of a prompt, in its own unit: gold's unit here.
        rules: one after the other.
        objectives: of each rule, those that proxy and gold both have.
        gamed: objectives gamed under the first rule.
        advice: one sentence.
        notes: what to know beside it.
    """

    proxy: str
    gold: str
    gold_kind: GoldKind
    prompts: int
    left_out: int
    candidates: int
    without_gold: int
    max_n: int
    gold_std: float
    resamples: int
    seed: int
    k: float
    rules: tuple[RuleCurve, ...]
    objectives: tuple[ObjectiveCurve, ...]
    gamed: tuple[str, ...]
    advice: str
    notes: tuple[str, ...]
    rlaif: str
