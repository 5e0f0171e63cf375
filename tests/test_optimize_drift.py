"""The energy distance: by hand, against scipy in one dimension, its test under no shift and under a real one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from rlaif.errors import InputError
from rlaif.optimize import drift
from rlaif.optimize.feature_drift import DriftMeter, holm, sample
from rlaif.rewards.aggregate import constitution_rule
from rlaif.rewards.heads import RewardHeads
from rlaif.rewards.model import load_backbone
from rlaif.rewards.preferences import Floats
from rlaif.rewards.score import Candidates
from rlaif.types import Message
from tests.heads_examples import make_spec


def plain_distances(points: Floats) -> Floats:
    """Distances of points on a line, as they are."""
    return np.abs(points[:, None] - points[None])


def rows_of(texts: list[tuple[str, str]], start: int = 0) -> list[Candidates]:
    """One pair a prompt, tagged with whether its number is even."""
    return [
        Candidates(
            number,
            f"row-{number}",
            (Message(role="user", content=prompt),),
            (response, f"{response} Or not."),
            ("a", "b"),
            {"even": number % 2 == 0},
        )
        for number, (prompt, response) in enumerate(texts, start)
    ]


def test_energy_by_hand() -> None:
    # 0 and 1 against 3: E|X - Y| is 2.5, E|X - X'| 0.5, E|Y - Y'| 0, so 5 - 0.5 = 4.5 of 5.
    found = drift.energy(plain_distances(np.array([0.0, 1, 3])), np.array([False, False, True]), permutations=9)
    assert [found.statistic, found.share] == pytest.approx([4.5, 0.9])


def test_energy_is_the_square_of_scipys() -> None:
    random = np.random.default_rng(0)
    for count, other, shift in ((40, 30, 1.0), (7, 90, 0.0), (3, 2, 5.0)):
        old, new = random.normal(size=count), random.normal(shift, 2, size=other)
        is_new = np.arange(count + other) >= count
        found = drift.energy(plain_distances(np.concatenate([old, new])), is_new, permutations=1)
        # scipy gives the root of the same statistic: it is 0 for equal ones and a metric.
        assert found.statistic == pytest.approx(stats.energy_distance(old, new) ** 2, abs=1e-12)


def test_distances_are_in_pooled_deviations_and_constant_columns_say_nothing() -> None:
    random = np.random.default_rng(1)
    points = random.normal(size=(30, 4)) * [1, 1000, 0.01, 0] + [0, 1e6, 0, 7]
    kept = points[:, :3] / points[:, :3].std(axis=0)
    expected = np.sqrt(np.square(kept[:, None] - kept[None]).sum(axis=-1))
    assert drift.pairwise_distances(points) == pytest.approx(expected, abs=1e-5)


def test_p_values_are_uniform_where_nothing_has_shifted() -> None:
    found = []
    for seed in range(200):
        random = np.random.default_rng([2, seed])
        points = random.standard_t(3, size=(44, 3))
        found.append(drift.energy(drift.pairwise_distances(points), np.arange(44) >= 20, permutations=99, seed=seed))
    p_values = [one.p_value for one in found]
    # p takes the values 1/100 to 1; the largest distance from uniform that chance gives in 19 of 20 draws is 0.096.
    assert stats.kstest(np.array(p_values) - 0.005, "uniform").statistic < 0.096
    assert np.mean([one.share for one in found]) == pytest.approx(np.mean([one.by_chance for one in found]), rel=0.05)


def test_matched_rows_are_exchanged_with_each_other_alone() -> None:
    random = np.random.default_rng(3)
    prompts = random.normal(size=(60, 8)) * 5
    points = np.concatenate([prompts, prompts + random.normal(0.5, 0.5, size=(60, 8))])
    distances, is_new = drift.pairwise_distances(points), np.arange(120) >= 60
    free = drift.energy(distances, is_new, permutations=199)
    matched = drift.energy(distances, is_new, permutations=199, matched=np.tile(np.arange(60), 2))
    # The prompts differ more than the shift: only who takes them apart sees it.
    assert free.p_value > 0.05
    assert matched.p_value == 1 / 200
    assert matched.statistic == free.statistic
    with pytest.raises(ValueError, match="do not come in twos"):
        drift.energy(distances, is_new, permutations=9, matched=np.arange(120))


def test_the_same_data_twice_are_no_drift() -> None:
    points = np.random.default_rng(4).normal(size=(25, 3))
    distances = drift.pairwise_distances(np.concatenate([points, points]))
    found = drift.energy(distances, np.arange(50) >= 25, permutations=99, matched=np.tile(np.arange(25), 2))
    assert found.share == pytest.approx(0, abs=1e-9)
    assert found.p_value == 1


def test_who_lies_outside_by_hand() -> None:
    # The reference 0, 1, 3 and 7 has nearest neighbours at 1, 1, 2 and 4: their median is 1.5.
    found = drift.outliers(
        plain_distances(np.array([0.0, 1, 3, 7, 2, 13])), np.array([False] * 4 + [True] * 2), neighbours=1
    )
    assert found.distance == pytest.approx([1 / 1.5, 6 / 1.5])
    # As far as 1 from the rest are all four, as far as 6 none.
    assert found.rank.tolist() == [1.0, 0.0]


def test_holms_p_values_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]


def test_a_sample_has_one_response_a_prompt_and_the_same_prompts_of_both_sides() -> None:
    texts = [(f"prompt {number}", f"answer {number}") for number in range(200)]
    one = sample(rows_of([*texts, *texts[:50]]), most=60, seed=1)
    other = sample(rows_of(texts[::-1]), most=60, seed=1)
    assert len(set(one.digests)) == 60
    assert one.digests == other.digests
    assert set(one.places) == {0, 1}
    assert set(sample(rows_of(texts), most=60, seed=2).digests) != set(one.digests)


@pytest.fixture(scope="module")
def starter_heads() -> RewardHeads:
    """Heads of random weights on the starter's features."""
    objectives = ("helpfulness", "harmlessness")
    backbone = load_backbone(
        "starter", objectives, max_length=256, device=torch.device("cpu"), dtype=torch.float32, seed=0
    )
    spec = make_spec(objectives).model_copy(update={"aggregation": constitution_rule(objectives, None)})
    return RewardHeads(Path("starter"), spec, backbone)


