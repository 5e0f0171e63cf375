"""Rows of tokens that a model goes on from, with what several of them begin with read once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

_CHUNK = 1024  # tokens that are worth a pass of their own


class _RoomyLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """Writes into room kept beforehand; the library's own layer copies all that it holds with every token."""

    _ROOM = 64  # tokens, at least

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> Any:
        """Append keys and values, each (batch, heads, tokens, head size); returns all."""
        start = self.get_seq_length()
        if start == 0:
            self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
            self._all = key_states[..., :0, :], value_states[..., :0, :]
        end = start + key_states.shape[-2]
        if end > self._all[0].shape[-2]:
            room = end + max(self._ROOM, end // 4)
            grown = [new.new_empty(*new.shape[:-2], room, new.shape[-1]) for new in (key_states, value_states)]
            for new, old in zip(grown, self._all, strict=True):
                new[..., :start, :] = old[..., :start, :]
            self._all = grown[0], grown[1]
        for kept, new in zip(self._all, (key_states, value_states), strict=True):
            kept[..., start:end, :] = new
        self.rewind(end)
        return self.keys, self.values

    def rewind(self, length: int) -> None:
        """Forget what came after the first `length` tokens."""
        self.keys, self.values = (kept[..., :length, :] for kept in self._all)

    def gather(self, parts: Sequence[DynamicLayer], rows: Sequence[tuple[int, int]], width: int) -> None:
        """Begin with rows of other layers, each (number of the part, row in it), aligned at the right of `width`."""
        first = parts[0].keys
        assert first is not None, "a part holds what was read"
        self.dtype, self.device, self.is_initialized = first.dtype, first.device, True
        _, heads, _, size = first.shape
        # Zeros: what is masked counts nothing, but not if it is no number.
        self._all = tuple(first.new_zeros(len(rows), heads, width + self._ROOM, size) for _ in range(2))  # type: ignore[assignment]
        for number, part in enumerate(parts):
            to = [place for place, (of, _) in enumerate(rows) if of == number]
            taken = torch.tensor([rows[place][1] for place in to], device=first.device)
            for kept, held in zip(self._all, (part.keys, part.values), strict=True):
                assert held is not None
                kept[to, :, width - held.shape[-2] : width] = held.index_select(0, taken)
        self.rewind(width)


class Rows:
    """A batch of token rows, left-padded; those that share a beginning have it computed once.

    Models whose cache is of another kind (sliding windows, recurrent states) go without, and read every row whole.

    Args:
        model: a causal language model of transformers.
        rows: token ids, none empty.
        pad: the id to pad with.
    """

    def __init__(self, model: Any, rows: Sequence[Sequence[int]], pad: int) -> None:
        self._model, self._pad = model, pad
        self._device = model.device
        self.cache = _empty_cache(model)
        self._read = [0] * len(rows)
        self.ids = self._written = torch.empty(len(rows), 0, dtype=torch.long, device=self._device)
        self.mask = self.ids.clone()
        if self.cache is not None:
            self._read_prefixes(rows)
        self._append([list(row[done:]) for row, done in zip(rows, self._read, strict=True)])
        self._rows = [list(row) for row in rows]

    def _read_prefixes(self, rows: Sequence[Sequence[int]]) -> None:
        prefixes, of = _shared_prefixes(rows)
        places: dict[int, tuple[int, int]] = {}
        parts: list[Any] = []
        for chunk in _of_like_length([len(prefix) for prefix in prefixes]):
            places |= {number: (len(parts), row) for row, number in enumerate(chunk)}
            parts.append(_empty_cache(self._model))
            self._forward(*self._padded([prefixes[number] for number in chunk]), parts[-1])
        chosen = [places[number] for number in of]
        longest = max(map(len, prefixes))
        for depth, layer in enumerate(self.cache.layers):
            layer.gather([part.layers[depth] for part in parts], chosen, longest)
        self.ids, self.mask = self._padded([prefixes[number] for number in of])
        self._read = [len(prefixes[number]) for number in of]

    def _padded(self, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        longest = max(map(len, rows))
        ids = torch.tensor([[self._pad] * (longest - len(row)) + list(row) for row in rows])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        return ids.to(self._device), mask.to(self._device)

    def _append(self, rests: Sequence[Sequence[int]]) -> None:
        ids, mask = self._padded(rests)
        self.ids, self.mask = torch.cat((self.ids, ids), 1), torch.cat((self.mask, mask), 1)

    def _forward(self, ids: torch.Tensor, mask: torch.Tensor, cache: Any = None) -> torch.Tensor:
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        cached = {} if cache is None else {"past_key_values": cache, "use_cache": True}
        with torch.inference_mode():
            output = self._model(input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=1, **cached)
        logits: torch.Tensor = output.logits[:, -1].float()
        return logits

    def next_logprobs(self) -> torch.Tensor:
        """Log-probabilities of what comes next: (rows, vocabulary)."""
        done = 0 if self.cache is None else self.cache.get_seq_length()
        return self._forward(self.ids[:, done:], self.mask, self.cache).log_softmax(-1)

    def logprobs_after(self, tokens: Sequence[int]) -> torch.Tensor:
        """Log-probabilities of what comes after one more token each, (rows, vocabulary); the rows stay as they are.

        After `next_logprobs`, which leaves all of the rows in the cache.
        """
        ids = torch.tensor(tokens, device=self._device)[:, None]
        mask = torch.cat((self.mask, torch.ones_like(ids)), 1)
        if self.cache is None:
            return self._forward(torch.cat((self.ids, ids), 1), mask).log_softmax(-1)
        after = self._forward(ids, mask, self.cache).log_softmax(-1)
        for layer in self.cache.layers:
            layer.rewind(self.ids.shape[1])
        return after

    def wrote(self, ids: torch.Tensor) -> None:
        """Tell what `generate` made of the rows: (rows, tokens), the rows themselves first."""
        self._written = ids[:, self.ids.shape[1] :]

    def resume(self, rows: Sequence[Sequence[int]]) -> Rows:
        """Rows that go on from these, after `generate` has used the cache; read anew where one does not begin alike.

        What was written is in the cache, and is not read again as far as a row goes on with it.
        """
        old = self._rows
        if self.cache is None or any(row[: len(begin)] != begin for row, begin in zip(rows, old, strict=True)):
            return Rows(self._model, rows, self._pad)
        # Of the last token that was written there is nothing in the cache.
        written = self._written[:, : self.cache.get_seq_length() - self.ids.shape[1]]
        kept = []
        for row, begin, new in zip(rows, old, written.tolist(), strict=True):
            same = sum(1 for _ in takewhile(lambda two: two[0] == two[1], zip(row[len(begin) :], new, strict=False)))
            # The last token is read again, as a row may have nothing more.
            kept.append(min(len(begin) + same, len(row) - 1))
        self.ids = torch.cat((self.ids, written), 1)
        self.mask = torch.cat((self.mask, torch.ones_like(written)), 1)
        self.mask *= self.mask.cumsum(-1) <= torch.tensor(kept, device=self._device)[:, None]
        self._append([row[done:] for row, done in zip(rows, kept, strict=True)])
        self._rows = [list(row) for row in rows]
        return self


def _empty_cache(model: Any) -> Any:
    cache = DynamicCache(config=model.config)
    layers: list[Any] = getattr(cache, "layers", [])
    if not layers or any(type(layer) is not DynamicLayer for layer in layers):
        return None
    cache.layers = [_RoomyLayer() for _ in layers]  # type: ignore[no-untyped-call]
    return cache


def _shared_prefixes(rows: Sequence[Sequence[int]]) -> tuple[list[Sequence[int]], list[int]]:
    """Beginnings worth computing once, and which of them each row has; at least one token of a row is left."""
    prefixes: list[Sequence[int]] = []
    of = [0] * len(rows)
    members = 0
    for number in sorted(range(len(rows)), key=lambda n: list(rows[n])):
        whole = rows[number][:-1]
        if prefixes:
            common = sum(1 for _ in takewhile(lambda two: two[0] == two[1], zip(prefixes[-1], whole, strict=False)))
            # What is read once for two, against what the others then read for themselves.
            if common > (len(prefixes[-1]) - common) * members:
                prefixes[-1] = whole[:common]
                of[number] = len(prefixes) - 1
                members += 1
                continue
        prefixes.append(whole)
        of[number] = len(prefixes) - 1
        members = 1
    return prefixes, of


def _of_like_length(lengths: Sequence[int]) -> list[list[int]]:
    """Numbers in chunks to be padded together, longest first; a chunk that is worth a pass ends where padding grows."""
    chunks: list[list[int]] = []
    for number in sorted(range(len(lengths)), key=lambda n: -lengths[n]):
        longest = lengths[chunks[-1][0]] if chunks else 0
        if not chunks or (len(chunks[-1]) * longest >= _CHUNK and lengths[number] < 0.8 * longest):
            chunks.append([])
        chunks[-1].append(number)
    return chunks
