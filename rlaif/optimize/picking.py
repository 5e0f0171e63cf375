"""Rules by which one of a prompt's candidates is picked: a score to maximise within the prompt. Pure.

A score depends on its candidate alone and never on the others, so it may be computed once and compared in any subset:
the best of n samples of a larger pool, say.

- `weighted`: the weighted mean of the rewards.
- `pareto`: the best of the Pareto front, by how near it comes to an ideal on the objective where it falls shortest.
  A candidate that dominates another has the higher score (on objectives that weigh something), so the best is on the
  front without one being drawn.
- `lower-bound`: the mean of the ensemble's members less k of their deviations: what the members doubt counts less.
- `worst-member`: what the member says that likes a candidate least.
- `OBJECTIVE` or `objective:OBJECTIVE`: one objective's reward alone, without floors.

All but the last keep floors: a candidate under a floor comes after all that keep every floor. Members are asked for
their weighted mean; whether a floor is kept is told by the heads' mean, and so the same under each rule.

Source: Coste, Anwar, Kirk and Krueger (2024), Reward model ensembles help mitigate overoptimization.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlaif.errors import InputError, nearest
from rlaif.optimize.candidates import Pool
from rlaif.rewards.aggregate import IDEAL, chebyshev, constrained, floor_rewards
from rlaif.rewards.preferences import Floats, Ints
from rlaif.rewards.spec import HeadsSpec

RULES = ("weighted", "pareto", "lower-bound", "worst-member")
ENSEMBLE_RULES = ("lower-bound", "worst-member")
OBJECTIVE = "objective:"

# Scores are compared at the digits that files hold: what comes after depends on the batch, not on the response.
DIGITS = 6
_EQUAL = 5  # digits of rewards at which responses dominate each other or not


def rules_for(spec: HeadsSpec) -> tuple[str, ...]:
    """The rules that heads have what it takes for, objectives aside."""
    return tuple(rule for rule in RULES if spec.members > 1 or rule not in ENSEMBLE_RULES)


def check_rule(spec: HeadsSpec, rule: str, place: str = "--pick") -> str:
    """The rule under its full name: `objective:helpfulness` for `helpfulness`.

    Args:
        spec: of the heads.
        rule: as a person gave it.
        place: where, for the error.

    Raises:
        InputError: there is no such rule or objective, or it needs an ensemble and there is none.
    """
    if rule in ENSEMBLE_RULES and spec.members < 2:
        raise InputError(
            f"{place} {rule}: the heads have no ensemble; expected one. Train with rlaif train-heads --ensemble 5, or "
            "take weighted or pareto."
        )
    if rule in RULES:
        return rule
    name = rule.removeprefix(OBJECTIVE)
    if name in spec.objectives:
        return OBJECTIVE + name
    known = (*RULES, *spec.objectives)
    raise InputError(
        f"{place} {rule[:80]}: no such rule or objective; expected one of {', '.join(known)}.{nearest(name, known)}"
    )


def rule_scores(pool: Pool, spec: HeadsSpec, rule: str, k: float = 1.0) -> Floats:
    """What a rule maximises, (responses,): the more, the better a candidate.

    Args:
        pool: of the heads whose spec this is.
        spec: weights, floors and their units.
        rule: one of `RULES`, or an objective.
        k: deviations that `lower-bound` takes off.

    Raises:
        InputError: as `check_rule`.
    """
    rule = check_rule(spec, rule, "rule")
    if rule.startswith(OBJECTIVE):
        return pool.rewards[:, pool.objectives.index(rule.removeprefix(OBJECTIVE))].copy()
    weights = pool.row_weights(spec)
    if rule == "weighted":
        score = (weights * pool.rewards).sum(axis=1)
    elif rule == "pareto":
        # Rounded as where one dominates another, or noise might put a dominated candidate before an equal one.
        rewards = np.round(pool.rewards, _EQUAL)
        score = IDEAL - chebyshev(rewards, weights, np.full(len(pool.objectives), IDEAL))
    else:
        each = member_rewards(pool, weights)
        score = each.min(axis=1) if rule == "worst-member" else each.mean(axis=1) - k * each.std(axis=1, ddof=1)
    return keep_floors(pool, spec, score)


def before_floors(pool: Pool, spec: HeadsSpec) -> Floats:
    """The aggregate by the heads' own method without the penalty of floors, which would swamp a mean, (responses,)."""
    without = spec.aggregation.model_copy(update={"floors": {}})
    return rule_scores(pool, spec.model_copy(update={"aggregation": without}), spec.aggregation.method)


def member_rewards(pool: Pool, weights: Floats) -> Floats:
    """Each member's weighted mean of its rewards, (responses, members).

    Raises:
        InputError: the pool has no members.
    """
    if pool.members is None:
        raise InputError("the candidates were scored without an ensemble; score them with heads that have one.")
    each: Floats = np.einsum("rmo,ro->rm", pool.members, weights)
    return each


def keep_floors(pool: Pool, spec: HeadsSpec, score: Floats) -> Floats:
    """The scores, with those of candidates under a floor below all others, the lower the further they fall short."""
    if not spec.aggregation.floors:
        return score
    short = np.where(pool.below, floor_rewards(spec) - pool.rewards, 0.0).sum(axis=1)
    return constrained(score, short)


def best_rows(pool: Pool, scores: Floats) -> Ints:
    """Row of the best candidate of each prompt, (prompts,); of equally good ones the first.

    Args:
        pool: every prompt of which has a candidate.
        scores: as `rule_scores` gives them, (responses,).
    """
    rounded = np.round(scores, DIGITS)
    return np.array([rows.start + int(np.argmax(rounded[rows])) for rows in pool.slices()], dtype=np.int64)


def best_of_n_kl(counts: Sequence[int] | Ints) -> Floats:
    """How far the best of n is from one sample, at most: KL = log n - (n - 1)/n nats, for each n.

    It is exact where no two responses are equally good, and more than the true one where some are.

    Source: Beirami et al. (2024), Theoretical guarantees on the best-of-n alignment policy.
    """
    n = np.asarray(counts, dtype=np.float64)
    kl: Floats = np.log(n) - (n - 1) / n
    return kl
