"""Several judges on the same pairs: who is best, which differences are more than chance, and what ensembles add."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist
from typing import Literal

import numpy as np

from rlaif.agreement.align import majority, one_hot
from rlaif.agreement.bias import Sampling, drawn_or
from rlaif.agreement.bootstrap import bootstrap, paired_difference
from rlaif.agreement.metrics import Codes, Floats, Ints, accuracies, accuracy, accuracy_scores, cells, confusion
from rlaif.agreement.results import JudgeDifference, JudgeRanking, JudgeStanding, Ties
from rlaif.stats import CLIP, mcnemar

LEVEL = 0.05
_ROUNDING = 1e-9
_NO_COST = "not every judge's tokens are known; they are in a run's ledger, so give the runs' folders"


@dataclass(frozen=True)
class Contestant:
    """One judge's preferences on the pairs that people labelled, (pairs,), and its mean tokens a pair."""

    name: str
    judge: Codes
    p_a: Floats
    cost: float | None
    kind: Literal["judge", "vote", "mean log-odds"] = "judge"


def ensembles(judges: Sequence[Contestant]) -> list[Contestant]:
    """A vote of three judges or more, and the mean of the log-odds where all of two or more give probabilities.

    A vote that no preference leads alone is a tie; a judge that abstained is left out of it.
    """
    costs = [judge.cost for judge in judges]
    cost = None if None in costs else sum(each for each in costs if each is not None)
    found = []
    if len(judges) > 2:
        votes = np.sum([one_hot(judge.judge) for judge in judges], axis=0)
        said = majority(votes)
        said = np.where((said < 0) & (votes.sum(axis=1) > 0), 2, said).astype(np.int8)
        found.append(Contestant(f"vote of {len(judges)}", said, np.full(len(said), np.nan), cost, "vote"))
    chances = np.array([judge.p_a for judge in judges])
    if np.isfinite(chances).any(axis=1).all():
        kept = np.clip(chances, CLIP, 1 - CLIP)
        odds = (np.log(kept) - np.log1p(-kept)).mean(axis=0)
        said = np.where(np.abs(odds) < _ROUNDING, 2, np.where(odds > 0, 0, 1))
        said = np.where(np.isfinite(odds), said, -1).astype(np.int8)
        p_a = 0.5 * (1 + np.tanh(odds / 2))
        found.append(Contestant(f"mean log-odds of {len(judges)}", said, p_a, cost, "mean log-odds"))
    return found


def rank(
    objective: str, judges: Sequence[Contestant], gold: Codes, clusters: Ints | None, ties: Ties, sampling: Sampling
) -> JudgeRanking:
    """Rank judges and their ensembles by accuracy on the pairs that all of them judged.

    Differences are tested by McNemar's mid-p value on right and wrong (of a half-right tie: wrong), put right for the
    number of tests by Holm's procedure. The cheapest judge is the one with the fewest tokens among those that are not
    significantly worse than the best.

    Args:
        objective: its name.
        judges: two or more.
        gold: what most people prefer, (pairs,).
        clusters: equal where prompts are, (pairs,), or `None`.
        ties: how ties count.
        sampling: of the intervals.
    """
    everyone = [*judges, *ensembles(judges)]
    there = (gold >= 0) & np.all([each.judge >= 0 for each in everyone], axis=0)
    scored = [accuracy_scores(gold, each.judge, ties) for each in everyone]
    # The same pairs for all, also where ties are dropped.
    there &= np.all([counted for _, counted in scored], axis=0)
    kept = np.flatnonzero(there)
    groups = None if clusters is None else clusters[kept]
    scores = [score[kept] for score, _ in scored]
    means = [float(score.mean()) if len(kept) else None for score in scores]
    # Of equals a single judge comes first, then the one given first.
    order = sorted(range(len(everyone)), key=lambda at: (-(means[at] or 0.0), everyone[at].kind != "judge", at))
    differences = _differences(everyone, scores, order, groups, sampling)
    best = order[0]
    p_holm = {
        frozenset((each.first, each.second)): each.p_holm
        for each in differences
        if everyone[best].name in (each.first, each.second)
    }
    standings = []
    for at in order:
        each = everyone[at]
        table = confusion(gold[kept], each.judge[kept])
        figure = accuracy(table, ties)
        ci = figure.ci
        if sampling.resamples and groups is not None:
            profiles = cells(gold[kept], each.judge[kept])
            drawn = bootstrap(profiles, lambda sums: accuracies(sums, ties), groups, sampling.resamples, sampling.seed)
            ci = drawn_or(drawn, ci)
        p = p_holm.get(frozenset((everyone[best].name, each.name)))
        standings.append(
            JudgeStanding(
                judge=each.name,
                kind=each.kind,
                n=len(kept),
                accuracy=figure.value,
                accuracy_ci=ci,
                cost=each.cost,
                best=at == best and bool(len(kept)),
                # No pair on which just one is right: nothing speaks for a difference.
                not_worse_than_best=None if not len(kept) else p is None or p > LEVEL,
            )
        )
    return _with_cheapest(objective, standings, differences)


