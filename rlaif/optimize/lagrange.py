"""Floors that a policy's mean rewards are held to, by multipliers that rise while one is missed. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from rlaif.errors import InputError
from rlaif.optimize.shaping import Batch, Running, Shaped, by_objective, group_means
from rlaif.rewards.aggregate import floor_rewards
from rlaif.rewards.preferences import Floats
from rlaif.rewards.spec import HeadsSpec


class Lagrangian:
    """Maximise the weighted reward subject to: the mean of each objective with a floor is not below it.

    reward = (sum_k w_k r_k + sum_k lambda_k r_k) / (1 + sum_k lambda_k), and after each step
    log lambda_k += rate * (floor_k - mean_k), the mean over the last `memory` completions. So a multiplier grows while
    its floor is missed, shrinks while it is kept, and is never negative. Ascent is on the logarithm itself: the factor
    lambda that the chain rule would put before the step makes a multiplier that has become small all but stay there.
    Steps are limited to a miss of 1 standard deviation, and multipliers to `least` and `most`.

    Floors hold on average over time once the multipliers have settled, not at every step: a policy that learns
    fast is below its floor until they have grown. `ParetoGuard` acts at once.

    Source: Dai et al. (2023), Safe RLHF: Safe Reinforcement Learning from Human Feedback, sections 3.3 and B.3.

    Args:
        floors: the least mean reward by objective, in standard deviations (`floors_of` reads those of heads).
        rate: step of the logarithms per standard deviation of a miss.
        start: of every multiplier; beside weights that sum to 1.
        least: below it no multiplier falls, so that it can return.
        most: above it none rises.
        memory: completions over which the means go.

    Raises:
        InputError: a number that cannot be used.
    """

    def __init__(
        self,
        floors: Mapping[str, float],
        *,
        rate: float = 0.5,
        start: float = 0.1,
        least: float = 0.01,
        most: float = 10.0,
        memory: float = 128,
    ) -> None:
        if not floors:
            raise InputError("floors: none given; expected the least mean reward of at least one objective by name.")
        if not (0 < least <= start <= most < math.inf):
            raise InputError(
                f"multipliers: least {least:g}, start {start:g}, most {most:g}; expected 0 < least <= start <= most."
            )
        if not 0 < rate < math.inf:
            raise InputError(f"rate is {rate:g}; expected a number above 0. The default is 0.5.")
        by_objective(floors, tuple(floors), "floors", -math.inf)
        self.floors = dict(floors)
        self._rate, self._start, self._least, self._most = rate, start, least, most
        self._log = dict.fromkeys(floors, math.log(start))
        self._means = Running(memory)

    @property
    def multipliers(self) -> dict[str, float]:
        """Now, by objective with a floor."""
        return {name: math.exp(value) for name, value in self._log.items()}

    def update(self, batch: Batch) -> None:
        """Take in the rewards of a step, and move the multipliers."""
        known = batch.known
        if not known.any():
            return
        floors = by_objective(self.floors, batch.objectives, "floors", -math.inf)
        self._means.add(*group_means(batch.rewards[known], batch.groups[known]))
        for place, name in enumerate(batch.objectives):
            if name in self._log:
                miss = min(max(float(floors[place] - self._means.mean[place]), -1.0), 1.0)
                moved = self._log[name] + self._rate * miss
                self._log[name] = min(max(moved, math.log(self._least)), math.log(self._most))

    def added(self, batch: Batch) -> Floats:
        """The multipliers beside the weights, (objectives,); 0 where there is no floor."""
        by_objective(self.floors, batch.objectives, "floors", -math.inf)
        multipliers = self.multipliers
        return np.array([multipliers.get(name, 0.0) for name in batch.objectives])

    def shape(self, batch: Batch, *, learn: bool = True) -> Shaped:
        """The Lagrangian's reward, with multipliers that know this step."""
        if learn:
            self.update(batch)
        added = self.added(batch)
        reward = batch.rewards @ (batch.weights + added) / (1 + added.sum())
        return Shaped(reward, np.zeros(len(reward), dtype=bool), self.metrics())

    def metrics(self) -> dict[str, float]:
        """Every multiplier, by the name it is logged under."""
        return {f"guard/multiplier/{name}": value for name, value in self.multipliers.items()}

    def state_dict(self) -> dict[str, Any]:
        """Multipliers and means, as plain values."""
        return {"log_multipliers": dict(self._log), "means": self._means.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Raises:
            InputError: it is of other floors.
        """
        if set(state["log_multipliers"]) != set(self.floors):
            raise InputError(
                f"state of the floors: it is of {', '.join(state['log_multipliers'])}; expected "
                f"{', '.join(self.floors)}. Give the floors of the run it is from."
            )
        self._log = {name: float(state["log_multipliers"][name]) for name in self.floors}
        self._means.load_state_dict(state["means"])


def floors_of(spec: HeadsSpec) -> dict[str, float]:
    """The floors of heads as rewards in standard deviations, for those objectives that have one."""
    return {
        name: float(floor)
        for name, floor in zip(spec.objectives, floor_rewards(spec), strict=True)
        if math.isfinite(floor)
    }
