"""Texts that a policy's chat template has written, read back into messages.

OpenRLHF asks for the reward of a whole text: prompt and response as the policy's tokenizer wrote them, special tokens
included. The heads have a template of their own, so the messages have to be found again. What the template puts around
a turn is learnt by rendering marked conversations with it, and what was found counts only if rendering it gives the
prompt again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rlaif.types import Message, Role

_MARKS = ("rlaifprobezero", "rlaifprobeone", "rlaifprobetwo")
# What only a chat template writes, of any family.
_RENDERED = re.compile(r"<\|[\w ]{2,40}\|>|\[/?INST\]|<(?:start|end)_of_turn>|<｜")


@dataclass(frozen=True)
class _Around:
    """What a template writes around turns."""

    head: str  # before the first user turn
    system_head: str
    system_end: str  # between a system turn and the first user turn
    reply: str  # between a user turn and the assistant's
    next: str  # between an assistant turn and the next user turn
    ask: str  # after the last user turn, where the assistant's begins


class QueryReader:
    """Splits a query into the conversation before the response, and the response.

    Args:
        tokenizer: of the policy; any tokenizer of transformers.
        name: of the policy, for errors.
    """

    def __init__(self, tokenizer: Any, name: str) -> None:
        self._tokenizer, self._name = tokenizer, name
        self._special = sorted(
            {token for token in tokenizer.all_special_tokens if token.strip()}, key=len, reverse=True
        )
        self._lead = [token for token in (tokenizer.bos_token, tokenizer.pad_token) if token]
        self._around = self._learn() if getattr(tokenizer, "chat_template", None) else None

    def split(self, query: str, prompt: str | None) -> tuple[tuple[Message, ...], str]:
        """The conversation and the response.

        A prompt that no template has written is a user's turn. Special tokens at the beginning of both texts and at the
        end of the query are left out.

        Args:
            prompt: with which the query begins; `None` where the response begins after the last turn of the template.

        Raises:
            ValueError: the query does not begin with the prompt, or was written by another template.
        """
        query = self._without_lead(query)
        if prompt is None:
            ask = self._around.ask if self._around is not None else ""
            place = query.rfind(ask) if ask else -1
            if place < 0:
                raise ValueError(f"has no assistant's turn as {self._name} writes it; send prompts too")
            end = place + len(ask)
            return self.messages(query[:end]), self._without_tail(query[end:])
        prompt = self._without_lead(prompt)
        found = _end_of(prompt, query)
        if found is None:
            raise ValueError("does not begin with its prompt")
        return self.messages(prompt), self._without_tail(query[found:])

    def messages(self, prompt: str) -> tuple[Message, ...]:
        """The messages of a prompt.

        Raises:
            ValueError: another template has written it.
        """
        for turns in self._candidates(prompt):
            if turns and self._rendered(turns).split() == prompt.split():
                return turns
        if _RENDERED.search(prompt) or any(token in prompt for token in self._special):
            raise ValueError(
                f"was not written by the chat template of {self._name}; serve with --policy and the policy's tokenizer"
            )
        if not prompt.strip():
            raise ValueError("has an empty prompt")
        return (Message(role="user", content=prompt),)

    def _learn(self) -> _Around | None:
        zero, one, two = _MARKS
        try:
            first = self._raw([("user", zero)])
            several = self._raw([("user", zero), ("assistant", one), ("user", two)])
        except Exception:
            # Templates raise errors of their own; such a one writes no conversation to read back.
            return None
        try:
            system = self._raw([("system", zero), ("user", one)])
        except Exception:
            system = ""
        # A template may leave a turn out, or write it twice.
        if first.count(zero) != 1 or any(several.count(mark) != 1 for mark in _MARKS):
            return None
        head, _, ask = first.partition(zero)
        _, _, rest = several.partition(zero)
        reply, _, rest = rest.partition(one)
        after, _, _ = rest.partition(two)
        system_head = system_end = ""
        if system.count(zero) == 1 and system.count(one) == 1 and system.index(zero) < system.index(one):
            system_head, _, rest = system.partition(zero)
            system_end = rest.partition(one)[0]
        return _Around(head, system_head, system_end, reply, after, ask)

    def _candidates(self, prompt: str) -> Iterator[tuple[Message, ...]]:
        """What the prompt may have been written from, the likelier first."""
        around = self._around
        if around is None:
            return
        # A template may write a system turn that nobody gave it.
        given = not around.head.startswith(around.system_head)
        # White space at the edges of a text may be lost on its way through a tokenizer.
        for text, ask in ((prompt, around.ask), (prompt.strip(), around.ask.strip())):
            if ask and text.endswith(ask):
                body = text[: -len(ask)]
                found = [self._with_system(body), self._without_system(body)]
                yield from found if given else reversed(found)

    def _with_system(self, text: str) -> tuple[Message, ...]:
        around = self._around
        assert around is not None
        head = self._without_lead(around.system_head)
        if not around.system_end or not text.startswith(head):
            return ()
        system, end, rest = text.removeprefix(head).partition(around.system_end)
        return self._turns(rest, [Message(role="system", content=system)]) if end else ()

    def _without_system(self, text: str) -> tuple[Message, ...]:
        around = self._around
        assert around is not None
        for head in (around.head, around.head.strip()):
            if text.startswith(bare := self._without_lead(head)):
                return self._turns(text.removeprefix(bare), [])
        return ()

    def _turns(self, text: str, turns: list[Message]) -> tuple[Message, ...]:
        around = self._around
        assert around is not None
        roles: tuple[Role, Role] = ("user", "assistant")
        for number in range(len(text) + 1):
            between = (around.reply, around.next)[number % 2]
            content, end, text = text.partition(between) if between else (text, "", "")
            turns.append(Message(role=roles[number % 2], content=content))
            if not end:
                break
        return tuple(turns) if turns[-1].role == "user" else ()

    def _rendered(self, turns: Sequence[Message]) -> str:
        try:
            return self._without_lead(self._raw([(turn.role, turn.content) for turn in turns]))
        except Exception:
            return ""

    def _raw(self, turns: Sequence[tuple[str, str]]) -> str:
        messages = [{"role": role, "content": content} for role, content in turns]
        return str(self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    def _without_lead(self, text: str) -> str:
        """The text without what a tokenizer puts first, and what pads it on the left."""
        while token := next((token for token in self._lead if text.startswith(token)), None):
            text = text.removeprefix(token)
        return text

    def _without_tail(self, text: str) -> str:
        """The text without special tokens at its end, and the white space between them."""
        while True:
            bare = text.rstrip()
            found = next((token for token in self._special if bare.endswith(token)), None)
            if found is None:
                return text
            text = bare.removesuffix(found)


def _end_of(prompt: str, query: str) -> int | None:
    """Where the response begins; a tokenizer may have changed the white space of the prompt on its way."""
    if query.startswith(prompt):
        return len(prompt)
    place = 0
    for sign in prompt:
        if sign.isspace():
            continue
        while place < len(query) and query[place].isspace():
            place += 1
        if place == len(query) or query[place] != sign:
            return None
        place += 1
    if prompt[-1:].isspace():
        while place < len(query) and query[place].isspace():
            place += 1
    return place
