"""Features of conversations on the disk: what transformers alone gives, once, whatever happens to the files."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

from rlaif.errors import RunError
from rlaif.rewards import features
from rlaif.rewards.features import FeatureTable, read_or_make_features
from rlaif.rewards.frozen import solve_heads
from rlaif.rewards.logistic import Singles
from rlaif.rewards.model import Backbone
from rlaif.rewards.tokens import EncodedPair
from tests.conftest import ROOT, environment
from tests.heads_examples import make_backbone

BUDGET = 256


def encoded_pairs(count: int, seed: int = 0) -> list[EncodedPair]:
    """Pairs of random tokens, of unlike lengths, no two conversations the same."""
    draws = Random(seed)

    def some(low: int, high: int) -> list[int]:
        return [draws.randrange(5, 60) for _ in range(draws.randint(low, high))]

    # The responses begin differently, so that the prefix is the longest that they share.
    return [EncodedPair([1, *some(4, 40)], [3, *some(2, 20)], [4, *some(2, 20)]) for _ in range(count)]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return make_backbone(tmp_path_factory.mktemp("backbone"))


def make(backbone: Backbone, pairs: Sequence[EncodedPair], cache: Path, budget: int = BUDGET) -> FeatureTable:
    """Read or make features."""
    return read_or_make_features(backbone, pairs, cache=cache, batch_tokens=budget)


@contextmanager
def tokens_embedded(backbone: Backbone) -> Iterator[list[int]]:
    """Watch the backbone itself: the number of tokens of each batch that goes through it, pads counted."""
    seen: list[int] = []
    embedding = backbone.model.get_input_embeddings()
    handle = embedding.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].numel()))
    try:
        yield seen
    finally:
        handle.remove()


def one_by_one(backbone: Backbone, pairs: Sequence[EncodedPair]) -> Singles:
    """What the head is given for each conversation on its own, by transformers alone, (pairs, 2, width)."""
    caught: list[torch.Tensor] = []
    handle = backbone.head.register_forward_pre_hook(lambda module, inputs: caught.append(inputs[0]))
    found = []
    for pair in pairs:
        for conversation in pair.conversations:
            with torch.inference_mode():
                backbone.model(input_ids=torch.tensor([conversation]))
            found.append(caught.pop().reshape(-1, backbone.hidden)[-1])
    handle.remove()
    stacked: Singles = torch.stack(found).reshape(len(pairs), 2, -1).numpy()
    return stacked


def both(table: FeatureTable) -> Singles:
    """Features of both responses, (pairs, 2, width)."""
    return np.stack([table.a, table.b], axis=1)


@pytest.mark.parametrize("architecture", ["llama", "bert"])
def test_features_are_what_the_head_is_given(architecture: str, tmp_path: Path) -> None:
    backbone = make_backbone(tmp_path / "backbone", architecture)
    pairs = encoded_pairs(12)
    table = make(backbone, pairs, tmp_path / "cache")
    expected = one_by_one(backbone, pairs)
    np.testing.assert_allclose(both(table), expected, atol=1e-4)
    np.testing.assert_allclose(table.difference[:], expected[:, 0] - expected[:, 1], atol=2e-4)
    assert expected.std(axis=0).mean() > 0.05
    assert table.a.dtype == np.float32
    assert table.computed == 24


def test_what_is_there_is_not_computed_again(backbone: Backbone, tmp_path: Path) -> None:
    pairs = encoded_pairs(10)
    first = make(backbone, pairs[:6], tmp_path)
    with tokens_embedded(backbone) as seen:
        again = make(backbone, pairs[5::-1], tmp_path, budget=77)
        assert seen == []
    assert again.computed == 0
    assert (both(again) == both(first)[::-1]).all()
    more = make(backbone, pairs[3:], tmp_path)
    assert more.computed == 8
    np.testing.assert_allclose(both(more), one_by_one(backbone, pairs[3:]), atol=1e-4)


def test_a_conversation_is_computed_once(backbone: Backbone, tmp_path: Path) -> None:
    (first,), (other,) = encoded_pairs(1), encoded_pairs(1, seed=1)
    third = [7, 7, 7]
    among_three = [
        first,
        EncodedPair(first.prefix, first.a, third),
        EncodedPair(first.prefix, first.b, third),
        # The same conversations, split elsewhere and swapped.
        EncodedPair(first.prefix[:-1], first.prefix[-1:] + first.b, first.prefix[-1:] + first.a),
        EncodedPair(other.prefix, other.a, other.a),
    ]
    with tokens_embedded(backbone) as seen:
        table = make(backbone, among_three, tmp_path, budget=1)
    assert table.computed == 4
    # A batch each: two of the three with their prompt once, the third, and the other conversation.
    assert sorted(seen) == sorted([first.tokens, len(first.prefix) + 3, len(other.prefix) + len(other.a)])
    assert (table.a[3] == table.b[0]).all()
    assert (table.difference[np.array([4])] == 0).all()


def test_a_backbone_that_changed_finds_nothing(tmp_path: Path) -> None:
    backbone, pairs = make_backbone(tmp_path / "backbone"), encoded_pairs(4)
    before = both(make(backbone, pairs, tmp_path / "cache"))
    with torch.no_grad():
        backbone.head.weight.add_(1)
    assert make(backbone, pairs, tmp_path / "cache").computed == 0
    with torch.no_grad():
        next(backbone.model.base_model.layers.parameters()).mul_(1.5)  # type: ignore[union-attr]
    after = make(backbone, pairs, tmp_path / "cache")
    assert after.computed == 8
    assert np.abs(both(after) - before).max() > 1e-3
    np.testing.assert_allclose(both(after), one_by_one(backbone, pairs), atol=1e-4)


def flip_a_row(index: Path, rows: Path) -> None:
    """Change one number of the third row."""
    damaged = bytearray(rows.read_bytes())
    damaged[len(damaged) // 20 * 2 + 3] ^= 0xFF
    rows.write_bytes(damaged)


def tear_the_rows(index: Path, rows: Path) -> None:
    """Lose the last row and a part of the one before."""
    os.truncate(rows, rows.stat().st_size // 20 * 18 + 8)


def tear_the_index(index: Path, rows: Path) -> None:
    """Lose a part of the last key, as a killed process does."""
    os.truncate(index, index.stat().st_size - 7)


def shift_the_rows(index: Path, rows: Path) -> None:
    """Insert a byte: from there on every row is another."""
    rows.write_bytes(b"x" + rows.read_bytes())


def lose_the_index(index: Path, rows: Path) -> None:
    """Remove the keys."""
    index.unlink()


@pytest.mark.parametrize(
    ("damage", "recomputed"),
    [(flip_a_row, 1), (tear_the_rows, 2), (tear_the_index, 1), (shift_the_rows, 20), (lose_the_index, 20)],
)
def test_what_is_damaged_is_computed_again(
    damage: Callable[[Path, Path], None], recomputed: int, backbone: Backbone, tmp_path: Path
) -> None:
    pairs = encoded_pairs(10)
    expected = both(make(backbone, pairs, tmp_path))
    (index,), (rows,) = tmp_path.glob("*.keys"), tmp_path.glob("*.rows")
    damage(index, rows)
    mended = make(backbone, pairs, tmp_path)
    assert mended.computed == recomputed
    np.testing.assert_allclose(both(mended), expected, atol=1e-4)
    again = make(backbone, pairs, tmp_path)
    assert again.computed == 0
    assert (both(again) == both(mended)).all()


SCRIPT = """
import os, signal, sys
from pathlib import Path
from tests.heads_examples import load_backbone, OBJECTIVES
from tests.test_rewards_features import encoded_pairs, make
import torch
backbone = load_backbone(
    sys.argv[1], OBJECTIVES, max_length=256, device=torch.device("cpu"), dtype=torch.float32, seed=0
)
passes = 0
def watch(module, inputs):
    global passes
    passes += 1
    if passes == int(sys.argv[5]):
        os.kill(os.getpid(), signal.SIGKILL)
