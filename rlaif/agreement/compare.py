"""Judges' labels against people's: read, align, measure, rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from rlaif.agreement.align import Aligned, People, align, people_of
from rlaif.agreement.bias import PairView, Sampling
from rlaif.agreement.disagreements import Shown, find_examples
from rlaif.agreement.judges import Contestant, rank
from rlaif.agreement.metrics import Ints
from rlaif.agreement.objective import Asked, Known, compare_objective, disagreements
from rlaif.agreement.results import Comparison, JudgeComparison, JudgeRanking, ObjectiveComparison, Ties
from rlaif.agreement.table import OVERALL, JudgeLabels, fold, read_judges
from rlaif.agreement.texts import PairTexts, read_texts
from rlaif.data.human import HumanVotes, read_human_votes
from rlaif.errors import InputError
from rlaif.version import __version__

EXAMPLES = 200
_MOST_RESAMPLES = 1_000_000


@dataclass
class _Read:
    """Everything that was read. `ids` gives each pair its place, people's first."""

    votes: HumanVotes
    ids: dict[str, int]
    texts: PairTexts
    judges: list[JudgeLabels]
    labelled: int


def compare(
    labels: str | Path,
    human: str | Path,
    *,
    against: Sequence[str | Path] = (),
    pairs: str | Path | None = None,
    objectives: Sequence[str] = (),
    ties: Ties = "count",
    resamples: int = 1000,
    seed: int = 0,
    epsilon: float = 0.2,
    generator: str | None = None,
    examples: int = 0,
) -> Comparison:
    """Compare a judge's labels with people's: agreement, biases, calibration, and whether it may stand in for people.

    What is not defined on the data is `None`, and `not_defined` of the objective says why.

    Args:
        labels: a run's folder, a `labels.jsonl`, or recorded judge labels; several judges in one file are compared.
        human: human labels, `{"id", "annotator", "objective", "preference"}` a row.
        against: labels of more judges, to rank them.
        pairs: the pairs, where the labels do not hold their texts: lengths, form and tags come from them.
        objectives: which to compare; without it all that both sides have.
        ties: `count`: a tie is a third answer; `half`: half right against a or b; `drop`: pairs with one are left out.
        resamples: of the bootstrap; 0 for none (rates keep Wilson's intervals).
        seed: of the random numbers.
        epsilon: how much worse than an annotator the judge may be in the alternative annotator test.
        generator: the judge's own model as the pairs' tags name it, for self-preference.
        examples: how many disagreements an objective to keep with their texts, for a report.

    Raises:
        InputError: a file cannot be used, or both sides have no pair or objective in common.
        RunError: a run's ledger cannot be read.
    """
    _check_settings(ties, resamples, seed, epsilon, examples)
    read = _read(str(labels), str(human), [str(each) for each in against], pairs)
    _check_generator(generator, read.texts)
    wanted = _wanted(read, objectives)
    asked = Asked(ties, Sampling(resamples, seed), epsilon, generator)
    writers = read.texts.written_by(len(read.ids))
    people = {name: people_of(read.votes, name) for name in wanted}
    views = {name: _view(read.texts, people[name], writers) for name in wanted}
    ids = list(read.ids)
    found: list[JudgeComparison] = []
    contestants: dict[str, list[Contestant]] = {name: [] for name in wanted}
    shown: list[Shown] = []
    for number, judge in enumerate(read.judges):
        compared: dict[str, ObjectiveComparison] = {}
        for name in wanted:
            if name not in judge.objectives:
                continue
            orders = judge.orders(read.ids, name)
            aligned = align(people[name], fold(judge.objectives[name], orders))
            known = Known(read.texts, views[name], writers)
            compared[name] = compare_objective(aligned, known, judge.name, asked, _why_no_orders(judge, name), ids)
            contestants[name].append(Contestant(judge.name, aligned.judge, aligned.p_a, _cost(read, judge, name)))
            if not number and examples:
                shown.append(_shown(name, aligned, ties, examples, ids))
        found.append(_judge_comparison(read, judge, compared, wanted))
    ranking = _ranking(contestants, people, views, asked)
    first = found[0]
    return Comparison(
        **{name: getattr(first, name) for name in JudgeComparison.model_fields},
        human=str(human),
        against=tuple(found[1:]),
        ranking=ranking,
        examples=find_examples(read.judges[0], shown, read.votes, pairs),
        seed=seed,
        resamples=resamples,
        rlaif=__version__,
    )


def _check_settings(ties: str, resamples: int, seed: int, epsilon: float, examples: int) -> None:
    if ties not in get_args(Ties):
        raise InputError(f"--ties {ties}: expected {', '.join(get_args(Ties))}.")
    if not 0 <= resamples <= _MOST_RESAMPLES:
        raise InputError(f"--resamples {resamples}: expected 0 to {_MOST_RESAMPLES:,}; 0 draws none.")
    if seed < 0:
        raise InputError(f"--seed {seed}: expected 0 or more.")
    if not 0 <= epsilon < 1:
        raise InputError(f"--epsilon {epsilon}: expected 0 to 1; 0.2 is usual in place of experts, 0.1 of a crowd.")
    if examples < 0:
        raise InputError(f"examples {examples}: expected 0 or more.")


def _check_generator(generator: str | None, texts: PairTexts) -> None:
    if generator is None or generator in texts.generators:
        return
    known = f"who wrote responses there is {_listed(list(texts.generators))}; give one of those"
    if not texts.generators:
        known = "the pairs do not say who wrote the responses; give pairs with the tags generator_a and generator_b"
    raise InputError(f"--generator {generator[:80]}: {known}.")


