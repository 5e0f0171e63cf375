"""`rlaif evaluate`: read labels, score their pairs with a checkpoint's heads, and measure how far the two agree."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rlaif.errors import InputError, nearest
from rlaif.rewards.evaluate import OVERALL, RESAMPLES, evaluate_scores, scored_examples
from rlaif.rewards.evaluation import Evaluation, ScoredPair
from rlaif.rewards.preferences import Floats, Preferences
from rlaif.rewards.sources import read_preferences
from rlaif.rewards.spec import HeadsSpec, read_spec
from rlaif.types import Message

if TYPE_CHECKING:
    from rlaif.rewards.heads import RawScores, RewardHeads


@dataclass(frozen=True)
class HeadsEvaluation:
    """What was found, of which heads, with pairs to read and what a person should know of the labels."""

    evaluation: Evaluation
    spec: HeadsSpec
    examples: tuple[ScoredPair, ...]
    notes: tuple[str, ...]


def evaluate_heads(
    heads: str | Path,
    labels: Sequence[str],
    *,
    objectives: Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    batch_tokens: int | None = None,
    device: str | None = None,
    examples: int = 0,
    watch: Callable[[int, int], None] | None = None,
) -> HeadsEvaluation:
    """Measure the heads of a checkpoint on labelled pairs.

    Args:
        heads: the folder that `rlaif train-heads` wrote.
        labels: sources as training takes them, `PATH[+LABELS][:OBJECTIVES][@WEIGHT]`; weights do not matter here.
        objectives: the heads to measure; without it all.
        columns: names of columns in pairs and preference data, ours to theirs.
        resamples: of the bootstrap; 0 for none.
        seed: of the resamples.
        batch_tokens: tokens of a batch, padding counted.
        device: the GPU where there is one, else the CPU.
        examples: how many right and wrong pairs of each objective to give.
        watch: called with the responses scored so far, and how many there are.

    Raises:
        InputError: heads or labels cannot be used, or have no objective in common.
        RunError: a score is not a number, or the memory is too small.
    """
    # Labels and names first: a model takes a while to load.
    folder = _folder_of(heads)
    spec = read_spec(folder)
    _check_names(objectives, spec)
    read = read_preferences(list(labels), columns=columns)
    _check_labels(read, spec, labels)
    from rlaif.rewards.heads import RewardHeads

    loaded = RewardHeads.load(folder, device=device)
    wanted = objectives or spec.objectives
    preferences = _with_labels(read, [*wanted, OVERALL])
    size = len(preferences)
    prompts = [pair.prompt for pair in preferences.pairs for _ in "ab"]
    responses = [text for pair in preferences.pairs for text in (pair.response_a, pair.response_b)]
    step = None if watch is None else (lambda done: watch(done, 2 * size))
    raw = loaded.raw(prompts, responses, batch_tokens=batch_tokens, watch=step)
    scores = raw.scores.reshape(size, 2, -1)
    found = evaluate_scores(
        preferences,
        scores,
        spec,
        reward=_aggregated(loaded, preferences, prompts, raw),
        members=None if raw.members is None else raw.members.reshape(size, 2, *raw.members.shape[1:]),
        name=str(heads),
        resamples=resamples,
        seed=seed,
    )
    shown = scored_examples(preferences, scores, spec, each=examples) if examples else ()
    notes = [each for each in preferences.notes if not each.startswith(f"{OVERALL}: no pair")]
    if raw.truncated:
        notes.append(f"{raw.truncated:,} conversations were cut at their beginning to {spec.max_length:,} tokens.")
    return HeadsEvaluation(
        evaluation=_only(found, wanted),
        spec=spec,
        examples=tuple(each for each in shown if each.objective in wanted),
        notes=tuple(notes),
    )


def _folder_of(heads: str | Path) -> Path:
    folder = Path(heads)
    if folder.exists():
        return folder
    from rlaif.rewards.heads_files import find_folder

    return find_folder(str(heads))


def _aggregated(
    heads: RewardHeads, preferences: Preferences, prompts: Sequence[tuple[Message, ...]], raw: RawScores
) -> Floats:
    """Aggregate rewards of both responses, (pairs, 2)."""
    size = len(preferences)
    tags = [pair.tags for pair in preferences.pairs for _ in "ab"]
    rewards = heads.rewards(prompts, raw, tags=tags, groups=np.repeat(np.arange(size), 2).tolist())
    return np.array([each.reward for each in rewards], dtype=np.float64).reshape(size, 2)


def _check_names(objectives: Sequence[str], spec: HeadsSpec) -> None:
    for name in objectives:
        if name not in spec.objectives:
            there = ", ".join(spec.objectives)
            raise InputError(
                f"--objective {name[:80]}: no such head; the heads are {there}.{nearest(name, spec.objectives)}"
            )


def _check_labels(read: Preferences, spec: HeadsSpec, labels: Sequence[str]) -> None:
    if not {OVERALL, *spec.objectives} & set(read.objectives):
        raise InputError(
            f"{', '.join(labels)[:200]}: labels of {', '.join(read.objectives)[:200]}, but the heads are "
            f"{', '.join(spec.objectives)[:200]}; give labels of these, or rename, such as "
            f"{labels[0][:80]}:{read.objectives[0][:40]}={spec.objectives[0][:40]}."
        )


def _with_labels(read: Preferences, wanted: Sequence[str]) -> Preferences:
    """The pairs with a label that something is held against; the others would be scored for nothing."""
    places = [place for place, name in enumerate(read.objectives) if name in wanted]
    return read.take(np.flatnonzero((read.weight[:, places] > 0).any(axis=1)))


def _only(found: Evaluation, wanted: Sequence[str]) -> Evaluation:
    """Leave out the heads that were not asked for."""
    kept = {name: each for name, each in found.objectives.items() if name in wanted}
    return found.model_copy(
        update={
            "objectives": kept,
            "conflicts": tuple(each for each in found.conflicts if each.first in kept and each.second in kept),
            "aggregate": {
                name: each for name, each in found.aggregate.items() if name in kept or name not in found.objectives
            },
        }
    )
