"""Mistakes of those who type `rlaif compare`: nothing of theirs is lost, and what is left out is told."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

import rlaif as package
from rlaif.errors import InputError
from rlaif.files import replacing
from tests.conftest import Cli, write_lines
from tests.test_compare import PAIRS, human_rows, judge_row, only, run
from tests.test_compare_files import GOOD, HUMAN


def files(folder: Path) -> tuple[Path, Path]:
    """Labels of a judge and of a person, on one pair."""
    return write_lines(folder / "judge.jsonl", [GOOD]), write_lines(folder / "human.jsonl", HUMAN[:1])


@pytest.mark.parametrize("option", ["--html", "--calibrate"])
@pytest.mark.parametrize("name", ["judge.jsonl", "human.jsonl", "other.jsonl", "pairs.jsonl"])
def test_what_is_read_is_not_written_over(option: str, name: str, rlaif: Cli, tmp_path: Path) -> None:
    given = files(tmp_path)
    other = write_lines(tmp_path / "other.jsonl", [{**GOOD, "judge": "other"}])
    pairs = write_lines(tmp_path / "pairs.jsonl", PAIRS[:1])
    before = (tmp_path / name).read_bytes()
    done = rlaif("compare", *given, "--against", other, "--pairs", pairs, option, tmp_path / name)
    assert done.returncode == 2
    assert f"{option} {tmp_path / name}: also read by this command; choose another file." in done.stderr
    assert (tmp_path / name).read_bytes() == before


def test_a_run_s_own_files_are_not_written_over(rlaif: Cli, tmp_path: Path) -> None:
    judge, human = files(tmp_path)
    folder = tmp_path / "run"
    folder.mkdir()
    labels = Path(judge.rename(folder / "labels.jsonl"))
    before = labels.read_bytes()
    done = rlaif("compare", folder, human, "--html", labels)
    assert (done.returncode, labels.read_bytes()) == (2, before)
    assert "also read by this command" in done.stderr


def test_a_folder_is_no_report_and_a_missing_folder_is_made(rlaif: Cli, tmp_path: Path) -> None:
    given = files(tmp_path)
    done = rlaif("compare", *given, "--html", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"Error: --html {tmp_path}: a folder; expected a file.\n"
    page = tmp_path / "reports" / "new" / "page.html"
    done = rlaif("compare", *given, "--html", page, "--calibrate", page)
    assert (done.returncode, done.stderr) == (
        2,
        f"Error: --html {page}: also the file of --calibrate; choose another file.\n",
    )
    assert rlaif("compare", *given, "--html", page).returncode == 0
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_without_a_temperature_the_figures_and_the_report_are_there(rlaif: Cli, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = rlaif("compare", *files(tmp_path), "--json", "--html", page, "--calibrate", tmp_path / "fit.json")
    assert done.returncode == 2
    assert "no temperature" in done.stderr
    assert json.loads(done.stdout)["objectives"]["overall"]["accuracy"] == 1.0
    assert page.exists()
    assert not (tmp_path / "fit.json").exists()


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with replacing(pipe) as out:
            out.write("a report\n")
        assert os.read(reader, 100) == b"a report\n"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert list(tmp_path.iterdir()) == [pipe]


def test_pairs_that_nobody_labelled_are_refused(tmp_path: Path) -> None:
    votes = human_rows({"p1": {"x": "a"}})
    with pytest.raises(InputError, match="holds none of the pairs that were labelled; its ids look like 'p2', those"):
        run(tmp_path, [judge_row("p1", "a")], votes, PAIRS[1:])
    with pytest.raises(InputError, match=r"pairs\.jsonl: holds no pairs; expected rows with id, prompt"):
        run(tmp_path, [judge_row("p1", "a")], votes, votes)


def test_pairs_without_texts_are_counted(tmp_path: Path) -> None:
    judged = [judge_row(f"p{n}", "a") for n in range(1, 5)]
    votes = human_rows({f"p{n}": {"x": "a"} for n in range(1, 5)})
    told = "The texts of 1 of 4 pairs are not known; lengths, form and tags are of the others."
    assert told in only(run(tmp_path, judged, votes, PAIRS[:3])).warnings
    assert not any("texts" in line for line in only(run(tmp_path, judged, votes, PAIRS)).warnings)


def test_a_generator_that_wrote_nothing_is_refused_with_those_that_did(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--generator typo: who wrote responses there is judge, m; give one of those"):
        run(tmp_path, [judge_row("p1", "a")], human_rows({"p1": {"x": "a"}}), PAIRS, generator="typo")


def test_judges_without_a_pair_in_common_are_not_ranked(rlaif: Cli, tmp_path: Path) -> None:
    judged = [{**judge_row("p1", "a"), "judge": "one"}, {**judge_row("p2", "b"), "judge": "two"}]
    labels = write_lines(tmp_path / "judge.jsonl", judged)
    human = write_lines(tmp_path / "human.jsonl", human_rows({"p1": {"x": "a"}, "p2": {"x": "a"}}))
    (ranking,) = package.compare(labels, human).ranking
    assert [(each.n, each.best, each.accuracy) for each in ranking.standings] == [(0, False, None)] * 2
    done = rlaif("compare", labels, human, "--html", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
    assert "Judges, overall: no pair was judged by all, so they are not ranked." in done.stdout


def test_little_data_is_told_in_plain_words(tmp_path: Path) -> None:
    one = only(run(tmp_path, [judge_row("p1", "a")], human_rows({"p1": {"x": "a"}})))
    assert one.warnings[0] == "Only 1 pair with labels of judge and people: the figures say little."
    assert one.not_defined["alt_test"] == "one annotator, so that there is nobody else to be as close to"
    none = only(run(tmp_path, [judge_row("p1", None)], human_rows({"p1": {"x": "a"}})))
    assert none.warnings[0] == "No pair has a preference of the judge and a majority of people, so nothing is scored."


def test_people_who_hardly_agree_are_a_warning(tmp_path: Path) -> None:
    # x and y never agree, so that any judge is as close to one of them as the other is.
    votes = human_rows({f"p{n}": {"x": "a", "y": "b"} for n in range(40)})
    found = only(run(tmp_path, [judge_row(f"p{n}", "a") for n in range(40)], votes))
    assert found.alt_test.passed
    # Krippendorff: 80 ratings, no pair agrees, 2 x 40 x 40 / 79 could be expected: 1 - 80 x 79 / 3200 = -0.975.
    assert found.humans.alpha == pytest.approx(-0.975)
    assert any(line.startswith("People hardly agree with each other (alpha -0.9") for line in found.warnings)


def test_names_of_any_length_fit_a_terminal(rlaif: Cli, tmp_path: Path) -> None:
    name = "n" * 300
    judged = [{"id": f"p{n}{name}", "judge": name, "objective": name, "preference": "b"} for n in range(40)]
    people = human_rows({row["id"]: {name: "a"} for row in judged}, name)
    labels, human = write_lines(tmp_path / "j.jsonl", judged), write_lines(tmp_path / "h.jsonl", people)
    done = rlaif("compare", labels, human)
    assert done.returncode == 0, done.stderr
    assert max(len(line) for line in done.stdout.splitlines() if str(tmp_path) not in line) <= 80


def test_a_judge_that_two_files_name_has_each_file_once_in_its_heading(rlaif: Cli, tmp_path: Path) -> None:
    judge, human = files(tmp_path)
    again = write_lines(tmp_path / "again.jsonl", [GOOD])
    done = rlaif("compare", judge, human, "--against", again)
    assert done.returncode == 0, done.stderr
    headings = "".join(done.stdout.split("Judges, overall")[0].split())
    assert headings.count(f"judge({judge})") == headings.count(f"judge({again})") == 1
    assert headings.count(str(judge)) == headings.count(str(again)) == 1
