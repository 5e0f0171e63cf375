"""What heads are trained on: pairs with a soft target for each objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from rlaif.types import Pair

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LabelSource:
    """A file or folder of labels that was read.

    `constitution` is what its labels were made with (`name@digest`), `None` where that is not known; `weight` what its
    labels count beside those of other sources; `pairs` and `labels` count what was taken from it, and `left_out` what
    was not, by reason.
    """

    name: str
    kind: str
    weight: float
    pairs: int
    labels: int
    digest: str
    constitution: str | None = None
    judge: str | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Preferences:
    """Pairs and what is known of each under each objective.

    Attributes:
        objectives: names, the order of the columns.
        pairs: the texts, row by row.
        target: P(response a is better), (pairs, objectives); nan where there is no label.
        weight: what a label counts, (pairs, objectives); 0 where there is none.
        group: the conversation, (pairs,): pairs with the same prompt have the same number.
        sources: where the labels came from.
        notes: what a person should know of them, a sentence each.
    """

    objectives: tuple[str, ...]
    pairs: Sequence[Pair]
    target: Floats
    weight: Floats
    group: Ints
    sources: tuple[LabelSource, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pairs)

    def take(self, rows: Ints) -> Preferences:
        """The pairs at some rows."""
        return Preferences(
            self.objectives,
            [self.pairs[row] for row in rows],
            self.target[rows],
            self.weight[rows],
            self.group[rows],
            self.sources,
            self.notes,
        )

    @property
    def labelled(self) -> Ints:
        """How many pairs have a label, by objective, (objectives,)."""
        found: Ints = (self.weight > 0).sum(axis=0)
        return found
