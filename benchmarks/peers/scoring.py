"""Scoring: a plain loop over a classification model of transformers, against `rlaif score`; from file to file."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from benchmarks.common import real_pairs
from benchmarks.heads_frozen import minilm
from benchmarks.heads_speed import Seconds, make_model, now
from rlaif.rewards.heads import RewardHeads, save_heads
from rlaif.rewards.model import load_backbone
from rlaif.rewards.score import score_file
from rlaif.rewards.tokens import PLAIN_ROLES
from tests.heads_examples import OBJECTIVES, make_spec

WAYS = tuple((size, ordered) for size in (8, 32) for ordered in (False, True))
# float32: the largest difference of a raw score, of a size about one, that rounding may make.
_CLOSE = 1e-3


def plain_loop(heads: Path, model: Any, data: Path, *, out: Path, size: int, ordered: bool, length: int) -> None:
    """Read pairs, score every response in padded batches, and write a line each.

    Args:
        ordered: batches of like length, the longest first; else as the file has them.
        length: in tokens, of what is not cut.
    """
    tokenizer = AutoTokenizer.from_pretrained(heads)
    # As `rlaif` does: what is cut is the beginning, not the response.
    tokenizer.truncation_side = "left"
    chat = tokenizer.chat_template is not None
    rows = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    texts, names = [], []
    for row in rows:
        for side in ("a", "b"):
            turns = row["prompt"] if isinstance(row["prompt"], list) else [{"role": "user", "content": row["prompt"]}]
            turns = [*turns, {"role": "assistant", "content": row[f"response_{side}"]}]
            text = "\n\n".join(PLAIN_ROLES.get(turn["role"], "") + turn["content"] for turn in turns)
            texts.append(tokenizer.apply_chat_template(turns, tokenize=False) if chat else text)
            names.append((row["id"], side))
    ids = tokenizer(texts, add_special_tokens=not chat, truncation=True, max_length=length)["input_ids"]
    order = sorted(range(len(ids)), key=lambda place: -len(ids[place])) if ordered else list(range(len(ids)))
    scores: list[list[float]] = [[]] * len(ids)
    for start in range(0, len(order), size):
        places = order[start : start + size]
        batch = tokenizer.pad({"input_ids": [ids[place] for place in places]}, return_tensors="pt")
        with torch.inference_mode():
            logits = model(**batch).logits
        for place, row_scores in zip(places, logits.tolist(), strict=True):
            scores[place] = row_scores
    with out.open("w") as file:
        for (name, side), found in zip(names, scores, strict=True):
            file.write(json.dumps({"id": name, "response": side, "scores": found}) + "\n")


def score(heads: RewardHeads, data: Path, *, out: Path) -> None:
    """The same by `rlaif score`, which also normalizes, aggregates and ranks."""
    score_file(heads, str(data), out)


def _timed(work: Callable[[], object]) -> Seconds:
    start = now()
    work()
    return now().since(start)


def make_heads(folder: Path, source: str) -> Path:
    """Three objectives with random heads on a model: a score costs the same as that of trained ones."""
    backbone = load_backbone(
        source, OBJECTIVES, max_length=None, device=torch.device("cpu"), dtype=torch.float32, seed=0
    )
    length = backbone.encoder.max_length
    save_heads(
        folder, backbone, None, make_spec().model_copy(update={"max_length": length, "chat": backbone.encoder.chat})
    )
    return folder


def score_both(name: str, source: str, pairs: int, rounds: int) -> dict[str, Any]:
    """Seconds of each way, in turns, and how many times the best plain loop's rate ours is, round by round."""
    seconds: dict[str, list[Seconds]] = {}
    with tempfile.TemporaryDirectory() as name_of_folder:
        folder = Path(name_of_folder)
        path = make_heads(folder / "heads", source)
        heads = RewardHeads.load(path, device="cpu")
        model = AutoModelForSequenceClassification.from_pretrained(path, dtype=torch.float32).eval()
        rows = real_pairs()
        data, few = folder / "pairs.jsonl", folder / "few.jsonl"
        lines = [json.dumps(rows[place % len(rows)] | {"id": str(place)}) + "\n" for place in range(pairs)]
        data.write_text("".join(lines))
        few.write_text("".join(lines[:8]))
        out = folder / "scores.jsonl"
        works: dict[str, Callable[[Path], object]] = {
            f"plain, batches of {size}, {'by length' if ordered else 'as given'}": partial(
                plain_loop, path, model, out=out, size=size, ordered=ordered, length=heads.spec.max_length
            )
            for size, ordered in WAYS
        }
        works["rlaif"] = partial(score, heads, out=folder / "ours.jsonl")
        for work in works.values():
            work(few)
        for number in range(rounds):
            for way in list(works)[:: 1 if number % 2 == 0 else -1]:
                seconds.setdefault(way, []).append(_timed(partial(works[way], data)))
        _check_same(out, folder / "ours.jsonl", heads)
    return _figures(name, pairs, seconds)


def _check_same(theirs: Path, ours: Path, heads: RewardHeads) -> None:
    """Both have computed the same scores, up to rounding."""
    for line, other in zip(theirs.read_text().splitlines(), ours.read_text().splitlines(), strict=True):
        raw, mine = json.loads(line)["scores"], json.loads(other)["rewards"]
        for objective, score in zip(OBJECTIVES, raw, strict=True):
            rule = heads.spec.normalization[objective]
            gap = abs((score - rule.mean) / rule.std - mine[objective])
            assert gap < _CLOSE, f"the scores differ by {gap}"


def _figures(name: str, pairs: int, seconds: dict[str, list[Seconds]]) -> dict[str, Any]:
    def median(ways: Sequence[Seconds]) -> float:
        return statistics.median(each.wall for each in ways)

    ours = seconds["rlaif"]
    usual = [way for way in seconds if way != "rlaif"]
    found: dict[str, Any] = {"model": name, "responses": 2 * pairs, "ways": {}}
    for way in usual:
        times = [theirs.wall / mine.wall for theirs, mine in zip(seconds[way], ours, strict=True)]
        paid = [theirs.processor / mine.processor for theirs, mine in zip(seconds[way], ours, strict=True)]
        found["ways"][way] = {
            "responses_per_s": round(2 * pairs / median(seconds[way]), 1),
            "times": round(statistics.median(times), 2),
            "times_from_to": [round(min(times), 2), round(max(times), 2)],
            "times_by_processor": round(statistics.median(paid), 2),
        }
    found["responses_per_s"] = round(2 * pairs / median(ours), 1)
    # Held against the best of the loops.
    for key in ("as given", "by length"):
        best = min((way for way in usual if way.endswith(key)), key=lambda way: median(seconds[way]))
        found[key] = {"best": best, **found["ways"][best]}
    return found


def models(folder: Path) -> dict[str, str]:
    """What is scored with: a decoder, and where its package is installed an encoder with trained weights."""
    texts = [row[side] for row in real_pairs() for side in ("response_a", "response_b")]
    found = {"Llama, 6M parameters": str(make_model(folder / "llama", texts))}
    return found | dict(zip(["MiniLM, 22M parameters"], minilm(), strict=False))
