"""Let a policy gain in the weighted reward only as far as no objective falls below a reference. Pure.

Weights say what a gain in one objective is worth in another, not how far another may fall, and a policy goes as far as
it can. The guard compares with a reference policy, the one that training began with, in two ways.

**Means.** The weighted reward counts as it is while every objective's mean is near its reference. From there on the
reward is changed as little as is needed (least squares over the completions) for a step not to lower that mean:

    (A, c_k) >= -(2 s_k - 1) |A_0| |c_k|,   s_k = (mean gap_k - its standard error + tolerance_k) / tolerance_k

with A_0 the advantages of the weighted reward, A those that are used, c_k an objective's rewards less the mean of their
group, and gap_k the reward less the reference. At the reference (s = 1) this allows any step, half-way down to the
limit none that lowers the mean, and at the limit only those that raise it as fast as can be. The change of a mean under
a small step of a softmax policy along A is (A, c_k) to first order, so the mean's velocity is never below -kappa times
its room above the half-way mark, and what obeys that comes near the mark without crossing it (Nagumo's condition); the
other half of the tolerance is there for finite steps and for means that are estimated. The solution has the form
A = A_0 + sum_k mu_k c_k, so the guard's reward is again a weighted mean of the objectives, with multipliers mu_k >= 0
that are computed for the step at hand, not learned over many.

**Responses.** A completion that is below its prompt's reference by more than the tolerance gets no positive advantage
(`rlaif.optimize.shaping.block`): in those objectives whose mean is itself below (`breach`), or in any (`always`).
`always` drives such completions out, so that in the end each response keeps the tolerance and with them every mean;
but half of the reference policy's own responses are below its mean, and with many objectives few completions are left
to learn from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from rlaif.errors import InputError, closest
from rlaif.optimize.lagrange import Lagrangian
from rlaif.optimize.reference import Reference
from rlaif.optimize.shaping import Batch, Bools, Running, Shaped, block, by_objective, centred, group_means
from rlaif.rewards.preferences import Floats

Responses = Literal["breach", "always", "never"]

_RESPONSES = ("breach", "always", "never")
_FORMAT = 1
# Objectives that are each other's opposite cannot all rise: a penalty keeps the multipliers finite.
_RIDGE = 0.01


class ParetoGuard:
    """No objective falls below its reference by more than a tolerance.

    Args:
        tolerance: how far an objective's mean may fall, in standard deviations; one for all, or by objective, and those
            that are not named are not guarded.
        reference: `measure_reference`'s, by prompt; or numbers by objective, or one for all; or none, and it is the
            mean of the first `first` steps, which are not guarded. Their prompts are others: better measure it.
        responses: whether single completions are blocked: in objectives whose mean is below the tolerance, in any, or
            not at all.
        means: whether the means are held.
        floors: least mean rewards, whatever the reference, by multipliers.
        memory: completions over which the means go; older ones fade.
        first: steps that measure the reference where none is given.

    Raises:
        InputError: a number or a word that cannot be used.
    """

    def __init__(
        self,
        tolerance: float | Mapping[str, float] = 0.2,
        reference: Reference | Mapping[str, float] | float | None = None,
        *,
        responses: Responses = "breach",
        means: bool = True,
        floors: Lagrangian | Mapping[str, float] | None = None,
        memory: float = 64,
        first: int = 4,
    ) -> None:
        if responses not in _RESPONSES:
            near = closest(str(responses), _RESPONSES)
            hint = f"Did you mean {near!r}?" if near else "The default is 'breach'."
            raise InputError(f"responses: {responses!r}; expected one of {', '.join(_RESPONSES)}. {hint}")
        if first < 1:
            raise InputError(f"first: {first}; expected 1 or more steps. The default is 4.")
        by_objective(tolerance, tuple(tolerance) if isinstance(tolerance, Mapping) else ("all",), "tolerance", 0.0, 0.0)
        self.tolerance, self.reference = tolerance, reference
        self.floors = Lagrangian(floors) if isinstance(floors, Mapping) else floors
        self._responses, self._means = responses, means
        self._first = first
        self._gaps, self._spread, self._measured = Running(memory), Running(memory), Running(1e12)
        self._steps = 0

    def shape(self, batch: Batch, *, learn: bool = True) -> Shaped:
        """The guarded reward of a step.

        Raises:
            InputError: tolerance, reference or floors name an objective that has no head.
        """
        tolerance = by_objective(self.tolerance, batch.objectives, "tolerance", np.inf, 0.0)
        weights = batch.weights
        metrics: dict[str, float] = {}
        if self.floors is not None:
            if learn:
                self.floors.update(batch)
            weights = weights + self.floors.added(batch)
            metrics |= self.floors.metrics()
        reference = self._compared(batch, learn)
        multipliers, blocked = np.zeros(len(weights)), np.zeros(len(batch.prompts), dtype=bool)
        if reference is not None:
            guarded = np.isfinite(tolerance) & np.isfinite(reference).all(axis=0)
            # What is not guarded has any gap, as long as it is a number.
            gaps = batch.rewards - np.where(guarded, reference, 0.0)  # (completions, objectives)
            if learn:
                self._learn(batch, gaps)
            if self._gaps.weight:
                room = np.where(guarded, self._careful() + np.where(guarded, tolerance, 0.0), np.inf)
                if self._means:
                    multipliers = self._multipliers(weights, tolerance, room, guarded)
                breached = self._gaps.mean + np.where(guarded, tolerance, 0.0) < 0
                watched = guarded & (breached | (self._responses == "always")) & (self._responses != "never")
                blocked = np.any((gaps < -tolerance) & watched, axis=1)
                for place in np.flatnonzero(guarded):
                    name = batch.objectives[place]
                    metrics[f"guard/gap/{name}"] = float(self._gaps.mean[place])
                    metrics[f"guard/added/{name}"] = float(multipliers[place])
        # Of the size of a weighted mean, whatever the multipliers.
        reward: Floats = batch.rewards @ (weights + multipliers) / (weights.sum() + multipliers.sum())
        metrics["guard/blocked"] = float(blocked.mean()) if len(blocked) else 0.0
        return Shaped(block(reward, blocked, batch.groups), blocked, metrics)

    def _compared(self, batch: Batch, learn: bool) -> Floats | None:
        """Rewards to compare with, (completions, objectives), -inf for none; `None` while they are being measured."""
        if isinstance(self.reference, Reference):
            if self.reference.objectives != batch.objectives:
                raise InputError(
                    f"reference: it is of {', '.join(self.reference.objectives)}; the heads have "
                    f"{', '.join(batch.objectives)}. Measure it with these heads."
                )
            return self.reference.of(batch.prompts)
        if self.reference is not None:
            fixed = by_objective(self.reference, batch.objectives, "reference", -np.inf)
        elif self._steps < self._first:
            known = batch.known
            if learn and known.any():
                self._measured.add(*group_means(batch.rewards[known], batch.groups[known]))
                self._steps += 1
            return None
        else:
            fixed = self._measured.mean
        return np.tile(fixed, (len(batch.prompts), 1))

    def _learn(self, batch: Batch, gaps: Floats) -> None:
        """Take in a step: mean gaps by group, since completions of one prompt are alike, and covariances."""
        known = batch.known
        if not known.any():
            return
        groups = batch.groups[known]
        self._gaps.add(*group_means(gaps[known], groups))
        apart = centred(batch.rewards[known], groups)
        products = (apart.T @ apart / len(apart)).reshape(1, -1)
        self._spread.add(products, np.array([float(len(apart))]))

    def _careful(self) -> Floats:
        """Mean gaps less their standard errors, (objectives,)."""
        return self._gaps.mean - self._gaps.error

    def _multipliers(self, weights: Floats, tolerance: Floats, room: Floats, guarded: Bools) -> Floats:
        """The least change of the reward with which no mean falls too fast, (objectives,).

        The dual of the least-squares problem above: min over mu >= 0 of mu M mu / 2 + mu (M w + b), with M the
        covariances within groups, and b what is allowed.
        """
        from scipy.optimize import nnls

        size = len(weights)
        covariance = self._spread.mean.reshape(size, size)
        chosen = np.flatnonzero(guarded)
        multipliers = np.zeros(size)
        if not len(chosen) or np.trace(covariance) <= 1e-12:
            return multipliers
        deviation = np.sqrt(np.diag(covariance)[chosen])
        steepness = np.sqrt(max(float(weights @ covariance @ weights), 0.0))
        share = room[chosen] / np.maximum(tolerance[chosen], 1e-9)
        allowed = np.clip(2 * share - 1, -1.0, 1.0) * deviation * steepness
        # M is the square of an upper triangle U: |U mu + U^-T (M w + b)|^2 / 2 is the same but for a constant.
        ridge = _RIDGE * np.trace(covariance) / size * np.eye(len(chosen))
        lower = np.linalg.cholesky(covariance[np.ix_(chosen, chosen)] + ridge)
        need = (covariance @ weights)[chosen] + allowed
        multipliers[chosen], _ = nnls(lower.T, -np.linalg.solve(lower, need))
        return multipliers

    def state_dict(self) -> dict[str, Any]:
        """What a run that is continued has to know, as plain values."""
        return {
            "format": _FORMAT,
            "steps": self._steps,
            "gaps": self._gaps.state_dict(),
            "spread": self._spread.state_dict(),
            "measured": self._measured.state_dict(),
            "floors": None if self.floors is None else self.floors.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Raises:
            InputError: it is of a guard with other floors, or of a newer version.
        """
        if state["format"] > _FORMAT:
            raise InputError(f"state of the guard: format {state['format']} is newer than {_FORMAT}; update rlaif.")
        if (state["floors"] is None) != (self.floors is None):
            raise InputError("state of the guard: one has floors and the other none; give those of the run it is from.")
        self._steps = int(state["steps"])
        self._gaps.load_state_dict(state["gaps"])
        self._spread.load_state_dict(state["spread"])
        self._measured.load_state_dict(state["measured"])
        if self.floors is not None:
            self.floors.load_state_dict(state["floors"])
