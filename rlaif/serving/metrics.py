"""What the server tells Prometheus of itself; each server counts for itself."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_SIZES = tuple(2.0**power for power in range(13))


class Metrics:
    """Counters and histograms, safe to use from any thread."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "rlaif_requests", "Requests answered, by route and status.", ("route", "code"), registry=self._registry
        )
        self._seconds = Histogram(
            "rlaif_request_seconds",
            "From a request's head to the end of its answer, where that is 200.",
            ("route",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._responses = Counter("rlaif_responses_scored", "Responses that were scored.", registry=self._registry)
        self._tokens = Counter("rlaif_tokens", "Tokens of the conversations that were scored.", registry=self._registry)
        self._truncated = Counter(
            "rlaif_truncated", "Conversations cut to the longest length the heads take.", registry=self._registry
        )
        self._batches = Histogram(
            "rlaif_batch_responses", "Responses that were scored together.", buckets=_SIZES, registry=self._registry
        )
        self._dropped = Counter(
            "rlaif_dropped", "Requests whose client went away before they were begun.", registry=self._registry
        )
        self._failures = Counter(
            "rlaif_model_failures", "Batches that the model did not compute.", registry=self._registry
        )
        self._queue = Gauge("rlaif_queue_responses", "Responses that wait.", registry=self._registry)
        self.requests = 0
        self.responses = 0

    def watch_queue(self, length: Callable[[], float]) -> None:
        """Ask for the queue's length whenever it is told."""
        self._queue.set_function(length)

    def answered(self, route: str, code: int, seconds: float) -> None:
        """A request was answered."""
        self.requests += 1
        self._requests.labels(route, str(code)).inc()
        if code == 200:
            self._seconds.labels(route).observe(seconds)

    def scored(self, responses: int, tokens: int, truncated: int) -> None:
        """A batch was scored."""
        self.responses += responses
        self._responses.inc(responses)
        self._tokens.inc(tokens)
        self._truncated.inc(truncated)
        self._batches.observe(responses)

    def dropped(self) -> None:
        """A request was withdrawn before it was begun."""
        self._dropped.inc()

    def failed(self) -> None:
        """The model did not compute a batch."""
        self._failures.inc()

    def text(self) -> bytes:
        """All of it, in the text format that Prometheus reads."""
        return generate_latest(self._registry)
