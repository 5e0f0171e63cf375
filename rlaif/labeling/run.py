"""A labelling run: a folder that is continued until every question of its plan has an answer."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from itertools import chain, islice
from pathlib import Path
from typing import Any

from rlaif.constitution import Constitution, load_constitution
from rlaif.data.pairs import Reject, holds_only_prompts, read_pairs, read_prompts
from rlaif.data.sources import Source, open_source
from rlaif.engines.base import Engine, EngineKind, ModelIdentity
from rlaif.engines.factory import atomic_batch_of, resolve_model
from rlaif.errors import InputError
from rlaif.files import cannot_write
from rlaif.labeling.ask import Asker, Watcher, telling_what_is_kept
from rlaif.labeling.calibration import AppliedCalibration, calibration_for, read_calibration
from rlaif.labeling.ending import ended_before, ending_of
from rlaif.labeling.generate import first_usable, generate_responses, rejects_beside
from rlaif.labeling.kept import Placed
from rlaif.labeling.manifest import Manifest, go_on, manifest_of, read_manifest, write_manifest
from rlaif.labeling.plan import Planner, choose_objectives
from rlaif.labeling.settings import LabelSettings
from rlaif.labeling.summary import LabelSummary, as_it_was, summary_of
from rlaif.labeling.verdicts import read_answer
from rlaif.labeling.write import read_rejects, write_labels
from rlaif.labeling.writing import judge_digest
from rlaif.prompts import Template, load_template
from rlaif.store import Ledger
from rlaif.types import JudgeRequest, Pair, Provenance
from rlaif.version import __version__

RESPONSES = "responses.jsonl"


class LabelRun:
    """One run's settings, resolved: files read, names checked, the judge fingerprinted, nothing asked.

    Raises:
        InputError: a file, an option or the data is not usable.
    """

    def __init__(self, settings: LabelSettings) -> None:
        self.settings = settings
        self.constitution: Constitution = load_constitution(settings.constitution)
        self.template: Template = judge_template(settings.template)
        self.objectives = choose_objectives(self.constitution, settings.objectives)
        self._temperatures = read_calibration(settings.calibration) if settings.calibration else None
        if not self.template.head.rationale and settings.samples > 1 and settings.cascade is None:
            raise InputError(
                f"--samples {settings.samples}: template {settings.template} has no rationale, so all are the same."
            )
        self.source: Source = open_source(
            settings.source.data, split=settings.source.split, config=settings.source.config
        )
        if settings.policy is None and holds_only_prompts(self.source, settings.source.columns):
            raise InputError(
                f"{self.source.name}: holds prompts and no responses; add --policy MODEL to sample two each."
            )
        if settings.policy and any(not isinstance(row, Reject) for row in islice(self.rows(), 100)):
            raise InputError(
                f"{self.source.name}: holds responses already; drop --policy to label them, or sample others with "
                "rlaif generate and label that file."
            )

    def resolve_judge(self) -> tuple[EngineKind, ModelIdentity]:
        """Choose the engine and fingerprint the judge, without loading it."""
        engine = self.settings.engine
        return resolve_model(self.settings.judge, engine.engine, engine.base_url, engine.args)

    def resolve_policy(self) -> ModelIdentity:
        """Fingerprint the policy, without loading it."""
        assert self.settings.policy is not None, "called with a policy only"
        where = self.settings.policy_engine or self.settings.engine
        return resolve_model(self.settings.policy.model, where.engine, where.base_url, where.args, option="--policy")[1]

    def judge_digest(self, judge: ModelIdentity) -> str:
        """What stands for the judge in every key: the model, and the numbers it was told to compute in."""
        return judge_digest(judge, self.settings.engine.args)

    def planner(self, judge: ModelIdentity, template: Template | None = None) -> Planner:
        """Make the planner for a judge, and for another template than the run's where one is given."""
        settings = self.settings
        template = template or self.template
        return Planner(
            self.constitution,
            template,
            self.judge_digest(judge),
            objectives=self.objectives,
            principles=settings.principles,
            orders=settings.orders,
            # Without a rationale all samples are the same; only a stage of a cascade comes here with more than one.
            samples=settings.samples if template.head.rationale else 1,
            temperature=settings.temperature,
            max_tokens=settings.max_tokens,
            seed=settings.seed,
        )

    def provenance(self, judge: ModelIdentity) -> Provenance:
        """Names and digests of what the labels are made with; the manifest has the digests in full."""
        return Provenance(
            judge=f"{judge.name}@{judge.digest[:12]}",
            constitution=self.constitution.reference,
            template=f"{Path(self.settings.template).stem}@{self.template.digest[:12]}",
            rlaif=__version__,
        )

    def calibration(self, judge: ModelIdentity) -> AppliedCalibration | None:
        """What puts the labels' `p_a` right; `None` without `--calibration`.

        Raises:
            InputError: it was fitted on labels of another judge, template or constitution, or of other objectives.
        """
        path = self.settings.calibration
        if path is None or self._temperatures is None:
            return None
        return calibration_for(self._temperatures, path, self.provenance(judge), self.objectives)

    def rows(self, source: Source | None = None) -> Iterator[tuple[int, Pair] | Reject]:
        """Read the pairs, up to `--limit` usable ones."""
        columns = self.settings.source.columns if source is None else {}
        return first_usable(read_pairs(source or self.source, columns), self.settings.source.limit)

    def rejects(self) -> Iterator[Reject]:
        """Read the rows of the data, pairs or a policy's prompts, that cannot be used."""
        given = self.settings.source
        prompts = first_usable(read_prompts(self.source, given.columns), given.limit)
        return (row for row in (prompts if self.settings.policy else self.rows()) if isinstance(row, Reject))

    def deciding(self, engine: str, judge: ModelIdentity) -> dict[str, Any]:
        """The settings that decide the labels: a run is continued only under the same."""
        s = self.settings
        values = s.model_dump(
            mode="json",
            exclude={"out", "engine", "update", "strict", "source", "policy_engine", "judge", "calibration", "cascade"},
        )
        calibration = self.calibration(judge)
        if calibration is not None:
            # Not its name or its other figures: the same temperatures make the same labels.
            values["calibration"] = dict(calibration.temperatures)
        # How long it waits; and which engine replicas run, which `engine` says.
        aside = {"timeout", "patience", "engine"}
        return {
            **values,
            "data": self.source.digest,
            "columns": dict(s.source.columns),
            "limit": s.source.limit,
            "constitution": self.constitution.digest,
            "template": self.template.digest,
            "objectives": list(self.objectives),
            "judge": judge.name,
            "judge_digest": judge.digest,
            "engine": engine,
            "policy_digest": self.resolve_policy().digest if s.policy else None,
            "engine_args": {name: value for name, value in s.engine.args.items() if name not in aside},
        }


