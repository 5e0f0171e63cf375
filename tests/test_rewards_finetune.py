"""Training the backbone with its heads: what is learned, what a kill leaves, and what is refused."""

from __future__ import annotations

import json
import random
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification, PreTrainedModel

from rlaif.errors import InputError, RunError
from rlaif.rewards.checkpoints import complete_steps, place_of
from rlaif.rewards.finetune import EncodedPreferences, FinetuneResult, Progress
from rlaif.rewards.losses import batch_totals
from rlaif.rewards.model import Backbone
from rlaif.rewards.schedule import make_plan
from rlaif.rewards.scoring_model import without_dropout
from tests.conftest import ROOT, environment
from tests.finetuning import OBJECTIVES, SETTINGS, make_backbone, make_data, one_thread, train, weights_of, with_length


class Stopped(Exception):
    """Breaks a training off, as a kill does."""


def raw_scores(model: torch.nn.Module, data: EncodedPreferences) -> np.ndarray:
    """Scores of whole conversations one by one, by transformers alone, (pairs, 2, objectives)."""
    with torch.no_grad():
        rows = [[model(torch.tensor([ids])).logits[0] for ids in pair.conversations] for pair in data.pairs]
    return torch.stack([torch.stack(row) for row in rows]).double().numpy()


def accuracy(model: torch.nn.Module, data: EncodedPreferences) -> list[float]:
    """Share of labels on whose side the scores are, by objective."""
    scores = raw_scores(model, data)
    right = (scores[:, 0] > scores[:, 1]) == (data.target > 0.5)
    return [float(right[data.weight[:, place] > 0, place].mean()) for place in range(len(data.objectives))]


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_it_learns_both_objectives_and_leaves_an_ordinary_checkpoint(tmp_path: Path, mode: Any) -> None:
    backbone = make_backbone(tmp_path)
    before = weights_of(backbone)
    held_out = make_data(60, seed=9)
    result = train(backbone, tmp_path / "training", mode=mode, held_out=held_out, members=2)
    assert min(accuracy(backbone.model, held_out)) > 0.9
    assert result.held_out_loss == min(each["eval_loss"] for each in result.history if "eval_loss" in each)
    assert result.members.shape == (2, 2, backbone.hidden)
    assert np.allclose(backbone.head.weight.detach().numpy(), result.members.mean(axis=1), atol=1e-7)
    # Members differ: each has weights of its own.
    assert np.abs(result.members[:, 0] - result.members[:, 1]).max() > 1e-3
    after = weights_of(backbone)
    assert {name: each.shape for name, each in after.items()} == {name: each.shape for name, each in before.items()}
    backbone.model.save_pretrained(tmp_path / "heads")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "heads")
    assert np.allclose(raw_scores(loaded, held_out), raw_scores(backbone.model, held_out), atol=1e-5)
    curve = [each for each in result.history if "loss" in each]
    assert curve[0]["loss/first"] > curve[-1]["loss/first"]
    assert [each["epoch"] for each in result.history if "eval_loss" in each] == [0.5, 1, 1.5, 2, 2.5, 3]


def test_prompts_are_computed_once(tmp_path: Path) -> None:
    result = train(make_backbone(tmp_path), tmp_path / "training", epochs=0.1)
    pairs = make_data(96).pairs
    assert result.tokens == sum(len(pair.prefix) + len(pair.a) + len(pair.b) for pair in pairs)
    assert result.tokens_apart == sum(len(a) + len(b) for a, b in (pair.conversations for pair in pairs))


def plain_training(backbone: Backbone, data: EncodedPreferences, rate: float, head_rate: float) -> None:
    """The same training written out: conversations one by one, AdamW, the schedule by hand."""
    plan = make_plan(data.pairs, budget=400, epochs=1, seed=1, one_pass=True)
    totals = batch_totals(data.weight, plan.per_epoch, each=False)
    model, head = backbone.model, backbone.head
    body = [(name, each) for name, each in model.named_parameters() if each is not head.weight]
    groups: list[dict[str, Any]] = [
        {"params": [each for name, each in body if "norm" not in name], "lr": rate, "weight_decay": 0.01},
        {"params": [each for name, each in body if "norm" in name], "lr": rate, "weight_decay": 0.0},
        {"params": [head.weight], "lr": head_rate, "weight_decay": 0.01},
    ]
    optimizer = torch.optim.AdamW(groups)
    starts = [group["lr"] for group in groups]
    for step, rows in enumerate(plan.batches):
        loss = torch.zeros(())
        for row in rows:
            a, b = (model(torch.tensor([ids])).logits[0] for ids in data.pairs[row].conversations)
            for place in range(2):
                if data.weight[row, place]:
                    target = torch.tensor(data.target[row, place], dtype=torch.float32)
                    each = functional.binary_cross_entropy_with_logits((a - b)[place], target)
                    loss = loss + each / float(totals[place])
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group, start in zip(optimizer.param_groups, starts, strict=True):
            group["lr"] = start * (plan.steps - step) / plan.steps
        optimizer.step()
        optimizer.zero_grad()


