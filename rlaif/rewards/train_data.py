"""What a training starts from: labels read and split, the constitution they were made with, and what to be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rlaif.agreement.table import OVERALL
from rlaif.constitution import Constitution, load_constitution
from rlaif.errors import InputError
from rlaif.rewards.preferences import Preferences
from rlaif.rewards.settings import HeadsSettings
from rlaif.rewards.sources import read_preferences
from rlaif.rewards.split import separate, split_preferences


@dataclass(frozen=True)
class TrainingData:
    """Labels on both sides, overall preferences to learn weights from, and the constitution.

    `digests` are what decides all of it, for the record and for continuing. `notes` are sentences for the reader.
    """

    training: Preferences
    held_out: Preferences
    overall: Preferences | None
    constitution: Constitution | None
    digests: dict[str, Any]
    notes: tuple[str, ...]

    @property
    def objectives(self) -> tuple[str, ...]:
        """Names of the heads."""
        return self.training.objectives


def read_training_data(settings: HeadsSettings) -> TrainingData:
    """Read everything that the settings name.

    Raises:
        InputError: a source cannot be used, or nothing is left to train on.
        RunError: a run's labels cannot be read.
    """
    s = settings
    columns = s.columns or None
    read = read_preferences(s.labels, objectives=s.objectives or None, confidence=s.confidence, columns=columns)
    notes: list[str] = []
    fraction = _fraction(s.held_out)
    if fraction is None:
        held_out = read_preferences([s.held_out], objectives=read.objectives, columns=columns, allow_missing=True)
        training, _ = separate(read, held_out)
    else:
        training, held_out = split_preferences(read, fraction=fraction, seed=s.seed)
    notes += [*training.notes, *(note for note in held_out.notes if note not in training.notes)]
    for name, labels in zip(training.objectives, training.labelled.tolist(), strict=True):
        if not labels:
            raise InputError(f"{name}: every label is held out; expected some to train on. Hold out less with --eval.")
    overall = _overall(s)
    constitution, found = _constitution(s, read)
    notes += found
    digests = {
        "labels": [source.digest for source in read.sources],
        "held_out": [source.digest for source in held_out.sources] if fraction is None else s.held_out,
        "overall": [source.digest for source in overall.sources] if overall is not None else None,
        "constitution": constitution.digest if constitution is not None else None,
    }
    return TrainingData(training, held_out, overall, constitution, digests, tuple(notes))


def _fraction(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _overall(settings: HeadsSettings) -> Preferences | None:
    """The overall preferences; of a source with other objectives only those named `overall`."""
    source = settings.learn_weights
    if source is None:
        if settings.gate:
            raise InputError("--gate: the gate is learned from overall preferences; add --learn-weights PAIRS+LABELS.")
        return None
    try:
        return read_preferences([source], objectives=[OVERALL], columns=settings.columns or None)
    except InputError:
        found = read_preferences([source], columns=settings.columns or None)
        if len(found.objectives) != 1:
            raise InputError(
                f"--learn-weights {source}: labels of {', '.join(found.objectives)}; expected overall preferences. "
                f"Say which they are, as in {source}:NAME=overall."
            ) from None
        return found


def _constitution(settings: HeadsSettings, read: Preferences) -> tuple[Constitution | None, list[str]]:
    """The constitution that was named, else the one that all labels were made with, where it is one of the shipped."""
    if settings.constitution is not None:
        constitution = load_constitution(settings.constitution)
        if not set(read.objectives) & set(constitution.objectives):
            raise InputError(
                f"--constitution {settings.constitution}: has {', '.join(constitution.objectives)}, and the labels "
                f"{', '.join(read.objectives)}; expected an objective in common. Give the labels' own constitution."
            )
        return constitution, []
    made = {source.constitution for source in read.sources}
    if len(made) != 1 or None in made:
        return None, []
    reference = str(made.pop())
    try:
        shipped: Constitution | None = load_constitution(reference.partition("@")[0])
    except InputError:
        shipped = None
    if shipped is not None and shipped.reference == reference:
        return shipped, []
    return None, [
        f"the labels were made with {reference}, which is none of the shipped constitutions as they are now, so all "
        "objectives weigh the same; give --constitution FILE for its weights."
    ]
