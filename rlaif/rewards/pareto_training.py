"""Training that no objective pays for: conflicting gradients on the shared backbone are resolved, and counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Literal

import numpy as np
import torch
from scipy.optimize import nnls
from torch import nn

from rlaif.errors import InputError

Aggregator = Literal["upgrad", "dualproj", "mgda", "aligned-mtl", "pcgrad"]
Weighting = Callable[[torch.Tensor], torch.Tensor]
# How a log's entries are named; the objectives follow, with a bar between.
CONFLICTS, COMPARED = "conflicts/", "compared/"
# Of the mean Gramian, what a step keeps: gradients of one batch also point against each other by chance, and what lasts
# is resolved.
MEMORY = 0.99
# Gradients that are at right angles but for rounding are no conflict.
_CONFLICT = -1e-6


def make_weighting(aggregator: Aggregator, objectives: int) -> Weighting:
    """A rule from the Gramian of the objectives' gradients, (objectives, objectives), to their weights, (objectives,).

    The weights are such that gradients without a conflict are added up, as in weighted training.

    Raises:
        InputError: torchjd is not installed, or too old.

    Source: Quinton and Rey, Jacobian Descent for Multi-Objective Optimization, 2024 (UPGrad, the default).
    """
    try:
        from torchjd import aggregation
        from torchjd.linalg import DualConeProjector
    except ImportError as error:
        raise InputError(
            f"--aggregate pareto: torchjd cannot be imported ({error}); pip install 'rlaif[train]'."
        ) from None

    class ConeProjector(DualConeProjector):  # type: ignore[misc]
        """Projects onto the dual cone by non-negative least squares, which needs no package but scipy."""

        def __call__(self, U: torch.Tensor, G: torch.Tensor) -> torch.Tensor:  # noqa: N803
            gramian = G.double().cpu().numpy()
            found = np.apply_along_axis(lambda vector: dual_cone(vector, gramian), -1, U.double().cpu().numpy())
            return torch.as_tensor(found, device=G.device, dtype=G.dtype)

    made, scale = {
        # Each of these takes a mean of the objectives.
        "upgrad": (lambda: aggregation.UPGradWeighting(projector=ConeProjector()), objectives),
        "dualproj": (lambda: aggregation.DualProjWeighting(projector=ConeProjector()), objectives),
        "mgda": (aggregation.MGDAWeighting, objectives),
        "aligned-mtl": (aggregation.AlignedMTLWeighting, objectives),
        "pcgrad": (aggregation.PCGradWeighting, 1),
    }[aggregator]
    rule = made()
    return lambda gramian: scale * rule(gramian)


def dual_cone(vector: np.ndarray, gramian: np.ndarray) -> np.ndarray:
    """Weights of the projection of `vector @ gradients` onto the dual cone of the gradients, (objectives,).

    The dual cone holds what has a negative product with none of them. The weights solve `min v G v, v >= vector`:
    `v = vector + x` with x from non-negative least squares on a square root of G.
    """
    values, vectors = np.linalg.eigh((gramian + gramian.T) / 2)
    root = np.sqrt(np.clip(values, 0, None))[:, None] * vectors.T
    largest = np.abs(root).max(initial=0.0)
    if largest == 0:
        return vector
    root = root / largest
    added, _ = nnls(root, -root @ vector)
    found: np.ndarray = vector + added
    return found


class GradientResolver:
    """Gradients of one step by objective, and what becomes of them.

    Conflicts are those of the mean Gramian of the last steps, an exponential mean; the weights that resolve them are
    then those of this step's gradients. Two objectives' product in it is that of one's gradient with the other's from
    the step before, another batch: within a batch the same pairs push both, so that their noise agrees or is contrary
    when the objectives themselves are not. Lengths are those within a batch, noise and all, so that little is
    changed where there is little but noise.

    It keeps two copies of the shared gradient for every objective: 2 x objectives x shared parameters, float32.

    Attributes:
        memory: the mean Gramian, and of how many steps each product is, (2, objectives, objectives), float64.
        before: the gradients of the step before, (objectives, shared parameters); `None` before the first. With both a
            training that was killed goes on as it would have.
        conflicts: steps in which two objectives' gradients pointed against each other, (objectives, objectives),
            since they were last taken.
        compared: steps in which both had one.
    """

    def __init__(
        self,
        shared: Sequence[nn.Parameter],
        own: Sequence[nn.Parameter],
        objectives: int,
        weighting: Weighting,
        reduce: Callable[[torch.Tensor], torch.Tensor] = lambda tensor: tensor,
        memory: float = MEMORY,
    ) -> None:
        """
        Args:
            shared: what all objectives share; conflicts are resolved here.
            own: what has a part for each objective: these gradients are only added up.
            objectives: how many there are.
            weighting: of `make_weighting`.
            reduce: takes the mean over all processes.
            memory: what a step keeps of the mean Gramian; 0 goes by the Gramian of each step alone.
        """
        self.shared, self.own = list(shared), list(own)
        self._weighting, self._reduce = weighting, reduce
        self._sizes = [each.numel() for each in self.shared]
        self._rows: torch.Tensor | None = None
        self._objectives, self._kept = objectives, memory
        self.memory = torch.zeros(2, objectives, objectives, dtype=torch.float64)
        self.before: torch.Tensor | None = None
        self.conflicts = torch.zeros(objectives, objectives, dtype=torch.long)
        self.compared = torch.zeros_like(self.conflicts)

    def add(self, losses: torch.Tensor, present: Sequence[bool]) -> None:
        """Compute the gradients of each loss, (objectives,), and add them to those of this step.

        An objective without a label in the batch, `present` false, has none, and costs no pass.
        """
        if self._rows is None:
            where = self.shared[0] if self.shared else losses
            self._rows = torch.zeros(self._objectives, sum(self._sizes), device=where.device)
        wanted = [place for place, there in enumerate(present) if there]
        for place in wanted:
            gradients = torch.autograd.grad(
                losses[place], [*self.shared, *self.own], retain_graph=place != wanted[-1], allow_unused=True
            )
            parts = torch.split(self._rows[place], self._sizes)
            for part, gradient in zip(parts, gradients[: len(parts)], strict=True):
                if gradient is not None:
                    part += gradient.flatten()
            for parameter, gradient in zip(self.own, gradients[len(parts) :], strict=True):
                if gradient is not None:
                    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient

    def resolve(self) -> None:
        """Set the shared parameters' gradients from all that was added, count the conflicts, and start anew."""
        assert self._rows is not None, "add comes first"
        rows = self._reduce(self._rows)
        for parameter in self.own:
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = _laid_out(self._reduce(gradient), parameter)
        here = (rows @ rows.T).double().cpu()  # (objectives, objectives)
        self._count(here)
        weights = here.new_ones(len(here))
        # Gradients that are not finite are added up: the next loss is none either, and ends the training.
        if torch.isfinite(here).all():
            gramian = self._remembered(here, rows)
            if (gramian.diagonal() > 0).any():
                weights = self._weighting(gramian)
        step = weights.to(rows) @ rows
        for parameter, part in zip(self.shared, torch.split(step, self._sizes), strict=True):
            parameter.grad = _laid_out(part.view_as(parameter), parameter)
        self._rows = None

    def _remembered(self, here: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Take a step into the mean Gramian."""
        if not self._kept:
            return here
        moved = here.diagonal() > 0
        product, there = here.diagonal().diag(), moved.diag()
        if self.before is not None:
            across = (rows @ self.before.T).double().cpu()  # (objectives of this step, objectives of the one before)
            both = (moved[:, None] & self.before.any(dim=1).cpu()[None]).fill_diagonal_(False)
            across = across * both
            known = both.int() + both.T.int()
            product = product + (across + across.T) / known.clamp(min=1)
            there = there | (known > 0)
        self.before = rows
        mean, steps = self.memory
        # A plain mean until it is of as many steps as it will remember.
        rate = (1 / (steps + 1)).clamp(min=1 - self._kept)
        self.memory = torch.stack([torch.where(there, mean + rate * (product - mean), mean), steps + there])
        return self.memory[0]

    def state(self) -> dict[str, torch.Tensor]:
        """What a training that is continued needs."""
        return {"memory": self.memory} | ({} if self.before is None else {"before": self.before})

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go on from what `state` gave."""
        where = self.shared[0].device if self.shared else torch.device("cpu")
        self.memory = state["memory"].cpu()
        self.before = state["before"].to(where) if "before" in state else None

    def take_counts(self, objectives: Sequence[str]) -> dict[str, float]:
        """Conflicts and comparisons since the last time, by pair of objectives, as entries of a log."""
        found: dict[str, float] = {}
        for first, second in combinations(range(len(objectives)), 2):
            pair = f"{objectives[first]}|{objectives[second]}"
            found[f"{CONFLICTS}{pair}"] = int(self.conflicts[first, second])
            found[f"{COMPARED}{pair}"] = int(self.compared[first, second])
        self.conflicts.zero_()
        self.compared.zero_()
        return found

    def _count(self, gramian: torch.Tensor) -> None:
        norms = gramian.diagonal().clamp(min=0).sqrt()
        both = (norms[:, None] > 0) & (norms[None] > 0)
        both.fill_diagonal_(False)
        against = gramian < _CONFLICT * norms[:, None] * norms[None]
        self.compared += both
        self.conflicts += both & against


def _laid_out(gradient: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """A gradient with its parameter's type and strides.

    Those of `autograd.grad` may have others, and AdamW's fused kernel for CPUs goes through both in the order of their
    memory: elements would take each other's steps.
    """
    return torch.empty_like(parameter).copy_(gradient)


def conflict_counts(
    history: Sequence[Mapping[str, float]], objectives: Sequence[str]
) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]:
    """All conflicts and comparisons of a log, each (objectives, objectives), the same on both sides of the diagonal."""

    def matrix(kind: str) -> tuple[tuple[int, ...], ...]:
        totals: dict[tuple[str, str], int] = {}
        for first, second in combinations(objectives, 2):
            count = sum(int(entry.get(f"{kind}{first}|{second}", 0)) for entry in history)
            totals[first, second] = totals[second, first] = count
        return tuple(tuple(totals.get((row, column), 0) for column in objectives) for row in objectives)

    return matrix(CONFLICTS), matrix(COMPARED)