def _with_cheapest(objective: str, standings: list[JudgeStanding], differences: list[JudgeDifference]) -> JudgeRanking:
    fit = [each for each in standings if each.not_worse_than_best]
    reason = None
    cheapest = None
    if not fit:
        reason = "no pair was judged by all"
    elif any(each.cost is None for each in standings):
        reason = _NO_COST
    else:
        cheapest = min(fit, key=lambda each: each.cost or 0.0).judge
    return JudgeRanking(
        objective=objective,
        standings=tuple(standings),
        differences=tuple(differences),
        cheapest=cheapest,
        not_defined={} if reason is None else {"cheapest": reason},
    )


def _differences(
    everyone: Sequence[Contestant],
    scores: Sequence[Floats],
    order: Sequence[int],
    groups: Ints | None,
    sampling: Sampling,
) -> list[JudgeDifference]:
    tests = []
    for first, second in combinations(order, 2):
        lead = (scores[first] == 1).astype(np.int64) - (scores[second] == 1)
        if groups is None:
            p = mcnemar(int((lead > 0).sum()), int((lead < 0).sum())).p_mid
        else:
            p = _by_prompt(lead, groups)
        tests.append((first, second, p))
    corrected = holm([p for _, _, p in tests])
    found = []
    for (first, second, p), p_holm in zip(tests, corrected, strict=True):
        gap = paired_difference(scores[first], scores[second], groups, sampling.resamples, sampling.seed)
        found.append(
            JudgeDifference(
                first=everyone[first].name,
                second=everyone[second].name,
                n=len(scores[first]),
                difference=gap.value,
                difference_ci=gap.ci,
                test="mcnemar mid-p" if groups is None else "mcnemar by prompt",
                p_value=p,
                p_holm=p_holm,
            )
        )
    return found


def _by_prompt(lead: Ints, groups: Ints) -> float | None:
    """McNemar's test where pairs of one prompt stand or fall together: each prompt's lead is one independent sum.

    Source: Obuchowski (1998), On the comparison of correlated proportions for clustered data, in the form of Yang, Sun
    and Hardin (2010) with the variance of no difference.
    """
    sums = np.bincount(np.unique(groups, return_inverse=True)[1], weights=lead)
    squares = float(sums @ sums)
    return 2 * NormalDist().cdf(-abs(float(sums.sum())) / squares**0.5) if squares else None


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's correction for so many tests: p-values of which any under a level may be acted on together.

    The k-th smallest of n is taken n - k + 1 times, and never less than the one before. `None` is no test.
    """
    tests = sorted((p, at) for at, p in enumerate(p_values) if p is not None)
    found: list[float | None] = [None] * len(p_values)
    most = 0.0
    for rank_of, (p, at) in enumerate(tests):
        most = max(most, min(1.0, p * (len(tests) - rank_of)))
        found[at] = most
    return found
