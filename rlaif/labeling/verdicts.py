"""Read a verdict from a completion. Pure: no model, no file, no clock."""

from __future__ import annotations

import math

from rlaif.types import Completion, Reading, Status


def read_choice(choices: tuple[str, ...], completion: Completion) -> Reading:
    """Read the probability that the response shown first is better.

    With P(first) and P(second) of the two choices, `p_first = P(first) / (P(first) + P(second))`. A choice that the
    engine did not list has probability 0 there; when none was listed there is no verdict. A failure is never a number.
    """
    if completion.error is not None or completion.finish_reason == "error":
        return Reading(status="error", reason=completion.error or "the engine failed")
    if completion.finish_reason == "refused":
        return Reading(status="refused", reason="the server withheld the answer")
    status: Status = "truncated" if completion.finish_reason == "length" else "ok"
    first, second = (completion.choice_logprobs.get(choice, -math.inf) for choice in choices[:2])
    if math.isnan(first) or math.isnan(second):
        return Reading(status="error", reason="the judge's log-probabilities are not numbers; try another dtype")
    if first > -math.inf or second > -math.inf:
        mass = min(math.exp(first) + math.exp(second), 1.0)
        return Reading(status=status, p_first=_sigmoid(first - second), choice_mass=mass)
    if completion.hard_choice in choices[:2]:
        return Reading(status=status, p_first=float(completion.hard_choice == choices[0]), hard=True)
    return Reading(status="unread", reason=f"the judge gave neither {choices[0]} nor {choices[1]}")


def _sigmoid(x: float) -> float:
    # Two forms, so that no exponent overflows.
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))
