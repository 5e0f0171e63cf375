"""Checkpoints of heads: what plain transformers gives, we give; what is damaged is told; what scores mean, by hand."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer

from rlaif.errors import InputError, RunError
from rlaif.rewards.gate import Gate
from rlaif.rewards.heads import RawScores, RewardHeads, save_heads
from tests.conftest import environment
from tests.heads_examples import (
    OBJECTIVES,
    conversations,
    make_backbone,
    make_heads,
    make_members,
    make_spec,
    plain_logits,
    plain_texts,
)

MEAN, STD = np.array([0.1, 0.2, 0.3]), np.array([1.0, 1.5, 2.0])


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Heads of a tiny Llama, an ensemble of five."""
    return make_heads(tmp_path_factory.mktemp("saved"), members=5)


@pytest.fixture(scope="module")
def heads(saved: Path) -> RewardHeads:
    """The same, loaded."""
    return RewardHeads.load(saved)


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "starter", "bert"])
def test_raw_scores_are_those_of_plain_transformers(architecture: str, tmp_path: Path) -> None:
    folder = make_heads(tmp_path, architecture)
    raw = RewardHeads.load(folder).raw(*conversations())
    expected = plain_logits(folder).double().numpy()
    assert raw.scores.shape == (12, 3)
    assert raw.members is None
    assert np.abs(raw.scores - expected).max() < 1e-4
    # Conversations and objectives differ by far more than that.
    assert expected.std(axis=0).min() > 0.01
    assert not np.allclose(expected[:, 0], expected[:, 1], atol=0.01)
    config = json.loads((folder / "config.json").read_text())
    assert config["id2label"] == {"0": "helpfulness", "1": "harmlessness", "2": "honesty"}


def test_members_are_linear_maps_of_the_same_features_and_their_mean_is_the_head(
    saved: Path, heads: RewardHeads
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(saved)
    bare = AutoModel.from_pretrained(saved, dtype=torch.float32).eval()
    features = []
    for text in plain_texts(tokenizer):
        with torch.inference_mode():
            ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)
            features.append(bare(**ids).last_hidden_state[0, -1].double().numpy())
    members = make_members(bare.config.hidden_size).double().numpy()
    expected = np.einsum("nh,kmh->nmk", np.array(features), members)
    raw = heads.raw(*conversations())
    assert raw.members is not None
    assert np.abs(raw.members - expected).max() < 1e-4
    assert np.abs(raw.scores - expected.mean(axis=1)).max() < 1e-4
    found = heads.score(*conversations())
    spread = np.array([[reward.std[name] for name in OBJECTIVES] for reward in found if reward.std is not None])
    by_hand = np.sqrt(((expected - expected.mean(axis=1, keepdims=True)) ** 2).sum(axis=1) / 4) / STD
    assert np.abs(spread - by_hand).max() < 1e-4


def test_rewards_are_normalized_and_weighted(heads: RewardHeads) -> None:
    raw = RawScores(np.array([[1.1, 0.2, 4.3], [0.1, -1.3, 0.3]]), None, 0)
    first, second = heads.rewards(["x", "y"], raw)
    assert first.rewards == pytest.approx({"helpfulness": 1.0, "harmlessness": 0.0, "honesty": 2.0})
    assert second.rewards == pytest.approx({"helpfulness": 0.0, "harmlessness": -1.0, "honesty": 0.0})
    # (1 * 1 + 3 * 2) / 6 and (2 * -1) / 6.
    assert (first.reward, second.reward) == pytest.approx((7 / 6, -1 / 3))
    assert (first.std, first.pareto_rank, first.below_floors) == (None, None, ())


def test_responses_to_one_prompt_are_ranked(heads: RewardHeads) -> None:
    # b is better than c and d in all; a and b each win somewhere; d is worse than all. The last stands alone.
    raw = RawScores(np.array([[9, 0, 0], [1, 3, 3], [0, 2, 2], [-1, -1, -1], [0, 0, 0]], dtype=float), None, 0)
    found = heads.rewards(["x"] * 4 + ["y"], raw, groups=[0, 0, 0, 0, 1])
    assert [reward.pareto_rank for reward in found] == [0, 0, 1, 2, None]
    ungrouped = heads.rewards(["x"] * 5, raw)
    assert {reward.pareto_rank for reward in ungrouped} == {None}


