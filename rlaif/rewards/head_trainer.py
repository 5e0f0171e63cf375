"""transformers' Trainer, told how reward heads are trained: batches, losses, measuring, and checkpoints that last."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from torch.utils.data import DataLoader, Dataset
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rlaif.errors import RunError
from rlaif.rewards import checkpoints
from rlaif.rewards.batches import pack
from rlaif.rewards.losses import bradley_terry
from rlaif.rewards.pareto_training import GradientResolver, Weighting
from rlaif.rewards.schedule import BatchOrder, Marks, Plan
from rlaif.rewards.scoring_model import Collator, ScoringModel

_NOT_FINITE = (
    "the loss is not a number; nothing after the last checkpoint is kept. Use a smaller --lr, or float32 in place of "
    "bfloat16, and look for extreme weights in the labels."
)


@dataclass(frozen=True)
class Progress:
    """How far a training is: what `watch` is called with after each log."""

    step: int
    steps: int
    entry: Mapping[str, float]


class _Rows(Dataset[int]):
    """Rows by their number; a collator makes the batch."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, row: int) -> int:
        return row


class _Follow(TrainerCallback):
    """Does at each step what the marks say, and stops a training that no longer gets better."""

    def __init__(self, plan: Plan, marks: Marks, patience: int, watch: Callable[[Progress], None] | None) -> None:
        self._plan, self._marks, self._patience, self._watch = plan, marks, patience, watch

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        step = state.global_step
        state.epoch = self._plan.epoch_at(step)
        control.should_log = step in self._marks.logs
        control.should_evaluate = step in self._marks.evaluations
        control.should_save = step in self._marks.saves
        return control

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        if checkpoints.out_of_patience(state.log_history, self._patience):
            control.should_training_stop = True
        return control

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> TrainerControl:
        if self._watch is not None and state.is_world_process_zero and state.log_history:
            self._watch(Progress(state.global_step, state.max_steps, dict(state.log_history[-1])))
        return control


