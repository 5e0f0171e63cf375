"""One replica of a judge: an engine in a process of its own, on whatever machine of a Ray cluster."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal

from rlaif.engines.base import Engine, EngineKind, ModelIdentity
from rlaif.engines.factory import make_engine, resolve_model
from rlaif.errors import InputError, RlaifError
from rlaif.types import Completion, JudgeRequest
from rlaif.version import __version__


@dataclass(frozen=True)
class Fault:
    """Why a replica has no answer; an exception would come out of Ray as a traceback.

    `input` and `run` are what the engine itself says, and end the run. After `broken` another process may do better.
    """

    kind: Literal["input", "run", "broken"]
    text: str


@dataclass(frozen=True)
class Loaded:
    """A replica that is ready; `window` is how many requests keep its engine busy, where batches are its own affair."""

    details: Mapping[str, Any]
    window: int | None


@dataclass
class _Batch:
    """Requests that are answered, and told, together."""

    requests: Sequence[JudgeRequest]
    future: Future[list[Completion] | Fault] = field(default_factory=Future)
    answers: list[Completion] = field(default_factory=list)


class Replica:
    """Loads the engine, then answers batches in the order in which they come.

    An engine that batches by itself goes on from one batch to the next without running dry in between; any other is
    given one batch at a time, as in a single process.

    Args:
        threads: of the processor's, for torch.
    """

    def __init__(self, kind: EngineKind, model: ModelIdentity, args: Mapping[str, str], threads: int) -> None:
        self._threads = threads
        self._queue: queue.SimpleQueue[_Batch] = queue.SimpleQueue()
        self._engine: Engine | None = None
        self._state = self._load(kind, model, args)
        if self._engine is not None:
            threading.Thread(target=self._work, args=(self._engine,), daemon=True).start()

    async def loaded(self) -> Loaded | Fault:
        """Tell what was loaded, or why nothing was."""
        return self._state

    async def answer(self, requests: Sequence[JudgeRequest]) -> list[Completion] | Fault:
        """Answer a batch, in any order."""
        batch = _Batch(requests)
        self._queue.put(batch)
        return await asyncio.wrap_future(batch.future)

    def _load(self, kind: EngineKind, model: ModelIdentity, args: Mapping[str, str]) -> Loaded | Fault:
        try:
            self._set_threads()
            here = self._found_here(kind, model, args)
            self._engine = engine = make_engine(kind, here, args)
        except Exception as error:
            return _fault(error)
        window = None if engine.atomic_batch else int(getattr(engine, "window", 256))
        return Loaded(details={**engine.details, "rlaif": __version__}, window=window)

    @staticmethod
    def _found_here(kind: EngineKind, model: ModelIdentity, args: Mapping[str, str]) -> ModelIdentity:
        """The model as this machine has it.

        Raises:
            InputError: it has none, or another one under this name.
        """
        from rlaif.engines.ray_cluster import this_machine

        try:
            _, here = resolve_model(model.name, kind, None, args)
        except InputError as error:
            fix = "Every machine of the cluster needs the judge at the same path (a shared file system, or a hub id)."
            raise InputError(f"{this_machine()}: {str(error).rstrip('.')}. {fix}") from None
        # A hub id is fingerprinted by what is in the cache, which a machine that never loaded it does not have.
        local = here.folder is not None or here.source.startswith(("/", ".", "~"))
        if local and here.digest != model.digest:
            raise InputError(f"{this_machine()}: {model.name} holds other files there than here; copy the same ones.")
        return here

    def _set_threads(self) -> None:
        import torch

        torch.set_num_threads(self._threads)

    def _work(self, engine: Engine) -> None:
        # Each thread has its own number of threads.
        self._set_threads()
        while True:
            waiting: dict[str, _Batch] = {}
            given = self._given(engine, self._queue.get(), waiting)
            try:
                for completion in engine.complete(given):
                    batch = waiting.pop(completion.key)
                    batch.answers.append(completion)
                    if len(batch.answers) == len(batch.requests):
                        batch.future.set_result(batch.answers)
                if waiting:
                    raise RuntimeError(f"{len(waiting)} requests were not answered")
            except Exception as error:
                for batch in {id(batch): batch for batch in waiting.values()}.values():
                    batch.future.set_result(_fault(error))

    def _given(self, engine: Engine, first: _Batch, waiting: dict[str, _Batch]) -> Iterator[JudgeRequest]:
        batch: _Batch | None = first
        while batch is not None:
            waiting.update(dict.fromkeys((request.key for request in batch.requests), batch))
            yield from batch.requests
            batch = None
            if engine.atomic_batch is None:
                try:
                    batch = self._queue.get_nowait()
                except queue.Empty:
                    return


def _fault(error: Exception) -> Fault:
    if isinstance(error, RlaifError):
        return Fault("input" if isinstance(error, InputError) else "run", str(error))
    return Fault("broken", " ".join(f"{type(error).__name__}: {error}".split())[:300])
