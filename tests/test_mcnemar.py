"""McNemar's test against numbers worked out by hand, and against whole-number arithmetic."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest

from rlaif.stats import mcnemar


@pytest.mark.parametrize(
    ("counts", "exact", "mid"),
    [
        # Of 64 ways for six coins, 1 + 6 have one head or none: twice that for both sides.
        ((1, 5), 14 / 64, 14 / 64 - 6 / 64),
        ((5, 1), 14 / 64, 14 / 64 - 6 / 64),
        ((0, 10), 2 / 1024, 1 / 1024),
        ((0, 1), 1.0, 0.5),
        # As balanced as can be: everything is as extreme, and of what is equal (20 of 64) half counts.
        ((3, 3), 1.0, 1 - 20 / 64 / 2),
    ],
)
def test_both_p_values_are_those_of_the_binomial(counts: tuple[int, int], exact: float, mid: float) -> None:
    test = mcnemar(*counts)
    assert (test.only_first, test.only_second) == counts
    assert test.p_exact == pytest.approx(exact, rel=1e-12)
    assert test.p_mid == pytest.approx(mid, rel=1e-12)


def test_many_cases_are_summed_without_loss() -> None:
    ways = sum(math.comb(900, heads) for heads in range(401))
    exact = float(Fraction(2 * ways, 2**900))
    mid = float(Fraction(2 * ways - math.comb(900, 400), 2**900))
    test = mcnemar(400, 500)
    assert test.p_exact == pytest.approx(exact, rel=1e-9)
    assert test.p_mid == pytest.approx(mid, rel=1e-9)
    # Too small for a number, and as large as a run gets.
    assert mcnemar(0, 5000).p_exact == 0.0
    million = mcnemar(499_000, 501_000).p_exact
    assert million is not None
    # The normal approximation, with the continuity correction: z = 1999 / 1000.
    assert million == pytest.approx(math.erfc(1.999 / math.sqrt(2)), abs=1e-6)


def test_nothing_that_differs_is_nothing_to_test() -> None:
    test = mcnemar(0, 0)
    assert (test.p_exact, test.p_mid) == (None, None)
    with pytest.raises(ValueError, match="-1 and 2 cases"):
        mcnemar(-1, 2)
