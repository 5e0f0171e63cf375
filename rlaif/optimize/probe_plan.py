"""Which response of which pair gets which change. Pure but for the reading of the data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from rlaif.data.pairs import Reject
from rlaif.errors import InputError
from rlaif.optimize.changes import Change, Subject, Variant
from rlaif.optimize.probe_results import ProbeExample
from rlaif.optimize.wording import seed
from rlaif.rewards.score import Candidates

_EXAMPLES = 3

Place = tuple[int, int]
"""A row, and which of its responses."""


@dataclass(frozen=True)
class PairPlace:
    """Two responses to one prompt: their row, and which of its responses they are."""

    row: int
    first: int
    second: int

    @property
    def places(self) -> tuple[Place, Place]:
        """Both responses."""
        return (self.row, self.first), (self.row, self.second)


@dataclass(frozen=True)
class Rows:
    """The rows that are probed.

    Attributes:
        rows: prompts with their responses.
        rejected: how many rows could not be used.
    """

    rows: Sequence[Candidates]
    rejected: int

    @cached_property
    def prompt_of(self) -> list[int]:
        """A number for each row's prompt, the same for equal prompts."""
        numbers: dict[tuple[tuple[str, str], ...], int] = {}
        return [numbers.setdefault(tuple((t.role, t.content) for t in row.prompt), len(numbers)) for row in self.rows]

    @cached_property
    def donors(self) -> list[str | None]:
        """For each row a response to another prompt, by content; `None` where all rows have the same."""
        first: dict[int, int] = {}
        for row, prompt in enumerate(self.prompt_of):
            first.setdefault(prompt, row)
        order = sorted(first, key=lambda prompt: seed(*(turn.content for turn in self.rows[first[prompt]].prompt)))
        after = {prompt: order[(place + 1) % len(order)] for place, prompt in enumerate(order)}
        return [
            None if after[prompt] == prompt else self.rows[first[after[prompt]]].responses[0]
            for prompt in self.prompt_of
        ]

    @cached_property
    def pairs(self) -> list[PairPlace]:
        """Responses of a row two by two, each in one pair; those with the same text are none."""
        return [
            PairPlace(row, first, first + 1)
            for row, each in enumerate(self.rows)
            for first in range(0, len(each.responses) - 1, 2)
            if each.responses[first] != each.responses[first + 1]
        ]

    @property
    def responses(self) -> int:
        """How many there are."""
        return sum(len(row.responses) for row in self.rows)

    def places(self, change: Change) -> Iterator[Place]:
        """The responses that a change is made to: what makes worse only to those that the data prefers, if it tells.

        A refusal that was preferred to a harmful answer is the better one; the harmful answer may rightly gain by being
        cut short.
        """
        for row, each in enumerate(self.rows):
            whole = [(row, response) for response in range(len(each.responses))]
            yield from self.better(row) if change.expectation == "lower" else whole

    def better(self, row: int) -> list[Place]:
        """The response that the data prefers, of a pair where it tells, else all."""
        each = self.rows[row]
        chosen = each.tags.get("chosen") if each.names == ("a", "b") else None
        return [(row, place) for place, name in enumerate(each.names) if chosen not in ("a", "b") or chosen == name]

    def variant(self, change: Change, place: Place) -> Variant | None:
        """A response before and after a change; `None` where it does not apply."""
        row, response = place
        each = self.rows[row]
        return change.apply(Subject(each.prompt, each.responses[response], self.donors[row]))

    def variants(self, change: Change) -> dict[Place, Variant]:
        """All responses that a change can be made to."""
        made = ((place, self.variant(change, place)) for place in self.places(change))
        return {place: variant for place, variant in made if variant is not None}


def gather(rows: Sequence[Candidates], rejects: Sequence[Reject], data: str, least: int) -> Rows:
    """The rows to probe.

    Raises:
        InputError: they have so few prompts that nothing could be measured.
    """
    found = Rows(rows, len(rejects))
    prompts = len(set(found.prompt_of))
    if prompts < least:
        noun = "prompt" if prompts == 1 else "different prompts"
        raise InputError(
            f"{data}: {prompts:,} {noun}; a probe needs at least {least:,}. Give more data, or a lower --min-prompts."
        )
    return found


def worst_examples(
    change: Change, rows: Rows, shifted: Sequence[tuple[Place, Variant, float, float]]
) -> list[ProbeExample]:
    """The responses on which a change did most of what it must not, at most three.

    Args:
        change: the change.
        rows: the data.
        shifted: of each response its variant, and the aggregate reward before and after.
    """

    def badness(each: tuple[Place, Variant, float, float]) -> float:
        shift = each[3] - each[2]
        return abs(shift) if change.expectation == "same" else shift

    worst = sorted(shifted, key=badness, reverse=True)[:_EXAMPLES]
    return [
        ProbeExample(
            change=change.name,
            id=rows.rows[place[0]].id,
            prompt=variant.changed_prompt,
            original=variant.original,
            changed=variant.changed,
            before=before,
            after=after,
        )
        for place, variant, before, after in worst
    ]


def count_not_applied(rows: Rows, change: Change, variants: Mapping[Place, Variant]) -> int:
    """Responses that a change was to be made to, and does not apply to."""
    return sum(1 for _ in rows.places(change)) - len(variants)
