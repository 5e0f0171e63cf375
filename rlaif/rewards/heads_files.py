"""The files of a checkpoint of heads, read with care: what is missing, cut or of other heads is told in one line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from rlaif.errors import InputError
from rlaif.rewards.model import Backbone
from rlaif.rewards.spec import ENSEMBLE_FILE, SPEC_FILE, HeadsSpec

# Tensors of the ensemble's file: (objectives, members, H), (objectives, H), (objectives,).
MEMBERS, GATE, GATE_BIAS = "members", "gate.matrix", "gate.bias"
_INDEX = "model.safetensors.index.json"
_WEIGHTS = "model.safetensors"
_AGAIN = "train the heads again, or copy the whole folder again"


def find_folder(path: str) -> Path:
    """The folder itself, or that of a hub id's files.

    Raises:
        InputError: a hub id that cannot be had.
    """
    folder = Path(path)
    if folder.exists() or path.startswith((".", "/", "~")) or path.count("/") != 1:
        return folder
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(path, ignore_patterns=["*.html", "*.bin", "*.pt"]))
    except Exception as error:
        fact = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{path}: no such folder, and no heads of that id on the hub ({fact}); give the folder that rlaif "
            "train-heads wrote."
        ) from None


def check_config(folder: Path, spec: HeadsSpec) -> dict[str, Any]:
    """Read `config.json`; it must name the objectives of the spec.

    Raises:
        InputError: it does not, or a file is missing.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_bytes())
        labels = tuple(config["id2label"][str(place)] for place in range(len(config["id2label"])))
    except FileNotFoundError:
        raise InputError(f"{path}: missing, so the heads are not whole; {_AGAIN}.") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{path}: names no labels, so it is damaged or of another model; {_AGAIN}.") from None
    if labels != spec.objectives:
        raise InputError(
            f"{path}: its labels are {', '.join(map(str, labels))}, and {SPEC_FILE} has the objectives "
            f"{', '.join(spec.objectives)}; these files are of different heads, {_AGAIN}."
        )
    if not (folder / "tokenizer_config.json").is_file():
        raise InputError(f"{folder / 'tokenizer_config.json'}: missing, so the heads are not whole; {_AGAIN}.")
    unnamed = [name for name in spec.objectives if name not in spec.calibration or name not in spec.normalization]
    if unnamed:
        raise InputError(f"{folder / SPEC_FILE}: has no calibration or no normalization of {unnamed[0]}; {_AGAIN}.")
    return dict(config)


def saved_dtype(config: Mapping[str, Any]) -> torch.dtype:
    """The precision that a checkpoint was saved in; float32 where its `config.json` does not say."""
    named = config.get("dtype") or config.get("torch_dtype")
    found = getattr(torch, str(named), None)
    return found if isinstance(found, torch.dtype) else torch.float32


def check_weights(folder: Path) -> set[str]:
    """Names of all tensors; every file of weights must be there and whole.

    Raises:
        InputError: one is missing or cut short.
    """
    names = [_WEIGHTS]
    if (folder / _INDEX).is_file():
        try:
            names = sorted(set(json.loads((folder / _INDEX).read_bytes())["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(f"{folder / _INDEX}: is damaged; {_AGAIN}.") from None
    return {key for name in names for key in _opened(folder / name)}


def write_index(folder: Path) -> None:
    """List the model's tensors by file, where saving it has not done so already.

    vLLM and others take every file of tensors in a folder for a part of the model unless an index names the parts.
    """
    path = folder / _INDEX
    if path.exists():
        return
    with safe_open(folder / _WEIGHTS, "pt") as file:
        names = sorted(file.keys())
    value = {
        "metadata": {"total_size": (folder / _WEIGHTS).stat().st_size},
        "weight_map": dict.fromkeys(names, _WEIGHTS),
    }
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _opened(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a file's tensors."""
    if not path.is_file():
        raise InputError(f"{path}: missing, so the heads are not whole; {_AGAIN}.")
    try:
        with safe_open(path, "pt") as file:
            return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except Exception as error:
        fact = str(error).strip().splitlines()[0]
        raise InputError(f"{path}: is damaged or cut short ({fact}); {_AGAIN}.") from None


def read_extra(folder: Path, spec: HeadsSpec) -> dict[str, torch.Tensor]:
    """Members of the ensemble and the gate, as far as the spec has them.

    Raises:
        InputError: they are missing, damaged or of another number.
    """
    gated = spec.aggregation.origin == "gated"
    if spec.members == 1 and not gated:
        return {}
    path = folder / ENSEMBLE_FILE
    shapes = _opened(path)
    found = shapes.get(MEMBERS)
    told = f"{spec.members} of {len(spec.objectives)} objectives"
    if spec.members > 1 and (found is None or len(found) != 3 or found[:2] != (len(spec.objectives), spec.members)):
        held = f"{found[1]} of {found[0]} objectives" if found is not None and len(found) == 3 else "none"
        raise InputError(
            f"{path}: holds {held} for members of the ensemble, and {SPEC_FILE} says {told}; these files are of "
            f"different heads, {_AGAIN}."
        )
    if gated and not {GATE, GATE_BIAS} <= shapes.keys():
        raise InputError(f"{path}: has no gate, and {SPEC_FILE} says the weights are gated; {_AGAIN}.")
    wanted = ([MEMBERS] if spec.members > 1 else []) + ([GATE, GATE_BIAS] if gated else [])
    return {name: tensor for name, tensor in load_file(path).items() if name in wanted}


def check_head(folder: Path, spec: HeadsSpec, backbone: Backbone, keys: set[str], members: torch.Tensor | None) -> None:
    """Make sure that the head was read from the file, and is the mean of the ensemble's members.

    Raises:
        InputError: it was or is not.
    """
    name = next(name for name, module in backbone.model.named_modules() if module is backbone.head)
    if f"{name}.weight" not in keys:
        raise InputError(f"{folder}: the weights hold no {name}.weight, the heads themselves; {_AGAIN}.")
    if members is None:
        return
    weight = backbone.head.weight.detach().float().cpu()
    mean = members.mean(dim=1)
    off = mean.shape != weight.shape
    # Rounded to the precision that the checkpoint was saved in.
    if off or (mean - weight).abs().max() > 0.01 * weight.abs().max():
        raise InputError(
            f"{folder / ENSEMBLE_FILE}: the mean of its {spec.members} members is not {name}.weight of the "
            f"checkpoint; these files are of different heads, {_AGAIN}."
        )