def test_equal_prompts_are_found_by_their_text(heads: RewardHeads) -> None:
    turn = [{"role": "user", "content": "Name a river."}]
    found = heads.score(["Name a river.", turn, "Name a lake."], ["The Danube.", "Rain", "Lake Constance."])
    assert [reward.pareto_rank is None for reward in found] == [False, False, True]
    twice = heads.score(["Name a river."] * 2, ["The Danube."] * 2)
    assert twice[0] == twice[1]
    assert twice[0].pareto_rank == 0
    assert heads.score([], []) == []


def test_tags_floors_and_other_weights_change_the_reward_alone(tmp_path: Path) -> None:
    by_tag = {"medical": {"helpfulness": 0.0, "harmlessness": 1.0, "honesty": 0.0}}
    folder = make_heads(tmp_path, by_tag=by_tag, floors={"honesty": 0.2})
    heads = RewardHeads.load(folder)
    raw = RawScores(np.array([[1.1, 1.7, 4.3], [1.1, 1.7, -4.7]]), None, 0)
    plain, low = heads.rewards(["x"] * 2, raw)
    tagged, _ = heads.rewards(["x"] * 2, raw, tags=[{"topic": "medical"}, {}])
    assert plain.rewards == tagged.rewards
    assert (plain.reward, tagged.reward) == pytest.approx((9 / 6, 1.0))
    # sigmoid(-5 / 2.5) = 0.12 is under 0.2, and sigmoid(4 / 2.5) = 0.83 is not.
    assert (plain.below_floors, low.below_floors) == ((), ("honesty",))
    assert low.reward < plain.reward - 5
    given = heads.with_weights({"helpfulness": 3, "honesty": 1})
    (other, _) = given.rewards(["x"] * 2, raw, tags=[{"topic": "medical"}, {}])
    assert other.reward == pytest.approx(0.75 * 1.0 + 0.25 * 2.0)
    with pytest.raises(InputError, match=r"no head 'honest'; .* Did you mean 'honesty'\?"):
        heads.with_weights({"honest": 1})


def test_a_gate_gives_every_prompt_its_own_weights(tmp_path: Path) -> None:
    backbone = make_backbone(tmp_path / "backbone")
    gate = Gate(make_members(backbone.hidden, 1)[:, 0].double().numpy(), np.array([0.5, 0.0, -0.5]))
    folder = tmp_path / "heads"
    save_heads(folder, backbone, None, make_spec(origin="gated", by_tag={"medical": {"honesty": 1.0}}), gate=gate)
    prompts, responses = conversations()
    found = RewardHeads.load(folder).score(prompts, responses, tags=[{}] * 11 + [{"medical": True}])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    bare = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    for place, (prompt, reward) in enumerate(zip(prompts, found, strict=True)):
        turns = [{"role": "user", "content": prompt[0].content}]
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        with torch.inference_mode():
            end = bare(**tokenizer(text, return_tensors="pt", add_special_tokens=False)).last_hidden_state[0, -1]
        odds = np.exp(gate.matrix @ end.double().numpy() + gate.bias)
        # A rule by tag, which somebody wrote, goes before the gate, which was learned.
        weights = np.array([0, 0, 1]) if place == 11 else odds / odds.sum()
        assert reward.reward == pytest.approx(weights @ np.array(list(reward.rewards.values())), abs=1e-4)
    assert len({round(reward.reward / sum(reward.rewards.values()), 4) for reward in found}) > 3
    (folder / "ensemble.safetensors").unlink()
    with pytest.raises(InputError, match=r"ensemble.safetensors: missing"):
        RewardHeads.load(folder)


def test_a_response_s_score_depends_on_nothing_beside_it(heads: RewardHeads) -> None:
    prompts, responses = conversations()
    # Longer than the heads take: cut, and the same whether it stands alone or in a pair.
    responses[2] = "one two three four five six " * 100
    together = heads.raw(prompts, responses)
    assert together.truncated == 1
    order = np.random.default_rng(0).permutation(len(responses))
    mixed = heads.raw([prompts[place] for place in order], [responses[place] for place in order], batch_tokens=300)
    one_by_one = [heads.raw([prompt], [text]).scores[0] for prompt, text in zip(prompts, responses, strict=True)]
    assert np.abs(mixed.scores - together.scores[order]).max() < 1e-5
    assert np.abs(np.array(one_by_one) - together.scores).max() < 1e-5


