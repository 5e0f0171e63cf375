"""Features of both responses of a pair in one pass, the prompt computed once: `[prompt | a | b]` under a block mask.

Response b does not see a, and its positions go on where the prompt ends: each response's tokens get exactly what they
get in a pass of their own. On a GPU the mask is flex attention's, of the pairs end to end without a pad, and whole
blocks of it are skipped; elsewhere a pair is a row and the mask is a table of truth values.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from torch.nn.attention.flex_attention import BlockMask
from transformers import PretrainedConfig, PreTrainedModel

from rlaif.rewards.batches import group_lengths
from rlaif.rewards.plainpass import CPU_TOKENS, head_of, in_groups, labels_of, plain_features, without_cache
from rlaif.rewards.tokens import EncodedPair

_BLOCK = 128
_FLEX = "flex_attention"
# What a mask can be handed to; flash attention takes none.
_ATTENTION = ("sdpa", "eager", _FLEX)
_FULL, _SLIDING = "full_attention", "sliding_attention"
# Relative difference of the two ways; what a wrong mask makes is far above, what rounding makes below.
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4, torch.float16: 0.02, torch.bfloat16: 0.1}


@dataclass
class PairBatch:
    """Pairs in rows, one each.

    Attributes:
        ids: token ids, (rows, length); pads at the end of a row.
        positions: of each token in its own conversation, (rows, length): b goes on where the prefix ends.
        segments: 3 * pair + 0 (prefix), 1 (a) or 2 (b), (rows, length); -1 where there is a pad.
        last: place of the last token of a and of b in the flattened rows, (pairs, 2).
    """

    ids: torch.Tensor
    positions: torch.Tensor
    segments: torch.Tensor
    last: torch.Tensor

    def __len__(self) -> int:
        return len(self.last)

    def to(self, device: torch.device) -> PairBatch:
        """The same batch on a device."""
        return PairBatch(
            *(each.to(device, non_blocking=True) for each in (self.ids, self.positions, self.segments, self.last))
        )

    def pin_memory(self) -> PairBatch:
        """The same batch in memory that a GPU copies from while it computes."""
        return PairBatch(*(each.pin_memory() for each in (self.ids, self.positions, self.segments, self.last)))


def make_batch(pairs: Sequence[EncodedPair], pad_id: int) -> PairBatch:
    """Lay pairs out in rows."""
    length = max(pair.tokens for pair in pairs)
    ids = torch.full((len(pairs), length), pad_id)
    positions = torch.zeros_like(ids)
    segments = torch.full_like(ids, -1)
    last = []
    for row, pair in enumerate(pairs):
        prefix, a, b = len(pair.prefix), len(pair.a), len(pair.b)
        end = prefix + a + b
        ids[row, :end] = torch.tensor([*pair.prefix, *pair.a, *pair.b])
        positions[row, : prefix + a] = torch.arange(prefix + a)
        positions[row, prefix + a : end] = torch.arange(prefix, prefix + b)
        segments[row, :prefix] = 3 * row
        segments[row, prefix : prefix + a] = 3 * row + 1
        segments[row, prefix + a : end] = 3 * row + 2
        last.append([row * length + prefix + a - 1, row * length + end - 1])
    return PairBatch(ids, positions, segments, torch.tensor(last))


def packed(batch: PairBatch) -> PairBatch:
    """The same pairs end to end in one row, in their order, without pads but for those that fill the last block."""
    kept = batch.segments.flatten() >= 0
    real = kept.nonzero().flatten()
    # Two blocks at least: for a single one, flex attention would be compiled once more.
    fill = max(2 * _BLOCK, len(real) + -len(real) % _BLOCK) - len(real)
    ids, positions, segments = (
        torch.cat([each.flatten()[real], each.new_full((fill,), value)])[None]
        # The ids there are anybody's: nothing sees them.
        for each, value in ((batch.ids, 0), (batch.positions, 0), (batch.segments, -1))
    )
    return PairBatch(ids, positions, segments, (kept.cumsum(0) - 1)[batch.last])


def dense_mask(batch: PairBatch, window: int | None = None) -> torch.Tensor:
    """Which token sees which, (rows, 1, length, length), true where it does; pads see pads, since a row of none is nan.

    With a window, a token sees so many positions back, itself included.
    """
    places = torch.arange(batch.segments.shape[1], device=batch.segments.device)
    found = _sees(places[:, None], places, batch.segments[:, None, :, None], batch.segments[:, None, None, :])
    if window is not None:
        found &= batch.positions[:, None, :, None] - batch.positions[:, None, None, :] < window
    return found


def _sees(query: torch.Tensor, key: torch.Tensor, mine: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Whether the key comes before the query, and is in the same response or in the prompt of the same pair."""
    return (query >= key) & ((mine == other) | ((other % 3 == 0) & (other // 3 == mine // 3)))


def block_mask(batch: PairBatch, window: int | None = None) -> BlockMask:
    """The mask of a packed batch for flex attention: blocks where nothing is seen are left out.

    Made from the blocks' first and last segments alone: the table of all tokens by all tokens is never made.
    """
    segments = batch.segments[0]
    # Pads are a pair of their own after all others: segments then never fall along the row.
    filled = torch.where(segments < 0, 3 * len(batch), segments)
    positions = batch.positions[0]
    blocks = filled.view(-1, _BLOCK)
    first, last = blocks[:, 0], blocks[:, -1]
    places = torch.arange(len(blocks), device=filled.device)
    behind = places[:, None] >= places[None, :]
    uniform = first == last
    # The key's block reaches into the query's first pair, and is not all of a response that the query has left.
    left = uniform & (first % 3 > 0)
    some = behind & (last[None, :] // 3 >= first[:, None] // 3) & ~(left[None, :] & (first[None, :] < first[:, None]))
    prompt = uniform & (first % 3 == 0)
    own = uniform[:, None] & uniform[None, :] & (first[:, None] == first[None, :])
    same = (first // 3)[:, None] == (first // 3)[None, :]
    within = same & (first // 3 == last // 3)[:, None]
    # All of response a sees all that comes before it in its pair.
    behind_it = same & (uniform & (first % 3 == 1))[:, None]
    full = (places[:, None] > places[None, :]) & ((within & prompt[None, :]) | own | behind_it)
    if window is not None:
        full = torch.zeros_like(full)
    some = some & ~full

    def sees(_: torch.Tensor, __: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        found = _sees(query, key, filled[query], filled[key])
        return found if window is None else found & (positions[query] - positions[key] < window)

    return BlockMask.from_kv_blocks(
        *_listed(some), *_listed(full), BLOCK_SIZE=_BLOCK, mask_mod=sees, seq_lengths=(len(filled), len(filled))
    )


def _listed(table: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How many key blocks each query block has, and which, those first."""
    counts = table.sum(dim=1, dtype=torch.int32)
    order = table.int().argsort(dim=1, descending=True, stable=True).int()
    return counts[None, None], order[None, None]


def trunk_of(model: nn.Module) -> PreTrainedModel:
    """The part of a classifier below its head, adapters and all."""
    classifier: Any = model
    if hasattr(classifier, "peft_config") and hasattr(classifier, "get_base_model"):
        classifier = classifier.get_base_model()
    return cast("PreTrainedModel", getattr(classifier, classifier.base_model_prefix))


def pair_features(model: nn.Module, batch: PairBatch) -> torch.Tensor:
    """Features at the last tokens of both responses, (pairs, 2, H), in one pass; gradients flow."""
    trunk = trunk_of(model)
    if batch.ids.device.type != "cpu":
        return _pass(trunk, batch)
    lengths = (batch.segments >= 0).sum(dim=1).tolist()
    return in_groups(group_lengths(lengths, CPU_TOKENS), lambda rows: _pass(trunk, _some(batch, rows, lengths)))


def _some(batch: PairBatch, rows: list[int], lengths: list[int]) -> PairBatch:
    """Some rows of a batch, as long as the longest of them."""
    before, length = batch.ids.shape[1], max(lengths[row] for row in rows)
    ids, positions, segments = (each[rows, :length] for each in (batch.ids, batch.positions, batch.segments))
    last = torch.arange(len(rows))[:, None] * length + batch.last[rows] % before
    return PairBatch(ids, positions, segments, last)


def _pass(trunk: PreTrainedModel, batch: PairBatch) -> torch.Tensor:
    config = trunk.config.get_text_config()
    flex = config._attn_implementation == _FLEX
    if flex:
        batch = packed(batch)
    masks = {
        kind: block_mask(batch, window) if flex else _table(batch, window, trunk)
        for kind, window in (_windows(config) or {}).items()
    }
    # One kind of layer takes its mask as it is, several take one each by name.
    mask = masks if len(masks) > 1 else next(iter(masks.values()))
    hidden = trunk(
        input_ids=batch.ids, attention_mask=mask, position_ids=batch.positions, **without_cache(trunk)
    ).last_hidden_state
    return cast("torch.Tensor", hidden.flatten(0, 1)[batch.last])


def _table(batch: PairBatch, window: int | None, trunk: PreTrainedModel) -> torch.Tensor:
    mask = dense_mask(batch, window)
    if trunk.config.get_text_config()._attn_implementation != "eager":
        return mask
    # Eager attention adds its mask to the scores.
    return torch.zeros_like(mask, dtype=trunk.dtype).masked_fill(~mask, torch.finfo(trunk.dtype).min)


def _windows(config: PretrainedConfig) -> dict[str, int | None] | None:
    """By kind of layer, how far back a token sees; `None` where layers do something else than attend."""
    window = getattr(config, "sliding_window", None)
    window = None if getattr(config, "use_sliding_window", True) is False else window
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        return {_FULL: window}
    windows = {_FULL: None, _SLIDING: window}
    if not set(kinds) <= windows.keys():
        return None
    return {kind: windows[kind] for kind in sorted(set(kinds))}


def supports_one_pass(model: PreTrainedModel) -> bool:
    """Whether one pass over `[prompt | a | b]` gives what separate passes give.

    Decoders that take positions and a mask of any shape may; whether they do is tried on a few tokens, both ways.
    """
    trunk = getattr(model, model.base_model_prefix, None)
    if not isinstance(trunk, PreTrainedModel) or model.config.is_encoder_decoder:
        return False
    taken = inspect.signature(trunk.forward).parameters.keys()
    config = trunk.config.get_text_config()
    if not {"position_ids", "attention_mask"} <= taken or _windows(config) is None:
        return False
    if config._attn_implementation not in _ATTENTION:
        return False
    training = model.training
    model.eval()  # type: ignore[no-untyped-call]
    try:
        return _same_both_ways(model, config)
    # Many architectures, many ways to refuse a mask of this shape.
    except Exception:
        return False
    finally:
        model.train(training)


def _same_both_ways(model: PreTrainedModel, config: PretrainedConfig) -> bool:
    draw = torch.Generator().manual_seed(0)
    pad_id = config.pad_token_id or 0
    words = [word for word in torch.randperm(config.vocab_size, generator=draw)[:64].tolist() if word != pad_id]
    words = (words * 64)[:64]
    # The second pair is shorter, so that pads are tried as well.
    pairs = [
        EncodedPair(words[:9], words[9:20], words[20:33]),
        EncodedPair(words[33:38], words[38:44], words[44:45]),
    ]
    with torch.inference_mode():
        once = pair_features(model, make_batch(pairs, pad_id).to(model.device)).float()
        conversations = [ids for pair in pairs for ids in pair.conversations]
        apart = plain_features(model, head_of(model, len(labels_of(model))), conversations, pad_id).float()
    wrong = (once - apart.view_as(once)).norm(dim=-1) / apart.view_as(once).norm(dim=-1)
    return bool((wrong < _TOLERANCE.get(model.dtype, 0.0)).all())
