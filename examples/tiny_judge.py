"""Make a tiny chat model with random weights, to try rlaif's machinery where there is no real judge.

It runs in every engine (transformers, vLLM, vLLM's server) and answers in gibberish: its labels mean nothing.

    python examples/tiny_judge.py demo/judge
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
SENTENCES = (
    "Response A does what the person asked, and response B does not.",
    "Both responses are polite; the second one is more careful with its claims.",
    "The question is which response helps more and does less harm. Verdict: A. Verdict: B.",
    "Prefer the response that states nothing false or made up, and says so when it does not know.",
)


def make_tiny_judge(
    folder: Path,
    texts: Iterable[str] = SENTENCES,
    *,
    hidden: int = 128,
    layers: int = 2,
    vocabulary: int = 1024,
    context: int = 8192,
    chat_template: str = CHAT_TEMPLATE,
    seed: int = 0,
) -> Path:
    """Write a Llama with random weights, its tokenizer trained on `texts`, to `folder`.

    Args:
        hidden: width; a multiple of 64, the head size that vLLM's CPU attention takes.
        context: most tokens it takes.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from transformers import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*SENTENCES, *texts], trainer)
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        model_max_length=context,
    )
    fast.chat_template = chat_template
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=len(fast),
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=hidden // 64,
            num_key_value_heads=hidden // 64,
            head_dim=64,
            max_position_embeddings=context,
            # Wide enough that the choices differ visibly from one pair to the next.
            initializer_range=0.1,
            tie_word_embeddings=True,
            eos_token_id=fast.eos_token_id,
            pad_token_id=fast.pad_token_id,
            bos_token_id=None,
        )
        model = LlamaForCausalLM(config)  # type: ignore[no-untyped-call]
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    print(make_tiny_judge(Path(sys.argv[1] if len(sys.argv) > 1 else "tiny-judge")))
