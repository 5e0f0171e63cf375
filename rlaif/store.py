"""The ledger: every answer of a run in one SQLite file (`judgments.db`), written by one process.

`completions` holds what was answered, by key, and is only added to. `plan` says which key answers which question of
which pair now. The view `judgments` joins the two: one row a judgment.
"""

from __future__ import annotations

import fcntl
import math
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, cast

import orjson

from rlaif.errors import RunError
from rlaif.types import Completion, FinishReason, JudgeRequest, Order, Reading, Status, Usage, Verdict

_VERSION = 2
_SCHEMA = """
CREATE TABLE IF NOT EXISTS completions (
    key TEXT PRIMARY KEY,            -- SHA-256 of everything that could change the answer
    rationale TEXT NOT NULL,
    choice_logprobs TEXT,            -- JSON object, natural logarithms
    hard_choice TEXT,
    finish_reason TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    error TEXT,
    status TEXT NOT NULL,            -- ok, truncated, refused, unread or error
    p_first REAL,                    -- probability that the response shown first is better
    choice_mass REAL,
    judge TEXT NOT NULL,             -- digest of the judge that answered
    rating REAL                      -- mean of the distribution over the ratings, where the template asks for one
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS plan (
    pair_id TEXT NOT NULL,
    objective TEXT NOT NULL,
    "order" TEXT NOT NULL,
    sample INTEGER NOT NULL,
    key TEXT NOT NULL,
    principle TEXT,                  -- the principle drawn, with --principles sample
    constitution TEXT NOT NULL,      -- digests of what the question was made with
    template TEXT NOT NULL,
    generation INTEGER NOT NULL,
    PRIMARY KEY (pair_id, objective, "order", sample)
) WITHOUT ROWID;
CREATE VIEW IF NOT EXISTS judgments AS
SELECT p.pair_id, p.objective, p."order", p.sample, p.principle, c.status,
       CASE p."order" WHEN 'ab' THEN c.p_first ELSE 1.0 - c.p_first END AS p_a,
       c.choice_mass, c.rationale, c.choice_logprobs, c.hard_choice, c.finish_reason, c.error,
       c.prompt_tokens, c.completion_tokens, p.key, c.judge, p.constitution, p.template, c.rating
FROM plan p JOIN completions c ON c.key = p.key;
"""
# From version 1, which knew no ratings.
_UPGRADE = f"""
BEGIN IMMEDIATE;
ALTER TABLE completions ADD COLUMN rating REAL;
DROP VIEW judgments;
PRAGMA user_version = {_VERSION};
COMMIT;
"""
_VERDICT_OF_VERSION_1 = (
    'pair_id, objective, "order", sample, status, p_a, choice_mass, error, principle, NULL, NULL, hard_choice'
)
_VERDICT = _VERDICT_OF_VERSION_1.replace("NULL, NULL", "rating, CASE WHEN rating IS NOT NULL THEN choice_logprobs END")
_PUT = "INSERT OR REPLACE INTO completions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_PLAN = "INSERT OR REPLACE INTO plan VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"


@dataclass(frozen=True)
class LedgerCounts:
    """What a ledger holds under the present plan."""

    statuses: dict[str, int]
    prompt_tokens: int
    completion_tokens: int
    mean_choice_mass: float | None


