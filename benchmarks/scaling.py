"""How the cost of labelling grows: pairs, objectives and orders doubled, against the instant stub.

    python -m benchmarks.scaling [--scale 1] [--rounds 5]

Cost is processor time of `rlaif label` (template direct), the least of several rounds: two cores that share their
parts, or a machine that is lent out twice, make the same work cost a fifth more or less. What a run of one pair takes,
mostly imports, is taken off. Pairs and objectives are doubled three times; one order and both are compared at four
numbers of pairs. Cost that doubles exactly has a factor of 2; less than 2 is what is shared, such as reading a pair
once for all its objectives. Peak memory must stay flat as pairs grow.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.common import Usage, keep, print_table, run_measured, stub_server, write_pairs

WITHIN = 0.1
_PAIRS = (2_000, 4_000, 8_000, 16_000)
_OBJECTIVES = (1, 2, 4, 8)
_FEW = 1_000
_Size = tuple[int, int, str]


def constitution_of(folder: Path, objectives: int) -> Path:
    """A constitution with so many objectives, of a principle each; JSON is YAML."""
    wanted = {
        f"objective{number}": {
            "weight": 1,
            "question": f"Which response is better in point {number}?",
            "principles": [{"id": f"principle-{number}", "text": f"Prefer the response that does better in {number}."}],
        }
        for number in range(objectives)
    }
    path = folder / f"objectives{objectives}.yaml"
    text = {"name": f"objectives{objectives}", "version": "1.0.0", "description": "Made.", "objectives": wanted}
    path.write_text(json.dumps(text))
    return path


class Labelling:
    """Runs of `rlaif label`, each measured in a process of its own."""

    def __init__(self, folder: Path, url: str) -> None:
        self._folder, self._url = folder, url
        self._seen: dict[_Size, list[Usage]] = {}

    def measure(self, sizes: Iterable[_Size], rounds: int) -> None:
        """Measure each size once a round, in turn, and what a run of one pair takes."""
        for number in range(rounds):
            for size in ((1, 1, "ab"), *sizes):
                found = self._measured(*size)
                self._seen.setdefault(size, []).append(found)
                print(f"round {number + 1}: {size}: {found.cpu_s:.1f} s", file=sys.stderr, flush=True)

    def cost(self, *size: *_Size) -> tuple[float, float]:
        """Processor seconds beyond a run of one pair, the least of all rounds, and the most MiB."""
        start, mine = (min(each.cpu_s for each in self._seen[one]) for one in ((1, 1, "ab"), size))
        return mine - start, max(each.peak_mib for each in self._seen[size])

    def _measured(self, pairs: int, objectives: int, orders: str) -> Usage:
        data = write_pairs(self._folder / "pairs.jsonl", pairs)
        constitution = constitution_of(self._folder, objectives)
        asked = ["--base-url", self._url, "--template", "direct", "--orders", orders]
        out = self._folder / "run"
        shutil.rmtree(out, ignore_errors=True)
        command = [sys.executable, "-m", "rlaif", "label", str(data), "--constitution", str(constitution)]
        return run_measured([*command, *asked, "--out", str(out)])


def doubled(costs: list[float]) -> list[float]:
    """What each doubling multiplied the cost by."""
    return [after / before for before, after in pairwise(costs)]


def main() -> None:
    """Measure each size, and print what doubling costs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of pairs")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    scale = options.scale
    counts = [max(1, int(scale * count)) for count in _PAIRS]
    few = max(1, int(scale * _FEW))
    figures: dict[str, Any] = {}
    rows: list[tuple[str, ...]] = []

    def told(what: str, sizes: list[str], costs: list[float], factors: list[float], peaks: list[float]) -> None:
        worst = max(abs(factor / 2 - 1) for factor in factors)
        dearer = max(factor / 2 - 1 for factor in factors)
        figures[what] = {"sizes": sizes, "cpu_s": costs, "factors": factors, "peak_mib": peaks}
        figures[what] |= {"furthest_from_2": worst, "dearer_by_at_most": dearer, "reached": worst <= WITHIN}
        shown = ", ".join(f"{factor:.2f}" for factor in factors)
        rows.append(
            (what, ", ".join(sizes), ", ".join(f"{cost:.1f}" for cost in costs), shown,
             ", ".join(f"{peak:.0f}" for peak in peaks))
        )  # fmt: skip

    with tempfile.TemporaryDirectory() as name, stub_server() as url:
        labelling = Labelling(Path(name), url)
        sizes = [(count, 1, orders) for count in counts for orders in ("both", "ab")]
        labelling.measure([*sizes, *((few, objectives, "both") for objectives in _OBJECTIVES)], options.rounds)
        both = [labelling.cost(count, 1, "both") for count in counts]
        one = [labelling.cost(count, 1, "ab") for count in counts]
        many = [labelling.cost(few, objectives, "both") for objectives in _OBJECTIVES]
    shown = [f"{count:,}" for count in counts]
    told("pairs", shown, [cost for cost, _ in both], doubled([cost for cost, _ in both]), [peak for _, peak in both])
    costs = [cost for cost, _ in many]
    told("objectives", [str(count) for count in _OBJECTIVES], costs, doubled(costs), [peak for _, peak in many])
    orders = [two / single for (two, _), (single, _) in zip(both, one, strict=True)]
    told("orders, at so many pairs", shown, [cost for cost, _ in one], orders, [peak for _, peak in one])
    print_table(("doubled", "sizes", "processor s", "factors", "peak MiB"), rows)
    for what, found in figures.items():
        print(f"{what}: furthest from 2 by {found['furthest_from_2']:.0%}, dearer by {found['dearer_by_at_most']:.0%}")
    keep("scaling", figures)


if __name__ == "__main__":
    main()
