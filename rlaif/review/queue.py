"""Which question a person answers next, and which response they see first. Pure."""

from __future__ import annotations

import hashlib
from typing import Literal

Mark = Literal["open", "answered", "skipped"]
Side = Literal["a", "b"]
Choice = Literal["left", "right", "tie", "skip"]

_OPEN, _ANSWERED, _SKIPPED = range(3)
_MARKS: dict[Mark, int] = {"open": _OPEN, "answered": _ANSWERED, "skipped": _SKIPPED}


def shown_first(seed: int, annotator: str, pair_id: str) -> Side:
    """The response that this person sees on the left: a coin toss that is the same each time they see the pair."""
    digest = hashlib.sha256(f"{seed}\x00{annotator}\x00{pair_id}".encode()).digest()
    return "a" if digest[0] % 2 else "b"


def side_chosen(choice: Choice, first: Side) -> Literal["a", "b", "tie"] | None:
    """The pair's own response that a choice names, whatever place it was shown in; `None` where it was skipped."""
    if choice == "skip":
        return None
    if choice == "tie":
        return "tie"
    return first if choice == "left" else _other(first)


def place_of(answer: Literal["a", "b", "tie", "skip"], first: Side) -> Choice:
    """The choice that gave this answer: the inverse of `side_chosen`, with `skip` as it is."""
    if answer in ("skip", "tie"):
        return answer
    return "left" if answer == first else "right"


def _other(side: Side) -> Side:
    return "b" if side == "a" else "a"


class Queue:
    """One person's questions: pair after pair in the order of the data, and each objective of a pair in turn.

    Questions are known by their number: `pair * objectives + objective`. A byte each, so that a million are nothing.
    """

    def __init__(self, pairs: int, objectives: int) -> None:
        self.objectives = objectives
        self.total = pairs * objectives
        self._marks = bytearray(self.total)
        self._next = 0
        self._count = [self.total, 0, 0]

    @property
    def answered(self) -> int:
        """How many questions have an answer."""
        return self._count[_ANSWERED]

    @property
    def skipped(self) -> int:
        """How many questions were passed over."""
        return self._count[_SKIPPED]

    def mark(self, number: int, mark: Mark) -> None:
        """Set what has become of a question."""
        before, now = self._marks[number], _MARKS[mark]
        self._marks[number] = now
        self._count[before] -= 1
        self._count[now] += 1
        if now == _OPEN:
            self._next = min(self._next, number)

    def is_open(self, number: int) -> bool:
        """Whether the question still waits for an answer."""
        return self._marks[number] == _OPEN

    def next(self) -> int | None:
        """The first open question; `None` when there is none."""
        # All before `_next` are closed, so the search never starts over.
        found = self._marks.find(_OPEN, self._next)
        self._next = self.total if found < 0 else found
        return None if found < 0 else found
