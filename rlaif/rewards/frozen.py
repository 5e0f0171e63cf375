"""Reward heads on features that stay as they are: every head and every member of its ensemble solved together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from rlaif.errors import InputError
from rlaif.rewards.logistic import Curvature, Problems, Rows, Singles, Table, make_table, minimise
from rlaif.rewards.preferences import Floats, Ints

# Half the squared norm's weight beside the mean loss of a pair, of features whose root mean square is 1.
STRENGTHS = tuple(10.0 ** (power / 2) for power in range(-8, 5))
_FOLDS = 5
_MANY = 20_000  # labelled pairs: from here on one fold held out tells the strengths apart
_NEAR = 1e-3  # what choosing a strength needs
_EXACT = 1e-7


@dataclass(frozen=True)
class Solved:
    """Linear heads without a bias, and how they were found.

    Attributes:
        weights: on the features as they came, (objectives, members, width).
        l2: the strength chosen for each objective, (objectives,).
        loss: mean log-loss of the training pairs without the penalty, (objectives, members).
        strengths: what was chosen from, (strengths,).
        heldout_loss: mean log-loss on pairs that a fit did not see, (objectives, strengths); nan where nothing was
            compared: one strength only, or pairs of one conversation only.
        length: slope of the covariate, mean over the members, (objectives,); 0 without one.
        gap: root mean square of what is left of the way to the minimum, in units of the score, the worst of all heads.
        passes: over the pairs, in the last fit.
    """

    weights: Singles
    l2: Floats
    loss: Floats
    strengths: tuple[float, ...]
    heldout_loss: Floats
    length: Floats
    gap: float
    passes: int

    @property
    def mean(self) -> Singles:
        """The ensemble's mean, again a linear head, (objectives, width)."""
        mean: Singles = self.weights.mean(axis=1, dtype=np.float64).astype(np.float32)
        return mean


