"""Labels in: soft targets, weights, merging and grouping, by hand and by a second, slow implementation."""

from __future__ import annotations

import gzip
import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlaif.errors import InputError
from rlaif.rewards.preferences import Preferences
from rlaif.rewards.source_text import SourceText, parse_source
from rlaif.rewards.sources import read_preferences
from tests.conftest import ROOT, made_pairs, read_lines, write_lines

PROVENANCE = {"judge": "starter@11", "constitution": "hhh@22", "template": "pairwise-cot@33", "rlaif": "0"}


def pair_row(name: str, prompt: str = "", a: str = "first", b: str = "second", **more: Any) -> dict[str, Any]:
    """A pair; each id has a prompt of its own unless one is given."""
    return {"id": name, "prompt": prompt or f"Question {name}?", "response_a": a, "response_b": b, **more}


def judged(p_a: float | None, gap: float | None = None) -> dict[str, Any]:
    """What a judge says of one objective."""
    side = None if p_a is None else "tie" if p_a == 0.5 else "a" if p_a > 0.5 else "b"
    return {"p_a": p_a, "preference": side, "order_gap": gap, "verdicts": 2, "abstained": 0}


def label_row(pair: dict[str, Any], whole: float | None = 0.5, **labels: dict[str, Any]) -> dict[str, Any]:
    """A line of a run's labels."""
    overall = {key: judged(whole)[key] for key in ("p_a", "preference")}
    row = {"tags": {}, **pair, "prompt": [{"role": "user", "content": pair["prompt"]}], "labels": labels}
    return {**row, "overall": {**overall, "method": "weighted", "pareto": None}, "provenance": PROVENANCE}


