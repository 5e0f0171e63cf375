"""The benchmark of labelling on a GPU, tiny on the CPU: that it counts what it says."""

from __future__ import annotations

import pytest

from benchmarks.gpu_label import Measured, Round, figures_of, main


def test_rates_by_hand() -> None:
    # The median of 2, 4 and 5 s is 4; the bare engine takes 0.5, 1 and 0.8 of ours.
    rounds = [Round(2.0, 1.0), Round(4.0, 4.0), Round(5.0, 4.0)]
    found = figures_of(Measured(judgments=8, prompt_tokens=1000, new_tokens=80, not_read=250, rounds=rounds))
    assert found["judgments_per_s"] == 2.0
    assert found["new_tokens_per_s"] == 20.0
    assert found["prompt_tokens_per_s"] == 250.0
    assert found["of_the_bare_engine"] == 0.8
    assert found["of_the_bare_engine_from_to"] == [0.5, 1.0]
    assert found["prefix_hit_rate"] == 0.25


def test_it_runs_small(capsys: pytest.CaptureFixture[str]) -> None:
    options = [
        "--small",
        "--engines",
        "transformers",
        "--pairs",
        "1",
        "--max-tokens",
        "3",
        "--rounds",
        "1",
        "--keep",
        "",
    ]
    found = main(options)["transformers"]
    for template in ("pairwise-cot", "direct"):
        # One pair, three objectives, both orders.
        assert found[template]["judgments"] == 6
        assert found[template]["of_the_bare_engine"] > 0
    # Each order's three prompts differ in their last lines only, so that most of two of the three is read once.
    assert 1 / 3 < found["direct"]["prefix_hit_rate"] < 2 / 3
    # A verdict goes on from what its rationale has read already.
    assert found["pairwise-cot"]["prefix_hit_rate"] > found["direct"]["prefix_hit_rate"]
    assert "| transformers | direct " in capsys.readouterr().out
