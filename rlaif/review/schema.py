"""The file of a study: its tables, how it is opened, and the labels that it holds."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from rlaif.errors import RunError

_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pairs (
    id TEXT PRIMARY KEY,
    position INTEGER UNIQUE,         -- place in the data; NULL: not in the data that was read last
    key TEXT NOT NULL UNIQUE,        -- what the page knows the pair by, since an id may tell too much
    digest TEXT NOT NULL,            -- of what a person reads
    prompt TEXT NOT NULL,            -- JSON, chat messages
    response_a TEXT NOT NULL,
    response_b TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS objectives (
    name TEXT PRIMARY KEY,
    position INTEGER UNIQUE,         -- NULL: not asked now
    question TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    nonce TEXT NOT NULL UNIQUE,      -- made by the page, so that an answer sent twice counts once
    annotator TEXT NOT NULL,
    pair_id TEXT NOT NULL,
    objective TEXT NOT NULL,
    answer TEXT NOT NULL CHECK (answer IN ('a', 'b', 'tie', 'skip')),
    note TEXT NOT NULL,
    shown_first TEXT NOT NULL CHECK (shown_first IN ('a', 'b')),
    seconds REAL,                    -- for which the question was in sight
    at TEXT NOT NULL,                -- UTC, ISO 8601
    undone INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX IF NOT EXISTS live ON events (annotator, pair_id, objective) WHERE undone = 0;
CREATE INDEX IF NOT EXISTS latest ON events (annotator, seq) WHERE undone = 0;
CREATE INDEX IF NOT EXISTS by_pair ON events (pair_id);
CREATE TABLE IF NOT EXISTS sessions (digest TEXT PRIMARY KEY, at TEXT NOT NULL) WITHOUT ROWID;
"""
_EXPORT = """
SELECT e.pair_id, e.annotator, e.objective, e.answer, e.note, e.shown_first, e.seconds
FROM events e JOIN pairs p ON p.id = e.pair_id JOIN objectives o ON o.name = e.objective
WHERE e.undone = 0 AND e.answer != 'skip'
ORDER BY p.position, e.annotator, ifnull(o.position, 1e9), e.objective
"""


def export_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Read the labels of a study, also while people are labelling, in the order of the data.

    Raises:
        RunError: there is no readable study.
    """
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=10)) as db:
            for pair_id, annotator, objective, answer, note, first, seconds in db.execute(_EXPORT):
                row = {"id": pair_id, "annotator": annotator, "objective": objective, "preference": answer}
                row |= {"shown_first": first} | ({"note": note} if note else {})
                yield row | ({"seconds": seconds} if seconds is not None else {})
    except sqlite3.Error as error:
        raise unusable(path, error) from None


def unusable(path: Path, error: Exception) -> RunError:
    """Make the error for a study that cannot be read or written."""
    if type(error) is sqlite3.DatabaseError:
        return RunError(f"{path}: cannot be read ({error}); damaged, or no file of rlaif review. Choose another --out.")
    return RunError(
        f"{path}: cannot be written or read ({error}); free some space or fix the folder, then give the same command "
        "again: every answer that was saved is kept."
    )


def connect(path: Path) -> sqlite3.Connection:
    """Open a study for the one process that writes it, and make what is missing.

    Raises:
        RunError: it was made by a later version.
        sqlite3.Error: it cannot be opened.
    """
    with ExitStack() as opened:
        # The study's own lock lets one thread in at a time.
        db = opened.enter_context(closing(sqlite3.connect(path, timeout=10, check_same_thread=False)))
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, _VERSION):
            raise RunError(
                f"{path}: a study of version {version}; this rlaif writes version {_VERSION}. "
                "Use the rlaif that made it."
            )
        db.execute("PRAGMA journal_mode = WAL")
        # An answer is on the disk before the page is told so: it outlives a power cut too.
        db.execute("PRAGMA synchronous = FULL")
        db.executescript(_SCHEMA)
        db.execute(f"PRAGMA user_version = {_VERSION}")
        db.commit()
        opened.pop_all()
        return db
