"""`rlaif evaluate`: heads against labels, from the command line to the figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlaif.cli.evaluate_report import evaluation_shown
from rlaif.errors import InputError
from rlaif.rewards.evaluate_heads import evaluate_heads
from rlaif.rewards.heads import RewardHeads
from tests.conftest import Cli, made_pairs, write_lines
from tests.heads_examples import OBJECTIVES, make_heads
from tests.reward_examples import realistic


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Heads of a tiny Llama, an ensemble of three."""
    return make_heads(tmp_path_factory.mktemp("evaluated"), members=3)


@pytest.fixture(scope="module")
def rewards(folder: Path) -> list[list[dict[str, float]]]:
    """Rewards of both responses of 40 pairs."""
    rows = made_pairs(40)
    texts = [text for row in rows for text in (row["response_a"], row["response_b"])]
    found = RewardHeads.load(folder).score([row["prompt"] for row in rows for _ in "ab"], texts)
    each = [{**reward.rewards, "reward": reward.reward} for reward in found]
    return [each[place : place + 2] for place in range(0, 80, 2)]


@pytest.fixture
def labels(tmp_path: Path, rewards: list[list[dict[str, float]]]) -> str:
    """Labels of two annotators that follow the heads' own scores, but for every fourth pair of helpfulness."""
    rows = []
    for number, (a, b) in enumerate(rewards):
        for objective in ("helpfulness", "honesty", "overall"):
            better = "reward" if objective == "overall" else objective
            side = "a" if a[better] > b[better] else "b"
            if objective == "helpfulness" and number % 4 == 0:
                side = {"a": "b", "b": "a"}[side]
            if objective == "honesty" and number % 10 == 0:
                side = "tie"
            rows.append({"id": f"pair-{number}", "annotator": "x", "objective": objective, "preference": side})
    pairs = write_lines(tmp_path / "pairs.jsonl", made_pairs(40))
    return f"{pairs}+{write_lines(tmp_path / 'human.jsonl', rows)}"


def test_the_command_measures_heads_against_labels(folder: Path, labels: str, tmp_path: Path, rlaif: Cli) -> None:
    page = tmp_path / "out" / "page.html"
    done = rlaif("evaluate", folder, labels, "--json", "--resamples", 50, "--html", page)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    helpful, honest, harmless = (found["objectives"][name] for name in ("helpfulness", "honesty", "harmlessness"))
    assert (helpful["n"], helpful["accuracy"]) == (40, 0.75)
    assert (honest["n"], honest["ties"], honest["accuracy"]) == (36, 4, 1.0)
    assert harmless["accuracy"] is None
    assert found["aggregate"]["overall"]["accuracy"] == 1.0
    assert helpful["ensemble"]["members"] == 3
    # make_heads gives temperatures 0.5, 1.5 and 2.5.
    assert (helpful["temperature"], honest["temperature"]) == (0.5, 2.5)
    assert found["heads"] == str(folder)
    assert found["sources"][0]["labels"] == 120
    html = page.read_text(encoding="utf-8")
    assert "The heads agree with these labels: helpfulness 75.0%, honesty 100.0%." in html
    assert html.count('<details class="example"') == 8 + 8 + 8


def test_the_terminal_shows_a_line_an_objective(folder: Path, labels: str, rlaif: Cli) -> None:
    done = rlaif("evaluate", folder, labels, "--objective", "helpfulness", "--resamples", 50)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].endswith("on 40 pairs of 40 conversations:") or lines[1].endswith("conversations:")
    [row] = [line for line in lines if line.startswith("  helpfulness")]
    assert row.split()[1:3] == ["40", "75.0%"]
    assert "honesty" not in done.stdout
    assert all(len(line) <= 80 for line in lines if str(folder) not in line)


def test_weights_of_sources_and_temperature_leave_the_scores_as_they_are(folder: Path, labels: str) -> None:
    plain, weighted = (evaluate_heads(folder, [each], resamples=0).evaluation for each in (labels, f"{labels}@0.5"))
    assert plain.objectives == weighted.objectives


