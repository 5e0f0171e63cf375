"""From one reward an objective to one reward, and to the Pareto order of a prompt's candidates. Pure.

Rewards are in standard deviations of the responses that were trained on, 0 their mean, and more is better.

- `weighted`: the weighted mean of the rewards, by the weights of the first tag that has some, else of the gate, else of
  the rule itself.
- `pareto`: how near a response comes to an ideal, on the objective where it falls shortest (`chebyshev`). The ideal is
  a fixed point and not the best of the candidates at hand, so a response has the same reward whatever it is compared
  with; a response that dominates another has the higher one (on objectives that weigh something), so the best of a
  prompt's candidates is never a dominated one. `pareto_ranks` needs the candidates and gives the order itself.

Floors are constraints, under either method: a response under a floor has a reward under that of every response that
keeps all floors, the lower the further it falls short, so that a search or a policy can find the way back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rlaif.constitution.schema import Constitution
from rlaif.errors import InputError, RunError, nearest
from rlaif.rewards.preferences import Floats, Ints
from rlaif.rewards.spec import Aggregation, HeadsSpec
from rlaif.stats import CLIP

IDEAL = 3.0
"""Reward on every objective that the Pareto method reaches for: of 1,000 normal responses one is better."""

AUGMENT = 0.05
"""Share of the mean shortfall beside the largest one: without it a dominated response could tie with a better one."""

BELOW_FLOORS = -10.0
"""The least reward of a response that keeps all floors, and the most of one that does not."""

# A forward pass differs in the last digits by what else is in its batch: equal responses must not dominate each other.
_DIGITS = 5
_ROUNDING = 1e-9
_SMALL = 16  # candidates of a prompt up to which all pairs of all prompts are compared at once
_CELLS = 2_000_000  # comparisons held at once


def share_weights(objectives: Sequence[str], weights: Mapping[str, float]) -> dict[str, float] | None:
    """Weights that sum to 1 over some objectives; `None` where none of them weighs anything."""
    total = sum(weights.get(name, 0.0) for name in objectives)
    return {name: weights.get(name, 0.0) / total for name in objectives} if total > 0 else None


def constitution_rule(objectives: Sequence[str], constitution: Constitution | None) -> Aggregation:
    """The aggregation of a constitution, of those of its objectives that have a head.

    Without a constitution, or where it gives none of the heads a weight, all weigh the same. A tag whose weights leave
    out all heads is left out.
    """
    equal = Aggregation(weights=dict.fromkeys(objectives, 1 / len(objectives)), origin="equal")
    if constitution is None:
        return equal
    rule = constitution.aggregation
    weights = share_weights(objectives, {name: each.weight for name, each in constitution.objectives.items()})
    by_tag = {tag: share_weights(objectives, named) for tag, named in rule.by_tag.items()}
    return Aggregation(
        method=rule.method,
        weights=weights or equal.weights,
        origin="constitution" if weights else "equal",
        by_tag={tag: named for tag, named in by_tag.items() if named},
        floors={name: floor for name, floor in rule.floors.items() if name in objectives},
    )


def given_weights(objectives: Sequence[str], weights: Mapping[str, float], place: str) -> dict[str, float]:
    """Weights as a user gave them, made to sum to 1; an objective that is not named gets 0.

    Args:
        objectives: the heads.
        weights: what was given.
        place: where, for the error: an option's or a file's name.

    Raises:
        InputError: an unknown objective, a weight that is negative or no number, or none above 0.
    """
    for name, weight in weights.items():
        if name not in objectives:
            hint = nearest(name, objectives) or f" Use {', '.join(objectives)}."
            raise InputError(f"{place}: there is no head {name!r}; name the objectives of the checkpoint.{hint}")
        if not 0 <= weight < float("inf"):
            raise InputError(
                f"{place}: weight of {name} is {weight:g}; weights must be 0 or more. Use 0 to leave an objective out."
            )
    shared = share_weights(objectives, weights)
    if shared is None:
        raise InputError(f"{place}: every weight is 0; at least one must be above 0.")
    return shared


def row_weights(
    spec: HeadsSpec, rows: int, tags: Sequence[Mapping[str, object]] | None = None, gated: Floats | None = None
) -> Floats:
    """Weights of each row, (rows, objectives); each row sums to 1.

    As in a constitution, a tag matches by its name or by its value, and the first entry of `by_tag` that a row carries
    counts, before the gate: a rule that somebody wrote goes before one that was learned.

    Args:
        spec: of the heads.
        rows: how many responses.
        tags: of each response's prompt; `None` for none.
        gated: the gate's weights, (rows, objectives); `None` where there is no gate.
    """
    if gated is None:
        weights = np.tile(_row(spec, spec.aggregation.weights), (rows, 1))
    else:
        weights = np.array(gated, dtype=np.float64).reshape(rows, len(spec.objectives))
    if tags is not None and spec.aggregation.by_tag:
        special = {tag: _row(spec, named) for tag, named in spec.aggregation.by_tag.items()}
        for index, held in enumerate(tags):
            names = {name for name, value in held.items() if value not in (False, None)}
            names |= {value for value in held.values() if isinstance(value, str)}
            tag = next((tag for tag in special if tag in names), None)
            if tag is not None:
                weights[index] = special[tag]
    return weights


def _row(spec: HeadsSpec, weights: Mapping[str, float]) -> Floats:
    shared = share_weights(spec.objectives, weights)
    if shared is None:
        raise InputError("rlaif.json: aggregation: every weight is 0; at least one must be above 0.")
    return np.array([shared[name] for name in spec.objectives])


def aggregate_rewards(
    rewards: Floats,
    spec: HeadsSpec,
    tags: Sequence[Mapping[str, object]] | None = None,
    gated: Floats | None = None,
) -> Floats:
    """One reward a response, (rows,), of one an objective.

    Args:
        rewards: (rows, objectives), in the order of the spec's objectives.
        spec: of the heads: the rule, and what turns floors into rewards.
        tags: of each response's prompt; `None` for none.
        gated: the gate's weights, (rows, objectives); `None` where there is no gate.

    Raises:
        RunError: a reward is not finite.
    """
    rewards = _finite(rewards, spec.objectives)
    weights = row_weights(spec, len(rewards), tags, gated)
    if spec.aggregation.method == "pareto":
        reward = IDEAL - chebyshev(rewards, weights, np.full(len(spec.objectives), IDEAL))
    else:
        reward = (weights * rewards).sum(axis=1)
    # In reward units; 0 where the floor is kept.
    shortfall = np.where(below_floors(rewards, spec), floor_rewards(spec) - rewards, 0.0).sum(axis=1)
    return reward if not spec.aggregation.floors else constrained(reward, shortfall)


def constrained(reward: Floats, shortfall: Floats) -> Floats:
    """Whatever breaks a floor comes after whatever keeps them all, (rows,).

    Args:
        reward: before floors, (rows,).
        shortfall: what is missing to the floors, 0 where all are kept, (rows,).

    Source: Deb (2000), An efficient constraint handling method for genetic algorithms, made one number.
    """
    kept: Floats = np.where(shortfall > 0, BELOW_FLOORS - shortfall, np.maximum(reward, BELOW_FLOORS))
    return kept


def floor_rewards(spec: HeadsSpec) -> Floats:
    """The least reward that keeps each objective's floor, (objectives,); -inf where there is none.

    A floor is a probability of being preferred to a response of mean score: floor 0.2 with temperature 1 and standard
    deviation 2 is a reward of log(0.2 / 0.8) / 2 = -0.69.
    """
    least = np.full(len(spec.objectives), -np.inf)
    for index, name in enumerate(spec.objectives):
        floor = spec.aggregation.floors.get(name, 0.0)
        if floor > 0:
            kept = min(max(floor, CLIP), 1 - CLIP)
            slope = spec.calibration[name].temperature / spec.normalization[name].std
            least[index] = np.log(kept / (1 - kept)) * slope
    return least


def below_floors(rewards: Floats, spec: HeadsSpec) -> npt.NDArray[np.bool_]:
    """Whether a response falls short of each objective's floor, (rows, objectives)."""
    below: npt.NDArray[np.bool_] = rewards < floor_rewards(spec)
    return below


