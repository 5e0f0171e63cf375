"""How often a run's labels agree with reference labels: python examples/agreement.py RUN REFERENCE.

A few lines over the two files; pairs that the reference calls a tie are left out of the share.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path


def agreement(run: Path, reference: Path) -> dict[str, Counter[str]]:
    """Counts of right, wrong, not labelled and tied, by objective."""
    labels = {row["id"]: row["labels"] for row in map(json.loads, (run / "labels.jsonl").open(encoding="utf-8"))}
    counts: dict[str, Counter[str]] = {}
    for row in map(json.loads, reference.open(encoding="utf-8")):
        found = labels.get(row["id"], {}).get(row["objective"])
        if found is None:
            continue
        count = counts.setdefault(row["objective"], Counter())
        if row["preference"] == "tie":
            count["tied"] += 1
        elif found["p_a"] is None:
            count["not labelled"] += 1
        else:
            count["right" if (found["p_a"] > 0.5) == (row["preference"] == "a") else "wrong"] += 1
    return counts


def main() -> None:
    """Print the table."""
    for objective, count in agreement(Path(sys.argv[1]), Path(sys.argv[2])).items():
        decided = count["right"] + count["wrong"] + count["not labelled"]
        share = f"{100 * count['right'] / decided:.1f}%" if decided else "-"
        print(f"{objective:14} {share:>6} of {decided} decided pairs, {count['tied']} ties by construction")


if __name__ == "__main__":
    main()
