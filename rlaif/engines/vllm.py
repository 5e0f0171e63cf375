"""A judge run in this process by vLLM: the fast engine on one machine."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from rlaif.engines.base import EngineArgs, ModelIdentity
from rlaif.engines.chat import (
    THINK_OPEN,
    ChatTokenizer,
    LongerChoices,
    RefusedMessages,
    Spellings,
    cut_at_verdict,
    is_thinking,
    with_thought,
)
from rlaif.engines.logprobs import MOST_TOKEN_IDS, bound_of, log_sum_exp, share_out, with_bounds, worth_reading_on
from rlaif.engines.reaper import Reaper
from rlaif.errors import InputError
from rlaif.types import Completion, FinishReason, JudgeRequest, Usage

_ENCODE_AT_ONCE = 32
_TOP_LOGPROBS = 20
_GRACE_S = 0.5


def quiet_vllm() -> None:
    """Keep vLLM's log off standard output, where results go; a user's own settings win."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")


@dataclass
class _Flight:
    """A request on its way: first its rationale, then its choice, then what is left of choices of two tokens."""

    request: JudgeRequest
    prompt: str
    prompt_ids: list[int]
    text: str = ""
    finish: FinishReason = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reading: bool = False
    read_ids: list[int] = field(default_factory=list)
    found: dict[str, float] = field(default_factory=dict)
    after: LongerChoices | None = None
    waiting: list[LongerChoices] = field(default_factory=list)


