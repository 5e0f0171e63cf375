"""Which pairs share a batch: by token budget, like lengths together, the longest first."""

from __future__ import annotations

from collections.abc import Sequence

from rlaif.rewards.tokens import EncodedPair


def rows_of(pair: EncodedPair, *, one_pass: bool) -> tuple[int, int]:
    """Rows of a batch that a pair fills, and the length of the longer one in tokens."""
    if one_pass:
        return 1, pair.tokens
    return 2, len(pair.prefix) + max(len(pair.a), len(pair.b))


def pack(pairs: Sequence[EncodedPair], budget: int, *, one_pass: bool = True) -> list[list[int]]:
    """Group pairs into batches of at most `budget` tokens, padding counted; a longer pair is a batch of its own.

    Args:
        pairs: token ids.
        budget: tokens, rows times the longest row.
        one_pass: whether both responses go through together; else a pair fills two rows.

    Returns:
        Places among the pairs, batch by batch. The longest first: a batch that does not fit shows itself at once.
    """
    sizes = [rows_of(pair, one_pass=one_pass) for pair in pairs]
    return group_lengths([size[1] for size in sizes], budget // (1 if one_pass else 2))


def pack_conversations(conversations: Sequence[Sequence[int]], budget: int) -> list[list[int]]:
    """Group single conversations the same way."""
    return group_lengths([len(ids) for ids in conversations], budget)


def group_lengths(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Group rows of some lengths the same way."""
    # Equal lengths stay in their order: the same pairs make the same batches.
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    batches: list[list[int]] = []
    for place in order:
        if not batches or (len(batches[-1]) + 1) * lengths[batches[-1][0]] > budget:
            batches.append([])
        batches[-1].append(place)
    return batches
