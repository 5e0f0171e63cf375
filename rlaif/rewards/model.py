"""The backbone of reward heads: any model that transformers classifies sequences with, one label an objective."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers import logging as transformers_logging

from rlaif.engines.base import identify
from rlaif.errors import InputError, RunError
from rlaif.rewards.onepass import make_batch, pair_features, supports_one_pass
from rlaif.rewards.pads import choose_pad
from rlaif.rewards.plainpass import head_of, labels_of, plain_features, pooling_fault
from rlaif.rewards.tokens import ConversationEncoder, EncodedPair
from rlaif.starter import STARTER, checkpoint

Attention = Literal["auto", "sdpa", "flex_attention"]
# Tokens of a conversation where the caller does not say.
DEFAULT_LENGTH = 2048
_SHORTEST = 8
# What changes no feature: names, and how the model is stored and labelled.
_NO_MATTER = frozenset(
    {"id2label", "label2id", "num_labels", "problem_type", "architectures", "dtype", "torch_dtype", "use_cache"}
    | {"transformers_version", "_name_or_path", "return_dict", "output_hidden_states", "output_attentions"}
)


@dataclass
class Backbone:
    """A sequence classifier, its tokenizer and what it is called.

    Attributes:
        model: with `num_labels` = objectives, named by `id2label`; in evaluation mode.
        tokenizer: its pad token never ends a conversation.
        name: as the user gave it.
        encoder: conversations to token ids.
        one_pass: whether both responses of a pair go through in one pass.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    encoder: ConversationEncoder
    one_pass: bool

    @property
    def objectives(self) -> tuple[str, ...]:
        """Names of the labels, in their order."""
        return labels_of(self.model)

    @property
    def head(self) -> nn.Linear:
        """The last linear map: features to one raw score an objective; encoders have a bias there."""
        return head_of(self.model, len(labels_of(self.model)))

    @property
    def hidden(self) -> int:
        """Width of the features."""
        return self.head.in_features

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    @property
    def pad_id(self) -> int:
        """Id of the pad token."""
        return int(self.model.config.get_text_config().pad_token_id)

    @property
    def digest(self) -> str:
        """SHA-256 of all that makes the features, as it is now: architecture, precision and weights, the head apart.

        Every weight is read each time: half a second a gigabyte.
        """
        head = {id(each) for each in self.head.parameters()}
        config = {key: each for key, each in self.model.config.to_dict().items() if key not in _NO_MATTER}
        found = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
        for name, tensor in self.model.state_dict(keep_vars=True).items():
            if id(tensor) not in head:
                plain = tensor.detach().cpu().contiguous()
                found.update(f"{name} {plain.dtype} {tuple(plain.shape)}".encode())
                found.update(plain.reshape(-1).view(torch.uint8).numpy())
        return found.hexdigest()

    @property
    def head_digest(self) -> str:
        """SHA-256 of the head's weights."""
        return hashlib.sha256(self.head.weight.detach().float().cpu().numpy().tobytes()).hexdigest()


def load_backbone(
    name: str,
    objectives: Sequence[str],
    *,
    max_length: int | None,
    device: torch.device,
    dtype: torch.dtype,
    seed: int,
    attention: Attention = "auto",
) -> Backbone:
    """Load a model to score objectives with: `starter`, a hub id, a folder, or a checkpoint of heads.

    A head that the checkpoint has for an objective of the same name is kept; the others begin small, fixed by the seed
    and the objective's name.

    Args:
        name: what to load.
        objectives: names of the labels.
        max_length: most tokens of a conversation; by default what the model takes, at most 2,048.
        device: where to compute.
        dtype: of the weights.
        seed: of the weights that the checkpoint does not have.
        attention: how pairs are computed in one pass; `auto` takes flex attention on a GPU where it works.

    Raises:
        InputError: no such model, none that can score text, or none that takes conversations so long.
        RunError: the device has no room for it, or the starter is not installed.
    """
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    source = str(checkpoint()) if name == STARTER else name
    identify(source)
    config, tokenizer = _load_parts(name, source)
    # Weights that are missing are drawn: the same ones each time, and nobody else's draws are moved.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, missing = _load_model(name, source, config, dtype)
        _put_heads(model, tuple(objectives), missing, seed)
    try:
        model.to(device)  # type: ignore[arg-type]
    except torch.OutOfMemoryError:
        raise RunError(
            f"{name}: {device} has no room for the model in {str(dtype).removeprefix('torch.')}; use a smaller one, "
            "another device, or --device cpu."
        ) from None
    model.eval()  # type: ignore[no-untyped-call]
    try:
        pad_id = choose_pad(tokenizer, len(model.get_input_embeddings().get_parameter("weight")))
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    for each in (model.config, model.config.get_text_config()):
        each.pad_token_id = pad_id
    encoder = ConversationEncoder(tokenizer, _length(name, model, tokenizer, max_length))
    one_pass = _try_one_pass(model, device, attention)
    _check_pooling(name, model, pad_id)
    return Backbone(model, tokenizer, name, encoder, one_pass)