def run_of(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A run's folder."""
    path.mkdir()
    write_lines(path / "labels.jsonl", rows)
    return path


def vote(name: str, annotator: str, preference: str, objective: str = "helpfulness") -> dict[str, Any]:
    """A human label."""
    return {"id": name, "annotator": annotator, "objective": objective, "preference": preference}


def recorded(name: str, preference: str | None, judge: str = "gpt", **more: Any) -> dict[str, Any]:
    """A recorded judge label."""
    return {"id": name, "judge": judge, "objective": "helpfulness", "preference": preference, **more}


def together(folder: Path, pairs: list[dict[str, Any]], labels: list[dict[str, Any]], name: str = "") -> str:
    """`PAIRS+LABELS` of files that are written here."""
    return f"{write_lines(folder / f'pairs{name}.jsonl', pairs)}+{write_lines(folder / f'labels{name}.jsonl', labels)}"


def targets(found: Preferences, objective: str = "helpfulness") -> dict[str, tuple[float, float]]:
    """Target and weight of the labelled pairs, by id."""
    column = found.objectives.index(objective)
    return {
        pair.id: (float(found.target[row, column]), float(found.weight[row, column]))
        for row, pair in enumerate(found.pairs)
        if found.weight[row, column] > 0
    }


def near(found: dict[str, tuple[float, float]], expected: dict[str, tuple[float, float]]) -> bool:
    """Whether targets and weights are equal but for rounding."""
    return found.keys() == expected.keys() and all(
        value == pytest.approx(expected[name], abs=1e-12) for name, value in found.items()
    )


def test_a_run_gives_its_probabilities_and_masks_what_is_not_labelled(tmp_path: Path) -> None:
    run = run_of(
        tmp_path / "one",
        [
            label_row(pair_row("p", tags={"topic": "x"}), 0.7, helpfulness=judged(0.82, 0.1), honesty=judged(0.3)),
            label_row(pair_row("q"), 0.2, helpfulness=judged(None), honesty=judged(0.5)),
        ],
    )
    found = read_preferences([str(run)])
    assert found.objectives == ("helpfulness", "honesty")
    np.testing.assert_array_equal(found.target, [[0.82, 0.3], [np.nan, 0.5]])
    np.testing.assert_array_equal(found.weight, [[1, 1], [0, 1]])
    assert found.labelled.tolist() == [1, 2]
    assert (found.pairs[0].id, found.pairs[0].prompt[0].content) == ("p", "Question p?")
    assert found.pairs[0].tags == {"topic": "x"}
    (source,) = found.sources
    assert (source.kind, source.pairs, source.labels, source.weight) == ("run", 2, 3, 1.0)
    assert (source.constitution, source.judge) == ("hhh@22", "starter@11")
    # A folder and its file are the same labels.
    assert read_preferences([str(run / "labels.jsonl")]).sources[0].digest == source.digest


def test_overall_of_a_run_is_an_objective_only_where_it_is_asked_for(tmp_path: Path) -> None:
    run = str(run_of(tmp_path / "one", [label_row(pair_row("p"), 0.7, helpfulness=judged(0.9))]))
    assert read_preferences([run]).objectives == ("helpfulness",)
    assert targets(read_preferences([run], objectives=["overall"]), "overall") == {"p": (0.7, 1.0)}
    assert targets(read_preferences([f"{run}:overall=quality"]), "quality") == {"p": (0.7, 1.0)}
    both = read_preferences([f"{run}:helpfulness,overall@2"])
    assert (both.objectives, both.weight.tolist()) == (("helpfulness", "overall"), [[2.0, 2.0]])
    # A constitution may have an objective of that name, which is one like any other.
    own = run_of(tmp_path / "own", [label_row(pair_row("p"), 0.7, overall=judged(0.6))])
    assert targets(read_preferences([str(own)]), "overall") == {"p": (0.6, 1.0)}


def test_people_give_the_share_that_prefers_a_and_count_once(tmp_path: Path) -> None:
    votes = [vote("p", "x", "a"), vote("p", "y", "a"), vote("p", "z", "tie"), vote("q", "x", "b")]
    votes.append(vote("p", "x", "b", "honesty"))
    found = read_preferences([together(tmp_path, [pair_row("p"), pair_row("q"), pair_row("r")], votes)])
    assert near(targets(found), {"p": (2.5 / 3, 1.0), "q": (0.0, 1.0)})
    assert targets(found, "honesty") == {"p": (0.0, 1.0)}
    (source,) = found.sources
    assert (source.kind, source.pairs, source.labels) == ("human", 2, 3)
    assert source.left_out == {"pairs without a label": 1}


def test_recorded_labels_without_probabilities_count_by_their_preference(tmp_path: Path) -> None:
    pairs = [pair_row(name) for name in "abcdefgh"]
    labels = [
        recorded("a", "a"),
        recorded("b", "tie"),
        recorded("c", None),
        recorded("d", "b", p_a=0.2),
        # Both orders: the mean of the probabilities, or of the preferences where there are none.
        *(recorded("e", side, p_a=p, order=order) for side, p, order in (("a", 0.9, "ab"), ("b", 0.4, "ba"))),
        *(recorded("f", side, order=order) for side, order in (("a", "ab"), ("b", "ba"))),
        *(recorded("g", side, order=order) for side, order in (("a", "ab"), ("tie", "ba"))),
        recorded("h", "a", order="ba"),
    ]
    found = read_preferences([together(tmp_path, pairs, [row for row in labels if "order" not in row])])
    assert targets(found) == {"a": (1.0, 1.0), "b": (0.5, 1.0), "d": (0.2, 1.0)}
    source = together(tmp_path, pairs, [row for row in labels if "order" in row], "-orders")
    found = read_preferences([source])
    assert near(
        targets(found),
        {
            "e": (0.65, 1.0),
            "f": (0.5, 1.0),
            "g": (0.75, 1.0),
            "h": (1.0, 1.0),
        },
    )
    # Gaps: 0.5, 1 (which counts nothing), 0.5, and not known of a single order.
    found = read_preferences([source], confidence="order-gap")
    assert near(
        targets(found),
        {
            "e": (0.65, 0.5),
            "g": (0.75, 0.5),
            "h": (1.0, 1.0),
        },
    )
    assert any("1 labels tell nothing of two orders" in note for note in found.notes)


def test_several_judges_in_one_file_count_as_one_by_their_mean(tmp_path: Path) -> None:
    labels = [recorded("p", "a", "one", p_a=0.9), recorded("p", "b", "two", p_a=0.2), recorded("q", "b", "two")]
    found = read_preferences([together(tmp_path, [pair_row("p"), pair_row("q")], labels)])
    assert near(targets(found), {"p": (0.55, 1.0), "q": (0.0, 1.0)})
    assert found.sources[0].judge == "one, two"


def test_the_order_gap_lowers_the_weight(tmp_path: Path) -> None:
    rows = [
        label_row(pair_row("p"), helpfulness=judged(0.6, 0.2)),
        label_row(pair_row("q"), helpfulness=judged(0.5, 1.0)),
        label_row(pair_row("r"), helpfulness=judged(0.9)),
    ]
    run = str(run_of(tmp_path / "one", rows))
    found = read_preferences([f"{run}@3"], confidence="order-gap")
    assert near(targets(found), {"p": (0.6, 2.4), "r": (0.9, 3.0)})
    assert found.sources[0].left_out == {"pairs without a label": 1}
    assert targets(read_preferences([run]))["q"] == (0.5, 1.0)


def test_labels_of_the_same_pair_become_one_also_when_it_is_swapped(tmp_path: Path) -> None:
    pair = pair_row("p", "Why?", "Because.", "No idea.", tags={"topic": "x", "chosen": "a"})
    turned = pair_row("other", "Why?", "No idea.", "Because. ", tags={"topic": "y", "level": 2, "words_a": 3})
    first = run_of(tmp_path / "one", [label_row(pair, helpfulness=judged(0.9), honesty=judged(0.8))])
    second = run_of(tmp_path / "two", [label_row(turned, helpfulness=judged(0.7))])
    found = read_preferences([str(first), f"{second}@2"])
    # 0.7 for the other side is 0.3: (0.9 + 2 x 0.3) / 3.
    assert near(targets(found), {"p": (0.5, 3.0)})
    assert targets(found, "honesty") == {"p": (0.8, 1.0)}
    assert found.pairs[0].response_a == "Because."
    assert found.pairs[0].tags == {"topic": "x", "level": 2}
    note = found.notes[0]
    assert "helpfulness: 1 pairs have several labels" in note
    assert "on 1 of them the labels prefer different responses" in note
    # The other way round the other pair stands, and the targets turn with it.
    back = read_preferences([f"{second}@2", str(first)])
    assert near(targets(back), {"other": (0.5, 3.0)})
    assert near(targets(back, "honesty"), {"other": (0.2, 1.0)})


def test_other_indentation_is_another_response(tmp_path: Path) -> None:
    rows = [pair_row("p", "Loop.", "for:\n  x", "no"), pair_row("q", "Loop.", "for:\nx", "no")]
    found = read_preferences([together(tmp_path, rows, [vote("p", "x", "a"), vote("q", "x", "b")])])
    assert targets(found) == {"p": (1.0, 1.0), "q": (0.0, 1.0)}
    assert found.group.tolist() == [0, 0]


def test_the_same_id_may_stand_for_different_pairs_in_two_sources(tmp_path: Path) -> None:
    one = together(tmp_path, [pair_row("p", "One?")], [vote("p", "x", "a")])
    two = together(tmp_path, [pair_row("p", "Two?")], [vote("p", "x", "b")], "-two")
    found = read_preferences([one, two])
    assert targets(found) == {"p": (1.0, 1.0), "p~2": (0.0, 1.0)}
    assert [pair.prompt[0].content for pair in found.pairs] == ["One?", "Two?"]


def test_the_same_conversation_is_one_group_in_every_source(tmp_path: Path) -> None:
    spaced = pair_row("q", " What  is\nthis?", "x", "y")
    chat = pair_row("r", a="x", b="z") | {"prompt": [{"role": "user", "content": "What is this?"}]}
    system = pair_row("s") | {"prompt": [{"role": "system", "content": "Hi"}, {"role": "user", "content": "Why?"}]}
    joined = pair_row("t") | {"prompt": [{"role": "system", "content": "Hi Why?"}]}
    rows = [pair_row("p", "What is this?"), spaced, chat, system, joined]
    one = together(tmp_path, rows[:2], [vote(row["id"], "x", "a") for row in rows])
    two = together(tmp_path, rows[2:], [vote(row["id"], "x", "a") for row in rows], "-two")
    found = read_preferences([one, two])
    assert found.group.tolist() == [0, 0, 0, 1, 2]
    assert [source.left_out["labels without a pair"] for source in found.sources] == [3, 2]


def test_equal_responses_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [pair_row("p", a="same", b=" same\n"), pair_row("q"), pair_row("r")]
    found = read_preferences([together(tmp_path, rows, [vote("p", "x", "a"), vote("q", "x", "a")])])
    assert targets(found) == {"q": (1.0, 1.0)}
    assert found.sources[0].left_out == {"equal responses": 1, "pairs without a label": 1}
    assert (found.sources[0].pairs, found.sources[0].labels) == (1, 1)
    with pytest.raises(InputError, match=r"no labelled pair is left.*equal responses: 1 of 1 pairs"):
        read_preferences([together(tmp_path, rows[:1], [vote("p", "x", "a")], "-equal")])


@pytest.mark.parametrize("name", ["", ":helpfulness", ":overall=helpfulness"])
def test_preference_data_in_every_shape(tmp_path: Path, name: str) -> None:
    turns = [{"role": "user", "content": "Why?"}]
    rows: list[dict[str, Any]] = []
    for number in range(12):
        better, worse = f"good {number}", f"bad {number}"
        plain = {"prompt": "Why?", "chosen": better, "rejected": worse}
        answers = [[{"role": "assistant", "content": text}] for text in (better, worse)]
        chat = {"prompt": turns, "chosen": answers[0], "rejected": answers[1]}
        whole = {"chosen": [*turns, *answers[0]], "rejected": [*turns, *answers[1]]}
        talk = {key: f"\n\nHuman: Why?\n\nAssistant: {text}" for key, text in zip(whole, (better, worse), strict=True)}
        rows.append((plain, chat, whole, talk)[number % 4])
    found = read_preferences([f"{write_lines(tmp_path / 'data.jsonl', rows)}{name}"])
    assert found.objectives == ("helpfulness" if name else "overall",)
    assert len(found) == 12
    for pair, (target,) in zip(found.pairs, found.target, strict=True):
        better, worse = (pair.response_a, pair.response_b)[:: 1 if target == 1 else -1]
        assert (target in (0, 1), better[:4], worse[:3]) == (True, "good", "bad")
        assert pair.tags == {}
    assert set(found.target[:, 0]) == {0.0, 1.0}
    assert set(found.group) == {0}
    assert found.sources[0].kind == "preferences"


def test_pairs_with_the_tag_chosen_are_preference_data(tmp_path: Path) -> None:
    rows = [pair_row("p", tags={"chosen": "b", "topic": "x"}), pair_row("q", tags={"chosen": "neither"})]
    found = read_preferences([f"{write_lines(tmp_path / 'data.jsonl', rows)}:honesty@0.5"])
    assert targets(found, "honesty") == {"p": (0.0, 0.5)}
    assert found.pairs[0].tags == {"topic": "x"}


def test_rows_that_cannot_be_used_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    data = write_lines(tmp_path / "data.jsonl", [{"prompt": "Why?", "chosen": "x", "rejected": "y"}])
    bad = ["{", '{"prompt": "Why?", "chosen": NaN, "rejected": "y"}', '{"prompt": "", "chosen": "x", "rejected": "y"}']
    bad += ['{"id": "x", "prompt": [{"role": {}, "content": "x"}], "response_a": "x", "response_b": "y"}']
    bad += ["[1]", "null", '"text"', '{"prompt": "x", "chosen": "a\\u0000", "rejected": "y"}']
    data.write_text("\n".join([bad[0], data.read_text(encoding="utf-8").strip(), *bad[1:]]), encoding="utf-8")
    found = read_preferences([str(data)])
    assert targets(found, "overall").keys() == {found.pairs[0].id}
    assert found.sources[0].left_out == {"rows that cannot be used": 8}
    (note,) = [note for note in found.notes if "cannot be used" in note]
    assert f"8 rows cannot be used and are left out; the first is {data}:1: invalid JSON" in note


def test_broken_rows_among_the_pairs_of_kept_apart_files(tmp_path: Path) -> None:
    source = together(tmp_path, [pair_row("p"), pair_row("p"), pair_row("q")], [vote("p", "x", "a")])
    pairs = Path(source.partition("+")[0])
    pairs.write_bytes(b'\xff\xfe\n{"id": "r"}\n' + pairs.read_bytes() + b'{"id": "s", "prompt": "Why?", "resp')
    found = read_preferences([source])
    assert targets(found) == {"p": (1.0, 1.0)}
    # Not UTF-8, no responses, an id that stands twice, and a line cut short.
    assert found.sources[0].left_out == {"rows that cannot be used": 4, "pairs without a label": 1}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "labels.jsonl:2: invalid JSON"),
        ('{"id": "p", "annotator": "x", "objective": "helpfulness", "preference": "c"}', ":2: preference is 'c'"),
        ('{"id": "p", "annotator": "y", "objective": "helpfulness", "preference": "a"}', "also on line 1"),
        ('{"id": "p", "annotator": "x", "objective": NaN, "preference": "a"}', ":2: NaN is not JSON"),
        ("[]", ":2: not an object"),
    ],
)
def test_a_broken_line_of_labels_is_named(tmp_path: Path, line: str, message: str) -> None:
    source = together(tmp_path, [pair_row("p")], [vote("p", "y", "a")])
    with Path(source.partition("+")[2]).open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    with pytest.raises(InputError) as refused:
        read_preferences([source])
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("p_a", [1.5, -0.1, float("nan"), "high"])
def test_a_probability_out_of_range_in_a_run_is_refused(tmp_path: Path, p_a: Any) -> None:
    rows = [label_row(pair_row(name), helpfulness=judged(0.5)) for name in "pq"]
    rows[1]["labels"]["helpfulness"]["p_a"] = p_a
    with pytest.raises(InputError, match=r"labels\.jsonl:2: "):
        read_preferences([str(run_of(tmp_path / "one", rows))])


