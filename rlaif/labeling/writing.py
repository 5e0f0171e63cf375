"""Ask a model for a text: a policy's response, or a judge's critique or revision."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from rlaif.engines.base import ModelIdentity
from rlaif.engines.chat import THINK_CLOSE, is_thinking
from rlaif.labeling.plan import policy_key
from rlaif.types import Completion, JudgeRequest, Message

# What an engine computes in; two of them give two sets of numbers.
_NUMERIC_ARGS = ("dtype", "quantization", "kv_cache_dtype", "hf_overrides")


def judge_digest(judge: ModelIdentity, args: Mapping[str, str]) -> str:
    """What stands for a judge or policy in every key: the model, and the numbers that `args` tell it to compute in."""
    told = {name: args[name] for name in _NUMERIC_ARGS if name in args}
    if not told:
        return judge.digest
    return hashlib.sha256(json.dumps([judge.digest, told], sort_keys=True).encode()).hexdigest()


def said(text: str) -> str:
    """What a model says, without what it thought first: nothing, where its text ends inside a thought."""
    return "" if is_thinking(text) else text.rpartition(THINK_CLOSE)[2].strip()


def fault_of(completion: Completion) -> str | None:
    """Say why a model said nothing, where it failed or spent all its tokens on a thought."""
    if completion.error is None and is_thinking(completion.rationale):
        return "it ended inside a thought; allow more tokens"
    return completion.error


@dataclass(frozen=True)
class Writer:
    """A model, and how it is asked for a text.

    Args:
        digest: stands for the model in every key; see `judge_digest`.
        max_tokens: longest text, in tokens.
    """

    digest: str
    temperature: float
    max_tokens: int
    seed: int

    def request(
        self,
        prompt_id: str,
        messages: tuple[Message, ...],
        *,
        sample: int = 0,
        question: str = "",
        principle: str | None = None,
    ) -> JudgeRequest:
        """Make the request for one text; `question` and `principle` say in the ledger what it is for."""
        # Without sampling neither the seed nor the sample changes the answer, so equal questions are asked once.
        drawn, seed = (sample, self.seed) if self.temperature > 0 else (0, 0)
        turns = tuple((turn.role, turn.content) for turn in messages)
        return JudgeRequest(
            key=policy_key(self.digest, turns, drawn, json.dumps([self.temperature, self.max_tokens, seed])),
            pair_id=prompt_id,
            messages=messages,
            objective=question,
            sample=sample,
            principle=principle,
            temperature=self.temperature,
            max_tokens=self.max_tokens,
        )
