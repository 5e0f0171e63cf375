"""Labels in, from any number of sources: one table of pairs with a soft target for each objective.

A source is written `PATH[+LABELS][:OBJECTIVES][@WEIGHT]`:

    runs/one                                 a run of rlaif label, or its labels.jsonl
    preferences.jsonl:helpfulness            preference data (prompt, chosen, rejected), its objective given a name
    pairs.jsonl+human.jsonl                  pairs and their labels kept apart: people's, or recorded judges'
    runs/one@0.5                             labels that count half
    pairs.jsonl+labels.jsonl:overall=helpfulness@2
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt

from rlaif.data.conversations import conversation_digest
from rlaif.data.spilled import SpilledPairs
from rlaif.errors import InputError, nearest
from rlaif.rewards.identity import pair_digest, same_response
from rlaif.rewards.preferences import Floats, Ints, LabelSource, Preferences
from rlaif.rewards.source_labels import EQUAL, NO_LABEL, Confidence, SourceLabels, read_source
from rlaif.rewards.source_pairs import CHOSEN, Keep
from rlaif.rewards.source_text import FORM, SourceText, parse_source
from rlaif.types import Pair, TagValue

# Tags that tell of response a or b, and not of the pair.
_OF_ONE_SIDE = frozenset({CHOSEN, "cmp_key"})


def read_preferences(
    sources: Sequence[str],
    *,
    objectives: Sequence[str] | None = None,
    confidence: Confidence = "none",
    columns: Mapping[str, str] | None = None,
    allow_missing: bool = False,
    spill: Path | None = None,
) -> Preferences:
    """Read labels from one source or several into one table.

    The soft target of a judge is its `p_a`, and where there is none its preference: 1, 0, or 0.5 for a tie. Of people
    it is the share that prefers a, a tie half. A pair counts 1 however many people or judges a source has for it, times
    the source's weight. Labels of the same pair (the same prompt and responses, swapped or not) and objective become
    one: the weighted mean of the targets with the sum of the weights. The overall label of a run follows from the
    others, and is an objective only where it is asked for. Pairs with equal responses or without a label are left out.

    Args:
        sources: as the module says.
        objectives: names and order of the objectives; without it all that were labelled, in the order found.
        confidence: `order-gap`: a judge's label counts 1 less the gap between its two orders.
        columns: names of columns in pairs and preference data, ours to theirs.
        allow_missing: an objective of `objectives` may have no label at all (other data to evaluate on).
        spill: a folder: the texts of the pairs are kept in an unnamed file there and not in memory.

    Raises:
        InputError: a source cannot be used, an objective has no labels, or no pair is left.
        RunError: a run's labels cannot be read, or `spill` cannot be written to.
    """
    if isinstance(sources, str):
        sources = [sources]
    if not sources:
        raise InputError(f"no labels are given; expected one source or more, {FORM}.")
    if confidence not in get_args(Confidence):
        raise InputError(f"--confidence {confidence}: expected {' or '.join(get_args(Confidence))}.")
    _refuse_twice(objectives or ())
    texts = [parse_source(source) for source in sources]
    _refuse_overlap(texts)
    keep: Keep = list if spill is None else partial(SpilledPairs, spill)
    read = [
        read_source(text, columns=columns or {}, wanted=objectives or None, confidence=confidence, keep=keep)
        for text in texts
    ]
    names = tuple(objectives or dict.fromkeys(name for source in read for name in source.columns))
    if not allow_missing:
        _refuse_missing(names, read)
    table = _Table(names, keep)
    found = tuple(table.add(source) for source in read)
    return table.preferences(found, [note for source in read for note in source.notes])


class _Table:
    """Pairs by what they say, and the labels of all sources as rows."""

    def __init__(self, names: tuple[str, ...], keep: Keep) -> None:
        self.names = names
        self.pairs = keep()
        self.conversation: list[int] = []
        self._row: dict[bytes, tuple[int, bool]] = {}
        self._groups: dict[bytes, int] = {}
        self._ids: set[str] = set()
        # Cells of the table, row times objectives plus objective, with a label each.
        self._cell: list[Ints] = []
        self._target: list[Floats] = []
        self._weight: list[Floats] = []

    def add(self, source: SourceLabels) -> LabelSource:
        """Take one source's pairs and labels, and tell what was taken."""
        size = len(source.pairs)
        taken = {name: source.columns[name] for name in self.names if name in source.columns}
        labelled, equal = np.zeros(size, dtype=np.bool_), np.zeros(size, dtype=np.bool_)
        for column in taken.values():
            labelled[column.row] = True
        rows, turned = np.full(size, -1, dtype=np.int64), np.zeros(size, dtype=np.bool_)
        for place in np.flatnonzero(labelled).tolist():
            pair = source.pairs[place]
            if same_response(pair):
                equal[place] = True
            else:
                rows[place], turned[place] = self._place(pair)
        source.pairs.clear()
        labels = 0
        for name, column in taken.items():
            kept = ~equal[column.row]
            at, target = column.row[kept], column.target[kept]
            self._cell.append(rows[at] * len(self.names) + self.names.index(name))
            self._target.append(np.where(turned[at], 1 - target, target))
            self._weight.append(column.weight[kept] * source.text.weight)
            labels += len(at)
        left_out = Counter(source.left_out)
        left_out[EQUAL], left_out[NO_LABEL] = int(equal.sum()), int((~labelled).sum())
        for reason, count in ((EQUAL, left_out[EQUAL]), (NO_LABEL, left_out[NO_LABEL])):
            if count:
                source.notes.append(f"{source.text.text}: {reason}: {count:,} of {size:,} pairs, left out.")
        return LabelSource(
            name=source.text.text,
            kind=source.kind,
            weight=source.text.weight,
            pairs=int((labelled & ~equal).sum()),
            labels=labels,
            digest=source.digest,
            constitution=source.constitution,
            judge=source.judge,
            left_out={reason: count for reason, count in left_out.items() if count},
        )

    def _place(self, pair: Pair) -> tuple[int, bool]:
        """The row of a pair, a new one where it is new, and whether its responses stand the other way round there."""
        conversation = conversation_digest(pair.prompt)
        digest, swapped = pair_digest(conversation, pair)
        met = self._row.get(digest)
        if met is not None:
            row, first_swapped = met
            self._add_tags(row, pair)
            return row, swapped is not first_swapped
        row = len(self.pairs)
        self._row[digest] = row, swapped
        self.conversation.append(self._groups.setdefault(conversation, len(self._groups)))
        self.pairs.append(self._renamed(pair))
        return row, False

    def _renamed(self, pair: Pair) -> Pair:
        """The pair under an id of its own and without the tag that tells its label."""
        name, copies = pair.id, 1
        while name in self._ids:
            copies += 1
            name = f"{pair.id}~{copies}"
        self._ids.add(name)
        if name == pair.id and CHOSEN not in pair.tags:
            return pair
        tags = {tag: value for tag, value in pair.tags.items() if tag != CHOSEN}
        return _pair(name, pair, tags)

    def _add_tags(self, row: int, again: Pair) -> None:
        """Take the tags that a pair has only in a later source, but for those that tell of one side."""
        first = self.pairs[row]
        more = {
            tag: value
            for tag, value in again.tags.items()
            if tag not in first.tags and tag not in _OF_ONE_SIDE and not tag.endswith(("_a", "_b"))
        }
        if more:
            self.pairs[row] = _pair(first.id, first, {**first.tags, **more})

    def preferences(self, sources: tuple[LabelSource, ...], notes: list[str]) -> Preferences:
        """Fold the labels of each pair and objective into one."""
        if not self.pairs:
            why = "; ".join(notes) or "they hold no labels"
            raise InputError(f"{', '.join(source.name for source in sources)}: no labelled pair is left: {why}")
        shape = len(self.pairs), len(self.names)
        cells = shape[0] * shape[1]
        cell, label, counts = (np.concatenate(parts) for parts in (self._cell, self._target, self._weight))
        count = np.bincount(cell, minlength=cells).astype(np.int64)
        weight = np.bincount(cell, weights=counts, minlength=cells).astype(np.float64)
        target = np.full(cells, np.nan)
        there = count > 0
        target[there] = np.bincount(cell, weights=counts * label, minlength=cells)[there] / weight[there]
        # A label that stands alone stays as it was told, to the last digit.
        alone = count[cell] == 1
        target[cell[alone]] = label[alone]
        target = np.clip(target, 0.0, 1.0).reshape(shape)
        for_a, for_b = (np.bincount(cell, weights=side, minlength=cells) > 0 for side in (label > 0.5, label < 0.5))
        return Preferences(
            self.names,
            self.pairs,
            target,
            weight.reshape(shape),
            np.array(self.conversation, dtype=np.int64),
            sources,
            (*notes, *_notes(self.names, target, count.reshape(shape), (for_a & for_b).reshape(shape))),
        )


