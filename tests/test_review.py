"""`rlaif review` as a server: who gets in, what is saved and when, what comes out. Real processes, SQLite and HTTP."""

from __future__ import annotations

import fcntl
import json
import socket
import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rlaif.data.human import read_human_labels
from tests.conftest import ROOT, Cli, made_pairs, read_lines, write_lines
from tests.reviewing import Client, Review, entered


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """Where the labels go."""
    return tmp_path / "human.jsonl"


@pytest.fixture
def review(pairs: Path, labels: Path) -> Iterator[Review]:
    """The page for twelve pairs."""
    with Review(pairs, labels, "--port", 0) as running:
        yield running


@pytest.fixture(scope="module")
def shared_review(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Review]:
    """One page for the tests that only knock at the door, each in a name of its own."""
    folder = tmp_path_factory.mktemp("shared")
    with Review(write_lines(folder / "pairs.jsonl", made_pairs(12)), folder / "human.jsonl", "--port", 0) as running:
        yield running


def shown_responses(state: Any) -> tuple[str, str]:
    """What stands on the left and on the right."""
    return state["question"]["left"]["raw"], state["question"]["right"]["raw"]


def wait_for_lines(path: Path, count: int) -> list[dict[str, Any]]:
    """The rows of a file, once it has so many; it is written beside the answers, so it comes a moment later."""
    deadline = time.monotonic() + 10
    while not path.exists() or len(read_lines(path)) != count:
        assert time.monotonic() < deadline, "the labels are not written"
        time.sleep(0.02)
    return read_lines(path)


def label_all(client: Client, annotator: str, choice: str = "left") -> int:
    """Give one answer to everything; returns how many."""
    state, count = client.question(annotator), 0
    while state["question"]:
        state, count = client.answer(state, choice).value, count + 1
    return count


def test_a_preference_names_the_pair_s_own_side(review: Review, pairs: Path, labels: Path) -> None:
    client, by_id = entered(review), {row["id"]: row for row in read_lines(pairs)}
    state = client.question("ada")
    expected, sides = {}, set()
    for row, choice in zip(by_id.values(), ["left", "right", "tie"] * 4, strict=True):
        left, right = shown_responses(state)
        # The order of the data is kept, and both responses are there.
        assert {left, right} == {row["response_a"], row["response_b"]}
        first = "a" if left == row["response_a"] else "b"
        other = "b" if first == "a" else "a"
        sides.add(first)
        expected[row["id"]] = ({"left": first, "right": other, "tie": "tie"}[choice], first)
        state = client.answer(state, choice, note=" why ", seconds=2.34).value
    assert (state["question"], state["answered"], state["total"]) == (None, 12, 12)
    assert sides == {"a", "b"}
    rows = wait_for_lines(labels, 12)
    assert {row["id"]: (row["preference"], row["shown_first"]) for row in rows} == expected
    assert [row["id"] for row in rows] == list(by_id)
    common = {"annotator": "ada", "objective": "overall", "note": "why", "seconds": 2.3}
    assert all(row.items() >= common.items() for row in rows)
    majority = read_human_labels(str(labels)).majority
    assert majority == {(name, "overall"): preference for name, (preference, _) in expected.items()}


def test_nothing_that_is_sent_tells_sides_or_names(tmp_path: Path, labels: Path) -> None:
    rows = [
        {**row, "id": f"gpt-ours-vs-theirs-{n}", "tags": {"generator_a": "OURS", "chosen": "a"}}
        for n, row in enumerate(made_pairs(3))
    ]
    with Review(write_lines(tmp_path / "pairs.jsonl", rows), labels, "--port", 0) as running:
        client = entered(running)
        sent = client.send("GET", "/api/question?annotator=ada")
        question = sent.value["question"]
    assert not any(word in sent.body for word in (b"gpt", b"OURS", b"generator", b"chosen", b"response_a"))
    known = {"pair", "number", "of", "objective", "objective_number", "objectives", "ask", "principles", "prompt"}
    assert question.keys() == known | {"left", "right", "before"}


