"""Candidates of prompts with their rewards: what every way of using rewards starts from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from rlaif.data.pairs import Reject, parse_columns
from rlaif.data.sources import open_source
from rlaif.engines.chat import RefusedMessages
from rlaif.labeling.generate import first_usable, none_usable
from rlaif.rewards.aggregate import aggregate_rewards, below_floors, row_weights
from rlaif.rewards.preferences import Floats, Ints
from rlaif.rewards.score import Candidates, Rejects, read_candidates, taken_by_template, windows
from rlaif.rewards.spec import HeadsSpec
from rlaif.types import Message, TagValue

if TYPE_CHECKING:
    from rlaif.rewards.heads import RawScores, RewardHeads

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Pool:
    """Candidates of some prompts with their scores; those of one prompt stand side by side, in their order.

    Rewards are in standard deviations from the mean response that the heads were trained on.

    Attributes:
        ids: of each prompt.
        prompts: conversations that end before the response.
        tags: of each prompt.
        responses: the candidates of each prompt.
        objectives: names, the order of the columns.
        rewards: of all candidates, prompt after prompt, (responses, objectives).
        members: of each member of the ensemble, (responses, members, objectives); `None` without one.
        reward: the aggregate by the heads' own rule, floors included, (responses,).
        prompt_of: place of each candidate's prompt, rising from 0, (responses,).
        below: whether a candidate is under an objective's floor, (responses, objectives).
        weights: what each objective weighs for a candidate's prompt, (responses, objectives); `None` for those of the
            heads' spec, by the prompt's tags.
        truncated: conversations that were cut to the longest length.
    """

    ids: Sequence[str]
    prompts: Sequence[tuple[Message, ...]]
    tags: Sequence[Mapping[str, TagValue]]
    responses: Sequence[tuple[str, ...]]
    objectives: tuple[str, ...]
    rewards: Floats
    members: Floats | None
    reward: Floats
    prompt_of: Ints
    below: Bools
    weights: Floats | None = None
    truncated: int = 0

    def __len__(self) -> int:
        """How many candidates there are."""
        return len(self.prompt_of)

    @property
    def texts(self) -> list[str]:
        """All candidates, in the order of the rows."""
        return [response for each in self.responses for response in each]

    @property
    def std(self) -> Floats | None:
        """Deviation among the members of the ensemble, (responses, objectives); `None` without one."""
        return None if self.members is None else np.asarray(self.members.std(axis=1, ddof=1))

    @property
    def starts(self) -> Ints:
        """Row of each prompt's first candidate, and at the end the number of rows, (prompts + 1,)."""
        return np.searchsorted(self.prompt_of, np.arange(len(self.ids) + 1)).astype(np.int64)

    def slices(self) -> Iterator[slice]:
        """The rows of each prompt."""
        return (slice(start, end) for start, end in pairwise(self.starts.tolist()))

    def row_weights(self, spec: HeadsSpec) -> Floats:
        """What each objective weighs for each candidate, (responses, objectives)."""
        if self.weights is not None:
            return self.weights
        return row_weights(spec, len(self), [self.tags[place] for place in self.prompt_of])


def normalized(spec: HeadsSpec, scores: Floats) -> Floats:
    """Raw scores in standard deviations from the mean response that was trained on, (…, objectives)."""
    rules = [spec.normalization[name] for name in spec.objectives]
    found: Floats = (scores - np.array([rule.mean for rule in rules])) / np.array([rule.std for rule in rules])
    return found


def score_pool(
    heads: RewardHeads,
    rows: Sequence[Candidates],
    *,
    batch_tokens: int | None = None,
    watch: Callable[[int], None] | None = None,
    rejects: Rejects | None = None,
) -> Pool:
    """Score the candidates of rows.

    Args:
        heads: loaded ones.
        rows: prompts with their candidates, as `read_pool_rows` gives them.
        batch_tokens: tokens of a batch, padding counted; moves the last digits only.
        watch: called with the number of candidates scored so far.
        rejects: takes the rows that the heads' chat template does not take; `None` makes them an error.

    Raises:
        RunError: a conversation that the chat template does not take, a score that is no number, or too little memory.
    """
    kept: list[Candidates] = []
    raws: list[RawScores] = []
    done = 0
    for part in windows(rows):
        taken, raw = _raw(heads, part, batch_tokens, _counted(watch, done), rejects)
        kept += taken
        raws += [raw]
        done += len(raw.scores)
    spec = heads.spec
    prompt_of = np.repeat(np.arange(len(kept)), [len(row.responses) for row in kept]).astype(np.int64)
    rewards = normalized(spec, _stacked([raw.scores for raw in raws], (0, len(spec.objectives))))
    members = [raw.members for raw in raws if raw.members is not None]
    tags = [kept[place].tags for place in prompt_of]
    gated = heads.gated_weights([kept[place].prompt for place in prompt_of], prompt_of) if len(prompt_of) else None
    return Pool(
        ids=[row.id for row in kept],
        prompts=[row.prompt for row in kept],
        tags=[row.tags for row in kept],
        responses=[row.responses for row in kept],
        objectives=spec.objectives,
        rewards=rewards,
        members=normalized(spec, np.concatenate(members)) if members else None,
        reward=aggregate_rewards(rewards, spec, tags, gated),
        prompt_of=prompt_of,
        below=below_floors(rewards, spec),
        weights=row_weights(spec, len(prompt_of), tags, gated),
        truncated=sum(raw.truncated for raw in raws),
    )


def read_pool_rows(
    data: str,
    columns: str | None = None,
    split: str | None = None,
    config: str | None = None,
    limit: int | None = None,
) -> tuple[list[Candidates], list[Reject]]:
    """Read rows of candidates in any shape that `rlaif score` takes, and the rows that cannot be used.

    Raises:
        InputError: the data cannot be read, or no row can be used.
    """
    source = open_source(data, split=split, config=config)
    rows: list[Candidates] = []
    rejects: list[Reject] = []
    for row in first_usable(read_candidates(source, parse_columns(columns)), limit):
        if isinstance(row, Candidates):
            rows.append(row)
        else:
            rejects.append(row)
    if not rows:
        raise none_usable(source.name, rejects)
    return rows, rejects


def _raw(
    heads: RewardHeads,
    part: list[Candidates],
    batch_tokens: int | None,
    watch: Callable[[int], None] | None,
    rejects: Rejects | None,
) -> tuple[list[Candidates], RawScores]:
    """The rows of a window that the chat template takes, and their scores."""
    prompts = [row.prompt for row in part for _ in row.responses]
    responses = [response for row in part for response in row.responses]
    try:
        return part, heads.raw(prompts, responses, batch_tokens=batch_tokens, watch=watch)
    except RefusedMessages:
        if rejects is None:
            raise
        # Nothing is computed before all is encoded.
        taken = [row for row in part if taken_by_template(heads, row, rejects)]
        return _raw(heads, taken, batch_tokens, watch, None)


def _counted(watch: Callable[[int], None] | None, before: int) -> Callable[[int], None] | None:
    return None if watch is None else lambda done: watch(before + done)


def _stacked(parts: list[Floats], empty: tuple[int, ...]) -> Floats:
    return np.concatenate(parts) if parts else np.empty(empty)
