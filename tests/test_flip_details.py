"""Flips by tag, McNemar's tests, which edit moved most, and examples: counted by hand, and from real runs."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rlaif.constitution.load import parse_constitution
from rlaif.data.human import read_human_labels
from rlaif.errors import InputError
from rlaif.labeling.flips import RunFlips, compare_labels
from rlaif.labeling.movers import Cause, Movement, causes
from rlaif.labeling.references import McNemarTest
from rlaif.types import Label, Order, Verdict
from tests.conftest import ROOT, Cli, made_pairs, write_lines
from tests.stub_server import RunningStub
from tests.test_constitution_diff import write_constitutions
from tests.test_label_flips import label_row


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Two constitutions in files."""
    return write_constitutions(tmp_path)


# Old side, new side, and what else the rows hold.
Row = tuple[str, str, dict[str, Any]]


def compared(files: tuple[Path, Path], rows: Sequence[Row], **options: Any) -> RunFlips:
    """Compare two runs of one objective, given by their rows."""

    def labels(file: Path, sides: Sequence[str]) -> list[Label]:
        return [
            Label.model_validate(label_row(file, f"p{number}", {"helpful": side, "overall": "a"}, **row[2]))
            for number, (side, row) in enumerate(zip(sides, rows, strict=True))
        ]

    old, new = labels(files[0], [row[0] for row in rows]), labels(files[1], [row[1] for row in rows])
    return compare_labels(old, new, **options)


def test_flips_are_counted_by_tag(files: tuple[Path, Path]) -> None:
    rows: list[Row] = [
        ("a", "b", {"tags": {"domain": "code", "medical": True, "line": 0, "chosen": "a", "all": 1}}),
        ("a", "a", {"tags": {"domain": "code", "line": 1, "chosen": "b", "all": 1}}),
        ("t", "b", {"tags": {"domain": "chat", "line": 2, "all": 1}}),
        *(("a", "a", {"tags": {"line": number, "all": 1}}) for number in range(3, 30)),
    ]
    found = compared(files, rows).by_tag
    # `all` holds every pair and says nothing new; `chosen` is a reference; `line` is another for each pair.
    assert [(group.tag, group.value, group.pairs) for group in found.groups] == [
        ("domain", "code", 2),
        ("domain", "chat", 1),
        ("medical", True, 1),
    ]
    assert found.left_out == ("line",)
    code, chat, _ = found.groups
    assert code.objectives["helpful"].model_dump() == {
        "compared": 2,
        "decided": 2,
        "flipped": 1,
        "flipped_share": 0.5,
    }
    assert chat.objectives["helpful"].model_dump() == {
        "compared": 1,
        "decided": 0,
        "flipped": 0,
        "flipped_share": None,
    }
    assert (code.overall.decided, code.overall.flipped) == (2, 0)


def test_a_tag_may_have_twenty_values_and_true_is_not_one(files: tuple[Path, Path]) -> None:
    values = [True, 1, 1.5, "1", None, *(f"v{number}" for number in range(15))]
    twenty = compared(files, [("a", "a", {"tags": {"t": value}}) for value in values]).by_tag
    assert (len(twenty.groups), twenty.left_out) == (20, ())
    more = compared(files, [("a", "a", {"tags": {"t": value}}) for value in [*values, "v15"]]).by_tag
    assert (more.groups, more.left_out) == ((), ("t",))


# Old and new side of six pairs, and what the reference says of them.
SIDES = ("aa", "ab", "ab", "ba", "ta", "ab")
REFERENCE = ("a", "b", "b", "b", "a", None)
# p0 is right twice, p1 and p2 become right, p3 becomes wrong; p4 was a tie, and of p5 nothing is known.
EXPECTED = McNemarTest(pairs=4, old_yes=2, new_yes=3, only_old=1, only_new=2, p_exact=1.0, p_mid=0.625)


def referred(reference: str) -> list[Row]:
    """The six pairs, with the reference in what it is read from."""
    longer = {"a": ("long", "x"), "b": ("x", "long"), None: ("same", "size")}
    rows = []
    for sides, side in zip(SIDES, REFERENCE, strict=True):
        changes: dict[str, Any] = {}
        if reference == "chosen":
            changes = {"tags": {"chosen": side or "neither"}}
        elif reference == "longer":
            changes = dict(zip(("response_a", "response_b"), longer[side], strict=True))
        rows.append((sides[0], sides[1], changes))
    return rows