def solve_heads(
    difference: Rows,
    target: Floats,
    weight: Floats,
    *,
    members: int,
    seed: int,
    group: npt.NDArray[np.integer],
    l2: Sequence[float] | None = None,
    length: Floats | None = None,
    device: torch.device | None = None,
    objectives: Sequence[str] | None = None,
    member_weight: Floats | None = None,
) -> Solved:
    """Fit Bradley-Terry heads with soft targets, all objectives and members at once, each to its minimum.

    P(a is better) = sigmoid(weights @ (features of a - features of b) + slope * length). The loss is the weighted mean
    over an objective's pairs. Several members differ by the Bayesian bootstrap over conversations (Rubin 1981): each
    conversation counts by a draw of the exponential distribution, so that, unlike with a drawn sample, none is without
    labels. Feature by feature the penalty counts in units of the root mean square, which is the same when a and b
    are swapped. The covariate's slope has no penalty, and is left out when scores are given.

    Args:
        difference: features of a less those of b, (pairs, width).
        target: P(a is better), (pairs, objectives); nan where there is no label.
        weight: what a label counts, (pairs, objectives); 0 where there is none.
        members: 1 for heads fitted to all pairs as they are.
        seed: of members and folds.
        group: the conversation of each pair, (pairs,): never on both sides of a held-out comparison.
        l2: strengths to choose from for each objective by held-out loss; a single one is taken without comparing.
        length: covariate, (pairs,), such as the logarithm of the ratio of the responses' lengths.
        device: where to compute, the CPU by default.
        objectives: names, for errors.
        member_weight: what each pair counts for each member, (pairs, members), in place of draws of its own.

    Raises:
        InputError: an objective has no labels, features are not finite, or a strength is not above 0.
    """
    strengths = STRENGTHS if l2 is None else tuple(sorted(set(l2)))
    if not strengths or min(strengths) <= 0 or members < 1:
        raise InputError(f"l2 {strengths}, {members} members: expected strengths above 0 and at least 1 member.")
    # Apple's devices know no double precision.
    device = torch.device("cpu") if device is None or device.type == "mps" else device
    names = [str(number) for number in range(target.shape[1])] if objectives is None else objectives
    for name, labels in zip(names, (np.isfinite(target) & (weight > 0)).sum(axis=0), strict=True):
        if not labels:
            raise InputError(
                f"objective {name!r}: no labels among {len(target)} pairs; expected at least one. "
                "Add labels for it, or leave the objective out."
            )
    try:
        table = make_table(difference, length, target, weight, device)
    except ValueError:
        raise InputError(
            "The backbone's features are not all finite numbers; expected finite ones. Give a backbone with sound "
            "weights, or compute in float32."
        ) from None
    numbered: Ints = np.unique(group, return_inverse=True)[1].astype(np.int64)
    with torch.no_grad():
        curvature = Curvature(table, seed)
        heldout, start = _compare(table, curvature, _folds(table, numbered, seed), strengths)
        best = torch.tensor([_best(losses) for losses in heldout], device=device)
        shape = len(names), members
        each = torch.arange(len(names) * members, device=device)
        times = _members(numbered, members, seed) if member_weight is None else torch.from_numpy(member_weight)
        problems = Problems(
            table,
            target=each // members,
            draw=each % members,
            times=times.to(device),
            l2=torch.tensor(strengths, dtype=torch.float64, device=device)[best[each // members]],
        )
        start = start[torch.arange(len(names), device=device), best].T[:, each // members]
        found = minimise(problems, curvature, start, _EXACT)
        loss, _ = problems.losses(found.coefficients, each, torch.float64)
        raw = (found.coefficients * table.inverse[:, None]).T.reshape(*shape, -1).cpu().numpy()
    width = difference.shape[1]
    return Solved(
        weights=raw[:, :, :width].astype(np.float32),
        l2=np.array(strengths)[best.cpu().numpy()],
        loss=loss.reshape(shape).cpu().numpy(),
        strengths=strengths,
        heldout_loss=heldout,
        length=raw[:, :, width:].sum(axis=2).mean(axis=1),
        gap=float(found.gap.max()),
        passes=found.passes,
    )


def _members(group: Ints, members: int, seed: int) -> torch.Tensor:
    """How often each pair counts in each member, (pairs, members); a member's draw is the same among fewer or more."""
    if members == 1:
        return torch.ones(len(group), 1, dtype=torch.float64)
    draws = [np.random.default_rng([seed, 2, member]).exponential(size=group.max() + 1) for member in range(members)]
    return torch.from_numpy(np.column_stack(draws)[group])


def _folds(table: Table, group: Ints, seed: int) -> list[tuple[int, torch.Tensor]]:
    """Which pairs are held out together, 1 or 0, (pairs,), each with its objective: whole conversations.

    Conversations are dealt out per objective, so that every fold has labels of it, and so has what is left.
    """
    folds = []
    for objective, labelled in enumerate((table.weight > 0).T.cpu().numpy()):
        with_labels = np.unique(group[labelled])
        parts = min(_FOLDS, len(with_labels))
        if parts < 2:
            continue
        fold = np.full(group.max() + 1, -1)
        fold[np.random.default_rng([seed, 3]).permutation(with_labels)] = np.arange(len(with_labels)) % parts
        held_out = parts if labelled.sum() < _MANY else 1
        folds += [(objective, torch.from_numpy((fold[group] == part).astype(np.float64))) for part in range(held_out)]
    return folds


def _compare(
    table: Table, curvature: Curvature, folds: list[tuple[int, torch.Tensor]], strengths: tuple[float, ...]
) -> tuple[Floats, torch.Tensor]:
    """Mean log-loss on what was held out, by objective and strength, and where such fits end.

    Returns:
        The losses, nan where nothing was held out, (objectives, strengths); and coefficients of one of the fits,
        (objectives, strengths, coefficients), 0 where there is none.
    """
    objectives, count = table.target.shape[1], len(strengths)
    near = torch.zeros(objectives, count, len(table.inverse), dtype=torch.float64, device=table.device)
    sums, totals = np.zeros((objectives, count)), np.zeros((objectives, count))
    if count > 1 and folds:
        each = torch.arange(len(folds) * count, device=table.device)
        objective = torch.tensor([objective for objective, _ in folds], device=table.device)[each // count]
        held_out = torch.stack([held_out for _, held_out in folds], dim=1).to(table.device)
        l2 = torch.tensor(strengths, dtype=torch.float64, device=table.device)[each % count]
        problems = Problems(table, objective, each // count, 1 - held_out, l2)
        start = torch.zeros(len(table.inverse), len(each), dtype=torch.float64, device=table.device)
        found = minimise(problems, curvature, start, _NEAR).coefficients
        unseen = Problems(table, objective, each // count, held_out, l2)
        loss, _ = unseen.losses(found, each, torch.float32)
        place = objective.cpu().numpy(), (each % count).cpu().numpy()
        np.add.at(sums, place, (loss * unseen.total).cpu().numpy())
        np.add.at(totals, place, unseen.total.cpu().numpy())
        for number, (objective_of_fold, _) in enumerate(folds):
            near[objective_of_fold] = found[:, number * count : (number + 1) * count].T
    return np.divide(sums, totals, out=np.full_like(sums, np.nan), where=totals > 0), near


def _best(losses: Floats) -> int:
    """The strength with the lowest held-out loss, or the middle one where nothing was compared."""
    return len(losses) // 2 if np.isnan(losses).any() else int(losses.argmin())
