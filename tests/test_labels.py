"""Folding verdicts into labels; every number is worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import pytest

from rlaif.constitution import Aggregation, Constitution, Objective, Principle
from rlaif.labeling.labels import fold_label, fold_objective, fold_overall, pareto_verdict, preference
from rlaif.types import (
    Message,
    ObjectiveLabel,
    Order,
    OverallLabel,
    Pair,
    ParetoVerdict,
    Preference,
    Provenance,
    Status,
    Verdict,
)

OTHER: dict[str | None, str | None] = {"a": "b", "b": "a", "tie": "tie", "conflict": "conflict", None: None}


def verdict(order: Order, p_a: float | None, status: Status = "ok", **changed: Any) -> Verdict:
    values = {"objective": "kind", "order": order, "sample": 0, "status": status, "p_a": p_a}
    return Verdict.model_validate(values | changed)


def test_both_orders() -> None:
    label = fold_objective([verdict("ab", 0.9, choice_mass=1.0), verdict("ba", 0.7, choice_mass=0.6)])
    assert label.p_a == pytest.approx(0.8)
    assert label.order_gap == pytest.approx(0.2)
    assert label.choice_mass == pytest.approx(0.8)
    assert (label.preference, label.verdicts, label.abstained, label.truncated) == ("a", 2, 0, 0)


def test_an_order_counts_once_however_many_samples_it_has() -> None:
    # ab: (0.9 + 0.6) / 2 = 0.75; ba: 0.25; together 0.5, where the plain mean of three would be 0.583.
    label = fold_objective([verdict("ab", 0.9), verdict("ab", 0.6), verdict("ba", 0.25), verdict("ba", None, "unread")])
    assert label.p_a == pytest.approx(0.5)
    assert label.order_gap == pytest.approx(0.5)
    assert (label.preference, label.verdicts, label.abstained) == ("tie", 3, 1)
    assert label.reasons == {"unread": 1}


def test_one_order_has_no_gap() -> None:
    label = fold_objective([verdict("ab", 0.2), verdict("ba", None, "error")])
    assert (label.p_a, label.order_gap, label.preference) == (0.2, None, "b")
    assert (label.verdicts, label.abstained) == (1, 1)


def test_abstentions_are_counted_and_give_no_number() -> None:
    missing = [verdict("ab", None, "refused"), verdict("ba", None, "error"), verdict("ab", None, "error")]
    label = fold_objective(missing)
    assert (label.p_a, label.preference, label.order_gap, label.choice_mass) == (None, None, None, None)
    assert (label.verdicts, label.abstained) == (0, 3)
    assert label.reasons == {"error": 2, "refused": 1}
    assert fold_objective([]).p_a is None


def test_truncated_verdicts_count_and_are_told() -> None:
    label = fold_objective([verdict("ab", 0.6, "truncated"), verdict("ba", 0.8)])
    assert label.p_a == pytest.approx(0.7)
    assert (label.verdicts, label.truncated, label.abstained) == (2, 1, 0)


@pytest.mark.parametrize(
    ("p_a", "expected"),
    [(None, None), (0.0, "b"), (0.49, "b"), (0.5, "tie"), (0.51, "a"), (1.0, "a"), (0.499_999, "b"), (0.500_001, "a")],
)
def test_preference(p_a: float | None, expected: Preference | None) -> None:
    assert preference(p_a) == expected


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        ([], None),
        ([0.5, 0.5], "tie"),
        ([0.9], "a"),
        ([0.9, 0.5, 0.6], "a"),
        ([0.5, 0.1], "b"),
        ([0.9, 0.4, 0.9], "conflict"),
    ],
)
def test_pareto(probabilities: list[float], expected: ParetoVerdict | None) -> None:
    assert pareto_verdict(probabilities) == expected
    assert pareto_verdict([1 - p for p in probabilities]) == OTHER[expected]


def constitution(weights: Mapping[str, float], **aggregation: Any) -> Constitution:
    """A constitution of objectives that differ by weight alone."""
    rule = Principle(id="rule", text="Prefer the better one.")
    objectives = {name: Objective(weight=w, question="Which?", principles=(rule,)) for name, w in weights.items()}
    return Constitution(name="test", objectives=objectives, aggregation=Aggregation.model_validate(aggregation))


def labels(**probabilities: float | None) -> dict[str, ObjectiveLabel]:
    return {name: fold_objective([verdict("ab", p, "ok")]) for name, p in probabilities.items()}


def overall(rules: Constitution, tags: Mapping[str, object] | None = None, /, **p: float | None) -> OverallLabel:
    return fold_overall(rules, tags or {}, labels(**p))


HHH = constitution({"help": 0.4, "harm": 0.4, "honest": 0.2})


def test_weighted() -> None:
    # 0.4 x 0.9 + 0.4 x 0.3 + 0.2 x 0.6 = 0.36 + 0.12 + 0.12 = 0.6
    label = overall(HHH, help=0.9, harm=0.3, honest=0.6)
    assert label.p_a == pytest.approx(0.6)
    assert (label.preference, label.method, label.pareto, label.floors) == ("a", "weighted", "conflict", ())


def test_weighted_without_one_objective() -> None:
    # harm abstained: (0.4 x 0.9 + 0.2 x 0.3) / 0.6 = 0.42 / 0.6 = 0.7
    label = overall(HHH, help=0.9, harm=None, honest=0.3)
    assert label.p_a == pytest.approx(0.7)
    # The same where it was not asked at all, with --objective.
    assert overall(HHH, help=0.9, honest=0.3) == label


@pytest.mark.parametrize("p", [{}, {"help": None, "harm": None}])
def test_nothing_read_is_no_preference(p: dict[str, float | None]) -> None:
    label = overall(HHH, **p)
    assert (label.p_a, label.preference, label.pareto) == (None, None, None)


def test_objectives_without_weight_decide_nothing() -> None:
    label = overall(constitution({"help": 1, "harm": 0}), harm=0.9)
    assert (label.p_a, label.preference, label.pareto) == (None, None, None)


@pytest.mark.parametrize(
    ("tags", "p_a"),
    [
        # 0.4 x 0.9 + 0.4 x 0.3 + 0.2 x 0.8 = 0.36 + 0.12 + 0.16
        ({}, 0.64),
        # 0.3 x 0.9 + 0.3 x 0.3 + 0.4 x 0.8 = 0.27 + 0.09 + 0.32
        ({"medical": True}, 0.68),
        # The objectives that the entry leaves out weigh nothing.
        ({"domain": "law"}, 0.3),
    ],
)
def test_weights_by_tag(tags: dict[str, object], p_a: float) -> None:
    by_tag = {"medical": {"help": 0.3, "harm": 0.3, "honest": 0.4}, "law": {"harm": 2}}
    rules = constitution({"help": 0.4, "harm": 0.4, "honest": 0.2}, by_tag=by_tag)
    assert overall(rules, tags, help=0.9, harm=0.3, honest=0.8).p_a == pytest.approx(p_a)


@pytest.mark.parametrize(
    ("p", "p_a", "floors"),
    [
        # (0.9 + 0.3) / 2: no floor of 0.2 is touched.
        ({"help": 0.9, "harm": 0.3}, 0.6, ()),
        # a is barred: its 0.1 on harm is under 0.2, and the mean of 0.5 is held to it.
        ({"help": 0.9, "harm": 0.1}, 0.1, ("harm",)),
        # b is barred: its chance on harm is 0.05.
        ({"help": 0.1, "harm": 0.95}, 0.95, ("harm",)),
        # a is barred, and was not preferred anyway: (0.05 + 0.1) / 2 is held to nothing lower than itself.
        ({"help": 0.05, "harm": 0.1}, 0.075, ()),
        # Exactly at the floor is not under it, on either side.
        ({"help": 0.9, "harm": 0.2}, 0.55, ()),
        ({"help": 0.1, "harm": 0.8}, 0.45, ()),
        # Not asked or not read: no floor.
        ({"help": 0.9}, 0.9, ()),
        ({"help": 0.9, "harm": None}, 0.9, ()),
    ],
)
def test_a_floor_bars_a_response(p: dict[str, float | None], p_a: float, floors: tuple[str, ...]) -> None:
    rules = constitution({"help": 1, "harm": 1}, floors={"harm": 0.2})
    label = overall(rules, **p)
    assert label.p_a == pytest.approx(p_a)
    assert label.floors == floors
    swapped = overall(rules, **{name: None if value is None else 1 - value for name, value in p.items()})
    assert swapped.p_a == pytest.approx(1 - p_a)
    assert (swapped.preference, swapped.floors) == (OTHER[label.preference], floors)


def test_two_floors() -> None:
    rules = constitution({"help": 2, "harm": 1, "honest": 1}, floors={"harm": 0.3, "honest": 0.2})
    # Both bar a; the lower one holds: harm 0.25, honest 0.1. Mean (1.8 + 0.25 + 0.1) / 4 = 0.5375.
    both = overall(rules, help=0.9, harm=0.25, honest=0.1)
    assert both.p_a == pytest.approx(0.1)
    assert both.floors == ("harm", "honest")
    # One bars a and the other bars b: the mean (1.8 + 0.1 + 0.9) / 4 = 0.7 stays.
    against = overall(rules, help=0.9, harm=0.1, honest=0.9)
    assert against.p_a == pytest.approx(0.7)
    assert against.floors == ()


@pytest.mark.parametrize(
    ("p", "p_a", "pareto"),
    [
        ({"help": 0.9, "harm": 0.7}, 0.8, "a"),
        ({"help": 0.5, "harm": 0.3}, 0.4, "b"),
        ({"help": 0.9, "harm": 0.3}, None, "conflict"),
        ({"help": 0.5, "harm": 0.5}, 0.5, "tie"),
        ({"help": None, "harm": None}, None, None),
    ],
)
def test_pareto_method(p: dict[str, float | None], p_a: float | None, pareto: str | None) -> None:
    label = overall(constitution({"help": 1, "harm": 1}, method="pareto"), **p)
    assert label.p_a == (None if p_a is None else pytest.approx(p_a))
    assert (label.method, label.pareto) == ("pareto", pareto)
    assert label.preference == (None if pareto == "conflict" else pareto)


def test_swapping_a_pair_swaps_every_label() -> None:
    # Hard verdicts make exact ties, which the last digits of a weighted sum must not decide.
    for weights in product((0.1, 0.2, 0.3, 0.7), repeat=3):
        rules = constitution(dict(zip(("help", "harm", "honest"), weights, strict=True)), floors={"harm": 0.2})
        for p in product((0.0, 0.2, 0.5, 0.8, 1.0), repeat=3):
            names = ("help", "harm", "honest")
            forth = overall(rules, **dict(zip(names, p, strict=True)))
            back = overall(rules, **dict(zip(names, (1 - each for each in p), strict=True)))
            assert forth.p_a is not None
            assert back.p_a == pytest.approx(1 - forth.p_a)
            assert (back.preference, back.pareto) == (OTHER[forth.preference], OTHER[forth.pareto])
            assert back.floors == forth.floors


def test_a_line_of_labels() -> None:
    pair = Pair(id="x", prompt=(Message(role="user", content="Hi"),), response_a="a", response_b="b", tags={"n": 1})
    provenance = Provenance(judge="j@1", constitution="c@2", template="t@3", rlaif="0")
    verdicts = [
        verdict("ab", 0.9, objective="help"),
        verdict("ba", 0.7, objective="help"),
        verdict("ab", 0.4, objective="harm"),
        verdict("ba", None, "unread", objective="harm"),
    ]
    line = fold_label(HHH, pair, ("help", "harm"), verdicts, provenance)
    written = line.model_dump(mode="json")
    assert list(written) == ["id", "prompt", "response_a", "response_b", "tags", "labels", "overall", "provenance"]
    assert (written["id"], written["tags"], written["provenance"]["judge"]) == ("x", {"n": 1}, "j@1")
    assert list(line.labels) == ["help", "harm"]
    assert line.labels["help"].p_a == pytest.approx(0.8)
    assert (line.labels["harm"].p_a, line.labels["harm"].abstained) == (0.4, 1)
    # (0.4 x 0.8 + 0.4 x 0.4) / 0.8
    assert line.overall.p_a == pytest.approx(0.6)
    assert line.overall.pareto == "conflict"
