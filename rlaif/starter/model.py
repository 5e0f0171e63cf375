"""The starter's network: a small Llama, and heads that help it learn and are thrown away afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from rlaif.starter.encode import IGNORE, MARKED, Row
from rlaif.starter.families import NAMES


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
    """Padded rows as tensors, and where their auxiliary labels are (row, place)."""

    ids: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    branches: int
    places: dict[str, torch.Tensor]
    labels: dict[str, torch.Tensor]

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
    kinds = GUIDES
    found = {kind: [(n, *item) for n, row in enumerate(rows) for item in getattr(row, kind)] for kind in kinds}
    return Batch(
        ids=padded([row.ids for row in rows], 0),
        positions=padded([row.positions for row in rows], 0),
        mask=mask[:, None],
        targets=padded([row.targets for row in rows], IGNORE),
        weights=torch.tensor([row.weight for row in rows])[:, None].expand(-1, longest),
        branches=sum(max(row.segments) for row in rows),
        places={kind: torch.tensor([item[:2] for item in items]).reshape(-1, 2) for kind, items in found.items()},
        labels={kind: torch.tensor([item[2] for item in items]) for kind, items in found.items()},
    )


GUIDES = ("parts", "marks", "lengths", "wants", "copies")
# Averaged over families, most of them absent, these two would be drowned by the rest.
_WEIGHTS = {"parts": 8.0, "marks": 8.0}


class Guides(nn.Module):
    """Heads on a middle layer: what a response holds, which is longer, what a principle asks for.

    They say early what is worth reading; the judge's rationale then only has to fetch it.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = nn.ModuleDict(
            {
                "parts": nn.Linear(width, len(MARKED)),
                "marks": nn.Linear(width, len(MARKED)),
                "lengths": nn.Linear(width, 3),
                "wants": nn.Linear(width, 2 * len(NAMES)),
                "copies": nn.Linear(width, 2),
            }
        )

    def losses(self, hidden: dict[str, torch.Tensor], batch: Batch) -> dict[str, torch.Tensor]:
        """Mean loss by kind; `hidden` (batch, place, width) by kind."""
        made = {}
        for kind, head in self.heads.items():
            places, labels = batch.places[kind], batch.labels[kind]
            if not len(places):
                continue
            # Normalised: the residual stream grows from layer to layer.
            at = hidden[kind][places[:, 0], places[:, 1]]
            logits = head(functional.rms_norm(at.float(), (at.shape[-1],)))
            if kind in ("parts", "marks", "copies"):
                known = labels != IGNORE
                made[kind] = functional.binary_cross_entropy_with_logits(logits[known], labels[known].float())
            else:
                made[kind] = functional.cross_entropy(logits, labels)
        return made


def losses(model: LlamaForCausalLM, guides: Guides, batch: Batch) -> dict[str, torch.Tensor]:
    """The language model's loss on what it is to write, and the guides' losses."""
    # Added to the scores rather than a choice of them: the CPU's kernel is twice as fast so.
    low = torch.bfloat16 if torch.is_autocast_enabled(batch.ids.device.type) else torch.float32
    bias = torch.zeros(batch.mask.shape, dtype=low, device=batch.ids.device).masked_fill(~batch.mask, float("-inf"))
    output: Any = model.model(
        input_ids=batch.ids,
        position_ids=batch.positions,
        attention_mask=bias,
        output_hidden_states=True,
        use_cache=False,
    )
    wanted = batch.targets != IGNORE
    logits = model.lm_head(output.last_hidden_state[wanted]).float()
    middle = len(output.hidden_states) * 2 // 3
    depth = {"copies": middle // 2, "parts": middle - 1, "marks": middle, "lengths": middle, "wants": middle}
    hidden = {kind: output.hidden_states[layer] for kind, layer in depth.items()}
    with torch.autocast(batch.ids.device.type, enabled=False):
        # By answer, not by token: most tokens of an answer are always the same.
        each = functional.cross_entropy(logits, batch.targets[wanted], reduction="none")
        made = {"text": (each * batch.weights[wanted]).sum() / batch.branches}
        return made | guides.losses(hidden, batch)


def total(made: dict[str, torch.Tensor]) -> torch.Tensor:
    """What is minimised."""
    return torch.stack([_WEIGHTS.get(name, 1.0) * value for name, value in made.items()]).sum()
