"""What rlaif costs on top of vLLM in one process, and what sharing prefixes saves.

    .venv-vllm/bin/python -m benchmarks.vllm_engine [--pairs 100] [--hidden 512] [--layers 8] [--max-tokens 32]

`make vllm-test` sets up its virtual environment. Overhead: the pipeline of `rlaif label` (reading, rendering,
tokenizing, ledger, labels) with vLLM in this process, against bare `LLM.generate` on the very token sequences it sent,
rationales first, then verdicts. Both on the same engine, in turn, each after its prefix cache was cleared. Prefix
sharing: vLLM's own counters of prompt tokens, and of those that its cache held, for three objectives and both orders.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.common import keep, print_table, real_pairs, write_pairs
from examples.tiny_judge import make_tiny_judge
from rlaif.constitution import load_constitution
from rlaif.data.pairs import Reject, read_pairs
from rlaif.data.sources import open_source
from rlaif.engines.base import Engine, EngineArgs, identify
from rlaif.engines.vllm import VllmEngine
from rlaif.labeling.ask import Asker
from rlaif.labeling.plan import Planner
from rlaif.labeling.verdicts import read_choice
from rlaif.labeling.write import write_labels
from rlaif.prompts import load_template
from rlaif.store import Ledger
from rlaif.types import Completion, JudgeRequest, Provenance


class Recording:
    """An engine that notes what is sent to vLLM, and is not closed with the run."""

    name = "vllm"
    atomic_batch: int | None = None

    def __init__(self, engine: VllmEngine) -> None:
        self.engine = engine
        self.details: Mapping[str, Any] = engine.details
        self.sent: list[tuple[list[int], Any]] = []
        self.notes = True
        add = engine._llm.llm_engine.add_request

        def noted(name: str, prompt: Any, params: Any, *more: Any, **named: Any) -> Any:
            if self.notes:
                self.sent.append((prompt["prompt_token_ids"], params))
            return add(name, prompt, params, *more, **named)

        engine._llm.llm_engine.add_request = noted

    def complete(self, requests: Iterable[JudgeRequest]) -> Iterator[Completion]:
        """Answer as vLLM does."""
        return self.engine.complete(requests)

    def close(self) -> None:
        """The engine is used again."""


def label_once(engine: Engine, judge: str, data: Path, out: Path, template_name: str, max_tokens: int) -> int:
    """The whole of a run but the loading of the model; how many judgments it made."""
    constitution, template = load_constitution("hhh"), load_template(template_name)
    objectives = tuple(constitution.objectives)
    identity = identify(judge)
    planner = Planner(constitution, template, identity.digest, objectives=objectives, max_tokens=max_tokens)
    source = open_source(str(data))
    out.mkdir()
    with closing(Ledger(out / "judgments.db")) as ledger:
        ledger.begin(0, constitution.digest, template.digest, identity.digest)
        asker = Asker(ledger, lambda done: read_choice(template.head.choices, done), lambda: engine, None)
        rows = (row for row in read_pairs(source, {}) if not isinstance(row, Reject))
        asker.run(request for row in rows for request in planner.requests(row[1]))
        provenance = Provenance(judge="bench", constitution="hhh", template=template_name, rlaif="bench")
        write_labels(read_pairs(source, {}), ledger, constitution, objectives, provenance, out)
    return asker.tally.asked


def bare_generate(engine: VllmEngine, sent: list[tuple[list[int], Any]]) -> float:
    """Seconds of `LLM.generate` on the same token sequences and sampling: all rationales, then all verdicts."""
    llm = engine._llm
    start = time.perf_counter()
    for reads in (False, True):
        part = [(ids, params) for ids, params in sent if (params.max_tokens == 1) == reads]
        if part:
            llm.generate([{"prompt_token_ids": ids} for ids, _ in part], [params for _, params in part], use_tqdm=False)
    return time.perf_counter() - start


def cached_share(before: Mapping[str, float], after: Mapping[str, float]) -> tuple[float, float]:
    """Prompt tokens, and those of them that the prefix cache held, between two readings of vLLM's counters."""
    asked = after["vllm:prefix_cache_queries"] - before["vllm:prefix_cache_queries"]
    held = after["vllm:prefix_cache_hits"] - before["vllm:prefix_cache_hits"]
    return asked, held


def main() -> None:
    """Measure both templates."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rows, figures = [], {}
    with tempfile.TemporaryDirectory() as folder:
        texts = [str(pair["response_a"]) for pair in real_pairs()]
        judge = str(
            make_tiny_judge(
                Path(folder) / "judge", texts, hidden=options.hidden, layers=options.layers, vocabulary=8192
            )
        )
        data = write_pairs(Path(folder) / "pairs.jsonl", options.pairs)
        engine = VllmEngine(identify(judge), EngineArgs({"disable_log_stats": "false"}))
        recording = Recording(engine)
        for template in ("pairwise-cot", "direct"):
            ours, bare, asked, prefill = [], [], 0, (0.0, 0.0)
            for number in range(options.rounds + 1):
                recording.sent.clear()
                engine._llm.reset_prefix_cache()
                before = engine.metrics()
                start = time.perf_counter()
                out = Path(folder) / f"{template}{number}"
                asked = label_once(recording, judge, data, out, template, options.max_tokens)
                took = time.perf_counter() - start
                prefill = cached_share(before, engine.metrics())
                engine._llm.reset_prefix_cache()
                recording.notes = False
                alone = bare_generate(engine, recording.sent)
                recording.notes = True
                if number:  # the first round warms both up
                    ours.append(took)
                    bare.append(alone)
            ratio = statistics.median(o / b for o, b in zip(ours, bare, strict=True))
            share = 1 - prefill[1] / prefill[0]
            rows.append((template, f"{asked:,}", f"{ratio:.3f}", f"{prefill[0]:,.0f}", f"{share:.1%}"))
            figures[template] = {
                "wall_of_bare": round(ratio, 4),
                "prefilled_share": round(share, 4),
                "judgments": asked,
            }
        engine.close()
    head = (
        "template",
        "judgments",
        "wall time of bare LLM.generate",
        "prompt tokens",
        "prefilled of those without sharing",
    )
    print_table(head, rows)
    keep("vllm_engine", {**figures, "hidden": options.hidden, "layers": options.layers, "pairs": options.pairs})


if __name__ == "__main__":
    main()
