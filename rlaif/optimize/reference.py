"""What the objectives are compared with while a policy is trained: the rewards of the policy it began as."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlaif.errors import InputError, RunError
from rlaif.files import replacing
from rlaif.optimize.candidates import normalized
from rlaif.rewards.preferences import Floats
from rlaif.types import Message

if TYPE_CHECKING:
    from rlaif.rewards.heads import PromptLike, RewardHeads

_FORMAT = 1


@dataclass(frozen=True)
class Reference:
    """Mean rewards of the reference policy.

    Attributes:
        objectives: their names.
        overall: the mean over prompts, (objectives,); it stands for a prompt that was not measured.
        by_prompt: the mean of each prompt's responses, (objectives,), by `prompt_key`.
    """

    objectives: tuple[str, ...]
    overall: Floats
    by_prompt: Mapping[str, Floats] = field(default_factory=dict)

    def of(self, prompts: Sequence[str]) -> Floats:
        """The mean rewards for each prompt by its key, (prompts, objectives)."""
        return np.array([self.by_prompt.get(key, self.overall) for key in prompts]).reshape(-1, len(self.objectives))

    def save(self, path: str | Path) -> None:
        """Write it as JSON, whole or not at all."""
        value = {
            "format": _FORMAT,
            "objectives": list(self.objectives),
            "overall": self.overall.tolist(),
            "by_prompt": {key: np.asarray(row).tolist() for key, row in self.by_prompt.items()},
        }
        with replacing(Path(path)) as file:
            file.write(json.dumps(value) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Reference:
        """Read what `save` wrote.

        Raises:
            InputError: the file is not there, or no reference.
        """
        try:
            value = json.loads(Path(path).read_bytes())
            objectives = tuple(value["objectives"])
            overall = np.array(value["overall"], dtype=np.float64)
            by_prompt = {key: np.array(row, dtype=np.float64) for key, row in value["by_prompt"].items()}
            rows = [overall, *by_prompt.values()]
            if value["format"] != _FORMAT or any(row.shape != (len(objectives),) for row in rows):
                raise ValueError("its numbers do not go with its objectives")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{path}: no reference rewards ({error}); expected what Reference.save wrote. Measure it again."
            ) from None
        return cls(objectives, overall, by_prompt)


def prompt_key(turns: Sequence[Message]) -> str:
    """Sixteen hex digits that follow from a conversation's roles and texts."""
    digest = hashlib.sha256(json.dumps([(turn.role, turn.content) for turn in turns]).encode())
    return digest.hexdigest()[:16]


def as_turns(prompt: PromptLike | Sequence[Mapping[str, Any]], place: int) -> tuple[Message, ...]:
    """A prompt as a trainer has it, as messages: of contents in parts their texts, and none as an empty text.

    Args:
        prompt: a text, or a conversation.
        place: of it among others, for the error.

    Raises:
        InputError: it is neither.
    """
    if isinstance(prompt, str):
        return (Message(role="user", content=prompt),)
    try:
        turns = tuple(
            each if isinstance(each, Message) else Message(role=each["role"], content=content_text(each.get("content")))
            for each in prompt
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        turns = ()
    if not turns:
        raise InputError(f"prompt {place + 1}: no conversation; expected a text, or messages with role and content.")
    return turns


def content_text(content: Any) -> str:
    """The text of a message's content: itself, or the texts of its parts; no content is an empty text."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part["text"] for part in content if part.get("type", "text") == "text")


def measure_reference(
    heads: RewardHeads, prompts: Sequence[PromptLike], responses: Sequence[Sequence[str]]
) -> Reference:
    """Score responses of the reference policy.

    Args:
        heads: those that will be trained on.
        prompts: those that will be trained on, each once: texts or conversations.
        responses: of each prompt, one or more, drawn as in training; four to eight are enough, since what one prompt's
            mean is off by cancels over the prompts.

    Raises:
        InputError: the lists differ in length, or a prompt has no response.
        RunError: a score is not finite.
    """
    if len(prompts) != len(responses):
        raise InputError(f"{len(prompts)} prompts and {len(responses)} lists of responses; expected one list a prompt.")
    if not prompts:
        raise InputError("prompts: none given; expected those that will be trained on.")
    empty = next((place for place, each in enumerate(responses) if not each or isinstance(each, str)), None)
    if empty is not None:
        raise InputError(f"prompt {empty + 1}: expected a list of one or more responses. Draw some for it.")
    turns = [as_turns(prompt, place) for place, prompt in enumerate(prompts)]
    keys = [prompt_key(turn) for turn, each in zip(turns, responses, strict=True) for _ in each]
    whole = [turn for turn, each in zip(turns, responses, strict=True) for _ in each]
    rewards = normalized(heads.spec, heads.raw(whole, [text for each in responses for text in each]).scores)
    if not np.isfinite(rewards).all():
        raise RunError("reference: a reward is not finite; score in float32, or train the heads again.")
    rows: dict[str, list[Floats]] = {}
    for key, row in zip(keys, rewards, strict=True):
        rows.setdefault(key, []).append(row)
    by_prompt = {key: np.mean(each, axis=0) for key, each in rows.items()}
    return Reference(heads.spec.objectives, np.mean(list(by_prompt.values()), axis=0), by_prompt)