def test_of_a_run_only_the_pairs_are_shown(tmp_path: Path, labels: Path) -> None:
    label = {"p_a": 0.9, "preference": "a", "order_gap": 0.1, "verdicts": 2, "abstained": 0}
    rows = [
        {
            **row,
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "labels": {"honesty": label},
            "overall": {"p_a": 0.9, "preference": "a", "method": "weighted", "pareto": "a"},
            "provenance": {"judge": "J@1", "constitution": "c@1", "template": "t@1", "rlaif": "0"},
        }
        for row in made_pairs(2)
    ]
    (tmp_path / "run").mkdir()
    write_lines(tmp_path / "run" / "labels.jsonl", rows)
    with Review(tmp_path / "run", labels, "--port", 0) as running:
        sent = entered(running).send("GET", "/api/question?annotator=ada")
    assert sent.value["total"] == 2
    assert b"0.9" not in sent.body
    assert b"J@1" not in sent.body


def test_each_objective_of_a_constitution_is_asked_of_each_pair(pairs: Path, labels: Path) -> None:
    options = ("--port", 0, "--constitution", "hhh", "--objective", "honesty", "--objective", "helpfulness")
    with Review(pairs, labels, *options, "--limit", 2) as running:
        client = entered(running)
        state = client.question("ada")
        asked = []
        while state["question"]:
            question = state["question"]
            asked.append((question["number"], question["objective"], shown_responses(state)))
            assert question["ask"].endswith("?")
            assert len(question["principles"]) >= 1
            state = client.answer(state, "left").value
    # The constitution's order; both questions of a pair show the same side first.
    assert [each[:2] for each in asked] == [(1, "helpfulness"), (1, "honesty"), (2, "helpfulness"), (2, "honesty")]
    assert asked[0][2] == asked[1][2]
    rows = read_lines(labels)
    assert [(row["id"], row["objective"]) for row in rows] == [
        (f"pair-{n}", name) for n in (0, 1) for name in ("helpfulness", "honesty")
    ]


def test_undo_goes_back_one_answer_at_a_time(review: Review, labels: Path) -> None:
    client = entered(review)
    first = client.question("ada")
    second = client.answer(first, "left", note="first thought").value
    third = client.answer(second, "tie").value
    back = client.post("undo", {"annotator": "ada", "last": third["last"]}).value
    assert (back["question"]["pair"], back["answered"]) == (second["question"]["pair"], 1)
    assert back["question"]["before"] == {"choice": "tie", "note": ""}
    # The same undo sent twice takes one answer back.
    assert client.post("undo", {"annotator": "ada", "last": third["last"]}).value["answered"] == 1
    back = client.post("undo", {"annotator": "ada", "last": back["last"]}).value
    assert back["question"]["before"] == {"choice": "left", "note": "first thought"}
    assert (back["answered"], back["last"]) == (0, None)
    assert wait_for_lines(labels, 0) == []
    state = client.answer(back, "right").value
    assert state["question"]["pair"] == second["question"]["pair"]
    (row,) = wait_for_lines(labels, 1)
    assert row["preference"] != row["shown_first"]


def test_what_is_skipped_is_no_label_and_can_be_asked_again(review: Review, labels: Path) -> None:
    client = entered(review)
    first = client.question("ada")
    state = client.answer(first, "skip").value
    assert (state["answered"], state["skipped"]) == (0, 1)
    assert label_all(client, "ada") == 11
    state = client.question("ada")
    assert (state["question"], state["skipped"]) == (None, 1)
    assert len(wait_for_lines(labels, 11)) == 11
    state = client.post("reopen", {"annotator": "ada"}).value
    assert state["question"]["pair"] == first["question"]["pair"]
    assert client.answer(state, "tie").value["skipped"] == 0
    assert wait_for_lines(labels, 12)[0]["preference"] == "tie"


