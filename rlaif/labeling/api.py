"""`rlaif.label` and `rlaif.generate`: what the commands call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from rlaif.data.pairs import parse_columns
from rlaif.engines.base import EngineName
from rlaif.errors import InputError
from rlaif.labeling.ask import Watcher
from rlaif.labeling.dry_run import DryRun, count_requests
from rlaif.labeling.generate import GenerateSummary, generate_responses
from rlaif.labeling.run import LabelSummary
from rlaif.labeling.run import label as run_label
from rlaif.labeling.settings import DataSettings, EngineSettings, LabelSettings, PolicySettings

_T = TypeVar("_T")


def label_settings(
    data: str | Path,
    out: str | Path,
    *,
    constitution: str | Path = "hhh",
    judge: str = "starter",
    engine: EngineName = "auto",
    base_url: str | None = None,
    template: str | Path = "pairwise-cot",
    objectives: Sequence[str] = (),
    principles: Literal["all", "sample"] = "all",
    orders: Literal["both", "ab"] = "both",
    samples: int = 1,
    temperature: float = 0.0,
    max_tokens: int = 512,
    policy: str | None = None,
    policy_base_url: str | None = None,
    policy_temperature: float = 1.0,
    policy_max_tokens: int = 512,
    limit: int | None = None,
    seed: int = 0,
    update: bool = False,
    strict: bool = False,
    concurrency: int = 128,
    engine_args: Mapping[str, Any] | None = None,
    columns: str | None = None,
    split: str | None = None,
    config: str | None = None,
) -> LabelSettings:
    """Check and gather the settings of a labelling run.

    Raises:
        InputError: a value is out of its range.
    """
    args = {name: str(value) for name, value in (engine_args or {}).items()}
    try:
        source = DataSettings(data=str(data), split=split, config=config, columns=parse_columns(columns), limit=limit)
        where = EngineSettings(engine=engine, base_url=base_url, concurrency=concurrency, args=args)
        sampled = policy and PolicySettings(
            model=policy, temperature=policy_temperature, max_tokens=policy_max_tokens, seed=seed
        )
        elsewhere = EngineSettings(engine="server", base_url=policy_base_url, concurrency=concurrency)
        return LabelSettings(
            source=source,
            out=Path(out),
            constitution=str(constitution),
            judge=judge,
            engine=where,
            template=str(template),
            objectives=tuple(objectives),
            principles=principles,
            orders=orders,
            samples=samples,
            temperature=temperature,
            max_tokens=max_tokens,
            policy=sampled or None,
            policy_engine=elsewhere if policy_base_url else None,
            seed=seed,
            update=update,
            strict=strict,
        )
    except ValidationError as errors:
        raise InputError(explain_settings(errors)) from None


def explain_settings(errors: ValidationError) -> str:
    """One line an option that is out of its range."""
    lines = []
    for error in errors.errors():
        option = "--" + str(error["loc"][-1]).replace("_", "-") if error["loc"] else ""
        given = f" {error['input']}" if isinstance(error["input"], (int, float, str)) and option else ""
        fact = str(error.get("ctx", {}).get("error", error["msg"]))
        lines.append(f"{option}{given}: {fact}." if option else f"{fact}.")
    return "\n".join(lines)


def label(data: str | Path, out: str | Path, *, watch: Watcher | None = None, **settings: Any) -> LabelSummary:
    """Label preference data with a judge; the same call again continues.

    Args:
        data: a file, a saved `datasets` folder or a hub id, of pairs, or of prompts with `policy`.
        out: folder of the run.
        watch: called with a tally as answers come.
        settings: the options of `rlaif label`, with underscores: `constitution`, `judge`, `engine`, `base_url`,
            `template`, `objectives` (a list), `principles`, `orders`, `samples`, `temperature`, `max_tokens`,
            `policy`, `limit`, `seed`, `update`, `strict`, `concurrency`, `engine_args` (a mapping), `columns`.
            The default judge, `starter`, is a demonstration in its own small world, not for real labels.

    Raises:
        InputError: bad input or an option out of range.
        RunError: a server, disk or model failed; what was answered is kept.
    """
    checked = label_settings(data, out, **settings)
    return _outside_loop(lambda: run_label(checked, watch))


def dry_run(data: str | Path, out: str | Path, **settings: Any) -> DryRun:
    """Count what `label` with these settings would ask; ask nothing."""
    return count_requests(label_settings(data, out, **settings))


def generate(
    prompts: str | Path,
    out: str | Path,
    *,
    policy: str,
    n: int = 2,
    temperature: float = 1.0,
    max_tokens: int = 512,
    engine: EngineName = "auto",
    base_url: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    concurrency: int = 128,
    engine_args: Mapping[str, Any] | None = None,
    columns: str | None = None,
    split: str | None = None,
    config: str | None = None,
    watch: Watcher | None = None,
) -> GenerateSummary:
    """Sample `n` responses of a policy to each prompt into a JSON Lines file; the same call again continues.

    Raises:
        InputError: bad input or an option out of range.
        RunError: a server, disk or model failed; what was answered is kept.
    """
    args = {name: str(value) for name, value in (engine_args or {}).items()}
    try:
        source = DataSettings(
            data=str(prompts), split=split, config=config, columns=parse_columns(columns), limit=limit
        )
        sampled = PolicySettings(model=policy, n=n, temperature=temperature, max_tokens=max_tokens, seed=seed)
        where = EngineSettings(engine=engine, base_url=base_url, concurrency=concurrency, args=args)
    except ValidationError as errors:
        raise InputError(explain_settings(errors)) from None
    return _outside_loop(lambda: generate_responses(source, sampled, where, Path(out), watch=watch))


def _outside_loop(call: Callable[[], _T]) -> _T:
    """Make a call that runs an event loop of its own, also from inside a notebook, which has one running already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return call()
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(call).result()