def test_a_run_row_without_its_texts_is_refused(tmp_path: Path) -> None:
    rows = [label_row(pair_row(name), helpfulness=judged(0.5)) for name in "pq"]
    rows[1]["response_b"] = None
    with pytest.raises(InputError, match=r"labels\.jsonl:2: not a label of rlaif label \(response_b"):
        read_preferences([str(run_of(tmp_path / "one", rows))])


@pytest.mark.parametrize("name", ["a+b", "a@2", "x:y", "a+b@0.5", "one+two:three@4", "c++", "@7"])
def test_paths_with_signs_in_their_names(tmp_path: Path, name: str) -> None:
    rows = [label_row(pair_row("p"), helpfulness=judged(0.9))]
    run = run_of(tmp_path / name, rows)
    assert read_preferences([str(run)]).weight.tolist() == [[1.0]]
    assert read_preferences([f"{run}@0.25"]).weight.tolist() == [[0.25]]
    assert read_preferences([f"{run}:helpfulness=h@0.25"]).objectives == ("h",)
    pairs = write_lines(tmp_path / f"pairs{name}.jsonl", [pair_row("p")])
    labels = write_lines(tmp_path / f"labels{name}.jsonl", [vote("p", "x", "b")])
    found = read_preferences([f"{pairs}+{labels}:helpfulness@1e-1"])
    assert (found.target.tolist(), found.weight.tolist()) == ([[0.0]], [[0.1]])
    # Also with a run in place of either.
    assert read_preferences([f"{run}+{labels}"]).target.tolist() == [[0.0]]
    assert read_preferences([f"{pairs}+{run}@3"]).target.tolist() == [[0.9]]


