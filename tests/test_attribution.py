"""`rlaif show --principles`: what principles did, from verdicts made by hand, from rationales, and from real runs."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from rlaif.cli.principles_report import principles_shown
from rlaif.constitution import load_constitution
from rlaif.labeling.attribution import (
    Conflict,
    Place,
    PrincipleCounts,
    PrincipleReport,
    PrincipleUse,
    count_drawn,
    estimate_from_rationales,
)
from rlaif.labeling.ledgers import PairJudged
from rlaif.labeling.rationales import Reader, stops_at_decider
from rlaif.stats import wilson
from rlaif.types import Order, Verdict
from tests.conftest import ROOT, Cli, made_pairs, read_lines, write_lines
from tests.stub_server import RunningStub


def drawn(
    principle: str | None, p_a: float | None, order: Order = "ab", sample: int = 0, objective: str = "helpful"
) -> Verdict:
    """A verdict for which a principle was drawn; without `p_a` one that was not read."""
    status = "ok" if p_a is not None else "unread"
    return Verdict(objective=objective, order=order, sample=sample, status=status, p_a=p_a, principle=principle)


def judged(pairs: Sequence[Sequence[Verdict]]) -> list[PairJudged]:
    """Pairs of verdicts without a rationale."""
    return [(f"p{number}", [(verdict, "") for verdict in pair]) for number, pair in enumerate(pairs)]


def used(report: PrincipleReport, principle: str) -> PrincipleUse:
    """What one principle did."""
    return next(use for use in report.uses if use.principle == principle)


def test_both_orders_are_one_comparison() -> None:
    report = count_drawn(
        judged(
            [
                # 0.9 and 0.7 give 0.8, gap 0.2. A judge of positions gives 0.5, which decides nothing.
                [drawn("x", 0.9), drawn("x", 0.7, "ba")],
                [drawn("x", 0.95), drawn("x", 0.05, "ba")],
                [drawn("x", 0.2), drawn("x", None, "ba")],
                [drawn("x", None), drawn("x", None, "ba")],
            ]
        )
    )
    x = used(report, "x")
    assert (x.asked, x.unread, x.decided, x.decided_share) == (4, 1, 2, 2 / 3)
    # The sides preferred have 0.8, 0.5 and 0.8; the gaps are 0.2 and 0.9.
    assert x.confidence == pytest.approx(0.7)
    assert x.order_gap == pytest.approx(0.55)
    assert (report.principles, report.samples, report.pairs, report.margin) == ("sample", 1, 4, 0.1)
    assert (x.compared, x.opposed_share, x.opposed_interval) == (0, None, (0.0, 1.0))


def test_the_margin_says_what_is_decided() -> None:
    pairs = judged([[drawn("x", 0.6)], [drawn("x", 0.59)], [drawn("x", 0.4)], [drawn("x", 0.5)]])
    assert used(count_drawn(pairs), "x").decided == 2
    assert used(count_drawn(pairs, margin=0.05), "x").decided == 3
    # A tie takes no side however small the margin is.
    assert used(count_drawn(pairs, margin=0.0), "x").decided == 3


def test_principles_are_held_against_the_others_of_their_objective() -> None:
    pairs = [
        # Against x stand y and z, 0.9 and 0.2: their mean of 0.55 takes no side, so x is not compared, and y likewise.
        # z stands against 0.9.
        [drawn("x", 0.9), drawn("y", 0.9, sample=1), drawn("z", 0.2, sample=2)],
        # x against y.
        [drawn("x", 0.9), drawn("y", 0.1, sample=1)],
        # Drawn twice: x counts once, with the mean of 0.9 and 0.7, against y.
        [drawn("x", 0.9), drawn("x", 0.7, sample=1), drawn("y", 0.8, sample=2)],
        # y takes no side, and nothing can be said of either.
        [drawn("x", 0.9), drawn("y", 0.55, sample=1)],
        # Another objective is no majority of this one.
        [drawn("x", 0.9), drawn("w", 0.1, objective="honest")],
    ]
    report = count_drawn(judged(pairs))
    facts = {use.principle: (use.asked, use.compared, use.opposed) for use in report.uses}
    assert facts == {"x": (6, 2, 1), "y": (4, 2, 1), "z": (1, 1, 1), "w": (1, 0, 0)}
    assert used(report, "x").opposed_interval == wilson(1, 2)
    conflicts = {(one.principle, one.other_principle): (one.opposed, one.both) for one in report.conflicts}
    # Of different objectives too: x against w. The surest first: 1 of 1 before 1 of 3.
    assert conflicts == {("x", "z"): (1, 1), ("x", "w"): (1, 1), ("y", "z"): (1, 1), ("x", "y"): (1, 3)}
    assert report.conflicts[-1] == Conflict(
        objective="helpful",
        principle="x",
        other_objective="helpful",
        other_principle="y",
        both=3,
        opposed=1,
        opposed_share=1 / 3,
        opposed_interval=wilson(1, 3),
    )


@pytest.mark.parametrize(
    ("draws", "decided", "expected"), [(20, 0, True), (20, 1, False), (19, 0, False), (60, 2, True)]
)
def test_what_never_matters_was_drawn_often_and_decided_rarely(draws: int, decided: int, expected: bool) -> None:
    pairs = [[drawn("x", 0.9 if number < decided else 0.52)] for number in range(draws)]
    assert used(count_drawn(judged(pairs)), "x").never_matters is expected


def test_known_principles_keep_their_order_and_those_never_drawn_are_named() -> None:
    known = [Place("helpful", name) for name in ("x", "y", "z")]
    report = count_drawn(judged([[drawn("z", 0.9)], [drawn("x", 0.9)]]), known=known)
    assert [use.principle for use in report.uses] == ["x", "z"]
    assert report.never_drawn == (Place("helpful", "y"),)


def test_ratings_of_both_responses_are_one_comparison() -> None:
    def rating(order: Order, value: int) -> Verdict:
        one = drawn("x", None, order).model_copy(update={"status": "ok", "rating": float(value)})
        return one.model_copy(update={"rating_logprobs": {str(value): 0.0}})

    # 8 for certain against 3 for certain: a is rated higher for certain.
    report = count_drawn(judged([[rating("ab", 8), rating("ba", 3)], [rating("ab", 8)]]))
    x = used(report, "x")
    assert (x.asked, x.unread, x.decided, x.confidence, x.order_gap) == (2, 1, 1, 1.0, None)


TEXTS = (
    ("answers", "Prefer the response that does what the person asked, completely and correctly."),
    ("right-amount", "Prefer the response with the detail the person needs and nothing that gets in the way."),
    ("calm", "Prefer the response that stays calm when it is insulted."),
)


@pytest.mark.parametrize(
    ("rationale", "expected", "where_it_stops"),
    [
        # The reason is said in the words of one principle; a fixed list of steps says nothing.
        (
            "1. A names both rivers, B one.\n2. B tells a long story.\n3. Both are calm.\n\n"
            "What counts is that A did all that was asked, and correctly. So A is better.",
            ("answers", "overlap"),
            ("answers", "overlap"),
        ),
        ("B rambles. A has the details that are needed.", ("right-amount", "overlap"), ("right-amount", "overlap")),
        # Other forms of the words.
        ("A was insulting in return, B stayed calm.", ("calm", "overlap"), ("calm", "overlap")),
        # Named by number or by id, but only in the conclusion, and one alone.
        (
            "They differ little. The second principle decides: B rambles.",
            ("right-amount", "named"),
            ("right-amount", "named"),
        ),
        ("It comes down to Principle 1. So B is better.", ("answers", "named"), ("answers", "named")),
        ("By right-amount, A wins.", ("right-amount", "named"), ("right-amount", "named")),
        ("Principle 1 is for A and principle 2 is for B. A it is.", None, None),
        ("Principle 7 is what I go by.", None, None),
        # The last step of a judge that stops there.
        (
            "First: does it answer? Both do. Both are equal here. Second: does it pad? Response A does. B is better.",
            None,
            ("right-amount", "numbered"),
        ),
        ("**1.** Equal.\n**2.** Equal.\n**3.** A shouts. B wins.", None, ("calm", "numbered")),
        # More steps than principles are steps of something else; and a year is no step.
        ("1. Read.\n2. Think.\n3. Weigh.\n4. B is better by far.", None, None),
        ("In 1999. A is from then. B is better.", None, None),
        # Nothing decided, nothing said, nothing that tells them apart.
        ("First: does it answer the person? Both are equal here.", None, None),
        ("", None, None),
        ("A is better than B.", None, None),
    ],
)
def test_a_rationale_is_read_for_the_principle_it_leans_on(
    rationale: str, expected: tuple[str, str] | None, where_it_stops: tuple[str, str] | None
) -> None:
    reader = Reader(TEXTS)
    assert reader.lean(rationale, stops=False) == expected
    assert reader.lean(rationale, stops=True) == where_it_stops


def test_the_only_principle_decides_whatever_is_said() -> None:
    assert Reader(TEXTS[:1]).lean("B is nicer.", stops=False) == ("answers", "only")


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ([("h", 2)] * 50, False),
        ([("h", 2)] * 19 + [("h", 0)], True),
        ([("h", 2)] * 20 + [("h", 0)], False),
        # Fixed lists of other lengths in other objectives.
        ([("h", 2)] * 9 + [("k", 1)] * 9, False),
        ([("h", None)] * 9, False),
        ([], False),
    ],
)
def test_a_judge_stops_at_the_decider_if_its_rationales_end_at_different_steps(
    ends: list[tuple[str, int | None]], expected: bool
) -> None:
    assert stops_at_decider(ends) is expected


def test_an_estimate_is_made_of_what_could_be_read() -> None:
    first, second = "First: A does. So A is better.", "First: equal. Second: B does. So B is better."
    pairs: list[PairJudged] = [
        ("p0", [(drawn(None, 0.9), first), (drawn(None, 0.2, "ba"), second)]),
        ("p1", [(drawn(None, 0.8), first), (drawn(None, 0.7, "ba"), first)]),
        # No side, not read, no reason; and an objective that was not asked for.
        ("p2", [(drawn(None, 0.55), first), (drawn(None, None, "ba"), "")]),
        ("p3", [(drawn(None, 0.9), "A is better."), (drawn(None, 0.9, objective="other"), first)]),
    ]
    known = [Place("helpful", name) for name, _ in TEXTS]
    report = estimate_from_rationales(lambda: pairs, {"helpful": Reader(TEXTS)}, known)
    assert report.estimate is not None
    assert report.estimate.model_dump() == {
        "judgments": 5,
        "found": 4,
        "coverage": 0.8,
        "methods": {"numbered": 4},
        "stops": True,
    }
    facts = {use.principle: (use.asked, use.decided, use.compared, use.opposed) for use in report.uses}
    # On p0 each stands against the other order. On p1 there is no other principle.
    assert facts == {"answers": (4, 3, 1, 1), "right-amount": (4, 1, 1, 1), "calm": (4, 0, 0, 0)}
    assert used(report, "answers").confidence == pytest.approx((0.9 + 0.8 + 0.7) / 3)
    assert [(one.principle, one.other_principle, one.opposed, one.both) for one in report.conflicts] == [
        ("answers", "right-amount", 1, 1)
    ]


def test_where_no_rationale_leans_on_a_principle_there_is_no_table() -> None:
    report = estimate_from_rationales(lambda: (), {}, ())
    *_, last = principles_shown("run", report)
    assert last == "a principle was found for 0 of 0 judgments that took a side"


def test_a_side_is_taken_from_the_margin_on() -> None:
    counts = PrincipleCounts(margin=0.25)
    assert [counts.takes_side(drawn(None, p_a)) for p_a in (0.75, 0.7, 0.25, None)] == [True, False, True, False]


def facts_of(run: Path) -> dict[tuple[str, str], tuple[int, int]]:
    """Draws and decided comparisons by objective and principle, straight from the ledger."""
    query = (
        "SELECT objective, principle, count(*), sum(abs(p - 0.5) >= 0.1 - 1e-9) FROM "
        "(SELECT objective, principle, avg(p_a) p FROM judgments GROUP BY pair_id, objective, sample) "
        "GROUP BY objective, principle"
    )
    with closing(sqlite3.connect(run / "judgments.db")) as db:
        return {(objective, principle): (count, decided) for objective, principle, count, decided in db.execute(query)}


def test_the_starter_is_measured_and_estimated(tmp_path: Path, rlaif: Cli) -> None:
    pairs = write_lines(tmp_path / "pairs.jsonl", read_lines(ROOT / "examples" / "pairs.jsonl")[:12])
    options = {"sample": ("--principles", "sample", "--samples", 2, "--temperature", 0.7), "all": ()}
    for name, more in options.items():
        done = rlaif("label", pairs, "--out", tmp_path / name, *more, timeout=400)
        assert done.returncode == 0, done.stderr
    measured = json.loads(rlaif("show", "--principles", tmp_path / "sample", "--json").stdout)
    # 12 pairs and 2 samples: 24 comparisons for each objective.
    found = {(use["objective"], use["principle"]): (use["asked"], use["decided"]) for use in measured["uses"]}
    assert found == facts_of(tmp_path / "sample")
    assert sum(asked for (objective, _), (asked, _) in found.items() if objective == "honesty") == 24
    assert (measured["principles"], measured["samples"], measured["pairs"]) == ("sample", 2, 12)
    assert measured["estimate"] is None
    shown = rlaif("show", tmp_path / "sample", "--principles").stdout.splitlines()
    assert shown[0] == f"{tmp_path / 'sample'}: measured on 12 pairs, one principle drawn for each comparison"
    assert shown[4].split()[:5] == ["objective", "principle", "drawn", "decided", "share"]
    asked, decided = found["honesty", "admits-doubt"]
    row = next(line.split() for line in shown if "admits-doubt  " in line)
    assert row[2:4] == [str(asked), str(decided)]
    estimate = json.loads(rlaif("show", "--principles", tmp_path / "all", "--json").stdout)
    with closing(sqlite3.connect(tmp_path / "all" / "judgments.db")) as db:
        (sided,) = db.execute("SELECT count(*) FROM judgments WHERE abs(p_a - 0.5) >= 0.1 - 1e-9").fetchone()
    told = estimate["estimate"]
    assert (told["judgments"], told["found"]) == (sided, sum(use["decided"] for use in estimate["uses"]))
    assert told["coverage"] == pytest.approx(sum(told["methods"].values()) / sided)
    # It says First, Second, … and stops at the principle that decides.
    assert (told["stops"], set(told["methods"])) == (True, {"numbered"})
    shown = rlaif("show", "--principles", tmp_path / "all").stdout.splitlines()
    assert shown[0].startswith(f"{tmp_path / 'all'}: an estimate read from rationales, since every question showed all")
    assert shown[3] == f"found by: the last numbered step {told['found']}"


@pytest.fixture
def labelled(stub: RunningStub, pairs: Path, tmp_path: Path, rlaif: Cli) -> Callable[..., Path]:
    """Make a run of twelve pairs with a server that answers at once: `labelled("--template", "direct")`."""

    def make(*options: object) -> Path:
        run = tmp_path / "run"
        done = rlaif("label", pairs, "--base-url", stub.url, "--out", run, *options)
        assert done.returncode == 0, done.stderr
        return run

    return make


def test_one_draw_a_pair_opposes_nothing_and_says_what_to_do(labelled: Callable[..., Path], rlaif: Cli) -> None:
    run = labelled("--template", "direct", "--principles", "sample", "--objective", "honesty")
    shown = rlaif("show", "--principles", run, "--margin", "0").stdout
    assert "opposed needs more than one draw for a pair: label with --samples 2 or more\n" in shown
    assert "asked under 20 times, too few to say: all\n" in shown
    value = json.loads(rlaif("show", "--principles", run, "--margin", "0", "--json").stdout)
    assert value["margin"] == 0
    # Nothing is drawn exactly between two sides.
    assert all(use["decided"] == use["asked"] for use in value["uses"])
    assert sum(use["asked"] for use in value["uses"]) == 12


def test_a_constitution_that_is_not_the_runs_is_refused(
    labelled: Callable[..., Path], tmp_path: Path, rlaif: Cli
) -> None:
    mine, kept = tmp_path / "mine.yaml", tmp_path / "kept.yaml"
    text = (ROOT / "constitutions" / "hhh.yaml").read_text(encoding="utf-8")
    for file in (mine, kept):
        file.write_text(text.replace("name: hhh", "name: mine"), encoding="utf-8")
    run = labelled("--constitution", mine)
    then, now = load_constitution(kept).digest[:12], load_constitution("hhh").digest[:12]
    mine.write_text(text, encoding="utf-8")
    expected = f"{run}: labelled under the constitution {then}, and {mine} is {now}; give the file as it was then with"
    refused(rlaif("show", "--principles", run), expected)
    mine.unlink()
    refused(
        rlaif("show", "--principles", run), f"{run}: its constitution '{mine}' cannot be loaded ({mine}: no such file"
    )
    refused(
        rlaif("show", "--principles", run, "--constitution", "hhh"), f"{run}: labelled under the constitution {then}"
    )
    done = rlaif("show", "--principles", run, "--constitution", kept)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{run}: an estimate read from rationales")


def test_draws_are_told_without_the_constitution(labelled: Callable[..., Path], tmp_path: Path, rlaif: Cli) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_bytes((ROOT / "constitutions" / "hhh.yaml").read_bytes())
    run = labelled("--template", "direct", "--principles", "sample", "--constitution", mine)
    before = json.loads(rlaif("show", "--principles", run, "--json").stdout)
    mine.unlink()
    after = json.loads(rlaif("show", "--principles", run, "--json").stdout)
    by_name = [sorted(report["uses"], key=lambda use: str(use["principle"])) for report in (before, after)]
    assert by_name[0] == by_name[1]
    refused(rlaif("show", "--principles", run, "--constitution", mine), f"{mine}: no such file")


def test_a_run_without_rationales_is_refused(labelled: Callable[..., Path], rlaif: Cli) -> None:
    run = labelled("--template", "direct")
    expected = f"{run}: its judgments have no rationales; label with --principles sample to measure what principles do."
    refused(rlaif("show", "--principles", run), expected)


def test_rationales_about_one_response_are_refused(tiny_judge: Path, tmp_path: Path, rlaif: Cli) -> None:
    pairs, run = write_lines(tmp_path / "pairs.jsonl", made_pairs(2)), tmp_path / "run"
    judge = ("--judge", tiny_judge, "--engine", "transformers", "--max-tokens", 8, "--objective", "honesty")
    done = rlaif("label", pairs, "--out", run, "--template", "rating", *judge)
    assert done.returncode == 0, done.stderr
    refused(rlaif("show", "--principles", run), f"{run}: its rationales rate one response each, and compare nothing;")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("{run}", "p1", "--principles"), "--principles is about the whole run; drop 'p1', or drop --principles."),
        (("{run}", "--margin", "0.2"), "--margin has a meaning only with --principles; add it, or drop --margin."),
        (("{run}", "--constitution", "hhh"), "--constitution has a meaning only with --principles; add it, or drop"),
        (("{run}", "--principles"), "{run}: no manifest.json; give the folder of a labelling run."),
        (("{copy}", "--principles"), "{copy}: holds no judgments.db; give the whole folder that rlaif label --out"),
    ],
)
def test_a_mistake_is_answered_by_one_line(
    arguments: tuple[str, ...], expected: str, tmp_path: Path, rlaif: Cli
) -> None:
    places = {"run": tmp_path / "none", "copy": tmp_path / "copy"}
    places["copy"].mkdir()
    (places["copy"] / "manifest.json").write_text('{"settings": {"principles": "sample"}}')
    refused(rlaif("show", *(word.format(**places) for word in arguments)), expected.format(**places))


def refused(done: subprocess.CompletedProcess[str], expected: str) -> None:
    """Bad input is told in one line."""
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"Error: {expected}")
    assert done.stderr.count("\n") == 1
