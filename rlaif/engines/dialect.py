"""What an OpenAI-compatible server can do, and how it is asked for it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from rlaif.engines.chat import SPACES, THINK_OPEN
from rlaif.engines.http import AnsweredError, HttpClient, Poster
from rlaif.engines.logprobs import MOST_TOKEN_IDS, bound_of, log_sum_exp, longer_choices, with_bounds
from rlaif.errors import RunError
from rlaif.types import JudgeRequest

_TOP_LOGPROBS = 20
_HARD_VERDICT_TOKENS = 32
_WORDS = {"vllm": "being vLLM", "continues": "continuing a turn", "max_length": "max_model_len"}


@dataclass
class Dialect:
    """How one server is spoken to.

    `continues`: it can continue an assistant turn, so a verdict is read in a step of its own. `choice_ids`: ids of
    each choice's spellings, where the server takes such a list (vLLM); else the top log-probabilities are searched.
    `rest_ids`: where the ids are known, by choice that begins longer ones, the token that each of those goes on with.
    `opens_thought`: its chat template begins a thought, so that an answer closes one that it did not open.
    """

    model: str
    vllm: bool
    continues: bool
    top_logprobs: int
    merges_system: bool = False
    opens_thought: bool = False
    tokens_name: str = "max_tokens"
    sends_temperature: bool = True
    max_length: int | None = None
    choice_ids: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    rest_ids: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def probe(self) -> dict[str, Any]:
        """Body of one small request that uses all that the server is thought to take."""
        question = {"role": "user", "content": "Answer with the letter A."}
        body: dict[str, Any] = {"model": self.model, "messages": [{"role": "system", "content": "Be brief."}, question]}
        if self.merges_system:
            body["messages"] = [question]
        body[self.tokens_name] = 1
        if self.sends_temperature:
            body["temperature"] = 0.0
        if self.top_logprobs:
            body.update(logprobs=True, top_logprobs=self.top_logprobs)
        return body

    def give_way(self, fault: str) -> bool:
        """Give up what the server's refusal names, else what servers most often lack; false when nothing is left."""
        if "max_completion_tokens" in fault and self.tokens_name == "max_tokens":
            self.tokens_name = "max_completion_tokens"
        elif "temperature" in fault and self.sends_temperature:
            self.sends_temperature = False
        elif ("system" in fault or "alternate" in fault) and not self.merges_system:
            self.merges_system = True
        elif self.top_logprobs:
            self.top_logprobs = 5 if self.top_logprobs > 5 else 0
        else:
            return False
        return True

    def difference(self, other: Dialect) -> str | None:
        """What tells this server from another, for a message: `max_model_len (4096, not 8192)`."""
        for each in fields(self):
            mine, theirs = getattr(self, each.name), getattr(other, each.name)
            if mine != theirs:
                return f"{_WORDS.get(each.name, each.name)} ({mine}, not {theirs})"
        return None

    def details(self) -> dict[str, Any]:
        """What the manifest records."""
        reads = "two steps" if self.continues else "one pass" if self.top_logprobs else "hard verdicts"
        return {
            "server": "vllm" if self.vllm else "other",
            "verdicts": reads,
            "max_model_len": self.max_length,
        }

    def _messages(self, request: JudgeRequest) -> list[dict[str, str]]:
        turns = [{"role": turn.role, "content": turn.content} for turn in request.messages]
        if self.merges_system and len(turns) > 1 and turns[0]["role"] == "system":
            turns[1]["content"] = f"{turns[0]['content']}\n\n{turns[1]['content']}"
            return turns[1:]
        return turns

    def _body(self, request: JudgeRequest, max_tokens: int, temperature: float) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": self._messages(request),
            self.tokens_name: max_tokens,
        }
        if self.sends_temperature:
            body["temperature"] = temperature
        if temperature > 0:
            body.update(seed=request.seed, top_p=1.0)
        if self.vllm:
            # A model's own generation defaults are not to tilt the judge.
            body.update(repetition_penalty=1.0, top_k=-1, min_p=0.0)
        return body

    def writing(self, request: JudgeRequest, *, stop: bool) -> dict[str, Any]:
        """Body that asks for a rationale, or for a policy's response."""
        body = self._body(request, request.max_tokens, request.temperature)
        if stop:
            body["stop"] = [request.verdict_prefix]
        return body

    def reading(self, request: JudgeRequest, turn: str, begun: str = "") -> dict[str, Any]:
        """Body that reads the choice after `turn`, the judge's own turn up to the marker.

        With `begun`, a choice that begins longer ones, it reads what comes after that.
        """
        body = self._body(request, 1, 0.0)
        body["messages"].append({"role": "assistant", "content": turn + begun})
        body.update(add_generation_prompt=False, continue_final_message=True, logprobs=True)
        if self.choice_ids:
            ids = [i for choice in request.choices for i in self.choice_ids[choice]]
            ids = list(self.rest_ids[begun].values()) if begun else ids
            body.update(top_logprobs=0, logprob_token_ids=ids, return_tokens_as_token_ids=True)
        else:
            body["top_logprobs"] = self.top_logprobs
        if request.rationale is not None and self.vllm:
            body["chat_template_kwargs"] = {"enable_thinking": False}
        return body

    def one_pass(self, request: JudgeRequest) -> dict[str, Any]:
        """Body that asks for rationale and verdict in one text."""
        body = self._body(request, request.max_tokens or _HARD_VERDICT_TOKENS, request.temperature)
        if self.top_logprobs:
            body.update(logprobs=True, top_logprobs=self.top_logprobs)
        return body

    def choice_logprobs(
        self, choices: tuple[str, ...], entry: Mapping[str, Any], *, joined: str = ""
    ) -> dict[str, float]:
        """Log-probability of each choice in one position's list; `joined` is what of the marker its token holds.

        A choice that may take two tokens and is not listed is left out: `begins` says after which one it is read.
        """
        listed = _listed(entry)
        found: dict[str, float] = {}
        for choice in choices:
            if self.choice_ids:
                spelled = [listed[name] for i in self.choice_ids[choice] if (name := f"token_id:{i}") in listed]
            else:
                spelled = [
                    logprob
                    for token, logprob in listed.items()
                    if token.startswith(joined) and token.removeprefix(joined).strip() == choice
                ]
            if spelled:
                found[choice] = log_sum_exp(spelled)
        if self.choice_ids:
            return found
        longer = {choice for others in self.begins(choices, found).values() for choice in others}
        return with_bounds(found, [choice for choice in choices if choice not in longer], list(listed.values()))

    def begins(self, choices: tuple[str, ...], found: Mapping[str, float]) -> dict[str, list[str]]:
        """Choices after which others are to be read that may take two tokens, and those.

        Where nothing is known of the vocabulary, a longer choice that is listed is a token of its own.
        """
        if self.choice_ids:
            return {first: list(rests) for first, rests in self.rest_ids.items()}
        left = longer_choices(choices)
        unlisted = {first: [choice for choice in longer if choice not in found] for first, longer in left.items()}
        return {first: longer for first, longer in unlisted.items() if longer}

    def rest_logprobs(self, first: str, longer: Sequence[str], entry: Mapping[str, Any]) -> dict[str, float]:
        """Log-probability of what is left of each longer choice, in the list of the position after `first`.

        Empty where there is no list: then it is not known how much of `first` belongs to them.
        """
        listed = _listed(entry)
        if not listed:
            return {}
        names = {choice: choice.removeprefix(first) for choice in longer}
        if self.choice_ids:
            names = {choice: f"token_id:{self.rest_ids[first][choice]}" for choice in longer}
        bound = bound_of(list(listed.values()), sum(name not in listed for name in names.values()))
        return {choice: listed.get(name, bound) for choice, name in names.items()}

    async def room(self, client: Poster, request: JudgeRequest, error: AnsweredError) -> int | None:
        """Tokens left for an answer when the server says that prompt and answer together are too long."""
        if (
            not self.vllm
            or not self.max_length
            or not re.search(r"context|max_tokens|too long|maximum", error.message, re.I)
        ):
            return None
        body = {"model": self.model, "messages": self._messages(request), "add_generation_prompt": True}
        try:
            answer = await client.post("/tokenize", body)
        except AnsweredError:
            return None
        reserve = 8 + len(request.verdict_prefix) if request.choices else 0
        left = self.max_length - int(answer["count"]) - reserve
        return left if left >= 16 else None


