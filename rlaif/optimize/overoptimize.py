"""Over-optimisation: how proxy and gold go on as the best of more and more responses is taken, and where to stop.

Each prompt's candidates are samples of one policy. The best of n by a rule is taken for n = 1, 2, … without drawing
(`rlaif.optimize.best_of`); gold along it is fitted by the law of Gao et al. (2023) (`rlaif.optimize.gao`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlaif.errors import InputError
from rlaif.labeling.ask import Watcher
from rlaif.optimize.candidates import Pool, read_pool_rows, score_pool
from rlaif.optimize.gold import Gold, given_gold, heads_gold, kind_of_gold, labels_gold, scores_gold
from rlaif.optimize.judge_gold import judge_gold
from rlaif.optimize.overoptimize_curves import Columns, Grid, Measured, measure_rule, objective_curves, rule_curves
from rlaif.optimize.overoptimize_results import ObjectiveCurve, OverOptimization
from rlaif.optimize.overoptimize_words import OBJECTIVE, advice
from rlaif.optimize.picking import DIGITS, ENSEMBLE_RULES, RULES, check_rule, rule_scores
from rlaif.rewards.score import Candidates, Rejects, load_heads
from rlaif.rewards.spec import HeadsSpec
from rlaif.version import __version__

if TYPE_CHECKING:
    from rlaif.rewards.heads import RewardHeads

LEAST_N = 3
_FEW_PROMPTS = 20
_SHARE = 0.9
_RARE = 0.01


def overoptimize(
    candidates: str | Path | Sequence[Candidates],
    *,
    proxy: str | Path | RewardHeads,
    gold: Any,
    max_n: int | None = None,
    rules: Sequence[str] | None = None,
    k: float = 1.0,
    resamples: int = 1000,
    seed: int = 0,
    columns: str | None = None,
    split: str | None = None,
    config: str | None = None,
    limit: int | None = None,
    device: str | None = None,
    judge: Mapping[str, Any] | None = None,
    run: str | Path | None = None,
    watch: Callable[[int, int], None] | None = None,
    watch_judge: Watcher | None = None,
) -> OverOptimization:
    """Measure proxy and gold of the best of n responses for n = 1 to `max_n`, under each rule.

    Args:
        candidates: a file of prompts with many responses each, or such rows.
        proxy: the heads that are optimised.
        gold: a folder of heads, a file of scores or labels, a judge's name, or values: see `given_gold`.
        max_n: the largest n; `None` for the most that nine of ten prompts have candidates for.
        rules: of `rlaif.optimize.picking`; `None` for all that the heads have what it takes for. The first is what the
            others are held against.
        k: deviations that lower-bound takes off.
        resamples: of the prompts, for intervals of the places of peaks; 0 for none.
        seed: of the resamples.
        judge: settings of `rlaif.label`, for gold that is a judge.
        run: folder of the judge's answers; needed for such gold.
        watch: told how many responses are scored, and how many there are.
        watch_judge: called with a tally as a judge's answers come.

    Raises:
        InputError: bad data, heads, gold or options.
        RunError: a server, model or disk failed.
    """
    if not 0 <= k < math.inf:
        raise InputError(f"--k {k}: expected 0 or more, as 1.0.")
    source = isinstance(gold, str | Path)
    # Before anything is loaded.
    kind = kind_of_gold(str(gold)) if source else "given"
    if kind == "judge" and run is None:
        raise InputError(f"--gold {gold}: a judge's answers need a folder; give run.")
    notes: list[str] = []
    if isinstance(candidates, str | Path):
        rows, rejected = read_pool_rows(str(candidates), columns, split, config, limit)
        if rejected:
            notes.append(
                f"{len(rejected):,} rows of {candidates} cannot be used; line {rejected[0].line}: {rejected[0].reason}."
            )
    else:
        rows = list(candidates)
    rows = merged(rows)
    heads = load_heads(proxy, device, None)
    chosen = [check_rule(heads.spec, rule, "--rules") for rule in rules] if rules else all_rules(heads.spec)
    most_n(rows, max_n)
    total = sum(len(row.responses) for row in rows) * (2 if kind == "heads" else 1)
    rejects = Rejects(None)
    pool = score_pool(heads, rows, watch=_counted(watch, 0, total), rejects=rejects)
    if rejects.count:
        kept = set(zip(pool.ids, pool.prompts, strict=True))
        rows = [row for row in rows if (row.id, row.prompt) in kept]
        notes.append(f"{rejects.count:,} rows are not taken by the heads' chat template and are left out.")
    if kind == "given":
        found = given_gold(gold, rows)
    elif kind == "heads":
        wanted = load_heads(str(gold), device, None)
        if wanted.path.resolve() == heads.path.resolve():
            notes.append("Proxy and gold are the same heads: what is optimised is what is wanted.")
        found = heads_gold(wanted, rows, _counted(watch, len(pool), total))
    elif kind == "scores":
        found = scores_gold(str(gold), rows)
    elif kind == "labels":
        found = labels_gold(str(gold), rows)
    else:
        assert run is not None, "checked above"
        found = judge_gold(str(gold), rows, Path(run), watch=watch_judge, **(judge or {}))
    return overoptimization(
        pool,
        heads.spec,
        found,
        proxy=str(heads.path),
        max_n=max_n,
        rules=chosen,
        k=k,
        resamples=resamples,
        seed=seed,
        notes=notes,
    )


def overoptimization(
    pool: Pool,
    spec: HeadsSpec,
    gold: Gold,
    *,
    proxy: str = "",
    max_n: int | None = None,
    rules: Sequence[str] | None = None,
    k: float = 1.0,
    resamples: int = 1000,
    seed: int = 0,
    notes: Sequence[str] = (),
) -> OverOptimization:
    """`overoptimize` of candidates that are scored, with gold that is known.

    Args:
        pool: the candidates, scored by the proxy.
        spec: of the proxy.
        gold: of the same candidates.

    Raises:
        InputError: too few candidates, or gold that does not tell any of a prompt's apart.
    """
    known = np.bincount(pool.prompt_of[np.isfinite(gold.overall)], minlength=len(pool.ids))
    most = largest_n(known, max_n)
    grid = Grid.up_to(most)
    columns = Columns.of(gold.overall, pool.prompt_of, most)
    unit = columns.deviation(gold.overall)
    if not unit:
        raise InputError(
            f"gold {gold.name}: the same for all candidates of each prompt; expected gold that tells them apart."
        )
    plain = spec.model_copy(update={"aggregation": spec.aggregation.model_copy(update={"floors": {}})})
    proxies = {name: pool.rewards[:, place] for place, name in enumerate(pool.objectives)}
    measured: list[Measured] = []
    objectives: list[ObjectiveCurve] = []
    for rule in rules or all_rules(spec):
        picked_by = np.round(rule_scores(pool, spec, rule, k), DIGITS)
        # Picked with the floors, told without: the step below a floor is no reward.
        told = rule_scores(pool, plain, rule, k)
        measured.append(measure_rule(rule, columns, picked_by, told, gold.overall, grid))
        objectives += objective_curves(rule, picked_by, proxies, gold.objectives, pool.prompt_of, grid)
    found = rule_curves(measured, resamples, seed)
    gamed = tuple(each.objective for each in objectives if each.gamed and each.rule == found[0].rule)
    out_of = int((known < most).sum())
    missing = int((~np.isfinite(gold.overall)).sum())
    return OverOptimization(
        proxy=proxy,
        gold=gold.name,
        gold_kind=gold.kind,
        prompts=columns.prompts,
        left_out=out_of,
        candidates=len(columns.rows),
        without_gold=missing,
        max_n=most,
        gold_std=unit,
        resamples=resamples,
        seed=seed,
        k=k,
        rules=found,
        objectives=tuple(objectives),
        gamed=gamed,
        advice=advice(found, gamed),
        notes=(*notes, *gold.notes, *_notes(pool, columns, found[0].rule, objectives, out_of, missing, gold)),
        rlaif=__version__,
    )


def all_rules(spec: HeadsSpec) -> list[str]:
    """Every rule that heads have what it takes for: the heads' own first, single objectives last."""
    own = spec.aggregation.method
    shared = [own, *(rule for rule in RULES if rule != own and (spec.members > 1 or rule not in ENSEMBLE_RULES))]
    return [*shared, *(OBJECTIVE + name for name in spec.objectives if len(spec.objectives) > 1)]


