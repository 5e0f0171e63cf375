"""What reward models are compared on: the same responses, scored by heads here or read from files of `rlaif score`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rlaif.data.conversations import conversation_digest
from rlaif.data.quick import quick_rows
from rlaif.errors import InputError
from rlaif.optimize.candidates import score_pool
from rlaif.rewards.preferences import Floats, Ints
from rlaif.rewards.score import Candidates
from rlaif.types import TagValue

if TYPE_CHECKING:
    from rlaif.rewards.heads import RewardHeads

Key = tuple[str, str | int]
"""A response's row and its name in it: `a` and `b` of a pair, else its place from 0."""

# As files of scores are rounded, so that heads and their own file are the same.
_DIGITS = 6
# Says which response was chosen, and so is no group of pairs.
_NOT_A_GROUP = "chosen"
_MOST_VALUES = 20


@dataclass(frozen=True)
class Responses:
    """Responses to compare on, row after row.

    Attributes:
        keys: of each response.
        row_of: place of its row, (responses,).
        prompt_of: a number for its conversation, the same for equal ones, (responses,).
        rows: with texts; `None` where only scores are known.
    """

    keys: Sequence[Key]
    row_of: Ints
    prompt_of: Ints
    rows: Sequence[Candidates] | None

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class Scored:
    """One model's rewards of all responses.

    Attributes:
        name: as the user gave it.
        kind: what it is.
        objectives: names, the order of the columns.
        rewards: (responses, objectives), normalised by the model's own rule; nan where it scored none.
        reward: the aggregate, (responses,).
        log_odds: by objective what turns a margin into calibrated log-odds; `None` where no calibration is known.
    """

    name: str
    kind: Literal["heads", "scores"]
    objectives: tuple[str, ...]
    rewards: Floats
    reward: Floats
    log_odds: Mapping[str, float] | None

    def column(self, objective: str | None) -> Floats:
        """Rewards under an objective, `None` for the aggregate, (responses,)."""
        return self.reward if objective is None else self.rewards[:, self.objectives.index(objective)]


def is_score_file(name: str) -> bool:
    """Whether a model is given by a file of its scores and not by itself."""
    return Path(name).is_file()


def check_models(names: Sequence[str]) -> None:
    """Refuse what cannot be compared.

    Raises:
        InputError: fewer than two models, or one twice.
    """
    if len(names) < 2:
        raise InputError(f"{len(names)} reward model; expected two or more, heads or files of rlaif score.")
    for place, name in enumerate(names):
        if any(_same(name, other) for other in names[:place]):
            raise InputError(f"{name}: given twice; a model agrees with itself. Give each one once.")


def _same(one: str, other: str) -> bool:
    paths = Path(one), Path(other)
    return one == other or (all(path.exists() for path in paths) and paths[0].samefile(paths[1]))


def responses_of(rows: Sequence[Candidates]) -> Responses:
    """Number the responses of rows, in their order."""
    prompts: dict[bytes, int] = {}
    numbers = [prompts.setdefault(conversation_digest(row.prompt), len(prompts)) for row in rows]
    sizes = [len(row.responses) for row in rows]
    return Responses(
        keys=[(row.id, name) for row in rows for name in row.names],
        row_of=np.repeat(np.arange(len(rows)), sizes),
        prompt_of=np.repeat(np.array(numbers, dtype=np.int64), sizes),
        rows=rows,
    )


@dataclass(frozen=True)
class ScoreFile:
    """A file of `rlaif score`, by response: rewards under each objective and, last, the aggregate."""

    name: str
    objectives: tuple[str, ...]
    values: Mapping[Key, tuple[float, ...]]


def read_scores(name: str) -> ScoreFile:
    """Read a file of `rlaif score`.

    Raises:
        InputError: it is none, a line is damaged or differs from the others, or a response is scored twice.
    """
    objectives: tuple[str, ...] | None = None
    values: dict[Key, tuple[float, ...]] = {}
    for line, row in quick_rows(name):
        place = f"{name}:{line}"
        key, rewards, reward = _score_line(row, place)
        if objectives is None:
            objectives = tuple(rewards)
        elif rewards.keys() != set(objectives):
            raise InputError(
                f"{place}: rewards of {', '.join(rewards)[:120] or 'nothing'}, above of {', '.join(objectives)[:120]}; "
                "a file holds scores of one model. Score again with rlaif score."
            )
        if key in values:
            raise InputError(f"{place}: response {key[1]!r} of {key[0][:80]!r} is scored above; remove one of the two.")
        values[key] = (*(rewards[objective] for objective in objectives), reward)
    if not values or objectives is None:
        raise InputError(f"{name}: holds no scores; expected what rlaif score wrote, or a folder of heads.")
    return ScoreFile(name, objectives, values)


