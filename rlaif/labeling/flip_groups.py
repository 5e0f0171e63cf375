"""Flips by tag: in which part of the data an edit moves labels. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from rlaif.labeling.matches import Counter, FlipCount, Match, Standing
from rlaif.types import Frozen, TagValue

MOST_GROUPS = 20
# Says which response was chosen, and so is no group of pairs but what they are compared with.
_NOT_A_GROUP = "chosen"


class TagFlips(Frozen):
    """Flips among the pairs that carry a tag with one value."""

    tag: str
    value: TagValue
    pairs: int
    objectives: Mapping[str, FlipCount]
    overall: FlipCount


class TagGroups(Frozen):
    """Flips by tag; `left_out` names the tags with more than `MOST_GROUPS` values, each likely an id or a measure."""

    groups: tuple[TagFlips, ...]
    left_out: tuple[str, ...]


class _Group:
    def __init__(self) -> None:
        self.pairs = 0
        self.counters: dict[str | None, Counter] = {}

    def add(self, name: str | None, old: Standing, new: Standing) -> None:
        self.counters.setdefault(name, Counter()).add(old, new)

    def total(self, tag: str, value: TagValue) -> TagFlips:
        return TagFlips(
            tag=tag,
            value=value,
            pairs=self.pairs,
            objectives={name: each.total() for name, each in self.counters.items() if name is not None},
            overall=self.counters[None].total(),
        )


class ByTag:
    """Counts flips by tag as matches pass by. A tag with too many values is dropped as it is seen."""

    def __init__(self) -> None:
        self._pairs = 0
        # By the type as well: 1, 1.0 and true are one key to Python, and not to a reader.
        self._tags: dict[str, dict[tuple[type, TagValue], _Group]] = {}
        self._left_out: dict[str, None] = {}

    def add(self, match: Match) -> None:
        """Count one pair."""
        self._pairs += 1
        standings = tuple(match.standings())
        for tag, value in match.label.tags.items():
            if tag == _NOT_A_GROUP or tag in self._left_out:
                continue
            groups = self._tags.setdefault(tag, {})
            group = groups.setdefault((type(value), value), _Group())
            if len(groups) > MOST_GROUPS:
                del self._tags[tag]
                self._left_out[tag] = None
                continue
            group.pairs += 1
            for name, old, new in standings:
                group.add(name, old, new)

    def total(self) -> TagGroups:
        """What was counted; a group that holds every pair says nothing new and is not in it."""
        groups = (
            group.total(tag, value)
            for tag, values in sorted(self._tags.items())
            for (_, value), group in sorted(values.items(), key=lambda one: (-one[1].pairs, str(one[0][1])))
            if group.pairs < self._pairs
        )
        return TagGroups(groups=tuple(groups), left_out=tuple(sorted(self._left_out)))
