"""Features of whole conversations, padded and computed one by one: what every classifier of transformers can do."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from rlaif.errors import InputError
from rlaif.rewards.batches import group_lengths

# A CPU is no faster with more tokens at once, and a batch in parts of like lengths has next to no padding.
CPU_TOKENS = 1024


def labels_of(model: PreTrainedModel) -> tuple[str, ...]:
    """Names of a classifier's labels, in the order of its scores."""
    names = {int(place): str(label) for place, label in (model.config.id2label or {}).items()}
    return tuple(names[place] for place in range(len(names)))


def head_of(model: nn.Module, labels: int) -> nn.Linear:
    """The head of a classifier: its last linear map to as many scores as there are labels.

    Raises:
        InputError: there is none.
    """
    found = [module for module in model.modules() if isinstance(module, nn.Linear) and module.out_features == labels]
    if not found:
        raise InputError(
            f"{type(model).__name__}: has no linear map to {labels} labels at its end, so no reward heads can be put "
            "on it; choose another backbone."
        )
    return found[-1]


def padded(conversations: Sequence[Sequence[int]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Conversations as rows, padded on the right: token ids and how long each is, (rows, length) and (rows,)."""
    lengths = torch.tensor([len(ids) for ids in conversations])
    ids = torch.full((len(conversations), int(lengths.max())), pad_id)
    for row, each in enumerate(conversations):
        ids[row, : len(each)] = torch.tensor(each)
    return ids, lengths


def plain_features(
    model: PreTrainedModel, head: nn.Linear, conversations: Sequence[Sequence[int]], pad_id: int
) -> torch.Tensor:
    """What the head is given for whole conversations, (conversations, H), whatever lies below it; gradients flow.

    A decoder gives it every token, of which the last one counts; an encoder one vector a conversation.
    """
    if model.device.type != "cpu":
        return _pass(model, head, conversations, pad_id)[0]
    groups = group_lengths([len(ids) for ids in conversations], CPU_TOKENS)
    return in_groups(groups, lambda rows: _pass(model, head, [conversations[row] for row in rows], pad_id)[0])


def in_groups(groups: Sequence[list[int]], features: Callable[[list[int]], torch.Tensor]) -> torch.Tensor:
    """Compute a batch in groups of its rows, and put the results in the rows' own order."""
    found = torch.cat([features(rows) for rows in groups])
    order = torch.tensor([row for rows in groups for row in rows], device=found.device)
    return found[order.argsort()]


def pooling_fault(
    model: PreTrainedModel, head: nn.Linear, conversations: Sequence[Sequence[int]], pad_id: int
) -> str | None:
    """Why the model's own scores are not its head's of the features found here; `None` where they are."""
    try:
        with torch.inference_mode():
            features, logits = _pass(model, head, conversations, pad_id)
            scores = head(features).float()
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        return f"cannot score a text ({str(error).strip().splitlines()[0]})"
    if not torch.isfinite(logits).all():
        return f"gives no finite scores in {str(model.dtype).removeprefix('torch.')}"
    if scores.shape != logits.shape or not torch.allclose(scores, logits.float(), rtol=1e-2, atol=1e-3):
        return "reads its score neither at the last token nor from one vector a text"
    return None


def _pass(
    model: PreTrainedModel, head: nn.Linear, conversations: Sequence[Sequence[int]], pad_id: int
) -> tuple[torch.Tensor, torch.Tensor]:
    ids, lengths = padded(conversations, pad_id)
    ids, lengths = ids.to(model.device), lengths.to(model.device)
    mask = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
    given: list[torch.Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        given.append(inputs[0])

    handle = head.register_forward_pre_hook(keep)
    try:
        logits: torch.Tensor = model(input_ids=ids, attention_mask=mask.long(), **without_cache(model)).logits
    finally:
        handle.remove()
    features = given[-1]
    if features.ndim == 3:
        features = features[torch.arange(len(ids), device=ids.device), lengths - 1]
    return features, logits


def without_cache(module: nn.Module) -> dict[str, bool]:
    """The argument that keeps a model from holding keys and values for tokens to come, where it has one."""
    return {"use_cache": False} if "use_cache" in inspect.signature(module.forward).parameters else {}
