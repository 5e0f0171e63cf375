"""`rlaif constitution test`: a principle is asked alone, in both places, and what was not read is no number."""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rlaif as package
from rlaif.cli.cases import explain
from rlaif.constitution import Constitution
from rlaif.constitution.load import parse_constitution
from rlaif.errors import InputError, RunError
from rlaif.labeling import api
from rlaif.labeling.cases import CaseResult, ChosenCase, choose_cases, grade, rate, report_of
from rlaif.starter import JUDGE_NOTE
from rlaif.stats import wilson
from rlaif.store import Ledger
from rlaif.types import Order, Verdict
from tests.conftest import Cli
from tests.processes import interrupt, start
from tests.stub_server import RunningStub, StubSettings, probability_of

WORDS = ("apples", "bridges", "candles", "drums", "engines", "forests", "gardens", "harbours")


def constitution_text(words: tuple[str, ...] = WORDS, cases: int = 1) -> str:
    """A constitution of two objectives with a principle for each word, and `cases` cases a principle."""
    lines = ["name: words", "objectives:"]
    half = (len(words) + 1) // 2
    for name, mine in (("first", words[:half]), ("last", words[half:])):
        if not mine:
            continue
        lines += [f"  {name}:", "    weight: 0.5", f"    question: Which response is {name}?", "    principles:"]
        for word in mine:
            lines += [f"      - id: {word}", f"        text: Prefer the response about {word}."]
            lines += ["        cases:"] * bool(cases)
            for number in range(cases):
                lines += [f"          - prompt: Say something, {number}.", f"            better: I like {word}."]
                lines += [f"            worse: I like nothing, and no {word} either."]
    return "\n".join(lines) + "\n"


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """A file of eight principles with a case each."""
    path = tmp_path / "words.yaml"
    path.write_text(constitution_text())
    return path


def words_constitution(**options: Any) -> Constitution:
    """The constitution of the words, loaded."""
    return parse_constitution(constitution_text(**options), "words.yaml")


def chosen_cases() -> list[ChosenCase]:
    """Its cases, of which half have the better response as a."""
    return choose_cases("words.yaml", words_constitution())


def one(*, better_is_a: bool) -> ChosenCase:
    """A case with the better response as a, or as b."""
    return next(case for case in chosen_cases() if case.better_is_a is better_is_a)


def comparisons(ab: float | None, ba: float | None) -> list[Verdict]:
    """What the judge said of response a in both orders; `None` was not read."""
    orders: tuple[tuple[Order, float | None], ...] = (("ab", ab), ("ba", ba))
    return [
        Verdict(
            objective="first",
            order=order,
            sample=0,
            status="unread" if p is None else "ok",
            p_a=p,
            reason="the judge gave neither A nor B" if p is None else None,
        )
        for order, p in orders
    ]


def graded(ab: float | None, ba: float | None, *, better_is_a: bool = True, threshold: float = 0.5) -> CaseResult:
    """Grade one case by what was said of response a in both orders."""
    rationales: dict[Order, str] = {"ab": "said of ab", "ba": "said of ba"}
    return grade(one(better_is_a=better_is_a), comparisons(ab, ba), rationales, threshold=threshold)


def test_wilson_s_interval_by_hand() -> None:
    # z = 1.959964. 8 of 10: centre (0.8 + 0.192073) / 1.384146 = 0.716740; half-width 0.226577.
    assert wilson(8, 10) == pytest.approx((0.490163, 0.943317), abs=1e-5)
    # None of 10: the upper end is z² / (n + z²) = 3.841459 / 13.841459.
    assert wilson(0, 10) == pytest.approx((0.0, 0.277533), abs=1e-5)
    assert wilson(10, 10) == pytest.approx((1 - 0.277533, 1.0), abs=1e-5)
    assert wilson(0, 0) == (0.0, 1.0)
    # With z = 1 (68.27%), 1 of 2: centre 0.75 / 1.5, half-width (1 / 1.5) * sqrt(0.125 + 0.0625) = sqrt(1 / 12).
    assert wilson(1, 2, confidence=math.erf(math.sqrt(0.5))) == pytest.approx((0.5 - 12**-0.5, 0.5 + 12**-0.5))
    with pytest.raises(ValueError, match="3 successes in 2 trials"):
        wilson(3, 2)


