"""`rlaif compare` on small files whose figures are worked out by hand, and on data where little is defined."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rlaif as package
from rlaif.agreement.results import Comparison, ObjectiveComparison
from rlaif.agreement.texts import form, generators
from tests.conftest import write_lines

Rows = list[dict[str, Any]]


def human_rows(votes: dict[str, dict[str, str]], objective: str = "overall") -> Rows:
    """Rows of human labels from {pair: {annotator: preference}}."""
    return [
        {"id": pair, "annotator": who, "objective": objective, "preference": side}
        for pair, voices in votes.items()
        for who, side in voices.items()
    ]


def judge_row(pair: str, preference: str | None, **more: Any) -> dict[str, Any]:
    """One recorded label."""
    return {"id": pair, "judge": "judge", "objective": "overall", "preference": preference, **more}


def run(folder: Path, judge: Rows, human: Rows, pairs: Rows | None = None, **options: Any) -> Comparison:
    """Compare rows through their files."""
    labels, people = write_lines(folder / "judge.jsonl", judge), write_lines(folder / "human.jsonl", human)
    if pairs is not None:
        options["pairs"] = write_lines(folder / "pairs.jsonl", pairs)
    return package.compare(labels, people, **options)


def only(found: Comparison) -> ObjectiveComparison:
    """The one objective of a comparison."""
    (objective,) = found.objectives.values()
    return objective


# p1 to p5 scored but p4 (no majority); p6 abstained, p7 not judged, p8 not labelled by people.
VOTES = {
    "p1": {"x": "a", "y": "a", "z": "b"},
    "p2": {"x": "b", "y": "b"},
    "p3": {"x": "tie", "y": "tie"},
    "p4": {"x": "a", "y": "b"},
    "p5": {"x": "a"},
    "p6": {"x": "b"},
    "p7": {"x": "a", "y": "a"},
}
JUDGED = [
    judge_row("p1", "a", p_a=0.9),
    judge_row("p2", "a", p_a=0.6),
    judge_row("p3", "b", p_a=0.2),
    judge_row("p4", "a", p_a=0.7),
    judge_row("p5", "tie", p_a=0.5),
    judge_row("p6", None),
    judge_row("p8", "a", p_a=0.8),
]


def test_agreement_by_hand(tmp_path: Path) -> None:
    comparison = run(tmp_path, JUDGED, human_rows(VOTES))
    assert (comparison.unmatched_labels, comparison.unmatched_humans) == (1, 1)
    found = only(comparison)
    assert (found.n, found.abstained, found.not_judged, found.coverage) == (4, 1, 1, 5 / 7)
    assert found.confusion == {
        "a": {"a": 1, "b": 0, "tie": 1},
        "b": {"a": 1, "b": 0, "tie": 0},
        "tie": {"a": 0, "b": 1, "tie": 0},
    }
    assert found.accuracy == 0.25
    # By chance both say a 2/4 x 2/4, b 1/4 x 1/4 and tie 1/4 x 1/4: 6/16. (4/16 - 6/16) / (10/16) = -0.2.
    assert found.cohen_kappa == pytest.approx(-0.2)
    # Gwet: shares 1/2, 1/4, 1/4 give (1/4 + 3/16 + 3/16) / 2 = 5/16. (4/16 - 5/16) / (11/16) = -1/11.
    assert found.gwet_ac1 == pytest.approx(-1 / 11)
    # The surest first: p_a is 0.3 from the middle for p3, 0.1 for p2, 0 for p5.
    assert found.disagreements == ("p3", "p2", "p5")


def test_ties_count_as_asked(tmp_path: Path) -> None:
    # Right on p1; wrong on p2; a tie of one side on p3 and p5.
    shares = {ties: only(run(tmp_path, JUDGED, human_rows(VOTES), ties=ties)) for ties in ("count", "half", "drop")}
    assert {ties: found.accuracy for ties, found in shares.items()} == {"count": 0.25, "half": 0.5, "drop": 0.5}
    assert shares["drop"].disagreements == ("p2",)


def test_agreement_among_people_by_hand(tmp_path: Path) -> None:
    people = only(run(tmp_path, JUDGED, human_rows(VOTES))).humans
    assert (people.annotators, people.labels, people.pairs, people.no_majority) == (3, 13, 7, 1)
    # x and y on p1, p2, p3, p4, p7: 4 of 5 alike; by chance (3 x 2 + 1 x 2 + 1 x 1) / 25 = 9/25. 11/25 / (16/25).
    assert people.pairwise_kappa == pytest.approx({"x|y": 11 / 16, "x|z": 0.0, "y|z": 0.0})
    # Units p1 aab, p2 bb, p3 tt, p4 ab, p7 aa: 11 ratings, 5 a, 4 b, 2 ties. Unequal: 4/2 of p1 and 2/1 of p4, 4 in
    # all; expected (121 - 25 - 16 - 4) / 10 = 7.6. 1 - 4/7.6 = 9/19.
    assert people.alpha == pytest.approx(9 / 19)
    # Against the others, where the judge has a preference. On p1 the others of x and of y are split. x: right on p2
    # and p3, wrong on p4. y likewise. z: wrong on p1.
    shares = {name: (each.annotator.n, each.annotator.value) for name, each in people.per_annotator.items()}
    assert shares == {"x": (3, 2 / 3), "y": (3, 2 / 3), "z": (1, 0.0)}
    # The judge against the same: p2 and p3 wrong, p4 as y says (wrong for x's place, where y's b is the gold).
    judged = {name: each.judge.value for name, each in people.per_annotator.items()}
    assert judged == pytest.approx({"x": 0.0, "y": 1 / 3, "z": 1.0})
    assert people.leave_one_out == pytest.approx(4 / 9)
    assert people.judge_leave_one_out == pytest.approx(4 / 9)


def test_calibration_by_hand(tmp_path: Path) -> None:
    fit = only(run(tmp_path, JUDGED, human_rows(VOTES))).calibration
    # p_a .9 .6 .2 .5 against 1, 0, 1/2, 1. Four pairs make one bin: mean .55 against 2.5/4.
    assert fit.n == 4
    assert fit.brier == pytest.approx((0.01 + 0.36 + 0.09 + 0.25) / 4)
    assert fit.ece == pytest.approx(0.075)


def test_orders_are_folded_and_compared(tmp_path: Path) -> None:
    judged = [
        # Equal, split without p_a, split with p_a (mean .6), one order only, and one order that abstained.
        *(judge_row("p1", "a", order=order) for order in ("ab", "ba")),
        judge_row("p2", "a", order="ab"),
        judge_row("p2", "b", order="ba"),
        judge_row("p3", "a", order="ab", p_a=0.9),
        judge_row("p3", "b", order="ba", p_a=0.3),
        judge_row("p4", "b", order="ba"),
        judge_row("p5", None, order="ab"),
        judge_row("p5", "b", order="ba"),
    ]
    human = human_rows({f"p{number}": {"x": "a"} for number in range(1, 6)})
    found = only(run(tmp_path, judged, human))
    assert found.confusion["a"] == {"a": 2, "b": 2, "tie": 1}
    place = found.position
    # Both orders of p1, p2 and p3. First place wins both on p2 and p3, one of two on p1.
    assert (place.n, place.agreement, place.first_rate) == (3, 1 / 3, 5 / 6)
    assert place.accuracy == {"ab": 1.0, "ba": pytest.approx(1 / 3), "mean": pytest.approx(2 / 3), "both": 1 / 3}


PAIRS = [
    {"id": f"p{number}", "prompt": "Why?", "response_a": a, "response_b": b, "tags": tags}
    for number, a, b, tags in (
        (1, "x" * 100, "x" * 91, {"generator_a": "judge", "generator_b": "m", "kind": "u"}),
        (2, "x" * 100, "x" * 50, {"generator_a": "m", "generator_b": "judge", "kind": "u"}),
        (3, "**x** y", "x" * 90, {"generator_a": "m", "generator_b": "m", "kind": "v"}),
        (4, "short", "long " * 9, {"generator_a": "judge", "generator_b": "judge", "kind": "v"}),
    )
]


def test_length_form_tags_and_self_preference_by_hand(tmp_path: Path) -> None:
    judged = [judge_row(f"p{number}", side) for number, side in ((1, "a"), (2, "b"), (3, "b"), (4, "tie"))]
    human = human_rows({"p1": {"x": "a"}, "p2": {"x": "a"}, "p3": {"x": "a"}, "p4": {"x": "b"}})
    found = only(run(tmp_path, judged, human, PAIRS))
    length = found.length
    # Longer are a, a, b, b: the judge takes them on p1 and p3 of the three that it decides, people on p1, p2 and p4.
    assert (length.n, length.judge_longer, length.human_longer) == (4, 2 / 3, 3 / 4)
    # Only p1's lengths, 100 and 91, are within a tenth.
    assert (length.controlled_agreement.n, length.controlled_agreement.value) == (1, 1.0)
    bold = next(each for each in found.format if each.feature == "bold")
    assert (bold.judge.value, bold.human.value) == (0.0, 1.0)
    (own,) = found.self_preference
    # One of the two is the judge's own on p1 (a) and p2 (b): it takes both, people one.
    assert (own.generator, own.judge.value, own.human.value) == ("judge", 1.0, 0.5)
    groups = {(each.tag, each.value): (each.n, each.accuracy) for each in found.by_tag}
    assert groups == {("kind", "u"): (2, 0.5), ("kind", "v"): (2, 0.0)}


def test_without_texts_the_reason_is_told(tmp_path: Path) -> None:
    found = only(run(tmp_path, JUDGED, human_rows(VOTES)))
    assert found.length.n == 0
    assert {name: found.not_defined[name][:29] for name in ("length", "format", "by_tag")} == {
        "length": "the texts of the pairs are no",
        "format": "the texts of the pairs are no",
        "by_tag": "the tags of the pairs are not",
    }
    assert all("--pairs" in found.not_defined[name] for name in ("length", "format", "by_tag"))


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("- one\n- two", 1),
        ("1. one\n2) two", 1),
        ("- one", 0),
        ("-5 degrees\n-6 degrees", 0),
        ("# Title\ntext", 2),
        ("#hashtag", 0),
        ("a **bold** word", 4),
        ("2 ** 3 ** 4", 0),
        ("run `ls`", 8),
        ("# T\n* x\n* y\n**b** `c`", 15),
        ("", 0),
    ],
)
def test_features_of_form(text: str, bits: int) -> None:
    assert form(text) == bits


def test_generators_are_read_from_tags() -> None:
    assert generators({"generator_a": "m", "generator_b": "n"}) == ("m", "n")
    assert generators({"cmp_key": "bloom-7b_llama-7b"}) == ("bloom-7b", "llama-7b")
    # Two ways to cut it.
    assert generators({"cmp_key": "bloom_7b_llama"}) is None


def numbers(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of a JSON value with its path."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from numbers(each, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for each in value:
            yield from numbers(each, path)
    else:
        yield path, value


# What has its reason in a part's own name.
ALWAYS_TOLD = ("accuracy", "cohen_kappa", "krippendorff_alpha", "gwet_ac1", "humans.alpha", "humans.ac1")


def check_sound(found: Comparison) -> None:
    """No figure is NaN or infinite, and what is missing has a reason."""
    for _, value in numbers(json.loads(found.model_dump_json())):
        assert not isinstance(value, float) or math.isfinite(value)
    for objective in found.objectives.values():
        values = dict(numbers(json.loads(objective.model_dump_json(exclude={"not_defined"}))))
        for name in ALWAYS_TOLD:
            assert values[name] is not None or name in objective.not_defined, name
        told = objective.not_defined
        assert objective.position.agreement is not None or "position" in told
        assert objective.length.n or "length" in told
        assert objective.humans.leave_one_out is not None or "humans.leave_one_out" in told
        assert objective.alt_test.winning_rate is not None or "alt_test" in told
        assert objective.calibration.temperature is not None or {"calibration", "calibration.temperature"} & told.keys()
        assert all(told.values())


@pytest.mark.parametrize(
    ("judged", "votes"),
    [
        ([judge_row("p1", "a", p_a=1.0)], {"p1": {"x": "a"}}),
        ([judge_row("p1", None)], {"p1": {"x": "a"}}),
        ([judge_row("p1", "tie")], {"p1": {"x": "tie", "y": "tie"}}),
        ([judge_row("p1", "a")], {"p1": {"x": "a", "y": "b"}}),
        (
            [judge_row(f"p{n}", "a", p_a=0.5001) for n in range(40)],
            {f"p{n}": dict.fromkeys("xyz", "a") for n in range(40)},
        ),
        ([judge_row(f"p{n}", "b", p_a=0.0) for n in range(40)], {f"p{n}": {"x": "a"} for n in range(40)}),
    ],
    ids=["one pair", "abstained", "a tie", "no majority", "all equal", "all wrong and sure"],
)
@pytest.mark.parametrize("ties", ["count", "half", "drop"])
def test_little_or_uniform_data(tmp_path: Path, judged: Rows, votes: dict[str, dict[str, str]], ties: str) -> None:
    pairs = [{"id": pair, "prompt": "Why?", "response_a": "", "response_b": "x"} for pair in votes]
    for texts in (None, pairs):
        check_sound(run(tmp_path, judged, human_rows(votes), texts, ties=ties, resamples=20))


def random_rows(seed: int) -> tuple[Rows, Rows, Rows]:
    """Random labels of a judge and people, with everything that may be missing, and the pairs."""
    draw = random.Random(seed)
    sides = ("a", "b", "tie")
    count = draw.randint(1, 40)
    judged, votes = [], {}
    for number in range(count):
        name = f"p{number}"
        votes[name] = {who: draw.choice(sides) for who in "wxyz"[: draw.randint(1, 4)]}
        for order in draw.choice([("ab", "ba"), ("ab",), ("ba",), ()]):
            p_a = draw.choice([None, round(draw.random(), 3)])
            side = draw.choice([*sides, None]) if p_a is None else "a" if p_a > 0.5 else "b" if p_a < 0.5 else "tie"
            judged.append(judge_row(name, side, order=order, **({} if p_a is None else {"p_a": p_a})))
    judged.append(judge_row("p0", "a") if not any(row["id"] == "p0" for row in judged) else judge_row("q", "b"))
    pairs = [
        {
            "id": f"p{number}",
            "prompt": f"Question {draw.randint(0, 9)}?",
            "response_a": "word " * draw.randint(0, 5) + draw.choice(["", "**b**", "\n- x\n- y"]),
            "response_b": "word " * draw.randint(0, 5) + draw.choice(["", "`c`", "\n# H"]),
            "tags": {"kind": draw.choice(["u", "v"])},
        }
        for number in range(count)
    ]
    return judged, human_rows(votes), pairs


SWAP: dict[Any, Any] = {"a": "b", "b": "a", "ab": "ba", "ba": "ab"}


def swapped(rows: Rows) -> Rows:
    """The same labels or pairs with a and b in each other's place."""
    found = []
    for row in rows:
        other = dict(row)
        for key in ("preference", "order"):
            if key in row:
                other[key] = SWAP.get(row[key], row[key])
        if "p_a" in row:
            other["p_a"] = 1 - row["p_a"]
        if "response_a" in row:
            other |= {"response_a": row["response_b"], "response_b": row["response_a"]}
        found.append(other)
    return found


