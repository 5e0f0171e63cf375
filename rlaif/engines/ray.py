"""A judge in several replicas on a Ray cluster, whose answers come back to this one process.

Plain Ray actors, not Ray Data: a dataset is built from files or from lists that are held whole, not from an iterator
of this process that is drawn from as answers come (ray-project/ray#40513), and it asks a replica that cannot work
again without end. What is needed is small: each replica has two batches, and those of one that died go to another.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlaif.engines.base import Cluster, EngineKind, ModelIdentity
from rlaif.engines.ray_cluster import RayCluster
from rlaif.engines.replica import Fault, Loaded, Replica
from rlaif.errors import InputError, RunError
from rlaif.types import Completion, JudgeRequest
from rlaif.version import __version__

_log = logging.getLogger("rlaif")
# Of an engine that batches by itself this many requests are told together.
_STREAMED_TOGETHER = 32
# In a row, of one replica; and how often one batch may be lost with a replica.
_MOST_DEATHS = 3
_PATIENCE_S = 1800.0
# What must be the same on every machine, or its answers have other digits.
_SAME = ("dtype", "device", "max_model_len", "batch_tokens", "vllm", "rlaif")


@dataclass(eq=False)
class _Batch:
    requests: Sequence[JudgeRequest]
    lost: int = 0


@dataclass(eq=False)
class _Place:
    """One of the N replicas; the process that fills it may change."""

    number: int
    actor: Any = None
    loading: Any = None
    asked: dict[Any, _Batch] = field(default_factory=dict)
    deaths: int = 0

    @property
    def requests(self) -> int:
        return sum(len(batch.requests) for batch in self.asked.values())


class RayEngine:
    """Replicas that each load the model; a batch that one of them dies with is asked again of the next that is free.

    Engine arguments are those of the replica's engine, and `patience` (seconds without a replica, 1800).

    Raises:
        InputError: Ray is not installed, there is no room for so many replicas, or a replica cannot load the model.
        RunError: the cluster cannot be reached, or no replica comes up.
    """

    def __init__(self, kind: EngineKind, model: ModelIdentity, args: Mapping[str, str], cluster: Cluster) -> None:
        from rlaif.engines.factory import atomic_batch_of

        self.name: str = kind
        self.atomic_batch = atomic_batch_of(kind)
        own, self._patience_s = _split(kind, args)
        self._cluster = RayCluster(cluster, kind, own)
        share = self._cluster.share
        import ray

        self._ray = ray
        # A replica's working folder is not this one's.
        if model.folder is None and Path(model.name).is_dir():
            model = model.model_copy(update={"name": str(Path(model.name).absolute())})
        self._actor = ray.remote(
            num_cpus=share.cpus, num_gpus=share.gpus, max_restarts=0, max_task_retries=0, max_concurrency=1000
        )(Replica)
        self._given = (kind, model, own, share.threads)
        self._places = [_Place(number) for number in range(1, cluster.replicas + 1)]
        self._loaded: Loaded | None = None
        self._up_at = time.monotonic()
        self._lost: deque[_Batch] = deque()
        try:
            for place in self._places:
                self._start(place)
            while self._loaded is None:
                self._hear()
        except BaseException:
            self.close()
            raise
        self.details: Mapping[str, Any] = {
            **{name: value for name, value in self._loaded.details.items() if name != "rlaif"},
            "ray": ray.__version__,
            "replicas": cluster.replicas,
        }

    def complete(self, requests: Iterable[JudgeRequest]) -> Iterator[Completion]:
        """Answer requests in batches as the replicas get to them; see `Engine.complete`."""
        for answers in self.complete_groups(_split_up(requests, self.atomic_batch or _STREAMED_TOGETHER)):
            yield from answers

    def complete_groups(self, groups: Iterable[Sequence[JudgeRequest]]) -> Iterator[list[Completion]]:
        """Answer each group as one batch of one replica, in any order."""
        waiting = iter(groups)
        more = True
        while True:
            while (place := self._free()) is not None:
                if self._lost:
                    batch = self._lost.popleft()
                elif more and (group := next(waiting, None)) is not None:
                    if not group:
                        continue
                    batch = _Batch(group)
                else:
                    more = False
                    break
                place.asked[place.actor.answer.remote(batch.requests)] = batch
            if not more and not self._lost and not any(place.asked for place in self._places):
                return
            yield from self._hear()

    def _free(self) -> _Place | None:
        """The replica with least to do, if it has room: for one batch more than it works on, so that it never waits."""
        ready = [place for place in self._places if place.loading is None]
        least = min(ready, key=lambda place: place.requests, default=None)
        if least is None or self._loaded is None:
            return None
        window = self._loaded.window
        # Twice what it works on at once: a batch is told when its slowest request is done.
        full = len(least.asked) >= 2 if window is None else least.requests >= 2 * window
        return None if full else least

    def _start(self, place: _Place) -> None:
        place.actor = self._actor.remote(*self._given)
        place.loading = place.actor.loaded.remote()

    def _hear(self) -> list[list[Completion]]:
        """Wait for something to happen; return the answers that came.

        Raises:
            InputError, RunError: it is the end.
        """
        by_ref = {ref: place for place in self._places for ref in ([place.loading] if place.loading else place.asked)}
        heard, _ = self._ray.wait(list(by_ref), num_returns=1, timeout=1.0)
        answers: list[list[Completion]] = []
        for ref in heard:
            place = by_ref[ref]
            if ref is not place.loading and ref not in place.asked:
                # Lost with its replica a moment ago.
                continue
            try:
                value = self._ray.get(ref)
            except self._ray.exceptions.RayError as error:
                value = Fault("broken", _fact(error))
            if isinstance(value, Fault):
                self._failed(place, value)
            elif ref is place.loading:
                self._check(value)
                place.loading = None
            else:
                del place.asked[ref]
                place.deaths = 0
                answers.append(value)
        self._mind_the_time()
        return answers

    def _mind_the_time(self) -> None:
        now = time.monotonic()
        if any(place.loading is None for place in self._places):
            self._up_at = now
        elif now - self._up_at > self._patience_s:
            raise RunError(
                f"no replica came up in {self._patience_s:,.0f} s: none could be placed, or the model takes longer to "
                "load; see ray status, or give --engine-arg patience=SECONDS."
            )

    def _check(self, loaded: Loaded) -> None:
        """Refuse a replica whose answers would have other digits than the first one's."""
        first = self._loaded = self._loaded or loaded
        for name in _SAME:
            one, other = first.details.get(name), loaded.details.get(name)
            if one != other:
                fix = "use machines that are alike"
                fix += f", or --engine-arg {name}={one}" if name in ("dtype", "device", "batch_tokens") else ""
                raise RunError(f"the replicas differ in {name}, {one} and {other}, and so would their labels; {fix}.")
        if loaded.details.get("rlaif") != __version__:
            raise RunError(f"the cluster has rlaif {loaded.details.get('rlaif')}, and here is {__version__}.")

    def _failed(self, place: _Place, fault: Fault) -> None:
        if fault.kind != "broken":
            raise (InputError if fault.kind == "input" else RunError)(fault.text)
        lost = list(place.asked.values())
        place.asked.clear()
        place.deaths += 1
        self._ray.kill(place.actor)
        for batch in lost:
            batch.lost += 1
        if place.deaths >= _MOST_DEATHS or any(batch.lost > _MOST_DEATHS for batch in lost):
            doing = "answering" if lost else "loading the model"
            raise RunError(
                f"a replica ended again and again while {doing} ({fault.text}); is there memory for "
                f"{len(self._places)} of them? See ray logs, or use fewer --replicas."
            )
        _log.warning("Note: replica %d ended (%s); it is started again.", place.number, fault.text)
        self._lost.extendleft(reversed(lost))
        self._start(place)

    def close(self) -> None:
        """End the replicas, and the cluster where it was started here."""
        for place in self._places:
            if place.actor is not None:
                self._ray.kill(place.actor)
        self._cluster.close()


