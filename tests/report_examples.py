"""Comparisons written by hand, for the tests of the report page and to look at it."""

from __future__ import annotations

from typing import Any

from rlaif.agreement.results import (
    AltTest,
    AltTestAnnotator,
    Calibration,
    CalibrationBin,
    Comparison,
    Disagreement,
    FormatBias,
    Humans,
    JudgeComparison,
    JudgeDifference,
    JudgeRanking,
    JudgeStanding,
    LeftOut,
    LengthBias,
    ObjectiveComparison,
    PositionBias,
    Rate,
    SelfPreference,
    Slope,
    TagAgreement,
    WinRate,
)
from rlaif.stats import wilson
from rlaif.types import Message


def rate(yes: int, n: int) -> Rate:
    """A share with Wilson's interval."""
    return Rate(n=n, value=yes / n if n else None, ci=wilson(yes, n) if n else None)


def objective(**changes: Any) -> ObjectiveComparison:
    """One judge on 200 pairs with three annotators: right on 150, people among each other on nine of ten."""
    given: dict[str, Any] = {
        "n": 200,
        "coverage": 0.98,
        "abstained": 3,
        "not_judged": 1,
        "ties": "count",
        "accuracy": 0.75,
        "accuracy_ci": (0.69, 0.81),
        "cohen_kappa": 0.5604,
        "cohen_kappa_ci": (0.452, 0.661),
        "krippendorff_alpha": 0.61,
        "krippendorff_alpha_ci": (0.55, 0.67),
        "gwet_ac1": 0.652,
        "gwet_ac1_ci": (0.581, 0.722),
        "confusion": {
            "a": {"a": 78, "b": 14, "tie": 4},
            "b": {"a": 12, "b": 67, "tie": 5},
            "tie": {"a": 8, "b": 7, "tie": 5},
        },
        "humans": Humans(
            annotators=3,
            labels=612,
            pairs=204,
            no_majority=4,
            pairwise_kappa={"ann|bo": 0.8520, "ann|cy": 0.8789, "bo|cy": 0.8617},
            alpha=0.864,
            ac1=0.881,
            leave_one_out=0.905,
            judge_leave_one_out=0.752,
            per_annotator={
                "ann": LeftOut(annotator=rate(182, 200), judge=rate(151, 200)),
                "bo": LeftOut(annotator=rate(178, 199), judge=rate(149, 199)),
                "cy": LeftOut(annotator=rate(183, 201), judge=rate(152, 201)),
            },
        ),
        "position": PositionBias(
            n=200,
            agreement=0.82,
            agreement_ci=wilson(164, 200),
            first_rate=0.58,
            first_rate_ci=wilson(232, 400),
            kappa_between_orders=0.64,
            accuracy={"ab": 0.77, "ba": 0.71, "mean": 0.74, "both": 0.66},
            kappa={"ab": 0.58, "ba": 0.49, "mean": 0.535},
        ),
        "length": LengthBias(
            n=180,
            judge_longer=0.661,
            judge_longer_ci=wilson(119, 180),
            human_longer=0.556,
            human_longer_ci=wilson(100, 180),
            judge_slope=Slope(n=180, value=0.81, ci=(0.45, 1.17)),
            human_slope=Slope(n=180, value=0.22, ci=(-0.07, 0.51)),
            slope_gap=0.59,
            slope_gap_ci=(0.21, 0.98),
            controlled_agreement=rate(30, 42),
        ),
        "format": (
            FormatBias(feature="lists", judge=rate(31, 40), human=rate(24, 40)),
            FormatBias(feature="headings", judge=rate(9, 12), human=rate(6, 12)),
            FormatBias(feature="bold", judge=rate(14, 25), human=rate(13, 25)),
        ),
        "self_preference": (SelfPreference(generator="llama-7b", judge=rate(44, 60), human=rate(33, 60)),),
        "calibration": Calibration(
            n=200,
            ece=0.112,
            brier=0.191,
            temperature=1.83,
            ece_after=0.043,
            brier_after=0.172,
            bins=tuple(
                CalibrationBin(n=40, p_a=p, human=yes / 40, ci=wilson(yes, 40))
                for p, yes in ((0.04, 7), (0.21, 12), (0.52, 21), (0.83, 27), (0.97, 34))
            ),
        ),
        "alt_test": AltTest(
            epsilon=0.2,
            winning_rate=2 / 3,
            advantage_probability=0.871,
            passed=True,
            per_annotator={
                "ann": AltTestAnnotator(n=200, judge=0.83, human=0.93, p_value=0.0004, rejected=True),
                "bo": AltTestAnnotator(n=199, judge=0.82, human=0.91, p_value=0.012, rejected=True),
                "cy": AltTestAnnotator(n=201, judge=0.76, human=0.94, p_value=0.31, rejected=False),
            },
        ),
        "win_rates": (
            WinRate(
                name="llama-7b",
                labelled=60,
                judged=900,
                human=0.55,
                human_ci=(0.42, 0.68),
                judge=0.71,
                powered=0.568,
                powered_ci=(0.47, 0.66),
                gain=1.87,
            ),
        ),
        "by_tag": (
            TagAgreement(tag="topic", value="cooking", n=80, accuracy=0.8, accuracy_ci=wilson(64, 80)),
            TagAgreement(tag="topic", value="law", n=40, accuracy=0.55, accuracy_ci=wilson(22, 40)),
            TagAgreement(tag="turns", value=2, n=7, accuracy=None, accuracy_ci=None),
        ),
        "disagreements": tuple(f"pair-{n}" for n in range(50)),
        "choice_mass": 0.97,
        "warnings": ("17 pairs have a choice mass below 0.5: the judge would rather have said something else.",),
    }
    return ObjectiveComparison(**{**given, **changes})


