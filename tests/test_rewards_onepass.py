"""One pass over `[prompt | a | b]` gives what separate passes give: features and gradients, for several decoders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention
from transformers import (
    BertConfig,
    BloomConfig,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
)

from rlaif.rewards.model import Backbone, features_of_pairs, last_features, two_pass_features
from rlaif.rewards.onepass import (
    block_mask,
    dense_mask,
    make_batch,
    packed,
    pair_features,
    supports_one_pass,
    trunk_of,
)
from rlaif.rewards.plainpass import CPU_TOKENS
from rlaif.rewards.tokens import EncodedPair
from tests.backbone_examples import SHAPE, bert_like, chatml_like, load, random_pairs, save_model

GROUPED: dict[str, Any] = {"num_key_value_heads": 2}
# A window of 6 tokens is far shorter than the conversations: what it hides matters.
WINDOW: dict[str, Any] = {**GROUPED, "sliding_window": 6}
MIXED = ["sliding_attention", "full_attention"]
DECODERS: dict[str, tuple[type[PretrainedConfig], dict[str, Any]]] = {
    "llama": (LlamaConfig, {}),
    "llama, grouped queries": (LlamaConfig, GROUPED),
    "qwen3": (Qwen3Config, {**GROUPED, "head_dim": 16}),
    "gpt-2": (GPT2Config, {}),
    "mistral with a window": (MistralConfig, WINDOW),
    "qwen2 with windows in some layers": (Qwen2Config, {**WINDOW, "use_sliding_window": True, "layer_types": MIXED}),
    "gemma2 with windows in some layers": (Gemma2Config, {**WINDOW, "head_dim": 8, "layer_types": MIXED}),
    "qwen3 with experts": (
        Qwen3MoeConfig,
        {**GROUPED, "head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    ),
}
# Flex attention takes heads of 16 and more.
FLEX = {"flex": (LlamaConfig, {**GROUPED, "head_dim": 16})}
SEPARATE: dict[str, tuple[type[PretrainedConfig], dict[str, Any]]] = {
    # BERT sees both ways, and Bloom counts distances along the row.
    "bert": (BertConfig, {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}),
    "bloom": (BloomConfig, {"n_head": 4}),
}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Backbone]:
    """Load a model by its name here, or the starter; each is made once."""
    loaded: dict[str, Backbone] = {}

    def make(name: str) -> Backbone:
        if name not in loaded:
            if name == "starter":
                loaded[name] = load("starter")
            else:
                kind, shape = (DECODERS | SEPARATE | FLEX)[name]
                tokenizer = bert_like() if kind is BertConfig else chatml_like(pad_token="<|endoftext|>")
                loaded[name] = load(save_model(tmp_path_factory.mktemp("model"), kind, tokenizer, **shape))
        return loaded[name]

    return make


def apart(backbone: Backbone, pairs: list[EncodedPair]) -> torch.Tensor:
    """Features of every conversation in a pass of its own: nothing shared, nothing padded."""
    alone = [last_features(backbone, [ids]) for pair in pairs for ids in pair.conversations]
    return torch.cat(alone).view(len(pairs), 2, -1)


def far(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference, beside the size of what is compared."""
    return float((one - other).abs().max() / other.abs().mean().clamp(min=1.0))


@pytest.mark.parametrize("name", ["starter", *DECODERS])
def test_one_pass_gives_what_separate_passes_give(name: str, backbone: Callable[[str], Backbone]) -> None:
    model = backbone(name)
    # Two conversations may share nothing.
    pairs = [*random_pairs(5), EncodedPair([], [5, 6, 7], [8])]
    assert model.one_pass
    with torch.inference_mode():
        expected = apart(model, pairs)
        # Padded to the longest, alone without a pad, and both conversations whole in one batch.
        assert far(features_of_pairs(model, pairs), expected) < 1e-4
        for place, pair in enumerate(pairs):
            assert far(features_of_pairs(model, [pair])[0], expected[place]) < 1e-4
        assert far(two_pass_features(model, pairs), expected) < 1e-4
        # Responses do not see each other, and see their prompt.
        swapped = [EncodedPair(pair.prefix, pair.b, pair.a) for pair in pairs]
        assert far(features_of_pairs(model, swapped), expected.flip(1)) < 1e-4
        other = [EncodedPair([3, *pair.prefix[1:]], pair.a, pair.b) for pair in pairs[:5]]
        if "window" not in name:
            assert far(features_of_pairs(model, other), expected[:5]) > 1e-2


