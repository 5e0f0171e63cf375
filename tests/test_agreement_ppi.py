"""Prediction-powered means: by hand, against ppi-python's figures, and by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from rlaif.agreement.metrics import Figure, Floats
from rlaif.agreement.ppi import powered_mean
from rlaif.stats import wilson

pytestmark = pytest.mark.filterwarnings("error")


def array(*values: float) -> Floats:
    return np.array(values, dtype=np.float64)


def sample(seed: int, n: int, more: int, right: float) -> tuple[Floats, Floats, Floats]:
    """Win, tie or loss for n + more pairs (mean 0.6), and a judge who knows some and tosses a coin for the others."""
    random = np.random.default_rng(seed)
    truth = random.choice([0.0, 0.5, 1.0], n + more, p=[0.35, 0.1, 0.55])
    judge = np.where(random.random(n + more) < right, truth, random.choice([0.0, 1.0], n + more))
    return truth[:n], judge[:n], judge[n:]


def test_by_hand() -> None:
    found = powered_mean(array(1, 0, 1, 0), array(1, 0, 1, 1), array(1, 0, 0, 0))
    # Common variance 1/6; the judge's over all eight 2/7: weight (1/6) / (2 x 2/7) = 7/24.
    weight = 7 / 24
    assert found.weight == pytest.approx(weight)
    assert found.judge == 0.5
    # 1/2 + weight x (1/4 - 3/4)
    assert found.powered.value == pytest.approx(17 / 48)
    # For the interval, human - weight x judge of the four pairs, and of two wins and two losses with the judge's 1/4.
    parts = [1 - weight, 0, 1 - weight, -weight, *[1 - weight / 4] * 2, *[-weight / 4] * 2]
    middle = sum(parts) / 8
    # And the judge's others, of variance 1/4, over 4.
    variance = sum((part - middle) ** 2 for part in parts) / 64 + weight**2 / 16
    centre, half = middle + weight / 4, 1.959963984540054 * variance**0.5
    assert found.powered.ci == pytest.approx((centre - half, centre + half))
    # People alone: eight labels of variance 1/4.
    assert found.gain == pytest.approx(1 / 32 / variance)
    assert found.human == Figure(0.5, wilson(2, 4))


# Estimate by ppi_mean_pointestimate of ppi-python 0.2.3 and half the width of its ppi_mean_ci: it divides a covariance
# by n where we divide by n - 1, and adds no wins and losses.
@pytest.mark.parametrize(
    ("arguments", "estimate", "half"),
    [
        ((1, 50, 500, 0.8), 0.6688719782949, 0.0940872651158),
        ((2, 200, 1000, 0.6), 0.6228091101904, 0.0538627433532),
        ((3, 30, 3000, 0.9), 0.5236209458425, 0.0893592814740),
        ((4, 1000, 1000, 0.3), 0.6194670899333, 0.0277972327931),
    ],
)
def test_ppi_python_finds_the_same(arguments: tuple[int, int, int, float], estimate: float, half: float) -> None:
    n = arguments[1]
    found = powered_mean(*sample(*arguments))
    assert found.powered.value is not None
    assert found.powered.ci is not None
    assert found.powered.value == pytest.approx(estimate, abs=0.1 / n)
    # The four added pairs of n change a variance by a few n-ths.
    assert (found.powered.ci[1] - found.powered.ci[0]) / 2 == pytest.approx(half, rel=3 / n)


@pytest.mark.parametrize(
    ("n", "share", "known", "guess"),
    # A judge who knows some pairs, and calls the others a win or the more frequent outcome.
    [(60, 0.7, 0.7, "win"), (20, 0.7, 0.7, "win"), (60, 0.9, 0.9, "like people"), (60, 0.5, 0.0, "like people")],
)
def test_intervals_hold_what_they_say_even_of_a_biased_judge(n: int, share: float, known: float, guess: str) -> None:
    runs, more = 1500, 600
    random = np.random.default_rng(11)
    found = []
    for _ in range(runs):
        truth = (random.random(n + more) < share).astype(float)
        guesses = 1.0 if guess == "win" else (random.random(n + more) < share)
        judge = np.where(random.random(n + more) < known, truth, guesses)
        found.append(powered_mean(truth[:n], judge[:n], judge[n:]))
    values = [each.powered.value for each in found if each.powered.value is not None]
    covered = [each.powered.ci[0] <= share <= each.powered.ci[1] for each in found if each.powered.ci is not None]
    assert len(values) == len(covered) == runs
    # Four standard errors of a share of 0.95 in 1,500 runs are 0.0225.
    assert np.mean(covered) > 0.95 - 0.0225
    # The weight is fitted to the same pairs: the estimate is off by a part of 1 / n.
    assert np.mean(values) == pytest.approx(share, abs=0.5 / n + 4 * np.std(values) / runs**0.5)
    by_judge = known * share + (1 - known) * (1 if guess == "win" else share)
    assert np.mean([each.judge for each in found]) == pytest.approx(by_judge, abs=0.005)
    gains = [each.gain for each in found if each.gain is not None]
    # A judge who only guesses neither helps nor harms.
    assert np.mean(gains) == pytest.approx(1, abs=0.02) if known == 0 else np.mean(gains) > 1.3


@pytest.mark.parametrize("judged", [1.0, 0.5])
def test_a_judge_who_always_says_the_same_adds_nothing(judged: float) -> None:
    human = array(1, 0, 1, 1, 0)
    found = powered_mean(human, np.full(5, judged), np.full(100, judged))
    assert found.weight == 0
    assert found.gain == 1
    assert found.powered.value == found.human.value == 0.6
    # Agresti and Coull: 3 + 2 of 5 + 4.
    half = 1.959963984540054 * (5 / 9 * 4 / 9 / 9) ** 0.5
    assert found.powered.ci == pytest.approx((5 / 9 - half, 5 / 9 + half))


def test_a_judge_against_people_costs_nothing() -> None:
    human, judge, others = sample(12, 40, 400, 1)
    found = powered_mean(human, 1 - judge, others)
    assert (found.weight, found.gain, found.powered.value) == (0, 1, found.human.value)


def test_pairs_without_both_labels_are_left_out() -> None:
    nan = np.nan
    with_gaps = powered_mean(array(1, nan, 0, 1, 0), array(1, 0, nan, 1, 1), array(nan, 1, 0, 0))
    assert with_gaps == powered_mean(array(1, 1, 0), array(1, 1, 1), array(1, 0, 0))


FEW = "{} with labels of both; at least 2 are needed"


@pytest.mark.parametrize(
    ("human", "judge", "others", "alone", "reason"),
    [
        ((), (), (), Figure(None, reason="no pair has labels of both"), FEW.format("no pairs")),
        ((1,), (1,), (0, 1), Figure(1, wilson(1, 1)), FEW.format("1 pair")),
        ((1, 0), (1, 0), (), Figure(0.5, wilson(1, 2)), "the judge labelled no pairs but those that people did"),
    ],
)
def test_what_is_not_defined_says_why(
    human: tuple[float, ...], judge: tuple[float, ...], others: tuple[float, ...], alone: Figure, reason: str
) -> None:
    found = powered_mean(array(*human), array(*judge), array(*others))
    assert (found.human, found.powered, found.gain) == (alone, Figure(None, reason=reason), None)
    assert found.judge == (np.mean(judge + others) if judge + others else None)


@pytest.mark.parametrize("others", [(0.0, 1.0), (1.0,)])
def test_labels_that_are_all_alike_still_have_an_interval(others: tuple[float, ...]) -> None:
    found = powered_mean(array(1, 1, 1), array(1, 1, 1), array(*others))
    assert (found.powered.value, found.gain) == (1, 1)
    # 3 + 2 of 3 + 4, up to no more than 1.
    assert found.powered.ci == pytest.approx((5 / 7 - 1.959963984540054 * (5 / 7 * 2 / 7 / 7) ** 0.5, 1))


def test_a_judge_who_is_always_right_is_worth_his_labels() -> None:
    truth = np.tile([1.0, 0.0], 500)
    found = powered_mean(truth[:20], truth[:20], truth[20:])
    # The variance of the labelled is 20 / 19 of 1/4, of all 1000 / 999: 1.03, and no more than 1.
    assert found.weight == 1
    assert found.powered.value == 0.5
    assert found.gain is not None
    assert found.gain > 3
