"""The sample of a cascade: which pairs are asked in every stage, and the thresholds that follow."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rlaif.data.pairs import Reject
from rlaif.labeling.cascade_results import Agreement, agreement
from rlaif.labeling.cascade_stages import Stage
from rlaif.labeling.cascade_threshold import THRESHOLDS, Case, choose_threshold, fewest, lower_bound
from rlaif.labeling.verdicts import read_answer
from rlaif.store import Ledger
from rlaif.types import Completion, JudgeRequest, ObjectiveLabel, Pair, Preference, Reading, Status, Verdict

# A pair and an objective.
Unit = tuple[str, str]


@dataclass(frozen=True)
class Asked:
    """What one stage says of one pair and objective, and the status and tokens of each answer."""

    label: ObjectiveLabel
    answers: tuple[tuple[Status, int, int], ...]


@dataclass(frozen=True)
class StageRule:
    """From which confidence a stage is believed on one objective; without a `threshold` never, and `why` says so.

    `agreement` is of the verdicts of the sample that it accepts.
    """

    threshold: float | None
    why: str | None = None
    agreement: Agreement | None = None

    def accepts(self, confidence: float | None) -> bool:
        """Whether a verdict of this confidence decides."""
        return confidence is not None and self.threshold is not None and confidence >= self.threshold


@dataclass(frozen=True)
class Sample:
    """Pairs in the order they were drawn, what every stage says of them (by stage), and what the reference prefers."""

    pairs: Sequence[Pair] = ()
    asked: Sequence[Mapping[Unit, Asked]] = ()
    references: Mapping[Unit, Preference] = field(default_factory=dict)


def draw_pairs(
    rows: Iterable[tuple[int, Pair] | Reject], count: int, seed: int, only: Container[str] | None = None
) -> list[Pair]:
    """Draw pairs at random, each as likely as any other; the same pairs for the same ids and seed.

    The pairs whose keyed digests are lowest, which holds no more than `count` of them at a time.

    Args:
        only: ids to draw from, if not all.
    """
    lowest: list[tuple[int, int, Pair]] = []
    for place, row in enumerate(rows):
        if isinstance(row, Reject) or (only is not None and row[1].id not in only):
            continue
        digest = hashlib.sha256(f"{seed}\x00cascade\x00{row[1].id}".encode()).digest()
        drawn = (-int.from_bytes(digest[:16]), place, row[1])
        if len(lowest) < count:
            heapq.heappush(lowest, drawn)
        elif drawn[0] > lowest[0][0]:
            heapq.heapreplace(lowest, drawn)
    return [pair for _, _, pair in sorted(lowest, key=lambda drawn: drawn[:2], reverse=True)]


def read_sample(ledger: Ledger, stage: Stage, pairs: Iterable[Pair]) -> dict[Unit, Asked]:
    """Read what a stage answered about each pair and objective of the sample."""
    found: dict[Unit, Asked] = {}
    for pair in pairs:
        answered: dict[str, list[tuple[Verdict, Completion]]] = {}
        for request in stage.planner.requests(pair):
            completion = ledger.get(request.key)
            assert completion is not None, "asked before it is read"
            verdict = _verdict(request, completion, read_answer(stage.template.head, completion))
            answered.setdefault(request.objective, []).append((verdict, completion))
        for objective, mine in answered.items():
            usages = [
                (verdict.status, done.usage.prompt_tokens, done.usage.completion_tokens) for verdict, done in mine
            ]
            found[pair.id, objective] = Asked(stage.fold([verdict for verdict, _ in mine]), tuple(usages))
    return found


def _verdict(request: JudgeRequest, completion: Completion, reading: Reading) -> Verdict:
    p_first = reading.p_first
    hard = {completion.hard_choice: 0.0} if completion.hard_choice else {}
    return Verdict(
        objective=request.objective,
        order=request.order,
        sample=request.sample,
        status=reading.status,
        p_a=p_first if p_first is None or request.order == "ab" else 1.0 - p_first,
        choice_mass=reading.choice_mass,
        reason=reading.reason,
        principle=request.principle,
        rating=reading.rating,
        rating_logprobs=(completion.choice_logprobs or hard) if reading.rating is not None else {},
    )


def preferences(asked: Mapping[Unit, Asked]) -> dict[Unit, Preference]:
    """What a stage prefers, where it prefers a response: a tie is nothing to agree with."""
    labels = {unit: each.label.preference for unit, each in asked.items()}
    return {unit: preference for unit, preference in labels.items() if preference in ("a", "b")}


def set_rules(stages: Sequence[Stage], sample: Sample, objective: str, wanted: float) -> list[StageRule]:
    """Set the threshold of every stage but the last for one objective.

    Each stage has a part of the sample to itself, every n-th pair of it: which pairs come to a stage depends on the
    thresholds before it, and chosen on the same pairs they would make its own too easy or too hard to pass.

    By objective, and never pooled: agreement differs between objectives, and a pooled one hides the objective on which
    the cheap stage fails. One with too few pairs to show it is left to the last stage, and `why` says so.
    """
    rules: list[StageRule] = []
    parts = len(stages) - 1
    for place, stage in enumerate(stages[:-1]):
        cases = []
        for pair in sample.pairs[place::parts]:
            unit = pair.id, objective
            reference = sample.references.get(unit)
            if reference is not None and decides(stages, rules, sample, unit) == place:
                label = sample.asked[place][unit].label
                cases.append(Case(stage.confidence(label), label.preference == reference))
        threshold = choose_threshold(cases, wanted)
        if threshold is None:
            rules.append(StageRule(None, _why_none(cases, wanted)))
        else:
            accepted = [case.agrees for case in cases if case.confidence is not None and case.confidence >= threshold]
            measured = agreement(sum(accepted), len(accepted), len(THRESHOLDS))
            rules.append(StageRule(threshold, agreement=measured))
    return rules


def decides(stages: Sequence[Stage], rules: Sequence[StageRule], sample: Sample, unit: Unit) -> int:
    """The place of the stage that decides a pair of the sample under these rules; the first without a rule if none."""
    for place, rule in enumerate(rules):
        if rule.accepts(stages[place].confidence(sample.asked[place][unit].label)):
            return place
    return len(rules)


def kept(
    stages: Sequence[Stage], rules: Sequence[StageRule], sample: Sample, objective: str, *, by_people: bool
) -> Agreement:
    """Agreement of the cascade's labels with the reference on the sample; a tie agrees with neither response.

    Args:
        by_people: the reference is people's labels. Else it is the last stage, with which its own labels agree.
    """
    units = [(pair.id, objective) for pair in sample.pairs if (pair.id, objective) in sample.references]
    if not by_people and all(rule.threshold is None for rule in rules):
        return Agreement(n=len(units), agreed=len(units), share=1.0 if units else None, ci=(1.0, 1.0))
    labels = [sample.asked[decides(stages, rules, sample, unit)][unit].label.preference for unit in units]
    agreed = sum(label == sample.references[unit] for label, unit in zip(labels, units, strict=True))
    # Every combination of thresholds could have been chosen, and none at all for a stage.
    return agreement(agreed, len(units), (len(THRESHOLDS) + 1) ** (len(stages) - 1))


def last_alone(sample: Sample, objective: str) -> Agreement:
    """Agreement of the last stage with the reference on the sample."""
    units = [(pair.id, objective) for pair in sample.pairs if (pair.id, objective) in sample.references]
    agreed = sum(sample.asked[-1][unit].label.preference == sample.references[unit] for unit in units)
    return agreement(agreed, len(units), 1)


def _why_none(cases: Sequence[Case], wanted: float) -> str:
    able = [case for case in cases if case.confidence is not None]
    least = fewest(wanted)
    if len(able) < least:
        return (
            f"{len(able)} verdicts of the sample could be accepted, and {least} that all agree are the fewest that "
            f"show {wanted:.4g}; a larger --cascade-sample helps"
        )
    for threshold in THRESHOLDS:
        accepted = [case.agrees for case in able if case.confidence is not None and case.confidence >= threshold]
        if len(accepted) >= least:
            bound = lower_bound(sum(accepted), len(accepted))
            return (
                f"its {len(accepted)} most confident verdicts agree {sum(accepted)} times, which shows "
                f"{bound:.1%} and not {wanted:.4g}"
            )
    raise AssertionError("the last threshold accepts all that can be accepted")
