"""What `rlaif reward serve` takes, and who may ask: everybody on this machine, or whoever has the token."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field

from rlaif.errors import InputError
from rlaif.rewards.spec import Precision
from rlaif.types import Frozen

HOST, PORT = "127.0.0.1", 8100
TOKEN_VARIABLE = "RLAIF_TOKEN"
_SHORTEST_TOKEN = 16


class ServeSettings(Frozen):
    """Everything `rlaif reward serve` takes; see its `--help`.

    `port` 0 is any free one. `max_queue` counts responses that wait, `max_responses` those of one request, `max_body`
    the bytes of one. `batch_tokens` of `None` is what suits the device; `precision` of `None` is float32 on
    a CPU, elsewhere the one that the heads were saved in. `grace` is in seconds.
    """

    heads: str
    host: str = HOST
    port: Annotated[int, Field(ge=0, le=65535)] = PORT
    token: str | None = Field(default=None, repr=False)
    batch_tokens: Annotated[int, Field(ge=1)] | None = None
    max_wait_ms: Annotated[float, Field(ge=0, le=60_000)] = 5.0
    max_queue: Annotated[int, Field(ge=1)] = 4096
    max_responses: Annotated[int, Field(ge=1)] = 1024
    max_body: Annotated[int, Field(ge=1024)] = 16 * 2**20
    grace: Annotated[float, Field(ge=0)] = 30.0
    policy: str | None = None
    device: str | None = None
    precision: Precision | None = None
    weights: Mapping[str, float] | None = None


class Served(Frozen):
    """What is served, once it is."""

    url: str
    model: str
    objectives: tuple[str, ...]
    token: bool


class ServeSummary(Frozen):
    """What was done until the end; `unfinished` counts requests that the grace did not suffice for."""

    requests: int
    responses: int
    unfinished: int


def read_token(file: str | None) -> str | None:
    """The token of a file, else that of the environment's RLAIF_TOKEN, else none.

    Raises:
        InputError: the file cannot be read, or holds no token that is hard to guess.
    """
    if file is None:
        text = os.environ.get(TOKEN_VARIABLE)
        return None if text is None else _checked(text.strip(), TOKEN_VARIABLE)
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        fact = error.strerror if isinstance(error, OSError) else "no text"
        raise InputError(f"--token-file {file}: cannot be read ({fact}); give a file that holds one token.") from None
    return _checked(text.strip(), f"--token-file {file}")


def _checked(token: str, place: str) -> str:
    # What a header holds without escapes; a token of other characters could never be sent.
    if len(token) < _SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise InputError(
            f"{place}: a token has at least {_SHORTEST_TOKEN} ASCII characters and no white space; "
            "make one with: openssl rand -hex 32"
        )
    return token


def is_loopback(address: str) -> bool:
    """Whether an IP address can be reached from this machine alone."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback
