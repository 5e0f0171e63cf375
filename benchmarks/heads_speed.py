"""Training reward heads beside TRL's RewardTrainer: same model, same pairs, same machine, one run.

    python -m benchmarks.heads_speed [--pairs 192] [--budget 8192] [--batch 8] [--rounds 2]

A Llama of 6 million parameters with random weights; the hh-rlhf pairs where this machine has them, else those of
`examples/`. Both take whole conversations of up to 2,048 tokens, so that no pair is left out by either, compute in the
same precision, and train all weights. TRL learns one objective, as it can; ours learns three at once. What is compared
is pairs x objectives a second of an epoch: building the trainer, tokenizing and saving are not in it. TRL runs with its
own batches of 8 pairs, drawn and padded; gradient checkpointing, which it has on, is off for both.

Both take turns, and each has its best round: what else the machine does slows them alike.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging

from benchmarks.common import SHARED_PAIRS, keep, print_table, real_pairs
from examples.tiny_judge import make_tiny_judge
from rlaif.rewards.finetune import FinetuneSettings, finetune
from rlaif.rewards.head_trainer import HeadTrainer
from rlaif.rewards.model import Backbone, load_backbone
from rlaif.rewards.scoring_model import EncodedPreferences
from rlaif.types import Message, Pair

_OBJECTIVES = ("helpfulness", "harmlessness", "honesty")
_LENGTH = 2048


class Seconds(NamedTuple):
    """On the wall, and of all processors; the latter are the same on a busy machine."""

    wall: float
    processor: float

    def since(self, other: Seconds) -> Seconds:
        """What has gone by."""
        return Seconds(self.wall - other.wall, self.processor - other.processor)


def now() -> Seconds:
    """Read both clocks."""
    return Seconds(time.perf_counter(), time.process_time())


class _Clock(TrainerCallback):
    """Seconds from the first step of a Trainer to the last: on the wall, and of processors."""

    def __init__(self) -> None:
        self.start: Seconds | None = None
        self.seconds = Seconds(0, 0)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.start = self.start or now()

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.seconds = now().since(self.start or now())


def read_pairs(count: int) -> list[Pair]:
    """The first pairs of the data."""
    rows = real_pairs()
    found = []
    for row in (rows * (1 + count // len(rows)))[:count]:
        prompt = row["prompt"]
        turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        messages = tuple(Message(**turn) for turn in turns)
        found.append(Pair(id=row["id"], prompt=messages, response_a=row["response_a"], response_b=row["response_b"]))
    return found


def make_model(folder: Path, texts: Sequence[str]) -> Path:
    """Write a Llama of 6 million parameters with random weights; its tokenizer has learned from the pairs."""
    make_tiny_judge(folder, texts, vocabulary=8192, context=_LENGTH)
    config = LlamaConfig.from_pretrained(folder)
    torch.manual_seed(0)
    small = LlamaConfig(
        vocab_size=config.vocab_size,
        hidden_size=256,
        intermediate_size=640,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=64,
        max_position_embeddings=_LENGTH,
        pad_token_id=config.pad_token_id,
        eos_token_id=config.eos_token_id,
        bos_token_id=None,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(small).save_pretrained(folder)  # type: ignore[no-untyped-call]
    return folder


def run_ours(
    model: Path, pairs: Sequence[Pair], objectives: Sequence[str], *, budget: int, bf16: bool, device: str
) -> tuple[Seconds, int, Any]:
    """Seconds of one epoch of ours, parameters, and the result."""
    backbone: Backbone = load_backbone(
        str(model), objectives, max_length=_LENGTH, device=torch.device(device), dtype=torch.float32, seed=0
    )
    encoded = backbone.encoder.pairs(pairs)
    assert backbone.encoder.truncated == 0, "a pair is longer than the model takes"
    draw = np.random.default_rng(0)
    shape = len(pairs), len(objectives)
    data = EncodedPreferences(tuple(objectives), encoded, draw.random(shape), np.ones(shape), np.arange(len(pairs)))
    settings = FinetuneSettings(epochs=1, batch_tokens=budget, precision="bfloat16" if bf16 else "float32")
    clock = _Clock()
    with tempfile.TemporaryDirectory() as folder:
        result = _with_clock(clock, lambda: finetune(
            backbone, data, None, mode="full", settings=settings, folder=Path(folder)
        ))  # fmt: skip
    return clock.seconds, backbone.model.num_parameters(), result


def _with_clock(clock: _Clock, work: Callable[[], Any]) -> Any:
    """Run `work` with a clock in every `HeadTrainer` that it makes, and its checkpoints out of the time."""
    begin, save = HeadTrainer.train, HeadTrainer._save_checkpoint
    paused = Seconds(0, 0)

    def train(self: HeadTrainer, *arguments: Any, **options: Any) -> Any:
        self.add_callback(clock)
        return begin(self, *arguments, **options)

    def save_checkpoint(self: HeadTrainer, *arguments: Any, **options: Any) -> None:
        nonlocal paused
        start = now()
        save(self, *arguments, **options)
        took = now().since(start)
        paused = Seconds(paused.wall + took.wall, paused.processor + took.processor)

    HeadTrainer.train, HeadTrainer._save_checkpoint = train, save_checkpoint  # type: ignore[method-assign,assignment]
    try:
        return work()
    finally:
        HeadTrainer.train, HeadTrainer._save_checkpoint = begin, save  # type: ignore[method-assign]
        clock.seconds = clock.seconds.since(paused)


def run_trl(model: Path, pairs: Sequence[Pair], *, batch: int, bf16: bool, device: str) -> tuple[Seconds, int]:
    """Seconds of one epoch of TRL's RewardTrainer, and how many pairs it kept."""
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    rows = [
        {
            "prompt": [turn.model_dump() for turn in pair.prompt],
            "chosen": [{"role": "assistant", "content": pair.response_a}],
            "rejected": [{"role": "assistant", "content": pair.response_b}],
        }
        for pair in pairs
    ]
    with tempfile.TemporaryDirectory() as folder:
        settings = RewardConfig(
            output_dir=folder,
            per_device_train_batch_size=batch,
            num_train_epochs=1,
            max_length=_LENGTH,
            bf16=bf16,
            use_cpu=device == "cpu",
            gradient_checkpointing=False,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            logging_strategy="no",
        )
        clock = _Clock()
        trainer = RewardTrainer(
            model=str(model), args=settings, train_dataset=Dataset.from_list(rows), callbacks=[clock]
        )
        trainer.train()
    return clock.seconds, len(trainer.train_dataset)


