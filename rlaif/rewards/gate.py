"""Weights of the objectives that depend on the prompt: a small softmax on its embedding. Pure.

P(people prefer a) = sigmoid(scale * sum_k weight_k(prompt) (reward_k of a - reward_k of b)). Two quadratic priors keep
the gate from saying more than the preferences do: one draws it to the same weights for every prompt, and its strength
is chosen on conversations held out; the other draws those to the fixed weights of `rlaif.rewards.weights`.

Whether the gate foretells preferences better than fixed weights is measured on conversations that neither it nor the
strength of its prior was fitted on, and it is worth having only where that is clear.

Source: Wang, Xiong, Xie, Zhao and Zhang (2024), Interpretable preferences via multi-objective reward modeling and
mixture-of-experts (arXiv:2406.12845), whose gate this is in small.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlaif.agreement.bootstrap import bootstrap
from rlaif.agreement.results import Interval
from rlaif.errors import InputError, RunError
from rlaif.rewards.calibrate import win_probability
from rlaif.rewards.preferences import Floats, Ints
from rlaif.rewards.weights import PRIOR, cross_entropy, fit_scaled, labelled

LEAST = 50  # pairs
GROUPS = 10  # conversations
FOLDS = 5
INNER_FOLDS = 3
STRENGTHS = (0.3, 1.0, 3.0)
"""Standard deviations tried for how far the prompt moves the log of a weight."""

# The prompt's embedding is seen along its main directions only: preferences are few, and more would be fitted by heart.
_DIRECTIONS = 256
_PER_DIRECTION = 16  # pairs
_LEVEL = 1.0  # how far the log of a weight may be from the fixed one, for every prompt alike
_SMALLEST = 0.01  # a fixed weight of 0 is seen as this: a softmax has none of 0
_MOST = 1000  # iterations of a fit


@dataclass(frozen=True)
class Gate:
    """weights(prompt) = softmax(matrix @ embedding + bias).

    Attributes:
        matrix: (objectives, width).
        bias: (objectives,).
    """

    matrix: Floats
    bias: Floats

    def weights(self, embedding: Floats) -> Floats:
        """Weights of each prompt, above 0 and summing to 1, (prompts, objectives), from (prompts, width).

        Raises:
            RunError: an embedding is not finite.
        """
        logits = np.asarray(embedding, dtype=np.float64) @ self.matrix.T + self.bias
        if not np.isfinite(logits).all():
            row = int(np.argwhere(~np.isfinite(logits))[0][0])
            raise RunError(
                f"prompt {row + 1}: its embedding is not finite; the gate needs numbers. Score in float32, or train "
                "without --gate."
            )
        return _softmax(logits)


@dataclass(frozen=True)
class FittedGate:
    """A gate and how it compares with fixed weights on pairs that neither was fitted on.

    Attributes:
        gate: fitted on all pairs.
        scale: log-odds of one unit of the weighted reward.
        strength: of the prior, chosen among `STRENGTHS`.
        pairs: those with an overall preference.
        loss: mean cross-entropy of the gate on held-out pairs, nats.
        fixed_loss: that of fixed weights, learned on the same pairs.
        gain: by how much the gate's is lower.
        gain_ci: its 95% interval, conversations drawn whole.
        better: whether the whole interval is above 0.
    """

    gate: Gate
    scale: float
    strength: float
    pairs: int
    loss: float
    fixed_loss: float
    gain: float
    gain_ci: Interval | None
    better: bool


def fit_gate(
    embedding: Floats,
    difference: Floats,
    target: Floats,
    weight: Floats,
    group: Ints,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> FittedGate:
    """Fit a gate to overall preferences, and compare it with fixed weights.

    Args:
        embedding: of each pair's prompt, (pairs, width).
        difference: rewards of a less those of b, (pairs, objectives).
        target: P(a is better) overall, (pairs,); nan where there is no preference.
        weight: what a preference counts, (pairs,); 0 where there is none.
        group: the conversation of each pair, (pairs,).
        resamples: for the interval; 0 for none, and then the gate is better if its loss is lower.
        seed: of the random numbers.

    Raises:
        InputError: fewer than 50 preferences, or than 10 conversations.
        RunError: a reward or an embedding is not finite.
    """
    x, y, w, g = labelled(difference, target, weight, group)
    _, g = np.unique(g, return_inverse=True)
    groups = int(g.max()) + 1
    if len(x) < LEAST or groups < GROUPS:
        raise InputError(
            f"overall preferences: {len(x)} pairs of {groups} conversations have one; a gate needs {LEAST} of {GROUPS}."
            " Label more pairs, or leave out --gate."
        )
    e = np.asarray(embedding[(weight > 0) & np.isfinite(target)], dtype=np.float64)
    if not np.isfinite(e).all():
        raise RunError("overall preferences: a prompt's embedding is not finite; leave out --gate, or use float32.")
    # Made without a look at the preferences, so it may be made of all pairs.
    basis = _Basis.of(e)
    z = basis.along(e)
    random = np.random.default_rng(seed)
    outer = (random.permutation(groups) % FOLDS)[g]
    inner = (random.permutation(groups) % INNER_FOLDS)[g]
    cost, fixed_cost = np.empty(len(x)), np.empty(len(x))
    for fold in range(FOLDS):
        out = outer == fold
        seen, gate, scale, _ = _choose(z[~out], x[~out], y[~out], w[~out], inner[~out])
        cost[out] = cross_entropy(_log_odds(gate, scale, z[out], x[out]), y[out])
        fixed_cost[out] = cross_entropy(x[out] @ seen, y[out])
    _, gate, scale, strength = _choose(z, x, y, w, inner)
    loss, fixed_loss = float(w @ cost / w.sum()), float(w @ fixed_cost / w.sum())
    profiles = np.column_stack([w * (fixed_cost - cost), w])
    spread = bootstrap(profiles, lambda sums: sums[:, 0] / sums[:, 1], g, resamples, seed) if resamples else None
    ci = None if spread is None else spread.ci
    gain = fixed_loss - loss
    better = gain > 0 if ci is None else ci[0] > 0
    return FittedGate(basis.folded(gate), scale, strength, len(x), loss, fixed_loss, gain, ci, better)


def _choose(z: Floats, x: Floats, y: Floats, w: Floats, fold: Ints) -> tuple[Floats, Gate, float, float]:
    """Fixed scale * weights, a gate, its scale, and the strength that does best over the folds."""
    losses = np.zeros(len(STRENGTHS))
    for each in np.unique(fold):
        out = fold == each
        start = fit_scaled(x[~out], y[~out], w[~out])
        for number, strength in enumerate(STRENGTHS):
            gate, scale = _fit(z[~out], x[~out], y[~out], w[~out], start, strength)
            losses[number] += w[out] @ cross_entropy(_log_odds(gate, scale, z[out], x[out]), y[out])
    strength = STRENGTHS[int(np.argmin(losses))]
    fixed = fit_scaled(x, y, w)
    gate, scale = _fit(z, x, y, w, fixed, strength)
    return fixed, gate, scale, strength


def _log_odds(gate: Gate, scale: float, z: Floats, x: Floats) -> Floats:
    odds: Floats = scale * (gate.weights(z) * x).sum(axis=1)
    return odds


@dataclass(frozen=True)
class _Basis:
    """Main directions of embeddings whose features were brought to mean 0 and deviation 1.

    `matrix` is (directions, width), made so that the mean squared length of what it gives is 1.
    """

    mean: Floats
    matrix: Floats

    def along(self, e: Floats) -> Floats:
        """Embeddings along the directions, (prompts, directions)."""
        seen: Floats = (e - self.mean) @ self.matrix.T
        return seen

    def folded(self, gate: Gate) -> Gate:
        """The gate of whole embeddings that one along the directions amounts to."""
        whole = gate.matrix @ self.matrix
        return Gate(whole, gate.bias - whole @ self.mean)

    @classmethod
    def of(cls, e: Floats) -> _Basis:
        from scipy.sparse.linalg import svds

        mean, deviation = e.mean(axis=0), e.std(axis=0)
        # Rounding is no direction: a feature that does not vary is left out.
        varies = deviation > 1e-6 * np.abs(e).max(axis=0, initial=0.0)
        unit = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=varies)
        z = (e - mean) * unit
        most = min(_DIRECTIONS, max(1, len(z) // _PER_DIRECTION))
        if min(z.shape) > 4 * most:
            # The start is given, so that the end is the same each time.
            _, _, directions = svds(z, k=most, v0=np.ones(min(z.shape)), return_singular_vectors="vh")
        else:
            directions = np.linalg.svd(z, full_matrices=False)[2][:most]
        length = float(np.sqrt(((z @ directions.T) ** 2).sum() / len(z)))
        return cls(mean, directions * unit / length if length > 0 else np.zeros_like(directions))


def _fit(z: Floats, x: Floats, y: Floats, w: Floats, fixed: Floats, strength: float) -> tuple[Gate, float]:
    """The most likely gate and its scale, by L-BFGS from the fixed weights."""
    from scipy.optimize import minimize

    k, directions = x.shape[1], z.shape[1]
    shares = fixed / fixed.sum() if fixed.sum() > 0 else np.full(k, 1 / k)
    level = np.log(np.maximum(shares, _SMALLEST))

    def parts(theta: Floats) -> tuple[Floats, Floats, float]:
        return theta[: k * directions].reshape(k, directions), theta[k * directions : -1], float(theta[-1])

    def loss(theta: Floats) -> tuple[float, Floats]:
        matrix, bias, log_scale = parts(theta)
        scale = np.exp(log_scale)
        weights = _softmax(z @ matrix.T + bias)
        reward = (weights * x).sum(axis=1)
        error = w * (win_probability(scale * reward, 1.0) - y)
        by_logit = (scale * error)[:, None] * weights * (x - reward[:, None])  # (pairs, objectives)
        value = w @ cross_entropy(scale * reward, y)
        value += (matrix**2).sum() / (2 * strength**2) + ((bias - level) ** 2).sum() / (2 * _LEVEL**2)
        value += scale**2 / (2 * PRIOR**2)
        gradient = np.concatenate(
            [
                (by_logit.T @ z + matrix / strength**2).ravel(),
                by_logit.sum(axis=0) + (bias - level) / _LEVEL**2,
                [scale * (error @ reward) + scale**2 / PRIOR**2],
            ]
        )
        return float(value), gradient

    begin = np.concatenate([np.zeros(k * directions), level, [np.log(max(float(fixed.sum()), _SMALLEST))]])
    # A step out of bounds would overflow; no scale that the prior leaves is near them.
    bounds = [(None, None)] * (len(begin) - 1) + [(-10.0, 5.0)]
    settings = {"maxiter": _MOST, "ftol": 1e-9, "gtol": 1e-6}
    found = minimize(loss, begin, jac=True, method="L-BFGS-B", bounds=bounds, options=settings)
    matrix, bias, log_scale = parts(found.x)
    return Gate(matrix, bias), float(np.exp(log_scale))


def _softmax(logits: Floats) -> Floats:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: Floats = raised / raised.sum(axis=1, keepdims=True)
    return result