@pytest.mark.parametrize("name", ["starter", "llama, grouped queries", "qwen3", "gpt-2", "mistral with a window"])
def test_gradients_are_those_of_separate_passes(name: str, backbone: Callable[[str], Backbone]) -> None:
    model = backbone(name)
    pairs = random_pairs(4, seed=1)
    probe = torch.randn(len(pairs), 2, model.hidden, generator=torch.Generator().manual_seed(0))

    def gradients(features: Callable[[Backbone, list[EncodedPair]], torch.Tensor]) -> list[torch.Tensor]:
        parameters = [each for each in trunk_of(model.model).parameters() if each.requires_grad]
        return list(torch.autograd.grad((features(model, pairs) * probe).sum(), parameters, allow_unused=True))

    once, twice = gradients(features_of_pairs), gradients(apart)
    assert len(once) > 10
    for one, other in zip(once, twice, strict=True):
        assert (one - other).norm() <= 1e-4 * other.norm()
    assert sum(float(each.norm()) for each in once) > 0


@pytest.mark.parametrize("name", SEPARATE)
def test_an_architecture_without_one_pass_is_found_out_and_takes_two(
    name: str, backbone: Callable[[str], Backbone]
) -> None:
    model = backbone(name)
    pairs = random_pairs(5)
    assert not model.one_pass
    with torch.inference_mode():
        assert far(features_of_pairs(model, pairs), apart(model, pairs)) < 1e-4


def test_a_mask_that_the_model_does_not_heed_is_found_out(tmp_path: Path) -> None:
    model = load(save_model(tmp_path / "model", LlamaConfig, chatml_like(), **GROUPED)).model
    assert supports_one_pass(model)
    # Its layers no longer see the mask, as with an attention of their own.
    for layer in model.get_submodule("model.layers").children():
        layer.register_forward_pre_hook(
            lambda _, args, given: (args, {**given, "attention_mask": None}), with_kwargs=True
        )
    assert not supports_one_pass(model)


def test_a_large_batch_is_computed_in_parts_and_keeps_its_order(backbone: Callable[[str], Backbone]) -> None:
    model = backbone("llama, grouped queries")
    pairs = random_pairs(60, seed=2)
    batch = make_batch(pairs, model.pad_id)
    assert batch.ids.numel() > 3 * CPU_TOKENS
    with torch.inference_mode():
        expected = apart(model, pairs)
        assert far(pair_features(model.model, batch), expected) < 1e-4
        assert far(two_pass_features(model, pairs), expected) < 1e-4


def test_eager_attention_gives_the_same(backbone: Callable[[str], Backbone]) -> None:
    model = backbone("llama, grouped queries")
    batch = make_batch(random_pairs(3), model.pad_id)
    with torch.inference_mode():
        expected = pair_features(model.model, batch)
        model.model.set_attn_implementation("eager")
        try:
            assert far(pair_features(model.model, batch), expected) < 1e-4
        finally:
            model.model.set_attn_implementation("sdpa")


def test_adapters_are_computed_too(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    model = load(save_model(tmp_path / "model", LlamaConfig, chatml_like(), **GROUPED))
    pairs = random_pairs(3)
    with torch.inference_mode():
        before = features_of_pairs(model, pairs)
    adapted = peft.get_peft_model(model.model, peft.LoraConfig(target_modules=["q_proj", "down_proj"]))
    with torch.inference_mode():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.05)
        after = pair_features(adapted, make_batch(pairs, model.pad_id))
        assert far(after, before) > 1e-2
        assert far(after, apart(model, pairs)) < 1e-4


def test_a_batch_is_laid_out_by_hand() -> None:
    batch = make_batch([EncodedPair([10, 11], [20], [30, 31]), EncodedPair([12], [21], [32])], pad_id=0)
    assert batch.ids.tolist() == [[10, 11, 20, 30, 31], [12, 21, 32, 0, 0]]
    assert batch.positions.tolist() == [[0, 1, 2, 2, 3], [0, 1, 1, 0, 0]]
    assert batch.segments.tolist() == [[0, 0, 1, 2, 2], [3, 4, 5, -1, -1]]
    assert batch.last.tolist() == [[2, 4], [6, 7]]
    mask = dense_mask(batch)[:, 0].int().tolist()
    assert mask[0] == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 0, 1, 0], [1, 1, 0, 1, 1]]
    assert mask[1][:3] == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 0, 1, 0, 0]]
    # A pad sees itself, since attention to nothing is nan.
    assert all(mask[1][row][row] == 1 and not any(mask[1][row][:3]) for row in (3, 4))
    # Two tokens back, itself included: by position, not by place in the row.
    assert dense_mask(batch, window=2)[0, 0].int().tolist()[3] == [0, 1, 0, 1, 0]


