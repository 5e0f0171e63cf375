"""Heads as one reward model: the same rewards up to a constant, in plain transformers and in TRL's own trainers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer, RewardConfig, RewardTrainer

from rlaif.errors import InputError
from rlaif.rewards.export import export_reward_model
from rlaif.rewards.heads import RewardHeads, save_heads
from rlaif.starter import checkpoint
from tests.conftest import Cli
from tests.heads_examples import PROMPTS, conversations, make_backbone, make_heads, make_spec, plain_logits

QUIET = {"report_to": [], "use_cpu": True, "bf16": False, "disable_tqdm": True, "save_strategy": "no", "seed": 0}


def by_hand(raw: np.ndarray[Any, Any], weights: list[float]) -> np.ndarray[Any, Any]:
    """Weighted rewards with the numbers of `make_spec`: means 0.1, 0.2, 0.3, deviations 1, 1.5, 2."""
    total: np.ndarray[Any, Any] = ((raw - [0.1, 0.2, 0.3]) / [1.0, 1.5, 2.0]) @ np.array(weights)
    return total


@pytest.mark.parametrize(("architecture", "members"), [("llama", 1), ("llama", 5), ("starter", 1), ("bert", 1)])
def test_the_exported_score_is_the_weighted_reward(architecture: str, members: int, tmp_path: Path) -> None:
    folder = make_heads(tmp_path, architecture, members=members)
    summary = export_reward_model(folder, tmp_path / "one")
    expected = by_hand(plain_logits(folder).double().numpy(), [1 / 6, 2 / 6, 3 / 6])
    found = plain_logits(tmp_path / "one").double().numpy()
    assert found.shape == (12, 1)
    assert np.abs(found[:, 0] + summary.constant - expected).max() < 1e-4
    assert expected.std() > 0.01
    # A head without a bias leaves the means out: (0.1 * 1/6) / 1 + (0.2 * 2/6) / 1.5 + (0.3 * 3/6) / 2.
    assert summary.constant == pytest.approx(0.0 if architecture == "bert" else -(0.1 / 6 + 0.2 / 4.5 + 0.3 / 4))
    heads = RewardHeads.load(folder)
    rewards = [reward.reward for reward in heads.score(*conversations())]
    assert np.abs(np.array(rewards) - expected).max() < 1e-4
    assert summary.notes == ()


def test_other_weights_and_what_one_score_cannot_hold(tmp_path: Path) -> None:
    rule: dict[str, Any] = {"method": "pareto", "floors": {"honesty": 0.2}, "by_tag": {"medical": {"honesty": 1.0}}}
    folder = make_heads(tmp_path, **rule)
    summary = export_reward_model(folder, tmp_path / "one", {"helpfulness": 3, "honesty": 1})
    assert summary.weights == {"helpfulness": 0.75, "harmlessness": 0.0, "honesty": 0.25}
    found = plain_logits(tmp_path / "one").double().numpy()[:, 0] + summary.constant
    expected = by_hand(plain_logits(folder).double().numpy(), [0.75, 0.0, 0.25])
    assert np.abs(found - expected).max() < 1e-4
    # Whoever gives weights has them for every tag; the rest is still left out.
    assert [note.split()[0] for note in summary.notes] == ["The", "Floors"]
    assert [note.split()[0] for note in export_reward_model(folder, tmp_path / "one").notes] == [
        "The",
        "Floors",
        "Weights",
    ]
    told = json.loads((tmp_path / "one" / "rlaif_export.json").read_text())
    assert told["weights"]["honesty"] == pytest.approx(0.5)
    assert "| honesty | 0.5 |" in (tmp_path / "one" / "README.md").read_text()


def test_the_precision_that_was_saved_is_kept(tmp_path: Path) -> None:
    backbone = make_backbone(tmp_path / "backbone")
    backbone.model.bfloat16()
    save_heads(tmp_path / "heads", backbone, None, make_spec())
    export_reward_model(tmp_path / "heads", tmp_path / "one")
    weights = load_file(tmp_path / "one" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert weights["score.weight"].shape == (1, 128)
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "one").dtype == torch.bfloat16


def test_an_export_writes_over_nothing_else(tmp_path: Path) -> None:
    folder = make_heads(tmp_path)
    with pytest.raises(InputError, match="the heads themselves"):
        export_reward_model(folder, folder)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="holds other files"):
        export_reward_model(folder, tmp_path / "mine")
    with pytest.raises(InputError, match="a file; expected a folder"):
        export_reward_model(folder, tmp_path / "mine" / "thesis.txt")
    with pytest.raises(InputError, match=r"--weights: there is no head 'speed'"):
        export_reward_model(folder, tmp_path / "one", {"speed": 1})
    assert not (tmp_path / "one").exists()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Heads on the starter, and their export."""
    folder = make_heads(tmp_path_factory.mktemp("exported"), "starter")
    export_reward_model(folder, folder.parent / "reward-model")
    return folder, folder.parent / "reward-model"


