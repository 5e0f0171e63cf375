"""What a comparison of labels with people says: the keys of `rlaif compare --json`, and what the report draws.

A figure that is not defined on the data is `None`, and `not_defined` of the same block says why; none is ever NaN.
All shares are 0 to 1, all intervals 95%.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from rlaif.types import Frozen, Message, Preference, TagValue

Interval = tuple[float, float]
Ties = Literal["count", "half", "drop"]


class Rate(Frozen):
    """A share of `n` cases with Wilson's interval; `value` is `None` where there are none."""

    n: int
    value: float | None
    ci: Interval | None


class LeftOut(Frozen):
    """One annotator, and the judge in their place, against the majority of the other annotators on the same pairs."""

    annotator: Rate
    judge: Rate


class Humans(Frozen):
    """Agreement of people with each other: the ceiling of what a judge can reach.

    `pairwise_kappa` has a key `x|y` for each two annotators with pairs in common, sorted by name. `leave_one_out` is
    the mean over annotators of the accuracy of one against the majority of the others, and `judge_leave_one_out` the
    judge's against the same majorities on the same pairs, so that the two can be compared.
    """

    annotators: int
    labels: int
    pairs: int
    no_majority: int
    pairwise_kappa: Mapping[str, float]
    alpha: float | None
    ac1: float | None
    leave_one_out: float | None
    judge_leave_one_out: float | None
    per_annotator: Mapping[str, LeftOut]


class PositionBias(Frozen):
    """Whether the judge favours a place: `n` pairs judged in both orders, `agreement` of them with equal preference.

    `first_rate` is the share of verdicts, ties aside, for the response shown first. `accuracy` holds, against the
    human majority, `ab`, `ba`, `mean` of both and `both` (right in both orders).
    """

    n: int
    agreement: float | None
    agreement_ci: Interval | None
    first_rate: float | None
    first_rate_ci: Interval | None
    kappa_between_orders: float | None
    accuracy: Mapping[str, float]
    kappa: Mapping[str, float]


class Slope(Frozen):
    """Slope of a logistic regression: change of the log-odds of `a` for one standard deviation more of the feature.

    `reason` says why it is not defined.
    """

    n: int
    value: float | None
    ci: Interval | None
    reason: str | None = None


class LengthBias(Frozen):
    """Whether the longer response is chosen: by the judge and by people, on the pairs of unequal length.

    Length is in characters. `judge_slope` and `human_slope` are those of log(length a / length b); `slope_gap` is their
    difference with an interval by bootstrap over the same pairs. `controlled_agreement` is the accuracy among pairs
    whose lengths differ by at most a tenth.
    """

    n: int
    judge_longer: float | None
    judge_longer_ci: Interval | None
    human_longer: float | None
    human_longer_ci: Interval | None
    judge_slope: Slope
    human_slope: Slope
    slope_gap: float | None
    slope_gap_ci: Interval | None
    controlled_agreement: Rate


class FormatBias(Frozen):
    """Choice of the response that has a feature of form (`lists`, `headings`, `bold`, `code`) where only one has it."""

    feature: str
    judge: Rate
    human: Rate


class SelfPreference(Frozen):
    """Choice of responses of the judge's own model, by the judge and by people, where just one of two is its own."""

    generator: str
    judge: Rate
    human: Rate


class CalibrationBin(Frozen):
    """One equal-mass bin of the reliability picture: mean `p_a`, share of pairs for which people prefer a."""

    n: int
    p_a: float
    human: float
    ci: Interval


class Calibration(Frozen):
    """How far `p_a` is a probability, against people: a counts 1, b 0 and a tie 1/2.

    `temperature` divides the log-odds so that the log-likelihood is best; above 1 the judge is too sure. `ece_after`
    and `brier_after` are measured by cross-validation: each part with the temperature of the others. `reason` says
    why the temperature, or those, are not defined.
    """

    n: int
    ece: float | None
    brier: float | None
    temperature: float | None
    ece_after: float | None
    brier_after: float | None
    bins: tuple[CalibrationBin, ...] = ()
    reason: str | None = None


class AltTestAnnotator(Frozen):
    """The alternative annotator test for one annotator: may the judge stand in for them?

    `judge` and `human` are the shares of instances on which the judge, or this annotator, is at least as close to the
    other annotators.
    """

    n: int
    judge: float
    human: float
    p_value: float | None
    rejected: bool


class AltTest(Frozen):
    """The alternative annotator test (Calderon et al. 2025, The alternative annotator test for LLM-as-a-judge).

    `winning_rate` is the share of annotators whom the judge may replace: at least 0.5 passes.
    `advantage_probability` is the mean chance that the judge is at least as good as an annotator. `left_out` says why
    an annotator was not tested, `reason` why none was.
    """

    epsilon: float
    winning_rate: float | None
    advantage_probability: float | None
    passed: bool | None
    per_annotator: Mapping[str, AltTestAnnotator]
    left_out: Mapping[str, str] = Field(default_factory=dict)
    reason: str | None = None


