"""The values that flow through rlaif, from a pair of responses to its label.

    Pair ──plan──> JudgeRequest ──engine──> Completion ──read──> Verdict ──fold──> Label

All are frozen and refuse unknown fields.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Role = Literal["system", "developer", "user", "assistant", "tool"]
Order = Literal["ab", "ba"]
Preference = Literal["a", "b", "tie"]
ParetoVerdict = Literal["a", "b", "tie", "conflict"]
Status = Literal["ok", "truncated", "refused", "unread", "error"]
FinishReason = Literal["stop", "length", "refused", "error"]
TagValue = str | int | float | bool | None


class Frozen(BaseModel):
    """Base of every value and setting: immutable, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Message(Frozen):
    """One chat turn."""

    role: Role
    content: str


class Pair(Frozen):
    """A prompt and two responses to compare."""

    id: str
    prompt: tuple[Message, ...]
    response_a: str
    response_b: str
    tags: Mapping[str, TagValue] = Field(default_factory=dict)

    def swap(self) -> Pair:
        """Return the same pair with its responses in the other places."""
        return self.model_copy(update={"response_a": self.response_b, "response_b": self.response_a})

    @cached_property
    def nonce(self) -> str:
        """Eight hex digits that fence this pair's texts; the same for both orders.

        They follow from the content, so that a prompt's rendering is stable, and a response
        cannot hold them unless it was searched for (it is neutralised then).
        """
        return nonce_of(self.prompt, (self.response_a, self.response_b))


def nonce_of(prompt: Sequence[Message], responses: Sequence[str]) -> str:
    """Eight hex digits that follow from the texts to be quoted, whatever order the responses stand in."""
    digest = hashlib.sha256()
    for turn in prompt:
        digest.update(f"{turn.role}\x00{turn.content}\x00".encode())
    for response in sorted(responses):
        digest.update(f"{response}\x00".encode())
    return digest.hexdigest()[:8]


class Prompt(Frozen):
    """A conversation that a policy answers; `response` is the answer that came with it, if one did."""

    id: str
    messages: tuple[Message, ...]
    response: str | None = None
    tags: Mapping[str, TagValue] = Field(default_factory=dict)


class JudgeRequest(Frozen):
    """One question to a model: write a rationale, then choose.

    `rationale` is `None` when the model is to write one, and a text (maybe empty) when it is given
    and only the choice is read. Without `choices` the text itself is the answer (a policy's response).
    `key` is a SHA-256 of everything that could change the answer.
    """

    key: str
    pair_id: str
    messages: tuple[Message, ...]
    objective: str = ""
    order: Order = "ab"
    sample: int = 0
    principle: str | None = None
    verdict_prefix: str = ""
    choices: tuple[str, ...] = ()
    rationale: str | None = None
    temperature: float = 0.0
    max_tokens: int = 512

    @property
    def seed(self) -> int:
        """Sampling seed, 31 bits, fixed by the key: the same request draws the same answer."""
        return int(self.key[:8], 16) & 0x7FFFFFFF


class Usage(Frozen):
    """Tokens of one answer, both steps together."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class Completion(Frozen):
    """What an engine returned for one request.

    `choice_logprobs` holds the natural-log probability of each choice, all its spellings in the
    vocabulary together. It is empty where none could be read; `hard_choice` is then the choice that a
    server without log-probabilities wrote. `error` says why an answer was not given.
    """

    key: str
    rationale: str = ""
    choice_logprobs: Mapping[str, float] = Field(default_factory=dict)
    hard_choice: str | None = None
    finish_reason: FinishReason = "stop"
    usage: Usage = Usage()
    error: str | None = None


class Reading(Frozen):
    """What one completion says: the probability that the response shown first is better, or a response's rating.

    Of a comparison `p_first` is read, of a rating `rating`, the mean of the distribution over the ratings. Where
    nothing was read both are `None`, and `reason` says why. `choice_mass` is the probability the model put on the
    choices at all, 0 to 1. `hard` marks a choice read without log-probabilities.
    """

    status: Status
    p_first: float | None = None
    rating: float | None = None
    choice_mass: float | None = None
    hard: bool = False
    reason: str | None = None

    @property
    def abstained(self) -> bool:
        """Whether nothing was read."""
        return self.p_first is None and self.rating is None


class Verdict(Frozen):
    """One order, one objective, one sample: the probability that response a is better, or the rating of one response.

    `p_a` is in the pair's own order whatever place the response was shown in, and `None` unless a
    verdict was read. A rating is of response a in order `ab` and of response b in order `ba`: `rating` is its mean,
    `rating_logprobs` holds the log-probability of each rating, and `p_a` follows only from both responses' ratings.
    `principle` is the one that was drawn, with `--principles sample`.
    """

    objective: str
    order: Order
    sample: int
    status: Status
    p_a: float | None = None
    choice_mass: float | None = None
    reason: str | None = None
    principle: str | None = None
    rating: float | None = None
    rating_logprobs: Mapping[str, float] = Field(default_factory=dict)


def _is_none(value: object) -> bool:
    return value is None


class ObjectiveLabel(Frozen):
    """What the judge says of one pair under one objective, over both orders and all samples.

    `verdicts` counts those read, `abstained` those that were not; `reasons` counts the latter by
    status. `order_gap` is |p_a(ab) - p_a(ba)|, `None` unless both orders were read. Of calibrated labels `p_a` and
    `preference` are after it; `order_gap` stays that of the verdicts as they were read.

    Where responses are rated one by one, a verdict is a pair of ratings, both read, and there is no order gap;
    `rating_a` and `rating_b` are the mean ratings. `stage` names the stage of a cascade that decided. They are left out
    of what is written where there are none.
    """

    p_a: float | None
    preference: Preference | None
    order_gap: float | None
    verdicts: int
    abstained: int
    truncated: int = 0
    choice_mass: float | None = None
    reasons: Mapping[str, int] = Field(default_factory=dict)
    rating_a: float | None = Field(default=None, exclude_if=_is_none)
    rating_b: float | None = Field(default=None, exclude_if=_is_none)
    stage: str | None = Field(default=None, exclude_if=_is_none)


class OverallLabel(Frozen):
    """All objectives of one pair combined by the constitution's aggregation."""

    p_a: float | None
    preference: Preference | None
    method: Literal["weighted", "pareto"]
    pareto: ParetoVerdict | None
    floors: tuple[str, ...] = ()


class Provenance(Frozen):
    """What a label was made with, each as `name@digest`, and the version of rlaif.

    `calibration` is what put `p_a` right; it is left out of what is written where there is none.
    """

    judge: str
    constitution: str
    template: str
    rlaif: str
    calibration: str | None = Field(default=None, exclude_if=_is_none)


class Label(Frozen):
    """One line of `labels.jsonl`."""

    id: str
    prompt: tuple[Message, ...]
    response_a: str
    response_b: str
    tags: Mapping[str, TagValue]
    labels: Mapping[str, ObjectiveLabel]
    overall: OverallLabel
    provenance: Provenance
