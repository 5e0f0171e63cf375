"""The request shapes that are taken, read with care, and the answers in the same shape."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import orjson

from rlaif.errors import nearest
from rlaif.serving.batching import Scored, Work
from rlaif.types import Message, Role, TagValue

if TYPE_CHECKING:
    from rlaif.rewards.heads import Reward
    from rlaif.serving.queries import QueryReader

_ROLES = get_args(Role)
_NAMES = {str: "a text", dict: "an object", list: "a list", bool: "true or false", int: "a number", float: "a number"}
_DIGITS = 6
# vLLM's names of the two sides, the usual one first.
_SIDES = (("text_1", "text_2"), ("queries", "documents"))


class BadRequest(Exception):
    """A request that cannot be answered as it is; `status` is the HTTP status."""

    def __init__(self, reason: str, status: int = 422) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True)
class Asked:
    """What is to be scored, and how the answer is written."""

    work: Work
    answer: Callable[[Scored], dict[str, Any]]


class Shapes:
    """Reads bodies.

    Args:
        model: the name under which the heads are served.
        objectives: of the heads.
        most: responses of one request.
        queries: of the policy's texts.
    """

    def __init__(self, model: str, objectives: Sequence[str], most: int, queries: QueryReader) -> None:
        self._model, self._objectives, self._most, self._queries = model, objectives, most, queries

    def score(self, body: bytes) -> Asked:
        """`POST /score`: one prompt with responses, a list of prompts with a response each, or vLLM's shape.

        Raises:
            BadRequest: none of these.
        """
        value = _json(body)
        if isinstance(value, list):
            return self._items(value)
        if isinstance(value, dict) and {name for pair in _SIDES for name in pair} & value.keys():
            return self._sides(value)
        known = _object(value, "the body", ("prompt", "responses"), ("model", "tags"))
        self._check_model(known)
        turns = _turns(known["prompt"], "prompt")
        responses = self._texts(known["responses"], "responses")
        tags = _tags(known.get("tags"), "tags")
        count = len(responses)
        return self._ours([turns] * count, responses, [0] * count, [tags] * count)

    def vllm(self, body: bytes) -> Asked:
        """`POST /v1/score`, as vLLM takes it.

        Raises:
            BadRequest: another shape, or another model.
        """
        return self._sides(_json(body))

    def openrlhf(self, body: bytes) -> Asked:
        """`POST /get_reward`, as OpenRLHF's trainer asks.

        Raises:
            BadRequest: another shape, or a query that cannot be split.
        """
        known = _object(_json(body), "the body", ("query",), ("prompts", "labels"))
        queries = self._texts(known["query"], "query")
        prompts: Sequence[str | None] = [None] * len(queries)
        if known.get("prompts") is not None:
            prompts = self._texts(known["prompts"], "prompts")
        for name in ("prompts", "labels"):
            given = known.get(name)
            if given is not None and (not isinstance(given, list) or len(given) != len(queries)):
                raise BadRequest(f"{name} has to be a list of {len(queries)}, as query is")
        turns, responses = [], []
        for place, (query, prompt) in enumerate(zip(queries, prompts, strict=True)):
            try:
                before, response = self._queries.split(query, prompt)
            except ValueError as error:
                raise BadRequest(f"query[{place}] {error}") from None
            turns.append(before)
            responses.append(response)
        names = self._objectives

        def answer(scored: Scored) -> dict[str, Any]:
            rewards = [round(each.reward, _DIGITS) for each in scored.rewards]
            logs = {name: [round(each.rewards[name], _DIGITS) for each in scored.rewards] for name in names}
            # Lists of as many: what is missing for one is missing for all.
            if all(each.std is not None for each in scored.rewards):
                logs |= {f"{name}_std": [_of(each.std, name) for each in scored.rewards] for name in names}
            logs["below_floors"] = [float(len(each.below_floors)) for each in scored.rewards]
            return {"rewards": rewards, "scores": rewards, "extra_logs": logs}

        return Asked(_work(turns, responses), answer)

    def _items(self, items: list[Any]) -> Asked:
        if not items:
            raise BadRequest("the list is empty; expected objects with prompt and response")
        self._check_count(len(items))
        turns, responses, tags = [], [], []
        for place, item in enumerate(items):
            known = _object(item, f"[{place}]", ("prompt", "response"), ("tags",))
            turns.append(_turns(known["prompt"], f"[{place}].prompt"))
            responses.append(_text(known["response"], f"[{place}].response"))
            tags.append(_tags(known.get("tags"), f"[{place}].tags"))
        work = _work(turns, responses)
        return self._ours(work.prompts, responses, work.groups, tags)

    def _ours(
        self,
        turns: Sequence[tuple[Message, ...]],
        responses: Sequence[str],
        groups: Sequence[int],
        tags: Sequence[Mapping[str, TagValue]],
    ) -> Asked:
        def answer(scored: Scored) -> dict[str, Any]:
            results = [_result(each) for each in scored.rewards]
            return {"model": self._model, "results": results, "usage": _usage(scored)}

        return Asked(Work(turns, responses, groups, tags), answer)

    def _sides(self, value: Any) -> Asked:
        first, second = _SIDES[0]
        if isinstance(value, dict) and not {first, second} & value.keys():
            first, second = next((pair for pair in _SIDES if set(pair) & value.keys()), _SIDES[0])
        known = _object(value, "the body", (first, second), ("model", "user", "use_activation"))
        self._check_model(known)
        if known.get("use_activation") not in (None, False):
            raise BadRequest("use_activation: rewards are no probabilities; leave it out")
        one, other = self._side(known[first], first), self._side(known[second], second)
        if len(one) == 1:
            one = one * len(other)
        if len(one) != len(other):
            raise BadRequest(
                f"{first} has {len(one)} texts and {second} {len(other)}; expected as many, or one {first}"
            )
        turns = [_turns(text, f"{first}[{place}]") for place, text in enumerate(one)]

        def answer(scored: Scored) -> dict[str, Any]:
            data = [
                {"index": place, "object": "score", "score": round(each.reward, _DIGITS)}
                for place, each in enumerate(scored.rewards)
            ]
            return {
                "id": f"score-{time.time_ns():x}",
                "object": "list",
                "created": int(time.time()),
                "model": self._model,
                "data": data,
                "usage": _usage(scored),
            }

        return Asked(_work(turns, other), answer)

    def _side(self, value: Any, name: str) -> list[str]:
        return [_text(value, name)] if isinstance(value, str) else self._texts(value, name)

    def _texts(self, value: Any, name: str) -> list[str]:
        if not isinstance(value, list) or not value:
            raise BadRequest(f"{name} is {_kind(value)}; expected a list of texts")
        self._check_count(len(value))
        return [_text(text, f"{name}[{place}]") for place, text in enumerate(value)]

    def _check_count(self, count: int) -> None:
        if count > self._most:
            raise BadRequest(f"{count:,} responses; at most {self._most:,} in one request. Send several.", 413)

    def _check_model(self, known: Mapping[str, Any]) -> None:
        given = known.get("model")
        if given is not None and _text(given, "model") != self._model:
            raise BadRequest(f"model: {given[:80]!r} is not served here; served is {self._model!r}", 404)


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(
            f"the body is no JSON ({error})" if body else "the body is empty; expected JSON", 400
        ) from None


def _object(value: Any, place: str, needed: Sequence[str], more: Sequence[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadRequest(f"{place} is {_kind(value)}; expected an object with {' and '.join(needed)}")
    known = (*needed, *more)
    for name in value:
        if name not in known:
            raise BadRequest(f"{place}: unknown key {name[:40]!r}; known are {', '.join(known)}.{nearest(name, known)}")
    for name in needed:
        if name not in value:
            raise BadRequest(f"{place}: {name} is missing")
    return value


def _text(value: Any, place: str) -> str:
    if not isinstance(value, str):
        raise BadRequest(f"{place} is {_kind(value)}; expected a text")
    if "\x00" in value:
        raise BadRequest(f"{place} holds a NUL character")
    return value


def _turns(value: Any, place: str) -> tuple[Message, ...]:
    if isinstance(value, str):
        if not value.strip():
            raise BadRequest(f"{place} is empty")
        return (Message(role="user", content=_text(value, place)),)
    if not isinstance(value, list) or not value:
        raise BadRequest(f"{place} is {_kind(value)}; expected a text, or messages with role and content")
    turns = []
    for number, turn in enumerate(value):
        mine = f"{place}[{number}]"
        known = _object(turn, mine, ("role", "content"), ())
        role = _text(known["role"], f"{mine}.role")
        if role not in _ROLES:
            raise BadRequest(f"{mine}.role is {role[:40]!r}; known are {', '.join(_ROLES)}")
        turns.append(Message(role=role, content=_text(known["content"], f"{mine}.content")))
    return tuple(turns)


def _tags(value: Any, place: str) -> dict[str, TagValue]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadRequest(f"{place} is {_kind(value)}; expected an object of plain values")
    for name, tag in value.items():
        if isinstance(tag, dict | list) or (isinstance(tag, float) and not math.isfinite(tag)):
            raise BadRequest(f"{place}.{name[:40]} is {_kind(tag)}; expected a plain value")
    return value


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    return "empty" if value in ([], {}, "") else _NAMES[type(value)]


def _work(turns: Sequence[tuple[Message, ...]], responses: Sequence[str]) -> Work:
    numbers: dict[tuple[tuple[str, str], ...], int] = {}
    groups = [numbers.setdefault(tuple((turn.role, turn.content) for turn in prompt), len(numbers)) for prompt in turns]
    return Work(turns, responses, groups, [{}] * len(responses))


def _result(reward: Reward) -> dict[str, Any]:
    return {
        "rewards": _rounded(reward.rewards),
        "std": None if reward.std is None else _rounded(reward.std),
        "reward": round(reward.reward, _DIGITS),
        "pareto_rank": reward.pareto_rank,
        "below_floors": list(reward.below_floors),
    }


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    # What the last digits say depends on the batch, not on the response.
    return {name: round(value, _DIGITS) for name, value in values.items()}


def _of(values: Mapping[str, float] | None, name: str) -> float:
    return 0.0 if values is None else round(values[name], _DIGITS)


def _usage(scored: Scored) -> dict[str, int]:
    return {"prompt_tokens": scored.tokens, "total_tokens": scored.tokens}
