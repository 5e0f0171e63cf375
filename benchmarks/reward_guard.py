"""How far each way of weighting objectives lets one fall, and what it costs, where everything is known exactly.

A softmax policy on linear features of made responses, trained with GRPO's advantages on samples of it. Two objectives
pull against each other, and the weights favour one. Mean rewards are exact: sums over all responses.

    python -m benchmarks.reward_guard
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlaif.optimize.guard import ParetoGuard
from rlaif.optimize.lagrange import Lagrangian
from rlaif.optimize.reference import Reference
from rlaif.optimize.shaping import Batch, Guard
from rlaif.rewards.preferences import Floats

TOLERANCE = 0.2
_PROMPTS, _RESPONSES, _FEATURES = 60, 40, 24
_PER_STEP, _GROUP = 8, 8


@dataclass(frozen=True)
class World:
    """Responses to prompts: features (prompts, responses, features), rewards (prompts, responses, objectives)."""

    features: Floats
    rewards: Floats

    @property
    def objectives(self) -> tuple[str, ...]:
        """Their names: the favoured one, its opponent, and others."""
        return ("favoured", "opposed", *(f"other{place}" for place in range(self.rewards.shape[2] - 2)))

    @property
    def weights(self) -> Floats:
        """0.9 for the favoured one, the rest for the others."""
        others = self.rewards.shape[2] - 1
        weights: Floats = np.array([0.9, *[0.1 / others] * others])
        return weights


def make_world(seed: int, objectives: int = 3, opposed: float = -0.7) -> World:
    """Half of a reward's variance is linear in the features, and so can be learned; two of them are opposed there."""
    draw = np.random.default_rng(seed)
    features = draw.normal(size=(_PROMPTS, _RESPONSES, _FEATURES)) / np.sqrt(_FEATURES)
    towards = draw.normal(size=(_FEATURES, objectives))
    towards[:, 1] = opposed * towards[:, 0] + np.sqrt(1 - opposed**2) * towards[:, 1]
    rewards = 0.7 * features @ towards + 0.7 * draw.normal(size=(_PROMPTS, _RESPONSES, objectives))
    return World(features, rewards + 0.5 * draw.normal(size=(_PROMPTS, 1, objectives)))


def train(world: World, guard: Guard | None, *, steps: int, rate: float, seed: int) -> Floats:
    """Exact mean rewards before each step less those before the first, (steps, objectives)."""
    draw = np.random.default_rng(seed)
    policy = np.zeros(_FEATURES)
    path = []
    for _ in range(steps):
        logits = world.features @ policy
        chance = np.exp(logits - logits.max(axis=1, keepdims=True))
        chance /= chance.sum(axis=1, keepdims=True)
        path.append((chance[:, :, None] * world.rewards).sum(axis=1).mean(axis=0))
        prompts = draw.choice(_PROMPTS, _PER_STEP, replace=False).repeat(_GROUP)
        drawn = np.array([draw.choice(_RESPONSES, p=chance[prompt]) for prompt in prompts])
        batch = Batch(world.objectives, world.rewards[prompts, drawn], world.weights, [str(each) for each in prompts])
        reward = batch.rewards @ batch.weights if guard is None else guard.shape(batch).reward
        grouped = reward.reshape(_PER_STEP, _GROUP)
        apart = grouped - grouped.mean(axis=1, keepdims=True)
        advantage = (apart / (grouped.std(axis=1, ddof=1, keepdims=True) + 1e-4)).ravel()
        mean = np.einsum("pr,prf->pf", chance, world.features)
        policy += rate * (advantage[:, None] * (world.features[prompts, drawn] - mean[prompts])).mean(axis=0)
    exact: Floats = np.array(path)
    gained: Floats = exact - exact[0]
    return gained


def measured(world: World, seed: int, each: int = 8) -> Reference:
    """The reference as a user has it: the mean of eight responses a prompt."""
    draw = np.random.default_rng(seed)
    by_prompt = {
        str(prompt): world.rewards[prompt, draw.integers(0, _RESPONSES, each)].mean(axis=0)
        for prompt in range(_PROMPTS)
    }
    return Reference(world.objectives, np.mean(list(by_prompt.values()), axis=0), by_prompt)


WAYS: dict[str, Callable[[World, Reference], Guard | None]] = {
    "weights": lambda world, reference: None,
    "floors": lambda world, reference: Lagrangian(
        dict(zip(world.objectives, reference.overall - TOLERANCE, strict=True))
    ),
    "guard": lambda world, reference: ParetoGuard(TOLERANCE, reference),
    "guard, always": lambda world, reference: ParetoGuard(TOLERANCE, reference, responses="always"),
    "guard, breach only": lambda world, reference: ParetoGuard(TOLERANCE, reference, means=False),
}


def figures(way: str, *, objectives: int, rate: float, steps: int, seeds: int) -> dict[str, float | str | int]:
    """Of several worlds: how many kept the tolerance at every step, the lowest mean, and the weighted gain."""
    paths = []
    for seed in range(seeds):
        world = make_world(seed, objectives)
        guard = WAYS[way](world, measured(world, seed + 100))
        paths.append((train(world, guard, steps=steps, rate=rate, seed=seed + 200), world.weights))
    lowest = [float(path.min()) for path, _ in paths]
    return {
        "way": way,
        "objectives": objectives,
        "rate": rate,
        "kept": sum(low >= -TOLERANCE for low in lowest),
        "of": seeds,
        "lowest": round(min(lowest), 3),
        "gain": round(float(np.mean([path[-1] @ weights for path, weights in paths])), 3),
    }


SETTINGS: tuple[dict[str, Any], ...] = (
    {"objectives": 3, "rate": 3.0, "steps": 150},
    {"objectives": 3, "rate": 0.7, "steps": 300},
    {"objectives": 6, "rate": 1.5, "steps": 200},
)

if __name__ == "__main__":
    for setting in SETTINGS:
        for way in WAYS:
            print(json.dumps(figures(way, **setting, seeds=8)), flush=True)
