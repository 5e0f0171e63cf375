"""People's labels as the reference of a cascade."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from rlaif.data.human import read_human_labels
from rlaif.errors import InputError
from rlaif.labeling.cascade_sample import Unit
from rlaif.types import Preference


@dataclass(frozen=True)
class People:
    """What most people prefer, by pair and objective; a tie, or votes that are even, is nothing to agree with."""

    name: str
    references: Mapping[Unit, Preference]

    @cached_property
    def ids(self) -> frozenset[str]:
        """The pairs that they labelled."""
        return frozenset(pair for pair, _ in self.references)

    @property
    def digest(self) -> str:
        """What stands for the labels in the manifest."""
        rows = sorted([pair, objective, preference] for (pair, objective), preference in self.references.items())
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    def strangers(self) -> InputError:
        """Make the error for labels of other pairs than the data's."""
        example = min(self.ids)[:80]
        return InputError(
            f"--cascade-labels {self.name}: labels no pair of the data (it labels {example!r}, for one); give labels "
            "with the ids of the data."
        )


def read_people(path: str, objectives: Sequence[str]) -> People:
    """Read people's labels of a run's objectives.

    Raises:
        InputError: it is no such file, or prefers no response under any of the objectives.
    """
    labels = read_human_labels(path)
    found: dict[Unit, Preference] = {
        unit: preference
        for unit, preference in labels.majority.items()
        if preference in ("a", "b") and unit[1] in objectives
    }
    if not found:
        raise InputError(
            f"--cascade-labels {path}: prefers no response under {', '.join(objectives)} (it labels "
            f"{', '.join(labels.objectives)[:200]}); give labels of the run's objectives, or choose others with "
            "--objective."
        )
    return People(path, found)
