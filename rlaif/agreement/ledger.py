"""What a run's ledger adds to its labels: the verdict of each order, and tokens."""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rlaif.agreement.metrics import Codes, Ints
from rlaif.errors import RunError
from rlaif.labeling.labels import preference
from rlaif.labeling.manifest import read_manifest

_CODES = {"a": 0, "b": 1, "tie": 2, None: -1}
# One row a pair, objective and order, in the order of the table's own key.
_ORDERS = (
    'SELECT pair_id, objective, "order", avg(p_a), sum(prompt_tokens + completion_tokens) FROM judgments '
    'WHERE constitution = ? GROUP BY pair_id, objective, "order"'
)


@dataclass
class OrderRow:
    """The verdicts of each order under one objective, a row a pair and order: the mean over samples as a preference.

    `order` is 0 for ab and 1 for ba; `tokens` counts those read and written for all of them.
    """

    pair: array[int] = field(default_factory=lambda: array("i"))
    order: array[int] = field(default_factory=lambda: array("b"))
    preference: array[int] = field(default_factory=lambda: array("b"))
    tokens: int = 0

    def side(self, order: int) -> tuple[Ints, Codes]:
        """Places and preferences of one order."""
        mine = np.frombuffer(self.order, np.int8) == order
        return np.frombuffer(self.pair, np.int32)[mine].astype(np.int64), np.frombuffer(self.preference, np.int8)[mine]

    @property
    def tokens_a_pair(self) -> float:
        """Mean tokens a pair."""
        return self.tokens / max(1, len(np.unique(np.frombuffer(self.pair, np.int32))))


def read_orders(run: Path, ids: Mapping[str, int]) -> dict[str, OrderRow]:
    """Read a run's verdicts by objective; pairs that are not in `ids` are passed over.

    Raises:
        InputError: the manifest cannot be read.
        RunError: the ledger cannot be read.
    """
    manifest = read_manifest(run)
    if manifest is None:
        return {}
    path, found = run / "judgments.db", dict[str, OrderRow]()
    constitution = str(manifest.settings.get("constitution"))
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=10)) as db:
            for pair, objective, order, p_a, tokens in db.execute(_ORDERS, [constitution]):
                place = ids.get(pair)
                if place is None:
                    continue
                mine = found.get(objective)
                if mine is None:
                    mine = found[objective] = OrderRow()
                mine.pair.append(place)
                mine.order.append(0 if order == "ab" else 1)
                mine.preference.append(_CODES[preference(p_a)])
                mine.tokens += tokens
    except sqlite3.Error as error:
        raise RunError(f"{path}: cannot be read ({error}); give the folder of a labelling run.") from None
    return found