def test_it_does_what_a_plain_loop_does(tmp_path: Path) -> None:
    data = make_data(40)
    backbone, plain = make_backbone(tmp_path), make_backbone(tmp_path)
    train(backbone, tmp_path / "training", data=data, epochs=1, lr=1e-3, head_lr=5e-3, warmup=0)
    with one_thread():
        plain_training(plain, data, 1e-3, 5e-3)
    found, wanted = weights_of(backbone), weights_of(plain)
    assert found.keys() == wanted.keys()
    start = weights_of(make_backbone(tmp_path))
    moved = max(float((wanted[name] - start[name]).abs().max()) for name in wanted)
    assert moved > 3e-3
    # Adam's first steps divide rounding by rounding where a gradient is next to nothing.
    apart = torch.cat([(found[name] - wanted[name]).abs().flatten() for name in wanted])
    assert float(apart.mean()) < 1e-5
    assert float(apart.max()) < 0.2 * moved


def test_killed_at_a_random_step_and_continued_it_gives_the_same_weights(tmp_path: Path) -> None:
    held_out = make_data(24, seed=9)
    whole = make_backbone(tmp_path)
    wanted = train(whole, tmp_path / "whole", held_out=held_out, members=2)
    # Any step before the last; with its log it does not always have a checkpoint.
    last = random.Random().randrange(4, wanted.steps)
    command = [sys.executable, "-m", "tests.finetuning", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment(), cwd=ROOT) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= last:
                process.send_signal(signal.SIGKILL)
                break
        process.wait()
    assert process.returncode == -signal.SIGKILL, f"killed at {last}"
    done = complete_steps(tmp_path / "training")
    assert done
    assert done[-1] < wanted.steps
    backbone = make_backbone(tmp_path)
    found = train(backbone, tmp_path / "training", held_out=held_out, members=2)
    assert same(weights_of(backbone), weights_of(whole)), f"killed at {last}, continued from {done[-1]}"
    assert (found.members == wanted.members).all()
    assert (found.step, found.held_out_loss) == (wanted.step, wanted.held_out_loss)
    assert found.history == wanted.history


