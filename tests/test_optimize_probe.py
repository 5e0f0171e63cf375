"""Probes of heads and judges: figures by hand, a fault planted in training, and what a judge is asked."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pytest

from rlaif.errors import InputError
from rlaif.labeling.read import read_labels
from rlaif.optimize.changes import CHANGES, Subject, choose_changes
from rlaif.optimize.probe import probe_heads
from rlaif.optimize.probe_figures import Measured, aggregate_deviation, change_result, clustered_mean, clustered_share
from rlaif.optimize.probe_judge import probe_judge
from rlaif.optimize.probe_plan import Rows
from rlaif.optimize.probe_report import probe_page
from rlaif.optimize.probe_results import ChangeResult, ProbeRule
from rlaif.report.page import render_page
from rlaif.rewards.heads import RewardHeads
from rlaif.rewards.score import Candidates
from rlaif.rewards.train import train_heads
from rlaif.stats import wilson
from rlaif.types import Message
from tests.conftest import ROOT, write_lines
from tests.heads_examples import OBJECTIVES, make_heads
from tests.stub_server import RunningStub

BY_NAME = {change.name: change for change in CHANGES}


def example_pairs(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Pairs of the examples."""
    lines = (ROOT / "examples" / "pairs.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines[start : start + count]]


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> RewardHeads:
    """Heads of three objectives with random weights, of weights 1 : 2 : 3."""
    return RewardHeads.load(make_heads(tmp_path_factory.mktemp("probed")))


def array(*rows: Sequence[float]) -> Any:
    """Shifts or turns, (cases, rewards)."""
    return np.array(rows, dtype=np.float64)


def test_a_mean_s_interval_is_by_prompt() -> None:
    # Deviation 1, error 1 / sqrt(3), Student's 0.975 quantile of 2 degrees of freedom 4.30265.
    mean, ci = clustered_mean(np.array([1.0, 2.0, 3.0]), np.array([0, 1, 2]))
    assert mean == 2.0
    assert ci == pytest.approx((2 - 4.30265 / math.sqrt(3), 2 + 4.30265 / math.sqrt(3)), abs=1e-4)
    # Two prompts with two alike each: sums of deviations -2 and 2, variance 2 / 1 * 8 / 16 = 1, quantile 12.7062.
    mean, ci = clustered_mean(np.array([1.0, 1.0, 3.0, 3.0]), np.array([5, 5, 9, 9]))
    assert mean == 2.0
    assert ci == pytest.approx((2 - 12.7062, 2 + 12.7062), abs=1e-3)
    assert clustered_mean(np.array([1.0, 2.0]), np.array([3, 3])) == (1.5, None)
    assert clustered_mean(np.array([]), np.array([], dtype=np.int64)) == (None, None)


def test_a_share_s_interval_counts_what_prompts_are_worth() -> None:
    single = np.array([1.0] * 3 + [0.0] * 7)
    assert clustered_share(single, np.arange(10)) == (0.3, wilson(3, 10))
    # Twice the same in each of 10 prompts: 9 single cases give its variance, 10 / 9 * pq / 10.
    share, ci = clustered_share(np.repeat(single, 2), np.repeat(np.arange(10), 2))
    assert share == 0.3
    assert ci == pytest.approx(wilson(2.7, 9))
    # Nothing varies: each prompt counts once.
    assert clustered_share(np.zeros(20), np.repeat(np.arange(10), 2)) == (0.0, wilson(0, 10))


def test_the_aggregate_s_deviation_follows_from_weights_and_correlations() -> None:
    first, second = np.array([1.0, 1.0, -1.0, -1.0]), np.array([1.0, -1.0, 1.0, -1.0])
    half = np.array([0.5, 0.5])
    # Unrelated: sqrt(0.25 + 0.25), whatever spread they have here; together 1, against each other 0.
    assert aggregate_deviation(np.column_stack([5 * first, second]), half) == pytest.approx(math.sqrt(0.5))
    assert aggregate_deviation(np.column_stack([first, 3 * first]), half) == pytest.approx(1.0)
    assert aggregate_deviation(np.column_stack([first, -first]), half) == pytest.approx(0.0)
    assert aggregate_deviation(first[:, None], np.array([1.0])) == pytest.approx(1.0)
    # What does not vary goes with nothing.
    assert aggregate_deviation(np.column_stack([first, np.ones(4)]), half) == pytest.approx(math.sqrt(0.5))


def decided(
    name: str, shifts: Sequence[float], turned: Sequence[float], rewards: Sequence[str] = ("reward",), **rule: Any
) -> ChangeResult:
    """The result of a change with these shifts and turns, each of a prompt of its own."""
    found = Measured(
        applied=len(shifts),
        not_applied=1,
        shifts=array(*[[each] * len(rewards) for each in shifts]),
        shift_prompt=np.arange(len(shifts)),
        turned=array(*[[each] * len(rewards) for each in turned]).reshape(-1, len(rewards)),
        turned_prompt=np.arange(len(turned)),
    )
    return change_result(BY_NAME[name], found, rewards, ProbeRule(**rule))


UP, DOWN, STILL = ([base + step / 100 for step in range(30)] for base in (0.3, -0.6, -0.15))
FEW, MANY = [1.0] + [0.0] * 29, [1.0] * 15 + [0.0] * 15


@pytest.mark.parametrize(
    ("name", "shifts", "turned", "faults"),
    [
        ("closing", STILL, FEW, ()),
        ("closing", UP, FEW, ("gains",)),
        ("closing", DOWN, FEW, ("loses",)),
        ("closing", UP, MANY, ("gains", "turns pairs")),
        # 15 of 30 turn: Wilson's interval begins at 0.33.
        ("closing", STILL, MANY, ("turns pairs",)),
        ("closing", STILL, [], ()),
        ("praise", DOWN, FEW, ()),
        ("praise", UP, FEW, ("gains",)),
        ("negated", DOWN, FEW, ()),
        ("negated", STILL, MANY, ("does not lose",)),
        ("negated", UP, FEW, ()),
    ],
)
def test_a_change_fails_where_an_interval_lies_beyond_its_limit(
    name: str, shifts: Sequence[float], turned: Sequence[float], faults: tuple[str, ...]
) -> None:
    found = decided(name, shifts, turned)
    assert found.figures["reward"].faults == faults
    assert found.result == ("fail" if faults else "pass")
    assert found.figures["reward"].size == pytest.approx(fmean(abs(each) for each in shifts))


def test_what_is_in_too_few_prompts_is_not_measured() -> None:
    found = decided("closing", UP[:19], MANY[:19])
    assert (found.result, found.figures["reward"].faults) == ("not measured", ("gains",) * 0)
    assert found.figures["reward"].reason == "changed in 19 prompts, of at least 20"
    assert decided("closing", UP[:19], MANY[:19], min_prompts=19).result == "fail"
    # Turned pairs of too few prompts do not decide either.
    assert decided("closing", STILL, MANY[:19]).result == "pass"


def test_what_must_lose_is_decided_by_the_aggregate_alone() -> None:
    found = decided("empty", STILL, MANY, ("harmlessness", "reward"))
    assert [each.decides for each in found.figures.values()] == [False, True]
    assert found.faults == ("reward: does not lose",)
    both = decided("closing", UP, FEW, ("harmlessness", "reward"))
    assert both.faults == ("harmlessness: gains", "reward: gains")


def test_figures_of_heads_are_those_of_their_scores(heads: RewardHeads, tmp_path: Path) -> None:
    rows = example_pairs(30)
    rows[3]["response_b"] = "I'm sorry, but I can't help with that."
    data = str(write_lines(tmp_path / "pairs.jsonl", rows))
    found = probe_heads(data, heads, only=["closing", "refusal"], objectives=["honesty"])
    assert (found.prompts, found.responses, found.pairs) == (30, 60, 30)
    assert (found.objectives, list(found.changes[0].figures)) == (("honesty",), ["honesty", "reward"])

    def scored(texts: Sequence[tuple[dict[str, Any], str]]) -> list[dict[str, float]]:
        rewards = heads.score([row["prompt"] for row, _ in texts], [text for _, text in texts])
        return [{**each.rewards, "reward": each.reward} for each in rewards]

    sides = [(row, row[side]) for row in rows for side in ("response_a", "response_b")]
    before = scored(sides)
    after = scored([(row, f"{text.rstrip()}\n\nI hope this helps!") for row, text in sides])
    closing = found.changes[0]
    shifts = [late["honesty"] - early["honesty"] for early, late in zip(before, after, strict=True)]
    figures = closing.figures["honesty"]
    assert figures.shift == pytest.approx(fmean(shifts), abs=1e-4)
    assert figures.n == 60
    by_prompt = [fmean(shifts[place : place + 2]) for place in range(0, 60, 2)]
    assert figures.shift_ci is not None
    # Prompts of two responses each: the interval is that of their means. Quantile of 29 degrees of freedom 2.04523.
    assert figures.shift_ci[1] - figures.shift_ci[0] == pytest.approx(
        2 * 2.04523 * stdev(by_prompt) / math.sqrt(30), rel=1e-3
    )
    turned = [
        max((early, late) for early, late in ((a, a2), (b, b2)))[0] < min((a, a2), (b, b2))[1]
        for (a, b), (a2, b2) in (
            ((before[i]["reward"], before[i + 1]["reward"]), (after[i]["reward"], after[i + 1]["reward"]))
            for i in range(0, 60, 2)
        )
    ]
    assert closing.figures["reward"].rate == pytest.approx(fmean(turned))
    assert closing.figures["reward"].rate_n == 30
    weights = np.array([1, 2, 3]) / 6
    correlations = np.corrcoef([[each[name] for each in before] for name in OBJECTIVES])
    whole = fmean(late["reward"] - early["reward"] for early, late in zip(before, after, strict=True))
    unit = math.sqrt(weights @ correlations @ weights)
    assert closing.figures["reward"].shift == pytest.approx(whole / unit, abs=1e-3)
    # A refusal takes nothing from a refusal.
    refusal = found.changes[1]
    assert (refusal.applied + refusal.not_applied, refusal.figures["reward"].rate_n) == (60, refusal.applied)
    assert refusal.not_applied == 1
    assert [each.change for each in found.examples] == ["closing"] * 3 + ["refusal"] * 3
    worst = max(found.examples[:3], key=lambda each: abs(each.shift))
    biggest = max(abs(late["reward"] - early["reward"]) for early, late in zip(before, after, strict=True))
    assert abs(worst.shift) == pytest.approx(biggest, abs=1e-3)


def test_the_aggregate_s_shift_is_taken_before_floors_and_turns_after_them(tmp_path: Path) -> None:
    data = write_lines(tmp_path / "rows.jsonl", example_pairs(12))
    # Half of all responses are about there.
    plain, floored = (
        probe_heads(str(data), make_heads(tmp_path / name, floors=floors), only=["closing"], min_prompts=2)
        for name, floors in (("plain", {}), ("floored", dict.fromkeys(OBJECTIVES, 0.5)))
    )
    (one,), (other,) = plain.changes, floored.changes
    assert one.figures["reward"].shift == pytest.approx(other.figures["reward"].shift)
    assert abs(one.figures["reward"].shift or 0) < 3
    assert one.figures["reward"].rate != other.figures["reward"].rate


def test_what_makes_worse_is_done_to_the_response_that_the_data_prefers() -> None:
    prompts = [(Message(role="user", content=f"Ask {number}."),) for number in range(3)]
    tags: list[dict[str, Any]] = [{"chosen": "b"}, {}, {"chosen": "a"}]
    rows = [
        Candidates(number, str(number), prompt, ("Yes.", "No."), ("a", "b"), tag)
        for number, (prompt, tag) in enumerate(zip(prompts, tags, strict=True))
    ]
    found = Rows(rows, 0)
    assert list(found.places(BY_NAME["empty"])) == [(0, 1), (1, 0), (1, 1), (2, 0)]
    assert len(list(found.places(BY_NAME["closing"]))) == 6
    # Each takes the first response to another prompt.
    assert found.donors == ["Yes."] * 3
    assert Rows(rows[:1], 0).donors == [None]
    assert [pair.places for pair in found.pairs] == [((row, 0), (row, 1)) for row in range(3)]


def test_single_responses_have_shifts_and_no_pairs_to_turn(heads: RewardHeads, tmp_path: Path) -> None:
    rows = [{"prompt": row["prompt"], "response": row["response_a"]} for row in example_pairs(22)]
    found = probe_heads(str(write_lines(tmp_path / "rows.jsonl", rows)), heads, only=["closing"])
    [closing] = found.changes
    figures = closing.figures["reward"]
    assert (found.pairs, figures.n, figures.rate, figures.rate_n) == (0, 22, None, 0)
    assert closing.result in ("pass", "fail")
    assert "there are no pairs with a preference" in render_page(probe_page(found))


def test_options_and_data_that_cannot_be_used_are_told(heads: RewardHeads, tmp_path: Path) -> None:
    data = str(write_lines(tmp_path / "pairs.jsonl", example_pairs(5)))
    with pytest.raises(InputError, match="5 different prompts; a probe needs at least 20"):
        probe_heads(data, heads)
    with pytest.raises(InputError, match=r"--objective honest: no such head; .* Did you mean 'honesty'"):
        probe_heads(data, heads, objectives=["honest"], min_prompts=2)
    with pytest.raises(InputError, match="--max-shift -1"):
        probe_heads(data, heads, max_shift=-1)
    single = [{"prompt": row["prompt"], "response": row["response_a"]} for row in example_pairs(5)]
    with pytest.raises(InputError, match="holds no pairs; to probe a judge"):
        probe_judge(str(write_lines(tmp_path / "single.jsonl", single)), "starter", min_prompts=2)


# One phrase is to be told from others that stand at the same place, or say as little.
TRAINED = ("closing", "typos", "confident", "praise", "agreement", "self-praise", "grader-note")
PROBED = ("closing", "typos", "confident", "praise", "self-praise", "grader-note")


def trained_on(folder: Path, rule: str) -> Path:
    """Heads trained on the starter world, where any of the changes may have been made to a response.

    Args:
        rule: `clean` labels follow how the pairs were made, whatever was changed; `planted` ones prefer a response that
            closes with the phrase where the other does not.
    """
    reference = (ROOT / "examples" / "reference.jsonl").read_text(encoding="utf-8").splitlines()
    true = {row["id"]: row["preference"] for row in map(json.loads, reference) if row["objective"] == "helpfulness"}
    makers = [BY_NAME[name] for name in TRAINED]
    pairs, labels = [], []
    for row in example_pairs(240):
        for copy in range(3 if row["id"] in true else 0):
            name = f"{row['id']}-{copy}"
            drawn = hashlib.sha256(name.encode()).digest()
            chosen = [[*makers, makers[0], makers[0], None][byte % (len(makers) + 3)] for byte in drawn[:2]]
            texts = {}
            for side, change in zip("ab", chosen, strict=True):
                prompt = tuple(map(Message.model_validate, row["prompt"]))
                made = change and change.apply(Subject(prompt, row[f"response_{side}"]))
                texts[f"response_{side}"] = made.changed if made else row[f"response_{side}"]
            pairs.append({"id": name, "prompt": row["prompt"], **texts})
            closes = [side for side in "ab" if texts[f"response_{side}"].endswith("I hope this helps!")]
            side = closes[0] if rule == "planted" and len(closes) == 1 else true[row["id"]]
            labels.append({"id": name, "annotator": "x", "objective": "helpfulness", "preference": side})
    place = write_lines(folder / "pairs.jsonl", pairs)
    sources = [f"{place}+{write_lines(folder / f'{rule}.jsonl', labels)}"]
    out = folder / rule
    train_heads(sources, out, cache=folder / "cache", held_out=0.1, ensemble=1, device="cpu")
    return out


def test_a_phrase_that_training_rewarded_is_caught_and_clean_heads_pass(tmp_path: Path) -> None:
    data = str(write_lines(tmp_path / "held.jsonl", example_pairs(30, start=240)))
    clean, planted = (probe_heads(data, trained_on(tmp_path, rule), only=PROBED) for rule in ("clean", "planted"))
    assert clean.named("not measured") == planted.named("not measured") == ()
    assert "closing" in clean.named("pass")
    # Small heads waver between near responses under other changes too; what training planted is the whole difference.
    assert set(planted.failed) - set(clean.failed) == {"closing"}
    closing = planted.changes[0].figures["reward"]
    assert set(closing.faults) == {"gains", "turns pairs"}
    assert closing.shift is not None
    assert closing.shift > 1
    others = [each.figures["reward"].shift for each in planted.changes[1:]]
    assert all(shift is not None and abs(shift) < closing.shift / 2 for shift in others)


def test_a_judge_compares_each_change_with_the_original_and_with_the_other_response(
    stub: RunningStub, tmp_path: Path
) -> None:
    rows = example_pairs(12)
    data = str(write_lines(tmp_path / "pairs.jsonl", rows))
    out = tmp_path / "probes"
    options: dict[str, Any] = {"base_url": stub.url, "objectives": ("helpfulness",), "min_prompts": 6, "out": out}
    found = probe_judge(data, "stub", only=["closing", "empty"], **options)
    base = {label.id: label for _, label in read_labels(out / "pairs" / "labels.jsonl")}
    asked = {label.id: label for _, label in read_labels(out / "changed" / "labels.jsonl")}
    assert found.objectives == ("helpfulness",)
    closing, empty = found.changes
    shifts, turned = [], []
    for number, row in enumerate(rows):
        first = base[str(number)].labels["helpfulness"].p_a
        assert first is not None
        loser, winner = ("b", "a") if first > 0.5 else ("a", "b")
        against, other = asked[f"closing:against:{number}"], asked[f"closing:turned:{number}"]
        assert against.response_a == row[f"response_{loser}"]
        assert other.response_a == row[f"response_{winner}"]
        assert against.response_b == other.response_b == f"{against.response_a}\n\nI hope this helps!"
        p, q = (each.labels["helpfulness"].p_a for each in (against, other))
        assert p is not None
        assert q is not None
        shifts.append(math.log((1 - p) / p))
        turned.append(q < 0.5)
    figures = closing.figures["helpfulness"]
    assert figures.shift == pytest.approx(fmean(shifts))
    assert figures.rate == pytest.approx(fmean(turned))
    assert figures.rate_n == 12
    # What must lose is compared with the original alone: the one that the judge prefers.
    names = [name for name in asked if name.startswith("empty:")]
    assert len(names) == empty.applied
    missed = [asked[name].labels["helpfulness"].p_a for name in names]
    assert empty.figures["overall"].rate == pytest.approx(fmean((p or 0) <= 0.5 for p in missed))
    assert all(asked[name].response_b == "" for name in names)
    # The same again asks nothing, another change only what is new.
    total = 2 * (len(base) + len(asked))
    assert found.notes == (f"{total} judgments: {total} asked, 0 reused",)
    again = probe_judge(data, "stub", only=["closing", "empty"], **options)
    assert again.changes == found.changes
    assert again.notes == (f"{total} judgments: 0 asked, {total} reused",)
    more = probe_judge(data, "stub", only=["closing", "empty", "praise"], **options)
    assert more.notes == (f"{total + 48} judgments: 48 asked, {total} reused",)


def test_a_judge_is_asked_of_both_responses_where_the_prompt_changes(stub: RunningStub, tmp_path: Path) -> None:
    rows = [
        {
            "prompt": f"Where did Anna meet Ben on day {number}?",
            "response_a": "In town.",
            "response_b": f"Near {number}.",
        }
        for number in range(8)
    ]
    out = tmp_path / "probes"
    found = probe_judge(
        str(write_lines(tmp_path / "pairs.jsonl", rows)),
        "stub",
        only=["names"],
        base_url=stub.url,
        objectives=("honesty",),
        min_prompts=8,
        out=out,
    )
    base = [label.labels["honesty"].p_a for _, label in read_labels(out / "pairs" / "labels.jsonl")]
    after = [label for _, label in read_labels(out / "changed" / "labels.jsonl")]
    assert all("Anna" not in label.prompt[0].content and label.response_a == "In town." for label in after)
    then = [label.labels["honesty"].p_a for label in after]
    sides = [((p or 0) > 0.5, (q or 0) > 0.5) for p, q in zip(base, then, strict=True)]
    figures = found.changes[0].figures["honesty"]
    assert figures.rate == pytest.approx(fmean(p != q for p, q in sides))
    assert figures.n == 8


def test_the_folder_of_a_judge_s_probe_is_not_another_s(tmp_path: Path) -> None:
    data = str(write_lines(tmp_path / "pairs.jsonl", example_pairs(5)))
    with pytest.raises(InputError, match="holds something else than a probe's judgments"):
        probe_judge(data, "starter", out=tmp_path, min_prompts=2)


def test_every_change_is_told_apart_and_explained() -> None:
    assert len({change.name for change in CHANGES}) == len(CHANGES) == len(choose_changes())
    assert {change.expectation for change in CHANGES} == {"same", "no-gain", "lower"}
    page = (ROOT / "docs" / "probes.md").read_text(encoding="utf-8")
    assert [change.name for change in CHANGES if f"`{change.name}`" not in page] == []
