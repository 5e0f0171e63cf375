"""A judge behind an OpenAI-compatible server. vLLM's is the reference; others are asked what they can do."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from rlaif.engines.base import BaseUrl, EngineArgs, ModelIdentity
from rlaif.engines.chat import THINK_CLOSE, THINK_OPEN, before_verdict, cut_at_verdict, is_thinking, with_thought
from rlaif.engines.dialect import Dialect, learn_dialect
from rlaif.engines.http import AnsweredError, HttpClient, Poster
from rlaif.engines.interrupts import interrupts_call
from rlaif.engines.logprobs import share_out, worth_reading_on
from rlaif.engines.one_pass import after_marker, hard_verdict, read_listed
from rlaif.engines.served import check_model, models_of, server_urls, token
from rlaif.engines.servers import Servers
from rlaif.errors import RunError
from rlaif.prompts import neutral_control
from rlaif.types import Completion, FinishReason, JudgeRequest, Usage

KNOWN_ARGS = ("timeout", "patience", "continues")
_POLL_S = 0.02
_ENOUGH = 128
_HOPELESS_AFTER = 32
_T = TypeVar("_T")


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


class ServerEngine:
    """Keeps `concurrency` requests in flight, each answered once however often a server fails.

    With several servers that is how many are in flight at all of them together; see `Servers`.
    Engine arguments: `timeout` (seconds a request may take, 600), `patience` (seconds without any good answer until
    the run ends, 600), `continues` (true where a server that is not vLLM can continue an assistant turn).
    """

    name = "server"
    atomic_batch: int | None = None

    def __init__(self, model: ModelIdentity, base_url: BaseUrl, args: EngineArgs, *, concurrency: int = 128) -> None:
        timeout_s, patience_s = args.take("timeout", 600.0), args.take("patience", 600.0)
        self._continues: bool | None = args.take("continues", None)
        args.none_left(self.name, KNOWN_ARGS)
        self._model = model
        self._concurrency = concurrency
        urls = server_urls(base_url)
        common: dict[str, Any] = {"connections": concurrency, "token": token()}
        self._client: HttpClient | Servers = (
            HttpClient(urls[0], timeout_s=timeout_s, patience_s=patience_s, **common)
            if len(urls) == 1
            else Servers(urls, timeout_s=timeout_s, patience_s=patience_s, **common)
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
        if isinstance(self._client, Servers):
            self._dialect = await self._client.open(lambda client: self._learn(client, first, check=True))
        else:
            await self._client.open()
            self._dialect = self._dialect or await self._learn(self._client, first, check=False)
        self.details = self._dialect.details()

    async def _learn(self, client: HttpClient, first: JudgeRequest, *, check: bool) -> Dialect:
        if check:
            check_model(client.base_url, models_of(await client.get("/v1/models")), self._model, "the others")
        return await learn_dialect(client, self._model.name, first, self._continues)

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
            # What one pair and order ask begins with the same text.
            with self._client.turn((request.pair_id, request.order)) as client:
                completion = await self._ask(client, request)
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

    async def _ask(self, client: Poster, request: JudgeRequest) -> Completion:
        if not request.choices:
            text, finish, usage, _ = await self._write(client, request, stop=False)
            # A server may take a thought out itself; only a text that was cut may be all thought.
            text = with_thought(text, self._spoken.opens_thought and finish == "length")
            return Completion(key=request.key, rationale=text, finish_reason=finish, usage=usage)
        if not self._spoken.continues:
            return await self._one_pass(client, request)
        if request.rationale is not None:
            return await self._read(client, request, request.rationale, "stop", Usage())
        text, finish, usage, at_marker = await self._write(client, request, stop=True)
        if finish == "refused":
            return Completion(key=request.key, rationale=text, finish_reason=finish, usage=usage)
        if at_marker and is_thinking(text, self._spoken.opens_thought):
            # The marker was quoted inside a thought: ask again without stopping there.
            text, finish, more, _ = await self._write(client, request, stop=False)
            usage = _sum(usage, more)
        text = with_thought(text, self._spoken.opens_thought)
        text, marked = cut_at_verdict(text, request.verdict_prefix)
        return await self._read(client, request, text, "stop" if marked else finish, usage)

    async def _write(
        self, client: Poster, request: JudgeRequest, *, stop: bool
    ) -> tuple[str, FinishReason, Usage, bool]:
        body = self._spoken.writing(request, stop=stop)
        try:
            answer = await client.post("/v1/chat/completions", body)
        except AnsweredError as error:
            room = await self._spoken.room(client, request, error)
            if room is None:
                raise
            answer = await client.post("/v1/chat/completions", {**body, "max_tokens": min(room, request.max_tokens)})
        choice = _first_choice(answer)
        return (
            _text(choice),
            _finish(choice),
            _usage(answer),
            choice.get("stop_reason") == request.verdict_prefix,
        )

    async def _read(
        self, client: Poster, request: JudgeRequest, rationale: str, finish: FinishReason, so_far: Usage
    ) -> Completion:
        # The server's template decides what becomes of a thought, so only the answer is given back to it.
        _, thought, answered = rationale.rpartition(THINK_CLOSE)
        answered = "" if is_thinking(rationale) else answered.lstrip() if thought else answered
        turn = before_verdict(neutral_control(answered), request.verdict_prefix)
        answer = await client.post("/v1/chat/completions", self._spoken.reading(request, turn))
        found, usage = self._spoken.choice_logprobs(request.choices, _entry(answer)), _sum(so_far, _usage(answer))
        for first, longer in self._spoken.begins(request.choices, found).items():
            if worth_reading_on(found, first):
                answer = await client.post("/v1/chat/completions", self._spoken.reading(request, turn, first))
                usage = _sum(usage, _usage(answer))
                rests = self._spoken.rest_logprobs(first, longer, _entry(answer))
                # Of what is not known no number is made.
                found = share_out(found, first, rests) if rests else {}
        return Completion(
            key=request.key, rationale=rationale, choice_logprobs=found, finish_reason=finish, usage=usage
        )

    async def _one_pass(self, client: Poster, request: JudgeRequest) -> Completion:
        """Let the judge write its verdict, and read the log-probabilities at the last marker."""
        answer = await client.post("/v1/chat/completions", self._spoken.one_pass(request))
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
