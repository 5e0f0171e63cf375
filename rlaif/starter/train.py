"""Train the starter from scratch: `python -m rlaif.starter.train --out FOLDER`.

The same command again continues a run that was stopped, to the same weights; a longer one (`--steps`) does too, as
long as the learning rate has not begun to fall. `--check` trains a small one for a minute or two, and exits with 1
unless it learns.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import torch

from rlaif.prompts import Kind, load_template
from rlaif.starter.corpus import Mix, batches
from rlaif.starter.encode import IGNORE, Encoder, Row
from rlaif.starter.guides import Guides, losses
from rlaif.starter.model import Batch, attention_bias, collate, make_model
from rlaif.starter.tokens import make_tokenizer

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

_TEMPLATES: dict[Kind, str] = {
    "comparison": "pairwise-cot",
    "rating": "rating",
    "critique": "critique",
    "revision": "revision",
}
_RATES = {"matrices": 0.007, "rest": 1.5e-3}
_SAVE_EVERY = 100


@dataclass(frozen=True)
class Plan:
    """What is trained, and for how long.

    Attributes:
        drills: how many steps, the first ones, only restate principles: what the rest builds on.
        decay: share of the steps, the last ones, over which the learning rate falls to nothing.
        batch_tokens: padded tokens a step.
    """

    steps: int = 4900
    seed: int = 0
    mix: Mix = field(default_factory=Mix)
    width: int = 256
    layers: int = 6
    inner: int = 640
    batch_tokens: int = 6144
    warm_up: int = 60
    drills: int = 300

    @property
    def decay_from(self) -> int:
        """The step from which the learning rate falls, and verdicts have noise."""
        return self.steps - int(self.steps * self.decay)

    decay: float = 0.3


class Trainer:
    """The model, its guides, their optimisers, and where the run is."""

    def __init__(self, folder: Path, plan: Plan, device: torch.device) -> None:
        torch.manual_seed(plan.seed)
        self.folder, self.plan, self.device = folder, plan, device
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer = _tokenizer(folder)
        self.encoder = Encoder(self.tokenizer, {kind: load_template(name) for kind, name in _TEMPLATES.items()})
        self.model: LlamaForCausalLM = make_model(
            len(self.tokenizer), width=plan.width, layers=plan.layers, inner=plan.inner
        )
        self.model.to(device)  # type: ignore[arg-type]
        self.guides = Guides(plan.width).to(device)
        inner = [p for p in self.model.model.layers.parameters() if p.ndim == 2]
        known = {id(p) for p in inner}
        rest = [p for p in [*self.model.parameters(), *self.guides.parameters()] if id(p) not in known]
        self.optimisers = [
            torch.optim.Muon(inner, lr=_RATES["matrices"], weight_decay=0.01),
            torch.optim.AdamW(rest, lr=_RATES["rest"], betas=(0.9, 0.95), weight_decay=0.0),
        ]
        self.step = 0
        self.place = (0, 0)
        self.seconds = 0.0
        self._resume()

    @property
    def _state(self) -> Path:
        return self.folder / "state.pt"

    def _resume(self) -> None:
        if not self._state.exists():
            return
        state = torch.load(self._state, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.guides.load_state_dict(state["guides"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.step, self.place, self.seconds = state["step"], state["place"], state["seconds"]

    def save(self) -> None:
        """Write the state to go on from, and the checkpoint as it is."""
        state = {
            "model": self.model.state_dict(),
            "guides": self.guides.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "step": self.step,
            "place": self.place,
            "seconds": self.seconds,
        }
        part = self._state.with_suffix(".part")
        torch.save(state, part)
        part.replace(self._state)
        save_checkpoint(self.model, self.tokenizer, self.folder / "checkpoint")

    def _rate(self) -> float:
        left = (self.plan.steps - self.step) / max(1, self.plan.steps - self.plan.decay_from)
        return min(1.0, (self.step + 1) / self.plan.warm_up, left)

    def learn(self, batch: Batch) -> dict[str, float]:
        """One step; the losses before it."""
        rate = self._rate()
        for optimiser, base in zip(self.optimisers, _RATES.values(), strict=True):
            for group in optimiser.param_groups:
                group["lr"] = base * rate
        with torch.autocast(self.device.type, torch.bfloat16):
            made = losses(self.model, self.guides, batch.to(self.device))
        made.total().backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad()
        self.step += 1
        return made.figures()

    def _stream(self) -> Iterator[tuple[tuple[int, int], list[Row]]]:
        plan = self.plan
        drilling = self.step < plan.drills
        mix = plan.mix if self.step >= plan.decay_from else replace(plan.mix, noise=0.0)
        mix = replace(mix, drill=1.0, policy=0.0, single=0.0) if drilling else mix
        return batches(
            self.encoder, f"{plan.seed}/{'drills' if drilling else 'all'}", mix, plan.batch_tokens, self.place
        )

    def run(self, stop_after: float = float("inf")) -> Iterator[dict[str, Any]]:
        """Train until the last step, or until `stop_after` seconds of this call; a record each 20 steps."""
        began = last = time.monotonic()
        sums: dict[str, list[float]] = {}
        tokens = 0
        plan = self.plan
        ahead = self._stream()
        while self.step < plan.steps and time.monotonic() - began < stop_after:
            place, rows = next(ahead)
            for name, value in self.learn(collate(rows)).items():
                sums.setdefault(name, []).append(value)
            self.place = place
            if self.step in (plan.drills, plan.decay_from):
                self.place = (0, 0) if self.step == plan.drills else place
                ahead = self._stream()
            tokens += sum(len(row.ids) for row in rows)
            now = time.monotonic()
            self.seconds += now - last
            last = now
            if self.step % 20 == 0:
                means = {name: round(sum(values) / len(values), 4) for name, values in sums.items()}
                speed = round(tokens / (now - began))
                yield {"step": self.step, "seconds": round(self.seconds), "tokens_per_s": speed, **means}
                sums = {}
            if self.step % _SAVE_EVERY == 0:
                self.save()
        self.save()

    @torch.inference_mode()
    def progress(self, rows: list[Row]) -> dict[str, float]:
        """On given rows: the loss of an answer, and the share of tokens and of verdicts foretold right.

        A verdict is the last token but one of a branch, after the true rationale.
        """
        batch = collate(rows).to(self.device)
        made = losses(self.model, self.guides, batch)
        output = self.model(input_ids=batch.ids, position_ids=batch.positions, attention_mask=attention_bias(batch))
        right = output.logits.argmax(-1) == batch.targets
        wanted = batch.targets != IGNORE
        # The last target of a branch is the end of the turn; the one before it is the choice.
        ends = wanted & ~wanted.roll(-1, 1)
        verdicts = ends.roll(-1, 1)
        return {
            "loss": float(made.by_name["text"]),
            "tokens": float(right[wanted].float().mean()),
            "verdicts": float(right[verdicts].float().mean()),
        }


_NEW_KEYS = {"is_local", "local_files_only", "backend", "extra_special_tokens"}


def save_checkpoint(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write an ordinary checkpoint, its weights rounded to bf16, which halves it."""
    # The output weights are the embeddings.
    state = {name: value.to(torch.bfloat16) for name, value in model.state_dict().items() if name != "lm_head.weight"}
    model.save_pretrained(folder, state_dict=state)
    (folder / "model.safetensors").chmod(0o644)
    tokenizer.save_pretrained(folder)
    # What older versions of transformers read too, and nothing of this machine; tokenizer.json has the special tokens.
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    kept = {name: value for name, value in config.items() if name not in _NEW_KEYS}
    kept["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


def _tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    from transformers import PreTrainedTokenizerFast

    path = folder / "tokenizer"
    if not path.exists():
        make_tokenizer().save_pretrained(path)
    return PreTrainedTokenizerFast.from_pretrained(path)  # type: ignore[no-any-return]


# A few families that single words give away: what a small model learns in a minute or two.
CHECK = Plan(
    steps=160,
    mix=Mix(
        policy=0.0, single=0.0, drill=0.0, direct=0.0, questions=2, families=("insult", "offer", "source", "hedge")
    ),
    width=128,
    layers=3,
    inner=320,
    batch_tokens=3072,
    warm_up=20,
    drills=0,
)


def check(folder: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Train a small one; progress before and after, on rows of a seed that training does not have."""
    trainer = Trainer(folder, CHECK, torch.device("cpu"))
    _, unseen = next(batches(trainer.encoder, "check", CHECK.mix, 4 * CHECK.batch_tokens))
    before = trainer.progress(unseen)
    for record in trainer.run():
        click.echo(json.dumps(record))
    return before, trainer.progress(unseen)


def _check_or_exit() -> None:
    with tempfile.TemporaryDirectory() as folder:
        before, after = check(Path(folder))
    click.echo(json.dumps({"before": before, "after": after}))
    learned = after["loss"] < before["loss"] / 4 and after["tokens"] > 0.8 and before["tokens"] < 0.2
    if not learned:
        raise click.ClickException("the small model did not learn: the loss or the share of right tokens stood still.")


@click.command()
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Where the run is kept.")
@click.option("--steps", default=Plan.steps, show_default=True, help="Steps in all.")
@click.option("--minutes", type=float, help="Stop after so long; the same command continues.")
@click.option(
    "--noise", default=0.05, show_default=True, help="Share of late verdicts turned round, against overconfidence."
)
@click.option("--seed", default=0, show_default=True)
@click.option("--check", "checks", is_flag=True, help="Train a small one shortly, and see whether it learns.")
def main(out: Path | None, steps: int, minutes: float | None, noise: float, seed: int, checks: bool) -> None:
    """Train the starter from scratch, on a GPU where there is one."""
    if checks:
        _check_or_exit()
        return
    if out is None:
        raise click.UsageError("--out FOLDER is missing: where the run is to be kept.")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    plan = replace(Plan(), steps=steps, seed=seed, mix=Mix(noise=noise))
    trainer = Trainer(out, plan, device)
    (out / "plan.json").write_text(json.dumps(asdict(plan)), encoding="utf-8")
    with (out / "log.jsonl").open("a", encoding="utf-8") as log:
        for record in trainer.run(60 * minutes if minutes else float("inf")):
            log.write(json.dumps(record) + "\n")
            log.flush()
            click.echo(json.dumps(record))


if __name__ == "__main__":
    main()
