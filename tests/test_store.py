"""The ledger, on real SQLite files."""

from __future__ import annotations

import math
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rlaif.errors import RunError
from rlaif.store import Judgment, Ledger, holds_answers, read_judgments
from rlaif.types import Completion, JudgeRequest, Order, Reading, Usage
from tests.conftest import environment

OK = Reading(status="ok", p_first=0.75, choice_mass=0.8)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "judgments.db")
    opened.begin(0, "constitution-1", "template-1", "judge-1")
    yield opened
    opened.close()


def request(key: str, order: Order = "ab", pair_id: str = "p", **changed: Any) -> JudgeRequest:
    values = {"key": key, "pair_id": pair_id, "messages": (), "objective": "kind", "order": order}
    return JudgeRequest.model_validate(values | changed)


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    db = sqlite3.connect(path)
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


COMPLETIONS = {
    "everything": Completion(
        key="k",
        rationale="First A, then B.\nVerdict:",
        choice_logprobs={"A": math.log(0.6), "B": -1.6094379124341003},
        finish_reason="length",
        usage=Usage(prompt_tokens=290, completion_tokens=64),
    ),
    "only a choice": Completion(key="k", hard_choice="B"),
    "an error": Completion(key="k", finish_reason="error", error="longer than the judge's context"),
    "any text": Completion(key="k", rationale="naïve 🙂 \x00 \u2028 ' \" \\ ; DROP TABLE plan"),
    "extreme": Completion(key="k", choice_logprobs={"A": -1000.0, "B": -1e-300}),
}


@pytest.mark.parametrize("kind", COMPLETIONS)
def test_an_answer_comes_back_as_it_was(ledger: Ledger, kind: str) -> None:
    completion = COMPLETIONS[kind]
    reading = Reading(status="error", reason=completion.error) if completion.error else OK
    ledger.put([(completion, reading)])
    assert ledger.get("k") == completion
    assert ledger.get("other") is None


def test_a_choice_without_probability_is_left_out(ledger: Ledger) -> None:
    ledger.put([(Completion(key="k", choice_logprobs={"A": -0.5, "B": -math.inf}), OK)])
    assert ledger.get("k") == Completion(key="k", choice_logprobs={"A": -0.5})


def test_half_a_surrogate_pair_is_stored(ledger: Ledger) -> None:
    broken = Completion(key="k", rationale="So \ud83d", error="no \udc80", finish_reason="error")
    ledger.put([(broken, None)])
    stored = ledger.get("k")
    assert stored is not None
    assert (stored.rationale, stored.error) == ("So ?", "no ?")


def test_an_answer_given_again_replaces_the_first(ledger: Ledger) -> None:
    ledger.put([(Completion(key="k", rationale="one"), OK), (Completion(key="k", rationale="two"), OK)])
    stored = ledger.get("k")
    assert stored is not None
    assert stored.rationale == "two"


def test_missing(ledger: Ledger) -> None:
    # More than one query's worth of keys.
    keys = [f"key-{number}" for number in range(1203)]
    ledger.put([(Completion(key=key), OK) for key in keys[::2]])
    assert ledger.missing(keys) == set(keys[1::2])
    assert ledger.missing([]) == set()
    assert ledger.plan([request(key, sample=number) for number, key in enumerate(keys)]) == set(keys[1::2])


def test_one_row_a_judgment_in_the_pairs_own_order(ledger: Ledger) -> None:
    ledger.plan([request("k1", "ab"), request("k2", "ba", principle="rule"), request("k3", "ba", sample=1)])
    ledger.put([(Completion(key="k1", rationale="R1"), OK), (Completion(key="k2", rationale="R2"), OK)])
    names = 'pair_id, objective, "order", sample, principle, status, p_a, choice_mass, rationale, key, judge'
    # What is shown first in ba is response b: 0.75 for the first is 0.25 for a.
    assert rows(ledger.path, f'SELECT {names}, constitution, template FROM judgments ORDER BY "order"') == [
        ("p", "kind", "ab", 0, None, "ok", 0.75, 0.8, "R1", "k1", "judge-1", "constitution-1", "template-1"),
        ("p", "kind", "ba", 0, "rule", "ok", 0.25, 0.8, "R2", "k2", "judge-1", "constitution-1", "template-1"),
    ]
    first, second = ledger.verdicts(["p", "q"])["p"]
    assert (first.order, first.p_a, first.principle) == ("ab", 0.75, None)
    assert (second.order, second.p_a, second.principle) == ("ba", 0.25, "rule")
    assert ledger.verdicts(["p", "q"])["q"] == []


