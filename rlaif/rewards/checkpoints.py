"""Checkpoints of a training that a kill at any moment leaves whole or unmarked."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from rlaif.errors import InputError, RunError
from rlaif.files import replacing

WEIGHTS = "model.safetensors"
STATE = "trainer_state.json"
GRADIENTS = "gradients.safetensors"
# Written last: a checkpoint without it was never finished.
_COMPLETE = "complete"
_SETTINGS = "training.json"
_PREFIX = "checkpoint-"
_DISCARDED = ".discarded-"


def claim(folder: Path, settings: Mapping[str, Any]) -> None:
    """Take a folder for a training with these settings, or go on with one of the same; what is half there is removed.

    Raises:
        InputError: it holds a training with others.
        RunError: it cannot be written.
    """
    path = folder / _SETTINGS
    wanted = json.loads(json.dumps(settings))
    try:
        held = json.loads(path.read_bytes())
    except FileNotFoundError:
        held = wanted
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); remove {folder} to train from the start.") from None
    if held != wanted:
        changed = sorted(key for key in {*held, *wanted} if held.get(key) != wanted.get(key))
        raise InputError(
            f"{folder}: holds a training that differs in {', '.join(changed)}; give the same settings and data to "
            "continue it, or remove the folder to train from the start."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        keep_only(folder, complete_steps(folder))
        for each in folder.glob(f"{_DISCARDED}*"):
            shutil.rmtree(each, ignore_errors=True)
    except OSError as error:
        raise cannot_save(folder, error) from None
    with replacing(path) as file:
        file.write(json.dumps(wanted, indent=2) + "\n")


def place_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is."""
    return folder / f"{_PREFIX}{step}"


def complete_steps(folder: Path) -> list[int]:
    """Steps of all finished checkpoints, in their order."""
    found = (path.parent.name.removeprefix(_PREFIX) for path in folder.glob(f"{_PREFIX}*/{_COMPLETE}"))
    return sorted(int(step) for step in found if step.isdigit())


def mark_complete(checkpoint: Path) -> None:
    """Mark a checkpoint as finished once all of its files are on the disk.

    Raises:
        RunError: the disk is full.
    """
    try:
        for path in checkpoint.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        with (checkpoint / _COMPLETE).open("w") as file:
            os.fsync(file.fileno())
    except OSError as error:
        raise cannot_save(checkpoint, error) from None


def keep_only(folder: Path, steps: Iterable[int]) -> None:
    """Remove all checkpoints but those of some steps."""
    kept = {place_of(folder, step) for step in steps}
    for path in folder.glob(f"{_PREFIX}*"):
        if path not in kept:
            # Renamed first: one that is half removed must not look finished.
            gone = path.with_name(f"{_DISCARDED}{path.name}")
            shutil.rmtree(gone, ignore_errors=True)
            path.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)


def read_history(checkpoint: Path) -> list[dict[str, float]]:
    """What was logged up to a checkpoint, entry by entry."""
    entries: list[dict[str, float]] = json.loads((checkpoint / STATE).read_bytes())["log_history"]
    return entries


def save_weights(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write tensors.

    Raises:
        RunError: the disk is full.
    """
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)
    except (OSError, SafetensorError) as error:
        raise cannot_save(path, error) from None


def load_weights(path: Path, parameters: Mapping[str, nn.Parameter]) -> None:
    """Read tensors into parameters of the same names and shapes.

    Raises:
        RunError: they are not there, or others.
    """
    try:
        tensors = load_file(path)
        if tensors.keys() != parameters.keys():
            raise ValueError("its weights have other names")
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(tensors[name])
    except (OSError, SafetensorError, ValueError, RuntimeError) as error:
        raise RunError(f"{path}: cannot be continued from ({error}); remove {path.parent} and run again.") from None


def read_gradients(checkpoint: Path) -> dict[str, torch.Tensor] | None:
    """What a training that resolves conflicts remembers of its gradients; `None` of another.

    Raises:
        RunError: it is damaged.
    """
    path = checkpoint / GRADIENTS
    try:
        if not path.exists():
            return None
        state = load_file(path)
        if "memory" not in state:
            raise ValueError("it has no memory")
        return state
    except (OSError, SafetensorError, ValueError) as error:
        raise RunError(f"{path}: cannot be continued from ({error}); remove {checkpoint} and run again.") from None


def cannot_save(path: Path, error: Exception) -> RunError:
    """Make the error for a checkpoint that cannot be written."""
    fact = getattr(error, "strerror", None) or str(error).partition("\n")[0]
    return RunError(
        f"{path}: the checkpoint cannot be written ({fact}); free some space or fix the folder, then give the same "
        "command again: it goes on from the last whole checkpoint."
    )


def best_step(history: Sequence[Mapping[str, float]]) -> tuple[int, float] | None:
    """The step with the least held-out loss, the first of equals, and that loss; `None` where none was measured."""
    measured = [(entry["eval_loss"], int(entry["step"])) for entry in history if "eval_loss" in entry]
    if not measured:
        return None
    loss, step = min(measured)
    return step, loss


def out_of_patience(history: Sequence[Mapping[str, float]], patience: int) -> bool:
    """Whether the last `patience` measurements, 0 for any number, were none of them the best."""
    best = best_step(history)
    if not patience or best is None:
        return False
    return sum("eval_loss" in entry and entry["step"] > best[0] for entry in history) >= patience