def _read(labels: str, human: str, against: Sequence[str], pairs: str | Path | None) -> _Read:
    # People first: of pairs that they did not label little has to be kept.
    votes = read_human_votes(human)
    labelled = len(votes.ids)
    ids, texts = votes.ids, PairTexts(labelled)
    # By any path, and a run by its folder or its file.
    files = [
        (Path(each) / "labels.jsonl" if Path(each).is_dir() else Path(each)).resolve() for each in (labels, *against)
    ]
    for each, file in zip(against, files[1:], strict=True):
        if files.count(file) > 1:
            raise InputError(f"{each}: the same labels are given twice; give each once.")
    judges = [judge for each in (labels, *against) for judge in read_judges(each, ids, texts)]
    if not judges:
        raise InputError(f"{labels}: holds no labels; give a run's folder, a labels.jsonl or recorded labels.")
    _tell_apart(judges)
    if pairs is not None:
        read_texts(str(pairs), ids, texts)
    return _Read(votes, ids, texts, judges, labelled)


def _tell_apart(judges: list[JudgeLabels]) -> None:
    """Add the file to the names of judges that share one: the same model may have labelled twice."""
    names = [judge.name for judge in judges]
    for judge in judges:
        if names.count(judge.name) > 1:
            judge.name = f"{judge.name} ({judge.labels})"


def _wanted(read: _Read, objectives: Sequence[str]) -> list[str]:
    """The objectives to compare, in the order of the human labels."""
    theirs = list(read.votes.objectives)
    for name in objectives:
        if name not in theirs:
            raise InputError(
                f"--objective {name}: not in {read.votes.name}, which has {_listed(theirs)}; choose among those."
            )
    for judge in read.judges:
        mine = [name for name in theirs if name in judge.objectives and (not objectives or name in objectives)]
        if not mine:
            wanted = [name for name in theirs if not objectives or name in objectives]
            raise InputError(
                f"{judge.labels}: {judge.name} has labels for {_listed(list(judge.objectives))}, and people are asked "
                f"about {_listed(wanted)} in {read.votes.name}; no objective is in both. Give labels of the same ones."
            )
        places = [np.frombuffer(judge.objectives[name].pair, np.int32) for name in judge.objectives]
        if not any((each < read.labelled).any() for each in places):
            other = next(iter(list(read.ids)[read.labelled :]), "")
            raise InputError(
                f"{judge.labels}: no pair of {judge.name} has a human label; its ids look like {other[:40]!r}, those "
                f"of {read.votes.name} like {next(iter(read.ids))[:40]!r}. Give labels of the same pairs."
            )
    there = {name for judge in read.judges for name in judge.objectives}
    return [name for name in theirs if name in there and (not objectives or name in objectives)]


def _listed(names: list[str]) -> str:
    return ", ".join(name[:80] for name in names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _view(texts: PairTexts, people: People, writers: Ints) -> PairView:
    pairs = people.pairs
    prompts = texts.prompt[pairs]
    # Pairs without a known prompt stand alone.
    apart = np.where(prompts >= 0, prompts, -2 - pairs)
    repeated = len(np.unique(apart)) < len(apart)
    return PairView(
        known=texts.known[pairs],
        length=texts.length[pairs],
        form=texts.form[pairs].astype(np.int64),
        writers=writers[pairs],
        clusters=apart if repeated else None,
    )


def _why_no_orders(judge: JudgeLabels, objective: str) -> str:
    if judge.provenance is None:
        return "the labels have no order; record `order` ab or ba with each"
    if objective == OVERALL:
        return "the overall label is made of the objectives', each of both orders folded"
    return "no pair was judged in both orders"


def _cost(read: _Read, judge: JudgeLabels, objective: str) -> float | None:
    """Mean tokens a pair; of the overall label those of all objectives."""
    if judge.run is None:
        return None
    names = [name for name in judge.objectives if name != OVERALL] if objective == OVERALL else [objective]
    found = [judge.orders(read.ids, name) for name in names]
    return sum(each.tokens_a_pair for each in found if each is not None) or None


def _shown(name: str, aligned: Aligned, ties: Ties, most: int, ids: list[str]) -> Shown:
    rows = disagreements(aligned, ties)[:most]
    people = aligned.people
    return Shown(
        objective=name,
        ids=[ids[place] for place in people.pairs[rows]],
        human=people.gold[rows].tolist(),
        judge=aligned.judge[rows].tolist(),
        p_a=aligned.p_a[rows].tolist(),
    )


def _judge_comparison(
    read: _Read, judge: JudgeLabels, compared: dict[str, ObjectiveComparison], wanted: list[str]
) -> JudgeComparison:
    """Gather one judge's objectives, and say which were left out and why."""
    there = np.zeros(len(read.ids), dtype=np.bool_)
    for columns in judge.objectives.values():
        there[np.frombuffer(columns.pair, np.int32)] = True
    missing = {name: "the judge has no labels of it" for name in wanted if name not in compared}
    missing |= {
        name: "people have no labels of it"
        for name in judge.objectives
        if name not in read.votes.objectives and name != OVERALL
    }
    return JudgeComparison(
        judge=judge.name,
        labels=judge.labels,
        objectives=compared,
        unmatched_labels=int(there[read.labelled :].sum()),
        unmatched_humans=int((~there[: read.labelled]).sum()),
        not_compared=missing,
        provenance=judge.provenance,
    )


def _ranking(
    contestants: dict[str, list[Contestant]], people: dict[str, People], views: dict[str, PairView], asked: Asked
) -> tuple[JudgeRanking, ...]:
    return tuple(
        rank(name, judges, people[name].gold, views[name].clusters, asked.ties, asked.sampling)
        for name, judges in contestants.items()
        if len(judges) > 1
    )
