"""Folding verdicts into labels; every number is worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product
from typing import Any

import pytest

from rlaif.constitution import Aggregation, Constitution, Objective, Principle
from rlaif.labeling.labels import (
    compare_ratings,
    fold_label,
    fold_objective,
    fold_overall,
    fold_ratings,
    pareto_verdict,
    preference,
)
from rlaif.types import (
    Label,
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


def rating(order: Order, shares: Mapping[int, float], status: Status = "ok", **changed: Any) -> Verdict:
    """A rating as the ledger gives it back; without shares it was not read."""
    mean = sum(number * share for number, share in shares.items()) if shares else None
    logprobs = {str(number): math.log(share) for number, share in shares.items()}
    return verdict(order, None, status, **{"rating": mean, "rating_logprobs": logprobs, **changed})


def test_a_pair_of_ratings() -> None:
    # a is 7 or 9, b is 8: a is higher in 0.4 of the cases, and never equal.
    a, b = rating("ab", {7: 0.6, 9: 0.4}, choice_mass=0.9), rating("ba", {8: 1.0}, choice_mass=0.7)
    for both in ([a, b], [b, a]):
        label = fold_ratings(both)
        assert label.p_a == pytest.approx(0.4)
        assert label.rating_a == pytest.approx(7.8)
        assert label.rating_b == 8.0
        assert label.choice_mass == pytest.approx(0.8)
        assert (label.preference, label.order_gap, label.verdicts, label.abstained) == ("b", None, 1, 0)


def test_ratings_of_several_samples() -> None:
    # First sample: a 9 against 3, p 1. Second: both 5, p 0.5. Together 0.75, and 7 against 4.
    ratings = [rating("ab", {9: 1.0}), rating("ab", {5: 1.0}, sample=1)]
    ratings += [rating("ba", {5: 1.0}, sample=1), rating("ba", {3: 1.0}, "truncated")]
    label = fold_ratings(ratings)
    assert (label.p_a, label.rating_a, label.rating_b) == (0.75, 7.0, 4.0)
    assert (label.preference, label.verdicts, label.abstained, label.truncated) == ("a", 2, 0, 1)


def test_equal_ratings_are_a_tie() -> None:
    shares = {1: 0.1, 4: 0.2, 7: 0.3, 10: 0.4}
    label = fold_ratings([rating("ab", shares), rating("ba", shares)])
    assert (label.p_a, label.preference) == (0.5, "tie")


def test_a_sample_of_which_one_rating_is_missing_abstains() -> None:
    read = rating("ab", {7: 1.0}, choice_mass=1.0)
    label = fold_ratings([read, rating("ba", {}, "unread")])
    assert (label.p_a, label.preference, label.verdicts, label.abstained) == (None, None, 0, 1)
    assert (label.rating_a, label.rating_b, label.reasons) == (7.0, None, {"unread": 1})
    # Another sample was read; of one where both failed the first reason is told.
    more = [rating("ab", {}, "error", sample=2), rating("ba", {}, "unread", sample=2)]
    more += [rating("ab", {7: 1.0}, sample=1), rating("ba", {6: 1.0}, sample=1)]
    label = fold_ratings([read, rating("ba", {}, "unread"), *more])
    assert (label.p_a, label.verdicts, label.abstained) == (1.0, 1, 2)
    assert label.reasons == {"error": 1, "unread": 1}
    assert (fold_ratings([]).p_a, fold_ratings([]).abstained) == (None, 0)
    assert compare_ratings([read]) is None


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


def test_only_ratings_are_written_as_ratings() -> None:
    pair = Pair(id="x", prompt=(Message(role="user", content="Hi"),), response_a="a", response_b="b")
    provenance = Provenance(judge="j@1", constitution="c@2", template="t@3", rlaif="0")
    ratings = [rating("ab", {7: 1.0}, objective="help"), rating("ba", {4: 1.0}, objective="help")]
    ratings += [rating("ab", {7: 1.0}, objective="harm"), rating("ba", {}, "unread", objective="harm")]
    rated = fold_label(HHH, pair, ("help", "harm"), ratings, provenance, rated=True)
    written = rated.model_dump(mode="json")["labels"]
    assert (written["help"]["rating_a"], written["help"]["rating_b"], written["help"]["p_a"]) == (7.0, 4.0, 1.0)
    assert (written["harm"]["rating_a"], written["harm"]["p_a"], "rating_b" in written["harm"]) == (7.0, None, False)
    assert rated.overall.p_a == 1.0
    verdicts = [verdict("ab", 0.9, objective="help"), verdict("ba", 0.7, objective="help")]
    compared = fold_label(HHH, pair, ("help",), verdicts, provenance)
    keys = ("p_a", "preference", "order_gap", "verdicts", "abstained", "truncated", "choice_mass", "reasons")
    assert tuple(compared.model_dump(mode="json")["labels"]["help"]) == keys
    for label in (rated, compared):
        assert Label.model_validate_json(label.model_dump_json()) == label
