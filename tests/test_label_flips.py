"""`rlaif constitution diff` with two runs: which labels flip, counted by hand, and runs that do not fit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from rlaif.constitution import load_constitution
from rlaif.types import Label
from tests.conftest import ROOT, Cli, read_lines, write_lines
from tests.stub_server import RunningStub
from tests.test_constitution import GOOD as OLD
from tests.test_constitution_diff import PRINTED, write_constitutions


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Two constitutions in files: OLD has helpful and honest, NEW helpful and kind."""
    return write_constitutions(tmp_path)


P_A = {"a": 0.75, "b": 0.25, "t": 0.5, "-": None}
PREFERENCE = {"a": "a", "b": "b", "t": "tie", "-": None}


def label_row(constitution: Path, pair_id: str, sides: dict[str, str], **changes: Any) -> dict[str, Any]:
    """A line of labels by its preferences: a, b, t for a tie, - for none; `overall` is that of all objectives."""

    def one(side: str) -> dict[str, Any]:
        return {"p_a": P_A[side], "preference": PREFERENCE[side]}

    row = {
        "id": pair_id,
        "prompt": [{"role": "user", "content": f"Question {pair_id}?"}],
        "response_a": "One.",
        "response_b": "Two.",
        "tags": {},
        "labels": {
            name: {**one(side), "order_gap": None, "verdicts": 1, "abstained": 0}
            for name, side in sides.items()
            if name != "overall"
        },
        "overall": {**one(sides["overall"]), "method": "weighted", "pareto": None},
        "provenance": {
            "judge": "judge@1",
            "constitution": load_constitution(constitution).reference,
            "template": "direct@2",
            "rlaif": "0.1.0",
        },
    }
    return {**row, **changes}


# A column a pair, p0 to p9: helpful, then overall, in the old run and the new one.
SIDES = {
    "old helpful": "aabbtatab-",
    "new helpful": "abbatbat-a",
    "old overall": "aaaaaaaaaa",
    "new overall": "aaaaaaabaa",
}


def labels_of(constitution: Path, which: str, extra: dict[str, str]) -> list[dict[str, Any]]:
    """The ten lines of the old or the new run."""
    columns = zip(SIDES[f"{which} helpful"], SIDES[f"{which} overall"], strict=True)
    return [
        label_row(constitution, f"p{number}", {"helpful": helpful, "overall": overall, **extra})
        for number, (helpful, overall) in enumerate(columns)
    ]


