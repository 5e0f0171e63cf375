"""Candidates with their rewards: the numbers of `RewardHeads.score`, laid out for rules and estimators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlaif.errors import InputError, RunError
from rlaif.optimize.candidates import Pool, read_pool_rows, score_pool
from rlaif.rewards import score as scoring
from rlaif.rewards.gate import Gate
from rlaif.rewards.heads import RewardHeads, save_heads
from rlaif.rewards.score import Rejects
from tests.conftest import write_lines
from tests.heads_examples import OBJECTIVES, PROMPTS, RESPONSES, make_backbone, make_heads, make_members, make_spec

ROWS: list[dict[str, Any]] = [
    {"id": "tides", "prompt": PROMPTS[0], "responses": list(RESPONSES)},
    {"id": "river", "prompt": PROMPTS[1], "responses": ["Rain", "The Danube.", "Rain"], "tags": {"medical": True}},
    {"id": "pair", "prompt": PROMPTS[2], "response_a": "Drip.", "response_b": "Rain falls down."},
    {"id": "one", "prompt": PROMPTS[1], "response": "The Danube."},
]
SIZES = [4, 3, 2, 1]


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> RewardHeads:
    """An ensemble of three, with a floor and other weights for a tag."""
    folder = tmp_path_factory.mktemp("pool")
    rule: dict[str, Any] = {"by_tag": {"medical": {"honesty": 1.0}}, "floors": {"harmlessness": 0.5}}
    return RewardHeads.load(make_heads(folder, members=3, **rule))


def pool_of(heads: RewardHeads, folder: Path, rows: list[dict[str, Any]] = ROWS, **options: Any) -> Pool:
    """Read rows from a file and score them."""
    read, _ = read_pool_rows(str(write_lines(folder / "rows.jsonl", rows)))
    return score_pool(heads, read, **options)


def check_against_score(heads: RewardHeads, pool: Pool) -> None:
    """Every number of a pool is that of `RewardHeads.score`, asked prompt by prompt."""
    for place, rows in enumerate(pool.slices()):
        texts = pool.responses[place]
        rewards = heads.score([pool.prompts[place]] * len(texts), texts, tags=[pool.tags[place]] * len(texts))
        for row, reward in zip(range(rows.start, rows.stop), rewards, strict=True):
            assert dict(zip(pool.objectives, pool.rewards[row], strict=True)) == pytest.approx(reward.rewards, abs=1e-4)
            assert pool.reward[row] == pytest.approx(reward.reward, abs=1e-4)
            below = tuple(name for name, short in zip(pool.objectives, pool.below[row], strict=True) if short)
            assert below == reward.below_floors
            if pool.std is not None:
                assert dict(zip(pool.objectives, pool.std[row], strict=True)) == pytest.approx(reward.std, abs=1e-4)


def test_a_pool_has_the_numbers_of_score(heads: RewardHeads, tmp_path: Path) -> None:
    pool = pool_of(heads, tmp_path)
    assert (pool.ids, pool.objectives, len(pool)) == (["tides", "river", "pair", "one"], OBJECTIVES, 10)
    assert [len(each) for each in pool.responses] == SIZES
    assert pool.prompt_of.tolist() == [0] * 4 + [1] * 3 + [2] * 2 + [3]
    assert pool.starts.tolist() == [0, 4, 7, 9, 10]
    assert pool.texts[5] == "The Danube."
    check_against_score(heads, pool)
    assert pool.below.any()
    assert not pool.below.all()
    assert pool.weights is not None
    # Weights are 1 : 2 : 3, and honesty alone where the tag stands.
    assert pool.weights[[0, 4, 9]] == pytest.approx(np.array([[1 / 6, 1 / 3, 1 / 2], [0, 0, 1], [1 / 6, 1 / 3, 1 / 2]]))
    assert pool.row_weights(heads.spec) is pool.weights


def test_the_mean_of_the_members_is_the_reward(heads: RewardHeads, tmp_path: Path) -> None:
    pool = pool_of(heads, tmp_path)
    assert pool.members is not None
    assert pool.members.shape == (10, 3, 3)
    assert pool.members.mean(axis=1) == pytest.approx(pool.rewards, abs=1e-4)
    assert np.ptp(pool.members, axis=1).min() > 1e-3, "members differ"


def test_equal_responses_have_equal_numbers(heads: RewardHeads, tmp_path: Path) -> None:
    pool = pool_of(heads, tmp_path)
    assert pool.members is not None
    assert (pool.rewards[4] == pool.rewards[6]).all()
    assert (pool.members[4] == pool.members[6]).all()
    assert (pool.rewards[4] != pool.rewards[5]).all()


def test_windows_change_nothing_but_memory(heads: RewardHeads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = pool_of(heads, tmp_path)
    monkeypatch.setattr(scoring, "_RESPONSES", 5)
    seen: list[int] = []
    parts = pool_of(heads, tmp_path, watch=seen.append)
    assert whole.members is not None
    assert parts.members is not None
    assert parts.rewards == pytest.approx(whole.rewards, abs=1e-5)
    assert parts.members == pytest.approx(whole.members, abs=1e-5)
    assert parts.prompt_of.tolist() == whole.prompt_of.tolist()
    # The windows hold seven candidates and three; the count goes on.
    assert seen == sorted(seen)
    assert seen[-1] == 10


def test_one_head_has_no_members_and_a_gate_weighs_by_the_prompt(tmp_path: Path) -> None:
    backbone = make_backbone(tmp_path / "backbone")
    gate = Gate(make_members(backbone.hidden, 1)[:, 0].double().numpy(), np.array([0.5, 0.0, -0.5]))
    save_heads(tmp_path / "gated", backbone, None, make_spec(origin="gated"), gate=gate)
    heads = RewardHeads.load(tmp_path / "gated")
    pool = pool_of(heads, tmp_path)
    assert pool.members is None
    assert pool.std is None
    check_against_score(heads, pool)
    assert pool.weights is not None
    assert pool.weights.sum(axis=1) == pytest.approx(np.ones(10))
    assert (pool.weights[0] == pool.weights[3]).all(), "one prompt, one weighting"
    assert np.abs(pool.weights[0] - pool.weights[4]).max() > 1e-3
    assert pool.reward == pytest.approx((pool.weights * pool.rewards).sum(axis=1))


def test_rows_that_the_chat_template_refuses_are_an_error_or_rejects(tmp_path: Path) -> None:
    folder = make_heads(tmp_path)
    template = folder / "chat_template.jinja"
    refusing = "{% if messages[0].role == 'assistant' %}{{ raise_exception('no such start') }}{% endif %}"
    template.write_text(refusing + template.read_text())
    heads = RewardHeads.load(folder)
    odd = {"id": "odd", "prompt": [{"role": "assistant", "content": "Hello."}], "responses": ["Hello?", "Yes?"]}
    with pytest.raises(RunError, match="no such start"):
        pool_of(heads, tmp_path, [ROWS[0], odd])
    rejects = Rejects(None)
    pool = pool_of(heads, tmp_path, [odd, ROWS[0]], rejects=rejects)
    assert (pool.ids, len(pool), rejects.count, rejects.first[0].line) == (["tides"], 4, 1, 1)
    empty = pool_of(heads, tmp_path, [odd], rejects=rejects)
    assert (len(empty), empty.rewards.shape, empty.starts.tolist(), list(empty.slices())) == (0, (0, 3), [0], [])


def test_rows_are_read_with_their_rejects(tmp_path: Path) -> None:
    broken = {"id": "broken", "prompt": "Why?", "responses": ["So.", 5]}
    data = str(write_lines(tmp_path / "rows.jsonl", [broken, *ROWS]))
    rows, rejects = read_pool_rows(data)
    assert [(row.id, len(row.responses)) for row in rows] == [("tides", 4), ("river", 3), ("pair", 2), ("one", 1)]
    assert [(reject.line, reject.reason) for reject in rejects] == [(1, "responses: response 2 is not a text")]
    assert [row.id for row in read_pool_rows(data, limit=2)[0]] == ["tides", "river"]
    renamed = write_lines(tmp_path / "renamed.jsonl", [{"question": "Why?", "responses": ["So."]}])
    assert read_pool_rows(str(renamed), columns="prompt=question")[0][0].prompt[0].content == "Why?"
    with pytest.raises(InputError, match="no prompt can be used; line 1: responses: response 2 is not a text"):
        read_pool_rows(str(write_lines(tmp_path / "none.jsonl", [broken])))
