"""The lines of several runs' labels and rejects, found again by their ids; in a file, so that memory stays flat."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import orjson

from rlaif.errors import InputError
from rlaif.labeling.merge_ledgers import MergeSource
from rlaif.types import Pair

# No text holds it: within one, quotes are escaped; and a tag of this name has no object.
_LABELS = b',"labels":{'
_TABLES = """
CREATE TEMP TABLE labels (id TEXT PRIMARY KEY, run INTEGER, start INTEGER, length INTEGER, pair BLOB) WITHOUT ROWID;
CREATE TEMP TABLE failed (id TEXT PRIMARY KEY, run INTEGER, start INTEGER, length INTEGER) WITHOUT ROWID;
CREATE TEMP TABLE pairs (id TEXT PRIMARY KEY) WITHOUT ROWID;
"""


class MergedLabels:
    """Where each pair's line stands; a pair that two runs labelled is taken from the first.

    Args:
        db: the merged ledger, whose plan tells which pairs were asked about.
    """

    def __init__(self, db: sqlite3.Connection, sources: Sequence[MergeSource]) -> None:
        self._db, self._sources = db, sources
        self._files: dict[tuple[int, str], IO[bytes]] = {}
        db.executescript(_TABLES)

    def __enter__(self) -> MergedLabels:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.close()

    def add(self, number: int) -> Iterator[bytes]:
        """Note the labels of a run; yield the pair of each that is new, as a line of data.

        Raises:
            InputError: a line is no label, or an id stands for other pairs in two runs.
        """
        path = self._sources[number].run / "labels.jsonl"
        for line_number, start, line in self._lines(path):
            pair, marker, _ = line.partition(_LABELS)
            try:
                name = orjson.loads(pair + b"}")["id"]
            except (ValueError, KeyError, TypeError):
                name = None
            if not marker or not isinstance(name, str):
                fix = "end the run again with its rlaif label command"
                raise InputError(f"{path}:{line_number}: not a label of rlaif label; {fix}, or leave the run out.")
            row = (name, number, start, len(line), hashlib.blake2b(pair, digest_size=16).digest())
            if self._db.execute("INSERT OR IGNORE INTO labels VALUES (?, ?, ?, ?, ?)", row).rowcount:
                yield pair + b"}\n"
                continue
            first, same = self._db.execute("SELECT run, pair = ? FROM labels WHERE id = ?", (row[4], name)).fetchone()
            if not same:
                raise InputError(
                    f"{self._sources[first].run} and {path.parent}: pair {name[:80]!r} has other texts or tags in "
                    "each; an id stands for one pair: label one of the two datasets again with ids of its own, or "
                    "leave one run out."
                )

    def add_failed(self, number: int) -> Iterator[dict[str, Any]]:
        """Note the pairs of a run that no judgment was read of; yield each line of its rejects.

        Raises:
            InputError: a line is not JSON.
        """
        path = self._sources[number].run / "rejects.jsonl"
        if not path.is_file():
            return
        for line_number, start, line in self._lines(path):
            try:
                reject = orjson.loads(line)
                row = reject["row"]
            except (ValueError, KeyError, TypeError):
                raise InputError(
                    f"{path}:{line_number}: not a line of rejects; end the run again with its rlaif label command, or "
                    "leave the run out."
                ) from None
            name = row.get("id") if isinstance(row, dict) else None
            query = "SELECT 1 FROM main.plan WHERE pair_id = ? LIMIT 1"
            if isinstance(name, str) and self._db.execute(query, (name,)).fetchone():
                values = (name, number, start, len(line))
                self._db.execute("INSERT OR IGNORE INTO failed VALUES (?, ?, ?, ?)", values)
            yield reject

    def line_of(self, pair: Pair) -> str | None:
        """The label of a pair as a run wrote it; `None` where no run has one.

        Raises:
            InputError: it labels other texts.
        """
        query = "SELECT run, start, length FROM labels WHERE id = ?"
        found = self._db.execute(query, (pair.id,)).fetchone()
        if found is None:
            return None
        line = self._read("labels.jsonl", *found)
        if not line.startswith(pair.model_dump_json()[:-1] + ',"labels":'):
            mine, theirs = json.loads(pair.model_dump_json()), json.loads(line)
            other = next((name for name in mine if mine[name] != theirs.get(name)), "the line")
            raise InputError(
                f"{self._sources[found[0]].run}: pair {pair.id[:80]!r} is not that of --data ({other} differs); give "
                "the dataset that was split, or leave out --data."
            )
        return line.rstrip("\n") + "\n"

    def failure_of(self, pair: Pair) -> dict[str, Any] | None:
        """The reject of a pair of which every judgment failed."""
        query = "SELECT run, start, length FROM failed WHERE id = ?"
        found = self._db.execute(query, (pair.id,)).fetchone()
        return None if found is None else dict(json.loads(self._read("rejects.jsonl", *found)))

    def see(self, pair: Pair) -> None:
        """Note that the data holds a pair."""
        self._db.execute("INSERT OR IGNORE INTO pairs VALUES (?)", (pair.id,))

    def see_failed(self) -> None:
        """Note that the pairs of which every judgment failed are accounted for."""
        self._db.execute("INSERT OR IGNORE INTO pairs SELECT id FROM failed")

    def asked(self, pair: Pair) -> bool:
        """Whether any run was asked about a pair."""
        query = "SELECT 1 FROM main.plan WHERE pair_id = ? LIMIT 1"
        return self._db.execute(query, (pair.id,)).fetchone() is not None

    def stranger(self) -> str | None:
        """The id of a pair that a run was asked about and that was not seen; `None` if there is none."""
        query = "SELECT pair_id FROM main.plan WHERE pair_id NOT IN (SELECT id FROM pairs) LIMIT 1"
        found = self._db.execute(query).fetchone()
        return None if found is None else str(found[0])

    def _lines(self, path: Path) -> Iterator[tuple[int, int, bytes]]:
        start = 0
        try:
            with path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        yield number, start, line
                    start += len(line)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}).") from None

    def _read(self, name: str, run: int, start: int, length: int) -> str:
        file = self._files.get((run, name))
        if file is None:
            file = self._files[run, name] = (self._sources[run].run / name).open("rb")
        file.seek(start)
        return file.read(length).decode()
