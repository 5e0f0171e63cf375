"""The plan: which questions a pair gives rise to, in which order, under which keys."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

from rlaif.constitution import Constitution, Objective, Principle
from rlaif.errors import InputError, closest
from rlaif.prompts import Template
from rlaif.types import JudgeRequest, Order, Pair

_KEY_VERSION = "rlaif-request-1"


class Planner:
    """Turns a pair into the requests that label it.

    Requests of one pair and order are adjacent and share their prefix up to the objective. A comparison shows both
    responses. A rating shows one, response a in order `ab` and response b in order `ba`: both are always asked, and a
    response's requests are the same in whatever pair it stands.

    Args:
        judge_digest: what stands for the judge model and its revision in every key.
        objectives: which of the constitution's objectives to ask.
        principles: `all` shows every principle; `sample` draws one per pair, objective and sample
            (Bai et al. 2022, section 4.1), the same for both orders, in proportion to its weight.
        orders: `both` asks each question with the responses in either place; a rating has no place.
    """

    def __init__(
        self,
        constitution: Constitution,
        template: Template,
        judge_digest: str,
        *,
        objectives: tuple[str, ...],
        principles: Literal["all", "sample"] = "all",
        orders: Literal["both", "ab"] = "both",
        samples: int = 1,
        temperature: float = 0.0,
        max_tokens: int = 512,
        seed: int = 0,
    ) -> None:
        self._rates = template.head.kind == "rating"
        self.orders: tuple[Order, ...] = ("ab", "ba") if orders == "both" or self._rates else ("ab",)
        self._template = template
        self._objectives = {name: constitution.objectives[name] for name in objectives}
        self._sampled = principles == "sample"
        self._samples = samples
        self._seed = seed
        writes = template.head.rationale
        # A reading has no sampling: what does not change the answer is not in its key.
        self._temperature = temperature if writes else 0.0
        self._max_tokens = max_tokens if writes else 0
        self._rationale = None if writes else ""
        self._system = template.system()
        head = template.head
        self._hash = hashlib.sha256()
        _feed(self._hash, _KEY_VERSION, judge_digest, head.verdict, *head.choices)
        _feed(self._hash, str(writes), repr(self._temperature), str(self._max_tokens), self._system)
        if self._temperature > 0:
            # Sampling draws by the key: another seed is to draw another rationale.
            _feed(self._hash, str(seed))

    @property
    def requests_per_pair(self) -> int:
        """How many requests one pair gives rise to."""
        return len(self.orders) * len(self._objectives) * self._samples

    def requests(self, pair: Pair) -> list[JudgeRequest]:
        """Plan every request of one pair."""
        return [request for order in self.orders for request in self._one_order(pair, order)]

    def _one_order(self, pair: Pair, order: Order) -> list[JudgeRequest]:
        head = self._template.head
        seen = pair if order == "ab" else pair.swap()
        shown = self._template.response(seen.prompt, seen.response_a) if self._rates else self._template.pair(seen)
        pair_hash = self._hash.copy()
        _feed(pair_hash, shown)
        requests = []
        for sample in range(self._samples):
            for name, objective in self._objectives.items():
                drawn = self._draw(pair, name, objective, sample) if self._sampled else None
                principles = (drawn,) if drawn else objective.active
                question = self._template.objective(name, objective.question, tuple(rule.text for rule in principles))
                key = pair_hash.copy()
                _feed(key, question, str(sample))
                request = JudgeRequest.model_construct(
                    key=key.hexdigest(),
                    pair_id=pair.id,
                    messages=self._template.messages(self._system, shown, question),
                    objective=name,
                    order=order,
                    sample=sample,
                    principle=drawn.id if drawn else None,
                    verdict_prefix=head.verdict,
                    choices=head.choices,
                    rationale=self._rationale,
                    temperature=self._temperature,
                    max_tokens=self._max_tokens,
                )
                requests.append(request)
        return requests

    def _draw(self, pair: Pair, name: str, objective: Objective, sample: int) -> Principle:
        weights = [principle.weight for principle in objective.active]
        return objective.active[draw(weights, self._seed, pair.nonce, name, sample)]


def draw(weights: Sequence[float], *source: str | int) -> int:
    """Draw a place in proportion to the weights: the same place for the same source."""
    digest = hashlib.sha256("\x00".join(map(str, source)).encode()).digest()
    target = int.from_bytes(digest[:8]) / 2**64 * sum(weights)
    for place, weight in enumerate(weights):
        target -= weight
        if target < 0:
            return place
    return len(weights) - 1


def choose_objectives(constitution: Constitution, chosen: Sequence[str]) -> tuple[str, ...]:
    """The chosen objectives (all where none is named), in the constitution's order.

    Raises:
        InputError: it has no such objective; the nearest one is named.
    """
    known = list(constitution.objectives)
    unknown = next((name for name in chosen if name not in known), None)
    if unknown is not None:
        close = closest(unknown, known)
        hint = f" Did you mean {close}?" if close else ""
        raise InputError(f"--objective {unknown}: {constitution.name} has the objectives {', '.join(known)}.{hint}")
    return tuple(name for name in known if not chosen or name in chosen)


def _feed(digest: hashlib._Hash, *parts: str) -> None:
    # Lengths keep two neighbouring parts from passing for two others.
    for part in parts:
        raw = part.encode()
        digest.update(len(raw).to_bytes(8))
        digest.update(raw)


def policy_key(policy_digest: str, messages: tuple[tuple[str, str], ...], sample: int, settings: str) -> str:
    """Key of a policy's response: everything that could change it."""
    digest = hashlib.sha256()
    turns = [part for turn in messages for part in turn]
    _feed(digest, _KEY_VERSION, "policy", policy_digest, settings, str(sample), *turns)
    return digest.hexdigest()
