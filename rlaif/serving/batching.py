"""The queue and the one thread that owns the model: what comes within milliseconds is scored together."""

from __future__ import annotations

import math
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rlaif.engines.chat import RefusedMessages
from rlaif.errors import RlaifError
from rlaif.types import Message, TagValue

if TYPE_CHECKING:
    from rlaif.rewards.heads import Reward, RewardHeads
    from rlaif.serving.metrics import Metrics

# Guessed until the first batch was encoded.
_TOKENS_PER_CHARACTER = 0.3
# How much a new batch counts in what is known of speed and length.
_FRESH = 0.2
_LONGEST_RETRY_S = 60
# So many requests one after the other that the model fails on are no accident.
_BROKEN_AFTER = 3


@dataclass(frozen=True)
class Work:
    """What a request asks for: a prompt, a response and tags at each place.

    `groups` numbers the prompts: responses of one number are ranked among each other.
    """

    prompts: Sequence[tuple[Message, ...]]
    responses: Sequence[str]
    groups: Sequence[int]
    tags: Sequence[Mapping[str, TagValue]]

    def __len__(self) -> int:
        return len(self.responses)

    @property
    def characters(self) -> int:
        """Length of all conversations."""
        prompts = dict(zip(self.groups, self.prompts, strict=True))
        length = {group: sum(len(turn.content) for turn in prompt) for group, prompt in prompts.items()}
        return sum(length[group] + len(text) for group, text in zip(self.groups, self.responses, strict=True))


@dataclass(frozen=True)
class Scored:
    """The rewards of a request's responses, in its order, and how many tokens their conversations have."""

    rewards: Sequence[Reward]
    tokens: int


class Refused(Exception):
    """A conversation that the heads cannot take, whoever asks."""


class Failed(Exception):
    """The model did not give scores; asked again it may."""


class Full(Exception):
    """No room to wait; `retry_after` is in whole seconds."""

    def __init__(self, waiting: int, retry_after: int) -> None:
        super().__init__(f"{waiting:,} responses wait already; ask again in {retry_after} s, or more slowly")
        self.retry_after = retry_after


class Stopping(Exception):
    """The server ends and takes nothing new."""


@dataclass(eq=False)
class Ticket:
    """A request's place in the queue."""

    work: Work
    characters: int
    arrived: float
    answer: Future[Scored] = field(default_factory=Future)


