"""The queue in this process, with a real model: what is joined, what is dropped, what fails alone."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import pytest
import torch

from rlaif.rewards.heads import RewardHeads
from rlaif.serving.batching import Batcher, Failed, Full, Refused, Stopping, Work
from rlaif.serving.metrics import Metrics
from rlaif.types import Message
from tests.heads_examples import PROMPTS, RESPONSES, make_heads
from tests.serving import series

LONG = 60.0
_REFUSING = "{% if messages[0].role == 'tool' %}{{ raise_exception('no tools here') }}{% endif %}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Heads of a tiny Llama whose template refuses a tool's turn at the beginning."""
    return make_heads(tmp_path_factory.mktemp("batched"), members=3)


@pytest.fixture
def heads(folder: Path) -> RewardHeads:
    """The same, loaded."""
    loaded = RewardHeads.load(folder)
    tokenizer = loaded.backbone.encoder.tokenizer
    tokenizer.chat_template = _REFUSING + str(tokenizer.chat_template)
    return loaded


@pytest.fixture
def batcher(heads: RewardHeads) -> Iterator[Batcher]:
    """A queue of at most ten responses, not yet begun."""
    made = Batcher(heads, Metrics(), max_queue=10)
    yield made
    made.stop()


def work(*texts: str, prompt: str = PROMPTS[0], role: str = "user") -> Work:
    """Responses to one prompt."""
    turns = (Message.model_validate({"role": role, "content": prompt}),)
    return Work([turns] * len(texts), texts, [0] * len(texts), [{}] * len(texts))


def measured(batcher: Batcher) -> dict[str, float]:
    """What the metrics say."""
    return series(batcher._metrics.text().decode())


def test_the_queue_takes_so_many_and_one_that_could_wait_alone(batcher: Batcher) -> None:
    batcher.submit(work(*"abcdef"))
    batcher.submit(work(*"abcd"))
    with pytest.raises(Full, match="10 responses wait already") as full:
        batcher.submit(work("a"))
    # Nothing is known of the speed yet.
    assert full.value.retry_after == 1
    assert measured(batcher)["rlaif_queue_responses"] == 10


def test_when_to_come_again_follows_from_the_measured_speed(batcher: Batcher) -> None:
    batcher._rate = 0.5  # responses a second
    batcher.submit(work(*"abcdefghij"))
    with pytest.raises(Full) as full:
        batcher.submit(work("a"))
    assert full.value.retry_after == 20
    batcher._rate = 3.0
    with pytest.raises(Full) as full:
        batcher.submit(work("a"))
    assert full.value.retry_after == 4  # 10 / 3, rounded up


def test_what_waits_is_scored_together_and_answered_apart(batcher: Batcher, heads: RewardHeads) -> None:
    tickets = [batcher.submit(work(*RESPONSES[:3])), batcher.submit(work(RESPONSES[3], prompt=PROMPTS[1]))]
    batcher.start()
    first, second = (ticket.answer.result(LONG) for ticket in tickets)
    expected = heads.score([PROMPTS[0]] * 3, RESPONSES[:3])
    assert [each.reward for each in first.rewards] == pytest.approx([each.reward for each in expected], abs=1e-4)
    assert [each.pareto_rank for each in first.rewards] == [each.pareto_rank for each in expected]
    assert second.rewards[0].pareto_rank is None
    assert first.tokens == sum(heads.raw([PROMPTS[0]] * 3, RESPONSES[:3]).lengths)
    found = measured(batcher)
    assert (found["rlaif_batch_responses_count"], found["rlaif_batch_responses_sum"]) == (1, 4)
    assert found["rlaif_tokens_total"] == first.tokens + second.tokens


def test_a_request_longer_than_a_batch_goes_alone(heads: RewardHeads) -> None:
    batcher = Batcher(heads, Metrics(), batch_tokens=1)
    tickets = [batcher.submit(work(text)) for text in RESPONSES]
    batcher.start()
    for ticket in tickets:
        assert len(ticket.answer.result(LONG).rewards) == 1
    assert measured(batcher)["rlaif_batch_responses_count"] == 4
    batcher.stop()


def test_a_request_whose_client_is_gone_is_not_scored(batcher: Batcher) -> None:
    tickets = [batcher.submit(work(text)) for text in "abc"]
    batcher.withdraw(tickets[1])
    batcher.withdraw(tickets[1])
    assert measured(batcher)["rlaif_queue_responses"] == 2
    # One that is cancelled without being withdrawn is passed over.
    tickets[2].answer.cancel()
    batcher.start()
    assert len(tickets[0].answer.result(LONG).rewards) == 1
    with pytest.raises(CancelledError):
        tickets[1].answer.result(LONG)
    batcher.withdraw(tickets[0])
    assert (measured(batcher)["rlaif_responses_scored_total"], measured(batcher)["rlaif_dropped_total"]) == (1, 1)


def test_one_request_that_the_template_refuses_spoils_no_other(batcher: Batcher) -> None:
    tickets = [batcher.submit(work(text)) for text in "abcd"]
    refused = batcher.submit(work("e", role="tool"))
    tickets += [batcher.submit(work(text)) for text in "fg"]
    batcher.start()
    with pytest.raises(Refused, match=r"refuses a conversation of tool, assistant \(no tools here\)"):
        refused.answer.result(LONG)
    assert all(len(ticket.answer.result(LONG).rewards) == 1 for ticket in tickets)
    assert not batcher.broken
    assert measured(batcher)["rlaif_model_failures_total"] == 0


def test_a_model_that_fails_says_so_and_is_told_when_it_does_not_end(
    batcher: Batcher, heads: RewardHeads, capfd: pytest.CaptureFixture[str]
) -> None:
    with torch.no_grad():
        whole = heads.backbone.head.weight.clone()
        heads.backbone.head.weight.fill_(float("nan"))
    tickets = [batcher.submit(work(text)) for text in "abc"]
    batcher.start()
    for ticket in tickets:
        with pytest.raises(Failed, match=r"the model gave no scores: .* is nan"):
            ticket.answer.result(LONG)
    assert batcher.broken
    assert "is nan" in capfd.readouterr().err
    with torch.no_grad():
        heads.backbone.head.weight.copy_(whole)
    assert len(batcher.submit(work("d")).answer.result(LONG).rewards) == 1
    assert not batcher.broken


def test_draining_finishes_and_stopping_does_not(heads: RewardHeads) -> None:
    drained = Batcher(heads, Metrics())
    ticket = drained.submit(work("a"))
    drained.drain()
    with pytest.raises(Stopping):
        drained.submit(work("b"))
    assert not drained.idle
    drained.start()
    assert len(ticket.answer.result(LONG).rewards) == 1
    assert drained.stop(LONG) == 0
    assert drained.idle
    stopped = Batcher(heads, Metrics())
    ticket = stopped.submit(work("a"))
    assert stopped.stop() == 1
    with pytest.raises(Failed, match="stopped before"):
        ticket.answer.result(LONG)
