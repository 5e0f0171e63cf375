"""`--dry-run`: what a run would ask and read, without asking."""

from __future__ import annotations

from collections.abc import Container, Sequence
from contextlib import closing, nullcontext

from pydantic import Field

from rlaif.data.pairs import Reject
from rlaif.engines.base import EngineKind, ModelIdentity
from rlaif.engines.chat import ChatTokenizer
from rlaif.errors import InputError
from rlaif.labeling.ask import chunks
from rlaif.labeling.cascade_people import read_people
from rlaif.labeling.cascade_sample import draw_pairs
from rlaif.labeling.cascade_stages import resolve_stages
from rlaif.labeling.count import CascadePlan, Count, StagePlan, added
from rlaif.labeling.run import LabelRun
from rlaif.labeling.settings import CascadeSettings, LabelSettings
from rlaif.store import Ledger
from rlaif.types import Frozen


class DryRun(Frozen):
    """What would be asked. `prompt_tokens` is exact when `tokens_exact`, else projected from the text's length.

    Of a cascade it is the most that may be asked, and `cascade` tells the least and each stage's part.
    """

    pairs: int
    rejected: int
    requests: int
    answered: int
    to_ask: int
    prompt_tokens: int
    most_new_tokens: int
    tokens_exact: bool
    cascade: CascadePlan | None = Field(default=None, exclude_if=lambda value: value is None)


def count_requests(settings: LabelSettings) -> DryRun:
    """Count the requests and prompt tokens of a run, and how many are answered already.

    Raises:
        InputError: as `label` does; also for prompts whose responses are yet to be sampled.
    """
    if settings.policy is not None:
        raise InputError("--dry-run counts pairs; sample the responses first (rlaif generate), then label that file.")
    run = LabelRun(settings)
    if settings.cascade is not None:
        return _count_cascade(run, settings.cascade)
    engine, judge = run.resolve_judge()
    # Asks nothing, and is refused here as it would be there.
    run.calibration(judge)
    count = Count(run.planner(judge), run.template, _chat(engine, judge))
    pairs, rejected = _count(run, [count], frozenset(), [])
    return DryRun(pairs=pairs, rejected=rejected, **count.counted(settings.max_tokens).model_dump())


def _chat(engine: EngineKind, judge: ModelIdentity) -> ChatTokenizer | None:
    return None if engine == "server" else ChatTokenizer.load(judge.source, None)


def _count(
    run: LabelRun, of_all: Sequence[Count], sample: Container[str], of_sample: Sequence[Count]
) -> tuple[int, int]:
    """Count all pairs and those of a sample; how many can be used, and how many rows cannot."""
    pairs = rejected = 0
    path = run.settings.out / "judgments.db"
    with closing(Ledger(path)) if path.is_file() else nullcontext() as ledger:
        for part in chunks(run.rows(), 50):
            usable = [row[1] for row in part if not isinstance(row, Reject)]
            pairs, rejected = pairs + len(usable), rejected + len(part) - len(usable)
            for count in of_all:
                count.add(usable, ledger)
            for count in of_sample:
                count.add([pair for pair in usable if pair.id in sample], ledger)
    return pairs, rejected


def _count_cascade(run: LabelRun, cascade: CascadeSettings) -> DryRun:
    people = read_people(cascade.labels, run.objectives) if cascade.labels else None
    stages = resolve_stages(run, cascade)
    sample: frozenset[str] = frozenset()
    if cascade.threshold is None:
        size = cascade.sample * (len(stages) - 1)
        drawn = draw_pairs(run.rows(), size, run.settings.seed, only=people.ids if people else None)
        sample = frozenset(pair.id for pair in drawn)
    chats = {stage.judge: _chat(stage.kind, stage.judge) for stage in stages}
    of_all, of_sample = (
        [Count(stage.planner, stage.template, chats[stage.judge]) for stage in stages] for _ in range(2)
    )
    pairs, rejected = _count(run, of_all, sample, of_sample)
    most_each = run.settings.max_tokens
    whole = [count.counted(most_each) for count in of_all]
    part = [count.counted(most_each) for count in of_sample]
    # At the least one stage decides all that it is asked, and every other one is asked of the sample alone.
    least = [
        added(one if place == at else other for place, (one, other) in enumerate(zip(whole, part, strict=True)))
        for at in range(len(stages))
    ]
    planned = tuple(
        StagePlan(name=stage.name, sample=other, all=one) for stage, one, other in zip(stages, whole, part, strict=True)
    )
    cheapest = min(least, key=lambda each: (each.requests, each.prompt_tokens))
    plan = CascadePlan(sample=len(sample), least=cheapest, stages=planned)
    return DryRun(pairs=pairs, rejected=rejected, **added(whole).model_dump(), cascade=plan)
