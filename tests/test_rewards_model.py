"""Loading a backbone: heads by name, the pad trap, digests, lengths, and what cannot be used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    DistilBertConfig,
    GPT2Config,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
    RobertaConfig,
    ViTConfig,
)

from rlaif.errors import InputError
from rlaif.rewards.model import Backbone, features_of_pairs, last_features
from tests.backbone_examples import (
    OBJECTIVES,
    SHAPE,
    TURNS,
    bert_like,
    chatml_like,
    gpt2_like,
    llama2_like,
    llama3_like,
    load,
    make_pair,
    save_model,
)

RESPONSES = ("Yes, half as much.", "No.", "The moon pulls the water of the sea towards it, and so does the sun.", "")


def widen(backbone: Backbone) -> None:
    """Give the head weights that tell conversations apart."""
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        backbone.head.weight.copy_(torch.randn(backbone.head.weight.shape, generator=draw))
        if backbone.head.bias is not None:
            backbone.head.bias.copy_(torch.randn(backbone.head.bias.shape, generator=draw))


def save(backbone: Backbone, folder: Path) -> Path:
    backbone.model.save_pretrained(folder)
    backbone.tokenizer.save_pretrained(folder)
    return folder


FAMILIES: dict[str, tuple[Callable[[], PreTrainedTokenizerFast], type[PretrainedConfig], dict[str, Any]]] = {
    "no pad, llama 3": (llama3_like, LlamaConfig, {"num_key_value_heads": 2}),
    "the pad ends each turn": (
        lambda: chatml_like(pad_token="<|im_end|>"),
        Qwen3Config,
        {"head_dim": 8, "num_key_value_heads": 2},
    ),
    "no pad, gpt-2": (gpt2_like, GPT2Config, {}),
    "no pad, llama 2": (llama2_like, LlamaConfig, {}),
    "no pad, a template that ends with the end token": (lambda: _ending(gpt2_like()), LlamaConfig, {}),
    "bert": (bert_like, BertConfig, {"pad_token_id": 0}),
}


def _ending(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    tokenizer.chat_template = "{% for turn in messages %}{{ turn['content'] }}{{ eos_token }}{% endfor %}"
    return tokenizer


@pytest.mark.parametrize("family", FAMILIES)
def test_plain_transformers_reads_the_same_scores_from_padded_batches(family: str, tmp_path: Path) -> None:
    make, kind, shape = FAMILIES[family]
    backbone = load(save_model(tmp_path / "base", kind, make(), **shape))
    widen(backbone)
    folder = save(backbone, tmp_path / "heads")
    pair = make_pair(RESPONSES[2], RESPONSES[1])
    with torch.inference_mode():
        ours = backbone.head(
            torch.cat([last_features(backbone, [backbone.encoder.conversation(TURNS, each)]) for each in RESPONSES])
        )
        both = backbone.head(features_of_pairs(backbone, [backbone.encoder.pair(pair)])[0])
    assert torch.allclose(both, ours[[2, 1]], atol=1e-4)

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [_whole(tokenizer, response) for response in RESPONSES]
    batch = tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=tokenizer.chat_template is None)
    assert int(batch["attention_mask"].sum(dim=1).min()) < batch["input_ids"].shape[1], "something is padded"
    with torch.inference_mode():
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    assert torch.allclose(logits, ours, atol=1e-4)
    assert float(ours.std(dim=0).min()) > 1e-2, "the scores differ, so equality says something"
    assert [model.config.id2label[place] for place in range(3)] == list(OBJECTIVES)


def _whole(tokenizer: Any, response: str) -> str:
    turns = [*TURNS, make_pair("", "").prompt[0].model_copy(update={"role": "assistant", "content": response})]
    if tokenizer.chat_template is not None:
        text = tokenizer.apply_chat_template([turn.model_dump() for turn in turns], tokenize=False)
        assert isinstance(text, str)
        return text
    names = {"user": "Human", "assistant": "Assistant"}
    return "\n\n".join(f"{names[turn.role]}: {turn.content}" for turn in turns)


def test_the_trap_is_there_with_a_pad_that_ends_a_turn(tmp_path: Path) -> None:
    # What the other test would see if nothing were done: a padded batch read one token early.
    tokenizer = _ending(gpt2_like())
    backbone = load(save_model(tmp_path / "base", LlamaConfig, tokenizer))
    widen(backbone)
    ids = torch.tensor([backbone.encoder.conversation(TURNS, "Yes.")])
    with torch.inference_mode():
        right = backbone.model(input_ids=ids).logits
        backbone.model.config.pad_token_id = tokenizer.eos_token_id
        wrong = backbone.model(input_ids=ids).logits
    assert not torch.allclose(right, wrong, atol=1e-2)


def test_embeddings_are_never_resized(tmp_path: Path) -> None:
    tokenizer = gpt2_like()
    backbone = load(save_model(tmp_path / "base", LlamaConfig, tokenizer, spare=3))
    assert backbone.model.get_input_embeddings().num_embeddings == len(tokenizer) + 3
    # A new token in a row that was to spare.
    assert backbone.pad_id == len(tokenizer)
    assert backbone.tokenizer.pad_token_id == backbone.pad_id


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal Llama's trunk with random weights."""
    return save_model(tmp_path_factory.mktemp("llama"), LlamaConfig, chatml_like())


