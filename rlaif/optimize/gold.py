"""What proxies are held against: another reward model, scores in a file, labels of pairs, a judge, or values given.

Gold is compared within a prompt only, so what is the same for all of a prompt's candidates does not matter.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlaif.data.sources import open_source
from rlaif.errors import InputError
from rlaif.optimize.candidates import score_pool
from rlaif.optimize.overoptimize_results import GoldKind
from rlaif.optimize.pair_gold import pair_scores, wins_of_labels
from rlaif.rewards.preferences import Floats
from rlaif.rewards.score import Candidates
from rlaif.rewards.spec import SPEC_FILE
from rlaif.types import Message

if TYPE_CHECKING:
    from rlaif.rewards.heads import RewardHeads

OVERALL = "overall"
GivenGold = Callable[[Sequence[tuple[Message, ...]], Sequence[str]], Any]
"""A function of prompts and responses, one a candidate, that gives a value each, or a mapping of names to such."""

_LOOK_AT = 100
_FILES = (".jsonl", ".json", ".csv", ".parquet", ".gz")


@dataclass(frozen=True)
class Gold:
    """Gold of candidates, prompt after prompt; nan where it is not known.

    Attributes:
        name: what it is, for reading.
        kind: what it is.
        overall: what is really wanted, (candidates,).
        objectives: the same by objective, each (candidates,).
        notes: what to know of it.
    """

    name: str
    kind: GoldKind
    overall: Floats
    objectives: Mapping[str, Floats] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def kind_of_gold(gold: str) -> GoldKind:
    """Tell what an argument is: heads, scores or labels, else a judge.

    Raises:
        InputError: a file or folder that is none of these.
    """
    path = Path(gold)
    if path.is_dir():
        if (path / SPEC_FILE).exists():
            return "heads"
        if (path / "labels.jsonl").exists() or (path / "manifest.json").exists():
            return "labels"
        if (path / "config.json").exists():
            return "judge"
        raise InputError(
            f"--gold {gold}: a folder with neither {SPEC_FILE} (heads), nor labels.jsonl (a run), nor config.json (a "
            "judge); give one of these, or a file of scores or labels."
        )
    if path.exists():
        return _kind_of_file(gold)
    if path.suffix in _FILES or gold.startswith((".", "/", "~")):
        raise InputError(f"--gold {gold}: no such file or folder; give heads, scores, labels, or a judge's name.")
    return "judge"


def _kind_of_file(gold: str) -> GoldKind:
    for row in islice(open_source(gold).read(), _LOOK_AT):
        if row.fault is not None or not isinstance(row.value, Mapping):
            continue
        if {"labels", "response_a", "response_b"} <= row.value.keys():
            return "labels"
        if "scores" in row.value or {"response", "reward"} <= row.value.keys():
            return "scores"
        named = ", ".join(map(str, islice(row.value, 8)))
        raise InputError(
            f"--gold {gold}: rows hold {named[:200]}; expected scores (id, response, reward, as of rlaif score), "
            "or labels with their texts (labels.jsonl of rlaif label)."
        )
    raise InputError(f"--gold {gold}: no row can be read as JSON; expected scores or labels.")


def given_gold(gold: Any, rows: Sequence[Candidates], name: str = "given") -> Gold:
    """Gold from values of all candidates, or a function that gives them.

    Args:
        gold: numbers, one a candidate, prompt after prompt; or a mapping of objectives to such, in which `overall` is
            what is really wanted, their mean where there is none; or a function of prompts and responses that gives
            either. nan is not known.
        rows: the candidates.
        name: for reading.

    Raises:
        InputError: not as many values as candidates.
    """
    if callable(gold):
        prompts = [row.prompt for row in rows for _ in row.responses]
        gold = gold(prompts, [response for row in rows for response in row.responses])
    count = sum(len(row.responses) for row in rows)
    found = {str(key): _floats(each, count) for key, each in gold.items()} if isinstance(gold, Mapping) else None
    if found is None:
        return Gold(name, "given", _floats(gold, count))
    overall = found.pop(OVERALL, None)
    if overall is None:
        if not found:
            raise InputError("gold: an empty mapping; expected values by objective, or overall.")
        overall = np.mean(list(found.values()), axis=0)
    return Gold(name, "given", overall, found)


def _floats(values: Any, count: int) -> Floats:
    found = np.asarray(values, dtype=np.float64)
    if found.shape != (count,):
        raise InputError(f"gold: values of shape {found.shape} for {count:,} candidates; expected one a candidate.")
    return found


def heads_gold(heads: RewardHeads, rows: Sequence[Candidates], watch: Callable[[int], None] | None = None) -> Gold:
    """Gold from other heads: their aggregate, and the reward of each objective."""
    pool = score_pool(heads, rows, watch=watch)
    notes: tuple[str, ...] = ()
    under = float(pool.below.any(axis=1).mean()) if len(pool) else 0.0
    if under:
        notes = (
            f"{under:.1%} of candidates are under a floor of the gold heads; their rule puts these below all others, "
            "which is most of what gold's deviation then tells.",
        )
    columns = {name: pool.rewards[:, place] for place, name in enumerate(pool.objectives)}
    return Gold(str(heads.path), "heads", pool.reward, columns, notes)


def scores_gold(gold: str, rows: Sequence[Candidates]) -> Gold:
    """Gold from a file of scores, joined by the row's id and the response's name: its letter or its place.

    A line has the score of one response, as `rlaif score` writes them, or those of all responses to a prompt, as
    `OUT.candidates.jsonl` of `rlaif reward best-of-n`.

    Raises:
        InputError: the file has no score of any candidate, two of one, or one that is no number.
    """
    found: dict[tuple[str, str], tuple[float, Mapping[str, Any]]] = {}
    source = open_source(gold)
    for row in source.read():
        if row.fault is not None or not isinstance(row.value, Mapping) or "id" not in row.value:
            raise InputError(f"{source.name}:{row.line}: {row.fault or 'no id'}; expected a line of scores.")
        key = str(row.value["id"])
        scores = row.value.get("scores")
        if scores is None:
            scores = [row.value]
        if not isinstance(scores, list) or not all(isinstance(score, Mapping) for score in scores):
            raise InputError(f"{source.name}:{row.line}: scores are no list of objects; expected one a response.")
        for place, score in enumerate(scores):
            named = key, str(score.get("response", place))
            if named in found:
                raise InputError(
                    f"{source.name}:{row.line}: a second score of response {named[1][:40]} to {key[:80]}; "
                    "expected one. Give each row its own id."
                )
            where = f"{source.name}:{row.line}: reward"
            rewards = score.get("rewards") or {}
            if not isinstance(rewards, Mapping):
                raise InputError(f"{source.name}:{row.line}: rewards are no object; expected numbers by objective.")
            found[named] = _number(score.get("reward"), where), rewards
    keys = [(row.id, str(name)) for row in rows for name in row.names]
    overall = np.array([found[key][0] if key in found else np.nan for key in keys])
    if not np.isfinite(overall).any():
        raise InputError(
            f"--gold {gold}: scores none of the candidates; expected their ids and the places of their responses, as "
            "rlaif score HEADS CANDIDATES writes them."
        )
    names = dict.fromkeys(name for key in keys if key in found for name in found[key][1])
    columns = {
        str(name): np.array([_known(found[key][1].get(name)) if key in found else np.nan for key in keys])
        for name in names
    }
    return Gold(gold, "scores", overall, columns)


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        shown = json.dumps(value, default=str)[:40]
        raise InputError(f"{where} is {shown}; expected a number.")
    return float(value)


def _known(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else float("nan")


def labels_gold(gold: str, rows: Sequence[Candidates]) -> Gold:
    """Gold from labels of pairs of candidates, matched by prompt and texts: Bradley-Terry scores within each prompt.

    Raises:
        InputError: no pair is of candidates of one prompt.
    """
    wins = wins_of_labels(gold, rows)
    scored = {name: pair_scores(rows, mine) for name, mine in wins.items()}
    apart = scored[OVERALL].apart
    notes = [f"Gold has {len(wins[OVERALL]):,} labelled pairs of candidates."]
    if apart:
        notes.append(
            f"{apart:,} candidates are compared only among a few of their prompt's; their gold is on no common scale "
            "and they are left out."
        )
    columns = {name: each.scores for name, each in scored.items() if name != OVERALL}
    return Gold(gold, "labels", scored[OVERALL].scores, columns, tuple(notes))