def test_watching_counts_up_to_all_responses(heads: RewardHeads) -> None:
    seen: list[int] = []
    heads.raw(*conversations(), batch_tokens=200, watch=seen.append)
    assert len(seen) > 2
    assert seen == sorted(seen)
    assert seen[-1] == 12


def test_what_cannot_be_scored_is_told(heads: RewardHeads) -> None:
    with pytest.raises(InputError, match="2 prompts and 1 responses"):
        heads.score(["x", "y"], ["z"])
    with pytest.raises(InputError, match="prompt 2: no conversation"):
        heads.score(["x", []], ["z", "z"])
    with pytest.raises(InputError, match="prompt 1: no conversation"):
        heads.score([[{"role": "user"}]], ["z"])
    with pytest.raises(InputError, match="1 responses and 2 tags"):
        heads.score(["x"], ["z"], tags=[{}, {}])
    with pytest.raises(InputError, match="device nonsense: cannot be used"):
        RewardHeads.load(heads.path, device="nonsense")


Damage = Callable[[Path], object]


def change_spec(**changes: Any) -> Damage:
    """Write other values into `rlaif.json`."""

    def damage(folder: Path) -> None:
        value = json.loads((folder / "rlaif.json").read_text())
        (folder / "rlaif.json").write_text(json.dumps({**value, **changes}))

    return damage


def cut(name: str) -> Damage:
    """Keep the first half of a file."""

    def damage(folder: Path) -> None:
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])

    return damage