class HeadTrainer(Trainer):
    """Trains a `ScoringModel`; every batch of the plan is one batch of the Trainer, all epochs one after the other."""

    def __init__(
        self,
        model: ScoringModel,
        args: TrainingArguments,
        train: Collator,
        held_out: Collator | None,
        *,
        plan: Plan,
        marks: Marks,
        totals: torch.Tensor,
        patience: int,
        budget: int,
        rates: Mapping[str, float],
        weighting: Weighting | None,
        watch: Callable[[Progress], None] | None = None,
    ) -> None:
        """
        Args:
            totals: what a batch's weighted losses are divided by, (objectives,).
            budget: tokens of a batch of held-out pairs.
            rates: learning rates of `backbone`, `heads` and `slope`.
            weighting: resolves the objectives' gradients; `None` adds them up.
        """
        self.scoring, self.train_collator, self.held_out = model, train, held_out
        self.plan, self._rates, self._budget = plan, rates, budget
        self._weighting = weighting
        self._resolver: GradientResolver | None = None
        self._resolved: dict[str, torch.Tensor] | None = None  # by the checkpoint that is continued
        super().__init__(model=model, args=args, data_collator=train, callbacks=[_Follow(plan, marks, patience, watch)])
        # The loss is a mean over the batches of a step, and the Trainer takes it.
        self.model_accepts_loss_kwargs = False
        self._totals = totals.to(args.device)
        self._clear()

    @property
    def objectives(self) -> tuple[str, ...]:
        """Names, the order of the heads."""
        return self.train_collator.data.objectives

    @property
    def resolves(self) -> bool:
        """Whether the objectives' gradients are kept apart and their conflicts resolved."""
        return self._weighting is not None

    @property
    def folder(self) -> Path:
        """Where the checkpoints are."""
        return Path(str(self.args.output_dir))

    def _clear(self) -> None:
        # Weighted losses and weights since the last log, by objective; kept on the device, read when logged.
        self._sums = torch.zeros(2, len(self.objectives), device=self._totals.device)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches of the plan; a process takes every so-many-th."""
        data = _Rows(len(self.train_collator.data))
        loader: DataLoader[Any] = DataLoader(data, batch_sampler=BatchOrder(self.plan), collate_fn=self.train_collator)
        prepared: DataLoader[Any] = self.accelerator.prepare(loader)
        return prepared

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW with rates of their own for the heads and for the length's slope."""
        if self.optimizer is None:
            # Under FSDP 2 the parameters are others by now, of the same names.
            named = {
                name.replace("_fsdp_wrapped_module.", ""): each
                for name, each in (model or self.scoring).named_parameters()
                if each.requires_grad
            }
            decay = set(self.get_decay_parameter_names(self.scoring))
            places: dict[tuple[float, float], list[nn.Parameter]] = {}
            for name, each in named.items():
                part = "heads" if name == "weight" else "slope" if name == "slope" else "backbone"
                wanes = self.args.weight_decay if name in decay and part != "slope" else 0.0
                places.setdefault((self._rates[part], wanes), []).append(each)
            groups = [{"params": found, "lr": rate, "weight_decay": wanes} for (rate, wanes), found in places.items()]
            kind, options = self.get_optimizer_cls_and_kwargs(self.args)
            self.optimizer = kind(groups, **options)
        return self.optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Up in equal steps, then down to 0; the first and the last step are taken at more than nothing."""
        warmup = int(self.args.warmup_steps)

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / (warmup + 1)
            return max(num_training_steps - step, 0) / (num_training_steps - warmup)

        if self.lr_scheduler is None:
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.create_optimizer(), factor)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def _losses(self, model: nn.Module, inputs: Mapping[str, Any]) -> torch.Tensor:
        """Losses by objective, the mean over its members, (objectives,); noted for the log."""
        scores = model(inputs["pairs"], inputs.get("length"))  # (pairs, 2, objectives, members)
        members = scores.shape[-1]
        weight = inputs["weight"][..., None] * inputs["members"][:, None]  # (pairs, objectives, members)
        losses = bradley_terry(
            scores.flatten(2),
            inputs["target"].repeat_interleave(members, dim=1),
            weight.flatten(1),
            total=self._totals.repeat_interleave(members) * members,
        )
        found = losses.view(-1, members).sum(dim=1)
        self._sums += torch.stack([found.detach() * self._totals, weight.mean(dim=-1).sum(dim=0)])
        return found

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """The sum of the objectives' losses."""
        return self._losses(model, inputs).sum()

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Compute one batch's gradients.

        Raises:
            RunError: the loss is not finite.
        """
        if self._weighting is None:
            loss: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)
        else:
            loss = self._resolving_step(model, inputs, self._weighting)
        if not torch.isfinite(loss):
            raise RunError(f"step {self.state.global_step + 1}: {_NOT_FINITE}")
        return loss

    def _resolving_step(self, model: nn.Module, inputs: dict[str, Any], weighting: Weighting) -> torch.Tensor:
        model.train()
        inputs = self._prepare_inputs(inputs)
        if self._resolver is None:
            self._resolver = GradientResolver(
                self.scoring.shared_parameters(),
                self.scoring.own_parameters(),
                len(self.objectives),
                weighting,
                lambda tensor: self.accelerator.reduce(tensor, reduction="mean"),
            )
            if self._resolved is not None:
                self._resolver.load_state(self._resolved)
        # Not through DistributedDataParallel: it would add up what is to be kept apart.
        losses = self._losses(self.accelerator.unwrap_model(model), inputs) / self.current_gradient_accumulation_steps
        present = (inputs["weight"] > 0).any(dim=0).tolist()
        if torch.isfinite(losses).all():
            self._resolver.add(losses, present)
            if self.accelerator.sync_gradients:
                self._resolver.resolve()
        return losses.sum().detach()

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Losses on the held-out pairs: of all labels together, or of all objectives where conflicts are resolved.

        Raises:
            RunError: the loss is not finite.
        """
        collator = self.held_out
        if collator is None:
            return {}
        processes, own = self.accelerator.num_processes, self.accelerator.process_index
        batches = pack(collator.data.pairs, self._budget, one_pass=collator.one_pass)
        # All processes compute equally many batches: with FSDP they work together on each.
        batches += [[-1 - batches[-1][0]]] * (-len(batches) % processes)
        model = self.model_wrapped if self.is_fsdp_enabled else self.accelerator.unwrap_model(self.model_wrapped)
        model.eval()
        sums = torch.zeros(2, len(self.objectives), dtype=torch.float64, device=self.args.device)
        with torch.no_grad():
            for rows in batches[own::processes]:
                inputs = self._prepare_inputs(collator(rows))
                # The checkpoint's head is the mean of the members, and so are its scores.
                scores = model(inputs["pairs"], inputs.get("length")).mean(dim=-1)
                weight = inputs["weight"].double()
                ones = torch.ones(len(self.objectives), dtype=torch.float64, device=self.args.device)
                losses = bradley_terry(scores.double(), inputs["target"], weight, total=ones)
                sums += torch.stack([losses, weight.sum(dim=0)])
        sums = self.accelerator.reduce(sums, reduction="sum").cpu()
        found = self._named(sums, metric_key_prefix, each=self._weighting is not None)
        if not torch.isfinite(torch.tensor(list(found.values()))).all():
            raise RunError(f"step {self.state.global_step}, held-out pairs: {_NOT_FINITE}")
        self.log(dict(found))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, dict(found))
        return found

    def _named(self, sums: torch.Tensor, prefix: str, *, each: bool) -> dict[str, float]:
        """Mean losses, of all and by objective; an objective without a label is left out."""
        losses, weights = sums.double().cpu()
        there = weights > 0
        name = f"{prefix}_loss" if prefix else "loss"
        if not there.any():
            return {}
        joint = (losses[there] / weights[there]).mean() if each else losses.sum() / weights.sum()
        single = {
            f"{name}/{objective}": float(loss / weight)
            for objective, loss, weight in zip(self.objectives, losses, weights, strict=True)
            if weight > 0
        }
        return {name: float(joint), **single}

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with the mean losses since the last time, by objective, and the conflicts that were met."""
        if "loss" in logs:
            sums = self.accelerator.reduce(self._sums, reduction="sum")
            logs |= self._named(sums, "", each=False)
            self._clear()
            if self._resolver is not None:
                logs |= self._resolver.take_counts(self.objectives)
        super().log(logs, start_time)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        """Save what is trained, and no more: a frozen backbone is where it came from."""
        folder = Path(output_dir) if output_dir else self.folder
        folder.mkdir(parents=True, exist_ok=True)
        names = self.scoring.trained()
        held: Mapping[str, torch.Tensor] = names if state_dict is None else state_dict
        checkpoints.save_weights(folder / checkpoints.WEIGHTS, {name: held[name] for name in names})

    def _save_checkpoint(self, model: nn.Module, trial: Any = None) -> None:
        """Save, mark as whole, and remove what is neither the last nor the best.

        Raises:
            RunError: the disk is full, or the weights are not finite.
        """
        if not all(bool(torch.isfinite(each).all()) for each in self.scoring.trained().values()):
            raise RunError(f"step {self.state.global_step}: {_NOT_FINITE}")
        folder, step = self.folder, self.state.global_step
        checkpoint = checkpoints.place_of(folder, step)
        try:
            super()._save_checkpoint(model, trial)
        except RunError:
            raise
        except (OSError, SafetensorError) as error:
            raise checkpoints.cannot_save(checkpoint, error) from None
        except RuntimeError as error:
            # What torch's writer says when the disk is full.
            if "PytorchStreamWriter" in str(error) or "unexpected pos" in str(error):
                raise checkpoints.cannot_save(checkpoint, error) from None
            raise
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            if self._resolver is not None:
                checkpoints.save_weights(checkpoint / checkpoints.GRADIENTS, self._resolver.state())
            checkpoints.mark_complete(checkpoint)
            best = checkpoints.best_step(self.state.log_history)
            checkpoints.keep_only(folder, {step, best[0] if best is not None else step})
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            checkpoints.load_weights(Path(resume_from_checkpoint) / checkpoints.WEIGHTS, self.scoring.trained())
        self._resolved = checkpoints.read_gradients(Path(resume_from_checkpoint))

    def load_step(self, step: int) -> None:
        """Take the weights of a checkpoint."""
        where = str(checkpoints.place_of(self.folder, step))
        self._load_from_checkpoint(where, self.model_wrapped if self.is_fsdp_enabled else None)

    def whole_state(self) -> dict[str, torch.Tensor]:
        """All that was trained, on the CPU; with FSDP gathered from all processes, and only the main one has it."""
        if not self.is_fsdp_enabled:
            return {name: each.detach().cpu() for name, each in self.scoring.trained().items()}
        found: dict[str, torch.Tensor] = self.accelerator.get_state_dict(self.model_wrapped)
        return {name: each.cpu() for name, each in found.items()}


def history_of(log: Sequence[Mapping[str, float]]) -> tuple[Mapping[str, float], ...]:
    """The losses of a log, without what the Trainer says of its own speed."""
    return tuple(dict(entry) for entry in log if "loss" in entry or "eval_loss" in entry)
