"""Split a dataset into parts that are labelled apart: whole conversations, of about the same work."""

from __future__ import annotations

import heapq
import json
import shlex
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from rlaif.data.conversations import conversation_digest
from rlaif.data.pairs import Reject, holds_only_prompts, read_pairs, read_prompts
from rlaif.data.sources import Source, open_source
from rlaif.errors import InputError, RunError
from rlaif.files import making_folder, replacing
from rlaif.labeling.generate import first_usable
from rlaif.labeling.settings import DataSettings
from rlaif.labeling.write import reject_line
from rlaif.types import Frozen, Pair, Prompt

REJECTS = "rejects.jsonl"
MOST_PARTS = 500
# What a pair costs beside its own texts, in characters: the rationales that are written about it, whatever its length.
_A_ROW = 2000


class Part(Frozen):
    """One part: its file, and how much is in it."""

    file: str
    rows: int
    conversations: int
    characters: int


class ShardSummary(Frozen):
    """What a dataset was split into, and the commands that label the parts and put the runs together."""

    out: str
    rows: int
    rejected: int
    prompts_only: bool
    parts: list[Part]
    commands: list[str]


def shard(data: DataSettings, parts: int, out: Path) -> ShardSummary:
    """Split a dataset into `parts` files of JSON Lines in the folder `out`, each for a `rlaif label` of its own.

    Each usable row is in exactly one part, in the order of the data, with the id that `rlaif label` gives it in the
    whole dataset. Rows of one conversation are in one part. Parts are balanced by the characters of their texts and a
    constant a row: pairs alone would leave long conversations to one machine, characters alone short ones, and each
    pair has its rationales to be written. The largest conversations are given out first, each to the part with the
    least so far. Rows that cannot be used go to `rejects.jsonl`. The same call makes the same bytes.

    Raises:
        InputError: the data cannot be read, has fewer conversations than `parts`, or `out` holds anything else.
        RunError: the disk is full or the folder cannot be made; `out` is as it was.
    """
    if not 1 <= parts <= MOST_PARTS:
        raise InputError(f"--parts {parts}: expected 1 to {MOST_PARTS}.")
    source = open_source(data.data, split=data.split, config=data.config)
    prompts_only = holds_only_prompts(source, data.columns)
    digits = len(str(parts))
    files = [f"part-{number:0{digits}}-of-{parts}.jsonl" for number in range(1, parts + 1)]

    def rows() -> Iterator[Pair | Prompt | Reject]:
        read: Iterator[tuple[int, Pair] | tuple[int, Prompt] | Reject]
        read = read_prompts(source, data.columns) if prompts_only else read_pairs(source, data.columns)
        used: Iterator[tuple[int, Pair] | tuple[int, Prompt] | Reject] = first_usable(read, data.limit)
        for row in used:
            if isinstance(row, Reject):
                yield row
            else:
                yield row[1]

    with making_folder(out, again=(*files, REJECTS)) as folder, closing(Conversations(source)) as conversations:
        rejected, why = 0, ""
        with replacing(folder / REJECTS) as file:
            for row in rows():
                if isinstance(row, Reject):
                    file.write(reject_line(row))
                    rejected, why = rejected + 1, why or f"; line {row.line}: {row.reason}"
                else:
                    conversations.add(row)
        if not conversations.known:
            raise InputError(f"{source.name}: no row can be used{why}.")
        loads = conversations.share_out(parts)
        with ExitStack() as opened:
            written = [opened.enter_context(replacing(folder / name)) for name in files]
            for row in rows():
                if not isinstance(row, Reject):
                    written[conversations.part_of(row)].write(_line(row))
    made = [
        Part(file=str(out / name), rows=count, conversations=groups, characters=weight - _A_ROW * count)
        for name, (count, groups, weight) in zip(files, loads, strict=True)
    ]
    return ShardSummary(
        out=str(out),
        rows=sum(part.rows for part in made),
        rejected=rejected,
        prompts_only=prompts_only,
        parts=made,
        commands=_commands(made, data, source, out, prompts_only=prompts_only),
    )


