"""Critique and revise responses (Bai et al. 2022, stage 1); continued like a run, from what is kept beside the file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from rlaif.constitution import load_constitution
from rlaif.data.pairs import Reject, read_prompts
from rlaif.data.sources import open_source
from rlaif.engines.base import ModelIdentity
from rlaif.engines.factory import atomic_batch_of, resolve_model
from rlaif.errors import InputError, Interrupted
from rlaif.files import cannot_write
from rlaif.labeling.ask import Asker, Tally, Watcher
from rlaif.labeling.chains import Chain, ChainPlanner
from rlaif.labeling.generate import first_usable, none_usable
from rlaif.labeling.kept import OneModel, Placed
from rlaif.labeling.manifest import go_on, manifest_beside, read_manifest_file, write_manifest
from rlaif.labeling.plan import choose_objectives
from rlaif.labeling.revise_files import ReviseFiles, write_chains
from rlaif.labeling.settings import ReviseSettings
from rlaif.labeling.writing import Writer, judge_digest
from rlaif.prompts import Kind, Template, load_template
from rlaif.store import Ledger
from rlaif.types import Frozen, JudgeRequest, Prompt
from rlaif.version import __version__

_COUNTED = ("planned", "to_ask", "asked", "abstained", "prompt_tokens", "completion_tokens")


class ReviseSummary(Frozen):
    """What was written, and what this session asked for it.

    `truncated` counts chains whose last revision was cut at the token limit, `unchanged` those whose last revision is
    the first response again (they make no pair), `failed` chains of which a text could not be had, `rejected` rows
    that cannot be used.
    """

    out: str
    sft_file: str
    pairs_file: str
    rejects_file: str
    prompts: int
    chains: int
    pairs: int
    unchanged: int
    truncated: int
    failed: int
    rejected: int
    asked: int
    reused: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float


class RevisePlan(Frozen):
    """What a call would ask. A chain of which a text fails ends there, so `to_ask` is the most it can be."""

    prompts: int
    rejected: int
    chains: int
    requests: int
    answered: int
    to_ask: int
    most_new_tokens: int


class ReviseRun:
    """One call's settings, resolved: files read, names checked, models fingerprinted, nothing asked.

    Raises:
        InputError: a file, a model, an option or the data is not usable.
    """

    def __init__(self, settings: ReviseSettings) -> None:
        s = self.settings = settings
        self.constitution = load_constitution(s.constitution)
        self.objectives = choose_objectives(self.constitution, s.objectives)
        self.critique = _template(s.critique_template, "critique")
        self.revision = _template(s.revision_template, "revision")
        self.source = open_source(s.source.data, split=s.source.split, config=s.source.config)
        if all(isinstance(row, Reject) for row in self.rows()):
            raise none_usable(self.source.name, self.rows())
        self.judge = Placed(*resolve_model(s.judge, s.engine.engine, s.engine.base_url, s.engine.args), s.engine)
        self.policy = self.judge
        if s.policy is not None or s.policy_engine is not None:
            where = s.policy_engine or s.engine
            found = resolve_model(s.policy or s.judge, where.engine, where.base_url, where.args, option="--policy")
            self.policy = Placed(*found, where)
        self.planner = ChainPlanner(
            self.constitution,
            self.objectives,
            self.critique,
            self.revision,
            policy=_writer(self.policy, s.temperature, s),
            judge=_writer(self.judge, s.revision_temperature, s),
            rounds=s.rounds,
            seed=s.seed,
        )

    def deciding(self) -> dict[str, Any]:
        """The settings that decide what is written: it is continued only under the same."""
        s = self.settings
        told = {"objectives", "rounds", "n", "temperature", "revision_temperature", "max_tokens", "seed"}
        judge, policy = self.judge, self.policy
        return {
            **s.model_dump(mode="json", include=told),
            "data": self.source.digest,
            "columns": dict(s.source.columns),
            "limit": s.source.limit,
            "constitution": self.constitution.digest,
            "critique_template": self.critique.digest,
            "revision_template": self.revision.digest,
            "objectives": list(self.objectives),
            "judge": judge.model.name,
            "judge_digest": judge_digest(judge.model, judge.where.args),
            "engine": judge.kind,
            "policy": policy.model.name,
            "policy_digest": judge_digest(policy.model, policy.where.args),
            "policy_engine": policy.kind,
        }

    def provenance(self) -> dict[str, Any]:
        """Names and digests of what every line is made with."""
        templates = {"critique": self.critique, "revision": self.revision}
        return {
            "judge": _reference(self.judge.model),
            "policy": _reference(self.policy.model),
            "constitution": self.constitution.reference,
            "templates": {kind: f"{Path(each.place).stem}@{each.digest[:12]}" for kind, each in templates.items()},
            "rlaif": __version__,
        }

    def rows(self) -> Iterator[tuple[int, Prompt] | Reject]:
        """Read the prompts, up to `--limit` usable ones."""
        given = self.settings.source
        return first_usable(read_prompts(self.source, given.columns, responses=True), given.limit)

    def chains(self, ledger: Ledger, stages: int) -> Iterator[tuple[int, Chain] | Reject]:
        """Follow every chain through its first `stages` texts, with the line of its row."""
        for row in self.rows():
            if isinstance(row, Reject):
                yield row
                continue
            for number in range(self.settings.n):
                yield row[0], self.planner.follow(row[1], number, ledger.get, stages)

    def requests(self, ledger: Ledger, stage: int) -> Iterator[JudgeRequest]:
        """Plan one stage: answered or not, so that batches follow from the plan and the earlier stages alone."""
        for row in self.chains(ledger, stage):
            if not isinstance(row, Reject) and row[1].failure is None and len(row[1].texts) == stage:
                yield self.planner.request(row[1])


def revise_responses(settings: ReviseSettings, watch: Watcher | None = None) -> ReviseSummary:
    """Write responses, critiques and revisions to `settings.out`, a line a chain, and what they make beside it.

    - `OUT`: `{"id", "prompt_id", "chain", "prompt", "response", "steps": [{"round", "objective", "principle",
      "critique", "revision"}], "revision", "finish_reasons", "tags", "provenance"}`. `response` is the first one,
      `revision` the last. `finish_reasons` are `{"response", "critiques", "revisions"}`.
    - `OUT.sft.jsonl` (in place of OUT's ending): `{"id", "prompt", "completion", "finish_reason"}`, TRL's
      conversational prompt and completion: its SFTTrainer learns the completion, the last revision, alone.
    - `OUT.pairs.jsonl`: first response and last revision as `rlaif label` takes them, the revision in the place that
      the tag `revised` tells; the tag `truncated` marks one that was cut. Equal texts make no pair.
    - `OUT.rejects.jsonl`: rows that cannot be used, and chains of which a text failed, with line and reason.

    Answers are kept in `OUT.db` as they come, and the settings in `OUT.manifest.json`; the same call continues to the
    same bytes. Under other settings it goes on with `update` alone, and then asks only what they change.

    Raises:
        InputError: bad input, other settings without `update`, or `out` is a file of another making.
        Interrupted: Ctrl-C; the same call continues.
        RunError: a server, disk or model failed; the same call continues.
    """
    run = ReviseRun(settings)
    out, files = settings.out, ReviseFiles(settings.out)
    files.refuse_others(settings.source.data)
    at = manifest_beside(out)
    options = settings.model_dump(mode="json", exclude={"update"})
    manifest = go_on(read_manifest_file(at), run.deciding(), options, out, [files.ledger], update=settings.update)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(out, error) from None
    progress = _Progress(run, watch)
    with closing(Ledger(files.ledger)) as ledger:
        write_manifest(at, manifest)
        try:
            with closing(OneModel()) as loaded:
                for stage in range(run.planner.stages):
                    _ask(run, ledger, loaded, stage, progress)
        except Interrupted:
            raise Interrupted(
                f"interrupted; what was written is kept in {ledger.path}. Give the same command to continue."
            ) from None
        chains = run.chains(ledger, run.planner.stages)
        counts = vars(write_chains(chains, files, n=settings.n, provenance=run.provenance()))
        tally = progress.tally
        session = {"asked": tally.asked, "reused": tally.reused, "seconds": round(tally.seconds, 3)}
        write_manifest(at, manifest.model_copy(update={"state": "done", "counts": counts, "last_session": session}))
    return ReviseSummary(
        out=str(out),
        sft_file=str(files.sft),
        pairs_file=str(files.pairs),
        rejects_file=str(files.rejects),
        asked=tally.asked,
        reused=tally.reused,
        prompt_tokens=tally.prompt_tokens,
        completion_tokens=tally.completion_tokens,
        seconds=tally.seconds,
        **counts,
    )


def plan_revisions(settings: ReviseSettings) -> RevisePlan:
    """Count what `revise_responses` would ask, and how much is answered already; ask nothing.

    Raises:
        InputError: as `revise_responses` does.
    """
    run = ReviseRun(settings)
    stages = run.planner.stages
    kept = ReviseFiles(settings.out).ledger
    counts = {"prompts": 0, "rejected": 0, "chains": 0, "requests": 0, "answered": 0}
    with ExitStack() as opened:
        ledger = opened.enter_context(closing(Ledger(kept))) if kept.is_file() else None
        for row in run.rows():
            if isinstance(row, Reject):
                counts["rejected"] += 1
                continue
            counts["prompts"] += 1
            for number in range(settings.n):
                chain = run.planner.follow(row[1], number, ledger.get if ledger else lambda key: None, stages)
                given, failed = row[1].response is not None, chain.failure is not None
                answered = len(chain.texts) - given + failed
                counts["chains"] += 1
                counts["answered"] += answered
                counts["requests"] += answered if failed else stages - given
    to_ask = counts["requests"] - counts["answered"]
    return RevisePlan(to_ask=to_ask, most_new_tokens=to_ask * settings.max_tokens, **counts)


def _template(name: str, kind: Kind) -> Template:
    template = load_template(name)
    if template.head.kind != kind:
        raise InputError(
            f"--{kind}-template {name}: {kind} template {template.place} is a {template.head.kind}; "
            f"give a template with `kind: {kind}` in its head, as the shipped {kind}."
        )
    return template


def _reference(model: ModelIdentity) -> str:
    return f"{model.name}@{model.digest[:12]}"


def _writer(placed: Placed, temperature: float, s: ReviseSettings) -> Writer:
    return Writer(judge_digest(placed.model, placed.where.args), temperature, s.max_tokens, s.seed)


class _Progress:
    """One tally for all stages, to be watched: each stage has a tally of its own."""

    def __init__(self, run: ReviseRun, watch: Watcher | None) -> None:
        self._watch = watch
        self._stages, self._n = run.planner.stages, run.settings.n
        rows, limit = run.source.rows, run.settings.source.limit
        # How many requests a stage has: of the first an estimate, and then what the one before it had.
        self._a_stage = None if rows is None else min(rows, limit or rows) * self._n
        self._past = Tally(per_row=self._n * self._stages)
        self._seconds = 0.0
        self.tally = self._past

    def __call__(self, tally: Tally) -> None:
        """Show a stage's tally added to those of the stages before it."""
        sums = {name: getattr(self._past, name) + getattr(tally, name) for name in _COUNTED}
        total = None if self._a_stage is None else self._past.planned + self._stages * self._a_stage
        started = time.monotonic() - self._seconds - tally.seconds
        self.tally = Tally(total=total, per_row=self._past.per_row, started=started, **sums)
        if self._watch is not None:
            self._watch(self.tally)

    def end_stage(self, tally: Tally) -> None:
        """Add the tally of a stage that is done."""
        self(tally)
        self._seconds += tally.seconds
        self._past = self.tally
        self._stages -= 1
        self._a_stage = tally.planned or self._a_stage


def _ask(run: ReviseRun, ledger: Ledger, loaded: OneModel, stage: int, progress: _Progress) -> None:
    placed = run.judge if stage else run.policy
    template = (run.revision if stage % 2 == 0 else run.critique).digest if stage else ""
    ledger.begin(0, run.constitution.digest, template, placed.model.digest)
    batch = atomic_batch_of(placed.kind)
    asker = Asker(ledger, lambda done: None, lambda: loaded.engine(placed), batch, progress)
    asker.run(run.requests(ledger, stage))
    progress.end_stage(asker.tally)
