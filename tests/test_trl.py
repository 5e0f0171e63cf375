"""Reward functions in TRL's own trainers: what they are called with, what they return, and what they do to a policy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoTokenizer
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

import rlaif
from examples.tiny_judge import make_tiny_judge
from rlaif.errors import InputError, RunError
from rlaif.optimize.guard import ParetoGuard
from rlaif.rewards.heads import RewardHeads
from rlaif.trl import STATE_FILE, GuardState, RewardFunctions, guarded_reward, measure_reference, reward_functions
from tests.conftest import ROOT, environment
from tests.heads_examples import OBJECTIVES, PROMPTS, RESPONSES, make_heads

EMBEDDINGS = "model.embed_tokens.weight"
WEIGHTS = [1 / 6, 2 / 6, 3 / 6]
TRAINERS = [(GRPOTrainer, GRPOConfig), (RLOOTrainer, RLOOConfig)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Heads of three objectives on a tiny backbone."""
    return make_heads(tmp_path_factory.mktemp("rl"))


@pytest.fixture(scope="module")
def heads(folder: Path) -> RewardHeads:
    return RewardHeads.load(folder)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny policy with random weights."""
    return str(make_tiny_judge(tmp_path_factory.mktemp("policy"), [*PROMPTS, *RESPONSES], hidden=64, context=512))


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def assistant(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def called(functions: RewardFunctions, prompts: list[Any], completions: list[Any], **columns: Any) -> Any:
    """What each function returns, (completions, functions)."""
    return np.array([each(prompts=prompts, completions=completions, **columns) for each in functions], dtype=float).T


def expected(heads: RewardHeads, prompts: list[Any], responses: list[str]) -> Any:
    """What the heads say, (completions, objectives)."""
    return np.array([[each.rewards[name] for name in OBJECTIVES] for each in heads.score(prompts, responses)])


def test_there_is_a_function_an_objective_with_its_weight(folder: Path) -> None:
    functions = rlaif.trl.reward_functions(folder)
    assert isinstance(functions, list)
    assert [each.__name__ for each in functions] == list(OBJECTIVES)
    assert functions.weights == pytest.approx(WEIGHTS)
    given = reward_functions(folder, weights={"honesty": 3, "helpfulness": 1})
    assert given.weights == [0.25, 0.0, 0.75]
    with pytest.raises(InputError, match="Did you mean 'honesty'"):
        reward_functions(folder, weights={"honest": 1})


def test_texts_and_conversations_are_scored_as_the_heads_score(heads: RewardHeads) -> None:
    prompts, responses = [PROMPTS[0], PROMPTS[1]] * 2, list(RESPONSES)
    functions = reward_functions(heads)
    by_hand = expected(heads, prompts, responses)
    assert called(functions, prompts, responses) == pytest.approx(by_hand, abs=1e-5)
    turns = called(functions, [user(text) for text in prompts], [assistant(text) for text in responses])
    assert turns == pytest.approx(by_hand, abs=1e-5)
    assert np.ptp(by_hand, axis=0).min() > 0.01


def test_forms_that_trl_gives(heads: RewardHeads) -> None:
    functions = reward_functions(heads)
    asked, text = PROMPTS[0], RESPONSES[0]
    parts = [{"role": "user", "content": [{"type": "text", "text": asked[:8]}, {"type": "text", "text": asked[8:]}]}]
    tools = [{"role": "assistant", "content": None, "tool_calls": [{}]}, {"role": "tool", "content": "42"}]
    before = [*user(asked), {"role": "assistant", "content": ""}, {"role": "tool", "content": "42"}]
    cases: list[tuple[Any, Any, Any, str]] = [
        (parts, [{"role": "assistant", "content": [{"type": "text", "text": text}]}], asked, text),
        # Tools: the last turn is the response, all before it the conversation.
        (user(asked), [*tools, *assistant(text)], before, text),
        # A prefilled turn is a part of the response.
        ([*user(asked), *assistant(text[:9])], assistant(text[9:]), asked, text),
        (user(asked), assistant(""), asked, ""),
        (user(asked), [], asked, ""),
        (asked, "", asked, ""),
    ]
    for prompt, completion, conversation, response in cases:
        found = called(functions, [prompt], [completion])
        assert found == pytest.approx(expected(heads, [conversation], [response]), abs=1e-5)
    with pytest.raises(InputError, match="completion 1: 7; expected a text, or messages"):
        called(functions, [asked], [7])


def test_the_functions_of_a_step_share_one_forward_pass(folder: Path) -> None:
    heads = RewardHeads.load(folder)
    passes: list[int] = []
    heads.backbone.model.base_model.register_forward_hook(lambda *_: passes.append(1))
    functions = reward_functions(heads)
    prompts, responses = [PROMPTS[0]] * 4, list(RESPONSES)
    called(functions[:1], prompts, responses)  # type: ignore[arg-type]
    once = len(passes)
    assert once > 0
    called(functions, prompts, responses)
    assert len(passes) == once
    called(functions, prompts, [*responses[:3], "Another."])
    assert len(passes) == 2 * once


def test_a_score_that_is_no_number_is_no_reward(folder: Path) -> None:
    heads = RewardHeads.load(folder)
    marked = heads.backbone.tokenizer("Rain", add_special_tokens=False)["input_ids"][0]
    alone = [place for place, text in enumerate(RESPONSES) if "Rain" in text]
    with torch.no_grad():
        dict(heads.backbone.model.named_parameters())[EMBEDDINGS][marked] = torch.nan
    prompts = [user(PROMPTS[0])] * 4
    functions = reward_functions(heads)
    completions = [assistant(text) for text in RESPONSES]
    first = functions[0](prompts=prompts, completions=completions)
    assert [place for place, reward in enumerate(first) if reward is None] == alone
    assert functions.metrics["heads/unscored"] == 1 / 4
    guarded = reward_functions(heads, guard=ParetoGuard(0.1, 0.0))
    (reward,) = [each(prompts=prompts, completions=completions) for each in guarded]
    assert [place for place, each in enumerate(reward) if each is None] == alone
    with pytest.raises(RunError, match="no completion has a reward that is a number"):
        functions[0](prompts=prompts[:1], completions=[assistant("Rain")])


def test_a_reference_is_the_mean_of_each_prompt(heads: RewardHeads) -> None:
    prompts: list[Any] = [PROMPTS[0], user(PROMPTS[1])]
    reference = measure_reference(heads, prompts, [list(RESPONSES[:3]), list(RESPONSES[3:])])
    rewards = expected(heads, [PROMPTS[0]] * 3 + [PROMPTS[1]], list(RESPONSES))
    by_hand = np.array([rewards[:3].mean(axis=0), rewards[3]])
    # The prompts are met again, however they are written.
    mine = expected(heads, [PROMPTS[0]] * 4, list(RESPONSES))
    furthest = (mine - by_hand[0]).min(axis=1)
    tolerance = -float(np.median(furthest))
    functions = guarded_reward(heads, tolerance=tolerance, reference=reference, responses="always")
    (reward,) = called(functions, [user(PROMPTS[0])] * 4, [assistant(text) for text in RESPONSES]).T
    assert reference.overall == pytest.approx(by_hand.mean(axis=0), abs=1e-5)
    below = furthest < -tolerance
    assert tolerance > 0
    assert (below.sum(), functions.metrics["guard/blocked"]) == (2, 0.5)
    assert (reward[below] <= reward[~below].min()).all()
    for responses, message in (([["a"]], "2 prompts and 1 lists"), ([["a"], []], "prompt 2: expected a list of one")):
        with pytest.raises(InputError, match=message):
            measure_reference(heads, prompts, responses)


def configured(config: Any, out: Path, **given: Any) -> Any:
    quiet = {"report_to": [], "use_cpu": True, "bf16": False, "disable_tqdm": True, "seed": 0, "save_strategy": "no"}
    sizes = {"max_steps": 2, "per_device_train_batch_size": 4, "num_generations": 4, "max_completion_length": 8}
    return config(output_dir=str(out), **{**quiet, **sizes, "learning_rate": 1e-3, "logging_steps": 1, **given})


def trained(kinds: Any, policy: str, functions: RewardFunctions, out: Path, *, text: bool = False, **given: Any) -> Any:
    """A trainer that has done its steps."""
    trainer_of, config_of = kinds
    prompts: list[Any] = list(PROMPTS[:2]) if text else [user(prompt) for prompt in PROMPTS[:2]]
    callbacks = given.pop("callbacks", None)
    resumed = given.pop("resume_from_checkpoint", None)
    trainer = trainer_of(
        model=policy,
        reward_funcs=functions,
        args=configured(config_of, out, reward_weights=functions.weights, **given),
        train_dataset=Dataset.from_dict({"prompt": prompts}),
        processing_class=AutoTokenizer.from_pretrained(policy),
        callbacks=callbacks,
    )
    trainer.train(resume_from_checkpoint=resumed)
    return trainer


def logged(trainer: Any, name: str) -> list[float]:
    return [entry[name] for entry in trainer.state.log_history if name in entry]


@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize("kinds", TRAINERS)
def test_trl_trains_on_the_objectives(kinds: Any, text: bool, policy: str, heads: RewardHeads, tmp_path: Path) -> None:
    functions = reward_functions(heads)
    trainer = trained(kinds, policy, functions, tmp_path, text=text)
    means = np.array([logged(trainer, f"rewards/{name}/mean") for name in OBJECTIVES])
    assert means.shape == (3, 2)
    assert logged(trainer, "reward") == pytest.approx((np.array(WEIGHTS) @ means).tolist(), abs=1e-5)
    assert logged(trainer, "heads/unscored") == [0.0, 0.0]
    # What TRL kept of the last steps' texts has these rewards.
    texts = list(trainer._logs["completion"])
    responses = texts if text else [each[0]["content"] for each in texts]
    prompts = list(trainer._logs["prompt"])
    kept = np.array([list(trainer._logs["rewards"][name]) for name in OBJECTIVES]).T
    assert len(kept) >= 4
    assert kept == pytest.approx(expected(heads, prompts, responses), abs=1e-4)


@pytest.mark.parametrize("kinds", TRAINERS)
def test_no_blocked_completion_is_praised_by_trl(kinds: Any, policy: str, heads: RewardHeads, tmp_path: Path) -> None:
    # RLOO takes its penalty for KL off the reward afterwards: without it the sign is the guard's.
    functions = guarded_reward(heads, tolerance=0.05, reference=0.0, responses="always")
    free: dict[str, Any] = {"beta": 0.0, "per_device_train_batch_size": 8}
    trainer = trained(kinds, policy, functions, tmp_path, **free)
    assert functions.weights == [1.0]
    blocked = np.array(trainer._logs["extra"]["blocked"])
    advantages = np.array(trainer._logs["advantages"])
    assert len(blocked) == len(advantages) == 8
    assert blocked.any()
    assert (advantages[blocked] <= 0).all()
    rewards = np.array([list(trainer._logs["extra"][name]) for name in OBJECTIVES]).T
    assert ((rewards < -0.05).any(axis=1) == blocked).all()
    assert logged(trainer, "guard/blocked")[-1] == pytest.approx(blocked.mean())
    assert logged(trainer, "rewards/honesty")[-1] == pytest.approx(rewards[:, 2].mean(), abs=1e-5)


def test_a_resumed_run_goes_on_with_its_guard(policy: str, heads: RewardHeads, tmp_path: Path) -> None:
    def made() -> RewardFunctions:
        return guarded_reward(heads, tolerance=0.1, reference=0.5, floors={"honesty": 1.0})

    def run(functions: RewardFunctions, **given: Any) -> Any:
        state = GuardState(functions)
        saving: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2, "callbacks": [state]}
        return trained(TRAINERS[0], policy, functions, tmp_path, **saving, **given)

    first = made()
    run(first)
    state = json.loads((tmp_path / "checkpoint-2" / STATE_FILE).read_text())
    assert state == json.loads(json.dumps(first.state_dict()))
    log = state["floors"]["log_multipliers"]["honesty"]
    second = made()
    trainer = run(second, max_steps=3, resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    (multiplier,) = logged(trainer, "guard/multiplier/honesty")[-1:]
    mean = second.state_dict()["floors"]["means"]
    miss = min(max(1.0 - mean["total"][2] / mean["weight"], -1.0), 1.0)
    # One step of ascent from where the first run ended.
    assert np.log(multiplier) == pytest.approx(log + 0.5 * miss, abs=1e-5)


def test_evaluation_does_not_move_the_guard(policy: str, heads: RewardHeads, tmp_path: Path) -> None:
    functions = guarded_reward(heads, reference=0.0, floors={"honesty": 1.0})
    trainer = trained(TRAINERS[0], policy, functions, tmp_path, max_steps=1, per_device_eval_batch_size=4)
    before = functions.state_dict()
    trainer.evaluate(Dataset.from_dict({"prompt": [user(PROMPTS[2])]}))
    assert functions.state_dict() == before


def test_grpo_raises_what_it_is_trained_on(policy: str, heads: RewardHeads, tmp_path: Path) -> None:
    functions = reward_functions(heads, weights={"helpfulness": 1})
    sizes: dict[str, Any] = {"per_device_train_batch_size": 32, "num_generations": 16, "max_completion_length": 6}
    sizes |= {"max_steps": 12, "learning_rate": 5e-3, "lr_scheduler_type": "constant"}
    trainer = trained(TRAINERS[0], policy, functions, tmp_path, **sizes)
    means = logged(trainer, "rewards/helpfulness/mean")
    spread = logged(trainer, "rewards/helpfulness/std")[0]
    assert np.mean(means[-3:]) > np.mean(means[:3]) + 0.5 * spread


HALF = """
import json, sys
import torch
from rlaif.optimize.guard import ParetoGuard
from rlaif.trl import reward_functions