def _score_line(row: Any, place: str) -> tuple[Key, dict[str, float], float]:
    fault = None
    if not isinstance(row, dict) or not {"id", "response", "rewards", "reward"} <= row.keys():
        fault = "no line of rlaif score"
    elif not isinstance(row["id"], str) or not isinstance(row["response"], str | int):
        fault = "id or response is neither a text nor a number"
    elif not isinstance(row["rewards"], dict) or not all(map(_number, [*row["rewards"].values(), row["reward"]])):
        fault = "a reward is no finite number"
    if fault is not None:
        raise InputError(
            f"{place}: {fault}; expected id, response, rewards and reward. Give heads, or what rlaif score wrote."
        )
    return (row["id"], row["response"]), row["rewards"], float(row["reward"])


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def responses_in(files: Sequence[ScoreFile]) -> Responses:
    """The responses that all files score, in the order of the first; rows are the prompts."""
    keys = [key for key in files[0].values if all(key in other.values for other in files[1:])]
    rows: dict[str, int] = {}
    row_of = np.array([rows.setdefault(row, len(rows)) for row, _ in keys], dtype=np.int64)
    return Responses(keys, row_of, row_of, None)


def scored_from_file(file: ScoreFile, responses: Responses) -> Scored:
    """A file's scores of the responses, nan where it has none."""
    none = (math.nan,) * (len(file.objectives) + 1)
    values = np.array([file.values.get(key, none) for key in responses.keys], dtype=np.float64)
    values = values.reshape(len(responses), len(file.objectives) + 1)
    return Scored(file.name, "scores", file.objectives, values[:, :-1], values[:, -1], None)


def scored_by_heads(
    heads: RewardHeads,
    name: str,
    responses: Responses,
    *,
    batch_tokens: int | None = None,
    watch: Callable[[int], None] | None = None,
) -> Scored:
    """Score the responses.

    Raises:
        RunError: a score is not a number, the chat template takes no such conversation, or the memory is too small.
    """
    pool = score_pool(heads, responses.rows or (), batch_tokens=batch_tokens, watch=watch)
    spec = heads.spec
    return Scored(
        name=name,
        kind="heads",
        objectives=spec.objectives,
        rewards=pool.rewards.round(_DIGITS),
        reward=pool.reward.round(_DIGITS),
        log_odds={
            objective: spec.normalization[objective].std / spec.calibration[objective].temperature
            for objective in spec.objectives
        },
    )


def in_common(models: Sequence[Scored], responses: Responses) -> tuple[list[Scored], Responses, int]:
    """Keep the responses that every model scored; the third is how many are left out.

    Raises:
        InputError: no row has two responses left.
    """
    known = np.logical_and.reduce([np.isfinite(model.reward) for model in models])
    kept = np.flatnonzero(known)
    _, sizes = np.unique(responses.row_of[kept], return_counts=True)
    if not (sizes > 1).any():
        raise InputError(_nothing(models, responses, len(kept)))
    if len(kept) == len(responses):
        return list(models), responses, 0
    left = [replace(model, rewards=model.rewards[kept], reward=model.reward[kept]) for model in models]
    keys = [responses.keys[place] for place in kept.tolist()]
    few = Responses(keys, responses.row_of[kept], responses.prompt_of[kept], responses.rows)
    return left, few, len(responses) - len(kept)


def _nothing(models: Sequence[Scored], responses: Responses, kept: int) -> str:
    if kept:
        return "no prompt has two responses to compare; expected pairs, or prompts with a list of responses."
    like = f"; the ids of the data look like {responses.keys[0][0][:40]!r}" if len(responses) else ""
    empty = next((model for model in models if not np.isfinite(model.reward).any()), None)
    who = empty.name if empty is not None else ", ".join(model.name for model in models)
    return f"{who[:200]}: scores none of the responses to compare{like}. Give scores of the same data."


def tag_groups(tags: Sequence[Mapping[str, TagValue]]) -> Iterator[tuple[str, TagValue, Ints]]:
    """Each value of each tag and the places that have it; tags that tell the answer or are too many are left out."""
    found: dict[str, dict[tuple[type, TagValue], list[int]]] = {}
    for place, held in enumerate(tags):
        for name, value in held.items():
            # By the type as well: 1 and true are one key to Python, and not to a reader.
            found.setdefault(name, {}).setdefault((type(value), value), []).append(place)
    for name, values in sorted(found.items()):
        if name != _NOT_A_GROUP and len(values) <= _MOST_VALUES:
            for (_, value), places in values.items():
                yield name, value, np.array(places, dtype=np.int64)
