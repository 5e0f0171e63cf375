"""Measure heads against labels that they were not trained on. Pure: scores and preferences in, figures out."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from rlaif.agreement.bias import Sampling
from rlaif.agreement.bootstrap import paired_difference
from rlaif.agreement.calibration import sigmoid
from rlaif.agreement.notes import Notes
from rlaif.agreement.results import TagAgreement
from rlaif.agreement.texts import PairTexts
from rlaif.errors import RunError
from rlaif.rewards import evaluate_one as one
from rlaif.rewards.evaluate_one import View
from rlaif.rewards.evaluation import (
    AggregateAgreement,
    Change,
    Conflict,
    EvaluatedSource,
    Evaluation,
    ObjectiveEvaluation,
    ScoredPair,
)
from rlaif.rewards.preferences import Floats, Ints, Preferences
from rlaif.rewards.spec import Calibration, HeadsSpec, Normalization
from rlaif.version import __version__

OVERALL = "overall"
FEW = 30
RESAMPLES = 1000

_HIGH_ECE = 0.05
_NO_LABELS = "no pair has a label under this objective"
_ALL_TIES = "every label is a tie"


def evaluate_scores(
    preferences: Preferences,
    raw: Floats,
    spec: HeadsSpec,
    *,
    reward: Floats | None = None,
    members: Floats | None = None,
    name: str = "",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Evaluation:
    """Compute everything that `rlaif evaluate` tells, for each head of a checkpoint.

    Args:
        preferences: labels; objectives that they have beside the spec's are named in `not_scored`.
        raw: raw scores of both responses, (pairs, 2, objectives), objectives in the spec's order.
        spec: temperatures, and the names of the objectives.
        reward: aggregate rewards, (pairs, 2); held against every objective's labels and against those of `overall`.
        members: raw scores of the ensemble's members, (pairs, 2, members, objectives).
        name: of the checkpoint, for the reader.
        resamples: of the bootstrap; 0 for none.
        seed: of the resamples.

    Raises:
        RunError: a score is not a number.
    """
    _check(preferences, raw, spec, reward, members)
    sampling = Sampling(resamples, seed)
    texts = _texts(preferences)
    found = {}
    for place, objective in enumerate(spec.objectives):
        temperature = spec.calibration.get(objective, Calibration()).temperature
        log_odds = (raw[:, 0, place] - raw[:, 1, place]) / temperature
        rows = _rows(preferences, objective)
        spread = None if members is None else (members[rows, 0, :, place] - members[rows, 1, :, place]) / temperature
        view = View(
            log_odds=log_odds[rows],
            temperature=temperature,
            target=_target(preferences, objective)[rows],
            length=texts.length[rows],
            form=texts.form[rows].astype(np.int64),
            group=preferences.group[rows],
        )
        found[objective] = _objective(view, texts, rows, spread, sampling)
    aggregate = {} if reward is None else dict(_aggregate(preferences, reward, spec, sampling))
    return Evaluation(
        heads=name,
        pairs=len(preferences),
        conversations=len(np.unique(preferences.group)),
        objectives=found,
        conflicts=tuple(_conflicts(preferences, raw, spec)),
        aggregate=aggregate,
        not_scored=tuple(
            each for each in preferences.objectives if each not in spec.objectives and each not in aggregate
        ),
        sources=tuple(
            EvaluatedSource(name=each.name, kind=each.kind, pairs=each.pairs, labels=each.labels)
            for each in preferences.sources
        ),
        resamples=resamples,
        seed=seed,
        rlaif=__version__,
    )


def accuracy_changes(
    data: str, preferences: Preferences, before: Floats, after: Floats, spec: HeadsSpec, *, seed: int = 0
) -> tuple[Change, ...]:
    """What a tuning gained, or forgot, on labelled pairs: accuracy before and after, by objective with labels.

    Args:
        data: what the pairs are, for the reader.
        preferences: their labels.
        before: raw scores by the checkpoint that was tuned, (pairs, 2, objectives), in the spec's order; nan where
            that checkpoint had no such objective.
        after: raw scores by the tuned one, likewise.
        spec: names of the objectives.
        seed: of the resamples.
    """
    changes = []
    for place, objective in enumerate(spec.objectives):
        target = _target(preferences, objective)
        rows = _rows(preferences, objective)
        kept = rows[(target[rows] != 0.5) & np.isfinite(before[rows, :, place]).all(axis=1)]
        if not len(kept):
            continue
        first, second = (
            0.5 + 0.5 * np.sign(scores[kept, 0, place] - scores[kept, 1, place]) * np.sign(target[kept] - 0.5)
            for scores in (before, after)
        )
        figure = paired_difference(second, first, preferences.group[kept], RESAMPLES, seed)
        changes.append(
            Change(
                data=data,
                objective=objective,
                n=len(kept),
                before=float(first.mean()),
                after=float(second.mean()),
                difference=float((second - first).mean()),
                difference_ci=figure.ci,
            )
        )
    return tuple(changes)


def scored_examples(preferences: Preferences, raw: Floats, spec: HeadsSpec, *, each: int = 6) -> tuple[ScoredPair, ...]:
    """The pairs to read: of each objective those on which the head is most surely wrong, then most surely right.

    Sure are both: the order goes by |2 p - 1| of the head times that of the label. Of one prompt there is one pair.

    Args:
        preferences: labels.
        raw: raw scores of both responses, (pairs, 2, objectives), objectives in the spec's order.
        spec: temperatures and normalisation.
        each: how many right, and how many wrong, of an objective.
    """
    norms = [spec.normalization.get(objective, Normalization()) for objective in spec.objectives]
    chosen = []
    for place, objective in enumerate(spec.objectives):
        temperature = spec.calibration.get(objective, Calibration()).temperature
        target, rows = _target(preferences, objective), _rows(preferences, objective)
        p_a = sigmoid((raw[:, 0, place] - raw[:, 1, place]) / temperature)
        sided = rows[(target[rows] != 0.5) & (p_a[rows] != 0.5)]
        agree = (2 * p_a[sided] - 1) * (2 * target[sided] - 1)
        for right in (False, True):
            mine = (agree > 0) == right
            order = sided[mine][np.argsort(-np.abs(agree[mine]), kind="stable")]
            for row in _of_each_prompt(order, preferences.group)[:each]:
                pair = preferences.pairs[row]
                chosen.append(
                    ScoredPair(
                        id=pair.id,
                        objective=objective,
                        right=right,
                        target=float(target[row]),
                        p_a=float(p_a[row]),
                        rewards={
                            name: (
                                (float(raw[row, 0, k]) - norms[k].mean) / norms[k].std,
                                (float(raw[row, 1, k]) - norms[k].mean) / norms[k].std,
                            )
                            for k, name in enumerate(spec.objectives)
                        },
                        prompt=pair.prompt,
                        response_a=pair.response_a,
                        response_b=pair.response_b,
                        tags=pair.tags,
                    )
                )
    return tuple(chosen)


def _of_each_prompt(order: Ints, group: Ints) -> Ints:
    """The first row of each group, in order."""
    first = np.unique(group[order], return_index=True)[1]
    kept: Ints = order[np.sort(first)]
    return kept


def _check(
    preferences: Preferences, raw: Floats, spec: HeadsSpec, reward: Floats | None, members: Floats | None
) -> None:
    n, k = len(preferences), len(spec.objectives)
    wanted = {"raw": (raw, (n, 2, k)), "reward": (reward, (n, 2))}
    for what, (scores, shape) in wanted.items():
        if scores is not None and scores.shape != shape:
            raise ValueError(f"{what} is {scores.shape}; expected {shape}")
    if members is not None and (members.shape[:2] != (n, 2) or members.shape[3:] != (k,)):
        raise ValueError(f"members are {members.shape}; expected ({n}, 2, members, {k})")
    bad = ~np.isfinite(raw).all(axis=(1, 2))
    if bad.any():
        pair = preferences.pairs[int(np.flatnonzero(bad)[0])]
        raise RunError(
            f"{pair.id}: a score of it is not a number, as those of {int(bad.sum()):,} of {n:,} pairs; expected finite "
            "scores. Train the heads again, or score in float32."
        )


def _texts(preferences: Preferences) -> PairTexts:
    texts = PairTexts(len(preferences))
    for row, pair in enumerate(preferences.pairs):
        # Prompts are grouped already.
        known = {"response_a": pair.response_a, "response_b": pair.response_b, "tags": pair.tags}
        texts.add(row, {"prompt": "", **known})
    return texts


def _target(preferences: Preferences, objective: str) -> Floats:
    """The labels of an objective, (pairs,); nan where there is none."""
    if objective not in preferences.objectives:
        return np.full(len(preferences), np.nan)
    place = preferences.objectives.index(objective)
    labels: Floats = np.where(preferences.weight[:, place] > 0, preferences.target[:, place], np.nan)
    return labels


def _rows(preferences: Preferences, objective: str) -> Ints:
    return np.flatnonzero(np.isfinite(_target(preferences, objective)))


def _objective(
    view: View, texts: PairTexts, rows: Ints, members: Floats | None, sampling: Sampling
) -> ObjectiveEvaluation:
    notes = Notes()
    decided = view.decided
    accuracy = one.share(view.right[decided], view.group[decided], sampling)
    if accuracy.value is None:
        for name in ("accuracy", "margin", "length_only_accuracy", "over_length"):
            notes.missing(name, _ALL_TIES if len(view) else _NO_LABELS)
    known, lengths = one.calibration(view, notes), one.length(view, sampling, notes)
    if lengths.equal.value is None:
        notes.missing("equal_length", "no pair with lengths that differ by a tenth at most")
    found = ObjectiveEvaluation(
        n=accuracy.n,
        ties=int((~decided).sum()),
        accuracy=accuracy.value,
        accuracy_ci=accuracy.ci,
        ece=known.ece,
        ece_by_chance=known.ece_by_chance,
        ece_uncalibrated=known.ece_uncalibrated,
        ece_refitted=known.ece_refitted,
        brier=known.brier,
        log_loss=known.log_loss,
        temperature=view.temperature,
        temperature_here=known.temperature_here,
        bins=known.bins,
        margin=one.margin(view),
        length_slope=lengths.head.value,
        length_slope_ci=lengths.head.ci,
        label_length_slope=lengths.labels.value,
        label_length_slope_ci=lengths.labels.ci,
        length_slope_gap=lengths.gap.value,
        length_slope_gap_ci=lengths.gap.ci,
        length_only_rule=lengths.rule,
        length_only_accuracy=lengths.only.value,
        length_only_accuracy_ci=lengths.only.ci,
        over_length=lengths.over.value,
        over_length_ci=lengths.over.ci,
        longer=lengths.longer,
        label_longer=lengths.label_longer,
        equal_length=lengths.equal,
        by_tag=tuple(_by_tag(view, texts, rows, sampling, notes)),
        by_certainty=tuple(one.by_certainty(view, sampling)),
        form=tuple(one.form(view, sampling)),
        ensemble=None if members is None else one.ensemble(view, members, sampling),
    )
    return found.model_copy(update={"not_defined": notes.reasons, "warnings": tuple(_warnings(found))})


def _by_tag(view: View, texts: PairTexts, rows: Ints, sampling: Sampling, notes: Notes) -> Iterator[TagAgreement]:
    if texts.tags_left_out:
        names = ", ".join(sorted(texts.tags_left_out)[:8])
        notes.missing("by_tag.left_out", f"tags with more than 20 values make no groups: {names}")
    whole = int(view.decided.sum())
    for name, column in texts.tags():
        codes = column.codes[rows]
        groups = [(value, view.decided & (codes == place)) for place, value in enumerate(column.values)]
        for value, mine in sorted(groups, key=lambda group: -int(group[1].sum())):
            # A group that holds every pair says nothing new.
            if 0 < int(mine.sum()) < whole:
                found = one.share(view.right[mine], view.group[mine], sampling)
                yield TagAgreement(tag=name, value=value, n=found.n, accuracy=found.value, accuracy_ci=found.ci)


def _conflicts(preferences: Preferences, raw: Floats, spec: HeadsSpec) -> Iterator[Conflict]:
    for (i, first), (j, second) in combinations(enumerate(spec.objectives), 2):
        scored = np.sign(raw[:, 0, i] - raw[:, 1, i]) * np.sign(raw[:, 0, j] - raw[:, 1, j]) < 0
        sides = [np.nan_to_num(np.sign(_target(preferences, each) - 0.5)) for each in (first, second)]
        both = (sides[0] != 0) & (sides[1] != 0)
        labelled = sides[0] * sides[1] < 0
        yield Conflict(
            first=first,
            second=second,
            pairs=len(preferences),
            heads=int(scored.sum()),
            labelled=int(both.sum()),
            labels=int(labelled.sum()),
            heads_there=int((scored & both).sum()),
            both=int((scored & labelled).sum()),
        )


def _aggregate(
    preferences: Preferences, reward: Floats, spec: HeadsSpec, sampling: Sampling
) -> Iterator[tuple[str, AggregateAgreement]]:
    extra = [OVERALL] if OVERALL in preferences.objectives and OVERALL not in spec.objectives else []
    for objective in [*spec.objectives, *extra]:
        target, rows = _target(preferences, objective), _rows(preferences, objective)
        sided = rows[target[rows] != 0.5]
        lead = np.sign(reward[sided, 0] - reward[sided, 1])
        right = 0.5 + 0.5 * lead * np.sign(target[sided] - 0.5)
        found = one.share(right, preferences.group[sided], sampling)
        yield (
            objective,
            AggregateAgreement(n=found.n, ties=len(rows) - found.n, accuracy=found.value, accuracy_ci=found.ci),
        )


def _warnings(found: ObjectiveEvaluation) -> Iterator[str]:
    if not found.labelled:
        yield "No pair has a label, so nothing is measured."
        return
    if found.n < FEW:
        yield f"Only {found.n} pair{'' if found.n == 1 else 's'} with a label for one side: the figures say little."
    if found.accuracy_ci is not None and found.accuracy_ci[0] <= 0.5:
        yield "Not told apart from a coin: the interval of its accuracy reaches 50%."
    elif found.over_length_ci is not None and found.over_length_ci[0] <= 0:
        yield f"Not told apart from a rule that takes the {found.length_only_rule} response."
    if found.leans_to is not None:
        yield (
            f"It leans to {found.leans_to} responses more than the labels do (slope {found.length_slope:.2f}, theirs "
            f"{found.label_length_slope:.2f}); --length-control in training takes that out."
        )
    chance = found.ece_by_chance or 0.0
    if found.ece is not None and found.ece > max(_HIGH_ECE, 1.5 * chance):
        hot = "" if found.temperature_here is None else f" These pairs ask for temperature {found.temperature_here:.2f}"
        has = f", it has {found.temperature:.2f}." if hot else ""
        yield f"Its probabilities are off by {100 * found.ece:.1f} points on average.{hot}{has}"