def test_annotators_go_their_own_way(review: Review, labels: Path) -> None:
    client = entered(review)
    assert label_all(client, "ada") == 12
    state = client.question("bo ")
    assert (state["annotator"], state["answered"]) == ("bo", 0)
    client.answer(state, "tie")
    assert client.send("GET", "/api/session").value["annotators"] == ["ada", "bo"]
    assert len(wait_for_lines(labels, 13)) == 13
    assert read_human_labels(str(labels)).annotators == 2


def test_the_side_shown_first_is_drawn_for_each_person_and_pair(tmp_path: Path, labels: Path) -> None:
    rows = [{"id": str(n), "prompt": "?", "response_a": "A", "response_b": "B"} for n in range(200)]
    data = write_lines(tmp_path / "pairs.jsonl", rows)
    with Review(data, labels, "--port", 0, "--seed", 7) as running:
        client = entered(running)
        label_all(client, "ada")
        label_all(client, "bo")
    first: dict[str, list[str]] = {"ada": [], "bo": []}
    for row in read_lines(labels):
        first[row["annotator"]].append(row["shown_first"])
    # 200 tosses of a coin: 100 +- 28 is four standard deviations.
    assert all(72 <= sides.count("a") <= 128 for sides in first.values())
    assert 72 <= sum(one == other for one, other in zip(first["ada"], first["bo"], strict=True)) <= 128
    assert json.loads(data.read_text().splitlines()[0])["id"] == "0"


def test_kill_9_loses_no_answer(pairs: Path, labels: Path) -> None:
    running = Review(pairs, labels)
    client = entered(running)
    state = client.question("ada")
    for _ in range(5):
        state = client.answer(state, "left").value
    running.kill()
    labels.unlink(missing_ok=True)
    with Review(pairs, labels) as again:
        # It is there again where it was, the browser's cookie still opens it, and the labels are written anew.
        assert again.port == client.port
        assert client.question("ada")["question"]["pair"] == state["question"]["pair"]
        assert len(wait_for_lines(labels, 5)) == 5
        assert label_all(client, "ada") == 7
    assert "12 labels of 1 annotator" in again.out
    assert len(read_lines(labels)) == 12


def test_an_answer_is_in_the_file_before_the_server_says_so(review: Review, labels: Path) -> None:
    client = entered(review)
    state = client.question("ada")
    with closing(sqlite3.connect(f"file:{labels}.db?mode=ro", uri=True)) as db:
        for count in range(1, 6):
            state = client.answer(state, "left").value
            assert db.execute("SELECT count(*) FROM events").fetchone() == (count,)
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_an_answer_sent_twice_counts_once_and_another_tab_s_answer_stays(review: Review, labels: Path) -> None:
    client = entered(review)
    state, nonce = client.question("ada"), str(uuid.uuid4())
    once = client.answer(state, "left", nonce=nonce)
    again = client.answer(state, "left", nonce=nonce)
    assert (once.status, again.status, again.value["answered"]) == (200, 200, 1)
    late = client.answer(state, "right")
    assert (late.status, late.value["answered"]) == (409, 1)
    assert late.value["question"]["pair"] == once.value["question"]["pair"]
    (row,) = wait_for_lines(labels, 1)
    assert row["preference"] == row["shown_first"]


def test_a_token_opens_one_browser_once(review: Review) -> None:
    client = Client(review.port)
    # A browser that looks ahead does not spend it.
    path = review.url().partition(f":{review.port}")[2]
    assert client.send("GET", path, sec_purpose="prefetch;prerender").status == 401
    first = client.enter(review.url())
    assert first.status == 200
    cookie = first.headers["set-cookie"]
    assert all(part in cookie for part in ("HttpOnly", "SameSite=Strict", "Path=/"))
    spent = Client(review.port)
    assert spent.enter(review.url()).status == 401
    assert spent.cookie == ""
    # The next one was printed, and opens one more.
    assert review.url(1) != review.url(0)
    assert Client(review.port).enter(review.url(1)).status == 200
    assert client.send("GET", "/").status == 200