def undefined() -> ObjectiveComparison:
    """An objective of which nothing is defined: one annotator, and no label of the judge's."""
    none = Rate(n=0, value=None, ci=None)
    slope = Slope(n=0, value=None, ci=None)
    return objective(
        n=0,
        coverage=0.0,
        accuracy=None,
        accuracy_ci=None,
        cohen_kappa=None,
        cohen_kappa_ci=None,
        krippendorff_alpha=None,
        krippendorff_alpha_ci=None,
        gwet_ac1=None,
        gwet_ac1_ci=None,
        confusion={},
        humans=Humans(
            annotators=1,
            labels=4,
            pairs=4,
            no_majority=0,
            pairwise_kappa={},
            alpha=None,
            ac1=None,
            leave_one_out=None,
            judge_leave_one_out=None,
            per_annotator={},
        ),
        position=PositionBias(
            n=0,
            agreement=None,
            agreement_ci=None,
            first_rate=None,
            first_rate_ci=None,
            kappa_between_orders=None,
            accuracy={},
            kappa={},
        ),
        length=LengthBias(
            n=0,
            judge_longer=None,
            judge_longer_ci=None,
            human_longer=None,
            human_longer_ci=None,
            judge_slope=slope,
            human_slope=slope,
            slope_gap=None,
            slope_gap_ci=None,
            controlled_agreement=none,
        ),
        format=(),
        self_preference=(),
        calibration=Calibration(n=0, ece=None, brier=None, temperature=None, ece_after=None, brier_after=None),
        alt_test=AltTest(epsilon=0.2, winning_rate=None, advantage_probability=None, passed=None, per_annotator={}),
        win_rates=(),
        by_tag=(),
        disagreements=(),
        choice_mass=None,
        warnings=(),
        not_defined={
            "accuracy": "the judge gave no preference",
            "humans.leave_one_out": "one annotator has nobody to agree with",
            "alt_test": "it takes three annotators",
            "position": "no pair was judged in both orders",
            "length": "the responses are not known; give --pairs FILE",
        },
    )


def disagreement(number: int, **changes: Any) -> Disagreement:
    """A pair on which three people prefer a and the judge b."""
    given: dict[str, Any] = {
        "id": f"pair-{number}",
        "objective": "overall",
        "judge": "judge-7b",
        "prompt": (Message(role="user", content=f"How many legs have {number} spiders?"),),
        "response_a": f"{8 * number} legs.",
        "response_b": "I would rather talk about ants, which have six.",
        "human": "a",
        "votes": {"ann": "a", "bo": "a", "cy": "tie"},
        "preference": "b",
        "p_a": 0.23,
        "rationales": {"ab": "Response B is the friendlier one.", "ba": "Response A changes the subject politely."},
        "tags": {"topic": "animals", "turns": 1},
    }
    return Disagreement(**{**given, **changes})


def several_judges() -> dict[str, Any]:
    """What a comparison has more with three judges and an ensemble."""
    other = objective(accuracy=0.665, accuracy_ci=(0.60, 0.73), cohen_kappa=0.431, cohen_kappa_ci=(0.33, 0.53))
    standing = {"n": 198, "cost": None}
    return {
        "against": (
            JudgeComparison(
                judge="small-3b",
                labels="small.jsonl",
                objectives={"overall": other},
                unmatched_labels=0,
                unmatched_humans=0,
            ),
        ),
        "ranking": (
            JudgeRanking(
                objective="overall",
                standings=(
                    JudgeStanding(
                        judge="both, by vote",
                        kind="vote",
                        accuracy=0.76,
                        accuracy_ci=(0.70, 0.82),
                        best=True,
                        not_worse_than_best=True,
                        **standing,
                    ),
                    JudgeStanding(
                        judge="judge-7b",
                        kind="judge",
                        accuracy=0.75,
                        accuracy_ci=(0.69, 0.81),
                        best=False,
                        not_worse_than_best=True,
                        n=198,
                        cost=512.4,
                    ),
                    JudgeStanding(
                        judge="small-3b",
                        kind="judge",
                        accuracy=0.665,
                        accuracy_ci=(0.60, 0.73),
                        best=False,
                        not_worse_than_best=False,
                        n=198,
                        cost=201.0,
                    ),
                ),
                differences=(
                    JudgeDifference(
                        first="judge-7b",
                        second="small-3b",
                        n=198,
                        difference=0.085,
                        difference_ci=(0.02, 0.15),
                        test="mcnemar mid-p",
                        p_value=0.011,
                        p_holm=0.022,
                    ),
                ),
                cheapest="judge-7b",
            ),
        ),
    }


def comparison(**changes: Any) -> Comparison:
    """One judge, one objective, three disagreements."""
    given: dict[str, Any] = {
        "judge": "judge-7b",
        "labels": "labels.jsonl",
        "human": "human_labels.jsonl",
        "objectives": {"overall": objective()},
        "unmatched_labels": 12,
        "unmatched_humans": 1,
        "examples": tuple(disagreement(n) for n in range(1, 4)),
        "seed": 0,
        "resamples": 1000,
        "rlaif": "0.1.0",
    }
    return Comparison(**{**given, **changes})
