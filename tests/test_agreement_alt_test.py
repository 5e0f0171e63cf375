"""The alternative annotator test: the published figures, a plain second implementation, and little data."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from scipy.stats import ttest_1samp
from statsmodels.stats.multitest import multipletests

from rlaif.agreement.alt_test import Annotations, alt_test, alt_test_of, alt_test_of_labels
from rlaif.agreement.results import AltTest
from tests.agreement_inputs import random_codes

pytestmark = pytest.mark.filterwarnings("error")

MODELS = ("gemini_flash", "gemini_pro", "gpt-4o", "llama-31", "gpt-4o-mini", "mistral-v03")


def share_equal(label: float, others: Sequence[float]) -> float:
    return float(np.mean([label == other for other in others]))


def negative_distance(label: float, others: Sequence[float]) -> float:
    return -float(np.sqrt(np.mean([(label - other) ** 2 for other in others])))


def in_words(
    judge: Sequence[int], people: Sequence[Sequence[int]], score: Callable[[float, Sequence[float]], float], least: int
) -> dict[str, tuple[int, float, float, float | None]]:
    """Instance by instance: n, both rates, and the t-test's p where the differences vary; -1 is missing."""
    found = {}
    for who in range(len(people[0])):
        human_wins, judge_wins = [], []
        for machine, row in zip(judge, people, strict=True):
            others = [label for place, label in enumerate(row) if place != who and label >= 0]
            if machine < 0 or row[who] < 0 or not others:
                continue
            mine, theirs = score(row[who], others), score(machine, others)
            human_wins.append(int(mine >= theirs))
            judge_wins.append(int(theirs >= mine))
        if len(human_wins) < least:
            continue
        differences = np.subtract(human_wins, judge_wins)
        p = None
        if differences.std() > 0:
            p = float(ttest_1samp(differences, 0.2, alternative="less").pvalue)
        found[str(who + 1)] = (len(differences), float(np.mean(judge_wins)), float(np.mean(human_wins)), p)
    return found