def merged(rows: Sequence[Candidates]) -> list[Candidates]:
    """One row a prompt: rows of the same id and prompt, as files with a response a line have them, become one."""
    found: dict[tuple[Any, ...], list[Candidates]] = {}
    for row in rows:
        found.setdefault((row.id, row.prompt), []).append(row)
    return [_joined(same) for same in found.values()]


def _joined(same: list[Candidates]) -> Candidates:
    if len(same) == 1:
        return same[0]
    responses = tuple(response for row in same for response in row.responses)
    return replace(same[0], responses=responses, names=tuple(range(len(responses))))


def largest_n(counts: Sequence[int] | Any, max_n: int | None) -> int:
    """The largest n to go to: what was asked for, or what nine of ten prompts have candidates for.

    Args:
        counts: candidates of each prompt.
        max_n: what was asked for.

    Raises:
        InputError: there are too few candidates.
    """
    ordered = np.sort(np.asarray(counts))[::-1]
    there = int(ordered[0]) if len(ordered) else 0
    if max_n is not None and max_n < LEAST_N:
        raise InputError(f"--max-n {max_n}: a curve needs {LEAST_N} or more.")
    if there < max(max_n or 0, LEAST_N):
        raise InputError(
            f"the candidates are at most {there} a prompt; expected {max(max_n or 0, LEAST_N)} or more"
            f"{' for --max-n' if max_n else ''}, and 16 to 64 show more. Sample them with rlaif generate --n 64."
        )
    if max_n is not None:
        return max_n
    nine_of_ten = int(ordered[max(math.ceil(_SHARE * len(ordered)) - 1, 0)])
    return nine_of_ten if nine_of_ten >= LEAST_N else there


