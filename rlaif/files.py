"""Write a file whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import filecmp
import os
import re
import shutil
import stat
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TextIO

from rlaif.errors import InputError, RunError

_DESCRIPTOR = re.compile(r"/(?:dev|proc/(?:self|thread-self))/fd/(\d{1,9})")
# As many links one after the other as Linux follows.
_MOST_LINKS = 40
_RUN = ("labels.jsonl", "manifest.json", "judgments.db", "rejects.jsonl")


def is_stream(path: Path) -> bool:
    """Whether what is written there is not kept under this name: a pipe, a device, or a file that the shell opened."""
    try:
        return _descriptor(path) is not None or (path.exists() and not path.is_file() and not path.is_dir())
    except OSError:
        # What is wrong with the name is told when it is written to.
        return False


def _descriptor(path: Path) -> int | None:
    """The number behind a name such as `/dev/stdout`, or behind a link to it."""
    for _ in range(_MOST_LINKS):
        path = Path("/" + os.path.normpath(path.absolute()).lstrip("/"))
        if found := _DESCRIPTOR.fullmatch(str(path)):
            return int(found[1])
        if not path.is_symlink():
            return None
        path = path.parent / path.readlink()
    return None


def link_target(path: Path) -> Path:
    """The file or folder that a path leads to, through links.

    Raises:
        RunError: the links lead to each other, or the name cannot be one.
    """
    try:
        return path.resolve()
    except RuntimeError:
        # Of Python before 3.13.
        raise cannot_write(path, OSError(errno.ELOOP, os.strerror(errno.ELOOP))) from None
    except OSError as error:
        raise cannot_write(path, error) from None


@contextmanager
def replacing(path: Path) -> Iterator[TextIO]:
    """Open a file that takes the place of `path`, or of what it links to, when the block ends well.

    A pipe, a device or a file that the shell opened, such as `/dev/stdout`, is written to, never replaced.

    Raises:
        RunError: the disk is full or the folder cannot be written; `path` is as it was.
    """
    if is_stream(path):
        try:
            # Opened anew, a file would be written from its start, over what is there.
            number = _descriptor(path)
            opened = path.open if number is None else partial(os.fdopen, os.dup(number))
            with opened("w", encoding="utf-8", newline="") as file:
                yield file
        except OSError as error:
            raise cannot_write(path, error) from None
        return
    # Line ends go out as they are given, on every system.
    with replacing_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        yield file


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to; the file takes the place of `path`, or of what it links to, only if all went well.

    Raises:
        RunError: the disk is full or the folder cannot be written; `path` is as it was.
    """
    given, path = path, link_target(path)
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
        raise cannot_write(given, error) from None
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def making_folder(out: Path, again: Collection[str] = ()) -> Iterator[Path]:
    """Yield an empty folder that becomes `out`, whole, if the block ends well; killed before, there is no `out`.

    Args:
        again: names of the files that the block makes, where it always makes the same: then an `out` that holds just
            these, with the same bytes, is left as it is.

    Raises:
        InputError: `out` is a file, or holds anything else.
        RunError: the disk is full or the folder cannot be made, or another process is making it.
    """
    _refuse_other(out, again)
    whole = out.resolve()
    unfinished = whole.with_name(f".{whole.name}.unfinished")
    lock = unfinished / ".lock"
    try:
        unfinished.mkdir(parents=True, exist_ok=True)
        with lock.open("w") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunError(f"{out}: another process is making it; wait for it, or choose another --out.") from None
            try:
                # What a killed process left.
                _clear(unfinished, but=lock)
                yield unfinished
                lock.unlink()
                _put_in_place(unfinished, whole, out, again)
            except RunError as error:
                # The folder that the user knows of, not the one that is gone now.
                raise type(error)(str(error).replace(str(unfinished), str(out))) from None
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise cannot_write(out, error) from None


def _refuse_other(out: Path, again: Collection[str]) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"--out {out}: a file; expected a folder.")
    held = sorted(file.name for file in out.iterdir())
    if held and set(held) != set(again):
        raise InputError(f"--out {out}: holds {held[0]} already; choose another --out, or move it away.")


def _clear(folder: Path, but: Path) -> None:
    for left in folder.iterdir():
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)
        elif left != but:
            left.unlink()


def _put_in_place(made: Path, whole: Path, out: Path, again: Collection[str]) -> None:
    if not (whole.is_dir() and any(whole.iterdir())):
        made.rename(whole)
        return
    other = [name for name in again if not filecmp.cmp(made / name, out / name, shallow=False)]
    if other:
        raise InputError(f"--out {out}: holds another {other[0]} already; choose another --out, or move it away.")


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
    if is_stream(out):
        return
    target = link_target(out)
    try:
        if target.is_dir():
            raise InputError(f"{option} {out}: a folder; expected a file.")
        for name in inputs:
            for each in (Path(name), *(Path(name) / part for part in _RUN)):
                if target.exists() and each.exists() and target.samefile(each):
                    raise InputError(f"{option} {out}: also read by this command; choose another file.")
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(out, error) from None
    if not os.access(target.parent, os.W_OK):
        raise cannot_write(out, OSError(errno.EACCES, os.strerror(errno.EACCES)))


def cannot_write(path: Path, error: OSError) -> RunError:
    """Make the error for a file that cannot be written."""
    return RunError(
        f"{path}: cannot be written ({error.strerror or error}); free some space or fix the folder, then give the same "
        "command again: what was written is kept."
    )
