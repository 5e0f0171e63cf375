"""Train the starter's policy with reward heads, through TRL's GRPO, and see what becomes of what is really wanted.

    python -m examples.grpo --out demo/grpo [--prompts 96] [--steps 45] [--heads HEADS] [--guard 0.2]

Without --heads they are made here: the policy's own responses, labelled by the constructed rule of its small world. The
rule is the gold reward too, so the figures at the end tell whether the heads, which saw only some labels, were worth
optimising. With a policy of your own, `train_policy` is all you need.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from examples.starter_world import Floats, Row, gold_scores, in_deviations, make_heads, make_prompts, sample
from rlaif.starter import checkpoint
from rlaif.starter.gold import Gold


def train_policy(
    heads: Path,
    prompts: Sequence[Row],
    out: Path,
    *,
    steps: int,
    policy: str | Path | None = None,
    weights: Mapping[str, float] | None = None,
    guard: Any = None,
    lr: float = 1e-4,
    beta: float = 0.4,
    batch: int = 32,
    seed: int = 0,
) -> Path:
    """Train a policy to raise the heads' rewards; writes it to a folder, for `rlaif generate --policy FOLDER`.

    Args:
        weights: of the objectives; those of the heads where none are given.
        guard: a `ParetoGuard`, so that no objective falls while another rises.
        beta: of the penalty on the distance from the policy that training begins with.
        batch: responses a step, eight to a prompt.
    """
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    from rlaif.trl import reward_functions

    source = str(policy or checkpoint())
    # One function an objective: TRL logs each mean, and weighs them with reward_weights.
    rewards = reward_functions(heads, weights=weights, guard=guard)
    on_gpu = torch.cuda.is_available()
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32),
        processing_class=AutoTokenizer.from_pretrained(source),
        reward_funcs=list(rewards),
        train_dataset=Dataset.from_list([{"prompt": row["prompt"]} for row in prompts]),
        args=GRPOConfig(
            output_dir=str(out / "trainer"),
            reward_weights=rewards.weights,
            max_steps=steps,
            learning_rate=lr,
            lr_scheduler_type="constant_with_warmup",
            warmup_steps=3,
            per_device_train_batch_size=batch,
            num_generations=8,
            # As sampled elsewhere: what is measured is what was trained.
            max_completion_length=64,
            temperature=1.0,
            # What a nat of distance from the first policy costs, in deviations of the reward within a group. With none
            # the policy soon writes what no head has ever read, and the rewards mean nothing there.
            beta=beta,
            bf16=on_gpu,
            use_cpu=not on_gpu,
            gradient_checkpointing=False,
            # On a CPU a cache that is not copied at each token halves the time.
            generation_kwargs={"cache_implementation": "static"},
            logging_steps=5,
            save_strategy="no",
            report_to="none",
            seed=seed,
        ),
    )
    trainer.train()
    trainer.save_model(str(out / "policy"))
    return out / "policy"


def print_change(before: Sequence[Floats], after: Sequence[Floats], gold: Gold) -> float:
    """Print what the gold reward and its parts were and are; returns the reward's change in deviations."""
    first, last = (np.concatenate([each.mean(axis=0, keepdims=True) for each in one]) for one in (before, after))
    for place, name in enumerate(("gold reward", *gold.principles)):
        print(f"{name:<14} {first[:, place].mean():.3f} -> {last[:, place].mean():.3f}")
    # Prompts are the unit: responses to one prompt are alike.
    change = last[:, 0] - first[:, 0]
    error = change.std(ddof=1) / len(change) ** 0.5
    gain = in_deviations(change.mean(), before)
    print(f"gold reward rose by {gain:.2f} deviations (standard error {in_deviations(error, before):.2f})")
    return gain


def main() -> None:
    """Read the options, and do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--heads", type=Path, help="heads to optimise (made here where none are given)")
    parser.add_argument("--prompts", type=int, default=96)
    parser.add_argument("--steps", type=int, default=45)
    parser.add_argument("--guard", type=float, help="how far an objective may fall, in standard deviations")
    given = parser.parse_args()
    prompts = make_prompts(given.prompts, "training")
    # Conversations that are not trained on.
    fresh = make_prompts(max(given.prompts // 2, 12), "fresh", but=prompts)
    samples = sample("starter", prompts, given.out / "samples.jsonl", n=8)
    heads = given.heads or make_heads(samples, given.out)
    guard = None
    if given.guard is not None:
        from rlaif.optimize.guard import ParetoGuard
        from rlaif.optimize.reference import measure_reference
        from rlaif.rewards.heads import RewardHeads

        # What must not fall: the rewards of the policy as it is.
        reference = measure_reference(
            RewardHeads.load(heads), [row["prompt"] for row in samples], [row["responses"] for row in samples]
        )
        guard = ParetoGuard(given.guard, reference)
    policy = train_policy(heads, prompts, given.out, steps=given.steps, guard=guard)
    before = gold_scores(sample("starter", fresh, given.out / "before.jsonl", n=8, seed=1))
    after = gold_scores(sample(policy, fresh, given.out / "after.jsonl", n=8, seed=1))
    print_change(before, after, Gold.shipped())


if __name__ == "__main__":
    main()
