"""A thousand rows with every kind of fault, through the whole of `rlaif label`: nothing else is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Cli, read_lines
from tests.stub_server import RunningStub, StubSettings
from tests.test_bad_rows import lines

# The one row that is well-formed but longer than any judge takes: five million letters.
TOO_LONG = 500


@pytest.mark.parametrize("engine", ["server", "transformers"])
def test_every_row_is_labelled_or_rejected_with_its_line(
    engine: str, rlaif: Cli, tmp_path: Path, tiny_judge: Path
) -> None:
    made, faults = lines()
    data, run = tmp_path / "rows.jsonl", tmp_path / "run"
    data.write_bytes(b"\n".join(made) + b"\n")
    common = ("label", data, "--template", "direct", "--objective", "honesty", "--orders", "ab", "--out", run)
    with RunningStub(StubSettings(max_model_len=2000, max_chars=100_000)) as stub:
        where = ("--base-url", stub.url) if engine == "server" else ("--judge", tiny_judge, "--engine", "transformers")
        done = rlaif(*common, *where, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    rejects = {reject["line"]: reject["reason"] for reject in read_lines(run / "rejects.jsonl")}
    assert rejects.keys() == faults.keys() | {TOO_LONG}
    assert "context" in rejects[TOO_LONG] or "the judge takes" in rejects[TOO_LONG]
    labelled = [line["id"] for line in read_lines(run / "labels.jsonl")]
    # `lines` makes every third line bad or blank.
    assert labelled == [f"row-{n}" for n in range(1, len(made) + 1) if n % 3 and n != TOO_LONG]
    assert f"{len(labelled)} pairs labelled, {len(rejects)} rows rejected" in done.stdout
