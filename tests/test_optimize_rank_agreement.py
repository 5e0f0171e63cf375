"""Agreement of two rewards: by hand, against scipy on all pairs both ways, and the same however pairs are turned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from rlaif.agreement.bias import Sampling
from rlaif.agreement.metrics import Figure
from rlaif.optimize import rank_agreement as rank
from rlaif.rewards.preferences import Floats, Ints

NO_INTERVALS = Sampling(0, 0)
Correlation = Callable[[Floats, Floats, Ints, Sampling], Figure]
CORRELATIONS: tuple[tuple[Correlation, Any], ...] = (
    (rank.kendall, stats.kendalltau),
    (rank.spearman, stats.spearmanr),
    (rank.pearson, stats.pearsonr),
)


def margins_with_ties(count: int, seed: int = 0) -> tuple[Floats, Floats]:
    """Two related lists of margins, rounded so that many are equal and some are 0."""
    random = np.random.default_rng(seed)
    first = random.normal(size=count).round(1)
    return first, (first + random.normal(size=count)).round(1)


def test_pairs_are_all_those_of_a_row_in_any_order() -> None:
    pairs = rank.response_pairs(np.array([0, 1, 0, 2, 1, 0]), np.array([7, 8, 7, 9, 8, 7]))
    found = sorted(zip(pairs.first.tolist(), pairs.second.tolist(), pairs.prompt.tolist(), strict=True))
    # Row 0 has the places 0, 2 and 5, row 1 has 1 and 4, row 2 is alone.
    assert found == [(0, 2, 7), (0, 5, 7), (1, 4, 8), (2, 5, 7)]


def test_of_a_long_row_so_many_pairs_are_drawn_and_the_same_ones_again() -> None:
    row_of = np.repeat([0, 1], [60, 3])
    one, again, other = (rank.response_pairs(row_of, row_of, seed=seed) for seed in (0, 0, 1))
    assert len(one) == rank.MOST_PAIRS + 3
    drawn = {(a, b) for a, b in zip(one.first.tolist(), one.second.tolist(), strict=True)}
    assert len(drawn) == len(one)
    assert np.array_equal(one.first, again.first)
    assert not np.array_equal(one.first, other.first)


def test_same_preference_by_hand() -> None:
    found = rank.same_preference(np.array([2.0, -1, 1, 0, 0]), np.array([0.1, 3, 0, -2, 0]))
    assert np.array_equal(found, [1, 0, 0.5, 0.5, np.nan], equal_nan=True)


def test_signed_ranks_by_hand() -> None:
    # Among 3, 2, 1, -1, -2 and -3 the ranks less the middle one are 2.5, 1.5, 0.5 and so on.
    assert rank.signed_ranks(np.array([3.0, -1, 2])).tolist() == [2.5, -0.5, 1.5]
    # Both ones share the places 0.5 and 1.5; nought is in the middle.
    assert rank.signed_ranks(np.array([1.0, -1, 0])).tolist() == [2.0, -2.0, 0.0]


@pytest.mark.parametrize(("ours", "theirs"), CORRELATIONS)
def test_correlations_are_scipys_of_all_pairs_both_ways(ours: Correlation, theirs: Any) -> None:
    first, second = margins_with_ties(150)
    found = ours(first, second, np.arange(150), NO_INTERVALS)
    expected = theirs(np.concatenate([first, -first]), np.concatenate([second, -second])).statistic
    assert found.value == pytest.approx(expected, abs=1e-12)
    assert found.ci is None


@pytest.mark.parametrize(("ours", "theirs"), CORRELATIONS)
def test_turning_pairs_round_changes_nothing(ours: Correlation, theirs: Any) -> None:
    first, second = margins_with_ties(80, seed=1)
    turn = np.where(np.arange(80) % 3 == 0, -1.0, 1.0)
    clusters, sampling = np.arange(80), Sampling(50, 0)
    before, after = ours(first, second, clusters, sampling), ours(turn * first, turn * second, clusters, sampling)
    assert after.value == pytest.approx(before.value, abs=1e-12)
    assert after.ci == pytest.approx(before.ci, abs=1e-12)


@pytest.mark.parametrize(("ours", "theirs"), CORRELATIONS)
def test_intervals_are_those_of_drawing_the_data_anew(ours: Correlation, theirs: Any) -> None:
    first, second = margins_with_ties(250, seed=2)
    found = ours(first, second, np.arange(250), Sampling(2000, 0))
    random, drawn = np.random.default_rng(3), []
    for _ in range(400):
        some = random.integers(250, size=250)
        drawn.append(theirs(np.r_[first[some], -first[some]], np.r_[second[some], -second[some]]).statistic)
    assert found.ci == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.025)


def test_taus_interval_holds_where_pairs_are_held_against_a_part_only() -> None:
    # 6,000 pairs are more than can all be held against each other; whole and part give nearly one width.
    first, second = margins_with_ties(6000, seed=4)
    few = rank.kendall(first[:3000], second[:3000], np.arange(3000), Sampling(500, 0)).ci
    many = rank.kendall(first, second, np.arange(6000), Sampling(500, 0)).ci
    assert few is not None
    assert many is not None
    assert (many[1] - many[0]) / (few[1] - few[0]) == pytest.approx(np.sqrt(0.5), rel=0.15)


def test_a_reward_that_prefers_nothing_has_no_correlation() -> None:
    for ours, _ in CORRELATIONS:
        found = ours(np.zeros(4), np.arange(4.0), np.arange(4), NO_INTERVALS)
        assert (found.value, found.reason) == (None, "a reward prefers no response of any pair")


def test_within_rows_are_scipys_means_and_pairs_and_flat_rows_are_left_out() -> None:
    random = np.random.default_rng(5)
    sizes = [4, 3, 2, 4, 5, 1]
    row_of = np.repeat(np.arange(6), sizes)
    first = random.normal(size=19).round(1)
    second = (first + random.normal(size=19)).round(1)
    second[row_of == 3] = 1.0
    found = rank.within_rows(first, second, row_of, row_of, NO_INTERVALS)
    rows = [np.flatnonzero(row_of == row) for row in (0, 1, 4)]
    assert found is not None
    assert found.rows == 3
    for figure, theirs in ((found.kendall, stats.kendalltau), (found.spearman, stats.spearmanr)):
        expected = np.mean([theirs(first[row], second[row]).statistic for row in rows])
        assert figure.value == pytest.approx(expected, abs=1e-12)
    assert rank.within_rows(first[:2], first[:2], np.zeros(2, int), np.zeros(2, int), NO_INTERVALS) is None


def test_the_clear_half_goes_by_the_smaller_margin_in_its_models_units() -> None:
    # Units 10 and 1: the smaller parts are 0.1, 1, 0.5 and 0.
    first, second = np.array([10.0, 10, -10, 10]), np.array([0.1, 1.1, -0.5, 0.0])
    units = rank.rms(first), rank.rms(second)
    assert units[0] == 10
    assert rank.clearness(first, second) == pytest.approx(np.minimum(1, np.abs(second) / units[1]))
    assert rank.clear_half(first, second).tolist() == [False, True, True, False]


def test_a_share_without_exception_keeps_an_interval_of_its_own() -> None:
    # Ten prompts of two pairs each are ten cases: Wilson's lower end for 10 of 10 is 10 / (10 + 1.96^2).
    found = rank.mean_figure(np.ones(20), np.repeat(np.arange(10), 2), Sampling(200, 0), "", share=True)
    assert found.ci == pytest.approx((10 / (10 + 1.959964**2), 1.0), abs=1e-6)


def test_pairs_of_one_prompt_are_drawn_together() -> None:
    values = np.repeat([0.0, 1.0], 500)
    alone = rank.mean_figure(values, np.arange(1000), Sampling(500, 0), "", share=True).ci
    # Ten prompts of 100 equal answers know no more than ten answers do.
    together = rank.mean_figure(values, np.arange(1000) // 100, Sampling(500, 0), "", share=True).ci
    assert alone is not None
    assert together is not None
    assert (together[1] - together[0]) / (alone[1] - alone[0]) == pytest.approx(10, rel=0.15)
