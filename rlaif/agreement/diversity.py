"""Choose pairs that are worth much and unlike each other. Pure: arrays in, choices out."""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Stale candidates are compared again this many at a time: one product of matrices in place of many of vectors.
_BATCH = 64


class Chosen(NamedTuple):
    """One choice: its place among the candidates, and its similarity to the most similar one chosen before it."""

    candidate: int
    similarity: float


def choose_diverse(
    scores: NDArray[np.float64], vectors: NDArray[np.float32], count: int, diversity: float
) -> list[Chosen]:
    """Choose greedily by (1 - diversity) score - diversity similarity, the similarity to the nearest one chosen.

    What a candidate is worth only falls as others are chosen, so a candidate is compared again only when its last
    known worth is the highest of all: the choices are those of comparing all each time. Of equal worth the earlier
    candidate is chosen.

    Args:
        scores: (candidate,), 0 to 1.
        vectors: (candidate, dimension), of length 1 or 0; a negative cosine counts as similarity 0.
        count: how many to choose, at most as many as there are.
        diversity: 0 to 1.

    Source: Carbonell and Goldstein (1998), The use of MMR; lazy evaluation: Minoux (1978), Accelerated greedy
    algorithms.
    """
    relevance = (1 - diversity) * scores
    nearest = np.zeros(len(scores))
    compared = np.zeros(len(scores), dtype=np.int64)
    heap = [(-float(worth), place) for place, worth in enumerate(relevance)]
    heapq.heapify(heap)
    chosen: list[Chosen] = []
    taken = np.empty((min(count, len(scores)), vectors.shape[1]), dtype=np.float32)
    while len(chosen) < len(taken):
        _, place = heap[0]
        if compared[place] == len(chosen):
            heapq.heappop(heap)
            taken[len(chosen)] = vectors[place]
            chosen.append(Chosen(place, float(nearest[place])))
            continue
        stale: list[int] = []
        while heap and len(stale) < _BATCH and compared[heap[0][1]] < len(chosen):
            stale.append(heapq.heappop(heap)[1])
        batch = np.array(stale)
        # What they were compared with before need not be compared again.
        since = int(compared[batch].min())
        similarity = (vectors[batch] @ taken[since : len(chosen)].T).max(axis=1)
        nearest[batch] = np.maximum(nearest[batch], similarity)
        compared[batch] = len(chosen)
        for each in stale:
            heapq.heappush(heap, (-float(relevance[each] - diversity * nearest[each]), each))
    return chosen
