"""A judge behind an OpenAI-compatible server. vLLM's is the reference; others are asked what they can do."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import time
import urllib.parse
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from rlaif.engines.base import EngineArgs, ModelIdentity
from rlaif.engines.chat import THINK_CLOSE, THINK_OPEN, before_verdict, cut_at_verdict, is_thinking, with_thought
from rlaif.engines.dialect import Dialect, learn_dialect
from rlaif.engines.http import AnsweredError, HttpClient
from rlaif.engines.interrupts import interrupts_call
from rlaif.engines.logprobs import share_out, worth_reading_on
from rlaif.engines.one_pass import after_marker, hard_verdict, read_listed
from rlaif.errors import InputError, RunError
from rlaif.prompts import neutral_control
from rlaif.types import Completion, FinishReason, JudgeRequest, Usage

KNOWN_ARGS = ("timeout", "patience", "continues")
_POLL_S = 0.02
_ENOUGH = 128
_HOPELESS_AFTER = 32
_T = TypeVar("_T")


def normalize_url(base_url: str) -> str:
    """Drop a trailing `/v1`: both forms name the same server.

    Raises:
        InputError: not an http address.
    """
    url = base_url.rstrip("/").removesuffix("/v1").rstrip("/")
    try:
        usable = re.match(r"https?://[^/\s]+", url) and urllib.parse.urlsplit(url).port != 0
    except ValueError:
        usable = False
    if not usable:
        raise InputError(f"--base-url {base_url}: expected an address such as http://127.0.0.1:8000.")
    return url


def _token() -> str | None:
    token = os.environ.get("RLAIF_API_KEY") or os.environ.get("OPENAI_API_KEY") or ""
    # A key read from a file brings its line's end, which no header may hold.
    return token.strip() or None


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def identify_served(
    base_url: str, model: str | None, *, patience_s: float = 10.0, option: str = "--judge"
) -> ModelIdentity:
    """Ask a server which models it serves, and pick `model`, or its only one.

    Raises:
        RunError: the server does not answer.
        InputError: it serves no such model, or several and none was named.
    """
    url = normalize_url(base_url)

    async def ask() -> Any:
        client = HttpClient(url, timeout_s=10, patience_s=patience_s, connections=1, token=_token())
        await client.open()
        try:
            return await client.get("/v1/models")
        except AnsweredError as error:
            raise RunError(
                f"{url}: /v1/models answers {error.status} ({error.message}); is it an OpenAI-compatible server?"
            ) from None
        finally:
            await client.close()

    listed = asyncio.run(ask())
    served = {str(entry.get("id")): entry for entry in listed.get("data", [])} if isinstance(listed, dict) else {}
    if model is None and len(served) == 1:
        model = next(iter(served))
    for name, entry in served.items():
        if model is not None and model in (name, entry.get("root")):
            digest = hashlib.sha256(f"served:{name}:{entry.get('root')}".encode()).hexdigest()
            return ModelIdentity(name=name, digest=digest)
    names = ", ".join(served) or "no model"
    raise InputError(f"{url}: serves {names}, not {model or 'one model'}; name one with {option}.")


class ServerEngine:
    """Keeps `concurrency` requests in flight, each answered once however often the server fails.

    Engine arguments: `timeout` (seconds a request may take, 600), `patience` (seconds without any good answer until
    the run ends, 600), `continues` (true where a server that is not vLLM can continue an assistant turn).
    """

    name = "server"
    atomic_batch: int | None = None

    def __init__(self, model: ModelIdentity, base_url: str, args: EngineArgs, *, concurrency: int = 128) -> None:
        timeout_s, patience_s = args.take("timeout", 600.0), args.take("patience", 600.0)
        self._continues: bool | None = args.take("continues", None)
        args.none_left(self.name, KNOWN_ARGS)
        self._model = model.name
        self._concurrency = concurrency
        self._client = HttpClient(
            normalize_url(base_url),
            timeout_s=timeout_s,
            patience_s=patience_s,
            connections=concurrency,
            token=_token(),
        )
        self._loop = _new_loop()
        self._running: asyncio.Task[Any] | None = None
        self._dialect: Dialect | None = None
        self._definite_noes = self._answers = 0
        self.details: Mapping[str, Any] = {}

    def complete(self, requests: Iterable[JudgeRequest]) -> Iterator[Completion]:
        """Answer requests as the server does; see `Engine.complete`."""
        waiting = iter(requests)
        first = next(waiting, None)
        if first is None:
            return
        done: list[Completion] = []
        tasks: set[asyncio.Task[None]] = set()
        with interrupts_call(self._loop, self._interrupt):
            try:
                self._run(self._open(first))
                tasks = self._start_workers(first, waiting, done)
                while tasks:
                    fault: BaseException | None = None
                    try:
                        self._run(self._some(tasks, done))
                    except (Exception, KeyboardInterrupt) as error:
                        fault = error
                    # What was answered before the fault is paid for, and stands.
                    ready, done[:] = done[:], []
                    yield from ready
                    if fault is not None:
                        raise fault
            finally:
                self._run(self._stop(tasks))

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        task: asyncio.Task[_T] = self._loop.create_task(work)
        self._running = task
        try:
            return self._loop.run_until_complete(task)
        except asyncio.CancelledError:
            # Only an interrupt cancels it.
            raise KeyboardInterrupt from None

    def _interrupt(self) -> None:
        if self._running is not None:
            self._running.cancel()

    async def _open(self, first: JudgeRequest) -> None:
        await self._client.open()
        if self._dialect is None:
            self._dialect = await learn_dialect(self._client, self._model, first, self._continues)
            self.details = self._dialect.details()

    def _start_workers(
        self, first: JudgeRequest, waiting: Iterator[JudgeRequest], done: list[Completion]
    ) -> set[asyncio.Task[None]]:
        left = [first]

        def take() -> JudgeRequest | None:
            return left.pop() if left else next(waiting, None)

        async def work() -> None:
            while (request := take()) is not None:
                done.append(await self._answer(request))

        return {self._loop.create_task(work()) for _ in range(self._concurrency)}

    async def _some(self, tasks: set[asyncio.Task[None]], done: list[Completion]) -> None:
        """Wait until there are answers worth yielding, or all is done."""
        start = time.monotonic()
        while tasks and len(done) < _ENOUGH and not (done and time.monotonic() - start > _POLL_S):
            finished, _ = await asyncio.wait(tasks, timeout=_POLL_S, return_when=asyncio.FIRST_COMPLETED)
            for task in finished:
                tasks.discard(task)
                task.result()
            self._client.check_patience()

    async def _stop(self, tasks: Iterable[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.close()

    async def _answer(self, request: JudgeRequest) -> Completion:
        try:
            completion = await self._ask(request)
        except AnsweredError as error:
            self._definite_noes += 1
            if self._definite_noes >= _HOPELESS_AFTER and self._answers == 0:
                raise RunError(
                    f"{self._client.base_url}: refuses every request ({error.message}); nothing was labelled."
                ) from None
            return Completion(key=request.key, error=error.explained, finish_reason="error")
        self._answers += 1
        return completion

    @property
    def _spoken(self) -> Dialect:
        assert self._dialect is not None, "learned in _open"
        return self._dialect

    async def _ask(self, request: JudgeRequest) -> Completion:
        if not request.choices:
            text, finish, usage, _ = await self._write(request, stop=False)
            # A server may take a thought out itself; only a text that was cut may be all thought.
            text = with_thought(text, self._spoken.opens_thought and finish == "length")
            return Completion(key=request.key, rationale=text, finish_reason=finish, usage=usage)
        if not self._spoken.continues:
            return await self._one_pass(request)
        if request.rationale is not None:
            return await self._read(request, request.rationale, "stop", Usage())
        text, finish, usage, at_marker = await self._write(request, stop=True)
        if finish == "refused":
            return Completion(key=request.key, rationale=text, finish_reason=finish, usage=usage)
        if at_marker and is_thinking(text, self._spoken.opens_thought):
            # The marker was quoted inside a thought: ask again without stopping there.
            text, finish, more, _ = await self._write(request, stop=False)
            usage = _sum(usage, more)
        text = with_thought(text, self._spoken.opens_thought)
        text, marked = cut_at_verdict(text, request.verdict_prefix)
        return await self._read(request, text, "stop" if marked else finish, usage)

    async def _write(self, request: JudgeRequest, *, stop: bool) -> tuple[str, FinishReason, Usage, bool]:
        body = self._spoken.writing(request, stop=stop)
        try:
            answer = await self._client.post("/v1/chat/completions", body)
        except AnsweredError as error:
            room = await self._spoken.room(self._client, request, error)
            if room is None:
                raise
            answer = await self._client.post(
                "/v1/chat/completions", {**body, "max_tokens": min(room, request.max_tokens)}
            )
        choice = _first_choice(answer)
        return (
            _text(choice),
            _finish(choice),
            _usage(answer),
            choice.get("stop_reason") == request.verdict_prefix,
        )

    async def _read(self, request: JudgeRequest, rationale: str, finish: FinishReason, so_far: Usage) -> Completion:
        # The server's template decides what becomes of a thought, so only the answer is given back to it.
        _, thought, answered = rationale.rpartition(THINK_CLOSE)
        answered = "" if is_thinking(rationale) else answered.lstrip() if thought else answered
        turn = before_verdict(neutral_control(answered), request.verdict_prefix)
        answer = await self._client.post("/v1/chat/completions", self._spoken.reading(request, turn))
        found, usage = self._spoken.choice_logprobs(request.choices, _entry(answer)), _sum(so_far, _usage(answer))
        for first, longer in self._spoken.begins(request.choices, found).items():
            if worth_reading_on(found, first):
                answer = await self._client.post("/v1/chat/completions", self._spoken.reading(request, turn, first))
                usage = _sum(usage, _usage(answer))
                rests = self._spoken.rest_logprobs(first, longer, _entry(answer))
                # Of what is not known no number is made.
                found = share_out(found, first, rests) if rests else {}
        return Completion(
            key=request.key, rationale=rationale, choice_logprobs=found, finish_reason=finish, usage=usage
        )

    async def _one_pass(self, request: JudgeRequest) -> Completion:
        """Let the judge write its verdict, and read the log-probabilities at the last marker."""
        answer = await self._client.post("/v1/chat/completions", self._spoken.one_pass(request))
        choice = _first_choice(answer)
        text, finish = _text(choice), _finish(choice)
        answered = text.rpartition(THINK_CLOSE)[2] if not is_thinking(text) else ""
        _, marker, after = answered.rpartition(request.verdict_prefix)
        listed = (choice.get("logprobs") or {}).get("content") or []
        place = after_marker(listed if marker else [], request.verdict_prefix)
        hard = re.match(hard_verdict(request.choices), after) if marker else None
        return Completion(
            key=request.key,
            rationale=text[: len(text) - len(after) - len(marker)] if marker else text,
            choice_logprobs=read_listed(self._spoken, request.choices, place),
            hard_choice=hard.group(1) if hard else None,
            finish_reason="stop" if hard else finish,
            usage=_usage(answer),
        )

    def close(self) -> None:
        """Close the event loop and what is still open on it."""
        if not self._loop.is_closed():
            self._loop.run_until_complete(self._client.close())
            self._loop.close()


def _first_choice(answer: Any) -> dict[str, Any]:
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not choices or not isinstance(choices[0], dict):
        raise AnsweredError(200, "an answer without choices")
    return dict(choices[0])


def _entry(answer: Any) -> dict[str, Any]:
    """The one position of a reading's list."""
    entries = (_first_choice(answer).get("logprobs") or {}).get("content") or [{}]
    return dict(entries[0])


def _text(choice: dict[str, Any]) -> str:
    message = choice.get("message") or {}
    content = message.get("content") or ""
    thought = message.get("reasoning_content") or message.get("reasoning")
    if thought and THINK_CLOSE not in content:
        return f"{THINK_OPEN}\n{thought}\n{THINK_CLOSE}\n\n{content}" if content else f"{THINK_OPEN}\n{thought}"
    return str(content)


def _finish(choice: dict[str, Any]) -> FinishReason:
    if choice.get("finish_reason") == "content_filter" or (choice.get("message") or {}).get("refusal"):
        return "refused"
    return "length" if choice.get("finish_reason") == "length" else "stop"


def _usage(answer: Any) -> Usage:
    usage = answer.get("usage") or {}
    return Usage(
        prompt_tokens=int(usage.get("prompt_tokens") or 0),
        completion_tokens=int(usage.get("completion_tokens") or 0),
    )


def _sum(one: Usage, other: Usage) -> Usage:
    return Usage(
        prompt_tokens=one.prompt_tokens + other.prompt_tokens,
        completion_tokens=one.completion_tokens + other.completion_tokens,
    )
