"""Heads that several processes train together: with the weights that one process comes to."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from examples.tiny_judge import make_tiny_judge
from tests.conftest import ROOT, environment

LAUNCH = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Sixty of the example pairs, with their constructed labels."""
    folder = tmp_path_factory.mktemp("source")
    for name, count in (("pairs", 60), ("reference", 180)):
        lines = (ROOT / "examples" / f"{name}.jsonl").read_text().splitlines(keepends=True)
        (folder / f"{name}.jsonl").write_text("".join(lines[:count]))
    return f"{folder}/pairs.jsonl+{folder}/reference.jsonl"


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backbone")
    make_tiny_judge(folder, hidden=64, layers=2, context=512)
    return folder


def trained(
    launch: tuple[str, ...], out: Path, source: str, backbone: Path, aggregate: str, *more: str
) -> dict[str, torch.Tensor]:
    """Train in a process of its own, or in as many as `launch` starts; the weights, and one summary printed."""
    options = ("--mode=full", "--ensemble=2", "--epochs=1", "--lr=1e-3", "--batch-tokens=1024", "--json")
    command = [sys.executable, *launch, "rlaif", "train-heads", source, "--backbone", str(backbone), "--out", str(out)]
    found = subprocess.run(
        [*command, f"--aggregate={aggregate}", *options, *more],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**environment(), "OMP_NUM_THREADS": "1"},
        timeout=600,
    )
    assert found.returncode == 0, found.stderr[-3000:]
    (printed,) = [line for line in found.stdout.splitlines() if line.startswith("{")]
    assert json.loads(printed)["pairs"] == 54
    return {**load_file(out / "model.safetensors"), **load_file(out / "ensemble.safetensors")}


@pytest.mark.parametrize("aggregate", ["weighted", "pareto"])
def test_two_processes_come_to_the_weights_of_one(source: str, backbone: Path, tmp_path: Path, aggregate: str) -> None:
    # An epoch: what is rounded differently grows from step to step, most where conflicts are resolved.
    given = (source, backbone, aggregate)
    one = trained(("-m",), tmp_path / "one", *given, "--accumulate=2")
    two = trained(LAUNCH, tmp_path / "two", *given)
    assert one.keys() == two.keys()
    for name, weight in one.items():
        assert float((two[name] - weight).abs().max()) < 1e-5, name
    # What is equal has also moved.
    assert (one["score.weight"] != 0).all()
    before = load_file(backbone / "model.safetensors")
    assert all(float((one[name] - before[name]).abs().max()) > 1e-3 for name in one.keys() & before.keys())
