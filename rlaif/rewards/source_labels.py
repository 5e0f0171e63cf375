"""One source of labels: soft targets of judges and of people, and the pairs that they belong to."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from rlaif.agreement.align import SCORES
from rlaif.agreement.table import OVERALL, JudgeLabels, fold, read_judges
from rlaif.data.human import HumanVotes, read_human_votes
from rlaif.data.sources import Source, open_source
from rlaif.errors import InputError, nearest
from rlaif.labeling.read import labels_file
from rlaif.rewards.preferences import Floats, Ints
from rlaif.rewards.source_pairs import CHOSEN, Keep, KeptPairs, KeptTexts, PairFile, read_pair_file
from rlaif.rewards.source_text import SourceText

Confidence = Literal["none", "order-gap"]
Kind = Literal["run", "recorded", "human", "preferences"]
# How many rows may be broken before a file is taken for preference data, whose reader says what is wrong.
_LOOK_AT = 100
_DATASET_FILES = ("state.json", "dataset_dict.json")
EQUAL = "equal responses"
UNUSABLE = "rows that cannot be used"
NO_PAIR = "labels without a pair"
NO_LABEL = "pairs without a label"


@dataclass(frozen=True)
class Column:
    """Labels of one objective, a row each, (labels,): the place in the source's pairs, P(a is better), and a weight."""

    row: Ints
    target: Floats
    weight: Floats


@dataclass
class SourceLabels:
    """What one source holds: its pairs, their labels by objective, and what was left out of it, by reason."""

    text: SourceText
    kind: Kind
    pairs: KeptPairs
    columns: dict[str, Column]
    digest: str
    constitution: str | None = None
    judge: str | None = None
    left_out: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


@dataclass
class _Labels:
    """Labels before their pairs are known: columns whose rows are places in `ids`.

    Of a run, which holds its pairs, `pairs` are these, and `places` those of their ids.
    """

    columns: dict[str, Column]
    ids: Sequence[str]
    pairs: KeptPairs | None = None
    places: Sequence[int] = ()
    constitution: str | None = None
    judge: str | None = None
    without_gap: Counter[str] = field(default_factory=Counter)


def read_source(
    text: SourceText,
    *,
    columns: Mapping[str, str],
    wanted: Sequence[str] | None,
    confidence: Confidence,
    keep: Keep,
) -> SourceLabels:
    """Read one source.

    Args:
        text: where it is.
        columns: names of columns in pairs and preference data.
        wanted: the objectives that are asked for, `None` for all.
        confidence: what a judge's label counts: `none` 1, `order-gap` 1 less the gap between its orders.
        keep: makes what the pairs are kept in.

    Raises:
        InputError: a file cannot be used, has no labels, or lacks an objective that `text` names.
        RunError: a run's labels cannot be read.
    """
    place = text.labels or text.pairs
    source = open_source(_file_of(place))
    kind = _kind_of(place, source)
    if kind == "preferences":
        return _preferences(text, source, columns, keep)
    if text.labels is None and kind != "run":
        whose = "human labels" if kind == "human" else "recorded judge labels"
        raise InputError(f"{text.text}: {whose} hold no texts; give PAIRS+LABELS, such as pairs.jsonl+{place}.")
    found = _people(place) if kind == "human" else _judges(text, place, wanted, confidence, keep)
    file, digest = PairFile([]), source.digest
    if text.labels is not None:
        pairs = open_source(_file_of(text.pairs))
        file, digest = read_pair_file(pairs, columns, keep), _joined(pairs.digest, digest)
    taken = _named(text, found.columns)
    read = SourceLabels(text, kind, [], {}, digest, found.constitution, found.judge)
    _join(read, found, taken, file)
    names = text.names or tuple((name, name) for name in found.columns)
    full = sum(found.without_gap[old] for old, new in names if wanted is None or new in wanted)
    if confidence == "order-gap" and full:
        read.notes.append(
            f"{text.text}: {full:,} labels tell nothing of two orders and count in full under --confidence order-gap."
        )
    return read


