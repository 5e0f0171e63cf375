"""Where bfloat16 beats float32 on this CPU: prefill and decoding of a Llama with random weights, by size.

    python -m benchmarks.cpu_dtype

The transformers engine takes bfloat16 on a CPU that computes in it from `_BF16_CPU_PARAMETERS` on.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from benchmarks.common import keep, print_table

SIZES = ((128, 4), (256, 6), (384, 8), (512, 8), (768, 12))


def seconds(model: Any, prompts: torch.Tensor) -> tuple[float, float]:
    """Seconds to read 8 prompts of 384 tokens, and to write 16 tokens after each; best of three."""
    settings = GenerationConfig(max_new_tokens=16, min_new_tokens=16, do_sample=False, pad_token_id=0)  # type: ignore[no-untyped-call]
    mask = torch.ones_like(prompts)
    reads, writes = [], []
    with torch.inference_mode():
        for _ in range(3):
            start = time.perf_counter()
            model(input_ids=prompts, attention_mask=mask, logits_to_keep=1)
            reads.append(time.perf_counter() - start)
            start = time.perf_counter()
            model.generate(input_ids=prompts[:, :64], attention_mask=mask[:, :64], generation_config=settings)
            writes.append(time.perf_counter() - start)
    return min(reads), min(writes)


def main() -> None:
    """Print the table."""
    torch.manual_seed(0)
    rows, figures = [], {}
    for hidden, layers in SIZES:
        heads = hidden // 64
        config = LlamaConfig(
            vocab_size=8192,
            hidden_size=hidden,
            intermediate_size=4 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            eos_token_id=None,
            bos_token_id=None,
        )
        model: Any = LlamaForCausalLM(config).eval()  # type: ignore[no-untyped-call]
        prompts = torch.randint(1, 8192, (8, 384))
        plain = seconds(model, prompts)
        half = seconds(model.to(torch.bfloat16), prompts)
        size = f"{model.num_parameters() / 1e6:.0f}M"
        ratios = [slow / fast for slow, fast in zip(plain, half, strict=True)]
        rows.append((size, *(f"{ratio:.2f}" for ratio in ratios)))
        figures[size] = {"prefill": round(ratios[0], 3), "decode": round(ratios[1], 3)}
    print_table(("parameters", "bf16 is faster by, prefill", "decoding"), rows)
    keep("cpu_dtype", figures)


if __name__ == "__main__":
    main()
