"""Resampling: the right distribution, the same bytes, groups kept together, little memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy import stats

from rlaif.agreement.bootstrap import Spread, bootstrap, interval, paired_difference, resample_sums
from rlaif.agreement.metrics import Figure, Floats, accuracies, alpha_profiles, alphas, cells, cohen_kappa, confusion
from rlaif.agreement.metrics import kappas as kappas_of
from tests.agreement_inputs import random_codes, rating_counts

pytestmark = pytest.mark.filterwarnings("error")


def mean(sums: Floats) -> Floats:
    ratio: Floats = sums[:, 0] / sums[:, 1]
    return ratio


def with_count(values: Floats) -> Floats:
    return np.column_stack([values, np.ones(len(values))])


def test_two_pairs_are_drawn_like_two_coins() -> None:
    sums = resample_sums(np.array([[1], [0]]), None, 8000, seed=1)[:, 0]
    # 0, 1 and 2 with 1/4, 1/2, 1/4; four standard errors of a share of one half are 0.022.
    assert np.bincount(sums.astype(int)) / 8000 == pytest.approx([0.25, 0.5, 0.25], abs=0.022)


@pytest.mark.parametrize("distinct", [3, 500])
def test_sums_have_the_mean_and_the_spread_of_drawing_with_replacement(distinct: int) -> None:
    """Of few profiles their numbers are drawn, of many the pairs: both are the same chance."""
    values = np.random.default_rng(2).normal(size=distinct).repeat(500 // distinct)
    n, resamples = len(values), 6000
    sums = resample_sums(with_count(values), None, resamples, seed=3)
    assert (sums[:, 1] == n).all()
    error = values.std() * np.sqrt(n / resamples)
    assert sums[:, 0].mean() == pytest.approx(values.sum(), abs=4 * error)
    # A standard deviation of 6,000 values is known to 0.9%.
    assert sums[:, 0].std() == pytest.approx(values.std() * np.sqrt(n), rel=0.036)


def test_intervals_are_those_of_scipy() -> None:
    human = random_codes(4, 400, missing=0)
    judge = np.where(np.random.default_rng(5).random(400) < 0.6, human, random_codes(6, 400, missing=0)).astype(np.int8)

    def kappa(first: Floats, second: Floats) -> float | None:
        return cohen_kappa(confusion(first.astype(int), second.astype(int))).value

    mine = bootstrap(cells(human, judge), kappas_of, None, 4000, seed=0)
    theirs = stats.bootstrap(
        (human, judge), kappa, paired=True, vectorized=False, n_resamples=2000, method="percentile", rng=1
    ).confidence_interval
    assert mine.ci == pytest.approx((theirs.low, theirs.high), abs=0.01)
    right = (human == judge).astype(float)
    mine = bootstrap(cells(human, judge), lambda sums: accuracies(sums, "count"), None, 4000, seed=0)
    theirs = stats.bootstrap((right,), np.mean, n_resamples=4000, method="percentile", rng=1).confidence_interval
    assert mine.ci == pytest.approx((theirs.low, theirs.high), abs=0.006)


def test_clusters_are_drawn_whole() -> None:
    values = np.arange(50.0)
    single = resample_sums(with_count(values), None, 200, seed=7)
    doubled = resample_sums(with_count(values.repeat(2)), np.arange(50).repeat(2).astype(str), 200, seed=7)
    order = np.argsort(np.arange(50).astype(str))
    # Clusters are sorted by name; so are the pairs to compare with.
    assert (doubled == 2 * resample_sums(with_count(values[order]), None, 200, seed=7)).all()
    assert single[:, 1].tolist() == [50] * 200


def test_pairs_of_one_prompt_tell_less_than_as_many_prompts() -> None:
    values = (np.random.default_rng(8).random(100) < 0.5).astype(float).repeat(4)
    apart = bootstrap(with_count(values), mean, None, 2000, seed=0).ci
    together = bootstrap(with_count(values), mean, np.arange(100).repeat(4), 2000, seed=0).ci
    assert apart is not None
    assert together is not None
    # Four times the pairs, but no more prompts: twice as wide.
    assert (together[1] - together[0]) / (apart[1] - apart[0]) == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("distinct", [2, 300])
def test_the_same_seed_gives_the_same_bytes(distinct: int) -> None:
    profiles = with_count(np.arange(300.0) % distinct)
    first, again, other = (resample_sums(profiles, None, 50, seed).tobytes() for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_pairs_that_do_not_count_are_not_drawn() -> None:
    counts = rating_counts(random_codes(9, (60, 3), missing=0.1))
    profiles = alpha_profiles(counts)
    padded = np.concatenate([np.zeros((40, 4)), profiles])
    expected = bootstrap(profiles, alphas, None, 300, seed=1)
    assert bootstrap(padded, alphas, None, 300, seed=1) == expected
    assert expected.ci is not None


def test_interval_by_hand() -> None:
    values = np.random.default_rng(0).permutation(201).astype(float)
    assert interval(values).ci == pytest.approx((5, 195))
    assert interval(values, confidence=0.5).ci == pytest.approx((50, 150))


def test_resamples_without_a_value_are_counted() -> None:
    values = np.array([1.0, 1.0, np.nan, np.nan])
    assert interval(values) == Spread((1, 1), 2)
    assert interval(np.append(values, np.nan)) == Spread(None, 3, "not defined on 3 of 5 resamples")
    assert interval(np.zeros(0)) == Spread(None, 0, "no resamples were asked for")


@pytest.mark.parametrize(
    ("n", "clusters", "reason"),
    [
        (0, None, "no pair cannot be resampled; at least two are needed"),
        (1, None, "one pair cannot be resampled; at least two are needed"),
        (3, [1, 1, 1], "one prompt cannot be resampled; at least two are needed"),
    ],
)
def test_too_little_to_resample(n: int, clusters: list[int] | None, reason: str) -> None:
    groups = None if clusters is None else np.array(clusters)
    assert bootstrap(with_count(np.ones(n)), mean, groups, 100, seed=0) == Spread(None, 0, reason)


def test_no_resamples_give_no_interval() -> None:
    assert bootstrap(with_count(np.ones(3)), mean, None, 0, seed=0).reason == "no resamples were asked for"
    figure = paired_difference(np.array([1.0, 0.0]), np.array([0.0, 0.0]), resamples=0)
    assert figure == Figure(0.5, None, "no resamples were asked for")


def test_paired_difference_by_hand() -> None:
    first = np.array([1, 1, 0, 0.5, np.nan, 1])
    second = np.array([0, 1, 0, 0, 1, np.nan])
    # (1 + 0 + 0 + 0.5) / 4 of the four pairs that have both.
    figure = paired_difference(first, second)
    assert figure.value == 0.375
    assert figure.ci == (0, 0.75)
    assert paired_difference(first, first) == Figure(0, (0, 0))


def test_paired_difference_is_that_of_scipy() -> None:
    random = np.random.default_rng(10)
    first, second = ((random.random(500) < share).astype(float) for share in (0.7, 0.6))
    theirs = stats.bootstrap((first - second,), np.mean, n_resamples=4000, method="percentile", rng=1)
    low, high = theirs.confidence_interval
    assert paired_difference(first, second, resamples=4000).ci == pytest.approx((low, high), abs=0.006)


def test_paired_difference_of_nothing_says_so() -> None:
    expected = Figure(None, reason="no pair has scores of both")
    assert paired_difference(np.array([1, np.nan]), np.array([np.nan, 1])) == expected
    assert paired_difference(np.zeros(0), np.zeros(0)) == expected
    one = paired_difference(np.ones(1), np.zeros(1))
    assert one == Figure(1, None, "one pair cannot be resampled; at least two are needed")


@pytest.mark.parametrize("distinct", [100, 40_000])
def test_memory_does_not_grow_with_pairs_times_resamples(distinct: int) -> None:
    profiles = with_count(np.arange(40_000.0) % distinct)
    tracemalloc.start()
    resample_sums(profiles, None, 500, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # The weights of all resamples at once would be 160 MB.
    assert peak < 40_000_000