def _file_of(place: str) -> str:
    """The file of labels where a run's folder is given; a saved dataset is a folder of its own kind."""
    path = Path(place)
    if path.is_dir() and not any((path / name).exists() for name in _DATASET_FILES):
        return str(labels_file(path))
    return place


def _kind_of(place: str, source: Source) -> Kind:
    for row in islice(source.read(), _LOOK_AT):
        if row.fault is None and isinstance(row.value, Mapping):
            if "labels" in row.value and "provenance" in row.value:
                return "run"
            if "judge" in row.value and "preference" in row.value:
                return "recorded"
            if "annotator" in row.value and "preference" in row.value:
                return "human"
            return "preferences"
    if Path(place).is_dir() and not Path(source.name).is_dir():
        return "run"
    return "preferences"


def _joined(*digests: str) -> str:
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _preferences(text: SourceText, source: Source, columns: Mapping[str, str], keep: Keep) -> SourceLabels:
    """Preference data: the better response of each pair is told by its columns, or by the tag `chosen`."""
    if text.labels is not None:
        raise InputError(
            f"{text.labels}: no labels; expected a run, its labels.jsonl, recorded judge labels or human labels after "
            "the +."
        )
    file = read_pair_file(source, columns, keep)
    sides = [pair.tags.get(CHOSEN) for pair in file.pairs]
    labelled = np.array([side in ("a", "b") for side in sides], dtype=np.bool_)
    if not labelled.any():
        raise InputError(
            f"{source.name}: pairs without labels; give them as {source.name}+LABELS, or preference data with chosen "
            "and rejected."
        )
    target = np.array([1.0 if side == "a" else 0.0 for side in sides])
    name = OVERALL
    if text.names is not None:
        # Such data has no name for what was preferred, so that a name alone gives it one.
        (old, name), *more = text.names
        if more or old not in (OVERALL, name):
            raise InputError(
                f"{text.text}: preference data has one objective, {OVERALL}; give it one name, such as :helpfulness."
            )
    places = np.arange(len(file.pairs), dtype=np.int64)
    every = {name: Column(places[labelled], target[labelled], np.ones(int(labelled.sum())))}
    read = SourceLabels(text, "preferences", [], {}, source.digest)
    _join(read, _Labels(every, [pair.id for pair in file.pairs]), every, file)
    return read


def _people(place: str) -> _Labels:
    """Human labels: the share of a pair's annotators that prefer a, a tie half; each pair counts 1 however many."""
    votes: HumanVotes = read_human_votes(place)
    pair = np.frombuffer(votes.pair, np.int32).astype(np.int64)
    objective = np.frombuffer(votes.objective, np.int32)
    score = SCORES[np.frombuffer(votes.preference, np.int8)]
    columns = {}
    for number, name in enumerate(votes.objectives):
        mine = objective == number
        columns[name] = _mean(pair[mine], score[mine], np.ones(int(mine.sum())))
    return _Labels(columns, list(votes.ids))


def _judges(text: SourceText, place: str, wanted: Sequence[str] | None, confidence: Confidence, keep: Keep) -> _Labels:
    """Judges' labels; several judges in one file count together as one, by their mean."""
    ids: dict[str, int] = {}
    texts = KeptTexts(keep() if text.labels is None else None)
    judges = read_judges(place, ids, texts)
    first = judges[0].provenance
    # The overall label of a run is made of the others, and would be learned beside them only where that is asked for.
    asked = {old for old, _ in text.names or ()} | set(wanted or ()) | ({OVERALL} if texts.own_overall else set())
    names = dict.fromkeys(name for judge in judges for name in judge.objectives)
    found = _Labels({}, list(ids), texts.pairs, texts.places, judge=", ".join(judge.name for judge in judges))
    if first is not None:
        found.constitution, found.judge = first["constitution"], first["judge"]
    for name in names:
        if first is None or name != OVERALL or OVERALL in asked:
            found.columns[name] = _judged(found, judges, name, confidence)
    return found