def test_a_file_swapped_gives_the_same_figures(folder: Path, tmp_path: Path, labels: str) -> None:
    rows = made_pairs(40)
    turned = [{**row, "response_a": row["response_b"], "response_b": row["response_a"]} for row in rows]
    pairs = write_lines(tmp_path / "turned.jsonl", turned)
    human = labels.partition("+")[2]
    sides = {"a": "b", "b": "a", "tie": "tie"}
    votes = [json.loads(line) for line in Path(human).read_text(encoding="utf-8").splitlines()]
    other = write_lines(tmp_path / "turned-human.jsonl", [{**v, "preference": sides[v["preference"]]} for v in votes])
    first, second = (
        evaluate_heads(folder, [each], resamples=0).evaluation.objectives["helpfulness"]
        for each in (labels, f"{pairs}+{other}")
    )
    for key in ("accuracy", "ece", "brier", "log_loss", "length_slope", "length_only_accuracy"):
        assert getattr(first, key) == pytest.approx(getattr(second, key), abs=1e-6), key


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (
            ["--objective", "helpfullness"],
            "--objective helpfullness: no such head; the heads are helpfulness, harmless",
        ),
        (["--html", "human.jsonl"], "--html human.jsonl: also read by this command"),
    ],
)
def test_mistakes_are_one_line(
    folder: Path,
    labels: str,
    options: list[str],
    error: str,
    rlaif: Cli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = rlaif("evaluate", folder, "pairs.jsonl+human.jsonl", *options)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"Error: {error}")
    assert done.stderr.count("\n") == 1


def test_labels_of_other_objectives_say_how_to_name_them(folder: Path, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": f"pair-{n}", "annotator": "x", "objective": "kind", "preference": "a"} for n in range(4)
    ]
    pairs = write_lines(tmp_path / "pairs.jsonl", made_pairs(4))
    human = write_lines(tmp_path / "human.jsonl", rows)
    with pytest.raises(InputError, match=r"labels of kind, but the heads are helpfulness.*:kind=helpfulness\.$"):
        evaluate_heads(folder, [f"{pairs}+{human}"])
    found = evaluate_heads(folder, [f"{pairs}+{human}:kind=helpfulness"], resamples=0).evaluation
    assert found.objectives["helpfulness"].n == 3 + 1 - equal_pairs(4)


def equal_pairs(count: int) -> int:
    """Pairs with the same response twice, which are left out."""
    return sum(row["response_a"] == row["response_b"] for row in made_pairs(count))


def test_what_is_no_folder_of_heads_is_told_before_labels_are_read(tmp_path: Path, rlaif: Cli) -> None:
    done = rlaif("evaluate", tmp_path, "missing.jsonl")
    assert done.returncode == 2
    assert "no reward heads, rlaif.json is not there" in done.stderr


def test_every_line_fits_a_terminal() -> None:
    lines = list(evaluation_shown(realistic(pairs=300)["evaluation"]))
    assert max(map(len, lines)) <= 80
    assert lines[0] == "heads/hhh on 300 pairs of 300 conversations:"
    assert [line for line in lines if line.startswith("Conflict: helpfulness and harmlessness prefer")] != []
    assert [line for line in lines if line.startswith("The aggregate reward agrees with the labels of help")] != []


def test_scores_are_those_of_the_heads(folder: Path, labels: str, rewards: list[list[dict[str, float]]]) -> None:
    found = evaluate_heads(folder, [labels], resamples=0, examples=3)
    [first, *_] = found.examples
    number = int(first.id.removeprefix("pair-"))
    for side in (0, 1):
        known = [rewards[number][side][name] for name in OBJECTIVES]
        assert np.allclose([first.rewards[name][side] for name in OBJECTIVES], known, atol=1e-3)
    assert not first.right