class Ledger:
    """The answers of one run. A killed process loses at most what was not yet committed.

    Args:
        option: the option that names the file, for errors.

    Raises:
        RunError: the file cannot be written, is not a ledger, or another process is writing it.
    """

    def __init__(self, path: Path, option: str = "--out") -> None:
        self.path, self._option = path, option
        with self._explained(), ExitStack() as opened:
            self._lock = opened.enter_context(path.with_suffix(".lock").open("w"))
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunError(
                    f"{path}: another process is writing this run; wait for it, or choose another {option}."
                ) from None
            self._db = _connect(path)
            opened.pop_all()

    def begin(self, generation: int, constitution: str, template: str, judge: str) -> None:
        """State what the coming questions are made with. `generation` counts the updates of a run."""
        self._generation, self._judge = generation, judge
        self._made_with = (constitution, template, generation)

    def plan(self, requests: Sequence[JudgeRequest]) -> set[str]:
        """Record which keys answer these questions, and return the keys that have no answer yet."""
        rows = [(r.pair_id, r.objective, r.order, r.sample, r.key, r.principle, *self._made_with) for r in requests]
        with self._explained():
            self._db.executemany(_PLAN, rows)
        return self.missing([request.key for request in requests])

    def missing(self, keys: Sequence[str]) -> set[str]:
        """Of these keys, those without an answer."""
        absent = set(keys)
        with self._explained():
            for start in range(0, len(keys), 500):
                part = keys[start : start + 500]
                marks = ",".join("?" * len(part))
                found = self._db.execute(f"SELECT key FROM completions WHERE key IN ({marks})", part)
                absent.difference_update(key for (key,) in found)
        return absent

    def put(self, answered: Iterable[tuple[Completion, Reading | None]]) -> None:
        """Add answers, each with what was read from it (`None` for a policy's text), and commit."""
        rows = [_completion_row(completion, reading, self._judge) for completion, reading in answered]
        with self._explained():
            self._db.executemany(_PUT, rows)
            self._db.commit()

    def commit(self) -> None:
        """Make what was planned durable."""
        with self._explained():
            self._db.commit()

    def get(self, key: str) -> Completion | None:
        """Return the answer to one key."""
        with self._explained():
            columns = (
                "key, rationale, choice_logprobs, hard_choice, finish_reason, prompt_tokens, completion_tokens, error"
            )
            row = self._db.execute(f"SELECT {columns} FROM completions WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        return Completion(
            key=row[0],
            rationale=row[1],
            choice_logprobs=orjson.loads(row[2]) if row[2] else {},
            hard_choice=row[3],
            finish_reason=cast("FinishReason", row[4]),
            usage=Usage(prompt_tokens=row[5], completion_tokens=row[6]),
            error=row[7],
        )

    def verdicts(self, pair_ids: Sequence[str], made_by: tuple[str, str] | None = None) -> dict[str, list[Verdict]]:
        """Return the verdicts of these pairs (500 at most) under the present plan.

        Args:
            made_by: only those of this template and this judge (digests): of one stage of a cascade.
        """
        marks = ",".join("?" * len(pair_ids))
        stage = " AND template = ? AND judge = ?" if made_by else ""
        query = (
            f"SELECT {_VERDICT} FROM judgments WHERE pair_id IN ({marks}){stage} "
            'ORDER BY pair_id, objective, sample, "order"'
        )
        found: dict[str, list[Verdict]] = {pair_id: [] for pair_id in pair_ids}
        with self._explained():
            for row in self._db.execute(query, [*pair_ids, *(made_by or ())]):
                found[row[0]].append(_verdict(row))
        return found

    def unplan(self, questions: Iterable[tuple[str, str]]) -> None:
        """Drop the plan of these pairs and objectives, so that what is planned next is all that answers them."""
        with self._explained():
            self._db.executemany("DELETE FROM plan WHERE pair_id = ? AND objective = ?", questions)

    def spent(self, made_by: tuple[str, str]) -> list[tuple[str, str, int, int, int]]:
        """Count what the present plan asks of one template and judge (digests).

        Returns rows of (objective, status, judgments, prompt tokens, completion tokens).
        """
        query = (
            "SELECT p.objective, c.status, count(*), sum(c.prompt_tokens), sum(c.completion_tokens) "
            "FROM plan p JOIN completions c ON c.key = p.key WHERE p.generation = ? AND p.template = ? AND c.judge = ? "
            "GROUP BY p.objective, c.status"
        )
        with self._explained():
            return self._db.execute(query, (self._made_with[2], *made_by)).fetchall()

    def forget_older(self) -> None:
        """Drop questions that the present plan no longer asks; their answers stay, should they be asked again."""
        with self._explained():
            self._db.execute("DELETE FROM plan WHERE generation < ?", (self._generation,))
            self._db.commit()

    def counts(self) -> LedgerCounts:
        """Count judgments by status, and tokens, over the present plan."""
        query = (
            "SELECT status, count(*), sum(prompt_tokens), sum(completion_tokens), sum(choice_mass), count(choice_mass) "
            "FROM judgments GROUP BY status ORDER BY status"
        )
        with self._explained():
            rows = self._db.execute(query).fetchall()
        weighed = sum(row[5] for row in rows)
        return LedgerCounts(
            statuses={row[0]: row[1] for row in rows},
            prompt_tokens=sum(row[2] for row in rows),
            completion_tokens=sum(row[3] for row in rows),
            mean_choice_mass=sum(row[4] or 0.0 for row in rows) / weighed if weighed else None,
        )

    def reasons(self, limit: int = 5) -> list[tuple[str, int]]:
        """The commonest reasons for judgments that failed."""
        query = "SELECT error, count(*) n FROM judgments WHERE error IS NOT NULL GROUP BY error ORDER BY n DESC LIMIT ?"
        with self._explained():
            return [(error, count) for error, count in self._db.execute(query, (limit,))]

    def close(self) -> None:
        """Commit and let another process write."""
        try:
            with self._explained():
                self._db.commit()
        finally:
            self._db.close()
            self._lock.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            if type(error) is sqlite3.DatabaseError:
                # Not a lock, a full disk or a missing folder (OperationalError): the content itself.
                raise RunError(
                    f"{self.path}: cannot be written or read ({error}); the file is damaged or no ledger: "
                    f"move it away to ask everything again, or choose another {self._option}."
                ) from None
            raise RunError(
                f"{self.path}: cannot be written or read ({error}); free some space or fix the folder, then give the "
                "same command again: what was committed is kept."
            ) from None


@dataclass(frozen=True)
class Judgment:
    """One row of the view `judgments`, for reading."""

    objective: str
    order: str
    sample: int
    principle: str | None
    status: str
    p_a: float | None
    choice_mass: float | None
    rationale: str
    error: str | None
    rating: float | None = None


