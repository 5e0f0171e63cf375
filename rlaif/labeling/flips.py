"""Which labels differ between two runs on the same pairs. `compare_labels` is pure; `compare_runs` reads for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rlaif.constitution import Constitution
from rlaif.constitution.diff import Change
from rlaif.data.human import HumanLabels, read_human_labels
from rlaif.errors import InputError
from rlaif.labeling.flip_examples import Example, Sampler, with_rationales
from rlaif.labeling.flip_groups import ByTag, TagGroups
from rlaif.labeling.ledgers import RunLedger, open_ledger
from rlaif.labeling.manifest import changed_settings
from rlaif.labeling.matches import Counter, FlipCount, Matching, Standing, flips
from rlaif.labeling.movers import Mover, find_movers
from rlaif.labeling.read import labels_file, read_labels
from rlaif.labeling.references import AgainstReference, ReferenceTests
from rlaif.types import Frozen, Label

EXAMPLES = 3
# Named already where they differ, of other pairs than those compared, or without a say in the labels.
_TOLD_ELSEWHERE = frozenset(
    {"constitution", "judge", "judge_digest", "template", "data", "columns", "limit", "objectives"}
)


class LabelFlips(FlipCount):
    """How the labels of one objective, or the overall ones, went from the old run to the new one.

    `lost` and `gained` count the pairs with a preference in the old or the new run only (the judge abstained, or the
    objectives are in conflict); they are not compared. `mean_shift` is the mean of |new p_a - old p_a| over the pairs
    with both, 0 to 1.
    """

    became_tie: int
    left_tie: int
    lost: int
    gained: int
    mean_shift: float | None
    flipped_ids: tuple[str, ...]
    became_tie_ids: tuple[str, ...]
    left_tie_ids: tuple[str, ...]


class RunFlips(Frozen):
    """Two runs compared.

    `pairs` counts those in both, with the same prompt and responses; `other_content` those whose id is in both with
    another prompt or other responses, which are not compared. `made_with` holds a judge or template that is not the
    same in both, `other_settings` what else the runs were told differently, where both are folders: flips then do not
    come from the constitution alone. `moved` is by the largest shift first. `examples` are a fixed sample of the flips.
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
    other_settings: tuple[str, ...] = ()
    by_tag: TagGroups
    mcnemar: ReferenceTests
    moved: tuple[Mover, ...] = ()
    examples: tuple[Example, ...] = ()


@dataclass
class _Tally:
    counter: Counter = field(default_factory=Counter)
    lost: int = 0
    gained: int = 0
    shifted: float = 0.0
    with_both: int = 0
    flipped: list[str] = field(default_factory=list)
    became_tie: list[str] = field(default_factory=list)
    left_tie: list[str] = field(default_factory=list)

    def add(self, pair_id: str, old: Standing, new: Standing) -> None:
        self.counter.add(old, new)
        if old.p_a is not None and new.p_a is not None:
            self.shifted += abs(new.p_a - old.p_a)
            self.with_both += 1
        if old.preference is None or new.preference is None:
            self.lost += old.preference is not None
            self.gained += new.preference is not None
        elif flips(old, new):
            self.flipped.append(pair_id)
        elif old.preference != new.preference:
            (self.became_tie if new.preference == "tie" else self.left_tie).append(pair_id)

    def total(self) -> LabelFlips:
        return LabelFlips(
            **self.counter.total().model_dump(),
            became_tie=len(self.became_tie),
            left_tie=len(self.left_tie),
            lost=self.lost,
            gained=self.gained,
            mean_shift=self.shifted / self.with_both if self.with_both else None,
            flipped_ids=tuple(self.flipped),
            became_tie_ids=tuple(self.became_tie),
            left_tie_ids=tuple(self.left_tie),
        )


@dataclass(frozen=True)
class _Compared:
    flips: RunFlips
    other_content: frozenset[str]


def compare_labels(
    old: Iterable[Label], new: Iterable[Label], *, human: HumanLabels | None = None, examples: int = 0
) -> RunFlips:
    """Compare two runs' labels pair by pair, in the order of the new run; each id stands once in a run.

    Raises:
        InputError: none of the human labels is of a pair and objective of the runs.
    """
    return _compare(old, new, human, examples).flips


