"""Heads as one reward model: a weighted sum of linear heads is a linear head, so it exports exactly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rlaif.errors import InputError
from rlaif.rewards.folders import replacing_checkpoint
from rlaif.rewards.heads import RewardHeads
from rlaif.rewards.heads_files import check_config, find_folder, saved_dtype
from rlaif.rewards.spec import HeadsSpec, read_spec
from rlaif.types import Frozen
from rlaif.version import __version__

EXPORT_FILE = "rlaif_export.json"
_LABEL = "reward"


class ExportSummary(Frozen):
    """What was exported.

    The reward of the heads is the exported model's score plus `constant`, which is 0 where its head has a bias.
    `notes` say what of the heads' rule a single linear score cannot hold.
    """

    out: str
    heads: str
    weights: Mapping[str, float]
    constant: float
    notes: tuple[str, ...]


def export_reward_model(
    heads: str | Path, out: str | Path, weights: Mapping[str, float] | None = None
) -> ExportSummary:
    """Write a sequence classifier with one label whose score is the weighted reward of the heads.

    reward = sum_k w_k (W_k h + b_k - mean_k) / std_k, so the one head is sum_k w_k W_k / std_k, and the rest is a
    constant: it goes into the head's bias, or is left out where the architecture has none, which changes no comparison
    and no advantage. transformers, TRL, OpenRLHF and vLLM load the folder as any reward model.

    Args:
        heads: their folder or hub id.
        out: a folder that is not there or empty, or an earlier export.
        weights: by objective, made to sum to 1; otherwise those of the checkpoint.

    Raises:
        InputError: bad heads or weights, or `out` holds something else.
        RunError: the disk is full.
    """
    out = Path(out)
    folder = find_folder(str(heads))
    _check_out(folder, out)
    loaded = RewardHeads.load(folder, device="cpu", dtype=saved_dtype(check_config(folder, read_spec(folder))))
    if weights is not None:
        loaded = loaded.with_weights(weights, place="--weights")
    spec = loaded.spec
    head = loaded.backbone.head
    total = {name: spec.aggregation.weights.get(name, 0.0) for name in spec.objectives}
    scale, mean = _folding(spec)
    weight = scale @ head.weight.detach().double()  # (H,)
    offset = float(-(scale @ mean))
    if head.bias is not None:
        offset += float(scale @ head.bias.detach().double())
    one = nn.Linear(head.in_features, 1, bias=head.bias is not None, dtype=head.weight.dtype)
    with torch.no_grad():
        one.weight.copy_(weight[None])
        if head.bias is not None:
            one.bias.fill_(offset)
    model = loaded.backbone.model
    name = next(name for name, module in model.named_modules() if module is head)
    model.set_submodule(name, one)
    # Setting the labels' names sets how many there are.
    model.config.id2label, model.config.label2id = {0: _LABEL}, {_LABEL: 0}
    model.config.problem_type = "regression"
    summary = ExportSummary(
        out=str(out),
        heads=str(heads),
        weights=total,
        constant=0.0 if head.bias is not None else offset,
        notes=_notes(spec),
    )
    with replacing_checkpoint(out) as fresh:
        model.save_pretrained(fresh)
        loaded.backbone.tokenizer.save_pretrained(fresh)
        said = {**summary.model_dump(mode="json", exclude={"out"}), "rlaif": __version__, "format": "reward-model"}
        (fresh / EXPORT_FILE).write_text(json.dumps(said, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        (fresh / "README.md").write_text(_card(summary, said), encoding="utf-8")
    return summary


def _check_out(heads: Path, out: Path) -> None:
    if out.is_file():
        raise InputError(f"--out {out}: a file; expected a folder.")
    if out.exists() and heads.exists() and out.samefile(heads):
        raise InputError(f"--out {out}: the heads themselves; choose another folder.")
    if out.is_dir() and any(out.iterdir()) and not (out / EXPORT_FILE).is_file():
        raise InputError(f"--out {out}: holds other files; choose a folder that is not there, or an earlier export.")


def _folding(spec: HeadsSpec) -> tuple[torch.Tensor, torch.Tensor]:
    """What each objective's raw score is multiplied by, and its mean, (objectives,) each."""
    rules = [spec.normalization[name] for name in spec.objectives]
    weights = [spec.aggregation.weights.get(name, 0.0) for name in spec.objectives]
    scale = torch.tensor([weight / rule.std for weight, rule in zip(weights, rules, strict=True)], dtype=torch.float64)
    return scale, torch.tensor([rule.mean for rule in rules], dtype=torch.float64)


def _notes(spec: HeadsSpec) -> tuple[str, ...]:
    rule = spec.aggregation
    notes = []
    if rule.method == "pareto":
        notes.append("The heads' rule is pareto, which is not linear; exported is the weighted sum of their rewards.")
    if rule.floors:
        floors = ", ".join(f"{name} {floor:g}" for name, floor in rule.floors.items())
        notes.append(f"Floors ({floors}) are not linear and are left out.")
    if rule.by_tag:
        notes.append(f"Weights by tag ({', '.join(rule.by_tag)}) are left out: every prompt has the same weights.")
    if rule.origin == "gated":
        notes.append("Weights by the prompt (the gate) are left out: every prompt has their mean.")
    return tuple(notes)


def _card(summary: ExportSummary, said: Mapping[str, Any]) -> str:
    weights = "\n".join(f"| {name} | {weight:.4g} |" for name, weight in summary.weights.items())
    notes = "".join(f"- {note}\n" for note in summary.notes)
    constant = (
        f"The reward of the heads is this score plus {summary.constant:.6g}; a constant changes no comparison and no "
        "advantage."
        if summary.constant
        else "The score is the reward of the heads."
    )
    return f"""---
library_name: transformers
pipeline_tag: text-classification
tags: [reward-model, rlaif]
---

# One reward of several objectives

A sequence classifier with one label: the weighted sum of normalized reward heads, made by rlaif {said["rlaif"]}.

| objective | weight |
|---|---|
{weights}

{constant}
{notes}
```python
from transformers import AutoModelForSequenceClassification, AutoTokenizer

model = AutoModelForSequenceClassification.from_pretrained(FOLDER)
tokenizer = AutoTokenizer.from_pretrained(FOLDER)
score = model(**tokenizer(text, return_tensors="pt", add_special_tokens=False)).logits[0, 0]
```

`text` is a conversation that ends with the response, through the tokenizer's chat template where it has one. TRL takes
the folder as it is: `GRPOTrainer(reward_funcs=FOLDER, …)`, `RewardTrainer(model=FOLDER, …)`.
"""
