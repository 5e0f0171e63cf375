"""Pairs as vectors whose cosine says how alike two pairs are: by their words, or by a transformer."""

from __future__ import annotations

import math
import re
import zlib
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rlaif.engines.base import identify
from rlaif.errors import InputError
from rlaif.types import Pair

LEXICAL = "lexical"
# Scripts that put no space between words: there each character counts as a word.
_WORD = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]"
    r"|[^\W\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+"
)
_DIMENSIONS = 512
_BUCKETS = 2**20
_ROWS_AT_ONCE = 4096
_LEXICAL_CHARACTERS = 4000
_MODEL_CHARACTERS = 600
_MODEL_TOKENS = 512
_SORTED_TOGETHER = 512
_TOKENS_A_BATCH = 8192


class Embedder(Protocol):
    """Turns pairs into vectors; `name` goes into the summary."""

    name: str

    def embed(self, pairs: Iterable[Pair]) -> NDArray[np.float32]:
        """Return a vector of length 1 for each pair, (pair, dimension); of length 0 where it holds no words."""
        ...


def make_embedder(name: str) -> Embedder:
    """Return the embedding by words for `lexical`, else load a transformer.

    Raises:
        InputError: the model cannot be loaded.
    """
    return Lexical() if name == LEXICAL else Transformer(name)


def _parts(pair: Pair, most: int) -> tuple[str, str, str]:
    """The end of the conversation, which is what is answered, and the beginning of both responses."""
    prompt = "\n".join(turn.content for turn in pair.prompt)
    return prompt[-most:], pair.response_a[:most], pair.response_b[:most]


class Lexical:
    """Words hashed into a few hundred dimensions, rare ones weighing more: alike are pairs that share rare words.

    Needs no model and sees no meaning: `car` and `automobile` have nothing in common. The weight of a word is
    (1 + log count) log((1 + pairs) / (1/2 + pairs with it)); hashed signs keep the cosine right on average.

    Source: Weinberger et al. (2009), Feature hashing for large scale multitask learning.
    """

    name = LEXICAL

    def embed(self, pairs: Iterable[Pair]) -> NDArray[np.float32]:
        """See `Embedder.embed`."""
        hashes, counts, sizes = array("I"), array("I"), array("I")
        for pair in pairs:
            words: Counter[str] = Counter()
            for part in _parts(pair, _LEXICAL_CHARACTERS):
                words.update(_WORD.findall(part.lower()))
            hashes.extend(zlib.crc32(word.encode()) for word in words)
            counts.extend(words.values())
            sizes.append(len(words))
        return _hashed(
            np.frombuffer(hashes, dtype=np.uint32),
            np.frombuffer(counts, dtype=np.uint32),
            np.frombuffer(sizes, dtype=np.uint32),
        )


def _hashed(hashes: NDArray[np.uint32], counts: NDArray[np.uint32], sizes: NDArray[np.uint32]) -> NDArray[np.float32]:
    # The low 20 bits tell words apart, the others say where a word goes and with which sign.
    buckets = hashes & (_BUCKETS - 1)
    rarity = np.log((1 + len(sizes)) / (0.5 + np.bincount(buckets, minlength=_BUCKETS)))
    # A word in every pair keeps a little weight, so that equal texts are alike however few pairs there are.
    rarity = np.maximum(rarity, 0.01)
    dimension = (hashes >> 20) & (_DIMENSIONS - 1)
    sign = np.where(hashes >> 31, -1.0, 1.0)
    ends = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    vectors = np.zeros((len(sizes), _DIMENSIONS), dtype=np.float32)
    for first in range(0, len(sizes), _ROWS_AT_ONCE):
        last = min(first + _ROWS_AT_ONCE, len(sizes))
        here = slice(int(ends[first]), int(ends[last]))
        rows = np.repeat(np.arange(last - first), sizes[first:last])
        weights = sign[here] * (1 + np.log(counts[here])) * rarity[buckets[here]]
        flat = np.bincount(rows * _DIMENSIONS + dimension[here], weights, minlength=(last - first) * _DIMENSIONS)
        vectors[first:last] = flat.reshape(last - first, _DIMENSIONS)
    return _of_length_one(vectors)


def _of_length_one(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths: NDArray[np.float32] = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 1e-6)


class Transformer:
    """A transformer's last hidden states, averaged over the tokens; remote code is off.

    The mean over all pairs is taken off: what all vectors have in common says nothing about which are alike, and in
    language models it outweighs the rest (Mu and Viswanath 2018, All-but-the-top).

    Raises:
        InputError: the model cannot be loaded.
    """

    def __init__(self, name: str) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer
        from transformers import logging as transformers_logging

        transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        self.name = name
        source = identify(name).source
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(source)
            model: Any = AutoModel.from_pretrained(source, dtype=torch.float32)
        except Exception as error:
            fact = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise InputError(
                f"--embedder {name}: the model cannot be loaded ({fact}); expected {LEXICAL}, a hub id or a folder of "
                "a transformer with its tokenizer."
            ) from None
        if model.config.is_encoder_decoder:
            model = model.get_encoder()
        self._model = model.to(self._device).eval()
        positions = getattr(model.config, "max_position_embeddings", None) or _MODEL_TOKENS
        # Models of RoBERTa's kind keep two positions for themselves.
        roberta = 2 if getattr(model.config, "model_type", "") in ("roberta", "xlm-roberta", "camembert") else 0
        self._most = min(_MODEL_TOKENS, positions - roberta)

    def embed(self, pairs: Iterable[Pair]) -> NDArray[np.float32]:
        """See `Embedder.embed`."""
        rest = iter(pairs)
        found: list[NDArray[np.float32]] = []
        while group := list(islice(rest, _SORTED_TOGETHER)):
            texts = ["\n".join(_parts(pair, _MODEL_CHARACTERS)) for pair in group]
            tokens: list[list[int]] = self._tokenizer(texts, truncation=True, max_length=self._most)["input_ids"]
            vectors = np.zeros((len(group), self._model.config.hidden_size), dtype=np.float32)
            for places in _batches(tokens):
                vectors[places] = self._means([tokens[place] for place in places])
            found.append(vectors)
        together = np.concatenate(found) if found else np.zeros((0, 1), dtype=np.float32)
        if len(together) > 1:
            together -= together.mean(axis=0)
        return _of_length_one(together)

    def _means(self, tokens: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        import torch

        longest = max(map(len, tokens))
        # On the right, and masked: the padding's value is of no account.
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in tokens], device=self._device)
        sizes = torch.tensor([len(row) for row in tokens], device=self._device)
        mask = (torch.arange(longest, device=self._device) < sizes[:, None]).to(torch.int64)
        with torch.inference_mode():
            hidden = self._model(input_ids=ids, attention_mask=mask).last_hidden_state  # (pair, token, dimension)
            means = (hidden * mask[:, :, None]).sum(dim=1) / sizes[:, None]
        return np.asarray(means.float().cpu().numpy(), dtype=np.float32)


def _batches(tokens: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Places of texts of about one length, so that little is padded; a text without tokens has a vector of zeros."""
    places = sorted((place for place, row in enumerate(tokens) if row), key=lambda place: -len(tokens[place]))
    while places:
        size = math.ceil(_TOKENS_A_BATCH / len(tokens[places[0]]))
        yield places[:size]
        places = places[size:]
