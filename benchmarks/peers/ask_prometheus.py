"""prometheus-eval: relative grading through LiteLLM; one call a pair, feedback and then a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prometheus_eval import PrometheusEval
from prometheus_eval.litellm import AsyncLiteLLM, LiteLLM
from prometheus_eval.prompts import RELATIVE_PROMPT_WO_REF

from benchmarks.peers.clock import Row, Work, as_text, drive

_RUBRIC = "Which response helps the person more?"


def prepare(rows: Sequence[Row], url: str, settings: Mapping[str, str]) -> Work:
    """`way=async` or `way=sync`: which of its two clients; `batch`: how many the first has in flight."""
    place = {"name": "hosted_vllm/stub", "api_base": f"{url}/v1"}
    if settings.get("way") == "sync":
        model = LiteLLM(**place)
    else:
        # Its limit of requests a minute is for hosted models; so high a one never holds it up.
        model = AsyncLiteLLM(**place, batch_size=int(settings.get("batch", "100")), requests_per_minute=10**9)
    judge = PrometheusEval(model=model, relative_grade_template=RELATIVE_PROMPT_WO_REF)

    def work() -> int:
        _, verdicts = judge.relative_grade(
            instructions=[as_text(row["prompt"]) for row in rows],
            responses_A=[row["response_a"] for row in rows],
            responses_B=[row["response_b"] for row in rows],
            rubric=_RUBRIC,
            reference_answers=[None] * len(rows),
        )
        return sum(verdict in ("A", "B") for verdict in verdicts)

    return work


if __name__ == "__main__":
    drive(prepare, ("prometheus-eval", "litellm", "openai"))
