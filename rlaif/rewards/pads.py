"""A pad token that can never be the last token of a conversation.

Classifiers of transformers read the score at the last token that is not a pad, vLLM at the last token: they agree only
where no conversation ends with a pad. Many tokenizers have no pad token, or one that also ends a turn.
"""

from __future__ import annotations

from typing import cast

from transformers import PreTrainedTokenizerBase

from rlaif.errors import InputError
from rlaif.rewards.tokens import ConversationEncoder
from rlaif.types import Message

NEW_PAD = "<|pad|>"
_QUESTION = (Message(role="user", content="Hello?"),)
_ANSWERS = ("Yes.", "no", "1", "a\n", "\u4e2d\u6587", "\U0010fffd", "")
# In a byte-level vocabulary these stand for the bytes 0xFF to 0xF8, which UTF-8 never has.
_IMPOSSIBLE_BYTES = "ÿþýüûúùø"


def choose_pad(tokenizer: PreTrainedTokenizerBase, rows: int) -> int:
    """Choose a pad token that ends no conversation, set it on the tokenizer, and return its id.

    The tokenizer's own one where it will do; else a special token that nothing uses, the unknown token where nothing is
    unknown, a new token where the embeddings have a row to spare, or the end token where no conversation ends with it.

    Args:
        tokenizer: of the model; also set to pad on the right.
        rows: how many rows the model's embeddings have; they are never resized.

    Raises:
        InputError: there is no such token.
    """
    # A model with absolute positions counts from the first token.
    tokenizer.padding_side = "right"
    ends = _ends(tokenizer)
    token = next((each for each in _candidates(tokenizer, rows) if _id(tokenizer, each) not in ends), None)
    if token is None and len(tokenizer) < rows:
        token = NEW_PAD
    if token is None:
        token = next((each for each in _last_resorts(tokenizer, rows) if _id(tokenizer, each) not in ends), None)
    if token is None:
        raise InputError(
            "the tokenizer has no token to pad with that ends no conversation; add one to it, and a row for it to the "
            "model's embeddings."
        )
    if tokenizer.pad_token != token:
        tokenizer.add_special_tokens({"pad_token": token})
    return cast("int", tokenizer.pad_token_id)


def _id(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    return cast("int", tokenizer.convert_tokens_to_ids(token))


def _ends(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Ids that conversations end with, as far as examples show."""
    encoder = ConversationEncoder(tokenizer, 10**9)
    return {ids[-1] for ids in encoder.conversations((_QUESTION, answer) for answer in _ANSWERS)}


def _candidates(tokenizer: PreTrainedTokenizerBase, rows: int) -> list[str]:
    """Special tokens that can serve, the best first."""
    template = str(getattr(tokenizer, "chat_template", None) or "")
    known = {i: each.content for i, each in tokenizer.added_tokens_decoder.items() if each.special and i < rows}
    beginnings = {tokenizer.bos_token, tokenizer.cls_token, tokenizer.sep_token, tokenizer.mask_token}

    def rank(token: str) -> int:
        if token == tokenizer.pad_token:
            return 0
        if token == tokenizer.unk_token:
            return 4
        if token in beginnings or token in template:
            return 5
        words = token.lower()
        return 1 if "pad" in words else 2 if "reserved" in words or "unused" in words or "extra" in words else 3

    free = [token for token in known.values() if token != tokenizer.eos_token]
    return sorted(free, key=rank)


def _last_resorts(tokenizer: PreTrainedTokenizerBase, rows: int) -> list[str]:
    """Tokens of the vocabulary that no text gives, and the end token."""
    vocabulary = tokenizer.get_vocab()
    ends = [tokenizer.eos_token] if tokenizer.eos_token is not None else []
    impossible = [each for each in _IMPOSSIBLE_BYTES if vocabulary.get(each, rows) < rows]
    byte_level = impossible and tokenizer.decode([vocabulary[impossible[0]]]) == "\ufffd"
    return [*cast("list[str]", ends), *(impossible if byte_level else [])]