def interrupted(folder: Path, at: int, **settings: Any) -> tuple[Backbone, FinetuneResult]:
    """Train, break off at a step, and go on with a fresh backbone."""

    def stop(progress: Progress) -> None:
        if progress.step >= at:
            raise Stopped

    with pytest.raises(Stopped):
        train(make_backbone(folder), folder / "broken", watch=stop, **settings)
    backbone = make_backbone(folder)
    return backbone, train(backbone, folder / "broken", **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"mode": "lora", "dropout": True, "accumulate": 2},
        {"aggregate": "pareto", "members": 2},
        {"precision": "bfloat16", "gradient_checkpointing": True},
    ],
    ids=["lora", "pareto", "bfloat16"],
)
def test_every_way_of_training_continues_to_the_same_weights(tmp_path: Path, settings: dict[str, Any]) -> None:
    settings = settings | {"data": with_length(make_data(60)), "held_out": with_length(make_data(24, seed=9))}
    settings |= {"epochs": 2}
    whole = make_backbone(tmp_path)
    wanted = train(whole, tmp_path / "whole", **settings)
    backbone, found = interrupted(tmp_path, wanted.steps // 2, **settings)
    assert same(weights_of(backbone), weights_of(whole))
    assert found.history == wanted.history
    assert found.conflicts == wanted.conflicts
    assert found.slope is not None
    assert wanted.slope is not None
    assert (found.slope == wanted.slope).all()
    assert (found.slope != 0).all()


def test_conflicts_of_objectives_are_counted(tmp_path: Path) -> None:
    data = make_data(96, conflict=True)
    backbone = make_backbone(tmp_path)
    # Heads that begin alike, and contrary labels: the first gradients are opposite, until the heads are.
    with torch.no_grad():
        backbone.head.weight[1] = backbone.head.weight[0]
    result = train(backbone, tmp_path / "training", data=data, aggregate="pareto", epochs=1)
    assert result.conflicts is not None
    assert result.compared is not None
    assert result.compared[0][1] == result.steps
    assert 0 < result.conflicts[0][1] <= result.steps
    assert result.conflicts[0][1] == result.conflicts[1][0]
    assert result.conflicts[0][0] == 0


def test_training_stops_when_it_gets_no_better_and_the_best_weights_are_taken(tmp_path: Path) -> None:
    # Held-out labels are the opposite of those trained on: every step makes it worse.
    held_out = make_data(24, seed=9)
    held_out = EncodedPreferences(OBJECTIVES, held_out.pairs, 1 - held_out.target, held_out.weight, held_out.group)
    settings: dict[str, Any] = {"held_out": held_out, "patience": 2}
    backbone = make_backbone(tmp_path)
    result = train(backbone, tmp_path / "training", **settings)
    measured = [each["step"] for each in result.history if "eval_loss" in each]
    assert result.stopped_early
    assert result.step == measured[0]
    assert len(measured) == 3
    # Only the best and the last checkpoint are kept.
    assert complete_steps(tmp_path / "training") == [measured[0], measured[2]]
    # The same call again trains no more, and takes the same weights.
    again = make_backbone(tmp_path)
    assert train(again, tmp_path / "training", **settings).history == result.history
    assert same(weights_of(again), weights_of(backbone))


def test_a_checkpoint_that_was_not_finished_is_not_continued_from(tmp_path: Path) -> None:
    _, wanted = interrupted(tmp_path, 7)
    folder = tmp_path / "broken"
    half = place_of(folder, wanted.steps + 1)
    half.mkdir()
    (half / "trainer_state.json").write_text("{")
    (place_of(folder, wanted.steps) / "complete").unlink()
    with pytest.raises(Stopped):
        # Nothing whole is left: it begins anew.
        train(make_backbone(tmp_path), folder, watch=lambda progress: stop_at_first(progress))
    assert not half.exists()


def stop_at_first(progress: Progress) -> None:
    assert progress.step == 1
    raise Stopped


def test_other_settings_or_data_are_refused(tmp_path: Path) -> None:
    interrupted_at_first(tmp_path)
    with pytest.raises(InputError, match=r"training: holds a training that differs in lr; give the same settings"):
        train(make_backbone(tmp_path), tmp_path / "training", lr=1e-4)
    with pytest.raises(InputError, match="differs in training pairs"):
        train(make_backbone(tmp_path), tmp_path / "training", data=make_data(97))
    changed = make_backbone(tmp_path)
    with torch.no_grad():
        next(changed.model.parameters()).add_(1)
    with pytest.raises(InputError, match="differs in backbone"):
        train(changed, tmp_path / "training")


def interrupted_at_first(folder: Path) -> None:
    with pytest.raises(Stopped):
        train(make_backbone(folder), folder / "training", watch=stop_at_first)


@pytest.mark.parametrize("aggregate", ["weighted", "pareto"])
def test_a_loss_that_is_no_number_ends_with_the_step_and_the_fix(tmp_path: Path, aggregate: str) -> None:
    with pytest.raises(RunError, match=r"step \d+.*: the loss is not a number; .*smaller --lr"):
        train(make_backbone(tmp_path), tmp_path / "training", lr=1e30, aggregate=aggregate, max_grad_norm=1e30)
    for step in complete_steps(tmp_path / "training"):
        entries = json.loads((place_of(tmp_path / "training", step) / "trainer_state.json").read_text())["log_history"]
        assert all(np.isfinite(entry["loss"]) for entry in entries if "loss" in entry)


def test_an_objective_without_labels_is_named(tmp_path: Path) -> None:
    data = make_data(12)
    target, weight = data.target.copy(), data.weight.copy()
    target[:, 1], weight[:, 1] = np.nan, 0
    bare = EncodedPreferences(OBJECTIVES, data.pairs, target, weight, data.group)
    with pytest.raises(InputError, match=r"^second: no label to train on"):
        train(make_backbone(tmp_path), tmp_path / "training", data=bare)


@pytest.mark.parametrize(("package", "settings"), [("peft", {"mode": "lora"}), ("accelerate", {"mode": "full"})])
def test_a_package_that_is_missing_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, settings: dict[str, Any]
) -> None:
    backbone = make_backbone(tmp_path)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"^--mode {settings['mode']}: {package} .*pip install 'rlaif\[train\]'"):
        train(backbone, tmp_path / "training", **settings)


