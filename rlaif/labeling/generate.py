"""Sample a policy's responses to prompts; continued like a run, from a ledger beside the file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from rlaif.data.pairs import Reject, read_prompts
from rlaif.data.sources import open_source
from rlaif.engines.base import ModelIdentity
from rlaif.engines.factory import atomic_batch_of, resolve_model
from rlaif.errors import InputError, Interrupted
from rlaif.files import cannot_write, replacing
from rlaif.labeling.ask import Asker, Watcher
from rlaif.labeling.kept import Placed
from rlaif.labeling.manifest import manifest_beside
from rlaif.labeling.settings import DataSettings, EngineSettings, PolicySettings
from rlaif.labeling.write import reject_line
from rlaif.labeling.writing import Writer, fault_of, judge_digest, said
from rlaif.prompts import neutral_control
from rlaif.store import Ledger
from rlaif.types import Completion, Frozen, JudgeRequest, Message, Prompt

_Row = TypeVar("_Row")


class GenerateSummary(Frozen):
    """What was sampled."""

    out: str
    prompts: int
    responses: int
    asked: int
    reused: int
    failed: int
    rejected: int
    completion_tokens: int
    seconds: float


def first_usable(rows: Iterable[_Row | Reject], limit: int | None) -> Iterator[_Row | Reject]:
    """Yield rows up to the `limit`-th usable one, and the rejects among them."""
    used = 0
    for row in rows:
        used += not isinstance(row, Reject)
        yield row
        if used == limit:
            return


def generate_responses(
    source: DataSettings,
    policy: PolicySettings,
    engine: EngineSettings,
    out: Path,
    *,
    watch: Watcher | None = None,
) -> GenerateSummary:
    """Sample `policy.n` responses to each prompt into `out`, a line a prompt.

    A line is `{"id", "prompt", "responses": [text …], "finish_reasons": […], "tags", "policy"}`; with two responses
    also `response_a` and `response_b`, so that the file can be labelled as it is. Answers are kept in `OUT.db` as they
    come. Prompts that cannot be used, or of which a sample failed, go to `OUT.rejects.jsonl` (in place of OUT's ending)
    with line and reason; two equal responses are kept as they are.

    Raises:
        InputError: the data, the model or an option cannot be used, or `out` is a file of another making.
        Interrupted: Ctrl-C; the same call continues.
        RunError: a server, disk or model failed; the same call continues.
    """
    if policy.n > 1 and policy.temperature == 0:
        raise InputError(
            f"--n {policy.n} at temperature 0 gives the same response {policy.n} times; set a temperature."
        )
    rows = open_source(source.data, split=source.split, config=source.config)
    name, model = resolve_model(policy.model, engine.engine, engine.base_url, engine.args, option="--policy")

    def prompts() -> Iterator[tuple[int, Prompt] | Reject]:
        return first_usable(read_prompts(rows, source.columns), source.limit)

    digest = judge_digest(model, engine.args)
    writer = Writer(digest, policy.temperature, policy.max_tokens, policy.seed)

    def requests(prompt: Prompt) -> list[JudgeRequest]:
        return [response_request(writer, prompt, sample) for sample in range(policy.n)]

    kept = out.with_name(out.name + ".db")
    # What rlaif revise wrote has a ledger of the same name, and a manifest.
    if manifest_beside(out).exists() or (out.exists() and not kept.exists()):
        raise InputError(f"{out}: exists and was not made by rlaif generate; move it away, or choose another --out.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(out, error) from None
    with closing(Ledger(kept)) as ledger:
        ledger.begin(0, "", "", model.digest)
        known = min(rows.rows, source.limit or rows.rows) if rows.rows is not None else None
        asker = Asker(
            ledger,
            lambda done: None,
            Placed(name, model, engine).load,
            atomic_batch_of(name),
            watch,
            rows=known,
            per_row=policy.n,
        )
        try:
            asker.run(request for row in prompts() if not isinstance(row, Reject) for request in requests(row[1]))
        except Interrupted:
            raise Interrupted(
                f"interrupted; responses so far are kept in {ledger.path}. Give the same command to continue."
            ) from None
        if not asker.tally.planned:
            raise none_usable(rows.name, prompts())
        counts = {"prompts": 0, "responses": 0, "failed": 0, "rejected": 0}
        with replacing(out) as file, replacing(rejects_beside(out)) as rejects:
            for row in prompts():
                found = [] if isinstance(row, Reject) else [ledger.get(r.key) for r in requests(row[1])]
                answers = [answer for answer in found if answer is not None]
                reject = row if isinstance(row, Reject) else _failed(*row, answers)
                if reject is not None:
                    rejects.write(reject_line(reject))
                    counts["rejected"] += 1
                    counts["failed"] += sum(fault_of(answer) is not None for answer in answers)
                elif not isinstance(row, Reject):
                    file.write(json.dumps(_line(row[1], answers, model), ensure_ascii=False) + "\n")
                    counts["prompts"] += 1
                    counts["responses"] += len(answers)
    tally = asker.tally
    tokens = {"completion_tokens": tally.completion_tokens, "seconds": tally.seconds}
    return GenerateSummary.model_validate(
        {"out": str(out), "asked": tally.asked, "reused": tally.reused, **counts, **tokens}
    )


def none_usable(name: str, rows: Iterable[tuple[int, Prompt] | Reject]) -> InputError:
    """Make the error for data without a usable prompt, with the first reason."""
    first = next((row for row in rows if isinstance(row, Reject)), None)
    return InputError(f"{name}: no prompt can be used{f'; line {first.line}: {first.reason}' if first else ''}.")


def rejects_beside(out: Path) -> Path:
    """Where the rejects of a file of responses are."""
    return out.with_name(f"{out.stem}.rejects.jsonl")


def _failed(line: int, prompt: Prompt, answers: list[Completion]) -> Reject | None:
    error = next(filter(None, map(fault_of, answers)), None)
    if error is None:
        return None
    return Reject(line, f"the policy gave no response: {error}", {"id": prompt.id})


def response_request(writer: Writer, prompt: Prompt, sample: int, question: str = "") -> JudgeRequest:
    """Ask a policy to answer a prompt."""
    messages = tuple(Message(role=turn.role, content=neutral_control(turn.content)) for turn in prompt.messages)
    return writer.request(prompt.id, messages, sample=sample, question=question)


def _line(prompt: Prompt, answers: list[Completion], model: ModelIdentity) -> dict[str, Any]:
    # A policy that thinks first is judged by what it says, not by what it thought.
    texts = [said(answer.rationale) for answer in answers]
    line: dict[str, Any] = {"id": prompt.id, "prompt": [turn.model_dump() for turn in prompt.messages]}
    if len(texts) == 2:
        line |= {"response_a": texts[0], "response_b": texts[1]}
    line |= {"responses": texts, "finish_reasons": [answer.finish_reason for answer in answers]}
    return {**line, "tags": dict(prompt.tags), "policy": {"name": model.name, "digest": model.digest}}
