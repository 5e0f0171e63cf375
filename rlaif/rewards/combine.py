"""The aggregation of a training: from the constitution, or learned from people's overall preferences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rlaif.rewards.aggregate import aggregate_rewards, constitution_rule
from rlaif.rewards.forward import each_batch
from rlaif.rewards.gate import Gate, fit_gate
from rlaif.rewards.model import Backbone
from rlaif.rewards.preferences import Floats, Preferences
from rlaif.rewards.settings import HeadsSettings
from rlaif.rewards.spec import Aggregation, HeadsSpec, Normalization
from rlaif.rewards.train_data import TrainingData
from rlaif.rewards.weights import learn_weights


@dataclass(frozen=True)
class Combined:
    """A rule, the gate that goes with it, and figures of how it was learned."""

    rule: Aggregation
    gate: Gate | None
    metrics: dict[str, Any]
    notes: tuple[str, ...] = ()


def combine(
    settings: HeadsSettings,
    data: TrainingData,
    backbone: Backbone,
    head: Floats,
    normalization: dict[str, Normalization],
    *,
    budget: int,
) -> Combined:
    """Choose how rewards become one.

    Args:
        settings: what was asked for.
        data: with the constitution, and the overall preferences if weights are learned.
        backbone: as it was trained.
        head: the heads, (objectives, width).
        normalization: of each head.
        budget: tokens of a batch.

    Raises:
        InputError: the overall preferences are too few, or speak against every objective.
    """
    rule = constitution_rule(data.objectives, data.constitution)
    if settings.aggregate is not None:
        rule = rule.model_copy(update={"method": settings.aggregate})
    overall = data.overall
    if overall is None:
        return Combined(rule, None, {})
    unit = np.array([normalization[name].std for name in data.objectives])
    conversations = [ids for pair in backbone.encoder.pairs(overall.pairs) for ids in pair.conversations]
    prompts = np.repeat(np.arange(len(overall)), 2)
    raw = _features(backbone, conversations, prompts.tolist(), budget) @ head.T.astype(np.float64)
    difference = (raw[0::2] - raw[1::2]) / unit
    target, weight = overall.target[:, 0], overall.weight[:, 0]
    learned = learn_weights(difference, target, weight, overall.group, seed=settings.seed)
    metrics: dict[str, Any] = {"pairs": learned.pairs, "scale": learned.scale, "log_loss": learned.loss}
    notes = (f"intervals of the weights: {learned.reason}.",) if learned.reason else ()
    rule = rule.model_copy(
        update={
            "weights": learned.by_objective(data.objectives),
            "origin": "learned",
            "intervals": learned.intervals_by_objective(data.objectives),
        }
    )
    if not settings.gate:
        return Combined(rule, None, {"learned_weights": metrics}, notes)
    return _gated(settings, overall, backbone, difference, Combined(rule, None, metrics, notes), budget)


def _gated(
    settings: HeadsSettings, overall: Preferences, backbone: Backbone, difference: Floats, fixed: Combined, budget: int
) -> Combined:
    """A gate in place of fixed weights, where it foretells held-out preferences better."""
    ids = [backbone.encoder.prompt(pair.prompt) for pair in overall.pairs]
    embedding = _features(backbone, ids, list(range(len(ids))), budget)
    found = fit_gate(
        embedding, difference, overall.target[:, 0], overall.weight[:, 0], overall.group, seed=settings.seed
    )
    losses = {"gate_log_loss": found.loss, "fixed_log_loss": found.fixed_loss}
    metrics = {"learned_weights": {**fixed.metrics, **losses}}
    if not found.better:
        note = (
            f"--gate: on held-out preferences the gate is no better than fixed weights (log-loss {found.loss:.3f} and "
            f"{found.fixed_loss:.3f}), so the weights are fixed."
        )
        return Combined(fixed.rule, None, metrics, (*fixed.notes, note))
    mean = found.gate.weights(embedding).mean(axis=0)
    weights = {name: float(share) for name, share in zip(fixed.rule.weights, mean, strict=True)}
    rule = fixed.rule.model_copy(update={"weights": weights, "origin": "gated", "intervals": {}})
    return Combined(rule, found.gate, metrics, fixed.notes)


def overall_rewards(
    preferences: Preferences, raw: Floats, spec: HeadsSpec, backbone: Backbone, gate: Gate | None, *, budget: int
) -> Floats:
    """The one reward of both responses of pairs, (pairs, 2), of raw scores (pairs, 2, objectives)."""
    rules = [spec.normalization[name] for name in spec.objectives]
    values = (raw - np.array([rule.mean for rule in rules])) / np.array([rule.std for rule in rules])
    gated = None
    if gate is not None:
        ids = [backbone.encoder.prompt(pair.prompt) for pair in preferences.pairs]
        gated = np.repeat(gate.weights(_features(backbone, ids, list(range(len(ids))), budget)), 2, axis=0)
    tags = [pair.tags for pair in preferences.pairs for _ in "ab"]
    return aggregate_rewards(values.reshape(-1, len(rules)), spec, tags, gated).reshape(-1, 2)


def _features(backbone: Backbone, conversations: list[list[int]], prompts: list[int], budget: int) -> Floats:
    found = np.empty((len(conversations), backbone.hidden))
    for places, features in each_batch(backbone, conversations, prompts, budget=budget):
        found[places] = features.double().cpu().numpy()
    return found
