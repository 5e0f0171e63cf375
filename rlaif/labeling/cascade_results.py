"""What a cascade did: where pairs were decided, what it took, and how far its labels agree with the reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from rlaif.labeling.cascade_threshold import CONFIDENCE, interval
from rlaif.types import Frozen

# Why a verdict was not accepted: under the threshold, the orders prefer different responses, or nothing was read.
Escalated = Literal["unsure", "inconsistent", "unread"]


class Agreement(Frozen):
    """Agreement with the reference on the pairs of the sample that the reference decides.

    `ci` holds for whichever thresholds were chosen on the same sample; see `cascade_threshold.interval`.
    """

    n: int
    agreed: int
    share: float | None
    ci: tuple[float, float]


def agreement(agreed: int, n: int, choices: int) -> Agreement:
    """An agreement that one of `choices` rules had, chosen by the same pairs."""
    return Agreement(n=n, agreed=agreed, share=agreed / n if n else None, ci=interval(agreed, n, choices))


class StageObjective(Frozen):
    """One stage under one objective.

    `asked` pairs, of which `accepted` were decided here; the rest went on, being `unsure`, `inconsistent` or `unread`.
    The last stage decides all that come to it. Without a `threshold` nothing is accepted, so that only the sample was
    asked, and `why` says what it lacked. `agreement` is of the sample's verdicts that the threshold accepts. Tokens are
    those of `asked`, prompt and completion.
    """

    threshold: float | None = None
    why: str | None = None
    asked: int = 0
    accepted: int = 0
    unsure: int = 0
    inconsistent: int = 0
    unread: int = 0
    agreement: Agreement | None = None
    tokens: int = 0


class CascadeStage(Frozen):
    """One stage: `name` as the labels have it, and each objective's part."""

    name: str
    judge: str
    objectives: Mapping[str, StageObjective]


class Tokens(Frozen):
    """Tokens read and written, which servers price differently."""

    prompt: int
    completion: int

    @property
    def total(self) -> int:
        """Both together."""
        return self.prompt + self.completion


class CascadeTokens(Frozen):
    """Tokens of all answers that the labels rest on.

    `sample` of those `spent` were asked for the thresholds alone. `last_stage` is what asking the last stage of every
    pair would take, estimated from its tokens a pair, on the sample where there is one; `None` where it was not asked.
    `saved`, of all tokens, may be negative: a small data set does not earn the sample back.
    """

    spent: Tokens
    sample: Tokens
    last_stage: Tokens | None
    saved: int | None


class CascadeReport(Frozen):
    """What a cascade did.

    `reference` is the last stage's name, or the file of people's labels. `agreement` is, by objective, of the
    cascade's labels with the reference on the whole sample, those that came to the last stage included;
    `last_stage_agreement` that of the last stage alone, where the reference is people. With a fixed threshold nothing
    was measured, and `wanted` is `None`.
    """

    stages: tuple[CascadeStage, ...]
    tokens: CascadeTokens
    reference: str | None = None
    wanted: float | None = None
    confidence: float = CONFIDENCE
    sample: int = 0
    agreement: Mapping[str, Agreement] = Field(default_factory=dict)
    last_stage_agreement: Mapping[str, Agreement] = Field(default_factory=dict)