def _compare(old: Iterable[Label], new: Iterable[Label], human: HumanLabels | None, examples: int) -> _Compared:
    matching, by_tag, against, sampler = Matching(), ByTag(), AgainstReference(human), Sampler(examples)
    tallies: dict[str | None, _Tally] = {}
    for match in matching.matches(old, new):
        for name, before, now in match.standings():
            tallies.setdefault(name, _Tally()).add(match.label.id, before, now)
        by_tag.add(match)
        against.add(match)
        sampler.add(match)
    made = matching.old_made_with, matching.new_made_with
    flips = RunFlips(
        pairs=matching.pairs,
        only_old=matching.only_old,
        only_new=matching.only_new,
        other_content=len(matching.other_content),
        objectives={name: tally.total() for name, tally in tallies.items() if name is not None},
        overall=tallies.get(None, _Tally()).total(),
        objectives_only_old=tuple(name for name in matching.old_names if name not in matching.new_names),
        objectives_only_new=tuple(name for name in matching.new_names if name not in matching.old_names),
        made_with=tuple(
            Change(what=what, before=before, after=made[1][what])
            for what, before in made[0].items()
            if made[1].get(what, before) != before
        ),
        by_tag=by_tag.total(),
        # Without a pair in both, that is what to be told of, and not what the reference lacks.
        mcnemar=(against if matching.pairs else AgainstReference()).total(),
        examples=sampler.total(),
    )
    return _Compared(flips, frozenset(matching.other_content))


def compare_runs(
    old_run: Path,
    new_run: Path,
    old: Constitution,
    new: Constitution,
    *,
    human: str | None = None,
    examples: int = EXAMPLES,
) -> RunFlips:
    """Compare the labels of two runs, each a run's folder or a `labels.jsonl`, made under these constitutions.

    Args:
        human: a file of human labels to test against.
        examples: how many flips to show.

    Raises:
        InputError: a file is not usable, a run was labelled under another constitution, or no pair is in both.
    """
    old_file, new_file = labels_file(old_run), labels_file(new_run)
    people = read_human_labels(human) if human is not None else None
    swapped = "give the runs in the order of the constitutions"
    copied = "or, after --update in the same folder, the labels.jsonl copied before it"
    earlier = _labels_under(old_file, old, "OLD", {new.reference: f"those are NEW's labels: {swapped}, {copied}"})
    later = _labels_under(
        new_file,
        new,
        "NEW",
        {old.reference: f"those are OLD's labels: {swapped}, or label NEW_RUN again with --update"},
    )
    compared = _compare(earlier, later, people, examples)
    flips = compared.flips
    if not flips.pairs:
        why = "all ids in both stand for other texts" if flips.other_content else "no id is in both"
        raise InputError(f"{old_file} and {new_file}: no pair to compare ({why}); give two runs on the same data.")
    ledgers = open_ledger(old_run, old), open_ledger(new_run, new)
    more = {
        "other_settings": _other_settings(*ledgers),
        "moved": find_movers(old, new, flips.objectives, ledgers, compared.other_content),
        "examples": tuple(with_rationales(example, *ledgers) for example in flips.examples),
    }
    return flips.model_copy(update=more)


def _other_settings(old: RunLedger | None, new: RunLedger | None) -> tuple[str, ...]:
    if old is None or new is None:
        return ()
    told = [{name: value for name, value in run.settings.items() if name not in _TOLD_ELSEWHERE} for run in (old, new)]
    return tuple(changed_settings(*told))


def _labels_under(path: Path, constitution: Constitution, side: str, hints: Mapping[str, str]) -> Iterator[Label]:
    for number, label in read_labels(path):
        made_under = label.provenance.constitution
        if made_under != constitution.reference:
            fix = hints.get(made_under, "give the constitution of that run, or label again with this one")
            fact = f"labelled under {made_under}, and {side} is {constitution.reference}"
            raise InputError(f"{path}:{number}: {fact}; {fix}.")
        yield label
