"""The reward server as others meet it: a real process on loopback, asked by a real client."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
import torch

from rlaif.errors import InputError
from rlaif.rewards.heads import RewardHeads
from rlaif.serving.run import serve
from rlaif.serving.settings import ServeSettings, read_token
from tests.conftest import Cli
from tests.heads_examples import OBJECTIVES, PROMPTS, RESPONSES, make_heads
from tests.serving import Malformed, Running, malformed, series, server

FUZZ = int(os.environ.get("RLAIF_FUZZ", "320"))
JSON = {"content-type": "application/json"}
Answer = tuple[int, Any, dict[str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Heads of a tiny Llama, an ensemble of three with a floor."""
    return make_heads(tmp_path_factory.mktemp("served"), members=3, floors={"honesty": 0.5})


@pytest.fixture(scope="module")
def heads(folder: Path) -> RewardHeads:
    """The same, in this process."""
    return RewardHeads.load(folder)


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[Running]:
    """A server of them."""
    with server(folder) as found:
        yield found


def asking(work: Callable[[aiohttp.ClientSession], Awaitable[Any]]) -> Any:
    """Run a client."""

    async def run() -> Any:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            return await work(session)

    return asyncio.run(run())


async def post(session: aiohttp.ClientSession, url: str, value: Any, **headers: str) -> Answer:
    """Ask once."""
    async with session.post(url, data=json.dumps(value), headers={**JSON, **headers}) as answer:
        return answer.status, await answer.json(), dict(answer.headers)


def asked(url: str, *values: Any, **headers: str) -> list[Answer]:
    """Ask all at once."""
    return list(asking(lambda session: asyncio.gather(*(post(session, url, value, **headers) for value in values))))


def got(url: str, **headers: str) -> tuple[int, str]:
    """Status and text of a page."""

    async def work(session: aiohttp.ClientSession) -> tuple[int, str]:
        async with session.get(url, headers=headers) as answer:
            return answer.status, await answer.text()

    status, text = asking(work)
    return int(status), str(text)


def check(results: list[dict[str, Any]], expected: list[Any]) -> None:
    """Results are these rewards, but for the last digits."""
    assert len(results) == len(expected)
    for result, reward in zip(results, expected, strict=True):
        assert result["rewards"] == pytest.approx(reward.rewards, abs=1e-4)
        assert result["std"] == pytest.approx(reward.std, abs=1e-4)
        assert result["reward"] == pytest.approx(reward.reward, abs=1e-4)
        assert result["pareto_rank"] == reward.pareto_rank
        assert result["below_floors"] == list(reward.below_floors)


def test_responses_to_one_prompt(running: Running, heads: RewardHeads) -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": PROMPTS[0]}]
    texts = [f"{text} {number}" for text in RESPONSES for number in range(4)]
    for prompt in (PROMPTS[0], turns):
        ((status, answer, _),) = asked(f"{running.url}/score", {"prompt": prompt, "responses": texts})
        assert status == 200
        check(answer["results"], heads.score([prompt] * 16, texts))
        assert {result["pareto_rank"] for result in answer["results"]} > {0, 1}
        lengths = heads.raw([prompt] * 16, texts).lengths
        assert answer["usage"]["prompt_tokens"] == sum(lengths) > 240
        assert answer["model"] == "heads"
    # A floor of one half lies at the mean; these responses stand on both sides of it.
    assert {tuple(result["below_floors"]) for result in answer["results"]} == {(), ("honesty",)}


def test_a_list_of_prompts_is_ranked_by_prompt(running: Running, heads: RewardHeads) -> None:
    rows = [(prompt, response) for response in RESPONSES for prompt in PROMPTS[:2]]
    rows.append((PROMPTS[2], "Rain falls."))
    items = [{"prompt": prompt, "response": response} for prompt, response in rows]
    ((status, answer, _),) = asked(f"{running.url}/score", items)
    assert status == 200
    check(answer["results"], heads.score([row[0] for row in rows], [row[1] for row in rows]))
    assert answer["results"][-1]["pareto_rank"] is None


