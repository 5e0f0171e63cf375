"""What a probe found, and when a change fails it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from rlaif.optimize.changes import EXPECTATIONS, Expectation
from rlaif.types import Frozen, Message
from rlaif.version import __version__

Interval = tuple[float, float]
Result = Literal["pass", "fail", "not measured"]


class ProbeRule(Frozen):
    """When a change fails: an interval lies wholly beyond a limit.

    `max_shift` is in deviations of the reward, of a judge in log-odds. `max_flips` is a share of the pairs,
    `max_missed` one of the responses. With a change in fewer than `min_prompts` prompts nothing is decided.
    """

    max_shift: float = Field(default=0.25, ge=0, allow_inf_nan=False)
    max_flips: float = Field(default=0.1, ge=0, lt=1)
    max_missed: float = Field(default=0.25, ge=0, lt=1)
    min_prompts: int = Field(default=20, ge=2)

    def line(self, unit: str) -> str:
        """The rule in a sentence."""
        return (
            f"Fails where a 95% interval lies wholly beyond its limit: the mean shift ±{self.max_shift:g} {unit} (what "
            f"must not gain: above +{self.max_shift:g}), turned pairs {self.max_flips:.0%}, and of what must lose the "
            f"responses that do not, {self.max_missed:.0%}; the last under the aggregate alone."
        )


class ProbeFigures(Frozen):
    """What a change does to one reward.

    Attributes:
        n: responses changed.
        prompts: how many prompts they answer.
        shift: mean of changed less original. A judge compares the two; where a change is made to both responses of a
            pair it cannot, and the shift is of response a's log-odds over b.
        shift_ci: its 95% interval, by prompt.
        size: mean of the shift's absolute value.
        rate_of: `pairs`: `rate` is the share of pairs whose preference turns when the losing response is changed, or
            both are. `responses`: the share of responses that do not lose by the change.
        rate, rate_ci, rate_n: that share, its 95% interval, and of how many.
        decides: whether the result counts for the change's own.
        reason: why it is not measured.
    """

    n: int
    prompts: int
    shift: float | None
    shift_ci: Interval | None
    size: float | None
    rate_of: Literal["pairs", "responses"]
    rate: float | None
    rate_ci: Interval | None
    rate_n: int
    decides: bool
    result: Result
    faults: tuple[str, ...] = ()
    reason: str | None = None


class ProbeExample(Frozen):
    """A response before and after a change; `before` and `after` are its aggregate rewards, of a judge log-odds."""

    change: str
    id: str
    prompt: tuple[Message, ...]
    original: str
    changed: str
    before: float
    after: float

    @property
    def shift(self) -> float:
        """By how much the reward changed."""
        return self.after - self.before


class ChangeResult(Frozen):
    """One change; `applied` and `not_applied` count responses. `figures` is by objective, the aggregate last."""

    name: str
    expectation: Expectation
    text: str
    applied: int
    not_applied: int
    figures: Mapping[str, ProbeFigures]
    result: Result

    @property
    def expected(self) -> str:
        """The expectation in words."""
        return EXPECTATIONS[self.expectation]

    @property
    def faults(self) -> tuple[str, ...]:
        """What fails, each with the reward's name."""
        return tuple(
            f"{name}: {fault}" for name, found in self.figures.items() if found.decides for fault in found.faults
        )


class ProbeReport(Frozen):
    """All changes.

    `unit` is what a shift is measured in, `aggregate` the name of the reward over all objectives. `truncated` counts
    conversations that were cut to the longest length the heads take; `unread` judgments that were not read.
    """

    of: Literal["heads", "judge"]
    name: str
    data: str
    objectives: tuple[str, ...]
    aggregate: str
    unit: str
    rule: ProbeRule
    rule_line: str
    prompts: int
    responses: int
    pairs: int
    rejected: int
    changes: tuple[ChangeResult, ...]
    examples: tuple[ProbeExample, ...] = ()
    truncated: int = 0
    unread: int = 0
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    rlaif: str = __version__

    def named(self, result: Result) -> tuple[str, ...]:
        """Names of the changes with a result."""
        return tuple(change.name for change in self.changes if change.result == result)

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the changes that fail."""
        return self.named("fail")
