"""Reward heads as reward functions of TRL's `GRPOTrainer` and `RLOOTrainer`, with or without a guard.

    functions = rlaif.trl.reward_functions("heads")
    config = GRPOConfig(..., reward_weights=functions.weights)
    GRPOTrainer(model, reward_funcs=functions, args=config, train_dataset=prompts)

Rewards are in standard deviations of the responses that the heads were trained on, so that weights mean something.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import TrainerCallback

from rlaif.errors import InputError, RunError
from rlaif.files import replacing
from rlaif.optimize.candidates import normalized
from rlaif.optimize.guard import ParetoGuard, Responses
from rlaif.optimize.lagrange import Lagrangian, floors_of
from rlaif.optimize.reference import Reference, as_turns, content_text, measure_reference, prompt_key
from rlaif.optimize.shaping import Batch, Bools, Guard
from rlaif.rewards.aggregate import given_weights
from rlaif.rewards.heads import RewardHeads
from rlaif.rewards.preferences import Floats
from rlaif.types import Message

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments

__all__ = [
    "GuardState",
    "Lagrangian",
    "ParetoGuard",
    "Reference",
    "RewardFunctions",
    "floors_of",
    "guarded_reward",
    "measure_reference",
    "reward_functions",
]

STATE_FILE = "rlaif_guard.json"
RewardFunction = Callable[..., list[float | None]]
_log = logging.getLogger(__name__)


class RewardFunctions(list[RewardFunction]):
    """What TRL's trainers take as `reward_funcs`: one function an objective, or a single guarded one.

    Attributes:
        heads: what scores.
        weights: one a function, for `reward_weights`.
        guard: what shapes the single function's reward; `None` without one.
        metrics: of the last step, by name; TRL logs them too.
    """

    def __init__(
        self, functions: Sequence[RewardFunction], heads: RewardHeads, weights: Sequence[float], guard: Guard | None
    ) -> None:
        super().__init__(functions)
        self.heads, self.weights, self.guard = heads, list(weights), guard
        self.metrics: dict[str, float] = {}

    def state_dict(self) -> dict[str, Any]:
        """What a run that is continued has to know of the guard, as plain values."""
        return {} if self.guard is None else self.guard.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        if self.guard is not None:
            self.guard.load_state_dict(state)


def reward_functions(
    heads: str | Path | RewardHeads,
    *,
    weights: Mapping[str, float] | None = None,
    guard: Guard | None = None,
    device: str | None = None,
) -> RewardFunctions:
    """Make the reward functions of heads.

    The functions of one step share one forward pass. Prompts and completions may be texts or conversations; of a
    completion of several turns (tools) the last is scored, after all before it. A completion is scored as it stands,
    also an empty or truncated one: whoever wants cut ones not to count sets `mask_truncated_completions` in GRPO's
    configuration. One whose score is no number has the reward `None`, which TRL leaves out of the group, and a step in
    which there is no other ends training.

    Args:
        heads: their folder or hub id, or loaded ones.
        weights: by objective, made to sum to 1; otherwise those of the checkpoint.
        guard: makes it one function, of the guarded weighted reward.
        device: the GPU where there is one, else the CPU.

    Raises:
        InputError: bad heads or weights.
    """
    loaded = heads if isinstance(heads, RewardHeads) else RewardHeads.load(heads, device=device)
    rule, objectives = loaded.spec.aggregation, loaded.spec.objectives
    if weights is None and (rule.by_tag or rule.origin == "gated" or rule.method == "pareto"):
        _log.warning("%s: weights by tag, a gate and the Pareto rule are left out; one weight an objective.", heads)
    known = rule.weights if weights is None else given_weights(objectives, weights, "weights")
    shares = [float(known.get(name, 0.0)) for name in objectives]
    scorer = _Scorer(loaded)
    if guard is None:
        functions = RewardFunctions([], loaded, shares, None)
        functions += [_Objective(functions, scorer, name, place) for place, name in enumerate(objectives)]
        return functions
    functions = RewardFunctions([], loaded, [1.0], guard)
    functions.append(_Guarded(functions, scorer, np.array(shares), guard))
    return functions


def guarded_reward(
    heads: str | Path | RewardHeads,
    *,
    tolerance: float | Mapping[str, float] = 0.2,
    reference: Reference | Mapping[str, float] | float | None = None,
    floors: Lagrangian | Mapping[str, float] | None = None,
    responses: Responses = "breach",
    weights: Mapping[str, float] | None = None,
    device: str | None = None,
) -> RewardFunctions:
    """Make the one reward function that lets no objective fall below its reference by more than a tolerance.

    Args:
        heads: as `reward_functions` takes them.
        tolerance: as `ParetoGuard` takes it, as are `reference`, `floors` and `responses`.
        weights: by objective, made to sum to 1; otherwise those of the checkpoint.
        device: the GPU where there is one, else the CPU.
    """
    guard = ParetoGuard(tolerance, reference, floors=floors, responses=responses)
    return reward_functions(heads, weights=weights, guard=guard, device=device)


class GuardState(TrainerCallback):
    """Keeps a guard's state in each of the trainer's checkpoints, and goes on from it when a run is resumed.

    Give it to the trainer: `callbacks=[GuardState(functions)]`. Resumed from elsewhere than the newest checkpoint in
    `output_dir`, load it yourself: `functions.load_state_dict(json.loads((checkpoint / STATE_FILE).read_text()))`.
    """

    def __init__(self, functions: RewardFunctions) -> None:
        self._functions = functions

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Write the state beside the model."""
        if state.is_world_process_zero:
            folder = Path(args.output_dir or ".") / f"checkpoint-{state.global_step}"
            folder.mkdir(parents=True, exist_ok=True)
            with replacing(folder / STATE_FILE) as file:
                file.write(json.dumps(self._functions.state_dict()) + "\n")

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Read it, where training goes on from a step."""
        if state.global_step:
            path = Path(args.output_dir or ".") / f"checkpoint-{state.global_step}" / STATE_FILE
            if path.is_file():
                self._functions.load_state_dict(json.loads(path.read_text(encoding="utf-8")))
            else:
                _log.warning("%s: not there; the guard begins anew.", path)


class _Scorer:
    """Rewards of a step's completions, computed once for all functions."""

    def __init__(self, heads: RewardHeads) -> None:
        self._heads = heads
        self._last: tuple[list[tuple[tuple[Message, ...], str]], Floats, dict[str, float]] | None = None

    def rewards(
        self, prompts: Sequence[Any], completions: Sequence[Any]
    ) -> tuple[list[tuple[Message, ...]], Floats, dict[str, float]]:
        """The prompts as messages, the rewards (completions, objectives), and what is worth logging."""
        turns = [as_turns(prompt, place) for place, prompt in enumerate(prompts)]
        asked = [
            _asked(turn, completion, place)
            for place, (turn, completion) in enumerate(zip(turns, completions, strict=True))
        ]
        if self._last is None or self._last[0] != asked:
            rewards, truncated = self._computed(asked)
            bad = _unscored(rewards)
            for place in np.flatnonzero(bad):
                # One that overflows may spoil those that share its row.
                rewards[place] = self._computed([asked[place]])[0][0]
            bad = _unscored(rewards)
            if len(bad) and bad.all():
                raise RunError(
                    f"{self._heads.path}: no completion has a reward that is a number; expected finite scores. "
                    "Train the heads again, or load them in float32."
                )
            rewards[bad] = np.nan
            shares = {"heads/unscored": float(bad.mean()), "heads/truncated": truncated / max(len(bad), 1)}
            self._last = asked, rewards, shares
        return turns, self._last[1], self._last[2]

    def _computed(self, asked: Sequence[tuple[tuple[Message, ...], str]]) -> tuple[Floats, int]:
        """Rewards, (completions, objectives), and how many conversations were cut to the heads' length."""
        raw = self._heads.raw([before for before, _ in asked], [response for _, response in asked])
        return normalized(self._heads.spec, raw.scores), raw.truncated


