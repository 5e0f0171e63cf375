"""Prompts of the starter's small world, and what is really wanted there: shared by the other examples.

In this world it is known by construction what a good response is (`rlaif.starter.gold`), so that one can see what a
reward model misses. With a policy of your own there is no such gold: take a second reward model, a judge or people.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rlaif import generate, train_heads
from rlaif.rewards.spec import Mode
from rlaif.starter.gold import Gold
from rlaif.starter.scenes import KINDS, make_scene
from rlaif.starter.world import World
from rlaif.types import Message

Floats = npt.NDArray[np.float64]
Row = dict[str, Any]
# All kinds of scenes but one, which has a dozen prompts only.
ASKED = tuple(kind for kind in KINDS if kind != "unclear")
MOST_TOKENS = 64
_PAIRS_A_PROMPT = 14


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write JSON Lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def read_rows(path: Path) -> list[Row]:
    """Read JSON Lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def make_prompts(count: int, seed: str, kinds: Sequence[str] = ASKED, *, but: Iterable[Row] = ()) -> list[Row]:
    """Draw different prompts, of those that the starter learned to answer.

    Args:
        kinds: of scenes, in turn.
        but: rows whose prompts are not to be drawn: what is measured should not have been trained on.
    """
    world = World("train", random.Random(seed))
    taken = {json.dumps(row["prompt"]) for row in but}
    rows: dict[str, Row] = {}
    while len(rows) < count:
        scene = make_scene(world, kinds[len(rows) % len(kinds)])
        turns = [turn.model_dump() for turn in scene.prompt]
        text = json.dumps(turns)
        if text not in taken:
            rows.setdefault(text, {"id": f"{seed}-{len(rows):03}", "prompt": turns})
    return list(rows.values())


def sample(policy: str | Path, prompts: Sequence[Row], out: Path, *, n: int, seed: int = 0) -> list[Row]:
    """Sample a policy, as `rlaif generate` does: the rows that it writes, with `responses`. A second call goes on."""
    data = write_rows(out.with_suffix(".prompts.jsonl"), prompts)
    generate(data, out, policy=str(policy), n=n, max_tokens=MOST_TOKENS, engine="transformers", seed=seed)
    return read_rows(out)


def turns_of(prompt: Sequence[Mapping[str, str]]) -> tuple[Message, ...]:
    """A conversation of dictionaries, as datasets hold it."""
    return tuple(Message(role=turn["role"], content=turn["content"]) for turn in prompt)


def gold_scores(rows: Iterable[Row], gold: Gold | None = None) -> list[Floats]:
    """What the constructed rule says of each row's responses: by row, (responses, 1 + objectives), the reward first."""
    gold = gold or Gold.shipped()
    found = []
    for row in rows:
        scores = [gold.score(turns_of(row["prompt"]), text) for text in row["responses"]]
        found.append(np.array([[one.reward, *one.shares.values()] for one in scores]))
    return found


def gold_columns(prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> dict[str, list[float]]:
    """The gold reward as `rlaif.optimize.overoptimize` takes it: `overall`, and each objective's share."""
    gold = Gold.shipped()
    scores = gold.scores(prompts, responses)
    shares = {name: [one.shares[name] for one in scores] for name in gold.principles}
    return {"overall": [one.reward for one in scores], **shares}


def constructed_labels(
    rows: Sequence[Row], gold: Gold | None = None, *, seed: int = 0, most: int = _PAIRS_A_PROMPT
) -> tuple[list[Row], list[Row]]:
    """Pairs of each prompt's responses, and the preferences by objective that the constructed rule has among them.

    It stands in for `rlaif label` where minutes count: the starter, as a judge, agrees with it nearly always.
    """
    gold = gold or Gold.shipped()
    rng = random.Random(seed)
    pairs: list[Row] = []
    labels: list[Row] = []
    for row, scores in zip(rows, gold_scores(rows, gold), strict=True):
        places = [(a, b) for a in range(len(scores)) for b in range(a)]
        rng.shuffle(places)
        # Pairs that differ in more objectives teach more.
        places.sort(key=lambda place: -int((scores[place[0], 1:] != scores[place[1], 1:]).sum()))
        for a, b in places[:most]:
            name = f"{row['id']}-{a}-{b}"
            texts = {"response_a": row["responses"][a], "response_b": row["responses"][b]}
            pairs.append({"id": name, "prompt": row["prompt"], **texts})
            for objective, mine, other in zip(gold.principles, scores[a, 1:], scores[b, 1:], strict=True):
                side = "a" if mine > other else "b" if other > mine else "tie"
                labels.append({"id": name, "annotator": "constructed", "objective": objective, "preference": side})
    return pairs, labels


def make_heads(
    rows: Sequence[Row],
    folder: Path,
    gold: Gold | None = None,
    *,
    mode: Mode = "full",
    epochs: float = 4,
    most: int = _PAIRS_A_PROMPT,
) -> Path:
    """Train one head an objective on constructed labels of sampled responses; weights as the gold reward has them.

    Args:
        mode: `frozen` takes a tenth of the time. But what the starter's features say of a response that it does not
            judge is little: picking by such heads gains next to nothing.
        epochs: of `full`.
        most: pairs of one prompt's responses.
    """
    gold = gold or Gold.shipped()
    pairs, labels = constructed_labels(rows, gold, most=most)
    data = write_rows(folder / "pairs.jsonl", pairs), write_rows(folder / "labels.jsonl", labels)
    tuned = mode != "frozen"
    train_heads(
        "+".join(map(str, data)),
        folder / "heads",
        mode=mode,
        ensemble=1 if tuned else 5,
        epochs=epochs if tuned else None,
        lr=5e-4 if tuned else None,
        batch_tokens=4096 if tuned else None,
        objectives=tuple(gold.principles),
        constitution="hhh" if gold == Gold.shipped() else None,
        cache=folder / "features",
    )
    return folder / "heads"


def in_deviations(change: float, before: Sequence[Floats]) -> float:
    """A change of the gold reward, in standard deviations of it among all samples of the policy before."""
    return float(change / np.concatenate(before)[:, 0].std())
