"""How a backbone is fine-tuned with its heads: our options, and transformers' that follow from them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from transformers import TrainingArguments

from rlaif.rewards.model import Backbone
from rlaif.rewards.pareto_training import Aggregator
from rlaif.rewards.spec import Method, Precision
from rlaif.types import Frozen

TunedMode = Literal["lora", "full"]
# Rates by how many parameters a backbone has: small ones learn nothing at the rates that large ones need.
_FULL_RATES = ((1e8, 5e-5), (1e9, 2e-5), (float("inf"), 1e-5))
_LORA_RATE = 2e-4
_HEAD_RATE = 10.0
_SLOPE_RATE = 1e-2


class FinetuneSettings(Frozen):
    """How to train.

    Attributes:
        aggregate: `weighted` adds the objectives' losses up, each label counting its weight; `pareto` gives every
            objective the same part and resolves their conflicts on the shared backbone.
        aggregator: how conflicts are resolved.
        members: of the ensemble. Each has a head of its own from the start, and its own weights of the conversations
            (Bayesian bootstrap); the checkpoint's head is their mean, which is what is measured.
        epochs: how often every pair is seen; a fraction is a part of the last.
        lr: peak rate of the backbone, or of the adapters; by default 2e-4 for adapters, and 5e-5, 2e-5 or 1e-5 for a
            backbone of under 0.1, under 1 or more billion parameters. It rises over `warmup` and then falls to 0.
        head_lr: that of the heads; ten times `lr` by default.
        batch_tokens: of one batch on one device, padding counted.
        accumulate: batches of one device in a step.
        precision: `bfloat16` computes in it and keeps the weights in float32.
        gradient_checkpointing: computes what lies inside a layer twice, to keep less of it.
        dropout: as the model has it. Without it, the default, fewer things move the result.
        lora_rank: of the adapters; their alpha is twice it.
        warmup: part of the steps.
        evaluations: how often held-out pairs are measured an epoch.
        patience: measurements without a new best after which training stops; 0 for never.
        save_steps: steps between checkpoints.
    """

    aggregate: Method = "weighted"
    aggregator: Aggregator = "upgrad"
    members: int = Field(default=1, ge=1)
    epochs: float = Field(default=2.0, gt=0)
    lr: float | None = Field(default=None, gt=0)
    head_lr: float | None = Field(default=None, gt=0)
    batch_tokens: int = Field(default=8192, ge=1)
    accumulate: int = Field(default=1, ge=1)
    precision: Precision = "float32"
    gradient_checkpointing: bool = False
    dropout: bool = False
    lora_rank: int = Field(default=16, ge=1)
    weight_decay: float = Field(default=0.01, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    warmup: float = Field(default=0.05, ge=0, lt=1)
    evaluations: int = Field(default=2, ge=1)
    patience: int = Field(default=4, ge=0)
    save_steps: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)


def learning_rates(backbone: Backbone, mode: TunedMode, settings: FinetuneSettings) -> dict[str, float]:
    """Peak rates of `backbone`, `heads` and the length's `slope`."""
    size = sum(each.numel() for each in backbone.model.parameters())
    full = next(rate for limit, rate in _FULL_RATES if size < limit)
    rate = settings.lr or (_LORA_RATE if mode == "lora" else full)
    return {"backbone": rate, "heads": settings.head_lr or _HEAD_RATE * rate, "slope": _SLOPE_RATE}


def training_arguments(settings: FinetuneSettings, folder: Path, device_type: str, rate: float) -> TrainingArguments:
    """transformers' options: steps and warm-up are set once the batches are planned."""
    # What is logged, measured and saved when is told by the marks, so the Trainer's own intervals are off.
    arguments = TrainingArguments(
        output_dir=str(folder),
        learning_rate=rate,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        gradient_accumulation_steps=settings.accumulate,
        bf16=settings.precision == "bfloat16",
        use_cpu=device_type == "cpu",
        seed=settings.seed,
        eval_strategy="no",
        save_strategy="no",
        logging_strategy="no",
        logging_nan_inf_filter=False,
        remove_unused_columns=False,
        report_to=[],
        disable_tqdm=True,
        log_level="error",
        accelerator_config={"even_batches": False},
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=device_type == "cuda",
    )
    if arguments.n_gpu > 1:
        # One process computes on one GPU; DataParallel cannot split a packed batch.
        arguments._n_gpu = 1
    return arguments
