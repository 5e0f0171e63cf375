"""Which labels differ between two runs on the same pairs. `compare_labels` is pure; `compare_runs` reads for it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rlaif.constitution import Constitution
from rlaif.constitution.diff import Change
from rlaif.errors import InputError
from rlaif.labeling.read import labels_file, read_labels
from rlaif.types import Frozen, Label, Preference

_Side = Preference | None


class LabelFlips(Frozen):
    """How the labels of one objective, or the overall ones, went from the old run to the new one.

    `compared` counts the pairs with a preference in both runs (a, b or tie), `decided` those with a or b in both.
    `flipped` (a to b, or b to a) is of the decided, and `flipped_share` their share, `None` where there are none.
    `lost` and `gained` count the pairs with a preference in the old or the new run only (the judge abstained, or the
    objectives are in conflict); they are not compared.
    """

    compared: int
    decided: int
    flipped: int
    flipped_share: float | None
    became_tie: int
    left_tie: int
    lost: int
    gained: int
    flipped_ids: tuple[str, ...]
    became_tie_ids: tuple[str, ...]
    left_tie_ids: tuple[str, ...]


class RunFlips(Frozen):
    """Two runs compared.

    `pairs` counts those in both, with the same prompt and responses; `other_content` those whose id is in both with
    another prompt or other responses, which are not compared. `made_with` holds a judge or template that is not the
    same in both: flips then do not come from the constitution alone.
    """

    pairs: int
    only_old: int
    only_new: int
    other_content: int
    objectives: Mapping[str, LabelFlips]
    overall: LabelFlips
    objectives_only_old: tuple[str, ...]
    objectives_only_new: tuple[str, ...]
    made_with: tuple[Change, ...]


@dataclass
class _Tally:
    compared: int = 0
    decided: int = 0
    lost: int = 0
    gained: int = 0
    flipped: list[str] = field(default_factory=list)
    became_tie: list[str] = field(default_factory=list)
    left_tie: list[str] = field(default_factory=list)

    def add(self, pair_id: str, old: _Side, new: _Side) -> None:
        if old is None or new is None:
            self.lost += old is not None
            self.gained += new is not None
            return
        self.compared += 1
        self.decided += "tie" not in (old, new)
        if old != new:
            moved = self.became_tie if new == "tie" else self.left_tie if old == "tie" else self.flipped
            moved.append(pair_id)

    def total(self) -> LabelFlips:
        return LabelFlips(
            compared=self.compared,
            decided=self.decided,
            flipped=len(self.flipped),
            flipped_share=len(self.flipped) / self.decided if self.decided else None,
            became_tie=len(self.became_tie),
            left_tie=len(self.left_tie),
            lost=self.lost,
            gained=self.gained,
            flipped_ids=tuple(self.flipped),
            became_tie_ids=tuple(self.became_tie),
            left_tie_ids=tuple(self.left_tie),
        )


@dataclass(frozen=True, slots=True)
class _Kept:
    """What is held of an old label while the new ones pass by."""

    content: bytes
    sides: tuple[tuple[str, _Side], ...]
    overall: _Side


def compare_labels(old: Iterable[Label], new: Iterable[Label]) -> RunFlips:
    """Compare two runs' labels pair by pair, in the order of the new run; each id stands once in a run."""
    made: dict[str, dict[str, str]] = {"old": {}, "new": {}}
    # Dictionaries stand for ordered sets.
    old_names: dict[str, None] = {}
    new_names: dict[str, None] = {}
    kept: dict[str, _Kept] = {}
    for label in _noting(old, made["old"], old_names):
        sides = tuple((name, each.preference) for name, each in label.labels.items())
        kept[label.id] = _Kept(_content(label), sides, label.overall.preference)
    tallies: dict[str, _Tally] = {}
    overall = _Tally()
    pairs = only_new = other_content = 0
    for label in _noting(new, made["new"], new_names):
        before = kept.pop(label.id, None)
        if before is None:
            only_new += 1
        elif before.content != _content(label):
            other_content += 1
        else:
            pairs += 1
            overall.add(label.id, before.overall, label.overall.preference)
            for name, side in before.sides:
                if name in label.labels:
                    tallies.setdefault(name, _Tally()).add(label.id, side, label.labels[name].preference)
    return RunFlips(
        pairs=pairs,
        only_old=len(kept),
        only_new=only_new,
        other_content=other_content,
        objectives={name: tally.total() for name, tally in tallies.items()},
        overall=overall.total(),
        objectives_only_old=tuple(name for name in old_names if name not in new_names),
        objectives_only_new=tuple(name for name in new_names if name not in old_names),
        made_with=tuple(
            Change(what=what, before=before, after=made["new"][what])
            for what, before in made["old"].items()
            if made["new"].get(what, before) != before
        ),
    )


def _noting(labels: Iterable[Label], made_with: dict[str, str], names: dict[str, None]) -> Iterator[Label]:
    """Pass labels on, noting what made the first one and which objectives they have."""
    for label in labels:
        if not made_with:
            made_with.update(judge=label.provenance.judge, template=label.provenance.template)
        names.update(dict.fromkeys(label.labels))
        yield label


def _content(label: Label) -> bytes:
    """Digest of the pair itself: a and b mean something else where the responses differ or changed places."""
    digest = hashlib.sha256()
    parts = [part for turn in label.prompt for part in (turn.role, turn.content)]
    for part in (*parts, label.response_a, label.response_b):
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8))
        digest.update(raw)
    return digest.digest()[:16]


def compare_runs(old_run: Path, new_run: Path, old: Constitution, new: Constitution) -> RunFlips:
    """Compare the labels of two runs, each a run's folder or a `labels.jsonl`, made under these constitutions.

    Raises:
        InputError: a file is not usable, a run was labelled under another constitution, or no pair is in both.
    """
    old_file, new_file = labels_file(old_run), labels_file(new_run)
    swapped = "give the runs in the order of the constitutions"
    copied = "or, after --update in the same folder, the labels.jsonl copied before it"
    earlier = _labels_under(old_file, old, "OLD", {new.reference: f"those are NEW's labels: {swapped}, {copied}"})
    later = _labels_under(
        new_file,
        new,
        "NEW",
        {old.reference: f"those are OLD's labels: {swapped}, or label NEW_RUN again with --update"},
    )
    flips = compare_labels(earlier, later)
    if not flips.pairs:
        why = "all ids in both stand for other texts" if flips.other_content else "no id is in both"
        raise InputError(f"{old_file} and {new_file}: no pair to compare ({why}); give two runs on the same data.")
    return flips


def _labels_under(path: Path, constitution: Constitution, side: str, hints: Mapping[str, str]) -> Iterator[Label]:
    for number, label in read_labels(path):
        made_under = label.provenance.constitution
        if made_under != constitution.reference:
            fix = hints.get(made_under, "give the constitution of that run, or label again with this one")
            fact = f"labelled under {made_under}, and {side} is {constitution.reference}"
            raise InputError(f"{path}:{number}: {fact}; {fix}.")
        yield label
