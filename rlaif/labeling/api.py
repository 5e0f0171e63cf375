"""`rlaif.label`, `rlaif.generate`, `rlaif.revise` and `rlaif.check_constitution`: what the commands call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from rlaif.data.pairs import parse_columns
from rlaif.engines.base import BaseUrl, EngineName
from rlaif.errors import InputError
from rlaif.labeling.ask import Watcher
from rlaif.labeling.cascade import label_cascade
from rlaif.labeling.cases import CasesReport, ChosenCase
from rlaif.labeling.check import Answers, CaseSettings, ask_cases, check_cases
from rlaif.labeling.dry_run import DryRun, count_requests
from rlaif.labeling.generate import GenerateSummary, generate_responses
from rlaif.labeling.revise import RevisePlan, ReviseSummary, plan_revisions, revise_responses
from rlaif.labeling.run import label as run_label
from rlaif.labeling.settings import (
    CascadeSettings,
    DataSettings,
    EngineSettings,
    LabelSettings,
    PolicySettings,
    ReviseSettings,
)
from rlaif.labeling.summary import LabelSummary

_T = TypeVar("_T")
# Groups of settings, whose options stand by themselves; and those of which an option gives one at a time.
_GROUPS = frozenset({"data", "engine", "policy"})
_ONE_BY_ONE = {"args": "engine_arg", "objectives": "objective", "weights": "weight"}


def label_settings(
    data: str | Path,
    out: str | Path,
    *,
    constitution: str | Path = "hhh",
    judge: str = "starter",
    engine: EngineName = "auto",
    base_url: BaseUrl | None = None,
    template: str | Path = "pairwise-cot",
    objectives: Sequence[str] = (),
    principles: Literal["all", "sample"] = "all",
    orders: Literal["both", "ab"] = "both",
    samples: int = 1,
    temperature: float = 0.0,
    max_tokens: int = 512,
    policy: str | None = None,
    policy_base_url: BaseUrl | None = None,
    policy_temperature: float = 1.0,
    policy_max_tokens: int = 512,
    calibration: str | Path | None = None,
    cascade: str | Sequence[str] | None = None,
    cascade_agreement: float | None = None,
    cascade_sample: int | None = None,
    cascade_labels: str | Path | None = None,
    cascade_threshold: float | None = None,
    limit: int | None = None,
    seed: int = 0,
    update: bool = False,
    strict: bool = False,
    concurrency: int = 128,
    engine_args: Mapping[str, Any] | None = None,
    replicas: int | None = None,
    address: str | None = None,
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
        where = EngineSettings(
            engine=engine, base_url=base_url, concurrency=concurrency, args=args, replicas=replicas, address=address
        )
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
            calibration=None if calibration is None else Path(calibration),
            cascade=_cascade(cascade, cascade_agreement, cascade_sample, cascade_labels, cascade_threshold),
            update=update,
            strict=strict,
        )
    except ValidationError as errors:
        raise InputError(explain_settings(errors)) from None


def _cascade(
    stages: str | Sequence[str] | None,
    agreement: float | None,
    sample: int | None,
    labels: str | Path | None,
    threshold: float | None,
) -> CascadeSettings | None:
    """Gather the settings of a cascade, of those that were given.

    Raises:
        InputError: an option that has no meaning beside the others.
    """
    given = {"agreement": agreement, "sample": sample, "labels": None if labels is None else str(labels)}
    set_by_sample = {name: value for name, value in given.items() if value is not None}
    if stages is None:
        alone = next(iter(set_by_sample), "threshold" if threshold is not None else None)
        if alone:
            raise InputError(f"--cascade-{alone} has a meaning only with --cascade; add it, or drop --cascade-{alone}.")
        return None
    if threshold is not None and set_by_sample:
        option = f"--cascade-{next(iter(set_by_sample))}"
        raise InputError(f"{option} sets a threshold, and --cascade-threshold gives one; drop one of the two.")
    names = stages.split(",") if isinstance(stages, str) else stages
    values = {"stages": tuple(name.strip() for name in names), "threshold": threshold, **set_by_sample}
    try:
        return CascadeSettings.model_validate(values)
    except ValidationError as errors:
        lines = explain_settings(errors).splitlines()
        raise InputError("\n".join(line.replace("--", "--cascade-", 1) for line in lines)) from None


def _option_of(location: tuple[int | str, ...]) -> str:
    """The option that set what is wrong, without its place in a list or a mapping; empty where none did."""
    name, *within = [part for part in location if part not in _GROUPS] or [""]
    name = _ONE_BY_ONE.get(str(name), str(name))
    if name == "principles" and within:
        name = "principle"
    return f"--{name}".replace("_", "-") if name else ""


def explain_settings(errors: ValidationError) -> str:
    """One line an option that is out of its range."""
    lines = []
    for error in errors.errors():
        option = _option_of(error["loc"])
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
            `policy`, `calibration` (a file of `rlaif compare --calibrate`), `cascade` (a list) with
            `cascade_agreement`, `cascade_sample`, `cascade_labels` or `cascade_threshold`, `limit`, `seed`, `update`,
            `strict`, `concurrency`, `engine_args` (a mapping), `replicas` and `address` (with the engine `ray`),
            `columns`.
            `base_url` is a server, or a list of servers of one model, which share the work.
            The default judge, `starter`, is a demonstration in its own small world, not for real labels.

    Raises:
        InputError: bad input or an option out of range.
        RunError: a server, disk or model failed; what was answered is kept.
    """
    checked = label_settings(data, out, **settings)
    asks = run_label if checked.cascade is None else label_cascade
    return _outside_loop(lambda: asks(checked, watch))


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
    base_url: BaseUrl | None = None,
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