@pytest.mark.parametrize("path", ["/api/session", "/api/question?annotator=ada"])
@pytest.mark.parametrize("cookie", [None, "rlaif-review=x", "{name}=x", "{name}="])
def test_without_a_session_nothing_is_told(shared_review: Review, path: str, cookie: str | None) -> None:
    name = entered(shared_review).cookie.partition("=")[0]
    stranger = Client(shared_review.port, cookie=(cookie or "").format(name=name))
    refused = stranger.send("GET", path)
    assert (refused.status, refused.value.keys()) == (401, {"error"})
    assert stranger.send("GET", "/").status == 401
    assert stranger.send("GET", "/?token=" + "x" * 43).status == 401
    assert stranger.post("undo", {"annotator": "ada", "last": 1}).status == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 421),
        ({"host": "evil.example:{port}"}, 421),
        ({"host": "127.0.0.1.evil.example:{port}"}, 421),
        ({"host": "127.0.0.1:1"}, 421),
        ({"host": "127.0.0.1"}, 421),
        ({"host": "0.0.0.0:{port}"}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "https://127.0.0.1:{port}"}, 403),
        ({"origin": "http://127.0.0.1:1"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost:{port}"}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "same-site", "sec_fetch_mode": "no-cors"}, 403),
    ],
)
def test_a_wrong_host_or_origin_is_refused(shared_review: Review, headers: dict[str, str], status: int) -> None:
    client = entered(shared_review)
    state = client.question("ada")
    wrong = {name: value.format(port=shared_review.port) for name, value in headers.items()}
    for method, path in (("GET", "/"), ("GET", "/page.js"), ("GET", "/api/session"), ("POST", "/api/answer")):
        body = b"{}" if method == "POST" else None
        assert client.send(method, path, body, **wrong).status == status
    assert client.question("ada") == state


def test_what_changes_something_needs_an_origin_and_json(shared_review: Review) -> None:
    client = entered(shared_review)
    assert client.send("POST", "/api/undo", b"{}", origin=None).status == 403
    assert client.send("POST", "/api/undo", b"{}", content_type="text/plain").status == 415
    assert client.send("POST", "/api/undo", b"{}", content_type=None).status == 415
    assert client.send("PUT", "/api/undo", b"{}").status == 405
    assert client.send("GET", "/api/undo").status == 405
    local = f"localhost:{shared_review.port}"
    sent = client.send("POST", "/api/undo", b"{}", host=local, origin=f"http://{local}")
    assert sent.status == 422


def test_a_token_counts_only_at_the_right_host(review: Review) -> None:
    stranger = Client(review.port)
    path = review.url().partition(f":{review.port}")[2]
    assert stranger.send("GET", path, host="evil.example").status == 421
    assert stranger.enter(review.url()).status == 200


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"annotator": ""}, "annotator"),
        ({"annotator": "a" * 81}, "annotator"),
        ({"annotator": "a\u202eb"}, "annotator"),
        ({"choice": "a"}, "choice"),
        ({"seconds": -1}, "seconds"),
        ({"seconds": "NaN"}, "seconds"),
        ({"nonce": "short"}, "nonce"),
        ({"note": "x" * 5001}, "note"),
        ({"pair": "../../etc/passwd"}, "pair"),
        ({"more": 1}, "more"),
    ],
)
def test_a_bad_answer_is_refused_with_its_field(shared_review: Review, change: dict[str, object], told: str) -> None:
    client = entered(shared_review)
    state = client.question("ada")
    refused = client.answer(state, "left", **change) if "choice" not in change else client.answer(state, "a")
    assert refused.status == 422
    assert refused.value["error"].startswith(f"{told}:")
    assert client.question("ada") == state


