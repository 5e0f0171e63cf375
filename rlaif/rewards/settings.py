"""What `rlaif train-heads` is told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from rlaif.rewards.source_labels import Confidence
from rlaif.rewards.spec import Method, Mode, Precision
from rlaif.types import Frozen

# What moves nothing in the result, or of which the content counts and not the name.
_NOT_DECIDING = frozenset(
    {"out", "cache", "columns", "labels", "held_out", "learn_weights", "constitution", "backbone", "init_from"}
)


class HeadsSettings(Frozen):
    """All options of a training.

    Attributes:
        labels: sources, `PATH[+LABELS][:OBJECTIVES][@WEIGHT]`.
        out: the checkpoint's folder.
        backbone: `starter`, a hub id, a folder, or heads.
        mode: `frozen` solves the heads on features as they are; `lora` and `full` train the backbone too.
        aggregate: how rewards become one; `None` follows the constitution. `pareto` also trains the backbone so that no
            objective gains at another's cost.
        constitution: whose weights, floors and tags the aggregation takes; `None` weighs all objectives the same.
        objectives: names and order; empty for all that were labelled.
        ensemble: members; 1 for none.
        epochs, lr, batch_tokens: of `lora` and `full`; `None` is the mode's own.
        accumulate: batches of a step and process; so many processes with one batch each train to the same weights.
        precision: that `lora` and `full` compute in; weights stay in float32. `None`: bfloat16 on a GPU, else float32.
        max_length: tokens of the longest conversation; `None` follows the backbone, 2,048 at most.
        held_out: a fraction of the conversations, or a source.
        init_from: heads to go on from, in place of `backbone`.
        length_control: length enters training as a covariate and leaves at scoring.
        learn_weights: a source of overall preferences that the weights are learned from.
        gate: the weights learned depend on the prompt.
        confidence: `order-gap`: a label counts the less the more a judge's two orders part.
        cache: where features are kept; `None` for the user's cache folder.
    """

    labels: tuple[str, ...] = Field(min_length=1)
    out: Path
    backbone: str = "starter"
    mode: Mode = "frozen"
    aggregate: Method | None = None
    constitution: str | None = None
    objectives: tuple[str, ...] = ()
    ensemble: int = Field(default=5, ge=1, le=1000)
    epochs: float | None = Field(default=None, gt=0)
    lr: float | None = Field(default=None, gt=0)
    batch_tokens: int | None = Field(default=None, ge=1)
    accumulate: int = Field(default=1, ge=1)
    precision: Precision | None = None
    max_length: int | None = Field(default=None, ge=8)
    held_out: str = "0.1"
    init_from: Path | None = None
    length_control: bool = False
    learn_weights: str | None = None
    gate: bool = False
    confidence: Confidence = "none"
    seed: int = Field(default=0, ge=0)
    device: Literal["cpu", "cuda"] | None = None
    cache: Path | None = None
    columns: Mapping[str, str] = Field(default_factory=dict)

    def deciding(self) -> dict[str, Any]:
        """The options that decide the heads beside what they name: a training is continued only under the same."""
        # As many batches a step as there were before one could choose: such heads are still these.
        more = {"accumulate"} if self.accumulate == 1 else set()
        return self.model_dump(mode="json", exclude={*_NOT_DECIDING, *more})
