"""Pairs kept on disk and not in memory, for work that needs the texts of very many of them once more."""

from __future__ import annotations

import pickle
import tempfile
import weakref
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, overload

from rlaif.files import cannot_write
from rlaif.types import Message, Pair


class SpilledPairs(Sequence[Pair]):
    """A list of pairs whose texts stand in an unnamed file, which is gone with the list or the process.

    A pair takes 8 bytes of memory; every access makes it anew.

    Args:
        folder: where the file goes; it needs about the room of the texts.
        pairs: the first ones.

    Raises:
        RunError: the folder cannot be written to, or its disk is full.
    """

    def __init__(self, folder: Path, pairs: Iterable[Pair] = ()) -> None:
        self._folder = folder
        self._starts = array("q")
        self._end = 0
        try:
            file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - open as long as the list is there
        except OSError as error:
            raise cannot_write(folder, error) from None
        self._file = file
        weakref.finalize(self, _close, file)
        for pair in pairs:
            self.append(pair)

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, row: int) -> Pair: ...
    @overload
    def __getitem__(self, row: slice) -> list[Pair]: ...
    def __getitem__(self, row: int | slice) -> Pair | list[Pair]:
        if isinstance(row, slice):
            return [self._read(start) for start in self._starts[row]]
        return self._read(self._starts[row])

    def __iter__(self) -> Iterator[Pair]:
        return map(self._read, self._starts)

    def append(self, pair: Pair) -> None:
        """Add a pair at the end."""
        self._starts.append(self._write(pair))

    def __setitem__(self, row: int, pair: Pair) -> None:
        # The old text stays in the file: few are replaced, and one place for each would have to fit the new text.
        self._starts[row] = self._write(pair)

    def clear(self) -> None:
        """Give up all pairs, and the room that they take."""
        self._starts = array("q")
        self._end = 0
        self._file.seek(0)
        self._file.truncate()

    def _write(self, pair: Pair) -> int:
        turns = [(turn.role, turn.content) for turn in pair.prompt]
        row = pickle.dumps((pair.id, turns, pair.response_a, pair.response_b, dict(pair.tags)))
        start = self._end
        try:
            if self._file.tell() != start:
                self._file.seek(start)
            self._file.write(row)
        except OSError as error:
            raise cannot_write(self._folder, error) from None
        self._end = start + len(row)
        return start

    def _read(self, start: int) -> Pair:
        try:
            self._file.seek(start)
            name, turns, a, b, tags = pickle.load(self._file)
        except OSError as error:
            # What was written last may reach the disk only now.
            raise cannot_write(self._folder, error) from None
        prompt = tuple(Message(role=role, content=content) for role, content in turns)
        return Pair(id=name, prompt=prompt, response_a=a, response_b=b, tags=tags)


def _close(file: IO[bytes]) -> None:
    # What a full disk did not take was told when it was written.
    with suppress(OSError):
        file.close()
