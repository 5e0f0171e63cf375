"""Fixtures that several tests share: the real data, a tiny judge, a server on loopback, the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from examples.tiny_judge import make_tiny_judge
from tests.forked import rlaif_program
from tests.stub_server import RunningStub

ROOT = Path(__file__).parent.parent
_LONGEST = frozenset({"test_docs_pages", "test_ray", "test_starter_model", "test_train_heads"})
Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_configure() -> None:
    """Take Ctrl-C as at a terminal: started in the background, a shell has it ignored, and so would every command."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest: a file is one process's, and none is to be left alone at the end."""
    items.sort(key=lambda item: item.path.stem not in _LONGEST)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real human and judge labels, where this machine has it."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real data (../shared/data) is not on this machine")
    return folder


@pytest.fixture(scope="session")
def tiny_judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with random weights: it runs like any judge, and its labels mean nothing."""
    return make_tiny_judge(tmp_path_factory.mktemp("models") / "judge")


@pytest.fixture
def stub() -> Iterator[RunningStub]:
    """A server that answers at once and never fails; `keep_bodies` is on."""
    with RunningStub(keep_bodies=True) as server:
        yield server


def environment() -> dict[str, str]:
    """The environment for a child process of rlaif: offline, and this checkout first.

    One thread: processes that share few cores lose more to each other's spinning than they gain. What is kept between
    calls stays in the checkout.
    """
    cache = str(ROOT / ".pytest_cache" / "rlaif")
    return {
        **os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "RLAIF_CACHE": cache
    }  # fmt: skip


@pytest.fixture(name="rlaif")
def rlaif_command() -> Cli:
    """Run the command line in a process of its own: `rlaif("label", "pairs.jsonl", "--out", run)`."""

    def run(*arguments: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        command = [*rlaif_program(), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment(), check=False)

    return run


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows as JSON Lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read JSON Lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def made_pairs(count: int) -> list[dict[str, Any]]:
    """Make `count` small pairs of differing lengths."""
    return [
        {
            "id": f"pair-{n}",
            "prompt": f"How many legs have {n} spiders?",
            "response_a": f"{8 * n} legs." + " Spiders have eight legs each." * (n % 4),
            "response_b": "I do not know." + " Let me think." * (n % 3),
            "tags": {"number": n},
        }
        for n in range(count)
    ]


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Twelve small pairs in a file."""
    return write_lines(tmp_path / "pairs.jsonl", made_pairs(12))
