"""Judges' labels in columns: from a run, a `labels.jsonl` or recorded labels, a million in seconds."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from rlaif.agreement.ledger import OrderRow, read_orders
from rlaif.agreement.metrics import Codes, Floats, Ints
from rlaif.agreement.texts import PairTexts
from rlaif.data.human import CODES, PREFERENCES
from rlaif.data.quick import quick_rows
from rlaif.errors import InputError
from rlaif.labeling.read import labels_file
from rlaif.types import Label

OVERALL = "overall"
_RECORDED = "id, judge, objective and preference (a, b, tie, or null where the judge abstained)"
_ORDERS: Mapping[str | None, int] = {"ab": 0, "ba": 1, None: -1}
_NAN = float("nan")


@dataclass
class Columns:
    """One judge's labels of one objective, a row each: of a pair, or of one order of it where orders are recorded.

    `pair` holds places of ids, `preference` 0 a, 1 b, 2 tie, -1 none; `p_a`, `gap` and `mass` are nan where not known;
    `order` is 0 for ab, 1 for ba, -1 where it is not told or both are folded.
    """

    pair: array[int] = field(default_factory=lambda: array("i"))
    preference: array[int] = field(default_factory=lambda: array("b"))
    p_a: array[float] = field(default_factory=lambda: array("d"))
    order: array[int] = field(default_factory=lambda: array("b"))
    line: array[int] = field(default_factory=lambda: array("i"))
    gap: array[float] = field(default_factory=lambda: array("d"))
    mass: array[float] = field(default_factory=lambda: array("d"))


@dataclass
class JudgeLabels:
    """All labels of one judge in one file.

    `name` tells the judge apart from others, `recorded_as` is what the file calls it. `provenance` is what labels of
    `rlaif label` were made with, `None` for recorded ones. `run` is the folder with the ledger, if it is there.
    """

    name: str
    labels: str
    objectives: dict[str, Columns] = field(default_factory=dict)
    provenance: Mapping[str, str] | None = None
    run: Path | None = None
    recorded_as: str = ""
    _orders: dict[str, OrderRow] | None = None

    def orders(self, ids: Mapping[str, int], objective: str) -> OrderRow | None:
        """What the run's ledger says of each order under one objective; `None` where there is none."""
        if self.run is None:
            return None
        if self._orders is None:
            self._orders = read_orders(self.run, ids)
        return self._orders.get(objective)


@dataclass(frozen=True)
class Folded:
    """One judge's labels of one objective, a pair each, (pairs,): both orders folded into one preference.

    `ab` and `ba` are the preferences in each order (-1 none); `gap` is the difference of `p_a` between the orders.
    """

    pair: Ints
    preference: Codes
    p_a: Floats
    ab: Codes
    ba: Codes
    gap: Floats
    mass: Floats


def read_judges(labels: str, ids: dict[str, int], texts: PairTexts) -> list[JudgeLabels]:
    """Read labels: a run's folder, a `labels.jsonl`, or recorded judge labels of one judge or several.

    Args:
        labels: the file or folder.
        ids: places of pairs; ids met here are added.
        texts: takes what the rows tell of the pairs.

    Raises:
        InputError: the file cannot be read or holds none, or a row is no label, or stands twice.
        RunError: a run's ledger cannot be read.
    """
    path = Path(labels)
    if path.is_dir():
        return [_read_run(labels_file(path), labels, path, ids, texts)]
    if not path.exists():
        raise InputError(f"{labels}: no such file or folder; give a run's folder, a labels.jsonl or recorded labels.")
    for line, row in quick_rows(labels):
        if isinstance(row, dict) and "labels" in row:
            return [_read_run(path, labels, None, ids, texts)]
        if not isinstance(row, dict) or "judge" not in row:
            raise InputError(
                f"{labels}:{line}: neither a label of rlaif label nor a recorded one; expected a run, its "
                f"labels.jsonl, or rows with {_RECORDED}."
            )
        break
    return list(_read_recorded(labels, ids).values())


