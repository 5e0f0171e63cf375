"""Critique and revise responses (Bai et al. 2022, stage 1); continued like a run, from a ledger beside the file."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rlaif.constitution import load_constitution
from rlaif.data.pairs import Reject, read_prompts, side_of
from rlaif.data.sources import open_source
from rlaif.engines.base import ModelIdentity
from rlaif.engines.factory import atomic_batch_of, resolve_model
from rlaif.errors import InputError, Interrupted
from rlaif.files import cannot_write, replacing
from rlaif.labeling.ask import Asker, Tally, Watcher
from rlaif.labeling.chains import Chain, ChainPlanner
from rlaif.labeling.generate import first_usable, none_usable, rejects_beside
from rlaif.labeling.kept import OneModel, Placed
from rlaif.labeling.plan import choose_objectives
from rlaif.labeling.settings import ReviseSettings
from rlaif.labeling.write import reject_line
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
        objectives = choose_objectives(self.constitution, s.objectives)
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
            objectives,
            self.critique,
            self.revision,
            policy=_writer(self.policy, s.temperature, s),
            judge=_writer(self.judge, s.revision_temperature, s),
            rounds=s.rounds,
            seed=s.seed,
        )

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

    Answers are kept in `OUT.db` as they come; the same call continues to the same bytes.

    Raises:
        InputError: bad input, or `out` is a file of another making.
        Interrupted: Ctrl-C; the same call continues.
        RunError: a server, disk or model failed; the same call continues.
    """
    run = ReviseRun(settings)
    out = settings.out
    _refuse_others(out, settings.source.data)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(out, error) from None
    progress = _Progress(run, watch)
    with closing(Ledger(ledger_of(out))) as ledger:
        try:
            with closing(OneModel()) as loaded:
                for stage in range(run.planner.stages):
                    _ask(run, ledger, loaded, stage, progress)
        except Interrupted:
            raise Interrupted(
                f"interrupted; what was written is kept in {ledger.path}. Give the same command to continue."
            ) from None
        counts = _write(run, ledger)
    tally = progress.tally
    return ReviseSummary(
        out=str(out),
        sft_file=str(beside(out, "sft")),
        pairs_file=str(beside(out, "pairs")),
        rejects_file=str(rejects_beside(out)),
        asked=tally.asked,
        reused=tally.reused,
        prompt_tokens=tally.prompt_tokens,
        completion_tokens=tally.completion_tokens,
        seconds=tally.seconds,
        **vars(counts),
    )


def plan_revisions(settings: ReviseSettings) -> RevisePlan:
    """Count what `revise_responses` would ask, and how much is answered already; ask nothing.

    Raises:
        InputError: as `revise_responses` does.
    """
    run = ReviseRun(settings)
    stages = run.planner.stages
    kept = ledger_of(settings.out)
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


def ledger_of(out: Path) -> Path:
    """Where the answers of a file are kept."""
    return out.with_name(f"{out.name}.db")


def beside(out: Path, what: str) -> Path:
    """A file that is made with OUT: its `sft` rows or its `pairs`."""
    return out.with_name(f"{out.stem}.{what}.jsonl")


def _template(name: str, kind: Kind) -> Template:
    template = load_template(name)
    if template.head.kind != kind:
        raise InputError(
            f"--{kind}-template {name}: {kind} template {template.place} is a {template.head.kind}; "
            f"give a template with `kind: {kind}` in its head, as the shipped {kind}."
        )
    return template


def _writer(placed: Placed, temperature: float, s: ReviseSettings) -> Writer:
    return Writer(judge_digest(placed.model, placed.where.args), temperature, s.max_tokens, s.seed)


def _refuse_others(out: Path, data: str) -> None:
    """Refuse to overwrite what is to be read, and what another command made."""
    made = (out, beside(out, "sft"), beside(out, "pairs"), rejects_beside(out))
    source = Path(data).resolve()
    for path in made:
        if path.resolve() == source:
            raise InputError(f"{data}: would be overwritten by --out {out}; choose another --out.")
    exists = next((path for path in made if path.exists()), None)
    foreign = exists is not None and not ledger_of(out).exists()
    if out.is_file() and not foreign:
        with out.open(encoding="utf-8", errors="replace") as file:
            first = file.readline()
        # What rlaif generate wrote has a ledger of the same name.
        foreign = bool(first) and '"steps": [' not in first
        exists = out
    if foreign:
        raise InputError(f"{exists}: exists and was not made by rlaif revise; move it away, or choose another --out.")


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


