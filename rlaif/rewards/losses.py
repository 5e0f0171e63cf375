"""What training minimises: Bradley-Terry with soft targets, missing labels masked, labels weighted."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from rlaif.rewards.preferences import Floats, Ints

_NEWTON_STEPS = 50


def bradley_terry(
    scores: torch.Tensor, target: torch.Tensor, weight: torch.Tensor, *, total: torch.Tensor | None = None
) -> torch.Tensor:
    """Loss by objective: `-[p log sigmoid(d) + (1 - p) log sigmoid(-d)]`, d the score of a less that of b.

    Where the target is nan there is no label: nothing is added, and the gradient is zero, not nan. An objective without
    any label in the batch has loss 0.

    Args:
        scores: of both responses, (pairs, 2, objectives).
        target: P(a is better), (pairs, objectives).
        weight: what a label counts, (pairs, objectives).
        total: what the weighted sum is divided by, (objectives,). Without it the batch's own weight, so that the loss
            is a mean; with the same one for all batches of an epoch, every label counts the same whatever batch it is
            in, and the losses of parts of a batch add up to that of the whole.

    Returns:
        (objectives,), float32 or better.
    """
    wide = scores if scores.dtype == torch.float64 else scores.float()
    difference = wide[:, 0] - wide[:, 1]  # (pairs, objectives)
    # Selected before the arithmetic: nan times 0 is nan, and so is its gradient.
    labelled = ~target.isnan() & (weight > 0)
    p = torch.where(labelled, target, 0.5).to(wide)
    counts = torch.where(labelled, weight, 0.0).to(wide)
    losses = -(p * functional.logsigmoid(difference) + (1 - p) * functional.logsigmoid(-difference))
    divisor = counts.sum(dim=0) if total is None else total.to(wide)
    return (losses * counts).sum(dim=0) / torch.where(divisor > 0, divisor, 1.0)


def batch_totals(weight: Floats, batches: int, *, each: bool) -> Floats:
    """What a batch's weighted losses are divided by, (objectives,), so that a full batch's loss is about a mean.

    Args:
        weight: what a label counts, (pairs, objectives).
        batches: how many batches the pairs make.
        each: divide each objective by the weight that it has in the average batch (at least one label's), so that
            objectives count the same however many labels they have. Else all by that of the objective with most
            labels, so that labels count the same, and a handful of them under one objective cannot lead the backbone.
    """
    held = weight.sum(axis=0)
    if not each:
        shared: Floats = np.full(len(held), held.max(initial=0.0) / max(batches, 1))
        return shared
    one = held / np.maximum((weight > 0).sum(axis=0), 1)
    own: Floats = np.maximum(held / max(batches, 1), one)
    return own


def bootstrap_weights(group: Ints, members: int, seed: int) -> Floats:
    """How much each pair counts for each member of an ensemble, (pairs, members); the mean is 1.

    Bayesian bootstrap: a conversation's weight is drawn from the exponential distribution, so that none is left out
    even where there are few. One member alone counts every pair once.

    Source: Rubin, The Bayesian Bootstrap, Annals of Statistics 9(1), 1981.
    """
    if members == 1:
        alone: Floats = np.ones((len(group), 1))
        return alone
    _, place = np.unique(group, return_inverse=True)
    draws = np.random.default_rng(seed).exponential(size=(int(place.max(initial=-1)) + 1, members))
    weights: Floats = draws[place] / np.maximum(draws[place].mean(axis=0), np.finfo(float).tiny)
    return weights


def length_slopes(length: Floats, target: Floats, weight: Floats) -> Floats:
    """Slope of a preference on length alone, by objective, (objectives,): where the covariate's slope starts from.

    Maximum likelihood of `P(a) = sigmoid(slope x length)` with a little ridge (a standard normal prior at the scale of
    the length), since length may part the labels completely.

    Args:
        length: log(1 + tokens of a) - log(1 + tokens of b), (pairs,).
        target: P(a is better), (pairs, objectives).
        weight: what a label counts, (pairs, objectives).
    """
    spread = float(np.sqrt(np.mean(length**2))) if len(length) else 0.0
    slopes: Floats = np.zeros(target.shape[1])
    if spread == 0:
        return slopes
    x = (length / spread)[:, None]
    labelled = np.isfinite(target) & (weight > 0)
    p, counts = np.where(labelled, target, 0.5), np.where(labelled, weight, 0.0)
    for _ in range(_NEWTON_STEPS):
        fitted = 1 / (1 + np.exp(-np.clip(x * slopes, -60, 60)))
        gradient = (counts * (fitted - p) * x).sum(axis=0) + slopes
        # The steepest curve of the logistic bounds the Hessian, so that no step goes too far.
        step = gradient / ((counts * 0.25 * x**2).sum(axis=0) + 1)
        slopes = slopes - step
    found: Floats = slopes / spread
    return found
