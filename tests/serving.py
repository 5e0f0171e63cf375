"""The reward server in a process of its own, and requests that no server should take."""

from __future__ import annotations

import json
import random
import select
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.processes import start

STARTS_WITHIN = 120.0


@dataclass
class Running:
    """A server that answers; `wait` gives its exit code and what it printed last."""

    url: str
    process: subprocess.Popen[str]

    def end(self) -> dict[str, Any]:
        """Tell it to stop, and take its summary."""
        self.process.terminate()
        out, err = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, err
        summary: dict[str, Any] = json.loads(out)
        return {**summary, "err": err}


@contextmanager
def server(heads: Path, *options: object, port: int = 0) -> Iterator[Running]:
    """Run `rlaif reward serve` until the block ends."""
    process = start("reward", "serve", heads, "--port", port, "--json", *options)
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        ready, _, _ = select.select([process.stdout], [], [], STARTS_WITHIN)
        line = process.stdout.readline() if ready else ""
        assert line, process.stderr.read() if process.poll() is not None else "the server does not start"
        yield Running(json.loads(line)["url"], process)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def series(text: str) -> dict[str, float]:
    """Values of Prometheus' text format."""
    rows = [line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in rows}


@dataclass(frozen=True)
class Malformed:
    """A request that is wrong by construction; `kind` says how."""

    kind: str
    status: int
    body: bytes
    path: str = "/score"
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)


_JSON = {"content-type": "application/json"}
_VALUES: tuple[Any, ...] = (None, 5, -1.5, True, {}, {"a": [1]}, [[]], [None], [5], [{"role": "user"}])


def _valid(draw: random.Random) -> tuple[str, dict[str, Any]]:
    """A path, and a body that it takes."""
    texts = ["".join(draw.choices("abc déß€😀", k=draw.randrange(1, 30))) + "." for _ in range(draw.randrange(1, 5))]
    prompt = f"Tell me about {draw.randrange(1000)}."
    turns = [{"role": "user", "content": prompt}]
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("/score", {"prompt": draw.choice([prompt, turns]), "responses": texts}),
        ("/v1/score", {"text_1": prompt, "text_2": texts}),
        ("/get_reward", {"query": [prompt + text for text in texts], "prompts": [prompt] * len(texts)}),
    ]
    return draw.choice(bodies)


def _cut(draw: random.Random) -> Malformed:
    path, value = _valid(draw)
    body = json.dumps(value).encode()
    return Malformed("cut", 400, body[: draw.randrange(len(body))], path)


def _noise(draw: random.Random) -> Malformed:
    return Malformed("noise", 400, b"\x00" + draw.randbytes(draw.randrange(200)), draw.choice(["/score", "/v1/score"]))


def _bad_text(draw: random.Random) -> Malformed:
    path, value = _valid(draw)
    bad = draw.choice([b"\xff\xfe", b"\xc3\x28", b"\xed\xa0\x80", b"\\ud800", b"\\u12", b"\\x", b"\x01"])
    return Malformed("bad text", 400, json.dumps(value).encode().replace(b'."', b"." + bad + b'"', 1), path)


def _no_number(draw: random.Random) -> Malformed:
    path, value = _valid(draw)
    word = draw.choice(["NaN", "Infinity", "-Infinity", "01", "+1", "1.", ".5", "0x10", "undefined"])
    name = draw.choice(sorted(value))
    return Malformed("no number", 400, json.dumps({**value, name: "HERE"}).replace('"HERE"', word).encode(), path)


def _deep(draw: random.Random) -> Malformed:
    depth = draw.randrange(2_000, 100_000)
    opening, closing = draw.choice([("[", "]"), ('{"a":', "}")])
    return Malformed("deep", 400, (opening * depth + "1" + closing * depth).encode())


def _wrong_type(draw: random.Random) -> Malformed:
    path, value = _valid(draw)
    name = draw.choice(sorted(set(value) - {"prompts"}))
    return Malformed("wrong type", 422, json.dumps({**value, name: draw.choice(_VALUES)}).encode(), path)


def _wrong_item(draw: random.Random) -> Malformed:
    path, value = _valid(draw)
    name = next(name for name in ("responses", "text_2", "query") if name in value)
    value[name][draw.randrange(len(value[name]))] = draw.choice([*_VALUES, "\x00", "a\x00b"])
    return Malformed("wrong item", 422, json.dumps(value).encode(), path)


