"""From labels of pairs to a score a candidate: Bradley-Terry within each prompt, with soft targets and a weak prior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np

from rlaif.errors import InputError
from rlaif.labeling.read import labels_file, read_labels
from rlaif.rewards.preferences import Floats, Ints
from rlaif.rewards.score import Candidates
from rlaif.types import Label, Message

OVERALL = "overall"

# Deviation of the prior, in log-odds: one sure label of a pair puts its candidates 6 apart and not endlessly far.
PRIOR = 3.0
_STEPS = 50
_DONE = 1e-9


@dataclass(frozen=True)
class Win:
    """P(the first candidate is better than the second), both rows among all candidates."""

    first: int
    second: int
    p: float


@dataclass(frozen=True)
class PairScores:
    """Scores in log-odds, nan without one; `apart` counts candidates compared, but not with most of their prompt's."""

    scores: Floats
    apart: int


def overall_p(label: Label) -> float | None:
    """P(a is better) of a whole label: its overall, or where the Pareto rule decides the mean of its objectives.

    The Pareto rule has no preference where objectives conflict: to leave just these out would flatter every proxy.
    """
    if label.overall.method != "pareto":
        return label.overall.p_a
    known = [each.p_a for each in label.labels.values() if each.p_a is not None]
    return sum(known) / len(known) if known else None


def wins_of_labels(labels: str | Path, rows: Sequence[Candidates]) -> dict[str, list[Win]]:
    """The labels of pairs of candidates, by objective, and under `overall`.

    A pair is matched by its prompt (of equal prompts the one with the pair's id) and the texts of its responses; of
    equal candidates the first stands for all.

    Raises:
        InputError: the labels cannot be read, or none is of two candidates of a prompt.
    """
    starts = [0, *accumulate(len(row.responses) for row in rows)]
    by_prompt: dict[tuple[Message, ...], list[int]] = {}
    for place, row in enumerate(rows):
        by_prompt.setdefault(row.prompt, []).append(place)
    texts: dict[int, dict[str, int]] = {}
    path = labels_file(Path(labels))
    found: dict[str, list[Win]] = {OVERALL: []}
    for _, label in read_labels(path):
        places = sorted(by_prompt.get(label.prompt, ()), key=lambda place: rows[place].id != label.id)
        for place in places:
            if place not in texts:
                responses = rows[place].responses
                texts[place] = {text: row for row, text in reversed(list(enumerate(responses, starts[place])))}
            first, second = texts[place].get(label.response_a), texts[place].get(label.response_b)
            if first is None or second is None or first == second:
                continue
            given: dict[str, float | None] = {name: each.p_a for name, each in label.labels.items()}
            for name, p in {**given, OVERALL: overall_p(label)}.items():
                if p is not None:
                    found.setdefault(name, []).append(Win(first, second, p))
            break
    if not found[OVERALL]:
        raise InputError(
            f"--gold {labels}: labels no pair of candidates; expected labels of their own prompts and responses, word "
            "for word. Label pairs of the candidates, or give a judge."
        )
    return found


def pair_scores(rows: Sequence[Candidates], wins: Sequence[Win]) -> PairScores:
    """Scores of all candidates from the labels of one objective; equal texts have equal scores.

    Candidates that no chain of labels joins have no common scale: of each prompt the largest group that is joined has
    scores, in which the mean is 0.
    """
    starts = np.array([0, *accumulate(len(row.responses) for row in rows)])
    scores = np.full(int(starts[-1]), np.nan)
    by_prompt: dict[int, list[Win]] = {}
    for win in wins:
        by_prompt.setdefault(int(np.searchsorted(starts, win.first, side="right")) - 1, []).append(win)
    apart = 0
    for place, mine in by_prompt.items():
        start = int(starts[place])
        pairs = np.array([(win.first - start, win.second - start) for win in mine], dtype=np.int64)
        group = joined(len(rows[place].responses), pairs)
        apart += len(np.setdiff1d(pairs, group))
        inside = np.isin(pairs[:, 0], group)
        values = bradley_terry(len(group), np.searchsorted(group, pairs[inside]), np.array([w.p for w in mine])[inside])
        by_text = {
            rows[place].responses[row]: value for row, value in zip(group.tolist(), values.tolist(), strict=True)
        }
        for row, text in enumerate(rows[place].responses):
            scores[start + row] = by_text.get(text, np.nan)
    return PairScores(scores, apart)


def joined(count: int, pairs: Ints) -> Ints:
    """The largest group of candidates that pairs join, of equal ones that with the first; places in order."""
    group = np.arange(count)
    while True:
        lower = np.minimum(group[pairs[:, 0]], group[pairs[:, 1]])
        before = group.copy()
        np.minimum.at(group, pairs[:, 0], lower)
        np.minimum.at(group, pairs[:, 1], lower)
        if (group == before).all():
            break
    most = int(np.bincount(group, minlength=count).argmax())
    return np.flatnonzero(group == most).astype(np.int64)


def bradley_terry(count: int, pairs: Ints, p: Floats, prior: float = PRIOR) -> Floats:
    """The scores under which soft labels are likeliest, (count,), with mean 0.

    The minimum of the sum of -[p log s(d) + (1 - p) log s(-d)], d the first's score less the second's, and of the
    scores' squares by twice the prior's variance; found by Newton's method, which a convex loss with bounded curvature
    lets end in few steps.

    Args:
        count: candidates.
        pairs: places of the two, (labels, 2).
        p: that the first is better, (labels,).
        prior: deviation of the scores' normal prior, in log-odds.
    """
    which = np.zeros((len(pairs), count))
    which[np.arange(len(pairs)), pairs[:, 0]] = 1.0
    which[np.arange(len(pairs)), pairs[:, 1]] = -1.0

    def loss(scores: Floats) -> float:
        d = which @ scores
        return float((np.logaddexp(0, -d) + (1 - p) * d).sum() + scores @ scores / (2 * prior**2))

    scores: Floats = np.zeros(count)
    for _ in range(_STEPS):
        wins = 0.5 * (1 + np.tanh(which @ scores / 2))
        gradient = which.T @ (wins - p) + scores / prior**2
        curvature = (which * (wins * (1 - wins))[:, None]).T @ which + np.eye(count) / prior**2
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while size > 1e-6 and loss(scores - size * step) > loss(scores):
            size /= 2
        scores = scores - size * step
        if np.abs(step).max() < _DONE:
            break
    return scores
