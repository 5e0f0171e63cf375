"""A tiny judge, vLLM in this process, and vLLM's own server: real ones, on the CPU."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from examples.tiny_judge import make_tiny_judge
from tests.conftest import Cli, environment

ROOT = Path(__file__).parents[2]
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture
def command_line() -> Cli:
    """As the fixture `rlaif`, in a new process: vLLM starts processes of its own, which begin as the first one did."""

    def run(*arguments: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "rlaif", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment(), check=False)

    return run


@pytest.fixture(scope="session")
def hh_pairs() -> Path:
    """The 1,200 hh-rlhf pairs."""
    path = ROOT.parent / "shared" / "data" / "hh-rlhf" / "pairs.jsonl"
    if not path.is_file():
        pytest.skip("the real data (../shared/data) is not on this machine")
    return path


@pytest.fixture(scope="session")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with random weights; its tokenizer learnt from a few pairs of ours."""
    rows = [json.loads(line) for line in (ROOT / "tests" / "data" / "pairs.jsonl").read_text().splitlines()]
    texts = [text for row in rows for text in (row["response_a"], row["response_b"])]
    readme = (ROOT / "README.md").read_text()
    return make_tiny_judge(tmp_path_factory.mktemp("models") / "judge", [*texts, readme], vocabulary=2048)


@pytest.fixture(scope="session")
def server(judge: Path) -> Iterator[str]:
    """Address of vLLM's OpenAI-compatible server with the judge, in float32."""
    with serving(judge, "tiny", judge.parent / "server.log", "--dtype", "float32") as url:
        yield url


@contextmanager
def serving(model: Path, name: str, log: Path, *options: str) -> Iterator[str]:
    """Run vLLM's server with a model; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += ["--served-model-name", name, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--enforce-eager", "--block-size", "32", *options]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 240
        while True:
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, "vLLM's server does not start"
            try:
                urllib.request.urlopen(f"{url}/health", timeout=2)
                break
            except OSError:
                time.sleep(0.5)
        yield url
    finally:
        os.killpg(process.pid, 15)
        process.wait(timeout=60)
