"""Ratings through a real vLLM: `10` is `1` and `0` in this judge's vocabulary, so a third step reads on after a `1`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

import rlaif
from examples.tiny_judge import make_tiny_judge
from rlaif.engines.base import Engine, EngineArgs, identify
from rlaif.engines.chat import ChatTokenizer
from rlaif.engines.served import identify_served
from rlaif.engines.server import ServerEngine
from rlaif.labeling.verdicts import read_rating
from rlaif.types import Completion, JudgeRequest
from tests.conftest import ROOT, read_lines
from tests.vllm.conftest import serving
from tests.vllm.test_vllm import FLOAT32, requests_for

PAIRS = ROOT / "examples" / "pairs.jsonl"
GIVEN = "The response answers the question. It names no source for what it says."


@pytest.fixture(scope="module")
def digits_judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with random weights, and no token for a number of two digits."""
    return make_tiny_judge(tmp_path_factory.mktemp("models") / "judge")


def rated(engine: Engine, requests: list[JudgeRequest]) -> dict[str, Completion]:
    """Every completion by key; each has all ten ratings, and a mean."""
    found = {completion.key: completion for completion in engine.complete(requests)}
    engine.close()
    assert found.keys() == {request.key for request in requests}
    for completion in found.values():
        assert completion.choice_logprobs.keys() == set(requests[0].choices), completion
        assert read_rating(requests[0].choices, completion).status == "ok"
    return found


def test_the_same_rationale_is_rated_the_same_in_every_engine(digits_judge: Path, tmp_path: Path) -> None:
    from rlaif.engines.transformers import TransformersEngine
    from rlaif.engines.vllm import VllmEngine

    requests = [
        request.model_copy(update={"rationale": GIVEN}) for request in requests_for(PAIRS, 120, template="rating")
    ]
    chat = ChatTokenizer.load(str(digits_judge), None)
    assert chat.spellings(requests[0].verdict_prefix, requests[0].choices).steps == 2, "the third step would not run"
    found = {
        "transformers": rated(TransformersEngine(identify(str(digits_judge)), EngineArgs(FLOAT32)), requests),
        "vllm": rated(VllmEngine(identify(str(digits_judge)), EngineArgs(FLOAT32)), requests),
    }
    with serving(digits_judge, "digits", tmp_path / "server.log", "--dtype", "float32") as url:
        served = ServerEngine(identify_served(url, None), url, EngineArgs({}))
        found["server"] = rated(served, requests)
    for name in ("vllm", "server"):
        gaps = [
            abs(logprob - found[name][key].choice_logprobs[choice])
            for key, completion in found["transformers"].items()
            for choice, logprob in completion.choice_logprobs.items()
        ]
        means = [abs(_mean(completion) - _mean(found[name][key])) for key, completion in found["transformers"].items()]
        print(f"{name}: largest difference in a log-probability {max(gaps):.1e}, in a rating {max(means):.1e}")
        assert max(gaps) < 1e-2
        assert max(means) < 1e-3
        # Two steps: the choice, and what comes after a 1. What was read is counted the same everywhere.
        assert {completion.usage.completion_tokens for completion in found[name].values()} == {2}
    spread = [_mean(completion) for completion in found["transformers"].values()]
    assert max(spread) - min(spread) > 0.05, "equal ratings everywhere would prove nothing"


def _mean(completion: Completion) -> float:
    shares = {int(choice): math.exp(logprob) for choice, logprob in completion.choice_logprobs.items()}
    return sum(rating * share for rating, share in shares.items()) / sum(shares.values())


@pytest.mark.parametrize("engine", ["vllm", "server"])
def test_labels_from_ratings(digits_judge: Path, tmp_path: Path, engine: str) -> None:
    run = tmp_path / "run"
    if engine == "server":
        with serving(digits_judge, "digits", tmp_path / "server.log", "--dtype", "float32") as url:
            summary = rlaif.label(PAIRS, run, base_url=url, template="rating", max_tokens=12, limit=40)
    else:
        options: dict[str, Any] = {"judge": str(digits_judge), "engine": "vllm", "engine_args": FLOAT32}
        summary = rlaif.label(PAIRS, run, template="rating", max_tokens=12, limit=40, **options)
    assert (summary.pairs, summary.judgments, summary.abstained) == (40, 240, 0)
    for line in read_lines(run / "labels.jsonl"):
        for label in line["labels"].values():
            assert 1 <= label["rating_a"] <= 10
            assert 1 <= label["rating_b"] <= 10
            assert 0 < label["p_a"] < 1
            assert (label["verdicts"], label["order_gap"]) == (1, None)
