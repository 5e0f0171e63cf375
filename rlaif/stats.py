"""Statistics that several reports share. Pure: numbers in, numbers out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

# A judge that is certain and wrong would cost infinitely much: probabilities nearer to 0 or 1 are taken here.
CLIP = 1e-6


def tempered(p: float, temperature: float) -> float:
    """Divide the log-odds of a probability by a temperature: at 2, 0.8 with its odds of 4 becomes 2/3 with odds of 2.

    One half stays one half.
    """
    kept = min(max(p, CLIP), 1 - CLIP)
    # By tanh nothing overflows.
    return 0.5 * (1 + math.tanh((math.log(kept) - math.log1p(-kept)) / temperature / 2))


def t_quantile(dof: int, confidence: float = 0.95) -> float:
    """How many standard errors an interval reaches to either side, by Student's t."""
    # scipy.stats takes longer to import than a whole report to make.
    from scipy.special import stdtrit

    return float(stdtrit(dof, 0.5 + confidence / 2))


def wilson(successes: float, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share: honest for few trials and for shares near 0 and 1.

    Of no trials nothing is known: the interval is (0, 1).

    Source: Wilson (1927), Probable inference, the law of succession, and statistical inference.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials")
    if trials == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share, weight = successes / trials, z * z / trials
    centre = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / trials + weight / (4 * trials))
    # At the ends the formula gives 0 and 1 but for rounding.
    low = 0.0 if successes == 0 else centre - half
    return low, 1.0 if successes == trials else centre + half


@dataclass(frozen=True, slots=True)
class McNemar:
    """McNemar's test of two yes-or-no outcomes of the same cases, such as right before and right after an edit.

    `only_first` and `only_second` count the cases where just the one outcome is yes (b and c of the 2 x 2 table); the
    cases where both agree say nothing about a difference. The p-values are two-sided, and `None` where no case differs.
    """

    only_first: int
    only_second: int
    p_exact: float | None
    p_mid: float | None


def mcnemar(only_first: int, only_second: int) -> McNemar:
    """Test whether the cases that differ lean to one side, by the binomial distribution with probability 1/2.

    The exact p-value never rejects too often, and with few cases too seldom. The mid-p value counts only half of what
    is as extreme as the observation, and comes closer to its level. For 1 and 5: exact 2 (1 + 6) / 64 = 0.219, mid-p
    2 / 64 + 6 / 64 = 0.125.

    Source: Fagerland, Lydersen and Laake (2013), The McNemar test for binary matched-pairs data.
    """
    trials, successes = only_first + only_second, min(only_first, only_second)
    if successes < 0:
        raise ValueError(f"{only_first} and {only_second} cases")
    if not trials:
        return McNemar(only_first=0, only_second=0, p_exact=None, p_mid=None)
    term = tail = as_extreme = _heads(trials, successes)
    # Each term is smaller than the one before; in the end the rest is below the sum's last digit.
    while successes and term > tail * 1e-18:
        term *= successes / (trials - successes + 1)
        successes -= 1
        tail += term
    balanced = only_first == only_second
    return McNemar(
        only_first=only_first,
        only_second=only_second,
        p_exact=1.0 if balanced else min(1.0, 2 * tail),
        # Balanced, the observation is its own mirror image and stands once among the outcomes.
        p_mid=1 - as_extreme / 2 if balanced else 2 * tail - as_extreme,
    )


def _heads(throws: int, heads: int) -> float:
    """Probability of so many heads of a fair coin: exact, and by logarithms where whole numbers get long."""
    if throws <= 10_000:
        return float(math.comb(throws, heads) / 2**throws)
    ways = math.lgamma(throws + 1) - math.lgamma(heads + 1) - math.lgamma(throws - heads + 1)
    return math.exp(ways - throws * math.log(2))