@pytest.mark.parametrize("seed", range(25))
def test_swapping_a_and_b_everywhere_changes_no_figure(tmp_path: Path, seed: int) -> None:
    rows = random_rows(seed)
    found = [run(tmp_path, *parts, resamples=0) for parts in (rows, tuple(map(swapped, rows)))]
    for each in found:
        check_sound(each)
    one, other = (only(each) for each in found)
    for name in ("n", "coverage", "abstained", "accuracy", "cohen_kappa", "krippendorff_alpha", "gwet_ac1"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), abs=1e-12), name
    people = [list(numbers(each.humans.model_dump(mode="json"))) for each in (one, other)]
    assert [name for name, _ in people[0]] == [name for name, _ in people[1]]
    assert [value for _, value in people[0]] == pytest.approx([value for _, value in people[1]], abs=1e-12)
    assert one.position.agreement == other.position.agreement
    assert one.position.first_rate == other.position.first_rate
    assert one.length.judge_longer == other.length.judge_longer
    assert one.length.controlled_agreement == other.length.controlled_agreement
    assert one.calibration.brier == pytest.approx(other.calibration.brier, abs=1e-12)
    assert set(one.disagreements) == set(other.disagreements)
    assert [(each.tag, each.n, each.accuracy) for each in one.by_tag] == [
        (each.tag, each.n, each.accuracy) for each in other.by_tag
    ]


def test_the_same_comparison_gives_the_same_bytes(tmp_path: Path) -> None:
    rows = random_rows(3)
    first, second = (run(tmp_path, *rows, resamples=50).model_dump_json() for _ in range(2))
    assert first == second


def test_no_interval_claims_certainty(tmp_path: Path) -> None:
    sides = "ab" * 20
    found = only(
        run(
            tmp_path,
            [judge_row(f"p{n}", side) for n, side in enumerate(sides)],
            human_rows({f"p{n}": {"x": side} for n, side in enumerate(sides)}),
        )
    )
    # Right on all 40: a resample without a mistake says nothing of mistakes to come. Wilson: 40 / (40 + 1.96^2).
    assert found.accuracy == found.cohen_kappa == 1.0
    assert found.accuracy_ci == pytest.approx((0.9124, 1.0), abs=5e-5)
    assert found.cohen_kappa_ci is None
    assert "every resample gives the same value" in found.not_defined["cohen_kappa_ci"]