def test_bodies_that_are_no_answer(shared_review: Review) -> None:
    client = entered(shared_review)
    for body in (b"", b"[]", b"\xff", b'{"annotator":', b"[" * 30_000):
        assert client.send("POST", "/api/answer", body).status == 422
    assert client.send("POST", "/api/answer", b" " * (64 * 1024 + 1)).status == 413
    state = client.question("ada")
    assert client.answer(state, "left", pair="0" * 24).status == 404
    assert client.answer(state, "left", objective="beauty").status == 404
    assert client.send("GET", "/../rlaif/review/app.py").status == 404
    assert client.send("GET", "/page.html").status == 404
    assert client.answer(state, "left").status == 200


def test_the_page_loads_nothing_and_runs_nothing_of_others(shared_review: Review) -> None:
    client = entered(shared_review)
    for path in ("/", "/page.css", "/page.js", "/view.js", "/saving.js", "/icon.svg", "/api/session", "/nothing"):
        policy = client.send("GET", path).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert client.send("GET", path).headers["x-content-type-options"] == "nosniff"
    for file in (ROOT / "rlaif" / "review" / "page").iterdir():
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "://" not in text, f"{file.name} names an address"
        assert len(text.splitlines()) <= 400


def test_it_listens_on_this_machine_alone(shared_review: Review) -> None:
    with closing(socket.socket()) as other:
        other.settimeout(2)
        with pytest.raises(ConnectionRefusedError):
            other.connect(("127.0.0.2", shared_review.port))


def test_the_annotator_of_the_command_is_the_only_one(pairs: Path, labels: Path) -> None:
    with Review(pairs, labels, "--port", 0, "--annotator", " ada ") as running:
        client = entered(running)
        assert client.send("GET", "/api/session").value["annotator"] == "ada"
        assert client.question("bo") == {"error": "this page is ada's"}
        assert client.question("ada")["answered"] == 0


def test_rows_that_cannot_be_used_are_told(tmp_path: Path, labels: Path, rlaif: Cli) -> None:
    data = write_lines(tmp_path / "pairs.jsonl", [*made_pairs(2), {"prompt": "alone"}])
    rejects = tmp_path / "human.rejects.jsonl"
    with Review(data, labels, "--port", 0) as running:
        assert entered(running).question("ada")["total"] == 2
    assert "2 pairs, 2 questions a person, 1 row rejected" in running.out
    assert [row["line"] for row in read_lines(rejects)] == [3]
    strict = rlaif("review", data, "--out", tmp_path / "other.jsonl", "--strict")
    assert strict.returncode == 2
    assert "pairs.jsonl:3: no response_a and response_b" in strict.stderr
    # Once the data is mended the file of rejects goes.
    with Review(write_lines(data, made_pairs(2)), labels, "--port", 0):
        assert not rejects.exists()


def test_pairs_may_be_added_and_answers_stay(pairs: Path, labels: Path) -> None:
    with Review(pairs, labels, "--port", 0) as running:
        client = entered(running)
        client.answer(client.question("ada"), "left")
    more = made_pairs(14)
    # The answered pair comes last now, and two are new.
    write_lines(pairs, [*more[1:], more[0]])
    with Review(pairs, labels, "--port", 0) as running:
        client = entered(running)
        state = client.question("ada")
        assert (state["answered"], state["total"], state["question"]["number"]) == (1, 14, 1)
        assert label_all(client, "ada") == 13
    assert [row["id"] for row in read_lines(labels)] == [*(f"pair-{n}" for n in range(1, 14)), "pair-0"]


def refused_line(rlaif: Cli, code: int, *arguments: object) -> str:
    """The one line with which a command ends."""
    done = rlaif("review", *arguments, timeout=60)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