class Conversations:
    """How much there is of each conversation, and its part; in a temporary file, so that memory stays flat."""

    def __init__(self, source: Source) -> None:
        self._name = source.name
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -8000;"
            "CREATE TABLE conversations (digest BLOB PRIMARY KEY, first INTEGER, rows INTEGER, weight INTEGER)"
            " WITHOUT ROWID; CREATE TABLE parts (digest BLOB PRIMARY KEY, part INTEGER) WITHOUT ROWID; BEGIN"
        )
        self._count = 0

    @property
    def known(self) -> int:
        """How many different ones there are."""
        return int(self._db.execute("SELECT count(*) FROM conversations").fetchone()[0])

    def add(self, row: Pair | Prompt) -> None:
        """Count a row to its conversation."""
        self._count += 1
        query = (
            "INSERT INTO conversations VALUES (?, ?, 1, ?) "
            "ON CONFLICT DO UPDATE SET rows = rows + 1, weight = weight + excluded.weight"
        )
        self._db.execute(query, (_conversation(row), self._count, _characters(row) + _A_ROW))

    def share_out(self, parts: int) -> list[tuple[int, int, int]]:
        """Give every conversation a part; returns rows, conversations and weight of each part.

        Raises:
            InputError: there are fewer than `parts`.
        """
        if self.known < parts:
            raise InputError(
                f"--parts {parts}: {self._name} has only {self.known:,} different prompts, and the rows of one prompt "
                f"stay together; give --parts {self.known} or fewer."
            )
        loads = [(0, 0, 0)] * parts
        lightest = [(0, part) for part in range(parts)]
        query = "SELECT digest, rows, weight FROM conversations ORDER BY weight DESC, first"
        for digest, rows, weight in self._db.execute(query):
            load, part = lightest[0]
            heapq.heapreplace(lightest, (load + weight, part))
            had = loads[part]
            loads[part] = (had[0] + rows, had[1] + 1, had[2] + weight)
            self._db.execute("INSERT INTO parts VALUES (?, ?)", (digest, part))
        return loads

    def part_of(self, row: Pair | Prompt) -> int:
        """The number of a row's part, from 0.

        Raises:
            RunError: its conversation was not there before.
        """
        found = self._db.execute("SELECT part FROM parts WHERE digest = ?", (_conversation(row),)).fetchone()
        if found is None:
            raise RunError(f"{self._name}: changed while it was read; give the same command again.")
        return int(found[0])

    def close(self) -> None:
        """Let the temporary file go."""
        self._db.close()


def _conversation(row: Pair | Prompt) -> bytes:
    return conversation_digest(row.prompt if isinstance(row, Pair) else row.messages)


def _line(row: Pair | Prompt) -> str:
    if isinstance(row, Pair):
        return row.model_dump_json() + "\n"
    value = row.model_dump(mode="json")
    return json.dumps({"id": row.id, "prompt": value["messages"], "tags": value["tags"]}, ensure_ascii=False) + "\n"


def _characters(row: Pair | Prompt) -> int:
    if isinstance(row, Prompt):
        return sum(len(turn.content) for turn in row.messages)
    return sum(len(turn.content) for turn in row.prompt) + len(row.response_a) + len(row.response_b)


def _commands(parts: Sequence[Part], data: DataSettings, source: Source, out: Path, *, prompts_only: bool) -> list[str]:
    """The command that labels each part, and the one that merges the runs."""
    sampled, run = " --policy MODEL" if prompts_only else "", shlex.quote(f"runs/{out.resolve().name}")
    ends = [Path(part.file).stem.removeprefix("part") for part in parts]
    labelled = [
        f"rlaif label {shlex.quote(part.file)}{sampled} --out {run}{end}" for part, end in zip(parts, ends, strict=True)
    ]
    # The shell sorts them as they are numbered, the numbers being of one width.
    runs = f"{run}-{'?' * len(str(len(parts)))}-of-{len(parts)}"
    columns = ",".join(f"{name}={column}" for name, column in data.columns.items())
    given = {"--columns": columns, "--split": data.split, "--config": data.config, "--limit": data.limit}
    options = [shlex.join([name, str(value)]) for name, value in given.items() if value]
    # Of a policy's runs the pairs are the responses that were sampled.
    whole = [] if prompts_only else ["--data", shlex.quote(source.name), *options]
    return [*labelled, " ".join(["rlaif runs merge", runs, *whole, "--out", f"{run}-merged"])]
