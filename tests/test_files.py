"""Where output goes: files are replaced whole, links stay links, and what the shell opened is written to."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rlaif.files import is_stream, replacing
from tests.conftest import environment, write_lines


def shell(folder: Path, redirect: str) -> subprocess.CompletedProcess[str]:
    """Export one label to the standard output, under a shell's redirection."""
    pair = {"id": "p", "prompt": "Hello?", "response_a": "Hi.", "response_b": "No."}
    label = {"id": "p", "annotator": "one", "objective": "overall", "preference": "a"}
    source = f"{write_lines(folder / 'pairs.jsonl', [pair])}+{write_lines(folder / 'labels.jsonl', [label])}"
    command = f"{sys.executable} -m rlaif export {source} --format dpo --out /dev/stdout {redirect}"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=120, env=environment(), cwd=folder, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "1 row by overall -> /dev/stdout" in done.stderr
    return done


def test_output_that_the_shell_sends_to_a_file_is_in_it(tmp_path: Path) -> None:
    before = Path("/dev/stdout").readlink()
    shell(tmp_path, "> out.jsonl")
    assert json.loads((tmp_path / "out.jsonl").read_text())["id"] == "p"
    shell(tmp_path, ">> out.jsonl")
    assert [json.loads(line)["id"] for line in (tmp_path / "out.jsonl").read_text().splitlines()] == ["p", "p"]
    assert Path("/dev/stdout").readlink() == before


def test_a_link_stays_one_and_what_it_leads_to_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "there" / "real.txt"
    target.parent.mkdir()
    link = tmp_path / "link.txt"
    link.symlink_to(target)
    for text in ("first", "second"):
        with replacing(link) as file:
            file.write(text)
        assert link.is_symlink()
        assert target.read_text() == text
    with pytest.raises(ZeroDivisionError), replacing(link) as file:
        file.write(str(1 / 0))
    assert target.read_text() == "second"
    assert list(target.parent.iterdir()) == [target]


def test_what_is_a_stream(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert [
        name for name in ("/dev/stdout", "/dev/fd/7", "/proc/self/fd/1", "/dev/null") if not is_stream(Path(name))
    ] == []
    assert [name for name in ("file", "none", ".", "dev/stdout") if is_stream(tmp_path / name)] == []