def test_the_reading_that_takes_least_off_the_path_counts(tmp_path: Path) -> None:
    for name in ("run", "run@2", "run+run"):
        (tmp_path / name).mkdir()
    run = f"{tmp_path}/run"
    assert parse_source(f"{run}@2") == SourceText(f"{run}@2", f"{run}@2")
    assert parse_source(f"{run}@3") == SourceText(f"{run}@3", run, weight=3.0)
    assert parse_source(f"{run}+run") == SourceText(f"{run}+run", f"{run}+run")
    assert parse_source(f"{run}+{run}@2").labels == f"{run}@2"
    assert parse_source("owner/name:helpfulness@2") == SourceText(
        "owner/name:helpfulness@2", "owner/name", names=(("helpfulness", "helpfulness"),), weight=2.0
    )


@pytest.mark.parametrize(
    ("ending", "message"),
    [
        ("@0", "weight @0; expected a number above 0"),
        ("@-1", "weight @-1;"),
        ("@nan", "weight @nan;"),
        ("@1e400", "weight @1e400;"),
        ("@half", "weight @half;"),
        ("@", "weight @;"),
        (":", "names no objective"),
        (":helpfulness=", "names no objective"),
        (":helpfulness,helpfulness=x", "'helpfulness' is taken twice"),
        (":helpfulness=x,honesty=x", "'x' is the name of two objectives"),
        (":helpfulnes", "Did you mean 'helpfulness'?"),
        (":quality", "its objectives are helpfulness, honesty."),
        ("+nothing.jsonl", "nothing.jsonl: no such file or folder (from "),
        ("x/y.jsonl", "no such file or folder; give a run's folder"),
        ("\x00", "no such file or folder"),
        ("x" * 5000, "no such file or folder"),
    ],
)
def test_a_source_that_cannot_be_used_says_why(tmp_path: Path, ending: str, message: str) -> None:
    rows = [label_row(pair_row("p"), helpfulness=judged(0.9), honesty=judged(0.9))]
    with pytest.raises(InputError) as refused:
        read_preferences([f"{run_of(tmp_path / 'run', rows)}{ending}"])
    assert message in str(refused.value)


