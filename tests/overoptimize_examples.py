"""Candidates with constructed rewards, of which it is known what optimising them does."""

from __future__ import annotations

import numpy as np

from rlaif.optimize.candidates import Pool
from rlaif.optimize.gold import Gold
from rlaif.rewards.aggregate import aggregate_rewards, below_floors
from rlaif.rewards.preferences import Floats
from rlaif.rewards.score import Candidates
from rlaif.rewards.spec import HeadsSpec
from rlaif.types import Message
from tests.reward_examples import spec_of

OBJECTIVES = ("helpful", "true")


def rows_of(prompts: int, candidates: int) -> list[Candidates]:
    """Prompts whose candidates all have texts of their own."""
    return [
        Candidates(
            place + 1,
            f"p{place}",
            (Message(role="user", content=f"Ask {place}"),),
            tuple(f"Answer {place}.{each}" for each in range(candidates)),
            tuple(range(candidates)),
            {},
        )
        for place in range(prompts)
    ]


def pool_of(rewards: Floats, members: Floats | None = None, spec: HeadsSpec | None = None) -> tuple[Pool, HeadsSpec]:
    """A pool with these rewards.

    Args:
        rewards: (prompts, candidates, objectives).
        members: (prompts, candidates, members, objectives).
        spec: of the heads; without one all objectives weigh the same.
    """
    prompts, candidates, names = rewards.shape
    count = 1 if members is None else members.shape[2]
    spec = spec or spec_of(OBJECTIVES[:names], members=count)
    flat = rewards.reshape(-1, names)
    rows = rows_of(prompts, candidates)
    pool = Pool(
        ids=[row.id for row in rows],
        prompts=[row.prompt for row in rows],
        tags=[{} for _ in rows],
        responses=[row.responses for row in rows],
        objectives=spec.objectives,
        rewards=flat,
        members=None if members is None else members.reshape(-1, count, names),
        reward=aggregate_rewards(flat, spec),
        prompt_of=np.repeat(np.arange(prompts), candidates),
        below=below_floors(flat, spec),
    )
    return pool, spec


def exploited(
    prompts: int = 150, candidates: int = 64, members: int = 5, seed: int = 0
) -> tuple[Pool, HeadsSpec, Gold]:
    """A proxy that a trick fools, more and more so at the top; members of its ensemble see through it differently.

    What is helpful is worth h. The trick f gains the proxy 1.2 f and costs gold 1.8 times what it has above 0.3. Each
    member takes the trick for something else, so that the worst of them likes it least. The second objective is right:
    its proxy is its gold with some noise.
    """
    random = np.random.default_rng(seed)
    shape = prompts, candidates
    helpful, trick, true = random.normal(size=(3, *shape))
    gold = helpful - 1.8 * np.maximum(trick - 0.3, 0)
    taken_for = np.linspace(0.2, 2.2, members)
    each = helpful[..., None] + taken_for * trick[..., None] + 0.2 * random.normal(size=(*shape, members))
    noisy = true[..., None] + 0.3 * random.normal(size=(*shape, members))
    known = np.stack([each, noisy], axis=-1)  # (prompts, candidates, members, objectives)
    pool, spec = pool_of(known.mean(axis=2), known)
    overall = (0.7 * gold + 0.3 * true).ravel()
    return pool, spec, Gold("constructed", "given", overall, {"helpful": gold.ravel(), "true": true.ravel()})
