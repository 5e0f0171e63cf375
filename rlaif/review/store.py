"""The study: pairs and people's answers in one SQLite file beside LABELS, written by one process.

`events` is only added to: one row an answer, and an answer that was taken back is marked, not removed. A question of a
person has at most one live answer, and the file itself sees to it. An answer is on the disk before `answer` returns.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import secrets
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rlaif.errors import InputError, RunError
from rlaif.review.queue import Choice, Queue, Side, place_of, shown_first, side_chosen
from rlaif.review.schema import connect, unusable
from rlaif.types import Message, Pair


@dataclass(frozen=True)
class Answer:
    """What a person chose for one question, as the page sends it."""

    nonce: str
    annotator: str
    key: str
    objective: str
    choice: Choice
    note: str = ""
    seconds: float | None = None


@dataclass(frozen=True)
class Question:
    """One pair under one objective for one person. `before` is the answer that they just took back, if they did."""

    pair: Pair
    key: str
    number: int
    objective: str
    first: Side
    before: tuple[Choice, str] | None = None


@dataclass(frozen=True)
class Progress:
    """How far a person is; `last` is the number of the answer that they can take back."""

    answered: int
    skipped: int
    total: int
    last: int | None
    question: Question | None


class Study:
    """Pairs, objectives, answers and sessions. Safe to use from several threads.

    Args:
        labels: the file that answers are exported to; the study is `labels` with `.db` behind its name.

    Raises:
        RunError: the file cannot be written, is not a study, or another process has it.
    """

    def __init__(self, labels: Path) -> None:
        self.path = labels.with_name(f"{labels.name}.db")
        self._turn = threading.RLock()
        self._queues: dict[str, Queue] = {}
        with self._explained(), ExitStack() as opened:
            self._lock = opened.enter_context(labels.with_name(f"{labels.name}.lock").open("w"))
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunError(
                    f"{self.path}: another rlaif review has this file open; use its page, end it, "
                    "or choose another --out."
                ) from None
            self._db = connect(self.path)
            opened.pop_all()
        self.id = self.setting("id", secrets.token_hex(8))
        self.objectives: tuple[str, ...] = ()
        self.pairs = 0

    def setting(self, name: str, value: str) -> str:
        """Return what is kept under a name; at first that is `value`."""
        with self._writing() as db:
            db.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (name, value))
            return str(db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()[0])

    def keep(self, name: str, value: str) -> None:
        """Keep a value under a name, in place of the one before."""
        with self._writing() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def load(self, pairs: Iterable[Pair], name: str, questions: Mapping[str, str], seed: int) -> None:
        """Take in the pairs and what is asked about each; answers that are there already stay.

        Raises:
            InputError: a pair that has answers is missing or reads differently now, an objective with answers asks
                another question now, or the seed is not the one of the answers.
        """
        with self._writing() as db:
            kept = self.setting("seed", str(seed))
            if kept != str(seed):
                if db.execute("SELECT EXISTS (SELECT 1 FROM events)").fetchone()[0]:
                    raise InputError(
                        f"--seed {seed}: {self.path} was begun with --seed {kept}; give that one, or another --out."
                    )
                self.keep("seed", str(seed))
            self._load_pairs(db, pairs, name)
            self._load_questions(db, questions)
            self.pairs = db.execute("SELECT count(position) FROM pairs").fetchone()[0]
        self.seed, self.objectives = seed, tuple(questions)
        self._queues.clear()

    def _load_pairs(self, db: sqlite3.Connection, pairs: Iterable[Pair], name: str) -> None:
        db.execute("UPDATE pairs SET position = NULL")
        answered = "EXISTS (SELECT 1 FROM events WHERE pair_id = pairs.id)"
        changed: list[str] = []
        for position, pair in enumerate(pairs):
            prompt = json.dumps([[turn.role, turn.content] for turn in pair.prompt], ensure_ascii=False)
            texts = (prompt, pair.response_a, pair.response_b)
            digest = hashlib.sha256(json.dumps(texts).encode()).hexdigest()
            known = db.execute(f"SELECT digest, {answered} FROM pairs WHERE id = ?", (pair.id,)).fetchone()
            if known and known[0] == digest:
                db.execute("UPDATE pairs SET position = ? WHERE id = ?", (position, pair.id))
                continue
            if known and known[1]:
                changed.append(pair.id)
            key = hashlib.sha256(f"{self.id}\x00{pair.id}\x00{digest}".encode()).hexdigest()[:24]
            db.execute("INSERT OR REPLACE INTO pairs VALUES (?,?,?,?,?,?,?)", (pair.id, position, key, digest, *texts))
        gone = db.execute(f"SELECT id FROM pairs WHERE position IS NULL AND {answered}").fetchall()
        for what, ids in (("reads differently", changed), ("is missing", [row[0] for row in gone])):
            if ids:
                others = f" (and of {len(ids) - 1:,} more)" if len(ids) > 1 else ""
                raise InputError(
                    f"{name}: pair {ids[0][:80]!r}{others}, which has answers in {self.path}, {what} here; "
                    "give the pairs that were labelled (more may be added), or choose another --out."
                )
        db.execute("DELETE FROM pairs WHERE position IS NULL")

    def _load_questions(self, db: sqlite3.Connection, questions: Mapping[str, str]) -> None:
        db.execute("UPDATE objectives SET position = NULL")
        query = "SELECT question, EXISTS (SELECT 1 FROM events WHERE objective = ?1) FROM objectives WHERE name = ?1"
        for position, (name, question) in enumerate(questions.items()):
            known = db.execute(query, (name,)).fetchone()
            if known and known[1] and known[0] != question:
                raise InputError(
                    f"{self.path}: holds answers of {name} to {known[0]!r}, which is now {question!r}; "
                    "labels of one file answer one question. Choose another --out."
                )
            db.execute("INSERT OR REPLACE INTO objectives VALUES (?, ?, ?)", (name, position, question))

    def annotators(self) -> list[str]:
        """Everyone who has answered, by name."""
        with self._reading() as db:
            return [name for (name,) in db.execute("SELECT DISTINCT annotator FROM events ORDER BY annotator")]

    def progress(self, annotator: str, number: int | None = None) -> Progress:
        """Say how far a person is and what they are asked next: question `number` where that is open."""
        with self._reading() as db:
            queue = self._queue(annotator)
            chosen = number if number is not None and queue.is_open(number) else queue.next()
            return Progress(
                answered=queue.answered,
                skipped=queue.skipped,
                total=queue.total,
                last=_last(db, annotator),
                question=None if chosen is None else self._question(db, annotator, chosen),
            )

    def answer(self, given: Answer) -> bool:
        """Keep an answer, durably; `False` where the question has one already that is not this very answer.

        Raises:
            KeyError: there is no such pair or objective.
        """
        with self._writing() as db:
            number, pair_id = self._place(db, given.key, given.objective)
            if db.execute("SELECT EXISTS (SELECT 1 FROM events WHERE nonce = ?)", (given.nonce,)).fetchone()[0]:
                return True
            queue = self._queue(given.annotator)
            if not queue.is_open(number):
                return False
            first = shown_first(self.seed, given.annotator, pair_id)
            answer = side_chosen(given.choice, first) or "skip"
            row = (given.nonce, given.annotator, pair_id, given.objective, answer, given.note, first, given.seconds)
            db.execute(
                "INSERT INTO events (nonce, annotator, pair_id, objective, answer, note, shown_first, seconds, at) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*row, datetime.now(UTC).isoformat(timespec="milliseconds")),
            )
            db.commit()
            queue.mark(number, "skipped" if answer == "skip" else "answered")
            return True

    def undo(self, annotator: str, last: int) -> Progress:
        """Take back a person's answer `last`, if it is still their last one, and ask that question again."""
        with self._writing() as db:
            if _last(db, annotator) != last:
                return self.progress(annotator)
            columns = (
                "UPDATE events SET undone = 1 WHERE seq = ? RETURNING pair_id, objective, answer, note, shown_first"
            )
            ((pair_id, objective, answer, note, first),) = db.execute(columns, (last,)).fetchall()
            key = db.execute("SELECT key FROM pairs WHERE id = ?", (pair_id,)).fetchone()[0]
            number, _ = self._place(db, key, objective)
            db.commit()
            self._queue(annotator).mark(number, "open")
            now = self.progress(annotator, number)
            question = self._question(db, annotator, number, (place_of(answer, first), note))
            return Progress(now.answered, now.skipped, now.total, now.last, question)

    def reopen(self, annotator: str) -> Progress:
        """Ask again what a person skipped."""
        with self._writing() as db:
            asked = "objective IN (SELECT name FROM objectives WHERE position IS NOT NULL)"
            query = f"UPDATE events SET undone = 1 WHERE annotator = ? AND undone = 0 AND answer = 'skip' AND {asked}"
            db.execute(query, (annotator,))
            db.commit()
            self._queues.pop(annotator, None)
            return self.progress(annotator)

    def begin_session(self, digest: str, since: datetime) -> None:
        """Remember a browser by the digest of its secret, and forget those from before `since`."""
        with self._writing() as db:
            db.execute("DELETE FROM sessions WHERE at < ?", (since.isoformat(),))
            db.execute("INSERT OR REPLACE INTO sessions VALUES (?, ?)", (digest, datetime.now(UTC).isoformat()))

    def has_session(self, digest: str, since: datetime) -> bool:
        """Whether a browser began its session after `since`."""
        with self._reading() as db:
            query = "SELECT EXISTS (SELECT 1 FROM sessions WHERE digest = ? AND at >= ?)"
            return bool(db.execute(query, (digest, since.isoformat())).fetchone()[0])

    def close(self) -> None:
        """Let another process have the study."""
        with self._turn:
            self._db.close()
            self._lock.close()

    def _queue(self, annotator: str) -> Queue:
        queue = self._queues.get(annotator)
        if queue is None:
            queue = Queue(self.pairs, len(self.objectives))
            query = (
                "SELECT p.position, o.position, e.answer FROM events e JOIN pairs p ON p.id = e.pair_id "
                "JOIN objectives o ON o.name = e.objective "
                "WHERE e.annotator = ? AND e.undone = 0 AND o.position IS NOT NULL"
            )
            for pair, objective, answer in self._db.execute(query, (annotator,)):
                number = pair * queue.objectives + objective
                queue.mark(number, "skipped" if answer == "skip" else "answered")
            self._queues[annotator] = queue
        return queue

    def _place(self, db: sqlite3.Connection, key: str, objective: str) -> tuple[int, str]:
        """The number of a question, and the id of its pair."""
        row = db.execute("SELECT position, id FROM pairs WHERE key = ?", (key,)).fetchone()
        if row is None or objective not in self.objectives:
            raise KeyError(key)
        return row[0] * len(self.objectives) + self.objectives.index(objective), row[1]

    def _question(
        self, db: sqlite3.Connection, annotator: str, number: int, before: tuple[Choice, str] | None = None
    ) -> Question:
        position, objective = divmod(number, len(self.objectives))
        query = "SELECT id, key, prompt, response_a, response_b FROM pairs WHERE position = ?"
        name, key, prompt, a, b = db.execute(query, (position,)).fetchone()
        turns = tuple(Message(role=role, content=content) for role, content in json.loads(prompt))
        pair = Pair(id=name, prompt=turns, response_a=a, response_b=b)
        first = shown_first(self.seed, annotator, name)
        return Question(pair, key, number, self.objectives[objective], first, before)

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._turn, self._explained():
            yield self._db

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._turn, self._explained():
            outermost = not self._db.in_transaction
            try:
                yield self._db
            except BaseException:
                self._db.rollback()
                raise
            if outermost:
                self._db.commit()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise unusable(self.path, error) from None


def _last(db: sqlite3.Connection, annotator: str) -> int | None:
    query = (
        "SELECT seq FROM events WHERE annotator = ? AND undone = 0 "
        "AND objective IN (SELECT name FROM objectives WHERE position IS NOT NULL) ORDER BY seq DESC LIMIT 1"
    )
    found = db.execute(query, (annotator,)).fetchone()
    return None if found is None else int(found[0])