def _read_recorded(labels: str, ids: dict[str, int]) -> dict[str, JudgeLabels]:
    judges: dict[str, JudgeLabels] = {}
    columns: dict[tuple[str, str], Columns] = {}
    for line, row in quick_rows(labels):
        try:
            pair, judge, objective, preference = row["id"], row["judge"], row["objective"], row.get("preference")
            p_a, order = row.get("p_a"), _ORDERS[row.get("order")]
            code = -1 if preference is None else CODES[preference]
            mine = columns.get((judge, objective))
        except (KeyError, TypeError, AttributeError, IndexError):
            _refuse_recorded(row, f"{labels}:{line}")
        # A missing preference is a fault, one that is null an abstention.
        plain = type(pair) is str and pair and (code >= 0 or (p_a is None and "preference" in row))
        if p_a is not None and plain:
            plain = type(p_a) is float and (code == 2 or p_a == 0.5 or (p_a > 0.5) is (code == 0)) and 0 <= p_a <= 1
        if not plain or mine is None:
            pair, code, p_a = _checked(row, code, f"{labels}:{line}")
            mine = columns.get((judge, objective))
            if mine is None:
                mine = columns[judge, objective] = Columns()
                judges.setdefault(judge, JudgeLabels(judge, labels, recorded_as=judge)).objectives[objective] = mine
        mine.pair.append(ids.setdefault(pair, len(ids)))
        mine.preference.append(code)
        mine.p_a.append(_NAN if p_a is None else p_a)
        mine.order.append(order)
        mine.line.append(line)
    for (judge, objective), mine in columns.items():
        _refuse_twice(mine, labels, judge, objective, ids)
    return judges


def _checked(row: Mapping[str, Any], code: int, place: str) -> tuple[str, int, float | None]:
    """Look at a recorded label with more than a plain preference, or the first of its judge and objective."""
    pair, p_a = row["id"], row.get("p_a")
    if type(pair) is int:
        pair = str(pair)
    texts = (pair, row["judge"], row["objective"])
    if not all(isinstance(text, str) and text for text in texts):
        _refuse_recorded(row, place)
    if p_a is None:
        if "preference" not in row:
            _refuse_recorded(row, place)
        return pair, code, None
    if isinstance(p_a, bool) or not isinstance(p_a, int | float) or not 0 <= p_a <= 1:
        raise InputError(f"{place}: p_a is {str(p_a)[:40]}; expected a probability, 0 to 1. Fix the line.")
    if (code == 0 and p_a < 0.5) or (code == 1 and p_a > 0.5):
        raise InputError(
            f"{place}: preference is {PREFERENCES[code]!r} and p_a {p_a}, which prefers the other response; p_a is the "
            "probability of the pair's own a, wherever it was shown. Fix the line."
        )
    if code < 0:
        raise InputError(
            f"{place}: preference is null, as of a judge that abstained, and p_a {p_a}; give the preference, or leave "
            "p_a out. Fix the line."
        )
    return pair, code, float(p_a)


def _refuse_recorded(row: Any, place: str) -> NoReturn:
    if not isinstance(row, Mapping):
        raise InputError(f"{place}: not an object; expected {_RECORDED}.")
    for name in ("id", "judge", "objective"):
        value = row.get(name)
        if not (isinstance(value, str) and value) and not (name == "id" and type(value) is int):
            given = "missing" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"
            raise InputError(f"{place}: {name} is {given}; expected a text. A recorded label has {_RECORDED}.")
    order = row.get("order")
    if not isinstance(order, str | None) or order not in _ORDERS:
        raise InputError(f"{place}: order is {str(order)[:40]!r}; expected ab or ba, or leave it out. Fix the line.")
    given = f"{str(row['preference'])[:80]!r}" if "preference" in row else "missing"
    raise InputError(
        f"{place}: preference is {given}; expected a, b or tie, or null where the judge abstained. Fix the line."
    )


def _refuse_twice(mine: Columns, labels: str, judge: str, objective: str, ids: Mapping[str, int]) -> None:
    """Refuse a second label of a pair and order, and one without an order beside one that has it."""
    pair, order = np.frombuffer(mine.pair, np.int32), np.frombuffer(mine.order, np.int8)
    sequence = np.lexsort((np.arange(len(pair)), order, pair))
    same = np.diff(pair[sequence]) == 0
    before, after = order[sequence][:-1], order[sequence][1:]
    clash = np.flatnonzero(same & ((before == after) | (before < 0)))
    if not clash.size:
        return
    rows = sorted((int(sequence[clash[0]]), int(sequence[clash[0] + 1])))
    first, again = (mine.line[row] for row in rows)
    raise InputError(
        f"{labels}:{again}: {judge[:80]!r} labels pair {list(ids)[pair[rows[0]]][:80]!r} for {objective[:80]!r} also "
        f"on line {first}; a judge has one label a pair and objective, or one of order ab and one of ba. Remove one."
    )