def test_other_pairs_questions_or_seeds_for_the_same_labels_are_refused(
    pairs: Path, labels: Path, tmp_path: Path, rlaif: Cli
) -> None:
    rows = read_lines(pairs)
    with Review(pairs, labels, "--port", 0) as running:
        client = entered(running)
        client.answer(client.question("ada"), "left")
    before = labels.read_bytes()
    changed = write_lines(tmp_path / "changed.jsonl", [{**rows[0], "response_a": "other"}, *rows[1:]])
    assert "pair 'pair-0', which has answers in" in (line := refused_line(rlaif, 2, changed, "--out", labels))
    assert "reads differently here" in line
    other = write_lines(tmp_path / "other.jsonl", rows[1:])
    assert "is missing here" in refused_line(rlaif, 2, other, "--out", labels)
    assert "was begun with --seed 0" in refused_line(rlaif, 2, pairs, "--out", labels, "--seed", 1)
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "name: m\nobjectives:\n  overall:\n    question: Which is shorter?\n    principles:\n"
        "      - id: short\n        text: Prefer the shorter response.\n"
    )
    line = refused_line(rlaif, 2, pairs, "--out", labels, "--constitution", mine)
    assert "holds answers of overall to 'Which response is better?', which is now 'Which is shorter?'" in line
    assert labels.read_bytes() == before
    with Review(pairs, labels, "--port", 0) as running:
        assert entered(running).question("ada")["answered"] == 1


def test_mistakes_are_answered_by_one_line(pairs: Path, labels: Path, tmp_path: Path, rlaif: Cli) -> None:
    assert "no such file" in refused_line(rlaif, 2, tmp_path / "none.jsonl", "--out", labels)
    prompts = write_lines(tmp_path / "prompts.jsonl", [{"prompt": "?"}])
    assert "holds prompts and no responses" in refused_line(rlaif, 2, prompts, "--out", labels)
    broken = write_lines(tmp_path / "broken.jsonl", [{"prompt": "", "response_a": "x", "response_b": "y"}])
    assert "no pair can be used; line 1: prompt is empty" in refused_line(rlaif, 2, broken, "--out", labels)
    assert "ends in .jsonl" in refused_line(rlaif, 2, pairs, "--out", tmp_path / "human.csv")
    foreign = write_lines(tmp_path / "foreign.jsonl", [{"id": "1"}])
    assert "foreign.jsonl.db" in refused_line(rlaif, 2, pairs, "--out", foreign)
    assert "foreign.jsonl" in refused_line(rlaif, 2, pairs, "--out", foreign)
    assert "--annotator" in refused_line(rlaif, 2, pairs, "--out", labels, "--annotator", " ")
    assert "Name its constitution" in refused_line(rlaif, 2, pairs, "--out", labels, "--objective", "honesty")
    (tmp_path / "junk.jsonl.db").write_bytes(b"no database" * 100)
    assert "no file of rlaif review" in refused_line(rlaif, 1, pairs, "--out", tmp_path / "junk.jsonl")
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert "in use" in refused_line(rlaif, 2, pairs, "--out", labels, "--port", port)


def test_one_file_has_one_server(review: Review, pairs: Path, labels: Path, rlaif: Cli) -> None:
    assert "another rlaif review has this file open" in refused_line(rlaif, 1, pairs, "--out", labels)
    with labels.with_name("human.jsonl.lock").open() as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert entered(review).question("ada")["answered"] == 0


def test_json_has_a_line_for_what_is_told(pairs: Path, labels: Path) -> None:
    with Review(pairs, labels, "--port", 0, "--json", "--annotator", "ada") as running:
        client = entered(running)
        client.answer(client.question("ada"), "left")
    opened, address, again, summary = (json.loads(line) for line in running.out.splitlines())
    assert (opened["pairs"], opened["labels"]) == (12, 0)
    assert [each["url"] for each in (address, again)] == running.urls
    assert (summary["labels"], summary["annotators"], summary["out"]) == (1, 1, str(labels))
    assert running.process.returncode == 0
