"""The whole loop on a CPU: prompts, responses, labels, reward heads, best-of-n, RL, and where optimising goes wrong.

    python -m examples.full_loop --out demo/loop [--prompts 96] [--samples 8] [--steps 45] [--judge constructed]

Everything is the starter: it answers, and with --judge starter it labels too (slower; the constructed rule of its world
agrees with it nearly always). Each part prints what it found; what is finished is not done again by a second call.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from examples.grpo import print_change, train_policy
from examples.starter_world import (
    MOST_TOKENS,
    Row,
    constructed_labels,
    gold_columns,
    gold_scores,
    in_deviations,
    make_heads,
    make_prompts,
    read_rows,
    sample,
    write_rows,
)
from rlaif import label, train_heads
from rlaif.optimize.best_of_n import best_of_n
from rlaif.optimize.overoptimize import overoptimize
from rlaif.optimize.overoptimize_report import write_report
from rlaif.rewards.spec import Mode
from rlaif.starter.gold import Gold


def judged_heads(samples: list[Row], folder: Path, mode: Mode) -> Path:
    """Heads on the starter judge's own labels, as `rlaif label` and `rlaif train-heads` make them."""
    pairs, _ = constructed_labels(samples, most=2)
    data = write_rows(folder / "pairs.jsonl", pairs)
    # Both orders, since judges favour a place; the constitution's three objectives.
    label(data, folder / "run", judge="starter", engine="transformers")
    train_heads(str(folder / "run"), folder / "heads", mode=mode, ensemble=5, cache=folder / "features")
    return folder / "heads"


def gold_of_picks(prompts: list[Row], heads: Path, out: Path, *, n: int, policy: str | Path = "starter") -> float:
    """Take the best of n samples of each prompt by the heads; how many deviations of gold that gains."""
    data = write_rows(out.with_suffix(".prompts.jsonl"), prompts)
    found = best_of_n(
        data, out, heads=heads, policy=str(policy), n=n, max_tokens=MOST_TOKENS, engine="transformers", pick="weighted"
    )
    picks = gold_scores([{**row, "responses": [row["response"]]} for row in read_rows(out)])
    pool = gold_scores(read_rows(Path(found.candidates)))
    gain = in_deviations(float(np.mean([p[0, 0] - c[:, 0].mean() for p, c in zip(picks, pool, strict=True)])), pool)
    print(f"best of {n} (KL {found.kl:.2f}): the heads' reward rose by {found.reward.gain.mean:.2f} deviations")
    print(f"best of {n}: gold reward rose by {gain:.2f} deviations")
    return gain


def run(
    out: Path,
    *,
    prompts: int = 96,
    samples: int = 8,
    n: int = 16,
    steps: int = 45,
    batch: int = 32,
    measured: int = 8,
    judge: str = "constructed",
    mode: Mode = "full",
) -> dict[str, float]:
    """Do it all; the gains in gold reward, in deviations of it among the policy's samples.

    Args:
        samples: responses a prompt that are labelled.
        n: of best-of-n.
        steps: of GRPO, with `batch` responses each.
        measured: responses to each prompt that is measured, before and after.
        judge: `starter`, or `constructed` for the world's own rule.
        mode: of the heads; `frozen` is quick, and too weak to gain much.
    """
    out.mkdir(parents=True, exist_ok=True)
    training = make_prompts(prompts, "training")
    # Conversations that nothing is trained on.
    fresh = make_prompts(max(prompts // 2, 12), "fresh", but=training)

    # Responses of the policy, and labels of them: what it will say is what the heads have to tell apart.
    drawn = sample("starter", training, out / "samples.jsonl", n=samples)
    heads = judged_heads(drawn, out, mode) if judge == "starter" else make_heads(drawn, out, mode=mode)

    # The cheapest use of a reward, and the upper end of what it can be trusted with: nothing is trained.
    gains = {"best_of_n": gold_of_picks(fresh, heads, out / "best.jsonl", n=n)}

    # The same reward as the aim of training.
    policy = train_policy(heads, training, out / "grpo", steps=steps, batch=batch)
    before = gold_scores(sample("starter", fresh, out / "before.jsonl", n=measured, seed=1))
    after = gold_scores(sample(policy, fresh, out / "after.jsonl", n=measured, seed=1))
    gains["grpo"] = print_change(before, after, Gold.shipped())

    # How far one can go with these heads: proxy and gold over n, and over the distance from the policy.
    found = overoptimize(out / "best.candidates.jsonl", proxy=heads, gold=gold_columns)
    write_report(out / "overoptimize.html", found)
    print(f"{found.advice}\n{out / 'overoptimize.html'} has the curves")
    return gains


def main() -> None:
    """Read the options, and do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--prompts", type=int, default=96)
    parser.add_argument("--samples", type=int, default=8, help="responses a prompt that are labelled")
    parser.add_argument("--n", type=int, default=16)
    parser.add_argument("--steps", type=int, default=45)
    parser.add_argument("--judge", choices=("constructed", "starter"), default="constructed")
    parser.add_argument("--mode", choices=("full", "lora", "frozen"), default="full", help="of the heads")
    given = parser.parse_args()
    run(
        given.out,
        prompts=given.prompts,
        samples=given.samples,
        n=given.n,
        steps=given.steps,
        judge=given.judge,
        mode=given.mode,
    )


if __name__ == "__main__":
    main()
