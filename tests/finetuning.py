"""A small training for tests: a tiny Llama learns which of two marks a response ends with is better.

python -m tests.finetuning FOLDER    # trains in a process of its own, and prints a line a step
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from examples.tiny_judge import make_tiny_judge
from rlaif.rewards.finetune import EncodedPreferences, FinetuneResult, FinetuneSettings, Progress, TunedMode, finetune
from rlaif.rewards.model import Backbone, load_backbone
from rlaif.rewards.start import Start
from rlaif.rewards.tokens import EncodedPair

OBJECTIVES = ("first", "second")
# A response ends with a mark of each objective: the better, then the worse.
MARKS = ((5, 6), (7, 8))


def make_backbone(folder: Path, *, context: int = 256) -> Backbone:
    """Load a Llama with random weights, made once in `folder`."""
    model = folder / "model"
    if not model.is_dir():
        make_tiny_judge(model, hidden=64, layers=2, vocabulary=320, context=context)
    return load_backbone(
        str(model), OBJECTIVES, max_length=context, device=torch.device("cpu"), dtype=torch.float32, seed=0
    )


def make_data(count: int, seed: int = 0, *, conflict: bool = False) -> EncodedPreferences:
    """Pairs with differing prompts and lengths; every third has no label of the second objective.

    With `conflict` the second objective wants what the first does not.
    """
    draw = np.random.default_rng(seed)
    pairs, target = [], np.full((count, 2), np.nan)
    for row in range(count):
        better = draw.integers(2, size=2)
        marks = [[MARKS[k][side if better[k] else 1 - side] for k in range(2)] for side in range(2)]
        # The middle is long enough for the responses never to begin alike.
        a, b = ([9 + side, *draw.integers(10, 60, size=draw.integers(1, 9)).tolist()] for side in range(2))
        pairs.append(EncodedPair(draw.integers(10, 60, size=draw.integers(3, 20)).tolist(), a + marks[0], b + marks[1]))
        target[row, 0] = better[0]
        if row % 3:
            target[row, 1] = 1 - better[0] if conflict else better[1]
    weight = np.isfinite(target).astype(float)
    return EncodedPreferences(OBJECTIVES, pairs, target, weight, np.arange(count) // 2)


def with_length(data: EncodedPreferences) -> EncodedPreferences:
    """The same data with the length covariate."""
    lengths = np.array([[len(pair.a), len(pair.b)] for pair in data.pairs])
    logs = np.log1p(lengths)
    return EncodedPreferences(
        data.objectives, data.pairs, data.target, data.weight, data.group, logs[:, 0] - logs[:, 1]
    )


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute in one thread: the order of additions is then the same in every process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


SETTINGS: dict[str, Any] = {"epochs": 3.0, "lr": 2e-3, "batch_tokens": 400, "save_steps": 3, "seed": 1}


def train(
    backbone: Backbone,
    folder: Path,
    *,
    mode: TunedMode = "full",
    data: EncodedPreferences | None = None,
    held_out: EncodedPreferences | None = None,
    start: Callable[[], Start] | None = None,
    watch: Callable[[Progress], None] | None = None,
    **settings: Any,
) -> FinetuneResult:
    """Train with small settings; any of them can be given."""
    chosen = FinetuneSettings(**{**SETTINGS, **settings})
    data = make_data(96) if data is None else data
    with one_thread():
        return finetune(backbone, data, held_out, mode=mode, settings=chosen, folder=folder, start=start, watch=watch)


def weights_of(backbone: Backbone) -> dict[str, torch.Tensor]:
    """A copy of all weights."""
    return {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}


if __name__ == "__main__":

    def report(progress: Progress) -> None:
        """Say how far it is."""
        print(progress.step, flush=True)

    where = Path(sys.argv[1])
    train(make_backbone(where), where / "training", held_out=make_data(24, seed=9), members=2, watch=report)