class VllmEngine:
    """Keeps vLLM's queue full: a choice is asked as soon as its rationale is there, while the prefix is still cached.

    Every engine argument goes to `vllm.LLM` as it is (`tensor_parallel_size=2`, `dtype=float32`, `max_model_len=8192`).

    Raises:
        InputError: vLLM is not installed, or cannot load the model with these arguments.
    """

    name = "vllm"
    atomic_batch: int | None = None

    def __init__(self, model: ModelIdentity, args: EngineArgs) -> None:
        quiet_vllm()
        try:
            import psutil  # a dependency of vLLM's
            import vllm
            from vllm import LLM, SamplingParams
            from vllm.platforms import current_platform
        except ImportError as error:
            raise InputError(f"--engine vllm: vLLM cannot be imported ({error}); pip install 'rlaif[vllm]'.") from None
        options: dict[str, Any] = {"enable_prefix_caching": True, "seed": 0, **args.take_all()}
        if current_platform.is_cpu():
            os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
            # Compiling costs minutes on a CPU; small blocks let short prompts share their prefixes.
            options = {"enforce_eager": True, "block_size": 32, **options}
        before = set(psutil.Process().children(recursive=True))
        try:
            self._llm = LLM(model=model.source, **options)
        except Exception as error:
            fact = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            hint = "set VLLM_LOGGING_LEVEL=INFO to see why, or use --engine transformers"
            raise InputError(f"{model.source}: vLLM cannot load the model ({fact}); {hint}.") from None
        self._children = [child for child in psutil.Process().children(recursive=True) if child not in before]
        self._reaper = Reaper(child.pid for child in self._children)
        config = self._llm.llm_engine.vllm_config
        self._chat = ChatTokenizer(self._llm.get_tokenizer(), config.model_config.max_model_len)
        # Enough to keep every slot busy; more would let prefixes fall out of the cache before their choice is read.
        self.window = config.scheduler_config.max_num_seqs + _ENCODE_AT_ONCE
        self._params = SamplingParams
        self._has_token_ids = "logprob_token_ids" in SamplingParams.__struct_fields__
        self._counter = 0
        self.details: Mapping[str, Any] = {
            "dtype": str(config.model_config.dtype).removeprefix("torch."),
            "device": current_platform.device_type,
            "max_model_len": self._chat.max_length,
            "vllm": vllm.__version__,
        }

    def complete(self, requests: Iterable[JudgeRequest]) -> Iterator[Completion]:
        """Answer requests as vLLM finishes them; see `Engine.complete`."""
        engine = self._llm.llm_engine
        waiting = iter(requests)
        flights: dict[str, _Flight] = {}
        failed: deque[Completion] = deque()
        more = True
        try:
            while more or flights:
                while more and len(flights) < self.window:
                    chunk = list(islice(waiting, _ENCODE_AT_ONCE))
                    more = len(chunk) == _ENCODE_AT_ONCE
                    self._start(chunk, flights, failed)
                while failed:
                    yield failed.popleft()
                if not flights:
                    continue
                for output in engine.step():
                    if output.finished and (flight := flights.pop(output.request_id, None)):
                        done = self._finished(flight, output, flights)
                        if done is not None:
                            yield done
        finally:
            # On an error or Ctrl-C vLLM is to forget what nobody waits for.
            if flights:
                engine.abort_request(list(flights))

    def _start(self, chunk: list[JudgeRequest], flights: dict[str, _Flight], failed: deque[Completion]) -> None:
        prompts: list[tuple[JudgeRequest, str]] = []
        for request in chunk:
            try:
                prompts.append((request, self._chat.request_text(request)))
            except RefusedMessages as error:
                if request.choices:
                    raise
                # A policy is asked what the data holds; one odd conversation does not end the run.
                failed.append(Completion(key=request.key, error=str(error), finish_reason="error"))
        texts = [
            prompt if request.rationale is None else self._chat.verdict_text(request, prompt, request.rationale)
            for request, prompt in prompts
        ]
        for (request, prompt), ids in zip(prompts, self._chat.encode(texts), strict=True):
            reserve = 0 if not request.choices else 8 + len(request.verdict_prefix)
            reads = request.rationale is not None
            if fault := self._chat.too_long(len(ids), self._spelled(request).steps if reads else reserve + 16):
                failed.append(Completion(key=request.key, error=fault, finish_reason="error"))
                continue
            flight = _Flight(request, prompt, ids, text=request.rationale or "", reading=reads)
            limit = min(request.max_tokens, self._chat.max_length - len(ids) - reserve)
            if reads:
                self._read(flight, ids, flights)
            else:
                self._add(flight, ids, self._writing_params(request, limit), flights)

    def _add(self, flight: _Flight, ids: list[int], params: Any, flights: dict[str, _Flight]) -> None:
        self._counter += 1
        name = f"rlaif-{self._counter}"
        self._llm.llm_engine.add_request(name, {"prompt_token_ids": ids}, params)
        flights[name] = flight

    def _writing_params(self, request: JudgeRequest, limit: int) -> Any:
        stop = [request.verdict_prefix] if request.choices else None
        sampling: dict[str, Any] = {"temperature": request.temperature, "max_tokens": limit, "stop": stop}
        sampling["skip_special_tokens"] = not self._chat.special_thoughts
        if request.temperature > 0:
            sampling["seed"] = request.seed
        return self._params(**sampling)

    def _spelled(self, request: JudgeRequest) -> Spellings:
        return self._chat.spellings(request.verdict_prefix, request.choices)

    def _read(self, flight: _Flight, ids: list[int], flights: dict[str, _Flight]) -> None:
        """Ask for the choice that comes after `ids`."""
        flight.reading, flight.read_ids = True, ids
        self._add(flight, ids, self._reading_params(_all_tokens(self._spelled(flight.request))), flights)

    def _reading_params(self, tokens: list[int]) -> Any:
        if self._gives(tokens):
            return self._params(temperature=0.0, max_tokens=1, logprob_token_ids=tokens, detokenize=False)
        return self._params(temperature=0.0, max_tokens=1, logprobs=_TOP_LOGPROBS, detokenize=False)

    def _gives(self, tokens: list[int]) -> bool:
        """Whether vLLM tells the log-probabilities of these tokens, however small."""
        return self._has_token_ids and len(tokens) <= MOST_TOKEN_IDS

    def _finished(self, flight: _Flight, output: Any, flights: dict[str, _Flight]) -> Completion | None:
        request, answer = flight.request, output.outputs[0]
        flight.prompt_tokens += len(output.prompt_token_ids)
        flight.completion_tokens += len(answer.token_ids)
        if answer.finish_reason not in ("stop", "length"):
            return Completion(key=request.key, error=f"vLLM ended with {answer.finish_reason!r}", finish_reason="error")
        if flight.reading:
            return self._read_on(flight, answer.logprobs[0], flights)
        flight.text += answer.text
        flight.finish = answer.finish_reason
        opened = flight.prompt.rstrip().endswith(THINK_OPEN)
        if not request.choices:
            flight.text = with_thought(flight.text, opened)
            return self._completion(flight, {})
        if answer.stop_reason == request.verdict_prefix and is_thinking(flight.text, opened):
            # The marker was quoted inside a thought: let the judge think on.
            flight.text += request.verdict_prefix
            text = flight.prompt + self._chat.neutral(flight.text, keep_thinking=True)
            ids = self._chat.encode_on(flight.prompt, flight.prompt_ids, text)
            left = request.max_tokens - flight.completion_tokens
            room = self._chat.max_length - len(ids) - 8 - len(request.verdict_prefix)
            if min(left, room) > 0:
                self._add(flight, ids, self._writing_params(request, min(left, room)), flights)
                return None
            flight.finish = "length"
        flight.text, _ = cut_at_verdict(flight.text, request.verdict_prefix, thought_opened=opened)
        text = self._chat.verdict_text(request, flight.prompt, flight.text)
        ids = self._chat.encode_on(flight.prompt, flight.prompt_ids, text)
        if fault := self._chat.too_long(len(ids), 1):
            return Completion(key=request.key, rationale=flight.text, error=fault, finish_reason="error")
        self._read(flight, ids, flights)
        return None

    def _read_on(self, flight: _Flight, listed: Mapping[int, Any], flights: dict[str, _Flight]) -> Completion | None:
        """Take in one reading; ask for the next token where choices of two tokens need it."""
        if flight.after is None:
            flight.found = self._choice_logprobs(self._spelled(flight.request), listed)
            longer = self._spelled(flight.request).longer
            flight.waiting = [one for one in longer if worth_reading_on(flight.found, one.first)]
        else:
            flight.found = share_out(flight.found, flight.after.first, self._rests(flight.after, listed))
        if not flight.waiting:
            return self._completion(flight, flight.found)
        flight.after = flight.waiting.pop(0)
        params = self._reading_params(list(flight.after.rests.values()))
        self._add(flight, [*flight.read_ids, flight.after.token], params, flights)
        return None

    def _completion(self, flight: _Flight, logprobs: dict[str, float]) -> Completion:
        return Completion(
            key=flight.request.key,
            rationale=flight.text,
            choice_logprobs=logprobs,
            finish_reason=flight.finish,
            usage=Usage(prompt_tokens=flight.prompt_tokens, completion_tokens=flight.completion_tokens),
        )

    def _choice_logprobs(self, spelled: Spellings, listed: Mapping[int, Any]) -> dict[str, float]:
        found = {}
        for choice, ids in spelled.tokens.items():
            given = [listed[i].logprob for i in ids if i in listed]
            if given:
                found[choice] = log_sum_exp(given)
        if self._gives(_all_tokens(spelled)):
            return found
        return with_bounds(found, list(spelled.tokens), [entry.logprob for entry in listed.values()])

    def _rests(self, longer: LongerChoices, listed: Mapping[int, Any]) -> dict[str, float]:
        given = [entry.logprob for entry in listed.values()]
        found = {choice: listed[i].logprob for choice, i in longer.rests.items() if i in listed}
        bound = bound_of(given, len(longer.rests) - len(found))
        return {choice: found.get(choice, bound) for choice in longer.rests}

    def metrics(self) -> dict[str, float]:
        """vLLM's own counters, by name (summed over engines)."""
        totals: dict[str, float] = {}
        for metric in self._llm.get_metrics():
            value = getattr(metric, "value", None)
            if isinstance(value, (int, float)):
                totals[metric.name] = totals.get(metric.name, 0.0) + value
        return totals

    def close(self) -> None:
        """Stop vLLM's processes; one that does not stop at once is killed, as nobody waits for its answers."""
        import psutil

        self._reaper.release()
        for signal in ("terminate", "kill"):
            for child in self._children:
                with contextlib.suppress(psutil.NoSuchProcess):
                    getattr(child, signal)()
            psutil.wait_procs(self._children, timeout=_GRACE_S)
        self._llm.llm_engine.engine_core.shutdown()


def _all_tokens(spelled: Spellings) -> list[int]:
    return [token for tokens in spelled.tokens.values() for token in tokens]