def _load_parts(name: str, source: str) -> tuple[PretrainedConfig, PreTrainedTokenizerBase]:
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    except Exception as error:
        raise _unusable(name, "its configuration", error) from None
    if type(config) not in AutoModelForSequenceClassification._model_mapping:
        raise InputError(
            f"{name}: transformers has no sequence classifier for models of type {config.model_type!r}; choose a "
            "decoder or encoder of text."
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except Exception as error:
        raise _unusable(name, "its tokenizer", error) from None
    return config, tokenizer


def _load_model(
    name: str, source: str, config: PretrainedConfig, dtype: torch.dtype
) -> tuple[PreTrainedModel, set[str]]:
    """The classifier with the labels its checkpoint has, and the names of the weights that it lacks."""
    try:
        model, info = AutoModelForSequenceClassification.from_pretrained(
            source, config=config, dtype=dtype, trust_remote_code=False, output_loading_info=True
        )
    except Exception as error:
        raise _unusable(name, "the model", error) from None
    missing = set(info["missing_keys"])
    trunk = {each for each in missing if each.startswith(f"{model.base_model_prefix}.") and ".pooler." not in each}
    if trunk:
        raise InputError(
            f"{name}: the weights are not those of its config.json ({len(trunk)} are missing, such as {min(trunk)}); "
            "give a complete checkpoint of one model."
        )
    return model, missing


def _unusable(name: str, part: str, error: Exception) -> InputError:
    fact = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if "trust_remote_code" in str(error):
        fact = "it needs code of its own, which is not run"
    return InputError(
        f"{name}: {part} cannot be loaded ({fact}); give a model folder or hub id that transformers knows."
    )


def _put_heads(model: PreTrainedModel, objectives: tuple[str, ...], missing: set[str], seed: int) -> None:
    """Give the model a head of one row an objective, with the rows that its checkpoint has for some of them."""
    labels = labels_of(model)
    old = head_of(model, len(labels))
    where = next(name for name, module in model.named_modules() if module is old)
    head = nn.Linear(old.in_features, len(objectives), bias=old.bias is not None)
    trained = f"{where}.weight" not in missing
    rows = {label: row for row, label in enumerate(labels)} if trained else {}
    with torch.no_grad():
        if head.bias is not None:
            head.bias.zero_()
        for place, objective in enumerate(objectives):
            if objective in rows:
                head.weight[place] = old.weight[rows[objective]]
                if head.bias is not None and old.bias is not None:
                    head.bias[place] = old.bias[rows[objective]]
            else:
                # Small: no head says much before it is trained, and a row depends on no other objective.
                draw = torch.Generator().manual_seed(_number(seed, objective))
                head.weight[place] = torch.randn(old.in_features, generator=draw) / (old.in_features + 1)
    parent, _, last = where.rpartition(".")
    setattr(model.get_submodule(parent), last, head.to(old.weight.dtype))
    model.config.id2label = dict(enumerate(objectives))
    model.config.label2id = {objective: place for place, objective in enumerate(objectives)}
    for module in model.modules():
        if "num_labels" in vars(module):
            vars(module)["num_labels"] = len(objectives)


def _number(seed: int, objective: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {objective}".encode()).digest()[:4], "big")


def _length(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_length: int | None) -> int:
    """Most tokens of a conversation."""
    limits = [getattr(model.config.get_text_config(), "max_position_embeddings", None), tokenizer.model_max_length]
    for where, module in model.named_modules():
        # RoBERTa and its kin count positions from after the pad's.
        if (
            where.endswith("position_embeddings")
            and isinstance(module, nn.Embedding)
            and module.padding_idx is not None
        ):
            limits.append(module.num_embeddings - module.padding_idx - 1)
    known = [int(limit) for limit in limits if isinstance(limit, int | float) and 0 < limit < 10**9]
    most = min(known, default=10**9)
    if max_length is None:
        return min(most, DEFAULT_LENGTH)
    if not _SHORTEST <= max_length <= most:
        raise InputError(
            f"--max-length {max_length}: {name} takes conversations of {_SHORTEST} to {most:,} tokens; choose a "
            "length between the two."
        )
    return max_length


def _try_one_pass(model: PreTrainedModel, device: torch.device, attention: Attention) -> bool:
    """Take the fastest attention that gives the same features in one pass as in two."""
    if attention == "flex_attention" or (attention == "auto" and device.type == "cuda"):
        before = model.config._attn_implementation
        try:
            model.set_attn_implementation("flex_attention")
        # Not every architecture takes it.
        except (ValueError, ImportError):
            pass
        else:
            if supports_one_pass(model):
                return True
            model.set_attn_implementation(before)
    return supports_one_pass(model)


def _check_pooling(name: str, model: PreTrainedModel, pad_id: int) -> None:
    most = min(40, model.config.get_text_config().vocab_size)
    words = [word for word in range(2, most) if word != pad_id]
    conversations = [words, words[: len(words) // 2]]
    fault = pooling_fault(model, head_of(model, len(labels_of(model))), conversations, pad_id)
    if fault:
        raise InputError(f"{name}: {type(model).__name__} {fault}, so it can carry no reward heads; choose another.")


def last_features(backbone: Backbone, conversations: Sequence[Sequence[int]]) -> torch.Tensor:
    """Features of whole conversations in one padded batch, (conversations, H): the plain way, for any architecture."""
    return plain_features(backbone.model, backbone.head, conversations, backbone.pad_id)


def two_pass_features(backbone: Backbone, pairs: Sequence[EncodedPair]) -> torch.Tensor:
    """Features of pairs with every conversation computed whole, (pairs, 2, H); gradients flow."""
    conversations = [ids for pair in pairs for ids in pair.conversations]
    features = last_features(backbone, conversations)
    return features.view(len(pairs), 2, features.shape[-1])


def features_of_pairs(backbone: Backbone, pairs: Sequence[EncodedPair]) -> torch.Tensor:
    """Features of one batch of pairs, (pairs, 2, H), in one pass where the architecture allows it; gradients flow."""
    if not backbone.one_pass:
        return two_pass_features(backbone, pairs)
    return pair_features(backbone.model, make_batch(pairs, backbone.pad_id).to(backbone.device))