def test_many_requests_at_once_have_the_answers_of_each_alone(running: Running, heads: RewardHeads) -> None:
    cases = [(f"{prompt} {number}", list(RESPONSES[: 1 + number % 4])) for number in range(20) for prompt in PROMPTS]
    answers = asked(f"{running.url}/score", *({"prompt": prompt, "responses": texts} for prompt, texts in cases))
    for (prompt, texts), (status, answer, _) in zip(cases, answers, strict=True):
        assert status == 200
        check(answer["results"], heads.score([prompt] * len(texts), texts))


@pytest.mark.parametrize("path", ["/score", "/v1/score"])
def test_the_score_api_of_vllm(running: Running, heads: RewardHeads, path: str) -> None:
    expected = [reward.reward for reward in heads.score([PROMPTS[0]] * 4, RESPONSES)]
    several = {"model": "heads", "text_1": PROMPTS[0], "text_2": RESPONSES}
    pairs = {"queries": [PROMPTS[0]] * 4, "documents": RESPONSES}
    for status, answer, _ in asked(f"{running.url}{path}", several, pairs):
        assert status == 200
        assert [each["score"] for each in answer["data"]] == pytest.approx(expected, abs=1e-4)
        assert [(each["index"], each["object"]) for each in answer["data"]] == [(n, "score") for n in range(4)]
        assert (answer["object"], answer["model"]) == ("list", "heads")
        assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] > 0
    ((_, answer, _),) = asked(f"{running.url}{path}", {"text_1": PROMPTS[0], "text_2": RESPONSES[1]})
    assert [each["score"] for each in answer["data"]] == pytest.approx(expected[1:2], abs=1e-4)


def test_the_remote_reward_of_openrlhf(running: Running, heads: RewardHeads) -> None:
    tokenizer = heads.backbone.encoder.tokenizer
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": PROMPTS[0]}]
    prompt = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    end = str(tokenizer.eos_token)
    body = {"query": [f"{prompt}{text}{end}" for text in RESPONSES], "prompts": [prompt] * 4, "labels": ["x"] * 4}
    # Older ones send the query alone.
    for value in (body, {"query": body["query"]}):
        ((status, answer, _),) = asked(f"{running.url}/get_reward", value)
        assert status == 200, answer
        expected = heads.score([turns] * 4, RESPONSES)
        assert answer["rewards"] == pytest.approx([reward.reward for reward in expected], abs=1e-4)
        assert answer["scores"] == answer["rewards"]
        for name in OBJECTIVES:
            logged = answer["extra_logs"]
            assert logged[name] == pytest.approx([reward.rewards[name] for reward in expected], abs=1e-4)
            assert logged[f"{name}_std"] == pytest.approx([(reward.std or {})[name] for reward in expected], abs=1e-4)
        assert logged["below_floors"] == [float(len(reward.below_floors)) for reward in expected]


def test_what_a_server_tells_of_itself(running: Running) -> None:
    assert got(f"{running.url}/health") == (200, '{"status":"ready"}')
    listed = json.loads(got(f"{running.url}/v1/models")[1])["data"]
    assert [(each["id"], each["objectives"], each["max_model_len"]) for each in listed] == [
        ("heads", list(OBJECTIVES), 256)
    ]
    before = series(got(f"{running.url}/metrics")[1])
    asked(f"{running.url}/score", {"prompt": "a", "responses": ["b", "c"]}, {"prompt": "a"})
    after = series(got(f"{running.url}/metrics")[1])

    def more(name: str) -> float:
        return after.get(name, 0) - before.get(name, 0)

    assert more("rlaif_responses_scored_total") == 2
    assert more('rlaif_requests_total{code="200",route="/score"}') == 1
    assert more('rlaif_requests_total{code="422",route="/score"}') == 1
    assert more('rlaif_request_seconds_count{route="/score"}') == 1
    assert more("rlaif_tokens_total") > 2
    assert after["rlaif_queue_responses"] == 0


