"""The plan: which questions a pair gives rise to, in which order, under which keys."""

from __future__ import annotations

import hashlib
from typing import Literal

from rlaif.constitution import Constitution, Objective, Principle
from rlaif.prompts import Template
from rlaif.types import JudgeRequest, Order, Pair

_KEY_VERSION = "rlaif-request-1"


class Planner:
    """Turns a pair into the requests that label it.

    Requests of one pair and order are adjacent and share their prefix up to the objective.

    Args:
        judge_digest: what stands for the judge model and its revision in every key.
        objectives: which of the constitution's objectives to ask.
        principles: `all` shows every principle; `sample` draws one per pair, objective and sample
            (Bai et al. 2022, section 4.1), the same for both orders, in proportion to its weight.
        orders: `both` asks each question with the responses in either place.
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
        self.orders: tuple[Order, ...] = ("ab", "ba") if orders == "both" else ("ab",)
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
        shown = self._template.pair(pair if order == "ab" else pair.swap())
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
        source = f"{self._seed}\x00{pair.nonce}\x00{name}\x00{sample}"
        share = int.from_bytes(hashlib.sha256(source.encode()).digest()[:8]) / 2**64
        target = share * sum(principle.weight for principle in objective.active)
        for principle in objective.active:
            target -= principle.weight
            if target < 0:
                return principle
        return objective.active[-1]


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