def _pair(name: str, pair: Pair, tags: Mapping[str, TagValue]) -> Pair:
    """The same texts under another id or with other tags; a copy of the model takes several times as long."""
    return Pair(id=name, prompt=pair.prompt, response_a=pair.response_a, response_b=pair.response_b, tags=tags)


def _notes(names: Sequence[str], target: Floats, count: Ints, split: npt.NDArray[np.bool_]) -> list[str]:
    """What a person should know of each objective's labels, arrays (pairs, objectives)."""
    notes = []
    for column, name in enumerate(names):
        known = target[:, column][count[:, column] > 0]
        several = int((count[:, column] > 1).sum())
        if several:
            contradict = int(split[:, column].sum())
            notes.append(
                f"{name}: {several:,} pairs have several labels, which count as their weighted mean; on {contradict:,} "
                "of them the labels prefer different responses."
            )
        if not len(known):
            notes.append(f"{name}: no pair has a label.")
        elif (known == 0.5).all():
            notes.append(f"{name}: no label prefers a response, all {len(known):,} are ties; nothing can be learned.")
        elif len(known) > 1 and ((known > 0.5).all() or (known < 0.5).all()):
            side = "a" if known[0] > 0.5 else "b"
            notes.append(
                f"{name}: all {len(known):,} labels prefer response {side}. Heads do not see places, so they can be "
                "trained; but labels that follow the place and not the text look just like that."
            )
    return notes


