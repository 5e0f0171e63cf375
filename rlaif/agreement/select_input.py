"""What `rlaif select` reads: what is known of each pair, from a run's labels or the heads' scores, and the texts."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

from pydantic import ValidationError

from rlaif.agreement.worth import Known, Table
from rlaif.data.pairs import Reject, read_pairs
from rlaif.data.quick import quick_rows
from rlaif.data.sources import Source, open_source
from rlaif.errors import InputError
from rlaif.labeling.read import label_fault, labels_file, read_label_numbers
from rlaif.types import Label, ObjectiveLabel, Pair

_SIDES = ("a", "b")
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Pool:
    """The pairs to choose from.

    `texts` reads the pairs at the given places of the table, in the order of the file, holding one at a time.
    `without_texts` counts the pairs with scores that the file of pairs does not hold; they cannot be chosen.
    """

    table: Table
    texts: Callable[[Collection[int]], Iterator[tuple[int, Pair]]]
    without_texts: int = 0


def read_pool(source: str, pairs: str | None = None) -> Pool:
    """Read a run's folder, its `labels.jsonl`, or a file of scores with its `pairs`.

    Raises:
        InputError: it is none of these, a line cannot be used, or there is no pair to choose.
    """
    path = Path(source)
    if not path.is_dir() and path.exists() and _holds_scores(source):
        if pairs is None:
            raise InputError(f"{source}: scores hold no texts; add --pairs FILE, the pairs that were scored.")
        return _scored(source, open_source(pairs))
    if pairs is not None:
        raise InputError(f"--pairs {pairs}: {source} holds its own texts; drop --pairs, which belongs to scores.")
    return _labelled(labels_file(path))


def _holds_scores(source: str) -> bool:
    if Path(source).stat().st_size == 0:
        raise InputError(f"{source}: the file is empty; give a run's folder, its labels.jsonl, or scores.")
    line, row = next(quick_rows(source), (1, None))
    if not isinstance(row, Mapping):
        return False
    if "judge" in row and "labels" not in row:
        raise InputError(
            f"{source}:{line}: a recorded judge label, which does not tell how sure the judge was; give a run's "
            "folder, its labels.jsonl, or the scores that rlaif score wrote."
        )
    return "rewards" in row


def _labelled(path: Path) -> Pool:
    table = Table()
    for line, label in read_label_numbers(path):
        table.add(label.id, line, {name: _known(value) for name, value in label.labels.items()})

    def texts(places: Collection[int]) -> Iterator[tuple[int, Pair]]:
        by_line = {table.lines[place]: place for place in places}
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if number not in by_line:
                    continue
                try:
                    label = Label.model_validate_json(line)
                except ValidationError as errors:
                    raise InputError(f"{path}:{number}: {label_fault(errors)}") from None
                yield by_line[number], _pair(label)

    return Pool(table, texts)


def _known(label: ObjectiveLabel) -> Known:
    return Known(label.p_a, label.order_gap, label.verdicts, label.abstained)


def _pair(label: Label) -> Pair:
    return Pair(
        id=label.id,
        prompt=label.prompt,
        response_a=label.response_a,
        response_b=label.response_b,
        tags=label.tags,
    )


def _scored(source: str, pairs: Source) -> Pool:
    have = {row[1].id for row in _usable(pairs)}
    table, missing = Table(), 0
    for line, pair_id, known in _read_scores(source):
        if pair_id in have:
            table.add(pair_id, line, known)
        else:
            missing += 1
    if not table.ids:
        first = f"{missing:,} with scores" if missing else "no scores"
        raise InputError(
            f"{pairs.name}: holds none of the pairs of {source} ({first}); give the pairs that were scored."
        )

    def texts(places: Collection[int]) -> Iterator[tuple[int, Pair]]:
        by_id = {table.ids[place]: place for place in places}
        for _, pair in _usable(pairs):
            if pair.id in by_id:
                yield by_id[pair.id], pair

    return Pool(table, texts, missing)


def _usable(pairs: Source) -> Iterator[tuple[int, Pair]]:
    return (row for row in read_pairs(pairs, {}) if not isinstance(row, Reject))


@dataclass(frozen=True, slots=True)
class _Score:
    """The scores of one response: mean and standard deviation of the ensemble, by objective."""

    line: int
    rewards: Mapping[str, float | None]
    std: Mapping[str, float | None]


def _read_scores(source: str) -> Iterator[tuple[int, str, dict[str, Known]]]:
    """Yield line, id and what is known, as soon as both responses of a pair were met."""
    waiting: dict[str, dict[str, _Score]] = {}
    done: set[str] = set()
    for line, row in quick_rows(source):
        pair_id, side, score = _score(row, source, line)
        both = waiting.setdefault(pair_id, {})
        if side in both or pair_id in done:
            raise InputError(
                f"{source}:{line}: id {pair_id[:80]!r} has another line for response {side}; each response "
                "has one line, remove one."
            )
        both[side] = score
        if len(both) == len(_SIDES):
            done.add(pair_id)
            del waiting[pair_id]
            first, second = both["a"], both["b"]
            names = dict.fromkeys([*first.rewards, *second.rewards])
            yield min(first.line, second.line), pair_id, {name: _compared(first, second, name) for name in names}
    for pair_id, one in waiting.items():
        (side, score), other = next(iter(one.items())), "b" if "a" in one else "a"
        raise InputError(
            f"{source}:{score.line}: id {pair_id[:80]!r} has a line for response {side} and none for {other}; "
            "expected both. Score the pairs again, or remove the line."
        )


def _compared(first: _Score, second: _Score, objective: str) -> Known:
    reward_a, reward_b = first.rewards.get(objective), second.rewards.get(objective)
    if reward_a is None or reward_b is None:
        return Known(None)
    margin = reward_a - reward_b
    # The scores tell each response's spread and not how the two go together: as if they were independent.
    spread = math.hypot(first.std.get(objective) or 0.0, second.std.get(objective) or 0.0)
    return Known(_logistic(margin), verdicts=1, members_differ=members_differ(margin, spread))


def members_differ(margin: float, spread: float) -> float | None:
    """Probability that two members of an ensemble prefer different responses; `None` without a spread.

    The members' margins are taken as normal with that mean and standard deviation: of each the probability to prefer a
    is q = Phi(margin / spread), and two differ with 2 q (1 - q). A margin of 0 gives 0.5.
    """
    if spread <= 0:
        return None
    prefers_a = _NORMAL.cdf(margin / spread)
    return 2 * prefers_a * (1 - prefers_a)


def _logistic(margin: float) -> float:
    # The form that does not overflow, whichever sign the margin has.
    if margin >= 0:
        return 1 / (1 + math.exp(-margin))
    return math.exp(margin) / (1 + math.exp(margin))


def _score(value: Any, name: str, line: int) -> tuple[str, str, _Score]:
    place = f"{name}:{line}"
    if not isinstance(value, Mapping):
        raise InputError(f"{place}: not an object; expected a line that rlaif score wrote, with id, response, rewards.")
    pair_id = value.get("id")
    if isinstance(pair_id, bool) or not isinstance(pair_id, (str, int)) or pair_id == "":
        raise InputError(f"{place}: id is {_shown(pair_id)}; expected a text. Score the pairs again, or fix the line.")
    side = value.get("response")
    if side not in _SIDES:
        raise InputError(
            f'{place}: response is {_shown(side)}; expected "a" or "b", since pairs are chosen. Score a file of pairs.'
        )
    rewards, std = (_numbers(value.get(field), field, place) for field in ("rewards", "std"))
    if not rewards:
        raise InputError(f"{place}: rewards is empty; expected a number for each objective. Score the pairs again.")
    if any(spread is not None and spread < 0 for spread in std.values()):
        raise InputError(f"{place}: std holds a number below 0; expected standard deviations. Score the pairs again.")
    return str(pair_id), str(side), _Score(line, rewards, std)


def _numbers(value: Any, field: str, place: str) -> Mapping[str, float | None]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InputError(f"{place}: {field} is {_shown(value)}; expected an object of numbers. Fix the line.")
    for objective, number in value.items():
        right = number is None or (isinstance(number, (int, float)) and not isinstance(number, bool))
        if not right or (number is not None and not math.isfinite(number)):
            where = f"{field}.{str(objective)[:40]}"
            raise InputError(f"{place}: {where} is {_shown(number)}; expected a number. Fix the line.")
    return {str(objective): None if number is None else float(number) for objective, number in value.items()}


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True, default=str)
    return "missing" if value is None else text if len(text) <= 40 else f"{text[:39]}…"
