"""What picking the best of n gained, gathered prompt by prompt."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np

from rlaif.agreement.results import Interval, Rate
from rlaif.optimize.candidates import Pool
from rlaif.optimize.gao import mean_interval
from rlaif.optimize.picking import before_floors, best_of_n_kl
from rlaif.rewards.preferences import Floats, Ints
from rlaif.rewards.spec import HeadsSpec
from rlaif.stats import wilson
from rlaif.types import Frozen


class Mean(Frozen):
    """A mean over prompts with its 95% t interval, `None` for a single prompt."""

    mean: float
    ci: Interval | None


class Gain(Frozen):
    """A reward of the picks, of all candidates, and how much higher the first is; in standard deviations.

    `candidates` is the mean over prompts of their candidates' mean: what one sample is worth.
    """

    picks: Mean
    candidates: Mean
    gain: Mean


class BelowFloor(Frozen):
    """The share of prompts whose pick is under a floor, and the share of their candidates that is."""

    picks: Rate
    candidates: float


class BestOfN(Frozen):
    """What was picked.

    `n` is the least and the most candidates a prompt; `distinct` how many different responses a prompt has, on
    average. `kl` is how far the picks are from single samples, in nats and at most: log n - (n - 1)/n, its mean over
    prompts. `reward` is the heads' aggregate before floors, which would swamp a mean; floors are told beside it.
    `below_floors` is by objective, and `below_any_floor` of all. `other_pick` tells for every rule on how many prompts
    it picks another text than `rule` did, and `rules_differ` on how many any two of them do.
    """

    out: str
    candidates: str
    heads: str
    policy: str | None
    rule: str
    k: float | None
    prompts: int
    responses: int
    rejected: int
    n: tuple[int, int]
    distinct: float
    kl: float
    reward: Gain
    objectives: Mapping[str, Gain]
    below_floors: Mapping[str, BelowFloor]
    below_any_floor: BelowFloor | None
    other_pick: Mapping[str, Rate]
    rules_differ: Rate
    truncated: int
    asked: int
    reused: int
    seconds: float


def mean_of(values: Floats) -> Mean:
    """Mean of independent values, (n,), with Student's 95% interval."""
    low, high = mean_interval(values).tolist()
    return Mean(mean=float(values.mean()), ci=None if len(values) < 2 else (low, high))


class Gains:
    """Takes windows of candidates and what was picked of them, and keeps a few numbers a prompt.

    Args:
        spec: of the heads.
        rule: by which the picks were made.
        k: of the rule lower-bound.
    """

    def __init__(self, spec: HeadsSpec, rule: str, k: float) -> None:
        self._spec, self._rule, self._k = spec, rule, k
        self._picks: list[Floats] = []  # a window each, (prompts, 1 + objectives)
        self._means: list[Floats] = []
        self._picks_below: list[Floats] = []  # (prompts, 1 + objectives), the first any floor
        self._means_below: list[Floats] = []
        self._counts: list[int] = []
        self._distinct: list[int] = []
        self._other: dict[str, int] = {}
        self._differ = self._truncated = 0

    @property
    def prompts(self) -> int:
        """How many there were so far."""
        return len(self._counts)

    @property
    def most(self) -> int:
        """Candidates of the prompt that has the most."""
        return max(self._counts, default=0)

    def add(self, pool: Pool, best: Mapping[str, Ints]) -> None:
        """Take a window.

        Args:
            pool: candidates of whole prompts.
            best: by rule, the row of each prompt's pick.
        """
        if not len(pool):
            return
        starts = pool.starts[:-1]
        counts = np.diff(pool.starts)
        values = np.column_stack([before_floors(pool, self._spec), pool.rewards])
        below = np.column_stack([pool.below.any(axis=1), pool.below]).astype(np.float64)
        picked = best[self._rule]
        for rows, means, each in ((self._picks, self._means, values), (self._picks_below, self._means_below, below)):
            rows.append(each[picked])
            means.append(np.add.reduceat(each, starts, axis=0) / counts[:, None])
        self._counts += counts.tolist()
        self._distinct += [len(set(responses)) for responses in pool.responses]
        self._truncated += pool.truncated
        texts = pool.texts
        # Two places of one text are the same pick.
        said = {rule: np.array([texts[row] for row in rows], dtype=object) for rule, rows in best.items()}
        for rule, given in said.items():
            self._other[rule] = self._other.get(rule, 0) + int((given != said[self._rule]).sum())
        unlike = [first != second for first, second in combinations(said.values(), 2)]
        self._differ += int(np.any(unlike, axis=0).sum()) if unlike else 0

    def summary(self, **given: Any) -> BestOfN:
        """All of it in figures; `given` are the fields that are not about candidates."""
        picks, means = np.concatenate(self._picks), np.concatenate(self._means)
        gains = [
            Gain(picks=mean_of(high), candidates=mean_of(all_), gain=mean_of(high - all_))
            for high, all_ in zip(picks.T, means.T, strict=True)
        ]
        picks_below, means_below = np.concatenate(self._picks_below), np.concatenate(self._means_below)
        floors = [
            BelowFloor(picks=self._rate(int(high.sum())), candidates=float(all_.mean()))
            for high, all_ in zip(picks_below.T, means_below.T, strict=True)
        ]
        names, held = self._spec.objectives, self._spec.aggregation.floors
        return BestOfN(
            rule=self._rule,
            k=self._k if self._rule == "lower-bound" else None,
            prompts=self.prompts,
            responses=sum(self._counts),
            n=(min(self._counts), self.most),
            distinct=float(np.mean(self._distinct)),
            kl=float(best_of_n_kl(self._counts).mean()),
            reward=gains[0],
            objectives=dict(zip(names, gains[1:], strict=True)),
            below_floors={name: each for name, each in zip(names, floors[1:], strict=True) if name in held},
            below_any_floor=floors[0] if held else None,
            other_pick={rule: self._rate(count) for rule, count in self._other.items() if rule != self._rule},
            rules_differ=self._rate(self._differ),
            truncated=self._truncated,
            **given,
        )

    def _rate(self, count: int) -> Rate:
        return Rate(n=self.prompts, value=count / self.prompts, ci=wilson(count, self.prompts))
