"""Ask what has no answer yet, and put each answer in the ledger."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

from rlaif.engines.base import Engine, answer_groups
from rlaif.errors import Interrupted
from rlaif.store import Ledger
from rlaif.types import Completion, JudgeRequest, Reading

_PLANNED_AT_ONCE = 384
_COMMIT_ANSWERS, _COMMIT_S = 512, 0.5
_T = TypeVar("_T")


@dataclass
class Tally:
    """What one session of a run did.

    `total` is how many questions there are, where that is known; `per_row` how many a row gives rise to.
    """

    total: int | None = None
    per_row: int = 1
    planned: int = 0
    to_ask: int = 0
    asked: int = 0
    abstained: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    started: float = field(default_factory=time.monotonic)

    @property
    def reused(self) -> int:
        """Questions that already had an answer."""
        return self.planned - self.to_ask

    @property
    def answered(self) -> int:
        """Questions of the plan so far that have an answer by now."""
        return self.planned - self.to_ask + self.asked

    @property
    def seconds(self) -> float:
        """Seconds since the session began, the loading of the model left out."""
        return time.monotonic() - self.started


class Watcher(Protocol):
    """Sees the tally change: a progress display, or nothing."""

    def __call__(self, tally: Tally) -> None: ...


def chunks(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Split into lists of `size`; the last may be shorter."""
    iterator = iter(items)
    while part := list(islice(iterator, size)):
        yield part


class Asker:
    """Runs a plan against an engine, committing as answers come.

    Args:
        ledger: where answers go.
        read: what a completion says (`None` for a policy's text).
        make_engine: called only when something is left to ask.
        atomic_batch: see `Engine.atomic_batch`.
        rows, per_row: how many rows the plan covers, where known, and the requests of each.
        planned: whether these questions are those of the labels; else their answers are kept all the same.
    """

    def __init__(
        self,
        ledger: Ledger,
        read: Callable[[Completion], Reading | None],
        make_engine: Callable[[], Engine],
        atomic_batch: int | None,
        watch: Watcher | None = None,
        *,
        rows: int | None = None,
        per_row: int = 1,
        planned: bool = True,
    ) -> None:
        self._ledger, self._read, self._planned = ledger, read, planned
        self._watch: Watcher = watch or (lambda tally: None)
        self._make_engine, self._atomic_batch = make_engine, atomic_batch
        self._in_flight: set[str] = set()
        self.tally = Tally(total=None if rows is None else rows * per_row, per_row=per_row)
        self.details: Mapping[str, Any] = {}

    def run(self, requests: Iterable[JudgeRequest]) -> None:
        """Ask every request that has no answer.

        Raises:
            Interrupted: Ctrl-C.
            RunError: the engine or the disk gave up. Either way what was answered is kept.
        """
        engine: Engine | None = None
        groups = self._groups(requests)
        try:
            first = next(groups, None)
            if first is not None:
                engine = self._make_engine()
                self.tally.started = time.monotonic()
                ask = self._ask_atomically if self._atomic_batch else self._ask_streaming
                ask(engine, chain([first], groups))
            self._ledger.commit()
        except KeyboardInterrupt:
            raise Interrupted("interrupted") from None
        finally:
            if engine is not None:
                self.details = engine.details
                engine.close()

    def _groups(self, requests: Iterable[JudgeRequest]) -> Iterator[list[JudgeRequest]]:
        """Plan chunk by chunk; yield of each what must be asked, if anything."""
        for planned in chunks(requests, self._atomic_batch or _PLANNED_AT_ONCE):
            unanswered = self._ledger.plan(planned) if self._planned else self._ledger.missing([r.key for r in planned])
            missing = unanswered - self._in_flight
            self.tally.planned += len(planned)
            unique = {request.key: request for request in planned if request.key in missing}
            if unique:
                self._in_flight.update(unique)
                self.tally.to_ask += len(unique)
                yield list(unique.values())
            else:
                self._watch(self.tally)

    def _ask_atomically(self, engine: Engine, groups: Iterable[list[JudgeRequest]]) -> None:
        # A group is formed from the plan alone and committed whole, so a continued run forms the same batches.
        for answers in answer_groups(engine, groups):
            self._commit(answers)

    def _ask_streaming(self, engine: Engine, groups: Iterable[list[JudgeRequest]]) -> None:
        buffer: list[Completion] = []
        last = time.monotonic()
        try:
            for completion in engine.complete(request for group in groups for request in group):
                buffer.append(completion)
                if len(buffer) >= _COMMIT_ANSWERS or time.monotonic() - last > _COMMIT_S:
                    ready, buffer = buffer, []
                    self._commit(ready)
                    last = time.monotonic()
        finally:
            self._commit(buffer)

    def _commit(self, completions: Sequence[Completion]) -> None:
        answered = [(completion, self._read(completion)) for completion in completions]
        self._ledger.put(answered)
        tally = self.tally
        for completion, reading in answered:
            self._in_flight.discard(completion.key)
            tally.asked += 1
            tally.abstained += completion.error is not None or (reading is not None and reading.abstained)
            tally.prompt_tokens += completion.usage.prompt_tokens
            tally.completion_tokens += completion.usage.completion_tokens
        self._watch(tally)


@contextmanager
def telling_what_is_kept(out: Path) -> Iterator[None]:
    """Tell on Ctrl-C that the answers so far are kept."""
    try:
        yield
    except Interrupted:
        raise Interrupted(
            f"interrupted; answers so far are kept in {out}. Give the same command to continue."
        ) from None
