"""rlaif beside what else does its work, in one run: labelling, training of reward models, and scoring.

    python -m benchmarks.compare_peers [--parts labelling training scoring] [--rounds 3] [--scale 1.0]

Labelling: distilabel, alpaca_eval and prometheus-eval, each in a virtual environment of its own below `--venvs` (made
when it is not there) and a process of its own, on the same pairs against the same stub, which answers at once: what is
measured is the client. Training: TRL's RewardTrainer, as in `heads_speed`. Scoring: a loop over a classification model
of transformers. All take turns; ratios are of one round, and what is told is their median with the lowest and highest.
Processor seconds are told beside the clock's, as they move less on a busy machine. `benchmarks/README.md` says how each
one is set up.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from benchmarks.common import ROOT, SHARED_PAIRS, keep, print_table, real_pairs
from benchmarks.heads_speed import make_model, read_pairs, run_ours, run_trl
from benchmarks.peers.labelling import label_all
from benchmarks.peers.scoring import models, score_both

GOALS = {"labelling": 25.0, "training": 6.0, "scoring": 2.0}
PARTS = tuple(GOALS)


def verdict(times: float, goal: float) -> str:
    """Whether a ratio reaches its goal, in words."""
    if times >= goal:
        return "reached"
    return f"not reached: {times:.1f} of {goal:g}" if times >= 1 else f"behind: {times:.2f} times"


def spread(figures: dict[str, float], digits: int = 0) -> str:
    """Median, lowest and highest."""
    return f"{figures['median']:,.{digits}f} ({figures['min']:,.{digits}f} to {figures['max']:,.{digits}f})"


def labelling(given: argparse.Namespace) -> dict[str, Any]:
    """Label with all, and print the table."""
    found = label_all(given.venvs, given.rounds, given.scale)
    lines = []
    for title, each in found["labelling"].items():
        times = each.get("times")
        lines.append(
            (
                title,
                ", ".join(f"{name} {value}" for name, value in each["settings"].items()),
                each["calls_per_pair"],
                spread(each["pairs_per_s"]),
                f"{each['calls_per_s']['median']:,.0f}",
                f"{each['pairs_per_processor_s']['median']:,.0f}",
                spread(times, 1) if times else "",
                f"{each['times_by_processor']['median']:.1f}" if times else "",
                verdict(times["median"], GOALS["labelling"]) if times else "",
            )
        )
    head = ("", "settings", "calls a pair", "pairs/s", "calls/s", "pairs a processor second", "rlaif's times",
            "by processor time", f"goal {GOALS['labelling']:g}")  # fmt: skip
    print_table(head, lines)
    for tool, versions in found["versions"].items():
        print(f"{tool}: " + ", ".join(f"{name} {version}" for name, version in versions.items()))
    return found


def training(given: argparse.Namespace) -> dict[str, Any]:
    """Train with TRL and with ours, in turns: one objective there, three here, and one here as well."""
    objectives = ("helpfulness", "harmlessness", "honesty")
    pairs = read_pairs(max(16, int(192 * given.scale)))
    texts = [row[side] for row in real_pairs() for side in ("response_a", "response_b")]
    named: dict[str, Any] = {"bf16": True, "device": "cpu"}
    rounds: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(Path(folder) / "model", texts)
        for _ in range(given.rounds):
            trl, kept = run_trl(model, pairs, batch=8, **named)
            assert kept == len(pairs), "TRL left pairs out"
            three = run_ours(model, pairs, objectives, budget=8192, **named)[0]
            one = run_ours(model, pairs, objectives[:1], budget=8192, **named)[0]
            for name, seconds, times in (("trl", trl, 1), ("three", three, 3), ("one", one, 1)):
                rounds.setdefault(name, []).append((times / seconds.wall, times / seconds.processor))
    found: dict[str, Any] = {"pairs": len(pairs)}
    titles = {"trl": "TRL RewardTrainer", "three": "rlaif, three objectives", "one": "rlaif, one objective"}
    lines = []
    for name, title in titles.items():
        ratios = [mine[0] / trl[0] for mine, trl in zip(rounds[name], rounds["trl"], strict=True)]
        paid = [mine[1] / trl[1] for mine, trl in zip(rounds[name], rounds["trl"], strict=True)]
        each = {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}
        rate = len(pairs) * statistics.median(wall for wall, _ in rounds[name])
        found[name] = {
            "pairs_objectives_per_s": round(rate, 2),
            "times": {key: round(value, 2) for key, value in each.items()},
            "times_by_processor": round(statistics.median(paid), 2),
        }
        told = verdict(each["median"], GOALS["training"]) if name == "three" else ""
        lines.append((title, f"{rate:.1f}", spread(each, 1), f"{statistics.median(paid):.1f}", told))
    head = ("", "pairs x objectives/s", "of TRL's", "by processor time", f"goal {GOALS['training']:g} per objective")
    print_table(head, lines)
    return found


def scoring(given: argparse.Namespace) -> dict[str, Any]:
    """Score with the loops and with ours, and print the table."""
    found, lines = {}, []
    with tempfile.TemporaryDirectory() as folder:
        for name, source in models(Path(folder)).items():
            each = found[name] = score_both(name, source, max(16, int(150 * given.scale)), given.rounds)
            lines.append((name, "rlaif score", f"{each['responses_per_s']:.1f}", "", "", ""))
            for way, loop in each["ways"].items():
                best = way in (each["as given"]["best"], each["by length"]["best"])
                low, high = loop["times_from_to"]
                lines.append(
                    (
                        name,
                        way,
                        f"{loop['responses_per_s']:.1f}",
                        f"{loop['times']:.1f} ({low:.1f} to {high:.1f})",
                        f"{loop['times_by_processor']:.1f}",
                        verdict(loop["times"], GOALS["scoring"]) if best else "",
                    )
                )
    head = ("model", "", "responses/s", "rlaif's times", "by processor time", f"goal {GOALS['scoring']:g}")
    print_table(head, lines)
    return found


def main() -> None:
    """Run the parts and keep their figures; those of a part that is not run stay."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="of how many pairs there are in each part")
    parser.add_argument("--venvs", type=Path, default=ROOT / ".venv-peers", help="where the peers are installed")
    given = parser.parse_args()
    given.venvs = given.venvs.resolve()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    parts = {"labelling": labelling, "training": training, "scoring": scoring}
    kept = ROOT / "benchmarks" / "results" / "compare_peers.json"
    figures: dict[str, Any] = json.loads(kept.read_text())["figures"] if kept.is_file() else {}
    figures |= {"data": "hh-rlhf" if SHARED_PAIRS.is_file() else "examples", "goals": GOALS}
    for part in given.parts:
        load = os.getloadavg()[0]
        print(f"\n## {part}\n")
        figures[part] = {
            **parts[part](given),
            "load_before": round(load, 1),
            "load_after": round(os.getloadavg()[0], 1),
        }
        print(
            f"load {load:.1f} when it began, {os.getloadavg()[0]:.1f} when it ended; {torch.get_num_threads()} threads"
        )
    keep("compare_peers", figures)


if __name__ == "__main__":
    main()