@pytest.fixture
def runs(files: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """Two files of labels: ten pairs in both, one more in the old, two more in the new, one with another text."""
    old, new = files
    one, two = labels_of(old, "old", {"honest": "a"}), labels_of(new, "new", {"kind": "b"})
    one.append(label_row(old, "gone", {"helpful": "a", "honest": "a", "overall": "a"}))
    two += [label_row(new, name, {"helpful": "b", "kind": "a", "overall": "b"}) for name in ("n1", "n2")]
    one.append(label_row(old, "edited", {"helpful": "a", "honest": "a", "overall": "a"}))
    # The same two responses in other places: a means something else.
    swapped = {"response_a": "Two.", "response_b": "One."}
    two.insert(0, label_row(new, "edited", {"helpful": "b", "kind": "a", "overall": "b"}, **swapped))
    return write_lines(tmp_path / "one.jsonl", one), write_lines(tmp_path / "two.jsonl", two)


def test_flips_are_counted_by_hand(files: tuple[Path, Path], runs: tuple[Path, Path], rlaif: Cli) -> None:
    done = rlaif("constitution", "diff", *files, *runs, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    # helpful: p0 a-a, p1 a-b, p2 b-b, p3 b-a, p4 t-t, p5 a-b, p6 t-a, p7 a-t, p8 b-none, p9 none-a.
    # Decided in both: p0 p1 p2 p3 p5; of these p1 p3 p5 flipped.
    helpful = {
        "compared": 8,
        "decided": 5,
        "flipped": 3,
        "flipped_share": 0.6,
        "became_tie": 1,
        "left_tie": 1,
        "lost": 1,
        "gained": 1,
        # Of p0 to p7: 0.5 on each of three flips, 0.25 to and from the tie.
        "mean_shift": 2 / 8,
        "flipped_ids": ["p1", "p3", "p5"],
        "became_tie_ids": ["p7"],
        "left_tie_ids": ["p6"],
    }
    none: dict[str, Any] = {"became_tie": 0, "left_tie": 0, "lost": 0, "gained": 0}
    none |= {"became_tie_ids": [], "left_tie_ids": []}
    overall = {"compared": 10, "decided": 10, "flipped": 1, "flipped_share": 0.1, "flipped_ids": ["p7"], **none}
    overall["mean_shift"] = 0.05
    flips = json.loads(done.stdout)["flips"]
    added = {"by_tag", "mcnemar", "moved", "examples", "other_settings"}
    assert {name: value for name, value in flips.items() if name not in added} == {
        "pairs": 10,
        "only_old": 1,
        "only_new": 2,
        "other_content": 1,
        "objectives": {"helpful": helpful},
        "overall": overall,
        "objectives_only_old": ["honest"],
        "objectives_only_new": ["kind"],
        "made_with": [],
    }


def test_flips_are_printed(files: tuple[Path, Path], runs: tuple[Path, Path], rlaif: Cli) -> None:
    done = rlaif("constitution", "diff", *files, *runs)
    assert done.stdout.partition("\n\n")[0].endswith(PRINTED.strip())
    assert done.stdout.split("\n\n")[1].splitlines() == [
        "10 pairs in both runs; 1 only in OLD_RUN; 2 only in NEW_RUN; 1 with other texts under the same id",
        "labelled in OLD_RUN only: honest",
        "labelled in NEW_RUN only: kind",
        "        compared  flipped    share   to tie from tie     lost   gained",
        "helpful        8        3    60.0%        1        1        1        1",
        "overall       10        1    10.0%        0        0        0        0",
        "helpful flipped: p1, p3, p5",
        "helpful to tie: p7",
        "helpful from tie: p6",
        "overall flipped: p7",
    ]


def test_many_flips_are_shortened_and_odd_ids_stay_in_their_line(
    files: tuple[Path, Path], tmp_path: Path, rlaif: Cli
) -> None:
    names = ["plain", "two\nlines", *(f"p{number}" for number in range(5))]
    one = [label_row(files[0], name, {"helpful": "a", "overall": "t"}) for name in names]
    two = [label_row(files[1], name, {"helpful": "b", "overall": "t"}) for name in reversed(names)]
    for row in two:
        row["provenance"]["judge"] = "judge@9"
    runs = write_lines(tmp_path / "one.jsonl", one), write_lines(tmp_path / "two.jsonl", two)
    lines = rlaif("constitution", "diff", *files, *runs).stdout.split("\n\n")[1].splitlines()
    assert "another judge: judge@1 -> judge@9; flips are not from the constitution alone" in lines
    assert "helpful        7        7   100.0%        0        0        0        0" in lines
    # Ties alone: nothing decided, so no share of it.
    assert "overall        7        0        -        0        0        0        0" in lines
    # In the order of the new run.
    assert lines[-1] == "helpful flipped: p4, p3, p2, p1, p0 and 2 more (all with --json)"
    value = json.loads(rlaif("constitution", "diff", *files, *runs, "--json").stdout)["flips"]
    assert value["objectives"]["helpful"]["flipped_ids"] == names[::-1]
    assert value["overall"]["flipped_share"] is None
    short = write_lines(tmp_path / "short.jsonl", two[-2:])
    assert 'helpful flipped: "two\\nlines", plain\n' in rlaif("constitution", "diff", *files, runs[0], short).stdout


def test_an_updated_run_against_the_copy_of_its_labels(
    stub: RunningStub, pairs: Path, tmp_path: Path, rlaif: Cli
) -> None:
    mine, run, copy = tmp_path / "mine.yaml", tmp_path / "run", tmp_path / "before.jsonl"
    text = (ROOT / "constitutions" / "hhh.yaml").read_text(encoding="utf-8")
    mine.write_text(text.replace("insults, mocks or demeans nobody", "mocks nobody"), encoding="utf-8")
    options = ("--base-url", stub.url, "--template", "direct", "--out", run)
    assert rlaif("label", pairs, *options).returncode == 0
    shutil.copy(run / "labels.jsonl", copy)
    assert rlaif("label", pairs, *options, "--constitution", mine, "--update").returncode == 0
    done = rlaif("constitution", "diff", "hhh", mine, copy, run, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    flips = json.loads(done.stdout)["flips"]
    assert (flips["pairs"], flips["only_old"], flips["only_new"], flips["made_with"]) == (12, 0, 0, [])
    # The edited principle is one of harmlessness: no other label can differ.
    assert [flips["objectives"][name]["flipped"] for name in ("helpfulness", "honesty")] == [0, 0]
    before, after = read_lines(copy), read_lines(run / "labels.jsonl")
    differ = [
        new["id"]
        for old, new in zip(before, after, strict=True)
        if (old["labels"]["harmlessness"]["p_a"] > 0.5) != (new["labels"]["harmlessness"]["p_a"] > 0.5)
    ]
    assert differ
    assert flips["objectives"]["harmlessness"]["flipped_ids"] == differ
    assert flips["objectives"]["harmlessness"]["flipped_share"] == len(differ) / 12
    # The old run is gone from the folder, which is said with what to do.
    wrong = rlaif("constitution", "diff", "hhh", mine, run, run)
    old_reference, new_reference = load_constitution("hhh").reference, load_constitution(mine).reference
    assert wrong.returncode == 2
    assert wrong.stderr == (
        f"Error: {run}/labels.jsonl:1: labelled under {new_reference}, and OLD is {old_reference}; those are NEW's "
        "labels: give the runs in the order of the constitutions, or, after --update in the same folder, the "
        "labels.jsonl copied before it.\n"
    )
    assert wrong.stdout == ""


def broken_runs(old: Path, new: Path, folder: Path) -> dict[str, tuple[Path, Path, str]]:
    """Two runs that cannot be compared, and what is said of them."""
    rows = labels_of(old, "old", {})
    good, later = (
        write_lines(folder / "good.jsonl", rows),
        write_lines(folder / "later.jsonl", labels_of(new, "new", {})),
    )
    references = load_constitution(old).reference, load_constitution(new).reference
    third = folder / "third.yaml"
    third.write_text(OLD.replace("small", "third"), encoding="utf-8")
    mixed = write_lines(folder / "mixed.jsonl", [rows[0], label_row(third, "x", {"overall": "a"})])
    text = folder / "text.jsonl"
    text.write_text(json.dumps(rows[0]) + "\n\nnot a label\n", encoding="utf-8")
    latin = folder / "latin.jsonl"
    latin.write_bytes(json.dumps(rows[0]).encode().replace(b"One.", b"\xe9"))
    other = write_lines(folder / "other.jsonl", [rows[0], {"id": "p1", "judge": "gpt", "preference": "a"}])
    unknown = write_lines(folder / "unknown.jsonl", [{**rows[0], "mood": "good"}])
    wrong = write_lines(
        folder / "wrong.jsonl", [label_row(old, "p0", {"helpful": "a", "overall": "a"}, labels={"h": 1})]
    )
    twice = write_lines(folder / "twice.jsonl", [*rows, rows[3]])
    (folder / "empty.jsonl").write_text("\n")
    strangers = write_lines(
        folder / "strangers.jsonl", [{**row, "id": row["id"] + "x"} for row in labels_of(new, "new", {})]
    )
    edited = write_lines(folder / "edited.jsonl", [{**row, "response_a": "1"} for row in labels_of(new, "new", {})])
    running = folder / "running"
    running.mkdir()
    (running / "manifest.json").write_text("{}")
    (folder / "nothing").mkdir()
    third_reference = load_constitution(third).reference
    label_expected = "expected one label a line, as rlaif label writes it"
    return {
        "swapped": (
            later,
            good,
            f"{later}:1: labelled under {references[1]}, and OLD is {references[0]}; those are NEW's",
        ),
        "new is old": (
            good,
            good,
            f"{good}:1: labelled under {references[0]}, and NEW is {references[1]}; those are OLD's labels: give the "
            "runs in the order of the constitutions, or label NEW_RUN again with --update.",
        ),
        "of a third": (
            mixed,
            later,
            f"{mixed}:2: labelled under {third_reference}, and OLD is {references[0]}; give the constitution of",
        ),
        "not JSON": (text, later, f"{text}:3: not JSON; {label_expected}"),
        "not UTF-8": (latin, later, f"{latin}:1: not JSON; {label_expected}"),
        "recorded labels": (other, later, f"{other}:2: not a label of rlaif label (prompt: field required); give"),
        "unknown key": (
            good,
            unknown,
            f"{unknown}:1: not a label of rlaif label (mood: extra inputs are not permitted)",
        ),
        "wrong type": (wrong, later, f"{wrong}:1: not a label of rlaif label (labels.h: input should be "),
        "id twice": (twice, later, f"{twice}:11: id 'p3' is also on line 4; each pair has one line, remove one."),
        "empty": (good, folder / "empty.jsonl", f"{folder}/empty.jsonl: holds no labels; give a labels.jsonl"),
        "other ids": (good, strangers, f"{good} and {strangers}: no pair to compare (no id is in both); give two runs"),
        "other texts": (
            good,
            edited,
            f"{good} and {edited}: no pair to compare (all ids in both stand for other texts)",
        ),
        "missing": (
            folder / "none",
            later,
            f"{folder}/none: no such file or folder; give a run's folder or a labels.jsonl",
        ),
        "running": (
            running,
            later,
            f"{running}: the run has no labels.jsonl yet; finish it with its rlaif label command.",
        ),
        "no run": (
            good,
            folder / "nothing",
            f"{folder}/nothing: holds no labels.jsonl; give the folder that rlaif label",
        ),
    }


BROKEN: tuple[str, ...] = (
    "swapped",
    "new is old",
    "of a third",
    "not JSON",
    "not UTF-8",
    "recorded labels",
    "unknown key",
    "wrong type",
)
BROKEN += ("id twice", "empty", "other ids", "other texts", "missing", "running", "no run")


@pytest.mark.parametrize("case", BROKEN)
def test_runs_that_cannot_be_compared_are_named_in_one_line(
    case: str, files: tuple[Path, Path], tmp_path: Path, rlaif: Cli
) -> None:
    cases = broken_runs(*files, tmp_path)
    assert cases.keys() == set(BROKEN)
    one, two, expected = cases[case]
    done = rlaif("constitution", "diff", *files, one, two, "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"Error: {expected}")
    assert done.stderr.count("\n") == 1


def test_the_rows_made_here_are_labels(files: tuple[Path, Path]) -> None:
    row = label_row(files[0], "p", {"helpful": "-", "overall": "t"})
    assert Label.model_validate(row).labels["helpful"].preference is None
