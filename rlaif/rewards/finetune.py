"""Train the backbone with its heads: all of it (`full`) or low-rank adapters that are merged in the end (`lora`)."""

from __future__ import annotations

import hashlib
import importlib
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PrinterCallback, TrainerCallback, TrainingArguments
from transformers.utils import logging as transformers_logging

from rlaif.errors import InputError, RunError
from rlaif.rewards import checkpoints
from rlaif.rewards.finetune_settings import FinetuneSettings, TunedMode, learning_rates, training_arguments
from rlaif.rewards.head_trainer import HeadTrainer, Progress, history_of
from rlaif.rewards.losses import batch_totals, bootstrap_weights, length_slopes
from rlaif.rewards.model import Backbone
from rlaif.rewards.pareto_training import conflict_counts, make_weighting
from rlaif.rewards.preferences import Floats
from rlaif.rewards.schedule import make_marks, make_plan
from rlaif.rewards.scoring_model import Collator, EncodedPreferences, ScoringModel, without_dropout
from rlaif.rewards.start import Start

__all__ = ["EncodedPreferences", "FinetuneResult", "FinetuneSettings", "Progress", "TunedMode", "finetune"]


@dataclass(frozen=True)
class FinetuneResult:
    """What came of it; the backbone itself now has the best weights, and the mean of the members as its head.

    Attributes:
        members: heads, (objectives, members, H); their mean is the backbone's head.
        history: what was logged, in order: `step`, `epoch`, and `loss` and `loss/OBJECTIVE` of what was trained on
            since the last entry, or `eval_loss` and `eval_loss/OBJECTIVE` of the held-out pairs.
        step: the step whose weights were taken, of `steps`.
        held_out_loss: the loss there; `None` without held-out pairs.
        stopped_early: whether it ran out of patience.
        slope: of the length covariate, (objectives,).
        conflicts: steps in which two objectives' gradients pointed against each other, (objectives, objectives), of
            the `compared` ones in which both had one; only pareto training looks.
        tokens: computed in an epoch; `tokens_apart` those of the same conversations one by one.
        main: whether this process is the one that writes, where there are several; with FSDP, only it has the result.
    """

    members: Floats
    history: tuple[Mapping[str, float], ...]
    step: int
    steps: int
    held_out_loss: float | None
    stopped_early: bool
    slope: Floats | None
    conflicts: tuple[tuple[int, ...], ...] | None
    compared: tuple[tuple[int, ...], ...] | None
    tokens: int
    tokens_apart: int
    main: bool = True


