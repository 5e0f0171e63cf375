"""Serve heads until told to stop: bind, load, answer, drain."""

from __future__ import annotations

import contextlib
import errno
import resource
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from rlaif.engines.chat import ChatTokenizer, RefusedMessages
from rlaif.errors import InputError, RunError
from rlaif.rewards.score import load_heads
from rlaif.serving.app import Service, make_app
from rlaif.serving.batching import Batcher
from rlaif.serving.metrics import Metrics
from rlaif.serving.queries import QueryReader
from rlaif.serving.settings import Served, ServeSettings, ServeSummary, is_loopback
from rlaif.serving.shapes import Shapes
from rlaif.starter import STARTER, checkpoint
from rlaif.web import server_config

if TYPE_CHECKING:
    from rlaif.rewards.heads import RewardHeads

# Clients that keep connections must not find them closed between two steps of a training.
_KEEP_ALIVE_S = 75
# For answers that are done but still being sent at the end.
_LAST_WORDS_S = 5
_FILES = 65_536
# Python's own 5 ms are longer than most of the model's operations.
_SWITCH_S = 1e-4


def serve(settings: ServeSettings, opened: Callable[[Served], None]) -> ServeSummary:
    """Answer requests until SIGTERM or Ctrl-C, and then what was asked before, as far as the grace goes.

    Args:
        opened: told what is served once it can be asked.

    Raises:
        InputError: bad heads or options, an address that is in use, or one that others can reach without a token.
        RunError: the model does not run.
    """
    listener = _bind(settings)
    with listener:
        heads = load_heads(settings.heads, settings.device, settings.weights, settings.precision)
        metrics = Metrics()
        batcher = Batcher(
            heads,
            metrics,
            batch_tokens=settings.batch_tokens,
            max_wait=settings.max_wait_ms / 1000,
            max_queue=settings.max_queue,
        )
        name = _name(settings.heads)
        most = min(settings.max_responses, settings.max_queue)
        service = Service(
            model=name,
            spec=heads.spec,
            batcher=batcher,
            metrics=metrics,
            shapes=Shapes(name, heads.spec.objectives, most, _queries(heads, settings.policy)),
            max_body=settings.max_body,
            token=settings.token,
            created=int(time.time()),
        )
        _warm_up(heads)
        host, port = listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        what = Served(
            url=f"http://{shown}:{port}",
            model=name,
            objectives=heads.spec.objectives,
            token=settings.token is not None,
        )
        return _until_told(service, listener, settings.grace, lambda: opened(what))


def _bind(settings: ServeSettings) -> socket.socket:
    """Take the address, without answering yet."""
    host, port = settings.host, settings.port
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        fact = getattr(error, "strerror", None) or "no name of a machine"
        raise InputError(
            f"--host {host[:80]}: no address ({fact}); give one of this machine's, as 127.0.0.1."
        ) from None
    family, kind, protocol, _, address = found[0]
    if settings.token is None and not is_loopback(str(address[0])):
        raise InputError(
            f"--host {host}: others can reach it, and there is no token; give --token-file or RLAIF_TOKEN, "
            "or serve on 127.0.0.1."
        )
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise InputError(
                f"--port {port}: in use by another program; choose another, or 0 for any free one."
            ) from None
        raise InputError(f"--host {host} --port {port}: not to be had ({error.strerror}); choose another.") from None
    return listener


def _name(heads: str) -> str:
    folder = Path(heads)
    return folder.resolve().name if folder.exists() else heads


def _queries(heads: RewardHeads, policy: str | None) -> QueryReader:
    if policy is None:
        return QueryReader(heads.backbone.encoder.tokenizer, "the heads' tokenizer")
    folder = str(checkpoint()) if policy == STARTER else policy
    return QueryReader(ChatTokenizer.load(folder, None).tokenizer, policy)


def _warm_up(heads: RewardHeads) -> None:
    """Score once: a model that cannot is told before anybody asks, and nobody waits for what is made at first use."""
    try:
        heads.score(["Hello"] * 2, ["Hello.", "Good morning."])
    except RefusedMessages:
        # A template may take other conversations.
        return


class _Server(uvicorn.Server):
    """Ends when nothing is left to answer, or the grace is over; a second signal ends it at once."""

    def __init__(self, config: uvicorn.Config, batcher: Batcher, grace: float, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._batcher, self._grace, self._ready = batcher, grace, ready
        self._told = 0
        self._until: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, and say so."""
        await super().startup(sockets)
        if self.started:
            self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note a signal; what follows from it is not for a signal's handler."""
        self._told += 1

    async def on_tick(self, counter: int) -> bool:
        """Whether to end."""
        if self._told and self._until is None:
            self._batcher.drain()
            self._until = time.monotonic() + self._grace
        over = self._until is not None and (self._batcher.idle or time.monotonic() >= self._until)
        if self._told > 1:
            self.force_exit = over = True
        return await super().on_tick(counter) or over


def _until_told(service: Service, listener: socket.socket, grace: float, ready: Callable[[], None]) -> ServeSummary:
    _allow_connections()
    config = server_config(
        make_app(service),
        backlog=2048,
        h11_max_incomplete_event_size=64 * 2**10,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_LAST_WORDS_S,
    )
    server = _Server(config, service.batcher, grace, ready)
    service.batcher.start()
    unfinished = 0
    try:
        with _short_turns():
            server.run(sockets=[listener])
    finally:
        unfinished = service.batcher.stop()
    if not server.started:
        raise RunError("the server did not start; set RLAIF_DEBUG=1 to see why.")
    return ServeSummary(requests=service.metrics.requests, responses=service.metrics.responses, unfinished=unfinished)


@contextlib.contextmanager
def _short_turns() -> Iterator[None]:
    """Let the model's thread, which gives the interpreter up for every operation, have it back soon."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def _allow_connections() -> None:
    """A training opens a connection for each response that it samples; each is a file to the system."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