backbone.model.get_input_embeddings().register_forward_pre_hook(watch)
print("ready", flush=True)
sys.stdin.readline()
make(backbone, encoded_pairs(300)[int(sys.argv[3]):int(sys.argv[4])], Path(sys.argv[2]), budget=64)
"""
NEVER = 0


def start_making(backbone: Backbone, cache: Path, first: int, last: int, killed_at: int) -> subprocess.Popen[str]:
    """Have another process make features, after a line; it is killed as it begins that batch."""
    command = [sys.executable, "-c", SCRIPT, backbone.name, str(cache), str(first), str(last), str(killed_at)]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment()
    )


def go(process: subprocess.Popen[str]) -> None:
    """Let a process that is ready begin."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.stdin.write("\n")
    process.stdin.flush()


def test_two_processes_share_a_cache_and_a_kill_leaves_what_was_done(backbone: Backbone, tmp_path: Path) -> None:
    killed = start_making(backbone, tmp_path, 0, 200, killed_at=30)
    other = start_making(backbone, tmp_path, 100, 300, killed_at=NEVER)
    for process in (killed, other):
        go(process)
    assert killed.wait() == -signal.SIGKILL
    assert other.wait() == 0
    table = make(backbone, encoded_pairs(300), tmp_path)
    # All of the one that went on are there, and no more than 29 batches of the one that was killed.
    assert 0 < table.computed < 200
    np.testing.assert_allclose(both(table), both(make(backbone, encoded_pairs(300), tmp_path / "fresh")), atol=1e-4)