def most_n(rows: Sequence[Candidates], max_n: int | None) -> int:
    """`largest_n` of rows, before their gold is known."""
    return largest_n([len(row.responses) for row in rows], max_n)


def _counted(watch: Callable[[int, int], None] | None, before: int, total: int) -> Callable[[int], None] | None:
    return None if watch is None else lambda done: watch(before + done, total)


def _notes(
    pool: Pool,
    columns: Columns,
    rule: str,
    objectives: Sequence[ObjectiveCurve],
    left_out: int,
    missing: int,
    gold: Gold,
) -> list[str]:
    found = []
    if columns.prompts < _FEW_PROMPTS:
        found.append(f"{columns.prompts} prompts: few for intervals; take 100 or more.")
    if left_out:
        found.append(f"{left_out:,} prompts with fewer candidates than the largest n are left out.")
    if missing:
        found.append(f"{missing:,} candidates without gold are left out.")
    texts = pool.texts
    same = 1 - len({(int(pool.prompt_of[row]), texts[row]) for row in columns.rows.tolist()}) / len(columns.rows)
    if same > _RARE:
        found.append(
            f"{same:.0%} of the candidates repeat another of their prompt: the true KL is less than the one told."
        )
    if pool.truncated:
        found.append(f"{pool.truncated:,} conversations were cut to the longest length that the proxy takes.")
    measured = {each.objective for each in objectives if each.rule == rule}
    without = [name for name in pool.objectives if name not in measured]
    if without:
        found.append(f"Gold says nothing of {', '.join(without)}: whether they are gamed is not measured.")
    return found
