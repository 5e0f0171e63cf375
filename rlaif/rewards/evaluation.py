"""What is found out about reward heads on labelled pairs: the keys of `rlaif evaluate --json`, and what reports draw.

A figure that is not defined on the data is `None`, and `not_defined` of the same block says why; none is ever NaN.
All shares are 0 to 1, all intervals 95%.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from rlaif.agreement.results import Interval, Rate, TagAgreement
from rlaif.types import Frozen, Message, TagValue


class Reliability(Frozen):
    """One equal-mass bin of calibration: mean probability of the response that the head prefers, and how often it is.

    `before` is the same mean at temperature 1. `share` is the mean of the labels, a tie 1/2, with Wilson's interval.
    """

    n: int
    probability: float
    before: float
    share: float
    ci: Interval


class Margin(Frozen):
    """How far the head is on the labels' side, as log-odds: (score of the better - score of the worse) / temperature.

    `counts[i]` counts the pairs from `edges[i]` up to `edges[i + 1]`; the outer bins hold all that lies beyond, too. 0
    is always an edge: what lies below it is wrong.
    """

    mean: float
    median: float
    edges: tuple[float, ...]
    counts: tuple[int, ...]


class Certainty(Frozen):
    """Accuracy among the pairs whose label is between `low` and `high` sure of its side; 0.5 is a tie."""

    low: float
    high: float
    n: int
    accuracy: float
    accuracy_ci: Interval | None


class FormPreference(Frozen):
    """Choice of the response with a feature of form (`lists`, `headings`, `bold`, `code`) where only one has it."""

    feature: str
    heads: Rate
    labels: Rate


class EnsembleEvaluation(Frozen):
    """Whether the members' disagreement tells where the head is wrong.

    `deviation` is the median over pairs of the members' standard deviation of the score difference, in log-odds;
    `split` the share of pairs on which at least one member prefers another response than the mean does.
    `agreeing` is the accuracy on the half of the pairs with the smaller deviation, `differing` on the other half.
    """

    members: int
    deviation: float
    split: float
    agreeing: Rate
    differing: Rate


class ObjectiveEvaluation(Frozen):
    """One head against the labels of its objective.

    `n` counts the pairs with a label for one side; the `ties` are apart, they count in the calibration alone. Equal
    scores are half right. Every label counts once, whatever weight it was trained with. `pairs` and `ties` together
    are `labelled`.

    Calibration is of P(a) = sigmoid(score difference / `temperature`), with the temperature that the checkpoint has,
    and seen from the response that the head prefers, so that exchanging a and b changes nothing. `ece` is the expected
    calibration error, `ece_by_chance` what so many pairs would give if every probability were exact, about;
    `ece_uncalibrated` that of temperature 1. `temperature_here` is what these pairs ask for, `ece_refitted` the error
    with it, cross-validated. `brier` is the mean squared error, 0.25 knows nothing; `log_loss` the cross-entropy, in
    nats, log 2 = 0.693 knows nothing.

    Length is in characters. `length_slope` is the change of the log-odds of P(a) for one standard deviation more of
    log(length a / length b), `label_length_slope` that of the labels, `length_slope_gap` their difference: both are of
    probabilities, so that a calibrated head that goes by length as the labels do has a gap of 0. `length_only_rule` is
    `longer` or `shorter`, whichever agrees with more of these labels, `length_only_accuracy` its accuracy, and
    `over_length` the head's beyond it. `equal_length` is the accuracy on pairs whose lengths differ by a tenth at most.
    """

    n: int
    ties: int
    accuracy: float | None
    accuracy_ci: Interval | None
    ece: float | None
    ece_by_chance: float | None
    ece_uncalibrated: float | None
    ece_refitted: float | None
    brier: float | None
    log_loss: float | None
    temperature: float
    temperature_here: float | None
    bins: tuple[Reliability, ...] = ()
    margin: Margin | None
    length_slope: float | None
    length_slope_ci: Interval | None
    label_length_slope: float | None
    label_length_slope_ci: Interval | None
    length_slope_gap: float | None
    length_slope_gap_ci: Interval | None
    length_only_rule: str | None
    length_only_accuracy: float | None
    length_only_accuracy_ci: Interval | None
    over_length: float | None
    over_length_ci: Interval | None
    longer: Rate
    label_longer: Rate
    equal_length: Rate
    by_tag: tuple[TagAgreement, ...] = ()
    by_certainty: tuple[Certainty, ...] = ()
    form: tuple[FormPreference, ...] = ()
    ensemble: EnsembleEvaluation | None = None
    not_defined: Mapping[str, str] = Field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def labelled(self) -> int:
        """Pairs with a label, ties and all."""
        return self.n + self.ties

    @property
    def leans_to(self) -> str | None:
        """`longer` or `shorter`, where the head goes by length further than the labels do, beyond chance.

        A head that goes by length less than its labels only knows less.
        """
        gap, own, theirs = self.length_slope_gap_ci, self.length_slope, self.label_length_slope
        if gap is None or own is None or theirs is None or gap[0] <= 0 <= gap[1] or abs(own) <= abs(theirs):
            return None
        return "longer" if own > 0 else "shorter"


class AggregateAgreement(Frozen):
    """The aggregate reward against the labels of one objective, or against labels of which is better `overall`."""

    n: int
    ties: int
    accuracy: float | None
    accuracy_ci: Interval | None


class Conflict(Frozen):
    """Two objectives that prefer different responses of a pair.

    Of `pairs` the `heads` count those on which the two heads do. Of the `labelled` ones, which have a label for one
    side under both, `labels` counts those on which the labels do, `heads_there` those on which the heads do, `both`
    those on which both do.
    """

    first: str
    second: str
    pairs: int
    heads: int
    labelled: int
    labels: int
    heads_there: int
    both: int


class EvaluatedSource(Frozen):
    """A file of labels that was evaluated on."""

    name: str
    kind: str
    pairs: int
    labels: int


class Evaluation(Frozen):
    """All that was found on labelled pairs, by objective, in the order of the heads.

    `conversations` counts prompts: pairs with the same one are drawn together in every bootstrap. `not_scored` names
    objectives of the labels without a head. `aggregate` is empty where no aggregate reward was given.
    """

    heads: str = ""
    pairs: int
    conversations: int
    objectives: Mapping[str, ObjectiveEvaluation]
    conflicts: tuple[Conflict, ...] = ()
    aggregate: Mapping[str, AggregateAgreement] = Field(default_factory=dict)
    not_scored: tuple[str, ...] = ()
    sources: tuple[EvaluatedSource, ...] = ()
    resamples: int = 0
    seed: int = 0
    rlaif: str = ""


class ScoredPair(Frozen):
    """A pair to read, with what the labels and the heads say of it under one objective.

    `target` and `p_a` are the probabilities that a is better, by the label and by the calibrated head; `rewards` are
    those of a and b by objective.
    """

    id: str
    objective: str
    right: bool
    target: float
    p_a: float
    rewards: Mapping[str, tuple[float, float]]
    prompt: tuple[Message, ...]
    response_a: str
    response_b: str
    tags: Mapping[str, TagValue] = Field(default_factory=dict)


class TrainingPoint(Frozen):
    """What was measured at one step of training: the losses by objective, in nats; what was not measured is left out.

    `conflicts` counts pairs of objectives whose gradients pointed against each other since the point before.
    """

    step: int
    loss: Mapping[str, float] = Field(default_factory=dict)
    held_out: Mapping[str, float] = Field(default_factory=dict)
    learning_rate: float | None = None
    conflicts: int | None = None


class Change(Frozen):
    """Accuracy of two checkpoints on the same pairs, as before and after a tuning, and their paired difference."""

    data: str
    objective: str
    n: int
    before: float
    after: float
    difference: float
    difference_ci: Interval | None


def training_points(history: Sequence[Mapping[str, float]]) -> tuple[TrainingPoint, ...]:
    """The log of a training as the report draws it: one point a step."""
    found: dict[int, dict[str, Any]] = {}
    for entry in history:
        point = found.setdefault(int(entry["step"]), {"loss": {}, "held_out": {}})
        for name, value in entry.items():
            kind, _, objective = name.partition("/")
            if objective and kind in ("loss", "eval_loss"):
                point["loss" if kind == "loss" else "held_out"][objective] = value
    return tuple(TrainingPoint(step=step, **point) for step, point in sorted(found.items()))
