"""Temperatures, their error and the normalization: by hand, and against scipy's minimiser."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize

from rlaif.agreement.calibration import calibrate
from rlaif.errors import RunError
from rlaif.rewards.calibrate import (
    calibrate_head,
    calibrate_heads,
    expected_calibration_error,
    fit_temperature,
    normalize_heads,
    reliability,
    win_probability,
)
from rlaif.rewards.preferences import Floats
from rlaif.rewards.spec import Calibration, Normalization

pytestmark = pytest.mark.filterwarnings("error")


def scored(seed: int, pairs: int, temperature: float, spread: float = 1.5) -> tuple[Floats, Floats]:
    """Differences of raw scores that are that many times the log-odds by which people then prefer a, 1 or 0."""
    random = np.random.default_rng(seed)
    odds = random.normal(size=pairs) * spread
    return odds * temperature, (random.random(pairs) < win_probability(odds, 1.0)).astype(float)


def ones(pairs: int) -> Floats:
    return np.ones(pairs)


def posterior(t: float, d: Floats, y: Floats, w: Floats) -> float:
    """What `fit_temperature` says that it minimises, written out."""
    s = math.sqrt((w * d**2).sum() / w.sum()) / t
    return float((w * (np.logaddexp(0, d / t) - y * d / t)).sum() + s - math.log(s))


def test_win_probability_by_hand() -> None:
    # e^(log 9 / 2) is 3: three to one.
    assert win_probability(np.array([math.log(9), -math.log(9), 0, 1e6, -1e6]), 2.0) == pytest.approx(
        [0.75, 0.25, 0.5, 1, 0]
    )


@pytest.mark.parametrize("temperature", [0.05, 1.0, 40.0])
def test_known_temperature_is_recovered(temperature: float) -> None:
    d, y = scored(0, 20_000, temperature)
    assert fit_temperature(d, y, ones(len(d))) == pytest.approx(temperature, rel=0.03)


def test_soft_targets_that_are_exact_give_the_exact_temperature_but_for_the_prior() -> None:
    d = np.linspace(-4, 4, 4001)
    y = win_probability(d, 2.5)
    # The prior is worth a few pairs among four thousand.
    assert fit_temperature(d, y, ones(len(d))) == pytest.approx(2.5, rel=2e-3)
    assert fit_temperature(d, y, 1e6 * ones(len(d))) == pytest.approx(2.5, rel=1e-8)


@pytest.mark.parametrize("seed", range(12))
def test_temperature_is_the_best_that_scipy_finds(seed: int) -> None:
    random = np.random.default_rng(100 + seed)
    pairs = int(random.integers(10, 200))
    d, y = scored(seed, pairs, float(np.exp(random.normal())))
    # Some soft, some the wrong way round, some that count less.
    y = np.where(random.random(pairs) < 0.3, random.random(pairs), y)
    w = random.choice([0.1, 1.0, 2.0], pairs)
    best = optimize.minimize_scalar(
        lambda log_t: posterior(math.exp(log_t), d, y, w), bounds=(-8, 8), method="bounded", options={"xatol": 1e-10}
    )
    assert fit_temperature(d, y, w) == pytest.approx(math.exp(best.x), rel=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_all_right_all_wrong_and_half_have_an_end(share: float) -> None:
    d = np.tile([1.0, -1.0], 10)
    y = np.where(np.arange(20) < 20 * share, d > 0, d < 0).astype(float)
    # With |d| = 1 and inverse temperature s: 20 (sigmoid(s) - share) + 1 - 1/s = 0.
    root = optimize.brentq(lambda s: 20 * (1 / (1 + math.exp(-s)) - share) + 1 - 1 / s, 1e-3, 100)
    assert fit_temperature(d, y, ones(20)) == pytest.approx(1 / root, rel=1e-9)


def test_temperature_follows_the_unit_of_the_scores_and_no_order() -> None:
    d, y = scored(3, 40, 1.0)
    w = np.random.default_rng(3).random(40) + 0.1
    t = fit_temperature(d, y, w)
    assert fit_temperature(d * 1000, y, w) == pytest.approx(1000 * t, rel=1e-9)
    side = np.random.default_rng(4).choice([-1.0, 1.0], 40)
    assert fit_temperature(d * side, np.where(side > 0, y, 1 - y), w) == pytest.approx(t, rel=1e-9)
    # A pair of weight 2 is two pairs.
    twice = np.concatenate([d, d[:10]]), np.concatenate([y, y[:10]])
    assert fit_temperature(*twice, ones(50)) == pytest.approx(
        fit_temperature(d, y, np.where(np.arange(40) < 10, 2.0, 1.0)), rel=1e-9
    )


def test_error_by_hand() -> None:
    # The head is 80% sure of its side ten times and right seven times: which side that is does not matter.
    p = np.array([0.8] * 5 + [0.2] * 5)
    right = np.array([1, 1, 1, 1, 0, 1, 1, 1, 0, 0], dtype=float)
    target = np.where(p > 0.5, right, 1 - right)
    (only,) = reliability(p, target, ones(10))
    assert (only.pairs, only.weight) == (10, 10)
    assert [only.said, only.found] == pytest.approx([0.8, 0.7])
    assert expected_calibration_error(p, target, ones(10)) == pytest.approx(0.1)
    # A coin's toss is right half of the time, whichever comes first.
    assert expected_calibration_error(np.full(3, 0.5), np.ones(3), ones(3)) == 0


def test_weights_count_in_the_error() -> None:
    p = np.repeat([0.6, 0.9], 10)
    target = np.repeat([1.0, 0.0], 10)
    assert [each.pairs for each in reliability(p, target, ones(20))] == [10, 10]
    assert expected_calibration_error(p, target, ones(20)) == pytest.approx((0.4 + 0.9) / 2)
    assert expected_calibration_error(p, target, np.repeat([3.0, 1.0], 10)) == pytest.approx((3 * 0.4 + 0.9) / 4)


@pytest.mark.parametrize("seed", range(10))
def test_error_is_that_of_pairs_seen_from_both_sides(seed: int) -> None:
    random = np.random.default_rng(seed)
    pairs = 100 * int(random.integers(1, 5))
    p, target = random.random(pairs), random.choice([0.0, 0.5, 1.0], pairs)
    # The judges' own measure has a bin a tenth of what it is given: half as many here as there for the pairs twice.
    both = calibrate(np.concatenate([p, 1 - p]), np.concatenate([target, 1 - target]), bins=20)
    found = reliability(p, target, ones(pairs))
    assert len(found) == 10
    assert [each.n for each in both.bins[10:]] == [each.pairs for each in found]
    assert expected_calibration_error(p, target, ones(pairs)) == pytest.approx(both.ece)


def test_equal_probabilities_stay_in_one_bin_whichever_side_they_are_on() -> None:
    # 1 - 0.467 is not quite 0.533. One bin more would be made of 20 pairs.
    assert 1 - 0.467 != 0.533
    p = np.array([0.533, 0.467] * 10)
    assert [each.pairs for each in reliability(p, p, ones(20))] == [20]


def test_calibration_of_an_overconfident_head() -> None:
    d, y = scored(5, 4000, 3.0)
    found = calibrate_head("honesty", d, y, ones(4000), np.arange(4000) // 2)
    assert found.temperature == pytest.approx(3, rel=0.1)
    assert found.temperature == fit_temperature(d, y, ones(4000))
    assert (found.pairs, found.reason) == (4000, None)
    assert found.ece is not None
    assert found.ece < 0.025
    assert expected_calibration_error(win_probability(d, 1.0), y, ones(4000)) > 0.1


def test_error_is_measured_on_conversations_that_the_temperature_was_not_fitted_on() -> None:
    # Two conversations: each is put right by the other's temperature alone.
    d, y = scored(6, 60, 1.0)
    d[:30] *= 20
    w, group = ones(60), np.repeat([4, 9], 30)
    crossed = np.concatenate(
        [
            win_probability(d[:30], fit_temperature(d[30:], y[30:], w[30:])),
            win_probability(d[30:], fit_temperature(d[:30], y[:30], w[:30])),
        ]
    )
    assert calibrate_head("x", d, y, w, group).ece == pytest.approx(expected_calibration_error(crossed, y, w))


def test_pairs_without_a_label_do_not_count() -> None:
    d, y = scored(7, 200, 2.0)
    known = np.arange(200) % 3 > 0
    difference = np.column_stack([d, np.where(known, d, np.nan)])
    target = np.column_stack([y, np.where(known, y, np.nan)])
    weight = np.column_stack([ones(200), known.astype(float)])
    found = calibrate_heads(("x", "y"), difference, target, weight, np.arange(200))
    assert list(found) == ["x", "y"]
    assert found["x"] == calibrate_head("x", d, y, ones(200), np.arange(200))
    assert found["y"] == calibrate_head("y", d[known], y[known], ones(int(known.sum())), np.arange(200)[known])
    assert found["y"].pairs == 133


@pytest.mark.parametrize(
    ("pairs", "reason"),
    [
        (0, "no held-out pair has a label; a temperature needs 10"),
        (1, "1 held-out pair; a temperature needs 10"),
        (9, "9 held-out pairs; a temperature needs 10"),
    ],
)
def test_too_few_pairs_leave_the_scores_as_they_are(pairs: int, reason: str) -> None:
    d, y = scored(8, pairs, 2.0)
    found = calibrate_head("x", d, y, ones(pairs), np.arange(pairs))
    assert found == Calibration(temperature=1.0, pairs=pairs, ece=None, reason=reason)


def test_what_cannot_be_fitted_says_why() -> None:
    same = calibrate_head("x", np.zeros(20), np.ones(20), ones(20), np.arange(20))
    assert (same.temperature, same.reason) == (1, "every held-out pair has equal scores, which no temperature changes")
    d, y = scored(9, 200, 1.0)
    one = calibrate_head("x", d, y, ones(200), np.zeros(200, dtype=np.int64))
    assert one.temperature == fit_temperature(d, y, ones(200))
    assert one.ece is None
    assert one.reason is not None
    assert "one conversation" in one.reason


def test_scores_that_tell_the_wrong_way_are_held_near_one_half() -> None:
    d, y = scored(10, 400, 1.0)
    found = calibrate_head("x", -d, y, ones(400), np.arange(400))
    assert found.reason is not None
    assert "no better than a coin" in found.reason
    assert np.abs(win_probability(-d, found.temperature) - 0.5).max() < 0.02


def test_scores_that_are_all_right_are_trusted_but_not_blindly() -> None:
    d, _ = scored(11, 50, 1.0)
    found = calibrate_head("x", d, (d > 0).astype(float), ones(50), np.arange(50))
    assert found.reason is None
    assert 0.005 < found.temperature < 1


def test_scores_that_are_no_numbers_are_an_error() -> None:
    d = np.array([np.nan] * 12)
    with pytest.raises(RunError, match="honesty: a score of a held-out pair is not finite"):
        calibrate_head("honesty", d, np.ones(12), ones(12), np.arange(12))
    with pytest.raises(RunError, match="honesty: a score of a response trained on is not finite"):
        normalize_heads(("honesty",), np.array([[1.0], [np.inf]]))


def test_normalization_by_hand() -> None:
    # 1, 3 and 8: mean 4, squares 9 + 1 + 16 over 3.
    raw = np.array([[1.0, -5, 0], [3.0, -5, 0], [8.0, -5, 0]])
    found = normalize_heads(("x", "y", "z"), raw)
    assert found["x"] == Normalization(mean=4, std=math.sqrt(26 / 3))
    assert found["y"] == Normalization(mean=-5, std=1, reason="all 3 scores are the same")
    assert found["z"] == Normalization(mean=0, std=1, reason="all 3 scores are the same")
    assert ((raw[:, 0] - found["x"].mean) / found["x"].std).std() == pytest.approx(1)


def test_rounding_is_no_deviation() -> None:
    raw = np.full(1000, 123.4, dtype=np.float32)
    raw[::2] = np.nextafter(raw[0], np.float32(np.inf))
    assert normalize_heads(("x",), raw[:, None].astype(np.float64))["x"].std == 1
    # Small scores are scores.
    small = np.random.default_rng(0).normal(size=(1000, 1)) * 1e-8
    assert normalize_heads(("x",), small)["x"].std == pytest.approx(small.std())


def test_normalization_needs_a_response() -> None:
    assert normalize_heads(("x",), np.array([[2.0]]))["x"] == Normalization(mean=2, std=1, reason="one score only")
    with pytest.raises(RunError, match="no response was scored"):
        normalize_heads(("x",), np.zeros((0, 1)))
