"""A real HTTP server on loopback that stands in for a GPU-sized judge: its answers follow from the request alone.

It speaks vLLM's dialect of the OpenAI chat API (two steps, token ids) or, with `--plain`, one pass; and it can be
made to fail in every way that servers do.

    python tests/stub_server.py --port 8123 --faults 0.2
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import math
import random
import signal
import threading
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import orjson
from aiohttp import web

CHOICE_IDS = {"A": 65, " A": 165, "B": 66, " B": 166}
FAULTS = ("500", "503", "429", "drop", "truncate", "hang")


@dataclass
class StubSettings:
    """How the server behaves.

    Args:
        faults: share of answers that fail; `kinds` says how. A request that failed may fail again.
        hang_s: seconds that a hanging answer takes before its connection is dropped.
        delay_s: seconds every answer takes.
        plain: a server that is not vLLM and cannot continue a turn.
        logprobs: whether a plain server gives log-probabilities.
        newer_openai: takes `max_completion_tokens` and no temperature, as OpenAI's reasoning models do.
        stop_after: after so many good answers every connection is dropped.
        renamed_after: after so many good answers another model is served.
        poison: a word that makes every request with it fail with status 500.
        model, root: the model's name, and what it was loaded from; requests for another one get status 404.
        retry_after: what an answer with status 429 asks to wait.
    """

    faults: float = 0.0
    kinds: tuple[str, ...] = FAULTS
    hang_s: float = 30.0
    delay_s: float = 0.0
    plain: bool = False
    logprobs: bool = True
    stop_after: int | None = None
    renamed_after: int | None = None
    system_role: bool = True
    newer_openai: bool = False
    poison: str | None = None
    max_model_len: int = 100_000
    max_chars: int = 10**9
    seed: int = 0
    model: str = "stub"
    root: str = "stub"
    retry_after: str = "0.2"


@dataclass
class StubState:
    """What the server saw: bodies by digest, with how often each was answered well."""

    good: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    count: int = 0


def probability_of(messages: list[dict[str, Any]]) -> float:
    """P(A) / (P(A) + P(B)) that the stub gives for these messages: fixed by their text, away from 0 and 1."""
    digest = hashlib.sha256(json.dumps(messages, sort_keys=True).encode()).digest()
    return 0.02 + 0.96 * int.from_bytes(digest[:8]) / 2**64


class StubServer:
    """The handlers, and what they saw. `keep_bodies` holds every request, for tests that look at them."""

    def __init__(self, settings: StubSettings, *, keep_bodies: bool = False) -> None:
        self.settings = settings
        self.state = StubState()
        self._keep = keep_bodies
        self._random = random.Random(settings.seed)

    def app(self) -> web.Application:
        """The routes of the server."""
        app = web.Application(client_max_size=2**26)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/seen", self._seen)
        if not self.settings.plain:
            app.router.add_post("/tokenize", self._tokenize)
        return app

    async def _models(self, request: web.Request) -> web.StreamResponse:
        names = {"id": self.settings.model, "root": self.settings.root}
        entry: dict[str, Any] = {**names, "object": "model", "owned_by": "stub"}
        if not self.settings.plain:
            entry |= {"owned_by": "vllm", "max_model_len": self.settings.max_model_len}
        return _json({"object": "list", "data": [entry]})

    async def _seen(self, request: web.Request) -> web.StreamResponse:
        return _json({"good": self.state.good, "failed": self.state.failed, "count": self.state.count})

    async def _tokenize(self, request: web.Request) -> web.StreamResponse:
        body = orjson.loads(await request.read())
        if "messages" in body:
            count = sum(len(turn["content"].split()) for turn in body["messages"])
            return _json({"count": count, "tokens": [0] * count, "max_model_len": self.settings.max_model_len})
        text = body["prompt"]
        tail = next((spelled for spelled in sorted(CHOICE_IDS, key=len, reverse=True) if text.endswith(spelled)), "")
        words = text.removesuffix(tail)
        tokens = [*words.encode(), *([CHOICE_IDS[tail]] if tail else [])]
        return _json({"count": len(tokens), "tokens": tokens, "max_model_len": self.settings.max_model_len})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        body = orjson.loads(raw)
        name = hashlib.sha256(raw).hexdigest()
        self.state.count += 1
        if self._keep:
            self.state.bodies.append(body)
        if self.settings.renamed_after is not None and sum(self.state.good.values()) >= self.settings.renamed_after:
            self.settings.model = "other"
        if body.get("model", self.settings.model) != self.settings.model:
            return _error(404, f"The model {body['model']} does not exist.")
        if self.settings.delay_s:
            await asyncio.sleep(self.settings.delay_s)
        stopped = self.settings.stop_after is not None and sum(self.state.good.values()) >= self.settings.stop_after
        if stopped or self._random.random() < self.settings.faults:
            self.state.failed[name] = self.state.failed.get(name, 0) + 1
            return await self._fail(request, "drop" if stopped else self._random.choice(self.settings.kinds), body)
        if self.settings.poison and any(self.settings.poison in turn["content"] for turn in body["messages"]):
            return web.Response(status=500, text="broken")
        if self.settings.newer_openai and "max_tokens" in body:
            return _error(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        if self.settings.newer_openai and "temperature" in body:
            return _error(400, "Unsupported value: 'temperature' does not support 0 with this model.")
        if not self.settings.system_role and body["messages"][0]["role"] == "system":
            return _error(400, "System role not supported")
        words = sum(len(turn["content"].split()) for turn in body["messages"])
        chars = sum(len(turn["content"]) for turn in body["messages"])
        if words + body.get("max_tokens", 0) > self.settings.max_model_len or chars > self.settings.max_chars:
            return _error(400, f"maximum context length is {self.settings.max_model_len} tokens, prompt has {words}")
        self.state.good[name] = self.state.good.get(name, 0) + 1
        return _json(self._answer(body))

    async def _fail(self, request: web.Request, kind: str, body: dict[str, Any]) -> web.StreamResponse:
        if kind == "429":
            return web.Response(status=429, headers={"Retry-After": self.settings.retry_after}, text="slow down")
        if kind in ("500", "503"):
            return web.Response(status=int(kind), text="broken")
        if kind == "truncate":
            whole = orjson.dumps(self._answer(body))
            return web.Response(body=whole[: len(whole) // 2], content_type="application/json")
        if kind == "hang":
            await asyncio.sleep(self.settings.hang_s)
        if request.transport is not None:  # None once the client has given up
            request.transport.abort()
        return web.Response()

    def _answer(self, body: dict[str, Any]) -> dict[str, Any]:
        messages = body["messages"]
        continues = body.get("continue_final_message") and not self.settings.plain
        p = probability_of(messages)
        if continues:
            message, finish, logprobs = " A" if p > 0.5 else " B", "length", self._logprobs(body, p, messages)
        else:
            rationale = (
                f"Response A and response B differ ({hashlib.sha256(repr(messages).encode()).hexdigest()[:12]})."
            )
            verdict = " A" if p > 0.5 else " B"
            stops = body.get("stop")
            message = f"{rationale}\n\n" if stops else f"{rationale}\n\nVerdict:{verdict}"
            finish, logprobs = "stop", None
            if body.get("logprobs") and self.settings.logprobs:
                tokens = [{"token": f"{rationale}\n\n", "logprob": -0.5, "top_logprobs": []}]
                tokens += [{"token": "Verdict", "logprob": 0.0}, {"token": ":", "logprob": 0.0}]
                logprobs = {"content": [*tokens, *self._logprobs({}, p, messages)["content"]]}
        choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": message}}
        choice["logprobs"] = logprobs
        if body.get("stop") and not continues:
            choice["stop_reason"] = body["stop"][0]
        words = sum(len(turn["content"].split()) for turn in messages)
        usage = {"prompt_tokens": words, "completion_tokens": len(message.split()), "total_tokens": words + 1}
        return {"id": "stub", "object": "chat.completion", "model": "stub", "choices": [choice], "usage": usage}

    def _logprobs(self, body: dict[str, Any], p: float, messages: list[dict[str, Any]]) -> dict[str, Any]:
        # Each choice is split over its two spellings; together they hold 0.9 of the probability.
        shares = {" A": 0.9 * p * 0.75, "A": 0.9 * p * 0.25, " B": 0.9 * (1 - p) * 0.75, "B": 0.9 * (1 - p) * 0.25}
        name = (lambda t: f"token_id:{CHOICE_IDS[t]}") if body.get("return_tokens_as_token_ids") else str
        entries = [{"token": name(token), "logprob": math.log(share)} for token, share in shares.items()]
        return {"content": [{**max(entries, key=lambda entry: entry["logprob"]), "top_logprobs": entries}]}


def _json(value: Any) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json")


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"error": {"message": message, "code": status}}, status=status)


class RunningStub:
    """The server in a thread of this process: `with RunningStub(StubSettings()) as stub: stub.url`."""

    def __init__(self, settings: StubSettings | None = None, *, keep_bodies: bool = False, port: int = 0) -> None:
        self._port = port
        self.server = StubServer(settings or StubSettings(), keep_bodies=keep_bodies)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._ready = threading.Event()
        self.url = ""

    @property
    def state(self) -> StubState:
        """What the server saw so far."""
        return self.server.state

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        runner = web.AppRunner(self.server.app(), access_log=None)
        self._loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", self._port)
        self._loop.run_until_complete(site.start())
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._ready.set()
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    def __enter__(self) -> RunningStub:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


async def _serve_forever(settings: StubSettings, port: int) -> None:
    runner = web.AppRunner(StubServer(settings).app(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    await runner.cleanup()


def main() -> None:
    """Serve until stopped; the first line printed is the address."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--faults", type=float, default=0.0)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--plain", action="store_true")
    options = parser.parse_args()
    settings = StubSettings(faults=options.faults, delay_s=options.delay, plain=options.plain)
    try:
        import uvloop
    except ImportError:
        asyncio.run(_serve_forever(settings, options.port))
    else:
        uvloop.run(_serve_forever(settings, options.port))


if __name__ == "__main__":
    main()