def test_files_that_are_no_labels_are_told_apart(tmp_path: Path) -> None:
    pairs = write_lines(tmp_path / "pairs.jsonl", [pair_row("p")])
    people = write_lines(tmp_path / "human.jsonl", [vote("p", "x", "a")])
    judge = write_lines(tmp_path / "judge.jsonl", [recorded("p", "a")])
    other = write_lines(tmp_path / "other.jsonl", [vote("z", "x", "a")])
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    blank = tmp_path / "blank.jsonl"
    blank.write_text("\n\n")
    for source, message in (
        (people, f"human labels hold no texts; give PAIRS+LABELS, such as pairs.jsonl+{people}"),
        (judge, "recorded judge labels hold no texts"),
        (pairs, f"pairs without labels; give them as {pairs}+LABELS"),
        (f"{pairs}+{pairs}", f"{pairs}: no labels; expected a run"),
        (f"{people}+{pairs}", f"{pairs}: no labels; expected a run"),
        (f"{people}+{people}", "no row of the file is a usable pair"),
        (f"{pairs}+{other}", "ids of the pairs look like 'p', those of the labels like 'z'"),
        (empty, "the file is empty"),
        (f"{pairs}+{empty}", "the file is empty"),
        (f"{empty}+{people}", "the file is empty"),
        (blank, "holds no rows"),
        (tmp_path, "holds no labels.jsonl"),
        (f"{pairs}+{people}:quality", "To train it under another name write :helpfulness=quality"),
        ("", "a source of labels is empty"),
    ):
        with pytest.raises(InputError) as refused:
            read_preferences([str(source)])
        assert message in str(refused.value), source
    with pytest.raises(InputError, match="expected one source or more"):
        read_preferences([])


