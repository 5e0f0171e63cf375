"""Conversations to token ids: the chat template as the tokenizer has it, and what a pair shares found in tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

from transformers import PreTrainedTokenizerBase

from rlaif.engines.chat import ChatTokenizer, RefusedMessages
from rlaif.types import Message, Pair

# How a conversation is written for a tokenizer without a chat template; a system turn stands for itself.
PLAIN_ROLES = {"user": "Human: ", "assistant": "Assistant: ", "tool": "Tool: "}
# Texts tokenized at once: enough for all threads, few enough to hold.
_AT_ONCE = 512


@dataclass(frozen=True)
class EncodedPair:
    """Token ids of a pair: `prefix + a` is the whole conversation with response a, `prefix + b` with response b.

    The prefix is the longest that both conversations share and that leaves each of them at least one token.
    """

    prefix: list[int]
    a: list[int]
    b: list[int]

    @property
    def tokens(self) -> int:
        """Tokens that are computed when the prompt is computed once."""
        return len(self.prefix) + len(self.a) + len(self.b)

    @property
    def conversations(self) -> tuple[list[int], list[int]]:
        """The two whole conversations."""
        return self.prefix + self.a, self.prefix + self.b


class ConversationEncoder:
    """Encodes conversations of at most `max_length` tokens.

    A conversation goes through the tokenizer's chat template, the response as the assistant's turn, with no prompt for
    another turn after it. Without a template it is plain text with the tokenizer's own special tokens:

        You are kind.

        Human: Hello!

        Assistant: Hello. How can I help?

    Special tokens that a text spells out are broken up: texts cannot end their turn, nor pad themselves away. What is
    too long is cut from the left, since the score is read at the end; a leading BOS or CLS stays.

    Attributes:
        chat: whether the tokenizer has a chat template.
        truncated: how many conversations were cut so far; a pair counts for each of its two that had to be.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.chat = bool(getattr(tokenizer, "chat_template", None))
        self.truncated = 0
        self._writer = ChatTokenizer(tokenizer, max_length)
        self._leading = {tokenizer.bos_token_id, tokenizer.cls_token_id} - {None}

    def conversation(self, prompt: Sequence[Message], response: str) -> list[int]:
        """Encode a conversation that ends with a response.

        Raises:
            RefusedMessages: the chat template takes no such conversation.
        """
        return self.conversations([(prompt, response)])[0]

    def conversations(self, items: Iterable[tuple[Sequence[Message], str]]) -> list[list[int]]:
        """Encode many conversations; several times faster than one by one."""
        texts = (self._text(prompt, response) for prompt, response in items)
        return [self._fitted(ids) for ids in self._encoded(texts)]

    def prompt(self, prompt: Sequence[Message]) -> list[int]:
        """Encode a conversation up to where the response would begin."""
        if self.chat:
            return self._fitted(next(self._encoded([self._writer.prompt_text(prompt)])))
        return self._fitted(next(self._encoded([self._plain(prompt) + "\n\n" + PLAIN_ROLES["assistant"].rstrip()])))

    def pair(self, pair: Pair) -> EncodedPair:
        """Encode both conversations of a pair; where one is too long, both lose the same tokens of their prompt."""
        return self.pairs([pair])[0]

    def pairs(self, pairs: Iterable[Pair]) -> list[EncodedPair]:
        """Encode many pairs; several times faster than one by one."""
        texts = (self._text(pair.prompt, response) for pair in pairs for response in (pair.response_a, pair.response_b))
        encoded = self._encoded(texts)
        return [self._joined(a, b) for a, b in zip(encoded, encoded, strict=True)]

    def _text(self, prompt: Sequence[Message], response: str) -> str:
        messages = [*prompt, Message(role="assistant", content=response)]
        if not self.chat:
            return self._plain(messages)
        try:
            text = self.tokenizer.apply_chat_template(self._writer.turns(messages), tokenize=False)
        except Exception as error:
            # Templates raise errors of their own.
            fact = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise RefusedMessages(
                f"the chat template refuses a conversation of {', '.join(turn.role for turn in messages)} ({fact}); "
                "use another backbone, or mend the data."
            ) from None
        return cast("str", text)

    def _plain(self, messages: Sequence[Message]) -> str:
        turns = (PLAIN_ROLES.get(turn.role, "") + self._writer.neutral(turn.content) for turn in messages)
        return "\n\n".join(turns)

    def _encoded(self, texts: Iterable[str]) -> Iterator[list[int]]:
        """Token ids of whole texts; a template has written its special tokens already."""
        options: dict[str, Any] = {"return_attention_mask": False, "verbose": False}
        left = iter(texts)
        while some := list(islice(left, _AT_ONCE)):
            yield from self.tokenizer(some, add_special_tokens=not self.chat, **options)["input_ids"]

    def _lead(self, ids: Sequence[int]) -> int:
        """How many tokens at the start are no text."""
        return 1 if ids and ids[0] in self._leading else 0

    def _fitted(self, ids: list[int]) -> list[int]:
        over = len(ids) - self.max_length
        if over <= 0:
            return ids
        self.truncated += 1
        lead = self._lead(ids)
        return ids[:lead] + ids[lead + over :]

    def _joined(self, a: list[int], b: list[int]) -> EncodedPair:
        shared = shared_prefix(a, b)
        prefix, a, b = a[:shared], a[shared:], b[shared:]
        over = shared + max(len(a), len(b)) - self.max_length
        if over <= 0:
            return EncodedPair(prefix, a, b)
        self.truncated += sum(shared + len(branch) > self.max_length for branch in (a, b))
        lead = self._lead(prefix)
        if lead + over <= shared:
            return EncodedPair(prefix[:lead] + prefix[lead + over :], a, b)
        # A response is too long by itself: nothing is left of the prompt, and of the response its end.
        room = self.max_length - lead
        return EncodedPair(prefix[:lead], a[-room:], b[-room:])


def shared_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two conversations begin with alike, leaving each at least one."""
    low, high = 0, min(len(a), len(b)) - 1
    # By halves: slices are compared in C.
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[low:middle] == b[low:middle] else (low, middle - 1)
    return low
