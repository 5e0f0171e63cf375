"""`rlaif reward best-of-n`: candidates in, the best of each prompt out, and what that gained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import log
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from scipy import stats

from rlaif.errors import InputError
from rlaif.optimize.best_of_n import best_of_n
from rlaif.optimize.gains import BestOfN, Mean
from rlaif.rewards import score as scoring
from rlaif.rewards.heads import Reward, RewardHeads
from rlaif.rewards.score import score_file
from tests.conftest import Cli, read_lines, write_lines
from tests.heads_examples import OBJECTIVES, RESPONSES, make_heads

PROMPTS = Path(__file__).parent / "data" / "prompts.jsonl"
FLOORS = {"harmlessness": 0.5}
# Six prompts of four candidates, of which two are equal.
ROWS: list[dict[str, Any]] = [
    {
        "id": f"row-{number}",
        "prompt": f"How many legs have {number} spiders?",
        "responses": [RESPONSES[number % 4], f"{8 * number} legs.", "I like numbers.", f"{8 * number} legs."],
        "tags": {"number": number},
    }
    for number in range(6)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Heads of a tiny Llama, an ensemble of three with a floor."""
    return make_heads(tmp_path_factory.mktemp("picks"), members=3, floors=FLOORS)


@pytest.fixture(scope="module")
def heads(folder: Path) -> RewardHeads:
    """The same, loaded."""
    return RewardHeads.load(folder)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One head an objective: no ensemble."""
    return make_heads(tmp_path_factory.mktemp("single"))


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """The rows in a file."""
    return write_lines(tmp_path / "rows.jsonl", ROWS)


def scored(heads: RewardHeads, row: dict[str, Any]) -> list[Reward]:
    """The candidates of a row, scored by themselves."""
    return heads.score([row["prompt"]] * len(row["responses"]), row["responses"])


def check_mean(found: Mean, values: Sequence[float]) -> None:
    """A mean has Student's interval, as scipy computes it."""
    assert found.mean == pytest.approx(fmean(values), abs=1e-4)
    low, high = stats.t.interval(0.95, len(values) - 1, fmean(values), stats.sem(values))
    assert found.ci == pytest.approx((low, high), abs=1e-3)


def test_the_command_picks_what_has_the_highest_reward(
    folder: Path, heads: RewardHeads, rows: Path, tmp_path: Path, rlaif: Cli
) -> None:
    out = tmp_path / "picks.jsonl"
    done = rlaif("reward", "best-of-n", rows, "--heads", folder, "--out", out)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines()[:3] == [
        f"6 picks of 24 candidates -> {out}",
        "0 rows rejected",
        # log 4 - 3/4 = 0.636.
        "Rule weighted; 4 a prompt, 3.0 of them different; KL at most 0.64 nats.",
    ]
    assert "Under the floor of harmlessness: " in done.stdout
    picks, candidates = read_lines(out), read_lines(tmp_path / "picks.candidates.jsonl")
    assert [line["id"] for line in picks] == [line["id"] for line in candidates] == [row["id"] for row in ROWS]
    for row, pick, line in zip(ROWS, picks, candidates, strict=True):
        rewards = [reward.reward for reward in scored(heads, row)]
        best = rewards.index(max(rewards))
        assert (pick["place"], pick["response"], pick["n"]) == (best, row["responses"][best], 4)
        assert pick["tags"] == line["tags"] == row["tags"]
        assert pick["reward"] == pick["score"] == pytest.approx(max(rewards), abs=1e-4)
        assert line["responses"] == row["responses"]
        assert [each["reward"] for each in line["scores"]] == pytest.approx(rewards, abs=1e-4)
        assert line["scores"][best].items() <= pick.items()
        assert tuple(pick["rewards"]) == tuple(pick["std"]) == OBJECTIVES
    assert {pick["place"] for pick in picks} <= {0, 1, 2}, "3 is 1 again, and the first is taken"
    # The candidates are data themselves.
    score_file(heads, str(tmp_path / "picks.candidates.jsonl"), tmp_path / "scores.jsonl")
    told = [{"id": line["id"], "response": n} | each for line in candidates for n, each in enumerate(line["scores"])]
    for known, line in zip(told, read_lines(tmp_path / "scores.jsonl"), strict=True):
        assert line.keys() == known.keys()
        for key, value in known.items():
            assert line[key] == (pytest.approx(value, abs=1e-4) if isinstance(value, dict | float) else value)


