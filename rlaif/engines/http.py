"""An HTTP client that gets every answer: retries with backoff and jitter until its patience with the server ends."""

from __future__ import annotations

import asyncio
import email.utils
import json
import random
import time
from collections.abc import Hashable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import aiohttp
import orjson

from rlaif.errors import RunError

RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
_FIRST_DELAY_S, _CALM_DELAY_S, _LONGEST_DELAY_S = 0.1, 1.0, 8.0
_CALM_S = 5.0
# A timeout counts for four. At 20% random faults one request in 10^8 gets so far.
MOST_TRIES = 12


class AnsweredError(Exception):
    """The server's definite no to one request: asking again would not change it. Status 0: no status was given."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message

    @property
    def explained(self) -> str:
        """The message, with the status where the server gave one."""
        return f"status {self.status}: {self.message}" if self.status else self.message


class TryFailed(Exception):
    """One try without a good answer, that another try may get.

    Attributes:
        status: of HTTP, where the server answered at all.
        refused: whether no connection came about, so that nobody listens there.
        weight: how many tries it counts for.
        wait_s: seconds that the server asks to wait.
    """

    def __init__(
        self,
        fault: str,
        *,
        status: int | None = None,
        refused: bool = False,
        weight: int = 1,
        wait_s: float | None = None,
    ) -> None:
        super().__init__(fault)
        self.status, self.refused = status, refused
        self.weight, self.wait_s = weight, wait_s


class ServerDown(RunError):
    """No good answer for as long as the patience goes; `faults` has the last one of each server."""

    def __init__(self, message: str, faults: Mapping[str, str]) -> None:
        super().__init__(message)
        self.faults = faults


def all_down(faults: Mapping[str, str], silent_s: float) -> ServerDown:
    """The error for servers that gave no good answer for `silent_s` seconds."""
    (url, fault), *others = faults.items()
    which, whom = f"{url}: no good answer for {silent_s:.0f} s ({fault})", "the server"
    if others:
        told = ", ".join(f"{url} ({fault})" for url, fault in faults.items())
        which, whom = f"no good answer for {silent_s:.0f} s from any server: {told}", "one of them"
    return ServerDown(
        f"{which}; start {whom} again, then give the same command to continue. --engine-arg patience=SECONDS waits "
        "longer.",
        faults,
    )


class Poster(Protocol):
    """Whom requests are posted to."""

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """POST `body` and return the JSON answer; raises as `HttpClient.post` does."""
        ...


class HttpClient:
    """POST and GET JSON.

    Args:
        base_url: the server's address without `/v1`.
        timeout_s: seconds one request may take before it is asked again.
        patience_s: seconds without any good answer after which the server counts as down.
        token: bearer token, never logged.
        connect_s: seconds a connection may take to come about; `None` for as long as the request.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout_s: float,
        patience_s: float,
        connections: int,
        token: str | None,
        connect_s: float | None = None,
    ) -> None:
        self.base_url = base_url
        self.patience_s = patience_s
        self._timeout_s = timeout_s
        self._connect_s = connect_s
        self._connections = connections
        self._token = token
        self._headers = {
            "Content-Type": "application/json",
            **({"Authorization": f"Bearer {token}"} if token else {}),
        }
        self._session: aiohttp.ClientSession | None = None
        self._last_good = time.monotonic()
        self._last_fault = "no answer yet"
        # Jitter only spreads load; it decides nothing that is recorded.
        self._random = random.Random()

    async def open(self) -> None:
        """Open the connections' pool; the patience starts here."""
        self._last_good = time.monotonic()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=30),
            timeout=aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=self._connect_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=self._headers,
            skip_auto_headers=("User-Agent",),
        )

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    def check_patience(self) -> None:
        """Raise once the server has given no good answer for `patience_s` seconds."""
        silent = time.monotonic() - self._last_good
        if silent >= self.patience_s:
            raise all_down({self.base_url: self._last_fault}, silent)

    def turn(self, group: Hashable) -> AbstractContextManager[HttpClient]:
        """Whom one question's requests go to; with one server there is no choice."""
        return nullcontext(self)

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """POST `body` and return the JSON answer.

        Raises:
            AnsweredError: a definite no (most 4xx).
            RunError: the server is down, or refuses the credentials.
        """
        return await self._request("POST", path, orjson.dumps(body))

    async def get(self, path: str) -> Any:
        """GET `path` and return the JSON answer; raises as `post` does."""
        return await self._request("GET", path, None)

    async def try_once(self, method: str, path: str, data: bytes | None) -> Any:
        """Ask once and return the JSON answer; raises `TryFailed` too, besides what `post` does."""
        assert self._session is not None, "open() comes first"
        try:
            async with self._session.request(method, self.base_url + path, data=data) as response:
                raw = await response.read()
                if response.status < 300:
                    return _parse(raw)
                if response.status not in RETRIED:
                    self._refuse(response.status, raw)
                raise TryFailed(
                    f"status {response.status}: {self._message(raw)}",
                    status=response.status,
                    wait_s=_retry_after(response.headers.get("Retry-After")),
                )
        except aiohttp.ConnectionTimeoutError:
            raise TryFailed("no connection in time", refused=True, weight=4) from None
        except TimeoutError:
            raise TryFailed(f"no answer within {self._timeout_s:g} s", weight=4) from None
        except (aiohttp.ClientError, OSError) as error:
            fault = f"{type(error).__name__}: {error}".split("\n")[0][:200]
            raise TryFailed(fault, refused=isinstance(error, aiohttp.ClientConnectorError)) from None
        except ValueError:
            raise TryFailed("an answer that is not JSON") from None

    async def _request(self, method: str, path: str, data: bytes | None) -> Any:
        tries = 0
        while True:
            try:
                answer = await self.try_once(method, path, data)
            except TryFailed as failed:
                fault = failed
            else:
                self._last_good = time.monotonic()
                return answer
            self._last_fault = str(fault)
            self.check_patience()
            tries += fault.weight
            if tries >= MOST_TRIES and await self._answers_others():
                raise AnsweredError(0, f"{fault}, {tries // fault.weight} times, while the server answers others")
            await asyncio.sleep(self._delay(tries, fault.wait_s))

    async def _answers_others(self) -> bool:
        """Tell a request that breaks the server from a server that is broken."""
        try:
            await self.try_once("GET", "/v1/models", None)
        except TryFailed as failed:
            self._last_fault = str(failed)
            self.check_patience()
            return False
        except AnsweredError:
            return False
        self._last_good = time.monotonic()
        return True

    def _delay(self, tries: int, asked_s: float | None) -> float:
        # While others get answers the fault is this request's bad luck, and waiting long helps nobody.
        silent = time.monotonic() - self._last_good
        longest = _CALM_DELAY_S if silent < _CALM_S else _LONGEST_DELAY_S
        backoff = backoff_s(tries, longest, self._random)
        left = self.patience_s - silent
        # Never sleep past the end of the patience: the last try belongs to it.
        return float(max(0.01, min(max(backoff, asked_s or 0.0), left)))

    def _message(self, raw: bytes) -> str:
        message = _error_message(raw)
        # Some servers quote the key that they refuse.
        return message.replace(self._token, "***") if self._token else message

    def _refuse(self, status: int, raw: bytes) -> None:
        message = self._message(raw)
        if status in (401, 403):
            raise RunError(f"{self.base_url}: the server refuses the key (status {status}); set OPENAI_API_KEY.")
        raise AnsweredError(status, message)


def backoff_s(tries: int, longest: float, draws: random.Random) -> float:
    """Seconds to wait before the next try, twice as long after each, with jitter so that clients part."""
    return float(min(_FIRST_DELAY_S * 2 ** min(tries, 10), longest) * draws.uniform(0.5, 1.0))


def _parse(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        # orjson refuses half a surrogate pair, which a model can write; the standard parser takes it.
        return json.loads(raw)


def _error_message(raw: bytes) -> str:
    try:
        value = json.loads(raw)
    except ValueError:
        value = raw.decode("utf-8", "replace")
    while isinstance(value, dict):
        given = (value[name] for name in ("error", "message", "detail") if value.get(name))
        value = next(given, json.dumps(value))
    return " ".join(str(value).split())[:500] or "no message"


def _retry_after(header: str | None) -> float | None:
    if not header:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return None