def main() -> None:
    """Run both in turns and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=192)
    parser.add_argument("--budget", type=int, default=8192)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--float32", action="store_true")
    arguments = parser.parse_args()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    bf16 = not arguments.float32
    pairs = read_pairs(arguments.pairs)
    texts = [row[side] for row in real_pairs() for side in ("response_a", "response_b")]
    best: dict[str, Seconds] = {}
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(Path(folder) / "model", texts)

        def keep_best(name: str, seconds: Seconds) -> None:
            best[name] = Seconds(*map(min, seconds, best.get(name, seconds)))
            print(f"{name}: {seconds.wall:.1f} s, {seconds.processor:.1f} s of processors", flush=True)

        for _ in range(arguments.rounds):
            seconds, kept = run_trl(model, pairs, batch=arguments.batch, bf16=bf16, device=device)
            assert kept == len(pairs), "TRL left pairs out"
            keep_best("trl", seconds)
            seconds, parameters, result = run_ours(
                model, pairs, _OBJECTIVES, budget=arguments.budget, bf16=bf16, device=device
            )
            keep_best("three", seconds)
            seconds, _, _ = run_ours(model, pairs, _OBJECTIVES[:1], budget=arguments.budget, bf16=bf16, device=device)
            keep_best("one", seconds)
    done = {name: len(pairs) * (3 if name == "three" else 1) for name in best}
    rates = {name: done[name] / seconds.wall for name, seconds in best.items()}
    paid = {name: done[name] / seconds.processor for name, seconds in best.items()}
    saved = 1 - result.tokens / result.tokens_apart
    source = "hh-rlhf" if SHARED_PAIRS.is_file() else "examples"
    names = {"trl": f"TRL RewardTrainer, batches of {arguments.batch}", "one": "rlaif full, one objective",
             "three": "rlaif full, three objectives"}  # fmt: skip
    rows = [
        (
            names[name],
            f"{len(pairs) / best[name].wall:.1f}",
            f"{rates[name]:.1f}",
            f"{rates[name] / rates['trl']:.1f}",
            f"{paid[name] / paid['trl']:.1f}",
        )
        for name in ("trl", "one", "three")
    ]
    precision = "bf16" if bf16 else "float32"
    print(
        f"{len(pairs)} {source} pairs, all kept, at most {_LENGTH} tokens; {parameters / 1e6:.1f}M parameters, "
        f"{precision}, {device}, {torch.get_num_threads()} threads"
    )
    print_table(("", "pairs/s", "pairs x objectives/s", "of TRL's", "by processor time"), rows)
    print(f"computing the prompt once saves {saved:.0%} of {result.tokens_apart:,} tokens")
    keep(
        "heads_speed",
        {
            "pairs": len(pairs),
            "data": source,
            "precision": precision,
            "device": device,
            "threads": torch.get_num_threads(),
            "max_length": _LENGTH,
            "pairs_objectives_per_s": {name: round(rate, 2) for name, rate in rates.items()},
            "of_trl": round(rates["three"] / rates["trl"], 2),
            "of_trl_by_processor_time": round(paid["three"] / paid["trl"], 2),
            "tokens_saved": round(saved, 3),
        },
    )


if __name__ == "__main__":
    main()