def test_one_pair_and_one_class_of_labels_are_learned(tmp_path: Path) -> None:
    one = make_data(2)
    one = EncodedPreferences(OBJECTIVES, one.pairs[1:], np.ones((1, 2)), np.ones((1, 2)), one.group[1:])
    backbone = make_backbone(tmp_path)
    result = train(backbone, tmp_path / "training", data=one, held_out=None, epochs=8, members=3)
    assert result.held_out_loss is None
    assert result.step == result.steps == 8
    scores = raw_scores(backbone.model, one)
    assert (scores[:, 0] > scores[:, 1]).all()


def test_a_full_disk_is_one_error_and_the_training_goes_on_after_it(tmp_path: Path) -> None:
    whole = make_backbone(tmp_path)
    train(whole, tmp_path / "whole", epochs=1)
    backbone = make_backbone(tmp_path)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        # A file that may not grow fails as one on a full disk does. The weights fit, the optimizer's state does not.
        fits = 5 * sum(each.numel() for each in backbone.model.parameters())
        resource.setrlimit(resource.RLIMIT_FSIZE, (fits, limit[1]))
        with pytest.raises(RunError, match=r"cannot be written .*free some space"):
            train(backbone, tmp_path / "training", epochs=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, before)
    assert complete_steps(tmp_path / "training") == []
    again = make_backbone(tmp_path)
    train(again, tmp_path / "training", epochs=1)
    assert same(weights_of(again), weights_of(whole))


def test_checkpoints_of_adapters_hold_no_backbone(tmp_path: Path) -> None:
    backbone = make_backbone(tmp_path)
    result = train(backbone, tmp_path / "training", mode="lora", epochs=0.5, lora_rank=2)
    saved = place_of(tmp_path / "training", result.steps) / "model.safetensors"
    assert saved.stat().st_size < 0.3 * sum(each.numel() * 4 for each in backbone.model.parameters())


def test_computing_twice_to_keep_less_changes_nothing(tmp_path: Path) -> None:
    found = []
    for name, settings in {"plain": {}, "less": {"gradient_checkpointing": True}}.items():
        backbone = make_backbone(tmp_path)
        train(backbone, tmp_path / name, epochs=0.5, **settings)  # type: ignore[arg-type]
        found.append(weights_of(backbone))
        assert not backbone.model.is_gradient_checkpointing
    assert all(torch.allclose(found[0][name], found[1][name], atol=1e-6) for name in found[0])


def small_bert(pad_id: int) -> PreTrainedModel:
    """A BERT with random weights and two labels."""
    config = BertConfig(
        vocab_size=320,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        pad_token_id=pad_id,
    )
    model: PreTrainedModel = BertForSequenceClassification(config)  # type: ignore[no-untyped-call]
    model.train(False)
    return model


def test_an_encoder_is_trained_in_two_passes(tmp_path: Path) -> None:
    backbone = make_backbone(tmp_path)
    torch.manual_seed(0)
    found = Backbone(small_bert(backbone.pad_id), backbone.tokenizer, "bert", backbone.encoder, one_pass=False)
    bias = found.head.bias.detach().clone()
    result = train(found, tmp_path / "training", epochs=2)
    losses = [each["loss"] for each in result.history if "loss" in each]
    assert losses[-1] < losses[0]
    # Both responses have the same bias: it is not learned.
    assert torch.equal(found.head.bias, bias)


def test_dropout_is_off_for_a_while() -> None:
    model = small_bert(0).train()
    ids = torch.arange(1, 9)[None]
    with torch.no_grad():
        assert not torch.equal(model(ids).logits, model(ids).logits)
        with without_dropout(model):
            assert torch.equal(model(ids).logits, model(ids).logits)
        assert not torch.equal(model(ids).logits, model(ids).logits)


def test_the_callers_random_numbers_are_its_own(tmp_path: Path) -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    wanted = float(torch.rand(1)), float(np.random.random()), random.random()
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    train(make_backbone(tmp_path), tmp_path / "training", epochs=0.1, seed=SETTINGS["seed"] + 1)
    assert (float(torch.rand(1)), float(np.random.random()), random.random()) == wanted
