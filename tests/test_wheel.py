"""What ships: the wheel carries the constitutions and prompts, and works without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.conftest import ROOT
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
    env = {**os.environ, "PYTHONPATH": str(target), "HF_HUB_OFFLINE": "1"}
    check = [sys.executable, "-P", "-c", "import rlaif; print(rlaif.__file__)"]
    place = subprocess.run(check, cwd=tmp_path, env=env, check=True, capture_output=True, text=True).stdout
    assert place.startswith(str(target))
    with RunningStub() as stub:
        command = [
            sys.executable,
            "-P",
            "-m",
            "rlaif",
            "label",
            str(pairs),
            "--base-url",
            stub.url,
            "--out",
            str(tmp_path / "run"),
        ]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert "72 judgments: 72 asked" in done.stdout, done.stderr
