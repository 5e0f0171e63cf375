"""Evaluation of heads: every figure from numbers derived by hand or by another package."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import statsmodels.api as sm
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss

from rlaif.errors import RunError
from rlaif.rewards.evaluate import accuracy_changes, evaluate_scores, scored_examples
from rlaif.rewards.evaluation import ObjectiveEvaluation
from rlaif.rewards.preferences import Floats, Preferences
from rlaif.rewards.spec import Normalization
from rlaif.stats import wilson
from tests.reward_examples import NAMES, pair_of, preferences_of, raw_of, realistic, spec_of, swapped

NAN = float("nan")


def one(target: list[float] | Floats, difference: list[float] | Floats, **given: object) -> ObjectiveEvaluation:
    """The evaluation of one head by the differences of its scores."""
    options = {key: given.pop(key) for key in ("temperature", "pairs", "group") if key in given}
    known = preferences_of(
        np.array(target, dtype=np.float64),
        options.get("pairs"),  # type: ignore[arg-type]
        options.get("group"),  # type: ignore[arg-type]
    )
    spec = spec_of(temperature=float(options.get("temperature", 1.0)))  # type: ignore[arg-type]
    return evaluate_scores(known, raw_of(difference), spec, **given).objectives["kind"]  # type: ignore[arg-type]


def drawn(n: int, seed: int = 0) -> tuple[Floats, Floats, Preferences]:
    """Differences, labels drawn by them, and the pairs with lengths that the differences go by in part."""
    random = np.random.default_rng(seed)
    lengths = random.integers(5, 400, size=(n, 2))
    x = np.log1p(lengths[:, 0]) - np.log1p(lengths[:, 1])
    difference = random.normal(size=n) + 0.4 * x
    target = (random.random(n) < 1 / (1 + np.exp(-difference))).astype(np.float64)
    pairs = [pair_of(row, "a" * int(a), "b" * int(b)) for row, (a, b) in enumerate(lengths)]
    return difference, target, preferences_of(target, pairs)


def test_accuracy_counts_ties_apart_and_equal_scores_as_half() -> None:
    # Right, wrong, right, half; then a tie and a pair without a label.
    found = one([1.0, 0.8, 0.1, 0.0, 0.5, NAN], [2.0, -1.0, -3.0, 0.0, 1.0, 1.0])
    assert (found.n, found.ties, found.labelled) == (4, 1, 5)
    assert found.accuracy == 2.5 / 4
    assert found.accuracy_ci == wilson(2.5, 4)
    # By how sure the label is: 0.8 is wrong, 0.1 as sure as 0.9 and right, 0 and 1 are one and a half of two.
    assert [(each.low, each.high, each.n, each.accuracy) for each in found.by_certainty] == [
        (0.8, 0.9, 1, 0.0),
        (0.9, 1.0, 3, 2.5 / 3),
    ]


def test_labels_that_are_always_sure_have_no_table_by_certainty() -> None:
    assert one([1.0, 0.0, 0.5], [1.0, 1.0, 1.0]).by_certainty == ()


def test_accuracy_is_that_of_sklearn_and_its_interval_widens_where_prompts_repeat() -> None:
    difference, target, _ = drawn(400)
    found = one(target, difference)
    assert found.accuracy == pytest.approx(accuracy_score(target, difference > 0))
    # Each pair four times over: the same data, so the interval is about as wide as that of a quarter of the pairs.
    rows = np.repeat(np.arange(400), 4)
    again = one(target[rows], difference[rows], group=list(rows))
    assert again.accuracy == pytest.approx(found.accuracy)
    widths = [each.accuracy_ci[1] - each.accuracy_ci[0] for each in (found, again) if each.accuracy_ci]
    assert widths[1] == pytest.approx(widths[0], rel=0.12)


def test_brier_and_log_loss_are_those_of_sklearn() -> None:
    difference, target, _ = drawn(500, seed=1)
    found = one(target, difference, temperature=1.7)
    p = 1 / (1 + np.exp(-difference / 1.7))
    assert found.brier == pytest.approx(brier_score_loss(target, p))
    assert found.log_loss == pytest.approx(log_loss(target, p))


def test_soft_labels_are_that_much_of_each_answer() -> None:
    # p_a is 3/4: of a label of 0.6 the loss is -(0.6 log 0.75 + 0.4 log 0.25), the squared error 0.15 squared.
    found = one([0.6] * 10, [math.log(3)] * 10)
    assert found.log_loss == pytest.approx(-(0.6 * math.log(0.75) + 0.4 * math.log(0.25)))
    assert found.brier == pytest.approx(0.15**2)
    assert found.ece == pytest.approx(0.15)


def test_ece_is_the_distance_from_sklearns_curve_of_the_preferred_response() -> None:
    difference, target, _ = drawn(1000, seed=2)
    found = one(target, difference)
    confidence = 1 / (1 + np.exp(-np.abs(difference)))
    share, mean = calibration_curve((difference > 0) == (target == 1), confidence, n_bins=10, strategy="quantile")
    assert [each.share for each in found.bins] == pytest.approx(list(share))
    assert [each.probability for each in found.bins] == pytest.approx(list(mean))
    assert found.ece == pytest.approx(np.abs(share - mean).mean())
    assert min(each.probability for each in found.bins) >= 0.5


def test_probabilities_that_are_twice_too_sure_ask_for_temperature_two() -> None:
    # Of four pairs with log-odds 2 log 3 three are right: the odds are 3, so the temperature that fits is 2.
    target, difference = [1.0, 1.0, 1.0, 0.0] * 500, [2 * math.log(3)] * 2000
    found = one(target, difference, resamples=0)
    assert found.temperature_here == pytest.approx(2, rel=0.005)
    assert found.ece == pytest.approx(0.9 - 0.75)
    assert found.ece_refitted == pytest.approx(0, abs=0.02)
    # A checkpoint with temperature 4 is too shy by the same factor.
    shy = one(target, difference, temperature=4.0, resamples=0)
    assert shy.temperature_here == pytest.approx(found.temperature_here)
    assert shy.ece_uncalibrated == pytest.approx(0.9 - 0.75)
    assert shy.ece == pytest.approx(0.75 - 1 / (1 + 3**-0.5))
    right = one(target, difference, temperature=2.0, resamples=0)
    assert right.ece == pytest.approx(0, abs=1e-12)
    assert right.bins[0].before == pytest.approx(0.9)
    assert [each for each in shy.warnings if "off by 11.6 points on average" in each] != []
    assert [each for each in right.warnings if "off by" in each] == []


def test_chance_gives_the_calibration_error_that_it_says() -> None:
    errors, by_chance = [], []
    for seed in range(20):
        random = np.random.default_rng(seed)
        difference = 1.5 * random.normal(size=400)
        target = (random.random(400) < 1 / (1 + np.exp(-difference))).astype(np.float64)
        found = one(target, difference, resamples=0)
        errors.append(found.ece or 0.0)
        by_chance.append(found.ece_by_chance or 0.0)
    assert np.mean(by_chance) == pytest.approx(np.mean(errors), rel=0.15)


def test_margins_are_counted_from_the_better_response() -> None:
    # In log-odds: 4, 2 and -3 for the labelled side; the tie is left out.
    found = one([1.0, 0.0, 1.0, 0.5], [8.0, -4.0, -6.0, 5.0], temperature=2.0)
    assert found.margin is not None
    assert found.margin.mean == pytest.approx(1)
    assert found.margin.median == pytest.approx(2)
    edges, counts = found.margin.edges, found.margin.counts
    assert 0.0 in edges
    assert len(edges) == len(counts) + 1
    assert sum(counts) == 3
    assert sum(counts[: edges.index(0.0)]) == 1


def test_margins_beyond_the_picture_are_in_its_outer_bins() -> None:
    found = one([1.0] * 1000, [*np.linspace(-1, 2, 998), 500.0, -500.0], resamples=0)
    assert found.margin is not None
    assert -2 < found.margin.edges[0] < -0.9
    assert 1.9 < found.margin.edges[-1] < 3
    assert sum(found.margin.counts) == 1000
    assert len(found.margin.counts) <= 25


def test_length_slopes_are_those_of_a_regression_through_the_origin() -> None:
    difference, target, known = drawn(600, seed=3)
    found = one(target, difference, pairs=known.pairs, resamples=400)
    length = np.array([(len(pair.response_a), len(pair.response_b)) for pair in known.pairs])
    x = np.log1p(length[:, 0]) - np.log1p(length[:, 1])
    kept = length[:, 0] != length[:, 1]
    x = x[kept] / np.sqrt((x[kept] ** 2).mean())
    labels = sm.GLM(target[kept], x, family=sm.families.Binomial()).fit()
    assert found.label_length_slope == pytest.approx(labels.params[0], rel=1e-6)
    low, high = labels.conf_int()[0]
    assert found.label_length_slope_ci == pytest.approx((low, high), abs=0.06)
    heads = sm.GLM(1 / (1 + np.exp(-difference[kept])), x, family=sm.families.Binomial()).fit()
    assert found.length_slope == pytest.approx(heads.params[0], rel=1e-6)
    assert found.length_slope_gap == pytest.approx(heads.params[0] - labels.params[0], rel=1e-6)
    # The labels were drawn from these very probabilities.
    assert found.length_slope_gap_ci is not None
    assert found.length_slope_gap_ci[0] < 0 < found.length_slope_gap_ci[1]


def test_a_head_that_goes_by_length_is_told_so() -> None:
    random = np.random.default_rng(4)
    lengths = random.integers(5, 400, size=(300, 2))
    target = (random.random(300) < 0.5).astype(np.float64)
    pairs = [pair_of(row, "a" * int(a), "b" * int(b)) for row, (a, b) in enumerate(lengths)]
    found = one(target, 2 * np.log(lengths[:, 0] / lengths[:, 1]), pairs=pairs)
    assert found.longer.value == 1.0
    assert found.length_slope_gap_ci is not None
    assert found.length_slope_gap_ci[0] > 0.5
    assert found.leans_to == "longer"
    assert any("longer responses more than the labels do" in each for each in found.warnings)


def test_a_head_that_goes_by_length_less_than_its_labels_only_knows_less() -> None:
    random = np.random.default_rng(4)
    lengths = random.integers(5, 400, size=(300, 2))
    pairs = [pair_of(row, "a" * int(a), "b" * int(b)) for row, (a, b) in enumerate(lengths)]
    target = np.where(lengths[:, 0] > lengths[:, 1], 0.9, 0.1)
    found = one(target, 0.1 * random.normal(size=300), pairs=pairs)
    assert found.length_slope_gap_ci is not None
    assert found.length_slope_gap_ci[1] < 0
    assert found.leans_to is None


def test_the_rule_by_length_takes_the_better_direction() -> None:
    # Shorter is better on three of four; of the fifth both are equally long, which is half right.
    texts = [("a", "bbb"), ("a", "bbb"), ("aaa", "b"), ("aaa", "b"), ("aa", "bb")]
    pairs = [pair_of(row, a, b) for row, (a, b) in enumerate(texts)]
    found = one([1.0, 1.0, 0.0, 1.0, 1.0], [1.0, 1.0, -1.0, 1.0, 1.0], pairs=pairs, resamples=0)
    assert found.length_only_rule == "shorter"
    assert found.length_only_accuracy == 3.5 / 5
    assert found.over_length == pytest.approx(1 - 0.7)
    assert (found.equal_length.n, found.equal_length.value) == (1, 1.0)
    assert (found.longer.n, found.longer.value) == (4, 0.25)
    assert (found.label_longer.n, found.label_longer.value) == (4, 0.25)


def test_exchanging_a_and_b_changes_no_figure() -> None:
    difference, _, known = drawn(200, seed=5)
    always = preferences_of(np.where(np.arange(200) % 7 == 0, 0.5, 0.9), known.pairs)
    raw = raw_of(np.abs(difference) * np.where(np.arange(200) % 3 == 0, -1, 1))
    first, second = (evaluate_scores(*each, spec_of(), resamples=100) for each in ((always, raw), swapped(always, raw)))
    one_way, other = (json.loads(each.objectives["kind"].model_dump_json()) for each in (first, second))
    assert one_way.keys() == other.keys()
    for key, value in one_way.items():
        if isinstance(value, float):
            assert other[key] == pytest.approx(value, abs=1e-9), key
        elif key not in ("by_certainty", "bins", "margin"):
            assert np.shape(other[key]) == np.shape(value), key
    assert one_way["accuracy"] == other["accuracy"]
    assert one_way["length_slope"] is not None


def test_the_form_that_just_one_has_is_held_against_both() -> None:
    listed = "- one\n- two"
    pairs = [pair_of(0, listed, "b"), pair_of(1, "a", listed), pair_of(2, listed, listed), pair_of(3, listed, "b")]
    found = one([1.0, 1.0, 1.0, 0.5], [1.0, -1.0, 1.0, 1.0], pairs=pairs, resamples=0)
    [lists] = found.form
    assert lists.feature == "lists"
    assert (lists.heads.n, lists.heads.value, lists.labels.value) == (2, 1.0, 0.5)


def test_tags_make_groups_of_the_labelled_pairs() -> None:
    pairs = [pair_of(row, tags={"topic": "law" if row < 3 else "art", "all": 1}) for row in range(5)]
    found = one([1.0, 1.0, 1.0, 1.0, 0.5], [1.0, 1.0, -1.0, -1.0, 1.0], pairs=pairs, resamples=0)
    assert [(each.tag, each.value, each.n, each.accuracy) for each in found.by_tag] == [
        ("topic", "law", 3, 2 / 3),
        ("topic", "art", 1, 0.0),
    ]


def test_members_that_differ_show_where_the_head_is_wrong() -> None:
    target, difference = np.ones(8), np.array([2.0] * 4 + [-1.0, 1.0, -1.0, 1.0])
    members = np.zeros((8, 2, 2, 1))
    # On the first four pairs the members agree; on the others one prefers the other response.
    members[:, 0, :, 0] = difference[:, None] + np.where(np.arange(8) < 4, 0.0, 2.0)[:, None] * [[1, -1]]
    found = evaluate_scores(preferences_of(target), raw_of(difference), spec_of(), members=members, resamples=0)
    ensemble = found.objectives["kind"].ensemble
    assert ensemble is not None
    assert (ensemble.members, ensemble.split) == (2, 0.5)
    assert (ensemble.agreeing.value, ensemble.differing.value) == (1.0, 0.5)
    # Two members that differ by 4 have a deviation of 4 / sqrt 2; half of the pairs have it, the others 0.
    assert ensemble.deviation == pytest.approx(4 / math.sqrt(2) / 2)


def test_conflicts_are_counted_in_labels_and_in_heads() -> None:
    target = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.5], [1.0, NAN], [0.9, 0.2]])
    raw = raw_of([1.0, 1.0, 1.0, 1.0, 1.0], [-1.0, -1.0, -1.0, -1.0, 1.0])
    [found] = evaluate_scores(preferences_of(target), raw, spec_of(("kind", "brief"))).conflicts
    assert (found.pairs, found.heads) == (5, 4)
    assert (found.labelled, found.labels, found.heads_there, found.both) == (3, 2, 2, 1)


def test_the_aggregate_is_held_against_every_objective_and_the_overall_labels() -> None:
    target = np.array([[1.0, 1.0], [1.0, 0.0], [0.5, 1.0]])
    known = preferences_of(target, objectives=("kind", "overall"))
    reward = np.array([[2.0, 1.0], [1.0, 2.0], [1.0, 1.0]])
    found = evaluate_scores(known, raw_of([1.0, 1.0, 1.0]), spec_of(), reward=reward)
    assert {name: (each.n, each.accuracy) for name, each in found.aggregate.items()} == {
        "kind": (2, 0.5),
        "overall": (3, 2.5 / 3),
    }
    assert found.not_scored == ()
    assert evaluate_scores(known, raw_of([1.0, 1.0, 1.0]), spec_of()).not_scored == ("overall",)


def test_heads_are_matched_with_labels_by_name() -> None:
    known = preferences_of(np.array([[1.0, 0.0]] * 3), objectives=("brief", "kind"))
    found = evaluate_scores(known, raw_of([1.0] * 3, [1.0] * 3, [1.0] * 3), spec_of(("kind", "brief", "new")))
    assert [found.objectives[name].accuracy for name in ("kind", "brief", "new")] == [0.0, 1.0, None]
    assert found.objectives["new"].not_defined["accuracy"] == "no pair has a label under this objective"


def test_a_label_without_weight_is_none() -> None:
    known = preferences_of(np.array([1.0, 0.0]))
    ignored = Preferences(known.objectives, known.pairs, known.target, np.array([[1.0], [0.0]]), known.group)
    assert evaluate_scores(ignored, raw_of([1.0, 1.0]), spec_of()).objectives["kind"].n == 1


@pytest.mark.parametrize("target", [[], [NAN, NAN], [0.5, 0.5], [1.0], [1.0, 1.0, 1.0]])
def test_what_is_not_defined_is_none_with_a_reason(target: list[float]) -> None:
    found = one(target, [1.0] * len(target))
    text = found.model_dump_json()
    assert "NaN" not in text
    assert "judge" not in text
    assert "people" not in text
    for key in ("accuracy", "ece", "temperature_here", "length_slope", "length_slope_gap"):
        assert getattr(found, key) is not None or found.not_defined[key], key
    assert found.warnings


def test_all_equal_scores_are_a_coin() -> None:
    found = one([1.0, 0.0, 1.0, 0.5], [0.0] * 4)
    assert found.accuracy == 0.5
    # The tie is what the head says, too.
    assert found.brier == pytest.approx(0.25 * 3 / 4)
    assert found.log_loss == pytest.approx(math.log(2))
    assert found.ece == pytest.approx(0)


def test_scores_that_are_no_numbers_end_it() -> None:
    with pytest.raises(RunError, match=r"p1: a score of it is not a number, as those of 2 of 3 pairs"):
        one([1.0, 1.0, 1.0], [1.0, NAN, float("inf")])


def test_scores_of_another_shape_are_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match=r"expected \(2, 2, 1\)"):
        evaluate_scores(preferences_of(np.ones(2)), np.zeros((2, 1)), spec_of())


def test_examples_are_the_surest_of_each_prompt() -> None:
    target = np.array([1.0, 1.0, 0.6, 1.0, 0.5, 0.0])
    known = preferences_of(target, group=[0, 1, 2, 3, 4, 1])
    raw = raw_of([1.0, -3.0, -4.0, 2.0, 9.0, 8.0])
    spec = spec_of(normalization={"kind": Normalization(mean=1.0, std=2.0)})
    found = scored_examples(known, raw, spec, each=2)
    # p5 and p1 share a prompt, and p5 is the surer one; a label of 0.6 weighs a fifth.
    assert [(each.id, each.right) for each in found] == [("p5", False), ("p2", False), ("p3", True), ("p0", True)]
    assert found[0].rewards["kind"] == ((4.0 - 1) / 2, (-4.0 - 1) / 2)
    assert found[3].p_a == pytest.approx(1 / (1 + math.exp(-1)))


def test_changes_are_paired() -> None:
    known = preferences_of(np.array([[1.0, NAN]] * 10))
    before = raw_of([1.0] * 5 + [-1.0] * 5, [NAN] * 10)
    after = raw_of([1.0] * 8 + [-1.0] * 2, [1.0] * 10)
    [found] = accuracy_changes("old", known, before, after, spec_of(("kind", "brief")))
    assert (found.objective, found.n, found.before, found.after) == ("kind", 10, 0.5, 0.8)
    assert found.difference == pytest.approx(0.3)
    assert found.difference_ci is not None
    assert 0 <= found.difference_ci[0] < 0.3 < found.difference_ci[1] <= 0.6


def test_all_keys_of_the_interface_are_there() -> None:
    found = json.loads(realistic(pairs=150)["evaluation"].model_dump_json())
    assert list(found["objectives"]) == list(NAMES)
    keys = {"n", "ties", "accuracy", "accuracy_ci", "ece", "brier", "temperature", "length_slope", "length_slope_ci"}
    keys |= {"length_only_accuracy", "margin", "by_tag"}
    assert keys <= found["objectives"]["honesty"].keys()
    assert len(found["conflicts"]) == 3
