"""`rlaif reward compare`: reward models on the same responses, where they part, and whether data have drifted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rlaif.agreement.bias import Sampling
from rlaif.data.human import HumanLabels, read_human_labels
from rlaif.errors import InputError, nearest
from rlaif.optimize.candidates import read_pool_rows
from rlaif.optimize.compare_agreement import OVERALL, View, agreement, make_view
from rlaif.optimize.compare_inputs import (
    Responses,
    Scored,
    check_models,
    in_common,
    is_score_file,
    read_scores,
    responses_in,
    responses_of,
    scored_by_heads,
    scored_from_file,
)
from rlaif.optimize.compare_rewards_results import (
    REWARD,
    Agreement,
    ComparedModel,
    ComparedPair,
    PartedTexts,
    RewardComparison,
)
from rlaif.optimize.compare_rewards_words import concluded
from rlaif.rewards.score import Candidates
from rlaif.rewards.spec import SPEC_FILE, read_spec
from rlaif.version import __version__

if TYPE_CHECKING:
    from rlaif.optimize.feature_drift import DriftMeter
    from rlaif.rewards.heads import RewardHeads

Watch = Callable[[int, int], None]
Points = tuple[tuple[float, float], ...]

RESAMPLES = 1000
_MOST_POINTS = 600


@dataclass(frozen=True)
class ComparedRewards:
    """A comparison, and what only its report shows.

    Attributes:
        comparison: every figure.
        margins: of a part of the pairs, by models and objective, `reward` for the aggregate.
        texts: parted pairs to read.
    """

    comparison: RewardComparison
    margins: Mapping[tuple[str, str, str], Points]
    texts: tuple[PartedTexts, ...]


def compare_rewards(
    models: Sequence[str | Path],
    data: str | None = None,
    *,
    reference: str | None = None,
    labels: str | None = None,
    objectives: Sequence[str] = (),
    columns: str | None = None,
    split: str | None = None,
    config: str | None = None,
    limit: int | None = None,
    resamples: int = RESAMPLES,
    permutations: int = 999,
    seed: int = 0,
    batch_tokens: int | None = None,
    device: str | None = None,
    watch: Watch | None = None,
) -> ComparedRewards:
    """Compare reward models on the same pairs, or on longer lists of candidates.

    Args:
        models: heads (folders or hub ids), or files that `rlaif score` wrote of the same data.
        data: pairs or candidates in any shape that `rlaif score` takes; only files of scores do without.
        reference: data to tell drift from, such as those that the heads were trained on; a folder of heads stands for
            the labels that it names.
        labels: people's labels of the pairs; those of `overall` are held against the aggregate.
        objectives: the ones to compare; without it all that two models share.
        columns: names of the data's columns, as `prompt=question,response_a=first`.
        split: of a saved or hub dataset.
        config: of a hub dataset.
        limit: the first rows that can be used.
        resamples: of the bootstrap; 0 for no intervals.
        permutations: of the test of drift.
        seed: of all draws.
        batch_tokens: tokens of a batch, padding counted.
        device: the GPU where there is one, else the CPU.
        watch: called with the responses scored so far, by all heads together, and how many there are.

    Raises:
        InputError: a model, data, labels or reference cannot be used, or nothing is in common.
        RunError: a score is not a number, or the memory is too small.
    """
    names = [str(model) for model in models]
    check_models(names)
    heads = [name for name in names if not is_score_file(name)]
    _check_needs(heads, data, reference)
    # Files first: a model takes a while to load.
    files = {name: read_scores(name) for name in names if name not in heads}
    people = None if labels is None else read_human_labels(labels)
    rows, rejected = _rows(data, columns, split, config, limit)
    responses = responses_in(list(files.values())) if rows is None else responses_of(rows)
    scored: dict[str, Scored] = {}
    drift = _drift(reference, rows or [], permutations, seed, batch_tokens)
    for place, name in enumerate(heads):
        loaded = _load(name, device)
        tell = _told(watch, place * len(responses), len(heads) * len(responses))
        scored[name] = scored_by_heads(loaded, name, responses, batch_tokens=batch_tokens, watch=tell)
        if drift is not None:
            drift.add(name, loaded)
        # Several large models need not fit side by side.
        del loaded
    for name, file in files.items():
        scored[name] = scored_from_file(file, responses)
    kept, common, left_out = in_common([scored[name] for name in names], responses)
    view = make_view(common, people, Sampling(resamples, seed))
    _check_objectives(objectives, kept)
    compared = [_compared(first, second, objectives, view) for first, second in combinations(kept, 2)]
    _check_labels(labels, people, compared)
    found = RewardComparison(
        models=tuple(_model(one) for one in kept),
        data=data,
        labels=labels,
        rows=len(np.unique(common.row_of)),
        responses=len(common),
        pairs=len(view.pairs),
        left_out=left_out,
        rejected=rejected,
        compared=tuple(compared),
        drift=() if drift is None else drift.found(),
        conclusion=concluded(compared),
        resamples=resamples,
        seed=seed,
        notes=tuple(_notes(kept, left_out, rejected, compared)),
        rlaif=__version__,
    )
    return ComparedRewards(found, dict(_margins(kept, compared, view)), tuple(_texts(compared, common)))


def _check_needs(heads: Sequence[str], data: str | None, reference: str | None) -> None:
    if data is None and heads:
        raise InputError(f"{heads[0]}: heads have nothing to score; give --data, or files that rlaif score wrote.")
    if reference is not None and not heads:
        raise InputError("--reference: drift is told by the features of heads; give heads, not only files of scores.")


def _rows(
    data: str | None, columns: str | None, split: str | None, config: str | None, limit: int | None
) -> tuple[list[Candidates] | None, int]:
    if data is None:
        return None, 0
    rows, rejects = read_pool_rows(data, columns, split, config, limit)
    return rows, len(rejects)


def _reference(reference: str) -> list[Candidates]:
    """Rows of the reference; of a folder of heads those of the labels that it names."""
    folder = Path(reference)
    if not (folder / SPEC_FILE).is_file():
        return read_pool_rows(reference)[0]
    made = read_spec(folder).provenance
    if not made.get("labels"):
        raise InputError(f"--reference {reference}: the heads do not name their labels; give the data themselves.")
    from rlaif.rewards.sources import read_preferences

    read = read_preferences(list(made["labels"]), columns=made.get("columns") or None, allow_missing=True)
    return [
        Candidates(line, pair.id, pair.prompt, (pair.response_a, pair.response_b), ("a", "b"), pair.tags)
        for line, pair in enumerate(read.pairs, 1)
    ]


def _drift(
    reference: str | None, new: Sequence[Candidates], permutations: int, seed: int, batch_tokens: int | None
) -> DriftMeter | None:
    if reference is None:
        return None
    from rlaif.optimize.feature_drift import DriftMeter

    return DriftMeter(
        _reference(reference), new, source=reference, permutations=permutations, seed=seed, batch_tokens=batch_tokens
    )


def _load(name: str, device: str | None) -> RewardHeads:
    from rlaif.rewards.heads import RewardHeads

    return RewardHeads.load(name, device=device)


def _told(watch: Watch | None, before: int, total: int) -> Callable[[int], None] | None:
    return None if watch is None else lambda done: watch(before + done, total)


def _compared(first: Scored, second: Scored, objectives: Sequence[str], view: View) -> ComparedPair:
    shared = [name for name in first.objectives if name in second.objectives and (not objectives or name in objectives)]
    return ComparedPair(
        first=first.name,
        second=second.name,
        objectives={name: agreement(first, second, name, view) for name in shared},
        reward=agreement(first, second, None, view),
    )


def _check_objectives(objectives: Sequence[str], models: Sequence[Scored]) -> None:
    for name in objectives:
        if sum(name in model.objectives for model in models) < 2:
            known = list(dict.fromkeys(each for model in models for each in model.objectives))
            raise InputError(
                f"--objective {name[:80]}: fewer than two of the models have it; they have "
                f"{', '.join(known)[:200]}.{nearest(name, known)}"
            )


def _check_labels(labels: str | None, people: HumanLabels | None, compared: Sequence[ComparedPair]) -> None:
    if people is None or any(one.labels for each in compared for one in (*each.objectives.values(), each.reward)):
        return
    raise InputError(
        f"--labels {labels}: none of the compared pairs has a label for a side, under {OVERALL} or an objective that "
        f"two models share; the labels are of {', '.join(people.objectives)[:120]}, with ids like "
        f"{next(iter(people.majority))[0][:40]!r}. Give labels of these pairs."
    )


def _model(one: Scored) -> ComparedModel:
    columns = {**{name: one.column(name) for name in one.objectives}, REWARD: one.reward}
    return ComparedModel(
        name=one.name,
        kind=one.kind,
        objectives=one.objectives,
        mean={name: float(column.mean()) for name, column in columns.items()},
        std={name: float(column.std()) for name, column in columns.items()},
    )


def _notes(models: Sequence[Scored], left_out: int, rejected: int, compared: Sequence[ComparedPair]) -> Iterator[str]:
    if rejected:
        yield f"{rejected:,} row{'' if rejected == 1 else 's'} of the data cannot be used and {_is(rejected)} left out."
    if left_out:
        noun = "response" if left_out == 1 else "responses"
        yield f"{left_out:,} {noun} that not every model scored {_is(left_out)} left out."
    for one in compared:
        if not one.objectives:
            yield f"{one.first} and {one.second} share no objective; only their aggregates are compared."
    for model in models:
        for name, column in (*((name, model.column(name)) for name in model.objectives), (REWARD, model.reward)):
            if len(column) and not np.ptp(column):
                yield f"{model.name}: every response has the same {name}."


def _is(count: int) -> str:
    return "is" if count == 1 else "are"


def _each(compared: Sequence[ComparedPair]) -> Iterator[tuple[ComparedPair, str | None, Agreement]]:
    """Every agreement with its objective, `None` for the aggregate."""
    for pair in compared:
        yield from ((pair, name, one) for name, one in pair.objectives.items())
        yield pair, None, pair.reward


def _margins(
    models: Sequence[Scored], compared: Sequence[ComparedPair], view: View
) -> Iterator[tuple[tuple[str, str, str], Points]]:
    """Margins of the same pairs of responses for each picture, as many as can be told apart."""
    named = {model.name: model for model in models}
    count = len(view.pairs)
    random = np.random.default_rng([view.sampling.seed, 2])
    some = np.sort(random.permutation(count)[:_MOST_POINTS])
    for pair, objective, _ in _each(compared):
        both = [view.pairs.margins(named[name].column(objective))[some].tolist() for name in (pair.first, pair.second)]
        yield (pair.first, pair.second, objective or REWARD), tuple(zip(*both, strict=True))


def _texts(compared: Sequence[ComparedPair], responses: Responses) -> Iterator[PartedTexts]:
    if responses.rows is None:
        return
    rows = {row.id: row for row in responses.rows}
    for pair, objective, found in _each(compared):
        for parted in found.parted:
            row = rows[parted.id]
            one, other = (row.responses[row.names.index(name)] for name in parted.responses)
            yield PartedTexts(
                pair=parted,
                first=pair.first,
                second=pair.second,
                objective=objective or REWARD,
                prompt=row.prompt,
                texts=(one, other),
                tags=row.tags,
            )
