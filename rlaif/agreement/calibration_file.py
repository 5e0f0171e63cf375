"""Write the file of `rlaif compare --calibrate`: the temperature that puts a judge's `p_a` right, by objective."""

from __future__ import annotations

from pathlib import Path

from rlaif.agreement.results import JudgeComparison
from rlaif.errors import InputError
from rlaif.files import replacing
from rlaif.labeling.calibration import CalibrationFile, ObjectiveTemperature


def write_calibration(found: JudgeComparison, human: str, path: Path) -> CalibrationFile:
    """Write the temperatures of a comparison's first judge, whole or not at all.

    Raises:
        InputError: no objective has a temperature.
        RunError: the file cannot be written.
    """
    fits = {name: objective.calibration for name, objective in found.objectives.items()}
    missing = {name: fit.reason or "not defined" for name, fit in fits.items() if fit.temperature is None}
    made_with = found.provenance or {}
    fitted = {
        name: ObjectiveTemperature(temperature=fit.temperature, n=fit.n, ece=fit.ece, ece_after=fit.ece_after)
        for name, fit in fits.items()
        if fit.temperature is not None
    }
    if not fitted:
        why = "; ".join(f"{name}: {reason}" for name, reason in missing.items())
        raise InputError(f"--calibrate {path}: no temperature for {found.judge} ({why}); leave the option out.")
    file = CalibrationFile(
        judge=made_with.get("judge", found.judge),
        template=made_with.get("template"),
        constitution=made_with.get("constitution"),
        calibrated=made_with.get("calibration"),
        labels=found.labels,
        human=human,
        objectives=fitted,
        not_defined=missing,
    )
    with replacing(path) as out:
        out.write(file.model_dump_json(indent=2) + "\n")
    return file
