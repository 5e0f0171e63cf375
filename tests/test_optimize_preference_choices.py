"""Scored candidates as preference data: the best response to a prompt over the worst."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlaif.errors import InputError
from rlaif.optimize.preference_files import export_preferences
from rlaif.rewards.heads import RewardHeads
from rlaif.rewards.score import score_file
from tests.conftest import read_lines, write_lines
from tests.heads_examples import PROMPTS, RESPONSES, make_heads
from tests.preference_examples import QUESTION, exported, label_row, make_run


def scored(reward: float, helpfulness: float) -> dict[str, Any]:
    """What is said of a candidate."""
    return {"rewards": {"helpfulness": helpfulness}, "std": None, "reward": reward, "pareto_rank": 0}


def candidates(folder: Path) -> Path:
    """Candidates of five prompts with scores made by hand, the third with equal ones, the fourth and fifth unusable."""
    rows: list[dict[str, Any]] = [
        {"responses": ["low", "high", "mid"], "scores": [scored(-1, 5), scored(2, 1), scored(0.5, 0)]},
        {"responses": ["same", "same ", "worse"], "scores": [scored(1, 0), scored(1, 3), scored(0.75, 0)]},
        {"responses": ["tie", "tied"], "scores": [scored(1, 0), scored(1, 0)]},
        {"responses": ["alone"], "scores": [scored(1, 0)]},
        {"responses": ["short", "of"], "scores": [scored(1, 0)]},
        {"responses": ["equal", "equal"], "scores": [scored(1, 0), scored(2, 1)]},
    ]
    whole = [{"id": f"c{place}", "prompt": QUESTION, **row} for place, row in enumerate(rows)]
    return write_lines(folder / "picks.candidates.jsonl", whole)


def test_of_candidates_the_best_is_chosen_over_the_worst(tmp_path: Path) -> None:
    summary, rows = exported(candidates(tmp_path), tmp_path, "trl", margin=True)
    assert [tuple(row.values()) for row in rows] == [
        ("c0", "How do tides work?", "high", "low", 2.0, -1.0, 3.0),
        ("c1", "How do tides work?", "same", "worse", 1.0, 0.75, 0.25),
    ]
    assert list(rows[0]) == ["id", "prompt", "chosen", "rejected", "reward_chosen", "reward_rejected", "margin"]
    assert summary.left_out == {
        "ties": 1,
        "fewer than two scored responses": 1,
        "rows that cannot be used": 1,
        "equal responses": 1,
    }
    assert summary.mean_doubt is None
    (broken,) = [note for note in summary.notes if "cannot be used" in note]
    assert "picks.candidates.jsonl:5: responses and scores are no lists of one length" in broken
    assert [row["id"] for row in exported(tmp_path / "picks.candidates.jsonl", tmp_path, min_margin=1.0)[1]] == ["c0"]
    by_objective = exported(tmp_path / "picks.candidates.jsonl", tmp_path, objective="helpfulness")[1]
    assert [(row["chosen"], row["rejected"]) for row in by_objective] == [("low", "mid"), ("same ", "worse")]
    assert exported(f"{tmp_path / 'picks.candidates.jsonl'}:helpfulness", tmp_path)[1] == by_objective
    with pytest.raises(InputError, match=r":1: no reward of 'honesty'; the objectives are helpfulness"):
        exported(tmp_path / "picks.candidates.jsonl", tmp_path, objective="honesty")


def test_what_rlaif_score_wrote_chooses_among_the_data(tmp_path: Path) -> None:
    """The real heads' rewards, asked for directly, tell the same best and worst."""
    heads = make_heads(tmp_path)
    data = write_lines(
        tmp_path / "data.jsonl",
        [{"id": f"p{place}", "prompt": prompt, "responses": RESPONSES} for place, prompt in enumerate(PROMPTS)],
    )
    score_file(heads, str(data), tmp_path / "scores.jsonl")
    summary, rows = exported(f"{data}+{tmp_path / 'scores.jsonl'}", tmp_path)
    loaded = RewardHeads.load(heads)
    for row, prompt in zip(rows, PROMPTS, strict=True):
        turns = [[{"role": "user", "content": prompt}]] * len(RESPONSES)
        rewards = [reward.reward for reward in loaded.score(turns, list(RESPONSES))]
        assert row["chosen"] == RESPONSES[rewards.index(max(rewards))]
        assert row["rejected"] == RESPONSES[rewards.index(min(rewards))]
        assert row["reward_chosen"] == pytest.approx(max(rewards), abs=1e-4)
        assert row["reward_rejected"] == pytest.approx(min(rewards), abs=1e-4)
    assert (summary.rows, summary.left_out) == (3, {})
    # Scores alone hold no texts, and scores of other data no responses.
    with pytest.raises(InputError, match=r"give the data that was scored as well, as DATA\+"):
        exported(tmp_path / "scores.jsonl", tmp_path)
    fewer = write_lines(
        tmp_path / "fewer.jsonl", [*read_lines(data)[1:], {"id": "new", "prompt": "x", "response": "y"}]
    )
    left_out = exported(f"{fewer}+{tmp_path / 'scores.jsonl'}", tmp_path)[0].left_out
    assert left_out == {"prompts without scores": 1, "scores without a response": 4}
    twice = write_lines(tmp_path / "twice.jsonl", read_lines(tmp_path / "scores.jsonl")[:1] * 2)
    with pytest.raises(InputError, match=r"twice\.jsonl:2: a second score of response 0 of 'p0'"):
        exported(f"{data}+{twice}", tmp_path)


def test_scores_stand_alone_and_have_no_weight(tmp_path: Path) -> None:
    file = candidates(tmp_path)
    run = make_run(tmp_path / "run", [label_row("sure", 0.9)])
    with pytest.raises(InputError, match="expected them alone"):
        export_preferences([str(run), str(file)], tmp_path / "out.jsonl", "trl")
    with pytest.raises(InputError, match="scores have no weight"):
        exported(f"{file}@2", tmp_path)
