"""Runs that cannot be put together: one line that says why, and what to do."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

import rlaif as package
from rlaif.errors import InputError, RunError
from tests.conftest import Cli, made_pairs, write_lines
from tests.merging import label_parts, manifest, merge, options
from tests.stub_server import RunningStub


@pytest.fixture
def two(tmp_path: Path, stub: RunningStub) -> list[Path]:
    """Two runs on six pairs each, of one dataset of twelve (`pairs.jsonl`), and of one objective."""
    data = write_lines(tmp_path / "pairs.jsonl", made_pairs(12))
    return label_parts(data, 2, tmp_path, **options(stub))


def test_other_settings_are_refused_with_their_names(two: list[Path], tmp_path: Path, stub: RunningStub) -> None:
    third = tmp_path / "third"
    package.label(tmp_path / "pairs.jsonl", third, **options(stub, orders="ab", seed=3))
    with pytest.raises(InputError) as error:
        merge([*two, third], tmp_path / "merged")
    assert str(error.value) == (
        f"{two[0]}: other settings than in {third} (orders: both -> ab; seed: 0 -> 3); give the rlaif label command of "
        "one again with the settings of the other and --update, which asks only what they change, or leave it out."
    )
    # The fix holds: the settings are those of the others then.
    package.label(tmp_path / "pairs.jsonl", third, update=True, **options(stub))
    assert merge([*two, third], tmp_path / "merged").repeated == 24


def test_numbers_that_two_machines_chose_are_not_mixed(two: list[Path], tmp_path: Path) -> None:
    for run, dtype in zip(two, ("float32", "bfloat16"), strict=True):
        value = manifest(run) | {"engine": {"dtype": dtype, "device": "cpu", "batch_tokens": 1}}
        (run / "manifest.json").write_text(json.dumps(value))
    with pytest.raises(InputError, match=r"\(dtype, chosen by the machine: float32 -> bfloat16\)"):
        merge(two, tmp_path / "merged")


def test_different_answers_to_one_question_are_refused(tmp_path: Path, stub: RunningStub) -> None:
    data = write_lines(tmp_path / "pairs.jsonl", made_pairs(4))
    runs = [tmp_path / name for name in ("a", "b", "c")]
    for run in runs:
        package.label(data, run, **options(stub))
    with sqlite3.connect(runs[2] / "judgments.db") as db:
        (key,) = db.execute("SELECT key FROM plan WHERE pair_id = 'pair-2' LIMIT 1").fetchone()
        db.execute("UPDATE completions SET prompt_tokens = prompt_tokens + 1 WHERE key = ?", (key,))
    assert merge(runs, tmp_path / "same").judgments == 8  # tokens are no answer
    with sqlite3.connect(runs[2] / "judgments.db") as db:
        db.execute("UPDATE completions SET p_first = 0.25 WHERE key = ?", (key,))
    with pytest.raises(InputError) as error:
        merge(runs, tmp_path / "merged", data)
    assert str(error.value) == (
        f"{runs[0]} and {runs[2]}: different answers to the same question, honesty of pair 'pair-2'; leave one of the "
        "two runs out, and rlaif label on the merged run asks what only it had."
    )
    assert not (tmp_path / "merged").exists()
    assert merge(runs[:2], tmp_path / "merged", data).state == "done"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"response_a": "another"}, "pair 'pair-1' has other texts in each; an id stands for one pair"),
        ({"tags": {"number": 7}}, "pair 'pair-1' has other texts or tags in each; an id stands for one pair"),
    ],
)
def test_an_id_that_stands_for_two_pairs_is_refused(
    change: dict[str, Any], expected: str, tmp_path: Path, stub: RunningStub
) -> None:
    rows = made_pairs(3)
    runs = [tmp_path / "a", tmp_path / "b"]
    package.label(write_lines(tmp_path / "a.jsonl", rows), runs[0], **options(stub))
    rows[1] |= change
    package.label(write_lines(tmp_path / "b.jsonl", rows), runs[1], **options(stub))
    with pytest.raises(InputError) as error:
        merge(runs, tmp_path / "merged")
    assert str(error.value).startswith(f"{runs[0]} and {runs[1]}: {expected}")


def test_data_that_is_not_the_runs_is_refused(two: list[Path], tmp_path: Path) -> None:
    fewer = write_lines(tmp_path / "fewer.jsonl", made_pairs(11))
    with pytest.raises(InputError, match=r"pair 'pair-11' is not in .*fewer\.jsonl; give --data the dataset that was"):
        merge(two, tmp_path / "merged", fewer)
    with pytest.raises(InputError, match=r"pair 'pair-11' is not in"):
        merge(two, tmp_path / "merged", tmp_path / "pairs.jsonl", limit=11)
    rows = made_pairs(12)
    rows[4]["response_b"] = "Something else."
    other = write_lines(tmp_path / "other.jsonl", rows)
    with pytest.raises(InputError, match=r"pair 'pair-4' is not that of --data \(response_b differs\)"):
        merge(two, tmp_path / "merged", other)
    with pytest.raises(InputError, match=r"absent\.jsonl: no such file"):
        merge(two, tmp_path / "merged", tmp_path / "absent.jsonl")
    assert not [path for path in tmp_path.iterdir() if "merged" in path.name]


def test_what_is_no_run_is_told_in_one_line(two: list[Path], tmp_path: Path, rlaif: Cli) -> None:
    first, second = two
    (tmp_path / "empty").mkdir()
    out = tmp_path / "merged"
    mistakes: list[tuple[list[Path], Path, str]] = [
        ([first, tmp_path / "nowhere"], out, "nowhere: no such folder; give the folder of a labelling run"),
        ([first, first / "labels.jsonl"], out, "labels.jsonl: a file; give the folder of a labelling run"),
        ([first, tmp_path / "empty"], out, "empty: no manifest.json of a labelling run"),
        ([first, second, first], out, "run-0: given twice; name each run once"),
        ([first, tmp_path / "parts" / ".." / "run-0"], out, r"run-0: given twice \(as .*run-0\); name"),
        ([first, second], second, "run-1: is, or is inside, one of the runs; choose another folder"),
        ([first, second], second / "merged", "merged: is, or is inside, one of the runs"),
        ([first, second], tmp_path / "parts", "parts: holds part-1-of-2.jsonl already; choose another --out"),
    ]
    for runs, target, expected in mistakes:
        with pytest.raises(InputError, match=expected) as error:
            merge(runs, target)
        assert "\n" not in str(error.value)
    value = manifest(second)
    (second / "manifest.json").write_text(json.dumps(value | {"settings": value["settings"] | {"cascade": {"x": 1}}}))
    with pytest.raises(InputError, match="run-1: labelled with --cascade"):
        merge(two, out)
    (second / "manifest.json").write_text(json.dumps(value))
    (second / "judgments.db").unlink()
    with pytest.raises(InputError, match=r"run-1: holds no judgments\.db"):
        merge(two, out)
    done = rlaif("runs", "merge", *two, "--limit", "3", "--out", out)
    assert done.returncode == 2
    assert done.stderr == "Error: --limit says how --data is read; add --data, or drop --limit.\n"


@pytest.mark.parametrize("damage", ["text", "pages", "cut", "empty", "version"])
def test_a_damaged_ledger_is_told_and_nothing_is_made(damage: str, two: list[Path], tmp_path: Path) -> None:
    ledger = two[1] / "judgments.db"
    whole = ledger.read_bytes()
    if damage == "version":
        with sqlite3.connect(ledger) as db:
            db.execute("PRAGMA user_version = 9")
    else:
        page = 4096
        pages = whole[:page] + b"\xa7" * (len(whole) - page)
        ledger.write_bytes({"text": b"notes " * 2000, "pages": pages, "cut": whole[: page + 10], "empty": b""}[damage])
    expected = "a ledger of version 9" if damage == "version" else "cannot be read"
    with pytest.raises(RunError, match=rf"run-1/judgments\.db: {expected}") as error:
        merge(two, tmp_path / "merged")
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pairs.jsonl", "parts", "run-0", "run-1"]


@pytest.mark.parametrize(("name", "fact"), [("labels.jsonl", "not a label of rlaif label"), ("rejects.jsonl", "not a")])
def test_a_line_that_is_none_is_told_with_its_place(name: str, fact: str, two: list[Path], tmp_path: Path) -> None:
    with (two[1] / name).open("a") as file:
        file.write('{"id": 3}\n')
    with pytest.raises(InputError, match=rf"run-1/{name}:\d: {fact}"):
        merge(two, tmp_path / "merged", tmp_path / "pairs.jsonl")


def test_a_label_that_was_taken_out_is_written_again(two: list[Path], tmp_path: Path, stub: RunningStub) -> None:
    labels = two[1] / "labels.jsonl"
    labels.write_text("".join(labels.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(InputError, match=r"run-1: pair '.*' has answers and no label; end the run again"):
        merge(two, tmp_path / "joined")
    assert merge(two, tmp_path / "merged", tmp_path / "pairs.jsonl").state == "running"
    done = package.label(tmp_path / "pairs.jsonl", tmp_path / "merged", **options(stub))
    assert (done.pairs, done.asked) == (12, 0)