class _Objective:
    """The reward function of one objective."""

    def __init__(self, functions: RewardFunctions, scorer: _Scorer, name: str, place: int) -> None:
        self.__name__ = name
        self._functions, self._scorer, self._place = functions, scorer, place

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        """As TRL calls it: a reward a completion."""
        _, rewards, shares = self._scorer.rewards(prompts, completions)
        if self._place == 0:
            _tell(self._functions, shares, columns)
        return _or_none(rewards[:, self._place])


class _Guarded:
    """The one reward function of a guard."""

    def __init__(self, functions: RewardFunctions, scorer: _Scorer, weights: Floats, guard: Guard) -> None:
        self.__name__ = "guarded_reward"
        self._functions, self._scorer, self._weights, self._guard = functions, scorer, weights, guard

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        """As TRL calls it: a reward a completion. All processes of a run see the whole step, and so agree."""
        turns, rewards, shares = self._scorer.rewards(prompts, completions)
        objectives = self._functions.heads.spec.objectives
        keys, whole, start = _of_all_processes([prompt_key(turn) for turn in turns], rewards)
        shaped = self._guard.shape(Batch(objectives, whole, self._weights, keys), learn=not _evaluating(columns))
        means = np.nanmean(whole, axis=0) if np.isfinite(whole).any() else np.full(len(objectives), np.nan)
        metrics = {f"rewards/{name}": float(mean) for name, mean in zip(objectives, means, strict=True)}
        metrics["guard/weighted"] = float(means @ self._weights)
        _tell(self._functions, {**shares, **metrics, **shaped.metrics}, columns)
        mine = slice(start, start + len(rewards))
        if callable(extra := columns.get("log_extra")):
            for place, name in enumerate(objectives):
                extra(name, rewards[:, place].tolist())
            extra("blocked", shaped.blocked[mine].tolist())
        return _or_none(shaped.reward[mine])