class Batcher:
    """Puts requests together and scores them.

    Args:
        batch_tokens: requests are joined up to so many tokens, padding counted; a longer request makes its own batches.
        max_wait: seconds that a request waits for others at most, while the model has nothing to do.
        max_queue: most responses that wait; what was begun does not count.
    """

    def __init__(
        self,
        heads: RewardHeads,
        metrics: Metrics,
        *,
        batch_tokens: int | None = None,
        max_wait: float = 0.005,
        max_queue: int = 4096,
    ) -> None:
        self._heads, self._metrics = heads, metrics
        self._budget = batch_tokens or heads.batch_tokens
        self._max_wait, self._max_queue = max_wait, max_queue
        self._changed = threading.Condition()
        self._queue: deque[Ticket] = deque()
        self._waiting = 0
        self._begun = 0
        self._draining = self._stopped = False
        self._rate = 0.0  # responses a second
        self._per_character = _TOKENS_PER_CHARACTER
        self._failures = 0
        self._thread = threading.Thread(target=self._run, name="rlaif-model", daemon=True)
        metrics.watch_queue(lambda: self._waiting)

    def start(self) -> None:
        """Begin to score."""
        self._thread.start()

    @property
    def draining(self) -> bool:
        """Whether nothing new is taken."""
        return self._draining

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is being scored."""
        return not self._waiting and not self._begun

    @property
    def broken(self) -> bool:
        """Whether the model failed on several requests in a row, so that a new process may be better."""
        return self._failures >= _BROKEN_AFTER or not self._thread.is_alive()

    def submit(self, work: Work) -> Ticket:
        """Queue a request; its answer comes in `Ticket.answer`.

        Raises:
            Full: too much waits; never for a request that could wait alone.
            Stopping: `drain` or `stop` was called.
        """
        ticket = Ticket(work, work.characters, time.monotonic())
        with self._changed:
            if self._draining:
                raise Stopping("the server is stopping; ask another one, or this one later")
            if self._waiting and self._waiting + len(work) > self._max_queue:
                raise Full(self._waiting, self._retry_after())
            self._queue.append(ticket)
            self._waiting += len(work)
            self._changed.notify()
        return ticket

    def withdraw(self, ticket: Ticket) -> None:
        """Drop a request that nobody waits for any more, unless it was begun."""
        with self._changed:
            if ticket not in self._queue:
                return
            self._queue.remove(ticket)
            self._waiting -= len(ticket.work)
        ticket.answer.cancel()
        self._metrics.dropped()

    def drain(self) -> None:
        """Take nothing new, and go on with what waits."""
        with self._changed:
            self._draining = True
            self._changed.notify()

    def stop(self, patience: float = 1.0) -> int:
        """End: what waits fails. Returns how many requests that are.

        Args:
            patience: seconds to wait for the batch that is being scored.
        """
        with self._changed:
            self._draining = self._stopped = True
            left = list(self._queue)
            self._queue.clear()
            self._waiting = 0
            self._changed.notify()
        for ticket in left:
            if ticket.answer.set_running_or_notify_cancel():
                ticket.answer.set_exception(Failed("the server stopped before this was scored; ask again"))
        if self._thread.is_alive():
            self._thread.join(patience)
        return len(left)

    def _retry_after(self) -> int:
        """Seconds until what waits now is done, by the speed of the last batches."""
        seconds = self._waiting / self._rate if self._rate else 1.0
        return max(1, min(_LONGEST_RETRY_S, math.ceil(seconds)))

    def _run(self) -> None:
        while batch := self._next():
            self._score(batch)
            with self._changed:
                self._begun = 0

    def _next(self) -> list[Ticket]:
        """The next requests to score together; none at the end."""
        batch: list[Ticket] = []
        with self._changed:
            while not batch:
                while not self._queue:
                    if self._stopped:
                        return []
                    self._changed.wait()
                self._wait_for_more(self._queue[0].arrived + self._max_wait)
                tokens = 0.0
                while self._queue:
                    tokens += self._queue[0].characters * self._per_character
                    if batch and tokens > self._budget:
                        break
                    ticket = self._queue.popleft()
                    self._waiting -= len(ticket.work)
                    # From here on it cannot be cancelled.
                    if ticket.answer.set_running_or_notify_cancel():
                        batch.append(ticket)
            self._begun = len(batch)
        return batch

    def _wait_for_more(self, until: float) -> None:
        while self._queue and not self._draining and self._expected() < self._budget:
            left = until - time.monotonic()
            if left <= 0:
                return
            self._changed.wait(left)

    def _expected(self) -> float:
        """About how many tokens wait."""
        total = 0.0
        for ticket in self._queue:
            total += ticket.characters * self._per_character
            if total >= self._budget:
                break
        return total

    def _score(self, batch: list[Ticket]) -> None:
        """Answer every request of a batch; where that fails, in halves, so that one bad request spoils no other."""
        fault: Exception | None = None
        scored: list[Scored] = []
        try:
            scored = self._scored([ticket.work for ticket in batch])
        except Exception as error:
            fault = error
        if fault is None:
            self._failures = 0
            for ticket, answer in zip(batch, scored, strict=True):
                ticket.answer.set_result(answer)
            return
        if not isinstance(fault, RefusedMessages):
            self._metrics.failed()
        if len(batch) == 1:
            batch[0].answer.set_exception(self._failure(fault))
            return
        middle = len(batch) // 2
        self._score(batch[:middle])
        self._score(batch[middle:])

    def _scored(self, works: Sequence[Work]) -> list[Scored]:
        prompts = [prompt for work in works for prompt in work.prompts]
        responses = [response for work in works for response in work.responses]
        tags = [tag for work in works for tag in work.tags]
        # Responses are ranked within their request alone.
        numbers: dict[tuple[int, int], int] = {}
        groups = [
            numbers.setdefault((place, group), len(numbers))
            for place, work in enumerate(works)
            for group in work.groups
        ]
        started = time.monotonic()
        raw = self._heads.raw(prompts, responses, batch_tokens=self._budget)
        rewards = self._heads.rewards(prompts, raw, tags=tags, groups=groups)
        self._learn(len(responses), sum(raw.lengths), sum(work.characters for work in works), started)
        self._metrics.scored(len(responses), sum(raw.lengths), raw.truncated)
        found, begin = [], 0
        for work in works:
            end = begin + len(work)
            found.append(Scored(rewards[begin:end], sum(raw.lengths[begin:end])))
            begin = end
        return found

    def _learn(self, responses: int, tokens: int, characters: int, started: float) -> None:
        """How fast the model is, and how long its tokens are."""
        rate = responses / max(time.monotonic() - started, 1e-6)
        self._rate = rate if not self._rate else (1 - _FRESH) * self._rate + _FRESH * rate
        if characters:
            self._per_character = (1 - _FRESH) * self._per_character + _FRESH * tokens / characters

    def _failure(self, error: Exception) -> Exception:
        if isinstance(error, RefusedMessages):
            return Refused(str(error))
        self._failures += 1
        if isinstance(error, RlaifError):
            sys.stderr.write(f"Error: {error}\n")
            return Failed(f"the model gave no scores: {error}")
        # Where it went wrong is for those who run the server; who asked learns that it did.
        traceback.print_exception(error, file=sys.stderr)
        return Failed("the model failed on this request; ask again later")