def test_a_case_passes_by_the_mean_of_both_places() -> None:
    result = graded(0.9, 0.7)
    assert (result.result, result.by_place) == ("pass", False)
    assert result.p_better == pytest.approx(0.8)
    assert result.order_gap == pytest.approx(0.2)
    assert [(each.shown, each.p_better) for each in result.showings] == [("better first", 0.9), ("better second", 0.7)]


def test_results_are_told_of_the_better_response_wherever_it_is() -> None:
    # The better one is b: p_a of 0.9 (a shown first) and 0.7 (b shown first) speak against it.
    result = graded(0.9, 0.7, better_is_a=False)
    assert result.result == "fail"
    assert result.p_better == pytest.approx(0.2)
    assert [each.shown for each in result.showings] == ["better first", "better second"]
    assert [each.p_better for each in result.showings] == [pytest.approx(0.3), pytest.approx(0.1)]
    assert [each.rationale for each in result.showings] == ["said of ba", "said of ab"]


@pytest.mark.parametrize(
    ("ab", "ba", "threshold", "result", "by_place"),
    [
        (0.9, 0.4, 0.5, "pass", True),
        (0.2, 0.7, 0.5, "fail", True),
        (0.7, 0.3, 0.5, "fail", True),  # a mean of exactly 0.5
        (0.5, 0.5, 0.5, "fail", False),
        (0.8, 0.6, 0.7, "fail", False),  # a mean of exactly the threshold
        (0.8, 0.7, 0.7, "pass", False),
    ],
)
def test_even_is_no_pass_and_one_place_alone_is_marked(
    ab: float, ba: float, threshold: float, result: str, by_place: bool
) -> None:
    found = graded(ab, ba, threshold=threshold)
    assert (found.result, found.by_place) == (result, by_place)


@pytest.mark.parametrize(("ab", "ba"), [(None, None), (0.9, None), (None, 0.9)])
def test_what_was_not_read_is_no_number(ab: float | None, ba: float | None) -> None:
    result = graded(ab, ba)
    assert (result.result, result.p_better, result.order_gap, result.by_place) == ("unread", None, None, False)
    missing = [showing for showing in result.showings if not showing.read]
    assert {showing.reason for showing in missing} == {"the judge gave neither A nor B"}
    assert len(missing) == [ab, ba].count(None)
    counted = rate([result, graded(0.9, 0.9)])
    assert (counted.cases, counted.passed, counted.failed, counted.unread, counted.share) == (2, 1, 0, 1, 0.5)
    assert counted.mean_p_better == pytest.approx(0.9)


def test_a_rating_passes_where_the_better_response_is_rated_higher() -> None:
    case = one(better_is_a=False)
    sure, even = {"7": 0.0}, {"7": math.log(0.5), "8": math.log(0.5)}
    common: dict[str, Any] = {"objective": "first", "sample": 0, "status": "ok"}
    # Response b, the better one, is rated 7 or 8, response a 7 for certain.
    ratings = [
        Verdict(order="ab", rating=7.0, rating_logprobs=sure, **common),
        Verdict(order="ba", rating=7.5, rating_logprobs=even, **common),
    ]
    result = grade(case, ratings, {}, rated=True)
    assert result.p_better == pytest.approx(0.75)
    assert (result.result, result.order_gap, result.by_place) == ("pass", None, False)
    assert [(each.shown, each.rating) for each in result.showings] == [("better alone", 7.5), ("worse alone", 7.0)]
    assert grade(case, ratings[:1], {}, rated=True).result == "unread"