def _judged(found: _Labels, judges: Sequence[JudgeLabels], name: str, confidence: Confidence) -> Column:
    rows, targets, weights = [], [], []
    for judge in judges:
        if name not in judge.objectives:
            continue
        folded = fold(judge.objectives[name])
        ab, ba = SCORES[folded.ab], SCORES[folded.ba]
        # Without probabilities the preference stands in, the mean of both orders where there are two.
        hard = np.where(np.isfinite(ab + ba), (ab + ba) / 2, SCORES[folded.preference])
        target = np.where(np.isfinite(folded.p_a), folded.p_a, hard)
        gap = np.clip(np.where(np.isfinite(folded.gap), folded.gap, np.abs(ab - ba)), 0.0, 1.0)
        there = np.isfinite(target)
        known = np.isfinite(gap)
        found.without_gap[name] += int((there & ~known).sum())
        weight = np.where(known, 1 - gap, 1.0) if confidence == "order-gap" else np.ones(len(target))
        rows.append(folded.pair[there])
        targets.append(target[there])
        weights.append(weight[there])
    return _mean(np.concatenate(rows), np.concatenate(targets), np.concatenate(weights))


def _mean(pair: Ints, target: Floats, weight: Floats) -> Column:
    """The weighted mean of each pair's targets, and the mean of their weights; what has none is no label."""
    places, at, count = np.unique(pair, return_inverse=True, return_counts=True)
    total = weight
    if len(places) == len(pair):
        places = pair
    else:
        total = _summed(at, weight)
        # What counts nothing has no mean, and is left out below.
        target = _summed(at, weight * target) / np.where(total > 0, total, 1.0)
        total = total / count
    kept = total > 0
    return Column(places[kept].astype(np.int64), np.clip(target[kept], 0.0, 1.0), total[kept])


def _summed(at: Ints, values: Floats) -> Floats:
    sums: Floats = np.bincount(at, weights=values).astype(np.float64)
    return sums


def _named(text: SourceText, columns: dict[str, Column]) -> dict[str, Column]:
    """The objectives that the source's text takes, under their new names."""
    if text.names is None:
        return columns
    for old, _ in text.names:
        if old not in columns:
            there = ", ".join(name[:80] for name in list(columns)[:8]) or "none"
            rename = f" To train it under another name write :{there}={old}." if len(columns) == 1 else ""
            raise InputError(
                f"{text.text}: no labels of {old[:80]!r}; its objectives are {there}.{nearest(old, columns)}{rename}"
            )
    return {new: columns[old] for old, new in text.names}


def _join(read: SourceLabels, found: _Labels, taken: Mapping[str, Column], file: PairFile) -> None:
    """Bring pairs and labels together in `read`, and count what has no other half."""
    if file.rejects:
        read.left_out[UNUSABLE] = file.rejects
        first = f"the first is {file.first_reject}"
        read.notes.append(f"{read.text.text}: {file.rejects:,} rows cannot be used and are left out; {first}.")
    row_of = np.full(len(found.ids), -1, dtype=np.int64)
    if file.pairs:
        place_of = {name: place for place, name in enumerate(found.ids)}
        for row, pair in enumerate(file.pairs):
            place = place_of.get(pair.id)
            if place is not None:
                row_of[place] = row
        read.pairs = file.pairs
    elif found.pairs is not None:
        row_of[found.places] = np.arange(len(found.pairs))
        read.pairs = found.pairs
    if len(row_of) and not (row_of >= 0).any():
        raise InputError(
            f"{read.text.text}: no label is of one of the pairs; ids of the pairs look like {read.pairs[0].id[:40]!r}, "
            f"those of the labels like {found.ids[0][:40]!r}. Give the pairs that were labelled."
        )
    alone = int((row_of < 0).sum())
    if alone:
        read.left_out[NO_PAIR] = alone
        read.notes.append(f"{read.text.text}: {alone:,} labelled ids are none of the pairs, and are left out.")
    for name, column in taken.items():
        rows = row_of[column.row]
        kept = rows >= 0
        read.columns[name] = Column(rows[kept], column.target[kept], column.weight[kept])