torch.distributed.init_process_group("gloo", init_method=sys.argv[2], rank=int(sys.argv[3]), world_size=2)
functions = reward_functions(sys.argv[1], guard=ParetoGuard(0.05, 0.0, responses="always"))
mine = slice(2 * int(sys.argv[3]), 2 * int(sys.argv[3]) + 2)
found = functions[0](prompts=[sys.argv[4]] * 2, completions=sys.argv[5:][mine])
print(json.dumps([found, functions.state_dict()]))
torch.distributed.destroy_process_group()
"""


def test_a_group_spread_over_two_processes_is_one_group(folder: Path, heads: RewardHeads, tmp_path: Path) -> None:
    started = [
        subprocess.Popen(
            [sys.executable, "-c", HALF, str(folder), f"file://{tmp_path}/meet", str(rank), PROMPTS[0], *RESPONSES],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment(),
        )
        for rank in range(2)
    ]
    halves = [json.loads(process.communicate(timeout=300)[0].splitlines()[-1]) for process in started]
    whole = reward_functions(heads, guard=ParetoGuard(0.05, 0.0, responses="always"))
    (reward,) = called(whole, [PROMPTS[0]] * 4, list(RESPONSES)).T
    assert halves[0][0] + halves[1][0] == pytest.approx(reward.tolist(), abs=1e-5)
    assert halves[0][1] == halves[1][1]
    assert halves[0][1]["gaps"]["weight"] == whole.state_dict()["gaps"]["weight"] == 4