def test_rates_count_passes_and_mark_judging_by_place() -> None:
    results = [graded(0.9, 0.7), graded(0.9, 0.4), graded(0.2, 0.4), graded(0.2, 0.9)]
    found = rate(results)
    assert (found.cases, found.passed, found.failed, found.by_place) == (4, 3, 1, 2)
    assert found.interval == wilson(3, 4)
    # Means 0.8, 0.65, 0.3 and 0.55; gaps 0.2, 0.5, 0.2 and 0.7.
    assert found.mean_p_better == pytest.approx(0.575)
    assert found.mean_order_gap == pytest.approx(0.4)
    assert found.position, "two of four are half"
    assert not rate([*results, graded(0.9, 0.9)]).position
    assert not rate([graded(None, None)]).position


def test_a_report_has_a_rate_for_each_objective_and_principle() -> None:
    constitution = words_constitution(words=("apples", "bridges"), cases=2)
    cases = choose_cases("words.yaml", constitution)
    assert [case.id for case in cases][1:3] == [
        "words.yaml::first::apples::case-2",
        "words.yaml::last::bridges::case-1",
    ]
    better = [1.0, 0.0, 1.0, 1.0]
    results = [
        grade(case, comparisons(*([p if case.better_is_a else 1 - p] * 2)), {})
        for case, p in zip(cases, better, strict=True)
    ]
    report = report_of("words.yaml", constitution, results)
    assert {name: (each.passed, each.cases) for name, each in report.objectives.items()} == {
        "first": (1, 2),
        "last": (2, 2),
    }
    assert report.principles.keys() == {"apples", "bridges"}
    assert (report.total.passed, report.total.cases, report.without_cases) == (3, 4, ())


def test_the_side_follows_from_the_texts_alone() -> None:
    assert {case.better_is_a for case in chosen_cases()} == {True, False}
    text = constitution_text()
    turned = text.replace("better:", "@:").replace("worse:", "better:").replace("@:", "worse:")
    for case, other in zip(chosen_cases(), choose_cases("words.yaml", parse_constitution(turned, "t")), strict=True):
        # Calling the other one better asks the very same questions.
        assert (case.pair, case.better_is_a) == (other.pair, not other.better_is_a)


def test_a_principle_that_is_turned_off_is_asked_where_it_is_named() -> None:
    text = constitution_text().replace(
        "text: Prefer the response about drums.", "text: About drums.\n        weight: 0"
    )
    constitution = parse_constitution(text, "t")
    assert "drums" not in {case.principle.id for case in choose_cases("t", constitution)}
    (case,) = choose_cases("t", constitution, principles=["drums"])
    assert [rule.text for rule in case.alone.objectives["first"].active] == ["About drums."]


def seen_by(stub: RunningStub, principles: int) -> dict[str, dict[str, float]]:
    """A second implementation: p(better) of each word in both places, of the questions that show so many principles."""
    seen: dict[str, dict[str, float]] = {}
    for body in stub.state.bodies:
        user = next(turn["content"] for turn in body["messages"] if turn["role"] == "user")
        shown = [word for word in WORDS if f"Prefer the response about {word}." in user]
        if not body.get("continue_final_message") or len(shown) != principles:
            continue
        (about,) = [word for word in WORDS if f"I like {word}." in user]
        assert about in shown
        assert f"Which response is {'first' if about in WORDS[:4] else 'last'}?" in user
        first = user.index(f"I like {about}.") < user.index("I like nothing")
        p = probability_of(body["messages"])
        seen.setdefault(about, {})["better first" if first else "better second"] = p if first else 1 - p
    return seen


def test_each_case_is_asked_with_its_own_principle_alone(words: Path, stub: RunningStub) -> None:
    report = package.check_constitution(words, base_url=stub.url, template="direct")
    seen = seen_by(stub, principles=1)
    assert (report.asked, report.reused, len(seen)) == (16, 0, 8)
    for case in report.cases:
        expected = seen[case.principle]
        assert {each.shown: each.p_better for each in case.showings} == pytest.approx(expected, abs=1e-9)
        assert case.p_better == pytest.approx(sum(expected.values()) / 2, abs=1e-9)
        assert case.result == ("pass" if sum(expected.values()) > 1 else "fail")
        assert case.p_better_with_all is None
    assert report.mean_choice_mass == pytest.approx(0.9, abs=1e-9)


