"""An HTTP client of several servers of one model: load spread over them, and no answer lost when one goes."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import orjson

from rlaif.engines.balance import OPENS_AT, Balancer, Circuit
from rlaif.engines.dialect import Dialect
from rlaif.engines.http import MOST_TRIES, AnsweredError, HttpClient, ServerDown, TryFailed, all_down, backoff_s
from rlaif.errors import InputError, RlaifError, RunError

Learn = Callable[[HttpClient], Awaitable[Dialect]]

_CHAT = "/v1/chat/completions"
_CONNECT_S, _PROBE_S, _PROBE_PATIENCE_S = 10.0, 30.0, 2.0
_CALM_DELAY_S = 1.0
# So many health checks in a row without an answer take a server out.
_MOST_MISSES = 3
# Where nothing else is set up, Python writes warnings to stderr, a line each.
_log = logging.getLogger("rlaif")


class _Server:
    """One of the servers, and how it is doing."""

    def __init__(self, place: int, client: HttpClient, draws: random.Random) -> None:
        self.place, self.client, self.url = place, client, client.base_url
        self.circuit = Circuit(draws)
        self.fault = "no answer yet"
        self.heard = time.monotonic()
        self.misses = 0
        # Whether it was told that the server is out.
        self.out = False
        self.refused = ""
        self.limits: set[asyncio.Timeout] = set()
        self.opened = asyncio.Event()


class Turn:
    """One question's requests: a verdict is read where its rationale was written, and is in the cache."""

    def __init__(self, servers: Servers, group: Hashable) -> None:
        self._servers = servers
        self.group = group
        self.place: int | None = None

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """POST as `HttpClient.post` does, at whichever server answers."""
        return await self._servers.ask(self, path, orjson.dumps(body))