def _read_run(path: Path, labels: str, run: Path | None, ids: dict[str, int], texts: PairTexts) -> JudgeLabels:
    """Read a `labels.jsonl`: every objective, and the overall label as the objective `overall`."""
    columns: dict[str, Columns] = {}
    lines: dict[int, int] = {}
    provenance: Mapping[str, str] | None = None
    for line, row in quick_rows(str(path)):
        try:
            pair = row["id"]
            if provenance is None:
                # The first line in full; the rest only as far as it is used.
                provenance = Label.model_validate(row).provenance.model_dump()
            place = ids.setdefault(pair, len(ids))
            if place in lines:
                where = f"also on line {lines[place]}; each pair has one line"
                raise InputError(f"{path}:{line}: id {pair[:80]!r} is {where}, remove one.")
            lines[place] = line
            found = row["labels"]
            for name, label in found.items():
                _add_label(columns, name, place, line, label)
            if OVERALL not in found:
                _add_label(columns, OVERALL, place, line, row["overall"])
            texts.add(place, row)
        except (KeyError, TypeError, AttributeError, ValueError):
            _refuse_label(row, f"{path}:{line}")
    if provenance is None:
        raise InputError(f"{path}: holds no labels; give a labels.jsonl that rlaif label wrote.")
    ledger = run if run is not None and (run / "judgments.db").is_file() else None
    name = provenance["judge"].rpartition("@")[0] or provenance["judge"]
    return JudgeLabels(name, labels, columns, provenance, ledger, name)


def _add_label(columns: dict[str, Columns], name: str, place: int, line: int, label: Mapping[str, Any]) -> None:
    preference, p_a = label["preference"], label["p_a"]
    if p_a is not None and not 0 <= p_a <= 1:
        raise ValueError(p_a)
    code = -1 if preference is None else CODES[preference]
    mine = columns.get(name)
    if mine is None:
        mine = columns[name] = Columns()
    gap, mass = label.get("order_gap"), label.get("choice_mass")
    mine.pair.append(place)
    mine.preference.append(code)
    mine.p_a.append(_NAN if p_a is None else p_a)
    mine.order.append(-1)
    mine.line.append(line)
    mine.gap.append(_NAN if gap is None else gap)
    mine.mass.append(_NAN if mass is None else mass)


def _refuse_label(row: Any, place: str) -> NoReturn:
    try:
        Label.model_validate(row)
        fact = "a probability or preference is out of its range"
    except ValidationError as errors:
        first = errors.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the line"
        fact = f"{where}: {first['msg'][:1].lower()}{first['msg'][1:]}"
    raise InputError(f"{place}: not a label of rlaif label ({fact}); give the labels.jsonl of a run, or fix the line.")


def fold(mine: Columns, orders: OrderRow | None = None) -> Folded:
    """Fold the orders of each pair: the preference that both share, else what the mean of `p_a` prefers, else a tie.

    Where one order abstained the other stands alone.

    Args:
        mine: one judge's labels of one objective.
        orders: what a run's ledger says of each order.
    """
    pair, order = _view(mine.pair, np.int32).astype(np.int64), _view(mine.order, np.int8)
    preference, p_a = _view(mine.preference, np.int8), _view(mine.p_a, np.float64)
    if not (order >= 0).any():
        ab, ba = np.full(len(pair), -1, np.int8), np.full(len(pair), -1, np.int8)
        if orders is not None:
            ab, ba = (_placed(pair, *orders.side(side)) for side in (0, 1))
        gap, mass = (
            _view(each, np.float64) if len(each) else np.full(len(pair), _NAN) for each in (mine.gap, mine.mass)
        )
        return Folded(pair, preference, p_a, ab, ba, gap, mass)
    pairs, place = np.unique(pair, return_inverse=True)
    sides, chances = np.full((3, len(pairs)), -1, np.int8), np.full((3, len(pairs)), _NAN)
    # The last row holds what has no order (-1), and then nothing else.
    sides[order, place], chances[order, place] = preference, p_a
    ab, ba = sides[0], sides[1]
    both = (ab >= 0) & (ba >= 0)
    one = np.where(ab >= 0, ab, np.where(ba >= 0, ba, sides[2]))
    mean = (chances[0] + chances[1]) / 2
    alone = np.where(ab >= 0, chances[0], np.where(ba >= 0, chances[1], chances[2]))
    by_chance = np.where(np.abs(mean - 0.5) < 1e-9, 2, np.where(mean > 0.5, 0, 1))
    split = np.where(np.isfinite(mean), by_chance, 2)
    folded = np.where(both & (ab != ba), split, one).astype(np.int8)
    gap = np.abs(chances[0] - chances[1])
    return Folded(pairs, folded, np.where(both, mean, alone), ab, ba, gap, np.full(len(pairs), _NAN))


def _placed(pair: Ints, places: Ints, codes: Codes) -> Codes:
    """Codes given for some places, in the order of `pair`; -1 where none is."""
    table = np.full(int(max(pair.max(initial=-1), places.max(initial=-1))) + 1, -1, dtype=np.int8)
    table[places] = codes
    found: Codes = table[pair]
    return found


def _view(column: array[Any], kind: npt.DTypeLike) -> npt.NDArray[Any]:
    return np.frombuffer(column, kind) if len(column) else np.zeros(0, kind)