def test_with_all_asks_a_second_time_as_labels_are_made(words: Path, stub: RunningStub) -> None:
    report = package.check_constitution(words, base_url=stub.url, template="direct", with_all=True)
    alone, with_all = seen_by(stub, principles=1), seen_by(stub, principles=4)
    assert report.asked == 32
    for case in report.cases:
        assert case.p_better == pytest.approx(sum(alone[case.principle].values()) / 2, abs=1e-9)
        assert case.p_better_with_all == pytest.approx(sum(with_all[case.principle].values()) / 2, abs=1e-9)


def test_a_rating_template_is_asked_too(words: Path, stub: RunningStub) -> None:
    with pytest.raises(InputError, match="is for a critique, not for a judge"):
        package.check_constitution(words, base_url=stub.url, template="critique")
    # The stub answers A and B to everything, which is no rating: nothing is made up in its place.
    report = package.check_constitution(words, base_url=stub.url, template="rating", orders="ab")
    assert [case.result for case in report.cases] == ["unread"] * 8
    assert {each.shown for case in report.cases for each in case.showings} == {"better alone", "worse alone"}


def test_a_cache_asks_only_what_an_edit_touches(words: Path, stub: RunningStub, tmp_path: Path) -> None:
    def check(**options: Any) -> tuple[int, int]:
        report = api.check_constitution(
            words, base_url=stub.url, template="direct", cache=tmp_path / "kept" / "cases.db", **options
        )
        return report.asked, report.reused

    assert check() == (16, 0)
    assert check() == (0, 16)
    words.write_text(words.read_text().replace("response about drums", "response on drums"))
    assert check() == (2, 14)
    words.write_text(words.read_text().replace("I like harbours", "I love harbours"))
    assert check(objectives=["last"]) == (2, 6)
    # The order that is not asked is not told, though it is kept.
    report = package.check_constitution(
        words, base_url=stub.url, template="direct", cache=tmp_path / "kept" / "cases.db", orders="ab", with_all=True
    )
    assert (report.asked, report.reused) == (8, 8)
    assert {len(case.showings) for case in report.cases} == {1}
    assert {case.order_gap for case in report.cases} == {None}
    assert {case.showings[0].shown for case in report.cases} == {"better first", "better second"}


def test_several_constitutions_are_asked_in_one_go(words: Path, stub: RunningStub, tmp_path: Path) -> None:
    more = tmp_path / "more.yaml"
    more.write_text(constitution_text(("apples", "walls")))
    report = package.check_constitution(words, more, words, base_url=stub.url, template="direct")
    assert [each.place for each in report.constitutions] == [str(words), str(more)]
    assert [each.total.cases for each in report.constitutions] == [8, 2]
    assert report.total.cases == len(report.cases) == 10
    # The same principle, question and case are one question.
    assert report.asked == 18
    assert report.constitutions[0].cases[0].p_better == report.constitutions[1].cases[0].p_better


def test_it_can_be_called_where_a_loop_runs(words: Path, stub: RunningStub) -> None:
    async def call() -> int:
        return package.check_constitution(words, base_url=stub.url, template="direct").total.cases

    assert asyncio.run(call()) == 8


def test_a_case_that_does_not_fit_is_unread_and_says_why(words: Path, rlaif: Cli, tmp_path: Path) -> None:
    words.write_text(words.read_text().replace("I like apples.", f"I like {'apples ' * 9000}"))
    out = tmp_path / "report.json"
    with RunningStub(StubSettings(max_chars=30_000)) as stub:
        done = rlaif("constitution", "test", words, "--base-url", stub.url, "--template", "direct", "--out", out)
    assert done.returncode == 1
    (line,) = [line for line in done.stdout.splitlines() if line.endswith("unread")]
    assert line.split() == ["first", "apples", "1", "-", "-", "unread"]
    assert "; 1 unread" in done.stdout
    assert done.stderr.startswith("Not read 2 times: ")
    report = json.loads(out.read_text())
    (case,) = [case for case in report["constitutions"][0]["cases"] if case["result"] == "unread"]
    assert case["p_better"] is None
    assert [showing["p_better"] for showing in case["showings"]] == [None, None]
    assert all("context" in showing["reason"] for showing in case["showings"])


