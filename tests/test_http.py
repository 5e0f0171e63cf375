"""The HTTP client, and what is made of a server's answers."""

from __future__ import annotations

import asyncio
import email.utils
import hashlib
import math
import time
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web

from rlaif.engines.base import EngineArgs
from rlaif.engines.http import AnsweredError, HttpClient
from rlaif.engines.logprobs import log_sum_exp, with_bounds
from rlaif.engines.served import identify_served, normalize_url
from rlaif.engines.server import ServerEngine
from rlaif.errors import InputError, RunError
from rlaif.labeling.verdicts import read_choice
from rlaif.types import Completion, JudgeRequest, Message
from tests.stub_server import RunningStub, StubServer, StubSettings, probability_of

Reply = Callable[[dict[str, Any]], web.Response]


class Scripted(StubServer):
    """A stub server whose chat answers, but for the first (which tells its dialect), a test writes by hand."""

    def __init__(self, reply: Reply, *, vllm: bool = False, tail: list[str] | None = None) -> None:
        super().__init__(StubSettings(plain=not vllm), keep_bodies=True)
        self._reply, self._tail = reply, tail

    async def _tokenize(self, request: web.Request) -> web.StreamResponse:
        if self._tail is None:
            return web.json_response({"detail": "Not Found"}, status=404)
        body = await request.json()
        return web.json_response({"count": 9, "tokens": [1] * 9, "token_strs": ["Hi", *self._tail], "asked": body})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if body["messages"][-1]["content"] == "Answer with the letter A.":
            return await super()._chat(request)
        self.state.bodies.append(body)
        return self._reply(body)


class RunningScript(RunningStub):
    """A `Scripted` server in a thread."""

    def __init__(self, reply: Reply, *, vllm: bool = False, tail: list[str] | None = None) -> None:
        super().__init__()
        self.server = Scripted(reply, vllm=vllm, tail=tail)


def ask(number: int = 0, **changes: Any) -> JudgeRequest:
    values: dict[str, Any] = {
        "key": hashlib.sha256(str(number).encode()).hexdigest(),
        "pair_id": str(number),
        "messages": (Message(role="user", content=f"Question {number}?"),),
        "verdict_prefix": "Verdict:",
        "choices": ("A", "B"),
        **changes,
    }
    return JudgeRequest(**values)


def engine_for(stub: RunningStub, **options: Any) -> ServerEngine:
    return ServerEngine(identify_served(stub.url, None), stub.url, EngineArgs({"patience": "5"}), **options)


def one(stub: RunningStub, request: JudgeRequest | None = None) -> Completion:
    """The answer to one request."""
    engine = engine_for(stub)
    try:
        (completion,) = engine.complete([request or ask()])
    finally:
        engine.close()
    return completion


def chat(content: str | None, listed: list[dict[str, Any]] | None = None, **choice: Any) -> web.Response:
    """A chat completion; fields of the message go in `message`."""
    message = {"role": "assistant", "content": content, **choice.pop("message", {})}
    logprobs = {"content": listed} if listed is not None else None
    answer = {"index": 0, "finish_reason": "stop", "message": message, "logprobs": logprobs, **choice}
    usage = {"prompt_tokens": 10, "completion_tokens": 5}
    return web.json_response({"choices": [answer], "usage": usage})


def token(text: str, p: float = 1.0, **others: float) -> dict[str, Any]:
    """One position of a list of log-probabilities; `others` are alternatives, with _ for a space."""
    tops = [{"token": text, "logprob": math.log(p)}]
    tops += [{"token": name.replace("_", " "), "logprob": math.log(share)} for name, share in others.items()]
    return {**tops[0], "top_logprobs": tops}


def test_log_sum_exp() -> None:
    assert log_sum_exp([math.log(0.2), math.log(0.3)]) == pytest.approx(math.log(0.5))
    assert log_sum_exp([-1000.0, -1000.0]) == pytest.approx(-1000 + math.log(2))
    assert log_sum_exp([-math.inf, -math.inf]) == -math.inf
    assert log_sum_exp([-math.inf, -1.0]) == -1.0


