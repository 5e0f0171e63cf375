"""The file of temperatures that put a judge's `p_a` right, by objective: what it holds, and what of it a run takes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import Field, ValidationError

from rlaif.errors import InputError
from rlaif.types import Frozen, Provenance
from rlaif.version import __version__

_OVERALL = "overall"
_REMADE = "it is made of the objectives as they now are; its own temperature was fitted on what it was before"


class ObjectiveTemperature(Frozen):
    """One objective's temperature: it divides the log-odds of `p_a`. `n` pairs were fitted; ECE before and after."""

    temperature: float = Field(gt=0, allow_inf_nan=False)
    n: int
    ece: float | None = None
    ece_after: float | None = None


class CalibrationFile(Frozen):
    """What was fitted, on which labels.

    `judge`, `template` and `constitution` are as the labels' provenance says, `name@digest`; of recorded labels only
    the judge's name is known. `calibrated` names the calibration that those labels had already; without one it is left
    out of what is written. `not_defined` says why an objective has no temperature.
    """

    judge: str
    template: str | None = None
    constitution: str | None = None
    calibrated: str | None = Field(default=None, exclude_if=lambda value: value is None)
    labels: str
    human: str
    objectives: Mapping[str, ObjectiveTemperature]
    not_defined: Mapping[str, str] = Field(default_factory=dict)
    rlaif: str = __version__


class AppliedCalibration(Frozen):
    """What of a calibration file a run takes: `temperatures` by objective; `uncalibrated` says why others have none."""

    name: str
    temperatures: Mapping[str, float]
    uncalibrated: Mapping[str, str] = Field(default_factory=dict)

    @property
    def reference(self) -> str:
        """The file's name and the first digits of a digest of the temperatures, as a label's provenance holds them."""
        canonical = json.dumps(dict(self.temperatures), sort_keys=True, ensure_ascii=False)
        return f"{self.name}@{hashlib.sha256(canonical.encode()).hexdigest()[:12]}"


def read_calibration(path: Path) -> CalibrationFile:
    """Read a file that `rlaif compare --calibrate` wrote.

    Raises:
        InputError: it cannot be read, or is no such file.
    """
    try:
        return CalibrationFile.model_validate_json(path.read_bytes())
    except OSError as error:
        fix = "give a file that rlaif compare --calibrate wrote"
        raise InputError(f"--calibration {path}: cannot be read ({error.strerror}); {fix}.") from None
    except ValidationError as errors:
        first = errors.errors()[0]
        where = ".".join(map(str, first["loc"]))
        said = "not JSON" if first["type"] == "json_invalid" else f"{first['msg'][:1].lower()}{first['msg'][1:]}"
        fault = f"{where}: {said}" if where else said
        fix = "give a file that rlaif compare --calibrate wrote"
        raise InputError(f"--calibration {path}: not a calibration ({_told(fault)}); {fix}.") from None


def calibration_for(
    file: CalibrationFile, path: Path, made_with: Provenance, objectives: Sequence[str]
) -> AppliedCalibration:
    """Choose the temperatures of a run's objectives.

    A temperature holds for the judge, template and constitution that it was fitted on, compared by their digests. An
    objective without one keeps its `p_a`. One of the overall label is not taken: that is made of the objectives.

    Raises:
        InputError: it was fitted on other labels than `made_with` says, or has no temperature of any objective.
    """
    _refuse_other(file, path, made_with)
    found = {name: file.objectives[name].temperature for name in objectives if name in file.objectives}
    if not found:
        there = _told(", ".join(file.objectives)) if file.objectives else "nothing"
        raise InputError(
            f"--calibration {path}: holds temperatures of {there}, and the run labels {', '.join(objectives)}; compare "
            "with human labels of those objectives."
        )
    missing = {name: file.not_defined.get(name, "not in the file") for name in objectives if name not in found}
    if _OVERALL in file.objectives and _OVERALL not in found:
        missing[_OVERALL] = _REMADE
    return AppliedCalibration(name=path.stem, temperatures=found, uncalibrated=missing)


def _refuse_other(file: CalibrationFile, path: Path, made_with: Provenance) -> None:
    refit = "fit one on this run's labels (rlaif compare RUN HUMAN --calibrate FILE), or leave the option out"
    if file.calibrated is not None:
        raise InputError(
            f"--calibration {path}: fitted on labels that {_told(file.calibrated)} had calibrated already, so not on "
            "what the judge says; label without --calibration (with --update, which asks nothing) and fit on that."
        )
    if file.template is None or file.constitution is None:
        raise InputError(
            f"--calibration {path}: fitted on recorded labels of {_told(file.judge)}, which do not say what template "
            f"and constitution made them; {refit}."
        )
    fitted = {"judge": file.judge, "template": file.template, "constitution": file.constitution}
    differ = [
        f"{what} {_told(was)} (the run's is {now})"
        for what, was in fitted.items()
        if _digest(was) != _digest(now := getattr(made_with, what))
    ]
    if differ:
        raise InputError(f"--calibration {path}: fitted on labels of {', '.join(differ)}; {refit}.")


def _told(text: str) -> str:
    """A text of the file in a line of an error."""
    return (text if text.isprintable() else json.dumps(text))[:200]


def _digest(reference: str) -> str:
    return reference.rpartition("@")[2]
