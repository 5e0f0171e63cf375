"""Heads that a trained backbone starts from: solved on its features as they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from rlaif.errors import InputError
from rlaif.rewards.features import read_or_make_features
from rlaif.rewards.frozen import solve_heads
from rlaif.rewards.scoring_model import ScoringModel
from rlaif.rewards.start import _MOST, _some, heads_to_start_from
from rlaif.rewards.train import train_heads
from tests.finetuning import make_backbone, make_data, train
from tests.test_train_heads import labelled


def test_they_are_what_solving_on_all_features_gives(tmp_path: Path) -> None:
    backbone, data = make_backbone(tmp_path), make_data(60)
    given: dict[str, Any] = {"members": 3, "seed": 4}
    start = heads_to_start_from(backbone, data, **given, cache=tmp_path / "cache", batch_tokens=512)
    table = read_or_make_features(backbone, data.pairs, cache=tmp_path / "cache", batch_tokens=512)
    # A training that goes on finds the features.
    assert table.computed == 0
    solved = solve_heads(table.difference, data.target, data.weight, **given, group=data.group)
    assert start == pytest.approx(solved.weights)
    model = ScoringModel(backbone, members=3, seed=0, slope=None, start=start)
    assert model.weight.detach().numpy() == pytest.approx(start, rel=1e-5)


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
        heads_to_start_from(make_backbone(tmp_path), bare, members=1, seed=0, cache=tmp_path / "c", batch_tokens=512)


def test_a_training_goes_on_with_heads_that_differ_in_their_last_digits(tmp_path: Path) -> None:
    """Another number of threads adds in another order, which is no other training."""
    data = make_data(48)
    start = np.random.default_rng(0).normal(size=(2, 1, make_backbone(tmp_path).hidden))
    once = train(make_backbone(tmp_path), tmp_path / "training", data=data, members=1, start=start)
    again = train(make_backbone(tmp_path), tmp_path / "training", data=data, members=1, start=start * (1 + 1e-7))
    assert (again.members == once.members).all()
    other = train(make_backbone(tmp_path), tmp_path / "other", data=data, members=1)
    assert abs(other.members - once.members).max() > 0.1


def test_a_full_training_that_hardly_moves_gives_the_frozen_heads(tmp_path: Path) -> None:
    make_backbone(tmp_path)
    labels = labelled(tmp_path / "data", 40)
    how: dict[str, Any] = {
        "backbone": str(tmp_path / "model"),
        "ensemble": 2,
        "device": "cpu",
        "cache": tmp_path / "cache",
    }
    train_heads(labels, tmp_path / "frozen", device="cpu", **how)
    train_heads(labels, tmp_path / "full", mode="full", lr=1e-12, epochs=1.0, device="cpu", **how)
    heads = {mode: load_file(tmp_path / mode / "ensemble.safetensors") for mode in ("frozen", "full")}
    assert heads["full"].keys() == heads["frozen"].keys()
    for name, tensor in heads["frozen"].items():
        assert heads["full"][name].numpy() == pytest.approx(tensor.numpy(), abs=1e-5)