def chebyshev(rewards: Floats, weights: Floats, ideal: Floats) -> Floats:
    """Distance to an ideal on the objective where it is largest, (rows,): 0 at the ideal, and there or beyond less.

    The augmented weighted Chebyshev distance, max_k v_k d_k + 0.05 sum_k w_k d_k, by 1.05, with the shortfall d_k of
    the ideal in each objective (counted as 0 in the maximum where the ideal is passed), and v the weights by their
    largest: a response that falls short by the same in every objective has that distance. An objective of weight 0 does
    not count. Any point of a Pareto front is the nearest for some weights, which no weighted mean can do on a front
    that is not convex.

    Source: Steuer and Choo (1983), An interactive weighted Tchebycheff procedure for multiple objective programming.

    Args:
        rewards: (rows, objectives).
        weights: 0 or more, summing to 1: (objectives,) or (rows, objectives).
        ideal: (objectives,).
    """
    short = ideal - rewards
    scaled = weights / weights.max(axis=-1, keepdims=True)
    largest = (scaled * np.maximum(short, 0)).max(axis=1)
    distance: Floats = (largest + AUGMENT * (weights * short).sum(axis=1)) / (1 + AUGMENT)
    return distance


def dominates(first: Floats, second: Floats) -> npt.NDArray[np.bool_]:
    """Whether the first response is nowhere worse than the second and somewhere better, (rows,).

    Rewards that differ by less than 0.00001 standard deviations are equal: so much is the rounding of a forward pass.

    Args:
        first: (rows, objectives).
        second: (rows, objectives).
    """
    first, second = np.round(first, _DIGITS), np.round(second, _DIGITS)
    better: npt.NDArray[np.bool_] = np.all(first >= second, axis=-1) & np.any(first > second, axis=-1)
    return better


