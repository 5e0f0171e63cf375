"""Write a checkpoint's folder so that what is in it is the old one, the new one, or nothing that loads."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlaif.errors import RunError
from rlaif.files import cannot_write

# Without the first nothing is a checkpoint of heads, without the second nothing loads the weights.
_GATES = ("rlaif.json", "config.json")
_UNFINISHED = ".saving-"
# What a former checkpoint may have left under names that the new one does not use.
_STALE = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*", "adapter_*", "tokenizer*", "*.jinja")
_STALE_NAMES = ("rlaif.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "vocab.txt")


@contextmanager
def replacing_checkpoint(folder: Path) -> Iterator[Path]:
    """Yield an empty folder; when the block ends well, its files take the place of those of the checkpoint in `folder`.

    Other files of `folder` stay. Files change places one by one, and `config.json` and `rlaif.json` are away while they
    do: a process that is killed leaves the old checkpoint, the new one, or one that nobody loads by mistake.

    Raises:
        RunError: the disk is full or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(left, ignore_errors=True)
        fresh = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=folder))
    except OSError as error:
        raise cannot_write(folder, error) from None
    try:
        yield fresh
        _move(fresh, folder)
    except OSError as error:
        raise cannot_write(folder, error) from None
    except Exception as error:
        # The writer of weights has an error of its own for a full disk.
        if type(error).__name__ == "SafetensorError":
            raise RunError(
                f"{folder}: the weights cannot be written ({error}); free some space or fix the folder, then give the "
                "same command again."
            ) from None
        raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _move(fresh: Path, folder: Path) -> None:
    files = [file for file in fresh.rglob("*") if file.is_file()]
    # The writer of weights lets nobody else read them; who may read the rest may read them too.
    mode = max((stat.S_IMODE(file.stat().st_mode) for file in files), default=0)
    for file in files:
        file.chmod(mode)
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
    new = {file.name for file in fresh.iterdir()}
    for name in _GATES:
        (folder / name).unlink(missing_ok=True)
    stale = {file for pattern in _STALE for file in folder.glob(pattern)} | {folder / name for name in _STALE_NAMES}
    for file in stale:
        if file.name not in new:
            file.unlink(missing_ok=True)
    gates = [name for name in reversed(_GATES) if name in new]
    for name in [*sorted(new - set(_GATES)), *gates]:
        if (folder / name).is_dir():
            # More than one chat template makes a folder, and a folder is not replaced by another.
            shutil.rmtree(folder / name)
        (fresh / name).replace(folder / name)
