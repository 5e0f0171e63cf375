"""Which server is asked next, and when one is left out: numbers by hand."""

from __future__ import annotations

import random

import pytest

from rlaif.engines.balance import Balancer, Circuit


def test_the_fewest_outstanding_go_first_and_ties_in_turn() -> None:
    balancer = Balancer(3)
    assert [balancer.take(n, [0, 1, 2]) for n in range(5)] == [0, 1, 2, 0, 1]
    assert balancer.outstanding == [2, 2, 1]
    assert balancer.take("next", [0, 1, 2]) == 2
    balancer.give_back(1)
    assert balancer.take("freed", [0, 1, 2]) == 1
    # A server that may not be asked has no part in it.
    assert [balancer.take(("left", n), [0, 2]) for n in range(4)] == [2, 0, 2, 0]


def test_a_group_stays_together_up_to_a_quarter_above_the_mean() -> None:
    balancer = Balancer(2)
    for n in range(8):
        balancer.take(n, [0, 1])
    assert balancer.outstanding == [4, 4]
    # With this one there are 9, a mean of 4.5: at most 5.6 at one server.
    assert balancer.take(6, [0, 1]) == 0
    # 10 and a mean of 5: a sixth is within 6.25.
    assert balancer.take(6, [0, 1]) == 0
    # 11 and 5.5: a seventh is not within 6.9. The group moves on, and goes on there.
    assert balancer.take(6, [0, 1]) == 1
    assert balancer.take(6, [0, 1]) == 1
    assert balancer.outstanding == [6, 6]


def test_few_questions_are_spread_whatever_their_group() -> None:
    balancer = Balancer(2)
    assert [balancer.take("one", [0, 1]) for _ in range(4)] == [0, 1, 0, 1]


def test_a_group_leaves_a_server_that_is_out() -> None:
    balancer = Balancer(2)
    for n in range(20):
        balancer.take(n, [0, 1])
    assert balancer.take(0, [0, 1]) == 0
    assert balancer.take(0, [1]) == 1
    assert balancer.take(0, [0, 1]) == 1


def circuit() -> Circuit:
    return Circuit(random.Random(0))


def test_five_faults_in_a_row_open_a_circuit() -> None:
    one = circuit()
    assert [one.failed(0.0, 1) for _ in range(4)] == [False] * 4
    assert not one.good(0.0)
    assert [one.failed(0.0, 1) for _ in range(5)] == [False] * 4 + [True]
    assert (one.state, one.usable(0.0, 0)) == ("open", False)
    # What was in flight ends now: that is no news.
    assert not one.failed(0.0, 5)
    assert not one.good(0.0)
    assert one.state == "open"


def test_two_timeouts_open_it() -> None:
    one = circuit()
    assert [one.failed(0.0, 4), one.failed(0.0, 4)] == [False, True]


def test_one_question_at_a_time_on_trial() -> None:
    one = circuit()
    one.open(0.0)
    one.half_open()
    assert one.usable(9.0, 0)
    assert not one.usable(9.0, 1)
    assert one.good(9.0)
    assert one.usable(9.0, 100)
    one.open(10.0)
    one.half_open()
    assert one.failed(11.0, 1)
    assert one.state == "open"


def test_pauses_double_up_to_half_a_minute_with_jitter() -> None:
    one = circuit()
    pauses = []
    for longest in (1, 2, 4, 8, 16, 30, 30):
        one.open(100.0)
        pauses.append((one.until - 100.0) / longest)
    assert all(0.5 <= pause <= 1 for pause in pauses)
    assert len(set(pauses)) == 7


def test_a_steady_server_starts_over_with_short_pauses() -> None:
    one = circuit()
    for _ in range(4):
        one.open(0.0)
    one.half_open()
    assert one.good(100.0)
    one.good(159.0)
    one.open(159.0)
    assert one.until - 159.0 >= 8
    one.half_open()
    one.good(200.0)
    one.good(261.0)
    one.open(261.0)
    assert one.until - 261.0 <= 1


@pytest.mark.parametrize(("asked", "until"), [(30.0, 130.0), (0.0, 100.0)])
def test_a_server_rests_as_long_as_it_asks_for(asked: float, until: float) -> None:
    one = circuit()
    one.rest(100.0, asked)
    assert one.rests_until == until
    assert not one.usable(until - 0.01, 0) or asked == 0
    assert one.usable(until, 7)
    # A shorter wish that was on its way takes nothing back.
    one.rest(100.0, 0.0)
    assert one.rests_until == until


def test_a_server_that_names_no_time_rests_longer_each_time() -> None:
    one = circuit()
    rests: list[float] = []
    for longest in (0.2, 0.4, 0.8, 1.0, 1.0):
        one.rest(100.0 * len(rests), None)
        rests.append((one.rests_until - 100.0 * len(rests)) / longest)
    assert all(0.5 <= rest <= 1 for rest in rests)