def test_objectives_are_chosen_ordered_and_asked_back(tmp_path: Path) -> None:
    row = label_row(pair_row("p"), helpfulness=judged(0.9), honesty=judged(0.2), harmlessness=judged(None))
    run = str(run_of(tmp_path / "one", [row]))
    found = read_preferences([run], objectives=["honesty", "helpfulness"])
    assert (found.objectives, found.target.tolist()) == (("honesty", "helpfulness"), [[0.2, 0.9]])
    for wanted, message in (
        (["helpfulnes"], "objective 'helpfulnes': no source has a label of it; .* Did you mean 'helpfulness'"),
        (["harmlessness"], "the objectives with labels are helpfulness, honesty, choose with --objective"),
        (["honesty", "honesty"], "expected different names"),
        ([" "], "expected different names"),
    ):
        with pytest.raises(InputError, match=message):
            read_preferences([run], objectives=wanted)
    # Heads that lack one of the judge's objectives are trained only where that is said.
    with pytest.raises(InputError, match="objective 'harmlessness': no source has a label"):
        read_preferences([run])
    other = read_preferences([run], objectives=["wit", "honesty"], allow_missing=True)
    assert other.labelled.tolist() == [0, 1]
    assert "wit: no pair has a label." in other.notes


def test_the_same_labels_twice_are_refused_unless_other_objectives_are_taken(tmp_path: Path) -> None:
    rows = [label_row(pair_row("p"), helpfulness=judged(0.9), honesty=judged(0.2))]
    run = run_of(tmp_path / "one", rows)
    for again in (run / "labels.jsonl", f"{tmp_path}/./one@2", f"{run}:honesty"):
        with pytest.raises(InputError, match="the same labels are given twice"):
            read_preferences([str(run), str(again)])
    found = read_preferences([f"{run}:honesty=x", f"{run}:helpfulness=x@3"])
    # (0.2 + 3 x 0.9) / 4.
    assert near(targets(found, "x"), {"p": (0.725, 4.0)})


def test_labels_of_one_class_and_ties_alone_are_allowed_and_told(tmp_path: Path) -> None:
    pairs = [pair_row(name) for name in "pqr"]
    votes = [vote(row["id"], "x", "a") for row in pairs] + [vote(row["id"], "x", "tie", "wit") for row in pairs]
    found = read_preferences([together(tmp_path, pairs, votes)])
    assert any("helpfulness: all 3 labels prefer response a" in note for note in found.notes)
    assert any("wit: no label prefers a response, all 3 are ties" in note for note in found.notes)
    one = read_preferences([together(tmp_path, pairs[:1], votes[:1], "-one")])
    assert (len(one), one.notes) == (1, ())


def test_columns_are_renamed_where_a_source_has_them(tmp_path: Path) -> None:
    named = write_lines(tmp_path / "named.jsonl", [{"question": "Why?", "good": "x", "bad": "y"}])
    plain = write_lines(tmp_path / "plain.jsonl", [{"prompt": "How?", "chosen": "x", "rejected": "y"}])
    columns = {"prompt": "question", "chosen": "good", "rejected": "bad"}
    found = read_preferences([str(named), str(plain)], columns=columns)
    assert [pair.prompt[0].content for pair in found.pairs] == ["Why?", "How?"]
    with pytest.raises(InputError, match="no column 'query'"):
        read_preferences([str(named)], columns={"prompt": "query"})