async def learn_dialect(client: HttpClient, model: str, first: JudgeRequest, continues: bool | None) -> Dialect:
    """Find out what the server can do, with one small request.

    Raises:
        RunError: it does not know the model, or refuses even a plain question.
    """
    listed = await client.get("/v1/models")
    entry: dict[str, Any] = next((e for e in listed.get("data", []) if e.get("id") == model), {})
    vllm = entry.get("owned_by") == "vllm"
    dialect = Dialect(
        model,
        vllm,
        vllm if continues is None else continues,
        _TOP_LOGPROBS,
        max_length=entry.get("max_model_len"),
    )
    while True:
        try:
            answer = await client.post("/v1/chat/completions", dialect.probe())
            break
        except AnsweredError as error:
            if not dialect.give_way(error.message.lower()):
                raise RunError(
                    f"{client.base_url}: refuses a plain chat request ({error.message}); has the model a chat template?"
                ) from None
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not choices or not (choices[0].get("logprobs") or {}).get("content"):
        dialect.top_logprobs = 0
    if not dialect.top_logprobs:
        # Without log-probabilities there is nothing to read in a second step.
        dialect.continues = False
    elif vllm and first.choices:
        dialect.choice_ids, dialect.rest_ids = await _spellings(client, model, first)
    if vllm:
        dialect.opens_thought = await _opens_thought(client, model, dialect.probe()["messages"])
    return dialect


