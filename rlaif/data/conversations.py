"""When two prompts are the same conversation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from rlaif.types import Message


def conversation_digest(prompt: Sequence[Message]) -> bytes:
    """16 bytes that are equal where roles and words are, whatever the whitespace between words."""
    digest = hashlib.blake2b(digest_size=16)
    for turn in prompt:
        # Words are joined by spaces and roles end with a line break, so that no two conversations run together.
        digest.update(f"{turn.role}\n{' '.join(turn.content.split())}\n".encode("utf-8", "surrogatepass"))
    return digest.digest()
