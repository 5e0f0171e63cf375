"""`rlaif.train_heads` and `rlaif train-heads`: labels to a checkpoint, on a tiny backbone whose last word tells."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

import rlaif
from rlaif.errors import InputError
from rlaif.rewards.train import train_heads
from tests.conftest import ROOT, Cli, environment, write_lines
from tests.heads_examples import make_model

GOOD, BAD = "The rain came down on the old town", "The rain came down on the new house"
KIND, RUDE = "Please sit", "Go away"


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_model(tmp_path_factory.mktemp("backbone"), "llama")


def labelled(folder: Path, count: int = 60, *, skip: Mapping[str, int] | None = None, overall: str = "") -> str:
    """Pairs of which one response ends well, and one begins kindly, and the preferences that follow.

    Args:
        skip: objective: every so many-th pair has no label of it.
        overall: the objective that overall preferences follow; then they are the only labels.
    """
    rng = np.random.default_rng(count)
    pairs, labels = [], []
    for number in range(count):
        helpful, kind = rng.random(2) < 0.5
        texts = {
            side: f"{KIND if kind == (side == 'a') else RUDE}. {GOOD if helpful == (side == 'a') else BAD}"
            for side in "ab"
        }
        row: dict[str, Any] = {"id": f"p{number}", "prompt": f"Tell me of day {number}."}
        pairs.append({**row, "response_a": texts["a"], "response_b": texts["b"]})
        for objective, better in (("helpfulness", helpful), ("kindness", kind)):
            if (skip or {}).get(objective) and number % (skip or {})[objective] == 0:
                continue
            if overall and objective != overall:
                continue
            label = {"id": f"p{number}", "annotator": "x", "objective": "overall" if overall else objective}
            labels.append({**label, "preference": "a" if better else "b"})
    folder.mkdir(exist_ok=True)
    return f"{write_lines(folder / 'pairs.jsonl', pairs)}+{write_lines(folder / 'labels.jsonl', labels)}"


def trained(tmp_path: Path, backbone: str, labels: str | Iterable[str], out: str = "heads", **given: Any) -> Any:
    options: dict[str, Any] = {"backbone": backbone, "cache": tmp_path / "cache", "held_out": 0.3, **given}
    return train_heads([labels] if isinstance(labels, str) else list(labels), tmp_path / out, **options)


def written(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def test_heads_learn_what_labels_say(tmp_path: Path, backbone: str) -> None:
    found = trained(tmp_path, backbone, labelled(tmp_path / "data"))
    assert found.objectives == ("helpfulness", "kindness")
    assert found.pairs + found.held_out_pairs == 60
    assert found.evaluation is not None
    assert found.evaluation.objectives["helpfulness"].accuracy == 1.0
    heads = rlaif.RewardHeads.load(tmp_path / "heads")
    good, bad = heads.score(["Tell me more."] * 2, [f"{KIND}. {GOOD}", f"{KIND}. {BAD}"])
    assert good.rewards["helpfulness"] > bad.rewards["helpfulness"]
    assert good.std is not None
    assert {"rlaif.json", "ensemble.safetensors", "README.md", "report.html", "model.safetensors"} <= written(
        tmp_path / "heads"
    ).keys()
    spec = json.loads((tmp_path / "heads" / "rlaif.json").read_text())
    assert {"objectives", "calibration", "normalization", "aggregation", "metrics", "provenance"} <= spec.keys()
    # By definition: rewards over the responses trained on have mean 0 and deviation 1.
    assert spec["aggregation"]["weights"] == {"helpfulness": 0.5, "kindness": 0.5}


def test_the_same_call_finds_its_heads_and_another_is_refused(tmp_path: Path, backbone: str) -> None:
    labels = labelled(tmp_path / "data")
    first = trained(tmp_path, backbone, labels)
    before = written(tmp_path / "heads")
    again = trained(tmp_path, backbone, labels)
    assert again.finished_before
    assert again.evaluation == first.evaluation
    assert written(tmp_path / "heads") == before
    with pytest.raises(InputError, match=r"other settings \(seed: 0 -> 1\); use another --out"):
        trained(tmp_path, backbone, labels, seed=1)
    # The same heads from the same labels, wherever they lie.
    trained(tmp_path, backbone, labels, out="others")
    assert written(tmp_path / "others")["model.safetensors"] == before["model.safetensors"]
    assert written(tmp_path / "others")["ensemble.safetensors"] == before["ensemble.safetensors"]


def test_the_backbone_is_trained_in_the_precision_asked_for(tmp_path: Path, backbone: str) -> None:
    labels, how = labelled(tmp_path / "data", 20), {"mode": "full", "epochs": 1.0, "ensemble": 1, "device": "cpu"}
    for out, given in (("float32", {}), ("again", {"precision": "float32"}), ("bfloat16", {"precision": "bfloat16"})):
        trained(tmp_path, backbone, labels, out, **how, **given)
    weights = {out: written(tmp_path / out)["model.safetensors"] for out in ("float32", "again", "bfloat16")}
    assert weights["again"] == weights["float32"]
    assert weights["bfloat16"] != weights["float32"]
    # Computed in half precision, kept in single precision.
    assert len(weights["bfloat16"]) == len(weights["float32"])
    with pytest.raises(InputError, match=r"other settings \(precision: "):
        trained(tmp_path, backbone, labels, "float32", **how, precision="bfloat16")


def test_an_objective_may_be_missing_on_some_pairs(tmp_path: Path, backbone: str) -> None:
    found = trained(tmp_path, backbone, labelled(tmp_path / "data", skip={"kindness": 2}))
    assert found.evaluation is not None
    both = found.evaluation.objectives
    assert both["kindness"].n < both["helpfulness"].n == found.held_out_pairs
    # What has no label moves nothing: another objective's heads are as without it.
    alone = trained(tmp_path, backbone, labelled(tmp_path / "data"), out="alone", objectives=["helpfulness"])
    assert alone.evaluation is not None
    assert alone.evaluation.objectives["helpfulness"].accuracy == both["helpfulness"].accuracy


def test_one_pair_makes_heads_that_prefer_its_better_response(tmp_path: Path, backbone: str) -> None:
    found = trained(tmp_path, backbone, labelled(tmp_path / "data", 1), ensemble=1)
    assert (found.pairs, found.held_out_pairs, found.evaluation) == (1, 0, None)
    pair = json.loads((tmp_path / "data" / "pairs.jsonl").read_text())
    labels = [json.loads(line) for line in (tmp_path / "data" / "labels.jsonl").read_text().splitlines()]
    heads = rlaif.RewardHeads.load(tmp_path / "heads")
    a, b = heads.score([pair["prompt"]] * 2, [pair["response_a"], pair["response_b"]])
    for label in labels:
        name = label["objective"]
        assert ("a" if a.rewards[name] > b.rewards[name] else "b") == label["preference"]
    spec = json.loads((tmp_path / "heads" / "rlaif.json").read_text())
    assert spec["calibration"]["kindness"]["temperature"] == 1
    assert "no held-out pair" in spec["calibration"]["kindness"]["reason"]


def test_weights_are_learned_from_overall_preferences(tmp_path: Path, backbone: str) -> None:
    labels = labelled(tmp_path / "data")
    overall = labelled(tmp_path / "overall", 80, overall="kindness")
    trained(tmp_path, backbone, labels, learn_weights=overall)
    rule = json.loads((tmp_path / "heads" / "rlaif.json").read_text())["aggregation"]
    assert rule["origin"] == "learned"
    assert rule["weights"]["kindness"] > 0.9
    low, high = rule["intervals"]["kindness"]
    assert low <= rule["weights"]["kindness"] <= high


def test_going_on_from_heads_tells_what_was_forgotten(tmp_path: Path, backbone: str) -> None:
    first = trained(tmp_path, backbone, labelled(tmp_path / "data"))
    tuned = trained(tmp_path, backbone, labelled(tmp_path / "new", 40), out="tuned", init_from=tmp_path / "heads")
    assert [(each.objective, each.n) for each in tuned.forgotten] == [
        (name, first.held_out_pairs) for name in ("helpfulness", "kindness")
    ]
    assert tuned.forgotten[0].before == first.evaluation.objectives["helpfulness"].accuracy
    (tmp_path / "data" / "labels.jsonl").unlink()
    again = trained(tmp_path, backbone, labelled(tmp_path / "more", 30), out="third", init_from=tmp_path / "heads")
    assert again.forgotten == ()
    assert any("what was forgotten is not known" in note for note in again.notes)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"objectives": ["helpfullness"]}, "helpfullness"),
        ({"gate": True}, "add --learn-weights"),
        ({"held_out": 1.5}, "expected a fraction"),
        ({"constitution": "nobody"}, "nobody"),
        ({"backbone": "/nowhere/model"}, "/nowhere/model"),
        ({"ensemble": 0}, "ensemble"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    tmp_path: Path, backbone: str, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        trained(tmp_path, given.pop("backbone", backbone), labelled(tmp_path / "data"), **given)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "heads").exists()


def command(tmp_path: Path, backbone: str, labels: str, *more: str) -> list[str]:
    """A training of the whole backbone, several hundred steps long."""
    options = ("--mode", "full", "--epochs", "30", "--batch-tokens", "128", "--ensemble", "2", "--device", "cpu", *more)
    return [
        sys.executable, "-m", "rlaif", "train-heads", labels, "--out", str(tmp_path), "--backbone", backbone, *options
    ]  # fmt: skip


def test_killed_and_given_again_it_ends_with_the_same_weights(tmp_path: Path, backbone: str) -> None:
    labels = labelled(tmp_path / "data")
    subprocess.run(command(tmp_path / "whole", backbone, labels), check=True, env=environment(), cwd=ROOT)
    process = subprocess.Popen(command(tmp_path / "killed", backbone, labels), env=environment(), cwd=ROOT)
    saved = tmp_path / "killed" / "training"
    for _ in range(1200):
        if any(saved.glob("checkpoint-*")) or process.poll() is not None:
            break
        time.sleep(0.1)
    assert process.poll() is None, "it ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "rlaif.json").exists()
    done = subprocess.run(
        command(tmp_path / "killed", backbone, labels), check=True, env=environment(), cwd=ROOT, capture_output=True
    )
    assert b"held-out pairs" in done.stdout
    whole, killed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert whole.keys() == killed.keys()
    assert all((whole[name] == killed[name]).all() for name in whole)
    assert not saved.exists()


def test_the_command_prints_figures_and_json(tmp_path: Path, backbone: str, rlaif: Cli) -> None:
    labels = labelled(tmp_path / "data")
    options = ("--out", tmp_path / "heads", "--backbone", backbone, "--cache", tmp_path / "cache", "--eval", "0.3")
    done = rlaif("train-heads", labels, *options)
    assert done.returncode == 0, done.stderr
    assert "helpfulness" in done.stdout
    again = rlaif("train-heads", labels, *options, "--json")
    found = json.loads(again.stdout)
    assert found["finished_before"]
    assert found["evaluation"]["objectives"]["helpfulness"]["accuracy"] == 1.0
    wrong = rlaif("train-heads", tmp_path / "nothing.jsonl", *options)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("Error: ")