def test_one_answer_serves_every_question_with_its_key(ledger: Ledger) -> None:
    ledger.plan([request("k", "ab"), request("k", "ba"), request("k", "ab", pair_id="copy")])
    ledger.put([(Completion(key="k", usage=Usage(prompt_tokens=10, completion_tokens=3)), OK)])
    assert [verdict.p_a for verdict in ledger.verdicts(["p"])["p"]] == [0.75, 0.25]
    assert [verdict.p_a for verdict in ledger.verdicts(["copy"])["copy"]] == [0.75]
    assert ledger.counts().statuses == {"ok": 3}


def test_a_rating_comes_back_with_its_distribution(ledger: Ledger) -> None:
    ledger.plan([request("k1", "ab"), request("k2", "ba"), request("k3", "ab", sample=1)])
    logprobs = {"7": math.log(0.6), "8": math.log(0.2)}
    rated = Reading(status="ok", rating=7.25, choice_mass=0.8)
    hard = Reading(status="ok", rating=10.0, hard=True)
    ledger.put(
        [(Completion(key="k1", choice_logprobs=logprobs), rated), (Completion(key="k2", hard_choice="10"), hard)]
    )
    ledger.put([(Completion(key="k3", choice_logprobs={"A": -0.1}), Reading(status="unread", reason="none"))])
    found = {(v.order, v.sample): (v.p_a, v.rating, v.rating_logprobs) for v in ledger.verdicts(["p"])["p"]}
    assert found["ab", 0] == (None, 7.25, logprobs)
    assert found["ba", 0] == (None, 10.0, {"10": 0.0})
    assert found["ab", 1] == (None, None, {})
    assert [judgment.rating for judgment in read_judgments(ledger.path, "p")] == [7.25, 10.0, None]
    query = 'SELECT "order", sample, p_a, rating FROM judgments ORDER BY sample, "order"'
    assert rows(ledger.path, query) == [("ab", 0, None, 7.25), ("ba", 0, None, 10.0), ("ab", 1, None, None)]


FIRST_VERSION = """
CREATE TABLE completions (
    key TEXT PRIMARY KEY, rationale TEXT NOT NULL, choice_logprobs TEXT, hard_choice TEXT, finish_reason TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, error TEXT, status TEXT NOT NULL, p_first REAL,
    choice_mass REAL, judge TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE plan (
    pair_id TEXT NOT NULL, objective TEXT NOT NULL, "order" TEXT NOT NULL, sample INTEGER NOT NULL, key TEXT NOT NULL,
    principle TEXT, constitution TEXT NOT NULL, template TEXT NOT NULL, generation INTEGER NOT NULL,
    PRIMARY KEY (pair_id, objective, "order", sample)
) WITHOUT ROWID;
CREATE VIEW judgments AS
SELECT p.pair_id, p.objective, p."order", p.sample, p.principle, c.status,
       CASE p."order" WHEN 'ab' THEN c.p_first ELSE 1.0 - c.p_first END AS p_a,
       c.choice_mass, c.rationale, c.choice_logprobs, c.hard_choice, c.finish_reason, c.error,
       c.prompt_tokens, c.completion_tokens, p.key, c.judge, p.constitution, p.template
FROM plan p JOIN completions c ON c.key = p.key;
INSERT INTO completions VALUES ('k', 'R', '{"A":-0.5}', NULL, 'stop', 10, 2, NULL, 'ok', 0.75, 0.6, 'judge-1');
INSERT INTO plan VALUES ('p', 'kind', 'ba', 0, 'k', NULL, 'constitution-1', 'template-1', 0);
PRAGMA journal_mode = WAL;
PRAGMA user_version = 1;
"""