def _split(kind: EngineKind, args: Mapping[str, str]) -> tuple[dict[str, str], float]:
    """Part the replica's engine arguments from those of this engine, and refuse what is not known before Ray starts."""
    own = dict(args)
    text = own.pop("patience", str(_PATIENCE_S))
    own.pop("engine", None)
    try:
        patience = float(text)
    except ValueError:
        raise InputError(f"--engine-arg patience={text}: expected a number of seconds.") from None
    if kind == "transformers":
        from rlaif.engines.transformers import KNOWN_ARGS

        unknown = sorted(own.keys() - set(KNOWN_ARGS))
        if unknown:
            known = ", ".join((*KNOWN_ARGS, "engine", "patience"))
            raise InputError(
                f"--engine-arg {', '.join(unknown)}: not an option of transformers, which the replicas run; "
                f"known are {known}."
            )
    return own, patience


def _split_up(requests: Iterable[JudgeRequest], size: int) -> Iterator[list[JudgeRequest]]:
    group: list[JudgeRequest] = []
    for request in requests:
        group.append(request)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _fact(error: Exception) -> str:
    """The cause in what Ray says of a dead actor."""
    text = str(error)
    for marker in ("Worker exit detail:", "The actor is dead because"):
        if marker in text:
            text = text.partition(marker)[2]
            break
    return " ".join(text.split())[:200].partition(". ")[0].rstrip(".")
