"""What `rlaif compare` reads: a run, a copied labels.jsonl, recorded labels of several judges; and what it refuses."""

from __future__ import annotations

import gzip
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import rlaif as package
from rlaif.errors import InputError
from tests.conftest import ROOT, Cli, read_lines, write_lines
from tests.test_compare import Rows, human_rows, judge_row, only

EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def starter_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve example pairs labelled by the starter, one objective, both orders."""
    out = tmp_path_factory.mktemp("starter") / "run"
    package.label(EXAMPLES / "pairs.jsonl", out, engine="transformers", limit=12, objectives=["helpfulness"])
    return out


def test_a_run_of_the_starter_against_constructed_labels(rlaif: Cli, starter_run: Path) -> None:
    done = rlaif("compare", starter_run, EXAMPLES / "reference.jsonl", "--objective", "helpfulness", "--json")
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["judge"] == "starter"
    found = printed["objectives"]["helpfulness"]
    labels = {row["id"]: row["labels"]["helpfulness"] for row in read_lines(starter_run / "labels.jsonl")}
    gold = {
        row["id"]: row["preference"]
        for row in read_lines(EXAMPLES / "reference.jsonl")
        if row["objective"] == "helpfulness"
    }
    both = [name for name in gold if name in labels and labels[name]["preference"] is not None]
    right = sum(labels[name]["preference"] == gold[name] for name in both)
    assert found["n"] == len(both) > 0
    assert found["accuracy"] == pytest.approx(right / len(both))
    assert printed["unmatched_humans"] == len({row["id"] for row in read_lines(EXAMPLES / "reference.jsonl")}) - len(
        labels
    )
    # The ledger tells the orders apart: the gap of a label lies between its two verdicts.
    place = found["position"]
    assert place["n"] == 12
    assert place["first_rate"] is not None
    assert found["calibration"]["n"] == found["n"]
    assert found["length"]["n"] > 0
    assert found["warnings"][0].startswith(f"Only {found['n']} pairs")


def test_labels_copied_away_tell_all_but_the_orders(starter_run: Path, tmp_path: Path) -> None:
    copied = shutil.copy(starter_run / "labels.jsonl", tmp_path / "labels.jsonl")
    human = EXAMPLES / "reference.jsonl"
    whole, alone = (package.compare(each, human, objectives=["helpfulness"]) for each in (starter_run, copied))
    run, copy = only(whole), only(alone)
    assert copy.accuracy == run.accuracy
    assert copy.calibration == run.calibration
    # That both orders are on one side follows from p_a and the gap.
    assert (copy.position.n, copy.position.agreement) == (run.position.n, run.position.agreement)
    assert copy.position.first_rate is None
    assert "the run's folder" in copy.not_defined["position.first_rate"]


def test_examples_hold_texts_votes_and_rationales(starter_run: Path) -> None:
    # Everybody is said to prefer the response that the starter does not.
    labels = read_lines(starter_run / "labels.jsonl")
    turned = {"a": "b", "b": "a", "tie": "a"}
    votes = {row["id"]: {"x": turned[row["labels"]["helpfulness"]["preference"]]} for row in labels}
    human = write_lines(starter_run.parent / "turned.jsonl", human_rows(votes, "helpfulness"))
    found = package.compare(starter_run, human, examples=5)
    assert len(only(found).disagreements) == 12
    assert [each.id for each in found.examples] == list(only(found).disagreements[:5])
    first = found.examples[0]
    row = next(row for row in labels if row["id"] == first.id)
    assert (first.response_a, first.response_b) == (row["response_a"], row["response_b"])
    assert first.prompt is not None
    assert first.prompt[0].content == row["prompt"][0]["content"]
    assert first.votes == {"x": first.human}
    assert set(first.rationales) == {"ab", "ba"}
    assert all(first.rationales.values())
    assert "examples" not in json.loads(found.model_dump_json())


def test_calibration_is_written(rlaif: Cli, tmp_path: Path) -> None:
    # Three of four right at p 0.9: odds of 3 in place of 9, so the temperature is log 9 / log 3 = 2.
    judged = [judge_row(f"p{n}", "a", p_a=0.9) for n in range(40)]
    human = human_rows({f"p{n}": {"x": "b" if n % 4 == 0 else "a"} for n in range(40)})
    out = tmp_path / "calibration.json"
    files = write_lines(tmp_path / "j.jsonl", judged), write_lines(tmp_path / "h.jsonl", human)
    done = rlaif("compare", *files, "--calibrate", out)
    assert done.returncode == 0, done.stderr
    written = json.loads(out.read_text(encoding="utf-8"))
    assert written["judge"] == "judge"
    assert written["objectives"]["overall"]["temperature"] == pytest.approx(2.0)
    assert (written["objectives"]["overall"]["n"], written["objectives"]["overall"]["ece"]) == (40, pytest.approx(0.15))
    assert "temperature 2.00" in done.stdout


def test_calibration_without_probabilities_is_refused(rlaif: Cli, tmp_path: Path) -> None:
    files = (
        write_lines(tmp_path / "j.jsonl", [judge_row("p", "a")]),
        write_lines(tmp_path / "h.jsonl", human_rows({"p": {"x": "a"}})),
    )
    done = rlaif("compare", *files, "--calibrate", tmp_path / "out.json")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "no temperature for judge" in done.stderr
    assert not (tmp_path / "out.json").exists()


def test_several_judges_are_ranked(tmp_path: Path) -> None:
    # 100 pairs, people say a. `good` is right on 90, `bad` on 60 of the same 90, `twin` always as good.
    human = human_rows({f"p{n}": {"x": "a"} for n in range(100)})
    rights = {"good": set(range(90)), "bad": set(range(60)), "twin": set(range(90))}
    judged = [
        {"id": f"p{n}", "judge": name, "objective": "overall", "preference": "a" if n in right else "b"}
        for name, right in rights.items()
        for n in range(100)
    ]
    found = compared(tmp_path, judged, human)
    assert [each.judge for each in (found, *found.against)] == ["good", "bad", "twin"]
    (ranking,) = found.ranking
    standings = {each.judge: each for each in ranking.standings}
    assert [each.judge for each in ranking.standings] == ["good", "twin", "vote of 3", "bad"]
    assert {name: each.accuracy for name, each in standings.items()} == {
        "good": 0.9,
        "bad": 0.6,
        "twin": 0.9,
        "vote of 3": 0.9,
    }
    assert standings["good"].best
    assert (standings["twin"].not_worse_than_best, standings["bad"].not_worse_than_best) == (True, False)
    worst = next(each for each in ranking.differences if {each.first, each.second} == {"good", "bad"})
    assert worst.difference == pytest.approx(0.3)
    # 30 pairs to none: the mid-p value is 2 x (1/2) x 2^-30; three of the six tests have one, so Holm's is 3 times it.
    assert worst.p_value == pytest.approx(2**-30)
    assert worst.p_holm == pytest.approx(3 * 2**-30)
    same = next(each for each in ranking.differences if {each.first, each.second} == {"good", "twin"})
    assert (same.difference, same.difference_ci, same.p_value) == (0.0, (0.0, 0.0), None)
    assert ranking.cheapest is None
    assert "tokens" in ranking.not_defined["cheapest"]


def compared(folder: Path, judged: Rows, human: Rows, **options: Any) -> package.Comparison:
    """Compare rows through their files."""
    files = write_lines(folder / "judge.jsonl", judged), write_lines(folder / "human.jsonl", human)
    return package.compare(*files, **options)


def test_mean_log_odds_of_two_judges(tmp_path: Path) -> None:
    # On p0 one is sure of a and the other leans to b: the mean leans to a.
    chances = {"one": (0.95, 0.4), "two": (0.3, 0.45)}
    judged = [
        {"id": f"p{n}", "judge": name, "objective": "overall", "preference": "a" if p > 0.5 else "b", "p_a": p}
        for name, each in chances.items()
        for n, p in enumerate(each)
    ]
    found = compared(tmp_path, judged, human_rows({"p0": {"x": "a"}, "p1": {"x": "b"}}))
    mixed = next(each for each in found.ranking[0].standings if each.kind == "mean log-odds")
    assert mixed.accuracy == 1.0


def test_prompts_that_repeat_stand_or_fall_together(tmp_path: Path) -> None:
    # Ten prompts of ten pairs: 'good' wins all ten pairs of one prompt and no other differs.
    pairs = [
        {"id": f"p{n}", "prompt": f"Question {n // 10}", "response_a": "x", "response_b": "yy"} for n in range(100)
    ]
    judged = [
        {"id": f"p{n}", "judge": name, "objective": "overall", "preference": "b" if name == "bad" and n < 10 else "a"}
        for name in ("good", "bad")
        for n in range(100)
    ]
    human = human_rows({f"p{n}": {"x": "a"} for n in range(100)})
    alone = compared(tmp_path, judged, human).ranking[0].differences[0]
    file = write_lines(tmp_path / "pairs.jsonl", pairs)
    together = compared(tmp_path, judged, human, pairs=file).ranking[0].differences[0]
    assert (alone.test, together.test) == ("mcnemar mid-p", "mcnemar by prompt")
    assert alone.p_value == pytest.approx(2**-10)
    # One prompt leads by ten, the others by none: 10 / sqrt(100) = 1 standard deviation, p = 0.3173.
    assert together.p_value == pytest.approx(0.3173, abs=5e-5)
    assert alone.difference == together.difference == pytest.approx(0.1)
    assert together.difference_ci is not None
    assert together.difference_ci[0] == 0.0


def test_labels_may_be_compressed_and_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    judged, human = tmp_path / "j.jsonl.gz", tmp_path / "h.jsonl"
    with gzip.open(judged, "wt", encoding="utf-8") as file:
        file.write(json.dumps(judge_row("7", "a")) + "\n\n")
    # An id that is a number, and a mark that some editors leave.
    human.write_text("\ufeff" + json.dumps({"id": 7, "annotator": 1, "objective": "overall", "preference": "a"}))
    assert only(package.compare(judged, human)).accuracy == 1.0


HUMAN = human_rows({"p1": {"x": "a"}})
GOOD = judge_row("p1", "a")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([GOOD, {"id": "p2"}], "judge.jsonl:2: judge is missing; expected a text."),
        ([GOOD, judge_row("p2", "A")], "judge.jsonl:2: preference is 'A'; expected a, b or tie, or null"),
        ([GOOD, {"id": "p2", "judge": "judge", "objective": "overall"}], "judge.jsonl:2: preference is missing;"),
        ([GOOD, judge_row("p2", "a", p_a=1.2)], "judge.jsonl:2: p_a is 1.2; expected a probability"),
        ([GOOD, judge_row("p2", "a", p_a="high")], "judge.jsonl:2: p_a is high; expected a probability"),
        ([GOOD, judge_row("p2", "a", p_a=0.2)], "which prefers the other response"),
        ([GOOD, judge_row("p2", None, p_a=0.9)], "judge.jsonl:2: preference is null, as of a judge that abstained"),
        ([GOOD, judge_row("p2", "a", order="first")], "judge.jsonl:2: order is 'first'; expected ab or ba"),
        ([GOOD, judge_row("p2", "b"), GOOD], "judge.jsonl:3: 'judge' labels pair 'p1' for 'overall' also on line 1;"),
        (
            [judge_row("p1", "a", order="ab"), GOOD],
            "judge.jsonl:2: 'judge' labels pair 'p1' for 'overall' also on line 1",
        ),
        ([GOOD, ["p2"]], "judge.jsonl:2: not an object"),
        ([["p2"]], "judge.jsonl:1: neither a label of rlaif label nor a recorded one"),
        ([judge_row("q", "a")], "its ids look like 'q', those of"),
        ([{**GOOD, "objective": "style"}], "has labels for style, and people are asked about overall"),
        ([{"id": "p1", "labels": {}}], "judge.jsonl:1: not a label of rlaif label (prompt: field required)"),
    ],
)
def test_labels_that_cannot_be_used(tmp_path: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        compared(tmp_path, rows, HUMAN)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("human", "message"),
    [
        ([{**HUMAN[0], "preference": "c"}], "human.jsonl:1: preference is 'c'; expected a, b or tie"),
        ([{**HUMAN[0], "preference": None}], "human.jsonl:1: preference is null; expected a, b or tie"),
        ([{"id": "p1", "annotator": "x", "objective": "overall"}], "human.jsonl:1: preference is missing; expected a"),
        ([{**HUMAN[0], "annotator": None}], "human.jsonl:1: annotator is null; expected a text"),
        ([HUMAN[0], HUMAN[0]], "human.jsonl:2: 'x' labels pair 'p1' for 'overall' also on line 1;"),
        ([{"id": "p1", "preference": "a"}], "human.jsonl:1: annotator is missing"),
        (["p1"], "human.jsonl:1: not an object"),
    ],
)
def test_human_labels_that_cannot_be_used(tmp_path: Path, human: list[Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        compared(tmp_path, [GOOD], human)
    assert message in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\n\n", b"{", b"\xff\xfe\x00", b"[1, 2", b"null\n", b'"a"\n', b"\x00" * 40])
def test_garbage_is_one_line_and_exit_code_2(rlaif: Cli, tmp_path: Path, content: bytes) -> None:
    garbage = tmp_path / "garbage.jsonl"
    garbage.write_bytes(content)
    good = write_lines(tmp_path / "good.jsonl", HUMAN), write_lines(tmp_path / "judge.jsonl", [GOOD])
    for arguments in ((good[1], garbage), (garbage, good[0])):
        done = rlaif("compare", *arguments)
        assert done.returncode == 2, done.stdout
        assert done.stderr.startswith("Error: ")
        assert done.stderr.count("\n") == 1
        assert "garbage.jsonl" in done.stderr


def test_settings_that_cannot_be_used(tmp_path: Path) -> None:
    for options, message in (
        ({"objectives": ["style"]}, "--objective style: not in"),
        ({"ties": "maybe"}, "--ties maybe: expected count, half, drop"),
        ({"resamples": -1}, "--resamples -1: expected 0 to 1,000,000"),
        ({"resamples": 10**11}, "--resamples 100000000000: expected 0 to 1,000,000"),
        ({"seed": -1}, "--seed -1: expected 0 or more"),
        ({"generator": "m"}, "--generator m: the pairs do not say who wrote the responses"),
        ({"epsilon": 2.0}, "--epsilon 2.0"),
    ):
        with pytest.raises(InputError, match=message):
            compared(tmp_path, [GOOD], HUMAN, **options)


def test_the_same_file_twice_is_refused(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "judge.jsonl", [GOOD])
    (tmp_path / "folder").mkdir()
    (tmp_path / "linked.jsonl").symlink_to(file)
    for again in (file, tmp_path / "folder" / ".." / "judge.jsonl", tmp_path / "linked.jsonl"):
        with pytest.raises(InputError, match="the same labels are given twice"):
            compared(tmp_path, [GOOD], HUMAN, against=[again])


def test_the_text_fits_a_terminal(rlaif: Cli, tmp_path: Path) -> None:
    human = human_rows({f"pair-{n}": {"x": "a", "y": "a" if n % 3 else "b"} for n in range(60)})
    judged = [judge_row(f"pair-{n}", "a" if n % 5 else "b", p_a=0.8 if n % 5 else 0.3) for n in range(80)]
    files = write_lines(tmp_path / "j.jsonl", judged), write_lines(tmp_path / "h.jsonl", human)
    done = rlaif("compare", *files)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 80
    text = " ".join(" ".join(lines).split())
    # 40 pairs have a majority, a; of 0, 5, ... 55 the judge says b: 5, 10, 20, 25, 35, 40, 50, 55 are among them.
    assert "Agrees with people on 80.0% of 40 pairs (" in text
    assert "20 pairs without a human label, 0 without one of the judge" in text
    assert "Warning: 20 of 60 pairs have no majority of people and are not scored." in text


def test_the_cheapest_judge_is_told_from_the_runs_tokens(starter_run: Path, tmp_path: Path) -> None:
    # The same run twice, once with answers that took a tenth of the tokens.
    cheap = Path(shutil.copytree(starter_run, tmp_path / "cheap"))
    with closing(sqlite3.connect(cheap / "judgments.db")) as db, db:
        db.execute("UPDATE completions SET prompt_tokens = 10, completion_tokens = 2")
    found = package.compare(
        starter_run, EXAMPLES / "reference.jsonl", against=[cheap], objectives=["helpfulness"], resamples=50
    )
    (ranking,) = found.ranking
    costs = {each.judge: each.cost for each in ranking.standings}
    # Two orders of 12 tokens a pair.
    assert costs[f"starter ({cheap})"] == 24.0
    assert costs["mean log-odds of 2"] == sum(cost or 0.0 for name, cost in costs.items() if "of 2" not in name)
    assert ranking.cheapest == f"starter ({cheap})"
