"""Pairs on disk: what comes back is what was given, and a full disk is told."""

from __future__ import annotations

import gc
import os
import resource
from contextlib import suppress
from pathlib import Path

import pytest

from rlaif.data.spilled import SpilledPairs
from rlaif.errors import RunError
from rlaif.types import Message, Pair


def pair(name: str, text: str = "yes") -> Pair:
    """A pair with more than one turn, a lone surrogate and every kind of tag."""
    turns = (Message(role="system", content="Be brief."), Message(role="user", content=f"\ud800 {name}?\n"))
    tags = {"source": name, "turn": 2, "share": 0.1, "gold": True, "none": None}
    return Pair(id=name, prompt=turns, response_a=text, response_b="", tags=tags)


def open_files() -> set[int]:
    """Numbers of this process's open files."""
    found = set()
    for name in Path("/proc/self/fd").iterdir():
        # The folder's own is closed by now.
        with suppress(OSError):
            os.fstat(int(name.name))
            found.add(int(name.name))
    return found


def test_pairs_come_back_as_they_were(tmp_path: Path) -> None:
    pairs = [pair(f"p{number}", "word " * number) for number in range(50)]
    kept = SpilledPairs(tmp_path, pairs[:40])
    for one in pairs[40:]:
        assert kept[3] == pairs[3]
        kept.append(one)
    assert list(kept) == pairs == kept[:]
    assert (len(kept), kept[-1], kept[5:9:2]) == (50, pairs[-1], pairs[5:9:2])
    with pytest.raises(IndexError):
        kept[50]
    kept[7] = pairs[0]
    assert list(kept) == [*pairs[:7], pairs[0], *pairs[8:]]
    # No file has a name, so that none is left when the process is killed.
    assert list(tmp_path.iterdir()) == []


def test_the_room_is_given_back(tmp_path: Path) -> None:
    before = open_files()
    kept = SpilledPairs(tmp_path, [pair("long", "word " * 100_000)])
    (file,) = open_files() - before
    assert os.fstat(file).st_size > 400_000
    kept.clear()
    assert (len(kept), os.fstat(file).st_size) == (0, 0)
    kept.append(pair("again"))
    assert list(kept) == [pair("again")]
    del kept
    gc.collect()
    assert open_files() == before


def fill(kept: SpilledPairs) -> None:
    """Add about 300 kB."""
    for number in range(1000):
        kept.append(pair(f"p{number}", "word " * 40))


def test_a_full_disk_and_a_missing_folder_are_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RunError, match=r"nowhere: cannot be written \(No such file or directory\)"):
        SpilledPairs(tmp_path / "nowhere")
    kept = SpilledPairs(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(RunError, match="cannot be written"):
            fill(kept)
        del kept
        gc.collect()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    # What could not be written is no second error when the file is closed.
    assert capfd.readouterr().err == ""
