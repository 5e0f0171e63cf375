"""What a tuning forgot: accuracy of the old heads and the new ones on what the old ones had held out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rlaif.errors import RlaifError
from rlaif.rewards.evaluate import accuracy_changes
from rlaif.rewards.evaluation import Change
from rlaif.rewards.forward import each_batch
from rlaif.rewards.heads import RewardHeads
from rlaif.rewards.model import Backbone
from rlaif.rewards.preferences import Floats, Preferences
from rlaif.rewards.sources import read_preferences
from rlaif.rewards.split import split_preferences


def forgotten(before: Path, backbone: Backbone, heads: Floats, budget: int) -> tuple[tuple[Change, ...], list[str]]:
    """Compare tuned heads with those they began as, by objective, on the old labels that were held out.

    Where the old labels are no longer there, nothing can be measured, and a note says so.

    Args:
        before: the old checkpoint, which names its labels.
        backbone: as it was tuned.
        heads: the new ones, (objectives, members, width).
        budget: tokens of a batch.

    Raises:
        InputError: the old checkpoint is damaged.
    """
    old = RewardHeads.load(before, device=backbone.device)
    try:
        data = _held_out(old)
    except RlaifError as error:
        return (), [f"what was forgotten is not known: the labels of {before} cannot be read any more ({error})"]
    if not len(data):
        return (), [f"what was forgotten is not known: {before} held out no labels."]
    prompts = [turns for pair in data.pairs for turns in (pair.prompt, pair.prompt)]
    responses = [text for pair in data.pairs for text in (pair.response_a, pair.response_b)]
    was = old.raw(prompts, responses).scores.reshape(len(data), 2, -1)
    names = backbone.objectives
    # Of an objective that is new there is nothing to compare.
    shown = np.full((len(data), 2, len(names)), np.nan)
    for place, name in enumerate(names):
        if name in old.spec.objectives:
            shown[:, :, place] = was[:, :, old.spec.objectives.index(name)]
    conversations = backbone.encoder.conversations(zip(prompts, responses, strict=True))
    now = np.empty((len(conversations), len(names)))
    for places, features in each_batch(
        backbone, conversations, np.repeat(np.arange(len(data)), 2).tolist(), budget=budget
    ):
        now[places] = features.double().cpu().numpy() @ heads.mean(axis=1).T
    spec = old.spec.model_copy(update={"objectives": names})
    return accuracy_changes(str(before), data, shown, now.reshape(len(data), 2, -1), spec), []


def _held_out(old: RewardHeads) -> Preferences:
    """The labels that a checkpoint held out, read again as they were."""
    made: Mapping[str, Any] = old.spec.provenance
    names, columns, settings = old.spec.objectives, made["columns"] or None, made["settings"]
    try:
        share = float(made["held_out"])
    except ValueError:
        return read_preferences([made["held_out"]], objectives=names, columns=columns, allow_missing=True)
    read = read_preferences(
        made["labels"], objectives=names, confidence=settings["confidence"], columns=columns, allow_missing=True
    )
    return split_preferences(read, fraction=share, seed=settings["seed"])[1]
