"""`rlaif review` in the background, and what a page or a stranger sends to it."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlsplit

from tests.conftest import environment


@dataclass
class Reply:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def value(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Review:
    """The command, started and read along; it is ended as Ctrl-C does when the block ends."""

    def __init__(self, pairs: Path, labels: Path, *options: object) -> None:
        command = [sys.executable, "-m", "rlaif", "review", str(pairs), "--out", str(labels), *map(str, options)]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**environment(), "PYTHONUNBUFFERED": "1"},
        )
        self.urls: list[str] = []
        self.out = ""
        self._given = 0
        self._more = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._more:
                self.out += line
                self.urls += re.findall(r"http://127\.0\.0\.1:\d+/\?token=[\w-]+", line)
                self._more.notify_all()

    def url(self, number: int = 0, timeout: float = 60) -> str:
        """The address that was printed as number so and so; waits until it is."""
        with self._more:
            assert self._more.wait_for(lambda: len(self.urls) > number or self.process.poll() is not None, timeout)
            assert len(self.urls) > number, self.process.stderr and self.process.stderr.read()
            return self.urls[number]

    def unused_url(self) -> str:
        """The address that opens one more browser; each call gives another one, which is to be used."""
        self._given += 1
        return self.url(self._given - 1)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(urlsplit(self.url()).port or 0)

    def end(self) -> str:
        """End it as Ctrl-C does; returns what it printed."""
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(timeout=60)
        self._reader.join(timeout=10)
        return self.out

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self.process.kill()
        self.process.wait(timeout=60)

    def __enter__(self) -> Review:
        self.url()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        self.end()
        assert self.process.stderr is not None
        self.process.stderr.close()


@dataclass
class Client:
    """A browser without a window: it keeps the cookie, and says Host and Origin as the page does."""

    port: int
    cookie: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def send(self, method: str, path: str, body: bytes | None = None, **headers: str | None) -> Reply:
        """One request; a header given as `None` is left out, and `_` in its name stands for `-`."""
        mine: dict[str, str | None] = {"host": f"127.0.0.1:{self.port}", "cookie": self.cookie or None}
        if method != "GET":
            mine |= {"origin": f"http://127.0.0.1:{self.port}", "content-type": "application/json"}
        mine |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in mine.items():
                if value is not None:
                    connection.putheader(name, value)
            if body is not None:
                connection.putheader("content-length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def enter(self, url: str) -> Reply:
        """Open an address, and keep the cookie that comes with the page."""
        parts = urlsplit(url)
        reply = self.send("GET", f"{parts.path}?{parts.query}")
        if "set-cookie" in reply.headers:
            self.cookie = reply.headers["set-cookie"].partition(";")[0]
        return reply

    def question(self, annotator: str) -> Any:
        """What a person is asked now, and how far they are."""
        return self.send("GET", f"/api/question?annotator={quote(annotator)}").value

    def post(self, name: str, body: object) -> Reply:
        """Send what the page would."""
        return self.send("POST", f"/api/{name}", json.dumps(body).encode())

    def answer(self, state: Any, choice: str, **more: object) -> Reply:
        """Answer the question of a state."""
        question = state["question"]
        body = {"annotator": state["annotator"], "pair": question["pair"], "objective": question["objective"]}
        return self.post("answer", body | {"choice": choice, "nonce": str(uuid.uuid4())} | more)


def entered(review: Review) -> Client:
    """A client that has exchanged the token of the address that was printed last."""
    client = Client(review.port)
    assert client.enter(review.unused_url()).status == 200
    return client
