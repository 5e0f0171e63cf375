"""Bradley-Terry with soft targets, weights and missing labels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rlaif.rewards.losses import batch_totals, bootstrap_weights, bradley_terry, length_slopes

NAN = float("nan")


def scores_of(*differences: float) -> torch.Tensor:
    """Scores of one objective, (pairs, 2, 1), float64; response b has 0.25."""
    return torch.tensor([[[0.25 + each], [0.25]] for each in differences], dtype=torch.float64)


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def test_loss_is_the_cross_entropy_of_the_soft_target() -> None:
    # sigmoid(log 3) = 3/4: -[0.8 log 0.75 + 0.2 log 0.25].
    found = bradley_terry(scores_of(math.log(3)), column(0.8), column(1))
    assert found.tolist() == pytest.approx([-(0.8 * math.log(0.75) + 0.2 * math.log(0.25))])
    # A tie costs least where the scores are the same.
    assert float(bradley_terry(scores_of(0), column(0.5), column(1))) == pytest.approx(math.log(2))


def test_weights_make_a_weighted_mean() -> None:
    found = bradley_terry(scores_of(math.log(3), 0), column(1, 1), column(3, 1))
    assert found.tolist() == pytest.approx([(3 * -math.log(0.75) + math.log(2)) / 4])


def test_missing_labels_add_nothing_and_their_gradient_is_zero() -> None:
    scores = torch.tensor([[[1.0, 2.0], [0.0, 0.0]], [[1.0, 1.0], [3.0, 0.0]]], requires_grad=True)
    target = torch.tensor([[1.0, NAN], [0.0, NAN]])
    weight = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    found = bradley_terry(scores, target, weight)
    # Objective two has no label at all.
    assert found.tolist() == pytest.approx([(math.log1p(math.exp(-1)) + math.log1p(math.exp(-2))) / 2, 0.0])
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()
    assert scores.grad[:, :, 1].abs().sum() == 0
    # d/ds_a of -log sigmoid(s_a - s_b), half of it: the mean of two.
    assert float(scores.grad[0, 0, 0]) == pytest.approx(-0.5 / (1 + math.e))


def test_a_label_of_weight_nought_counts_nothing_even_with_a_target() -> None:
    found = bradley_terry(scores_of(1, -5), column(1, 1), column(1, 0))
    assert found.tolist() == pytest.approx([math.log1p(math.exp(-1))])


def test_with_a_fixed_total_batches_add_up() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(7, 2, 3, generator=generator, dtype=torch.float64)
    target = torch.rand(7, 3, generator=generator, dtype=torch.float64)
    weight = torch.rand(7, 3, generator=generator, dtype=torch.float64)
    total = weight.sum(dim=0)
    whole = bradley_terry(scores, target, weight)
    parts = [bradley_terry(scores[rows], target[rows], weight[rows], total=total) for rows in ([0, 1], [2, 3, 4, 5, 6])]
    assert torch.allclose(whole, parts[0] + parts[1], rtol=1e-12)


def test_far_apart_scores_do_not_overflow() -> None:
    scores = scores_of(1e5, -1e5).requires_grad_()
    found = bradley_terry(scores, column(0, 0), column(1, 1))
    assert found.tolist() == pytest.approx([5e4])
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()


def test_scores_in_bfloat16_are_subtracted_in_float32() -> None:
    scores = torch.tensor([[[100.0], [99.5]]], dtype=torch.bfloat16)
    found = bradley_terry(scores, torch.ones(1, 1), torch.ones(1, 1))
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx([math.log1p(math.exp(-0.5))], rel=1e-6)


def test_totals_let_labels_or_objectives_count_the_same() -> None:
    weight = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 2.0], [1.0, 0.0]])
    # Two batches: 2 labels of the first objective in each. Labels the same: the same total for both.
    assert batch_totals(weight, 2, each=False).tolist() == [2.0, 2.0]
    # Objectives the same: weight 2 over two batches is 1, but one label weighs 2 at least.
    assert batch_totals(weight, 2, each=True).tolist() == [2.0, 2.0]
    assert batch_totals(np.repeat(weight, 3, axis=0), 2, each=True).tolist() == [6.0, 3.0]


def test_bootstrap_weighs_conversations_and_leaves_none_out() -> None:
    group = np.array([7, 3, 7, 5] * 200)
    weights = bootstrap_weights(group, 4, seed=1)
    assert weights.shape == (800, 4)
    assert np.allclose(weights.mean(axis=0), 1)
    assert (weights > 0).all()
    assert (weights[0] == weights[2]).all()
    assert not (weights[0] == weights[1]).any()
    assert (weights == bootstrap_weights(group, 4, seed=1)).all()
    assert (bootstrap_weights(group, 1, seed=1) == 1).all()
    # Exponential: as many conversations as there are, mean 1 and variance 1.
    many = bootstrap_weights(np.arange(20_000), 2, seed=0)
    assert many.var() == pytest.approx(1, abs=0.05)


def test_length_slopes_agree_with_logistic_regression() -> None:
    from sklearn.linear_model import LogisticRegression

    draw = np.random.default_rng(0)
    length = draw.normal(scale=0.7, size=4000)
    likes = (draw.random(4000) < 1 / (1 + np.exp(-1.5 * length))).astype(float)
    target = np.stack([likes, np.where(draw.random(4000) < 0.5, 1 - likes, np.nan)], axis=1)
    weight = np.isfinite(target).astype(float)
    found = length_slopes(length, target, weight)
    for objective, sign in ((0, 1), (1, -1)):
        there = weight[:, objective] > 0
        fit = LogisticRegression(C=1e6, fit_intercept=False).fit(length[there, None], target[there, objective])
        assert np.sign(found[objective]) == sign
        assert found[objective] == pytest.approx(float(fit.coef_[0, 0]), rel=0.01)


def test_length_slope_stays_finite_where_length_parts_all_labels_or_never_differs() -> None:
    parted = length_slopes(np.array([-1.0, -0.5, 0.5, 1.0]), np.array([[0.0], [0], [1], [1]]), np.ones((4, 1)))
    assert 0 < parted[0] < 20
    assert length_slopes(np.zeros(3), np.ones((3, 1)), np.ones((3, 1))).tolist() == [0.0]