def case_settings(
    constitutions: Sequence[str | Path],
    *,
    judge: str = "starter",
    engine: EngineName = "auto",
    base_url: BaseUrl | None = None,
    template: str | Path = "pairwise-cot",
    objectives: Sequence[str] = (),
    principles: Sequence[str] = (),
    orders: Literal["both", "ab"] = "both",
    with_all: bool = False,
    threshold: float = 0.5,
    temperature: float = 0.0,
    max_tokens: int = 512,
    seed: int = 0,
    cache: str | Path | None = None,
    concurrency: int = 128,
    engine_args: Mapping[str, Any] | None = None,
) -> CaseSettings:
    """Check and gather the settings of a test of constitutions.

    Raises:
        InputError: a value is out of its range.
    """
    args = {name: str(value) for name, value in (engine_args or {}).items()}
    try:
        return CaseSettings(
            constitutions=tuple(map(str, constitutions)),
            judge=judge,
            engine=EngineSettings(engine=engine, base_url=base_url, concurrency=concurrency, args=args),
            template=str(template),
            objectives=tuple(objectives),
            principles=tuple(principles),
            orders=orders,
            with_all=with_all,
            threshold=threshold,
            temperature=temperature,
            max_tokens=max_tokens,
            seed=seed,
            cache=None if cache is None else Path(cache),
        )
    except ValidationError as errors:
        raise InputError(explain_settings(errors)) from None


def check_constitution(*constitutions: str | Path, watch: Watcher | None = None, **settings: Any) -> CasesReport:
    """Ask a judge the cases of constitutions, each with its own principle alone.

    Args:
        constitutions: files, or names of shipped ones.
        watch: called with a tally as answers come.
        settings: the options of `rlaif constitution test`, with underscores: `judge`, `engine`, `base_url`, `template`,
            `objectives` and `principles` (lists), `orders`, `with_all`, `threshold`, `temperature`, `max_tokens`,
            `seed`, `cache`, `concurrency`, `engine_args` (a mapping).

    Raises:
        InputError: bad input, an option out of range, or no case to ask.
        RunError: a server, disk or model failed; what was answered is in the `cache`, where there is one.
    """
    checked = case_settings(constitutions, **settings)
    return _outside_loop(lambda: check_cases(checked, watch))


