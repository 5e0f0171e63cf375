"""Which pairs a cascade's sample holds, and how three stages share it."""

from __future__ import annotations

from collections import Counter
from typing import Any, cast

import pytest

from rlaif.data.pairs import Reject
from rlaif.engines.base import ModelIdentity
from rlaif.labeling.cascade_sample import Asked, Sample, StageRule, decides, draw_pairs, kept, last_alone, set_rules
from rlaif.labeling.cascade_stages import Stage, split_stage
from rlaif.labeling.labels import preference
from rlaif.labeling.settings import EngineSettings
from rlaif.prompts import load_template
from rlaif.types import Message, ObjectiveLabel, Pair, Preference

# (p_a, order gap) of each stage.
Said = tuple[float, float]


def pairs(count: int) -> list[Pair]:
    prompt = (Message(role="user", content="Hello"),)
    return [Pair(id=f"p{n}", prompt=prompt, response_a="Hi.", response_b="No.") for n in range(count)]


def stages(count: int) -> list[Stage]:
    """Stages that are never asked: what they say is given."""
    template, judge = load_template("direct"), ModelIdentity(name="judge", digest="0")
    return [Stage(f"stage-{n}", template, judge, "server", EngineSettings(), cast("Any", None)) for n in range(count)]


def said(p_a: float, gap: float) -> Asked:
    label = ObjectiveLabel(p_a=p_a, preference=preference(p_a), order_gap=gap, verdicts=2, abstained=0)
    return Asked(label, ())


def sample(*by_stage: list[Said]) -> Sample:
    """A sample of which each stage says what is given, with response a as the reference's preference throughout."""
    drawn = pairs(len(by_stage[0]))
    asked = [{(pair.id, "tone"): said(*each) for pair, each in zip(drawn, given, strict=True)} for given in by_stage]
    references: dict[tuple[str, str], Preference] = {(pair.id, "tone"): "a" for pair in drawn}
    return Sample(drawn, asked, references)


def test_every_pair_is_as_likely_to_be_drawn() -> None:
    rows: list[tuple[int, Pair] | Reject] = [(n, pair) for n, pair in enumerate(pairs(30))]
    rows.insert(4, Reject(99, "broken", {}))
    drawn = Counter(pair.id for seed in range(400) for pair in draw_pairs(rows, 9, seed))
    assert drawn.total() == 400 * 9
    # 120 each, with a standard deviation of 9.2: none of thirty is four of them away.
    assert all(83 < drawn[f"p{n}"] < 157 for n in range(30))


def test_a_sample_depends_on_ids_and_seed_alone() -> None:
    rows: list[tuple[int, Pair] | Reject] = [(n, pair) for n, pair in enumerate(pairs(30))]
    drawn = [pair.id for pair in draw_pairs(rows, 9, 3)]
    assert [pair.id for pair in draw_pairs(reversed(rows), 9, 3)] == drawn
    assert [pair.id for pair in draw_pairs(rows, 5, 3)] == drawn[:5]
    assert [pair.id for pair in draw_pairs(rows, 9, 4)] != drawn
    assert sorted(pair.id for pair in draw_pairs(rows, 9, 3, only={"p1", "p7", "nobody"})) == ["p1", "p7"]
    assert len(draw_pairs(rows, 99, 3)) == 30


def test_what_a_stage_says_is_believed_from_its_threshold_on() -> None:
    (stage,) = stages(1)
    rule = StageRule(0.6)
    found = {
        (0.8, 0.1): True,
        (0.2, 0.1): True,
        (0.6, 0.1): True,
        (0.59, 0.0): False,  # unsure
        (0.65, 0.6): False,  # 0.95 and 0.35: the orders disagree
        (0.5, 0.0): False,  # a tie
    }
    for each, accepted in found.items():
        assert rule.accepts(stage.confidence(said(*each).label)) is accepted
    unread = ObjectiveLabel(p_a=0.9, preference="a", order_gap=None, verdicts=1, abstained=1)
    assert stage.confidence(unread) is None
    assert not StageRule(None).accepts(1.0)


