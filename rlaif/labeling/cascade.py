"""A cascade: every pair is asked of a cheap stage, and what that is unsure of goes on to a dearer one.

First a sample of the pairs is asked in every stage, and each stage's threshold follows from it. Then the stages are run
one after the other over all pairs, each on what came to it: so one model is loaded at a time, and requests come in long
rows, as batching wants them. A stage that is believed on no objective is asked of the sample alone.

All answers are in the one ledger, by key: a run that was killed plans the same again and asks what is missing. Its plan
holds, of each pair and objective, the questions of the stage that decides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import chain
from typing import Any

from rlaif.data.pairs import Reject
from rlaif.data.sources import Source
from rlaif.engines.base import Engine
from rlaif.engines.factory import atomic_batch_of
from rlaif.labeling.ask import Asker, Tally, Watcher, chunks, telling_what_is_kept
from rlaif.labeling.cascade_people import People, read_people
from rlaif.labeling.cascade_report import Spent, report_of, sample_extra
from rlaif.labeling.cascade_results import Escalated
from rlaif.labeling.cascade_sample import Sample, StageRule, Unit, draw_pairs, preferences, read_sample, set_rules
from rlaif.labeling.cascade_stages import Stage, cascade_digest, cascade_provenance, described, resolve_stages
from rlaif.labeling.generate import rejects_beside
from rlaif.labeling.kept import Lent
from rlaif.labeling.labels import label_of
from rlaif.labeling.manifest import Manifest, manifest_of, write_manifest
from rlaif.labeling.run import (
    RESPONSES,
    LabelRun,
    nothing_usable,
    open_run,
    refuse_other_dtype,
    refuse_rejects,
    sample_responses,
)
from rlaif.labeling.settings import CascadeSettings, LabelSettings
from rlaif.labeling.summary import LabelSummary
from rlaif.labeling.verdicts import read_answer
from rlaif.labeling.write import read_rejects, write_folded
from rlaif.store import Ledger
from rlaif.types import JudgeRequest, Label, ObjectiveLabel, Pair, Verdict

_PAIRS_AT_ONCE = 100

# By objective, one rule for each stage but the last.
Rules = Mapping[str, Sequence[StageRule]]


def label_cascade(settings: LabelSettings, watch: Watcher | None = None) -> LabelSummary:
    """Label every pair of a dataset by the stages of `settings.cascade`, continuing what `settings.out` holds already.

    Args:
        watch: called as answers come; with a new tally for each stage.

    Raises:
        InputError: bad input; with `strict` also for any row that cannot be used.
        Interrupted: Ctrl-C; the same call continues.
        RunError: a server, disk or model failed; the same call continues.
    """
    cascade = settings.cascade
    assert cascade is not None, "called with a cascade only"
    run = LabelRun(settings)
    people = read_people(cascade.labels, run.objectives) if cascade.labels else None
    if settings.strict:
        refuse_rejects(run)
    stages = resolve_stages(run, cascade)
    out = settings.out
    manifest = open_run(settings, deciding(run, stages, people))
    with closing(Ledger(out / "judgments.db")) as ledger:
        write_manifest(manifest_of(out), manifest)
        with telling_what_is_kept(out):
            source = sample_responses(run, watch) if settings.policy else None
            with closing(_Engines(settings, manifest)) as engines:
                asking = _Asking(run, stages, ledger, manifest, source, engines, watch)
                sample, rules = asking.sample(cascade, people)
                asking.all(rules)
        if not asking.asked_any:
            raise nothing_usable(run, source)
        ledger.forget_older()
        # Prompts that the policy was not or could not be asked are told as well.
        unanswered = read_rejects(rejects_beside(out / RESPONSES)) if source else ()
        written = write_folded(chain(unanswered, run.rows(source)), asking.fold, out)
        spent = [*asking.spent, *sample_extra(stages, rules, sample)]
        report = report_of(cascade, stages, run.objectives, sample, rules, asking.escalated, spent)
        counts = ledger.counts()
        statuses = Counter[str]()
        for each in spent:
            statuses[each.status] += each.judgments
        summary = LabelSummary(
            run=str(out),
            pairs=written.pairs,
            judgments=statuses.total(),
            asked=asking.asked,
            reused=statuses.total() - asking.asked,
            abstained=sum(number for status, number in statuses.items() if status not in ("ok", "truncated")),
            statuses=dict(sorted(statuses.items())),
            reasons=ledger.reasons(),
            mean_choice_mass=counts.mean_choice_mass,
            rejected=written.rejected,
            prompt_tokens=sum(each.prompt_tokens for each in spent),
            completion_tokens=sum(each.completion_tokens for each in spent),
            seconds=asking.seconds,
            cascade=report,
        )
    final = {
        "state": "done",
        "engine": engines.details,
        "counts": summary.counts,
        "last_session": summary.session,
    }
    write_manifest(manifest_of(out), manifest.model_copy(update=final))
    return summary


def deciding(run: LabelRun, stages: Sequence[Stage], people: People | None) -> dict[str, Any]:
    """The settings that decide the labels of a cascade: a run is continued only under the same."""
    cascade = run.settings.cascade
    assert cascade is not None, "called with a cascade only"
    last = stages[-1]
    values = run.deciding(last.kind, last.judge)
    values |= {"template": cascade_digest(stages), "cascade": ",".join(stage.name for stage in stages)}
    values |= {"cascade_stages": described(stages)}
    if cascade.threshold is not None:
        return values | {"cascade_threshold": cascade.threshold}
    measured = {"cascade_agreement": cascade.agreement, "cascade_sample": cascade.sample}
    return values | measured | {"cascade_labels": people.digest if people else None}


class _Engines:
    """The judges of a cascade, one loaded at a time: it stays while the next stage asks the same one."""

    def __init__(self, settings: LabelSettings, manifest: Manifest) -> None:
        self._settings, self._manifest = settings, manifest
        self._held: tuple[Stage, Engine] | None = None
        self._judges: dict[str, Mapping[str, Any]] = dict(manifest.engine.get("judges", {}))

    @property
    def details(self) -> dict[str, Any]:
        """What the engines say of themselves, by judge, for the manifest."""
        self._note()
        return {**self._manifest.engine, "judges": self._judges}

    def lend(self, stage: Stage) -> Engine:
        """The engine of a stage, loaded if it is not yet; whoever has it does not close it."""
        if self._held is not None:
            held, engine = self._held
            if held.placed == stage.placed:
                return Lent(engine)
            self.close()
        engine = stage.placed.load()
        refuse_other_dtype(self._settings, self._judges.get(stage.judge.name, {}), engine)
        self._held = stage, engine
        write_manifest(manifest_of(self._settings.out), self._manifest.model_copy(update={"engine": self.details}))
        return Lent(engine)

    def close(self) -> None:
        """Free the one that is loaded."""
        if self._held is not None:
            self._note()
            self._held[1].close()
            self._held = None

    def _note(self) -> None:
        if self._held is not None:
            stage, engine = self._held
            self._judges[stage.judge.name] = {**self._judges.get(stage.judge.name, {}), **engine.details}


class _Asking:
    """Asks the stages of one run, and keeps count.

    `escalated` counts, by stage, objective and reason, the pairs that went on; `spent` what each stage took.
    """

    def __init__(
        self,
        run: LabelRun,
        stages: Sequence[Stage],
        ledger: Ledger,
        manifest: Manifest,
        source: Source | None,
        engines: _Engines,
        watch: Watcher | None,
    ) -> None:
        self._run, self._stages, self._ledger, self._source = run, stages, ledger, source
        self._generation, self._engines, self._watch = manifest.generation, engines, watch
        self._provenance = cascade_provenance(run, stages)
        self._rules: Rules = {}
        self.escalated = [Counter[tuple[str, Escalated]]() for _ in stages]
        self.spent: list[Spent] = []
        self.asked, self.seconds, self.asked_any = 0, 0.0, False

    def sample(self, cascade: CascadeSettings, people: People | None) -> tuple[Sample, Rules]:
        """Ask the sample in every stage, and set the thresholds; with a fixed threshold nothing is asked."""
        stages, objectives = self._stages, self._run.objectives
        if cascade.threshold is not None:
            fixed = [StageRule(cascade.threshold)] * (len(stages) - 1)
            return Sample(), dict.fromkeys(objectives, fixed)
        pairs = draw_pairs(
            self._run.rows(self._source),
            cascade.sample * (len(stages) - 1),
            self._run.settings.seed,
            only=people.ids if people else None,
        )
        if people is not None and not pairs:
            raise people.strangers()
        asked = []
        for stage in stages:
            requests = (request for pair in pairs for request in stage.planner.requests(pair))
            self._ask(stage, requests, len(pairs), stage.planner.requests_per_pair, planned=False)
            asked.append(read_sample(self._ledger, stage, pairs))
        sample = Sample(pairs, asked, people.references if people else preferences(asked[-1]))
        return sample, {name: set_rules(stages, sample, name, cascade.agreement) for name in objectives}

    def all(self, rules: Rules) -> None:
        """Ask each stage what comes to it, of all pairs."""
        self._rules = rules
        rows = self._source.rows if self._source else self._run.source.rows
        limit = self._run.settings.source.limit
        known = min(rows, limit or rows) if rows is not None else None
        for place, stage in enumerate(self._stages):
            active = [name for name in self._run.objectives if self._asks(place, name)]
            if not active:
                continue
            first = not any(self._asks(earlier, name) for earlier in range(place) for name in active)
            per_row = stage.planner.requests_per_pair * len(active) // len(self._run.objectives)
            # How many pairs come to a later stage is known when it has been planned.
            self._ask(stage, self._requests(place), known if first else None, per_row, planned=True)
            self.spent += [Spent(place, *row) for row in self._ledger.spent(stage.made_by)]

    def fold(self, pairs: Sequence[Pair]) -> Iterator[tuple[Sequence[Verdict], Label]]:
        """Fold the verdicts of the stage that decided each objective into the labels of some pairs."""
        found = [self._ledger.verdicts([pair.id for pair in pairs], stage.made_by) for stage in self._stages]
        for pair in pairs:
            labels: dict[str, ObjectiveLabel] = {}
            for stage, verdicts in zip(self._stages, found, strict=True):
                labels |= _labels(stage, verdicts[pair.id])
            ordered = {name: labels[name] for name in self._run.objectives}
            mine = [verdict for verdicts in found for verdict in verdicts[pair.id]]
            yield mine, label_of(self._run.constitution, pair, ordered, self._provenance)

    def _asks(self, place: int, objective: str) -> bool:
        """Whether a stage is asked about an objective at all: the last one always is."""
        return place == len(self._stages) - 1 or self._rules[objective][place].threshold is not None

    def _requests(self, place: int) -> Iterator[JudgeRequest]:
        """Plan one stage: the pairs and objectives that no earlier one decided."""
        stage = self._stages[place]
        rows = (row[1] for row in self._run.rows(self._source) if not isinstance(row, Reject))
        for pairs in chunks(rows, _PAIRS_AT_ONCE):
            decided = self._decided(place, pairs)
            coming = {
                (pair.id, name)
                for pair in pairs
                for name in self._run.objectives
                if self._asks(place, name) and (pair.id, name) not in decided
            }
            # What an earlier stage or session planned here, also further samples, is not to be read with it.
            self._ledger.unplan(sorted(coming))
            for pair in pairs:
                if any((pair.id, name) in coming for name in self._run.objectives):
                    yield from (each for each in stage.planner.requests(pair) if (pair.id, each.objective) in coming)

    def _decided(self, place: int, pairs: Sequence[Pair]) -> set[Unit]:
        """The pairs and objectives that stages before this one decided; counts those that go on from where they are."""
        decided: set[Unit] = set()
        for earlier in range(place):
            stage = self._stages[earlier]
            if not any(self._asks(earlier, name) for name in self._run.objectives):
                continue
            for pair_id, verdicts in self._ledger.verdicts([pair.id for pair in pairs], stage.made_by).items():
                for name, label in _labels(stage, verdicts).items():
                    if name not in self._rules or not self._asks(earlier, name):
                        continue
                    reason = _why(stage, self._rules[name][earlier], label)
                    if reason is None:
                        decided.add((pair_id, name))
                    elif self._next_of(earlier, name) == place:
                        self.escalated[earlier][name, reason] += 1
        return decided

    def _next_of(self, place: int, objective: str) -> int:
        later = range(place + 1, len(self._stages))
        return next(stage for stage in later if self._asks(stage, objective))

    def _ask(
        self, stage: Stage, requests: Iterable[JudgeRequest], rows: int | None, per_row: int, *, planned: bool
    ) -> None:
        run = self._run
        self._ledger.begin(self._generation, run.constitution.digest, stage.template.digest, stage.judge.digest)
        asker = Asker(
            self._ledger,
            lambda done: read_answer(stage.template.head, done),
            lambda: self._engines.lend(stage),
            atomic_batch_of(stage.kind),
            self._watch,
            rows=rows,
            per_row=per_row,
            planned=planned,
        )
        asker.run(requests)
        tally: Tally = asker.tally
        self.asked += tally.asked
        self.seconds += tally.seconds
        self.asked_any = self.asked_any or tally.planned > 0


def _labels(stage: Stage, verdicts: Iterable[Verdict]) -> dict[str, ObjectiveLabel]:
    """Fold one pair's verdicts of a stage, by objective."""
    by_objective: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        by_objective.setdefault(verdict.objective, []).append(verdict)
    return {name: stage.fold(mine) for name, mine in by_objective.items()}


def _why(stage: Stage, rule: StageRule, label: ObjectiveLabel) -> Escalated | None:
    """Why a label goes on to the next stage; `None` where it decides."""
    confidence = stage.confidence(label)
    if rule.accepts(confidence):
        return None
    if label.p_a is None or (label.order_gap is None and not stage.rated):
        return "unread"
    # A label that prefers neither response is unsure, whatever its orders say.
    return "inconsistent" if confidence is None and label.preference != "tie" else "unsure"
