"""Arithmetic on listed log-probabilities."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

_LEAST = 1e-6


def log_sum_exp(logprobs: Sequence[float]) -> float:
    """Log of the summed probabilities, natural logarithms."""
    top = max(logprobs)
    if top == -math.inf:
        return top
    return top + math.log(sum(math.exp(value - top) for value in logprobs))


def with_bounds(found: Mapping[str, float], choices: Sequence[str], listed: Sequence[float]) -> dict[str, float]:
    """Give a choice that a top-k list leaves out its upper bound.

    That is the least probability on the list, or what the list leaves over if that is less. Only where another choice
    is listed: then the verdict is known to lean at least so far, and stays short of 0 or 1. With none listed nothing
    was read.
    """
    if not found or not listed:
        return dict(found)
    # Rounding may bring the sum to 1 or above.
    left_over = max(1.0 - sum(map(math.exp, listed)), _LEAST)
    bound = min(min(listed), math.log(left_over))
    return {choice: found.get(choice, bound) for choice in choices}
