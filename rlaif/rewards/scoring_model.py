"""What is trained: a backbone with the heads of all objectives and members on it, from batches of pairs to scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from rlaif.rewards.forward import each_batch
from rlaif.rewards.model import Backbone, two_pass_features
from rlaif.rewards.onepass import PairBatch, make_batch, pair_features
from rlaif.rewards.preferences import Floats, Ints
from rlaif.rewards.tokens import EncodedPair


@dataclass(frozen=True)
class EncodedPreferences:
    """Pairs as token ids, and what is known of them under each objective.

    Attributes:
        objectives: names, the order of the columns.
        pairs: token ids, row by row.
        target: P(response a is better), (pairs, objectives); nan where there is no label.
        weight: what a label counts, (pairs, objectives); 0 where there is none.
        group: the conversation, (pairs,).
        length: log(1 + tokens of a) - log(1 + tokens of b), (pairs,), where the scores are to be free of length.
    """

    objectives: tuple[str, ...]
    pairs: Sequence[EncodedPair]
    target: Floats
    weight: Floats
    group: Ints
    length: Floats | None = None

    def __len__(self) -> int:
        return len(self.pairs)


@dataclass(frozen=True)
class PairInputs:
    """The pairs of one batch, laid out for one pass where the architecture allows it."""

    pairs: Sequence[EncodedPair]
    batch: PairBatch | None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> PairInputs:
        """The same on a device."""
        return self if self.batch is None else replace(self, batch=self.batch.to(torch.device(device)))

    def pin_memory(self) -> PairInputs:
        """The same in memory that a GPU copies from while it computes."""
        return self if self.batch is None else replace(self, batch=self.batch.pin_memory())


class ScoringModel(nn.Module):
    """Scores of both responses of pairs, by objective and member.

    Args:
        heads: what to begin with, (objectives, members, H); `None` for the checkpoint's own, members around it.

    Attributes:
        weight: the heads, (objectives, members, H); the checkpoint's head is their mean.
        slope: of the length covariate, (objectives,); `None` without it.
    """

    def __init__(
        self, backbone: Backbone, *, members: int, seed: int, slope: Floats | None, heads: Floats | None = None
    ) -> None:
        super().__init__()
        self.backbone = backbone.model
        self._whole = backbone
        head = backbone.head.weight.detach().float()
        found = _members_around(head, members, seed) if heads is None else torch.tensor(heads, dtype=torch.float32)
        # In the order of memory that a checkpoint has: AdamW's fused kernel goes by it.
        self.weight = nn.Parameter(found.to(head.device).contiguous())
        self.slope = None if slope is None else nn.Parameter(torch.tensor(slope, dtype=torch.float32))
        # Their part is played by `weight`. A bias is the same for both responses: it stays.
        backbone.head.requires_grad_(False)
        # FSDP wraps these blocks, as it would those of the model itself.
        self._no_split_modules = getattr(backbone.model, "_no_split_modules", None)

    def forward(self, pairs: PairInputs, length: torch.Tensor | None = None) -> torch.Tensor:
        """Scores, (pairs, 2, objectives, members), float32; with `length`, (pairs,), its effect is in them."""
        if pairs.batch is None:
            features = two_pass_features(self._whole, pairs.pairs)
        else:
            features = pair_features(self.backbone, pairs.batch)
        # bfloat16 has 8 bits: too few for the difference of two scores.
        with torch.autocast(features.device.type, enabled=False):
            scores = torch.einsum("psh,kmh->pskm", features.float(), self.weight.float())
            if self.slope is not None and length is not None:
                half = length.float()[:, None, None] * self.slope[:, None] / 2  # (pairs, objectives, 1)
                scores = scores + torch.stack([half, -half], dim=1)
        return scores

    def trained(self) -> dict[str, nn.Parameter]:
        """What changes in training, by name."""
        return {name: each for name, each in self.named_parameters() if each.requires_grad}

    def own_parameters(self) -> list[nn.Parameter]:
        """What each objective has for itself: rows of the heads and the slope."""
        return [self.weight] if self.slope is None else [self.weight, self.slope]

    def shared_parameters(self) -> list[nn.Parameter]:
        """What all objectives share."""
        return [each for each in self.backbone.parameters() if each.requires_grad]


def _members_around(head: torch.Tensor, members: int, seed: int) -> torch.Tensor:
    """Heads, (objectives, members, H), whose mean is `head`: what it already knows is kept."""
    heads = head[:, None].expand(-1, members, -1)
    if members == 1:
        return heads.clone()
    noise = torch.randn(heads.shape, generator=torch.Generator().manual_seed(seed)) * float(head.std())
    return heads + (noise - noise.mean(dim=1, keepdim=True)).to(head.device)


@dataclass(frozen=True)
class Collator:
    """Makes a batch of rows: what the model takes, and the labels.

    `member_weight` is what each pair counts for each member, (pairs, members).
    """

    data: EncodedPreferences
    member_weight: Floats
    pad_id: int
    one_pass: bool

    def __call__(self, rows: Sequence[int]) -> dict[str, object]:
        """Make the batch; of a negative row, `-1 - row` is computed and counts nothing."""
        places = np.array([row if row >= 0 else -1 - row for row in rows])
        counts = np.array([row >= 0 for row in rows], dtype=float)[:, None]
        data = self.data
        pairs = [data.pairs[place] for place in places]
        made: dict[str, object] = {
            "pairs": PairInputs(pairs, make_batch(pairs, self.pad_id) if self.one_pass else None),
            "target": torch.tensor(data.target[places], dtype=torch.float32),
            "weight": torch.tensor(data.weight[places] * counts, dtype=torch.float32),
            "members": torch.tensor(self.member_weight[places], dtype=torch.float32),
        }
        if data.length is not None:
            made["length"] = torch.tensor(data.length[places], dtype=torch.float32)
        return made


def scores_of(backbone: Backbone, data: EncodedPreferences, heads: Floats, budget: int) -> Floats:
    """Raw scores of both responses by member, (pairs, 2, objectives, members)."""
    conversations = [ids for pair in data.pairs for ids in pair.conversations]
    features = np.empty((len(conversations), backbone.hidden))
    prompts = np.repeat(np.arange(len(data)), 2).tolist()
    for places, found in each_batch(backbone, conversations, prompts, budget=budget):
        features[places] = found.double().cpu().numpy()
    scores: Floats = np.einsum("psh,kmh->pskm", features.reshape(len(data), 2, -1), heads)
    return scores


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Set every dropout of a model to nothing for a while: in its layers, and where attention reads a number."""
    found: list[tuple[nn.Module, str, float]] = []
    for module in model.modules():
        names = ["p"] if isinstance(module, nn.modules.dropout._DropoutNd) else []
        names += [name for name in vars(module) if "drop" in name.lower()]
        found += [(module, name, getattr(module, name)) for name in names if isinstance(getattr(module, name), float)]
    for module, name, _ in found:
        setattr(module, name, 0.0)
    try:
        yield
    finally:
        for module, name, value in found:
            setattr(module, name, value)
