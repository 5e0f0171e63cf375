"""Reading a verdict or a rating from a completion; every number is worked out by hand."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping

import pytest

from rlaif.labeling.verdicts import p_higher, rating_probabilities, read_answer, read_choice, read_rating
from rlaif.prompts import TemplateHead
from rlaif.types import Completion, FinishReason

AB = ("A", "B")
TO_TEN = tuple(map(str, range(1, 11)))
INF = math.inf


def answer(logprobs: Mapping[str, float] | None = None, finish: FinishReason = "stop") -> Completion:
    return Completion(key="k", choice_logprobs=logprobs or {}, finish_reason=finish)


@pytest.mark.parametrize(
    ("first", "second", "p_first", "mass"),
    [
        (math.log(0.6), math.log(0.2), 0.75, 0.8),
        (math.log(0.2), math.log(0.6), 0.25, 0.8),
        (math.log(0.5), math.log(0.5), 0.5, 1.0),
        (math.log(0.03), math.log(0.01), 0.75, 0.04),
        # e^-1000 is 0 in floating point, but the ratio is known: 1 / (1 + e^-1).
        (-1000.0, -1001.0, 0.7310585786300049, 0.0),
        (-1000.0, -1000.0, 0.5, 0.0),
        (0.0, -1000.0, 1.0, 1.0),
        (-1000.0, 0.0, 0.0, 1.0),
        (math.log(0.9), -INF, 1.0, 0.9),
        (-INF, math.log(0.9), 0.0, 0.9),
        (-1000.0, -INF, 1.0, 0.0),
        # The sum may pass 1 in the last digits of a server's answer.
        (1e-7, -20.0, 1 / (1 + math.exp(-20)), 1.0),
    ],
)
def test_probability_and_mass(first: float, second: float, p_first: float, mass: float) -> None:
    reading = read_choice(AB, answer({"A": first, "B": second}))
    assert reading.status == "ok"
    assert reading.p_first == pytest.approx(p_first, abs=1e-8)
    assert reading.choice_mass == pytest.approx(mass, abs=1e-12)
    assert not reading.hard


@pytest.mark.parametrize("first", [-INF, -1000.0, -745.2, -37.0, -3.2, -0.6931, -1e-9, 0.0])
@pytest.mark.parametrize("second", [-1000.0, -708.0, -20.5, -1.1, -0.6931, 0.0])
def test_exchanging_the_choices_gives_the_complement(first: float, second: float) -> None:
    forth = read_choice(AB, answer({"A": first, "B": second}))
    back = read_choice(AB, answer({"A": second, "B": first}))
    renamed = read_choice(("B", "A"), answer({"A": first, "B": second}))
    assert forth.p_first is not None
    assert 0 <= forth.p_first <= 1
    assert back.p_first == renamed.p_first == pytest.approx(1 - forth.p_first, abs=1e-15)
    assert back.choice_mass == forth.choice_mass == renamed.choice_mass


def test_a_choice_that_is_not_listed_has_no_probability() -> None:
    reading = read_choice(AB, answer({"B": math.log(0.4)}))
    assert reading.p_first == 0.0
    assert reading.choice_mass == pytest.approx(0.4)


@pytest.mark.parametrize("logprobs", [{}, {"A": -INF, "B": -INF}, {"C": -0.1}])
def test_nothing_listed_is_no_verdict(logprobs: dict[str, float]) -> None:
    reading = read_choice(AB, answer(logprobs))
    assert (reading.status, reading.p_first, reading.choice_mass) == ("unread", None, None)
    assert reading.reason == "the judge gave neither A nor B"


@pytest.mark.parametrize("logprobs", [{"A": math.nan, "B": -1.0}, {"A": -1.0, "B": math.nan}, {"B": math.nan}])
def test_what_is_not_a_number_is_no_verdict(logprobs: dict[str, float]) -> None:
    reading = read_choice(AB, answer(logprobs))
    assert (reading.status, reading.p_first, reading.choice_mass) == ("error", None, None)
    assert reading.reason is not None
    assert "not numbers" in reading.reason


@pytest.mark.parametrize(("choice", "p_first"), [("A", 1.0), ("B", 0.0)])
def test_a_hard_choice_is_marked(choice: str, p_first: float) -> None:
    reading = read_choice(AB, Completion(key="k", hard_choice=choice))
    assert (reading.status, reading.p_first, reading.hard, reading.choice_mass) == ("ok", p_first, True, None)


def test_a_hard_choice_gives_way_to_probabilities() -> None:
    reading = read_choice(AB, Completion(key="k", hard_choice="B", choice_logprobs={"A": -0.1, "B": -4.0}))
    assert not reading.hard
    assert reading.p_first == pytest.approx(1 / (1 + math.exp(-3.9)))


def test_a_hard_choice_that_is_none_of_the_two_is_no_verdict() -> None:
    assert read_choice(AB, Completion(key="k", hard_choice="C")).status == "unread"


def test_a_truncated_rationale_still_has_its_verdict() -> None:
    reading = read_choice(AB, answer({"A": math.log(0.6), "B": math.log(0.2)}, "length"))
    assert reading.status == "truncated"
    assert reading.p_first == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("completion", "status", "reason"),
    [
        (Completion(key="k", error="too long", finish_reason="error"), "error", "too long"),
        (Completion(key="k", error="too long"), "error", "too long"),
        (Completion(key="k", finish_reason="error"), "error", "the engine failed"),
        (Completion(key="k", finish_reason="refused"), "refused", "the server withheld the answer"),
    ],
)
def test_a_failure_is_never_a_number(completion: Completion, status: str, reason: str) -> None:
    with_numbers = completion.model_copy(update={"choice_logprobs": {"A": -0.1, "B": -2.0}, "hard_choice": "A"})
    for each in (completion, with_numbers):
        reading = read_choice(AB, each)
        assert (reading.status, reading.reason) == (status, reason)
        assert reading.p_first is None
        assert reading.choice_mass is None
        rating = read_rating(TO_TEN, each.model_copy(update={"choice_logprobs": {"7": -0.1}, "hard_choice": "7"}))
        assert (rating.status, rating.reason) == (status, reason)
        assert (rating.rating, rating.choice_mass) == (None, None)


def test_the_text_of_a_rationale_is_never_read() -> None:
    assert read_choice(AB, Completion(key="k", rationale="So A is better.\nVerdict: A")).status == "unread"


@pytest.mark.parametrize(
    ("logprobs", "rating", "mass"),
    [
        # (0.6 x 7 + 0.2 x 8) / 0.8 = 5.8 / 0.8
        ({"7": math.log(0.6), "8": math.log(0.2)}, 7.25, 0.8),
        # 0.5 x 1 + 0.5 x 10
        ({"1": math.log(0.5), "10": math.log(0.5)}, 5.5, 1.0),
        ({"3": math.log(0.01), "9": -INF}, 3.0, 0.01),
        # Both are 0 in floating point, and even: (4 + 5) / 2.
        ({"4": -1000.0, "5": -1000.0}, 4.5, 0.0),
        (dict.fromkeys(TO_TEN, math.log(0.1)), 5.5, 1.0),
        # The sum may pass 1 in the last digits, and what is no choice counts nothing.
        ({"2": 1e-7, "11": -0.5}, 2.0, 1.0),
    ],
)
def test_the_mean_of_the_ratings(logprobs: dict[str, float], rating: float, mass: float) -> None:
    reading = read_rating(TO_TEN, answer(logprobs))
    assert (reading.status, reading.p_first, reading.hard, reading.abstained) == ("ok", None, False, False)
    assert reading.rating == pytest.approx(rating)
    assert reading.choice_mass == pytest.approx(mass)


def test_a_rating_that_is_not_read() -> None:
    for logprobs in ({}, {"7": -INF}, {"A": -0.1}):
        reading = read_rating(TO_TEN, answer(logprobs))
        assert (reading.status, reading.rating, reading.choice_mass) == ("unread", None, None)
        assert reading.reason == "the judge gave no rating from 1 to 10"
        assert reading.abstained
    broken = read_rating(TO_TEN, answer({"7": -0.5, "8": math.nan}))
    assert (broken.status, broken.rating) == ("error", None)


def test_a_rating_without_log_probabilities_is_marked() -> None:
    reading = read_rating(TO_TEN, Completion(key="k", hard_choice="10", finish_reason="length"))
    assert (reading.status, reading.rating, reading.hard, reading.choice_mass) == ("truncated", 10.0, True, None)
    assert read_rating(TO_TEN, Completion(key="k", hard_choice="11")).status == "unread"
    weighed = read_rating(TO_TEN, Completion(key="k", hard_choice="10", choice_logprobs={"7": -0.1}))
    assert (weighed.rating, weighed.hard) == (7.0, False)


def test_the_template_says_what_is_read() -> None:
    completion = answer({"1": math.log(0.2), "2": math.log(0.6), "3": math.log(0.2)})
    rated = read_answer(TemplateHead(kind="rating", choices=("1", "2", "3")), completion)
    assert rated.rating == pytest.approx(2.0)
    assert rated.p_first is None
    compared = read_answer(TemplateHead(choices=("1", "2")), completion)
    assert compared.p_first == pytest.approx(0.25)
    assert compared.rating is None


def test_probabilities_of_the_ratings() -> None:
    found = rating_probabilities({"7": math.log(0.6), "8": math.log(0.2)})
    assert found == {7: pytest.approx(0.75), 8: pytest.approx(0.25)}
    assert rating_probabilities({"7": -1000.0, "8": -INF}) == {7: 1.0, 8: 0.0}
    assert rating_probabilities({"10": 0.0}) == {10: 1.0}


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({8: 1.0}, {7: 1.0}, 1.0),
        ({7: 1.0}, {8: 1.0}, 0.0),
        ({7: 1.0}, {7: 1.0}, 0.5),
        # Higher in half of the cases, equal in the other half.
        ({7: 0.5, 8: 0.5}, {7: 1.0}, 0.75),
        # 9 against 2 or 10: 0.3 + 0; 5 against them: 0.3 + 0. Together (0.6 + 0.4) x 0.3.
        ({9: 0.6, 5: 0.4}, {2: 0.3, 10: 0.7}, 0.3),
        # Higher: 0.2 x 0.5 (2 > 1) + 0.3 x (0.5 + 0.4) (3 > 1, 2) = 0.37.
        # Equal: 0.5 x 0.5 + 0.2 x 0.4 + 0.3 x 0.1 = 0.36, of which half.
        ({1: 0.5, 2: 0.2, 3: 0.3}, {1: 0.5, 2: 0.4, 3: 0.1}, 0.55),
    ],
)
def test_which_rating_is_higher(one: dict[int, float], other: dict[int, float], expected: float) -> None:
    assert p_higher(one, other) == pytest.approx(expected)
    assert p_higher(other, one) == pytest.approx(1 - expected)


def test_equal_distributions_are_an_exact_tie() -> None:
    generator = random.Random(1)
    for _ in range(200):
        shares = rating_probabilities({choice: -10 * generator.random() for choice in TO_TEN})
        assert p_higher(shares, shares) == 0.5