def test_heads_begin_small_and_are_fixed_by_seed_and_name(llama: Path) -> None:
    first, again, other = load(llama), load(llama), load(llama, seed=1)
    assert first.objectives == OBJECTIVES
    assert first.head.weight.shape == (3, first.hidden) == (3, SHAPE["hidden_size"])
    assert torch.equal(first.head.weight, again.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)
    assert float(first.head.weight.detach().abs().max()) < 5 / SHAPE["hidden_size"]
    # A row is the same whatever other objectives there are.
    alone = load(llama, OBJECTIVES[1:2])
    assert torch.equal(alone.head.weight[0], first.head.weight[1])


def test_heads_of_the_same_name_are_taken_over(llama: Path, tmp_path: Path) -> None:
    old = load(llama)
    widen(old)
    folder = save(old, tmp_path / "heads")
    assert torch.equal(load(folder).head.weight, old.head.weight)
    new = load(folder, ("honesty", "style", "helpfulness", "tone"))
    assert torch.equal(new.head.weight[0], old.head.weight[2])
    assert torch.equal(new.head.weight[2], old.head.weight[0])
    fresh = load(llama, ("style", "tone"))
    assert torch.equal(new.head.weight[[1, 3]], fresh.head.weight)
    assert new.model.config.num_labels == new.model.num_labels == 4


def test_names_of_a_head_that_was_never_trained_mean_nothing(tmp_path: Path) -> None:
    labels = dict(enumerate(OBJECTIVES))
    folder = save_model(tmp_path / "base", LlamaConfig, chatml_like(), id2label=labels)
    plain = save_model(tmp_path / "plain", LlamaConfig, chatml_like())
    assert torch.equal(load(folder).head.weight, load(plain).head.weight)


def test_an_encoders_bias_is_taken_over_too(tmp_path: Path) -> None:
    shape: dict[str, Any] = {"pad_token_id": 0, "hidden_dropout_prob": 0.0}
    old = load(save_model(tmp_path / "base", BertConfig, bert_like(), **shape))
    assert old.head.bias is not None
    assert not old.head.bias.any()
    widen(old)
    new = load(save(old, tmp_path / "heads"), ("honesty", "style"))
    assert new.head.bias is not None
    assert new.head.bias.tolist() == [old.head.bias.tolist()[2], 0.0]


