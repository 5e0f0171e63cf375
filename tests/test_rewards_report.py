"""The report page of trained heads: what it says, its pictures, and that text stays text."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlaif.errors import RunError
from rlaif.report.curves import (
    ConfidencePoint,
    Curve,
    ShareCell,
    confidence_curve,
    histogram,
    line_chart,
    share_matrix,
)
from rlaif.report.figures import Axis, Point, Row, dot_plot
from rlaif.report.page import render_page
from rlaif.rewards.evaluate import evaluate_scores
from rlaif.rewards.evaluation import AggregateAgreement, Change, Evaluation, TrainingPoint
from rlaif.rewards.report import heads_page, write_report
from rlaif.rewards.report_examples import scored_pairs
from rlaif.rewards.report_figures import overview
from rlaif.rewards.report_tables import flattened
from rlaif.rewards.report_words import verdict
from rlaif.rewards.spec import Aggregation
from rlaif.types import Message
from tests.reward_examples import (
    NAMES,
    preferences_of,
    raw_of,
    realistic,
    realistic_spec,
    small_evaluation,
    spec_of,
)
from tests.test_report import HOSTILE, OVERRIDE, Seen, within


@pytest.fixture(scope="module")
def values() -> dict[str, Any]:
    """All inputs of a report of three objectives."""
    return realistic(pairs=400, each=3)


@pytest.fixture(scope="module")
def page(values: dict[str, Any]) -> str:
    """Its page."""
    return html_of(values)


def html_of(values: dict[str, Any], **changes: Any) -> str:
    """The page of such inputs."""
    return render_page(heads_page(**{**values, **changes}))


def of_pairs(right: int, wrong: int, **given: Any) -> Evaluation:
    """One head that is right and wrong so often; of the texts none is longer."""
    target, difference = np.ones(right + wrong), [1.0] * right + [-1.0] * wrong
    return evaluate_scores(preferences_of(target), raw_of(difference), spec_of(), resamples=20, **given)


@pytest.mark.parametrize(
    ("right", "wrong", "tone", "label"),
    [
        (80, 20, "good", "✓ Better than a coin, and than length alone"),
        (55, 45, "bad", "✗ Not better than a coin"),
        (15, 5, "open", "? Not told by these labels"),
    ],
)
def test_the_verdict_is_by_the_interval_and_not_by_the_figure(right: int, wrong: int, tone: str, label: str) -> None:
    found = verdict(of_pairs(right, wrong), held_out=True)
    assert (found.tone, found.label) == (tone, label)
    n = right + wrong
    assert found.sentence.startswith(
        f"The head of kind agrees with the labels of {right / n:.1%} of {n} held-out pairs ("
    )


def test_a_head_that_is_no_better_than_length_is_not_good() -> None:
    evaluation = small_evaluation()
    one = evaluation.objectives["kind"].model_copy(
        update={"n": 200, "over_length": 0.01, "over_length_ci": (-0.02, 0.04)}
    )
    found = verdict(evaluation.model_copy(update={"objectives": {"kind": one}}), held_out=False)
    assert (found.tone, found.label) == ("open", "? Better than a coin, but maybe not than length alone")
    assert "held-out" not in found.sentence


def test_the_worst_head_decides_over_several() -> None:
    bad, good = (of_pairs(*each).objectives["kind"] for each in ((50, 50), (90, 10)))
    found = verdict(small_evaluation().model_copy(update={"objectives": {"x": good, "y": bad}}), held_out=True)
    assert (found.tone, found.label) == ("bad", "✗ Under some objective not better than a coin")
    assert found.sentence == "The heads agree with labels that they were not trained on: x 90.0%, y 50.0%."
    assert found.remark.startswith("A rule by length alone reaches x 50.0% (the longer), y 50.0% (the longer). Their")


def test_without_held_out_labels_nothing_is_claimed() -> None:
    assert "nobody knows how good these heads are" in verdict(None, held_out=True).sentence
    none = evaluate_scores(preferences_of(np.array([0.5, 0.5])), raw_of([1.0, 1.0]), spec_of())
    assert verdict(none, held_out=False).sentence == "None of these labels takes a side, so that nothing is measured."
    html = render_page(heads_page(spec_of(), None))
    assert "Not measured" in html
    assert html.count("<svg") == 0
    only = {"overall": AggregateAgreement(n=50, ties=0, accuracy=0.8, accuracy_ci=(0.67, 0.89))}
    found = verdict(none.model_copy(update={"aggregate": only}), held_out=False)
    assert found.tone == "good"
    assert found.sentence == (
        "The aggregate reward agrees with the overall labels of 80.0% of 50 pairs (67.0% to 89.0%)."
    )


def test_the_page_has_its_sections_and_says_what_pictures_show(page: str) -> None:
    seen = Seen(page)
    assert within(page, r'<a href="(#[a-z]+[-0-9]*)">') == [
        "#glance",
        *(f"#objective-{n}" for n in range(3)),
        "#changes",
        "#examples",
        "#making",
        "#reading",
    ]
    ids = seen.values("id")
    assert len(ids) == len(set(ids))
    assert seen.count("svg") == seen.count("figcaption") == seen.count("desc")
    # Four of all objectives, eight of each, and one of the changes.
    assert seen.count("svg") == 4 + 3 * 8 + 1
    assert re.search(r"font-family|<metadata|#0a0b0", page.partition("<svg")[2]) is None
    assert re.search(r"\b(nan|None|inf)\b", seen.text) is None


def test_figures_of_the_evaluation_are_in_the_page(page: str, values: dict[str, Any]) -> None:
    found = values["evaluation"].objectives["helpfulness"]
    text = re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", page)))
    assert f"Agrees with the labels {found.accuracy:.1%}" in text
    assert f"Calibration error (ECE) {100 * found.ece:.1f} points" in text
    assert f"Length alone {found.length_only_accuracy:.1%}" in text
    [said] = within(page, r'<desc id="accuracy-description">(.*?)</desc>')
    assert f"helpfulness (n = {found.n}): head {found.accuracy:.1%}" in said
    [said] = within(page, r'<desc id="weights-description">(.*?)</desc>')
    assert "helpfulness: 46.0% (39.0% to 53.0%)" in said
    assert "settings.lr" in text
    assert "Qwen/Qwen3-0.6B" in text


def test_the_same_values_give_the_same_bytes(page: str, values: dict[str, Any]) -> None:
    assert html_of(values) == page


def test_curves_show_the_step_that_was_kept(values: dict[str, Any]) -> None:
    points = (
        TrainingPoint(step=10, loss={"kind": 0.7}),
        TrainingPoint(step=20, loss={"kind": 0.6}, held_out={"kind": 0.65, "true": 0.5}),
        TrainingPoint(step=30, loss={"kind": 0.5}, held_out={"kind": 0.60, "true": 0.6}),
        TrainingPoint(step=40, loss={"kind": 0.4}, held_out={"kind": 0.50, "true": 0.58}),
    )
    [training] = [each for each in overview(realistic_spec(), None, points) if each.title == "Training"]
    assert training.svg is not None
    # Sums of the held-out losses are 1.15, 1.20 and 1.08.
    [said] = within(training.svg, r'<desc id="training-description">(.*?)</desc>')
    assert said == (
        "loss by step. kind: from 0.650 to 0.500, 0.500 at the best, 40. "
        "true: from 0.500 to 0.580, 0.580 at the best, 40."
    )


def test_frozen_heads_have_no_curve_and_tuned_ones_without_losses_say_so() -> None:
    titles = [each.title for each in overview(spec_of(mode="frozen"), None, ())]
    assert titles == []
    [training] = overview(spec_of(mode="full"), None, ())
    assert (training.svg, training.reason) == (None, "no losses were recorded")


def test_thousands_of_steps_make_no_heavy_page() -> None:
    points = [TrainingPoint(step=step, loss={"kind": 1 / (step + 1)}) for step in range(20_000)]
    [training] = overview(spec_of(mode="full"), None, points)
    assert training.svg is not None
    assert len(training.svg) < 20_000


def test_hostile_text_stays_text(values: dict[str, Any], tmp_path: Path) -> None:
    text = HOSTILE + OVERRIDE
    evaluation = values["evaluation"]
    known = evaluation.objectives["helpfulness"]
    spoilt = known.model_copy(
        update={
            "warnings": (text,),
            "not_defined": {"ece": text},
            "bins": (),
            "by_tag": tuple(each.model_copy(update={"tag": text, "value": text}) for each in known.by_tag),
        }
    )
    example = values["examples"][0].model_copy(
        update={
            "id": text,
            "objective": text,
            "rewards": {text: (1.0, 2.0)},
            "prompt": (Message(role="user", content=text),),
            "response_a": text,
            "response_b": text,
            "tags": {text: text},
        }
    )
    change = Change(data=text, objective=text, n=2, before=0.5, after=1.0, difference=0.5, difference_ci=None)
    spec = values["spec"].model_copy(
        update={
            "objectives": (text,),
            "aggregation": Aggregation(weights={text: 1.0}, by_tag={text: {text: 1.0}}),
            "provenance": {text: {text: [text]}},
        }
    )
    found = evaluation.model_copy(
        update={"objectives": {text: spoilt}, "heads": text, "not_scored": (text,), "conflicts": ()}
    )
    write_report(tmp_path / "page.html", spec, found, values["history"], (example,), (change,))
    html = (tmp_path / "page.html").read_bytes().decode("utf-8")
    seen = Seen(html)
    assert (seen.count("script"), seen.count("style"), seen.count("img")) == (1, 1, 0)
    assert re.search("[\x00\u202e\u202c\ud800]", html) is None


def test_examples_go_from_the_surest_mistake_by_objective(values: dict[str, Any]) -> None:
    shown = scored_pairs(values["examples"])
    assert [each.label for each in shown.filters] == ["Objective", "Head"]
    assert [each.picks for each in shown.examples[:4]] == [((0,), (0,)), ((1,), (0,)), ((2,), (0,)), ((0,), (1,))]
    first = values["examples"][0]
    side = "a" if first.target > 0.5 else "b"
    [marked] = [each for each in shown.examples[0].passages if each.marked]
    assert marked.label.startswith(f"Response {side}, preferred by label, reward ")
    assert marked.text == (first.response_a if side == "a" else first.response_b)
    assert ", wrong: label " in shown.examples[0].summary


def test_long_examples_are_cut_to_what_a_browser_opens_at_once(values: dict[str, Any]) -> None:
    long = [each.model_copy(update={"response_a": "x" * 200_000}) for each in values["examples"]] * 6
    shown = scored_pairs(long)
    text = [each for one in shown.examples for each in one.passages if each.label.startswith("Response a")]
    assert all(len(each.text) - 1 + each.left_out == 200_000 for each in text)
    assert sum(len(each.text) for each in text) < 1_600_000


def test_settings_are_told_in_lines() -> None:
    given = {"a_b": 1, "none": None, "list": [1, 2], "deep": {"lr": 0.0002, "on": True}, "many": [{"name": "x"}]}
    assert list(flattened(given)) == [
        ("a b", "1"),
        ("list", "1, 2"),
        ("deep.lr", "0.0002"),
        ("deep.on", "yes"),
        ("many 1.name", "x"),
    ]


def test_a_line_chart_places_points_by_their_value() -> None:
    curves = [
        Curve(label="one", points=((0.0, 1.0), (10.0, 2.0)), best=10.0),
        Curve(label="one", points=((0.0, 2.0), (10.0, 1.0)), faint=True),
    ]
    svg = line_chart("x", "title", curves, "step", "loss")
    paths = [
        [float(each) for each in re.findall(r"[\d.]+", path)]
        for path in re.findall(r'd="M ([^"]*)"[^>]*stroke="var\(--first\)"', svg)
    ]
    # Two lines cross: one rises (in a picture y falls), the faint one mirrors it.
    rising, falling = [path for path in paths if len(path) == 4 and path[0] < 100 < path[2]]
    assert {rising[1] - rising[3] > 0, falling[1] - falling[3] > 0} == {True, False}
    assert rising[0] == falling[0]
    assert sorted((rising[1], rising[3])) == pytest.approx(sorted((falling[1], falling[3])))
    [said] = within(svg, r"<desc[^>]*>(.*?)</desc>")
    assert said == "loss by step. one: from 1.000 to 2.000, 2.000 at the best, 10."


def test_a_histogram_has_bars_as_high_as_their_counts() -> None:
    svg = histogram("x", "title", (-1.0, 0.0, 1.0, 2.0), (1, 4, 2), "margin", ("14% wrong", "86% right"))
    bars = re.findall(r'd="M ([\d. LMz]+)"[^>]*fill="var\(--(first|second)\)"', svg)
    heights = []
    for path, colour in bars:
        ys = [float(each) for each in re.findall(r"[\d.]+", path)][1::2]
        heights.append((colour, max(ys) - min(ys)))
    assert [colour for colour, _ in heights] == ["second", "first", "first"]
    unit = heights[0][1]
    assert [height / unit for _, height in heights] == pytest.approx([1, 4, 2], rel=0.01)
    assert ">14% wrong<" in svg


def test_a_reliability_curve_has_room_for_what_is_worse_than_a_coin() -> None:
    point = ConfidencePoint(n=20, confidence=0.9, before=0.95, share=0.25, ci=(0.11, 0.47))
    svg = confidence_curve("x", "title", [point], "how sure", "right")
    [said] = within(svg, r"<desc[^>]*>(.*?)</desc>")
    assert said == "right by how sure. 0.90, 0.95 before calibration: 25.0% of 20 (11.0% to 47.0%)."
    assert ">20%<" in svg
    assert ">before<" in svg


def test_small_shares_have_an_axis_from_nought() -> None:
    row = Row(label="kind", points=(Point(value=0.08, text="8%"),))
    svg = dot_plot("x", "title", [row], ("weight",), Axis(label="weight"))
    assert [f"{tenth}0%" for tenth in range(1, 5)] == re.findall(r">(\d0%)<", svg)


def test_a_matrix_of_shares_tells_both_halves() -> None:
    cells = {(0, 1): ShareCell(share=0.25, n=8), (1, 0): ShareCell(share=None)}
    svg = share_matrix("x", "title", ["kind", "a very long name of an objective"], cells, ("labels", "heads"))
    [said] = within(svg, r"<desc[^>]*>(.*?)</desc>")
    assert said == (
        "kind and a very long name of an objective, labels: 25.0% of 8. a very long name of an objective and kind, "
        "heads: —."
    )
    assert ">25%<" in svg
    assert ">of 8<" in svg


def test_many_objectives_still_fit() -> None:
    names = tuple(f"objective-{n}" for n in range(12))
    target = np.tile([1.0, 0.0] * 6, (40, 1))
    known = preferences_of(target, objectives=names)
    found = evaluate_scores(known, raw_of(*[[1.0] * 40] * 12), spec_of(names), resamples=0)
    pictures = overview(spec_of(names), found, ())
    [conflicts] = [each for each in pictures if each.title.startswith("Conflicts")]
    assert conflicts.caption.endswith(" 3 more are not drawn.")
    assert conflicts.svg is not None
    assert ">objective-8<" in conflicts.svg
    assert ">objective-9<" not in conflicts.svg


def test_a_page_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot be written"):
        write_report(tmp_path / "missing" / "page.html", spec_of(NAMES), None)
