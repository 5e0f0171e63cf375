"""The answers of several runs in one ledger: what is the same once, what contradicts refused."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rlaif.errors import InputError, RunError
from rlaif.labeling.manifest import Manifest
from rlaif.store import Ledger

LEDGER = "judgments.db"
_NEWEST = 2
_ANSWER = ("rationale", "choice_logprobs", "hard_choice", "finish_reason", "error", "status", "p_first", "choice_mass")
_COMPLETION = (
    "key, rationale, choice_logprobs, hard_choice, finish_reason, prompt_tokens, completion_tokens, error, status, "
    "p_first, choice_mass, judge"
)
_QUESTION = 'pair_id, objective, "order", sample'


@dataclass(frozen=True)
class MergeSource:
    """A run to merge, as the user named it."""

    run: Path
    manifest: Manifest

    @property
    def ledger(self) -> Path:
        """Where its answers are."""
        return self.run / LEDGER

    @property
    def done(self) -> bool:
        """Whether it ended, so that its labels are those of its ledger."""
        return self.manifest.state == "done" and (self.run / "labels.jsonl").is_file()


@contextmanager
def kept_still(source: MergeSource) -> Iterator[None]:
    """Hold off a process that would write the run meanwhile.

    Raises:
        RunError: one is writing it now.
    """
    try:
        lock = source.ledger.with_suffix(".lock").open("r")
    except OSError:
        # Copied without it, or not ours to open: then nobody writes it here.
        yield
        return
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"{source.run}: another process is writing this run; wait for it.") from None
        except OSError:
            pass
        yield


class MergedLedger:
    """A new ledger that takes in one run after the other; what it looks up meanwhile is in temporary files.

    Nothing protects it from a kill: it is made in a folder that is thrown away then.

    Raises:
        RunError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._taken: list[MergeSource] = []
        with closing(Ledger(path)):
            pass
        with self.writing():
            self.db = sqlite3.connect(path.resolve().as_uri(), uri=True, isolation_level=None)
            for pragma in ("journal_mode = DELETE", "journal_mode = OFF", "synchronous = OFF", "cache_size = -32000"):
                self.db.execute(f"PRAGMA {pragma}")
            self.db.execute("PRAGMA temp_store = FILE")

    def take(self, source: MergeSource) -> int:
        """Add a run's answers and questions; returns how many of its judgments were there before.

        Raises:
            InputError: it answers a question otherwise than a run before, or its pair of some id is another one.
            RunError: its ledger cannot be read, or this one cannot be written.
        """
        with self._attached(source) as version:
            rating = "rating" if version >= 2 else "NULL"
            generation = source.manifest.generation
            self._refuse_contradiction(source, rating)
            self._refuse_other_pair(source)
            query = (
                f"SELECT count(*) FROM source.plan theirs JOIN main.plan ours USING ({_QUESTION}) "
                "JOIN source.completions a ON a.key = theirs.key JOIN main.completions b ON b.key = ours.key "
                "WHERE theirs.generation = ?"
            )
            (repeated,) = self.db.execute(query, (generation,)).fetchone()
            self.db.execute("BEGIN")
            self.db.execute(
                f"INSERT OR IGNORE INTO main.completions SELECT {_COMPLETION}, {rating} FROM source.completions"
            )
            # Questions of before an update that has not ended are no longer asked; their answers stay.
            self.db.execute(
                f"INSERT OR IGNORE INTO main.plan SELECT {_QUESTION}, key, principle, constitution, template, 0 "
                "FROM source.plan WHERE generation = ?",
                (generation,),
            )
            self.db.execute("COMMIT")
        self._taken.append(source)
        return int(repeated)

    def _refuse_contradiction(self, source: MergeSource, rating: str) -> None:
        differs = " OR ".join(f"theirs.{name} IS NOT ours.{name}" for name in _ANSWER)
        theirs = "theirs.rating" if rating == "rating" else "NULL"
        found = self.db.execute(
            "SELECT key FROM source.completions theirs JOIN main.completions ours USING (key) "
            f"WHERE {differs} OR {theirs} IS NOT ours.rating LIMIT 1"
        ).fetchone()
        if found is None:
            return
        (key,) = found
        query = "SELECT pair_id, objective FROM source.plan WHERE key = ? LIMIT 1"
        pair = self.db.execute(query, (key,)).fetchone()
        what = f"{pair[1]} of pair {pair[0][:80]!r}" if pair else f"the question of key {key[:12]}"
        other = self._holder("SELECT 1 FROM source.completions WHERE key = ?", key)
        raise InputError(
            f"{other} and {source.run}: different answers to the same question, {what}; leave one of the two runs "
            "out, and rlaif label on the merged run asks what only it had."
        )

    def _refuse_other_pair(self, source: MergeSource) -> None:
        found = self.db.execute(
            f"SELECT {_QUESTION} FROM source.plan theirs JOIN main.plan ours USING ({_QUESTION}) "
            "WHERE theirs.generation = ? AND theirs.key <> ours.key LIMIT 1",
            (source.manifest.generation,),
        ).fetchone()
        if found is None:
            return
        other = self.who_asked(found[0])
        raise InputError(
            f"{other} and {source.run}: pair {found[0][:80]!r} has other texts in each; an id stands for one pair: "
            "label one of the two datasets again with ids of its own, or leave one run out."
        )

    def who_asked(self, pair_id: str) -> Path:
        """The first run that was asked about a pair, for an error."""
        return self._holder("SELECT 1 FROM source.plan WHERE pair_id = ?", pair_id)

    def _holder(self, query: str, value: str) -> Path:
        self._detach()
        for other in self._taken:
            with self._attached(other):
                if self.db.execute(query, (value,)).fetchone():
                    return other.run
        raise AssertionError("what is in the merged ledger is in one of the runs")

    @contextmanager
    def _attached(self, source: MergeSource) -> Iterator[int]:
        """Read a run's ledger as `source`; yields its version."""
        try:
            # Without a log there is nothing to recover, and reading leaves no file behind.
            log = source.ledger.with_name(f"{LEDGER}-wal")
            mode = "mode=ro" if log.exists() and log.stat().st_size else "immutable=1"
            self.db.execute("ATTACH ? AS source", (f"{source.ledger.resolve().as_uri()}?{mode}",))
            try:
                (version,) = self.db.execute("PRAGMA source.user_version").fetchone()
                if version > _NEWEST:
                    raise RunError(f"{source.ledger}: a ledger of version {version}; use the rlaif that made it.")
                yield version
            finally:
                self._detach()
        except sqlite3.Error as error:
            if _is_ours(error):
                raise _unwritable(self._path, error) from None
            raise RunError(
                f"{source.ledger}: cannot be read ({error}); it is damaged or no ledger: copy the run again, or leave "
                "it out."
            ) from None

    def _detach(self) -> None:
        if self.db.in_transaction:
            self.db.execute("ROLLBACK")
        if any(name == "source" for _, name, _ in self.db.execute("PRAGMA database_list")):
            self.db.execute("DETACH source")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Name what fails where only this ledger and its temporary files are in use."""
        try:
            yield
        except sqlite3.Error as error:
            raise _unwritable(self._path, error) from None

    def close(self) -> None:
        """Let go of the file, and make it durable."""
        self.db.close()
        with self._path.open("rb") as file:
            os.fsync(file.fileno())


def _is_ours(error: sqlite3.Error) -> bool:
    """Whether writing failed, not reading a source."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    reading = (sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ)
    return code & 0xFF == sqlite3.SQLITE_FULL or (code & 0xFF == sqlite3.SQLITE_IOERR and code not in reading)


def _unwritable(path: Path, error: sqlite3.Error) -> RunError:
    return RunError(
        f"{path}: cannot be written ({error}); free some space or fix the folder, then give the same command again: "
        "the runs are as they were."
    )