def _refuse_twice(objectives: Sequence[str]) -> None:
    for name, count in Counter(objectives).items():
        if count > 1 or not name.strip():
            raise InputError(f"--objective {name[:80]!r}: expected different names, each once. Remove one.")


def _refuse_overlap(texts: Sequence[SourceText]) -> None:
    """Refuse the same labels twice, by any path: they would count double without a word."""
    seen: dict[tuple[Path, Path], list[SourceText]] = {}
    for text in texts:
        for other in seen.setdefault((_place(text.pairs), _place(text.labels or text.pairs)), []):
            mine, theirs = ({old for old, _ in each.names or ()} for each in (text, other))
            if not mine or not theirs or mine & theirs:
                raise InputError(
                    f"{text.text}: the same labels are given twice (also as {other.text}); give each once, with "
                    "@WEIGHT where they should count more."
                )
        seen[_place(text.pairs), _place(text.labels or text.pairs)].append(text)


def _place(path: str) -> Path:
    """A path that is the same for a run and its file of labels."""
    place = Path(path)
    inside = place / "labels.jsonl"
    return (inside if inside.is_file() else place).resolve()


def _refuse_missing(names: Sequence[str], read: Sequence[SourceLabels]) -> None:
    labelled = {name: None for source in read for name, column in source.columns.items() if len(column.row)}
    for name in names:
        if name not in labelled:
            there = ", ".join(each[:80] for each in list(labelled)[:8]) or "none"
            raise InputError(
                f"objective {name[:80]!r}: no source has a label of it; the objectives with labels are {there}, choose "
                f"with --objective.{nearest(name, labelled)}"
            )