def test_each_stage_has_a_part_of_the_sample_to_itself() -> None:
    cascade = stages(3)
    # 120 pairs, 60 for each threshold. The first stage is sure and right of two in three; the second of all.
    first: list[Said] = [(0.97, 0.0) if n % 3 else (0.4, 0.0) for n in range(120)]
    second: list[Said] = [(0.9, 0.0)] * 120
    last: list[Said] = [(0.9, 0.0)] * 120
    rules = set_rules(cascade, sample(first, second, last), "tone", 0.8)
    # Even pairs set the first threshold: 40 are right, then 20 that lean to b (0.6 sure) are wrong.
    assert rules[0].threshold == 0.65
    assert rules[0].agreement is not None
    assert (rules[0].agreement.agreed, rules[0].agreement.n) == (40, 40)
    # Odd pairs that the first stage passes on set the second: 20 of 60, all right.
    assert rules[1].threshold == 0.5
    assert rules[1].agreement is not None
    assert (rules[1].agreement.agreed, rules[1].agreement.n) == (20, 20)
    # What the first stage says of odd pairs is nothing to its threshold, where it goes wrong as well.
    wrong = [(0.03, 0.0) if n % 2 else each for n, each in enumerate(first)]
    assert set_rules(cascade, sample(wrong, second, last), "tone", 0.8)[0] == rules[0]
    whole = sample(first, second, last)
    assert [decides(cascade, rules, whole, (f"p{n}", "tone")) for n in (0, 1, 2, 3)] == [1, 0, 0, 1]
    assert kept(cascade, rules, whole, "tone", by_people=False).agreed == 120


def test_a_stage_that_cannot_be_trusted_says_why() -> None:
    cascade = stages(2)
    few = set_rules(cascade, sample([(0.9, 0.0)] * 20, [(0.9, 0.0)] * 20), "tone", 0.9)
    assert few[0].threshold is None
    assert few[0].why is not None
    assert few[0].why.startswith("20 verdicts of the sample could be accepted, and 29 that all agree are the fewest")
    bad = set_rules(cascade, sample([(0.9, 0.0)] * 25 + [(0.1, 0.0)] * 15, [(0.9, 0.0)] * 40), "tone", 0.9)
    assert bad[0].why is not None
    assert bad[0].why.startswith("its 40 most confident verdicts agree 25 times")


def test_people_are_agreed_with_or_not_by_whatever_decided() -> None:
    cascade = stages(2)
    # The first stage decides the first three, one of them wrongly; the last stage decides two, and is right of one.
    first: list[Said] = [(0.9, 0.0), (0.9, 0.0), (0.1, 0.0), (0.55, 0.4), (0.6, 0.0)]
    last: list[Said] = [(0.9, 0.0), (0.1, 0.0), (0.9, 0.0), (0.7, 0.0), (0.5, 0.0)]
    found = sample(first, last)
    rules = [StageRule(0.8)]
    assert kept(cascade, rules, found, "tone", by_people=True).agreed == 3
    assert last_alone(found, "tone").agreed == 3
    # A stage that decides nothing leaves the last one's labels, which agree with themselves by nature.
    none = kept(cascade, [StageRule(None)], found, "tone", by_people=False)
    assert (none.agreed, none.n, none.ci) == (5, 5, (1.0, 1.0))


@pytest.mark.parametrize(
    ("given", "server", "expected"),
    [
        ("direct", False, ("direct", None)),
        ("direct@starter", False, ("direct", "starter")),
        ("pairwise-cot@http://host:8000", False, ("pairwise-cot", "http://host:8000")),
        ("direct@owner/name", False, ("direct", "owner/name")),
        ("owner/name", False, (None, "owner/name")),
        ("starter", False, (None, "starter")),
        ("https://host", False, (None, "https://host")),
        ("any-name", True, (None, "any-name")),
        ("mine.j2", False, ("mine.j2", None)),
    ],
)
def test_a_stage_is_a_template_a_judge_or_both(
    given: str, server: bool, expected: tuple[str | None, str | None]
) -> None:
    assert split_stage(given, server=server) == expected
