"""Exported labels in the hands of TRL's own trainers: a step each, with the loss computed a second time by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import load_dataset, load_from_disk
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, RewardConfig, RewardTrainer

from rlaif.optimize.preference_files import export_preferences
from rlaif.optimize.preference_formats import PREFERENCE_FORMATS, PreferenceFormat
from rlaif.starter import checkpoint
from tests.preference_examples import DUNNO, MOON, label_row, make_run

QUIET = {"report_to": [], "use_cpu": True, "bf16": False, "disable_tqdm": True, "save_strategy": "no", "seed": 0}
ONE_STEP: dict[str, Any] = {"max_steps": 1, "learning_rate": 1e-3, "logging_steps": 1, **QUIET}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pairs with a preference."""
    rows = [label_row(f"p{place}", p_a, a=f"{MOON} {place}") for place, p_a in enumerate((0.9, 0.2, 0.7, 0.35))]
    return make_run(tmp_path_factory.mktemp("exported") / "run", rows)


def dataset(run: Path, folder: Path, layout: PreferenceFormat, *, saved: bool = False, **options: Any) -> Any:
    """The export as `datasets` reads it, from a saved folder or from JSON Lines."""
    out = folder / ("saved" if saved else "out.jsonl")
    assert export_preferences(str(run), out, layout, **options).rows == 4
    if saved:
        return load_from_disk(str(out))
    return load_dataset("json", data_files=str(out), split="train", cache_dir=str(folder / "cache"))


def logged(trainer: Any, name: str) -> float:
    """What the only step logged."""
    (entry,) = [entry for entry in trainer.state.log_history if name in entry]
    return float(entry[name])


def texts_of(row: dict[str, Any], layout: PreferenceFormat, tokenizer: Any) -> tuple[str, str]:
    """What a reward model is to read of a row: chosen and rejected, each after the prompt."""
    sides = (row["chosen"], row["rejected"])
    if layout == "trl":
        first, second = (row["prompt"] + side + tokenizer.eos_token for side in sides)
        return first, second
    before = [] if layout == "openrlhf" else row["prompt"]
    first, second = (tokenizer.apply_chat_template([*before, *side], tokenize=False) for side in sides)
    return first, second


def scores_of(model: Any, tokenizer: Any, texts: list[str]) -> list[float]:
    """Scores of a classifier, text by text."""
    with torch.inference_mode():
        inputs = [tokenizer(text, return_tensors="pt", add_special_tokens=False) for text in texts]
        return [float(model(input_ids=each["input_ids"]).logits[0, 0]) for each in inputs]


@pytest.mark.parametrize("margin", [False, True])
@pytest.mark.parametrize("layout", PREFERENCE_FORMATS)
def test_the_reward_trainer_learns_what_is_chosen(
    run: Path, tmp_path: Path, tiny_judge: Path, layout: PreferenceFormat, margin: bool
) -> None:
    rows = dataset(run, tmp_path, layout, saved=margin, margin=margin)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_judge, num_labels=1, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tiny_judge)
    config = RewardConfig(output_dir=str(tmp_path / "trained"), per_device_train_batch_size=4, **ONE_STEP)
    trainer = RewardTrainer(model=model, args=config, train_dataset=rows, processing_class=tokenizer)
    pairs = [texts_of(row, layout, tokenizer) for row in rows]
    better = scores_of(trainer.model, tokenizer, [first for first, _ in pairs])
    worse = scores_of(trainer.model, tokenizer, [second for _, second in pairs])
    gaps = np.array(better) - np.array(worse)
    # The labels are 0.9, 0.8, 0.7 and 0.65 for the chosen response.
    asked = np.log(np.array([0.9, 0.8, 0.7, 0.65]) / [0.1, 0.2, 0.3, 0.35]) if margin else np.zeros(4)
    trainer.train()
    assert logged(trainer, "train_loss") == pytest.approx(np.log1p(np.exp(asked - gaps)).mean(), abs=1e-3)


@pytest.mark.parametrize("layout", PREFERENCE_FORMATS)
def test_the_dpo_trainer_moves_towards_what_is_chosen(run: Path, tmp_path: Path, layout: PreferenceFormat) -> None:
    rows = dataset(run, tmp_path, layout)
    tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint())
    config = DPOConfig(output_dir=str(tmp_path / "trained"), per_device_train_batch_size=4, **ONE_STEP)
    trainer = DPOTrainer(model=str(checkpoint()), args=config, train_dataset=rows, processing_class=tokenizer)
    for row, made in zip(rows, trainer.train_dataset, strict=True):
        expected = [DUNNO, f"{MOON} {row['id'][1:]}"]
        chosen, rejected = expected if row["id"] in ("p1", "p3") else expected[::-1]
        assert tokenizer.decode(made["chosen_ids"]).strip().startswith(chosen)
        assert tokenizer.decode(made["rejected_ids"]).strip().startswith(rejected)
        assert f"How do tides work? ({row['id']})" in tokenizer.decode(made["prompt_ids"])
    before = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
    trainer.train()
    # Policy and reference are one model at the first step: log 2.
    assert logged(trainer, "train_loss") == pytest.approx(np.log(2), abs=1e-3)
    assert any(not torch.equal(weight, before[name]) for name, weight in trainer.model.named_parameters())


@pytest.mark.parametrize("layout", ["trl", "trl-conversational"])
def test_grpo_takes_the_prompts(run: Path, tmp_path: Path, layout: PreferenceFormat) -> None:
    rows = dataset(run, tmp_path, layout)
    seen: list[dict[str, Any]] = []

    def length(prompts: list[Any], completions: list[Any], **columns: Any) -> list[float]:
        seen.append({"prompt": prompts, **columns})
        return [float(len(str(completion))) for completion in completions]

    config = GRPOConfig(
        output_dir=str(tmp_path / "trained"),
        per_device_train_batch_size=4,
        num_generations=2,
        max_completion_length=8,
        **ONE_STEP,
    )
    trainer = GRPOTrainer(
        model=str(checkpoint()),
        reward_funcs=length,
        args=config,
        train_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(checkpoint()),
    )
    trainer.train()
    # The other columns reach the reward functions, row by row.
    known = {row["id"]: row for row in rows}
    (batch,) = seen
    assert len(batch["prompt"]) == 4
    for place, name in enumerate(batch["id"]):
        for column in ("prompt", "chosen", "rejected", "p_chosen"):
            assert batch[column][place] == known[name][column]
