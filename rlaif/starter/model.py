"""The starter's network, a small Llama, and the batches that it learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rlaif.starter.encode import GUIDES, IGNORE, LOOKS, Row


def make_model(vocabulary: int, *, width: int = 256, layers: int = 6, inner: int = 640) -> LlamaForCausalLM:
    """A Llama with heads of 64, untrained."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 64,
        head_dim=64,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=4,
        pad_token_id=0,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )
    return LlamaForCausalLM(config)  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Batch:
    """Padded rows as tensors, and where their guides' labels are.

    Attributes:
        places: (row, place) of each label, by guide; `labels` has the labels.
        looks: (row, place) before each word that has to be decided; `looked` has the number in `LOOKS`.
        found: (look, place), true where the word is to be found.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    branches: int
    places: dict[str, torch.Tensor]
    labels: dict[str, torch.Tensor]
    looks: torch.Tensor
    looked: torch.Tensor
    found: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        """Move to a device."""
        return Batch(
            self.ids.to(device),
            self.positions.to(device),
            self.mask.to(device),
            self.targets.to(device),
            self.weights.to(device),
            self.branches,
            {name: tensor.to(device) for name, tensor in self.places.items()},
            {name: tensor.to(device) for name, tensor in self.labels.items()},
            self.looks.to(device),
            self.looked.to(device),
            self.found.to(device),
        )


def collate(rows: Sequence[Row]) -> Batch:
    """Pad rows at the right and build the mask of shared prefixes: (batch, 1, place, place)."""
    longest = max(len(row.ids) for row in rows)

    def padded(lists: list[list[int]], filler: int) -> torch.Tensor:
        return torch.tensor([items + [filler] * (longest - len(items)) for items in lists])

    segments = padded([row.segments for row in rows], -1)
    same = segments[:, :, None] == segments[:, None, :]
    to_prefix = segments[:, None, :] == 0
    mask = (same | to_prefix) & torch.ones(longest, longest, dtype=torch.bool).tril()
    told = {kind: [(n, *item) for n, row in enumerate(rows) for item in getattr(row, kind)] for kind in GUIDES}
    looks = [(n, *item) for n, row in enumerate(rows) for item in row.looks]
    found = torch.zeros(len(looks), longest, dtype=torch.bool)
    for number, (_, _, _, places) in enumerate(looks):
        found[number, list(places)] = True
    return Batch(
        ids=padded([row.ids for row in rows], 0),
        positions=padded([row.positions for row in rows], 0),
        mask=mask[:, None],
        targets=padded([row.targets for row in rows], IGNORE),
        weights=torch.tensor([row.weight for row in rows])[:, None].expand(-1, longest),
        branches=sum(max(row.segments) for row in rows),
        places={kind: torch.tensor([item[:2] for item in items]).reshape(-1, 2) for kind, items in told.items()},
        labels={kind: torch.tensor([item[2] for item in items]) for kind, items in told.items()},
        looks=torch.tensor([look[:2] for look in looks], dtype=torch.long).reshape(-1, 2),
        looked=torch.tensor([LOOKS.index(look[2]) for look in looks], dtype=torch.long),
        found=found,
    )


def attention_bias(batch: Batch) -> torch.Tensor:
    """The mask as what is added to attention scores: the CPU's kernel takes it so; (batch, 1, place, place)."""
    low = torch.bfloat16 if torch.is_autocast_enabled(batch.ids.device.type) else torch.float32
    return torch.zeros(batch.mask.shape, dtype=low, device=batch.ids.device).masked_fill(~batch.mask, float("-inf"))