@pytest.fixture(autouse=True)
def kept_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features are kept in a folder of the test's own."""
    monkeypatch.setenv("RLAIF_CACHE", str(tmp_path / "cache"))


def test_real_data_of_another_kind_are_told_and_of_the_same_kind_are_not(
    starter_heads: RewardHeads, shared: Path
) -> None:
    def read(name: str, some: slice) -> list[Candidates]:
        lines = (shared / name / "pairs.jsonl").read_text(encoding="utf-8").splitlines()[some]
        rows = []
        for number, line in enumerate(lines):
            row = json.loads(line)
            prompt = row["prompt"] if isinstance(row["prompt"], str) else row["prompt"][-1]["content"]
            message = Message(role="user", content=prompt[:300])
            texts = row["response_a"][:300], row["response_b"][:300]
            rows.append(Candidates(number, row["id"], (message,), texts, ("a", "b"), {"from": name}))
        return rows

    def measured(new: list[Candidates]) -> DriftMeter:
        meter = DriftMeter(reference, new, source="hh", permutations=199)
        meter.add("heads", starter_heads)
        return meter

    reference = read("hh-rlhf", slice(80))
    [other] = measured(read("pandalm", slice(None, None, 12))).found()
    assert other.p_value == 1 / 200
    assert other.energy > 3 * other.by_chance
    assert (other.outside.value or 0) > 0.1
    assert other.conclusion.startswith("The new responses have drifted from the reference (energy distance 0.")
    [same] = measured(read("hh-rlhf", slice(80, 160))).found()
    assert same.p_value > 0.05
    assert same.energy < 1.5 * same.by_chance
    assert same.conclusion.startswith("No drift is told")


def test_heads_on_one_backbone_share_their_distances(starter_heads: RewardHeads) -> None:
    reference = rows_of([(f"What is {number} and one?", f"It is {number + 1}.") for number in range(60)])
    new = rows_of([(f"Name river {number}.", "The Danube " * (1 + number % 3)) for number in range(50)], start=100)
    meter = DriftMeter(reference, new, source="before", permutations=99)
    for name in ("one", "two"):
        meter.add(name, starter_heads)
    [found] = meter.found()
    assert found.models == ("one", "two")
    assert (found.reference, found.new, found.matched) == (60, 50, 0)
    assert found.p_value == 0.01
    assert found.rewards["one"] == found.rewards["two"]
    # Both values of the tag have 25 new responses or more, and 30 like ones in the reference.
    told = {one.value: (one.n, one.reference, one.same_tag) for one in found.by_tag}
    assert told == {False: (25, 30, True), True: (25, 30, True)}
    shift = found.rewards["one"]["helpfulness"]
    drawn = [(sample(rows), rows) for rows in (reference, new)]
    rewards = [
        [each.rewards["helpfulness"] for each in starter_heads.score([row.prompt for row in some.rows], some.texts)]
        for some, _ in drawn
    ]
    assert (shift.reference_mean, shift.new_mean) == pytest.approx([np.mean(each) for each in rewards], abs=1e-4)
    assert (shift.reference_std, shift.new_std) == pytest.approx([np.std(each, ddof=1) for each in rewards], abs=1e-4)
    welch = stats.ttest_ind(rewards[1], rewards[0], equal_var=False)
    assert shift.change.ci is not None
    half = welch.confidence_interval().high - (shift.new_mean - shift.reference_mean)
    assert (shift.change.ci[1] - shift.change.ci[0]) / 2 == pytest.approx(half, rel=0.03)


def test_too_few_prompts_are_refused() -> None:
    few, many = (rows_of([(f"p {number}", "r") for number in range(count)]) for count in (19, 20))
    with pytest.raises(
        InputError, match="--reference before: the data has 19 different prompts; a test of drift takes"
    ):
        DriftMeter(many, few, source="before")
