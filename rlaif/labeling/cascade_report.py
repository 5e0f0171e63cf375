"""Add up what a cascade did, for its report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from rlaif.labeling.cascade_results import (
    CascadeReport,
    CascadeStage,
    CascadeTokens,
    Escalated,
    StageObjective,
    Tokens,
)
from rlaif.labeling.cascade_sample import Sample, StageRule, decides, kept, last_alone
from rlaif.labeling.cascade_stages import Stage
from rlaif.labeling.settings import CascadeSettings


class Spent(NamedTuple):
    """Judgments of one stage, objective and status, and their tokens; `extra` are those for the thresholds alone."""

    place: int
    objective: str
    status: str
    judgments: int
    prompt_tokens: int
    completion_tokens: int
    extra: bool = False


def sample_extra(stages: Sequence[Stage], rules: Mapping[str, Sequence[StageRule]], sample: Sample) -> Iterator[Spent]:
    """What the sample was asked beyond what the rules ask of every pair."""
    for objective, mine in rules.items():
        for pair in sample.pairs:
            unit = pair.id, objective
            last = decides(stages, mine, sample, unit)
            for place, asked in enumerate(sample.asked):
                followed = place == len(mine) or mine[place].threshold is not None
                if place > last or not followed:
                    for status, prompt, completion in asked[unit].answers:
                        yield Spent(place, objective, status, 1, prompt, completion, extra=True)


def report_of(
    cascade: CascadeSettings,
    stages: Sequence[Stage],
    objectives: Sequence[str],
    sample: Sample,
    rules: Mapping[str, Sequence[StageRule]],
    escalated: Sequence[Counter[tuple[str, Escalated]]],
    spent: Sequence[Spent],
) -> CascadeReport:
    """Make the report of a run.

    Args:
        escalated: by stage, how many pairs went on, by objective and reason.
        spent: what every stage took, the sample's extra questions included.
    """
    asked = _asked(stages, objectives, rules, escalated, spent)
    shown = []
    for place, stage in enumerate(stages):
        parts = {}
        for name in objectives:
            rule = rules[name][place] if place < len(stages) - 1 else StageRule(None)
            left: dict[Escalated, int] = {
                "unsure": escalated[place][name, "unsure"],
                "inconsistent": escalated[place][name, "inconsistent"],
                "unread": escalated[place][name, "unread"],
            }
            parts[name] = StageObjective(
                threshold=rule.threshold,
                why=rule.why,
                asked=asked[place, name],
                accepted=asked[place, name] - sum(left.values()),
                unsure=left["unsure"],
                inconsistent=left["inconsistent"],
                unread=left["unread"],
                agreement=rule.agreement,
                tokens=_tokens(spent, place=place, objective=name).total,
            )
        shown.append(CascadeStage(name=stage.name, judge=stage.judge.name, objectives=parts))
    measured = cascade.threshold is None
    return CascadeReport(
        stages=tuple(shown),
        tokens=_all_tokens(stages, objectives, sample, asked, spent),
        reference=(cascade.labels or stages[-1].name) if measured else None,
        wanted=cascade.agreement if measured else None,
        sample=len(sample.pairs),
        agreement={name: kept(stages, rules[name], sample, name, by_people=bool(cascade.labels)) for name in objectives}
        if measured
        else {},
        last_stage_agreement={name: last_alone(sample, name) for name in objectives} if cascade.labels else {},
    )


def _asked(
    stages: Sequence[Stage],
    objectives: Sequence[str],
    rules: Mapping[str, Sequence[StageRule]],
    escalated: Sequence[Counter[tuple[str, Escalated]]],
    spent: Sequence[Spent],
) -> dict[tuple[int, str], int]:
    """How many pairs came to each stage under each objective, those asked for the thresholds alone left out."""
    found: dict[tuple[int, str], int] = {}
    for name in objectives:
        for place, stage in enumerate(stages):
            each = stage.planner.requests_per_pair // len(objectives)
            judgments = sum(
                one.judgments for one in spent if (one.place, one.objective, one.extra) == (place, name, False)
            )
            found[place, name] = judgments // each
    return found


def _tokens(spent: Iterable[Spent], *, place: int | None = None, objective: str | None = None) -> Tokens:
    """Tokens of what was spent, all of it or what a stage took under an objective, its extra questions left out."""
    mine = [one for one in spent if place is None or (one.place, one.objective, one.extra) == (place, objective, False)]
    return Tokens(prompt=sum(one.prompt_tokens for one in mine), completion=sum(one.completion_tokens for one in mine))


def _all_tokens(
    stages: Sequence[Stage],
    objectives: Sequence[str],
    sample: Sample,
    asked: Mapping[tuple[int, str], int],
    spent: Sequence[Spent],
) -> CascadeTokens:
    last = len(stages) - 1
    prompt = completion = 0.0
    known = True
    for name in objectives:
        # Every pair comes to the first stage that is asked about the objective.
        pairs = next(asked[place, name] for place in range(len(stages)) if asked[place, name] or place == last)
        if sample.pairs:
            answers = [answer for pair in sample.pairs for answer in sample.asked[last][pair.id, name].answers]
            seen = Tokens(prompt=sum(each[1] for each in answers), completion=sum(each[2] for each in answers))
            units = len(sample.pairs)
        else:
            seen, units = _tokens(spent, place=last, objective=name), asked[last, name]
        known = known and units > 0
        prompt += pairs * seen.prompt / max(units, 1)
        completion += pairs * seen.completion / max(units, 1)
    total = _tokens(spent)
    alone = Tokens(prompt=round(prompt), completion=round(completion)) if known else None
    return CascadeTokens(
        spent=total,
        sample=_tokens(one for one in spent if one.extra),
        last_stage=alone,
        saved=None if alone is None else alone.total - total.total,
    )