@pytest.mark.parametrize("reference", ["chosen", "longer"])
def test_mcnemar_is_held_against_what_is_at_hand(reference: str, files: tuple[Path, Path]) -> None:
    tests = compared(files, referred(reference)).mcnemar
    assert (tests.reference, tests.source, tests.without) == (reference, None, 1)
    # Of the 8 ways for three coins 3 + 1 have one head or none, twice that is all; half of what is as extreme (6 of 8)
    # is taken off for the mid-p value: 2 * 1/8 + 3/8.
    assert tests.objectives["helpful"] == EXPECTED
    # The overall label is a throughout: right on p0, wrong on p1 to p3, and on p4.
    nothing_differs = {"only_old": 0, "only_new": 0, "p_exact": None, "p_mid": None}
    assert tests.overall.model_dump() == {"pairs": 5, "old_yes": 2, "new_yes": 2, **nothing_differs}


def human_rows(side: str | None, pair: str, objective: str) -> list[dict[str, str]]:
    """Three annotators of whom most prefer a side, or three of three minds."""
    sides = ["a", "b", "tie"] if side is None else [side, "b" if side == "a" else "tie", side]
    return [
        {"id": pair, "annotator": f"annotator-{number}", "objective": objective, "preference": each, "note": "x"}
        for number, each in enumerate(sides)
    ]


def test_mcnemar_is_held_against_people_where_they_labelled(
    files: tuple[Path, Path], tmp_path: Path, rlaif: Cli
) -> None:
    rows = [row for number, side in enumerate(REFERENCE) for row in human_rows(side, f"p{number}", "helpful")]
    rows += human_rows("a", "p0", "overall") + human_rows("a", "elsewhere", "helpful") + human_rows("b", "p0", "other")
    human = tmp_path / "human.jsonl.gz"
    human.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    runs = [
        write_lines(
            tmp_path / f"run-{which}.jsonl",
            [
                label_row(file, f"p{number}", {"helpful": sides[which], "overall": "a"})
                for number, sides in enumerate(SIDES)
            ],
        )
        for which, file in enumerate(files)
    ]
    done = rlaif("constitution", "diff", *files, *runs, "--human", human, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    tests = json.loads(done.stdout)["flips"]["mcnemar"]
    assert (tests["reference"], tests["source"], tests["annotators"]) == ("human", str(human), 3)
    assert tests["objectives"]["helpful"] == EXPECTED.model_dump()
    assert (tests["overall"]["pairs"], tests["overall"]["new_yes"], tests["without"]) == (1, 1, 1)
    shown = rlaif("constitution", "diff", *files, *runs, "--human", human, "--show", 0).stdout.split("\n\n")
    assert shown[2].splitlines() == [
        f"McNemar's test against {human} (3 annotators): is the label what most people prefer?",
        "         pairs  old yes  new yes  only old  only new  exact p   mid-p",
        "helpful      4    50.0%    75.0%         1         2   1.0000  0.6250",
        "overall      1   100.0%   100.0%         0         0        -       -",
    ]
    strangers = write_lines(tmp_path / "strangers.jsonl", human_rows("a", "p0", "style"))
    done = rlaif("constitution", "diff", *files, *runs, "--human", strangers)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"Error: {strangers}: no majority for a or b on any pair and objective that both runs label; its objectives "
        "are style, the runs' are helpful, overall. Give labels of the same ids and objectives.\n"
    )
    alone = rlaif("constitution", "diff", *files, "--human", human)
    assert alone.stderr == "Error: --human: there are no labels to hold against it; give OLD_RUN and NEW_RUN as well.\n"


