"""What a run of `rlaif label` tells at its end."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from pydantic import Field

from rlaif.labeling.ask import Tally
from rlaif.labeling.calibration import AppliedCalibration
from rlaif.labeling.cascade_results import CascadeReport
from rlaif.labeling.manifest import Manifest, manifest_of, write_manifest
from rlaif.labeling.settings import LabelSettings
from rlaif.labeling.write import Written
from rlaif.store import Ledger
from rlaif.types import Frozen


class LabelSummary(Frozen):
    """What a run holds now, and what this session asked of it.

    `calibration` and `cascade` are left out where there is none. Of a cascade all answers are counted, also those that
    did not decide.
    """

    run: str
    pairs: int
    judgments: int
    asked: int
    reused: int
    abstained: int
    statuses: dict[str, int]
    reasons: list[tuple[str, int]]
    mean_choice_mass: float | None
    rejected: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    calibration: AppliedCalibration | None = Field(default=None, exclude_if=lambda value: value is None)
    cascade: CascadeReport | None = Field(default=None, exclude_if=lambda value: value is None)

    @property
    def counts(self) -> dict[str, Any]:
        """What a manifest keeps of the run, whatever session made it."""
        return self.model_dump(exclude={"run", "seconds", "asked", "reused", "calibration"})

    @property
    def session(self) -> dict[str, float]:
        """What a manifest keeps of this session."""
        return {"asked": self.asked, "reused": self.reused, "seconds": round(self.seconds, 3)}


def summary_of(out: Path, ledger: Ledger, tally: Tally, written: Written) -> LabelSummary:
    """Of a session that asked, from what the ledger now holds."""
    counts = ledger.counts()
    return LabelSummary(
        run=str(out),
        pairs=written.pairs,
        judgments=sum(counts.statuses.values()),
        asked=tally.asked,
        reused=tally.reused,
        abstained=sum(number for status, number in counts.statuses.items() if status not in ("ok", "truncated")),
        statuses=counts.statuses,
        reasons=ledger.reasons(),
        mean_choice_mass=counts.mean_choice_mass,
        rejected=written.rejected,
        prompt_tokens=counts.prompt_tokens,
        completion_tokens=counts.completion_tokens,
        seconds=tally.seconds,
    )


def as_it_was(settings: LabelSettings, ended: Manifest, began: float) -> LabelSummary:
    """The summary of a run that had ended before, now that nothing was asked of it."""
    asked, reused = (int(ended.last_session[name]) for name in ("asked", "reused"))
    session = {"asked": 0, "reused": asked + reused, "seconds": time.monotonic() - began}
    summary = LabelSummary.model_validate({**ended.counts, "run": str(settings.out), **session})
    again = {"options": settings.options, "last_session": summary.session}
    write_manifest(manifest_of(settings.out), ended.model_copy(update=again))
    return summary
