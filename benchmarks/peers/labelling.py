"""Labelling against one stub: every contestant a process of its own, in turns."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.common import ROOT, stub_server, write_pairs
from benchmarks.peers.venvs import PINS, python_of

_WARM_UP = 64


class Contestant(NamedTuple):
    """Who labels, and how.

    Args:
        tool: the name of its driver and of its environment.
        settings: of the driver.
        pairs: under the clock; so many that it is at work for some seconds.
        calls: a pair.
        stub: whether it asks the one that answers in one pass, as servers in general do, or one that continues turns.
    """

    title: str
    tool: str
    settings: dict[str, str]
    pairs: int
    calls: int = 1
    stub: str = "plain"


class Run(NamedTuple):
    """One turn."""

    pairs_per_s: float
    pairs_per_cpu_s: float


_COT = "rlaif, rationale, one order"
_DIRECT = "rlaif, no rationale, one order"
OURS = (
    Contestant(_COT, "rlaif", {"template": "pairwise-cot", "orders": "ab"}, 3000),
    Contestant(_DIRECT, "rlaif", {"template": "direct", "orders": "ab"}, 3000),
    Contestant("rlaif, rationale, both orders", "rlaif", {"template": "pairwise-cot", "orders": "both"}, 2000, 2),
    Contestant(
        "rlaif, both orders, vLLM's two steps",
        "rlaif",
        {"template": "pairwise-cot", "orders": "both"},
        1000,
        4,
        stub="vllm",
    ),
)
# Of each peer the settings that it documents for more speed; the fastest of them goes on to the rounds.
THEIRS: dict[str, tuple[Contestant, ...]] = {
    "distilabel, task alone": tuple(
        Contestant("distilabel, task alone", "distilabel", {"way": "task", "batch": batch}, 600)
        for batch in ("50", "200", "600")
    ),
    "distilabel, pipeline": tuple(
        Contestant("distilabel, pipeline", "distilabel", {"way": "pipeline", "batch": batch}, 1200)
        for batch in ("50", "200", "600")
    ),
    "alpaca_eval": tuple(
        Contestant("alpaca_eval", "alpaca_eval", {"threads": threads}, 128) for threads in ("5", "16", "64")
    ),
    "prometheus-eval": (
        *(
            Contestant("prometheus-eval", "prometheus", {"way": "async", "batch": batch}, 600)
            for batch in ("100", "600")
        ),
        Contestant("prometheus-eval", "prometheus", {"way": "sync"}, 600),
    ),
}
# What a peer asks for is what it is held against: feedback and then a verdict, or the verdict at once.
AGAINST = {title: _DIRECT if title == "alpaca_eval" else _COT for title in THEIRS}


def run_once(one: Contestant, folder: Path, venvs: Path, urls: dict[str, str]) -> tuple[Run, dict[str, str]]:
    """Let one contestant label; its figures, and its versions."""
    python = Path(sys.executable) if one.tool == "rlaif" else python_of(venvs, one.tool)
    data = folder / f"{one.pairs}.jsonl"
    if not data.is_file():
        write_pairs(data, one.pairs + _WARM_UP)
    command = [str(python), "-m", f"benchmarks.peers.ask_{one.tool}", "--url", urls[one.stub], "--pairs", str(data)]
    command += ["--warm-up", str(_WARM_UP)]
    command += [part for name, value in one.settings.items() for part in ("--set", f"{name}={value}")]
    # No hub is asked for anything, and nothing is sent to anyone but the stub.
    quiet = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1"}
    quiet |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "TMPDIR": str(folder), "HF_HOME": str(folder / "hub")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, **quiet}, check=False)
    if done.returncode:
        sys.exit(f"{one.title}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    if found["read"] != one.pairs:
        sys.exit(f"{one.title}: read {found['read']} of {one.pairs} verdicts; a speed without answers is none.")
    return Run(one.pairs / found["wall_s"], one.pairs / found["cpu_s"]), found["versions"]


def _middle(values: Sequence[float]) -> dict[str, float]:
    return {name: round(of(values), 2) for name, of in (("median", statistics.median), ("min", min), ("max", max))}


def label_all(venvs: Path, rounds: int, scale: float) -> dict[str, Any]:
    """Figures of all: rates, calls, and how many times each peer's rate ours is, round by round.

    Args:
        scale: of how many pairs each one labels.
    """
    for name in PINS:
        python_of(venvs, name)
    versions: dict[str, dict[str, str]] = {}
    runs: dict[str, list[Run]] = {}
    chosen: dict[str, Contestant] = {}
    tried: dict[str, dict[str, float]] = {}
    with (
        tempfile.TemporaryDirectory() as name,
        stub_server("--plain", module="benchmarks.peers.stub") as plain,
        stub_server(module="benchmarks.peers.stub") as vllm,
    ):
        folder, urls = Path(name), {"plain": plain, "vllm": vllm}

        def turn(one: Contestant) -> Run:
            found, versions[one.tool] = run_once(one, folder, venvs, urls)
            print(f"{one.title} {one.settings}: {found.pairs_per_s:,.0f} pairs/s", file=sys.stderr, flush=True)
            return found

        def scaled(one: Contestant) -> Contestant:
            return one._replace(pairs=max(32, int(one.pairs * scale)))

        for title, ways in THEIRS.items():
            found = [(turn(scaled(one)).pairs_per_s, scaled(one)) for one in ways]
            tried[title] = {json.dumps(one.settings): round(rate, 1) for rate, one in found}
            chosen[title] = max(found, key=lambda each: each[0])[1]
        everyone = [*map(scaled, OURS), *chosen.values()]
        for number in range(rounds):
            for one in everyone if number % 2 == 0 else everyone[::-1]:
                runs.setdefault(one.title, []).append(turn(one))
    figures: dict[str, Any] = {"versions": versions, "settings_tried": tried, "rounds": rounds, "labelling": {}}
    for one in everyone:
        mine = runs[one.title]
        entry: dict[str, Any] = {
            "settings": one.settings,
            "pairs": one.pairs,
            "calls_per_pair": one.calls,
            "pairs_per_s": _middle([run.pairs_per_s for run in mine]),
            "calls_per_s": _middle([run.pairs_per_s * one.calls for run in mine]),
            "pairs_per_processor_s": _middle([run.pairs_per_cpu_s for run in mine]),
        }
        if one.title in AGAINST:
            ours = runs[AGAINST[one.title]]
            entry["against"] = AGAINST[one.title]
            entry["times"] = _middle([a.pairs_per_s / b.pairs_per_s for a, b in zip(ours, mine, strict=True)])
            entry["times_by_processor"] = _middle(
                [a.pairs_per_cpu_s / b.pairs_per_cpu_s for a, b in zip(ours, mine, strict=True)]
            )
        figures["labelling"][one.title] = entry
    return figures
