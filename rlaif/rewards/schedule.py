"""The order of training, fixed by the seed alone: what each step computes, and when it is measured and saved."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from rlaif.rewards.batches import pack, rows_of
from rlaif.rewards.tokens import EncodedPair

# Pairs are drawn into pools of about this many batches, and batches are made inside a pool: like lengths share a
# batch, and still the batches differ from epoch to epoch.
_POOL = 24
_SAVES = 20
_STEPS_BETWEEN_SAVES = 500
_LOGS = 200


@dataclass(frozen=True)
class Plan:
    """All batches of a training, epoch after epoch.

    Attributes:
        batches: rows of the training data, batch by batch. A negative row, `-1 - row`, fills in where a process has
            nothing to do in a step: it is computed and counts nothing.
        ends: number of batches when each epoch has ended, (epochs,).
        accumulate: batches a process computes in a step.
        processes: how many work at the same time, on a batch each.
    """

    batches: Sequence[Sequence[int]]
    ends: tuple[int, ...]
    accumulate: int = 1
    processes: int = 1

    @property
    def steps(self) -> int:
        """How often the weights are changed."""
        return self._step(len(self.batches))

    @property
    def epoch_steps(self) -> tuple[int, ...]:
        """The step at which each epoch has ended."""
        return tuple(self._step(end) for end in self.ends)

    @property
    def per_epoch(self) -> int:
        """Batches that a whole epoch has, those that fill in apart."""
        return sum(batch[0] >= 0 for batch in self.batches[: self.ends[0]])

    def epoch_at(self, step: int) -> float:
        """Epochs done after a step."""
        steps = (0, *self.epoch_steps)
        return float(np.interp(step, steps, range(len(steps))))

    def _step(self, batches: int) -> int:
        each = self.accumulate * self.processes
        return -(-batches // each)


def make_plan(
    pairs: Sequence[EncodedPair],
    *,
    budget: int,
    epochs: float,
    seed: int,
    one_pass: bool,
    accumulate: int = 1,
    processes: int = 1,
) -> Plan:
    """Plan batches of at most `budget` tokens each, padding counted; a longer pair is a batch of its own.

    Every epoch has every pair once; of a part of an epoch, the last, the batches are drawn. The very first step has the
    largest batches: what does not fit shows itself at once. The batches of a step are alike, so that no process waits
    for another, and the same whether so many processes compute them or one does, one after the other.
    """
    each = accumulate * processes
    sizes = np.array([np.prod(rows_of(pair, one_pass=one_pass)) for pair in pairs])
    idle = [-1 - int(sizes.argmin())]
    pool = max(1, min(len(pairs), int(_POOL * each * budget / max(sizes.mean(), 1))))
    batches: list[list[int]] = []
    ends = []
    for epoch in range(math.ceil(epochs)):
        draw = np.random.default_rng((seed, epoch))
        order = draw.permutation(len(pairs))
        # Pools of one size, as near as can be: a small rest would make small batches.
        pools = np.array_split(order, max(1, round(len(order) / pool)))
        steps: list[list[list[int]]] = []
        for rows in pools:
            drawn = [pairs[row] for row in rows]
            packed = [[int(rows[place]) for place in batch] for batch in pack(drawn, budget, one_pass=one_pass)]
            packed.sort(key=lambda batch: -int(sizes[batch].sum()))
            # No step is half in one pool and half in the next.
            packed += [idle] * (-len(packed) % each)
            together = [packed[start : start + each] for start in range(0, len(packed), each)]
            steps += [together[place] for place in draw.permutation(len(together))]
        steps = steps[: max(1, math.ceil(len(steps) * min(epochs - epoch, 1)))]
        if epoch == 0:
            # The first of the batches that are computed together is the largest of them.
            largest = max(range(len(steps)), key=lambda place: int(sizes[steps[place][0]].sum()))
            steps.insert(0, steps.pop(largest))
        batches += [batch for step in steps for batch in step]
        ends.append(len(batches))
    return Plan(batches, tuple(ends), accumulate, processes)


@dataclass(frozen=True)
class Marks:
    """Steps after which something is done beside training."""

    logs: frozenset[int]
    evaluations: frozenset[int]
    saves: frozenset[int]


def make_marks(plan: Plan, *, evaluations: int, save_steps: int | None, measured: bool) -> Marks:
    """When to log, to measure on held-out pairs and to save.

    Args:
        evaluations: how often an epoch is measured; the last time at its end.
        save_steps: steps between checkpoints; by default a twentieth of the training, at most 500.
        measured: whether there is anything to measure on.
    """
    starts = (0, *plan.epoch_steps)
    measures: set[int] = set()
    for start, end in pairwise(starts):
        if measured:
            measures |= {start + round((end - start) * part / evaluations) for part in range(1, evaluations + 1)}
    measures.discard(0)
    each = save_steps or max(1, min(_STEPS_BETWEEN_SAVES, plan.steps // _SAVES))
    # Every measured state is saved, since it may be the best.
    saves = measures | set(range(each, plan.steps + 1, each)) | {plan.steps}
    logs = saves | set(range(1, plan.steps + 1, max(1, plan.steps // _LOGS)))
    return Marks(frozenset(logs), frozenset(measures), frozenset(saves))


class BatchOrder:
    """The batch sampler of a plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def __len__(self) -> int:
        return len(self.plan.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return (list(batch) for batch in self.plan.batches)