def change_tensor(file: str, name: str, change: Callable[[torch.Tensor], torch.Tensor] | None) -> Damage:
    """Change one tensor of a file, or drop it."""

    def damage(folder: Path) -> None:
        tensors = load_file(folder / file)
        tensor = tensors.pop(name)
        if change is not None:
            tensors[name] = change(tensor).contiguous()
        save_file(tensors, folder / file, metadata={"format": "pt"})

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "rlaif.json").unlink(), "no reward heads, rlaif.json is not there"),
        (lambda folder: (folder / "config.json").unlink(), "config.json: missing, so the heads are not whole"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors: missing"),
        (lambda folder: (folder / "ensemble.safetensors").unlink(), "ensemble.safetensors: missing"),
        (lambda folder: (folder / "tokenizer_config.json").unlink(), "tokenizer_config.json: missing"),
        (cut("model.safetensors"), "model.safetensors: is damaged or cut short"),
        (cut("ensemble.safetensors"), "ensemble.safetensors: is damaged or cut short"),
        (cut("config.json"), "config.json: names no labels"),
        (cut("tokenizer.json"), "tokenizer"),
        (change_spec(objectives=["helpfulness", "harmlessness"]), "its labels are helpfulness, harmlessness, honesty"),
        (change_spec(objectives=["honesty", "harmlessness", "helpfulness"]), "of different heads"),
        (change_spec(members=4), "holds 5 of 3 objectives for members of the ensemble, and rlaif.json says 4 of 3"),
        (change_spec(calibration={}), "has no calibration or no normalization of helpfulness"),
        (change_spec(format=99), "format 99 is newer"),
        (change_tensor("model.safetensors", "score.weight", None), "hold no score.weight, the heads themselves"),
        (
            change_tensor("model.safetensors", "score.weight", lambda weight: -weight),
            "the mean of its 5 members is not score.weight",
        ),
    ],
)
def test_damaged_heads_are_one_clear_line(damage: Damage, message: str, saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "heads"
    shutil.copytree(saved, folder)
    damage(folder)
    with pytest.raises(InputError) as error:
        RewardHeads.load(folder)
    assert message in str(error.value)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_head_that_was_chosen_keeps_its_scores_and_the_members_move(tmp_path: Path) -> None:
    backbone = make_backbone(tmp_path / "backbone")
    before = backbone.head.weight.detach().clone()
    save_heads(tmp_path / "heads", backbone, make_members(backbone.hidden), make_spec(members=5), keep_head=True)
    members = load_file(tmp_path / "heads" / "ensemble.safetensors")["members"]
    assert torch.equal(load_file(tmp_path / "heads" / "model.safetensors")["score.weight"], before)
    assert torch.allclose(members.mean(dim=1), before, atol=1e-6)
    spread = make_members(backbone.hidden).std(dim=1)
    assert torch.allclose(members.std(dim=1), spread, atol=1e-5)


def test_saving_again_leaves_nothing_of_the_former_heads(tmp_path: Path) -> None:
    backbone = make_backbone(tmp_path / "backbone")
    folder = tmp_path / "heads"
    save_heads(folder, backbone, make_members(backbone.hidden), make_spec(members=5))
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    # What is not in the index is no part of the model: the ensemble is nothing that vLLM has to know.
    assert set(index["weight_map"].values()) == {"model.safetensors"}
    assert index["weight_map"].keys() == load_file(folder / "model.safetensors").keys()
    (folder / "report.html").write_text("mine")
    (folder / "model-00001-of-00002.safetensors").write_text("stale")
    save_heads(folder, backbone, None, make_spec())
    names = {file.name for file in folder.iterdir()}
    assert {"rlaif.json", "config.json", "model.safetensors", "report.html"} <= names
    assert not {"ensemble.safetensors", "model.safetensors.index.json", "model-00001-of-00002.safetensors"} & names
    assert not [name for name in names if name.startswith(".")]
    assert len({file.stat().st_mode for file in folder.glob("*.[js]*") if file.name != "report.html"}) == 1
    assert RewardHeads.load(folder).spec == make_spec()


def test_a_full_disk_leaves_the_former_heads(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "heads"
    shutil.copytree(saved, folder)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    backbone = make_backbone(tmp_path / "backbone")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A file that may not grow fails as one on a full disk does.
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(RunError, match="cannot be written"):
            save_heads(folder, backbone, None, make_spec())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    backbone = make_backbone(tmp_path / "backbone")
    members = make_members(backbone.hidden)
    members[1, 2, 3] = float("nan")
    with pytest.raises(RunError, match="not finite"):
        save_heads(tmp_path / "heads", backbone, members, make_spec(members=5))
    assert not (tmp_path / "heads").exists()


KILLED = """
import os, sys
from pathlib import Path
from rlaif.rewards.folders import replacing_checkpoint

folder = Path(sys.argv[1])
NAMES = ("rlaif.json", "config.json", "model.safetensors", "tokenizer.json")

def write(generation, names):
    with replacing_checkpoint(folder) as fresh:
        for name in names:
            (fresh / name).write_text(generation)

write("old", (*NAMES, "ensemble.safetensors"))
states, moment = [], 0
while True:
    child = os.fork()
    if child == 0:
        left = [moment]
        def hook(event, arguments):
            if event in ("os.rename", "os.remove"):
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), 9)
        sys.addaudithook(hook)
        write("new", NAMES)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    states.append({file.name: file.read_text() for file in folder.iterdir() if file.is_file()})
    if status == 0:
        break
    write("old", (*NAMES, "ensemble.safetensors"))
    moment += 1
import json
print(json.dumps([moment, states, sorted(file.name for file in folder.iterdir())]))
"""


def test_a_save_that_is_killed_leaves_the_old_checkpoint_the_new_one_or_none(tmp_path: Path) -> None:
    """Killed before each renaming and each removal in turn."""
    command = [sys.executable, "-c", KILLED, str(tmp_path / "heads")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=True)
    moments, states, left = json.loads(done.stdout)
    # Two removals of the gates, one of the stale ensemble, four renamings.
    assert moments >= 7
    seen = set()
    for state in states:
        if "config.json" in state:
            # What loads is of one making; the heads' own file may still be away.
            (generation,) = set(state.values())
            assert {"model.safetensors", "tokenizer.json"} <= state.keys()
            assert ("ensemble.safetensors" in state) == (generation == "old")
            seen.add((generation, "rlaif.json" in state))
        else:
            assert "rlaif.json" not in state
            seen.add(("none", False))
    assert seen == {("old", True), ("old", False), ("none", False), ("new", False), ("new", True)}
    assert left == ["config.json", "model.safetensors", "rlaif.json", "tokenizer.json"]


def test_heads_of_a_hub_are_loaded_from_the_cache_by_their_id(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    commit = "0" * 40
    stored = tmp_path / "hub" / "models--someone--heads"
    shutil.copytree(saved, stored / "snapshots" / commit)
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    assert RewardHeads.load("someone/heads").spec == make_spec(members=5)
    with pytest.raises(InputError, match="someone/others: no such folder, and no heads of that id on the hub"):
        RewardHeads.load("someone/others")
