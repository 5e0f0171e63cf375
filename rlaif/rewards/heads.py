"""Reward heads as they are saved, loaded and used: an ordinary checkpoint, and what `rlaif.json` says of its scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file

from rlaif.errors import InputError, RunError
from rlaif.rewards.aggregate import aggregate_rewards, below_floors, given_weights, pareto_ranks
from rlaif.rewards.folders import replacing_checkpoint
from rlaif.rewards.forward import default_budget, each_batch
from rlaif.rewards.gate import Gate
from rlaif.rewards.heads_files import (
    GATE,
    GATE_BIAS,
    MEMBERS,
    check_config,
    check_head,
    check_weights,
    find_folder,
    read_extra,
    saved_dtype,
    write_index,
)
from rlaif.rewards.model import Backbone, load_backbone
from rlaif.rewards.preferences import Floats, Ints
from rlaif.rewards.spec import ENSEMBLE_FILE, HeadsSpec, read_spec, write_spec
from rlaif.types import Frozen, Message, TagValue

PromptLike = str | Sequence[Message | Mapping[str, str]]
Tags = Mapping[str, TagValue]


class Reward(Frozen):
    """What the heads say of one response.

    `rewards` are per objective, in standard deviations from the mean response that was trained on. `std` is the
    deviation among the members of an ensemble, in the same unit, `None` without one. `reward` is their aggregate.
    `pareto_rank` is among the responses to the same prompt: 0 where none of them is better in
    one objective and as good in the others, 1 where none is once those of rank 0 are gone, and so on; `None` where
    there is one response only. `below_floors` names the objectives whose floor the response does not reach.
    """

    rewards: Mapping[str, float]
    std: Mapping[str, float] | None
    reward: float
    pareto_rank: int | None = None
    below_floors: tuple[str, ...] = ()


@dataclass(frozen=True)
class RawScores:
    """Scores as the checkpoint gives them.

    Attributes:
        scores: of the checkpoint's head, (responses, objectives).
        members: of each member of the ensemble, (responses, members, objectives); `None` without one.
        truncated: how many conversations were cut to the longest length.
        lengths: tokens of each conversation, (responses,).
    """

    scores: Floats
    members: Floats | None
    truncated: int
    lengths: tuple[int, ...] = ()


class RewardHeads:
    """Heads of a checkpoint, ready to score; see `load`.

    Attributes:
        path: where they are.
        spec: all of `rlaif.json`.
        backbone: the model and its tokenizer.
        batch_tokens: tokens of a batch, padding counted, unless a call says otherwise.
    """

    def __init__(
        self,
        path: Path,
        spec: HeadsSpec,
        backbone: Backbone,
        members: torch.Tensor | None = None,
        gate: Gate | None = None,
    ) -> None:
        self.path, self.spec, self.backbone = path, spec, backbone
        self.batch_tokens = default_budget(backbone.device)
        self._gate = gate
        self._members = None if members is None else members.to(backbone.device, torch.float32)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> RewardHeads:
        """Load the heads that `rlaif train-heads` wrote.

        Args:
            path: their folder, or the hub id they were pushed to.
            device: the GPU where there is one, else the CPU.
            dtype: on the CPU float32, elsewhere the one they were saved in.

        Raises:
            InputError: they are none, or damaged: a file is missing or cut, or their parts do not go together.
        """
        folder = find_folder(str(path))
        spec = read_spec(folder)
        config = check_config(folder, spec)
        keys = check_weights(folder)
        extra = read_extra(folder, spec)
        chosen = _device(device)
        if dtype is None:
            dtype = torch.float32 if chosen.type == "cpu" else saved_dtype(config)
        backbone = load_backbone(
            str(folder), spec.objectives, max_length=spec.max_length, device=chosen, dtype=dtype, seed=0
        )
        check_head(folder, spec, backbone, keys, extra.get(MEMBERS))
        gate = Gate(extra[GATE].double().numpy(), extra[GATE_BIAS].double().numpy()) if GATE in extra else None
        return cls(folder, spec, backbone, extra.get(MEMBERS), gate)

    def with_weights(self, weights: Mapping[str, float], place: str = "weights") -> RewardHeads:
        """The same heads with other weights, the same for every prompt; the method and the floors stay.

        Args:
            weights: by objective, 0 or more; made to sum to 1, and 0 for objectives that are not named.
            place: where they were given, for an error.

        Raises:
            InputError: an unknown objective, a weight below 0, or none above.
        """
        fixed = given_weights(self.spec.objectives, weights, place)
        rule = {"weights": fixed, "origin": "given", "intervals": {}, "by_tag": {}}
        aggregation = self.spec.aggregation.model_copy(update=rule)
        spec = self.spec.model_copy(update={"aggregation": aggregation})
        return RewardHeads(self.path, spec, self.backbone, self._members)

    def score(
        self,
        prompts: Sequence[PromptLike],
        responses: Sequence[str],
        *,
        tags: Sequence[Tags] | None = None,
        batch_tokens: int | None = None,
    ) -> list[Reward]:
        """Score responses, each to the prompt at its place.

        Args:
            prompts: texts, or conversations that end before the response; give one again for each of its responses,
                and they are ranked among each other.
            responses: as many.
            tags: of each response's prompt; only where weights differ by tag.
            batch_tokens: tokens of a batch, padding counted; moves the last digits only.

        Raises:
            InputError: the lists differ in length, or a prompt is no text and no conversation.
            RunError: the GPU has no memory for a single conversation.
        """
        turns = [_as_turns(prompt, place) for place, prompt in enumerate(prompts)]
        raw = self.raw(turns, responses, batch_tokens=batch_tokens)
        return self.rewards(turns, raw, tags=tags, groups=_numbered(turns))

    def raw(
        self,
        prompts: Sequence[PromptLike],
        responses: Sequence[str],
        *,
        batch_tokens: int | None = None,
        watch: Callable[[int], None] | None = None,
    ) -> RawScores:
        """Score as `score` does, before calibration, normalization and aggregation.

        Args:
            watch: called with the number of responses scored so far.
        """
        if len(prompts) != len(responses):
            raise InputError(f"{len(prompts)} prompts and {len(responses)} responses; expected one response a prompt.")
        turns = [_as_turns(prompt, place) for place, prompt in enumerate(prompts)]
        before = self.backbone.encoder.truncated
        conversations = self.backbone.encoder.conversations(zip(turns, responses, strict=True))
        truncated = self.backbone.encoder.truncated - before
        count, names = len(conversations), len(self.spec.objectives)
        scores: Floats = np.empty((count, names))
        members: Floats | None = None if self._members is None else np.empty((count, self.spec.members, names))
        head = self.backbone.head
        weight = head.weight.detach().float()
        bias = weight.new_zeros(names) if head.bias is None else head.bias.detach().float()
        done = 0
        for places, features in each_batch(
            self.backbone, conversations, _numbered(turns), budget=batch_tokens or self.batch_tokens
        ):
            whole = features.float()  # (places, H)
            scores[places] = (whole @ weight.T + bias).double().cpu().numpy()
            if self._members is not None and members is not None:
                each = torch.einsum("nh,kmh->nmk", whole, self._members)
                members[places] = (each + bias).double().cpu().numpy()
            done += len(places)
            if watch is not None:
                watch(done)
        # A sum may come out otherwise in another row of a batch; equal conversations have equal scores.
        first: dict[tuple[int, ...], int] = {}
        same = [first.setdefault(tuple(ids), place) for place, ids in enumerate(conversations)]
        scores = scores[same]
        members = None if members is None else members[same]
        return RawScores(scores, members, truncated, tuple(map(len, conversations)))

    def rewards(
        self,
        prompts: Sequence[PromptLike],
        raw: RawScores,
        *,
        tags: Sequence[Tags] | None = None,
        groups: Sequence[int] | None = None,
    ) -> list[Reward]:
        """What raw scores mean: normalized, aggregated, and ranked.

        Args:
            prompts: of each response, for a gate; not looked at without one.
            groups: a number for each response; those with the same one are ranked among each other.
        """
        count = len(raw.scores)
        if tags is not None and len(tags) != count:
            raise InputError(f"{count} responses and {len(tags)} tags; expected tags for each response.")
        if not count:
            return []
        names, rules = self.spec.objectives, [self.spec.normalization[name] for name in self.spec.objectives]
        unit = np.array([rule.std for rule in rules])
        values = (raw.scores - np.array([rule.mean for rule in rules])) / unit  # (responses, objectives)
        spread = None if raw.members is None else raw.members.std(axis=1, ddof=1) / unit
        prompt_of = np.arange(count) if groups is None else np.asarray(groups)
        total = aggregate_rewards(values, self.spec, tags, self.gated_weights(prompts, prompt_of))
        below = below_floors(values, self.spec)
        ranks, alone = pareto_ranks(values, prompt_of), _alone(prompt_of)

        def named(row: Floats) -> dict[str, float]:
            return dict(zip(names, row.tolist(), strict=True))

        return [
            Reward(
                rewards=named(values[row]),
                std=None if spread is None else named(spread[row]),
                reward=float(total[row]),
                pareto_rank=None if alone[row] else int(ranks[row]),
                below_floors=tuple(name for name, short in zip(names, below[row], strict=True) if short),
            )
            for row in range(count)
        ]

    def gated_weights(self, prompts: Sequence[PromptLike], prompt_of: Ints) -> Floats | None:
        """The gate's weights, (responses, objectives), from the features at the end of each prompt; `None` without one.

        Args:
            prompts: of each response.
            prompt_of: a number for each response, the same for those of one prompt.
        """
        if self._gate is None:
            return None
        _, first, which = np.unique(prompt_of, return_index=True, return_inverse=True)
        encoder = self.backbone.encoder
        ids = [encoder.prompt(_as_turns(prompts[place], place)) for place in first]
        embedding = np.empty((len(ids), self.backbone.hidden))
        for places, features in each_batch(self.backbone, ids, range(len(ids)), budget=self.batch_tokens):
            embedding[places] = features.double().cpu().numpy()
        weights: Floats = self._gate.weights(embedding)[which]
        return weights


def save_heads(
    folder: Path,
    backbone: Backbone,
    members: Floats | torch.Tensor | None,
    spec: HeadsSpec,
    *,
    gate: Gate | None = None,
    keep_head: bool = False,
) -> None:
    """Write a checkpoint that `RewardHeads.load`, transformers and vLLM load.

    A save that is killed leaves the checkpoint that was there, the new one, or none; other files of the folder stay.

    Args:
        folder: made where it is not there.
        backbone: its head becomes the mean of the members, with a bias of 0.
        members: linear maps of the features, (objectives, members, H); `None` takes the head as it is.
        spec: whose `members` is as many.
        gate: weights by the prompt, for a spec whose weights are gated.
        keep_head: the head stays as it is, and the members are moved so that it is their mean.

    Raises:
        RunError: the disk is full, the folder cannot be written, or a weight is not finite.
    """
    extra: dict[str, torch.Tensor] = {}
    head = backbone.head
    count = 1
    if members is not None:
        each = torch.as_tensor(members).detach().double().cpu()
        if each.ndim != 3 or (each.shape[0], each.shape[2]) != (len(spec.objectives), backbone.hidden):
            raise ValueError(f"members are {tuple(each.shape)}; expected (objectives, members, {backbone.hidden})")
        count = each.shape[1]
        mean = each.mean(dim=1)
        with torch.no_grad():
            if keep_head:
                each = each + (head.weight.detach().double().cpu() - mean)[:, None]
            else:
                head.weight.copy_(mean)
                if head.bias is not None:
                    head.bias.zero_()
        if count > 1:
            extra[MEMBERS] = each.float().contiguous()
    if (tuple(backbone.objectives), count) != (spec.objectives, spec.members):
        raise ValueError(
            f"{count} members of {backbone.objectives}; rlaif.json has {spec.members} of {spec.objectives}"
        )
    if gate is not None:
        extra |= {GATE: torch.as_tensor(gate.matrix).float(), GATE_BIAS: torch.as_tensor(gate.bias).float()}
    for name, tensor in {"score": head.weight, **extra}.items():
        if not torch.isfinite(tensor).all():
            raise RunError(
                f"{folder}: {name} of the heads is not finite; train with a lower --lr. Nothing was written."
            )
    config = backbone.model.config
    config.id2label = dict(enumerate(spec.objectives))
    config.label2id = {name: place for place, name in enumerate(spec.objectives)}
    # A score of any size, no probability: with this vLLM serves it as it is.
    config.problem_type = "regression"
    with replacing_checkpoint(folder) as fresh:
        backbone.model.save_pretrained(fresh)
        backbone.tokenizer.save_pretrained(fresh)
        if extra:
            save_file({name: tensor.contiguous() for name, tensor in extra.items()}, fresh / ENSEMBLE_FILE)
            write_index(fresh)
        write_spec(fresh, spec)


def _as_turns(prompt: PromptLike, place: int) -> tuple[Message, ...]:
    if isinstance(prompt, str):
        return (Message(role="user", content=prompt),)
    try:
        turns = tuple(
            each if isinstance(each, Message) else Message(role=each["role"], content=each["content"])
            for each in prompt
        )
    except (KeyError, TypeError, ValueError):
        turns = ()
    if not turns:
        raise InputError(f"prompt {place + 1}: no conversation; expected a text, or messages with role and content.")
    return turns


def _numbered(prompts: Sequence[tuple[Message, ...]]) -> list[int]:
    """A number for each prompt, the same for equal ones."""
    numbers: dict[tuple[tuple[str, str], ...], int] = {}
    return [numbers.setdefault(tuple((turn.role, turn.content) for turn in turns), len(numbers)) for turns in prompts]


def _alone(group: Ints) -> npt.NDArray[np.bool_]:
    """Whether no other row is of the same group, (rows,)."""
    _, which, sizes = np.unique(group, return_inverse=True, return_counts=True)
    alone: npt.NDArray[np.bool_] = sizes[which] == 1
    return alone


def _device(device: str | torch.device | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        fact = str(error).strip().splitlines()[0]
        raise InputError(f"device {device}: cannot be used ({fact}); use cpu, or cuda where there is a GPU.") from None
    return chosen
