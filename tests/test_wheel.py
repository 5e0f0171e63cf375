"""What ships: the wheel carries constitutions, prompts and the starter, and works without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from rlaif.starter import CHECKPOINT_FILES
from tests.conftest import ROOT, made_pairs, read_lines, write_lines
from tests.stub_server import RunningStub


def test_an_installed_wheel_labels(tmp_path: Path, pairs: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, text=True, timeout=300)
    (wheel,) = tmp_path.glob("rlaif-*.whl")
    target = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(target)
    for kind in ("constitutions", "prompts"):
        shipped = {file.name for file in (ROOT / kind).iterdir() if file.is_file()}
        assert shipped
        assert shipped == {Path(name).name for name in names if name.startswith(f"rlaif/shipped/{kind}/")}
    starter = {f"checkpoint/{name}" for name in CHECKPOINT_FILES}
    starter |= {file.name for file in (ROOT / "rlaif" / "starter").glob("*.yaml")}
    assert {f"rlaif/starter/{name}" for name in starter} <= set(names)
    env = {**os.environ, "PYTHONPATH": str(target), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    check = [sys.executable, "-P", "-c", "import rlaif; print(rlaif.__file__)"]
    place = subprocess.run(check, cwd=tmp_path, env=env, check=True, capture_output=True, text=True).stdout
    assert place.startswith(str(target))

    def label(data: Path, run: Path, *options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-m", "rlaif", "label", str(data), "--out", str(run), *options]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False)

    with RunningStub() as stub:
        done = label(pairs, tmp_path / "served", "--base-url", stub.url)
    assert "72 judgments: 72 asked" in done.stdout, done.stderr
    done = label(write_lines(tmp_path / "two.jsonl", made_pairs(2)), tmp_path / "run", "--max-tokens", "24")
    assert "12 judgments: 12 asked, 0 reused, 0 abstained" in done.stdout, done.stderr
    assert read_lines(tmp_path / "run" / "labels.jsonl")[0]["provenance"]["judge"].startswith("starter@")