def table(text: str, *head: str) -> list[list[str]]:
    """The cells of the printed table whose first columns are named so."""
    lines = text.splitlines()
    (start,) = [at for at, line in enumerate(lines) if line.split()[: len(head)] == list(head)]
    end = next(at for at in range(start, len(lines)) if not lines[at].strip() or ":" in lines[at])
    return [line.split() for line in lines[start + 1 : end]]


def test_the_table_and_the_exit_code_follow_from_the_results(words: Path, stub: RunningStub, rlaif: Cli) -> None:
    def run(*options: object) -> Any:
        return rlaif("constitution", "test", words, "--base-url", stub.url, "--template", "direct", *options)

    report = json.loads((done := run("--json")).stdout)
    results = {case["principle"]: case for case in report["constitutions"][0]["cases"]}
    passing = [name for name, case in results.items() if case["result"] == "pass"]
    failing = [name for name, case in results.items() if case["result"] == "fail"]
    assert passing
    assert failing
    assert (done.returncode, done.stderr) == (1, "")
    printed = run("--rationales")
    assert printed.returncode == 1
    rows = table(printed.stdout, "objective", "principle", "case")
    assert [row[:3] for row in rows] == [[case["objective"], name, "1"] for name, case in results.items()]
    for row, case in zip(rows, results.values(), strict=True):
        assert row[3:5] == [f"{case['p_better']:.3f}", f"{case['order_gap']:.3f}"]
        assert " ".join(row[5:]) == case["result"] + (", by place" if case["by_place"] else "")
    rates = table(printed.stdout, "objective", "principle", "passed")
    assert {row[1]: row[2] for row in rates if row[1] != "(all)"} == {
        name: "1/1" if name in passing else "0/1" for name in results
    }
    assert f"words: {len(passing)} of 8 cases passed" in printed.stdout
    assert "16 questions: 16 asked, 0 reused" in printed.stdout
    explained = {line.split("::")[1] for line in printed.stdout.splitlines() if line.endswith("::case-1")}
    assert explained == set(failing)
    assert "\x1b" not in printed.stdout, "no colors where it is no terminal"
    assert run("--principle", passing[0]).returncode == 0
    assert run("--principle", failing[0]).returncode == 1
    assert run("--principle", passing[0], "--threshold", "0.99").returncode == 1


def test_an_explanation_holds_the_texts_and_both_answers() -> None:
    lines = list(explain(graded(0.2, 0.4), 0.5))
    assert lines[0] == "p(better) 0.300, not above 0.5, order gap 0.200"
    better = one(better_is_a=True).case.better
    assert f"  better: {better}" in lines
    said = ["  better first: p(better) 0.200", "    said of ab", "  better second: p(better) 0.400", "    said of ba"]
    assert lines[-4:] == said
    unread = list(explain(graded(None, 0.9), 0.5))
    assert unread[0] == "not read: there is no verdict to go by"
    assert "  better first: unread" in unread
    assert "    reason: the judge gave neither A nor B" in unread


def test_what_a_terminal_would_obey_is_escaped() -> None:
    case = one(better_is_a=True)
    spoken: dict[Order, str] = {"ab": "a\x1b[31m\nb", "ba": ""}
    lines = list(explain(grade(case, comparisons(0.1, 0.1), spoken), 0.5))
    assert "    a\\x1b[31m" in lines
    assert "    (no rationale)" in lines


