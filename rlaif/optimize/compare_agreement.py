"""Two models' rewards of the same responses, under one objective: every figure of their agreement. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rlaif.agreement.bias import Sampling
from rlaif.agreement.metrics import Figure
from rlaif.agreement.notes import Notes
from rlaif.agreement.results import Rate
from rlaif.data.human import HumanLabels
from rlaif.optimize import rank_agreement as rank
from rlaif.optimize.compare_inputs import Responses, Scored, tag_groups
from rlaif.optimize.compare_rewards_results import (
    Agreement,
    Group,
    Labelled,
    Measure,
    PartedPair,
    Probabilities,
    TagGroup,
    WithinRows,
)
from rlaif.optimize.rank_agreement import ResponsePairs
from rlaif.rewards.preferences import Floats, Ints
from rlaif.stats import mcnemar
from rlaif.types import TagValue

OVERALL = "overall"
"""The objective of labels that the aggregate is held against."""

PARTED = 10
"""Pairs on which two models part the most that are named."""

_LEAST_IN_GROUP = 10
_SURE = 0.7
# The longer response by the shorter one, in characters.
_LENGTHS = (
    (1.1, "of like length"),
    (1.5, "up to 1.5 times as long"),
    (2.5, "up to 2.5 times as long"),
    (np.inf, "more than that"),
)
_NO_PAIRS = "neither model prefers a response of any pair"
_NEVER_PART = "the two never prefer different responses"


@dataclass(frozen=True)
class View:
    """What is known of the responses beside their rewards.

    Attributes:
        responses: all of them.
        pairs: of responses to one prompt.
        length: in characters, (responses,); `None` without texts.
        tags: of each pair's row; `None` without texts.
        people: the majority of each pair and objective; `None` without labels.
        sampling: how intervals are drawn.
    """

    responses: Responses
    pairs: ResponsePairs
    length: Ints | None
    tags: Sequence[Mapping[str, TagValue]] | None
    people: HumanLabels | None
    sampling: Sampling


def make_view(responses: Responses, people: HumanLabels | None, sampling: Sampling) -> View:
    """Pair the responses, and look up what is told of them."""
    pairs = rank.response_pairs(responses.row_of, responses.prompt_of, seed=sampling.seed)
    if responses.rows is None:
        return View(responses, pairs, None, None, people, sampling)
    lengths = {
        (place, name): len(text)
        for place, row in enumerate(responses.rows)
        for name, text in zip(row.names, row.responses, strict=True)
    }
    rows = responses.row_of.tolist()
    length = np.array([lengths[row, key[1]] for row, key in zip(rows, responses.keys, strict=True)], dtype=np.int64)
    tags = [responses.rows[row].tags for row in responses.row_of[pairs.first].tolist()]
    return View(responses, pairs, length, tags, people, sampling)


def agreement(first: Scored, second: Scored, objective: str | None, view: View) -> Agreement:
    """Compare two models under an objective, `None` for the aggregate."""
    notes, pairs, sampling = Notes(), view.pairs, view.sampling
    one, other = first.column(objective), second.column(objective)
    margins = pairs.margins(one), pairs.margins(other)
    same = rank.same_preference(*margins)
    clear = rank.clear_half(*margins)
    within = rank.within_rows(one, other, view.responses.row_of, view.responses.prompt_of, sampling)
    side = _people(view, objective)

    def measured(name: str, figure: Figure) -> Measure:
        return Measure(value=notes.value(name, figure), ci=figure.ci)

    def share(values: Floats, why: str = _NO_PAIRS) -> Figure:
        return rank.mean_figure(values, pairs.prompt, sampling, why, share=True)

    return Agreement(
        n=int(np.isfinite(same).sum()),
        prompts=len(np.unique(pairs.prompt[np.isfinite(same)])),
        same=measured("same", share(same)),
        clear=int(clear.sum()),
        same_clear=measured("same_clear", share(np.where(clear, same, np.nan))),
        kendall=measured("kendall", rank.kendall(*margins, pairs.prompt, sampling)),
        spearman=measured("spearman", rank.spearman(*margins, pairs.prompt, sampling)),
        pearson=measured("pearson", rank.pearson(*margins, pairs.prompt, sampling)),
        within_rows=None
        if within is None
        else WithinRows(
            rows=within.rows,
            kendall=measured("within_rows.kendall", within.kendall),
            spearman=measured("within_rows.spearman", within.spearman),
        ),
        probabilities=_probabilities(first, second, objective, margins, view, notes),
        parting=int(rank.opposed(*margins).sum()),
        first_longer=_longer(margins, view, notes),
        by_length=tuple(_by_length(same, view)),
        by_tag=tuple(_by_tag(same, view)),
        labels=_labelled(margins, side, view, notes) if side is not None else None,
        parted=tuple(_parted(margins, side, view)),
        not_defined=notes.reasons,
    )


def _probabilities(
    first: Scored, second: Scored, objective: str | None, margins: tuple[Floats, Floats], view: View, notes: Notes
) -> Probabilities | None:
    if objective is None:
        notes.missing("probabilities", "the aggregate has no calibration of its own")
        return None
    if first.log_odds is None or second.log_odds is None:
        notes.missing("probabilities", "a file of scores has no calibration; give the heads")
        return None
    if not len(view.pairs):
        notes.missing("probabilities", _NO_PAIRS)
        return None
    # By tanh nothing overflows.
    p, q = (
        0.5 * (1 + np.tanh(each * known[objective] / 2))
        for each, known in zip(margins, (first.log_odds, second.log_odds), strict=True)
    )
    found = rank.mean_figure(np.abs(p - q), view.pairs.prompt, view.sampling, _NO_PAIRS)
    return Probabilities(
        difference=Measure(value=found.value, ci=found.ci),
        first_sure=float(2 * np.abs(p - 0.5).mean()),
        second_sure=float(2 * np.abs(q - 0.5).mean()),
        contradicted=float(((np.maximum(p, q) >= _SURE) & (np.minimum(p, q) <= 1 - _SURE)).mean()),
    )


def _longer(margins: tuple[Floats, Floats], view: View, notes: Notes) -> Rate | None:
    if view.length is None:
        notes.missing("first_longer", "the texts are not known; give --data")
        return None
    pairs = view.pairs
    ahead = np.sign(view.length[pairs.first] - view.length[pairs.second])
    asked = rank.opposed(*margins) & (ahead != 0)
    if not asked.any():
        notes.missing("first_longer", _NEVER_PART)
        return None
    values = np.where(asked, np.sign(margins[0]) == ahead, np.nan)
    found = rank.mean_figure(values, pairs.prompt, view.sampling, _NEVER_PART, share=True)
    return Rate(n=int(asked.sum()), value=found.value, ci=found.ci)


def _by_length(same: Floats, view: View) -> Iterator[Group]:
    if view.length is None:
        return
    pair = np.column_stack([view.length[view.pairs.first], view.length[view.pairs.second]])
    ratio = pair.max(axis=1, initial=1) / np.maximum(pair.min(axis=1, initial=np.iinfo(np.int64).max), 1)
    at_least = 0.0
    for most, label in _LENGTHS:
        yield Group(label=label, **_group(np.where((ratio > at_least) & (ratio <= most), same, np.nan), view))
        at_least = most


def _by_tag(same: Floats, view: View) -> Iterator[TagGroup]:
    for tag, value, places in tag_groups(view.tags or ()):
        inside = np.full(len(same), np.nan)
        inside[places] = same[places]
        # What all pairs have in common tells nothing apart.
        if len(places) < len(same) and np.isfinite(inside).sum() >= _LEAST_IN_GROUP:
            yield TagGroup(tag=tag, value=value, **_group(inside, view))


def _group(values: Floats, view: View) -> dict[str, int | Measure]:
    found = rank.mean_figure(values, view.pairs.prompt, view.sampling, _NO_PAIRS, share=True)
    return {"n": int(np.isfinite(values).sum()), "same": Measure(value=found.value, ci=found.ci)}


def _people(view: View, objective: str | None) -> Floats | None:
    """1 where people prefer the first response of a pair, -1 the second, 0 a tie, nan unknown, (pairs,)."""
    if view.people is None:
        return None
    known = view.people.objectives
    name = objective or (OVERALL if OVERALL in known or len(known) > 1 else known[0])
    if name not in known:
        return None
    sides = {"a": 1.0, "b": -1.0, "tie": 0.0, None: np.nan}
    keys = view.responses.keys
    found = np.full(len(view.pairs), np.nan)
    for place, (i, j) in enumerate(zip(view.pairs.first.tolist(), view.pairs.second.tolist(), strict=True)):
        (row, one), (_, other) = keys[i], keys[j]
        if {one, other} == {"a", "b"} and (row, name) in view.people.majority:
            found[place] = sides[view.people.majority[row, name]] * (1 if one == "a" else -1)
    return found


def _labelled(margins: tuple[Floats, Floats], side: Floats, view: View, notes: Notes) -> Labelled | None:
    known = np.isfinite(side) & (side != 0)
    if not known.any():
        notes.missing("labels", "people prefer a response of none of these pairs")
        return None
    clusters, sampling = view.pairs.prompt, view.sampling
    one, other = (np.where(known, 0.5 + 0.5 * np.sign(each) * side, np.nan) for each in margins)
    parting = known & rank.opposed(*margins)
    first_right = np.where(parting, one, np.nan)
    wins, losses = int((first_right == 1).sum()), int((first_right == 0).sum())
    reason = "no pair is labelled"

    def measure(name: str, values: Floats, why: str, *, share: bool = True) -> Measure:
        figure = rank.mean_figure(values, clusters, sampling, why, share=share)
        return Measure(value=notes.value(f"labels.{name}", figure), ci=figure.ci)

    return Labelled(
        n=int(known.sum()),
        first=measure("first", one, reason),
        second=measure("second", other, reason),
        difference=measure("difference", one - other, reason, share=False),
        parting=wins + losses,
        first_right=measure("first_right", first_right, _NEVER_PART),
        p_value=mcnemar(wins, losses).p_mid,
    )


def _parted(margins: tuple[Floats, Floats], side: Floats | None, view: View) -> Iterator[PartedPair]:
    """The pairs on which both are clear and prefer different responses, the clearest first."""
    clear = np.where(rank.opposed(*margins), rank.clearness(*margins), 0.0)
    order = np.argsort(-clear, kind="stable")[:PARTED]
    keys = view.responses.keys
    for place in order[clear[order] > 0].tolist():
        (row, one), (_, other) = keys[int(view.pairs.first[place])], keys[int(view.pairs.second[place])]
        people = None if side is None or not np.isfinite(side[place]) else side[place]
        yield PartedPair(
            id=row,
            responses=(one, other),
            first_margin=float(margins[0][place]),
            second_margin=float(margins[1][place]),
            clearness=float(clear[place]),
            people=None if people is None else "tie" if people == 0 else one if people > 0 else other,
        )