def test_packing_takes_the_pads_out() -> None:
    batch = packed(make_batch([EncodedPair([10, 11], [20], [30, 31]), EncodedPair([12], [21], [32])], pad_id=0))
    assert batch.ids.shape == (1, 256)
    assert batch.ids[0, :8].tolist() == [10, 11, 20, 30, 31, 12, 21, 32]
    assert batch.segments[0, :9].tolist() == [0, 0, 1, 2, 2, 3, 4, 5, -1]
    assert batch.last.tolist() == [[2, 4], [6, 7]]


def long_pairs() -> list[EncodedPair]:
    """Pairs with parts longer than a block of 128 tokens, and shorter ones: 2,390 tokens together."""
    sizes = ((300, 400, 150), (10, 5, 3), (1, 1, 1), (128, 128, 256), (90, 700, 200), (10, 4, 3))
    return [EncodedPair(*([7 + place] * size for size in part)) for place, part in enumerate(sizes)]


@pytest.mark.parametrize("window", [None, 50])
def test_the_block_mask_leaves_out_nothing_that_is_seen(window: int | None) -> None:
    batch = packed(make_batch(long_pairs(), pad_id=0))
    expected = dense_mask(batch, window)[0, 0]
    mask = block_mask(batch, window)
    size = len(expected)
    tiles = expected.view(size // 128, 128, size // 128, 128).transpose(1, 2)
    some, full = (
        blocks_of(counts, places)
        for counts, places in (
            (mask.kv_num_blocks, mask.kv_indices),
            (mask.full_kv_num_blocks, mask.full_kv_indices),
        )
    )
    assert not (some & full).any()
    # What is computed holds all that is seen, and what is taken whole is seen whole.
    assert ((some | full) >= tiles.any(dim=(2, 3))).all()
    assert (full <= tiles.all(dim=(2, 3))).all()
    if window is None:
        # Blocks are left out, and taken whole, wherever they can be.
        assert torch.equal(some | full, tiles.any(dim=(2, 3)))
        assert torch.equal(full, tiles.all(dim=(2, 3)))
    places = torch.arange(size)
    sees = mask.mask_mod(torch.tensor(0), torch.tensor(0), places[:, None], places[None, :])
    real = batch.segments[0] >= 0
    assert torch.equal(sees[real], expected[real])


def blocks_of(counts: torch.Tensor | None, places: torch.Tensor | None) -> torch.Tensor:
    """A table of blocks from the lists that a block mask holds."""
    assert counts is not None
    assert places is not None
    table = torch.zeros(places.shape[-2:], dtype=torch.bool)
    for row, count in enumerate(counts[0, 0].tolist()):
        table[row, places[0, 0, row, :count].long()] = True
    return table


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_gives_what_a_table_gives() -> None:
    batch = packed(make_batch(long_pairs()[1:4], pad_id=0))
    draw = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 2, batch.ids.shape[1], 16, generator=draw) for _ in range(3))
    flex = flex_attention(query, key, value, block_mask=block_mask(batch))
    table = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=dense_mask(batch))
    real = batch.segments[0] >= 0
    assert isinstance(flex, torch.Tensor)
    assert far(flex[:, :, real], table[:, :, real]) < 1e-5


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_a_model_with_flex_attention_gives_the_same(backbone: Callable[[str], Backbone]) -> None:
    model = backbone("flex")
    pairs = random_pairs(6)
    with torch.inference_mode():
        expected = apart(model, pairs)
        model.model.set_attn_implementation("flex_attention")
        try:
            # Compiling takes a minute, and changes no number.
            with torch.compiler.set_stance("force_eager"):
                found = features_of_pairs(model, pairs)
        finally:
            model.model.set_attn_implementation("sdpa")
    assert far(found, expected) < 1e-4


def test_shapes_here_are_small_enough_for_windows_to_hide_something() -> None:
    assert SHAPE["num_hidden_layers"] * 6 < max(len(pair.prefix) for pair in random_pairs(5))
