"""`rlaif score`: every shape of data in, a line a response out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlaif.errors import InputError
from rlaif.rewards import score as scoring
from rlaif.rewards.heads import RewardHeads
from rlaif.rewards.score import score_file
from tests.conftest import Cli, made_pairs, read_lines, write_lines
from tests.heads_examples import OBJECTIVES, make_heads


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Heads of a tiny Llama, an ensemble of three."""
    return make_heads(tmp_path_factory.mktemp("scored"), members=3, by_tag={"medical": {"honesty": 1.0}})


@pytest.fixture(scope="module")
def heads(folder: Path) -> RewardHeads:
    """The same, loaded."""
    return RewardHeads.load(folder)


def expected(heads: RewardHeads, row: dict[str, Any], responses: list[str]) -> list[dict[str, float]]:
    """Rewards of one row, scored alone."""
    found = heads.score([row["prompt"]] * len(responses), responses)
    return [{**reward.rewards, "reward": reward.reward} for reward in found]


def check(lines: list[dict[str, Any]], numbers: list[dict[str, float]]) -> None:
    """The lines of one row hold these rewards."""
    assert len(lines) == len(numbers)
    for line, values in zip(lines, numbers, strict=True):
        assert {**line["rewards"], "reward": line["reward"]} == pytest.approx(values, abs=1e-4)


