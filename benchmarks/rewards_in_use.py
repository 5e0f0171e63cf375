"""Rewards in use in the starter's world, where what is really wanted is known: what optimising the heads does to it.

    python -m benchmarks.rewards_in_use [--parts best_of_n grpo overoptimization guard] [--folder FOLDER]

The gold reward is the constructed rule (`rlaif.starter.gold`). Heads are on the starter's backbone, and tune it;
those of the weak proxy are frozen ones.

`best_of_n`: heads on constructed labels of the policy's own samples pick one of 16 responses to other prompts.
`grpo`: the same heads are what TRL's GRPO trains the policy for; measured on prompts it was not trained on.
`overoptimization`: a deliberately weak proxy of helpfulness alone, with a planted fault: one careless labeller took
filler for helpful, where gold dislikes filler. Gold is the constructed rule's share for helpfulness, over n, picked by
the mean of the ensemble and by its worst member. Members weigh conversations differently, so that they part over that
labeller's.
`guard`: three objectives that want contrary things, with nearly all weight on one; GRPO plainly, and with the guard.

With `--folder` a call that was stopped goes on where it was: what is sampled or trained is kept there.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import keep, print_table
from benchmarks.heads_world import WANTED
from examples.full_loop import gold_of_picks
from examples.grpo import train_policy
from examples.starter_world import (
    Floats,
    Row,
    constructed_labels,
    gold_columns,
    gold_scores,
    in_deviations,
    make_heads,
    make_prompts,
    sample,
    turns_of,
    write_rows,
)
from rlaif import train_heads
from rlaif.optimize.guard import ParetoGuard
from rlaif.optimize.overoptimize import overoptimize
from rlaif.optimize.overoptimize_report import write_report
from rlaif.optimize.reference import measure_reference
from rlaif.rewards.heads import RewardHeads
from rlaif.starter.gold import Gold
from rlaif.starter.judging import Principle
from rlaif.starter.mending import mended
from rlaif.starter.responses import kinds_of, make_pair, make_response
from rlaif.starter.scenes import make_scene
from rlaif.starter.world import World
from rlaif.types import Message

LEAST_GAIN, TOLERANCE = 0.5, 0.2
MISLED = "helpfulness"
FAVOURED = "service"
# Nearly all weight on one objective, which wants what the others do not.
FAVOURING = {"service": 0.9, "safety": 0.05, "economy": 0.05}
CONTRARY = Gold(
    {name: tuple(Principle(*one) for one in wanted) for name, wanted in WANTED.items()},
    dict.fromkeys(WANTED, 1 / len(WANTED)),
)


def say(line: str) -> None:
    """Tell how far it is, apart from the tables."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def shared_heads(given: argparse.Namespace, folder: Path) -> tuple[list[Row], Path]:
    """The training prompts, and heads on constructed labels of the policy's samples of them."""
    prompts = make_prompts(given.prompts, "training")
    if given.heads:
        return prompts, given.heads
    say(f"sampling {8 * len(prompts)} responses to label")
    drawn = sample("starter", prompts, folder / "samples.jsonl", n=8)
    say("heads")
    return prompts, make_heads(drawn, folder)


def gain_of(before: Sequence[Floats], after: Sequence[Floats]) -> tuple[float, float]:
    """Gain of the gold reward in deviations among the samples before, and its standard error over prompts."""
    change = np.array([b[:, 0].mean() - a[:, 0].mean() for a, b in zip(before, after, strict=True)])
    error = float(change.std(ddof=1) / len(change) ** 0.5)
    return in_deviations(float(change.mean()), before), in_deviations(error, before)


