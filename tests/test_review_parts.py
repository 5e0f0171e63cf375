"""The parts of `rlaif review`: order of questions, toss of sides, safe markdown, the file of answers, the export."""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from rlaif.errors import RunError
from rlaif.review.export import Exporter, export_labels
from rlaif.review.markdown import MOST_CHARACTERS, shown
from rlaif.review.queue import Choice, Queue, Side, place_of, shown_first, side_chosen
from rlaif.review.store import Answer, Study
from rlaif.types import Message, Pair, Preference
from tests.conftest import read_lines
from tests.patience import ends


def test_the_queue_by_hand() -> None:
    queue = Queue(pairs=2, objectives=2)
    assert (queue.total, queue.next()) == (4, 0)
    queue.mark(0, "answered")
    queue.mark(1, "skipped")
    assert (queue.next(), queue.answered, queue.skipped) == (2, 1, 1)
    queue.mark(2, "answered")
    queue.mark(3, "answered")
    assert queue.next() is None
    # Taken back: asked again, before what comes later.
    queue.mark(3, "open")
    queue.mark(0, "open")
    assert (queue.next(), queue.answered) == (0, 1)
    queue.mark(0, "answered")
    assert queue.next() == 3
    assert not queue.is_open(1)


@pytest.mark.parametrize(
    ("choice", "first", "answer"),
    [
        ("left", "a", "a"),
        ("left", "b", "b"),
        ("right", "a", "b"),
        ("right", "b", "a"),
        ("tie", "a", "tie"),
        ("tie", "b", "tie"),
    ],
)
def test_a_place_names_a_response(choice: Choice, first: Side, answer: Preference) -> None:
    assert side_chosen(choice, first) == answer
    assert place_of(answer, first) == choice
    assert side_chosen("skip", first) is None
    assert place_of("skip", first) == "skip"


def test_sides_are_a_fair_coin_and_the_same_again() -> None:
    tosses = [shown_first(0, "ada", str(n)) for n in range(10_000)]
    assert tosses == [shown_first(0, "ada", str(n)) for n in range(10_000)]
    # Five standard deviations of 10,000 tosses are 250.
    assert abs(tosses.count("a") - 5_000) < 250
    assert tosses != [shown_first(1, "ada", str(n)) for n in range(10_000)]


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("**b** _i_ ~~s~~ `c`", "<strong>b</strong> <em>i</em> <s>s</s> <code>c</code>"),
        ("<b>x</b>", "&lt;b&gt;x&lt;/b&gt;"),
        ("<!-- a comment -->", "&lt;!-- a comment --&gt;"),
        ("one\ntwo", "one<br>\ntwo"),
        ("[x](javascript:alert(1))", "[x](javascript:alert(1))"),
        ("![alt](http://e.example/i.png)", "[image: alt] <code>http://e.example/i.png</code>"),
        # A definition that markdown takes away is part of what was written.
        ("[name]: http://e.example", "[name]: http://e.example"),
        ("&lt;script&gt;", "&lt;script&gt;"),
    ],
)
def test_markdown_as_html(text: str, html: str) -> None:
    assert shown(text).html == f'<p dir="auto">{html}</p>\n'


@pytest.mark.parametrize(
    ("address", "kept"),
    [
        ("https://example.org/a?b=c", True),
        ("HTTP://example.org", True),
        ("/admin", False),
        ("//example.org", False),
        ("?token=x", False),
        ("mailto:a@example.org", False),
        ("ftp://example.org", False),
    ],
)
def test_links_lead_only_to_the_web(address: str, kept: bool) -> None:
    html = shown(f"[x]({address})").html
    assert html is not None
    assert (f'href="{address}"' in html) == kept
    assert ("href" in html) == kept
    assert 'rel="noopener noreferrer nofollow"' in html


def test_texts_that_are_shown_as_written() -> None:
    long = shown("x" * (MOST_CHARACTERS + 1))
    assert (long.html, len(long.raw)) == (None, MOST_CHARACTERS + 1)
    # What is nested deeper than the renderer goes would be missing.
    deep = ">" * 50 + " the end"
    assert (shown(deep).html, shown(deep).raw) == (None, deep)
    shallow = shown("> > > the end").html
    assert shallow is not None
    assert "the end" in shallow