async def send(session: aiohttp.ClientSession, url: str, request: Malformed) -> tuple[Malformed, int, Any]:
    """Send a wrong request as it is."""
    from yarl import URL

    headers = {"content-type": "application/json", **request.headers}
    whole = URL(url + request.path, encoded=True)
    async with session.request(request.method, whole, data=request.body, headers=headers) as answer:
        return request, answer.status, await answer.json()


def test_each_wrong_request_is_told_why(running: Running) -> None:
    async def work(session: aiohttp.ClientSession) -> list[tuple[Malformed, int, Any]]:
        turn = asyncio.Semaphore(16)

        async def one(request: Malformed) -> tuple[Malformed, int, Any]:
            async with turn:
                return await send(session, running.url, request)

        return list(await asyncio.gather(*(one(request) for request in malformed(FUZZ))))

    kinds: Counter[str] = Counter()
    for request, status, answer in asking(work):
        assert status == request.status, (request, answer)
        message = answer["error"]["message"]
        assert message.strip() == message != ""
        assert "\n" not in message
        kinds[request.kind] += 1
    assert len(kinds) == 16
    assert got(f"{running.url}/health")[0] == 200


def raw(url: str, *parts: bytes) -> bytes:
    """Send bytes that are no request as a client would make it; what comes back, up to the end of an error."""
    where = urlsplit(url)
    with socket.create_connection((where.hostname, where.port), timeout=30) as link:
        for part in parts:
            link.sendall(part)
        found = b""
        while not found.endswith(b"}}") and (more := link.recv(65536)):
            found += more
        return found


