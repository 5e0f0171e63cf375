"""How a run is known to have ended: the same command then need not go through every pair again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlaif.labeling.manifest import Manifest, changed_settings, read_manifest
from rlaif.types import Provenance


def ending_of(run: Path, made_by: Provenance) -> dict[str, Any]:
    """What a run that has ended leaves: digests of what it wrote, and the ledger's size and time."""
    ledger = (run / "judgments.db").stat()
    return {
        # The ledger is large and written by nothing but a run, so that its size and time will do.
        "judgments.db": [ledger.st_size, ledger.st_mtime_ns],
        **{name: _digest(run / name) for name in ("labels.jsonl", "rejects.jsonl")},
        "made_by": made_by.model_dump(mode="json"),
    }


def ended_before(run: Path, deciding: Mapping[str, Any], made_by: Provenance) -> Manifest | None:
    """The manifest of a run that has ended under the same settings, and of which nothing was touched since.

    Args:
        deciding: what decides the labels, the data's digest among it.
    """
    manifest = read_manifest(run)
    if manifest is None or manifest.state != "done" or not manifest.ending:
        return None
    if changed_settings(manifest.settings, json.loads(json.dumps(deciding))):
        return None
    try:
        same = manifest.ending == ending_of(run, made_by)
    except OSError:
        # Something is missing, and will be written again.
        return None
    return manifest if same else None


def _digest(path: Path) -> str | None:
    """Digest of a file's content; `None` where there is none."""
    if not path.exists():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
