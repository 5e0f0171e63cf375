"""The confidence from which a stage of a cascade is believed, and what is known of its agreement. Pure.

The guarantee is about pairs that were not asked: had the sample been drawn again and again, in 95% of the draws the
verdicts that the chosen threshold accepts agree with the reference at least as often as is wanted.

Sources: Jung, Brahman and Choi (2024), Trust or Escalate: LLM judges with provable guarantees for human agreement
(fixed-sequence testing of a judge's threshold, and the cascade); Geifman and El-Yaniv (2017), Selective classification
for deep neural networks (the binomial bound); Angelopoulos et al. (2021), Learn then test (fixed sequences of tests);
Clopper and Pearson (1934), The use of confidence or fiducial limits illustrated in the case of the binomial.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95

# Round numbers, and closer to each other where judges' probabilities crowd. They are fixed before any verdict is seen,
# as a sequence of tests wants it; the last one accepts whatever prefers a response.
THRESHOLDS = (
    0.999999, 0.99999, 0.9999, 0.9995, 0.999, 0.998, 0.995, 0.99, 0.98, 0.97, 0.95,
    0.925, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """One pair of the sample under one objective, as a stage judges it.

    `confidence` is the probability of the response that the stage prefers, 0.5 to 1, and `None` where no threshold may
    accept it: nothing was read, or the orders disagree. `agrees` tells whether it prefers what the reference does.
    """

    confidence: float | None
    agrees: bool


def choose_threshold(cases: Sequence[Case], wanted: float, confidence: float = CONFIDENCE) -> float | None:
    """The smallest threshold whose accepted verdicts agree at least as often as `wanted`; `None` where none is found.

    From the strictest threshold on, each is tested at the full level until one fails: the hypothesis that its accepted
    verdicts agree less often than wanted is rejected where Clopper and Pearson's lower bound of their agreement is
    `wanted` or more. Thresholds that accept fewer verdicts than could ever reject it are passed over. Testing in a
    fixed order needs no correction for their number (Angelopoulos et al. 2021, section 2.3): an error is a first false
    rejection, and there is one test at which it can happen. Passing over looks only at how many are accepted; the
    level then holds exactly where a more confident verdict is no more often wrong, which is what a cascade assumes.

    Args:
        cases: of a random sample, one a pair.
        wanted: agreement, 0 to 1.
    """
    chosen: float | None = None
    least = fewest(wanted, confidence)
    for threshold in THRESHOLDS:
        accepted = [case for case in cases if case.confidence is not None and case.confidence >= threshold]
        if len(accepted) < least:
            continue
        if lower_bound(sum(case.agrees for case in accepted), len(accepted), confidence) < wanted:
            break
        chosen = threshold
    return chosen


def fewest(wanted: float, confidence: float = CONFIDENCE) -> int:
    """How many verdicts that all agree show an agreement of `wanted`: 29 for 0.9, as 0.9 ** 29 = 0.047."""
    count = max(1, math.floor(math.log(1 - confidence) / math.log(wanted)))
    while lower_bound(count, count, confidence) < wanted:
        count += 1
    return count


def lower_bound(successes: int, trials: int, confidence: float = CONFIDENCE) -> float:
    """One-sided lower bound of a share, by the binomial distribution (Clopper and Pearson 1934); 0 for no successes."""
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials")
    if successes == 0:
        return 0.0
    from scipy.special import betaincinv

    return float(betaincinv(successes, trials - successes + 1, 1 - confidence))


def interval(successes: int, trials: int, choices: int = 1, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Two-sided exact interval of a share that was chosen, by its own data, out of so many shares.

    The error is shared out over the choices (Bonferroni), so that the interval holds whichever was taken; with one
    choice it is Clopper and Pearson's. Of no trials nothing is known: (0, 1).
    """
    level = 1 - (1 - confidence) / (2 * choices)
    return lower_bound(successes, trials, level), 1 - lower_bound(trials - successes, trials, level)
