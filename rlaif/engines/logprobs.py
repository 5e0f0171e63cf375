"""Arithmetic on listed log-probabilities."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

# As many tokens as vLLM gives the log-probabilities of when they are named.
MOST_TOKEN_IDS = 128
_LEAST = 1e-6
# A choice with a smaller share of the choices' probability is not worth reading on from.
_WORTH_READING = 1e-4


def log_sum_exp(logprobs: Sequence[float]) -> float:
    """Log of the summed probabilities, natural logarithms."""
    top = max(logprobs)
    if top == -math.inf:
        return top
    return top + math.log(sum(math.exp(value - top) for value in logprobs))


def with_bounds(found: Mapping[str, float], choices: Sequence[str], listed: Sequence[float]) -> dict[str, float]:
    """Give the choices that a top-k list leaves out their upper bound.

    That is the least probability on the list, or, if that is less, an even share of what the list leaves over. Only
    where another choice is listed: then the verdict is known to lean at least so far, and stays short of 0 or 1. With
    none listed nothing was read.
    """
    if not found or not listed:
        return dict(found)
    bound = bound_of(listed, sum(choice not in found for choice in choices))
    return {choice: found.get(choice, bound) for choice in choices}


def bound_of(listed: Sequence[float], missing: int) -> float:
    """Upper bound of each of so many tokens that a list leaves out; the list is not empty."""
    # Rounding may bring the sum to 1 or above.
    left_over = max(1.0 - sum(map(math.exp, listed)), _LEAST)
    return min(min(listed), math.log(left_over / max(missing, 1)))


def longer_choices(choices: Sequence[str]) -> dict[str, list[str]]:
    """Choices that longer ones begin with, and those: of 1 to 10, `1` begins `10`."""
    found = {first: [one for one in choices if one != first and one.startswith(first)] for first in choices}
    return {first: longer for first, longer in found.items() if longer}


def worth_reading_on(found: Mapping[str, float], first: str) -> bool:
    """Tell whether a choice has probability worth sharing with longer ones: over 1 in 10,000 of what the choices have.

    Depends on the one reading alone, and so not on the batch or the engine.
    """
    own = found.get(first, -math.inf)
    return own > -math.inf and own > log_sum_exp(list(found.values())) + math.log(_WORTH_READING)


def share_out(found: Mapping[str, float], first: str, rests: Mapping[str, float]) -> dict[str, float]:
    """Share what was read for a choice with the longer ones that a vocabulary writes as it and one more token.

    P(10) = P(1)·P(0|1), and P(1) becomes P(1)·(1 - P(0|1)). A longer choice that is also a token of its own has both.

    Args:
        found: log-probability of each choice to come next.
        rests: log-probability of what is left of each longer choice to come after `first`.
    """
    begun = found[first]
    # Rounding may bring the sum above 1.
    taken = min(sum(map(math.exp, rests.values())), 1.0)
    shared = {**found, first: begun + math.log1p(-taken) if taken < 1 else -math.inf}
    for choice, rest in rests.items():
        shared[choice] = log_sum_exp([found.get(choice, -math.inf), begun + rest])
    return shared
