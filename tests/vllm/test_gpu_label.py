"""The benchmark of labelling on a GPU, tiny on the CPU, with vLLM and dummy weights."""

from __future__ import annotations

from benchmarks.gpu_label import main


def test_it_runs_small() -> None:
    options = ["--small", "--engines", "vllm", "--pairs", "1", "--max-tokens", "3", "--rounds", "1", "--keep", ""]
    found = main(options)["vllm"]
    for template in ("pairwise-cot", "direct"):
        # One pair, three objectives, both orders.
        assert found[template]["judgments"] == 6
        assert found[template]["of_the_bare_engine"] > 0
        assert 0 < found[template]["prefix_hit_rate"] < 1