NO_CASES = (
    "name: bare\nobjectives:\n  one:\n    question: Which?\n    principles:\n      - {id: only, text: Prefer one.}\n"
)
SOME_CASES = constitution_text(("apples", "bridges")).replace(
    "      - id: bridges", "      - {id: bare, text: Prefer what is bare.}\n      - id: bridges"
)


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        (NO_CASES, {}, "no principle has cases; give each cases with prompt, better and worse."),
        (SOME_CASES, {"principles": ["bare"]}, "no case to ask of bare; add cases, or choose others."),
        (SOME_CASES, {"principles": ["bridge"]}, "--principle bridge: not in the constitution; did you mean bridges?"),
        (SOME_CASES, {"objectives": ["xyz"]}, "--objective xyz: not in the constitution; choose of first, last."),
        (SOME_CASES, {"threshold": 0.4}, "--threshold 0.4: "),
        (SOME_CASES, {"threshold": 1.0}, "--threshold 1.0: "),
        (SOME_CASES, {"max_tokens": 0}, "--max-tokens 0: "),
    ],
)
def test_what_cannot_be_asked_is_told_before_the_judge_is_sought(
    text: str, options: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as told:
        package.check_constitution(path, base_url="http://127.0.0.1:9", **options)
    assert expected in str(told.value)
    assert "\n" not in str(told.value)


def test_principles_without_cases_are_named(stub: RunningStub, rlaif: Cli, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(SOME_CASES)
    done = rlaif("constitution", "test", path, "--base-url", stub.url, "--template", "direct")
    assert "without cases: bare\n" in done.stdout


def bad_cache(tmp_path: Path, kind: str) -> Path:
    """A file that cannot be a cache, and why: a run's ledger, no ledger, or one that is being written."""
    path = tmp_path / "judgments.db"
    if kind == "run":
        (tmp_path / "manifest.json").write_text("{}")
    if kind == "text":
        path.write_text("no database, " * 100)
    return path


@pytest.mark.parametrize(
    ("kind", "error", "expected"),
    [
        ("run", InputError, "the ledger of a labelling run; choose a file of its own for --cache."),
        ("text", RunError, "choose another --cache."),
        ("open", RunError, "another process is writing this run; wait for it, or choose another --cache."),
    ],
)
def test_a_file_that_is_no_cache_is_left_alone(
    kind: str, error: type[Exception], expected: str, words: Path, stub: RunningStub, tmp_path: Path
) -> None:
    path = bad_cache(tmp_path, kind)
    before = path.read_bytes() if path.exists() else None
    held: Callable[[], None] = Ledger(path).close if kind == "open" else lambda: None
    try:
        with pytest.raises(error, match=expected):
            package.check_constitution(words, base_url=stub.url, template="direct", cache=path)
    finally:
        held()
    assert kind == "open" or (path.read_bytes() if path.exists() else None) == before


def test_an_interrupted_test_goes_on_from_its_cache(words: Path, tmp_path: Path, rlaif: Cli) -> None:
    # A server that drops every connection after so many answers: the command waits for it until it is interrupted.
    with RunningStub(StubSettings(stop_after=14)) as stub:
        place = ("--base-url", stub.url, "--concurrency", "1", "--cache", tmp_path / "cases.db")
        process = start("constitution", "test", words, *place)
        deadline = time.monotonic() + 60
        while not stub.state.failed:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        _, told = interrupt(process)
        assert f"answers so far are kept in {tmp_path / 'cases.db'}." in told
        stub.server.settings.stop_after = None
        done = rlaif("constitution", "test", words, *place)
    counts = re.fullmatch(r"16 questions: (\d+) asked, (\d+) reused", done.stdout.splitlines()[-1])
    assert counts
    asked, reused = map(int, counts.groups())
    assert asked + reused == 16
    assert 5 <= reused <= 7, "a question is two answers, and one learns the dialect"


def test_the_starter_is_named_for_what_it_is(words: Path, rlaif: Cli) -> None:
    done = rlaif("constitution", "test", words, "--principle", "apples", "--max-tokens", "24")
    assert done.returncode in (0, 1)
    assert done.stderr.splitlines()[0] == JUDGE_NOTE
    assert done.stdout.startswith("judge starter@")
    assert "2 questions: 2 asked, 0 reused" in done.stdout