def pareto_ranks(rewards: Floats, group: Ints) -> Ints:
    """Rank of each response among the candidates of its prompt, (rows,), by non-dominated sorting.

    0: dominated by none; 1: by none once those of rank 0 are gone; and so on. Equal responses have equal ranks.

    Args:
        rewards: (rows, objectives), finite.
        group: the prompt of each row, (rows,).

    Raises:
        RunError: a reward is not finite.
    """
    points = np.round(_finite(rewards), _DIGITS)
    ranks = np.zeros(len(points), dtype=np.int64)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=group[order][:1] - 1)) if len(order) else order
    sizes = np.diff(starts, append=len(order))
    for size in np.unique(sizes[sizes > 1]):
        rows = order[starts[sizes == size][:, None] + np.arange(size)]  # (prompts, candidates)
        if size <= _SMALL:
            at_once = max(1, _CELLS // int(size * size * points.shape[1]))
            for start in range(0, len(rows), at_once):
                some = rows[start : start + at_once]
                ranks[some] = _small_ranks(points[some])
        else:
            # One by one, but in far fewer comparisons than all pairs.
            import moocore

            for some in rows:
                ranks[some] = moocore.pareto_rank(points[some], maximise=True)
    return ranks


def _small_ranks(points: Floats) -> Ints:
    """Ranks among candidates, (prompts, candidates, objectives) -> (prompts, candidates), prompts side by side.

    A rank is the length of the longest chain of candidates of which each dominates the next.
    """
    nowhere_worse = np.all(points[:, :, None] >= points[:, None], axis=-1)
    beats = nowhere_worse & ~np.swapaxes(nowhere_worse, 1, 2)
    ranks = np.zeros(points.shape[:2], dtype=np.int64)
    while True:
        longer: Ints = np.where(beats, ranks[:, :, None] + 1, 0).max(axis=1)
        if (longer == ranks).all():
            return ranks
        ranks = longer


def hypervolume(rewards: Floats, reference: Floats) -> float:
    """Volume between a reference point and the responses that beat it on every objective: the more, the better a set.

    In standard deviations to the power of the number of objectives; comparable only for the same reference.

    Args:
        rewards: (responses, objectives), finite.
        reference: (objectives,).

    Raises:
        RunError: a reward is not finite.
    """
    import moocore

    return float(moocore.hypervolume(_finite(rewards), ref=reference, maximise=True))


@dataclass(frozen=True)
class Conflicts:
    """How often objectives disagree about which of two responses is better.

    Attributes:
        counts: pairs of responses on which two objectives prefer different ones, (objectives, objectives).
        compared: pairs on which both prefer one, (objectives, objectives); on the diagonal those on which it does.
        pairs: pairs on which any two objectives disagree.
        total: pairs on which at least two objectives prefer one.
    """

    counts: Ints
    compared: Ints
    pairs: int
    total: int

    @property
    def share(self) -> Floats:
        """Share of the pairs compared on which two objectives disagree, nan where there are none."""
        none = np.full(self.counts.shape, np.nan)
        found: Floats = np.divide(self.counts, self.compared, out=none, where=self.compared > 0)
        return found


def conflicts(difference: Floats) -> Conflicts:
    """Count the pairs on which objectives disagree.

    Args:
        difference: more than 0 where response a is better, less where b is, (pairs, objectives): differences of scores,
            or targets less 0.5. 0 and nan are no preference.
    """
    known = np.nan_to_num(difference)
    for_a, for_b = (known > _ROUNDING).astype(np.int64), (known < -_ROUNDING).astype(np.int64)
    either = for_a + for_b
    return Conflicts(
        counts=for_a.T @ for_b + for_b.T @ for_a,
        compared=either.T @ either,
        pairs=int((for_a.any(axis=1) & for_b.any(axis=1)).sum()),
        total=int((either.sum(axis=1) > 1).sum()),
    )


def _finite(rewards: Floats, objectives: Sequence[str] | None = None) -> Floats:
    """The rewards in float64; one that is not finite ends the command."""
    rewards = np.asarray(rewards, dtype=np.float64)
    if objectives is not None and rewards.ndim == 2 and rewards.shape[1] != len(objectives):
        raise ValueError(f"{rewards.shape[1]} rewards a response for {len(objectives)} objectives")
    bad = np.argwhere(~np.isfinite(rewards))
    if len(bad):
        row, column = (int(index) for index in bad[0])
        which = objectives[column] if objectives is not None else f"objective {column + 1}"
        raise RunError(
            f"response {row + 1}: its reward for {which} is {rewards[row, column]}; rewards must be finite. "
            "Train the heads again, or score in float32."
        )
    return rewards
