"""The threshold of a cascade: its arithmetic by a second implementation, its guarantee in simulated worlds."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from math import comb

import pytest

from rlaif.labeling.cascade_stages import orders_agree
from rlaif.labeling.cascade_threshold import THRESHOLDS, Case, choose_threshold, fewest, interval, lower_bound


def at_least(successes: int, trials: int, share: float) -> float:
    """P(so many successes or more), the binomial tail summed term by term."""
    return sum(comb(trials, k) * share**k * (1 - share) ** (trials - k) for k in range(successes, trials + 1))


@pytest.mark.parametrize(("successes", "trials"), [(1, 1), (29, 29), (27, 29), (95, 100), (3, 50), (180, 200)])
def test_the_lower_bound_is_where_the_binomial_tail_is_the_error(successes: int, trials: int) -> None:
    for confidence in (0.9, 0.95, 0.999):
        bound = lower_bound(successes, trials, confidence)
        # Were the share the bound, so many successes or more would come with just this probability.
        assert at_least(successes, trials, bound) == pytest.approx(1 - confidence, abs=1e-9)
        assert bound < successes / trials or trials == successes


def test_of_no_successes_nothing_is_known() -> None:
    assert lower_bound(0, 10) == 0.0
    assert interval(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="3 successes in 2 trials"):
        lower_bound(3, 2)


def test_the_interval_of_a_chosen_share_is_wider() -> None:
    low, high = interval(90, 100)
    # Clopper and Pearson's of 90 in 100: both tails are 0.025.
    assert at_least(90, 100, low) == pytest.approx(0.025, abs=1e-9)
    assert 1 - at_least(91, 100, high) == pytest.approx(0.025, abs=1e-9)
    wide_low, wide_high = interval(90, 100, choices=20)
    assert at_least(90, 100, wide_low) == pytest.approx(0.05 / 40, abs=1e-9)
    assert wide_low < low < high < wide_high


def test_how_many_must_all_agree() -> None:
    # 0.9 ** 28 = 0.0523 and 0.9 ** 29 = 0.0471; 0.8 ** 13 = 0.055 and 0.8 ** 14 = 0.044.
    assert fewest(0.9) == 29
    assert fewest(0.8) == 14
    assert all(wanted ** fewest(wanted) <= 0.05 < wanted ** (fewest(wanted) - 1) for wanted in (0.51, 0.7, 0.95, 0.99))


def cases(*groups: tuple[float | None, int, int]) -> list[Case]:
    """Cases of groups of (confidence, how many agree, how many do not)."""
    return [
        Case(confidence, agrees) for confidence, right, wrong in groups for agrees in [True] * right + [False] * wrong
    ]


def by_hand(found: Sequence[Case], wanted: float) -> float | None:
    """The rule read off its definition: down the list, each tested by the binomial tail, until one fails."""
    chosen = None
    for threshold in THRESHOLDS:
        mine = [case.agrees for case in found if case.confidence is not None and case.confidence >= threshold]
        if wanted ** len(mine) > 0.05:
            continue
        if at_least(sum(mine), len(mine), wanted) > 0.05:
            return chosen
        chosen = threshold
    return chosen


def test_the_threshold_goes_down_until_one_fails() -> None:
    # 40 of 40 at 0.9 or more; 58 of 60 at 0.75 or more (tail 0.053 for 0.9); so 0.75 fails and 0.8 is the last to hold.
    assert choose_threshold(cases((0.97, 40, 0), (0.76, 18, 2)), 0.9) == 0.8
    assert choose_threshold(cases((0.97, 40, 0), (0.76, 20, 0)), 0.9) == 0.5
    # What comes after a failure is not looked at, though all of it together would hold.
    assert choose_threshold(cases((0.97, 40, 0), (0.76, 12, 8), (0.6, 300, 0)), 0.9) == 0.8


def test_too_few_cases_set_no_threshold() -> None:
    assert choose_threshold([], 0.9) is None
    assert choose_threshold(cases((1.0, 28, 0)), 0.9) is None
    assert choose_threshold(cases((1.0, 29, 0)), 0.9) == 0.5
    # Fewer at a stricter threshold are passed over, and do not end the search.
    assert choose_threshold(cases((0.99, 5, 0), (0.8, 30, 0)), 0.9) == 0.5
    assert choose_threshold(cases((None, 200, 0)), 0.9) is None


def test_verdicts_without_probabilities_are_taken_or_left_together() -> None:
    assert choose_threshold(cases((1.0, 95, 2), (None, 0, 50)), 0.9) == 0.5
    assert choose_threshold(cases((1.0, 80, 20)), 0.9) is None


def test_random_samples_give_the_threshold_of_the_second_implementation() -> None:
    draws = random.Random(5)
    chosen = []
    for _ in range(120):
        sharp = draws.uniform(0.5, 4)
        found = []
        for _ in range(draws.randrange(0, 160)):
            confidence = 1 - draws.random() ** sharp / 2
            found.append(Case(None if draws.random() < 0.1 else confidence, draws.random() < confidence**0.3))
        wanted = draws.choice([0.7, 0.8, 0.9, 0.95])
        chosen.append(choose_threshold(found, wanted))
        assert chosen[-1] == by_hand(found, wanted)
    assert len(set(chosen)) > 5


# A world: how often verdicts of a confidence agree. Confidence is uniform from 0.5 to 1.
World = Callable[[float], float]


def agreement_from(world: World, threshold: float) -> float:
    """True agreement of what a threshold accepts, by the midpoint rule."""
    steps = 500
    width = (1 - threshold) / steps
    return sum(world(threshold + (step + 0.5) * width) for step in range(steps)) / steps


WORLDS: dict[str, World] = {
    "calibrated": lambda confidence: confidence,
    # Just under what is wanted at every threshold, the hardest case there is: nothing may be accepted.
    "flat and too low": lambda confidence: 0.8999,
    "overconfident": lambda confidence: 0.5 + 0.8 * (confidence - 0.5),
    "steep": lambda confidence: 0.93 if confidence > 0.8 else 0.5,
    # More confident and more often wrong at the top: what the test of each threshold assumes does not hold.
    "not monotone": lambda confidence: 0.7 if confidence > 0.97 else 0.97 if confidence > 0.8 else 0.85,
}


@pytest.mark.parametrize("name", WORLDS)
def test_what_is_promised_holds_in_the_stated_share_of_worlds(name: str) -> None:
    world, draws = WORLDS[name], random.Random(name)
    true = {threshold: agreement_from(world, threshold) for threshold in THRESHOLDS}
    broken = missed = found = 0
    rounds = 600
    for _ in range(rounds):
        drawn = [0.5 + draws.random() / 2 for _ in range(150)]
        sample = [Case(confidence, draws.random() < world(confidence)) for confidence in drawn]
        threshold = choose_threshold(sample, 0.9)
        if threshold is None:
            continue
        found += 1
        broken += true[threshold] < 0.9
        accepted = [case.agrees for case in sample if case.confidence is not None and case.confidence >= threshold]
        low, high = interval(sum(accepted), len(accepted), len(THRESHOLDS))
        missed += not low <= true[threshold] <= high
    # Of 600 rounds with 5% each, 48 or more come with probability 0.001.
    assert at_least(48, rounds, 0.05) < 0.002
    assert broken < 48
    assert missed < 48
    if name in ("calibrated", "steep"):
        assert found > 60


def test_the_promise_is_kept_for_pairs_drawn_from_a_small_data_set() -> None:
    """Without replacement, as a sample of the data is drawn: the binomial is then on the safe side."""
    draws = random.Random(8)
    data = []
    for _ in range(300):
        confidence = 0.5 + draws.random() / 2
        data.append(Case(confidence, draws.random() < 0.85 + 0.1 * confidence))
    kept = {
        threshold: [case.agrees for case in data if case.confidence is not None and case.confidence >= threshold]
        for threshold in THRESHOLDS
    }
    chosen = [choose_threshold(draws.sample(data, 200), 0.93) for _ in range(400)]
    broken = sum(sum(kept[each]) / len(kept[each]) < 0.93 for each in chosen if each is not None)
    # 33 or more of 400 come with probability 0.005 where each has 5%.
    assert broken < 33


@pytest.mark.parametrize(
    ("p_a", "gap", "agree"),
    [
        (0.8, 0.2, True),  # 0.9 and 0.7
        (0.6, 0.4, False),  # 0.8 and 0.4
        (0.2, 0.1, True),  # 0.25 and 0.15
        (0.7, 0.4, False),  # 0.9 and 0.5: one order is a tie
        (0.5, 0.0, False),  # both are
        (1.0, 0.0, True),
    ],
)
def test_orders_agree_where_both_prefer_the_same_response(p_a: float, gap: float, agree: bool) -> None:
    assert orders_agree(p_a, gap) is agree
    assert orders_agree(1 - p_a, gap) is agree
