"""What helps the starter learn, and is thrown away afterwards.

Left with the text alone, a model this small finds in hours neither what it should compare nor where to look for it.
Guides tell it in its middle layers what is worth knowing at a place (linear heads, dropped later), and looks tell a few
of its own attention heads where the next word is to be found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from rlaif.starter.encode import GUIDES, IGNORE, LOOKS, MARKED, REQUESTS, SIDES, TONGUES
from rlaif.starter.families import NAMES
from rlaif.starter.model import Batch, attention_bias

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

_SIZES = {
    "parts": len(MARKED),
    "late_parts": len(MARKED),
    "marks": len(MARKED),
    "sides": len(SIDES),
    "lengths": 3,
    "wants": 2 * len(NAMES),
    "bases": 2 * len(NAMES),
    "turns": 2,
    "copies": 2,
    "requests": len(REQUESTS),
    "tongues": len(TONGUES),
    "lists": 2,
}
# Yes or no for each output; the other guides choose one of theirs.
_BINARY = ("parts", "late_parts", "marks", "copies")
# Averaged over families, most of them absent, parts and marks would be drowned by the rest; copies tell little at most
# places.
_WEIGHTS = {"parts": 16.0, "late_parts": 12.0, "marks": 16.0, "copies": 4.0, "wants": 3.0, "bases": 3.0}
# The layer and its attention head that looks for each; layers from the end are negative.
_LOOKERS = {
    "look at the principle": (-2, 0, ("principle", "b at once")),
    "look at the response": (-2, 1, ("a", "b", "a at once")),
    "look back": (-2, 2, ("better",)),
    "look at what to copy": (-2, 3, ("copy",)),
    "look for the same": (1, 0, ("same",)),
    "look for it again": (1, 1, ("again",)),
}


@dataclass(frozen=True)
class Losses:
    """What a batch cost, by name, and the share of words decided right by what has to be looked at."""

    by_name: dict[str, torch.Tensor]
    right: dict[str, torch.Tensor]

    def total(self) -> torch.Tensor:
        """What is minimised."""
        return torch.stack([_WEIGHTS.get(name, 1.0) * value for name, value in self.by_name.items()]).sum()

    def figures(self) -> dict[str, float]:
        """All of it as numbers."""
        shares = {f"right: {name}": value for name, value in self.right.items()}
        return {name: float(value.detach()) for name, value in (self.by_name | shares).items()}


class Guides(nn.Module):
    """Linear heads on middle layers: what a response holds, which is longer, what a principle asks for."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({kind: nn.Linear(width, _SIZES[kind]) for kind in GUIDES})

    def losses(self, hidden: tuple[torch.Tensor, ...], batch: Batch) -> dict[str, torch.Tensor]:
        """Mean loss by kind; `hidden` is what goes into each layer, (batch, place, width)."""
        middle = len(hidden) * 2 // 3
        depth = dict.fromkeys(GUIDES, middle) | {"parts": middle - 1, "bases": middle - 1}
        depth["sides"] = len(hidden) - 2
        depth |= dict.fromkeys(("turns", "copies", "requests", "tongues"), middle // 2) | {"lists": middle - 1}
        made = {}
        for kind, head in self.heads.items():
            places, labels = batch.places[kind], batch.labels[kind]
            if not len(places):
                continue
            # Normalised: the residual stream grows from layer to layer.
            at = hidden[depth[kind]][places[:, 0], places[:, 1]]
            logits = head(functional.rms_norm(at.float(), (at.shape[-1],)))
            if kind in _BINARY:
                known = labels != IGNORE
                made[kind] = functional.binary_cross_entropy_with_logits(logits[known], labels[known].float())
            else:
                made[kind] = functional.cross_entropy(logits, labels)
        return made


def losses(model: LlamaForCausalLM, guides: Guides, batch: Batch) -> Losses:
    """The language model's loss on what it is to write, and those of the guides and looks."""
    output: Any = model.model(
        input_ids=batch.ids,
        position_ids=batch.positions,
        attention_mask=attention_bias(batch),
        output_hidden_states=True,
        use_cache=False,
    )
    wanted = batch.targets != IGNORE
    logits = model.lm_head(output.last_hidden_state[wanted]).float()
    right = torch.zeros_like(batch.targets, dtype=torch.bool)
    right[wanted] = logits.argmax(-1) == batch.targets[wanted]
    decided = right[batch.looks[:, 0], batch.looks[:, 1]].float()
    shares = {name: decided[batch.looked == n].mean() for n, name in enumerate(LOOKS[:4]) if (batch.looked == n).any()}
    with torch.autocast(batch.ids.device.type, enabled=False):
        # By answer, not by token: most tokens of an answer are always the same.
        each = functional.cross_entropy(logits, batch.targets[wanted], reduction="none")
        made = {"text": (each * batch.weights[wanted]).sum() / batch.branches}
        made |= guides.losses(output.hidden_states, batch)
        made |= _look_losses(model, output.hidden_states, batch)
    return Losses(made, shares)


def _look_losses(model: LlamaForCausalLM, hidden: tuple[torch.Tensor, ...], batch: Batch) -> dict[str, torch.Tensor]:
    """How little of an attention head's weight lies where the next word is to be found: its negative logarithm."""
    made = {}
    for name, (number, looker, kinds) in _LOOKERS.items():
        chosen = torch.isin(batch.looked, torch.tensor([LOOKS.index(kind) for kind in kinds], device=batch.ids.device))
        if not chosen.any():
            continue
        number %= len(hidden) - 1
        layer: Any = model.model.layers[number]
        size = layer.self_attn.head_dim
        normed = layer.input_layernorm(hidden[number].float())
        cos, sin = model.model.rotary_emb(normed, batch.positions)
        rows, places = batch.looks[chosen].T
        begin = looker * size % layer.self_attn.k_proj.weight.shape[0]
        part = slice(begin, begin + size)
        key = functional.linear(normed, layer.self_attn.k_proj.weight[part])
        query = functional.linear(normed[rows, places], layer.self_attn.q_proj.weight[part])
        key = key * cos + _half_turned(key) * sin
        query = query * cos[rows, places] + _half_turned(query) * sin[rows, places]
        each = []
        # Row by row: the keys are not copied for every query.
        for row in range(len(key)):
            here = rows == row
            if not here.any():
                continue
            scores = query[here] @ key[row].T / size**0.5
            logs = scores.masked_fill(~batch.mask[row, 0, places[here]], float("-inf")).log_softmax(-1)
            each.append(-logs.masked_fill(~batch.found[chosen][here], float("-inf")).logsumexp(-1))
        made[name] = torch.cat(each).mean()
    return made


def _half_turned(x: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat((-second, first), -1)
