"""A chain: a first response, then rounds of a critique and a revision (Bai et al. 2022, section 3.1). No I/O.

What a chain asks next follows from the prompt and from the texts it holds already, so a chain is never stored: it is
followed again through a ledger's answers, as far as these go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rlaif.constitution import Constitution, Principle
from rlaif.labeling.generate import response_request
from rlaif.labeling.plan import draw
from rlaif.labeling.writing import Writer, fault_of, said
from rlaif.prompts import Template
from rlaif.types import Completion, FinishReason, JudgeRequest, Prompt, nonce_of

Answers = Callable[[str], Completion | None]


@dataclass(frozen=True)
class Drawn:
    """The principle of one round, and the objective it belongs to."""

    objective: str
    principle: Principle


@dataclass
class Chain:
    """What is written so far: `texts` are the first response, then the critique and the revision of each round.

    `finish_reasons` go with the texts, `None` for a response that came with the prompt. A chain with a `failure` ends
    there: what failed is no text.
    """

    prompt: Prompt
    number: int
    drawn: tuple[Drawn, ...]
    texts: list[str] = field(default_factory=list)
    finish_reasons: list[FinishReason | None] = field(default_factory=list)
    failure: str | None = None

    @property
    def response(self) -> str:
        """The response that the next critique or revision is about: the first one, or the latest revision."""
        return self.texts[(len(self.texts) - 1) // 2 * 2]

    def take(self, completion: Completion) -> None:
        """Add the next text, or say why there is none."""
        text, name = said(completion.rationale), text_name(len(self.texts))
        fault = fault_of(completion)
        if fault is not None:
            self.failure = f"no {name}: {fault}"
        elif completion.finish_reason == "refused":
            self.failure = f"no {name}: the model or its server refused to write it"
        elif not text:
            self.failure = f"the {name} is empty"
        else:
            self.texts.append(text)
            self.finish_reasons.append(completion.finish_reason)


def text_name(place: int) -> str:
    """What the text at a place of `Chain.texts` is."""
    if place == 0:
        return "first response"
    return f"{'critique' if place % 2 else 'revision'} of round {(place + 1) // 2}"


class ChainPlanner:
    """Says what a chain asks next.

    Each round draws one principle, in proportion to its objective's weight and to its own weight within the objective
    (objectives that all have weight 0 count alike). A chain draws no principle twice until all have been drawn. The
    draws follow from the seed, the conversation (with the response, where one came with it) and the chain's number.
    """

    def __init__(
        self,
        constitution: Constitution,
        objectives: Sequence[str],
        critique: Template,
        revision: Template,
        policy: Writer,
        judge: Writer,
        *,
        rounds: int,
        seed: int,
    ) -> None:
        self.stages = 1 + 2 * rounds
        self._critique, self._revision = critique, revision
        self._policy, self._judge = policy, judge
        self._rounds, self._seed = rounds, seed
        chosen = {name: constitution.objectives[name] for name in objectives}
        weighed = any(objective.weight > 0 for objective in chosen.values())
        self._pool: list[tuple[Drawn, float]] = []
        for name, objective in chosen.items():
            whole = sum(principle.weight for principle in objective.active)
            for principle in objective.active:
                weight = (objective.weight if weighed else 1.0) * principle.weight / whole
                if weight > 0:
                    self._pool.append((Drawn(name, principle), weight))

    def follow(self, prompt: Prompt, number: int, answers: Answers, stages: int) -> Chain:
        """Follow a chain through its first `stages` texts, or as far as there are answers."""
        chain = Chain(prompt, number, self._draws(prompt, number))
        if prompt.response is not None:
            chain.texts, chain.finish_reasons = [prompt.response], [None]
        while len(chain.texts) < stages and chain.failure is None:
            completion = answers(self.request(chain).key)
            if completion is None:
                break
            chain.take(completion)
        return chain

    def request(self, chain: Chain) -> JudgeRequest:
        """Ask for the next text of a chain."""
        place = len(chain.texts)
        if place == 0:
            return response_request(self._policy, chain.prompt, chain.number, text_name(0))
        drawn = chain.drawn[(place - 1) // 2]
        messages, rule = chain.prompt.messages, drawn.principle.text
        if place % 2:
            messages = self._critique.request(messages, chain.response, rule)
        else:
            messages = self._revision.request(messages, chain.response, rule, chain.texts[-1])
        return self._judge.request(
            chain.prompt.id,
            messages,
            sample=chain.number,
            question=f"{text_name(place)}: {drawn.objective}",
            principle=drawn.principle.id,
        )

    def _draws(self, prompt: Prompt, number: int) -> tuple[Drawn, ...]:
        nonce = nonce_of(prompt.messages, () if prompt.response is None else (prompt.response,))
        left: list[tuple[Drawn, float]] = []
        drawn = []
        for round_ in range(self._rounds):
            left = left or list(self._pool)
            place = draw([weight for _, weight in left], self._seed, nonce, "revise", number, round_)
            drawn.append(left.pop(place)[0])
        return tuple(drawn)