def ask_chosen(cases: Sequence[ChosenCase], settings: CaseSettings) -> Answers:
    """Ask these cases and no others; see `ask_cases`."""
    return _outside_loop(lambda: ask_cases(cases, settings))


def revise_settings(
    prompts: str | Path,
    out: str | Path,
    *,
    constitution: str | Path = "hhh",
    judge: str = "starter",
    policy: str | None = None,
    policy_base_url: BaseUrl | None = None,
    engine: EngineName = "auto",
    base_url: BaseUrl | None = None,
    critique_template: str | Path = "critique",
    revision_template: str | Path = "revision",
    objectives: Sequence[str] = (),
    rounds: int = 1,
    n: int = 1,
    temperature: float = 1.0,
    revision_temperature: float = 0.0,
    max_tokens: int = 512,
    limit: int | None = None,
    seed: int = 0,
    concurrency: int = 128,
    engine_args: Mapping[str, Any] | None = None,
    columns: str | None = None,
    split: str | None = None,
    config: str | None = None,
    update: bool = False,
) -> ReviseSettings:
    """Check and gather the settings of critiques and revisions.

    Raises:
        InputError: a value is out of its range.
    """
    args = {name: str(value) for name, value in (engine_args or {}).items()}
    shared = {"judge": judge, "policy": policy, "rounds": rounds, "n": n, "max_tokens": max_tokens, "seed": seed}
    elsewhere = {"engine": "server", "base_url": policy_base_url, "concurrency": concurrency}
    source = {"data": str(prompts), "split": split, "config": config, "columns": parse_columns(columns), "limit": limit}
    values = shared | {
        "source": source,
        "out": Path(out),
        "constitution": str(constitution),
        "engine": {"engine": engine, "base_url": base_url, "concurrency": concurrency, "args": args},
        "policy_engine": elsewhere if policy_base_url else None,
        "critique_template": str(critique_template),
        "revision_template": str(revision_template),
        "objectives": tuple(objectives),
        "temperature": temperature,
        "revision_temperature": revision_temperature,
        "update": update,
    }
    try:
        return ReviseSettings.model_validate(values)
    except ValidationError as errors:
        raise InputError(explain_settings(errors)) from None


def revise(prompts: str | Path, out: str | Path, *, watch: Watcher | None = None, **settings: Any) -> ReviseSummary:
    """Have a judge criticise and revise responses by a constitution's principles; the same call again continues.

    Writes `out` (every step of every chain) and beside it training rows, pairs and rejects; see `revise_responses`.

    Args:
        prompts: a file, a saved `datasets` folder or a hub id, of prompts; a `response` column gives first responses.
        out: a JSON Lines file.
        watch: called with a tally as answers come.
        settings: the options of `rlaif revise`, with underscores: `constitution`, `judge`, `policy`, `engine`,
            `base_url`, `policy_base_url`, `critique_template`, `revision_template`, `objectives` (a list), `rounds`,
            `n`, `temperature`, `revision_temperature`, `max_tokens`, `limit`, `seed`, `concurrency`, `engine_args`
            (a mapping), `columns`, `update`.

    Raises:
        InputError: bad input or an option out of range.
        RunError: a server, disk or model failed; what was answered is kept.
    """
    checked = revise_settings(prompts, out, **settings)
    return _outside_loop(lambda: revise_responses(checked, watch))


def revise_dry_run(prompts: str | Path, out: str | Path, **settings: Any) -> RevisePlan:
    """Count what `revise` with these settings would ask; ask nothing."""
    checked = revise_settings(prompts, out, **settings)
    return _outside_loop(lambda: plan_revisions(checked))


def _outside_loop(call: Callable[[], _T]) -> _T:
    """Make a call that runs an event loop of its own, also from inside a notebook, which has one running already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return call()
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(call).result()
