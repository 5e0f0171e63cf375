"""Best of n: sample responses, score them, keep the best of each prompt, and say what that gained."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rlaif.data.pairs import Reject, parse_columns
from rlaif.data.sources import Source, open_source
from rlaif.engines.base import BaseUrl, EngineName
from rlaif.errors import InputError
from rlaif.files import check_output, is_stream, replacing
from rlaif.labeling.api import generate
from rlaif.labeling.ask import Watcher
from rlaif.labeling.generate import GenerateSummary, first_usable, none_usable, rejects_beside
from rlaif.optimize.candidates import Pool, score_pool
from rlaif.optimize.gains import BestOfN, Gains
from rlaif.optimize.picking import DIGITS, best_rows, check_rule, rule_scores, rules_for
from rlaif.rewards.aggregate import given_weights, pareto_ranks
from rlaif.rewards.preferences import Floats, Ints
from rlaif.rewards.score import Candidates, Rejects, load_heads, read_candidates, usable, windows
from rlaif.rewards.score import Watcher as RowWatcher
from rlaif.rewards.spec import HeadsSpec, read_spec

if TYPE_CHECKING:
    from rlaif.rewards.heads import RewardHeads

SAMPLES = 16
"""Responses a prompt that are sampled where nothing else is said."""


def best_of_n(
    prompts: str | Path,
    out: str | Path,
    *,
    heads: str | Path | RewardHeads,
    policy: str | None = None,
    n: int | None = None,
    pick: str | None = None,
    k: float = 1.0,
    weights: Mapping[str, float] | None = None,
    temperature: float = 1.0,
    max_tokens: int = 512,
    engine: EngineName = "auto",
    base_url: BaseUrl | None = None,
    concurrency: int = 128,
    engine_args: Mapping[str, Any] | None = None,
    seed: int = 0,
    limit: int | None = None,
    columns: str | None = None,
    split: str | None = None,
    config: str | None = None,
    batch_tokens: int | None = None,
    device: str | None = None,
    watch_samples: Watcher | None = None,
    watch_scores: RowWatcher | None = None,
) -> BestOfN:
    """Write the best response to each prompt to `out`, a line a prompt; of equally good ones the first.

    A line is `{"id", "prompt", "response", "place", "rewards", "std", "reward", "pareto_rank", "rule", "score", "n",
    "tags"}`, with `below_floors` where there are some and `policy` where one was sampled; `place` is the response's
    among the candidates, from 0, and `score` what the rule compared. Beside `out`, in place of its ending:

    - `OUT.candidates.jsonl`: all candidates with their rewards, a line a prompt (`responses`, and `scores` in the same
      order), which `rlaif score` and `rlaif reward overoptimize` take;
    - `OUT.responses.jsonl` with its ledger, where a policy was sampled: the same call again continues, and with a
      larger `n` samples only what is missing;
    - `OUT.rejects.jsonl`: rows that cannot be used.

    Args:
        prompts: with a policy any data with prompts; without, rows that hold `responses` (or pairs).
        heads: a folder or hub id, or loaded ones.
        n: responses a prompt: `SAMPLES` with a policy, without one all that a row holds (given, the first n of them).
        pick: a rule of `rlaif.optimize.picking`; `None` for that of the heads, weighted or pareto.
        k: deviations that the rule lower-bound takes off.
        weights: in place of those of the checkpoint, for every row.

    Raises:
        InputError: bad heads, data or options, or no usable row.
        RunError: a server, model or disk failed; samples so far are kept, and `out` is as it was.
    """
    out = Path(out)
    if n is not None and n < 2:
        raise InputError(f"--n {n}: there is nothing to pick from; expected 2 or more.")
    if not 0 <= k < math.inf:
        raise InputError(f"--k {k}: expected 0 or more, as 1.0.")
    # Before an hour of sampling, not after it.
    spec = _spec_of(heads)
    if weights is not None:
        given_weights(spec.objectives, weights, "--weights")
    rule = check_rule(spec, pick or spec.aggregation.method)
    _check_outputs(out, prompts, policy)
    sampled: GenerateSummary | None = None
    source = _Data(str(prompts), columns, split, config, limit, None if policy else n)
    if policy is not None:
        responses = beside(out, "responses")
        sampled = generate(
            prompts,
            responses,
            policy=policy,
            n=n or SAMPLES,
            temperature=temperature,
            max_tokens=max_tokens,
            engine=engine,
            base_url=base_url,
            limit=limit,
            seed=seed,
            concurrency=concurrency,
            engine_args=engine_args,
            columns=columns,
            split=split,
            config=config,
            watch=watch_samples,
        )
        if not sampled.prompts:
            raise InputError(f"{prompts}: every prompt was rejected; {rejects_beside(responses)} says why.")
        source = _Data(str(responses))
    data = source.open()
    loaded = load_heads(heads, device, weights)
    started = time.monotonic()
    work = _Work(loaded, rule, k, _policy_of(data) if sampled else None)
    gains = Gains(loaded.spec, rule, k)
    with ExitStack() as files:
        picks = files.enter_context(replacing(out))
        candidates = files.enter_context(replacing(beside(out, "candidates")))
        rejects = Rejects(files.enter_context(replacing(rejects_beside(out))))
        done = 0
        total = data.rows if source.limit is None or data.rows is None else min(source.limit, data.rows)
        for part in windows(usable(source.rows(data), rejects)):
            tell = _told(watch_scores, part, done, total)
            pool = score_pool(loaded, part, batch_tokens=batch_tokens, watch=tell, rejects=rejects)
            work.write(pool, gains, picks, candidates)
            done += len(part)
        if not gains.prompts:
            raise _none(data, rejects, source)
        if gains.most == 1:
            raise InputError(
                f"{data.name}: every row holds one response; expected the responses to a prompt in one row, as a list "
                "under responses. Or give --policy to sample some."
            )
    return gains.summary(
        out=str(out),
        candidates=str(beside(out, "candidates")),
        heads=str(loaded.path),
        policy=policy,
        rejected=rejects.count + (sampled.rejected if sampled else 0),
        asked=sampled.asked if sampled else 0,
        reused=sampled.reused if sampled else 0,
        seconds=time.monotonic() - started + (sampled.seconds if sampled else 0.0),
    )


def beside(out: Path, what: str) -> Path:
    """A file beside another: `picks.candidates.jsonl` for `picks.jsonl`."""
    return out.with_name(f"{out.stem}.{what}.jsonl")


@dataclass(frozen=True)
class _Data:
    """Where candidates are read; rows with fewer than `n` are rejects, and of more the first `n` count."""

    data: str
    columns: str | None = None
    split: str | None = None
    config: str | None = None
    limit: int | None = None
    n: int | None = None

    def open(self) -> Source:
        return open_source(self.data, split=self.split, config=self.config)

    def rows(self, source: Source) -> Iterator[Candidates | Reject]:
        found = map(self._cut, read_candidates(source, parse_columns(self.columns)))
        return first_usable(found, self.limit)

    def _cut(self, row: Candidates | Reject) -> Candidates | Reject:
        if isinstance(row, Reject) or self.n is None:
            return row
        there = len(row.responses)
        if there < self.n:
            return Reject(row.line, f"the row holds {there} responses; --n asks for {self.n}", {"id": row.id})
        return Candidates(row.line, row.id, row.prompt, row.responses[: self.n], row.names[: self.n], row.tags)


@dataclass(frozen=True)
class _Work:
    """What is done with a window of candidates."""

    heads: RewardHeads
    rule: str
    k: float
    policy: Mapping[str, Any] | None

    def write(self, pool: Pool, gains: Gains, picks: IO[str], candidates: IO[str]) -> None:
        spec = self.heads.spec
        rules = dict.fromkeys((*rules_for(spec), self.rule))
        scores = {rule: rule_scores(pool, spec, rule, self.k) for rule in rules}
        best = {rule: best_rows(pool, score) for rule, score in scores.items()}
        gains.add(pool, best)
        ranks = pareto_ranks(pool.rewards, pool.prompt_of)
        for place, (rows, row) in enumerate(zip(pool.slices(), best[self.rule].tolist(), strict=True)):
            head = {"id": pool.ids[place], "prompt": [turn.model_dump() for turn in pool.prompts[place]]}
            tail = {"tags": dict(pool.tags[place])} | ({"policy": self.policy} if self.policy else {})
            lines = _scores(pool, rows, ranks)
            chosen = row - rows.start
            pick = {
                **head,
                "response": pool.responses[place][chosen],
                "place": chosen,
                **lines[chosen],
                "rule": self.rule,
                "score": round(float(scores[self.rule][row]), DIGITS),
                "n": len(lines),
                **tail,
            }
            picks.write(_line(pick))
            candidates.write(_line({**head, "responses": pool.responses[place], "scores": lines, **tail}))


def _scores(pool: Pool, rows: slice, ranks: Ints) -> list[dict[str, Any]]:
    """What is said of each candidate of a prompt, under the names that `rlaif score` uses."""

    def named(values: Floats) -> dict[str, float]:
        return {name: round(value, DIGITS) for name, value in zip(pool.objectives, values.tolist(), strict=True)}

    std = pool.std
    found = []
    for row in range(rows.start, rows.stop):
        line: dict[str, Any] = {
            "rewards": named(pool.rewards[row]),
            "std": None if std is None else named(std[row]),
            "reward": round(float(pool.reward[row]), DIGITS),
            "pareto_rank": int(ranks[row]) if rows.stop - rows.start > 1 else None,
        }
        below = [name for name, short in zip(pool.objectives, pool.below[row], strict=True) if short]
        found.append(line | ({"below_floors": below} if below else {}))
    return found


def _line(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"


def _spec_of(heads: str | Path | RewardHeads) -> HeadsSpec:
    if not isinstance(heads, str | Path):
        return heads.spec
    from rlaif.rewards.heads_files import find_folder

    return read_spec(find_folder(str(heads)))


def _check_outputs(out: Path, prompts: str | Path, policy: str | None) -> None:
    if is_stream(out):
        raise InputError(f"--out {out}: no ordinary file; expected one, since the candidates are written beside it.")
    written = [out, beside(out, "candidates"), rejects_beside(out)]
    for each in written + ([beside(out, "responses")] if policy else []):
        check_output("--out", each, [prompts])


def _told(
    watch: RowWatcher | None, part: list[Candidates], before: int, total: int | None
) -> Callable[[int], None] | None:
    """Tell of rows where candidates are counted."""
    if watch is None:
        return None
    candidates = sum(len(row.responses) for row in part)
    return lambda done: watch(before + done * len(part) // candidates, total)


def _policy_of(responses: Source) -> Mapping[str, Any] | None:
    """The policy as its sampling names it, with its digest."""
    first = next(iter(responses.read()))
    found: Mapping[str, Any] | None = first.value.get("policy")
    return found


def _none(data: Source, rejects: Rejects, source: _Data) -> InputError:
    error = none_usable(data.name, rejects.first)
    row = rejects.first[0].row if rejects.first else None
    prompt = parse_columns(source.columns).get("prompt", "prompt")
    held = {"response", "responses", "response_a", "response_b", "chosen", "rejected"}
    if not isinstance(row, Mapping) or prompt not in row or held & row.keys():
        return error
    return InputError(f"{data.name}: prompts without responses; give --policy MODEL to sample some, or add responses.")