def test_a_ledger_of_the_first_version_is_read_and_continued(tmp_path: Path) -> None:
    path = tmp_path / "judgments.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(FIRST_VERSION)
    # Looking at it changes nothing.
    assert read_judgments(path, "p") == [Judgment("kind", "ba", 0, None, "ok", 0.25, 0.6, "R", None)]
    assert rows(path, "PRAGMA user_version") == [(1,)]
    for _ in range(2):
        with closing(Ledger(path)) as ledger:
            ledger.begin(0, "constitution-1", "template-1", "judge-1")
            assert ledger.get("k") == Completion(
                key="k", rationale="R", choice_logprobs={"A": -0.5}, usage=Usage(prompt_tokens=10, completion_tokens=2)
            )
            before = ledger.verdicts(["p"])["p"][-1]
            assert (before.p_a, before.rating, before.choice_mass) == (0.25, None, 0.6)
            ledger.plan([request("new", "ab")])
            ledger.put([(Completion(key="new", choice_logprobs={"7": -0.5}), Reading(status="ok", rating=7.0))])
        assert [judgment.rating for judgment in read_judgments(path, "p")] == [7.0, None]
        assert rows(path, "PRAGMA user_version") == [(2,)]


def test_counts_and_reasons(ledger: Ledger) -> None:
    ledger.plan([request(f"k{number}", sample=number) for number in range(5)])
    failed = Reading(status="error", reason="too long")
    usage = Usage(prompt_tokens=10, completion_tokens=2)
    ledger.put(
        [
            (Completion(key="k0", usage=usage), OK),
            (Completion(key="k1", usage=usage), Reading(status="truncated", p_first=0.5, choice_mass=0.4)),
            (Completion(key="k2", error="too long"), failed),
            (Completion(key="k3", error="too long"), failed),
            (Completion(key="k4"), Reading(status="unread", reason="neither")),
            (Completion(key="not planned", usage=usage), OK),
        ]
    )
    counts = ledger.counts()
    assert counts.statuses == {"error": 2, "ok": 1, "truncated": 1, "unread": 1}
    assert (counts.prompt_tokens, counts.completion_tokens) == (20, 4)
    assert counts.mean_choice_mass == pytest.approx(0.6)
    assert ledger.reasons() == [("too long", 2), ("neither", 1)]


def test_an_empty_ledger_counts_nothing(ledger: Ledger) -> None:
    counts = ledger.counts()
    assert (counts.statuses, counts.prompt_tokens, counts.mean_choice_mass) == ({}, 0, None)
    assert ledger.reasons() == []


def test_a_later_generation_drops_the_questions_it_does_not_ask(ledger: Ledger) -> None:
    ledger.plan([request("k1", "ab"), request("k2", "ba")])
    ledger.put([(Completion(key="k1"), OK), (Completion(key="k2"), OK)])
    ledger.begin(1, "constitution-2", "template-1", "judge-1")
    assert ledger.plan([request("k3", "ab")]) == {"k3"}
    ledger.put([(Completion(key="k3"), Reading(status="ok", p_first=0.9, choice_mass=1.0))])
    ledger.forget_older()
    found = rows(ledger.path, 'SELECT "order", key, p_a, constitution FROM judgments')
    assert found == [("ab", "k3", 0.9, "constitution-2")]
    # The answers stay: asked again, nothing is missing.
    assert ledger.plan([request("k1", "ab"), request("k2", "ba")]) == set()
    assert [verdict.p_a for verdict in ledger.verdicts(["p"])["p"]] == [0.75, 0.25]


def test_what_was_committed_is_there_after_closing(tmp_path: Path) -> None:
    for number in range(3):
        ledger = Ledger(tmp_path / "judgments.db")
        ledger.begin(0, "c", "t", "j")
        assert ledger.plan([request(f"k{n}", sample=n) for n in range(3)]) == {f"k{n}" for n in range(number, 3)}
        ledger.put([(Completion(key=f"k{number}"), OK)])
        ledger.close()


