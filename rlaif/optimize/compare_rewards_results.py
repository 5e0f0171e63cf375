"""What a comparison of reward models says: the keys of `rlaif reward compare --json`, and what its report draws.

A figure that is not defined on the data is `None`, and `not_defined` of the same block says why; none is ever NaN.
Shares are 0 to 1, intervals 95%. Margins are rewards of the first response of a pair less those of the second.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from rlaif.agreement.results import Interval, Rate
from rlaif.types import Frozen, Message, TagValue

REWARD = "reward"
"""How the aggregate is named beside objectives."""


class Measure(Frozen):
    """A figure with its interval; either is `None` where it is not defined."""

    value: float | None
    ci: Interval | None = None


class WithinRows(Frozen):
    """Mean rank correlations among the responses of a row, over `rows` rows with more than two responses."""

    rows: int
    kendall: Measure
    spearman: Measure


class Probabilities(Frozen):
    """How far the calibrated probabilities of two heads differ: P(the first response is better), by temperature.

    `difference` is the mean absolute one; `first_sure` and `second_sure` are the mean distance from one half, doubled:
    0 never takes a side, 1 is certain; `contradicted` is the share of pairs of which one says 0.7 or more and the other
    0.3 or less.
    """

    difference: Measure
    first_sure: float
    second_sure: float
    contradicted: float


class Group(Frozen):
    """Pairs of one kind: how many, and the share on which both prefer the same response."""

    label: str
    n: int
    same: Measure


class TagGroup(Frozen):
    """The pairs with one value of a tag."""

    tag: str
    value: TagValue
    n: int
    same: Measure


class Labelled(Frozen):
    """Two rewards against people's majority: `first` and `second` are shares right of `n` labelled pairs.

    `difference` is first less second. Of the `parting` pairs on which they prefer different responses `first_right` is
    the share on which the first one agrees with people; `p_value` is McNemar's (mid-p), two-sided, each pair by itself.
    """

    n: int
    first: Measure
    second: Measure
    difference: Measure
    parting: int
    first_right: Measure
    p_value: float | None


class PartedPair(Frozen):
    """A pair on which two rewards prefer different responses; `clearness` is the smaller of the margins by their size.

    `responses` are the names of the first and the second one in their row, `people` the one that people prefer.
    """

    id: str
    responses: tuple[str | int, str | int]
    first_margin: float
    second_margin: float
    clearness: float
    people: str | int | None = None


class Agreement(Frozen):
    """How two reward models agree under one objective, or in the aggregate.

    `n` pairs of responses (of `prompts` prompts), of which at least one model prefers one; on `same` both prefer the
    same, a model without a preference counts half. `same_clear` is of the half of pairs that both prefer most clearly.
    `kendall`, `spearman` and `pearson` are correlations of margins, `within_rows` of longer rows. `first_longer` is,
    where they part and lengths differ, the share on which the first takes the longer response.
    """

    n: int
    prompts: int
    same: Measure
    clear: int
    same_clear: Measure
    kendall: Measure
    spearman: Measure
    pearson: Measure
    within_rows: WithinRows | None
    probabilities: Probabilities | None
    parting: int
    first_longer: Rate | None
    by_length: tuple[Group, ...]
    by_tag: tuple[TagGroup, ...]
    labels: Labelled | None
    parted: tuple[PartedPair, ...]
    not_defined: Mapping[str, str] = Field(default_factory=dict)


class ComparedPair(Frozen):
    """Two of the models: by objective that both have, and in the aggregate."""

    first: str
    second: str
    objectives: Mapping[str, Agreement]
    reward: Agreement


class ComparedModel(Frozen):
    """One of the models: `kind` is `heads` or `scores` (a file of `rlaif score`)."""

    name: str
    kind: Literal["heads", "scores"]
    objectives: tuple[str, ...]
    mean: Mapping[str, float]
    std: Mapping[str, float]


class Shift(Frozen):
    """How a reward moved from the reference to the new data: `change` is new mean less reference mean."""

    reference_mean: float
    reference_std: float
    new_mean: float
    new_std: float
    change: Measure


class FarExample(Frozen):
    """A new response that lies far from the reference.

    `distance` is the mean to its nearest examples there, by the median of the reference's own; `rank` the share of the
    reference that lies as far out.
    """

    id: str
    response: str | int
    distance: float
    rank: float


class TagDrift(Frozen):
    """Energy distance of the new responses with one value of a tag.

    From the reference's responses with the same one (`same_tag`), or from all where these are too few. `p_value` is
    Holm's, for all values together.
    """

    tag: str
    value: TagValue
    n: int
    reference: int
    same_tag: bool
    energy: float
    by_chance: float
    p_value: float


class Drift(Frozen):
    """Whether new data are unlike a reference, by the features of one backbone and the rewards on it.

    `energy` is the energy distance, 0 to 1, of `new` responses from `reference` ones, one a prompt; `by_chance` is its
    mean where both are one, by permutations, and `p_value` how often these give as much. `outside` is the share of new
    responses that lie farther out than 95% of the reference. `matched` counts prompts that are in both.
    """

    models: tuple[str, ...]
    source: str
    reference: int
    new: int
    matched: int
    width: int
    energy: float
    statistic: float
    by_chance: float
    p_value: float
    permutations: int
    outside: Rate
    rewards: Mapping[str, Mapping[str, Shift]]
    by_tag: tuple[TagDrift, ...]
    farthest: tuple[FarExample, ...]
    conclusion: str


class RewardComparison(Frozen):
    """All of a comparison. `left_out` counts responses that not every model scored."""

    models: tuple[ComparedModel, ...]
    data: str | None
    labels: str | None
    rows: int
    responses: int
    pairs: int
    left_out: int
    rejected: int
    compared: tuple[ComparedPair, ...]
    drift: tuple[Drift, ...]
    conclusion: str
    resamples: int
    seed: int
    notes: tuple[str, ...]
    rlaif: str


class PartedTexts(Frozen):
    """A parted pair to read."""

    pair: PartedPair
    first: str
    second: str
    objective: str
    prompt: tuple[Message, ...]
    texts: tuple[str, str]
    tags: Mapping[str, TagValue]
