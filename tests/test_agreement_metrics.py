"""Kappa, AC1, alpha and accuracy against other implementations and arithmetic by hand."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import krippendorff
import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import cohens_kappa

from rlaif.agreement.metrics import (
    TIES,
    Codes,
    Figure,
    Ints,
    ac1_profiles,
    ac1s,
    accuracies,
    accuracy,
    accuracy_scores,
    alpha_profiles,
    alphas,
    cells,
    cohen_kappa,
    confusion,
    gwet_ac1,
    gwet_ac1_many,
    kappas,
    krippendorff_alpha,
)
from rlaif.agreement.results import Ties
from rlaif.stats import wilson
from tests.agreement_inputs import random_codes, random_tables, rating_counts

pytestmark = pytest.mark.filterwarnings("error")

# Cohen's two by two: 35 of 50 agree; by chance (25 x 30 + 25 x 20) / 50^2 = 1/2 would.
TWO_BY_TWO = np.array([[20, 5, 0], [10, 15, 0], [0, 0, 0]])
# Rows people, columns judge.
WITH_TIES = np.array([[4, 1, 1], [0, 3, 1], [1, 0, 2]])

# The example of Krippendorff (2011) and Gwet (2014): four raters, twelve units, answers 1 to 5; 0 is missing.
FOUR_RATERS = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
        [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
    ]
)


def codes(*values: int) -> Codes:
    return np.array(values, dtype=np.int8)


def counts_of(*pairs: tuple[int, int, int]) -> Ints:
    return np.array(pairs, dtype=np.int64).reshape(-1, 3)


def test_confusion_counts_where_both_have_a_preference() -> None:
    human, judge = codes(0, 0, 1, 2, -1, 1), codes(0, 1, 1, 2, 0, -1)
    table = confusion(human, judge)
    assert table.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
    assert cells(human, judge).sum(axis=0).reshape(3, 3).tolist() == table.tolist()
    assert cells(human, judge)[4:].tolist() == [[0] * 9] * 2


@pytest.mark.parametrize(
    ("ties", "right", "n"),
    # 4 + 3 + 2 right of 13; with half a point for each of the 1 + 1 + 1 cases in which one says tie; sides alone.
    [("count", 9, 13), ("half", 10.5, 13), ("drop", 7, 8)],
)
def test_accuracy_with_ties(ties: Ties, right: float, n: int) -> None:
    figure = accuracy(WITH_TIES, ties)
    assert figure == Figure(right / n, wilson(right, n))


@pytest.mark.parametrize("ties", TIES)
def test_accuracy_is_the_mean_score_of_the_pairs_that_count(ties: Ties) -> None:
    for human, judge in random_tables():
        table = confusion(human, judge)
        scores, counted = accuracy_scores(human, judge, ties)
        figure = accuracy(table, ties)
        many = accuracies(np.stack([table.ravel(), 3 * table.ravel()]).astype(np.float64), ties)
        if figure.value is None:
            assert not counted.any()
            assert np.isnan(many).all()
        else:
            assert figure.value == pytest.approx(scores[counted].mean(), abs=1e-12)
            assert many == pytest.approx([figure.value] * 2, abs=1e-12)
        assert not scores[~counted].any()


def test_without_ties_all_ways_with_ties_are_one() -> None:
    figures = {accuracy(TWO_BY_TWO, ties) for ties in TIES}
    assert figures == {Figure(0.7, wilson(35, 50))}


def test_kappa_by_hand() -> None:
    # (0.7 - 0.5) / (1 - 0.5)
    assert cohen_kappa(TWO_BY_TWO).value == pytest.approx(0.4, abs=1e-12)


def test_kappa_is_that_of_scikit_learn_and_statsmodels() -> None:
    defined = 0
    for human, judge in random_tables():
        table = confusion(human, judge)
        value = cohen_kappa(table).value
        both = (human >= 0) & (judge >= 0)
        if value is None:
            assert len(set(human[both].tolist() + judge[both].tolist())) < 2
            continue
        defined += 1
        assert value == pytest.approx(cohen_kappa_score(human[both], judge[both], labels=[0, 1, 2]), abs=1e-12)
        assert value == pytest.approx(cohens_kappa(table, return_results=False), abs=1e-12)
        assert kappas(np.stack([table.ravel(), 2 * table.ravel()]).astype(float)) == pytest.approx([value] * 2)
    assert defined > 150


def test_ac1_by_hand() -> None:
    # a has 25 + 30 of 100 answers: chance is 2 x 0.55 x 0.45 / (2 - 1) = 0.495 on a scale of two.
    expected = (0.7 - 0.495) / (1 - 0.495)
    assert gwet_ac1(TWO_BY_TWO).value == pytest.approx(expected, abs=1e-12)
    # On a scale of three the same is shared by two: 0.2475.
    assert gwet_ac1(TWO_BY_TWO, categories=3).value == pytest.approx((0.7 - 0.2475) / (1 - 0.2475), abs=1e-12)


def test_the_published_example_of_four_raters() -> None:
    counts = np.stack([np.equal(FOUR_RATERS, answer).sum(axis=0) for answer in range(1, 6)], axis=1)
    assert krippendorff_alpha(counts).value == pytest.approx(0.743, abs=5e-4)
    assert gwet_ac1_many(counts).value == pytest.approx(0.77544, abs=5e-6)


def ac1_in_words(ratings: Codes, scale: int) -> float | None:
    """AC1 pair by pair and rater by rater, as the definition reads."""
    rows = [[code for code in row if code >= 0] for row in ratings.tolist()]
    agreeing = []
    for row in rows:
        couples = list(combinations(row, 2))
        if couples:
            agreeing.append(sum(first == second for first, second in couples) / len(couples))
    if not agreeing:
        return None
    rated = [Counter(row) for row in rows if row]
    shares = [sum(row[code] / row.total() for row in rated) / len(rated) for code in range(3)]
    chance = sum(share * (1 - share) for share in shares) / (scale - 1)
    return float((sum(agreeing) / len(agreeing) - chance) / (1 - chance))


def test_ac1_and_alpha_of_several_raters_with_gaps() -> None:
    defined = 0
    for seed in range(200):
        ratings = random_codes(seed, (1 + seed % 23, 1 + seed % 5), missing=0.3)
        counts = rating_counts(ratings)
        scale = max(2, len(set(ratings[ratings >= 0].tolist())))
        assert gwet_ac1_many(counts).value == pytest.approx(ac1_in_words(ratings, scale), abs=1e-12)
        value = krippendorff_alpha(counts).value
        paired = counts[counts.sum(axis=1) >= 2]
        if value is None:
            assert (paired.sum(axis=0) > 0).sum() < 2
            continue
        defined += 1
        assert value == pytest.approx(krippendorff.alpha(value_counts=counts, level_of_measurement="nominal"))
        assert alphas(2 * alpha_profiles(counts).sum(axis=0, keepdims=True)).shape == (1,)
    assert defined > 120


def test_two_raters_have_one_ac1() -> None:
    for first, second in random_tables(50):
        counts = rating_counts(np.stack([first, second], axis=1)[(first >= 0) & (second >= 0)])
        one, many = gwet_ac1(confusion(first, second)), gwet_ac1_many(counts)
        assert one.value == pytest.approx(many.value, abs=1e-12)
        assert (one.value is None) == (one.reason is not None)


def test_almost_all_alike_is_low_for_kappa_and_high_for_ac1() -> None:
    # 90 agree on a, 5 and 5 do not. Chance: kappa 0.95^2 + 0.05^2 = 0.905; AC1 2 x 0.95 x 0.05 = 0.095.
    table = np.array([[90, 5, 0], [5, 0, 0], [0, 0, 0]])
    assert cohen_kappa(table).value == pytest.approx((0.9 - 0.905) / 0.095)
    assert gwet_ac1(table).value == pytest.approx((0.9 - 0.095) / 0.905)


def test_humans_of_the_published_star_ratings(shared: Path) -> None:
    folder = shared / "alttest-cebab-stars"
    people = json.loads((folder / "human_annotations.json").read_text(encoding="utf-8"))
    figures = json.loads((folder / "expected.json").read_text(encoding="utf-8"))["figures"]
    expected = next(each["reproduced"] for each in figures if each["figure"].endswith("among humans, nominal"))
    units = {name: place for place, name in enumerate(sorted({unit for labels in people.values() for unit in labels}))}
    counts = np.zeros((len(units), 5), dtype=np.int64)
    for labels in people.values():
        for unit, stars in labels.items():
            counts[units[unit], stars - 1] += 1
    assert krippendorff_alpha(counts).value == pytest.approx(expected, abs=1e-12)


def all_figures(first: Codes, second: Codes) -> dict[str, Figure]:
    table, counts = confusion(first, second), rating_counts(np.stack([first, second], axis=1))
    return {
        **{f"accuracy, {ties}": accuracy(table, ties) for ties in TIES},
        "kappa": cohen_kappa(table),
        "ac1": gwet_ac1(table),
        "ac1 of many": gwet_ac1_many(counts),
        "alpha": krippendorff_alpha(counts),
    }


ALIKE = "both give one and the same answer everywhere, so that agreement by chance is already complete"
NO_SPREAD = "all ratings are the same, so that no disagreement could be expected"
NEITHER = "no pair has a preference of both"
SINGLE = "no pair has two ratings"


@pytest.mark.parametrize(
    ("first", "second", "values", "reasons"),
    [
        pytest.param((), (), [None] * 7, [*[NEITHER] * 5, SINGLE, SINGLE], id="no pairs"),
        pytest.param((-1, 1), (0, -1), [None] * 7, [*[NEITHER] * 5, SINGLE, SINGLE], id="no pair of both"),
        pytest.param((0,), (0,), [1, 1, 1, None, 1, 1, None], [*[None] * 3, ALIKE, None, None, NO_SPREAD], id="one"),
        # One of each: kappa's chance is 0, AC1's 1/2, and alpha expects just this disagreement.
        pytest.param((0,), (1,), [0, 0, 0, 0, -1, -1, 0], [None] * 7, id="one, and not agreed"),
        pytest.param(
            (1, 1, 1), (1, 1, 1), [1, 1, 1, None, 1, 1, None], [*[None] * 3, ALIKE, None, None, NO_SPREAD], id="alike"
        ),
        pytest.param(
            (2, 2),
            (2, 2),
            [1, 1, None, None, 1, 1, None],
            [None, None, "no pair is left without ties", ALIKE, None, None, NO_SPREAD],
            id="all ties",
        ),
    ],
)
def test_what_is_not_defined_says_why(
    first: tuple[int, ...], second: tuple[int, ...], values: list[float | None], reasons: list[str | None]
) -> None:
    figures = all_figures(codes(*first), codes(*second))
    assert [figure.value for figure in figures.values()] == values
    assert [figure.reason for figure in figures.values()] == reasons


@pytest.mark.parametrize("measure", [gwet_ac1_many, krippendorff_alpha])
def test_one_annotator_agrees_with_nobody(measure: Callable[[Ints], Figure]) -> None:
    assert measure(counts_of((1, 0, 0), (0, 1, 0), (0, 0, 0))) == Figure(None, reason=SINGLE)


def test_figures_are_numbers_or_have_a_reason() -> None:
    for first, second in random_tables():
        for name, figure in all_figures(first, second).items():
            assert (figure.value is None) == (figure.reason is not None), name
            assert figure.value is None or math.isfinite(figure.value), name


def test_exchanging_a_and_b_changes_nothing() -> None:
    other_way = codes(1, 0, 2, -1)
    for first, second in random_tables(50):
        exchanged = all_figures(other_way[first], other_way[second])
        for name, figure in all_figures(first, second).items():
            assert exchanged[name].value == pytest.approx(figure.value, abs=1e-12), name
            assert exchanged[name].ci == pytest.approx(figure.ci, abs=1e-12), name


def test_resampled_ac1_keeps_the_scale_of_the_data() -> None:
    counts = counts_of((2, 0, 0), (1, 1, 0), (0, 0, 2))
    whole = ac1s(ac1_profiles(counts).sum(axis=0, keepdims=True), 3)[0]
    assert whole == pytest.approx(gwet_ac1_many(counts).value)
    # Without the tie: chance is (0.75 x 0.25) x 2 / (3 - 1) on the scale of three.
    assert ac1s(ac1_profiles(counts[:2]).sum(axis=0, keepdims=True), 3) == pytest.approx([(0.5 - 0.1875) / 0.8125])
