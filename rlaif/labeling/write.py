"""Write `labels.jsonl` and `rejects.jsonl` from the ledger: streamed, then put in place whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlaif.constitution import Constitution
from rlaif.data.pairs import Reject
from rlaif.files import replacing
from rlaif.labeling.ask import chunks
from rlaif.labeling.labels import fold_label
from rlaif.store import Ledger
from rlaif.types import Label, Pair, Provenance, Verdict

_PAIRS_AT_ONCE = 200


@dataclass
class Written:
    """Lines written."""

    pairs: int = 0
    rejected: int = 0


def write_labels(
    rows: Iterable[tuple[int, Pair] | Reject],
    ledger: Ledger,
    constitution: Constitution,
    objectives: Sequence[str],
    provenance: Provenance,
    out: Path,
    *,
    rated: bool = False,
    temperatures: Mapping[str, float] | None = None,
) -> Written:
    """Fold every pair's verdicts (ratings where they are `rated`) into its label, in the order of the data.

    Objectives that `temperatures` names are calibrated; the ledger keeps what the judge said.
    """

    def fold(pairs: Sequence[Pair]) -> Iterator[tuple[Sequence[Verdict], Label]]:
        verdicts = ledger.verdicts([pair.id for pair in pairs])
        for pair in pairs:
            mine = verdicts[pair.id]
            yield (
                mine,
                fold_label(constitution, pair, objectives, mine, provenance, rated=rated, temperatures=temperatures),
            )

    return write_folded(rows, fold, out)


def write_folded(
    rows: Iterable[tuple[int, Pair] | Reject],
    fold: Callable[[Sequence[Pair]], Iterable[tuple[Sequence[Verdict], Label]]],
    out: Path,
) -> Written:
    """Write the labels that `fold` makes of pairs, each with the verdicts that it is made of.

    A pair of which every judgment ended in an error (longer than the judge's context, refused by the server) goes to
    the rejects with the reason: there is nothing in it to learn from.
    """
    written = Written()
    with replacing(out / "labels.jsonl") as labels, replacing(out / "rejects.jsonl") as rejects:
        for part in chunks(rows, _PAIRS_AT_ONCE):
            folded = iter(fold([row[1] for row in part if not isinstance(row, Reject)]))
            for row in part:
                reject: Reject | None
                label: Label | None
                if isinstance(row, Reject):
                    reject, label = row, None
                else:
                    verdicts, label = next(folded)
                    reject = _failed(*row, verdicts)
                if reject is not None:
                    rejects.write(reject_line(reject))
                    written.rejected += 1
                elif label is not None:
                    labels.write(label.model_dump_json() + "\n")
                    written.pairs += 1
    return written


def _failed(line: int, pair: Pair, verdicts: Sequence[Verdict]) -> Reject | None:
    if not verdicts or any(verdict.status != "error" for verdict in verdicts):
        return None
    row = {"id": pair.id, "prompt": [turn.content[:200] for turn in pair.prompt[-1:]]}
    row |= {"response_a": pair.response_a[:200], "response_b": pair.response_b[:200]}
    return Reject(line, verdicts[0].reason or "every judgment failed", row)


def read_rejects(path: Path) -> Iterator[Reject]:
    """Read a file of rejects back."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield Reject(**json.loads(line))


def reject_line(reject: Reject) -> str:
    """One line of `rejects.jsonl`."""
    value = {"line": reject.line, "reason": reject.reason, "row": reject.row}
    return json.dumps(value, ensure_ascii=False, default=str) + "\n"
