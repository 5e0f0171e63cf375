"""When two prompts are the same conversation, and two pairs the same comparison."""

from __future__ import annotations

import hashlib

from rlaif.types import Pair


def same_response(pair: Pair) -> bool:
    """Whether both responses of a pair are equal but for whitespace around them."""
    return pair.response_a.strip() == pair.response_b.strip()


def pair_digest(conversation: bytes, pair: Pair) -> tuple[bytes, bool]:
    """16 bytes that are equal for the same comparison, also with the responses swapped, and whether they are.

    Whitespace within a response counts, since code with another indentation is another answer.
    """
    first, second = (
        hashlib.blake2b(text.strip().encode("utf-8", "surrogatepass"), digest_size=16).digest()
        for text in (pair.response_a, pair.response_b)
    )
    swapped = second < first
    both = second + first if swapped else first + second
    return hashlib.blake2b(conversation + both, digest_size=16).digest(), swapped