def _wrong_turn(draw: random.Random) -> Malformed:
    turn: Any = draw.choice(
        [
            {"role": "robot", "content": "a"},
            {"role": "user"},
            {"content": "a"},
            {"role": "user", "content": 5},
            {"role": "user", "content": "a", "name": "b"},
            {"role": ["user"], "content": "a"},
            "a",
            [],
        ]
    )
    turns = [{"role": "user", "content": "a"}] * draw.randrange(3)
    return Malformed("wrong turn", 422, json.dumps({"prompt": [*turns, turn], "responses": ["b"]}).encode())


def _unknown_key(draw: random.Random) -> Malformed:
    path, value = _valid(draw)
    name = draw.choice(["responce", "temperature", "", "é", "x" * 500, "__class__"])
    return Malformed("unknown key", 422, json.dumps({**value, name: 1}).encode(), path)


def _missing_key(draw: random.Random) -> Malformed:
    path, value = _valid(draw)
    names = sorted(set(value) - {"prompts"})
    value.pop(draw.choice(names))
    return Malformed("missing key", 422, json.dumps(value).encode(), path)


def _empty(draw: random.Random) -> Malformed:
    values: list[Any] = [{}, [], [{}], "", "text", 5, None, True]
    values += [{"prompt": "", "responses": ["a"]}, {"prompt": " \n", "responses": ["a"]}]
    values += [{"prompt": [], "responses": ["a"]}, {"prompt": "a", "responses": []}, {"text_1": [], "text_2": ["a"]}]
    return Malformed("empty", 422, json.dumps(draw.choice(values)).encode())


def _wrong_length(draw: random.Random) -> Malformed:
    values: list[tuple[str, Any]] = [
        ("/v1/score", {"text_1": ["a", "b"], "text_2": ["c"] * draw.randrange(3, 9)}),
        ("/get_reward", {"query": ["ab"], "prompts": ["a"] * draw.randrange(2, 9)}),
        ("/get_reward", {"query": ["ab", "ac"], "prompts": ["a", "a"], "labels": []}),
        ("/get_reward", {"query": ["ab"], "prompts": ["b"]}),
        ("/get_reward", {"query": ["<|im_start|>user\nb"], "prompts": ["<|im_start|>user\n"]}),
    ]
    path, value = draw.choice(values)
    return Malformed("wrong length", 422, json.dumps(value).encode(), path)


def _too_many(draw: random.Random) -> Malformed:
    value = {"prompt": "a", "responses": ["b"] * draw.randrange(1025, 3000)}
    return Malformed("too many", 413, json.dumps(value).encode())


def _wrong_model(draw: random.Random) -> Malformed:
    path, value = "/v1/score", {"model": f"gpt-{draw.randrange(9)}", "text_1": "a", "text_2": "b"}
    return Malformed("wrong model", 404, json.dumps(value).encode(), path)


def _wrong_header(draw: random.Random) -> Malformed:
    path, value = _valid(draw)
    status, headers = draw.choice(
        [
            (415, {"content-type": "text/plain"}),
            (415, {"content-type": "application/json; charset=utf-16"}),
            (415, {"content-type": "application/jsonx"}),
            (415, {**_JSON, "content-encoding": "gzip"}),
            (403, {**_JSON, "origin": "https://example.com"}),
            (421, {**_JSON, "host": "example.com"}),
            (421, {**_JSON, "host": "127.0.0.1.example.com:80"}),
        ]
    )
    return Malformed("wrong header", status, json.dumps(value).encode(), path, headers=headers)


def _wrong_place(draw: random.Random) -> Malformed:
    path, value = _valid(draw)
    if draw.random() < 0.5:
        odd = draw.choice(["/", "/scores", "/score/", "//score", "/v1/chat/completions", "/v1", "/%00", "/%ff"])
        return Malformed("wrong place", 404, json.dumps(value).encode(), odd)
    return Malformed("wrong place", 405, b"", path, draw.choice(["GET", "PUT", "DELETE", "PATCH", "OPTIONS"]))


_KINDS: tuple[Callable[[random.Random], Malformed], ...] = (
    _cut, _noise, _bad_text, _no_number, _deep, _wrong_type, _wrong_item, _wrong_turn, _unknown_key, _missing_key,
    _empty, _wrong_length, _too_many, _wrong_model, _wrong_header, _wrong_place,
)  # fmt: skip


def malformed(count: int, seed: int = 0) -> Iterator[Malformed]:
    """So many requests, each kind in turn."""
    draw = random.Random(seed)
    for number in range(count):
        yield _KINDS[number % len(_KINDS)](draw)