@pytest.fixture(scope="module")
def stars(shared: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """People's ratings, the models' ratings, and the figures to reproduce by name."""
    folder = shared / "alttest-cebab-stars"
    people, models, expected = (
        json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("human_annotations", "llm_annotations", "expected")
    )
    return people, models, {each["figure"]: each for each in expected["figures"]}


@pytest.mark.parametrize("model", MODELS)
def test_the_published_figures(stars: tuple[dict[str, Any], dict[str, Any], dict[str, Any]], model: str) -> None:
    people, models, figures = stars
    found = alt_test_of(models[model], people, scoring="neg_rmse", epsilon=0.1)
    assert found.winning_rate == figures[f"{model}: winning rate"]["published"]
    assert found.passed is True
    advantage = figures[f"{model}: average advantage probability"]
    assert found.advantage_probability == pytest.approx(advantage["published"], abs=0.005)
    assert found.advantage_probability == pytest.approx(advantage["reproduced"], abs=1e-12)
    expected = figures[f"{model}: per annotator n, rho_llm, rho_human, p"]["reproduced"]
    assert found.left_out == {}
    assert found.per_annotator.keys() == expected.keys()
    for name, (n, judge, human, p) in expected.items():
        one = found.per_annotator[name]
        assert one.n == n
        assert (one.judge, one.human) == pytest.approx((judge, human), abs=1e-6)
        assert one.p_value == pytest.approx(p, rel=1e-5)


@pytest.mark.parametrize("model", MODELS)
def test_the_published_ratings_as_categories(
    stars: tuple[dict[str, Any], dict[str, Any], dict[str, Any]], model: str
) -> None:
    people, models, figures = stars
    name = f"{model}: winning rate / advantage probability with `accuracy` scoring instead, epsilon 0.1"
    winning, advantage = (float(part) for part in figures[name]["reproduced"].split(" / "))
    # A function that says whether two labels are equal is accuracy by another road.
    for scoring in ("accuracy", lambda first, second: first == second):
        found = alt_test_of(models[model], people, scoring=scoring, epsilon=0.1)
        assert found.winning_rate == winning
        assert found.advantage_probability == pytest.approx(advantage, abs=1e-6)


@pytest.mark.parametrize(
    ("scoring", "score"), [("accuracy", share_equal), ("neg_rmse", negative_distance), ("similarity", share_equal)]
)
def test_a_plain_second_implementation_finds_the_same(
    scoring: Literal["accuracy", "neg_rmse", "similarity"], score: Callable[[float, Sequence[float]], float]
) -> None:
    tested = 0
    for seed in range(70):
        n, people = 5 + seed % 37, 2 + seed % 4
        labels, judge = random_codes(seed, (n, people), missing=0.3), random_codes(seed + 1000, n)
        way = (lambda first, second: float(first == second)) if scoring == "similarity" else scoring
        found = alt_test(judge, labels, scoring=way, min_instances=4)
        expected = in_words(judge.tolist(), labels.tolist(), score, least=4)
        assert found.per_annotator.keys() == expected.keys()
        for name, (size, by_judge, by_human, p) in expected.items():
            one = found.per_annotator[name]
            assert one.n == size
            assert (one.judge, one.human) == pytest.approx((by_judge, by_human))
            if p is not None:
                assert one.p_value == pytest.approx(p, rel=1e-9)
        if expected:
            tested += 1
            p_values = [one.p_value for one in found.per_annotator.values()]
            rejected = multipletests(p_values, alpha=0.05, method="fdr_by")[0]
            assert [one.rejected for one in found.per_annotator.values()] == rejected.tolist()
            assert found.winning_rate == pytest.approx(rejected.mean())
            assert found.advantage_probability == pytest.approx(np.mean([each[1] for each in expected.values()]))
    assert tested > 60


def test_by_hand() -> None:
    """Three people, four pairs; x alone is at odds with the others on the last."""
    people = {"x": "aabb", "y": "aaba", "z": "aaba"}
    found = alt_test_of(dict(enumerate_text("aabb")), spelled(people), min_instances=4)
    # Against y and z the judge is where x is: equal on all four.
    assert found.per_annotator["x"].judge == found.per_annotator["x"].human == 1
    # All differences are 0: below 0.2 without any doubt.
    assert (found.per_annotator["x"].p_value, found.per_annotator["x"].rejected) == (0, True)
    # Against x and z, y has 1/2 on the last and the judge too: equal again.
    assert found.per_annotator["y"].judge == 1
    assert (found.winning_rate, found.advantage_probability, found.passed) == (1, 1, True)
    # A judge who says b throughout loses the first two pairs to everybody: a mean of 1/2 is not below 0.2.
    worse = alt_test_of(dict(enumerate_text("bbbb")), spelled(people), min_instances=4)
    for one in worse.per_annotator.values():
        assert (one.judge, one.human, one.rejected) == (0.5, 1, False)
        # t = (1/2 - 1/5) / sqrt((1/3) / 4) = 1.0392 with 3 degrees of freedom.
        assert one.p_value == pytest.approx(0.8125, abs=5e-4)
    assert (worse.winning_rate, worse.advantage_probability, worse.passed) == (0, 0.5, False)


def enumerate_text(labels: str) -> list[tuple[str, str]]:
    return [(str(place), label) for place, label in enumerate(labels) if label != "."]


def spelled(people: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Labels of instances 0, 1, ... one a letter; a dot is missing."""
    return {name: dict(enumerate_text(labels)) for name, labels in people.items()}


def test_distances_that_are_equal_but_for_rounding_are_equal() -> None:
    # The others say 0.2; the judge 0.3 and the annotator 0.1 are both 0.1 away, which floats do not quite say.
    judge, people = np.full(5, 0.3), np.tile([0.1, 0.2, 0.2], (5, 1))
    found = alt_test(judge, people, scoring="neg_rmse", min_instances=5)
    assert (found.per_annotator["1"].judge, found.per_annotator["1"].human) == (1, 1)


def test_a_judge_who_is_better_at_no_cost() -> None:
    """With epsilon 0 equality is not enough."""
    people = np.zeros((40, 3), dtype=np.int8)
    found = alt_test(np.zeros(40, dtype=np.int8), people, epsilon=0)
    assert [one.p_value for one in found.per_annotator.values()] == [1, 1, 1]
    assert found.passed is False
    assert alt_test(np.zeros(40, dtype=np.int8), people, epsilon=0.01).passed is True


def test_annotators_with_too_little_are_named() -> None:
    people = {"much": "a" * 40, "more": "a" * 40, "little": "a" * 3, "one": "b", "nothing": ""}
    found = alt_test_of(dict(enumerate_text("a" * 40)), spelled(people))
    assert set(found.per_annotator) == {"much", "more"}
    needed = "that the judge and 2 people or more labelled; at least 30 are needed"
    assert found.left_out == {
        "little": f"3 instances {needed}",
        "one": f"1 instance {needed}",
        "nothing": f"0 instances {needed}",
    }


def test_instances_with_too_few_people_do_not_count() -> None:
    judge, people = dict(enumerate_text("a" * 10)), spelled({"x": "a" * 10, "y": "a" * 6, "z": "aaa"})
    counts = [
        {
            name: one.n
            for name, one in alt_test_of(judge, people, min_instances=2, min_humans=least).per_annotator.items()
        }
        for least in (0, 2, 3)
    ]
    assert counts == [{"x": 6, "y": 6, "z": 3}, {"x": 6, "y": 6, "z": 3}, {"x": 3, "y": 3, "z": 3}]


NOBODY = "no annotator has 2 instances that the judge and 2 people labelled"
ALONE = "one annotator, so that there is nobody else to be as close to"


@pytest.mark.parametrize(
    ("judge", "people", "reason"),
    [
        pytest.param(np.zeros(0, np.int8), np.zeros((0, 0), np.int8), "there are no annotators", id="nothing"),
        pytest.param(np.zeros(0, np.int8), np.zeros((0, 3), np.int8), NOBODY, id="no instances"),
        pytest.param(np.zeros(50, np.int8), np.zeros((50, 1), np.int8), ALONE, id="one annotator"),
        pytest.param(np.full(50, -1), np.zeros((50, 3), np.int8), NOBODY, id="a judge who abstains"),
        pytest.param(np.zeros(50), np.full((50, 3), np.nan), NOBODY, id="no labels"),
        pytest.param(np.zeros(1), np.zeros((1, 3)), NOBODY, id="one instance"),
    ],
)
@pytest.mark.parametrize("scoring", ["accuracy", "neg_rmse", lambda first, second: float(first == second)])
def test_what_is_not_defined_says_why(
    judge: np.ndarray[Any, Any], people: np.ndarray[Any, Any], reason: str, scoring: Any
) -> None:
    found = alt_test(judge, people, scoring=scoring, min_instances=1)
    assert (found.winning_rate, found.advantage_probability, found.passed) == (None, None, None)
    assert found.reason == reason
    assert len(found.left_out) == people.shape[1]


def test_names_and_json() -> None:
    labels = random_codes(3, (60, 2), missing=0)
    found = alt_test(labels[:, 0], labels, names=["ann", "bob"])
    assert list(found.per_annotator) == ["ann", "bob"]
    assert AltTest.model_validate_json(found.model_dump_json()) == found


def test_labels_one_a_row_are_the_same_table() -> None:
    labels, judge = random_codes(5, (80, 3), missing=0.3), random_codes(6, 80, missing=0)
    instance, annotator = np.nonzero(labels >= 0)
    # In any order, and with numbers of instances that are not there.
    order = np.random.default_rng(0).permutation(len(instance))
    rows = Annotations(
        instance=3 * instance[order],
        annotator=annotator[order],
        values=labels[instance, annotator][order],
        judge=judge[instance][order],
        names=("1", "2", "3"),
    )
    assert len(alt_test(judge, labels).per_annotator) == 3
    for scoring in ("accuracy", "neg_rmse", lambda first, second: float(first == second)):
        assert alt_test_of_labels(rows, scoring=scoring) == alt_test(judge, labels, scoring=scoring)
