"""Who may speak to the server: one machine, one address, and browsers that came with a token.

A page of a stranger's in the same browser can reach a server on loopback. So the Host must be this server's (else a
name of the stranger's that was made to point here would do), the Origin must be this page's, and what is not the page
itself needs the cookie that a token was exchanged for.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from rlaif.review.store import Study

MOST_BYTES = 64 * 2**10
_SESSION = timedelta(days=7)
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types rlaif"
    ),
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class Door:
    """Tokens, which each open one browser's session, and sessions, which outlive a restart of the server.

    Args:
        tell: called with each new token, also the one that takes the place of a token that was spent.
    """

    def __init__(self, study: Study, tell: Callable[[str], None]) -> None:
        # Cookies are shared by all ports of a machine; the study's own name keeps two servers apart.
        self.cookie = f"rlaif-review-{study.id}"
        self.max_age = int(_SESSION.total_seconds())
        self._study, self._tell = study, tell
        self._turn = threading.Lock()
        self._token = secrets.token_urlsafe(32)
        tell(self._token)

    def exchange(self, token: str) -> str | None:
        """Spend a token for the secret of a new session; `None` where it is not the present one."""
        with self._turn:
            if not hmac.compare_digest(token.encode(), self._token.encode()):
                return None
            self._token = secrets.token_urlsafe(32)
        secret = secrets.token_urlsafe(32)
        self._study.begin_session(_digest(secret), datetime.now(UTC) - _SESSION)
        self._tell(self._token)
        return secret

    def admits(self, secret: str | None) -> bool:
        """Whether a cookie's value is that of a session."""
        return bool(secret) and self._study.has_session(_digest(str(secret)), datetime.now(UTC) - _SESSION)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


class Guard:
    """Checks Host, Origin and the size of every request, and puts the headers on every answer.

    Args:
        port: the one that the server listens on.
    """

    def __init__(self, app: ASGIApp, port: int) -> None:
        self._app = app
        self._hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}
        if port == 80:
            self._hosts |= {"127.0.0.1", "localhost"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass, or answer it."""
        if scope["type"] != "http":
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                mine = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                message["headers"] = [*message.get("headers", ()), *mine]
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            await _refuse(with_headers, *refusal)
            return
        body = b""
        while scope["method"] not in ("GET", "HEAD"):
            part = await receive()
            if part["type"] != "http.request":
                return
            body += part.get("body", b"")
            if len(body) > MOST_BYTES:
                await _refuse(with_headers, 413, f"the body is larger than {MOST_BYTES // 2**10} KiB")
                return
            if not part.get("more_body"):
                break
        read = False

        async def whole() -> Message:
            nonlocal read
            if read:
                return await receive()
            read = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, whole, with_headers)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        hosts = headers.get("host", [])
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return 421, f"the Host is not this server's; open http://{min(self._hosts)} on this machine"
        origins = headers.get("origin", [])
        changes = scope["method"] not in ("GET", "HEAD")
        # Another page's request is refused even where the browser would not let that page read the answer.
        if (origins or changes) and origins != [f"http://{hosts[0].lower()}"]:
            return 403, "the Origin is not this page's"
        site = headers.get("sec-fetch-site", ["same-origin"])[0]
        # A link may lead here from anywhere, as from a terminal in a browser: what counts then is its token.
        if site not in ("same-origin", "none") and headers.get("sec-fetch-mode") != ["navigate"]:
            return 403, "the request comes from another site"
        if changes and headers.get("content-type", [""])[0].partition(";")[0].strip().lower() != "application/json":
            return 415, "the body must be application/json"
        return None


async def _refuse(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"error": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 413:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
