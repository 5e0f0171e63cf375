"""Heads served by vLLM's pooling runner, with no code of ours: the raw scores of transformers and of `RewardHeads`."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from rlaif.rewards.export import export_reward_model
from rlaif.rewards.heads import RewardHeads
from tests.heads_examples import OBJECTIVES, conversations, make_heads, plain_logits, plain_texts
from tests.vllm.conftest import serving


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three objectives on the starter."""
    return make_heads(tmp_path_factory.mktemp("heads"), "starter", members=3)


def scored_by_vllm(folder: Path, **options: Any) -> np.ndarray[Any, Any]:
    """What vLLM's classify gives for all conversations, (conversations, labels)."""
    from vllm import LLM

    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = plain_texts(tokenizer)
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    model = LLM(str(folder), runner="pooling", dtype="float32", enforce_eager=True, max_model_len=512, block_size=32)
    found = model.classify([{"prompt_token_ids": each} for each in ids], use_tqdm=False, **options)
    del model
    return np.array([each.outputs.probs for each in found])


def test_the_pooling_runner_gives_the_raw_scores(heads: Path) -> None:
    served = scored_by_vllm(heads)
    ours = RewardHeads.load(heads).raw(*conversations()).scores
    plain = plain_logits(heads).double().numpy()
    assert served.shape == (12, 3)
    print(f"largest difference: to ours {np.abs(served - ours).max():.1e}, to plain {np.abs(served - plain).max():.1e}")
    assert np.abs(served - ours).max() < 1e-4
    assert np.abs(served - plain).max() < 1e-4
    assert served.std(axis=0).min() > 0.01


def test_the_exported_model_is_served_too(heads: Path, tmp_path: Path) -> None:
    summary = export_reward_model(heads, tmp_path / "one")
    served = scored_by_vllm(tmp_path / "one")[:, 0] + summary.constant
    ours = [reward.reward for reward in RewardHeads.load(heads).score(*conversations())]
    assert np.abs(served - np.array(ours)).max() < 1e-4


def test_the_server_scores_chats(heads: Path, tmp_path: Path) -> None:
    """`/classify` with messages: vLLM applies the chat template, and no activation is asked for or needed."""
    prompts, responses = conversations()
    expected = RewardHeads.load(heads).raw(prompts, responses).scores
    options = ("--runner", "pooling", "--dtype", "float32", "--max-model-len", "512")
    with serving(heads, "heads", tmp_path / "server.log", *options) as url:
        for place in (0, 5, 10):
            turns = [{"role": "user", "content": prompts[place][0].content}]
            turns.append({"role": "assistant", "content": responses[place]})
            body = {"model": "heads", "messages": turns, "add_generation_prompt": False}
            call = urllib.request.Request(
                f"{url}/classify", json.dumps(body).encode(), {"Content-Type": "application/json"}
            )
            (data,) = json.loads(urllib.request.urlopen(call, timeout=60).read())["data"]
            assert data["num_classes"] == 3
            assert np.abs(np.array(data["probs"]) - expected[place]).max() < 1e-4
            # The label is the objective with the highest raw score.
            assert data["label"] == OBJECTIVES[int(expected[place].argmax())]
