"""Read `labels.jsonl` back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from rlaif.errors import InputError
from rlaif.types import Label, ObjectiveLabel


class LabelNumbers(BaseModel):
    """What a label says, without its texts: read in half the time."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    labels: Mapping[str, ObjectiveLabel]


_Line = TypeVar("_Line", Label, LabelNumbers)


def labels_file(run: Path) -> Path:
    """The file of labels that a run's folder holds, or the file itself where one is given.

    Raises:
        InputError: there is none.
    """
    if not run.is_dir():
        if run.exists():
            return run
        raise InputError(f"{run}: no such file or folder; give a run's folder or a labels.jsonl.")
    path = run / "labels.jsonl"
    if path.is_file():
        return path
    if (run / "manifest.json").exists():
        raise InputError(f"{run}: the run has no labels.jsonl yet; finish it with its rlaif label command.")
    raise InputError(f"{run}: holds no labels.jsonl; give the folder that rlaif label --out wrote.")


def read_labels(path: Path) -> Iterator[tuple[int, Label]]:
    """Read labels with their line numbers, one at a time.

    Raises:
        InputError: the file cannot be read, holds none, a line is no label, or an id stands twice.
    """
    return _read(path, Label)


def read_label_numbers(path: Path) -> Iterator[tuple[int, LabelNumbers]]:
    """Read what labels say, without their texts; see `read_labels`."""
    return _read(path, LabelNumbers)


def _read(path: Path, shape: type[_Line]) -> Iterator[tuple[int, _Line]]:
    first: dict[str, int] = {}
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    label = shape.model_validate_json(line)
                except ValidationError as errors:
                    raise InputError(f"{path}:{number}: {label_fault(errors)}") from None
                if label.id in first:
                    where = f"also on line {first[label.id]}; each pair has one line"
                    raise InputError(f"{path}:{number}: id {label.id[:80]!r} is {where}, remove one.")
                first[label.id] = number
                yield number, label
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from None
    if not first:
        raise InputError(f"{path}: holds no labels; give a labels.jsonl that rlaif label wrote.")


def label_fault(errors: ValidationError) -> str:
    """Say what is wrong with a line of labels, and what to do."""
    first = errors.errors()[0]
    if first["type"] == "json_invalid":
        return "not JSON; expected one label a line, as rlaif label writes it. Write the run again, or fix the line."
    where = ".".join(map(str, first["loc"])) or "the line"
    fact = f"{where}: {first['msg'][:1].lower()}{first['msg'][1:]}"
    return f"not a label of rlaif label ({fact}); give the labels.jsonl of a run, or fix the line."
