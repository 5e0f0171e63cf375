"""What the drivers of the peers share; standard library only, as each runs in a virtual environment of its own.

A driver turns pairs into what its tool takes, warms it up on some of them, labels the others under the clock, and
prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Work = Callable[[], int]
Prepare = Callable[[Sequence[Row], str, Mapping[str, str]], Work]
"""From pairs, the server's address and settings: what labels them all, and returns how many verdicts were read."""


def as_text(prompt: str | Sequence[Mapping[str, str]]) -> str:
    """A conversation in one text, for tools that take no messages."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1:
        return prompt[0]["content"]
    return "\n\n".join(f"{turn['role'].capitalize()}: {turn['content']}" for turn in prompt)


def processor_seconds() -> float:
    """Of this process, its threads, and its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def drive(prepare: Prepare, packages: Sequence[str]) -> None:
    """Read the options, label, and print the line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--pairs", type=Path, required=True, help="JSON Lines")
    parser.add_argument("--warm-up", type=int, default=64, help="of the pairs, how many come before the clock starts")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    given = parser.parse_args()
    settings = dict(each.split("=", 1) for each in given.set)
    rows = [json.loads(line) for line in given.pairs.read_text(encoding="utf-8").splitlines()]
    first, rest = rows[: given.warm_up], rows[given.warm_up :]
    prepare(first, given.url, settings)()
    work = prepare(rest, given.url, settings)
    start, used = time.perf_counter(), processor_seconds()
    read = work()
    seconds, processor = time.perf_counter() - start, processor_seconds() - used
    installed = {each.metadata["Name"].lower(): each.version for each in metadata.distributions()}
    # Which HTTP client the peers' own client is built on depends on its version.
    versions = {name: installed[name] for name in (*packages, "httpx", "httpx2") if name in installed}
    found = {"pairs": len(rest), "read": read, "wall_s": seconds, "cpu_s": processor, "versions": versions}
    print("\n" + json.dumps(found), flush=True)