def holds_answers(path: Path) -> bool:
    """Tell whether a ledger holds any answer; one that cannot be read counts as holding some."""
    if not path.is_file():
        return False
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=10)) as db:
            return bool(db.execute("SELECT EXISTS (SELECT 1 FROM completions)").fetchone()[0])
    except sqlite3.Error:
        return True


def read_judgments(path: Path, pair_id: str) -> list[Judgment]:
    """Read one pair's judgments from a ledger, also while a run is writing it.

    Raises:
        RunError: there is no readable ledger.
    """
    columns = 'objective, "order", sample, principle, status, p_a, choice_mass, rationale, error'
    try:
        db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=10)
        try:
            # A ledger of an earlier version is read as it is; writing to it brings it up.
            rating = ", rating" if db.execute("PRAGMA user_version").fetchone()[0] >= _VERSION else ""
            query = f'SELECT {columns}{rating} FROM judgments WHERE pair_id = ? ORDER BY objective, sample, "order"'
            return [Judgment(*row) for row in db.execute(query, (pair_id,))]
        finally:
            db.close()
    except sqlite3.Error as error:
        raise RunError(f"{path}: cannot be read ({error}); give the folder of a labelling run.") from None


def read_verdicts_by_pair(
    path: Path, constitution: str, pair_id: str | None = None
) -> Iterator[tuple[str, list[tuple[Verdict, str]]]]:
    """Read a ledger's verdicts with their rationales, pair by pair in the order of the ids, or those of one pair.

    A run may be writing it meanwhile.

    Args:
        constitution: digest of the constitution that the questions were made with; others are passed over.

    Raises:
        RunError: there is no readable ledger.
    """
    where, values = ("", [constitution]) if pair_id is None else (" AND pair_id = ?", [constitution, pair_id])
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=10)) as db:
            columns = _VERDICT if db.execute("PRAGMA user_version").fetchone()[0] >= 2 else _VERDICT_OF_VERSION_1
            query = f"SELECT {columns}, rationale FROM judgments WHERE constitution = ?{where} "
            rows = db.execute(f'{query} ORDER BY pair_id, objective, sample, "order"', values)
            for name, group in groupby(rows, key=itemgetter(0)):
                yield name, [(_verdict(row), row[-1]) for row in group]
    except sqlite3.Error as error:
        raise RunError(f"{path}: cannot be read ({error}); give the folder of a labelling run.") from None


def _connect(path: Path) -> sqlite3.Connection:
    with ExitStack() as opened:
        db = opened.enter_context(closing(sqlite3.connect(path, isolation_level="DEFERRED", timeout=10)))
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, 1, _VERSION):
            raise RunError(
                f"{path}: a ledger of version {version}; this rlaif writes version {_VERSION}. "
                "Use the rlaif that made it."
            )
        db.execute("PRAGMA journal_mode = WAL")
        # Safe when the process is killed; only a power cut may cost the last commits.
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA cache_size = -16000")
        if version == 1:
            db.executescript(_UPGRADE)
        db.executescript(_SCHEMA)
        db.execute(f"PRAGMA user_version = {_VERSION}")
        opened.pop_all()
        return db


def _completion_row(completion: Completion, reading: Reading | None, judge: str) -> tuple[object, ...]:
    reading = reading or Reading(status="error" if completion.error else "ok", reason=completion.error)
    # JSON has no infinity; a choice that is not listed has probability 0 as well.
    logprobs = {choice: value for choice, value in completion.choice_logprobs.items() if math.isfinite(value)}
    return (
        completion.key,
        _storable(completion.rationale),
        orjson.dumps(logprobs).decode() if logprobs else None,
        completion.hard_choice,
        completion.finish_reason,
        completion.usage.prompt_tokens,
        completion.usage.completion_tokens,
        _storable(reading.reason) if reading.reason else None,
        reading.status,
        reading.p_first,
        reading.choice_mass,
        judge,
        reading.rating,
    )


def _verdict(row: Sequence[Any]) -> Verdict:
    """Make a verdict of a row of the columns `_VERDICT`."""
    _, objective, order, sample, status, p_a, mass, error, principle, rating, logprobs, hard = row[:12]
    return Verdict.model_construct(
        objective=objective,
        order=cast("Order", order),
        sample=sample,
        status=cast("Status", status),
        p_a=p_a,
        choice_mass=mass,
        reason=error,
        principle=principle,
        rating=rating,
        rating_logprobs=_rating_logprobs(logprobs, hard) if rating is not None else {},
    )


def _rating_logprobs(logprobs: str | None, hard_choice: str) -> dict[str, float]:
    # A rating that was written and not weighed has all of the probability.
    return dict(orjson.loads(logprobs)) if logprobs else {hard_choice: 0.0}


def _storable(text: str) -> str:
    # A model can write half a surrogate pair, and SQLite stores only UTF-8.
    return text.encode("utf-8", "replace").decode()
