"""A Qwen3 of a given size: its configuration, and a tokenizer that has learned from the pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from transformers import AutoTokenizer, Qwen3Config

from benchmarks.common import real_pairs
from examples.tiny_judge import make_tiny_judge


class Size(NamedTuple):
    """How large a model is."""

    width: int
    inner: int
    layers: int
    heads: int
    key_heads: int
    head_width: int
    vocabulary: int


def make_qwen3(folder: Path, size: Size, length: int, **options: Any) -> Qwen3Config:
    """Write tokenizer and configuration, without weights; `options` are of the configuration."""
    texts = [row[side] for row in real_pairs() for side in ("response_a", "response_b")]
    make_tiny_judge(folder, texts, vocabulary=8192, context=length)
    (folder / "model.safetensors").unlink()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = Qwen3Config(
        vocab_size=max(size.vocabulary, len(tokenizer)),
        hidden_size=size.width,
        intermediate_size=size.inner,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.key_heads,
        head_dim=size.head_width,
        max_position_embeddings=length,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        **options,
    )
    config.save_pretrained(folder)
    return config
