"""rlaif: `rlaif.label` from a file to labels in a file, through its ledger; one objective."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import rlaif
from benchmarks.peers.clock import Row, Work, drive


def prepare(rows: Sequence[Row], url: str, settings: Mapping[str, str]) -> Work:
    """`template` and `orders`, as of `rlaif label`."""
    folder = Path(tempfile.mkdtemp())
    data = folder / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    template, both = settings["template"], settings["orders"] == "both"

    def work() -> int:
        done = rlaif.label(
            data,
            folder / "run",
            base_url=url,
            judge="stub",
            template=template,
            objectives=["helpfulness"],
            orders="both" if both else "ab",
        )
        return done.pairs if not done.abstained else 0

    return work


if __name__ == "__main__":
    drive(prepare, ("rlaif", "aiohttp"))
