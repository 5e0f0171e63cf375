"""An HTTP client that gets every answer: retries with backoff and jitter until its patience with the server ends."""

from __future__ import annotations

import asyncio
import email.utils
import json
import random
import time
from typing import Any

import aiohttp
import orjson

from rlaif.errors import RunError

RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
_FIRST_DELAY_S, _CALM_DELAY_S, _LONGEST_DELAY_S = 0.1, 1.0, 8.0
_CALM_S = 5.0
# A timeout counts for four. At 20% random faults one request in 10^8 gets so far.
_MOST_TRIES = 12


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


class HttpClient:
    """POST and GET JSON.

    Args:
        base_url: the server's address without `/v1`.
        timeout_s: seconds one request may take before it is asked again.
        patience_s: seconds without any good answer after which the server counts as down.
        token: bearer token, never logged.
    """

    def __init__(
        self, base_url: str, *, timeout_s: float, patience_s: float, connections: int, token: str | None
    ) -> None:
        self.base_url = base_url
        self.patience_s = patience_s
        self._timeout_s = timeout_s
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
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
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
            raise RunError(
                f"{self.base_url}: no good answer for {silent:.0f} s ({self._last_fault}); start the server again, "
                "then give the same command to continue. --engine-arg patience=SECONDS waits longer."
            )

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

    async def _request(self, method: str, path: str, data: bytes | None, *, once: bool = False) -> Any:
        assert self._session is not None, "open() comes first"
        tries = 0
        while True:
            wait_s, weight = None, 1
            try:
                async with self._session.request(method, self.base_url + path, data=data) as response:
                    raw = await response.read()
                    if response.status < 300:
                        answer = _parse(raw)
                        self._last_good = time.monotonic()
                        return answer
                    fault = f"status {response.status}: {self._message(raw)}"
                    if response.status not in RETRIED:
                        self._refuse(response.status, raw)
                    wait_s = _retry_after(response.headers.get("Retry-After"))
            except TimeoutError:
                fault, weight = f"no answer within {self._timeout_s:g} s", 4
            except (aiohttp.ClientError, OSError) as error:
                fault = f"{type(error).__name__}: {error}".split("\n")[0][:200]
            except ValueError:
                fault = "an answer that is not JSON"
            self._last_fault = fault
            self.check_patience()
            tries += weight
            if once:
                raise AnsweredError(0, fault)
            if tries >= _MOST_TRIES and await self._answers_others():
                raise AnsweredError(0, f"{fault}, {tries // weight} times, while the server answers others")
            await asyncio.sleep(self._delay(tries, wait_s))

    async def _answers_others(self) -> bool:
        """Tell a request that breaks the server from a server that is broken."""
        try:
            await self._request("GET", "/v1/models", None, once=True)
        except AnsweredError:
            return False
        return True

    def _delay(self, tries: int, asked_s: float | None) -> float:
        # While others get answers the fault is this request's bad luck, and waiting long helps nobody.
        silent = time.monotonic() - self._last_good
        longest = _CALM_DELAY_S if silent < _CALM_S else _LONGEST_DELAY_S
        backoff = min(_FIRST_DELAY_S * 2 ** min(tries, 10), longest) * self._random.uniform(0.5, 1.0)
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
