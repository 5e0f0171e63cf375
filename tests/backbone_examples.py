"""Tokenizers as families of models have them, and models with random weights on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModel, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers import logging as transformers_logging

from examples.tiny_judge import CHAT_TEMPLATE
from rlaif.rewards.model import Backbone, load_backbone
from rlaif.rewards.tokens import EncodedPair
from rlaif.types import Message, Pair

OBJECTIVES = ("helpfulness", "harmlessness", "honesty")
LLAMA3_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n{{ message['content'] | trim }}<|eot_id|>"
    "{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
LLAMA3_SPECIAL = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
ROOMY = ("<|reserved_special_token_0|>", "<|finetune_right_pad_id|>")
TEXTS = (
    "How do tides work? The moon pulls the water of the sea towards it.",
    "Name a river. The Danube, which runs through ten countries and four capitals.",
    "I do not know, and I will not guess.",
)
TURNS = (
    Message(role="user", content="How do tides work?"),
    Message(role="assistant", content="The moon pulls the water."),
    Message(role="user", content="And the sun?"),
)


def byte_level(specials: Sequence[str], **names: Any) -> PreTrainedTokenizerFast:
    """A byte-level BPE, as GPT-2's, Llama 3's and Qwen's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=360,
        special_tokens=list(specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    named = set(names.values())
    others = [token for token in specials if token not in named]
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, additional_special_tokens=others, model_max_length=512, **names
    )


def gpt2_like() -> PreTrainedTokenizerFast:
    """One special token for everything, and no template."""
    end = "<|endoftext|>"
    return byte_level([end], bos_token=end, eos_token=end, unk_token=end)


def llama3_like(*more: str) -> PreTrainedTokenizerFast:
    """A template, a BOS, no pad token, and an end of turn that is not the end token."""
    made = byte_level([*LLAMA3_SPECIAL, *more], bos_token="<|begin_of_text|>", eos_token="<|end_of_text|>")
    made.chat_template = LLAMA3_TEMPLATE
    return made


def chatml_like(**names: Any) -> PreTrainedTokenizerFast:
    """Qwen's format; a turn ends with a line end after its special token."""
    made = byte_level(("<|endoftext|>", "<|im_start|>", "<|im_end|>"), eos_token="<|im_end|>", **names)
    made.chat_template = CHAT_TEMPLATE
    return made


def llama2_like() -> PreTrainedTokenizerFast:
    """A vocabulary of pieces in which no character is unknown, since bytes are in it, and no pad token."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    pieces += sorted({letter for text in TEXTS for letter in text if letter != " "})
    tokenizer = Tokenizer(
        models.BPE(
            vocab={piece: place for place, piece in enumerate(pieces)}, merges=[], unk_token="<unk>", byte_fallback=True
        )
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def bert_like() -> PreTrainedTokenizerFast:
    """Word pieces between [CLS] and [SEP]."""
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=specials, show_progress=False)
    tokenizer.train_from_iterator(["human: assistant:", *TEXTS], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def word_level(end: str | None = "</s>") -> PreTrainedTokenizerFast:
    """Whole words; all others are unknown, at the end of a text too."""
    words = ["<unk>", "</s>", "Human", "Assistant", ":", "?", "Hello", "Yes", "."]
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token=end
    )


SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    # Wide enough that every token matters.
    "initializer_range": 0.2,
}


def save_model(
    folder: Path, kind: type[PretrainedConfig], tokenizer: PreTrainedTokenizerFast, *, spare: int = 0, **shape: Any
) -> Path:
    """Write a model with random weights and its tokenizer.

    `spare` is how many rows its embeddings have beyond the vocabulary.
    """
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    config = kind(**{**SHAPE, "vocab_size": len(tokenizer) + spare, "pad_token_id": None, **shape})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model: PreTrainedModel = AutoModel.from_config(config)  # type: ignore[no-untyped-call]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def load(folder: Path | str, objectives: Sequence[str] = OBJECTIVES, **options: Any) -> Backbone:
    """Load a backbone on the CPU in float32."""
    wanted: dict[str, Any] = {"max_length": None, "device": torch.device("cpu"), "dtype": torch.float32, "seed": 0}
    return load_backbone(str(folder), objectives, **{**wanted, **options})


def random_pairs(count: int, words: int = 60, seed: int = 0) -> list[EncodedPair]:
    """Pairs of random tokens from 5 on; a prompt has 1 to 40 and a response 1 to 20."""
    draw = torch.Generator().manual_seed(seed)

    def some(most: int) -> list[int]:
        length = int(torch.randint(1, most + 1, (1,), generator=draw))
        return torch.randint(5, words, (length,), generator=draw).tolist()

    return [EncodedPair(some(40), some(20), some(20)) for _ in range(count)]


def make_pair(a: str, b: str, prompt: Sequence[Message] = TURNS) -> Pair:
    """A pair of responses to a conversation."""
    return Pair(id="one", prompt=tuple(prompt), response_a=a, response_b=b)
