"""A judge run in this process by transformers: for a laptop, a CPU, or one GPU without vLLM."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, StoppingCriteria, StoppingCriteriaList
from transformers import logging as transformers_logging

from rlaif.engines.base import EngineArgs, ModelIdentity
from rlaif.engines.chat import THINK_OPEN, ChatTokenizer, RefusedMessages, cut_at_verdict, with_thought
from rlaif.engines.kv_cache import Rows
from rlaif.engines.logprobs import share_out, worth_reading_on
from rlaif.errors import InputError, RunError
from rlaif.types import Completion, FinishReason, JudgeRequest, Usage

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
KNOWN_ARGS = ("dtype", "device", "max_model_len", "batch_tokens", "revision", "trust_remote_code")
# From here on bf16 decodes at least half as fast again (benchmarks/cpu_dtype.py); below, float32's digits are cheap.
_BF16_CPU_PARAMETERS = 10_000_000
_ATOMIC_BATCH = 64


class _AtMarker(StoppingCriteria):
    """Stops each row once its answer holds the verdict marker; `lengths` says after how many tokens."""

    def __init__(self, chat: ChatTokenizer, markers: Sequence[str], opened: Sequence[bool], prompt_length: int) -> None:
        self._chat = chat
        self._markers, self._opened = markers, opened
        # A marker has at most a token a byte; two more, as a token may begin or end inside it.
        self._window = max(len(marker.encode()) for marker in markers) + 2
        self._start = prompt_length
        self._done = [False] * len(markers)
        self.lengths: dict[int, int] = {}

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        for row, marker in enumerate(self._markers):
            if marker and not self._done[row]:
                begin = max(self._start, input_ids.shape[1] - self._window)
                if marker in self._chat.decode(input_ids[row, begin:].tolist()):
                    whole = self._chat.decode(input_ids[row, self._start :].tolist(), skip_special=True)
                    self._done[row] = cut_at_verdict(whole, marker, thought_opened=self._opened[row])[1]
                    if self._done[row]:
                        self.lengths[row] = input_ids.shape[1] - self._start
        return torch.tensor(self._done, device=input_ids.device)


class TransformersEngine:
    """Batches by length within `atomic_batch` requests of the plan.

    Engine arguments: `dtype` (auto, float32, bfloat16, float16), `device` (auto, cpu, cuda, …), `max_model_len`
    (tokens), `batch_tokens` (padded tokens a batch, prompts and answers), `revision`, `trust_remote_code` (false).

    Raises:
        InputError: the model cannot be loaded.
    """

    name = "transformers"
    atomic_batch: int | None = _ATOMIC_BATCH

    def __init__(self, model: ModelIdentity, args: EngineArgs) -> None:
        device = args.take("device", "auto")
        dtype = args.take("dtype", "auto")
        max_length = args.take("max_model_len", 0)
        batch_tokens = args.take("batch_tokens", 0)
        hub = {
            "trust_remote_code": args.take("trust_remote_code", False),
            "revision": args.take("revision", None),
        }
        args.none_left(self.name, KNOWN_ARGS)
        transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        try:
            self._device = torch.device(_best_device() if device == "auto" else device)
            torch.empty(1, device=self._device)
        except (RuntimeError, AssertionError) as error:
            fact = str(error).strip().splitlines()[0]
            raise InputError(f"--engine-arg device={device}: not usable here ({fact}); expected auto or cpu.") from None
        self._chat = ChatTokenizer.load(model.source, max_length or None, **hub)
        self._chat.tokenizer.padding_side = "left"
        self._pad = self._chat.tokenizer.pad_token_id
        self._pad = self._chat.tokenizer.eos_token_id if self._pad is None else self._pad
        self._pad = 0 if self._pad is None else self._pad
        self._model = self._load(model.source, dtype, hub)
        self._stop_ids = self._untilt()
        self._batch_tokens = batch_tokens or (65_536 if self._device.type == "cuda" else _cpu_batch(self._model))
        self.details: Mapping[str, Any] = {
            "dtype": str(self._model.dtype).removeprefix("torch."),
            "device": self._device.type,
            "max_model_len": self._chat.max_length,
            "batch_tokens": self._batch_tokens,
        }

    def _load(self, source: str, dtype: str, hub: dict[str, Any]) -> Any:
        wanted = _DTYPES.get(dtype, torch.float32)
        if dtype != "auto" and dtype not in _DTYPES:
            raise InputError(f"--engine-arg dtype={dtype}: expected auto, float32, bfloat16 or float16.")
        if dtype == "auto" and self._device.type != "cpu":
            wanted = torch.bfloat16
        try:
            model: Any = AutoModelForCausalLM.from_pretrained(source, dtype=wanted, **hub)
        except Exception as error:
            fact = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise InputError(
                f"{source}: the model cannot be loaded ({fact}); a judge is a causal language model."
            ) from None
        if dtype == "auto" and self._device.type == "cpu" and _bf16_pays_on_cpu(model.num_parameters()):
            model = model.to(torch.bfloat16)
        return model.to(self._device).eval()

    def _untilt(self) -> set[int]:
        """Keep of the model's own generation settings what ends an answer: no penalty is to tilt the judge."""
        own = self._model.generation_config
        ends = own.eos_token_id if isinstance(own.eos_token_id, list) else [own.eos_token_id]
        stop_ids = {end for end in [*ends, self._chat.tokenizer.eos_token_id] if isinstance(end, int)}
        settings = {"bos_token_id": own.bos_token_id, "cache_implementation": own.cache_implementation}
        settings |= {"eos_token_id": sorted(stop_ids) or None, "pad_token_id": self._pad}
        self._model.generation_config = GenerationConfig(**settings)  # type: ignore[no-untyped-call]
        return stop_ids

    def complete(self, requests: Iterable[JudgeRequest]) -> Iterator[Completion]:
        """Answer requests in groups of `atomic_batch`; see `Engine.complete`."""
        group: list[JudgeRequest] = []
        for request in requests:
            group.append(request)
            if len(group) == _ATOMIC_BATCH:
                yield from self._complete_group(group)
                group = []
        yield from self._complete_group(group)

    def _complete_group(self, group: Sequence[JudgeRequest]) -> Iterator[Completion]:
        prompts: dict[str, str] = {}
        for request in group:
            try:
                prompts[request.key] = self._chat.request_text(request)
            except RefusedMessages as error:
                if request.choices:
                    raise
                # A policy is asked what the data holds; one odd conversation does not end the run.
                yield Completion(key=request.key, error=str(error), finish_reason="error")
        group = [request for request in group if request.key in prompts]
        ids = dict(zip(prompts, self._chat.encode(list(prompts.values())), strict=True))
        to_write: list[tuple[JudgeRequest, int]] = []
        to_read: list[tuple[JudgeRequest, int]] = []
        read_ids: dict[str, list[int]] = {}
        for request in group:
            reserve = 0 if not request.choices else 8 + len(request.verdict_prefix)
            wanted = reserve + (1 if request.rationale is not None else 16)
            fault = self._chat.too_long(len(ids[request.key]), wanted)
            if fault is None and request.rationale is not None:
                prompt = prompts[request.key]
                text = self._chat.verdict_text(request, prompt, request.rationale)
                read_ids[request.key] = self._chat.encode_on(prompt, ids[request.key], text)
                # A given rationale may be of any length.
                spelled = self._chat.spellings(request.verdict_prefix, request.choices)
                fault = self._chat.too_long(len(read_ids[request.key]), spelled.steps)
                to_read += [] if fault else [(request, 0)]
            elif fault is None:
                room = self._chat.max_length - len(ids[request.key]) - reserve
                to_write.append((request, min(request.max_tokens, room)))
            if fault:
                yield Completion(key=request.key, rationale=request.rationale or "", error=fault, finish_reason="error")
        for batch in self._batches(to_write, ids):
            yield from self._answer(batch, prompts, ids)
        for batch in self._batches(to_read, read_ids):
            chosen = [request for request, _ in batch]
            for request, (reading, more) in zip(chosen, self._read(chosen, read_ids), strict=True):
                length = len(read_ids[request.key])
                yield Completion(
                    key=request.key,
                    rationale=request.rationale or "",
                    choice_logprobs=reading,
                    finish_reason="stop",
                    usage=Usage(prompt_tokens=length + more * (length + 1), completion_tokens=1 + more),
                )

    def _batches(
        self, requests: list[tuple[JudgeRequest, int]], ids: Mapping[str, list[int]]
    ) -> Iterator[list[tuple[JudgeRequest, int]]]:
        """Group by length, longest first, so that memory fails early and padding is small; a pair's stay together."""
        lengths: dict[tuple[str, str], int] = {}
        for request, limit in requests:
            shown = request.pair_id, request.order
            lengths[shown] = max(lengths.get(shown, 0), len(ids[request.key]) + limit)

        def rank(item: tuple[JudgeRequest, int]) -> tuple[int, str, str, int, str]:
            request = item[0]
            shown = request.pair_id, request.order
            return lengths[shown], *shown, len(ids[request.key]), request.key

        ordered = sorted(requests, key=rank, reverse=True)
        batch: list[tuple[JudgeRequest, int]] = []
        for item in ordered:
            longest = max(len(ids[request.key]) + tokens for request, tokens in [*batch, item])
            same = not batch or batch[0][0].temperature == item[0].temperature
            if batch and (longest * (len(batch) + 1) > self._batch_tokens or not same):
                yield batch
                batch = []
            batch.append(item)
        if batch:
            yield batch

    def _answer(
        self, batch: list[tuple[JudgeRequest, int]], prompts: Mapping[str, str], ids: Mapping[str, list[int]]
    ) -> list[Completion]:
        """Have rationales written, then read the choices where they end."""
        try:
            rows = Rows(self._model, [ids[request.key] for request, _ in batch], self._pad)
            written = self._write(batch, rows, prompts)
            after: dict[str, list[int]] = {}
            for (request, _), (text, _, _) in zip(batch, written, strict=True):
                if request.choices:
                    prompt = prompts[request.key]
                    whole = self._chat.verdict_text(request, prompt, text)
                    after[request.key] = self._chat.encode_on(prompt, ids[request.key], whole)
            if after:
                rows = rows.resume([after.get(request.key, ids[request.key]) for request, _ in batch])
                readings = self._choices([request for request, _ in batch], rows)
        except torch.OutOfMemoryError:
            return self._halved(batch, lambda half: self._answer(half, prompts, ids))
        answers = []
        for n, ((request, _), (text, reason, tokens)) in enumerate(zip(batch, written, strict=True)):
            read = len(after.get(request.key, ()))
            reading, more = readings[n] if read else ({}, 0)
            answers.append(
                Completion(
                    key=request.key,
                    rationale=text,
                    choice_logprobs=reading,
                    finish_reason=reason,
                    usage=Usage(
                        prompt_tokens=len(ids[request.key]) + read + more * (read + 1),
                        completion_tokens=tokens + (read > 0) + more,
                    ),
                )
            )
        return answers

    def _write(
        self, batch: list[tuple[JudgeRequest, int]], rows: Rows, prompts: Mapping[str, str]
    ) -> list[tuple[str, FinishReason, int]]:
        markers = [request.verdict_prefix if request.choices else "" for request, _ in batch]
        opened = [prompts[request.key].rstrip().endswith(THINK_OPEN) for request, _ in batch]
        temperature = batch[0][0].temperature
        sampling: dict[str, Any] = {"do_sample": False}
        if temperature > 0:
            sampling = {"do_sample": True, "temperature": temperature, "top_p": 1.0, "top_k": 0}
        if rows.cache is not None:
            sampling["past_key_values"] = rows.cache
        width = rows.ids.shape[1]
        at_marker = _AtMarker(self._chat, markers, opened, width)
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.inference_mode(), torch.random.fork_rng(devices=devices):
            # One generator serves a batch, so its seed follows from every request in it.
            joint = hashlib.sha256("".join(request.key for request, _ in batch).encode()).digest()
            torch.manual_seed(int.from_bytes(joint[:6]))
            output = self._model.generate(
                input_ids=rows.ids,
                attention_mask=rows.mask,
                max_new_tokens=max(limit for _, limit in batch),
                stopping_criteria=StoppingCriteriaList([at_marker]),
                **sampling,
            )
        rows.wrote(output)
        done: list[tuple[str, FinishReason, int]] = []
        for place, ((request, limit), row) in enumerate(zip(batch, output[:, width:].tolist(), strict=True)):
            tokens = row[: min(limit, at_marker.lengths.get(place, limit))]
            ended = next((n for n, token in enumerate(tokens) if token in self._stop_ids), None)
            text, marked = self._chat.decode(tokens[:ended], skip_special=True), False
            if request.choices:
                text, marked = cut_at_verdict(text, request.verdict_prefix, thought_opened=opened[place])
            else:
                text = with_thought(text, opened[place])
            finish: FinishReason = "stop" if marked or ended is not None else "length"
            done.append((text, finish, len(tokens) if ended is None else ended + 1))
        return done

    def _read(self, requests: list[JudgeRequest], ids: Mapping[str, list[int]]) -> list[tuple[dict[str, float], int]]:
        try:
            return self._choices(requests, Rows(self._model, [ids[request.key] for request in requests], self._pad))
        except torch.OutOfMemoryError:
            return self._halved(requests, lambda half: self._read(half, ids))

    def _choices(self, requests: list[JudgeRequest], rows: Rows) -> list[tuple[dict[str, float], int]]:
        """Log-probability of each choice to come next, and how many more tokens were read for it, by request."""
        logprobs = rows.next_logprobs()
        spelled = [self._chat.spellings(request.verdict_prefix, request.choices) for request in requests]
        read = [
            {choice: float(row[tokens].logsumexp(-1)) for choice, tokens in one.tokens.items()}
            for one, row in zip(spelled, logprobs, strict=True)
        ]
        more = [0] * len(requests)
        # Choices of two tokens: one more token each, on from what is cached.
        for first in dict.fromkeys(longer.first for one in spelled for longer in one.longer):
            wanted = {
                place: longer
                for place, one in enumerate(spelled)
                for longer in one.longer
                if longer.first == first and worth_reading_on(read[place], first)
            }
            if not wanted:
                continue
            after = rows.logprobs_after([wanted[n].token if n in wanted else self._pad for n in range(len(requests))])
            for place, longer in wanted.items():
                rests = {choice: float(after[place, token]) for choice, token in longer.rests.items()}
                read[place] = share_out(read[place], first, rests)
                more[place] += 1
        return list(zip(read, more, strict=True))

    def _halved(self, batch: list[Any], again: Any) -> list[Any]:
        if len(batch) == 1:
            raise RunError(
                "the GPU has no memory for a single request; use a smaller judge or --engine-arg max_model_len=N."
            )
        torch.cuda.empty_cache()
        middle = (len(batch) + 1) // 2
        return [*again(batch[:middle]), *again(batch[middle:])]

    def close(self) -> None:
        """Free the model."""
        self._model = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def _best_device() -> str:
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def _cpu_batch(model: Any) -> int:
    """Tokens whose keys and values take a gibibyte: a small model's steps cost less a row, the more rows they have."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    a_token = 2 * config.num_hidden_layers * heads * size * model.dtype.itemsize
    return int(min(max(2**30 // a_token, 16_384), 65_536))


def _bf16_pays_on_cpu(parameters: int) -> bool:
    # A CPU without such instructions emulates bf16, slowly.
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return parameters >= _BF16_CPU_PARAMETERS and any(check() for check in checks if check is not None)
