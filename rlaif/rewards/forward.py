"""Features of many conversations, each computed once: candidates of one prompt together, like lengths together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from rlaif.errors import RunError
from rlaif.rewards.batches import pack, pack_conversations
from rlaif.rewards.model import Backbone, features_of_pairs, last_features
from rlaif.rewards.tokens import EncodedPair, shared_prefix

# Two conversations share a row where that saves at least this part of their tokens; a row of both is longer, and
# attention over it costs more.
_WORTH_SHARING = 0.1
_BUDGETS = {"cuda": 65_536}
# On a CPU larger batches only leave its caches.
_BUDGET = 4_096


def default_budget(device: torch.device) -> int:
    """Tokens of a batch, padding counted, where the caller does not say."""
    return _BUDGETS.get(device.type, _BUDGET)


def each_batch(
    backbone: Backbone, conversations: Sequence[list[int]], prompts: Sequence[int], *, budget: int
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Yield places among the conversations and their features, (places, H), batch by batch, in any order.

    Equal conversations are computed once. What a conversation's features are does not depend on its neighbours, but for
    the last digits.

    Args:
        conversations: token ids, none empty.
        prompts: a number for each; those with the same one may share their beginning.
        budget: tokens of a batch, padding counted; a longer conversation makes its own.

    Raises:
        RunError: the GPU has no memory for a single conversation.
    """
    places: dict[tuple[int, ...], list[int]] = {}
    for place, ids in enumerate(conversations):
        places.setdefault(tuple(ids), []).append(place)
    unique = [found[0] for found in places.values()]
    pairs, single = _paired(conversations, unique, prompts) if backbone.one_pass else ([], unique)
    encoded = [_joined(conversations[a], conversations[b]) for a, b in pairs]

    def of_pairs(batch: list[int]) -> torch.Tensor:
        return features_of_pairs(backbone, [encoded[place] for place in batch]).flatten(0, 1)

    def of_single(batch: list[int]) -> torch.Tensor:
        return last_features(backbone, [conversations[single[place]] for place in batch])

    def told(mine: Sequence[int], features: torch.Tensor) -> tuple[list[int], torch.Tensor]:
        copies = [places[tuple(conversations[place])] for place in mine]
        rows = [row for row, copy in enumerate(copies) for _ in copy]
        found = features if len(rows) == len(features) else features[rows]
        return [place for copy in copies for place in copy], found

    with torch.inference_mode():
        for batch in pack(encoded, budget):
            for part, features in _halved(batch, of_pairs):
                yield told([place for each in part for place in pairs[each]], features)
        for batch in pack_conversations([conversations[place] for place in single], budget):
            for part, features in _halved(batch, of_single):
                yield told([single[each] for each in part], features)


def _paired(
    conversations: Sequence[list[int]], unique: Sequence[int], prompts: Sequence[int]
) -> tuple[list[tuple[int, int]], list[int]]:
    """Put conversations of one prompt in pairs where that is worth it; also the places of the others."""
    waiting: dict[int, int] = {}
    pairs, single = [], []
    for place in unique:
        other = waiting.pop(prompts[place], None)
        if other is None:
            waiting[prompts[place]] = place
            continue
        a, b = conversations[other], conversations[place]
        # Conversations that were cut to the longest length begin otherwise, and so stand alone.
        if shared_prefix(a, b) >= _WORTH_SHARING * (len(a) + len(b)):
            pairs.append((other, place))
        else:
            single += [other, place]
    return pairs, [*single, *waiting.values()]


def _joined(a: list[int], b: list[int]) -> EncodedPair:
    shared = shared_prefix(a, b)
    return EncodedPair(a[:shared], a[shared:], b[shared:])


def _halved(
    batch: list[int], features: Callable[[list[int]], torch.Tensor]
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """The features of a batch, in halves where the GPU's memory does not hold it whole."""
    try:
        found = features(batch)
    except torch.OutOfMemoryError:
        if len(batch) == 1:
            raise RunError(
                "the GPU has no memory for a single conversation; use a shorter --max-length when training, or "
                "--device cpu."
            ) from None
        torch.cuda.empty_cache()
        middle = (len(batch) + 1) // 2
        for half in (batch[:middle], batch[middle:]):
            yield from _halved(half, features)
        return
    yield batch, found
