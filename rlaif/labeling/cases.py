"""What a judge makes of a constitution's cases: of each, does it find the better response better? Pure.

A case is asked under its objective's question with its own principle alone, so that a failure is about that principle:
its words, its case, or the judge.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Literal

from rlaif.constitution import Case, Constitution, Objective, Principle
from rlaif.labeling.labels import fold_objective, fold_ratings
from rlaif.stats import wilson
from rlaif.types import Frozen, Message, Order, Pair, Status, Verdict

Result = Literal["pass", "fail", "unread"]
# The last digits of a mean depend on its order; an even verdict is not to pass by one of them.
_ROUNDING = 1e-9


class Showing(Frozen):
    """One answer of the judge: with the better response in either place, or a rating of one response on its own.

    `p_better` is `None` unless a comparison was read, `rating` unless a rating was; `reason` then says why.
    """

    shown: Literal["better first", "better second", "better alone", "worse alone"]
    status: Status
    p_better: float | None
    rating: float | None
    choice_mass: float | None
    rationale: str
    reason: str | None

    @property
    def read(self) -> bool:
        """Whether the judge's answer was read."""
        return self.p_better is not None or self.rating is not None


class CaseResult(Frozen):
    """One case and what the judge said of it.

    `p_better` is the mean over the places, or the probability that the better response is rated higher. A case of
    which any answer was not read has none, and is `unread`. A rating has no place, and so no `order_gap`.
    `by_place` marks a case that the judge decided by place: the better response wins in one place alone.
    `p_better_with_all` is `p_better` with all principles of the objective shown, where that was asked.
    """

    id: str
    objective: str
    principle: str
    case: int
    text: str
    prompt: str
    better: str
    worse: str
    result: Result
    by_place: bool
    p_better: float | None
    order_gap: float | None
    p_better_with_all: float | None
    showings: tuple[Showing, ...]


class Rate(Frozen):
    """How many cases pass, with the share's 95% interval (Wilson).

    A case that was not read counts as one that did not pass. `position` marks judging by place: at least half of the
    cases that were read.
    """

    cases: int
    passed: int
    failed: int
    unread: int
    by_place: int
    share: float
    interval: tuple[float, float]
    position: bool
    mean_p_better: float | None
    mean_order_gap: float | None


class ConstitutionReport(Frozen):
    """The cases of one constitution; `objectives` and `principles` hold a rate for each that has cases."""

    place: str
    name: str
    version: str
    digest: str
    cases: tuple[CaseResult, ...]
    objectives: dict[str, Rate]
    principles: dict[str, Rate]
    total: Rate
    without_cases: tuple[str, ...]


class CasesReport(Frozen):
    """The cases of one or more constitutions, and what asking them took."""

    judge: str
    template: str
    orders: Literal["both", "ab"]
    threshold: float
    constitutions: tuple[ConstitutionReport, ...]
    total: Rate
    mean_choice_mass: float | None
    asked: int
    reused: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float

    @property
    def cases(self) -> tuple[CaseResult, ...]:
        """Every case, in the order of the files."""
        return tuple(case for each in self.constitutions for case in each.cases)


@dataclass(frozen=True)
class ChosenCase:
    """A case that is to be asked; `place` is the constitution's file or name, as it was given."""

    place: str
    constitution: Constitution
    objective: str
    principle: Principle
    number: int
    case: Case

    @property
    def id(self) -> str:
        """`FILE::objective::principle::case-1`."""
        return f"{self.place}::{self.objective}::{self.principle.id}::case-{self.number}"

    @cached_property
    def pair(self) -> Pair:
        """The responses as a and b. Which is which follows from the texts alone, whichever is called better."""
        low, high = sorted((self.case.better, self.case.worse))
        pair = Pair(
            id=self.id,
            prompt=(Message(role="user", content=self.case.prompt),),
            response_a=low,
            response_b=high,
        )
        return pair.swap() if int(pair.nonce, 16) % 2 else pair

    @property
    def alone(self) -> Constitution:
        """The constitution with this principle alone, also where it is turned off."""
        rule = self.principle.model_copy(update={"weight": 1.0})
        question = self.constitution.objectives[self.objective].question
        return Constitution(
            name=self.constitution.name, objectives={self.objective: Objective(question=question, principles=(rule,))}
        )

    @property
    def better_is_a(self) -> bool:
        """Whether the better response is the pair's response a."""
        return self.pair.response_a == self.case.better

    def p_better(self, p_a: float | None) -> float | None:
        """Probability that the better response is better, of the probability that response a is."""
        return p_a if p_a is None or self.better_is_a else 1 - p_a

    def showing(self, verdict: Verdict, rationale: str, *, rated: bool) -> Showing:
        """What one verdict, or rating, says of the better response."""
        leads = (verdict.order == "ab") == self.better_is_a
        places: tuple[Literal["better alone", "better first"], Literal["worse alone", "better second"]]
        places = ("better alone", "worse alone") if rated else ("better first", "better second")
        return Showing(
            shown=places[0] if leads else places[1],
            status=verdict.status,
            p_better=self.p_better(verdict.p_a),
            rating=verdict.rating,
            choice_mass=verdict.choice_mass,
            rationale=rationale,
            reason=verdict.reason,
        )


