"""`rlaif train-heads`: labels to an ordinary checkpoint with one calibrated score an objective."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import ValidationError

from rlaif.errors import InputError
from rlaif.labeling.manifest import changed_settings, library_versions
from rlaif.rewards.calibrate import calibrate_heads, normalize_heads
from rlaif.rewards.card import write_card
from rlaif.rewards.combine import Combined, combine, overall_rewards
from rlaif.rewards.evaluate import evaluate_scores, scored_examples
from rlaif.rewards.evaluation import Change, Evaluation, TrainingPoint, training_points
from rlaif.rewards.features import default_cache, read_or_make_features
from rlaif.rewards.finetune import FinetuneSettings, finetune
from rlaif.rewards.finetune import Progress as Step
from rlaif.rewards.forgetting import forgotten
from rlaif.rewards.forward import default_budget
from rlaif.rewards.frozen import solve_heads
from rlaif.rewards.heads import save_heads
from rlaif.rewards.model import Backbone, load_backbone
from rlaif.rewards.preferences import Floats, Preferences
from rlaif.rewards.report import write_report
from rlaif.rewards.scoring_model import EncodedPreferences, scores_of
from rlaif.rewards.settings import HeadsSettings
from rlaif.rewards.source_labels import Confidence
from rlaif.rewards.spec import SPEC_FILE, HeadsSpec, Method, Mode, Precision, read_spec
from rlaif.rewards.start import Start, solve_start
from rlaif.rewards.train_data import TrainingData, read_training_data
from rlaif.types import Frozen
from rlaif.version import __version__

Progress = Callable[[str], None]
_UNFINISHED = "training"
_REPORT = "report.html"


class TrainSummary(Frozen):
    """What was trained, and how good it is on what was held out.

    `evaluation` is `None` where nothing was held out. `forgotten` compares with the heads that it went on from, on
    their own held-out pairs. `finished_before` tells that the same call had ended before and nothing was done.
    """

    out: str
    objectives: tuple[str, ...]
    mode: Mode
    members: int
    pairs: int
    held_out_pairs: int
    evaluation: Evaluation | None
    forgotten: tuple[Change, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float
    finished_before: bool = False


@dataclass
class _Learned:
    """Heads, (objectives, members, width), raw scores by them, and what is told of the training.

    `training` and `held_out` are scores of both responses by member, (pairs, 2, objectives, members). Of several
    processes that train together `main` is the one that writes.
    """

    heads: Floats
    training: Floats
    held_out: Floats
    history: tuple[TrainingPoint, ...] = ()
    metrics: dict[str, Any] = field(default_factory=dict)
    main: bool = True


def train_heads(
    labels: str | Sequence[str],
    out: str | Path,
    *,
    backbone: str = "starter",
    mode: Mode = "frozen",
    aggregate: Method | None = None,
    constitution: str | Path | None = None,
    objectives: Sequence[str] = (),
    ensemble: int = 5,
    epochs: float | None = None,
    lr: float | None = None,
    batch_tokens: int | None = None,
    accumulate: int = 1,
    precision: Precision | None = None,
    max_length: int | None = None,
    held_out: str | float = 0.1,
    init_from: str | Path | None = None,
    length_control: bool = False,
    learn_weights: str | None = None,
    gate: bool = False,
    confidence: Confidence = "none",
    seed: int = 0,
    device: Literal["cpu", "cuda"] | None = None,
    cache: str | Path | None = None,
    columns: Mapping[str, str] | str | None = None,
    progress: Progress | None = None,
) -> TrainSummary:
    """Train one reward head an objective on a shared backbone, as `rlaif train-heads` does.

    Writes to `out` a checkpoint that transformers and vLLM load as they are, `rlaif.json`, the ensemble's members, a
    model card and `report.html`. The same call again continues a training that was killed, or finds it finished.

    Args:
        labels: sources, `PATH[+LABELS][:OBJECTIVES][@WEIGHT]`; see `rlaif.rewards.sources`.
        held_out: a fraction of the conversations, or a source of labels.
        progress: takes a line now and then.

    The other options are those of `HeadsSettings`.

    Raises:
        InputError: bad input, or `out` holds other heads.
        RunError: the training, the disk or the memory failed; the same call continues.
    """
    from rlaif.data.pairs import parse_columns

    try:
        settings = HeadsSettings(
            labels=(labels,) if isinstance(labels, str) else tuple(labels),
            out=Path(out),
            backbone=backbone,
            mode=mode,
            aggregate=aggregate,
            constitution=None if constitution is None else str(constitution),
            objectives=tuple(objectives),
            ensemble=ensemble,
            epochs=epochs,
            lr=lr,
            batch_tokens=batch_tokens,
            accumulate=accumulate,
            precision=precision,
            max_length=max_length,
            held_out=str(held_out),
            init_from=None if init_from is None else Path(init_from),
            length_control=length_control,
            learn_weights=learn_weights,
            gate=gate,
            confidence=confidence,
            seed=seed,
            device=device,
            cache=None if cache is None else Path(cache),
            columns=parse_columns(columns) if isinstance(columns, str) else dict(columns or {}),
        )
    except ValidationError as errors:
        first = errors.errors()[0]
        raise InputError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}; give another value.") from None
    return _Training(settings, progress or (lambda line: None)).run()


class _Training:
    def __init__(self, settings: HeadsSettings, tell: Progress) -> None:
        self.settings, self.tell = settings, tell
        self.began = time.monotonic()
        self.data: TrainingData = read_training_data(settings)
        device = settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
        if device == "cuda" and "LOCAL_RANK" in os.environ:
            # Of several processes each has a GPU.
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        name = settings.backbone if settings.init_from is None else str(settings.init_from)
        self.backbone: Backbone = load_backbone(
            name,
            self.data.objectives,
            max_length=settings.max_length,
            device=torch.device(device),
            dtype=torch.bfloat16 if device == "cuda" and settings.mode == "lora" else torch.float32,
            seed=settings.seed,
        )
        self.cache = settings.cache or default_cache()
        self.budget = settings.batch_tokens or default_budget(self.backbone.device)
        self.deciding = {
            **settings.deciding(),
            **self.data.digests,
            "objectives": list(self.data.objectives),
            "backbone_digest": self.backbone.digest,
            "max_length": self.backbone.encoder.max_length,
            "rlaif": __version__,
        }
        if settings.init_from is not None and settings.mode != "frozen":
            self.deciding["init_from"] = self.backbone.head_digest

    def run(self) -> TrainSummary:
        s, data = self.settings, self.data
        before = _finished(s.out, self.deciding)
        if before is not None:
            return before
        encoded = self._encoded(data.training), self._encoded(data.held_out)
        self.tell(f"{len(data.training):,} pairs to train on, {len(data.held_out):,} held out")
        learned = self._frozen(*encoded) if s.mode == "frozen" else self._tuned(*encoded)
        names = data.objectives
        raw = learned.training.mean(axis=3)
        normalization = normalize_heads(names, raw.reshape(-1, len(names)))
        held = learned.held_out.mean(axis=3)
        calibration = calibrate_heads(
            names, held[:, 0] - held[:, 1], data.held_out.target, data.held_out.weight, data.held_out.group
        )
        combined = combine(s, data, self.backbone, learned.heads.mean(axis=1), normalization, budget=self.budget)
        spec = HeadsSpec(
            objectives=names,
            mode=s.mode,
            members=s.ensemble,
            max_length=self.backbone.encoder.max_length,
            chat=self.backbone.encoder.chat,
            calibration=calibration,
            normalization=normalization,
            aggregation=combined.rule,
            provenance=self._provenance(),
        )
        evaluation = None
        if len(data.held_out):
            members = np.moveaxis(learned.held_out, 3, 2) if s.ensemble > 1 else None
            reward = overall_rewards(data.held_out, held, spec, self.backbone, combined.gate, budget=self.budget)
            evaluation = evaluate_scores(
                data.held_out, held, spec, reward=reward, members=members, name=str(s.out), seed=s.seed
            )
        return self._saved(learned, combined, spec, evaluation, held)

    def _saved(
        self, learned: _Learned, combined: Combined, spec: HeadsSpec, evaluation: Evaluation | None, held: Floats
    ) -> TrainSummary:
        s, data = self.settings, self.data
        changes: tuple[Change, ...] = ()
        notes = [*data.notes, *combined.notes]
        if s.init_from is not None:
            self.tell("measuring what was forgotten")
            changes, found = forgotten(s.init_from, self.backbone, learned.heads, self.budget)
            notes += found
        if self.backbone.encoder.truncated:
            notes.append(
                f"{self.backbone.encoder.truncated:,} conversations are longer than {spec.max_length:,} tokens and "
                "were cut at their beginning; --max-length sets another limit."
            )
        summary = TrainSummary(
            out=str(s.out),
            objectives=spec.objectives,
            mode=s.mode,
            members=s.ensemble,
            pairs=len(data.training),
            held_out_pairs=len(data.held_out),
            evaluation=evaluation,
            forgotten=changes,
            notes=tuple(notes),
            seconds=round(time.monotonic() - self.began, 1),
        )
        if not learned.main:
            return summary
        metrics = {**learned.metrics, **combined.metrics, "summary": summary.model_dump(mode="json", exclude={"out"})}
        spec = spec.model_copy(update={"metrics": metrics})
        examples = scored_examples(data.held_out, held, spec) if evaluation is not None else ()
        save_heads(s.out, self.backbone, learned.heads, spec, gate=combined.gate)
        write_card(s.out, spec, evaluation, changes)
        write_report(s.out / _REPORT, spec, evaluation, learned.history, examples, changes)
        shutil.rmtree(s.out / _UNFINISHED, ignore_errors=True)
        return summary

    def _encoded(self, preferences: Preferences) -> EncodedPreferences:
        pairs = self.backbone.encoder.pairs(preferences.pairs)
        length = None
        if self.settings.length_control:
            length = np.array([math.log1p(len(pair.a)) - math.log1p(len(pair.b)) for pair in pairs], dtype=np.float64)
        return EncodedPreferences(
            preferences.objectives, pairs, preferences.target, preferences.weight, preferences.group, length
        )

    def _frozen(self, training: EncodedPreferences, held_out: EncodedPreferences) -> _Learned:
        s = self.settings
        self.tell("features")
        tables = [
            read_or_make_features(self.backbone, data.pairs, cache=self.cache, batch_tokens=self.budget)
            for data in (training, held_out)
        ]
        self.tell("solving the heads")
        solved = solve_heads(
            tables[0].difference,
            training.target,
            training.weight,
            members=s.ensemble,
            seed=s.seed,
            group=training.group,
            length=training.length,
            device=self.backbone.device,
            objectives=training.objectives,
        )
        heads = solved.weights.astype(np.float64)
        scores = [table.scores(heads) for table in tables]
        strengths = dict(zip(training.objectives, solved.l2.tolist(), strict=True))
        metrics = {"l2": strengths, **_slope(training, solved.length)}
        return _Learned(heads, scores[0], scores[1], metrics=metrics)

    def _tuned(self, training: EncodedPreferences, held_out: EncodedPreferences) -> _Learned:
        s = self.settings
        assert s.mode != "frozen"
        constitution = self.data.constitution
        method = s.aggregate or (constitution.aggregation.method if constitution is not None else "weighted")

        def start() -> Start:
            self.tell("solving the heads to start from")

            return solve_start(
                self.backbone, training, members=s.ensemble, seed=s.seed, cache=self.cache, batch_tokens=self.budget
            )

        given = {"epochs": s.epochs, "lr": s.lr, "batch_tokens": s.batch_tokens}
        result = finetune(
            self.backbone,
            training,
            held_out if len(held_out) else None,
            mode=s.mode,
            settings=FinetuneSettings(
                aggregate="pareto" if method == "pareto" else "weighted",
                members=s.ensemble,
                precision=s.precision or ("bfloat16" if self.backbone.device.type == "cuda" else "float32"),
                accumulate=s.accumulate,
                seed=s.seed,
                **{name: value for name, value in given.items() if value is not None},
            ),
            folder=s.out / _UNFINISHED,
            start=start if s.init_from is None else None,
            watch=self._step_told,
        )
        self.tell("scoring")
        scores = [scores_of(self.backbone, data, result.members, self.budget) for data in (training, held_out)]
        metrics: dict[str, Any] = {
            "steps": result.steps,
            "taken_from_step": result.step,
            "stopped_early": result.stopped_early,
            "tokens_saved_by_sharing_prompts": round(1 - result.tokens / max(result.tokens_apart, 1), 4),
            **_slope(training, result.slope),
        }
        if result.conflicts is not None:
            metrics["gradient_conflicts"] = {"steps": result.conflicts, "compared": result.compared}
        points = training_points(result.history)
        return _Learned(result.members, scores[0], scores[1], points, metrics, result.main)

    def _step_told(self, step: Step) -> None:
        losses = ", ".join(f"{name} {value:.3f}" for name, value in step.entry.items() if "loss" in name)
        self.tell(f"step {step.step:,} of {step.steps:,}: {losses}")

    def _provenance(self) -> dict[str, Any]:
        data, s = self.data, self.settings
        sources = [
            {"name": each.name, "kind": each.kind, "pairs": each.pairs, "labels": each.labels, "weight": each.weight,
             "digest": each.digest, "judge": each.judge, "constitution": each.constitution}
            for each in data.training.sources
        ]  # fmt: skip
        return {
            "rlaif": __version__,
            "backbone": self.backbone.name,
            "init_from": None if s.init_from is None else str(s.init_from),
            "labels": list(s.labels),
            "held_out": s.held_out,
            "columns": dict(s.columns),
            "constitution": None if data.constitution is None else data.constitution.reference,
            "sources": sources,
            "settings": self.deciding,
            "versions": library_versions(),
        }


def _slope(data: EncodedPreferences, slope: Floats | None) -> dict[str, Any]:
    if data.length is None or slope is None:
        return {}
    return {"length_slope_taken_out": dict(zip(data.objectives, slope.tolist(), strict=True))}


def _finished(out: Path, deciding: Mapping[str, Any]) -> TrainSummary | None:
    """What the same call wrote before; `None` where there are no heads, or no report, which is written last.

    Raises:
        InputError: there are heads of other settings.
    """
    if not (out / SPEC_FILE).exists():
        return None
    spec = read_spec(out)
    changed = changed_settings(spec.provenance.get("settings", {}), deciding)
    if changed:
        raise InputError(
            f"{out}: holds heads that were trained with other settings ({'; '.join(changed)}); use another --out, or "
            "remove the folder."
        )
    if not (out / _REPORT).exists():
        return None
    return TrainSummary.model_validate({**spec.metrics["summary"], "out": str(out), "finished_before": True})
