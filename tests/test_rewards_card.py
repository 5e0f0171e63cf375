"""The model card: what it says of the heads, and that its code runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from rlaif.rewards.card import card_text, write_card
from rlaif.rewards.evaluation import Evaluation
from rlaif.rewards.heads import RewardHeads
from rlaif.rewards.spec import Aggregation
from tests.heads_examples import make_heads
from tests.reward_examples import realistic, realistic_spec, small_evaluation, spec_of


@pytest.fixture(scope="module")
def values() -> dict[str, Any]:
    """The inputs of a report, of which a card takes some."""
    return realistic(pairs=400)


def front_matter(text: str) -> dict[str, Any]:
    """The YAML in front."""
    match = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    assert match is not None
    found: dict[str, Any] = YAML(typ="safe").load(match.group(1))
    return found


def with_objective(evaluation: Evaluation, **changes: Any) -> Evaluation:
    """An evaluation of one objective with some figures changed."""
    [(name, found)] = evaluation.objectives.items()
    return evaluation.model_copy(update={"objectives": {name: found.model_copy(update=changes)}})


def test_the_card_tells_all_that_a_user_needs(values: dict[str, Any]) -> None:
    text = card_text("hhh", values["spec"], values["evaluation"], values["changes"])
    found = front_matter(text)
    assert found["base_model"] == "Qwen/Qwen3-0.6B"
    assert found["pipeline_tag"] == "text-classification"
    assert "reward-model" in found["tags"]
    [model] = found["model-index"]
    accuracy = model["results"][0]["metrics"][0]
    helpful = values["evaluation"].objectives["helpfulness"]
    assert (accuracy["type"], accuracy["value"]) == ("accuracy", round(helpful.accuracy, 4))
    low, high = helpful.accuracy_ci
    assert f"| helpfulness | {helpful.n:,} | {helpful.accuracy:.1%} ({low:.1%} to {high:.1%}) |" in text
    assert "| helpfulness | 0.46 (0.39 to 0.53) |" in text
    assert "tagged medical have weights of their own: helpfulness 0.3, harmlessness 0.3, honesty 0.4." in text
    assert "`runs/first`, run, 10,240 pairs" in text
    assert "## What the tuning changed" in text
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings == [
        "Objectives",
        "How good they are",
        "What the tuning changed",
        "How they were made",
        "How to use them",
        "Limits",
    ]


def test_the_calibration_error_is_the_cross_validated_one(values: dict[str, Any]) -> None:
    error = values["spec"].calibration["honesty"].ece
    [line] = [
        each for each in card_text("x", values["spec"], values["evaluation"]).splitlines() if "| honesty |" in each
    ][1:]
    assert line.split("|")[5].strip() == f"{error:.3f}"


def test_without_held_out_pairs_nothing_is_claimed() -> None:
    text = card_text("x", spec_of())
    assert "Nothing was held out in training" in text
    assert "Their accuracy is not known" in text
    assert "model-index" not in front_matter(text)
    assert "tuning" not in text


def test_limits_follow_from_the_figures() -> None:
    evaluation = small_evaluation()
    assert "measured on 20 pairs only, fewer than 30." in card_text("x", spec_of(), evaluation)
    coin = with_objective(evaluation, n=100, accuracy_ci=(0.45, 0.6))
    assert "kind: on the held-out pairs it cannot be told from a coin." in card_text("x", spec_of(), coin)
    long = with_objective(
        evaluation,
        n=100,
        over_length_ci=(-0.1, 0.1),
        length_slope=0.9,
        label_length_slope=0.2,
        length_slope_gap_ci=(0.3, 1),
    )
    text = card_text("x", spec_of(), long)
    assert "kind: on the held-out pairs it cannot be told from a rule by length alone." in text
    assert "kind: it leans to longer responses more than its labels do." in text
    none = with_objective(evaluation, n=0, accuracy=None, accuracy_ci=None)
    assert "kind: no held-out pair has a label" in card_text("x", spec_of(), none)


def test_a_path_of_this_machine_is_no_base_model(tmp_path: Path) -> None:
    for backbone in (str(tmp_path), "./models/mine", "starter"):
        spec = realistic_spec().model_copy(update={"provenance": {"backbone": backbone}})
        assert "base_model" not in front_matter(card_text("x", spec))


def test_names_cannot_break_the_card() -> None:
    name = 'a|b: "c" <img src=x>\n# `head` \u202e'
    spec = spec_of(
        (name,),
        aggregation=Aggregation(weights={name: 1.0}, by_tag={name: {name: 1.0}}),
        provenance={"backbone": name, "sources": [{"name": name, "kind": name, "judge": name}], "constitution": name},
    )
    evaluation = small_evaluation().model_copy(update={"objectives": {name: small_evaluation().objectives["kind"]}})
    text = card_text(name, spec, evaluation)
    assert front_matter(text)["model-index"][0]["name"] == 'a|b: "c" <img src=x> # `head`'
    body = text.split("---\n", 2)[2]
    outside = re.sub(r"`[^`]*`", "", body)
    assert "<img" not in outside.replace("\\<img", "")
    assert [line for line in body.splitlines() if line.startswith("# ")] == [
        '# a\\|b: "c" \\<img src=x\\> \\# \\`head\\`'
    ]
    assert "\u202e" not in text
    rows = [line for line in body.splitlines() if line.startswith("| a")]
    assert [len(re.findall(r"(?<!\\)\|", row)) for row in rows] == [6, 7]


@pytest.mark.parametrize("architecture", ["llama", "bert"])
def test_the_code_of_a_card_runs(architecture: str, tmp_path: Path) -> None:
    heads = make_heads(tmp_path, architecture)
    loaded = RewardHeads.load(heads)
    # Whether there is a chat template is known when heads are trained.
    spec = loaded.spec.model_copy(update={"chat": loaded.backbone.encoder.chat})
    write_card(heads, spec)
    text = (heads / "README.md").read_text(encoding="utf-8")
    assert text.partition("\n# ")[2].startswith("heads\n")
    ours, plain = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    raw = loaded.raw(["How are you?"], ["Well, thank you."]).scores
    known: dict[str, Any] = {}
    exec(plain.replace("PATH", str(heads)), known)
    assert known["scores"].tolist() == [pytest.approx(raw[0].tolist(), abs=1e-4)]
    exec(ours.replace("rlaif.RewardHeads", "RewardHeads").replace("PATH", str(heads)), {"RewardHeads": RewardHeads})


def test_writing_takes_the_old_cards_place(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("old", encoding="utf-8")
    write_card(tmp_path, spec_of())
    assert (tmp_path / "README.md").read_text(encoding="utf-8").startswith("---\n")
    assert [each.name for each in tmp_path.iterdir()] == ["README.md"]