def finetune(
    backbone: Backbone,
    train: EncodedPreferences,
    held_out: EncodedPreferences | None,
    *,
    mode: TunedMode,
    settings: FinetuneSettings,
    folder: Path,
    start: Callable[[], Start] | None = None,
    watch: Callable[[Progress], None] | None = None,
) -> FinetuneResult:
    """Train, or continue what a killed process of the same call began in `folder`: to the same weights.

    The same to the last bit on a CPU with as many threads; a GPU's sums may come in another order. Data and settings
    decide the order of everything. The backbone must be as it was for the first call. It runs on the devices that
    accelerate finds (`torchrun` or `accelerate launch` with several), or on the CPU where the backbone is there.

    Args:
        backbone: changed in place; in `full` mode to float32 first.
        train: what to learn.
        held_out: what is measured; without it, the last weights are taken.
        folder: for checkpoints; remove it once the result is safe.
        start: makes the heads to begin with, of the data; not called where a training is continued. Without it they are
            the backbone's own.
        watch: called after each log.

    Raises:
        InputError: an objective without labels, another training in the folder, or a package that is not installed.
        RunError: the loss is not finite, the memory is too small, or the disk is full.
    """
    _check(train, mode, settings)
    device_type = backbone.device.type
    if mode == "full":
        # In bfloat16 a small step is rounded away.
        for parameter in backbone.model.parameters():
            parameter.data = parameter.data.float()
    with ExitStack() as stack:
        stack.enter_context(_quiet())
        rates = learning_rates(backbone, mode, settings)
        arguments = training_arguments(settings, folder, device_type, rates["backbone"])
        if arguments.process_index == 0:
            own = "own" if start is None else "solved"
            checkpoints.claim(folder, _claims(backbone, own, train, held_out, mode, settings, arguments.world_size))
        begun = _started(start, arguments, folder)
        adapted = _adapt(backbone, settings) if mode == "lora" else None
        slope = None if train.length is None else length_slopes(train.length, train.target, train.weight)
        model = ScoringModel(
            backbone,
            members=settings.members,
            seed=settings.seed,
            slope=slope if slope is None or begun is None else begun.slope,
            heads=None if begun is None else begun.heads,
        )
        plan = make_plan(
            train.pairs,
            budget=settings.batch_tokens,
            epochs=settings.epochs,
            seed=settings.seed,
            one_pass=backbone.one_pass,
            accumulate=settings.accumulate,
            processes=arguments.world_size,
        )
        arguments.max_steps = plan.steps
        arguments.warmup_steps = round(settings.warmup * plan.steps)
        resolving = settings.aggregate == "pareto" and len(train.objectives) > 1
        trainer = HeadTrainer(
            model,
            arguments,
            Collator(
                train,
                bootstrap_weights(train.group, settings.members, settings.seed),
                backbone.pad_id,
                backbone.one_pass,
            ),
            _held_out(held_out, backbone),
            plan=plan,
            marks=make_marks(
                plan,
                evaluations=settings.evaluations,
                save_steps=settings.save_steps,
                measured=_held_out(held_out, backbone) is not None,
            ),
            totals=torch.tensor(batch_totals(train.weight, plan.per_epoch, each=resolving), dtype=torch.float32),
            patience=settings.patience,
            budget=settings.batch_tokens,
            rates=rates,
            weighting=make_weighting(settings.aggregator, len(train.objectives)) if resolving else None,
            watch=watch,
        )
        trainer.remove_callback(PrinterCallback)
        if arguments.process_index == 0 and importlib.util.find_spec("tensorboard"):
            trainer.add_callback(_tensorboard(folder))
        trainer.accelerator.wait_for_everyone()
        if resolving and (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
            raise InputError("--aggregate pareto: needs every gradient whole; train without FSDP and DeepSpeed.")
        if settings.gradient_checkpointing:
            backbone.model.gradient_checkpointing_enable({"use_reentrant": False})
            stack.callback(backbone.model.gradient_checkpointing_disable)
        if not settings.dropout:
            stack.enter_context(without_dropout(backbone.model))
        _train(trainer, folder, settings.patience)
        return _finish(trainer, backbone, adapted, settings)


def _check(train: EncodedPreferences, mode: TunedMode, settings: FinetuneSettings) -> None:
    """Raise what is known to be wrong before any work."""
    bare = [name for place, name in enumerate(train.objectives) if not (train.weight[:, place] > 0).any()]
    if bare:
        raise InputError(
            f"{', '.join(bare)}: no label to train on; every objective needs some. Leave it out of --objective, or add "
            "labels."
        )
    needed = {"accelerate": f"--mode {mode}"}
    if mode == "lora":
        needed["peft"] = "--mode lora"
    if settings.aggregate == "pareto":
        needed["torchjd"] = "--aggregate pareto"
    for package, option in needed.items():
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise InputError(f"{option}: {package} cannot be imported ({error}); pip install 'rlaif[train]'.") from None


def _started(start: Callable[[], Start] | None, arguments: TrainingArguments, folder: Path) -> Start | None:
    """What the heads begin with; nothing where a checkpoint knows better."""
    if start is None or checkpoints.complete_steps(folder):
        return None
    # The features that the first process makes, the others find.
    with arguments.main_process_first(local=False):
        begun = start()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return begun


def _held_out(data: EncodedPreferences | None, backbone: Backbone) -> Collator | None:
    """The held-out pairs, if any has a label."""
    if data is None or not (data.weight > 0).any():
        return None
    return Collator(data, np.ones((len(data), 1)), backbone.pad_id, backbone.one_pass)


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave the logging and the random numbers of this process as they were."""
    level = transformers_logging.get_verbosity()
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        transformers_logging.set_verbosity(level)


def _tensorboard(folder: Path) -> TrainerCallback:
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations.integration_utils import TensorBoardCallback

    # What was logged after the checkpoint that training goes on from is logged again.
    last = checkpoints.complete_steps(folder)[-1:]
    writer = SummaryWriter(str(folder / "tensorboard"), purge_step=last[0] + 1 if last else None)
    made: TrainerCallback = TensorBoardCallback(writer)  # type: ignore[no-untyped-call]
    return made


def _adapt(backbone: Backbone, settings: FinetuneSettings) -> Any:
    """Put adapters on every linear map but the head; the rest is frozen."""
    from peft import LoraConfig, get_peft_model

    head = next(name for name, module in backbone.model.named_modules() if module is backbone.head)
    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=2 * settings.lora_rank,
        target_modules="all-linear",
        exclude_modules=[head],
        lora_dropout=0.0,
    )
    torch.manual_seed(settings.seed)
    return get_peft_model(backbone.model, config)


def _claims(
    backbone: Backbone,
    start: str,
    train: EncodedPreferences,
    held_out: EncodedPreferences | None,
    mode: TunedMode,
    settings: FinetuneSettings,
    processes: int,
) -> dict[str, Any]:
    """All that decides the weights, to be compared when a training is continued.

    Heads that were solved are not among it: they follow from the rest, but for their last digits, which another number
    of threads may change.
    """

    def of_data(data: EncodedPreferences | None) -> str | None:
        if data is None:
            return None
        found = hashlib.sha256(repr(data.objectives).encode())
        for pair in data.pairs:
            found.update(repr((pair.prefix, pair.a, pair.b)).encode())
        for column in (data.target, data.weight, data.group, data.length):
            found.update(b"none" if column is None else np.ascontiguousarray(column).tobytes())
        return found.hexdigest()

    return {
        "mode": mode,
        **settings.model_dump(mode="json"),
        "backbone": backbone.digest,
        "heads": backbone.head_digest,
        "start": start,
        "training pairs": of_data(train),
        "held-out pairs": of_data(held_out),
        "processes": processes,
    }


def _train(trainer: HeadTrainer, folder: Path, patience: int) -> None:
    """Train from the last whole checkpoint to the end."""
    steps = checkpoints.complete_steps(folder)
    last = checkpoints.place_of(folder, steps[-1]) if steps else None
    if last is not None:
        over = steps[-1] == trainer.plan.steps or checkpoints.out_of_patience(checkpoints.read_history(last), patience)
        # FSDP only lays the model out when it trains; it stops at once.
        if over and not trainer.is_fsdp_enabled:
            return
    try:
        trainer.train(resume_from_checkpoint=None if last is None else str(last))
    except torch.OutOfMemoryError:
        raise RunError(
            f"step {trainer.state.global_step + 1}: the GPU has not enough memory; use a smaller --batch-tokens or "
            "--max-length."
        ) from None


def _finish(trainer: HeadTrainer, backbone: Backbone, adapted: Any, settings: FinetuneSettings) -> FinetuneResult:
    """Take the best weights, and leave the backbone an ordinary model: adapters merged, the mean head in its place."""
    folder = trainer.folder
    steps = checkpoints.complete_steps(folder)
    history = history_of(checkpoints.read_history(checkpoints.place_of(folder, steps[-1])))
    best = checkpoints.best_step(history)
    step = steps[-1] if best is None else best[0]
    trainer.load_step(step)
    state = trainer.whole_state()
    main = trainer.is_world_process_zero()
    if trainer.is_fsdp_enabled and main:
        # What FSDP has laid out cannot be saved as a model: its weights go into a new one.
        backbone.model = type(backbone.model)(backbone.model.config)
        adapted = None if adapted is None else _adapt(backbone, settings)
        inner = {name.removeprefix("backbone."): each for name, each in state.items() if name.startswith("backbone.")}
        backbone.model.load_state_dict(inner)
    whole = main or not trainer.is_fsdp_enabled
    members = state["weight"].double().numpy() if whole else np.zeros((0, 0, 0))
    if whole:
        with torch.no_grad():
            backbone.head.weight.copy_(torch.tensor(members.mean(axis=1)))
        if adapted is not None:
            adapted.merge_and_unload()
    backbone.model.requires_grad_(True)
    backbone.model.train(False)
    pairs = trainer.train_collator.data.pairs
    counts = conflict_counts(history, trainer.objectives) if trainer.resolves else (None, None)
    return FinetuneResult(
        members=members,
        history=history,
        step=step,
        steps=trainer.plan.steps,
        held_out_loss=None if best is None else best[1],
        stopped_early=steps[-1] < trainer.plan.steps,
        slope=state["slope"].double().numpy() if "slope" in state else None,
        conflicts=counts[0],
        compared=counts[1],
        tokens=sum(pair.tokens for pair in pairs),
        tokens_apart=sum(2 * len(pair.prefix) + len(pair.a) + len(pair.b) for pair in pairs),
        main=main,
    )
