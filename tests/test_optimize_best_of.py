"""The best of n: against every way of drawing n of a pool, by hand, and against the normal distribution."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from rlaif.optimize.best_of import best_of, best_of_each, best_weights, best_with_kl, kl_of_best, sizes_up_to
from rlaif.rewards.preferences import Floats

pytestmark = pytest.mark.filterwarnings("error")


def by_every_subset(picked_by: Floats, values: Floats, n: int) -> float:
    """Mean over all subsets of n of the mean value of those of its samples that are picked by most."""
    found = []
    for places in itertools.combinations(range(len(picked_by)), n):
        chosen = np.array(places)
        top = chosen[picked_by[chosen] == picked_by[chosen].max()]
        found.append(values[top].mean())
    return float(np.mean(found))


def of_one(picked_by: Floats, values: Floats, sizes: list[int]) -> Floats:
    found: Floats = best_of(picked_by[None], values[None], sizes)[0]
    return found


@pytest.mark.parametrize("seed", range(6))
def test_equals_the_mean_over_every_subset(seed: int) -> None:
    random = np.random.default_rng(seed)
    picked_by, values = random.normal(size=9), random.normal(size=(9, 2))
    found = of_one(picked_by, values, list(range(1, 10)))
    for column in (0, 1):
        for n in range(1, 10):
            assert found[n - 1, column] == pytest.approx(by_every_subset(picked_by, values[:, column], n), abs=1e-12)


@pytest.mark.parametrize("levels", [1, 2, 3, 5])
def test_ties_are_broken_by_a_fair_draw(levels: int) -> None:
    # A fair draw among the top of a subset has the mean of that top. Over all subsets each of a level's samples is as
    # often in the top as the others, so their mean may stand for each.
    random = np.random.default_rng(levels)
    picked_by, values = random.integers(levels, size=8).astype(np.float64), random.normal(size=(8, 1))
    found = of_one(picked_by, values, list(range(1, 9)))
    for n in range(1, 9):
        assert found[n - 1, 0] == pytest.approx(by_every_subset(picked_by, values[:, 0], n), abs=1e-12)


def test_pool_of_three_by_hand() -> None:
    # Of two out of {1, 2, 3}: {1,2} gives 2, {1,3} and {2,3} give 3.
    weights = best_weights(3, [1, 2, 3])
    assert weights == pytest.approx(np.array([[1 / 3, 1 / 3, 1 / 3], [0, 1 / 3, 2 / 3], [0, 0, 1]]))
    found = of_one(np.array([5.0, 9.0, 7.0]), np.array([[1.0], [3.0], [2.0]]), [1, 2, 3])
    assert found[:, 0] == pytest.approx([2, 8 / 3, 3])


def test_large_pools_neither_overflow_nor_lose_digits() -> None:
    weights = best_weights(5000, [1, 2, 50, 2500, 4999, 5000])
    assert np.isfinite(weights).all()
    assert weights.sum(axis=1) == pytest.approx(np.ones(6), abs=1e-9)
    # The best of all is the last with chance n / N.
    assert weights[:, -1] == pytest.approx(np.array([1, 2, 50, 2500, 4999, 5000]) / 5000)


@pytest.mark.parametrize("sizes", [[0], [4], []])
def test_sizes_outside_the_pool_are_refused(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="out of 3"):
        best_weights(3, sizes)


def test_prompts_with_pools_of_different_sizes_keep_their_places() -> None:
    random = np.random.default_rng(1)
    counts = [5, 7, 5, 6]
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    picked_by, values = np.round(random.normal(size=23), 1), random.normal(size=(23, 1))
    found = best_of_each(picked_by, values, starts, [1, 2, 5])
    assert found.shape == (4, 3, 1)
    for prompt, (start, end) in enumerate(itertools.pairwise(starts.tolist())):
        for place, n in enumerate((1, 2, 5)):
            expected = by_every_subset(picked_by[start:end], values[start:end, 0], n)
            assert found[prompt, place, 0] == pytest.approx(expected, abs=1e-12)


def test_estimate_is_unbiased_for_fresh_samples() -> None:
    # The mean of the largest of 2 standard normals is 1 / sqrt(pi), of 3 it is 1.5 / sqrt(pi).
    random = np.random.default_rng(2)
    picked_by = random.normal(size=(4000, 12))
    found = best_of(picked_by, picked_by[..., None], [2, 3])[..., 0]
    error = found.std(axis=0, ddof=1) / math.sqrt(4000)
    assert (np.abs(found.mean(axis=0) - np.array([1, 1.5]) / math.sqrt(math.pi)) < 4 * error).all()


def test_divergence_of_the_best_of_n() -> None:
    assert kl_of_best(1) == 0
    assert kl_of_best(2) == pytest.approx(math.log(2) - 0.5)
    # By its definition: the best of n has the density n u^(n-1) at the policy's quantile u.
    u = (np.arange(200_000) + 0.5) / 200_000
    density = 16 * u**15
    assert kl_of_best(16) == pytest.approx(float((density * np.log(density)).mean()), abs=1e-5)


@pytest.mark.parametrize("n", [1, 1.0001, 1.5, 2, 12, 64, 1e6, 1e12])
def test_divergence_leads_back_to_n(n: float) -> None:
    assert best_with_kl(kl_of_best(n)) == pytest.approx(n, rel=1e-9, abs=1e-7)


def test_grid_begins_with_every_n_and_ends_with_the_largest() -> None:
    assert sizes_up_to(5).tolist() == [1, 2, 3, 4, 5]
    assert sizes_up_to(16).tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 13, 16]
    long = sizes_up_to(1000)
    assert long[0] == 1
    assert long[-1] == 1000
    assert len(long) < 50
    assert (np.diff(long) > 0).all()
