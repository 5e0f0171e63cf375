"""The routes, and who may use them.

Without a token the server answers on this machine alone, and there only programs: what a browser sends on behalf of
some page carries an Origin, and a name that was made to point here another Host. With a token the token decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from rlaif.serving.batching import Batcher, Failed, Full, Refused, Scored, Stopping, Ticket
from rlaif.serving.shapes import Asked, BadRequest, Shapes

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from rlaif.rewards.spec import HeadsSpec
    from rlaif.serving.metrics import Metrics

# Of all bodies together: many large requests at once wait outside of our memory.
_HELD_BODIES = 16
_BODY_S = 30.0
# Of a body that was refused.
_DISCARDED, _DISCARD_S = 64 * 2**20, 10.0
_LOCAL = frozenset({"127.0.0.1", "localhost", "[::1]"})
# Health is asked by who starts and stops servers, and tells nothing.
_OPEN = frozenset({"/health"})
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "unavailable_error",
}


@dataclass(frozen=True)
class Service:
    """What the routes work with; `created` is when the heads were loaded, in seconds since 1970."""

    model: str
    spec: HeadsSpec
    batcher: Batcher
    metrics: Metrics
    shapes: Shapes
    max_body: int
    token: str | None
    created: int


class _TooMuch(Exception):
    """All bodies that are being held have no room for this one."""


class _Bodies:
    """Reads bodies, none too large, too slow, or one too many."""

    def __init__(self, most: int) -> None:
        self._most, self._room = most, most * _HELD_BODIES

    async def read(self, request: Request) -> tuple[bytes, Callable[[], None]]:
        """The body, and what gives its room back."""
        declared = request.headers.get("content-length", "0")
        if declared.isdigit() and int(declared) > self._most:
            raise self._large()
        parts: list[bytes] = []
        held = 0

        def free() -> None:
            self._room += held

        try:
            async with asyncio.timeout(_BODY_S):
                async for part in request.stream():
                    if held + len(part) > self._most:
                        raise self._large()
                    if len(part) > self._room:
                        raise _TooMuch
                    parts.append(part)
                    held += len(part)
                    self._room -= len(part)
        except TimeoutError:
            free()
            raise BadRequest(f"the body did not come within {_BODY_S:.0f} s", 408) from None
        except BaseException:
            free()
            raise
        return b"".join(parts), free

    def _large(self) -> BadRequest:
        return BadRequest(f"the body is larger than {self._most / 2**20:g} MiB; send fewer responses at once", 413)


def make_app(service: Service) -> ASGIApp:
    """The application: `POST /score`, `/v1/score` and `/get_reward`; `GET /health`, `/metrics` and `/v1/models`."""
    bodies = _Bodies(service.max_body)
    batcher = service.batcher

    async def health(request: Request) -> Response:
        state = "draining" if batcher.draining else "failing" if batcher.broken else "ready"
        return _json({"status": state}, 200 if state == "ready" else 503)

    async def metrics(request: Request) -> Response:
        return Response(service.metrics.text(), headers={"content-type": service.metrics.content_type})

    async def models(request: Request) -> Response:
        model = {
            "id": service.model,
            "object": "model",
            "created": service.created,
            "owned_by": "rlaif",
            "max_model_len": service.spec.max_length,
            "objectives": service.spec.objectives,
        }
        return _json({"object": "list", "data": [model]})

    def scoring(read: Callable[[bytes], Asked]) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            fault = _body_fault(request)
            if fault is not None:
                return _error(415, fault)
            if batcher.draining:
                # Before its body is read.
                return _stopping()
            try:
                body, free = await bodies.read(request)
                try:
                    asked = read(body)
                    del body
                    ticket = batcher.submit(asked.work)
                    scored = await _answer(request, batcher, ticket)
                finally:
                    free()
            except (BadRequest, Refused) as error:
                return _error(error.status if isinstance(error, BadRequest) else 422, str(error))
            except Full as error:
                return _error(429, str(error), {"retry-after": str(error.retry_after)})
            except _TooMuch:
                return _error(429, "too many large requests at once; ask again in 1 s", {"retry-after": "1"})
            except Stopping:
                return _stopping()
            except Failed as error:
                return _error(503, str(error), {"retry-after": "1"})
            except ClientDisconnect:
                # Nobody reads it.
                return _error(499, "the client went away")
            return _json(asked.answer(scored))

        return handle

    def refused(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 503
        if status == 405:
            allowed = (getattr(error, "headers", None) or {}).get("Allow", "")
            return _error(405, f"{request.method} is not for this path; expected {allowed}", {"allow": allowed})
        return _error(404, f"no such path; known are {', '.join(paths)}")

    routes = [Route("/health", health), Route("/metrics", metrics), Route("/v1/models", models)]
    shapes = service.shapes
    for path, read in (("/score", shapes.score), ("/v1/score", shapes.vllm), ("/get_reward", shapes.openrlhf)):
        routes.append(Route(path, scoring(read), methods=["POST"]))
    paths = [route.path for route in routes]
    inner = Starlette(routes=routes, exception_handlers={HTTPException: refused})
    inner.router.redirect_slashes = False
    return _Front(inner, service, frozenset(paths))


async def _answer(request: Request, batcher: Batcher, ticket: Ticket) -> Scored:
    """Wait for the scores, as long as the client does."""
    scored = asyncio.wrap_future(ticket.answer)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        both: set[asyncio.Future[Any]] = {scored, gone}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not scored.done():
            raise ClientDisconnect
        return scored.result()
    finally:
        gone.cancel()
        batcher.withdraw(ticket)
        scored.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class _Front:
    """Lets a request pass or answers it, counts it, and sees to it that every answer is one of ours."""

    def __init__(self, app: ASGIApp, service: Service, paths: frozenset[str]) -> None:
        self._app, self._metrics, self._paths = app, service.metrics, paths
        self._token = None if service.token is None else service.token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        started = time.perf_counter()
        status = 0
        whole = scope["method"] in ("GET", "HEAD")

        async def read() -> Message:
            nonlocal whole
            message = await receive()
            whole = whole or message["type"] != "http.request" or not message.get("more_body", False)
            return message

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"cache-control", b"no-store")]
            elif not whole and not message.get("more_body", False):
                # A connection that is closed on a client that still sends loses the answer with it.
                await send({**message, "more_body": True})
                await discard()
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        async def discard() -> None:
            left = _DISCARDED
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_DISCARD_S):
                    while not whole and left > 0:
                        left -= len((await read()).get("body", b""))

        refusal = self._refusal(scope)
        try:
            await (refusal or self._app)(scope, read, watched)
        except Exception as error:
            traceback.print_exception(error, file=sys.stderr)
            if not status:
                await _error(503, "the server failed on this request")(scope, read, watched)
        finally:
            route = scope["path"] if scope["path"] in self._paths else "other"
            self._metrics.answered(route, status or 499, time.perf_counter() - started)

    def _refusal(self, scope: Scope) -> Response | None:
        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value)
        if self._token is not None:
            if scope["path"] in _OPEN:
                return None
            given = headers.get(b"authorization", [b""])
            scheme, _, token = given[0].partition(b" ")
            if len(given) == 1 and scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._token):
                return None
            fact = "another token" if scheme else "no token"
            return _error(
                401, f"{fact}; expected the header Authorization: Bearer TOKEN", {"www-authenticate": "Bearer"}
            )
        if b"origin" in headers:
            return _error(403, "requests of web pages are taken with a token alone; serve with --token-file")
        hosts = headers.get(b"host", [])
        if len(hosts) != 1 or _name(hosts[0].decode("latin-1")) not in _LOCAL:
            return _error(421, "the Host is not this machine; ask 127.0.0.1, or serve with --token-file")
        return None


def _name(host: str) -> str:
    """A Host header without its port."""
    return host.lower() if host.endswith("]") else host.lower().rpartition(":")[0] or host.lower()


def _body_fault(request: Request) -> str | None:
    given = request.headers.get("content-type", "")
    kind, _, options = given.partition(";")
    if kind.strip().lower() != "application/json":
        return "the Content-Type has to be application/json"
    if "charset" in options.lower() and "utf-8" not in options.lower():
        return "the charset has to be utf-8"
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        return "the body has to come without Content-Encoding"
    return None


def _stopping() -> Response:
    return _error(
        503, "the server is stopping; ask another one, or this one later", {"retry-after": "5", "connection": "close"}
    )


def _json(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(value), status, headers, media_type="application/json")


def _error(status: int, reason: str, headers: dict[str, str] | None = None) -> Response:
    line = " ".join(reason.split())
    if status in (408, 413):
        # The rest of the body is not read.
        headers = {**(headers or {}), "connection": "close"}
    return _json({"error": {"message": line, "type": _TYPES.get(status, _TYPES[400])}}, status, headers)