def test_other_file_formats(tmp_path: Path) -> None:
    text = "id,prompt,response_a,response_b\n1,Why?,x,y\n2,How?,x,y\n"
    (tmp_path / "pairs.csv").write_text(text, encoding="utf-8")
    votes = [vote("1", "x", "a") | {"id": 1}, vote("2", "x", "b")]
    with gzip.open(tmp_path / "human.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in votes)
    found = read_preferences([f"{tmp_path}/pairs.csv+{tmp_path}/human.jsonl.gz"])
    assert targets(found) == {"1": (1.0, 1.0), "2": (0.0, 1.0)}
    (tmp_path / "data.json").write_text(json.dumps([{"prompt": "Why?", "chosen": "x", "rejected": "y"}]))
    assert len(read_preferences([f"{tmp_path}/data.json:wit"])) == 1


def test_a_saved_dataset_is_preference_data(tmp_path: Path) -> None:
    from datasets import Dataset

    rows = [{"prompt": "Why?", "chosen": "x", "rejected": "y"}, {"prompt": "How?", "chosen": "x", "rejected": "y"}]
    Dataset.from_list(rows).save_to_disk(str(tmp_path / "saved"))
    found = read_preferences([f"{tmp_path}/saved:wit@2"])
    assert (found.objectives, found.weight.tolist()) == (("wit",), [[2.0], [2.0]])


def test_the_fast_reader_of_pairs_gives_what_the_full_one_gives(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = made_pairs(6)
    rows[0]["tags"] = {"text": "x", "number": 2, "share": 0.5, "flag": True, "nothing": None}
    rows[1]["prompt"] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " Hi\n"}]
    rows[2].pop("tags")
    votes = [vote(row["id"], "x", "a") for row in rows]
    fast = read_preferences([together(tmp_path, rows, votes)])
    # One row that only the full reader takes sends the whole file there.
    full = read_preferences([together(tmp_path, [*rows, {"id": 7}], votes, "-full")])
    assert fast.pairs == full.pairs
    assert full.sources[0].left_out == {"rows that cannot be used": 1}


def test_random_sources_against_a_slow_second_implementation(tmp_path: Path) -> None:
    rng = random.Random(3)
    texts = [(f"Question {n % 9}?", f"yes {n}", f"no {n}") for n in range(25)]
    sources, told = [], defaultdict(list)
    for number in range(5):
        rows, labels, weight = [], [], rng.choice([0.5, 1.0, 3.0])
        for n, (prompt, a, b) in enumerate(rng.choices(texts, k=30)):
            turned = rng.random() < 0.5
            rows.append(pair_row(f"s{n}", prompt, *((b, a) if turned else (a, b))))
            for objective in rng.sample(["helpfulness", "honesty"], rng.randint(0, 2)):
                side = rng.choice(["a", "b", "tie"])
                labels.append(vote(f"s{n}", "x", side, objective))
                score = {"a": 1.0, "b": 0.0, "tie": 0.5}[side]
                told[prompt, a, objective].append((weight, 1 - score if turned else score))
        sources.append(f"{together(tmp_path, rows, labels, f'-{number}')}@{weight}")
    found = read_preferences(sources, objectives=["helpfulness", "honesty"])
    seen = 0
    for at, pair in enumerate(found.pairs):
        turned = pair.response_a.startswith("no")
        for column, objective in enumerate(found.objectives):
            mine = told.get((pair.prompt[0].content, pair.response_b if turned else pair.response_a, objective), [])
            weight = sum(each for each, _ in mine)
            assert found.weight[at, column] == pytest.approx(weight)
            if mine:
                target = sum(each * score for each, score in mine) / weight
                assert found.target[at, column] == pytest.approx(1 - target if turned else target, abs=1e-12)
                seen += 1
    assert seen == len(told)
    prompts = [pair.prompt[0].content for pair in found.pairs]
    assert len(set(zip(prompts, found.group.tolist(), strict=True))) == len(set(prompts)) == len(set(found.group))
    assert sum(source.labels for source in found.sources) == sum(map(len, told.values()))