def best_of_n_part(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Best of 16; prints, and returns the figures."""
    prompts, heads = shared_heads(given, folder)
    fresh = make_prompts(given.held_out, "fresh", but=prompts)
    gain = gold_of_picks(fresh, heads, folder / "best.jsonl", n=16)
    return {"gain": gain, "prompts": len(fresh), "bar": LEAST_GAIN, "reached": gain >= LEAST_GAIN}


def grpo_part(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """GRPO; prints, and returns the figures."""
    prompts, heads = shared_heads(given, folder)
    fresh = make_prompts(given.held_out, "fresh", but=prompts)
    say("GRPO")
    out = folder / f"grpo-{given.steps}-{given.lr:g}-{given.beta:g}-{given.grpo_prompts}"
    own = make_prompts(given.grpo_prompts, "rl", but=[*prompts, *fresh])

    def train(out: Path) -> Path:
        return train_policy(heads, own or prompts, out, steps=given.steps, lr=given.lr, beta=given.beta)

    policy = trained(out, train)
    figures: dict[str, Any] = {}
    # The settings were chosen by what they do on the first prompts; the others are to confirm it.
    others = make_prompts(2 * given.held_out, "confirm", but=[*prompts, *fresh, *own])
    for rows, name, key in ((fresh, "", ""), (others, "confirm-", "confirmed_")):
        before = gold_scores(sample("starter", rows, folder / f"{name}before.jsonl", n=8, seed=1))
        after = gold_scores(sample(policy, rows, out / f"{name}after.jsonl", n=8, seed=1))
        gain, error = gain_of(before, after)
        print(
            f"\nGRPO, {given.steps} steps, {len(rows)} prompts: gold reward rose by {gain:.2f} deviations "
            f"(standard error {error:.2f})"
        )
        figures |= {f"{key}gain": gain, f"{key}error": error}
    figures |= {"steps": given.steps, "lr": given.lr, "beta": given.beta, "prompts": len(own or prompts)}
    return {**figures, "bar": LEAST_GAIN, "reached": min(figures["gain"], figures["confirmed_gain"]) >= LEAST_GAIN}


def trained(out: Path, train: Callable[[Path], Path]) -> Path:
    """The policy that was trained into a folder, or is now."""
    return out / "policy" if (out / "policy" / "config.json").exists() else train(out)


def careless_labels(conversations: int, pairs: int) -> tuple[list[Row], list[Row]]:
    """A labeller who in each of a few conversations takes the response with filler for the more helpful one."""
    world = World("train", random.Random("careless"))
    rows: list[Row] = []
    labels: list[Row] = []
    for number in range(conversations):
        scene = make_scene(world, ("advice", "fact", "guard", "risk")[number % 4])
        for place in range(pairs):
            plain = make_response(world, scene, world.rng.choice(list(scene.cores)), frozenset())
            filled = mended(world, scene, plain, Principle("padding", present=True))
            assert filled is not None, "these scenes' responses take filler"
            name = f"careless-{number}-{place}"
            prompt = [turn.model_dump() for turn in scene.prompt]
            rows.append({"id": name, "prompt": prompt, "response_a": filled.text, "response_b": plain.text})
            labels.append({"id": name, "annotator": "careless", "objective": "helpfulness", "preference": "a"})
    return rows, labels


def weak_proxy(
    heads: Path, drawn: Sequence[Row], folder: Path, *, careless: int, per_conversation: int, pairs: int
) -> Path:
    """A head of helpfulness on the backbone of others, from few constructed labels and the careless labeller's."""
    honest = constructed_labels(drawn, most=pairs)
    planted = careless_labels(careless, per_conversation)
    sources = []
    for name, (rows, labels) in (("honest", honest), ("careless", planted)):
        data = write_rows(folder / f"{name}-pairs.jsonl", rows), write_rows(folder / f"{name}-labels.jsonl", labels)
        sources.append("+".join(map(str, data)))
    train_heads(
        sources,
        folder / "heads",
        init_from=heads,
        mode="frozen",
        ensemble=5,
        objectives=(MISLED,),
        cache=folder / "features",
    )
    return folder / "heads"


def gold_of_misled(prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> list[float]:
    """What the weak proxy should give."""
    return gold_columns(prompts, responses)[MISLED]


def overoptimization_part(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Proxy and gold of a weak proxy over n; prints, and returns the figures."""
    prompts, sound = shared_heads(given, folder)
    few = sample("starter", prompts, folder / "samples.jsonl", n=8)[: given.weak_prompts]
    heads = weak_proxy(
        sound,
        few,
        folder / "weak",
        careless=given.careless,
        per_conversation=given.careless_pairs,
        pairs=given.weak_pairs,
    )
    pool = folder / "pool.jsonl"
    say(f"sampling {given.pool_prompts} x {given.pool} responses")
    sample("starter", make_prompts(given.pool_prompts, "pool", but=prompts), pool, n=given.pool)
    found = overoptimize(pool, proxy=heads, gold=gold_of_misled, rules=["weighted", "worst-member", "lower-bound"])
    write_report(folder / "overoptimize.html", found)
    rows = []
    figures: dict[str, Any] = {"advice": found.advice, "gamed": found.gamed, "gold_std": found.gold_std}
    for rule in found.rules:
        figures[rule.rule] = rule.model_dump(mode="json", exclude={"points"}) | {
            "gold": {point.n: round(point.gold, 3) for point in rule.points}
        }
        peak = f"{rule.peak.n:.1f}" if rule.peak else "none"
        rows.append((rule.rule, peak, rule.best_n, f"{rule.stop_gold:.2f}", f"{rule.fall:.2f}", rule.course))
    print(
        f"\nweak proxy, {found.prompts} prompts with {found.max_n} responses each; gold in deviations within a prompt"
    )
    print_table(("rule", "n at the fitted peak", "n measured best", "gold there", "falls by", "course"), rows)
    print(found.advice)
    weighted, worst = found.rules[:2]
    later = worst.peak is None or (weighted.peak is not None and worst.peak.n > weighted.peak.n)
    figures["reached"] = weighted.course == "falls" and later
    return figures


def made_pairs(count: int, gold: Gold) -> list[Row]:
    """Two made responses to each of so many prompts of the world, for features that the policy seldom shows."""
    world = World("train", random.Random("contrary"))
    families = sorted({one.family for wanted in gold.principles.values() for one in wanted})
    rows = []
    for number in range(count):
        family = families[number % len(families)]
        pair = make_pair(world, family, world.rng.choice(kinds_of(family)))
        prompt = [turn.model_dump() for turn in pair.scene.prompt]
        rows.append({"id": f"contrary-{number:04}", "prompt": prompt, "responses": [pair.a.text, pair.b.text]})
    return rows


def guard_part(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Plain weighting and the guard where the weights favour one objective; prints, and returns the figures."""
    prompts = make_prompts(given.prompts, "training")
    drawn = sample("starter", prompts, folder / "samples.jsonl", n=8)
    say("heads of contrary objectives")
    labelled = [*drawn, *made_pairs(300, CONTRARY)]
    heads = make_heads(labelled, folder / "contrary", CONTRARY, epochs=3, most=8)
    loaded = RewardHeads.load(heads)
    names = loaded.spec.objectives
    reference = measure_reference(
        loaded, [turns_of(row["prompt"]) for row in drawn], [row["responses"] for row in drawn]
    )
    fresh = make_prompts(given.held_out, "fresh", but=prompts)
    before = sample("starter", fresh, folder / "before.jsonl", n=8, seed=1)
    ways: dict[str, dict[str, dict[str, float]]] = {}
    for way, guard in (("plain", None), ("guard", ParetoGuard(TOLERANCE, reference))):
        say(f"GRPO for {FAVOURED}: {way}")

        def train(out: Path, guard: ParetoGuard | None = guard) -> Path:
            return train_policy(heads, prompts, out, steps=given.guard_steps, beta=0.1, weights=FAVOURING, guard=guard)

        policy = trained(folder / f"favoured-{way}", train)
        after = sample(policy, fresh, folder / f"favoured-{way}.jsonl", n=8, seed=1)
        ways[way] = {"proxy": proxy_changes(loaded, before, after), "gold": gold_changes(before, after)}
    rows = [
        (way, kind, *(f"{changes[name]:+.2f}" for name in names))
        for way, both in ways.items()
        for kind, changes in both.items()
    ]
    print(f"\nweights {dict(FAVOURING)}: changes in deviations after {given.guard_steps} steps, tolerance {TOLERANCE}")
    print_table(("training", "reward", *names), rows)
    least = {way: min(both["proxy"].values()) for way, both in ways.items()}
    reached = least["plain"] < -TOLERANCE <= least["guard"]
    figures = {"weights": dict(FAVOURING), "ways": ways, "tolerance": TOLERANCE, "steps": given.guard_steps}
    return {**figures, "reached": reached}


def proxy_changes(heads: RewardHeads, before: Sequence[Row], after: Sequence[Row]) -> dict[str, float]:
    """Change of the heads' mean rewards, in their deviations."""
    means = []
    for rows in (before, after):
        prompts = [turns_of(row["prompt"]) for row in rows for _ in row["responses"]]
        scores = heads.score(prompts, [text for row in rows for text in row["responses"]])
        means.append({name: float(np.mean([one.rewards[name] for one in scores])) for name in heads.spec.objectives})
    return {name: means[1][name] - means[0][name] for name in heads.spec.objectives}


def gold_changes(before: Sequence[Row], after: Sequence[Row]) -> dict[str, float]:
    """Change of the constructed rule's shares, in deviations among the samples before."""
    first, last = (np.concatenate(gold_scores(rows, CONTRARY))[:, 1:] for rows in (before, after))
    change = (last.mean(axis=0) - first.mean(axis=0)) / first.std(axis=0)
    return dict(zip(CONTRARY.principles, change.tolist(), strict=True))


PARTS: Mapping[str, Callable[[argparse.Namespace, Path], dict[str, Any]]] = {
    "best_of_n": best_of_n_part,
    "grpo": grpo_part,
    "overoptimization": overoptimization_part,
    "guard": guard_part,
}


def main() -> None:
    """Run the parts asked for; figures of the others stay as they were."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=tuple(PARTS), default=list(PARTS))
    parser.add_argument("--folder", type=Path, help="kept, and gone on from (a temporary one)")
    parser.add_argument("--heads", type=Path, help="sound heads of the shipped objectives (made here)")
    parser.add_argument("--prompts", type=int, default=96)
    parser.add_argument("--held-out", type=int, default=48)
    parser.add_argument("--steps", type=int, default=100, help="of GRPO")
    parser.add_argument("--lr", type=float, default=2e-4, help="of GRPO")
    parser.add_argument("--beta", type=float, default=0.25, help="of GRPO: what a nat from the first policy costs")
    parser.add_argument(
        "--grpo-prompts", type=int, default=400, help="of GRPO, other than those of the heads; 0 for those"
    )
    parser.add_argument("--guard-steps", type=int, default=30)
    parser.add_argument("--weak-prompts", type=int, default=96)
    parser.add_argument("--weak-pairs", type=int, default=2, help="honest pairs of each of them")
    parser.add_argument("--careless", type=int, default=20, help="conversations of the careless labeller")
    parser.add_argument("--careless-pairs", type=int, default=8, help="pairs of each of them")
    parser.add_argument("--pool-prompts", type=int, default=48)
    parser.add_argument("--pool", type=int, default=128, help="responses to each of them")
    given = parser.parse_args()
    kept = Path(__file__).parent / "results" / "rewards_in_use.json"
    figures: dict[str, Any] = json.loads(kept.read_text())["figures"] if kept.exists() else {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for part in given.parts:
            figures[part] = PARTS[part](given, folder)
            keep("rewards_in_use", figures)
            print(f"{part}: {'reached' if figures[part]['reached'] else 'not reached'}")


if __name__ == "__main__":
    main()
