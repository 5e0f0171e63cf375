"""Heads that a trained backbone starts from: solved on its features as they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from rlaif.errors import InputError
from rlaif.rewards.checkpoints import complete_steps
from rlaif.rewards.features import read_or_make_features
from rlaif.rewards.finetune import Progress
from rlaif.rewards.frozen import solve_heads
from rlaif.rewards.losses import bootstrap_weights
from rlaif.rewards.scoring_model import ScoringModel
from rlaif.rewards.start import _MOST, Start, _some, solve_start
from rlaif.rewards.train import train_heads
from tests.finetuning import make_backbone, make_data, train, with_length
from tests.test_train_heads import labelled


def test_they_are_what_solving_on_all_features_gives(tmp_path: Path) -> None:
    backbone, data = make_backbone(tmp_path), with_length(make_data(60))
    given: dict[str, Any] = {"members": 3, "seed": 4}
    start = solve_start(backbone, data, **given, cache=tmp_path / "cache", batch_tokens=512)
    table = read_or_make_features(backbone, data.pairs, cache=tmp_path / "cache", batch_tokens=512)
    # They were kept.
    assert table.computed == 0
    # Each member counts conversations as it will in training, and not by draws of its own.
    how: dict[str, Any] = {**given, "group": data.group, "length": data.length}
    drawn = bootstrap_weights(data.group, 3, 4)
    solved = solve_heads(table.difference, data.target, data.weight, **how, member_weight=drawn)
    assert start.heads == pytest.approx(solved.weights)
    assert start.slope == pytest.approx(solved.length)
    others = solve_heads(table.difference, data.target, data.weight, **how)
    assert abs(others.weights - solved.weights).max() > 0.01
    assert others.l2.tolist() == solved.l2.tolist()
    model = ScoringModel(backbone, members=3, seed=0, slope=start.slope, heads=start.heads)
    assert model.weight.detach().numpy() == pytest.approx(start.heads, rel=1e-5)


def test_of_very_many_pairs_some_of_each_objective_are_taken() -> None:
    weight = np.zeros((3 * _MOST, 2))
    weight[: 2 * _MOST, 0] = 1
    rare = np.arange(7, 3 * _MOST, 1000)
    weight[rare, 1] = 0.5
    rows = _some(weight, seed=0)
    assert set(rare) <= set(rows.tolist())
    # Rare ones count for the other objective too where they were drawn for it.
    assert _MOST <= len(rows) <= _MOST + len(rare)
    assert (np.diff(rows) > 0).all()
    assert (weight[rows] > 0).any(axis=1).all()
    assert (rows == _some(weight, seed=0)).all()
    assert len(set(rows) ^ set(_some(weight, seed=1))) > 1000


def test_an_objective_without_labels_is_named(tmp_path: Path) -> None:
    data = make_data(8)
    bare = replace(data, weight=data.weight * [1, 0])
    with pytest.raises(InputError, match="'second': no labels among 8 pairs"):
        solve_start(make_backbone(tmp_path), bare, members=1, seed=0, cache=tmp_path / "c", batch_tokens=512)


class Stopped(Exception):
    """What ends a training in a test."""


def test_a_training_that_is_continued_solves_nothing_again(tmp_path: Path) -> None:
    data = make_data(48)
    # Laid out in memory as the solver does, and not as a checkpoint.
    heads = np.asfortranarray(np.random.default_rng(0).normal(size=(2, 3, make_backbone(tmp_path).hidden)))

    def stop(progress: Progress) -> None:
        if progress.step == 5:
            raise Stopped

    def never() -> Start:
        raise AssertionError("a checkpoint is there")

    def own() -> Start:
        return Start(heads, np.zeros(2))

    whole = train(make_backbone(tmp_path), tmp_path / "whole", data=data, members=3, start=own)
    with pytest.raises(Stopped):
        train(make_backbone(tmp_path), tmp_path / "stopped", data=data, members=3, start=own, watch=stop)
    assert complete_steps(tmp_path / "stopped") == [3]
    with pytest.raises(InputError, match="start"):
        train(make_backbone(tmp_path), tmp_path / "stopped", data=data, members=3)
    again = train(make_backbone(tmp_path), tmp_path / "stopped", data=data, members=3, start=never)
    assert (again.members == whole.members).all()
    other = train(make_backbone(tmp_path), tmp_path / "other", data=data, members=3)
    assert abs(other.members - whole.members).max() > 0.1


def test_a_full_training_that_hardly_moves_gives_the_frozen_heads(tmp_path: Path) -> None:
    make_backbone(tmp_path)
    labels = labelled(tmp_path / "data", 40)
    how: dict[str, Any] = {"backbone": str(tmp_path / "model"), "ensemble": 1, "length_control": True}
    how |= {"device": "cpu", "cache": tmp_path / "cache"}
    train_heads(labels, tmp_path / "frozen", **how)
    train_heads(labels, tmp_path / "full", mode="full", lr=1e-12, epochs=1.0, **how)
    frozen, full = (load_file(tmp_path / mode / "model.safetensors")["score.weight"] for mode in ("frozen", "full"))
    assert full.numpy() == pytest.approx(frozen.numpy(), abs=1e-5)
    assert frozen.abs().max() > 1e-3