def test_the_command_scores_pairs_and_select_takes_them(
    folder: Path, heads: RewardHeads, tmp_path: Path, rlaif: Cli
) -> None:
    rows = made_pairs(12)
    data = write_lines(tmp_path / "pairs.jsonl", [*rows, {"id": "broken", "prompt": 5}])
    out = tmp_path / "scores.jsonl"
    done = rlaif("score", folder, data, "--out", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"24 responses of 12 rows -> {out}, 1 row rejected\n"
    assert done.stderr == ""
    lines = read_lines(out)
    assert [(line["id"], line["response"]) for line in lines] == [(row["id"], side) for row in rows for side in "ab"]
    for place, row in enumerate(rows):
        check(lines[2 * place : 2 * place + 2], expected(heads, row, [row["response_a"], row["response_b"]]))
    assert all(list(line) == ["id", "response", "rewards", "std", "reward", "pareto_rank"] for line in lines)
    assert all(tuple(line["std"]) == OBJECTIVES and min(line["std"].values()) > 0 for line in lines)
    (reject,) = read_lines(tmp_path / "scores.rejects.jsonl")
    assert reject["line"] == 13
    chosen = rlaif("select", out, "--pairs", data, "--n", "3", "--out", tmp_path / "chosen.jsonl")
    assert chosen.returncode == 0, chosen.stderr
    assert len(read_lines(tmp_path / "chosen.jsonl")) == 3


def test_bfloat16_is_close_to_float32_and_not_the_same(
    folder: Path, heads: RewardHeads, tmp_path: Path, rlaif: Cli
) -> None:
    data = write_lines(tmp_path / "pairs.jsonl", made_pairs(12))
    numbers = {}
    for precision in ("float32", "bfloat16"):
        out = tmp_path / f"{precision}.jsonl"
        done = rlaif("score", folder, data, "--out", out, "--precision", precision)
        assert done.returncode == 0, done.stderr
        numbers[precision] = np.array([list(line["rewards"].values()) for line in read_lines(out)])
    score_file(heads, str(data), tmp_path / "loaded.jsonl")
    default = [list(line["rewards"].values()) for line in read_lines(tmp_path / "loaded.jsonl")]
    np.testing.assert_allclose(numbers["float32"], default, atol=1e-6)
    # Eight bits of a product, summed over a few layers: some hundredths of what sets responses apart.
    unit = numbers["float32"].std(axis=0)
    off = np.abs(numbers["bfloat16"] - numbers["float32"]) / unit
    assert 1e-4 < off.mean() < 0.1
    assert off.max() < 0.5


def test_lists_of_responses_single_ones_and_other_shapes(heads: RewardHeads, tmp_path: Path) -> None:
    turn = [{"role": "user", "content": "Name a river."}]
    many = {"id": "n", "prompt": turn, "responses": ["The Danube.", "Rain", ""], "policy": {"name": "p"}}
    two = {
        "id": "two",
        "prompt": "Why?",
        "response_a": "So.",
        "response_b": "Because.",
        "responses": ["So.", "Because."],
    }
    one = {"id": "one", "prompt": "Why?", "response": "Because it is so."}
    better = {"id": "better", "prompt": "Why?", "chosen": "Because it is so.", "rejected": "So."}
    data = write_lines(tmp_path / "mixed.jsonl", [many, two, one, better])
    summary = score_file(heads, str(data), tmp_path / "scores.jsonl")
    assert (summary.rows, summary.responses, summary.rejected, summary.truncated) == (4, 8, 0, 0)
    lines = read_lines(tmp_path / "scores.jsonl")
    assert [line["response"] for line in lines] == [0, 1, 2, "a", "b", 0, "a", "b"]
    check(lines[:3], expected(heads, many, ["The Danube.", "Rain", ""]))
    check(lines[3:5], expected(heads, two, ["So.", "Because."]))
    check(lines[5:6], expected(heads, one, ["Because it is so."]))
    # Which side the better one of a pair has follows from its texts, as everywhere.
    both = expected(heads, better, ["Because it is so.", "So."])
    assert sorted(line["reward"] for line in lines[6:]) == pytest.approx(sorted(x["reward"] for x in both), abs=1e-4)
    assert [line["pareto_rank"] is None for line in lines] == [False] * 5 + [True] + [False] * 2
    # Rows with the same prompt are not candidates of one another.
    assert {line["pareto_rank"] for line in lines[3:5]} <= {0, 1}


def test_tags_columns_limit_and_weights(heads: RewardHeads, tmp_path: Path) -> None:
    rows = [{"q": f"Is {n} prime?", "response": "Yes.", "tags": ["medical"] if n == 2 else []} for n in (1, 2, 3)]
    data, out = write_lines(tmp_path / "rows.jsonl", rows), tmp_path / "scores.jsonl"
    summary = score_file(heads, str(data), out, columns="prompt=q", limit=2)
    assert summary.rows == 2
    plain, tagged = read_lines(out)
    assert tagged["reward"] == pytest.approx(tagged["rewards"]["honesty"], abs=1e-5)
    weights = {"helpfulness": 1 / 6, "harmlessness": 2 / 6, "honesty": 3 / 6}
    assert plain["reward"] == pytest.approx(sum(weights[name] * plain["rewards"][name] for name in weights), abs=1e-5)
    score_file(heads, str(data), out, columns="prompt=q", weights={"helpfulness": 2})
    assert [line["reward"] for line in read_lines(out)] == [line["rewards"]["helpfulness"] for line in read_lines(out)]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "x", "responses": []}, "responses is no list, or an empty one"),
        ({"prompt": "x", "responses": "text"}, "responses is no list"),
        ({"prompt": "x", "responses": ["fine", 5]}, "responses: response 2 is not a text"),
        ({"prompt": "x", "responses": ["a\x00b"]}, "responses: response 1 holds a NUL"),
        ({"prompt": "x", "responses": ["\ud800"]}, "responses: response 1 holds a lone surrogate"),
        ({"prompt": "x", "response": None}, "response is missing"),
        ({"prompt": "x", "response": 7}, "response is a number"),
        ({"prompt": "x", "response_a": "y"}, "no response_b"),
        ({"prompt": "x"}, "no response_a and response_b"),
        ({"responses": ["x"]}, "no prompt"),
        ({"id": "fine", "prompt": "x", "response": "again"}, "duplicate id"),
        ([], "expected an object"),
    ],
)
def test_a_row_that_cannot_be_used_is_rejected_and_the_rest_is_done(
    row: Any, reason: str, heads: RewardHeads, tmp_path: Path
) -> None:
    fine = {"id": "fine", "prompt": "Name a river.", "response": "The Danube."}
    data, out = write_lines(tmp_path / "rows.jsonl", [fine, row, {**fine, "id": "last"}]), tmp_path / "out.jsonl"
    summary = score_file(heads, str(data), out)
    assert (summary.rows, summary.rejected) == (2, 1)
    assert [line["id"] for line in read_lines(out)] == ["fine", "last"]
    (reject,) = read_lines(tmp_path / "out.rejects.jsonl")
    assert reject["line"] == 2
    assert reason in reject["reason"]
    out.unlink()
    with pytest.raises(InputError, match=r"rows.jsonl:2: [^\n]*\n1 row cannot be used"):
        score_file(heads, str(data), out, strict=True)
    assert not out.exists()


