"""Labels of two Ray replicas against those of one process, and with a replica killed in the middle.

    python -m benchmarks.ray_replicas            # all pairs, both orders, three objectives
    python -m benchmarks.ray_replicas --small    # one order, one objective

The judge is `examples/tiny_judge.py`: its weights are random, so the labels mean nothing, but they differ from pair to
pair and their last digits move with the batch. What is compared is `labels.jsonl`, byte by byte. Where one process
fills all cores already the times tell what Ray costs, not what a cluster gains.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.common import ROOT, keep, print_table, write_pairs
from examples.tiny_judge import make_tiny_judge


def answered(run: Path) -> int:
    """How many answers a run holds by now."""
    try:
        with sqlite3.connect(f"file:{run / 'judgments.db'}?mode=ro", uri=True) as db:
            return int(db.execute("SELECT count(*) FROM completions").fetchone()[0])
    except sqlite3.Error:
        return 0


def replicas_of(driver: int) -> list[int]:
    """The processes in which the replicas of a command run."""
    children = psutil.Process(driver).children(recursive=True)
    return [each.pid for each in children if each.name().startswith("ray::Replica")]


def label(run: Path, options: list[str], kill_at: int | None) -> dict[str, Any]:
    """Run the command to its end; with `kill_at` a replica is killed once so many answers are there."""
    command = [sys.executable, "-m", "rlaif", "label", *options, "--out", str(run), "--json"]
    began = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    killed = None
    while kill_at is not None and process.poll() is None and killed is None:
        time.sleep(0.05)
        if answered(run) >= kill_at and (there := replicas_of(process.pid)):
            killed = answered(run)
            os.kill(there[0], signal.SIGKILL)
    out, err = process.communicate()
    if process.returncode:
        sys.exit(err)
    summary = json.loads(out)
    digest = hashlib.sha256((run / "labels.jsonl").read_bytes()).hexdigest()
    return {
        "judgments": summary["judgments"],
        "asked": summary["asked"],
        "killed_at": killed,
        "answering_s": round(summary["seconds"], 1),
        "whole_s": round(time.monotonic() - began, 1),
        "labels": digest[:16],
    }


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=1200)
    parser.add_argument("--small", action="store_true", help="one order, one objective")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        judge = make_tiny_judge(folder / "judge", hidden=64, layers=1)
        options = [str(write_pairs(folder / "pairs.jsonl", given.pairs)), "--judge", str(judge), "--template", "direct"]
        options += ["--orders", "ab", "--objective", "helpfulness"] if given.small else []
        requests = given.pairs * (1 if given.small else 6)
        ray = [*options, "--engine", "ray", "--replicas", "2"]
        figures: dict[str, Any] = {"pairs": given.pairs, "requests": requests}
        figures["one process"] = label(folder / "one", [*options, "--engine", "transformers"], None)
        figures["two replicas"] = label(folder / "two", ray, None)
        figures["two replicas, one killed"] = label(folder / "killed", ray, requests // 3)
    runs = {name: value for name, value in figures.items() if isinstance(value, dict)}
    print_table(
        ["run", "judgments", "asked", "killed after", "answering, s", "whole, s", "labels.jsonl"],
        [[name, *(value if value is not None else "" for value in run.values())] for name, run in runs.items()],
    )
    same = len({run["labels"] for run in runs.values()}) == 1
    print(f"labels.jsonl: {'the same bytes' if same else 'NOT the same'}")
    keep("ray_replicas", {**figures, "same_labels": same})


if __name__ == "__main__":
    main()
