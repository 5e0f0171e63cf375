"""A million pairs through every command that reads them: time and peak memory, which must stay small.

    python -m benchmarks.million [--pairs 1000000] [--asked 100000] [--scored 100000]

Each command is a process of its own; one objective, one order. All but `--asked` of the answers are written through the
ledger itself, rationales of 40 to 120 words, as a labelling that was killed would have left them. `rlaif label` is
given, killed with SIGKILL when it has asked the stub, which answers at once, about half of the rest, and given again;
given once more, it finds a run that has ended. Its labels are compared with as many human ones and exported, and the
pairs are split. Heads on a random Llama of two layers score `--scored` of the pairs: a larger model takes longer, not
more memory a pair.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import ROOT, Usage, keep, print_table, run_measured, stub_server, write_pairs
from benchmarks.ledger_size import write_run
from examples.tiny_judge import make_tiny_judge
from tests.processes import answered

LIMIT_MIB = 1500
LIMIT_S = 15
OBJECTIVE = "helpfulness"
RLAIF = (sys.executable, "-m", "rlaif")


def write_people(data: Path, path: Path) -> Path:
    """Write a human label of every pair, drawn at random."""
    draws = random.Random(0)
    with data.open(encoding="utf-8") as pairs, path.open("w", encoding="utf-8") as file:
        for line in pairs:
            said = {"objective": OBJECTIVE, "preference": draws.choice("ab")}
            file.write(json.dumps({"id": json.loads(line)["id"], "annotator": "h1", **said}) + "\n")
    return path


def label_killed(command: list[str], run: Path, enough: int) -> tuple[float, int]:
    """Label, and kill the command with SIGKILL when the ledger has so many answers; returns seconds, and how many."""
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    counted = 0.0
    while process.poll() is None:
        begun = time.perf_counter()
        if answered(run) >= enough:
            break
        counted = time.perf_counter() - begun
        # A tenth of the time at most: counting a million rows takes a while by itself.
        time.sleep(max(0.5, 10 * counted))
    if process.poll() is not None:
        sys.exit(f"ended before half of it was done: {' '.join(command)}")
    process.send_signal(signal.SIGKILL)
    process.wait()
    return time.perf_counter() - start, answered(run)


def main() -> None:
    """Run every command once and print what each took."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--asked", type=int, default=100_000)
    parser.add_argument("--scored", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="where the files go; by default a temporary folder")
    options = parser.parse_args()
    taken: dict[str, Usage] = {}

    def measure(name: str, *arguments: object) -> None:
        taken[name] = run_measured([*RLAIF, *map(str, arguments)])
        wall, cpu, peak = taken[name]
        print(f"{name}: {wall:,.1f} s, {cpu:,.1f} s of processor time, {peak:,.0f} MiB", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(dir=options.folder) as name, stub_server() as url:
        folder = Path(name)
        data, run = write_pairs(folder / "pairs.jsonl", options.pairs), folder / "run"
        people = write_people(data, folder / "people.jsonl")
        known = options.pairs - options.asked
        write_run(data, run, most=known, base_url=url, objectives=[OBJECTIVE], orders="ab")
        print(f"{known:,} answers written", file=sys.stderr, flush=True)
        label = ("label", data, "--base-url", url, "--objective", OBJECTIVE, "--orders", "ab", "--out", run)
        killed_s, there = label_killed([*RLAIF, *map(str, label)], run, known + options.asked // 2)
        print(f"killed after {killed_s:,.1f} s with {there:,} answers", file=sys.stderr, flush=True)
        measure("label, continued after a kill", *label)
        ledger = (run / "judgments.db").stat().st_size / options.pairs
        measure("label, ended before", *label)
        measure("compare", "compare", run, people, "--ties", "drop")
        measure(
            "export",
            "export",
            f"{data}+{run}/labels.jsonl",
            "--format",
            "trl-conversational",
            "--out",
            folder / "trl.jsonl",
        )
        measure("runs shard", "runs", "shard", data, "--parts", 2, "--out", folder / "shards")
        some = write_pairs(folder / "some.jsonl", 2000)
        make_tiny_judge(folder / "llama", [line[:2000] for line in some.read_text().splitlines()], context=512)
        few = f"{some}+{people}:{OBJECTIVE}"
        heads = folder / "heads"
        made = ("--backbone", folder / "llama", "--max-length", 64, "--cache", folder / "cache", "--out", heads)
        measure("train-heads, 2,000 pairs", "train-heads", few, *made)
        for count in (options.scored // 4, options.scored):
            part = write_pairs(folder / "part.jsonl", count)
            measure(f"score, {count:,} pairs", "score", heads, part, "--out", folder / f"scores{count}.jsonl")
    rows = [[name, f"{wall:,.1f}", f"{cpu:,.1f}", f"{peak:,.0f}"] for name, (wall, cpu, peak) in taken.items()]
    print_table(("command", "s", "CPU s", "peak MiB"), rows)
    print(
        f"\n{options.pairs:,} pairs, {options.asked:,} of them asked, killed after {killed_s:,.1f} s at {there:,}; "
        f"{ledger:.0f} bytes of ledger a judgment"
    )
    most = max(usage.peak_mib for usage in taken.values())
    print(f"most memory {most:,.0f} MiB (goal: under {LIMIT_MIB:,}); a run that had ended: "
          f"{taken['label, ended before'].wall_s:.1f} s (goal: under {LIMIT_S})")  # fmt: skip
    figures = {name: {key: round(value, 1) for key, value in usage._asdict().items()} for name, usage in taken.items()}
    keep(
        "million",
        {
            "pairs": options.pairs,
            "asked": options.asked,
            "ledger_bytes": round(ledger),
            "killed_s": round(killed_s),
            "killed_at": there,
            **figures,
        },
    )


if __name__ == "__main__":
    main()