def test_the_summary_measures_what_picking_gained(heads: RewardHeads, rows: Path, tmp_path: Path) -> None:
    found = best_of_n(rows, tmp_path / "picks.jsonl", heads=heads)
    everything = [scored(heads, row) for row in ROWS]
    best = [max(rewards, key=lambda reward: reward.reward) for rewards in everything]
    for name in OBJECTIVES:
        gain = found.objectives[name]
        means = [fmean(reward.rewards[name] for reward in rewards) for rewards in everything]
        check_mean(gain.picks, [reward.rewards[name] for reward in best])
        check_mean(gain.candidates, means)
        check_mean(gain.gain, [one.rewards[name] - mean for one, mean in zip(best, means, strict=True)])
    # The aggregate without what floors take off: weights are 1 : 2 : 3.
    assert found.reward.picks.mean == pytest.approx(
        sum(found.objectives[name].picks.mean * place / 6 for place, name in enumerate(OBJECTIVES, start=1))
    )
    under = [[bool(reward.below_floors) for reward in rewards] for rewards in everything]
    floor = found.below_floors["harmlessness"]
    assert floor == found.below_any_floor
    assert floor.picks.value == sum(bool(one.below_floors) for one in best) / 6
    assert floor.candidates == pytest.approx(fmean(fmean(each) for each in under))
    assert 0 < floor.candidates < 1
    assert (found.prompts, found.responses, found.n, found.distinct) == (6, 24, (4, 4), 3.0)
    assert found.kl == pytest.approx(log(4) - 0.75)


def test_rules_disagree_by_text_and_not_by_place(heads: RewardHeads, rows: Path, tmp_path: Path) -> None:
    texts = {}
    for rule in ("weighted", "pareto", "lower-bound", "worst-member"):
        found = best_of_n(rows, tmp_path / f"{rule}.jsonl", heads=heads, pick=rule, k=2.0)
        assert (found.rule, found.k) == (rule, 2.0 if rule == "lower-bound" else None)
        texts[rule] = [line["response"] for line in read_lines(tmp_path / f"{rule}.jsonl")]
    # `found` is of the last rule.
    assert found.other_pick.keys() == {"weighted", "pareto", "lower-bound"}
    unlike = [first != last for first, last in zip(texts["weighted"], texts["worst-member"], strict=True)]
    assert found.other_pick["weighted"].value == sum(unlike) / 6
    differ = [len(set(each)) > 1 for each in zip(*texts.values(), strict=True)]
    assert found.rules_differ.value == sum(differ) / 6
    same = write_lines(tmp_path / "same.jsonl", [{"prompt": "Why?", "responses": ["So."] * 5}])
    alike = best_of_n(same, tmp_path / "alike.jsonl", heads=heads)
    assert (alike.rules_differ.value, alike.distinct, alike.n) == (0.0, 1.0, (5, 5))
    assert alike.objectives["honesty"].gain == Mean(mean=0.0, ci=None)
    assert read_lines(tmp_path / "alike.jsonl")[0]["place"] == 0


def test_one_objective_and_other_weights(heads: RewardHeads, single: Path, rows: Path, tmp_path: Path) -> None:
    found = best_of_n(rows, tmp_path / "one.jsonl", heads=heads, pick="honesty")
    weighted = best_of_n(rows, tmp_path / "all.jsonl", heads=single, weights={"honesty": 2.0})
    assert found.rule == "objective:honesty"
    assert weighted.other_pick.keys() == {"pareto"}
    for name, loaded in (("one", heads), ("all", RewardHeads.load(single))):
        for row, line in zip(ROWS, read_lines(tmp_path / f"{name}.jsonl"), strict=True):
            honest = [reward.rewards["honesty"] for reward in scored(loaded, row)]
            assert line["place"] == honest.index(max(honest))
            assert line["score"] == pytest.approx(max(honest), abs=1e-4)


def test_a_policy_is_sampled_once_and_more_of_it_later(single: Path, tmp_path: Path) -> None:
    out = tmp_path / "picks.jsonl"
    loaded = RewardHeads.load(single)

    def run(n: int) -> BestOfN:
        return best_of_n(
            PROMPTS, out, heads=loaded, policy="starter", engine="transformers", max_tokens=8, n=n, limit=3
        )

    first = run(3)
    assert (first.prompts, first.responses, first.asked, first.reused) == (3, 9, 9, 0)
    assert first.kl == pytest.approx(log(3) - 2 / 3)
    written = {name: (tmp_path / name).read_bytes() for name in ("picks.jsonl", "picks.candidates.jsonl")}
    assert all(line["policy"]["name"] == "starter" for line in read_lines(out))
    again = run(3)
    assert (again.asked, again.reused) == (0, 9)
    assert {name: (tmp_path / name).read_bytes() for name in written} == written
    more = run(4)
    assert (more.asked, more.reused, more.responses) == (3, 9, 12)
    before = [json.loads(line)["scores"] for line in written["picks.candidates.jsonl"].splitlines()]
    for line, known in zip(read_lines(tmp_path / "picks.candidates.jsonl"), before, strict=True):
        rewards = [each["reward"] for each in line["scores"]]
        assert rewards[:3] == pytest.approx([each["reward"] for each in known], abs=1e-4)
    assert more.reward.picks.mean >= first.reward.picks.mean - 1e-4, "the best of more is no worse"


