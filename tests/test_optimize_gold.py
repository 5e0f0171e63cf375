"""Gold from every source: told apart, joined to its candidates, and worth what it says."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

from rlaif.agreement.calibration import log_odds
from rlaif.errors import InputError
from rlaif.optimize.candidates import score_pool
from rlaif.optimize.gold import given_gold, heads_gold, kind_of_gold, labels_gold, scores_gold
from rlaif.optimize.judge_gold import LEAST_P, judge_gold
from rlaif.optimize.pair_gold import Win, bradley_terry, joined, pair_scores
from rlaif.rewards.heads import RewardHeads
from rlaif.rewards.preferences import Floats
from rlaif.rewards.score import Candidates, score_file
from rlaif.types import Message
from tests.heads_examples import PROMPTS, RESPONSES, make_heads
from tests.overoptimize_examples import rows_of


def written(path: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def label_of(row: Candidates, a: int, b: int, p: float, *, method: str = "weighted", **named: float) -> dict[str, Any]:
    """A line of labels.jsonl about two candidates of a row."""

    def one(value: float) -> dict[str, Any]:
        return {"p_a": value, "preference": "a", "order_gap": 0.0, "verdicts": 2, "abstained": 0}

    return {
        "id": f"{row.id}-{a}-{b}",
        "prompt": [turn.model_dump() for turn in row.prompt],
        "response_a": row.responses[a],
        "response_b": row.responses[b],
        "tags": {},
        "labels": {name: one(value) for name, value in named.items()},
        "overall": {"p_a": p, "preference": "a", "method": method, "pareto": "a"},
        "provenance": {"judge": "j@1", "constitution": "c@1", "template": "t@1", "rlaif": "1"},
    }


def real_rows() -> list[Candidates]:
    """The example prompts with all responses, the last of which repeats the first."""
    texts = (*RESPONSES, RESPONSES[0])
    return [
        Candidates(place, f"p{place}", (Message(role="user", content=prompt),), texts, tuple(range(5)), {})
        for place, prompt in enumerate(PROMPTS)
    ]


def as_data(path: Path, rows: Sequence[Candidates]) -> str:
    return written(
        path, [{"id": row.id, "prompt": row.prompt[0].content, "responses": list(row.responses)} for row in rows]
    )


def test_sources_are_told_apart(tmp_path: Path) -> None:
    row = rows_of(1, 3)[0]
    labels = written(tmp_path / "labels.jsonl", [label_of(row, 0, 1, 0.9, helpful=0.9)])
    scores = written(tmp_path / "scores.jsonl", [{"id": "p0", "response": 0, "reward": 1.0}])
    best = written(tmp_path / "best.jsonl", [{"id": "p0", "responses": ["x"], "scores": [{"reward": 1.0}]}])
    heads, model = tmp_path / "heads", tmp_path / "model"
    for folder, name in ((heads, "rlaif.json"), (heads, "config.json"), (model, "config.json")):
        folder.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
    told = {
        given: kind_of_gold(str(given)) for given in (heads, tmp_path, model, labels, scores, best, "starter", "a/b")
    }
    assert list(told.values()) == ["heads", "labels", "judge", "labels", "scores", "scores", "judge", "judge"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": "p0", "prompt": "x", "response_a": "y"}], "rows hold id, prompt, response_a; expected scores"),
        ([3], "no row can be read"),
    ],
)
def test_file_of_another_shape_is_one_clear_error(tmp_path: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        kind_of_gold(written(tmp_path / "other.jsonl", rows))


def test_paths_that_are_nothing_are_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        kind_of_gold(str(tmp_path / "missing.jsonl"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"neither rlaif\.json"):
        kind_of_gold(str(tmp_path / "empty"))


def test_values_mappings_and_functions_may_be_gold() -> None:
    rows = rows_of(2, 2)
    assert given_gold([1, 2, 3, 4], rows).overall.tolist() == [1, 2, 3, 4]
    both = given_gold({"helpful": [0, 2, 4, 6], "true": [2, 2, 2, 2]}, rows)
    assert both.overall.tolist() == [1, 2, 3, 4]
    assert list(both.objectives) == ["helpful", "true"]
    named = given_gold({"overall": [9, 9, 9, 8], "true": [2, 2, 2, 2]}, rows)
    assert named.overall.tolist() == [9, 9, 9, 8]
    assert list(named.objectives) == ["true"]
    called = given_gold(lambda prompts, responses: [float(text[-1]) for text in responses], rows)
    assert called.overall.tolist() == [0, 1, 0, 1]
    with pytest.raises(InputError, match="4 candidates; expected one a candidate"):
        given_gold([1, 2, 3], rows)


def test_scores_are_joined_by_id_and_place(tmp_path: Path) -> None:
    rows = rows_of(2, 2)
    lines = [
        {"id": "p1", "response": 1, "reward": 4.0, "rewards": {"true": 0.4}},
        {"id": "p0", "response": 1, "reward": 2.0, "rewards": {"true": 0.2}},
        {"id": "p0", "response": 0, "reward": 1.0, "rewards": {}},
        {"id": "elsewhere", "response": 0, "reward": 7.0},
    ]
    gold = scores_gold(written(tmp_path / "s.jsonl", lines), rows)
    assert gold.overall.tolist() == pytest.approx([1, 2, math.nan, 4], nan_ok=True)
    assert gold.objectives["true"].tolist() == pytest.approx([math.nan, 0.2, math.nan, 0.4], nan_ok=True)


def test_scores_of_a_prompt_may_stand_in_one_line(tmp_path: Path) -> None:
    lines = [{"id": "p0", "responses": ["x", "y"], "scores": [{"reward": 1, "rewards": {"true": 5}}, {"reward": 2}]}]
    gold = scores_gold(written(tmp_path / "s.jsonl", lines), rows_of(1, 2))
    assert gold.overall.tolist() == [1, 2]
    assert gold.objectives["true"].tolist() == pytest.approx([5, math.nan], nan_ok=True)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{"id": "p9", "response": 0, "reward": 1}], "scores none of the candidates"),
        ([{"id": "p0", "response": 0, "reward": 1}] * 2, "s.jsonl:2: a second score of response 0 to p0"),
        ([{"id": "p0", "response": 0, "reward": "high"}], 's.jsonl:1: reward is "high"; expected a number'),
        ([{"id": "p0", "response": 0, "reward": True}], "s.jsonl:1: reward is true"),
        ([{"response": 0, "reward": 1}], "s.jsonl:1: no id"),
        ([{"id": "p0", "scores": 4}], "s.jsonl:1: scores are no list"),
    ],
)
def test_scores_that_cannot_be_used_are_named(tmp_path: Path, lines: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        scores_gold(written(tmp_path / "s.jsonl", lines), rows_of(1, 2))


def test_heads_are_gold_and_so_is_what_rlaif_score_writes_of_them(tmp_path: Path) -> None:
    rows = real_rows()
    heads = RewardHeads.load(make_heads(tmp_path))
    gold = heads_gold(heads, rows)
    pool = score_pool(heads, rows)
    assert gold.overall == pytest.approx(pool.reward, abs=1e-5)
    assert list(gold.objectives) == list(heads.spec.objectives)
    score_file(heads, as_data(tmp_path / "data.jsonl", rows), tmp_path / "scores.jsonl")
    scored = scores_gold(str(tmp_path / "scores.jsonl"), rows)
    assert scored.overall == pytest.approx(gold.overall, abs=1e-4)
    assert scored.objectives["honesty"] == pytest.approx(gold.objectives["honesty"], abs=1e-4)


def test_bradley_terry_by_hand() -> None:
    # One pair, p = 0.8: by symmetry the scores are x and -x, with 2 s(2x) - 1.6 + 2x / 9 = 0 for both.
    found = bradley_terry(2, np.array([[0, 1]]), np.array([0.8]))
    assert found[0] == pytest.approx(-found[1])
    win = 1 / (1 + math.exp(-2 * found[0]))
    assert win - 0.8 + found[0] / 9 == pytest.approx(0, abs=1e-9)
    # With hardly a prior it is the log-odds themselves.
    loose = bradley_terry(2, np.array([[0, 1]]), np.array([0.8]), prior=1e4)
    assert loose[0] - loose[1] == pytest.approx(math.log(4), abs=1e-5)


def test_bradley_terry_agrees_with_a_general_minimiser() -> None:
    random = np.random.default_rng(0)
    pairs = np.array([(a, b) for a in range(7) for b in range(a) if random.random() < 0.7])
    p = random.uniform(0, 1, size=len(pairs))
    p[:3] = [0.0, 1.0, 1.0]

    def loss(scores: Floats) -> float:
        d = scores[pairs[:, 0]] - scores[pairs[:, 1]]
        return float((p * np.logaddexp(0, -d) + (1 - p) * np.logaddexp(0, d)).sum() + (scores**2).sum() / 18)

    found = bradley_terry(7, pairs, p)
    assert found == pytest.approx(minimize(loss, np.zeros(7), tol=1e-12).x, abs=1e-4)
    assert found.mean() == pytest.approx(0, abs=1e-9)


def test_certain_labels_stay_finite() -> None:
    chain = np.array([[place, place + 1] for place in range(30)] * 20)
    found = bradley_terry(31, chain, np.ones(len(chain)))
    assert np.isfinite(found).all()
    assert (np.diff(found) < 0).all()


def test_largest_group_that_labels_join() -> None:
    assert joined(7, np.array([[0, 1], [3, 2], [4, 3], [6, 4]])).tolist() == [2, 3, 4, 6]
    assert joined(4, np.array([[2, 3], [0, 1]])).tolist() == [0, 1]


def test_candidates_on_no_common_scale_have_no_gold() -> None:
    rows = rows_of(2, 5)
    # Of the second prompt 5, 6, 7 are joined; 8 and 9 are compared with each other alone.
    found = pair_scores(rows, [Win(5, 6, 0.9), Win(7, 6, 0.6), Win(8, 9, 0.7)])
    assert np.isfinite(found.scores).tolist() == [False] * 5 + [True] * 3 + [False] * 2
    assert found.apart == 2
    assert found.scores[5] > found.scores[7] > found.scores[6]


def test_labels_of_pairs_become_scores_of_their_candidates(tmp_path: Path) -> None:
    rows = real_rows()
    lines = [
        label_of(rows[0], 0, 1, 0.9, helpful=0.9, true=0.2),
        label_of(rows[0], 1, 2, 0.8, helpful=0.6),
        label_of(rows[2], 3, 1, 0.7, true=0.7),
    ]
    lines.append({**label_of(rows[1], 0, 1, 0.7), "id": "other", "prompt": [{"role": "user", "content": "unknown"}]})
    gold = labels_gold(written(tmp_path / "labels.jsonl", lines), rows)
    assert gold.overall[0] > gold.overall[1] > gold.overall[2]
    # The last candidate has the text of the first.
    assert gold.overall[4] == gold.overall[0]
    assert np.isfinite(gold.overall).tolist() == [True, True, True, False, True] + [False] * 6 + [
        True,
        False,
        True,
        False,
    ]
    assert np.isfinite(gold.objectives["true"]).sum() == 5
    assert gold.objectives["true"][1] > gold.objectives["true"][0]
    assert "3 labelled pairs" in gold.notes[0]


def test_conflicts_of_the_pareto_rule_are_not_left_out(tmp_path: Path) -> None:
    row = rows_of(1, 2)[0]
    line = label_of(row, 0, 1, 0.0, method="pareto", helpful=0.9, true=0.3)
    line["overall"] |= {"p_a": None, "preference": None, "pareto": "conflict"}
    gold = labels_gold(written(tmp_path / "labels.jsonl", [line]), [row])
    # The mean of 0.9 and 0.3.
    expected = bradley_terry(2, np.array([[0, 1]]), np.array([0.6]))
    assert gold.overall == pytest.approx(expected)


def test_labels_of_other_texts_are_refused(tmp_path: Path) -> None:
    row, other = rows_of(2, 2)
    with pytest.raises(InputError, match="labels no pair of candidates"):
        labels_gold(written(tmp_path / "labels.jsonl", [label_of(other, 0, 1, 0.5)]), [row])


def test_judge_compares_with_the_first_candidate_and_goes_on_where_it_was(tmp_path: Path) -> None:
    rows = real_rows()[:2]
    settings: dict[str, Any] = {"template": "direct", "objectives": ["harmlessness"], "engine": "transformers"}
    first = judge_gold("starter", rows, tmp_path / "run", **settings)
    # Three other texts a prompt; the repeated one is the reference again.
    assert len((tmp_path / "run" / "pairs.jsonl").read_text().splitlines()) == 6
    assert first.overall[[0, 4, 5, 9]].tolist() == [0, 0, 0, 0]
    labels = [json.loads(line) for line in (tmp_path / "run" / "labels" / "labels.jsonl").read_text().splitlines()]
    expected = [log_odds(label["overall"]["p_a"], LEAST_P) for label in labels]
    assert first.overall[[1, 2, 3, 6, 7, 8]] == pytest.approx(expected)
    assert first.objectives["harmlessness"] == pytest.approx(first.overall)
    tallies: list[int] = []
    again = judge_gold("starter", rows, tmp_path / "run", watch=lambda tally: tallies.append(tally.asked), **settings)
    assert again.overall.tolist() == first.overall.tolist()
    assert sum(tallies) == 0


def test_log_odds_end_where_a_judge_is_certain() -> None:
    assert log_odds(0.5, LEAST_P) == 0
    assert log_odds(0.8, LEAST_P) == pytest.approx(math.log(4))
    assert log_odds(1.0, LEAST_P) == pytest.approx(math.log(99))
    assert log_odds(0.0, LEAST_P) == pytest.approx(-math.log(99))
