"""Count requests and their tokens without asking them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rlaif.engines.chat import ChatTokenizer
from rlaif.engines.logprobs import longer_choices
from rlaif.labeling.plan import Planner
from rlaif.prompts import Template
from rlaif.store import Ledger
from rlaif.types import Frozen, Pair

_COUNTED_EXACTLY = 2_000
_CHARS_PER_TOKEN = 4.0


class Counted(Frozen):
    """Requests, and tokens of those that are to be asked; see `DryRun`."""

    requests: int
    answered: int
    to_ask: int
    prompt_tokens: int
    most_new_tokens: int
    tokens_exact: bool


class StagePlan(Frozen):
    """What one stage of a cascade would be asked: of the `sample`, and of `all` pairs should all come to it."""

    name: str
    sample: Counted
    all: Counted


class CascadePlan(Frozen):
    """What a cascade would ask: of `sample` pairs in every stage, and at the `least`, where one stage decides all."""

    sample: int
    least: Counted
    stages: tuple[StagePlan, ...]


def added(counted: Iterable[Counted]) -> Counted:
    """All of them together."""
    every = list(counted)
    return Counted(
        requests=sum(one.requests for one in every),
        answered=sum(one.answered for one in every),
        to_ask=sum(one.to_ask for one in every),
        prompt_tokens=sum(one.prompt_tokens for one in every),
        most_new_tokens=sum(one.most_new_tokens for one in every),
        tokens_exact=all(one.tokens_exact for one in every),
    )


class Count:
    """Counts what a planner asks of a template; the first requests are counted in tokens, the others projected.

    Args:
        chat: the judge's tokenizer; without one all tokens are projected from the text's length.
    """

    def __init__(self, planner: Planner, template: Template, chat: ChatTokenizer | None) -> None:
        self._planner, self._head, self._chat = planner, template.head, chat
        self._requests = self._to_ask = self._chars = self._counted = self._counted_chars = self._tokens = 0

    def add(self, pairs: Sequence[Pair], ledger: Ledger | None) -> None:
        """Count the requests of these pairs; those that the ledger answers are not to be asked."""
        asked = [request for pair in pairs for request in self._planner.requests(pair)]
        self._requests += len(asked)
        if ledger is not None:
            missing = ledger.missing([request.key for request in asked])
            asked = [request for request in asked if request.key in missing]
        self._to_ask += len(asked)
        lengths = [sum(len(turn.content) for turn in request.messages) for request in asked]
        self._chars += sum(lengths)
        if self._chat is not None and self._counted < _COUNTED_EXACTLY:
            texts = [self._chat.request_text(request) for request in asked]
            self._tokens += sum(map(len, self._chat.encode(texts)))
            self._counted, self._counted_chars = self._counted + len(asked), self._counted_chars + sum(lengths)

    def counted(self, max_tokens: int) -> Counted:
        """What was counted, with rationales of at most `max_tokens`."""
        # A choice that longer ones begin with may take a second token to read.
        most_each = (max_tokens if self._head.rationale else 0) + 1 + len(longer_choices(self._head.choices))
        exact = self._chat is not None and self._counted == self._to_ask
        rate = self._tokens / self._counted_chars if self._counted_chars else 1 / _CHARS_PER_TOKEN
        return Counted(
            requests=self._requests,
            answered=self._requests - self._to_ask,
            to_ask=self._to_ask,
            prompt_tokens=self._tokens if exact else round(self._chars * rate),
            most_new_tokens=self._to_ask * most_each,
            tokens_exact=exact,
        )
