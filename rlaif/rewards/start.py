"""Where the heads of a backbone that is trained too begin: at what fits its features as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rlaif.rewards.features import read_or_make_features
from rlaif.rewards.frozen import solve_heads
from rlaif.rewards.losses import bootstrap_weights
from rlaif.rewards.model import Backbone
from rlaif.rewards.preferences import Floats, Ints
from rlaif.rewards.scoring_model import EncodedPreferences

# Of an objective; more move such heads little, and cost a pass through the backbone.
_MOST = 5_000


@dataclass(frozen=True)
class Start:
    """Heads, (objectives, members, width), and the slope of the length covariate beside them, (objectives,)."""

    heads: Floats
    slope: Floats


def solve_start(
    backbone: Backbone, training: EncodedPreferences, *, members: int, seed: int, cache: Path, batch_tokens: int
) -> Start:
    """Solve heads on the features of the backbone before it is trained, on at most 5,000 labelled pairs an objective.

    Heads that know nothing yet send the backbone gradients that bend its features at random, which a small set of
    pairs does not mend (linear probing before fine-tuning: Kumar et al. 2022, arXiv:2202.10054).

    Args:
        backbone: as it is before training.
        training: what to learn; every objective has labels.
        members: of the ensemble; each begins with the weights of conversations that it is trained with.
        seed: of the training, and of the pairs that are taken.
        cache: where features are kept: a training that goes on finds them.
        batch_tokens: of one batch, padding counted.

    Raises:
        InputError: an objective has no labels.
        RunError: the disk is full, or the features are not finite.
    """
    rows = _some(training.weight, seed)
    pairs = [training.pairs[row] for row in rows]
    table = read_or_make_features(backbone, pairs, cache=cache, batch_tokens=batch_tokens)
    solved = solve_heads(
        table.difference,
        training.target[rows],
        training.weight[rows],
        members=members,
        seed=seed,
        group=training.group[rows],
        length=None if training.length is None else training.length[rows],
        device=backbone.device,
        objectives=training.objectives,
        member_weight=bootstrap_weights(training.group, members, seed)[rows],
    )
    return Start(solved.weights.astype(np.float64), solved.length)


def _some(weight: Floats, seed: int) -> Ints:
    """Rows with enough labels of each objective, in their order."""
    draw = np.random.default_rng(seed)
    taken: Sequence[Ints] = [
        draw.permutation(np.flatnonzero(weight[:, objective] > 0))[:_MOST] for objective in range(weight.shape[1])
    ]
    rows: Ints = np.unique(np.concatenate(taken))
    return rows
