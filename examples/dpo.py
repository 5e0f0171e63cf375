"""Train the starter's policy by DPO on pairs that reward heads picked from its own responses.

    python -m examples.dpo --out demo/dpo [--prompts 96] [--steps 60] [--heads HEADS]

No reward is asked for while it trains: of each prompt's responses the heads' best is preferred to their worst, once.
That is less than GRPO can do, and a fraction of its cost. Where a judge has labelled pairs already, `rlaif export RUN
--format dpo` writes them as they are needed here, and no heads are.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from examples.grpo import print_change
from examples.starter_world import Row, gold_scores, make_heads, make_prompts, sample, turns_of
from rlaif.rewards.heads import RewardHeads
from rlaif.starter import checkpoint
from rlaif.starter.gold import Gold


def best_and_worst(heads: Path, samples: Sequence[Row], pairs: int = 2) -> list[Row]:
    """Of each prompt's responses the best with the worst, the second best with the second worst, and so on.

    In TRL's conversational form: `prompt`, `chosen` and `rejected` are lists of messages.
    """
    loaded = RewardHeads.load(heads)
    rows: list[Row] = []
    for row in samples:
        responses = list(dict.fromkeys(row["responses"]))
        scores = loaded.score([turns_of(row["prompt"])] * len(responses), responses)
        order = np.argsort([-one.reward for one in scores])
        for place in range(min(pairs, len(order) // 2)):
            sides = {"chosen": responses[order[place]], "rejected": responses[order[-1 - place]]}
            turns = {name: [{"role": "assistant", "content": text}] for name, text in sides.items()}
            rows.append({"prompt": row["prompt"], **turns})
    return rows


def train_policy(
    pairs: Sequence[Row], out: Path, *, steps: int, lr: float = 2e-4, batch: int = 16, seed: int = 0
) -> Path:
    """Train the starter on pairs; writes the policy to a folder, for `rlaif generate --policy FOLDER`."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    on_gpu = torch.cuda.is_available()
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(checkpoint(), dtype=torch.float32),
        processing_class=AutoTokenizer.from_pretrained(checkpoint()),
        train_dataset=Dataset.from_list(list(pairs)),
        args=DPOConfig(
            output_dir=str(out / "trainer"),
            # How dear it is to part from the policy that one begins with.
            beta=0.1,
            max_steps=steps,
            learning_rate=lr,
            lr_scheduler_type="constant_with_warmup",
            warmup_steps=3,
            per_device_train_batch_size=batch,
            bf16=on_gpu,
            use_cpu=not on_gpu,
            gradient_checkpointing=False,
            logging_steps=10,
            save_strategy="no",
            report_to="none",
            seed=seed,
        ),
    )
    trainer.train()
    trainer.save_model(str(out / "policy"))
    return out / "policy"


def main() -> None:
    """Read the options, and do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--heads", type=Path, help="heads that pick (made here where none are given)")
    parser.add_argument("--prompts", type=int, default=96)
    parser.add_argument("--steps", type=int, default=60)
    given = parser.parse_args()
    prompts = make_prompts(given.prompts, "training")
    fresh = make_prompts(max(given.prompts // 2, 12), "fresh", but=prompts)
    samples = sample("starter", prompts, given.out / "samples.jsonl", n=8)
    heads = given.heads or make_heads(samples, given.out)
    pairs = best_and_worst(heads, samples)
    print(f"{len(pairs)} pairs of {len(prompts)} prompts")
    policy = train_policy(pairs, given.out, steps=given.steps)
    before = gold_scores(sample("starter", fresh, given.out / "before.jsonl", n=8, seed=1))
    after = gold_scores(sample(policy, fresh, given.out / "after.jsonl", n=8, seed=1))
    print_change(before, after, Gold.shipped())


if __name__ == "__main__":
    main()