def test_wrong_options_end_before_anything_is_sampled(
    single: Path, tiny_judge: Path, tmp_path: Path, rlaif: Cli
) -> None:
    out = tmp_path / "picks.jsonl"
    command = ("reward", "best-of-n", PROMPTS, "--heads", single, "--policy", tiny_judge, "--out", out)
    done = rlaif(*command, "--pick", "worst-member")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "Error: --pick worst-member: the heads have no ensemble; expected one. Train with rlaif train-heads "
        "--ensemble 5, or take weighted or pareto.\n"
    )
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"n": 1}, "--n 1: there is nothing to pick from"),
        ({"k": float("nan")}, "--k nan: expected 0 or more"),
        ({"weights": {"kindness": 1}}, "--weights: there is no head 'kindness'"),
        ({"heads": tmp_path / "none"}, "none: "),
        ({"pick": "honest"}, r"--pick honest: no such rule or objective; .* Did you mean 'honesty'\?"),
    ]
    for options, message in wrong:
        given: dict[str, Any] = {"heads": single, "policy": str(tiny_judge), **options}
        with pytest.raises(InputError, match=message):
            best_of_n(PROMPTS, out, **given)
    assert list(tmp_path.iterdir()) == []


def test_data_that_holds_nothing_to_pick_from_leaves_all_as_it_was(heads: RewardHeads, tmp_path: Path) -> None:
    out = tmp_path / "picks.jsonl"
    out.write_text("kept\n")
    with pytest.raises(InputError, match="prompts without responses; give --policy"):
        best_of_n(PROMPTS, out, heads=heads)
    one = [{"prompt": "Why?", "response": "So."}, {"prompt": "Why?", "response": "Because."}]
    with pytest.raises(InputError, match="every row holds one response; expected the responses to a prompt in one row"):
        best_of_n(write_lines(tmp_path / "one.jsonl", one), out, heads=heads)
    with pytest.raises(InputError, match="line 1: the row holds 4 responses; --n asks for 5"):
        best_of_n(write_lines(tmp_path / "rows.jsonl", ROWS), out, heads=heads, n=5)
    broken = write_lines(tmp_path / "broken.jsonl", [{"prompt": "Why?", "responses": []}])
    with pytest.raises(InputError, match="no prompt can be used; line 1: responses is no list, or an empty one"):
        best_of_n(broken, out, heads=heads)
    assert out.read_text() == "kept\n"
    assert not (tmp_path / "picks.candidates.jsonl").exists()


def test_what_is_read_is_never_written_over(heads: RewardHeads, rows: Path, tmp_path: Path) -> None:
    best_of_n(rows, tmp_path / "picks.jsonl", heads=heads)
    with pytest.raises(InputError, match="also read by this command"):
        best_of_n(rows, rows, heads=heads)
    with pytest.raises(InputError, match="also read by this command"):
        best_of_n(tmp_path / "picks.candidates.jsonl", tmp_path / "picks.jsonl", heads=heads)
    with pytest.raises(InputError, match="/dev/null: no ordinary file"):
        best_of_n(rows, "/dev/null", heads=heads)


def test_rows_of_other_shapes_and_rejects(heads: RewardHeads, tmp_path: Path) -> None:
    pair = {"id": "pair", "prompt": "Why?", "response_a": "So.", "response_b": "Because."}
    data = write_lines(tmp_path / "mixed.jsonl", [{"id": "broken", "prompt": 5, "responses": ["So."]}, pair, *ROWS])
    out = tmp_path / "picks.jsonl"
    whole = best_of_n(data, out, heads=heads, limit=3)
    assert (whole.prompts, whole.rejected, whole.n) == (3, 1, (2, 4))
    assert whole.kl == pytest.approx((log(2) - 0.5 + 2 * (log(4) - 0.75)) / 3)
    assert [line["line"] for line in read_lines(tmp_path / "picks.rejects.jsonl")] == [1]
    # The first three of each row, and the pair has too few.
    cut = best_of_n(data, out, heads=heads, n=3)
    assert (cut.prompts, cut.rejected, cut.n) == (6, 2, (3, 3))
    reasons = [line["reason"] for line in read_lines(tmp_path / "picks.rejects.jsonl")]
    assert reasons[1] == "the row holds 2 responses; --n asks for 3"
    assert [line["responses"] for line in read_lines(tmp_path / "picks.candidates.jsonl")] == [
        row["responses"][:3] for row in ROWS
    ]


def test_windows_change_nothing_but_memory(
    heads: RewardHeads, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = best_of_n(rows, tmp_path / "whole.jsonl", heads=heads)
    monkeypatch.setattr(scoring, "_RESPONSES", 8)
    seen: list[tuple[int, int | None]] = []
    parts = best_of_n(
        rows, tmp_path / "parts.jsonl", heads=heads, watch_scores=lambda done, total: seen.append((done, total))
    )
    assert len(seen) >= 3, "three windows of two rows"
    assert (sorted(seen), seen[-1]) == (seen, (6, 6))
    assert parts.reward.gain.mean == pytest.approx(whole.reward.gain.mean, abs=1e-4)
    assert parts.rules_differ == whole.rules_differ
    same = [[line["place"] for line in read_lines(tmp_path / f"{name}.jsonl")] for name in ("whole", "parts")]
    assert same[0] == same[1]