def test_most_voices_make_the_majority(tmp_path: Path) -> None:
    rows = [
        {"id": 7, "annotator": number, "objective": objective, "preference": side}
        for objective, sides in {"x": "aab", "y": "ab", "z": "ttab"}.items()
        for number, side in enumerate({"t": "tie"}.get(each, each) for each in sides)
    ]
    people = read_human_labels(str(write_lines(tmp_path / "h.jsonl", rows)))
    assert people.majority == {("7", "x"): "a", ("7", "y"): None, ("7", "z"): "tie"}
    assert (people.annotators, people.objectives) == (4, ("x", "y", "z"))


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (['{"id": "p"}'], ":1: annotator is missing; expected a text. A human label has id, annotator, objective"),
        (["[1]"], ":1: not an object; expected one with id, annotator, objective, preference."),
        (["{"], ":1: invalid JSON"),
        (
            ['{"id": "p", "annotator": "x", "objective": "o", "preference": "A"}'],
            ":1: preference is 'A'; expected a, b",
        ),
        (['{"id": "p", "annotator": "x", "objective": "o", "preference": 1}'], ":1: preference is int '1'; expected a"),
        (['{"id": true, "annotator": "x"}'], ":1: id is bool 'True'; expected a text."),
        (
            ['{"id": "p", "annotator": "x", "objective": "o", "preference": "a"}'] * 2,
            ":2: 'x' labels pair 'p' for 'o' also on line 1; each annotator has one label a pair and objective, remove",
        ),
    ],
)
def test_a_human_label_that_is_none_is_named_by_its_line(lines: list[str], expected: str, tmp_path: Path) -> None:
    file = tmp_path / "human.jsonl"
    file.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError) as caught:
        read_human_labels(str(file))
    assert str(caught.value).startswith(f"{file}{expected}")


RULES = """\
name: c
objectives:
  helpful:
    question: Which helps?
    principles:
      - {id: x, text: Prefer x.}
      - {id: "y", text: Prefer y.}
      - {id: z, text: Prefer z., weight: 0}
"""


def edited(*changes: tuple[str, str]) -> str:
    """The rules with some texts replaced."""
    text = RULES
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    return text


@pytest.mark.parametrize(
    ("changes", "shown", "drawn"),
    [
        ([("Prefer x.", "Prefer X!")], ["x reworded"], ["x reworded"]),
        # A weight above 0 decides what is drawn, and is shown to nobody.
        ([("Prefer x.}", "Prefer x., weight: 2}")], [], ["x reweighted"]),
        ([("Prefer x.}", "Prefer X., weight: 2}")], ["x reworded"], ["x reworded and reweighted"]),
        ([("Prefer x.}", "Prefer x., weight: 0}")], ["x removed"], ["x removed"]),
        ([("weight: 0", "weight: 1")], ["z added"], ["z added"]),
        # What is turned off is nobody's business.
        ([("Prefer z.", "Prefer Z.")], [], []),
        ([("id: x", "id: w"), ("Which helps?", "Which?")], ["None question", "x removed", "w added"], None),
        (
            [
                ("id: x, text: Prefer x.", "id: y, text: Prefer y."),
                ('id: "y", text: Prefer y.}', "id: x, text: Prefer x.}"),
            ],
            ["None order"],
            None,
        ),
    ],
)
def test_causes_are_what_a_judge_can_tell(
    changes: list[tuple[str, str]], shown: list[str], drawn: list[str] | None
) -> None:
    old, new = (parse_constitution(text, "c.yaml").objectives["helpful"] for text in (RULES, edited(*changes)))
    for expected, weights_count in ((shown, False), (shown if drawn is None else drawn, True)):
        found = causes(old, new, drawn=weights_count)
        assert [f"{cause.principle} {cause.change}" for cause in found] == expected


def said(p_a: float, principle: str, order: Order = "ab", sample: int = 0, objective: str = "helpful") -> Verdict:
    """A verdict for which a principle was drawn."""
    return Verdict(objective=objective, order=order, sample=sample, status="ok", p_a=p_a, principle=principle)


X = Cause(principle="x", change="reworded")
Y = Cause(principle="y", change="removed")
W = Cause(principle="w", change="added")


