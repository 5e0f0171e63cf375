"""Preferences and scores made by hand or by a seed, for the tests of evaluation, report and card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlaif.rewards.calibrate import calibrate_heads
from rlaif.rewards.evaluate import accuracy_changes, evaluate_scores, scored_examples
from rlaif.rewards.evaluation import Change, Evaluation, ScoredPair, TrainingPoint
from rlaif.rewards.preferences import Floats, LabelSource, Preferences
from rlaif.rewards.spec import Aggregation, Calibration, HeadsSpec, Normalization
from rlaif.types import Message, Pair, TagValue

NAMES = ("helpfulness", "harmlessness", "honesty")


def spec_of(objectives: Sequence[str] = ("kind",), temperature: float = 1.0, **given: Any) -> HeadsSpec:
    """A spec with one temperature and no normalization."""
    known: dict[str, Any] = {
        "objectives": tuple(objectives),
        "mode": "frozen",
        "max_length": 512,
        "chat": False,
        "calibration": {name: Calibration(temperature=temperature) for name in objectives},
        "normalization": {name: Normalization() for name in objectives},
        "aggregation": Aggregation(weights={name: 1 / len(objectives) for name in objectives}),
    }
    return HeadsSpec(**{**known, **given})


def pair_of(number: int, a: str = "aa", b: str = "bb", tags: Mapping[str, TagValue] | None = None) -> Pair:
    """A pair with a prompt of its own."""
    prompt = (Message(role="user", content=f"Ask {number}"),)
    return Pair(id=f"p{number}", prompt=prompt, response_a=a, response_b=b, tags=tags or {})


def preferences_of(
    target: Floats, pairs: Sequence[Pair] | None = None, group: Sequence[int] | None = None, **given: Any
) -> Preferences:
    """Preferences with weight 1 wherever there is a target; `target` is (pairs,) or (pairs, objectives)."""
    target = target[:, None] if target.ndim == 1 else target
    known: dict[str, Any] = {"objectives": ("kind", "brief", "true")[: target.shape[1]], **given}
    return Preferences(
        pairs=pairs or [pair_of(number) for number in range(len(target))],
        target=target,
        weight=np.where(np.isfinite(target), 1.0, 0.0),
        group=np.arange(len(target)) if group is None else np.array(group),
        **known,
    )


def raw_of(*differences: Sequence[float] | Floats) -> Floats:
    """Raw scores with these differences of a and b, one list an objective, (pairs, 2, objectives)."""
    half = np.array(differences, dtype=np.float64).T / 2
    return np.stack([half, -half], axis=1)


def swapped(preferences: Preferences, raw: Floats) -> tuple[Preferences, Floats]:
    """The same with a and b exchanged on every second pair."""
    turn = np.arange(len(preferences)) % 2 == 1
    changed = Preferences(
        preferences.objectives,
        [pair.swap() if turn[row] else pair for row, pair in enumerate(preferences.pairs)],
        np.where(turn[:, None], 1 - preferences.target, preferences.target),
        preferences.weight,
        preferences.group,
        preferences.sources,
    )
    return changed, np.where(turn[:, None, None], raw[:, ::-1], raw)


_PROMPTS = (
    "How do I get a red wine stain out of a linen tablecloth?",
    "My landlord refuses to return the deposit. What can I do?",
    "Explain to a ten-year-old why the sky is blue.",
    "Write a short, polite e-mail that declines a wedding invitation.",
    "Which of these two used bicycles should I buy for commuting?",
    "Is it safe to take ibuprofen together with paracetamol?",
)
_SENTENCES = (
    "Start with cold water and blot, never rub: rubbing drives the pigment into the fibre.",
    "Check the lease first; most say within how many days the deposit has to be returned.",
    "I would not be certain of this, and a pharmacist can tell you more in a minute.",
    "- Blot the stain\n- Cover it with salt\n- Rinse it with cold water",
    "Sunlight is a mix of colours, and the air scatters blue the most.",
    "Sorry, I cannot help with that.",
    "**Short answer:** yes, as long as you stay below the daily limit of each.",
)


def realistic(pairs: int = 1200, seed: int = 5, each: int = 5) -> dict[str, Any]:
    """All inputs of a report, as a training on 1,200 held-out pairs might leave them."""
    random = np.random.default_rng(seed)
    quality = random.normal(size=(pairs, 3)) * [1.5, 1.1, 0.9]
    quality[:, 1] -= 0.5 * quality[:, 0]
    rows = []
    for number in range(pairs):
        texts = [
            " ".join(random.choice(_SENTENCES) for _ in range(1 + random.poisson(3 + 1.2 * max(side, 0))))
            for side in (quality[number, 0], -quality[number, 0])
        ]
        topic = str(random.choice(["home", "law", "science", "writing", "medical"], p=[0.3, 0.2, 0.2, 0.2, 0.1]))
        tags: dict[str, TagValue] = {"topic": topic, "turns": int(1 + random.poisson(0.5))}
        pair = pair_of(number, texts[0], texts[1], tags)
        prompt = (Message(role="user", content=_PROMPTS[number % len(_PROMPTS)]),)
        rows.append(pair.model_copy(update={"id": f"hh-{number:05d}", "prompt": prompt}))
    probability = 1 / (1 + np.exp(-1.6 * quality))
    target = np.where(random.random((pairs, 3)) < probability, 0.5 + random.beta(3, 1.5, (pairs, 3)) / 2, 0.0)
    target = np.where(target == 0, 0.5 - random.beta(3, 1.5, (pairs, 3)) / 2, target)
    target[random.random((pairs, 3)) < [0.25, 0.1, 0.6]] = np.nan
    target[random.random((pairs, 3)) < 0.03] = 0.5
    length = np.array([np.log(len(row.response_a) / len(row.response_b)) for row in rows])
    seen = quality + random.normal(size=(pairs, 3)) * [1.0, 1.3, 1.6]
    scores = 1.3 * (seen * [1.0, 0.8, 0.5] + length[:, None] * [0.5, 0.1, 0.3])
    spread = random.normal(size=(pairs, 2, 5, 3)) * (0.15 + 0.4 * random.random((pairs, 1, 1, 3)))
    source = LabelSource(
        "runs/first", "run", 1.0, pairs, int(np.isfinite(target).sum()), "9f2c51d0", "hhh@6d1e", "judge"
    )
    known = preferences_of(target, rows, objectives=NAMES, sources=(source,))
    raw = raw_of(*scores.T) + np.array([0.3, -0.2, 0.1])
    before = raw_of(*(0.6 * scores + random.normal(size=scores.shape)).T)
    spec = realistic_spec()
    fitted = calibrate_heads(NAMES, raw[:, 0] - raw[:, 1], target, known.weight, known.group)
    spec = spec.model_copy(update={"calibration": fitted})
    weights = np.array([spec.aggregation.weights[name] for name in NAMES])
    evaluation = evaluate_scores(
        known,
        raw,
        spec,
        reward=raw @ weights,
        members=raw[:, :, None] + spread,
        name="heads/hhh",
        resamples=200,
    )
    changes: tuple[Change, ...] = accuracy_changes("runs/first, held out", known, before, raw, spec)
    examples: tuple[ScoredPair, ...] = scored_examples(known, raw, spec, each=each)
    return {
        "spec": spec,
        "evaluation": evaluation,
        "history": history(),
        "examples": examples,
        "changes": changes,
    }


def realistic_spec() -> HeadsSpec:
    """What `rlaif train-heads` may have written."""
    return spec_of(
        NAMES,
        mode="lora",
        members=5,
        max_length=2048,
        chat=True,
        normalization={name: Normalization(mean=0.1, std=1.4) for name in NAMES},
        aggregation=Aggregation(
            weights={"helpfulness": 0.46, "harmlessness": 0.38, "honesty": 0.16},
            origin="learned",
            intervals={"helpfulness": (0.39, 0.53), "harmlessness": (0.3, 0.45), "honesty": (0.09, 0.24)},
            by_tag={"medical": {"helpfulness": 0.3, "harmlessness": 0.3, "honesty": 0.4}},
            floors={"harmlessness": 0.4},
        ),
        metrics={"steps": 640, "pairs_per_second": 41.2},
        provenance={
            "backbone": "Qwen/Qwen3-0.6B",
            "backbone_digest": "sha256:0c57",
            "sources": [{"name": "runs/first", "kind": "run", "weight": 1.0, "pairs": 10240}],
            "training_pairs": 10240,
            "seed": 0,
            "settings": {"epochs": 1, "lr": 2e-4, "batch_tokens": 16384},
            "rlaif": "0.1.0",
            "created": "2026-03-02",
        },
    )


def history(steps: int = 640) -> tuple[TrainingPoint, ...]:
    """Losses that fall as they do: the training's every 10 steps, the held-out ones every 80."""
    random = np.random.default_rng(3)
    points = []
    for step in range(10, steps + 1, 10):
        fall = np.exp(-step / 160)
        loss = {
            name: float(end + (0.693 - end) * fall + 0.012 * random.normal())
            for name, end in zip(NAMES, (0.47, 0.54, 0.6), strict=True)
        }
        held_out = {}
        if step % 80 == 0:
            held_out = {
                name: float(end + (0.693 - end) * fall + 0.00003 * max(step - 400, 0))
                for name, end in zip(NAMES, (0.5, 0.56, 0.615), strict=True)
            }
        points.append(TrainingPoint(step=step, loss=loss, held_out=held_out, learning_rate=2e-4 * (1 - step / steps)))
    return tuple(points)


def small_evaluation() -> Evaluation:
    """Twenty pairs under one objective, 15 of them right."""
    target = np.ones(20)
    return evaluate_scores(preferences_of(target), raw_of([1.0] * 15 + [-1.0] * 5), spec_of(), resamples=50)
