"""The published figures come out of `rlaif compare --json` itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rlaif.agreement.alt_test import alt_test_of
from tests.conftest import Cli


def compared(rlaif: Cli, *arguments: object) -> dict[str, Any]:
    """What `rlaif compare --json` prints."""
    done = rlaif("compare", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def figures(folder: Path) -> dict[str, Any]:
    """The folder's expected figures by name."""
    text = (folder / "expected.json").read_text(encoding="utf-8")
    return {each["figure"]: each["reproduced"] for each in json.loads(text)["figures"]}


def test_pandalm(rlaif: Cli, shared: Path) -> None:
    folder = shared / "pandalm"
    expected = figures(folder)
    judge, other = (folder / f"ai_labels_{name}.jsonl" for name in ("gpt-3.5-turbo", "pandalm-7b"))
    found = compared(rlaif, judge, folder / "human_labels.jsonl", "--against", other, "--pairs", folder / "pairs.jsonl")
    first, second = found["objectives"]["overall"], found["against"][0]["objectives"]["overall"]
    people = first["humans"]
    for couple in ("annotator1 / annotator2", "annotator1 / annotator3", "annotator2 / annotator3"):
        kappa = people["pairwise_kappa"][couple.replace(" / ", "|")]
        assert kappa == pytest.approx(expected[f"Cohen's kappa {couple}"], abs=1e-9)
    assert [round(kappa, 4) for kappa in people["pairwise_kappa"].values()] == [0.8520, 0.8789, 0.8617]
    assert people["alpha"] == pytest.approx(expected["Krippendorff's alpha, nominal, 3 annotators"], abs=1e-9)
    assert people["no_majority"] == 0
    rows = {side: sum(row.values()) for side, row in first["confusion"].items()}
    assert rows == {"a": 422, "b": 472, "tie": 105}
    for name, each in (("gpt-3.5-turbo", first), ("pandalm-7b", second)):
        assert 100 * each["accuracy"] == pytest.approx(expected[f"{name} vs majority vote: accuracy, %"], abs=1e-9)
        kappa = expected[f"{name} vs majority vote: Cohen's kappa"]
        assert each["cohen_kappa"] == pytest.approx(kappa, abs=1e-9)
        low, high = each["accuracy_ci"]
        assert low < each["accuracy"] < high
    assert (round(100 * first["accuracy"], 3), round(100 * second["accuracy"], 3)) == (71.071, 66.767)
    # Wins and ties of llama-7b over all opponents, added up from the published head-to-heads of the majority vote.
    llama = next(each for each in first["win_rates"] if each["name"] == "llama-7b")
    assert llama["human"] == pytest.approx((72 + 80 + 71 + 58 + (11 + 6 + 11 + 9) / 2) / 421)
    assert [each["judge"] for each in found["ranking"][0]["standings"]] == ["gpt-3.5-turbo", "pandalm-7b"]


def test_llmbar_every_judge_in_either_order(rlaif: Cli, shared: Path) -> None:
    folder = shared / "llmbar-natural"
    expected = figures(folder)
    files = sorted(folder.glob("ai_labels_*.jsonl"))
    against = [argument for file in files[1:] for argument in ("--against", file)]
    found = compared(rlaif, files[0], folder / "human_labels.jsonl", *against, "--resamples", 100)
    judges = {each["judge"]: each["objectives"]["overall"]["position"] for each in (found, *found["against"])}
    assert len(judges) == 6
    shares: dict[str, Callable[[dict[str, Any]], float]] = {
        "accuracy, order ab, %": lambda place: place["accuracy"]["ab"],
        "accuracy, order ba, %": lambda place: place["accuracy"]["ba"],
        "average accuracy, %": lambda place: place["accuracy"]["mean"],
        "right in both orders, %": lambda place: place["accuracy"]["both"],
        "positional agreement, %": lambda place: place["agreement"],
        "answers preferring the first-shown output, %": lambda place: place["first_rate"],
    }
    kappas: dict[str, Callable[[dict[str, Any]], float]] = {
        "Cohen's kappa vs gold, order ab": lambda place: place["kappa"]["ab"],
        "Cohen's kappa vs gold, order ba": lambda place: place["kappa"]["ba"],
        "Cohen's kappa between the orders": lambda place: place["kappa_between_orders"],
    }
    for judge, place in judges.items():
        assert place["n"] == 100
        for name, of in shares.items():
            assert 100 * of(place) == pytest.approx(expected[f"Natural {judge}: {name}"], abs=1e-9), (judge, name)
        for name, of in kappas.items():
            assert of(place) == pytest.approx(expected[f"Natural {judge}: {name}"], abs=1e-9), (judge, name)
    standings = found["ranking"][0]["standings"]
    # Folded, GPT-4 with both orders' debate is right where its orders agree: 94 of 100, best of the single judges.
    assert next(each for each in standings if each["kind"] == "judge")["judge"] == "GPT-4/Swap_CoT"
    assert {each["kind"] for each in standings} == {"judge", "vote"}


def test_people_prefer_the_shorter_reply_in_hh_rlhf(rlaif: Cli, shared: Path, tmp_path: Path) -> None:
    folder = shared / "hh-rlhf"
    expected = figures(folder)
    judge = tmp_path / "longer.jsonl"
    judge.write_text("".join(json.dumps(row) + "\n" for row in longer_first(folder / "pairs.jsonl")), encoding="utf-8")
    found = compared(rlaif, judge, folder / "human_labels.jsonl", "--pairs", folder / "pairs.jsonl", "--resamples", 200)
    bias = found["objectives"]["harmlessness"]["length"]
    share = expected["longer-response (characters) accuracy over pairs of unequal length, %"]
    assert 100 * bias["human_longer"] == pytest.approx(share, abs=1e-9)
    assert bias["judge_longer"] == 1.0
    # A judge that goes by length alone: no slope is steep enough, and that is said.
    assert bias["judge_slope"]["value"] is None
    assert "without an exception" in found["objectives"]["harmlessness"]["not_defined"]["length.judge_slope"]
    assert bias["human_slope"]["value"] < 0


def longer_first(pairs: Path) -> Iterator[dict[str, str]]:
    """Labels of a judge that prefers the longer response."""
    for line in pairs.read_text(encoding="utf-8").splitlines():
        pair = json.loads(line)
        a, b = len(pair["response_a"]), len(pair["response_b"])
        side = "tie" if a == b else "a" if a > b else "b"
        yield {"id": pair["id"], "judge": "longer", "objective": "harmlessness", "preference": side}


def test_alternative_annotator_test_from_its_native_files(shared: Path) -> None:
    folder = shared / "alttest-cebab-stars"
    people, judges = (
        json.loads((folder / f"{who}_annotations.json").read_text(encoding="utf-8")) for who in ("human", "llm")
    )
    expected = figures(folder)
    assert len(judges) == 6
    for name, labels in judges.items():
        found = alt_test_of(labels, people, scoring="neg_rmse", epsilon=0.1)
        assert found.winning_rate == pytest.approx(expected[f"{name}: winning rate"], abs=5e-5)
        advantage = expected[f"{name}: average advantage probability"]
        assert found.advantage_probability == pytest.approx(advantage, abs=5e-5)
