"""How a source of labels is written: `PATH[+LABELS][:OBJECTIVES][@WEIGHT]`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rlaif.errors import InputError

FORM = "PATH or PAIRS+LABELS, with :OBJECTIVE or :OLD=NEW and @WEIGHT at the end where needed"
_HUB = re.compile(r"[\w.-]+/[\w.-]+")
_MOST_WEIGHT = 1_000_000
_FILE_ENDINGS = (".jsonl", ".json", ".csv", ".parquet", ".gz")


@dataclass(frozen=True)
class SourceText:
    """A source as it was written, taken apart.

    Attributes:
        text: as written.
        pairs: a run, a file of labels that holds its texts, preference data, or pairs.
        labels: the labels of the pairs, where they are kept apart.
        names: the objectives to take, each as `(name in the source, name to train under)`; `None` for all.
        weight: what a label counts beside those of other sources.
    """

    text: str
    pairs: str
    labels: str | None = None
    names: tuple[tuple[str, str], ...] | None = None
    weight: float = 1.0


def parse_source(text: str) -> SourceText:
    """Take a source apart.

    A path may itself hold `+`, `:` and `@`: of all readings whose files exist, the one that takes least off the path
    counts, so the text as a whole comes first. Where no reading exists the pairs may be a dataset on the hub.

    Raises:
        InputError: no reading names files that exist, or the weight or an objective cannot be used.
    """
    if not text.strip():
        raise InputError(f"a source of labels is empty; expected {FORM}.")
    readings = list(_readings(text))
    for pairs, labels, names, weight in readings:
        if _exists(pairs) and (labels is None or _exists(labels)):
            return _source(text, pairs, labels, names, weight)
    # The reading that takes most off, cut at the first +: the most likely one that was meant.
    names, weight = readings[-1][2], readings[-1][3]
    cuts = [reading for reading in readings if reading[2:] == (names, weight)]
    there = [reading for reading in cuts if reading[1] is not None and _exists(reading[0])]
    pairs, labels, names, weight = (there or cuts)[-1]
    if _may_be_on_hub(pairs) and (labels is None or _exists(labels)):
        return _source(text, pairs, labels, names, weight)
    raise _no_path(text, pairs, labels)


_Reading = tuple[str, str | None, str | None, str | None]


def _readings(text: str) -> Iterator[_Reading]:
    """All ways to take a text apart, those that take least off the path first."""
    for body, weight in _ends(text, "@"):
        for stem, names in _ends(body, ":"):
            if names is not None and weight is None and "@" in names:
                # What follows the @ is the weight and no part of the name.
                continue
            yield stem, None, names, weight
            # From the right, so that the last reading has the shortest file of pairs.
            for place in reversed([place for place, char in enumerate(stem) if char == "+"]):
                if stem[:place] and stem[place + 1 :]:
                    yield stem[:place], stem[place + 1 :], names, weight


def _ends(text: str, sign: str) -> Iterator[tuple[str, str | None]]:
    """A text whole, and without what follows the last such sign."""
    yield text, None
    before, found, after = text.rpartition(sign)
    # What holds a separator is a path and no end.
    if found and before and not set(after) & set("/\\"):
        yield before, after


def _exists(path: str) -> bool:
    # A name that is too long or holds a NUL is no file's.
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def _source(text: str, pairs: str, labels: str | None, names: str | None, weight: str | None) -> SourceText:
    return SourceText(
        text,
        pairs,
        labels,
        None if names is None else _names(text, names),
        1.0 if weight is None else _weight(text, weight),
    )


def _weight(text: str, given: str) -> float:
    try:
        weight = float(given)
    except ValueError:
        weight = math.nan
    if not 1 / _MOST_WEIGHT <= weight <= _MOST_WEIGHT:
        raise InputError(
            f"{text}: weight @{given[:40]}; expected a number above 0, such as @0.5, and at most {_MOST_WEIGHT:,}. "
            "Leave out a source that is not to count."
        )
    return weight


def _names(text: str, given: str) -> tuple[tuple[str, str], ...]:
    names = []
    for part in given.split(","):
        old, equals, new = (piece.strip() for piece in part.partition("="))
        if not old or (equals and not new):
            raise InputError(f"{text}: :{given[:80]} names no objective; expected :NAME or :OLD=NEW, commas between.")
        names.append((old, new or old))
    for side, what in ((0, "is taken twice"), (1, "is the name of two objectives")):
        taken = [name[side] for name in names]
        twice = next((name for name in taken if taken.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"{text}: {twice[:80]!r} {what}; name each objective once.")
    return tuple(names)


def _may_be_on_hub(path: str) -> bool:
    return bool(_HUB.fullmatch(path)) and not path.startswith(".") and not path.endswith(_FILE_ENDINGS)


def _no_path(text: str, pairs: str, labels: str | None) -> InputError:
    missing = pairs if labels is None or not _exists(pairs) else labels
    written = "" if missing == text else f" (from {text})"
    return InputError(
        f"{missing}: no such file or folder{written}; give a run's folder, a labels.jsonl, preference data, or "
        "PAIRS+LABELS for files kept apart."
    )