def test_trl_trains_the_exported_model_on(exported: tuple[Path, Path], tmp_path: Path) -> None:
    _, folder = exported
    rows = [
        {
            "prompt": [{"role": "user", "content": prompt}],
            "chosen": [{"role": "assistant", "content": "The moon pulls the sea."}],
            "rejected": [{"role": "assistant", "content": "I do not know."}],
        }
        for prompt in PROMPTS
    ]
    config = RewardConfig(
        output_dir=str(tmp_path), max_steps=1, per_device_train_batch_size=3, learning_rate=1e-3, **QUIET
    )
    trainer = RewardTrainer(model=str(folder), args=config, train_dataset=Dataset.from_list(rows))
    before = load_file(folder / "model.safetensors")
    started = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
    assert all(torch.equal(started[name], tensor) for name, tensor in before.items())
    trainer.train()
    # The same loss by hand: the chosen is better with sigmoid(difference of our scores).
    heads = RewardHeads.load(exported[0])
    prompts = [row["prompt"] for row in rows for _ in range(2)]
    scores = [reward.reward for reward in heads.score(prompts, ["The moon pulls the sea.", "I do not know."] * 3)]
    margins = np.array(scores[::2]) - np.array(scores[1::2])
    (entry,) = [entry for entry in trainer.state.log_history if "train_loss" in entry]
    assert entry["train_loss"] == pytest.approx(np.log1p(np.exp(-margins)).mean(), abs=1e-3)
    assert not torch.equal(trainer.model.score.weight, started["score.weight"])


def test_trl_s_grpo_takes_the_exported_model_by_its_path(exported: tuple[Path, Path], tmp_path: Path) -> None:
    """One step with the starter as policy; what TRL's reward model says is what our heads say of the same answers."""
    source, folder = exported
    heads = RewardHeads.load(source)

    def ours(prompts: list[Any], completions: list[Any], **_: Any) -> list[float]:
        return [reward.reward for reward in heads.score(prompts, [turns[0]["content"] for turns in completions])]

    rows = [{"prompt": [{"role": "user", "content": prompt}]} for prompt in PROMPTS[:2]]
    config = GRPOConfig(
        output_dir=str(tmp_path),
        max_steps=1,
        per_device_train_batch_size=4,
        num_generations=2,
        max_completion_length=12,
        learning_rate=1e-3,
        logging_steps=1,
        reward_weights=[1.0, 0.0],
        **QUIET,
    )
    trainer = GRPOTrainer(
        model=str(checkpoint()),
        reward_funcs=[str(folder), ours],
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(checkpoint()),
    )
    before = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
    trainer.train()
    (logged,) = [entry for entry in trainer.state.log_history if "rewards/ours/mean" in entry]
    constant = -(0.1 / 6 + 0.2 / 4.5 + 0.3 / 4)
    assert logged["rewards/reward-model/mean"] + constant == pytest.approx(logged["rewards/ours/mean"], abs=1e-4)
    assert logged["rewards/reward-model/std"] == pytest.approx(logged["rewards/ours/std"], abs=1e-4)
    assert logged["reward"] == pytest.approx(logged["rewards/reward-model/mean"], abs=1e-4)
    moved = [name for name, weight in trainer.model.named_parameters() if not torch.equal(weight, before[name])]
    assert moved


def test_the_command_exports(exported: tuple[Path, Path], tmp_path: Path, rlaif: Cli) -> None:
    heads, _ = exported
    out = tmp_path / "one"
    arguments = ("export", heads, "--format", "reward-model", "--weights", "helpfulness=3,honesty=1")
    done = rlaif(*arguments, "--out", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"one reward of helpfulness 0.75, harmlessness 0, honesty 0.25 -> {out}",
        "the heads' reward is its score plus -0.1125",
    ]
    assert json.loads((out / "config.json").read_text())["id2label"] == {"0": "reward"}
    shutil.rmtree(out)
    wrong = rlaif(*arguments[:-1], "helpfulness", "--out", out)
    assert wrong.returncode == 2
    assert "expected OBJECTIVE=NUMBER" in wrong.stderr
    assert not out.exists()
