"""What a checkpoint of heads says of itself: `rlaif.json` beside the weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from rlaif.errors import InputError
from rlaif.files import replacing
from rlaif.types import Frozen

SPEC_FILE = "rlaif.json"
ENSEMBLE_FILE = "ensemble.safetensors"
FORMAT = 1
Mode = Literal["frozen", "lora", "full"]
Method = Literal["weighted", "pareto"]
Precision = Literal["float32", "bfloat16"]


class Calibration(Frozen):
    """P(a is better) = sigmoid((score of a - score of b) / temperature), of raw scores.

    Fitted on `pairs` held-out pairs; with too few of them the temperature is 1 and `reason` says why. `ece` is the
    expected calibration error after it, cross-validated, 0 to 1.
    """

    temperature: float = Field(default=1.0, gt=0)
    pairs: int = 0
    ece: float | None = None
    reason: str | None = None


class Normalization(Frozen):
    """reward = (raw score - mean) / std, both over the responses that were trained on.

    Where all their scores are the same `std` is 1, and `reason` says so.
    """

    mean: float = 0.0
    std: float = Field(default=1.0, gt=0)
    reason: str | None = None


class Aggregation(Frozen):
    """How rewards become one.

    `weights` are per objective and sum to 1; `origin` tells where they are from: `constitution`, `equal`, `given`,
    `learned` (with `intervals`, 95%) or `gated` (a small softmax on the prompt's embedding, in the ensemble file, then
    `weights` are its mean). `by_tag` has other weights for pairs with a tag. `floors` are probabilities, 0 to 1, of
    being preferred to a response of mean raw score: sigmoid((raw score - mean) / temperature) has to reach it.
    """

    method: Method = "weighted"
    weights: Mapping[str, float]
    origin: Literal["constitution", "equal", "given", "learned", "gated"] = "equal"
    intervals: Mapping[str, tuple[float, float]] = Field(default_factory=dict)
    by_tag: Mapping[str, Mapping[str, float]] = Field(default_factory=dict)
    floors: Mapping[str, float] = Field(default_factory=dict)


class HeadsSpec(Frozen):
    """All of `rlaif.json`.

    `metrics` and `provenance` are plain values for reading. `members` counts the ensemble's members. `max_length` is in
    tokens. `chat` says whether conversations go through the tokenizer's chat template or as plain text.
    """

    format: int = FORMAT
    objectives: tuple[str, ...]
    mode: Mode
    members: int = 1
    max_length: int
    chat: bool
    calibration: Mapping[str, Calibration]
    normalization: Mapping[str, Normalization]
    aggregation: Aggregation
    metrics: Mapping[str, Any] = Field(default_factory=dict)
    provenance: Mapping[str, Any] = Field(default_factory=dict)


def read_spec(folder: Path) -> HeadsSpec:
    """Read the spec of a checkpoint.

    Raises:
        InputError: the folder is no checkpoint of heads, or a newer one than this version reads.
    """
    path = folder / SPEC_FILE
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"{folder}: no reward heads, {SPEC_FILE} is not there; give the folder that rlaif train-heads wrote."
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); write it again with rlaif train-heads.") from None
    if isinstance(value, dict) and isinstance(value.get("format"), int) and value["format"] > FORMAT:
        raise InputError(f"{path}: format {value['format']} is newer than this rlaif reads ({FORMAT}); update rlaif.")
    try:
        return HeadsSpec.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: {place}: {first['msg']}; write it again with rlaif train-heads.") from None


def write_spec(folder: Path, spec: HeadsSpec) -> None:
    """Write the spec, whole or not at all."""
    with replacing(folder / SPEC_FILE) as file:
        file.write(json.dumps(spec.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n")