def test_hidden_characters_are_named() -> None:
    assert shown("safe\u202egpj.exe\u200b").hidden == ("U+202E RIGHT-TO-LEFT OVERRIDE", "U+200B ZERO WIDTH SPACE")
    assert shown("שלום, 👩‍👩‍👧").hidden == ()


def numbered(count: int) -> Iterator[Pair]:
    """Pairs with a text of their own each."""
    for n in range(count):
        prompt = (Message(role="user", content=f"question {n}"),)
        yield Pair(id=str(n), prompt=prompt, response_a=f"one {n}", response_b=f"other {n}")


def answer_next(study: Study, annotator: str) -> bool:
    """Answer one question as the page does; `False` when there is none."""
    question = study.progress(annotator).question
    if question is None:
        return False
    return study.answer(Answer(str(uuid.uuid4()), annotator, question.key, question.objective, "left", "", 1.0))


def test_ten_thousand_labels_stay_fast(tmp_path: Path) -> None:
    labels = tmp_path / "human.jsonl"
    with closing(Study(labels)) as study:
        study.load(numbered(5_000), "pairs", {"one": "One?", "two": "Two?"}, 0)
        # All but the last hundred were given before, by somebody who had the time.
        given = [(f"n-{n}", str(n // 2), ("one", "two")[n % 2]) for n in range(9_900)]
        with closing(sqlite3.connect(study.path)) as db:
            columns = "nonce, annotator, pair_id, objective, answer, note, shown_first, seconds, at"
            row = f"INSERT INTO events ({columns}) VALUES (?, 'ada', ?, ?, 'a', '', 'a', 1, '2026-01-01')"
            db.executemany(row, given)
            db.commit()
    with closing(Study(labels)) as study:
        study.load(numbered(5_000), "pairs", {"one": "One?", "two": "Two?"}, 0)
        assert study.progress("ada").answered == 9_900
        count = 0
        # A walk over all answers for each answer would take minutes.
        with ends():
            while answer_next(study, "ada"):
                count += 1
            assert export_labels(study.path, labels) == 10_000
        assert count == 100
    rows = read_lines(labels)
    assert [(row["id"], row["objective"]) for row in rows] == [
        (str(n), name) for n in range(5_000) for name in ("one", "two")
    ]


def test_the_file_itself_holds_one_live_answer_a_question(tmp_path: Path) -> None:
    with closing(Study(tmp_path / "human.jsonl")) as study:
        study.load(numbered(1), "pairs", {"one": "One?"}, 0)
        key = study.progress("ada").question
        assert key is not None
        assert study.answer(Answer("0", "ada", key.key, "one", "left"))
        assert not study.answer(Answer("1", "ada", key.key, "one", "right"))
        with pytest.raises(KeyError):
            study.answer(Answer("2", "ada", "0" * 24, "one", "left"))
        with pytest.raises(KeyError):
            study.answer(Answer("2", "ada", key.key, "two", "left"))


def test_a_labels_file_that_cannot_be_written_is_told_and_made_good(tmp_path: Path) -> None:
    labels = tmp_path / "human.jsonl"
    with closing(Study(labels)) as study:
        study.load(numbered(2), "pairs", {"one": "One?"}, 0)
        exporter = Exporter(study.path, labels)
        labels.mkdir()
        assert answer_next(study, "ada")
        exporter.changed()
        deadline = time.monotonic() + 20
        while exporter.fault is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert "human.jsonl: cannot be written" in exporter.fault
        assert answer_next(study, "ada")
        with pytest.raises(RunError, match="cannot be written"):
            exporter.close()
        labels.rmdir()
        assert export_labels(study.path, labels) == 2


def test_without_labels_no_file_is_made(tmp_path: Path) -> None:
    labels = tmp_path / "human.jsonl"
    with closing(Study(labels)) as study:
        study.load(numbered(1), "pairs", {"one": "One?"}, 0)
        assert export_labels(study.path, labels) == 0
        assert not labels.exists()
