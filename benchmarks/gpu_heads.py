"""Fine-tuning reward heads on a GPU: tokens a second, how much of the GPU is used, memory, and prompts computed once.

    python -m benchmarks.gpu_heads [--pairs 3000] [--batch-tokens 16384] [--checkpointing] [--peak TFLOPS]

A Qwen3 with random weights, 1.0 billion of them in its 20 blocks and as many embeddings beside them as Qwen3 has,
learns three objectives from the hh-rlhf pairs where this machine has them, else from those of `examples/`, repeated.
`full` mode, bfloat16 with float32 weights, AdamW. The first steps, in which kernels are compiled, are not counted, nor
is saving. Once with the prompt of a pair computed once, by flex attention, and once with both conversations whole, in
padded batches of the same budget by SDPA.

Model FLOP utilisation: 6 x parameters of the blocks x tokens, and 12 x layers x width of all heads x keys that tokens
see, for attention; what is computed for pads or twice counts nothing. The peak is that of the GPU's data sheet for
dense bfloat16. Without a GPU it runs small, to show that it runs: these figures say nothing of a GPU.
"""

from __future__ import annotations

import argparse
import gc
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import (
    Qwen3ForSequenceClassification,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.utils import logging

from benchmarks.common import SHARED_PAIRS, keep, print_table, real_pairs
from benchmarks.qwen3 import Size, make_qwen3
from rlaif.rewards.finetune import FinetuneSettings, finetune
from rlaif.rewards.head_trainer import HeadTrainer
from rlaif.rewards.model import load_backbone
from rlaif.rewards.schedule import Plan
from rlaif.rewards.scoring_model import EncodedPreferences
from rlaif.rewards.tokens import EncodedPair
from rlaif.types import Pair

OBJECTIVES = ("helpfulness", "harmlessness", "honesty")
LENGTH = 2048
# TFLOP/s, dense bfloat16, by what the GPU's name holds; the first that fits.
_PEAKS = (
    ("H100 PCIe", 756.0), ("H100 NVL", 835.0), ("H100", 989.0), ("H200", 989.0), ("B200", 2250.0),
    ("A100", 312.0), ("L40S", 362.0), ("L4", 121.0), ("A10", 125.0), ("4090", 165.0),
)  # fmt: skip
# Part of the steps that come before the clock starts.
_WARM_UP = 0.2


LARGE = Size(2048, 6144, 20, 16, 8, 128, 151_936)
SMALL = Size(256, 640, 6, 4, 2, 64, 8192)


class Speed(NamedTuple):
    """One training's steady steps: `computed` tokens are what goes through the model, `flops` what they ask for."""

    seconds: float
    steps: int
    pairs: int
    computed: int
    flops: float
    memory_gib: float


class Clock(TrainerCallback):
    """Seconds from the first step that counts to the last, and the most memory by then."""

    def __init__(self) -> None:
        self.plan: Plan | None = None
        self.first = 0
        self.seconds, self.memory_gib = 0.0, 0.0

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step == self.first:
            synchronize()
            self.seconds = time.perf_counter()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step == state.max_steps:
            synchronize()
            self.seconds = time.perf_counter() - self.seconds
            self.memory_gib = peak_memory()


def synchronize() -> None:
    """Wait for the GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_memory() -> float:
    """GiB: of the GPU since it was last reset, or of this process from its start."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


@contextmanager
def clocked() -> Iterator[Clock]:
    """Put a clock into the trainer that is made within."""
    clock, begin = Clock(), HeadTrainer.train

    def train(self: HeadTrainer, *arguments: Any, **options: Any) -> Any:
        clock.plan = self.plan
        clock.first = min(int(_WARM_UP * self.plan.steps) + 1, self.plan.steps - 1)
        self.add_callback(clock)
        return begin(self, *arguments, **options)

    HeadTrainer.train = train  # type: ignore[method-assign,assignment]
    try:
        yield clock
    finally:
        HeadTrainer.train = begin  # type: ignore[method-assign]


def make_model(folder: Path, size: Size, device: str) -> Path:
    """Write a Qwen3 with random weights; its tokenizer has learned from the pairs."""
    config = make_qwen3(folder, size, LENGTH, tie_word_embeddings=True)
    config.num_labels = len(OBJECTIVES)
    torch.manual_seed(0)
    with torch.device(device):
        model = Qwen3ForSequenceClassification(config)  # type: ignore[no-untyped-call]
    model.to(torch.bfloat16).save_pretrained(folder)  # type: ignore[arg-type]
    return folder


def keys_seen(pair: EncodedPair, *, shared: bool) -> int:
    """Over all tokens of a pair, the keys that each one sees, itself included."""
    prefix, sides = len(pair.prefix), (len(pair.a), len(pair.b))
    if not shared:
        return sum((prefix + side) * (prefix + side + 1) // 2 for side in sides)
    return prefix * (prefix + 1) // 2 + sum(side * prefix + side * (side + 1) // 2 for side in sides)


def tokens_of(pair: EncodedPair, *, shared: bool) -> int:
    """Tokens that are computed."""
    return pair.tokens if shared else sum(len(ids) for ids in pair.conversations)


def measure(model: Path, rows: Sequence[dict[str, Any]], given: argparse.Namespace, *, shared: bool) -> Speed:
    """Train once."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        # What the training before has left in cycles.
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    backbone = load_backbone(
        str(model),
        OBJECTIVES,
        max_length=LENGTH,
        device=device,
        dtype=torch.float32,
        seed=0,
        attention="auto" if shared else "sdpa",
    )
    assert backbone.one_pass, "this model takes no pair in one pass"
    backbone.one_pass = shared
    pairs = backbone.encoder.pairs([Pair.model_validate(row) for row in rows])
    draw = np.random.default_rng(0)
    shape = len(pairs), len(OBJECTIVES)
    data = EncodedPreferences(OBJECTIVES, pairs, draw.random(shape), np.ones(shape), np.arange(len(pairs)))
    settings = FinetuneSettings(
        epochs=1,
        batch_tokens=given.batch_tokens,
        precision="bfloat16",
        gradient_checkpointing=given.checkpointing,
        # Once, at the end.
        save_steps=10**9,
    )
    with tempfile.TemporaryDirectory() as folder, clocked() as clock:
        finetune(backbone, data, None, mode="full", settings=settings, folder=Path(folder))
    assert clock.plan is not None
    counted = [pairs[row] for batch in clock.plan.batches[clock.first :] for row in batch]
    config = backbone.model.config
    blocks = sum(each.numel() for name, each in backbone.model.named_parameters() if ".layers." in name)
    computed = sum(tokens_of(pair, shared=shared) for pair in counted)
    seen = sum(keys_seen(pair, shared=shared) for pair in counted)
    attention = 12 * config.num_hidden_layers * config.num_attention_heads * config.head_dim * seen
    flops = 6 * blocks * computed + attention
    steps = clock.plan.steps - clock.first
    return Speed(clock.seconds, steps, len(counted), computed, float(flops), clock.memory_gib)


def peak_of(name: str) -> float | None:
    """TFLOP/s of a GPU, if it is known."""
    return next((peak for part, peak in _PEAKS if part in name), None)


def main() -> None:
    """Train both ways and print the table."""
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3000 if gpu else 24)
    parser.add_argument("--batch-tokens", type=int, default=16_384 if gpu else 4096)
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing")
    parser.add_argument("--peak", type=float, help="TFLOP/s of the GPU, dense bfloat16; by default by its name")
    parser.add_argument("--small", action="store_true", help="the small model also on a GPU")
    given = parser.parse_args()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    name = torch.cuda.get_device_name() if gpu else "no GPU"
    peak = given.peak or peak_of(name)
    size = LARGE if gpu and not given.small else SMALL
    if not gpu:
        print("No GPU here: a small model and few pairs, to show that it runs; the figures say nothing of a GPU.\n")
    real = real_pairs()
    rows = [{**real[place % len(real)], "id": str(place)} for place in range(given.pairs)]
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(Path(folder) / "model", size, "cuda" if gpu else "cpu")
        for way, shared in (("prompt once", True), ("both conversations", False)):
            found[way] = measure(model, rows, given, shared=shared)
    used = {way: each.flops / each.seconds / 1e12 for way, each in found.items()}
    once, apart = found.values()
    lines = [
        (
            way,
            f"{each.pairs / each.seconds:.1f}",
            f"{each.computed / each.seconds:,.0f}",
            f"{used[way]:.3g}",
            f"{used[way] / peak:.1%}" if peak else "–",
            f"{each.memory_gib:.1f}",
        )
        for way, each in found.items()
    ]
    head = ("", "pairs/s", "tokens/s", "model TFLOP/s", "of the peak", "peak memory, GiB")
    print_table(head, lines)
    # By what every pair takes: the first steps that are left out hold other pairs each time.
    saved = 1 - (once.computed / once.pairs) / (apart.computed / apart.pairs)
    faster = (once.pairs / once.seconds) / (apart.pairs / apart.seconds)
    print(f"\n{name}; {once.steps} steps counted, batches of {given.batch_tokens:,} tokens")
    print(f"computing the prompt once: {saved:.0%} fewer tokens, {faster:.2f} times the pairs a second")
    keep(
        "gpu_heads",
        {
            "gpu": name,
            "peak_tflops": peak,
            "model": size._asdict(),
            "data": "hh-rlhf" if SHARED_PAIRS.is_file() else "examples",
            "pairs": given.pairs,
            "batch_tokens": given.batch_tokens,
            "gradient_checkpointing": given.checkpointing,
            **{
                way: {
                    **{key: round(value, 3) for key, value in each._asdict().items()},
                    "utilisation": round(used[way] / peak, 4) if peak else None,
                }
                for way, each in found.items()
            },
            "tokens_saved": round(saved, 3),
            "times_faster": round(faster, 2),
        },
    )


if __name__ == "__main__":
    main()
