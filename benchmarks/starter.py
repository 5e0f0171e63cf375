"""The starter at work: the example pairs, three objectives, both orders, through the default engine on this machine.

python -m benchmarks.starter
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks.common import ROOT, keep, print_table, rlaif_label
from rlaif.constitution import load_constitution
from rlaif.data.pairs import Reject, read_pairs
from rlaif.data.sources import open_source
from rlaif.engines import kv_cache
from rlaif.engines.factory import make_engine, resolve_model
from rlaif.labeling.plan import Planner
from rlaif.prompts import load_template
from rlaif.starter import STARTER
from rlaif.types import JudgeRequest

PAIRS = ROOT / "examples" / "pairs.jsonl"
_SOME = 256  # judgments for the comparison with and without sharing


def load_seconds() -> float:
    """Seconds to load the model, imports done; best of three."""
    best = float("inf")
    for _ in range(3):
        kind, model = resolve_model(STARTER, "transformers", None, {})
        start = time.perf_counter()
        make_engine(kind, model, {}).close()
        best = min(best, time.perf_counter() - start)
    return best


def judgments_a_second() -> dict[str, float]:
    """The engine alone, with what requests share read once, and with every request read whole."""
    constitution = load_constitution("hhh")
    planner = Planner(constitution, load_template("pairwise-cot"), "starter", objectives=tuple(constitution.objectives))
    requests: list[JudgeRequest] = []
    for row in read_pairs(open_source(str(PAIRS)), {}):
        assert not isinstance(row, Reject)
        requests += planner.requests(row[1])
    kind, model = resolve_model(STARTER, "transformers", None, {})
    engine = make_engine(kind, model, {})
    found = {}
    shared = kv_cache._empty_cache
    for name, cache in (("shared", shared), ("whole", lambda _: None)):
        kv_cache._empty_cache = cache
        list(engine.complete(requests[:64]))
        start = time.perf_counter()
        list(engine.complete(requests[:_SOME]))
        found[name] = _SOME / (time.perf_counter() - start)
    kv_cache._empty_cache = shared
    engine.close()
    return found


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        summary = rlaif_label(PAIRS, "--out", Path(folder) / "run", "--engine", "transformers")
        whole = time.perf_counter() - start
    load = load_seconds()
    rate = judgments_a_second()
    ratio = rate["shared"] / rate["whole"]
    figures = {"judgments": summary["judgments"], "seconds": round(whole, 1), "load_seconds": round(load, 2)}
    figures |= {"engine_per_s": round(rate["shared"], 1), "sharing_times_faster": round(ratio, 2)}
    rows = [
        (f"{summary['judgments']} judgments, the whole command", f"{whole:.1f} s"),
        ("judgments a second", f"{summary['judgments'] / whole:.1f}"),
        ("the engine alone, judgments a second", f"{rate['shared']:.1f}"),
        ("... to every request read whole", f"{ratio:.2f} times as fast"),
        ("load the model, imports done", f"{load:.2f} s"),
    ]
    print_table(("what", "measured"), rows)
    keep("starter", figures)


if __name__ == "__main__":
    main()
