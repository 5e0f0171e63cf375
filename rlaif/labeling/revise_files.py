"""The files of `rlaif revise`: every step of every chain, and the training rows and pairs that these make."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rlaif.data.pairs import Reject, side_of
from rlaif.errors import InputError
from rlaif.files import replacing
from rlaif.labeling.chains import Chain
from rlaif.labeling.manifest import manifest_beside
from rlaif.labeling.write import reject_line
from rlaif.store import holds_answers


@dataclass(frozen=True)
class ReviseFiles:
    """Where everything of one `--out` is: the chains in `out`, the others beside it, named after it."""

    out: Path

    @property
    def ledger(self) -> Path:
        """Every answer."""
        return self.out.with_name(f"{self.out.name}.db")

    @property
    def sft(self) -> Path:
        """Training rows."""
        return self._beside("sft")

    @property
    def pairs(self) -> Path:
        """First response and last revision."""
        return self._beside("pairs")

    @property
    def rejects(self) -> Path:
        """Rows and chains that could not be used."""
        return self._beside("rejects")

    @property
    def written(self) -> tuple[Path, ...]:
        """What is written anew at the end of each call."""
        return self.out, self.sft, self.pairs, self.rejects

    def _beside(self, what: str) -> Path:
        return self.out.with_name(f"{self.out.stem}.{what}.jsonl")

    def refuse_others(self, data: str) -> None:
        """Refuse to overwrite what is to be read, and what another command made.

        Raises:
            InputError: a file is in the way.
        """
        source = Path(data).resolve()
        if any(path.resolve() == source for path in self.written):
            raise InputError(f"{data}: would be overwritten by --out {self.out}; choose another --out.")
        if manifest_beside(self.out).exists():
            return
        held = next((path for path in self.written if path.exists()), None)
        if held is None and holds_answers(self.ledger):
            held = self.ledger
        if held is not None:
            raise InputError(f"{held}: exists and was not made by rlaif revise; move it away, or choose another --out.")


@dataclass
class Counts:
    """Lines written, and rows and chains that were not."""

    prompts: int = 0
    chains: int = 0
    pairs: int = 0
    unchanged: int = 0
    truncated: int = 0
    failed: int = 0
    rejected: int = 0


@dataclass
class _Open:
    """The files being written."""

    out: TextIO
    sft: TextIO
    pairs: TextIO
    rejects: TextIO


def write_chains(
    rows: Iterable[tuple[int, Chain] | Reject], files: ReviseFiles, *, n: int, provenance: Mapping[str, Any]
) -> Counts:
    """Write all files, each put in place whole.

    Args:
        rows: finished or failed chains with the line of their row, and rows that cannot be used, in the data's order.
        n: chains a prompt; of several, each line's id ends in the chain's number.
        provenance: stands in every line of `out`; its `policy` is `None` where the response came with the prompt.

    Raises:
        RunError: the disk is full, or the folder cannot be written.
    """
    counts = Counts()
    last: str | None = None
    with ExitStack() as opened:
        into = _Open(*(opened.enter_context(replacing(path)) for path in files.written))
        for row in rows:
            if isinstance(row, Reject):
                into.rejects.write(reject_line(row))
                counts.rejected += 1
                continue
            line, chain = row
            if chain.failure is not None:
                held = {"id": chain.prompt.id, "chain": chain.number}
                into.rejects.write(reject_line(Reject(line, chain.failure, held)))
                counts.failed += 1
                continue
            counts.prompts += chain.prompt.id != last
            last = chain.prompt.id
            name = chain.prompt.id if n == 1 else f"{chain.prompt.id}-{chain.number}"
            _write_chain(chain, name, provenance, into, counts)
    return counts


def _write_chain(chain: Chain, name: str, provenance: Mapping[str, Any], into: _Open, counts: Counts) -> None:
    prompt, first, revision = chain.prompt, chain.texts[0], chain.texts[-1]
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
    made_with = {**provenance, **({"policy": None} if prompt.response is not None else {})}
    _write_line(into.out, whole | {"tags": dict(prompt.tags), "provenance": made_with})
    completion = [{"role": "assistant", "content": revision}]
    _write_line(into.sft, head | {"completion": completion, "finish_reason": finish[-1]})
    counts.chains += 1
    counts.truncated += truncated
    if first.strip() == revision:
        counts.unchanged += 1
        return
    side = side_of(revision, first)
    a, b = (revision, first) if side == "a" else (first, revision)
    tags = {**prompt.tags, "revised": side, **({"truncated": True} if truncated else {})}
    _write_line(into.pairs, head | {"response_a": a, "response_b": b, "tags": tags})
    counts.pairs += 1


def _write_line(file: TextIO, value: dict[str, Any]) -> None:
    file.write(json.dumps(value, ensure_ascii=False) + "\n")
