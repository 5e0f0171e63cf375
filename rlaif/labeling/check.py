"""Ask a judge the cases of constitutions; the answers are kept, where that is asked for, in a ledger."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Annotated, Literal

from pydantic import Field

from rlaif.constitution import Constitution, load_constitution
from rlaif.engines.base import ModelIdentity
from rlaif.engines.factory import atomic_batch_of, resolve_model
from rlaif.errors import InputError, Interrupted, closest
from rlaif.files import cannot_write
from rlaif.labeling.ask import Asker, Tally, Watcher, chunks
from rlaif.labeling.cases import CaseResult, CasesReport, ChosenCase, choose_cases, grade, rate, report_of
from rlaif.labeling.kept import Placed
from rlaif.labeling.plan import Planner
from rlaif.labeling.run import judge_template
from rlaif.labeling.settings import Count, EngineSettings, Temperature
from rlaif.labeling.verdicts import read_answer
from rlaif.labeling.writing import judge_digest
from rlaif.prompts import Template
from rlaif.store import Ledger
from rlaif.types import Frozen, JudgeRequest

_READ_AT_ONCE = 200  # cases; a ledger tells of 500 pairs at a time, and a case may be two
_WITH_ALL = "::all"


class CaseSettings(Frozen):
    """Everything `rlaif constitution test` takes; see its `--help`."""

    constitutions: Annotated[tuple[str, ...], Field(min_length=1)]
    judge: str = "starter"
    engine: EngineSettings = EngineSettings()
    template: str = "pairwise-cot"
    objectives: tuple[str, ...] = ()
    principles: tuple[str, ...] = ()
    orders: Literal["both", "ab"] = "both"
    with_all: bool = False
    threshold: Annotated[float, Field(ge=0.5, lt=1)] = 0.5
    temperature: Temperature = 0.0
    max_tokens: Count = 512
    seed: int = 0
    cache: Path | None = None


@dataclass(frozen=True)
class Answers:
    """The results, in the order of the cases, and what was asked for them."""

    results: tuple[CaseResult, ...]
    tally: Tally
    judge: str
    template: str


def check_cases(settings: CaseSettings, watch: Watcher | None = None) -> CasesReport:
    """Ask every chosen case of the constitutions.

    Raises:
        InputError: a file or an option cannot be used, or there is no case to ask.
        Interrupted: Ctrl-C.
        RunError: a server, disk or model failed.
    """
    loaded = {place: load_constitution(place) for place in dict.fromkeys(settings.constitutions)}
    chosen = _choose(loaded, settings)
    answers = ask_cases(chosen, settings, watch)
    mine: dict[str, list[CaseResult]] = {}
    for case, result in zip(chosen, answers.results, strict=True):
        mine.setdefault(case.place, []).append(result)
    masses = [
        showing.choice_mass
        for result in answers.results
        for showing in result.showings
        if showing.choice_mass is not None
    ]
    tally = answers.tally
    return CasesReport(
        judge=answers.judge,
        template=answers.template,
        orders=settings.orders,
        threshold=settings.threshold,
        constitutions=tuple(report_of(place, loaded[place], results) for place, results in mine.items()),
        total=rate(answers.results),
        mean_choice_mass=fmean(masses) if masses else None,
        asked=tally.asked,
        reused=tally.reused,
        prompt_tokens=tally.prompt_tokens,
        completion_tokens=tally.completion_tokens,
        seconds=tally.seconds,
    )


def _choose(loaded: dict[str, Constitution], settings: CaseSettings) -> list[ChosenCase]:
    every = list(loaded.values())
    _refuse_unknown("--objective", settings.objectives, [name for each in every for name in each.objectives])
    rules = [rule.id for each in every for objective in each.objectives.values() for rule in objective.principles]
    _refuse_unknown("--principle", settings.principles, rules)
    for place, constitution in loaded.items():
        if not any(rule.cases for objective in constitution.objectives.values() for rule in objective.principles):
            raise InputError(f"{place}: no principle has cases; give each cases with prompt, better and worse.")
    chosen = [
        case
        for place, constitution in loaded.items()
        for case in choose_cases(place, constitution, settings.objectives, settings.principles)
    ]
    if not chosen:
        asked = ", ".join([*settings.objectives, *settings.principles]) or "every principle that is not turned off"
        raise InputError(f"{', '.join(loaded)}: no case to ask of {asked}; add cases, or choose others.")
    return chosen


def _refuse_unknown(option: str, chosen: Sequence[str], known: Sequence[str]) -> None:
    for name in chosen:
        if name not in known:
            close = closest(name, known)
            hint = f"did you mean {close}?" if close else f"choose of {', '.join(dict.fromkeys(known))}."
            raise InputError(f"{option} {name}: not in the constitution; {hint}")


def ask_cases(chosen: Sequence[ChosenCase], settings: CaseSettings, watch: Watcher | None = None) -> Answers:
    """Ask these cases in one go, whatever the settings choose, and grade them.

    Raises:
        InputError: the judge, the template or an option cannot be used.
        Interrupted: Ctrl-C.
        RunError: a server, disk or model failed.
    """
    template = judge_template(settings.template)
    where = settings.engine
    engine, judge = resolve_model(settings.judge, where.engine, where.base_url, where.args)

    planned = _plan(chosen, settings, template, judge)
    with _ledger(settings.cache) as ledger:
        digests = dict.fromkeys(case.constitution.digest for case in chosen)
        ledger.begin(0, ",".join(digests), template.digest, judge.digest)
        asker = Asker(
            ledger,
            lambda done: read_answer(template.head, done),
            Placed(engine, judge, where).load,
            atomic_batch_of(engine),
            watch,
            rows=len(chosen),
            per_row=len(planned[0]),
        )
        try:
            asker.run(request for requests in planned for request in requests)
        except Interrupted:
            raise Interrupted(
                f"interrupted; answers so far are kept in {settings.cache}. Give the same command to continue."
                if settings.cache
                else "interrupted; --cache FILE would keep the answers."
            ) from None
        rated = template.head.kind == "rating"
        results = tuple(_read(ledger, chosen, planned, settings.threshold, rated=rated))
    return Answers(
        results=results,
        tally=asker.tally,
        judge=f"{judge.name}@{judge.digest[:12]}",
        template=f"{Path(settings.template).stem}@{template.digest[:12]}",
    )


def _plan(
    chosen: Sequence[ChosenCase], settings: CaseSettings, template: Template, judge: ModelIdentity
) -> list[list[JudgeRequest]]:
    """The requests of each case."""
    digest = judge_digest(judge, settings.engine.args)

    def planner(constitution: Constitution, objective: str) -> Planner:
        return Planner(
            constitution,
            template,
            digest,
            objectives=(objective,),
            orders=settings.orders,
            temperature=settings.temperature,
            max_tokens=settings.max_tokens,
            seed=settings.seed,
        )

    planned = []
    for case in chosen:
        requests = planner(case.alone, case.objective).requests(case.pair)
        if settings.with_all:
            again = case.pair.model_copy(update={"id": case.id + _WITH_ALL})
            requests += planner(case.constitution, case.objective).requests(again)
        planned.append(requests)
    return planned


@contextmanager
def _ledger(cache: Path | None) -> Iterator[Ledger]:
    if cache is None:
        with tempfile.TemporaryDirectory() as folder, closing(Ledger(Path(folder) / "cases.db")) as ledger:
            yield ledger
        return
    if (cache.parent / "manifest.json").exists() and cache.name == "judgments.db":
        # The questions of a run's ledger are those of its labels.
        raise InputError(f"{cache}: the ledger of a labelling run; choose a file of its own for --cache.")
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(cache, error) from None
    with closing(Ledger(cache, option="--cache")) as ledger:
        yield ledger


def _read(
    ledger: Ledger,
    chosen: Sequence[ChosenCase],
    planned: Sequence[Sequence[JudgeRequest]],
    threshold: float,
    *,
    rated: bool,
) -> Iterator[CaseResult]:
    for part in chunks(zip(chosen, planned, strict=True), _READ_AT_ONCE):
        verdicts = ledger.verdicts([case.id + ending for case, _ in part for ending in ("", _WITH_ALL)])
        for case, requests in part:
            # A kept ledger may hold an order that this call does not ask.
            keys = {(request.pair_id, request.order): request.key for request in requests}
            alone, with_all = (
                [verdict for verdict in verdicts[name] if (name, verdict.order) in keys]
                for name in (case.id, case.id + _WITH_ALL)
            )
            answers = {verdict.order: ledger.get(keys[case.id, verdict.order]) for verdict in alone}
            rationales = {order: answer.rationale for order, answer in answers.items() if answer is not None}
            yield grade(case, alone, rationales, threshold=threshold, with_all=with_all, rated=rated)