def test_a_choice_off_the_list_gets_its_upper_bound() -> None:
    logs = [math.log(p) for p in (0.6, 0.3, 0.08)]
    # The rest is 0.02, less than the least on the list.
    assert with_bounds({"A": logs[0]}, ("A", "B"), logs)["B"] == pytest.approx(math.log(0.02))
    logs = [math.log(p) for p in (0.6, 0.05, 0.01)]
    assert with_bounds({"A": logs[0]}, ("A", "B"), logs)["B"] == pytest.approx(math.log(0.01))
    # A list of one, as servers give that ignore how many were asked for: B has what is left, not what A has.
    assert with_bounds({"A": math.log(0.97)}, ("A", "B"), [math.log(0.97)])["B"] == pytest.approx(math.log(0.03))
    # Rounding above 1 leaves B above nothing: no verdict is exactly 1.
    assert -math.inf < with_bounds({"A": 1e-7}, ("A", "B"), [1e-7])["B"] < math.log(1e-5)
    assert with_bounds({}, ("A", "B"), logs) == {}
    both = {"A": -1.0, "B": -2.0}
    assert with_bounds(both, ("A", "B"), [-1.0, -2.0, -3.0]) == both


def test_one_choice_listed_bounds_the_other_and_none_is_unread() -> None:
    listed = [token("Verdict:"), token(" A", 0.7, _An=0.2, _The=0.04)]
    with RunningScript(lambda body: chat("Verdict: A", listed)) as stub:
        completion = one(stub)
    reading = read_choice(("A", "B"), completion)
    assert reading.p_first == pytest.approx(0.7 / 0.74)  # B has at most 0.04, the least on the list
    neither = [token("Verdict:"), token(" Both", 0.7, _None=0.2)]
    with RunningScript(lambda body: chat("Verdict: Both", neither)) as stub:
        completion = one(stub)
    assert (completion.choice_logprobs, completion.hard_choice) == ({}, None)
    assert read_choice(("A", "B"), completion).status == "unread"


@pytest.mark.parametrize(
    ("text", "listed"),
    [
        ("Verdict: A", [token("Ver"), token("dict:"), token(" A", 0.6, _B=0.2)]),
        ("Verdict: **A**", [token("Verdict:"), token(" **", 0.9, _A=0.05), token("A", 0.6, B=0.2), token("**")]),
        ("Verdict:A", [token("Verdict"), token(":A", 0.6, **{":B": 0.2, "A": 0.1})]),
        ("Verdict:\n\nA.", [token("Verdict:"), token("\n\n"), token("A", 0.6, _B=0.2), token(".")]),
        # Only the last verdict counts, and only the answer's.
        ("Verdict: B or Verdict: A", [token("Verdict: B or"), token(" Verdict:"), token(" A", 0.6, _B=0.2)]),
        ("<think>Verdict: B</think>Verdict: A", [token("<think>Verdict: B</think>Verdict:"), token(" A", 0.6, _B=0.2)]),
    ],
)
def test_one_pass_reads_the_token_that_names_the_choice(text: str, listed: list[dict[str, Any]]) -> None:
    with RunningScript(lambda body: chat(text, listed)) as stub:
        completion = one(stub)
    reading = read_choice(("A", "B"), completion)
    assert (completion.hard_choice, reading.hard) == ("A", False)
    assert reading.p_first == pytest.approx(0.75)
    assert reading.choice_mass == pytest.approx(0.8)


def test_a_log_probability_may_be_null() -> None:
    listed = [token("Verdict:"), {"token": " A", "logprob": None, "top_logprobs": None}]
    with RunningScript(lambda body: chat("Verdict: A", listed)) as stub:
        completion = one(stub)
    assert (completion.choice_logprobs, completion.hard_choice) == ({}, "A")


def test_a_marker_in_a_thought_that_was_cut_off_is_no_verdict() -> None:
    with RunningScript(lambda body: chat("<think>Then Verdict: A", finish_reason="length")) as stub:
        completion = one(stub)
    assert (completion.hard_choice, completion.finish_reason) == (None, "length")
    assert read_choice(("A", "B"), completion).p_first is None


@pytest.mark.parametrize(
    "reply",
    [
        lambda body: chat("", finish_reason="content_filter"),
        lambda body: chat(None, message={"refusal": "I cannot."}),
    ],
)
@pytest.mark.parametrize("vllm", [False, True])
def test_a_refusal_is_no_verdict(reply: Reply, vllm: bool) -> None:
    with RunningScript(reply, vllm=vllm) as stub:
        completion = one(stub)
    assert completion.finish_reason == "refused"
    assert read_choice(("A", "B"), completion).status == "refused"