class Servers:
    """Asks several servers; see `Balancer` for which, and `Circuit` for when one is left out.

    A server that is left out is probed after each pause: that it answers, that it serves the same model and that it is
    spoken to as the others are. Then it is given one question on trial.

    Args:
        urls: two or more addresses without `/v1`.
        timeout_s, connections, token: as of `HttpClient`, for each.
        patience_s: seconds without any good answer of any server until the run ends.
        check_every_s: seconds without an answer after which a server at work is asked whether it is there.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        timeout_s: float,
        patience_s: float,
        connections: int,
        token: str | None,
        check_every_s: float = 10.0,
    ) -> None:
        # Jitter only spreads load; it decides nothing that is recorded.
        self._random = random.Random()
        self._common: dict[str, Any] = {"token": token, "connect_s": _CONNECT_S}
        self._timeout_s, self._patience_s, self._check_every_s = timeout_s, patience_s, check_every_s
        self._servers = [
            # A check needs a connection when every other one is in use.
            _Server(
                place,
                HttpClient(
                    url, timeout_s=timeout_s, patience_s=patience_s, connections=connections + 1, **self._common
                ),
                self._random,
            )
            for place, url in enumerate(urls)
        ]
        self._balancer = Balancer(len(self._servers))
        self._wake = asyncio.Event()
        self._watchers: list[asyncio.Task[None]] = []
        self._last_good = time.monotonic()
        self._learn: Learn | None = None
        self._dialect: Dialect | None = None
        self._learned_at = ""

    @property
    def base_url(self) -> str:
        """All addresses, for a message."""
        return ", ".join(server.url for server in self._servers)

    async def open(self, learn: Learn) -> Dialect:
        """Connect, the first time with a look at each server, and return how they are spoken to.

        A server that does not answer is passed over, as load balancers do: a long run is not to wait for the one of
        eight that is off. It joins when it answers.

        Args:
            learn: finds out how one server is spoken to, and sees that it serves the right model.

        Raises:
            InputError: the servers differ in what they serve.
            RunError: none gives a good answer, or one cannot be used.
        """
        self._last_good = time.monotonic()
        for server in self._servers:
            server.heard = self._last_good
            await server.client.open()
        if self._learn is None:
            self._learn = learn
            await self._look_at_all()
        self._watchers = [asyncio.create_task(self._watch(server)) for server in self._servers]
        while self._dialect is None:
            await self._wait(0.1)
            self.check_patience()
        return self._dialect

    async def close(self) -> None:
        """Close every connection."""
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        self._watchers = []
        for server in self._servers:
            await server.client.close()

    def check_patience(self) -> None:
        """Raise once no server has given a good answer for `patience_s` seconds."""
        silent = time.monotonic() - self._last_good
        if silent >= self._patience_s:
            raise all_down({server.url: server.fault for server in self._servers}, silent)

    @contextmanager
    def turn(self, group: Hashable) -> Iterator[Turn]:
        """Ask one question; those of one `group` begin with the same text."""
        turn = Turn(self, group)
        try:
            yield turn
        finally:
            self._leave(turn)

    async def ask(self, turn: Turn, path: str, data: bytes) -> Any:
        """POST `data` for a turn, at one server after another until one gives a good answer.

        Raises:
            AnsweredError: a definite no.
            RunError: a server refuses the credentials.
        """
        tries, first = 0, True
        failed_at: set[int] = set()
        while True:
            server = await self._server_for(turn, failed_at, tries)
            try:
                answer = await self._try_at(server, path, data)
            except TryFailed as error:
                failed = error
            else:
                self._last_good = time.monotonic()
                self._answered(server)
                return answer
            self._leave(turn)
            # A request that breaks every server is not to take them all out.
            self._failed(server, failed, counts=first or failed.status is None)
            first = False
            failed_at.add(server.place)
            # A server that has no time for it says nothing about the request.
            tries += 0 if failed.status == 429 else failed.weight
            if tries >= MOST_TRIES and await self._answers_others():
                times = tries // failed.weight
                raise AnsweredError(0, f"{failed}, {times} times, while the server answers others")

    async def _server_for(self, turn: Turn, failed_at: set[int], tries: int) -> _Server:
        """Where a turn goes on: where it is, else at a server that has not failed it yet, once there is one."""
        while True:
            now = time.monotonic()
            if turn.place is not None:
                server = self._servers[turn.place]
                if server.circuit.usable(now, 0):
                    return server
                self._leave(turn)
            usable = [
                each.place for each in self._servers if each.circuit.usable(now, self._balancer.outstanding[each.place])
            ]
            left = [place for place in usable if place not in failed_at]
            if left:
                turn.place = self._balancer.take(turn.group, left)
            elif usable:
                failed_at.clear()
                await asyncio.sleep(backoff_s(tries, _CALM_DELAY_S, self._random))
            else:
                rests = [each.circuit.rests_until - now for each in self._servers if each.circuit.state != "open"]
                await self._wait(min((rest for rest in rests if rest > 0), default=1.0))

    def _leave(self, turn: Turn) -> None:
        if turn.place is not None:
            self._balancer.give_back(turn.place)
            if self._servers[turn.place].circuit.state == "half-open":
                self._wake_all()
            turn.place = None

    async def _try_at(self, server: _Server, path: str, data: bytes) -> Any:
        limit = asyncio.timeout(None)
        server.limits.add(limit)
        try:
            async with limit:
                return await server.client.try_once("POST", path, data)
        except TimeoutError:
            raise TryFailed(server.fault) from None
        except AnsweredError as error:
            if error.status == 404 and path == _CHAT:
                # It was started again with another model: that is no answer to the question.
                raise TryFailed(error.explained, status=404, refused=True) from None
            self._answered(server)
            raise
        finally:
            server.limits.discard(limit)

    def _answered(self, server: _Server) -> None:
        server.heard, server.misses = time.monotonic(), 0
        if server.circuit.good(server.heard):
            if server.out:
                _log.warning("Note: %s is back.", server.url)
            server.out = False
            self._wake_all()

    def _failed(self, server: _Server, failed: TryFailed, *, counts: bool) -> None:
        server.fault = str(failed)
        now = time.monotonic()
        if failed.status is not None:
            server.heard = now
        if failed.status == 429 or failed.wait_s:
            server.circuit.rest(now, failed.wait_s)
        weight = OPENS_AT if failed.refused else failed.weight
        if failed.status == 429 or not counts or not server.circuit.failed(now, weight):
            return
        server.opened.set()
        if not server.out and any(each.circuit.state == "closed" for each in self._servers):
            server.out = True
            _log.warning(
                "Note: %s is out (%s); the others go on, and it is used again once it answers.", *_told(server)
            )
        if failed.status is None and (failed.refused or failed.weight > 1):
            # Nobody is there: what it still holds will not be answered either, and is asked elsewhere at once.
            limits, server.limits = server.limits, set()
            for limit in limits:
                limit.reschedule(asyncio.get_running_loop().time())

    async def _answers_others(self) -> bool:
        """Tell a request that breaks every server from servers that are broken."""
        for server in self._servers:
            if server.circuit.state != "open":
                with suppress(TryFailed, AnsweredError):
                    await server.client.try_once("GET", "/v1/models", None)
                    self._last_good = time.monotonic()
                    return True
        return False

    async def _wait(self, longest_s: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), longest_s)

    def _wake_all(self) -> None:
        self._wake.set()
        self._wake.clear()

    async def _look_at_all(self) -> None:
        found = await asyncio.gather(*map(self._probe, self._servers), return_exceptions=True)
        for server, result in zip(self._servers, found, strict=True):
            if isinstance(result, Dialect):
                self._agree(server, result)
                self._last_good = time.monotonic()
            elif isinstance(result, TryFailed | ServerDown):
                self._put_off(server, result)
            else:
                raise result
        for server in self._servers:
            if self._dialect is not None and server.circuit.state == "open":
                server.out = True
                _log.warning(
                    "Note: %s is not there (%s); begins without it, and it is used once it answers.", *_told(server)
                )

    async def _watch(self, server: _Server) -> None:
        """Probe a server that is out, and see that one at work is there."""
        circuit = server.circuit
        while True:
            due = circuit.until if circuit.state == "open" else server.heard + self._check_every_s
            with suppress(TimeoutError):
                await asyncio.wait_for(server.opened.wait(), max(0.001, due - time.monotonic()))
            server.opened.clear()
            now = time.monotonic()
            if circuit.state == "open":
                if now >= circuit.until:
                    await self._probe_again(server)
            elif now >= server.heard + self._check_every_s:
                server.heard = now
                if self._balancer.outstanding[server.place]:
                    await self._check(server)

    async def _check(self, server: _Server) -> None:
        try:
            async with asyncio.timeout(self._check_every_s):
                await server.client.try_once("GET", "/v1/models", None)
            server.misses = 0
        except TimeoutError:
            server.misses += 1
            if server.misses >= _MOST_MISSES:
                late = f"no answer to a health check within {self._check_every_s:g} s"
                self._failed(server, TryFailed(late, refused=True), counts=True)
        except TryFailed as failed:
            self._failed(server, failed, counts=True)
        except (AnsweredError, RunError):
            # The question that comes next meets it too, and tells.
            return

    async def _probe(self, server: _Server) -> Dialect:
        """See whether a server answers, what it serves and how it is spoken to.

        `/v1/models`, not `/health`: every server has it, and one that comes back may serve another model.

        Raises:
            TryFailed, ServerDown: it does not answer.
            RlaifError: it answers, and cannot be used.
        """
        assert self._learn is not None, "open() comes first"
        times: dict[str, Any] = {"timeout_s": min(self._timeout_s, _PROBE_S), "patience_s": _PROBE_PATIENCE_S}
        client = HttpClient(server.url, connections=8, **times, **self._common)
        try:
            await client.open()
            await client.try_once("GET", "/v1/models", None)
            return await self._learn(client)
        except AnsweredError as error:
            raise RunError(f"{server.url}: a probe is answered with {error.explained}.") from None
        finally:
            await client.close()

    async def _probe_again(self, server: _Server) -> None:
        try:
            self._agree(server, await self._probe(server))
        except (TryFailed, ServerDown) as error:
            self._put_off(server, error)
        except RlaifError as error:
            # It may be started again as it should be, so it is looked at again; the run goes on with the others.
            server.fault = str(error).removeprefix(f"{server.url}: ")
            server.circuit.open(time.monotonic())
            if server.fault != server.refused:
                server.refused = server.fault
                _log.warning("Warning: %s is left out: %s", *_told(server))
        else:
            server.circuit.half_open()
            self._wake_all()

    def _put_off(self, server: _Server, error: TryFailed | ServerDown) -> None:
        server.fault = error.faults[server.url] if isinstance(error, ServerDown) else str(error)
        server.circuit.open(time.monotonic())

    def _agree(self, server: _Server, dialect: Dialect) -> None:
        """See that a server is spoken to as the others are, so that no label depends on who was asked.

        Raises:
            InputError: it is not.
        """
        if self._dialect is None:
            self._dialect, self._learned_at = dialect, server.url
            return
        difference = dialect.difference(self._dialect)
        if difference:
            raise InputError(
                f"{server.url}: differs from {self._learned_at} in {difference}; start both with the same options, or "
                "leave this --base-url out."
            )


def _told(server: _Server) -> tuple[str, str]:
    return server.url, server.fault