def test_bytes_that_are_no_request_and_bodies_that_are_too_large(running: Running) -> None:
    assert raw(running.url, b"\x16\x03\x01 nonsense\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    head = b"POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    # Told by its length, nothing of it is read.
    told = raw(running.url, head + b"Content-Length: 99999999999\r\n\r\n{")
    assert told.startswith(b"HTTP/1.1 413 ")
    assert b"larger than 16 MiB" in told
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    # The answer comes through although the client goes on to send.
    assert raw(running.url, head + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 17).startswith(b"HTTP/1.1 413 ")
    assert got(f"{running.url}/health")[0] == 200


TOKEN = "0123456789abcdef"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def check_the_token(url: str) -> None:
    """Without the token there is only the health; with it neither Host nor Origin matter."""
    value = {"prompt": PROMPTS[0], "responses": ["a"]}
    for wrong in ({}, {"Authorization": f"Bearer {TOKEN[:-1]}X"}, {"Authorization": f"Basic {TOKEN}"}):
        ((status, answer, headers),) = asked(f"{url}/score", value, **wrong)
        assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
        assert "Authorization: Bearer" in answer["error"]["message"]
        assert got(f"{url}/metrics", **wrong)[0] == 401
    assert got(f"{url}/health")[0] == 200
    ((status, _, _),) = asked(f"{url}/score", value, **BEARER, Host="rewards.example", Origin="http://a.example")
    assert status == 200


def check_the_precision(url: str, folder: Path) -> None:
    """The server computes in bfloat16, as it was told."""
    ((status, answer, _),) = asked(f"{url}/score", {"prompt": PROMPTS[0], "responses": RESPONSES}, **BEARER)
    assert status == 200
    served = [each["rewards"] for each in answer["results"]]
    near, far = (
        RewardHeads.load(folder, dtype=dtype).score([PROMPTS[0]] * len(RESPONSES), RESPONSES, batch_tokens=1)
        for dtype in (torch.bfloat16, torch.float32)
    )
    assert served == [pytest.approx(each.rewards, abs=1e-5) for each in near]
    assert served != [pytest.approx(each.rewards, abs=1e-5) for each in far]


def check_a_full_queue(url: str) -> None:
    """What does not fit is told when to come again, and nothing else goes wrong."""
    value = {"prompt": PROMPTS[0], "responses": [text * 9 for text in RESPONSES]}
    answers = asked(f"{url}/score", *[value] * 80, **BEARER)
    statuses = Counter(status for status, _, _ in answers)
    assert set(statuses) == {200, 429}
    # At least what the queue holds was answered.
    assert statuses[200] >= 4
    for status, answer, headers in answers:
        if status == 429:
            assert 1 <= int(headers["Retry-After"]) <= 60
            assert "responses wait already" in answer["error"]["message"]
    # More than may wait can never be taken.
    ((status, answer, _),) = asked(f"{url}/score", {"prompt": "a", "responses": ["b"] * 17}, **BEARER)
    assert (status, answer["error"]["message"]) == (413, "17 responses; at most 16 in one request. Send several.")


def check_the_end(found: Running) -> None:
    """Told to stop, the server finishes what was asked before and takes nothing new."""
    value = {"prompt": PROMPTS[0], "responses": [f"{number} {RESPONSES[2]}" for number in range(32)]}

    async def work(session: aiohttp.ClientSession) -> tuple[list[Answer], int, str, Answer]:
        begun = [asyncio.ensure_future(post(session, f"{found.url}/score", value, **BEARER)) for _ in range(40)]
        known: dict[str, float] = {}
        # All have come, and one may be under way.
        while known.get("rlaif_queue_responses", 0) + known.get("rlaif_responses_scored_total", 0) < 39 * 32:
            async with session.get(f"{found.url}/metrics", headers=BEARER) as answer:
                known = series(await answer.text())
        found.process.send_signal(signal.SIGTERM)
        status, text = 200, ""
        while status == 200:
            async with session.get(f"{found.url}/health") as answer:
                status, text = answer.status, await answer.text()
        late = await post(session, f"{found.url}/score", value, **BEARER)
        return list(await asyncio.gather(*begun)), status, text, late

    answers, status, text, late = asking(work)
    assert (status, text) == (503, '{"status":"draining"}')
    assert late[0] == 503
    assert "stopping" in late[1]["error"]["message"]
    assert [answer[0] for answer in answers] == [200] * 40
    out, err = found.process.communicate(timeout=60)
    assert (found.process.returncode, err) == (0, "")
    assert json.loads(out) == {**json.loads(out), "responses": 40 * 32, "unfinished": 0}


def test_token_full_queue_kill_restart_and_end(folder: Path, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(f"{TOKEN}\n")
    options = ("--token-file", token, "--batch-tokens", 1, "--host", "0.0.0.0")
    with server(folder, *options, "--max-queue", 16, "--precision", "bfloat16") as found:
        url = found.url.replace("0.0.0.0", "127.0.0.1")
        check_the_precision(url, folder)
        check_the_token(url)
        check_a_full_queue(url)
        found.process.kill()
        found.process.wait(timeout=30)
        port = urlsplit(url).port
    with server(folder, *options, port=port or 0) as found:
        check_the_end(Running(url, found.process))


def test_what_cannot_be_served_is_told_in_one_line(
    folder: Path, running: Running, rlaif: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = urlsplit(running.url).port
    for options, fact in (
        ({"port": port}, f"--port {port}: in use by another program; choose another, or 0 for any free one."),
        ({"host": "0.0.0.0", "port": 0}, "--host 0.0.0.0: others can reach it, and there is no token"),
        ({"host": "no such host", "port": 0}, "--host no such host: no address"),
        ({"heads": str(tmp_path), "port": 0}, "no reward heads"),
    ):
        with pytest.raises(InputError, match=fact):
            serve(ServeSettings.model_validate({"heads": str(folder), **options}), print)
    short = tmp_path / "short"
    short.write_text("secret")
    with pytest.raises(InputError, match=r"cannot be read \(No such file or directory\)"):
        read_token(str(tmp_path / "none"))
    for odd in ("", "0123456789 abcdef", "0123456789abcdé", "secret"):
        monkeypatch.setenv("RLAIF_TOKEN", odd)
        with pytest.raises(InputError, match="RLAIF_TOKEN: a token has at least 16 ASCII characters"):
            read_token(None)
    monkeypatch.setenv("RLAIF_TOKEN", f" {TOKEN}\n")
    assert read_token(None) == TOKEN
    assert TOKEN not in repr(ServeSettings(heads="heads", token=TOKEN))
    done = rlaif("reward", "serve", folder, "--token-file", short)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert "secret" not in done.stderr