@dataclass
class _Counts:
    """Lines written, and rows and chains that were not."""

    prompts: int = 0
    chains: int = 0
    pairs: int = 0
    unchanged: int = 0
    truncated: int = 0
    failed: int = 0
    rejected: int = 0


@dataclass
class _Files:
    """The files being written."""

    out: TextIO
    sft: TextIO
    pairs: TextIO
    rejects: TextIO


def _write(run: ReviseRun, ledger: Ledger) -> _Counts:
    """Write all files from the ledger, in the order of the data."""
    out = run.settings.out
    counts = _Counts()
    last: str | None = None
    with ExitStack() as opened:
        paths = (out, beside(out, "sft"), beside(out, "pairs"), rejects_beside(out))
        files = _Files(*(opened.enter_context(replacing(path)) for path in paths))
        for row in run.chains(ledger, run.planner.stages):
            if isinstance(row, Reject):
                files.rejects.write(reject_line(row))
                counts.rejected += 1
                continue
            line, chain = row
            if chain.failure is not None:
                held = {"id": chain.prompt.id, "chain": chain.number}
                files.rejects.write(reject_line(Reject(line, chain.failure, held)))
                counts.failed += 1
                continue
            counts.prompts += chain.prompt.id != last
            last = chain.prompt.id
            _write_chain(run, chain, files, counts)
    return counts


def _write_chain(run: ReviseRun, chain: Chain, files: _Files, counts: _Counts) -> None:
    prompt, first, revision = chain.prompt, chain.texts[0], chain.texts[-1]
    name = prompt.id if run.settings.n == 1 else f"{prompt.id}-{chain.number}"
    head = {"id": name, "prompt": [turn.model_dump() for turn in prompt.messages]}
    finish, truncated = chain.finish_reasons, chain.finish_reasons[-1] == "length"
    steps = [
        {"round": n + 1, "objective": drawn.objective, "principle": drawn.principle.id}
        | {"critique": chain.texts[2 * n + 1], "revision": chain.texts[2 * n + 2]}
        for n, drawn in enumerate(chain.drawn)
    ]
    whole = {"id": name, "prompt_id": prompt.id, "chain": chain.number, "prompt": head["prompt"], "response": first}
    whole |= {"steps": steps, "revision": revision}
    whole["finish_reasons"] = {"response": finish[0], "critiques": finish[1::2], "revisions": finish[2::2]}
    _write_line(files.out, whole | {"tags": dict(prompt.tags), "provenance": _provenance(run, prompt)})
    completion = [{"role": "assistant", "content": revision}]
    _write_line(files.sft, head | {"completion": completion, "finish_reason": finish[-1]})
    counts.chains += 1
    counts.truncated += truncated
    if first.strip() == revision:
        counts.unchanged += 1
        return
    side = side_of(revision, first)
    a, b = (revision, first) if side == "a" else (first, revision)
    tags = {**prompt.tags, "revised": side, **({"truncated": True} if truncated else {})}
    _write_line(files.pairs, head | {"response_a": a, "response_b": b, "tags": tags})
    counts.pairs += 1


def _write_line(file: TextIO, value: dict[str, Any]) -> None:
    file.write(json.dumps(value, ensure_ascii=False) + "\n")


def _provenance(run: ReviseRun, prompt: Prompt) -> dict[str, Any]:
    templates = {"critique": run.critique, "revision": run.revision}
    return {
        "judge": _reference(run.judge.model),
        "policy": None if prompt.response is not None else _reference(run.policy.model),
        "constitution": run.constitution.reference,
        "templates": {kind: f"{Path(each.place).stem}@{each.digest[:12]}" for kind, each in templates.items()},
        "rlaif": __version__,
    }


def _reference(model: ModelIdentity) -> str:
    return f"{model.name}@{model.digest[:12]}"
