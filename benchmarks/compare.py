"""Time and peak memory of `rlaif compare` on a million labels.

    python -m benchmarks.compare [--labels 100000 1000000] [--resamples 1000]

Recorded judge labels with `p_a` against human labels of three annotators, as many rows each, synthetic: the judge is
right in 80%, an annotator in 90%. Each run is a process of its own, without the bootstrap and with it; beside it stands
orjson alone parsing the same lines of both files in one thread.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

import orjson

from benchmarks.common import keep, print_table, run_measured

_ANNOTATORS = 3


def write_labels(folder: Path, rows: int) -> tuple[Path, Path]:
    """Write so many judge labels, and as many human labels, three to each of the first third of the pairs."""
    draw = random.Random(0)
    judge, human = folder / f"judge{rows}.jsonl", folder / f"human{rows}.jsonl"
    with judge.open("wb") as judged, human.open("wb") as people:
        for pair in range(rows):
            name, truth = f"pair-{pair:07}", draw.random() < 0.5
            p_a = 0.5 + draw.random() / 2
            p_a = p_a if truth is (draw.random() < 0.8) else 1 - p_a
            row = {"id": name, "judge": "synthetic", "objective": "overall", "preference": "a" if p_a > 0.5 else "b"}
            judged.write(orjson.dumps(row | {"p_a": round(p_a, 6)}) + b"\n")
            for place in range(_ANNOTATORS) if pair < rows // _ANNOTATORS else ():
                side = "tie" if draw.random() < 0.1 else "a" if truth is (draw.random() < 0.9) else "b"
                vote = {"id": name, "annotator": f"person-{place}", "objective": "overall", "preference": side}
                people.write(orjson.dumps(vote) + b"\n")
    return judge, human


def parse_seconds(*files: Path) -> float:
    """Processor seconds that orjson alone takes for all lines of these files."""
    start = time.process_time()
    for file in files:
        with file.open("rb") as lines:
            for line in lines:
                orjson.loads(line)
    return time.process_time() - start


def main() -> None:
    """Measure each size once without and once with the bootstrap."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--labels", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--resamples", type=int, default=1000)
    arguments = parser.parse_args()
    rows, figures = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for count in arguments.labels:
            judge, human = write_labels(Path(folder), count)
            parsing = parse_seconds(judge, human)
            command = [sys.executable, "-m", "rlaif", "compare", str(judge), str(human), "--json", "--resamples"]
            found = {}
            for name, resamples in (("no_bootstrap", 0), ("bootstrap", arguments.resamples)):
                taken = run_measured([*command, str(resamples)])
                found[name] = {
                    "wall_s": round(taken.wall_s, 1),
                    "cpu_s": round(taken.cpu_s, 1),
                    "peak_mib": round(taken.peak_mib),
                    "of_parsing": round(taken.cpu_s / parsing, 1),
                }
                rows.append([f"{count:,}", f"{resamples:,}", *found[name].values()])
            figures[str(count)] = found
    print_table(("labels of each", "resamples", "wall s", "CPU s", "peak MiB", "CPU of orjson alone"), rows)
    keep("compare", {"resamples": arguments.resamples, **figures})


if __name__ == "__main__":
    main()