def test_what_a_checkpoint_lacks_is_drawn_the_same_each_time(tmp_path: Path) -> None:
    # The layer before the head is no part of the trunk.
    shape: dict[str, Any] = {"dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4, "pad_token_id": 0}
    folder = save_model(tmp_path / "base", DistilBertConfig, bert_like(), **shape)
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    first = load(folder)
    assert torch.equal(torch.random.get_rng_state(), before), "nobody else's draws are moved"
    torch.manual_seed(99)
    again = load(folder)
    assert first.digest == again.digest != load(folder, seed=1).digest
    assert isinstance(first.model.pre_classifier, nn.Linear)


def test_digest_follows_what_makes_the_features(llama: Path, tmp_path: Path) -> None:
    first = load(llama)
    digest = first.digest
    assert digest == load(llama, OBJECTIVES[:2], seed=7).digest, "heads and their names make no feature"
    assert digest != load(llama, dtype=torch.bfloat16).digest
    widen(first)
    assert digest == first.digest == load(save(first, tmp_path / "heads")).digest
    with torch.no_grad():
        first.model.get_parameter("model.layers.1.mlp.down_proj.weight")[3, 5] += 1e-3
    assert digest != first.digest


def test_length_is_the_models_up_to_2048_or_as_asked(tmp_path: Path, llama: Path) -> None:
    assert load(llama).encoder.max_length == 512
    assert load("starter").encoder.max_length == 2048
    assert load("starter", max_length=4096).encoder.max_length == 4096
    assert load(llama, max_length=8).encoder.max_length == 8
    for length in (7, 513, 0, -1):
        with pytest.raises(InputError, match=rf"--max-length {length}: .* conversations of 8 to 512 tokens"):
            load(llama, max_length=length)
    # It counts from the place after its pad's: two of its 66 positions are never a token's.
    roberta = save_model(
        tmp_path / "roberta", RobertaConfig, bert_like(), max_position_embeddings=66, pad_token_id=1, bos_token_id=0
    )
    tokenizer = bert_like()
    tokenizer.pad_token = "[UNK]"
    tokenizer.save_pretrained(roberta)
    model = load(roberta)
    assert model.encoder.max_length == 64
    with torch.inference_mode():
        assert last_features(model, [[5] * 64]).shape == (1, 32)


def test_half_precision_goes_through_in_one_pass(llama: Path) -> None:
    backbone = load(llama, dtype=torch.bfloat16)
    assert backbone.one_pass
    encoded = backbone.encoder.pair(make_pair(*RESPONSES[:2]))
    with torch.inference_mode():
        found = features_of_pairs(backbone, [encoded])[0].float()
        plain = last_features(backbone, encoded.conversations).float()
    assert found.dtype == torch.float32
    assert float((found - plain).norm() / plain.norm()) < 0.03


def no_folder(folder: Path) -> Path:
    return folder / "nothing"


def no_config(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def pictures(folder: Path) -> Path:
    ViTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2).save_pretrained(folder)
    return folder


def speaks_code(folder: Path) -> Path:
    config = {"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}, "architectures": ["Own"]}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "own.py").write_text("raise SystemExit('it ran')\n", encoding="utf-8")
    return folder


def broken_config(folder: Path) -> Path:
    (folder / "config.json").write_text("{", encoding="utf-8")
    return folder


def no_tokenizer(folder: Path) -> Path:
    save_model(folder, LlamaConfig, chatml_like())
    for file in folder.glob("*token*"):
        file.unlink()
    return folder


def no_weights(folder: Path) -> Path:
    save_model(folder, LlamaConfig, chatml_like())
    (folder / "model.safetensors").unlink()
    return folder


def cut_weights(folder: Path) -> Path:
    save_model(folder, LlamaConfig, chatml_like())
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    return folder


def other_weights(folder: Path) -> Path:
    save_model(folder, LlamaConfig, chatml_like())
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}), encoding="utf-8")
    return folder


def not_finite(folder: Path) -> Path:
    save_model(folder, LlamaConfig, chatml_like())
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        model.model.norm.weight[0] = float("inf")
    model.model.save_pretrained(folder)
    return folder


BROKEN: dict[Callable[[Path], Path], str] = {
    no_folder: "no such model folder",
    no_config: "no config.json",
    pictures: "no sequence classifier for models of type 'vit'",
    speaks_code: "it needs code of its own, which is not run",
    broken_config: "its configuration cannot be loaded",
    no_tokenizer: "its tokenizer cannot be loaded",
    no_weights: "the model cannot be loaded",
    cut_weights: "the model cannot be loaded",
    not_finite: "gives no finite scores in float32",
    other_weights: "the weights are not those of its config.json",
}


@pytest.mark.parametrize("make", BROKEN, ids=lambda make: str(make.__name__))
def test_what_cannot_be_used_is_one_clear_line(make: Callable[[Path], Path], tmp_path: Path) -> None:
    folder = make(tmp_path)
    with pytest.raises(InputError) as caught:
        load(folder)
    text = str(caught.value)
    assert text.startswith(f"{folder}: ")
    assert BROKEN[make] in text
    assert "\n" not in text
    assert "; " in text, "it says what to do"