async def _opens_thought(client: HttpClient, model: str, messages: Any) -> bool:
    """Tell whether the chat template ends in `<think>`; no where the server does not tokenize for us."""
    body = {"model": model, "messages": messages, "add_generation_prompt": True, "return_token_strs": True}
    try:
        tail = "".join((await client.post("/tokenize", body)).get("token_strs") or [])[-64:]
    except (AnsweredError, AttributeError, TypeError):
        return False
    return tail.rfind(THINK_OPEN) > tail.rfind("</")


def _listed(entry: Mapping[str, Any]) -> dict[str, float]:
    return {
        str(item["token"]): float(item["logprob"])
        for item in [*(entry.get("top_logprobs") or ()), entry]
        if "token" in item and item.get("logprob") is not None
    }


async def _spellings(
    client: HttpClient, model: str, request: JudgeRequest
) -> tuple[dict[str, tuple[int, ...]], dict[str, dict[str, int]]]:
    """Ids of the tokens that spell each choice after the marker, and of what two-token choices go on with.

    Both are empty where the server does not tokenize for us, a choice takes more tokens, or there are more of them
    than it gives the log-probabilities of.
    """

    async def ids(text: str) -> list[int]:
        answer = await client.post("/tokenize", {"model": model, "prompt": text, "add_special_tokens": False})
        return [int(token) for token in answer["tokens"]]

    marker = request.verdict_prefix
    texts = [marker]
    texts += [before + space + choice for before in ("", marker) for choice in request.choices for space in SPACES]
    try:
        tokens = dict(zip(texts, await asyncio.gather(*map(ids, texts)), strict=True))
    except (AnsweredError, KeyError, TypeError):
        return {}, {}
    found: dict[str, tuple[int, ...]] = {}
    for choice in request.choices:
        after = [tokens[marker + space + choice] for space in SPACES]
        alone = [tokens[space + choice] for space in SPACES]
        whole = {one[-1] for one in after if one[:-1] == tokens[marker]} | {one[0] for one in alone if len(one) == 1}
        found[choice] = tuple(sorted(whole))
    rests: dict[str, dict[str, int]] = {}
    for first, longer in longer_choices(request.choices).items():
        begun = tokens[marker + first]
        written = {choice: tokens[marker + choice] for choice in longer}
        goes_on = {choice: one[-1] for choice, one in written.items() if one[:-1] == begun}
        if begun[-1:] and begun[-1] in found[first] and goes_on:
            rests[first] = goes_on
    split = {choice for longer in rests.values() for choice in longer}
    if any(not whole and choice not in split for choice, whole in found.items()):
        return {}, {}
    return (found, rests) if sum(map(len, found.values())) <= MOST_TOKEN_IDS else ({}, {})