def _asked(turns: tuple[Message, ...], completion: Any, place: int) -> tuple[tuple[Message, ...], str]:
    """The conversation before a response, and the response.

    A prompt that ends in the assistant's turn is one that the policy continues: that text is part of its response.
    """
    made: tuple[Message, ...] = ()
    try:
        if isinstance(completion, str):
            response = completion
        else:
            made = as_turns(completion[:-1], place) if completion[:-1] else ()
            response = content_text(completion[-1].get("content")) if completion else ""
    except (AttributeError, KeyError, TypeError):
        raise InputError(f"completion {place + 1}: {completion!r}; expected a text, or messages.") from None
    before = turns + made
    if not made and len(before) > 1 and before[-1].role == "assistant":
        return before[:-1], before[-1].content + response
    return before, response


def _unscored(rewards: Floats) -> Bools:
    """Whether a completion has a reward that is no number, (completions,)."""
    bad: Bools = ~np.all(np.isfinite(rewards), axis=1)
    return bad


def _or_none(rewards: Floats) -> list[float | None]:
    return [float(reward) if np.isfinite(reward) else None for reward in rewards]


def _tell(functions: RewardFunctions, metrics: Mapping[str, float], columns: Mapping[str, Any]) -> None:
    """Keep a step's metrics, and have TRL log those that are numbers."""
    functions.metrics = dict(metrics)
    if callable(log := columns.get("log_metric")):
        for name, value in metrics.items():
            if np.isfinite(value):
                log(name, value)


def _evaluating(columns: Mapping[str, Any]) -> bool:
    """Whether TRL calls from an evaluation: the trainer that the logging function belongs to has its model so."""
    trainer = getattr(columns.get("log_metric"), "__self__", None)
    return not getattr(getattr(trainer, "model", None), "training", True)


def _of_all_processes(keys: list[str], rewards: Floats) -> tuple[list[str], Floats, int]:
    """Prompts and rewards of all processes in their order, and where this one's begin: a group may be spread over some.

    TRL calls the functions of all processes at the same point of a step, and puts their rewards together so.
    """
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return keys, rewards, 0
    parts: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(parts, (keys, rewards))
    start = sum(len(each) for each, _ in parts[: distributed.get_rank()])
    return [key for each, _ in parts for key in each], np.concatenate([each for _, each in parts]), start