class WinRate(Frozen):
    """How often people prefer a generator's response (tag `generator_a`/`generator_b`), or side a where unknown.

    `human` uses the labelled pairs alone, `powered` all of the judge's labels corrected by them (prediction-powered
    inference, Angelopoulos et al. 2023). `gain` is how many times as many human labels would give the same width.
    """

    name: str
    labelled: int
    judged: int
    human: float | None
    human_ci: Interval | None
    judge: float | None
    powered: float | None
    powered_ci: Interval | None
    gain: float | None


class TagAgreement(Frozen):
    """Accuracy among the pairs with one value of a tag."""

    tag: str
    value: TagValue
    n: int
    accuracy: float | None
    accuracy_ci: Interval | None


class ObjectiveComparison(Frozen):
    """One judge against people under one objective.

    `n` counts the pairs that both labelled and where people have a majority; `coverage` is the share of the pairs that
    people labelled for which the judge gave a preference: abstentions are shown, never scored.
    `confusion[x][y]` counts the pairs for which people prefer x and the judge y. `krippendorff_alpha` takes the judge
    as one more annotator among the people.
    """

    n: int
    coverage: float | None
    abstained: int
    not_judged: int
    ties: Ties
    accuracy: float | None
    accuracy_ci: Interval | None
    cohen_kappa: float | None
    cohen_kappa_ci: Interval | None
    krippendorff_alpha: float | None
    krippendorff_alpha_ci: Interval | None
    gwet_ac1: float | None
    gwet_ac1_ci: Interval | None
    confusion: Mapping[str, Mapping[str, int]]
    humans: Humans
    position: PositionBias
    length: LengthBias
    format: tuple[FormatBias, ...]
    self_preference: tuple[SelfPreference, ...]
    calibration: Calibration
    alt_test: AltTest
    win_rates: tuple[WinRate, ...]
    by_tag: tuple[TagAgreement, ...]
    disagreements: tuple[str, ...]
    choice_mass: float | None = None
    not_defined: Mapping[str, str] = Field(default_factory=dict)
    warnings: tuple[str, ...] = ()


class JudgeStanding(Frozen):
    """One judge among several under one objective, best first.

    `cost` is mean tokens a pair where the run tells it. `kind` tells an ensemble from a judge. Where no pair was judged
    by all (`n` 0), none is the best.
    """

    judge: str
    kind: Literal["judge", "vote", "mean log-odds"]
    n: int
    accuracy: float | None
    accuracy_ci: Interval | None
    cost: float | None
    best: bool
    not_worse_than_best: bool | None


class JudgeDifference(Frozen):
    """Two judges on the pairs that all judged: the difference of their accuracies, with the paired bootstrap's bounds.

    `p_value` is by the `test` named: McNemar's mid-p value, or, where prompts repeat, McNemar's test with pairs of one
    prompt taken together. It is `None` where no pair tells the two apart. `p_holm` is corrected for all of the tests.
    """

    first: str
    second: str
    n: int
    difference: float | None
    difference_ci: Interval | None
    test: Literal["mcnemar mid-p", "mcnemar by prompt"]
    p_value: float | None
    p_holm: float | None


class JudgeRanking(Frozen):
    """Several judges under one objective; `cheapest` is the cheapest judge that is not significantly worse."""

    objective: str
    standings: tuple[JudgeStanding, ...]
    differences: tuple[JudgeDifference, ...]
    cheapest: str | None
    not_defined: Mapping[str, str] = Field(default_factory=dict)


class Disagreement(Frozen):
    """A pair on which judge and people differ, with what the report shows of it; texts are `None` where not known.

    `rationales` go by the order that they were written in, `ab` or `ba`, and by `""` where that was not recorded.
    """

    id: str
    objective: str
    judge: str
    prompt: tuple[Message, ...] | None
    response_a: str | None
    response_b: str | None
    human: Preference
    votes: Mapping[str, Preference]
    preference: Preference
    p_a: float | None
    rationales: Mapping[str, str]
    tags: Mapping[str, TagValue] = Field(default_factory=dict)


class JudgeComparison(Frozen):
    """One judge's labels against people, by objective.

    `unmatched_labels` counts the pairs that people did not label, `unmatched_humans` those that the judge did not.
    `not_compared` names the objectives that only one side has. `provenance` is what the labels say that they were made
    with, of labels that `rlaif label` wrote.
    """

    judge: str
    labels: str
    objectives: Mapping[str, ObjectiveComparison]
    unmatched_labels: int
    unmatched_humans: int
    not_compared: Mapping[str, str] = Field(default_factory=dict)
    provenance: Mapping[str, str] | None = None


class Comparison(JudgeComparison):
    """All that `rlaif compare` found: of the first judge, of those it is compared with, and how they rank.

    `examples` holds disagreements with their texts, for the report; `--json` leaves it out.
    """

    human: str
    against: tuple[JudgeComparison, ...] = ()
    ranking: tuple[JudgeRanking, ...] = ()
    examples: tuple[Disagreement, ...] = Field(default=(), exclude=True)
    seed: int = 0
    resamples: int = 0
    rlaif: str = ""