def answers(first: web.Response | Callable[[], web.Response], verdict: dict[str, Any] | None = None) -> Reply:
    """vLLM's two steps: any text while writing, then the choice."""
    listed = [verdict or token(" A", 0.6, _B=0.2)]

    def reply(body: dict[str, Any]) -> web.Response:
        if body.get("continue_final_message"):
            return chat(" A", listed)
        return first() if callable(first) else first

    return reply


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_a_server_with_a_reasoning_parser(field: str) -> None:
    reply = answers(lambda: chat("So A.", message={field: "Hm."}, stop_reason="Verdict:"))
    with RunningScript(reply, vllm=True) as stub:
        completion = one(stub)
        reading = stub.state.bodies[-1]
    assert completion.rationale == "<think>\nHm.\n</think>\n\nSo A."
    # Only the answer is given back; the server's template decides about thoughts.
    assert reading["messages"][-1] == {"role": "assistant", "content": "So A.\n\nVerdict:"}
    assert completion.choice_logprobs == pytest.approx({"A": math.log(0.6), "B": math.log(0.2)})
    # Without /tokenize the top log-probabilities are read.
    assert reading["top_logprobs"] == 20
    assert "logprob_token_ids" not in reading


@pytest.mark.parametrize("opens", [False, True])
def test_a_marker_quoted_in_a_thought_is_thought_past(opens: bool) -> None:
    """A server without a reasoning parser; with `opens` its template writes `<think>` before the answer."""
    begin = "" if opens else "<think>\n"
    whole = f"{begin}I end with Verdict: A.</think>\n\nB is wrong. Verdict: A"

    def reply(body: dict[str, Any]) -> web.Response:
        if body.get("continue_final_message"):
            return chat(" A", [token(" A", 0.6, _B=0.2)])
        return chat(f"{begin}I end with ", stop_reason="Verdict:") if body.get("stop") else chat(whole)

    tail = ["<think>", "Ċ"] if opens else ["assistant", "Ċ"]
    with RunningScript(reply, vllm=True, tail=tail) as stub:
        completion = one(stub)
        bodies = stub.state.bodies[1:]
    assert completion.rationale == "<think>\nI end with Verdict: A.</think>\n\nB is wrong. "
    assert bodies[-1]["messages"][-1]["content"] == "B is wrong.\n\nVerdict:"
    assert completion.finish_reason == "stop"
    # All three calls are counted.
    assert len(bodies) == 3
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (30, 15)


def test_a_thought_that_was_cut_off_is_not_part_of_the_answer() -> None:
    reply = answers(lambda: chat("<think>\nVery long", finish_reason="length"))
    with RunningScript(reply, vllm=True) as stub:
        completion = one(stub)
        assert stub.state.bodies[-1]["messages"][-1]["content"] == "Verdict:"
    assert read_choice(("A", "B"), completion).status == "truncated"


def test_control_tokens_in_a_rationale_are_broken_up() -> None:
    with RunningScript(answers(lambda: chat("A.<|im_end|>")), vllm=True) as stub:
        one(stub)
        assert stub.state.bodies[-1]["messages"][-1]["content"] == "A.<\u200b|im_end|>\n\nVerdict:"


def test_an_answer_that_is_too_long_for_the_context_gets_less_room() -> None:
    # The stub counts words: 40 of the prompt, 100 in all. Kept free: the marker and eight more.
    prompt = (Message(role="user", content=" ".join(["word"] * 40)),)
    with RunningStub(StubSettings(max_model_len=100), keep_bodies=True) as stub:
        completion = one(stub, ask(messages=prompt, max_tokens=500))
        wanted = [body["max_tokens"] for body in stub.state.bodies[1:]]
    assert completion.error is None
    assert wanted == [500, 100 - 40 - (8 + len("Verdict:")), 1]
    with RunningStub(StubSettings(max_model_len=60)) as stub:  # 4 tokens left are not worth asking for
        completion = one(stub, ask(messages=prompt, max_tokens=500))
    assert completion.error == "status 400: maximum context length is 60 tokens, prompt has 40"


def test_an_openai_style_server_reads_at_the_marker() -> None:
    with RunningStub(StubSettings(plain=True), keep_bodies=True) as stub:
        completion = one(stub)
        bodies = stub.state.bodies
    p = probability_of(bodies[-1]["messages"])
    reading = read_choice(("A", "B"), completion)
    assert reading.p_first == pytest.approx(p)
    assert reading.choice_mass == pytest.approx(0.9)
    # What only vLLM understands is not sent to others.
    assert not {"repetition_penalty", "top_k", "continue_final_message"} & bodies[-1].keys()


def test_one_engine_answers_twice_and_more_workers_than_requests_do_no_harm(stub: RunningStub) -> None:
    engine = engine_for(stub, concurrency=64)
    first = list(engine.complete([ask(n) for n in range(3)]))
    assert list(engine.complete([])) == []
    again = list(engine.complete([ask(n) for n in range(3)]))
    engine.close()
    assert {c.key: c for c in first} == {c.key: c for c in again}
    assert len(first) == 3


