"""What each principle of a constitution does in a run: how often it decides, opposes the others, or never matters.

`PrincipleCounts` is pure. What it counts is a ruling: a side that one principle took on one pair. With
`--principles sample` the ledger tells which principle was drawn, and rulings are measured. With all principles in each
question only the rationales can tell (`rlaif.labeling.rationales`), and rulings are estimated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal, NamedTuple

from rlaif.labeling.labels import preference
from rlaif.labeling.ledgers import PairJudged, fold
from rlaif.labeling.rationales import Method, Reader, stops_at_decider
from rlaif.stats import wilson
from rlaif.types import Frozen, Verdict

MARGIN = 0.1
# Said to never matter: drawn so often or more, and deciding less than this share of the time.
ENOUGH = 20
RARELY = 0.05

Interval = tuple[float, float]


class Place(NamedTuple):
    """A principle, by objective and id."""

    objective: str
    principle: str


class PrincipleUse(Frozen):
    """What one principle did.

    With drawn principles `asked` counts the comparisons (a pair and a sample, both orders together) for which it was
    drawn and `unread` those of them without a verdict; of the rest, `decided` have a `p_a` that is the margin or more
    from 0.5. `confidence` is the mean of the preferred side's probability, 0.5 to 1, and `order_gap` the mean distance
    between both orders.

    With an estimate `asked` counts the judgments of its objective that took a side and lean on some principle, and
    `decided` those that lean on this one; `confidence` is over the latter.

    `compared` counts the pairs on which it took a side, and so did the label made of the pair's other verdicts under
    the objective, those of other principles; on `opposed` of them the two sides differ. A probability within the margin
    takes none: it would oppose by chance.
    """

    objective: str
    principle: str
    asked: int
    unread: int
    decided: int
    decided_share: float | None
    confidence: float | None
    order_gap: float | None
    compared: int
    opposed: int
    opposed_share: float | None
    opposed_interval: Interval
    never_matters: bool


class Conflict(Frozen):
    """Two principles that took sides on the same pairs: `both` counts those, `opposed` where the sides differ."""

    objective: str
    principle: str
    other_objective: str
    other_principle: str
    both: int
    opposed: int
    opposed_share: float
    opposed_interval: Interval


class Estimate(Frozen):
    """How far rationales could be read: of the `judgments` that took a side, by which method a principle was found.

    `stops` tells whether the judge stops at the step that decides, so that its last numbered step counts.
    """

    judgments: int
    found: int
    coverage: float | None
    methods: Mapping[str, int]
    stops: bool


class PrincipleReport(Frozen):
    """What the principles of a run did; those of an objective in the order of the constitution where it is at hand.

    `conflicts` are by the lower end of the interval, the surest first, and hold every two principles that opposed each
    other at least once. `samples` is the most that any pair has. `never_drawn` is known only with the constitution.
    """

    principles: Literal["all", "sample"]
    samples: int
    margin: float
    pairs: int
    uses: tuple[PrincipleUse, ...]
    conflicts: tuple[Conflict, ...]
    never_drawn: tuple[Place, ...] = ()
    estimate: Estimate | None = None


@dataclass
class _Mean:
    count: int = 0
    total: float = 0.0

    def add(self, value: float) -> None:
        self.count += 1
        self.total += value

    @property
    def value(self) -> float | None:
        return self.total / self.count if self.count else None


@dataclass
class _Use:
    asked: int = 0
    unread: int = 0
    decided: int = 0
    confidence: _Mean = field(default_factory=_Mean)
    gap: _Mean = field(default_factory=_Mean)
    compared: int = 0
    opposed: int = 0


@dataclass
class _Meeting:
    both: int = 0
    opposed: int = 0


class PrincipleCounts:
    """Counts what principles do, pair by pair.

    Args:
        margin: how far from 0.5 a probability must be for a side to be taken, 0 to 0.5.
        known: the constitution's principles, in its order; others are added as they are met.
    """

    def __init__(self, margin: float = MARGIN, known: Iterable[Place] = ()) -> None:
        self.margin, self.pairs = margin, 0
        self._uses: dict[Place, _Use] = {place: _Use() for place in known}
        self._meetings: dict[tuple[Place, Place], _Meeting] = {}
        # Judgments that lean on some principle, by objective.
        self._leaning: Counter[str] = Counter()

    def add_drawn(self, verdicts: Sequence[Verdict]) -> None:
        """Count the verdicts of one pair, for each of which one principle was drawn."""
        drawn: dict[tuple[Place, int], list[Verdict]] = {}
        for verdict in verdicts:
            if verdict.principle is not None:
                drawn.setdefault((Place(verdict.objective, verdict.principle), verdict.sample), []).append(verdict)
        for (place, _), mine in drawn.items():
            use, label = self._use(place), fold(mine)
            use.asked += 1
            if label.p_a is None:
                use.unread += 1
                continue
            use.decided += self._side(label.p_a) is not None
            use.confidence.add(max(label.p_a, 1 - label.p_a))
            if label.order_gap is not None:
                use.gap.add(label.order_gap)
        behind: dict[Place, list[Verdict]] = {}
        for (place, _), mine in drawn.items():
            behind.setdefault(place, []).extend(mine)
        self._add_pair(verdicts, behind)

    def add_leaning(self, verdicts: Sequence[Verdict], leanings: Sequence[str | None]) -> None:
        """Count the verdicts of one pair, with the principle that each leans on; those without a side lean on none."""
        behind: dict[Place, list[Verdict]] = {}
        for verdict, principle in zip(verdicts, leanings, strict=True):
            if principle is None or verdict.p_a is None or not self.takes_side(verdict):
                continue
            place = Place(verdict.objective, principle)
            behind.setdefault(place, []).append(verdict)
            self._leaning[verdict.objective] += 1
            use = self._use(place)
            use.decided += 1
            use.confidence.add(max(verdict.p_a, 1 - verdict.p_a))
        self._add_pair(verdicts, behind)

    def takes_side(self, verdict: Verdict) -> bool:
        """Whether a verdict was read and is the margin or more from 0.5."""
        return self._side(verdict.p_a) is not None

    def _add_pair(self, verdicts: Sequence[Verdict], behind: Mapping[Place, Sequence[Verdict]]) -> None:
        """Compare the principles with the others of the pair; a principle drawn twice on a pair counts once."""
        self.pairs += 1
        sides: dict[Place, str] = {}
        for place, mine in behind.items():
            side = self._side(fold(mine).p_a)
            if side is None:
                continue
            sides[place] = side
            taken = {(one.order, one.sample) for one in mine}
            same = [one for one in verdicts if one.objective == place.objective]
            others = self._side(fold([one for one in same if (one.order, one.sample) not in taken]).p_a)
            if others is not None:
                use = self._use(place)
                use.compared += 1
                use.opposed += others != side
        for one, other in combinations(sorted(sides), 2):
            meeting = self._meetings.setdefault((one, other), _Meeting())
            meeting.both += 1
            meeting.opposed += sides[one] != sides[other]

    def _use(self, place: Place) -> _Use:
        return self._uses.setdefault(place, _Use())

    def _side(self, p_a: float | None) -> str | None:
        # A hair of slack: 0.6 is 0.1 from 0.5, though not in binary.
        if p_a is None or abs(p_a - 0.5) < self.margin - 1e-9:
            return None
        side = preference(p_a)
        return None if side == "tie" else side

    def uses(self) -> tuple[PrincipleUse, ...]:
        """What each principle did, those that were never asked left out."""
        asked = {place: use.asked or self._leaning[place.objective] for place, use in self._uses.items()}
        return tuple(_told(place, use, asked[place]) for place, use in self._uses.items() if asked[place])

    def never_asked(self) -> tuple[Place, ...]:
        """The known principles that were never asked."""
        return tuple(place for place, use in self._uses.items() if not use.asked)

    def conflicts(self) -> tuple[Conflict, ...]:
        """Every two principles that opposed each other."""
        found = [
            Conflict(
                objective=one.objective,
                principle=one.principle,
                other_objective=other.objective,
                other_principle=other.principle,
                both=meeting.both,
                opposed=meeting.opposed,
                opposed_share=meeting.opposed / meeting.both,
                opposed_interval=wilson(meeting.opposed, meeting.both),
            )
            for (one, other), meeting in self._meetings.items()
            if meeting.opposed
        ]
        return tuple(sorted(found, key=lambda one: (-one.opposed_interval[0], one.objective, one.principle)))


def _told(place: Place, use: _Use, asked: int) -> PrincipleUse:
    read = asked - use.unread
    return PrincipleUse(
        objective=place.objective,
        principle=place.principle,
        asked=asked,
        unread=use.unread,
        decided=use.decided,
        decided_share=use.decided / read if read else None,
        confidence=use.confidence.value,
        order_gap=use.gap.value,
        compared=use.compared,
        opposed=use.opposed,
        opposed_share=use.opposed / use.compared if use.compared else None,
        opposed_interval=wilson(use.opposed, use.compared),
        never_matters=read >= ENOUGH and use.decided < RARELY * read,
    )


def count_drawn(pairs: Iterable[PairJudged], margin: float = MARGIN, known: Iterable[Place] = ()) -> PrincipleReport:
    """Measure what principles do where one was drawn for each comparison."""
    counts, samples = PrincipleCounts(margin, known), 0
    for _, judged in pairs:
        counts.add_drawn([verdict for verdict, _ in judged])
        samples = max([samples, *(verdict.sample + 1 for verdict, _ in judged)])
    return PrincipleReport(
        principles="sample",
        samples=samples,
        margin=margin,
        pairs=counts.pairs,
        uses=counts.uses(),
        conflicts=counts.conflicts(),
        never_drawn=counts.never_asked(),
    )


def estimate_from_rationales(
    read: Callable[[], Iterable[PairJudged]],
    readers: Mapping[str, Reader],
    known: Iterable[Place],
    margin: float = MARGIN,
) -> PrincipleReport:
    """Estimate what principles do from the rationales of judgments that saw all of them.

    Args:
        read: reads the run; called twice, first for how this judge's rationales end.
        readers: by objective; verdicts of other objectives are passed over.
        known: the principles of those objectives.
    """
    stops = stops_at_decider(
        (verdict.objective, readers[verdict.objective].last_step(rationale))
        for _, judged in read()
        for verdict, rationale in judged
        if verdict.objective in readers
    )
    counts, methods = PrincipleCounts(margin, known), Counter[Method]()
    judgments = samples = 0
    for _, judged in read():
        mine = [(verdict, rationale) for verdict, rationale in judged if verdict.objective in readers]
        found = [
            readers[verdict.objective].lean(rationale, stops=stops) if counts.takes_side(verdict) else None
            for verdict, rationale in mine
        ]
        judgments += sum(counts.takes_side(verdict) for verdict, _ in mine)
        samples = max([samples, *(verdict.sample + 1 for verdict, _ in mine)])
        methods.update(method for _, method in filter(None, found))
        counts.add_leaning([verdict for verdict, _ in mine], [each and each[0] for each in found])
    return PrincipleReport(
        principles="all",
        samples=samples,
        margin=margin,
        pairs=counts.pairs,
        uses=counts.uses(),
        conflicts=counts.conflicts(),
        estimate=Estimate(
            judgments=judgments,
            found=methods.total(),
            coverage=methods.total() / judgments if judgments else None,
            methods=dict(sorted(methods.items())),
            stops=stops,
        ),
    )
