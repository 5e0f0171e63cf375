"""What requests share is read once, and changes no probability: against plain forward passes, row by row."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from rlaif.engines.kv_cache import Rows, _of_like_length, _shared_prefixes

SIZES: dict[str, Any] = {
    "vocab_size": 90, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 512,
    "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
PAD = 0


def model(kind: str) -> Any:
    torch.manual_seed(3)
    if kind == "llama":
        made: Any = LlamaForCausalLM(LlamaConfig(**SIZES))  # type: ignore[no-untyped-call]
    else:
        made = MistralForCausalLM(MistralConfig(**SIZES, sliding_window=16))  # type: ignore[no-untyped-call]
    # Random weights of the usual size say nearly the same of every text.
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(6)
    return made.eval()


def plain(made: Any, row: list[int]) -> torch.Tensor:
    """Log-probabilities of the next token, (vocabulary,), with no padding and no cache."""
    with torch.inference_mode():
        logits: torch.Tensor = made(input_ids=torch.tensor([row]), use_cache=False).logits[0, -1].float()
    return logits.log_softmax(-1)


def random_rows(seed: int) -> list[list[int]]:
    """Three beginnings, each with rests of several lengths, and rows that share nothing; in mixed order."""
    rng = random.Random(seed)

    def tokens(count: int) -> list[int]:
        return [rng.randrange(1, 90) for _ in range(count)]

    begins = [tokens(40), tokens(25), tokens(60)]
    rows = [begin + tokens(rng.randint(1, 12)) for begin in begins for _ in range(3)]
    rows += [tokens(count) for count in (2, 7, 50)]
    rng.shuffle(rows)
    return rows


def check(rows: Rows, made: Any, texts: list[list[int]]) -> None:
    found = rows.next_logprobs()
    assert found.shape == (len(texts), SIZES["vocab_size"])
    for n, text in enumerate(texts):
        assert torch.allclose(found[n], plain(made, text), atol=2e-3), n


@pytest.mark.parametrize("kind", ["llama", "mistral"])
@pytest.mark.parametrize("seed", [1, 2])
def test_shared_beginnings_change_no_probability(kind: str, seed: int) -> None:
    made = model(kind)
    texts = random_rows(seed)
    rows = Rows(made, texts, PAD)
    assert (rows.cache is not None) == (kind == "llama"), "a sliding window keeps no whole beginning"
    check(rows, made, texts)


@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_rows_go_on_after_their_answers(kind: str) -> None:
    """As the engine does: `generate` goes on from the rows, then other texts do, of several lengths."""
    made = model(kind)
    texts = random_rows(4)
    rows = Rows(made, texts, PAD)
    cached = {} if rows.cache is None else {"past_key_values": rows.cache}
    settings = GenerationConfig(do_sample=False, max_new_tokens=9, pad_token_id=PAD)  # type: ignore[no-untyped-call]
    output = made.generate(input_ids=rows.ids, attention_mask=rows.mask, generation_config=settings, **cached)
    for text, written in zip(texts, output[:, rows.ids.shape[1] :].tolist(), strict=True):
        greedy = list(text)
        for _ in range(9):
            greedy.append(int(plain(made, greedy).argmax()))
        assert written == greedy[len(text) :]
    rows.wrote(output)
    # Some of what was written, then something else; nothing of it; all of it; nothing more at all.
    written = output[:, rows.ids.shape[1] :].tolist()
    longer = [[*text, *written[n][: n % 12], *range(5, 5 + n % 7)] for n, text in enumerate(texts)]
    check(rows.resume(longer), made, longer)


def test_what_was_written_is_not_read_again() -> None:
    made = model("llama")
    texts = random_rows(6)
    rows = Rows(made, texts, PAD)
    settings = GenerationConfig(do_sample=False, max_new_tokens=6, pad_token_id=PAD)  # type: ignore[no-untyped-call]
    cached = {"past_key_values": rows.cache}
    output = made.generate(input_ids=rows.ids, attention_mask=rows.mask, generation_config=settings, **cached)
    rows.wrote(output)
    width = output.shape[1]
    longer = [[*text, *new, 7] for text, new in zip(texts, output[:, rows.ids.shape[1] :].tolist(), strict=True)]
    resumed = rows.resume(longer)
    # The last token that was written was never put in, and then the new one.
    assert resumed.ids.shape[1] == width + 1
    check(resumed, made, longer)


def test_rows_of_unlike_lengths_are_padded_apart() -> None:
    """1000 alone is short of 1,024 tokens, so 900 joins it; of 700, 100 and 10 the last is not worth two of 700."""
    assert _of_like_length([10, 1000, 900, 700, 100]) == [[1, 2], [3, 4], [0]]
    assert _of_like_length([5]) == [[0]]


@pytest.mark.parametrize("seed", [7, 8])
def test_beginnings_read_apart_change_no_probability(seed: int) -> None:
    made = model("llama")
    rng = random.Random(seed)
    begins = [[rng.randrange(1, 90) for _ in range(count)] for count in (400, 390, 380, 120, 40, 3)]
    texts = [[*begin, *(rng.randrange(1, 90) for _ in range(rest))] for begin in begins for rest in (1, 4)]
    rng.shuffle(texts)
    check(Rows(made, texts, PAD), made, texts)


def test_rows_that_do_not_begin_alike_are_read_anew() -> None:
    made = model("llama")
    texts = random_rows(5)
    rows = Rows(made, texts, PAD)
    rows.next_logprobs()
    other = [[1, *text] for text in texts]
    check(rows.resume(other), made, other)


def test_a_row_of_one_token() -> None:
    made = model("llama")
    check(Rows(made, [[5], [5, 6, 7]], PAD), made, [[5], [5, 6, 7]])


@pytest.mark.parametrize(
    ("rows", "prefixes", "of"),
    [
        ([[1, 2, 3, 4], [1, 2, 3, 5]], [[1, 2, 3]], [0, 0]),
        # Equal rows: the last token is left to each.
        ([[1, 2, 3], [1, 2, 3]], [[1, 2]], [0, 0]),
        # One token in common is not worth what both would read again.
        ([[1, 2, 3, 4, 5], [1, 7, 8, 9]], [[1, 2, 3, 4], [1, 7, 8]], [0, 1]),
        # In any order; what is shared is shared by neighbours once sorted.
        ([[9, 9, 1], [1, 1, 2], [9, 9, 2], [1, 1, 3]], [[1, 1], [9, 9]], [1, 0, 1, 0]),
    ],
)
def test_which_beginnings_are_shared(rows: list[list[int]], prefixes: list[list[int]], of: list[int]) -> None:
    assert _shared_prefixes(rows) == (prefixes, of)