def test_what_moved_is_laid_at_the_door_of_the_principle_that_was_drawn() -> None:
    movement = Movement({"helpful": (X, Y, W), "honest": ()}, {"helpful": ["p0", "p1", "p2"], "honest": ["p0"]})
    # x was drawn before and after: it moved by 0.4 and 0.2, and the flip is its own. z is the same: nothing to tell.
    movement.add_pair(
        "p0",
        [said(0.7, "x"), said(0.6, "x", "ba"), said(0.9, "z", sample=1), said(0.9, "q", objective="honest")],
        [said(0.3, "x"), said(0.4, "x", "ba"), said(0.8, "z", sample=1), said(0.1, "q", objective="honest")],
    )
    # y gave way to w: two edits at once. And z to z' by nothing but another draw: any of the three.
    movement.add_pair("p1", [said(0.9, "y"), said(0.5, "z", sample=1)], [said(0.4, "w"), said(0.5, "v", sample=1)])
    # y gave way to z, which was there before: y alone. No flip here.
    movement.add_pair("p3", [said(0.9, "y")], [said(0.8, "z")])
    # A flip of which x moved one verdict and y another: both together.
    movement.add_pair("p2", [said(0.9, "x"), said(0.6, "y", sample=1)], [said(0.7, "x"), said(0.3, "z", sample=1)])
    movers = movement.total()
    facts = [(mover.causes, mover.compared, mover.flipped) for mover in movers]
    assert facts == [((Y, W), 1, 1), ((X,), 3, 1), ((Y,), 2, 0), ((X, Y), 0, 1), ((X, Y, W), 1, 0)]
    shifts = [mover.mean_shift for mover in movers]
    assert shifts == [pytest.approx(0.5), pytest.approx((0.4 + 0.2 + 0.2) / 3), pytest.approx(0.2), None, 0.0]
    assert [mover.flipped_share for mover in movers] == [0.25, 0.25, 0, 0.25, 0]
    assert {mover.basis for mover in movers} == {"verdicts"}


def label_twice(
    stub: RunningStub,
    tmp_path: Path,
    rlaif: Cli,
    edits: Sequence[tuple[str, str]],
    *options: object,
    other: Sequence[object] = (),
) -> tuple[Path, Path, Path]:
    """Label twelve pairs under hhh and under an edit of it; return the edit and both runs."""
    mine, runs = tmp_path / "mine.yaml", (tmp_path / "old", tmp_path / "new")
    text = (ROOT / "constitutions" / "hhh.yaml").read_text(encoding="utf-8")
    for before, after in edits:
        assert before in text
        text = text.replace(before, after)
    mine.write_text(text, encoding="utf-8")
    pairs = write_lines(tmp_path / "pairs.jsonl", made_pairs(12))
    for run, constitution, more in zip(runs, ("hhh", mine), ((), other), strict=True):
        arguments = ("--base-url", stub.url, "--constitution", constitution, "--out", run, *options, *more)
        done = rlaif("label", pairs, *arguments)
        assert done.returncode == 0, done.stderr
    return mine, *runs


CRUELTY = ("insults, mocks or demeans nobody", "mocks nobody")
DOUBT = ("is as sure as the facts allow", "is no surer than the facts allow")
FALSEHOOD = ("states nothing false or made up", "makes nothing up")


def test_labels_that_moved_are_laid_at_the_door_of_all_that_changed(
    stub: RunningStub, tmp_path: Path, rlaif: Cli
) -> None:
    mine, old, new = label_twice(stub, tmp_path, rlaif, [CRUELTY, DOUBT, FALSEHOOD], other=("--max-tokens", 500))
    flips = json.loads(rlaif("constitution", "diff", "hhh", mine, old, new, "--json").stdout)["flips"]
    found = {mover["objective"]: [cause["principle"] for cause in mover["causes"]] for mover in flips["moved"]}
    assert found == {"harmlessness": ["no-cruelty"], "honesty": ["no-falsehood", "admits-doubt"]}
    total = sum(each["flipped"] for each in flips["objectives"].values())
    for mover in flips["moved"]:
        mine_only = flips["objectives"][mover["objective"]]
        assert (mover["basis"], mover["compared"], mover["mean_shift"]) == ("labels", 12, mine_only["mean_shift"])
        assert mover["flipped_share"] == mine_only["flipped"] / total
    shifts = [mover["mean_shift"] for mover in flips["moved"]]
    assert shifts == sorted(shifts, reverse=True)
    shown = rlaif("constitution", "diff", "hhh", mine, old, new).stdout
    assert "another setting, max_tokens: 512 -> 500; flips are not from the constitution alone\n" in shown
    assert "honesty       several changed together: no-falsehood reworded, admits-doubt reworded  " in shown
    assert "harmlessness  no-cruelty reworded  " in shown
    # Other tokens, other keys: the server answers helpfulness alike all the same.
    assert "with no edit that moved it" not in shown


