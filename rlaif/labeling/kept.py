"""Load the model that settings name, and keep it loaded while one stage of work after another asks it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlaif.engines.base import Engine, EngineKind, ModelIdentity, answer_groups
from rlaif.engines.factory import make_engine
from rlaif.labeling.settings import EngineSettings
from rlaif.types import Completion, JudgeRequest


@dataclass(frozen=True)
class Placed:
    """A model, and where it runs."""

    kind: EngineKind
    model: ModelIdentity
    where: EngineSettings

    def load(self) -> Engine:
        """Load it, or connect to its server.

        Raises:
            InputError: as `make_engine`.
        """
        where = self.where
        return make_engine(
            self.kind,
            self.model,
            where.args,
            base_url=where.base_url,
            concurrency=where.concurrency,
            cluster=where.cluster,
        )


class Lent:
    """An engine whose owner frees it: it may be closed after each stage and is there for the next one."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.name, self.atomic_batch = engine.name, engine.atomic_batch
        self.details: Mapping[str, Any] = engine.details

    def complete(self, requests: Iterable[JudgeRequest]) -> Iterator[Completion]:
        """See `Engine`."""
        return self._engine.complete(requests)

    def complete_groups(self, groups: Iterable[Sequence[JudgeRequest]]) -> Iterator[list[Completion]]:
        """See `GroupEngine`."""
        return answer_groups(self._engine, groups)

    def close(self) -> None:
        """Leave it loaded."""


class OneModel:
    """Holds one loaded model: loads it when it is first asked for, frees it before another one is loaded."""

    def __init__(self) -> None:
        self._placed: Placed | None = None
        self._engine: Engine | None = None

    def engine(self, placed: Placed) -> Engine:
        """Return the engine of a model.

        Raises:
            InputError: as `make_engine`.
        """
        if self._engine is None or self._placed != placed:
            self.close()
            self._engine = placed.load()
            self._placed = placed
        return Lent(self._engine)

    def close(self) -> None:
        """Free the model that is loaded, if one is."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()