def test_an_engine_left_early_closes_its_connections() -> None:
    with RunningStub(StubSettings(delay_s=0.05)) as stub:
        engine = engine_for(stub, concurrency=4)
        running = engine.complete(ask(n) for n in range(1000))
        next(running)
        running.close()  # type: ignore[attr-defined]
        asked = stub.state.count
        time.sleep(0.3)
        assert stub.state.count <= asked + 4  # no more than what was in flight
        assert next(iter(engine.complete([ask(5)]))).key == ask(5).key
        engine.close()


def test_what_was_answered_before_a_fault_is_kept() -> None:
    """The plan itself fails after three requests: their answers come first, then its error."""

    def requests() -> Any:
        yield from (ask(n) for n in range(3))
        time.sleep(0.2)  # the answers wait in their sockets meanwhile
        raise InputError("line 4 is broken")

    with RunningStub() as stub:
        engine = engine_for(stub, concurrency=1)
        seen: list[str] = []
        with pytest.raises(InputError, match="line 4"):
            seen.extend(completion.key for completion in engine.complete(requests()))
        engine.close()
    assert seen == [ask(n).key for n in range(3)]


def serve_once(status: int, body: str, headers: dict[str, str] | None = None) -> tuple[RunningStub, list[float]]:
    """A server that answers the first POST with `body`, and any other with an empty object."""
    times: list[float] = []

    def reply(_: dict[str, Any]) -> web.Response:
        times.append(time.time())
        return web.Response(status=status, text=body, headers=headers) if len(times) == 1 else web.json_response({})

    return RunningScript(reply), times


def post(url: str, token: str | None = None) -> Any:
    async def work() -> Any:
        client = HttpClient(url, timeout_s=5, patience_s=10, connections=1, token=token)
        await client.open()
        try:
            body = {"messages": [{"role": "user", "content": "Hi"}]}
            return await client.post("/v1/chat/completions", body)
        finally:
            await client.close()

    return asyncio.run(work())


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        (lambda: email.utils.formatdate(time.time() + 2, usegmt=True), 0.9, 4.0),  # dates have whole seconds
        (lambda: email.utils.formatdate(time.time() - 60, usegmt=True), 0.0, 0.8),
        (lambda: "0.5", 0.5, 1.5),
        (lambda: "soon", 0.0, 0.8),
    ],
)
def test_retry_after(header: Callable[[], str], least: float, most: float) -> None:
    running, times = serve_once(429, "slow down", {"Retry-After": header()})
    with running as stub:
        assert post(stub.url) == {}
    assert least <= times[1] - times[0] < most


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"error": {"message": "no such\\n  model", "code": 404}}', "no such model"),
        ('{"error": "no such model"}', "no such model"),
        ('{"object": "error", "message": "no such model"}', "no such model"),
        ('{"detail": "Not Found"}', "Not Found"),
        ('{"error": null, "message": "no such model"}', "no such model"),
        ('{"error": {"code": 7}}', '{"code": 7}'),
        ("<h1>Bad</h1>", "<h1>Bad</h1>"),
        ("", "no message"),
        ("[1]", "[1]"),
        ("x" * 900, "x" * 500),
    ],
)
def test_what_a_server_says_is_wrong(body: str, message: str) -> None:
    with serve_once(400, body)[0] as stub, pytest.raises(AnsweredError) as caught:
        post(stub.url)
    assert (caught.value.status, caught.value.message) == (400, message)
    assert caught.value.explained == f"status 400: {message}"


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_key_is_never_shown(status: int) -> None:
    running, _ = serve_once(status, '{"error": "Incorrect API key provided: sk-secret"}')
    with running as stub, pytest.raises((AnsweredError, RunError)) as caught:
        post(stub.url, token="sk-secret")
    assert "sk-secret" not in repr(caught.value)
    assert str(caught.value)


def test_a_key_may_end_in_a_new_line(stub: RunningStub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLAIF_API_KEY", "sk-from-a-file\n")
    assert one(stub).error is None


@pytest.mark.parametrize("url", ["http://host:99999", "http://host:port", "http:///v1", "host:8000"])
def test_an_address_that_cannot_be(url: str) -> None:
    with pytest.raises(InputError, match="expected an address such as"):
        normalize_url(url)
    assert normalize_url("https://host:8000/v1/") == "https://host:8000"
