"""Rules that read no principle or no order of words: what a judge must beat to have read anything."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rlaif.starter.evaluate import Item
from rlaif.starter.responses import WorldPair, kinds_of, make_pair
from rlaif.starter.world import World

if TYPE_CHECKING:
    import torch

_WORD = re.compile(r"\w+|[?!]")


def longer_is_better(items: Sequence[Item]) -> float:
    """Accuracy of always choosing the longer response (a where they are of one length)."""
    return sum((one.pair.a.words >= one.pair.b.words) == (one.question.better == "A") for one in items) / len(items)


def first_is_better(items: Sequence[Item]) -> float:
    """Accuracy of always choosing response a."""
    return sum(one.question.better == "A" for one in items) / len(items)


def bag_of_words(family: str, items: Sequence[Item], pairs: int = 300) -> float:
    """Accuracy of a logistic regression on which words each response has, told what the principle asks for.

    It is fitted on pairs of the training split in which the family decides, and sees neither conversation nor order.
    """
    import torch

    world = World("train", random.Random(f"words/{family}"))
    known = [make_pair(world, family, world.rng.choice(kinds_of(family))) for _ in range(pairs)]
    vocabulary = {word: n for n, word in enumerate(sorted({word for pair in known for word in _words(pair)}))}
    features = torch.stack([_difference(pair, vocabulary) for pair in known])
    targets = torch.tensor([float(bool(pair.marks(family)[0])) for pair in known])
    weights = torch.zeros(len(vocabulary), requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        fit = torch.nn.functional.binary_cross_entropy_with_logits(features @ weights, targets)
        made: torch.Tensor = fit + 1e-3 * weights.square().sum()
        made.backward()  # type: ignore[no-untyped-call]
        return made

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    right = 0
    for one in items:
        has = bool((_difference(one.pair, vocabulary) @ weights).item() > 0)
        decider = one.question.decider
        assert decider is not None, "held-out items have one that decides"
        right += ("A" if has == decider.present else "B") == one.question.better
    return right / len(items)


def _words(pair: WorldPair) -> set[str]:
    return set(_WORD.findall(f"{pair.a.text} {pair.b.text}".lower()))


def _difference(pair: WorldPair, vocabulary: dict[str, int]) -> torch.Tensor:
    """1 for a word that only a has, -1 for one that only b has: (vocabulary,)."""
    import torch

    found = torch.zeros(len(vocabulary))
    for response, sign in ((pair.a, 1.0), (pair.b, -1.0)):
        for word in set(_WORD.findall(response.text.lower())):
            if word in vocabulary:
                found[vocabulary[word]] += sign
    return found
