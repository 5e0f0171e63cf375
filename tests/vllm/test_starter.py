"""The starter through every engine: the same checkpoint, the same verdicts."""

from __future__ import annotations

from pathlib import Path

from rlaif.constitution import load_constitution
from rlaif.data.pairs import Reject, read_pairs
from rlaif.data.sources import open_source
from rlaif.engines.base import Engine
from rlaif.engines.factory import make_engine, resolve_model
from rlaif.labeling.plan import Planner
from rlaif.labeling.verdicts import read_choice
from rlaif.prompts import load_template
from rlaif.starter import STARTER, checkpoint
from rlaif.types import JudgeRequest
from tests.conftest import ROOT
from tests.vllm.conftest import serving

COUNT = 500


def planned() -> list[JudgeRequest]:
    """The first requests of the example pairs: all objectives, both orders."""
    constitution = load_constitution("hhh")
    planner = Planner(constitution, load_template("pairwise-cot"), "starter", objectives=tuple(constitution.objectives))
    found: list[JudgeRequest] = []
    for row in read_pairs(open_source(str(ROOT / "examples" / "pairs.jsonl")), {}):
        assert not isinstance(row, Reject)
        found += planner.requests(row[1])
    return found[:COUNT]


def verdicts(engine: Engine, requests: list[JudgeRequest]) -> dict[str, float]:
    """Every request's probability that the first response is better, its rationale written by the engine."""
    read = {}
    for completion in engine.complete(requests):
        p_first = read_choice(("A", "B"), completion).p_first
        assert p_first is not None, completion
        read[completion.key] = p_first
    engine.close()
    return read


def test_every_engine_gives_the_same_verdicts(tmp_path: Path) -> None:
    requests = planned()
    found: dict[str, dict[str, float]] = {}
    for name in ("transformers", "vllm"):
        kind, model = resolve_model(STARTER, "transformers" if name == "transformers" else "vllm", None, {})
        found[name] = verdicts(make_engine(kind, model, {}), requests)
    with serving(checkpoint(), STARTER, tmp_path / "server.log", "--dtype", "float32") as url:
        kind, model = resolve_model(STARTER, "server", url, {})
        found["server"] = verdicts(make_engine(kind, model, {}, base_url=url), requests)
    for name in ("vllm", "server"):
        # A tie is an even chance: which side of it the last digits fall on is no verdict.
        same = [
            (p > 0.5) == (found[name][key] > 0.5) or max(abs(p - 0.5), abs(found[name][key] - 0.5)) < 0.1
            for key, p in found["transformers"].items()
        ]
        gap = max(abs(p - found[name][key]) for key, p in found["transformers"].items())
        print(f"{name}: {sum(same)} of {len(same)} verdicts as transformers, largest difference in p {gap:.3f}")
        assert len(same) == COUNT
        assert sum(same) / COUNT >= 0.99
    clear = [p for p in found["transformers"].values() if abs(p - 0.5) > 0.1]
    assert len(clear) > COUNT / 4, "most verdicts are close calls: equal ones would prove nothing"
