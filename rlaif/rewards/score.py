"""Score a file: rows of any shape in, a line a response out, in bounded memory."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rlaif.data.pairs import Reject, parse_columns, read_pairs, read_prompts
from rlaif.data.sources import Row, Source, open_source
from rlaif.engines.chat import RefusedMessages
from rlaif.errors import InputError
from rlaif.files import check_output, is_stream, replacing
from rlaif.labeling.generate import first_usable, none_usable, rejects_beside
from rlaif.labeling.write import reject_line
from rlaif.types import Frozen, Message, Pair, Prompt, TagValue

if TYPE_CHECKING:
    from rlaif.rewards.heads import RewardHeads
    from rlaif.rewards.spec import Precision

Watcher = Callable[[int, int | None], None]
"""Told how many rows are done and how many there are, where that is known."""

# Of a window.
_RESPONSES, _CHARACTERS = 4096, 4_000_000
_DIGITS = 6


class ScoreSummary(Frozen):
    """What was scored.

    `below_floors` counts the responses that do not reach an objective's floor; `truncated` those of which the
    conversation was cut, from its beginning, to the longest length the heads take.
    """

    out: str
    heads: str
    rows: int
    responses: int
    rejected: int
    truncated: int
    below_floors: Mapping[str, int]
    seconds: float


@dataclass(frozen=True)
class Candidates:
    """One row: a prompt and the responses to it; `names` are `a` and `b` of a pair, else places from 0."""

    line: int
    id: str
    prompt: tuple[Message, ...]
    responses: tuple[str, ...]
    names: tuple[str | int, ...]
    tags: Mapping[str, TagValue]

    @property
    def characters(self) -> int:
        """Length of all that is read for it."""
        whole = sum(len(turn.content) for turn in self.prompt)
        return sum(whole + len(response) for response in self.responses)


class _Feed:
    """Hands a reader one row at a time: each answers a row with one value, and rows go to the reader of their shape."""

    def __init__(self) -> None:
        self._row: list[Row] = []
        self.source = Source("", "", None, self._rows)

    def _rows(self) -> Iterator[Row]:
        while True:
            yield self._row.pop()

    def give(self, row: Row) -> None:
        self._row.append(row)


def read_candidates(source: Source, columns: Mapping[str, str]) -> Iterator[Candidates | Reject]:
    """Yield each row's candidates, and a `Reject` for each row that cannot be used.

    A row is a pair in any shape that `rlaif label` takes, a prompt with one `response`, or a prompt with a list of
    `responses`, as `rlaif generate` writes it.
    """
    feeds = _Feed(), _Feed()
    pairs = read_pairs(feeds[0].source, columns)
    prompts = read_prompts(feeds[1].source, columns, responses=True)
    for row in source.read():
        given = {**dict.fromkeys(row.value, True)} if isinstance(row.value, Mapping) else {}
        names = given.keys() | {name for name, column in columns.items() if column in given}
        several = "responses" in names and not {"response_a", "response_b"} & names
        if several or ("response" in names and not {"response_a", "response_b", "chosen", "rejected"} & names):
            feeds[1].give(_without_response(row) if several else row)
            prompt = next(prompts)
            yield prompt if isinstance(prompt, Reject) else _of_prompt(*prompt, row.value, several)
        else:
            feeds[0].give(row)
            pair = next(pairs)
            yield pair if isinstance(pair, Reject) else _of_pair(*pair)


def _without_response(row: Row) -> Row:
    # A list of responses has the say where a row has one response as well.
    return Row(row.line, {name: value for name, value in row.value.items() if name != "response"}, row.fault)


def _of_pair(line: int, pair: Pair) -> Candidates:
    return Candidates(line, pair.id, pair.prompt, (pair.response_a, pair.response_b), ("a", "b"), pair.tags)


def _of_prompt(line: int, prompt: Prompt, value: Mapping[str, Any], several: bool) -> Candidates | Reject:
    if not several:
        if prompt.response is None:
            return Reject(line, "response is missing", dict(value))
        return Candidates(line, prompt.id, prompt.messages, (prompt.response,), (0,), prompt.tags)
    responses = value["responses"]
    if not isinstance(responses, list | tuple) or not responses:
        return Reject(line, "responses is no list, or an empty one; expected a list of texts", dict(value))
    for number, text in enumerate(responses, start=1):
        fault = _fault(text)
        if fault is not None:
            return Reject(line, f"responses: response {number} {fault}", {"id": prompt.id})
    names = tuple(range(len(responses)))
    return Candidates(line, prompt.id, prompt.messages, tuple(responses), names, prompt.tags)


def _fault(text: Any) -> str | None:
    if not isinstance(text, str):
        return "is not a text"
    if "\x00" in text:
        return "holds a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "holds a lone surrogate"
    return None


def score_file(
    heads: str | Path | RewardHeads,
    data: str,
    out: str | Path,
    *,
    columns: str | None = None,
    split: str | None = None,
    config: str | None = None,
    limit: int | None = None,
    strict: bool = False,
    weights: Mapping[str, float] | None = None,
    batch_tokens: int | None = None,
    device: str | None = None,
    precision: Precision | None = None,
    watch: Watcher | None = None,
) -> ScoreSummary:
    """Write a line a response to `out`, in the order of the data.

    A line is `{"id", "response": "a"|"b"|n, "rewards": {objective: x}, "std": {objective: x} or null, "reward": x,
    "pareto_rank": k or null}`, and `below_floors` where there are some; see `Reward`. Responses of one row are ranked
    among each other. Rows that cannot be used go to `OUT.rejects.jsonl` (in place of OUT's ending).

    Args:
        heads: a folder or hub id, or loaded ones.
        weights: in place of those of the checkpoint, for every row; see `RewardHeads.with_weights`.
        precision: of heads that are not loaded yet; `None`: float32 on a CPU, elsewhere as they were saved.
        watch: told how many rows are done.

    Raises:
        InputError: bad heads, data or options, no usable row, or with `strict` any row that cannot be used.
        RunError: the disk is full, or a GPU's memory too small; `out` is as it was.
    """
    out = Path(out)
    source = open_source(data, split=split, config=config)
    named = parse_columns(columns)
    check_output("--out", out, [data])
    if strict:
        _refuse_rejects(source.name, first_usable(read_candidates(source, named), limit))
    loaded = load_heads(heads, device, weights, precision)
    # The time to load them is not counted.
    started = time.monotonic()
    counts: Counter[str] = Counter()
    below: Counter[str] = Counter()
    total = source.rows if limit is None or source.rows is None else min(limit, source.rows)
    device_out = is_stream(out)
    rows = first_usable(read_candidates(source, named), limit)
    with replacing(out) as file, nullcontext() if device_out else replacing(rejects_beside(out)) as rejected:
        rejects = Rejects(rejected)
        for part in windows(usable(rows, rejects)):
            tell = _told(watch, counts, len(part), total)
            for line in _scored(loaded, part, batch_tokens, tell, counts, rejects):
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                below.update(line.get("below_floors", ()))
        if not counts["rows"]:
            raise none_usable(source.name, rejects.first)
    return ScoreSummary(
        out=str(out),
        heads=str(loaded.path),
        rows=counts["rows"],
        responses=counts["responses"],
        rejected=rejects.count,
        truncated=counts["truncated"],
        below_floors={name: below[name] for name in loaded.spec.objectives if name in loaded.spec.aggregation.floors},
        seconds=time.monotonic() - started,
    )


def load_heads(
    heads: str | Path | RewardHeads,
    device: str | None,
    weights: Mapping[str, float] | None,
    precision: Precision | None = None,
) -> RewardHeads:
    """Heads of a folder or hub id, or those given; with other weights where there are some."""
    import torch

    from rlaif.rewards.heads import RewardHeads

    dtype = None if precision is None else getattr(torch, precision)
    loaded = heads if isinstance(heads, RewardHeads) else RewardHeads.load(heads, device=device, dtype=dtype)
    return loaded if weights is None else loaded.with_weights(weights, place="--weights")


def _refuse_rejects(name: str, rows: Iterable[Candidates | Reject]) -> None:
    rejects = [row for row in rows if isinstance(row, Reject)]
    if rejects:
        noun = "row" if len(rejects) == 1 else "rows"
        lines = [f"{name}:{reject.line}: {reject.reason}" for reject in rejects[:20]]
        more = "" if len(rejects) <= 20 else ", of which the first 20 are above"
        last = f"{len(rejects):,} {noun} cannot be used{more}; fix them or drop --strict. Nothing was scored."
        raise InputError("\n".join([*lines, last]))


class Rejects:
    """Where rejects go; how many there are, and the first.

    Args:
        file: where their lines go; `None` for nowhere.
    """

    def __init__(self, file: IO[str] | None) -> None:
        self._file = file
        self.count = 0
        self.first: list[Reject] = []

    def add(self, reject: Reject) -> None:
        """Write one, and count it."""
        self.count += 1
        self.first = self.first or [reject]
        if self._file is not None:
            self._file.write(reject_line(reject))


def usable(rows: Iterable[Candidates | Reject], rejects: Rejects) -> Iterator[Candidates]:
    """The rows that can be used; the others go to the rejects."""
    for row in rows:
        if isinstance(row, Candidates):
            yield row
        else:
            rejects.add(row)


def windows(rows: Iterable[Candidates]) -> Iterator[list[Candidates]]:
    """Rows that are scored together: enough to fill batches with like lengths, and a bound on memory."""
    part: list[Candidates] = []
    responses = characters = 0
    for row in rows:
        part.append(row)
        responses, characters = responses + len(row.responses), characters + row.characters
        if responses >= _RESPONSES or characters >= _CHARACTERS:
            yield part
            part, responses, characters = [], 0, 0
    if part:
        yield part


def _told(watch: Watcher | None, counts: Counter[str], rows: int, total: int | None) -> Callable[[float], None] | None:
    if watch is None:
        return None
    before = counts["rows"]
    return lambda share: watch(before + int(share * rows), total)


def _scored(
    heads: RewardHeads,
    part: list[Candidates],
    batch_tokens: int | None,
    tell: Callable[[float], None] | None,
    counts: Counter[str],
    rejects: Rejects,
) -> Iterator[dict[str, Any]]:
    """The lines of a window; rows that the chat template does not take go to the rejects."""
    places = [(row, name) for row in part for name in row.names]
    prompts = [row.prompt for row, _ in places]
    responses = [response for row in part for response in row.responses]
    watch = None if tell is None else lambda done: tell(done / len(responses))
    try:
        raw = heads.raw(prompts, responses, batch_tokens=batch_tokens, watch=watch)
    except RefusedMessages:
        # Nothing is computed before all is encoded.
        part = [row for row in part if taken_by_template(heads, row, rejects)]
        if part:
            yield from _scored(heads, part, batch_tokens, tell, counts, rejects)
        return
    groups = [place for place, row in enumerate(part) for _ in row.names]
    rewards = heads.rewards(prompts, raw, tags=[row.tags for row, _ in places], groups=groups)
    counts["rows"] += len(part)
    counts["responses"] += len(responses)
    counts["truncated"] += raw.truncated
    for (row, name), reward in zip(places, rewards, strict=True):
        line = {
            "id": row.id,
            "response": name,
            "rewards": _rounded(reward.rewards),
            "std": None if reward.std is None else _rounded(reward.std),
            "reward": round(reward.reward, _DIGITS),
            "pareto_rank": reward.pareto_rank,
        }
        yield line | ({"below_floors": list(reward.below_floors)} if reward.below_floors else {})


def taken_by_template(heads: RewardHeads, row: Candidates, rejects: Rejects) -> bool:
    """Whether the heads' chat template takes a row's conversations; one that it does not goes to the rejects."""
    try:
        heads.backbone.encoder.conversations((row.prompt, response) for response in row.responses)
    except RefusedMessages as error:
        rejects.add(Reject(row.line, str(error), {"id": row.id}))
        return False
    return True


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    # What the last digits say depends on the batch, not on the response.
    return {name: round(value, _DIGITS) for name, value in values.items()}