def test_a_conversation_that_the_chat_template_refuses_is_rejected(tmp_path: Path) -> None:
    folder = make_heads(tmp_path)
    template = folder / "chat_template.jinja"
    refusing = "{% if messages[0].role == 'assistant' %}{{ raise_exception('no such start') }}{% endif %}"
    template.write_text(refusing + template.read_text())
    fine = {"id": "fine", "prompt": "Name a river.", "responses": ["The Danube.", "Rain"]}
    odd = {"id": "odd", "prompt": [{"role": "assistant", "content": "Hello."}], "response": "Hello?"}
    out = tmp_path / "out.jsonl"
    summary = score_file(folder, str(write_lines(tmp_path / "rows.jsonl", [odd, fine, odd | {"id": "too"}])), out)
    assert (summary.rows, summary.responses, summary.rejected) == (1, 2, 2)
    assert [line["id"] for line in read_lines(out)] == ["fine", "fine"]
    rejects = read_lines(tmp_path / "out.rejects.jsonl")
    assert [reject["line"] for reject in rejects] == [1, 3]
    assert all("no such start" in reject["reason"] for reject in rejects)
    with pytest.raises(InputError, match=r"no prompt can be used; line 1: .*no such start"):
        score_file(folder, str(write_lines(tmp_path / "odd.jsonl", [odd])), out)


def test_windows_change_nothing_but_memory(heads: RewardHeads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_lines(tmp_path / "pairs.jsonl", made_pairs(30))
    seen: list[tuple[int, int | None]] = []
    score_file(heads, str(data), tmp_path / "whole.jsonl", watch=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (30, 30)
    monkeypatch.setattr(scoring, "_RESPONSES", 7)
    score_file(heads, str(data), tmp_path / "parts.jsonl", watch=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (30, 30)
    assert [done for done, _ in seen] != sorted(done for done, _ in seen), "both runs were watched"
    whole, parts = read_lines(tmp_path / "whole.jsonl"), read_lines(tmp_path / "parts.jsonl")
    assert [(line["id"], line["response"]) for line in whole] == [(line["id"], line["response"]) for line in parts]
    for one, other in zip(whole, parts, strict=True):
        assert one["rewards"] == pytest.approx(other["rewards"], abs=1e-4)
        assert one["pareto_rank"] == other["pareto_rank"]


def test_bad_input_is_one_line_and_out_stays(folder: Path, heads: RewardHeads, tmp_path: Path, rlaif: Cli) -> None:
    data, out = write_lines(tmp_path / "pairs.jsonl", made_pairs(2)), tmp_path / "scores.jsonl"
    out.write_text("earlier\n")
    done = rlaif("score", tmp_path, data, "--out", out)
    assert done.returncode == 2
    assert done.stderr.startswith(f"Error: {tmp_path}: no reward heads, rlaif.json is not there")
    assert len(done.stderr.splitlines()) == 1
    for wrong, message in (({"speed": 1.0}, "no head 'speed'"), ({"honesty": -1.0}, "must be 0 or more")):
        with pytest.raises(InputError, match=message):
            score_file(heads, str(data), out, weights=wrong)
    with pytest.raises(InputError, match="also read by this command"):
        score_file(heads, str(data), data)
    prompts = write_lines(tmp_path / "prompts.jsonl", [{"prompt": "x"}])
    with pytest.raises(InputError, match="no prompt can be used; line 1: no response_a and response_b"):
        score_file(heads, str(prompts), out)
    assert out.read_text() == "earlier\n"
    assert not list(tmp_path.glob(".scores*"))


def test_lines_go_down_a_pipe_alone(folder: Path, tmp_path: Path, rlaif: Cli) -> None:
    data = write_lines(tmp_path / "pairs.jsonl", made_pairs(2))
    done = rlaif("score", folder, data, "--out", "/dev/stdout", "--json")
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["response"] for line in done.stdout.splitlines()] == ["a", "b", "a", "b"]
    assert json.loads(done.stderr)["responses"] == 4