def judge_template(name: str) -> Template:
    """Load a template that a judge answers.

    Raises:
        InputError: no such template, or it asks for a text.
    """
    template = load_template(name)
    if template.head.kind not in ("comparison", "rating"):
        raise InputError(
            f"template {name}: is for a {template.head.kind}, not for a judge; give one that compares or rates "
            "(pairwise-cot, direct, few-shot, rating)."
        )
    return template


def label(settings: LabelSettings, watch: Watcher | None = None) -> LabelSummary:
    """Label every pair of a dataset, continuing what `settings.out` already holds.

    Args:
        watch: called as answers come.

    Raises:
        InputError: bad input; with `strict` also for any row that cannot be used.
        Interrupted: Ctrl-C; the same call continues.
        RunError: a server, disk or model failed; the same call continues.
    """
    began = time.monotonic()
    run = LabelRun(settings)
    if settings.strict:
        refuse_rejects(run)
    engine_name, judge = run.resolve_judge()
    out, deciding = settings.out, run.deciding(engine_name, judge)
    provenance, calibration = run.provenance(judge), run.calibration(judge)
    if calibration is not None:
        provenance = provenance.model_copy(update={"calibration": calibration.reference})
    # A policy's rows may be asked again; and so they are gone through.
    ended = None if settings.policy else ended_before(out, deciding, provenance)
    if ended is not None:
        return as_it_was(settings, ended, began).model_copy(update={"calibration": calibration})
    manifest = open_run(settings, deciding)
    with closing(Ledger(out / "judgments.db")) as ledger:
        write_manifest(manifest_of(out), manifest)
        with telling_what_is_kept(out):
            source = sample_responses(run, watch) if settings.policy else None
            asker = _ask(run, ledger, manifest, engine_name, judge, source, watch)
        ledger.forget_older()
        # Prompts that the policy was not or could not be asked are told as well.
        unanswered = read_rejects(rejects_beside(out / RESPONSES)) if source else ()
        rows = chain(unanswered, run.rows(source))
        written = write_labels(
            rows,
            ledger,
            run.constitution,
            run.objectives,
            provenance,
            out,
            rated=run.template.head.kind == "rating",
            temperatures=None if calibration is None else calibration.temperatures,
        )
        summary = summary_of(out, ledger, asker.tally, written).model_copy(update={"calibration": calibration})
    final = {
        "state": "done",
        "engine": {**manifest.engine, **asker.details},
        "counts": summary.counts,
        "last_session": summary.session,
        "ending": ending_of(out, provenance),
    }
    write_manifest(manifest_of(out), manifest.model_copy(update=final))
    return summary


