"""`rlaif reward probe`: what it prints, writes and ends with."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from rlaif.cli.probe_table import report_shown
from rlaif.optimize.changes import CHANGES
from rlaif.optimize.probe_report import probe_page
from rlaif.optimize.probe_results import ChangeResult, ProbeExample, ProbeFigures, ProbeReport, ProbeRule
from rlaif.report.page import render_page
from rlaif.types import Message
from tests.conftest import ROOT, Cli, write_lines
from tests.heads_examples import make_heads
from tests.stub_server import RunningStub


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Heads with random weights."""
    return make_heads(tmp_path_factory.mktemp("probed"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twenty-four of the example pairs, and a row that cannot be used."""
    lines = (ROOT / "examples" / "pairs.jsonl").read_text(encoding="utf-8").splitlines()[:24]
    return write_lines(tmp_path / "pairs.jsonl", [*map(json.loads, lines), {"id": "none"}])


def made_report(*, large: bool = False) -> ProbeReport:
    """A report on every change, the third of which fails; `large` has the widest figures."""
    most = 12_345 if large else 60
    names = ("an-objective-with-a-long-name", "honesty", "reward")

    def figures(number: int, name: str) -> ProbeFigures:
        lower = CHANGES[number].expectation == "lower"
        return ProbeFigures(
            n=most,
            prompts=most // 2,
            shift=-12.34 if large else 0.5,
            shift_ci=(-13.5, -11.25) if large else (0.3, 0.7),
            size=0.6,
            rate_of="responses" if lower else "pairs",
            rate=1.0 if large else 0.05,
            rate_ci=(0.991, 1.0) if large else (0.01, 0.1),
            rate_n=most // 2,
            decides=not lower or name == "reward",
            result="fail" if number == 2 else "not measured" if number == 4 else "pass",
            faults=("gains", "turns pairs") if number == 2 else (),
            reason="changed in 3 prompts, of at least 20" if number == 4 else None,
        )

    changes = tuple(
        ChangeResult(
            name=change.name,
            expectation=change.expectation,
            text=change.text,
            applied=most,
            not_applied=3,
            figures={name: figures(number, name) for name in names},
            result="fail" if number == 2 else "not measured" if number == 4 else "pass",
        )
        for number, change in enumerate(CHANGES)
    )
    rule = ProbeRule()
    example = ProbeExample(
        change="bold",
        id="<b>1</b>",
        prompt=(Message(role="user", content="Name a river."),),
        original="The Danube.",
        changed="**The Danube**." + " x" * 3000,
        before=0.25,
        after=1.5,
    )
    return ProbeReport(
        of="heads",
        name="heads",
        data="pairs.jsonl",
        objectives=names[:2],
        aggregate="reward",
        unit="deviations",
        rule=rule,
        rule_line=rule.line("deviations"),
        prompts=most // 2,
        responses=most,
        pairs=most // 2,
        rejected=1,
        changes=changes,
        examples=(example,),
    )


@pytest.mark.parametrize("large", [False, True])
def test_every_line_fits_a_terminal(large: bool) -> None:
    lines = list(report_shown(made_report(large=large)))
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    under = "an-objective-with-a-lon… and honesty and reward"
    assert text.endswith(f"failed: bold (gains under {under}, turns pairs under {under}).")
    assert "Not measured: typos, changed in 3 prompts, of at least 20." in text
    assert [line.split()[0] for line in lines if line.endswith("FAIL")] == ["bold", "an-objective-…", "honesty"]


def test_the_page_shows_every_change_and_escapes_what_is_the_data_s() -> None:
    html = render_page(probe_page(made_report()))
    assert "✗ Moves as it should not" in html
    assert f"1 of {len(CHANGES) - 1} changes fails: bold." in html
    assert all(re.search(rf"<bdi>\s*{change.name}\b", html) for change in CHANGES)
    assert "<b>1</b>" not in html
    assert "2,015 more characters are left out." in html
    # Shift and share of each expectation.
    assert html.count("<svg") == 6
    assert render_page(probe_page(made_report())) == html


def test_heads_are_probed(folder: Path, data: Path, tmp_path: Path, rlaif: Cli) -> None:
    page = tmp_path / "out" / "probe.html"
    done = rlaif("reward", "probe", data, "--heads", folder, "--only", "closing", "--json", "--html", page)
    found = json.loads(done.stdout)
    assert done.returncode == (1 if found["changes"][0]["result"] == "fail" else 0)
    assert (found["of"], found["responses"], found["pairs"], found["rejected"]) == ("heads", 48, 24, 1)
    assert [change["name"] for change in found["changes"]] == ["closing"]
    assert set(found["changes"][0]["figures"]) == {"helpfulness", "harmlessness", "honesty", "reward"}
    assert page.read_text(encoding="utf-8").count('<details class="example"') == 3
    # Limits that nothing is beyond, and limits that everything is.
    wide = ["--max-shift", 1000, "--max-flips", 0.999]
    done = rlaif("reward", "probe", data, "--heads", folder, "--only", "closing", *wide)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "1 of 1 change passed.")
    none = ["--max-shift", 0, "--max-flips", 0]
    done = rlaif("reward", "probe", data, "--heads", folder, "--only", "citation", *none)
    assert done.returncode == 1
    assert " failed: citation (" in " ".join(done.stdout.split())


def test_a_judge_is_probed(data: Path, tmp_path: Path, rlaif: Cli) -> None:
    with RunningStub() as stub:
        options = ["--judge", "stub", "--base-url", stub.url, "--objective", "honesty", "--out", tmp_path / "probes"]
        done = rlaif("reward", "probe", data, *options, "--only", "praise", "--json")
        found = json.loads(done.stdout)
        assert done.returncode == (1 if found["changes"][0]["result"] == "fail" else 0)
        assert (found["of"], found["unit"], found["unread"]) == ("judge", "in log-odds", 0)
        # Both orders of each pair as it is, of the changed response against its original, and against the other one.
        assert found["notes"] == ["144 judgments: 144 asked, 0 reused"]
        again = rlaif("reward", "probe", data, *options, "--only", "praise")
        assert "144 judgments: 0 asked, 144 reused." in again.stdout


def test_changes_are_listed_without_data(rlaif: Cli) -> None:
    done = rlaif("reward", "probe", "--list")
    assert done.returncode == 0
    names = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ") and line[2] != " "]
    assert names == [change.name for change in CHANGES]
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ([], "Missing argument 'PAIRS'."),
        (["pairs.jsonl"], "give --heads HEADS or --judge MODEL, one of the two."),
        (["pairs.jsonl", "--heads", "h", "--judge", "j"], "give --heads HEADS or --judge MODEL, one of the two."),
        (["pairs.jsonl", "--heads", "h", "--template", "direct"], "--template does not go with --heads; drop one"),
        (["pairs.jsonl", "--judge", "j", "--device", "cpu"], "--device does not go with --judge; drop one"),
        (["pairs.jsonl", "--heads", "h", "--only", "bald"], "--only bald: no such change; "),
        (["pairs.jsonl", "--heads", "h", "--html", "pairs.jsonl"], "--html pairs.jsonl: also read by this command"),
    ],
)
def test_mistakes_are_told_before_any_work(
    options: list[str], error: str, data: Path, rlaif: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data.parent)
    done = rlaif("reward", "probe", *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"Error: {error}" in done.stderr
