"""Labelling on a GPU: judgments and tokens a second, the share of the bare engine's throughput, and what is shared.

    python -m benchmarks.gpu_label [--engines transformers vllm] [--pairs 100] [--max-tokens 128] [--rounds 3]

A Qwen3 of 8.2 billion parameters (its width, layers, heads and vocabulary) with dummy weights, bfloat16, judges the
hh-rlhf pairs where this machine has them, else those of `examples/`: three objectives, both orders, with a rationale
and without. vLLM is measured where it is installed.

Ours is the pipeline of `rlaif label`: reading, rendering, tokenizing, ledger, labels. The bare engine gets the very
token sequences that ours sent, with the same sampling, from memory: `vllm.LLM.generate`, all rationales and then all
verdicts; `model.generate` in left-padded batches of like length and of the same budget. A share above 1 says that what
requests have in common was read once. Both take turns on one loaded model, vLLM's prefix cache emptied before each;
the first round warms both up. Prefixes: vLLM's own counters; of the transformers engine, the prompt tokens that went
through the model, against those that were asked for.

Weights that mean nothing write rationales of full length, without a stop: the tokens of a judgment are the most that it
may take. Without a GPU it runs small, to show that it runs: these figures say nothing of a GPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.common import SHARED_PAIRS, keep, print_table, write_pairs
from benchmarks.qwen3 import Size, make_qwen3
from benchmarks.vllm_engine import Recording, bare_generate, cached_share, label_once
from rlaif.engines.base import EngineArgs, ModelIdentity, identify
from rlaif.engines.kv_cache import Rows
from rlaif.engines.transformers import TransformersEngine
from rlaif.engines.vllm import VllmEngine
from rlaif.types import Completion, JudgeRequest

TEMPLATES = ("pairwise-cot", "direct")
LENGTH = 4096


LARGE = Size(4096, 12_288, 36, 32, 8, 128, 151_936)
# More words than its tokenizer has, as the large one too.
SMALL = Size(128, 256, 2, 2, 1, 64, 12_000)


class Sent(NamedTuple):
    """A token sequence as it was given to the model, and how many tokens were to come after it."""

    ids: list[int]
    tokens: int


class Round(NamedTuple):
    """One turn of both."""

    ours_s: float
    bare_s: float


class Measured(NamedTuple):
    """What one engine did with one template; tokens are those of one run."""

    judgments: int
    prompt_tokens: int
    new_tokens: int
    not_read: int
    rounds: list[Round]


def write_judge(folder: Path, size: Size) -> Path:
    """Write all of a judge but its weights."""
    make_qwen3(folder, size, LENGTH, tie_word_embeddings=False, architectures=["Qwen3ForCausalLM"], dtype="bfloat16")
    return folder


class DummyTransformers(TransformersEngine):
    """The transformers engine with weights drawn where they are computed with.

    Attributes:
        sent: what was given to the model, while `notes`.
        read: how many prompt tokens went through it, while `notes`.
    """

    def __init__(self, model: ModelIdentity, args: EngineArgs) -> None:
        self.sent: list[Sent] = []
        self.read = 0
        self.notes = True
        self._writes = False
        super().__init__(model, args)
        self._model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _load(self, source: str, dtype: str, hub: dict[str, Any]) -> Any:
        wanted = torch.bfloat16 if self._device.type == "cuda" else torch.float32
        torch.manual_seed(0)
        with torch.device(self._device):
            config = AutoConfig.from_pretrained(source)
            model = AutoModelForCausalLM.from_config(config, dtype=wanted)  # type: ignore[no-untyped-call]
        return model.eval()

    def _count(self, module: Any, arguments: Any, named: dict[str, Any]) -> None:
        ids, mask = named["input_ids"], named.get("attention_mask")
        if self.notes and not (self._writes and ids.shape[1] == 1):
            # The mask also covers what is in the cache; pads are no tokens.
            self.read += int(ids.numel() if mask is None else mask[:, -ids.shape[1] :].sum())

    def _write(self, batch: list[tuple[JudgeRequest, int]], rows: Rows, prompts: Mapping[str, str]) -> list[Any]:
        if self.notes:
            self.sent += [Sent(list(ids), limit) for ids, (_, limit) in zip(rows._rows, batch, strict=True)]
        self._writes = True
        try:
            return super()._write(batch, rows, prompts)
        finally:
            self._writes = False

    def _choices(self, requests: list[JudgeRequest], rows: Rows) -> list[tuple[dict[str, float], int]]:
        if self.notes:
            self.sent += [Sent(list(ids), 1) for ids in rows._rows]
        return super()._choices(requests, rows)


class Kept:
    """An engine that is not closed with a run."""

    atomic_batch: int | None = None

    def __init__(self, engine: TransformersEngine) -> None:
        self.engine, self.name, self.atomic_batch = engine, engine.name, engine.atomic_batch
        self.details: Mapping[str, Any] = engine.details

    def complete(self, requests: Iterable[JudgeRequest]) -> Iterator[Completion]:
        """Answer as the engine does."""
        return self.engine.complete(requests)

    def close(self) -> None:
        """The engine is used again."""


def synchronize() -> None:
    """Wait for the GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def generate_all(engine: DummyTransformers, sent: Sequence[Sent]) -> None:
    """`model.generate` alone: rationales, then verdicts, in batches of like length and of the engine's budget."""
    for reads in (False, True):
        left = sorted((one for one in sent if (one.tokens == 1) == reads), key=lambda one: -len(one.ids) - one.tokens)
        while left:
            longest = len(left[0].ids) + left[0].tokens
            count = max(1, engine._batch_tokens // longest)
            batch, left = left[:count], left[count:]
            width = max(len(one.ids) for one in batch)
            ids = torch.tensor([[engine._pad] * (width - len(one.ids)) + one.ids for one in batch])
            mask = torch.tensor([[0] * (width - len(one.ids)) + [1] * len(one.ids) for one in batch])
            with torch.inference_mode():
                engine._model.generate(
                    input_ids=ids.to(engine._device),
                    attention_mask=mask.to(engine._device),
                    max_new_tokens=max(one.tokens for one in batch),
                    do_sample=False,
                )


def _timed(work: Callable[[], object]) -> float:
    synchronize()
    start = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - start


def run_transformers(judge: Path, data: Path, folder: Path, given: argparse.Namespace, template: str) -> Measured:
    """Label with the transformers engine and generate with its model, in turns."""
    engine = DummyTransformers(identify(str(judge)), EngineArgs({}))
    kept = Kept(engine)

    def ours(number: int) -> int:
        out = folder / f"transformers-{template}{number}"
        return label_once(kept, str(judge), data, out, template, given.max_tokens)

    # Noting takes time: the first round, in which it is done, is not counted.
    judgments = ours(0)
    engine.notes = False
    generate_all(engine, engine.sent[:64])
    rounds = [
        Round(_timed(partial(ours, number)), _timed(partial(generate_all, engine, engine.sent)))
        for number in range(1, given.rounds + 1)
    ]
    asked, new = sum(len(one.ids) for one in engine.sent), sum(one.tokens for one in engine.sent)
    engine.close()
    return Measured(judgments, asked, new, asked - engine.read, rounds)


def run_vllm(judge: Path, data: Path, folder: Path, given: argparse.Namespace) -> dict[str, Measured]:
    """Label with vLLM in this process and generate with its `LLM`, in turns; one load for all templates."""
    options = {"load_format": "dummy", "disable_log_stats": "false", "max_model_len": str(LENGTH)}
    engine = VllmEngine(identify(str(judge)), EngineArgs(options))
    recording = Recording(engine)
    found = {}
    for template in TEMPLATES:
        rounds, judgments, counters = [], 0, (0.0, 0.0)
        for number in range(given.rounds + 1):
            recording.sent.clear()
            engine._llm.reset_prefix_cache()
            before, out = engine.metrics(), folder / f"vllm-{template}{number}"
            start = time.perf_counter()
            judgments = label_once(recording, str(judge), data, out, template, given.max_tokens)
            took = time.perf_counter() - start
            counters = cached_share(before, engine.metrics())
            engine._llm.reset_prefix_cache()
            recording.notes = False
            alone = bare_generate(engine, recording.sent)
            recording.notes = True
            if number:
                rounds.append(Round(took, alone))
        prompt, new = sum(len(ids) for ids, _ in recording.sent), sum(params.max_tokens for _, params in recording.sent)
        not_read = int(prompt * counters[1] / counters[0]) if counters[0] else 0
        found[template] = Measured(judgments, prompt, new, not_read, rounds)
    engine.close()
    return found


def figures_of(one: Measured) -> dict[str, Any]:
    """Rates of the median round."""
    ours = statistics.median(each.ours_s for each in one.rounds)
    shares = [each.bare_s / each.ours_s for each in one.rounds]
    return {
        "judgments": one.judgments,
        "judgments_per_s": round(one.judgments / ours, 2),
        "new_tokens_per_s": round(one.new_tokens / ours, 1),
        "prompt_tokens_per_s": round(one.prompt_tokens / ours, 1),
        "of_the_bare_engine": round(statistics.median(shares), 3),
        "of_the_bare_engine_from_to": [round(min(shares), 3), round(max(shares), 3)],
        "prompt_tokens": one.prompt_tokens,
        "prefix_hit_rate": round(one.not_read / one.prompt_tokens, 4),
    }


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print the table and keep the figures."""
    gpu = torch.cuda.is_available()
    known = ["transformers"] + ["vllm"] * (importlib.util.find_spec("vllm") is not None)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="+", choices=("transformers", "vllm"), default=known)
    parser.add_argument("--pairs", type=int, default=100 if gpu else 4)
    parser.add_argument("--max-tokens", type=int, default=128 if gpu else 16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="the small model also on a GPU")
    parser.add_argument("--keep", default="gpu_label", metavar="NAME", help="of the file of results")
    given = parser.parse_args(arguments)
    # The runs are not to be told of a hub, and vLLM's processes are started anew each.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    name = torch.cuda.get_device_name() if gpu else "no GPU"
    size = LARGE if gpu and not given.small else SMALL
    if not gpu:
        print("No GPU here: a small model and few pairs, to show that it runs; the figures say nothing of a GPU.\n")
    found: dict[str, dict[str, Measured]] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        judge, data = write_judge(folder / "judge", size), write_pairs(folder / "pairs.jsonl", given.pairs)
        if "transformers" in given.engines:
            found["transformers"] = {
                template: run_transformers(judge, data, folder, given, template) for template in TEMPLATES
            }
        if "vllm" in given.engines:
            found["vllm"] = run_vllm(judge, data, folder, given)
    figures = {engine: {name: figures_of(one) for name, one in each.items()} for engine, each in found.items()}
    lines = [
        (
            engine,
            template,
            f"{one['judgments']:,}",
            f"{one['judgments_per_s']:,.1f}",
            f"{one['new_tokens_per_s']:,.0f}",
            f"{one['prompt_tokens_per_s']:,.0f}",
            f"{one['of_the_bare_engine']:.2f}",
            f"{one['prefix_hit_rate']:.1%}",
        )
        for engine, each in figures.items()
        for template, one in each.items()
    ]
    head = ("engine", "template", "judgments", "judgments/s", "new tokens/s", "prompt tokens/s",
            "of the bare engine", "prefix hits")  # fmt: skip
    print_table(head, lines)
    print(f"\n{name}; median of {given.rounds} rounds; {json.dumps(size._asdict())}")
    data_name = "hh-rlhf" if SHARED_PAIRS.is_file() else "examples"
    settings = {"gpu": name, "model": size._asdict(), "data": data_name, "pairs": given.pairs}
    settings |= {"max_tokens": given.max_tokens, "rounds": given.rounds}
    if given.keep:
        keep(given.keep, {**settings, **figures})
    return figures


if __name__ == "__main__":
    main()
