"""Where output goes: files are replaced whole, links stay links, and what the shell opened is written to."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from rlaif.errors import InputError, RunError
from rlaif.files import check_output, is_stream, replacing
from tests.conftest import environment, write_lines
from tests.test_select import labels, said


@pytest.fixture
def source(tmp_path: Path) -> str:
    """One labelled pair."""
    pair = {"id": "p", "prompt": "Hello?", "response_a": "Hi.", "response_b": "No."}
    label = {"id": "p", "annotator": "one", "objective": "overall", "preference": "a"}
    return f"{write_lines(tmp_path / 'pairs.jsonl', [pair])}+{write_lines(tmp_path / 'labels.jsonl', [label])}"


def shell(folder: Path, arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `rlaif` as a shell does, with redirections."""
    command = f"{sys.executable} -m rlaif {arguments}"
    return subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=120, env=environment(), cwd=folder, check=False
    )


def ids(file: Path) -> list[str]:
    """Of the rows in a file."""
    return [json.loads(line)["id"] for line in file.read_text().splitlines()]


def test_output_that_the_shell_sends_to_a_file_is_in_it(tmp_path: Path, source: str) -> None:
    before = Path("/dev/stdout").readlink()
    (tmp_path / "link").symlink_to("/dev/stdout")
    for count, arguments in enumerate(("/dev/stdout > out.jsonl", "/dev/stdout >> out.jsonl", "link >> out.jsonl"), 1):
        done = shell(tmp_path, f"export {source} --format dpo --out {arguments}")
        assert done.returncode == 0, done.stderr
        assert "1 row by overall -> " in done.stderr
        assert ids(tmp_path / "out.jsonl") == ["p"] * count
    assert Path("/dev/stdout").readlink() == before


def test_select_does_not_mix_its_table_with_rows(tmp_path: Path) -> None:
    labels(tmp_path / "labels.jsonl", [{"honesty": said(0.6)}])
    done = shell(tmp_path, "select labels.jsonl --n 1 --out /dev/stdout > out.jsonl")
    assert done.returncode == 0, done.stderr
    assert ids(tmp_path / "out.jsonl") == ["pair-0"]
    assert "1 pair of 1 -> /dev/stdout" in done.stderr


def test_a_link_stays_one_and_what_it_leads_to_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "there" / "real.txt"
    link = tmp_path / "link.txt"
    link.symlink_to(target)
    check_output("--out", link, [])
    for text in ("first", "second"):
        with replacing(link) as file:
            file.write(text)
        assert link.is_symlink()
        assert target.read_text() == text
    with pytest.raises(ZeroDivisionError), replacing(link) as file:
        file.write(str(1 / 0))
    assert target.read_text() == "second"
    assert list(target.parent.iterdir()) == [target]
    with pytest.raises(InputError, match=r"--out .*link.txt: also read by this command"):
        check_output("--out", link, [target])


def test_a_folder_that_is_a_link_stays_one(tmp_path: Path, source: str) -> None:
    (tmp_path / "real").mkdir()
    for name, target in (("linked", "real"), ("dangling", "later")):
        (tmp_path / name).symlink_to(target)
        done = shell(tmp_path, f"export {source} --format dpo --out {name}")
        assert done.returncode == 0, done.stderr
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / target / "dataset_info.json").is_file()


def test_parquet_does_not_go_down_a_pipe(tmp_path: Path, source: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "out.parquet").symlink_to("pipe")
    done = shell(tmp_path, f"export {source} --format dpo --out out.parquet")
    assert done.returncode == 2
    assert done.stderr == "Error: --out out.parquet: a pipe or a device; Parquet needs a file.\n"
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_names_that_lead_nowhere_are_refused_before_any_work(tmp_path: Path) -> None:
    loop = tmp_path / "loop.jsonl"
    loop.symlink_to(loop)
    for path in (loop, tmp_path / ("long" * 100)):
        for write in (lambda path: check_output("--out", path, []), lambda path: replacing(path).__enter__()):
            with pytest.raises(RunError, match=r"cannot be written \((Too many levels|File name too long)"):
                write(path)


def test_what_is_a_stream(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "to-stdout").symlink_to("/dev/stdout")
    (tmp_path / "to-file").symlink_to("file")
    streams = ("/dev/stdout", "/dev/stderr", "/dev/fd/7", "//dev/fd/7", "/dev/../proc/self/fd/1", "/dev/null")
    assert all(is_stream(Path(name)) for name in streams)
    assert is_stream(tmp_path / "to-stdout")
    assert not any(is_stream(tmp_path / name) for name in ("file", "to-file", "none", ".", "dev/stdout"))
