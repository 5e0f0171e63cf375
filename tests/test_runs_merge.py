"""Runs put together: the run that `rlaif label` writes over the joined data, whatever happens meanwhile."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import rlaif as package
from rlaif.errors import InputError, RunError
from rlaif.labeling.settings import DataSettings
from rlaif.labeling.shard import shard
from tests.conftest import Cli, made_pairs, read_lines, write_lines
from tests.merging import contents, judgments, label_parts, large_run, manifest, merge, options, varied_rows
from tests.processes import answered, start, wait_for
from tests.stub_server import RunningStub, StubSettings


@pytest.fixture
def two(tmp_path: Path, stub: RunningStub) -> list[Path]:
    """Two runs on six pairs each, of one dataset of twelve (`pairs.jsonl`), and of one objective."""
    data = write_lines(tmp_path / "pairs.jsonl", made_pairs(12))
    return label_parts(data, 2, tmp_path, **options(stub))


SETTINGS: list[dict[str, Any]] = [
    {"template": "direct"},
    {"template": "pairwise-cot", "objectives": ["honesty", "helpfulness"]},
    {"template": "rating", "objectives": ["helpfulness"]},
    {"samples": 2, "temperature": 0.7, "objectives": ["honesty"], "principles": "sample"},
    {"template": "direct", "orders": "ab", "constitution": "coding"},
    {"template": "direct", "objectives": ["honesty"]},
]


@pytest.mark.parametrize("seed", range(len(SETTINGS)))
def test_parts_labelled_apart_merge_into_the_run_over_the_whole(seed: int, tmp_path: Path, stub: RunningStub) -> None:
    data = write_lines(tmp_path / "pairs.jsonl", varied_rows(seed, 30))
    settings = {"base_url": stub.url, **SETTINGS[seed]}
    whole = package.label(data, tmp_path / "whole", **settings)
    runs = label_parts(data, 2 + seed % 3, tmp_path, **settings)
    random.Random(seed).shuffle(runs)
    before = [contents(run) for run in runs]
    out = tmp_path / "merged"
    summary = merge(runs, out, data)
    assert (summary.state, summary.pairs, summary.judgments) == ("done", whole.pairs, whole.judgments)
    assert (summary.rejected, summary.repeated, summary.missing) == (whole.rejected, 0, 0)
    for name in ("labels.jsonl", "rejects.jsonl"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert judgments(out) == judgments(tmp_path / "whole")
    mine, theirs = manifest(out), manifest(tmp_path / "whole")
    assert mine["options"].pop("out") != theirs["options"].pop("out")
    assert mine.pop("last_session") != theirs.pop("last_session")
    assert mine.pop("ending") == {} != theirs.pop("ending")
    assert mine == theirs
    assert [contents(run) for run in runs] == before
    asked = stub.state.count
    again = package.label(data, out, **settings)
    assert (again.asked, again.reused) == (0, whole.judgments)
    assert stub.state.count == asked
    assert (out / "labels.jsonl").read_bytes() == (tmp_path / "whole" / "labels.jsonl").read_bytes()
    with sqlite3.connect(out / "judgments.db") as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_without_data_the_runs_are_joined_in_their_order(two: list[Path], tmp_path: Path, stub: RunningStub) -> None:
    out = tmp_path / "merged"
    summary = merge([two[1], two[0]], out)
    assert summary.data == str(out / "pairs.jsonl")
    assert (out / "labels.jsonl").read_bytes() == b"".join((run / "labels.jsonl").read_bytes() for run in two[::-1])
    asked = stub.state.count
    again = package.label(out / "pairs.jsonl", out, **options(stub))
    assert (again.pairs, again.asked, again.reused) == (12, 0, 24)
    assert stub.state.count == asked
    whole = package.label(out / "pairs.jsonl", tmp_path / "whole", **options(stub))
    assert whole.asked == 24
    assert (tmp_path / "whole" / "labels.jsonl").read_bytes() == (out / "labels.jsonl").read_bytes()


def test_pairs_of_which_every_judgment_failed_stay_rejects(tmp_path: Path) -> None:
    rows = made_pairs(12)
    for number in (3, 8):
        rows[number]["response_a"] = "x" * 30_000
    rows[5]["prompt"] = None
    data = write_lines(tmp_path / "pairs.jsonl", rows)
    with RunningStub(StubSettings(max_chars=20_000)) as stub:
        package.label(data, tmp_path / "whole", **options(stub))
        runs = label_parts(data, 3, tmp_path, **options(stub))
    summary = merge(runs, tmp_path / "merged", data)
    assert (summary.state, summary.pairs, summary.rejected) == ("done", 9, 3)
    for name in ("labels.jsonl", "rejects.jsonl"):
        assert (tmp_path / "merged" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert manifest(tmp_path / "merged")["counts"] == manifest(tmp_path / "whole")["counts"]
    # Without the dataset a line is one of a part, so the run is told with it.
    merge(runs, tmp_path / "joined")
    rejects = read_lines(tmp_path / "joined" / "rejects.jsonl")
    assert {reject["row"]["id"] for reject in rejects} == {"pair-3", "pair-8"}
    assert all(Path(reject["run"]) in runs for reject in rejects)
    assert len(read_lines(tmp_path / "joined" / "pairs.jsonl")) == 9


def test_other_commands_take_a_merged_run(two: list[Path], tmp_path: Path, rlaif: Cli) -> None:
    out = tmp_path / "merged"
    done = rlaif("runs", "merge", *two, "--data", tmp_path / "pairs.jsonl", "--out", out)
    assert done.stdout == f"2 runs merged: 12 pairs, 24 judgments, 0 rows rejected -> {out}/labels.jsonl\n"
    assert done.stderr == ""
    shown = json.loads(rlaif("show", out, "pair-7", "--json").stdout)
    assert len(shown["judgments"]) == 2
    assert "judgments: 24" in rlaif("show", out).stdout
    human = [
        {"id": f"pair-{n}", "annotator": "ann", "objective": "honesty", "preference": "ab"[n % 2]} for n in range(12)
    ]
    compared = rlaif("compare", out, write_lines(tmp_path / "human.jsonl", human), "--json")
    assert json.loads(compared.stdout)["objectives"]["honesty"]["n"] == 12, compared.stderr
    # What train-heads reads.
    exported = rlaif("export", out, "--format", "trl-conversational", "--out", tmp_path / "trl.jsonl")
    assert exported.returncode == 0, exported.stderr
    assert len(read_lines(tmp_path / "trl.jsonl")) == 12


def test_what_two_runs_have_is_taken_once(tmp_path: Path, stub: RunningStub) -> None:
    rows = made_pairs(12)
    data = write_lines(tmp_path / "pairs.jsonl", rows)
    first, second = write_lines(tmp_path / "a.jsonl", rows[:8]), write_lines(tmp_path / "b.jsonl", rows[5:])
    for file in (first, second, data):
        package.label(file, tmp_path / file.stem, **options(stub))
    summary = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "merged", data)
    assert (summary.judgments, summary.repeated) == (24, 6)
    assert judgments(tmp_path / "merged") == judgments(tmp_path / "pairs")
    assert (tmp_path / "merged" / "labels.jsonl").read_bytes() == (tmp_path / "pairs" / "labels.jsonl").read_bytes()
    joined = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "joined")
    assert (joined.pairs, joined.judgments, joined.repeated) == (12, 24, 6)


def test_a_run_that_has_not_ended_is_merged_and_goes_on(tmp_path: Path) -> None:
    data = write_lines(tmp_path / "pairs.jsonl", made_pairs(60))
    parts = [part.file for part in shard(DataSettings(data=str(data)), 2, tmp_path / "parts").parts]
    runs = [tmp_path / "ended", tmp_path / "killed"]
    with RunningStub(StubSettings(delay_s=0.1)) as stub:
        package.label(parts[0], runs[0], **options(stub))
        command = ("label", parts[1], "--base-url", stub.url, "--template", "direct", "--objective", "honesty")
        process = start(*command, "--concurrency", "4", "--out", runs[1])
        wait_for(runs[1], 10, process)
        busy = tmp_path / "busy"
        with pytest.raises(RunError, match="another process is writing this run; wait for it"):
            merge(runs, busy, data)
        process.kill()
        process.communicate()
    kept = answered(runs[1])
    assert 10 <= kept < 60
    with pytest.raises(InputError, match=r"killed: has not ended; finish it .*, or add --data DATA"):
        merge(runs, busy)
    assert not busy.exists()
    before = {name: data for name, data in contents(runs[1]).items() if not name.endswith("-shm")}
    assert before["judgments.db-wal"]
    summary = merge(runs, tmp_path / "merged", data)
    assert {name: data for name, data in contents(runs[1]).items() if not name.endswith("-shm")} == before
    assert (summary.state, summary.judgments, summary.unfinished) == ("running", 60 + kept, [str(runs[1])])
    assert not (tmp_path / "merged" / "labels.jsonl").exists()
    with RunningStub() as stub:
        done = package.label(data, tmp_path / "merged", **options(stub))
        package.label(data, tmp_path / "whole", **options(stub))
    assert (done.asked, done.reused) == (60 - kept, 60 + kept)
    assert (tmp_path / "merged" / "labels.jsonl").read_bytes() == (tmp_path / "whole" / "labels.jsonl").read_bytes()


def test_a_part_that_was_left_out_is_told_and_asked_later(two: list[Path], tmp_path: Path, rlaif: Cli) -> None:
    out, data = tmp_path / "merged", tmp_path / "pairs.jsonl"
    done = rlaif("runs", "merge", two[0], "--data", data, "--out", out)
    assert done.returncode == 0
    assert done.stdout == f"1 run merged: 12 judgments -> {out}, which has not ended\n"
    assert f"6 pairs of {data} in none of the runs.\nrlaif label {data} --out {out}, with" in done.stderr
    with RunningStub() as stub:
        again = package.label(data, out, **options(stub))
        assert (again.asked, again.reused) == (12, 12)


def test_an_update_that_has_not_ended_gives_its_new_questions_only(two: list[Path], tmp_path: Path) -> None:
    with RunningStub() as stub:
        package.label(tmp_path / "parts" / "part-1-of-2.jsonl", two[0], update=True, **options(stub, template="rating"))
        with RunningStub(StubSettings(stop_after=15)) as dying:
            hasty = {"engine_args": {"patience": 1}, "concurrency": 1}
            part = tmp_path / "parts" / "part-2-of-2.jsonl"
            with pytest.raises(RunError):
                package.label(part, two[1], update=True, **options(dying, template="rating", **hasty))
        with closing(sqlite3.connect(two[1] / "judgments.db")) as db:
            query = "SELECT count(*) FROM plan JOIN completions USING (key) WHERE generation = 1"
            (kept,) = db.execute(query).fetchone()
        assert 0 < kept < 12
        # Where it is asked is no setting; how patiently neither.
        summary = merge(two, tmp_path / "merged", tmp_path / "pairs.jsonl")
        assert (summary.state, summary.judgments) == ("running", 12 + kept)
        done = package.label(tmp_path / "pairs.jsonl", tmp_path / "merged", **options(stub, template="rating"))
        assert (done.asked, done.reused) == (12 - kept, 12 + kept)
        # The answers of before the update were paid for: going back asks nothing.
        back = package.label(tmp_path / "pairs.jsonl", tmp_path / "merged", update=True, **options(stub))
        assert (back.asked, back.reused) == (0, 24)


def test_a_policy_s_runs_become_a_run_over_what_it_said(tmp_path: Path, stub: RunningStub) -> None:
    data = write_lines(tmp_path / "prompts.jsonl", [{"prompt": f"Name {number} rivers."} for number in range(8)])
    runs = label_parts(data, 2, tmp_path, **options(stub, policy="stub"))
    with pytest.raises(InputError, match=r"that --policy sampled, which no dataset holds; leave out --data"):
        merge(runs, tmp_path / "merged", data)
    merge(runs, tmp_path / "merged")
    again = package.label(tmp_path / "merged" / "pairs.jsonl", tmp_path / "merged", **options(stub))
    assert (again.pairs, again.asked, again.reused) == (8, 0, 16)


def test_a_ledger_of_the_version_before_ratings(two: list[Path], tmp_path: Path) -> None:
    expected = merge(two, tmp_path / "expected")
    with sqlite3.connect(two[1] / "judgments.db") as db:
        db.executescript("DROP VIEW judgments; ALTER TABLE completions DROP COLUMN rating; PRAGMA user_version = 1")
    assert merge(two, tmp_path / "merged").judgments == expected.judgments
    assert judgments(tmp_path / "merged") == judgments(tmp_path / "expected")


def test_killed_at_any_moment_it_leaves_nothing_or_all(two: list[Path], tmp_path: Path, rlaif: Cli) -> None:
    runs = [tmp_path / "large-0", tmp_path / "large-1"]
    for number, run in enumerate(runs):
        large_run(two[0], run, 2000 * number, 2000)
    before = [contents(run) for run in runs]
    merge(runs, tmp_path / "expected")
    out, making = tmp_path / "merged", tmp_path / ".merged.unfinished"
    arguments = ("runs", "merge", *runs, "--out", out)
    met = 0
    for seen in ("judgments.db", ".labels.jsonl.*", "manifest.json"):
        process = start(*arguments)
        while not list(making.glob(seen)) and process.poll() is None:
            time.sleep(0.001)
        process.kill()
        process.communicate()
        met += process.returncode == -9
        if out.exists():
            # It was through before the kill came.
            assert contents(out).keys() == contents(tmp_path / "expected").keys()
            shutil.rmtree(out)
    assert met >= 2
    done = rlaif(*arguments)
    assert done.returncode == 0, done.stderr
    assert not making.exists()
    for name in ("labels.jsonl", "rejects.jsonl", "pairs.jsonl"):
        assert (out / name).read_bytes() == (tmp_path / "expected" / name).read_bytes()
    assert judgments(out) == judgments(tmp_path / "expected")
    assert [contents(run) for run in runs] == before


@pytest.mark.parametrize("limit", [60_000, 1_000_000])
def test_a_disk_that_fills_up_leaves_the_runs_as_they_were(limit: int, two: list[Path], tmp_path: Path) -> None:
    """First in the ledger, then in the labels."""
    runs = [tmp_path / "large-0", tmp_path / "large-1"]
    for number, run in enumerate(runs):
        large_run(two[0], run, 1000 * number, 1000)
    before = [contents(run) for run in runs]
    assert sum((run / "judgments.db").stat().st_size for run in runs) > 60_000
    process = start("runs", "merge", *runs, "--out", tmp_path / "merged", limit_bytes=limit)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.count("\n") == 1
    assert err.startswith(f"Error: {tmp_path}/merged/")
    assert "cannot be written" in err
    assert "free some space" in err
    assert [contents(run) for run in runs] == before
    assert not [path for path in tmp_path.iterdir() if "merged" in path.name]
    assert merge(runs, tmp_path / "merged").state == "done"
