"""Write a file whole or not at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from rlaif.errors import InputError, RunError

_RUN = ("labels.jsonl", "manifest.json", "judgments.db", "rejects.jsonl")


@contextmanager
def replacing(path: Path) -> Iterator[TextIO]:
    """Open a file that takes the place of `path` when the block ends well.

    A pipe or a device, such as `/dev/stdout`, is written to, never replaced.

    Raises:
        RunError: the disk is full or the folder cannot be written; `path` is as it was.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        try:
            with path.open("w", encoding="utf-8", newline="") as file:
                yield file
        except OSError as error:
            raise cannot_write(path, error) from None
        return
    # Line ends go out as they are given, on every system.
    with replacing_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        yield file


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to; the file takes the place of `path` only if all went well.

    Raises:
        RunError: the disk is full or the folder cannot be written; `path` is as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        if path.exists():
            # Who may read and write it stays the same.
            temporary.chmod(stat.S_IMODE(path.stat().st_mode))
        temporary.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from None
    finally:
        temporary.unlink(missing_ok=True)


def check_output(option: str, out: Path, inputs: Iterable[str | Path]) -> None:
    """Make sure, before any work, that a file can be written: make its folder, and never write over what is read.

    Args:
        option: how the user named it, for the error.
        out: the file.
        inputs: files that the command reads, and folders, of which the files of a run count.

    Raises:
        InputError: it is a folder, or one of the inputs.
        RunError: its folder cannot be made.
    """
    if out.is_dir():
        raise InputError(f"{option} {out}: a folder; expected a file.")
    for name in inputs:
        for each in (Path(name), *(Path(name) / part for part in _RUN)):
            if out.exists() and each.exists() and out.samefile(each):
                raise InputError(f"{option} {out}: also read by this command; choose another file.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(out, error) from None


def cannot_write(path: Path, error: OSError) -> RunError:
    """Make the error for a file that cannot be written."""
    return RunError(
        f"{path}: cannot be written ({error.strerror or error}); free some space or fix the folder, then give the same "
        "command again: what was written is kept."
    )
