"""What a run costs on disk and to take up again: bytes a judgment, time and peak memory, which must stay flat.

    python -m benchmarks.ledger_size [--pairs 1000 3000 10000]

A run is written through the ledger itself: the questions that `rlaif label` plans for different pairs (three
objectives, both orders), answered by rationales of 40 to 120 words. Then the whole command is given: it finds every
answer and writes the labels. Given once more, it finds a run that has ended. Last, the same pairs are made two runs,
and these are merged.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import tempfile
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.common import keep, print_table, run_measured, stub_server, write_pairs
from rlaif.data.pairs import Reject
from rlaif.labeling.api import label_settings
from rlaif.labeling.ask import chunks
from rlaif.labeling.manifest import Manifest, manifest_of, write_manifest
from rlaif.labeling.run import LabelRun
from rlaif.labeling.verdicts import read_answer
from rlaif.store import Ledger
from rlaif.types import Completion, Usage

_WORDS = (
    "Response A answers the question and explains why it is so, while response B only repeats the request, which "
    "helps less. Both are polite and neither says anything that could do harm, but B leaves out what was asked for."
)


def answer(key: str, draws: random.Random) -> Completion:
    """A rationale of realistic length, and log-probabilities of both choices."""
    words = _WORDS.split()
    written = [draws.choice(words) for _ in range(draws.randint(40, 120))]
    p = draws.uniform(0.01, 0.98)
    logprobs = {"A": math.log(p), "B": math.log(0.99 - p)}
    usage = Usage(prompt_tokens=2 * draws.randint(300, 900), completion_tokens=len(written) * 4 // 3)
    return Completion(key=key, rationale=" ".join(written), choice_logprobs=logprobs, usage=usage)


def write_run(data: Path, out: Path, *, most: int | None = None, **options: Any) -> int:
    """Write the ledger and manifest of a run whose questions have answers; returns how many.

    Args:
        most: pairs with answers; all by default.
        options: those of `rlaif.label`.
    """
    run = LabelRun(label_settings(data, out, **options))
    engine, judge = run.resolve_judge()
    planner, draws, count = run.planner(judge), random.Random(0), 0
    out.mkdir()
    with closing(Ledger(out / "judgments.db")) as ledger:
        ledger.begin(0, run.constitution.digest, run.template.digest, judge.digest)
        usable = islice((row[1] for row in run.rows() if not isinstance(row, Reject)), most)
        for requests in chunks((request for pair in usable for request in planner.requests(pair)), 384):
            ledger.plan(requests)
            answers = [answer(request.key, draws) for request in requests]
            ledger.put((each, read_answer(run.template.head, each)) for each in answers)
            count += len(answers)
    settings = json.loads(json.dumps(run.deciding(engine, judge)))
    write_manifest(manifest_of(out), Manifest(settings=settings, options=run.settings.options))
    return count


def main() -> None:
    """Measure each size once."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, nargs="+", default=[1_000, 3_000, 10_000])
    rows, figures = [], {}
    with tempfile.TemporaryDirectory() as name, stub_server() as url:
        folder = Path(name)
        command = [sys.executable, "-m", "rlaif"]
        asked = ["--base-url", url]
        for count in parser.parse_args().pairs:
            data, run = write_pairs(folder / f"{count}.jsonl", count), folder / f"run{count}"
            judgments = write_run(data, run, base_url=url)
            size = (run / "judgments.db").stat().st_size / judgments
            again = run_measured([*command, "label", str(data), *asked, "--out", str(run)])
            ended = run_measured([*command, "label", str(data), *asked, "--out", str(run)])
            halves = [folder / f"half{number}-{count}" for number in (1, 2)]
            with data.open() as file:
                for half in halves:
                    part = half.with_suffix(".jsonl")
                    part.write_text("".join(islice(file, count // 2)))
                    write_run(part, half, base_url=url)
                    run_measured([*command, "label", str(part), *asked, "--out", str(half)])
            merging = [*command, "runs", "merge", *map(str, halves), "--data", str(data), "--out"]
            merged = run_measured([*merging, str(folder / f"merged{count}")])
            row = [f"{judgments:,}", f"{size:.0f}", f"{again.cpu_s:.1f}", f"{1e6 * again.cpu_s / judgments:.0f}"]
            row += [f"{again.peak_mib:.0f}", f"{ended.wall_s:.1f}", f"{ended.cpu_s:.1f}", f"{ended.peak_mib:.0f}"]
            rows.append([*row, f"{merged.cpu_s:.1f}", f"{merged.peak_mib:.0f}"])
            figures[str(judgments)] = {
                "bytes_a_judgment": round(size),
                "again_cpu_s": round(again.cpu_s, 1),
                "again_peak_mib": round(again.peak_mib),
                "ended_s": round(ended.wall_s, 1),
                "ended_cpu_s": round(ended.cpu_s, 1),
                "ended_peak_mib": round(ended.peak_mib),
                "merge_cpu_s": round(merged.cpu_s, 1),
                "merge_peak_mib": round(merged.peak_mib),
            }
    asked_head = ["judgments", "bytes each", "taken up, CPU s", "µs a judgment", "peak MiB"]
    head = [*asked_head, "ended, s", "CPU s", "peak MiB", "merged, CPU s", "peak MiB"]
    print_table(head, rows)
    keep("ledger_size", figures)


if __name__ == "__main__":
    main()
