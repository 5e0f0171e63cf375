"""Read a verdict or a rating from a completion. Pure: no model, no file, no clock."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rlaif.types import Completion, Reading, Status

if TYPE_CHECKING:
    from rlaif.prompts import TemplateHead


def read_answer(head: TemplateHead, completion: Completion) -> Reading:
    """Read a completion as its template means it: a comparison or a rating."""
    return (read_rating if head.kind == "rating" else read_choice)(head.choices, completion)


def read_choice(choices: tuple[str, ...], completion: Completion) -> Reading:
    """Read the probability that the response shown first is better.

    With P(first) and P(second) of the two choices, `p_first = P(first) / (P(first) + P(second))`. A choice that the
    engine did not list has probability 0 there; when none was listed there is no verdict. A failure is never a number.
    """
    logprobs, failed = _listed(choices[:2], completion)
    if failed is not None:
        return failed
    first, second = (logprobs.get(choice, -math.inf) for choice in choices[:2])
    status = _status(completion)
    if first > -math.inf or second > -math.inf:
        mass = min(math.exp(first) + math.exp(second), 1.0)
        return Reading(status=status, p_first=_sigmoid(first - second), choice_mass=mass)
    if completion.hard_choice in choices[:2]:
        return Reading(status=status, p_first=float(completion.hard_choice == choices[0]), hard=True)
    return Reading(status="unread", reason=f"the judge gave neither {choices[0]} nor {choices[1]}")


def read_rating(choices: tuple[str, ...], completion: Completion) -> Reading:
    """Read the mean of a distribution over ratings: 0.6 for a 7 and 0.2 for an 8, and nothing else, give 7.25.

    The choices share out all of the probability in proportion to what they have; `choice_mass` is how much they have.
    """
    logprobs, failed = _listed(choices, completion)
    if failed is not None:
        return failed
    status = _status(completion)
    if any(value > -math.inf for value in logprobs.values()):
        mass = min(sum(map(math.exp, logprobs.values())), 1.0)
        mean = math.fsum(rating * p for rating, p in rating_probabilities(logprobs).items())
        return Reading(status=status, rating=mean, choice_mass=mass)
    if completion.hard_choice in choices:
        return Reading(status=status, rating=float(completion.hard_choice), hard=True)
    return Reading(status="unread", reason=f"the judge gave no rating from {choices[0]} to {choices[-1]}")


def rating_probabilities(logprobs: Mapping[str, float]) -> dict[int, float]:
    """Probability of each rating, together 1; at least one log-probability is finite."""
    top = max(logprobs.values())
    shares = {int(choice): math.exp(value - top) for choice, value in logprobs.items()}
    total = math.fsum(shares.values())
    return {rating: share / total for rating, share in shares.items()}


def p_higher(one: Mapping[int, float], other: Mapping[int, float]) -> float:
    """Probability that a rating drawn from `one` is higher than one drawn from `other`, a tie counting half.

    For 7 or 8 evenly against 7 for certain: P(higher) 0.5 and P(equal) 0.5 give 0.75. Each pair of ratings is taken
    once, so that equal distributions give exactly 0.5.
    """
    ratings = sorted(one.keys() | other.keys())
    # P(higher) - P(lower): what is equal cancels.
    lead = math.fsum(
        one.get(high, 0.0) * other.get(low, 0.0) - one.get(low, 0.0) * other.get(high, 0.0)
        for place, high in enumerate(ratings)
        for low in ratings[:place]
    )
    return min(max(0.5 + lead / 2, 0.0), 1.0)


def _listed(choices: tuple[str, ...], completion: Completion) -> tuple[dict[str, float], Reading | None]:
    """Log-probabilities of the choices that have one, and the reading of an answer that failed."""
    if completion.error is not None or completion.finish_reason == "error":
        return {}, Reading(status="error", reason=completion.error or "the engine failed")
    if completion.finish_reason == "refused":
        return {}, Reading(status="refused", reason="the server withheld the answer")
    listed = {choice: completion.choice_logprobs[choice] for choice in choices if choice in completion.choice_logprobs}
    if any(map(math.isnan, listed.values())):
        reason = "the judge's log-probabilities are not numbers; try another dtype"
        return {}, Reading(status="error", reason=reason)
    return listed, None


def _status(completion: Completion) -> Status:
    return "truncated" if completion.finish_reason == "length" else "ok"


def _sigmoid(x: float) -> float:
    # Two forms, so that no exponent overflows.
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))
