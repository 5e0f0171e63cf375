"""What a guard gets and gives: the rewards of a step's completions, and the one reward to train on. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rlaif.errors import InputError, nearest
from rlaif.rewards.preferences import Floats, Ints

Bools = npt.NDArray[np.bool_]

# Rewards of a group that has nothing but blocked completions are all the same; at this grid the mean of equal float32
# numbers is that number exactly, so that no rounding makes an advantage.
_GRID = 4096


@dataclass(frozen=True)
class Batch:
    """One step's completions of all processes.

    Attributes:
        objectives: their names.
        rewards: in standard deviations, (completions, objectives); a row that is not finite was not scored.
        weights: of the objectives, (objectives,).
        prompts: a key of each completion's prompt; completions of one prompt that stand together are a group.
    """

    objectives: tuple[str, ...]
    rewards: Floats
    weights: Floats
    prompts: Sequence[str]

    @property
    def known(self) -> Bools:
        """Whether a completion was scored, (completions,)."""
        known: Bools = np.all(np.isfinite(self.rewards), axis=1)
        return known

    @property
    def groups(self) -> Ints:
        """Number of the group of each completion, (completions,)."""
        starts = [place == 0 or key != self.prompts[place - 1] for place, key in enumerate(self.prompts)]
        return np.cumsum(np.array(starts, dtype=np.int64)) - 1


@dataclass(frozen=True)
class Shaped:
    """What to train on.

    Attributes:
        reward: of each completion, nan where it was not scored, (completions,).
        blocked: completions that get no positive advantage, (completions,).
        metrics: of this step, by name.
    """

    reward: Floats
    blocked: Bools
    metrics: Mapping[str, float] = field(default_factory=dict)


class Guard(Protocol):
    """Turns rewards an objective into one reward, and remembers what it needs from step to step."""

    def shape(self, batch: Batch, *, learn: bool = True) -> Shaped:
        """The reward to train on; without `learn` nothing is remembered, as in evaluation."""

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, as plain values."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""


class Running:
    """A mean over the last completions, older ones counting less, and its standard error.

    Args:
        memory: completions after which one counts 1/e.
    """

    def __init__(self, memory: float) -> None:
        if not (math.isfinite(memory) and memory > 0):
            raise InputError(f"memory is {memory}; expected a number of completions above 0, such as 64.")
        self.memory = memory
        self.weight = 0.0
        self.weight_squares = 0.0
        self.total: Floats = np.zeros(0)
        self.squares: Floats = np.zeros(0)

    def add(self, values: Floats, counts: Floats) -> None:
        """Take in values that are independent of each other, (values, numbers); each counts as often as it says."""
        if not len(values):
            return
        if not len(self.total):
            self.total, self.squares = np.zeros(values.shape[1]), np.zeros(values.shape[1])
        fade = math.exp(-float(counts.sum()) / self.memory)
        self.weight = self.weight * fade + float(counts.sum())
        self.weight_squares = self.weight_squares * fade**2 + float((counts**2).sum())
        self.total = self.total * fade + counts @ values
        self.squares = self.squares * fade + counts @ values**2

    @property
    def mean(self) -> Floats:
        """The mean, (numbers,)."""
        return self.total / self.weight

    @property
    def error(self) -> Floats:
        """Standard error of the mean, (numbers,); 0 while there is one value only, which says nothing of a spread."""
        share = self.weight_squares / self.weight**2  # 1 / how many values count
        if share > 1 - 1e-9:
            return np.zeros_like(self.total)
        spread = np.maximum(self.squares / self.weight - self.mean**2, 0.0) / (1 - share)
        error: Floats = np.sqrt(spread * share)
        return error

    def state_dict(self) -> dict[str, Any]:
        """All sums."""
        return {
            "weight": self.weight,
            "weight_squares": self.weight_squares,
            "total": self.total.tolist(),
            "squares": self.squares.tolist(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from these sums."""
        self.weight, self.weight_squares = float(state["weight"]), float(state["weight_squares"])
        self.total = np.array(state["total"], dtype=np.float64)
        self.squares = np.array(state["squares"], dtype=np.float64)


def group_means(values: Floats, groups: Ints) -> tuple[Floats, Floats]:
    """Mean of each group, (groups, numbers), and how many it has, (groups,)."""
    _, which, counts = np.unique(groups, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), values.shape[1]))
    np.add.at(sums, which, values)
    return sums / counts[:, None], counts.astype(np.float64)


def centred(values: Floats, groups: Ints) -> Floats:
    """Values less the mean of their group, (completions, numbers): what an advantage is made of."""
    if not len(values):
        return values
    means, _ = group_means(values, groups)
    _, which = np.unique(groups, return_inverse=True)
    less: Floats = values - means[which]
    return less


def block(reward: Floats, blocked: Bools, groups: Ints) -> Floats:
    """Lower the reward of each blocked completion to the least of its group, so that no advantage of one is positive.

    All blocked ones of a group get the same number c, and no reward r of the group is below it. GRPO's advantage of a
    blocked one, (c - mean) / std, is not positive since c is not above the mean; RLOO's, c less the mean of the others,
    since no other is below c. Own values below an allowed least would not do: of two blocked ones RLOO would praise
    the better one. Where a whole group is blocked all its advantages are 0.

    Args:
        reward: (completions,); nan stays nan and counts for nothing.
        blocked: (completions,).
        groups: of the completions, (completions,).
    """
    _, which = np.unique(groups, return_inverse=True)
    least = np.full(which.max(initial=-1) + 1, np.inf)
    np.minimum.at(least, which, np.where(np.isfinite(reward), reward, np.inf))
    lowest = np.floor(least[which] * _GRID) / _GRID
    lowered: Floats = np.where(blocked & np.isfinite(reward), lowest, reward)
    return lowered


def by_objective(
    given: float | Mapping[str, float],
    objectives: Sequence[str],
    place: str,
    otherwise: float,
    least: float = -math.inf,
) -> Floats:
    """One number an objective, (objectives,), of one for all or of some by name.

    Args:
        given: the number, or numbers by objective.
        place: what it is, for the error.
        otherwise: where none is named.
        least: the least that is allowed.

    Raises:
        InputError: an unknown objective, or a number that is not finite or too small.
    """
    named = given if isinstance(given, Mapping) else dict.fromkeys(objectives, given)
    for name, value in named.items():
        if name not in objectives:
            hint = nearest(name, objectives) or f" Use {', '.join(objectives)}."
            raise InputError(f"{place}: there is no head {name!r}; name the objectives of the checkpoint.{hint}")
        if isinstance(value, bool) or not (isinstance(value, int | float) and math.isfinite(value) and value >= least):
            bound = "" if least == -math.inf else f" of {least:g} or more"
            raise InputError(
                f"{place}: {name} is {value!r}; expected a number{bound}, in standard deviations. "
                "Leave an objective out where it is not to count."
            )
    return np.array([float(named.get(name, otherwise)) for name in objectives])