def choose_cases(
    place: str, constitution: Constitution, objectives: Sequence[str] = (), principles: Sequence[str] = ()
) -> list[ChosenCase]:
    """List the cases to ask; of a principle that is turned off only where it is named."""
    return [
        ChosenCase(place, constitution, name, rule, number, case)
        for name, objective in constitution.objectives.items()
        if not objectives or name in objectives
        for rule in objective.principles
        if (rule.id in principles if principles else rule.weight > 0)
        for number, case in enumerate(rule.cases, 1)
    ]


def grade(
    chosen: ChosenCase,
    verdicts: Sequence[Verdict],
    rationales: Mapping[Order, str],
    *,
    threshold: float = 0.5,
    with_all: Sequence[Verdict] = (),
    rated: bool = False,
) -> CaseResult:
    """Grade one case: it passes where the mean of `p_better` is above the threshold.

    0.9 with the better response first and 0.4 with it second: a mean of 0.65 and a gap of 0.5, decided by place.
    """
    fold = fold_ratings if rated else fold_objective
    alone, in_context = fold(verdicts), fold(with_all)
    mean = None if alone.abstained else chosen.p_better(alone.p_a)
    showings = [chosen.showing(each, rationales.get(each.order, ""), rated=rated) for each in verdicts]
    sides = {showing.p_better > 0.5 for showing in showings if showing.p_better is not None}
    return CaseResult(
        id=chosen.id,
        objective=chosen.objective,
        principle=chosen.principle.id,
        case=chosen.number,
        text=chosen.principle.text,
        prompt=chosen.case.prompt,
        better=chosen.case.better,
        worse=chosen.case.worse,
        result="unread" if mean is None else "pass" if mean - threshold > _ROUNDING else "fail",
        by_place=len(sides) == 2,
        p_better=mean,
        order_gap=alone.order_gap,
        p_better_with_all=None if in_context.abstained else chosen.p_better(in_context.p_a),
        showings=tuple(sorted(showings, key=lambda showing: showing.shown)),
    )


def rate(results: Iterable[CaseResult]) -> Rate:
    """Count what passed; at least one result."""
    cases = list(results)
    counts = {name: sum(case.result == name for case in cases) for name in ("pass", "fail", "unread")}
    by_place = sum(case.by_place for case in cases)
    means = [case.p_better for case in cases if case.p_better is not None]
    gaps = [case.order_gap for case in cases if case.order_gap is not None]
    return Rate(
        cases=len(cases),
        passed=counts["pass"],
        failed=counts["fail"],
        unread=counts["unread"],
        by_place=by_place,
        share=counts["pass"] / len(cases),
        interval=wilson(counts["pass"], len(cases)),
        position=0 < len(means) <= 2 * by_place,
        mean_p_better=fmean(means) if means else None,
        mean_order_gap=fmean(gaps) if gaps else None,
    )


def report_of(place: str, constitution: Constitution, results: Sequence[CaseResult]) -> ConstitutionReport:
    """Gather the results of one constitution; at least one."""

    def rates(of: Literal["objective", "principle"]) -> dict[str, Rate]:
        names = dict.fromkeys(getattr(case, of) for case in results)
        return {name: rate(case for case in results if getattr(case, of) == name) for name in names}

    return ConstitutionReport(
        place=place,
        name=constitution.name,
        version=constitution.version,
        digest=constitution.digest,
        cases=tuple(results),
        objectives=rates("objective"),
        principles=rates("principle"),
        total=rate(results),
        without_cases=tuple(
            rule.id for objective in constitution.objectives.values() for rule in objective.active if not rule.cases
        ),
    )
