"""Checkpoints of heads with random weights: they are saved, loaded and served as trained ones, and mean nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from examples.tiny_judge import make_tiny_judge
from rlaif.rewards.heads import save_heads
from rlaif.rewards.model import Backbone, load_backbone
from rlaif.rewards.spec import Aggregation, Calibration, HeadsSpec, Normalization
from rlaif.types import Message

OBJECTIVES = ("helpfulness", "harmlessness", "honesty")
PROMPTS = ("How do tides work?", "Name a river.", "Write two lines on rain, for a child of four.")
RESPONSES = (
    "The moon pulls the water of the sea towards it.",
    "Rain",
    "I do not know. " * 12,
    "The Danube, which runs through ten countries and four capitals.",
)


def make_model(folder: Path, architecture: str) -> str:
    """Write a small model of an architecture with random weights; its name for `load_backbone`."""
    if architecture == "starter":
        return "starter"
    make_tiny_judge(folder, [*PROMPTS, *RESPONSES])
    if architecture == "llama":
        return str(folder)
    vocabulary = len(AutoTokenizer.from_pretrained(folder))
    shape: dict[str, Any] = {"vocab_size": vocabulary, "hidden_size": 64, "num_hidden_layers": 2}
    shape |= {"num_attention_heads": 4, "intermediate_size": 96, "max_position_embeddings": 512, "pad_token_id": 0}
    torch.manual_seed(1)
    model: PreTrainedModel
    if architecture == "qwen3":
        config = Qwen3Config(**shape, num_key_value_heads=2, head_dim=16, tie_word_embeddings=False)
        model = Qwen3ForCausalLM(config)  # type: ignore[no-untyped-call]
    else:
        # An encoder knows nothing of chats.
        model = BertForSequenceClassification(  # type: ignore[no-untyped-call]
            BertConfig(**shape, initializer_range=0.1)
        )
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.chat_template = None
        (folder / "chat_template.jinja").unlink(missing_ok=True)
        tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return str(folder)


def make_backbone(folder: Path, architecture: str = "llama", objectives: tuple[str, ...] = OBJECTIVES) -> Backbone:
    """Load a small model with a head of random weights that tells conversations apart."""
    backbone = load_backbone(
        make_model(folder, architecture),
        objectives,
        max_length=256,
        device=torch.device("cpu"),
        dtype=torch.float32,
        seed=0,
    )
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        backbone.head.weight.copy_(torch.randn(backbone.head.weight.shape, generator=generator) / 4)
        if backbone.head.bias is not None:
            backbone.head.bias.copy_(torch.randn(backbone.head.bias.shape, generator=generator))
    return backbone


def make_spec(objectives: tuple[str, ...] = OBJECTIVES, *, members: int = 1, **rule: Any) -> HeadsSpec:
    """A spec whose numbers differ by objective: mean 0.1, 0.2 …, standard deviation 1, 1.5 …, weights 1 : 2 …."""
    total = sum(range(1, len(objectives) + 1))
    weights: Mapping[str, float] = {name: place / total for place, name in enumerate(objectives, start=1)}
    return HeadsSpec(
        objectives=objectives,
        mode="frozen",
        members=members,
        max_length=256,
        chat=True,
        calibration={name: Calibration(temperature=0.5 + place) for place, name in enumerate(objectives)},
        normalization={
            name: Normalization(mean=(place + 1) / 10, std=1 + place / 2) for place, name in enumerate(objectives)
        },
        aggregation=Aggregation(**{"weights": weights, "origin": "given", **rule}),
    )


def make_members(hidden: int, count: int = 5, objectives: int = len(OBJECTIVES)) -> torch.Tensor:
    """Members of an ensemble, (objectives, members, hidden)."""
    return torch.randn(objectives, count, hidden, generator=torch.Generator().manual_seed(3)) / 4


def make_heads(folder: Path, architecture: str = "llama", *, members: int = 1, **rule: Any) -> Path:
    """Save heads of three objectives."""
    backbone = make_backbone(folder / "backbone", architecture)
    given = make_members(backbone.hidden, members) if members > 1 else None
    save_heads(folder / "heads", backbone, given, make_spec(members=members, **rule))
    return folder / "heads"


def conversations() -> tuple[list[tuple[Message, ...]], list[str]]:
    """Every prompt with every response, as `RewardHeads.score` takes them."""
    prompts: list[tuple[Message, ...]] = [
        (Message(role="user", content=prompt),) for prompt in PROMPTS for _ in RESPONSES
    ]
    return prompts, [response for _ in PROMPTS for response in RESPONSES]


def plain_logits(folder: Path, batches_of: int = 4) -> torch.Tensor:
    """Logits of all conversations by transformers alone, in padded batches, (conversations, labels)."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    found = []
    texts = plain_texts(tokenizer)
    for start in range(0, len(texts), batches_of):
        # Without a chat template the special tokens are the tokenizer's own to add.
        batch = tokenizer(
            texts[start : start + batches_of],
            padding=True,
            return_tensors="pt",
            add_special_tokens=tokenizer.chat_template is None,
        )
        with torch.inference_mode():
            found.append(model(**batch).logits)
    return torch.cat(found)


def plain_texts(tokenizer: Any) -> list[str]:
    """The conversations as texts, through the tokenizer's chat template where it has one."""
    prompts, responses = conversations()
    if tokenizer.chat_template is None:
        return [f"Human: {p[0].content}\n\nAssistant: {r}" for p, r in zip(prompts, responses, strict=True)]
    return [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": p[0].content}, {"role": "assistant", "content": r}], tokenize=False
        )
        for p, r in zip(prompts, responses, strict=True)
    ]