def test_a_killed_process_loses_only_what_it_had_not_committed(tmp_path: Path) -> None:
    path = tmp_path / "judgments.db"
    script = (
        "import os, sys; from pathlib import Path; from rlaif.store import Ledger; from rlaif.types import *\n"
        "ledger = Ledger(Path(sys.argv[1])); ledger.begin(0, 'c', 't', 'j')\n"
        "r = [JudgeRequest(key=k, pair_id='p', messages=(), objective='o', sample=n) for n, k in enumerate('xyz')]\n"
        "ledger.plan(r[:2]); ledger.put([(Completion(key='x'), Reading(status='ok', p_first=0.5))])\n"
        "ledger.plan(r[2:]); os.kill(os.getpid(), 9)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(path)], env=environment(), check=False)
    assert killed.returncode == -9
    ledger = Ledger(path)
    assert ledger.missing(["x", "y", "z"]) == {"y", "z"}
    assert len(ledger.verdicts(["p"])["p"]) == 1
    ledger.close()
    assert rows(path, "SELECT key FROM plan ORDER BY key") == [("x",), ("y",)]


def test_one_process_writes(ledger: Ledger) -> None:
    with pytest.raises(
        RunError, match=r"judgments\.db: another process is writing this run; wait for it, or choose ano"
    ):
        Ledger(ledger.path)
    # The one that was refused has not disturbed the first.
    ledger.put([(Completion(key="k"), OK)])
    script = "import sys; from pathlib import Path; from rlaif.store import Ledger; Ledger(Path(sys.argv[1]))"
    command = [sys.executable, "-c", script, str(ledger.path)]
    other = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert other.returncode == 1
    assert "another process is writing this run" in other.stderr


def test_reading_while_a_run_writes(ledger: Ledger) -> None:
    ledger.plan([request("k1", "ab"), request("k2", "ba"), request("k3", pair_id="other")])
    ledger.put([(Completion(key="k1", rationale="R"), OK)])
    one = Judgment("kind", "ab", 0, None, "ok", 0.75, 0.8, "R", None)
    assert read_judgments(ledger.path, "p") == [one]
    # What is planned and not yet committed is not seen.
    ledger.plan([request("k1", "ab", sample=1)])
    assert read_judgments(ledger.path, "p") == [one]
    ledger.commit()
    assert len(read_judgments(ledger.path, "p")) == 2
    assert read_judgments(ledger.path, "nobody") == []


def test_a_path_with_odd_characters(tmp_path: Path) -> None:
    folder = tmp_path / "run? #1 100%"
    folder.mkdir()
    Ledger(folder / "judgments.db").close()
    assert read_judgments(folder / "judgments.db", "p") == []


@pytest.mark.parametrize("content", [b"this is not SQLite " * 100, b"SQLite format 3\x00" + b"\xff" * 500])
def test_a_file_that_is_no_database(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "judgments.db"
    path.write_bytes(content)
    # Twice: a failed attempt leaves nothing locked.
    for _ in range(2):
        with pytest.raises(
            RunError, match=r"judgments\.db: cannot be written or read \(file is not a database\); the file is dam"
        ):
            Ledger(path)
    with pytest.raises(
        RunError, match=r"cannot be read \(file is not a database\); give the folder of a labelling run"
    ):
        read_judgments(path, "p")
    assert path.read_bytes() == content


def test_a_ledger_of_a_newer_version(tmp_path: Path) -> None:
    path = tmp_path / "judgments.db"
    Ledger(path).close()
    rows(path, "PRAGMA user_version = 7")
    before = path.read_bytes()
    for _ in range(2):
        with pytest.raises(RunError, match=r"a ledger of version 7; this rlaif writes version 2\. Use the rlaif that"):
            Ledger(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["absent.db", "absent/judgments.db"])
def test_reading_what_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(RunError, match=r"cannot be read \(unable to open database file\)"):
        read_judgments(tmp_path / name, "p")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"cannot be written or read \(.*No such file or directory"):
        Ledger(tmp_path / "absent" / "judgments.db")


def test_whether_a_ledger_holds_answers(tmp_path: Path) -> None:
    path = tmp_path / "judgments.db"
    assert not holds_answers(path)
    with closing(Ledger(path)) as ledger:
        assert not holds_answers(path)
        ledger.begin(0, "c", "t", "j")
        ledger.put([(Completion(key="k"), None)])
    assert holds_answers(path)
    path.write_bytes(b"this is not SQLite " * 100)
    assert holds_answers(path), "what cannot be read is not taken for empty"