def test_damaged_files_give_a_sound_table_or_one_line(tmp_path: Path) -> None:
    rng = random.Random(5)
    pairs = [pair_row(f"p{n}", tags={"topic": n}) for n in range(4)]
    run = [label_row(pair, helpfulness=judged(0.7, 0.2), honesty=judged(0.4)) for pair in pairs]
    kept = [vote(pair["id"], annotator, "b") for pair in pairs for annotator in "xy"]
    plain = [{"prompt": f"Why {n}?", "chosen": "good", "rejected": "bad"} for n in range(4)]
    whole = {
        name: "".join(json.dumps(row) + "\n" for row in rows).encode()
        for name, rows in (("run", run), ("pairs", pairs), ("human", kept), ("data", plain))
    }
    paths = {name: tmp_path / f"{name}.jsonl" for name in whole}
    sources = [str(paths["run"]), f"{paths['pairs']}+{paths['human']}@2", str(paths["data"])]
    sound, refused = 0, list[str]()
    for _ in range(150):
        for name, content in whole.items():
            damaged = bytearray(content)
            for _ in range(rng.choice([0, 0, 1, 4])):
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
            paths[name].write_bytes(damaged[: len(damaged) if rng.random() < 0.9 else rng.randrange(len(damaged))])
        try:
            found = read_preferences(sources, confidence="order-gap")
        except InputError as error:
            refused.append(str(error))
            continue
        sound += 1
        assert (np.isnan(found.target) == (found.weight == 0)).all()
        assert ((found.weight >= 0) & np.isfinite(found.weight)).all()
        assert (found.weight.sum(axis=1) > 0).all()
        assert np.nanmin(found.target) >= 0
        assert np.nanmax(found.target) <= 1
        assert len({pair.id for pair in found.pairs}) == len(found)
    assert sound > 20
    assert len(refused) > 20
    assert "\n" not in "".join(refused)


def test_the_shipped_examples(tmp_path: Path) -> None:
    pairs, labels = (ROOT / "examples" / f"{name}.jsonl" for name in ("pairs", "reference"))
    found = read_preferences([f"{pairs}+{labels}"])
    rows = read_lines(labels)
    assert set(found.objectives) == {"helpfulness", "harmlessness", "honesty"}
    assert found.labelled.sum() == len(rows)
    score = {"a": 1.0, "b": 0.0, "tie": 0.5}
    for objective in found.objectives:
        mine = {row["id"]: (score[row["preference"]], 1.0) for row in rows if row["objective"] == objective}
        assert targets(found, objective) == mine
    assert found.notes == ()


def test_real_harmlessness_and_helpfulness_together(shared: Path) -> None:
    hh, pandalm = shared / "hh-rlhf", shared / "pandalm"
    found = read_preferences(
        [
            f"{hh}/pairs.jsonl+{hh}/human_labels.jsonl",
            f"{pandalm}/pairs.jsonl+{pandalm}/human_labels.jsonl:overall=helpfulness",
        ]
    )
    assert found.objectives == ("harmlessness", "helpfulness")
    assert found.labelled[0] == 1200
    assert ((found.weight > 0).sum(axis=1) == 1).all()
    gold = {row["id"]: row["preference"] for row in read_lines(hh / "human_labels.jsonl")}
    assert {name: target for name, (target, _) in targets(found, "harmlessness").items()} == {
        name: float(side == "a") for name, side in gold.items()
    }
    # PandaLM by a second way: votes summed for every text of a pair, equal and repeated pairs included.
    votes = defaultdict(list)
    for row in read_lines(pandalm / "human_labels.jsonl"):
        votes[row["id"]].append({"a": 1.0, "b": 0.0, "tie": 0.5}[row["preference"]])
    expected: dict[tuple[str, frozenset[str]], list[float]] = defaultdict(list)
    for row in read_lines(pandalm / "pairs.jsonl"):
        a, b = row["response_a"].strip(), row["response_b"].strip()
        share = sum(votes[row["id"]]) / 3
        if a != b:
            # The share of the response that comes first in the alphabet.
            expected[" ".join(row["prompt"].split()), frozenset((a, b))].append(share if a < b else 1 - share)
    assert found.labelled[1] == len(expected)
    for at, pair in enumerate(found.pairs[1200:], start=1200):
        a, b = pair.response_a.strip(), pair.response_b.strip()
        shares = expected[" ".join(pair.prompt[0].content.split()), frozenset((a, b))]
        mean = sum(shares) / len(shares)
        assert found.target[at, 1] == pytest.approx(mean if a < b else 1 - mean, abs=1e-12)
        assert found.weight[at, 1] == len(shares)


def test_real_judge_in_both_orders(shared: Path) -> None:
    folder = shared / "llmbar-natural"
    labels = folder / "ai_labels_chatgpt_vanilla.jsonl"
    found = read_preferences([f"{folder}/pairs.jsonl+{labels}:overall=helpfulness"], confidence="order-gap")
    sides = defaultdict(list)
    for row in read_lines(labels):
        sides[row["id"]].append({"a": 1.0, "b": 0.0, "tie": 0.5}[row["preference"]])
    # Where the orders contradict each other the gap is 1, and nothing is learned from the pair.
    expected = {name: ((x + y) / 2, 1 - abs(x - y)) for name, (x, y) in sides.items() if abs(x - y) < 1}
    assert targets(found) == expected
    assert 0 < len(expected) < len(sides) == 100