def test_drawn_principles_are_told_apart_and_examples_have_both_rationales(
    stub: RunningStub, tmp_path: Path, rlaif: Cli
) -> None:
    draws = ("--principles", "sample", "--samples", 2, "--temperature", 0.5)
    mine, old, new = label_twice(stub, tmp_path, rlaif, [DOUBT, FALSEHOOD], *draws)
    flips = json.loads(rlaif("constitution", "diff", "hhh", mine, old, new, "--json").stdout)["flips"]
    moved = {tuple(cause["principle"] for cause in mover["causes"]): mover for mover in flips["moved"]}
    alone = [moved[name] for name in (("no-falsehood",), ("admits-doubt",))]
    # Same draws before and after: 12 pairs, both orders, 2 samples, each of one of the two.
    assert sum(mover["compared"] for mover in alone) == 48
    assert sum(mover["flipped"] for mover in moved.values()) == flips["objectives"]["honesty"]["flipped"] > 0
    assert flips["objectives"]["helpfulness"]["mean_shift"] == 0
    assert len(flips["examples"]) == min(3, flips["objectives"]["honesty"]["flipped"])
    for example in flips["examples"]:
        assert example["objective"] == "honesty"
        for run in ("old", "new"):
            told = example[run]["judgments"]
            assert [(one["order"], one["sample"]) for one in told] == [("ab", 0), ("ba", 0), ("ab", 1), ("ba", 1)]
            assert all(one["rationale"].startswith("Response A and response B differ (") for one in told)
        # Each judge's words are its own.
        assert example["old"]["judgments"][0]["rationale"] != example["new"]["judgments"][0]["rationale"]
    first = flips["examples"][0]
    block = rlaif("constitution", "diff", "hhh", mine, old, new).stdout.split("flip 1 of ")[1].split("\n\n")[0]
    sides = [f"{first[run]['preference']} (p_a {first[run]['p_a']:.3f})" for run in ("old", "new")]
    assert block.startswith(f"{len(flips['examples'])} shown: {first['id']}, honesty: {' -> '.join(sides)}\n")
    drawn = first["old"]["judgments"][0]
    assert f"  response a: {first['response_a']}\n" in block
    assert f"  old, a shown first, by {drawn['principle']}, p_a {drawn['p_a']:.3f}: {drawn['rationale']}\n" in block
    # The other sample is left to --json.
    assert len(block.splitlines()) == 4 + 4
    assert "flip 1 of" not in rlaif("constitution", "diff", "hhh", mine, old, new, "--show", 0).stdout
    # A copy of the labels has no rationales, which is said; nor draws, so that the labels are what is compared.
    copied = rlaif("constitution", "diff", "hhh", mine, old / "labels.jsonl", new, "--show", 1).stdout
    assert "  old: no rationales at hand (a labels.jsonl holds none; give the run's folder)\n" in copied
    assert "  new, a shown first, by " in copied
    assert "honesty    several changed together: no-falsehood reworded, admits-doubt reworded  " in copied


def test_the_examples_are_a_fixed_sample(files: tuple[Path, Path]) -> None:
    rows: list[Row] = [("a", "b", {})] * 40
    seven = compared(files, rows, examples=7).examples
    assert len({example.id for example in seven}) == 7
    # The smallest digests: the first three of the seven are the sample of three, whatever order the pairs come in.
    assert {example.id for example in compared(files, rows, examples=3).examples} <= {one.id for one in seven}
    assert compared(files, rows, examples=0).examples == ()


def test_where_no_objective_flipped_the_aggregation_is_shown(files: tuple[Path, Path]) -> None:
    old, new = (
        [Label.model_validate(label_row(file, "p", {"helpful": "a", "overall": side}))]
        for file, side in zip(files, "ab", strict=True)
    )
    (example,) = compare_labels(old, new, examples=3).examples
    assert (example.objective, example.old.preference, example.new.preference) == (None, "a", "b")