def refuse_rejects(run: LabelRun) -> None:
    """Refuse data with a row that cannot be used.

    Raises:
        InputError: there is one; 20 are listed.
    """
    rejects = list(run.rejects())
    if rejects:
        lines = [f"{run.source.name}:{reject.line}: {reject.reason}" for reject in rejects[:20]]
        more = [f"… and {len(rejects) - 20:,} more"] if len(rejects) > 20 else []
        noun = "row" if len(rejects) == 1 else "rows"
        count = f"{len(rejects):,} {noun} cannot be used; fix them or drop --strict. Nothing was asked."
        raise InputError("\n".join([*lines, *more, count]))


def open_run(settings: LabelSettings, deciding: dict[str, Any]) -> Manifest:
    """The manifest to go on with; the run's folder is made.

    Raises:
        InputError: the run was made with other settings, and `update` is not given.
        RunError: the folder cannot be made.
    """
    out = settings.out
    old = read_manifest(out)
    # What was not written by a run is not to be overwritten by one.
    names = ("judgments.db", "labels.jsonl", "rejects.jsonl")
    held = next((name for name in names if (out / name).exists()), None) if old is None else None
    if held:
        raise InputError(f"{out}: holds {held} but no manifest.json; choose another --out.")
    ledgers = (out / "judgments.db", out / "responses.jsonl.db")
    manifest = go_on(old, deciding, settings.options, out, ledgers, update=settings.update)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(out, error) from None
    return manifest


def sample_responses(run: LabelRun, watch: Watcher | None) -> Source:
    """Sample the policy's responses into the run's folder; what was sampled already stays."""
    settings = run.settings
    assert settings.policy is not None, "called with a policy only"
    responses = settings.out / RESPONSES
    engine = settings.policy_engine or settings.engine
    generate_responses(settings.source, settings.policy, engine, responses, watch=watch)
    return open_source(str(responses))


def refuse_other_dtype(settings: LabelSettings, before: Mapping[str, Any], engine: Engine) -> None:
    """Refuse, and close, an engine that computes in other numbers than the run's answers were given in.

    Args:
        before: the details of the engine that gave them.

    Raises:
        InputError: it does.
    """
    was, now = before.get("dtype"), engine.details.get("dtype")
    if was and now and was != now and "dtype" not in settings.engine.args:
        # A dtype that was asked for is in the keys; one that the machine chose is not, and must not be mixed in.
        engine.close()
        fix = f"choose one with --engine-arg dtype={was} and --update, or use another --out"
        raise InputError(f"{settings.out}: made with dtype {was}, and the judge would run in {now} here; {fix}.")


def nothing_usable(run: LabelRun, source: Source | None) -> InputError:
    """Make the error for data without a usable row, with the first reason."""
    first = next((row for row in run.rows(source) if isinstance(row, Reject)), None)
    why = f"; line {first.line}: {first.reason}" if first else ""
    return InputError(f"{(source or run.source).name}: no row can be used{why}.")


def _ask(
    run: LabelRun,
    ledger: Ledger,
    manifest: Manifest,
    engine_name: EngineKind,
    judge: ModelIdentity,
    source: Source | None,
    watch: Watcher | None,
) -> Asker:
    """Ask what has no answer under the present plan."""
    settings = run.settings

    def load() -> Engine:
        engine = Placed(engine_name, judge, settings.engine).load()
        refuse_other_dtype(settings, manifest.engine, engine)
        engine_now = {**manifest.engine, **engine.details}
        write_manifest(manifest_of(settings.out), manifest.model_copy(update={"engine": engine_now}))
        return engine

    planner = run.planner(judge)

    def requests() -> Iterator[JudgeRequest]:
        for row in run.rows(source):
            if not isinstance(row, Reject):
                yield from planner.requests(row[1])

    ledger.begin(manifest.generation, run.constitution.digest, run.template.digest, judge.digest)
    head = run.template.head
    known = (source or run.source).rows
    asker = Asker(
        ledger,
        lambda done: read_answer(head, done),
        load,
        atomic_batch_of(engine_name),
        watch,
        rows=min(known, settings.source.limit or known) if known is not None else None,
        per_row=planner.requests_per_pair,
    )
    asker.run(requests())
    if not asker.tally.planned:
        raise nothing_usable(run, source)
    return asker