def test_a_full_disk_is_said_and_keeps_what_was_written(backbone: Backbone, tmp_path: Path) -> None:
    pairs = encoded_pairs(10)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A file that may not grow fails as one on a full disk does.
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 * backbone.hidden * 7 + 5, limits[1]))
    try:
        with pytest.raises(RunError, match=r"\.rows: cannot be written .*; free some space"):
            make(backbone, pairs, tmp_path, budget=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    table = make(backbone, pairs, tmp_path)
    assert table.computed == 14
    np.testing.assert_allclose(both(table), one_by_one(backbone, pairs), atol=1e-4)


def test_a_folder_that_cannot_be_made_is_said(backbone: Backbone, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="file/cache: cannot be written"):
        make(backbone, encoded_pairs(1), tmp_path / "file" / "cache")


def test_features_that_are_no_numbers_are_said_and_not_kept(tmp_path: Path) -> None:
    backbone = make_backbone(tmp_path / "backbone")
    with torch.no_grad():
        backbone.model.get_input_embeddings().weight[60] = float("nan")  # type: ignore[operator]
    pair = EncodedPair([1, 5], [7], [60])
    with pytest.raises(RunError, match="features are not finite numbers for 2 of 2 conversations"):
        make(backbone, [pair], tmp_path / "cache")
    assert make(backbone, [EncodedPair([1, 5], [7], [8])], tmp_path / "cache").computed == 2


def test_no_pairs_no_features(backbone: Backbone, tmp_path: Path) -> None:
    table = make(backbone, [], tmp_path)
    assert table.a.shape == table.b.shape == table.difference.shape == (0, backbone.hidden)
    assert table.scores(np.ones((3, 2, backbone.hidden))).shape == (0, 2, 3, 2)


def test_progress_counts_conversations(backbone: Backbone, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    pairs = encoded_pairs(5)
    read_or_make_features(
        backbone, pairs, cache=tmp_path, batch_tokens=1, watch=lambda done, total: told.append((done, total))
    )
    assert told == [(2 * done, 10) for done in range(6)]


def test_heads_come_out_the_same_where_features_stay_on_the_disk(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make(backbone, encoded_pairs(80), tmp_path)
    target = np.random.default_rng(0).random((80, 2))
    weight, group = np.ones((80, 2)), np.arange(80)
    in_memory = solve_heads(table.difference, target, weight, members=3, seed=0, group=group)
    monkeypatch.setattr(features, "_IN_MEMORY", 0)
    assert not isinstance(table.difference, np.ndarray)
    from_disk = solve_heads(table.difference, target, weight, members=3, seed=0, group=group)
    np.testing.assert_allclose(from_disk.weights, in_memory.weights, atol=1e-6)
    expected = np.einsum("psh,kmh->pskm", both(table).astype(np.float64), in_memory.weights.astype(np.float64))
    np.testing.assert_allclose(table.scores(in_memory.weights), expected, atol=1e-9)
