"""The starter at work: the example pairs, three objectives, both orders, through the default engine on this machine.

python -m benchmarks.starter
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks.common import ROOT, keep, print_table, rlaif_label
from rlaif.engines.factory import make_engine, resolve_model
from rlaif.starter import STARTER


def load_seconds() -> float:
    """Seconds to load the model, imports done; best of three."""
    best = float("inf")
    for _ in range(3):
        kind, model = resolve_model(STARTER, "transformers", None, {})
        start = time.perf_counter()
        make_engine(kind, model, {}).close()
        best = min(best, time.perf_counter() - start)
    return best


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        summary = rlaif_label(
            ROOT / "examples" / "pairs.jsonl", "--out", Path(folder) / "run", "--engine", "transformers"
        )
        whole = time.perf_counter() - start
    load = load_seconds()
    figures = {"judgments": summary["judgments"], "seconds": round(whole, 1), "load_seconds": round(load, 2)}
    rows = [
        (f"{summary['judgments']} judgments, the whole command", f"{whole:.1f} s"),
        ("judgments a second", f"{summary['judgments'] / whole:.1f}"),
        ("load the model, imports done", f"{load:.2f} s"),
    ]
    print_table(("what", "measured"), rows)
    keep("starter", figures)


if __name__ == "__main__":
    main()
