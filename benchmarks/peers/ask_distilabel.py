"""distilabel: its UltraFeedback task with its OpenAI client; one call rates both responses of a pair."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from distilabel.models import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import UltraFeedback

from benchmarks.peers.clock import Row, Work, as_text, drive


def prepare(rows: Sequence[Row], url: str, settings: Mapping[str, str]) -> Work:
    """`way=task`: the task alone, in this process; `way=pipeline`: a pipeline, which runs it in a process."""
    batch = int(settings.get("batch", "50"))
    data = [
        {"instruction": as_text(row["prompt"]), "generations": [row["response_a"], row["response_b"]]} for row in rows
    ]
    llm = OpenAILLM(model="stub", base_url=f"{url}/v1", api_key="none")
    named: dict[str, Any] = {"llm": llm, "aspect": "overall-rating", "input_batch_size": batch}
    if settings.get("way") == "pipeline":
        return lambda: _with_pipeline(data, batch, named)
    task = UltraFeedback(**named)
    task.load()

    def work() -> int:
        read = 0
        for start in range(0, len(data), batch):
            for done in task.process(data[start : start + batch]):
                read += sum(None not in row["ratings"] for row in done)
        return read

    return work


def _with_pipeline(data: list[dict[str, Any]], batch: int, named: dict[str, Any]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        with Pipeline(name="benchmark", cache_dir=folder) as pipeline:
            load = LoadDataFromDicts(data=data, batch_size=batch)
            load >> UltraFeedback(**named)
        done = pipeline.run(use_cache=False)
        return sum(None not in ratings for ratings in done["default"]["train"]["ratings"])


if __name__ == "__main__":
    drive(prepare, ("distilabel", "openai"))
