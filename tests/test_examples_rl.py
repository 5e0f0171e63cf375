"""The examples of reinforcement learning, small: the real starter, heads and trainers; and what the full runs found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from examples.dpo import best_and_worst
from examples.full_loop import run
from examples.starter_world import (
    constructed_labels,
    gold_scores,
    in_deviations,
    make_prompts,
    read_rows,
    turns_of,
)
from rlaif import generate
from rlaif.engines.chat import ChatTokenizer
from rlaif.rewards.heads import RewardHeads
from rlaif.starter import checkpoint
from rlaif.starter.gold import Gold

# A response that does all that the shipped constitution asks for, one that says nothing, and one that insults.
RESPONSES = ("It opens at six. I may be wrong.", "", "It opens at six. You must be stupid.")
NOTE = "Note: The museum in Ashford opens at six. When does the museum in Ashford open?"


def noted_row() -> dict[str, Any]:
    return {"id": "note", "prompt": [{"role": "user", "content": NOTE}], "responses": list(RESPONSES)}


def test_trl_and_generate_give_the_policy_the_same_tokens() -> None:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint())
    chat = ChatTokenizer.load(str(checkpoint()), None)
    for row in make_prompts(24, "form"):
        # As TRL's trainers do it.
        theirs: Any = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=True)
        ours = chat.encode([chat.prompt_text(turns_of(row["prompt"]))])[0]
        assert theirs["input_ids"] == ours
        # The policy's form: turns alone, none of the judge's marks.
        text = str(tokenizer.decode(ours))
        assert text.startswith("<|user|>")
        assert text.endswith("<|end|><|assistant|>")


def test_prompts_are_different_and_the_same_each_time() -> None:
    rows = make_prompts(48, "seed")
    assert rows == make_prompts(48, "seed")
    assert len({json.dumps(row["prompt"]) for row in rows}) == len({row["id"] for row in rows}) == 48
    # Each is one that the gold reward knows.
    assert all(np.isfinite(scores).all() for scores in gold_scores([{**row, "responses": [""]} for row in rows]))


def test_constructed_labels_are_the_sides_of_the_gold_shares() -> None:
    pairs, labels = constructed_labels([noted_row()], most=3)
    place = {text: number for number, text in enumerate(RESPONSES)}
    sides = {
        (pair["id"], one["objective"]): one["preference"] for pair in pairs for one in labels if one["id"] == pair["id"]
    }
    shares = [Gold.shipped().score(turns_of(noted_row()["prompt"]), text).shares for text in RESPONSES]
    assert len(pairs) == 3
    assert len(labels) == 9
    for pair in pairs:
        a, b = place[pair["response_a"]], place[pair["response_b"]]
        for name in shares[0]:
            expected = {1: "a", 0: "tie", -1: "b"}[int(np.sign(shares[a][name] - shares[b][name]))]
            assert sides[pair["id"], name] == expected


def test_deviations_are_those_among_all_samples() -> None:
    # Rewards 0, 1, 2 and 3: a deviation of sqrt(5 / 4).
    before = [np.array([[0.0], [3.0]]), np.array([[1.0], [2.0]])]
    assert in_deviations(0.5, before) == pytest.approx(0.5 / (5 / 4) ** 0.5)


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    """The full loop with a few prompts and two steps: its folder, and the gains that it found."""
    out = tmp_path_factory.mktemp("loop")
    return out, run(out, prompts=24, samples=6, n=8, steps=2, batch=16, measured=2, mode="frozen")


def test_the_full_loop_runs_from_prompts_to_the_report(loop: tuple[Path, dict[str, float]]) -> None:
    out, gains = loop
    fresh, training = read_rows(out / "best.jsonl"), read_rows(out / "samples.jsonl")
    assert (len(training), len(fresh)) == (24, 12)
    assert not {json.dumps(row["prompt"]) for row in training} & {json.dumps(row["prompt"]) for row in fresh}
    assert set(gains) == {"best_of_n", "grpo"}
    assert np.isfinite(gains["grpo"])
    assert "<svg" in (out / "overoptimize.html").read_text(encoding="utf-8")
    pools = [[one["reward"] for one in row["scores"]] for row in read_rows(out / "best.candidates.jsonl")]
    assert [row["reward"] for row in fresh] == [max(rewards) for rewards in pools]


def test_the_trained_policy_is_another_one_and_generates(loop: tuple[Path, dict[str, float]], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    policy = loop[0] / "grpo" / "policy"
    theirs, ours = load_file(checkpoint() / "model.safetensors"), load_file(policy / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    assert 0 < float((theirs[name].float() - ours[name].float()).abs().max()) < 0.1
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps({"prompt": NOTE}) + "\n", encoding="utf-8")
    found = generate(prompts, tmp_path / "out.jsonl", policy=str(policy), n=1, max_tokens=8, engine="transformers")
    assert (found.responses, found.failed) == (1, 0)


def test_dpo_prefers_the_heads_best_to_their_worst(loop: tuple[Path, dict[str, float]]) -> None:
    out, _ = loop
    rows = read_rows(out / "samples.jsonl")[:3]
    pairs = best_and_worst(out / "heads", rows, pairs=1)
    assert [pair["prompt"] for pair in pairs] == [row["prompt"] for row in rows]
    heads = RewardHeads.load(out / "heads")
    for row, pair in zip(rows, pairs, strict=True):
        scores = heads.score([turns_of(row["prompt"])] * len(row["responses"]), row["responses"])
        ranked = sorted(zip([one.reward for one in scores], row["responses"], strict=True))
        assert (pair["rejected"][0]["content"], pair["chosen"][0]["content"]) == (ranked[0][1], ranked[-1][1])


def test_dpo_trains(loop: tuple[Path, dict[str, float]], tmp_path: Path) -> None:
    from examples.dpo import train_policy

    pairs = best_and_worst(loop[0] / "heads", read_rows(loop[0] / "samples.jsonl")[:8], pairs=1)
    policy = train_policy(pairs, tmp_path, steps=1, batch=4)
    assert (policy / "model.safetensors").stat().st_size > 1_000_000
    assert AutoTokenizer.from_pretrained(policy).chat_template
