"""Preference labels from a judge model and a constitution, and reward heads from the labels.

What the commands do, as functions. Names load on first use: importing rlaif imports no torch.
`rlaif.trl` holds reward functions for TRL's trainers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from rlaif.version import __version__

if TYPE_CHECKING:
    from rlaif import trl as trl
    from rlaif.agreement.compare import compare
    from rlaif.agreement.results import Comparison
    from rlaif.constitution import Constitution, load_constitution
    from rlaif.errors import InputError, RlaifError, RunError
    from rlaif.labeling.api import check_constitution, generate, label, revise
    from rlaif.labeling.cases import CasesReport
    from rlaif.labeling.generate import GenerateSummary
    from rlaif.labeling.revise import ReviseSummary
    from rlaif.labeling.summary import LabelSummary
    from rlaif.rewards.heads import Reward, RewardHeads
    from rlaif.rewards.train import TrainSummary, train_heads
    from rlaif.types import Label, Message, Pair

_HOME = {
    "compare": "rlaif.agreement.compare",
    "Comparison": "rlaif.agreement.results",
    "Constitution": "rlaif.constitution",
    "load_constitution": "rlaif.constitution",
    "InputError": "rlaif.errors",
    "RlaifError": "rlaif.errors",
    "RunError": "rlaif.errors",
    "check_constitution": "rlaif.labeling.api",
    "generate": "rlaif.labeling.api",
    "label": "rlaif.labeling.api",
    "revise": "rlaif.labeling.api",
    "CasesReport": "rlaif.labeling.cases",
    "GenerateSummary": "rlaif.labeling.generate",
    "LabelSummary": "rlaif.labeling.summary",
    "ReviseSummary": "rlaif.labeling.revise",
    "Reward": "rlaif.rewards.heads",
    "RewardHeads": "rlaif.rewards.heads",
    "TrainSummary": "rlaif.rewards.train",
    "train_heads": "rlaif.rewards.train",
    "Label": "rlaif.types",
    "Message": "rlaif.types",
    "Pair": "rlaif.types",
}

__all__ = [
    "CasesReport",
    "Comparison",
    "Constitution",
    "GenerateSummary",
    "InputError",
    "Label",
    "LabelSummary",
    "Message",
    "Pair",
    "ReviseSummary",
    "Reward",
    "RewardHeads",
    "RlaifError",
    "RunError",
    "TrainSummary",
    "__version__",
    "check_constitution",
    "compare",
    "generate",
    "label",
    "load_constitution",
    "revise",
    "train_heads",
]


def __getattr__(name: str) -> Any:
    if name == "trl":
        return importlib.import_module("rlaif.trl")
    if name not in _HOME:
        raise AttributeError(f"module 'rlaif' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
