"""Rows of preference data as other trainers take them: which columns a format has, and what stands in them. Pure.

trl                  prompt, chosen and rejected as texts: TRL's standard format with an explicit prompt
trl-conversational   the same as lists of messages, which the trainer puts through the chat template
dpo                  as trl-conversational: the columns of TRL's DPOTrainer and of axolotl's chat_template strategy
openrlhf             chosen and rejected as whole conversations, the keys that OpenRLHF reads without being told;
                     the prompt alone stands in `context_messages`, the key of its prompt collections
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from rlaif.types import Message

PreferenceFormat = Literal["trl", "trl-conversational", "openrlhf", "dpo"]
PREFERENCE_FORMATS: tuple[PreferenceFormat, ...] = get_args(PreferenceFormat)
Kind = Literal["text", "messages", "number"]
MOST_MARGIN = 3.0
"""The largest margin of Llama 2's reward models (Touvron et al. 2023, section 3.2.2); a label that is sure has none."""


@dataclass(frozen=True)
class Preferred:
    """A pair with its better response first.

    Attributes:
        id: the pair's or the prompt's.
        prompt: the conversation before the response.
        chosen: the better response.
        rejected: the other one.
        numbers: what is known of the preference, the same names in every row of an export: `p_chosen` (probability
            that chosen is better) and `weight` of a label, `reward_chosen` and `reward_rejected` of scores.
    """

    id: str
    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    numbers: Mapping[str, float]

    @property
    def gap(self) -> float:
        """By how much chosen is better: difference of the probabilities (0 to 1), or of the rewards."""
        if "p_chosen" in self.numbers:
            return 2 * self.numbers["p_chosen"] - 1
        return self.numbers["reward_chosen"] - self.numbers["reward_rejected"]

    @property
    def margin(self) -> float:
        """How far apart a reward model is asked to put both: the log-odds of a label, the difference of rewards.

        At most `MOST_MARGIN`: the log-odds of a hard label are infinite.
        """
        p = self.numbers.get("p_chosen")
        if p is None:
            return min(self.gap, MOST_MARGIN)
        return min(math.log(p) - math.log1p(-p), MOST_MARGIN) if p < 1 else MOST_MARGIN

    def turned(self) -> Preferred:
        """The same tie with the responses in each other's place, as a row of its own."""
        return Preferred(f"{self.id}~turned", self.prompt, self.rejected, self.chosen, self.numbers)


def is_one_question(prompt: Sequence[Message]) -> bool:
    """Whether a prompt is one turn of the user, which a text can hold as it is."""
    return len(prompt) == 1 and prompt[0].role == "user"


def columns_of(layout: PreferenceFormat, numbers: Sequence[str]) -> dict[str, Kind]:
    """Names and kinds of a format's columns, in their order."""
    texts: dict[str, Kind]
    if layout == "trl":
        texts = {"prompt": "text", "chosen": "text", "rejected": "text"}
    elif layout == "openrlhf":
        texts = {"context_messages": "messages", "chosen": "messages", "rejected": "messages"}
    else:
        texts = {"prompt": "messages", "chosen": "messages", "rejected": "messages"}
    return {"id": "text", **texts, **dict.fromkeys(numbers, "number")}


def row_of(layout: PreferenceFormat, pair: Preferred, *, margin: bool = False) -> dict[str, Any]:
    """One row, its columns as `columns_of` names them; a prompt of a `trl` row is one turn of the user."""
    numbers = {**pair.numbers, "margin": pair.margin} if margin else dict(pair.numbers)
    return {"id": pair.id, **_TEXTS[layout](pair), **numbers}


def _plain(pair: Preferred) -> dict[str, Any]:
    return {"prompt": pair.prompt[0].content, "chosen": pair.chosen, "rejected": pair.rejected}


def _explicit(pair: Preferred) -> dict[str, Any]:
    return {"prompt": _turns(pair.prompt), "chosen": [_reply(pair.chosen)], "rejected": [_reply(pair.rejected)]}


def _whole(pair: Preferred) -> dict[str, Any]:
    before = _turns(pair.prompt)
    return {
        "context_messages": before,
        "chosen": [*before, _reply(pair.chosen)],
        "rejected": [*before, _reply(pair.rejected)],
    }


def _turns(prompt: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": turn.content} for turn in prompt]


def _reply(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


_TEXTS: Mapping[PreferenceFormat, Callable[[Preferred], dict[str, Any]]] = {
    "trl": _plain,
    "trl-conversational": _explicit,
    "dpo": _explicit,
    "openrlhf": _whole,
}
