"""The probe on a judge: it compares responses before and after a change, in both orders."""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlaif.agreement.calibration import log_odds
from rlaif.errors import InputError
from rlaif.files import cannot_write, replacing
from rlaif.labeling.api import label
from rlaif.labeling.ask import Watcher
from rlaif.labeling.read import read_labels
from rlaif.optimize.candidates import read_pool_rows
from rlaif.optimize.changes import Change, Variant, choose_changes
from rlaif.optimize.judge_gold import LEAST_P
from rlaif.optimize.probe import probe_rule
from rlaif.optimize.probe_figures import Measured, change_result
from rlaif.optimize.probe_plan import PairPlace, Place, Rows, gather, worst_examples
from rlaif.optimize.probe_results import ProbeExample, ProbeReport
from rlaif.rewards.preferences import Floats
from rlaif.types import Label, Message

AGGREGATE = "overall"
_UNIT = "in log-odds"
_EVEN = 1e-9
_AGAINST, _TURNED = "against", "turned"


def probe_judge(
    pairs: str,
    judge: str,
    *,
    out: str | Path | None = None,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    max_shift: float = 0.25,
    max_flips: float = 0.1,
    max_missed: float = 0.25,
    min_prompts: int = 20,
    columns: str | None = None,
    split: str | None = None,
    config: str | None = None,
    limit: int | None = None,
    watch: Watcher | None = None,
    **settings: Any,
) -> ProbeReport:
    """Change responses in ways that must not matter, or must, and measure what a judge makes of it.

    The judge first compares the pairs as they are. A change is then made to the response that it likes less overall, or
    where it must make worse to the one that it likes more; the judge compares that response with the original, and
    with the other one. Each comparison is in both orders. Shifts are the log-odds of the changed response.

    Args:
        pairs: data in any shape that `rlaif score` takes, with two responses or more.
        judge: a model.
        out: a folder that keeps all judgments: the same call again continues. `None` keeps nothing.
        only, skip, max_shift, max_flips, max_missed, min_prompts: as of `probe_heads`.
        settings: of `rlaif.label`: `constitution`, `engine`, `base_url`, `template`, `objectives`, `temperature`,
            `max_tokens`, `seed`, `concurrency`, `engine_args`.

    Raises:
        InputError: bad data or options, or fewer prompts than can be measured.
        RunError: a server, disk or model failed; what was answered is in `out`.
    """
    rule = probe_rule(max_shift=max_shift, max_flips=max_flips, max_missed=max_missed, min_prompts=min_prompts)
    changes = choose_changes(only, skip)
    usable, rejects = read_pool_rows(pairs, columns, split, config, limit)
    rows = gather(usable, rejects, pairs, rule.min_prompts)
    if not rows.pairs:
        raise InputError(f"{pairs}: holds no pairs; to probe a judge give two different responses to each prompt.")
    started = time.monotonic()
    with _folder(out) as folder:
        asker = _Asker(folder, {"judge": judge, "watch": watch, **settings})
        base = asker.ask("pairs", (_plain(rows, number) for number in range(len(rows.pairs))))
        plans = [_plan(change, rows, base) for change in changes]
        questions = [line for plan in plans for line in plan.questions()]
        answers = asker.ask("changed", questions) if questions else {}
    objectives = asker.objectives
    results, examples = [], []
    for plan in plans:
        found, worst = plan.measured(rows, base, answers, objectives)
        results.append(change_result(plan.change, found, (*objectives, AGGREGATE), rule))
        examples += worst
    return ProbeReport(
        of="judge",
        name=asker.judge,
        data=pairs,
        objectives=objectives,
        aggregate=AGGREGATE,
        unit=_UNIT,
        rule=rule,
        rule_line=rule.line(_UNIT),
        prompts=len(set(rows.prompt_of)),
        responses=rows.responses,
        pairs=len(rows.pairs),
        rejected=rows.rejected,
        changes=tuple(results),
        examples=tuple(examples),
        unread=asker.unread,
        seconds=time.monotonic() - started,
        notes=(f"{asker.asked + asker.reused:,} judgments: {asker.asked:,} asked, {asker.reused:,} reused",),
    )


class _Asker:
    """Labels pairs, one run for each stage."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self._folder, self._settings = folder, settings
        self.asked = self.reused = self.unread = 0
        self.judge = ""
        self.objectives: tuple[str, ...] = ()

    def ask(self, stage: str, lines: Iterable[Mapping[str, Any]]) -> dict[str, Label]:
        """Labels by id."""
        data = self._folder / f"{stage}.jsonl"
        with replacing(data) as file:
            for line in lines:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        # The questions of another selection of changes are asked beside those that have an answer.
        summary = label(data, self._folder / stage, orders="both", update=True, **self._settings)
        self.asked += summary.asked
        self.reused += summary.reused
        self.unread += summary.abstained
        found = {each.id: each for _, each in read_labels(self._folder / stage / "labels.jsonl")}
        first = next(iter(found.values()))
        self.judge, self.objectives = first.provenance.judge, tuple(first.labels)
        return found


@contextmanager
def _folder(out: str | Path | None) -> Iterator[Path]:
    if out is None:
        with tempfile.TemporaryDirectory() as made:
            yield Path(made)
        return
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from None
    if any(folder.iterdir()) and not (folder / "pairs" / "manifest.json").exists():
        raise InputError(f"--out {folder}: holds something else than a probe's judgments; choose another folder.")
    yield folder


def _line(name: str, prompt: Sequence[Message], a: str, b: str, rows: Rows, row: int) -> dict[str, Any]:
    turns = [turn.model_dump() for turn in prompt]
    return {"id": name, "prompt": turns, "response_a": a, "response_b": b, "tags": dict(rows.rows[row].tags)}


def _plain(rows: Rows, number: int) -> dict[str, Any]:
    pair = rows.pairs[number]
    each = rows.rows[pair.row]
    return _line(str(number), each.prompt, each.responses[pair.first], each.responses[pair.second], rows, pair.row)


@dataclass
class _Case:
    """A changed response of a pair.

    Attributes:
        number: of the pair.
        side: 0 or 1: which of its responses is changed.
        place: where that response is.
        variants: of both responses; of a change to one of them the other is `None`.
        lines: what is asked.
    """

    number: int
    side: int
    place: Place
    variants: tuple[Variant | None, Variant | None]
    lines: list[dict[str, Any]]


@dataclass
class _Plan:
    """The questions of one change."""

    change: Change
    cases: list[_Case]
    not_applied: int

    def questions(self) -> Iterator[dict[str, Any]]:
        """Pairs to label."""
        for case in self.cases:
            yield from case.lines

    def measured(
        self, rows: Rows, base: Mapping[str, Label], answers: Mapping[str, Label], objectives: Sequence[str]
    ) -> tuple[Measured, list[ProbeExample]]:
        """What the judge made of the change, and the worst cases."""
        shifts, turned = [], []
        shifted: list[tuple[Place, Variant, float, float]] = []
        for case in self.cases:
            before = _probabilities(base.get(str(case.number)), objectives)
            against = _probabilities(answers.get(_name(self.change, _AGAINST, case.number)), objectives)
            other = _probabilities(answers.get(_name(self.change, _TURNED, case.number)), objectives)
            if self.change.both:
                # The prompts differ, so that only the margins compare.
                shifts.append(log_odds(other, LEAST_P) - log_odds(before, LEAST_P))
                turned.append(_turns(before, other, None))
            else:
                # The changed response stands in the second place.
                shifts.append(log_odds(1 - against, LEAST_P))
                missed = np.where(against > 0.5 + _EVEN, 0.0, 1.0)
                lower = self.change.expectation == "lower"
                turned.append(
                    np.where(np.isfinite(against), missed, np.nan) if lower else _turns(before, other, case.side)
                )
            variant = case.variants[case.side]
            if variant is not None and np.isfinite(shifts[-1][-1]):
                shifted.append((case.place, variant, 0.0, float(shifts[-1][-1])))
        width = len(objectives) + 1
        prompt = np.array([rows.prompt_of[case.place[0]] for case in self.cases], dtype=np.int64)
        measured = Measured(
            applied=len(self.cases),
            not_applied=self.not_applied,
            shifts=np.array(shifts).reshape(-1, width),
            shift_prompt=prompt,
            turned=np.array(turned).reshape(-1, width),
            turned_prompt=prompt,
        )
        return measured, worst_examples(self.change, rows, shifted)


def _name(change: Change, kind: str, number: int) -> str:
    return f"{change.name}:{kind}:{number}"


def _plan(change: Change, rows: Rows, base: Mapping[str, Label]) -> _Plan:
    """One response of each pair is changed: the one liked less, or where it must lose the one that is better."""
    cases, not_applied = [], 0
    for number, pair in enumerate(rows.pairs):
        found = base.get(str(number))
        side = _side(change, rows, pair, found)
        places = pair.places
        each = (rows.variant(change, places[0]), rows.variant(change, places[1]))
        variant = each[side]
        if variant is None or (change.both and None in each):
            not_applied += 1
            continue
        if change.both:
            a, b = (one.changed for one in each if one is not None)
            lines = [_line(_name(change, _TURNED, number), variant.changed_prompt, a, b, rows, pair.row)]
        else:
            texts = (variant.original, variant.changed)
            lines = [_line(_name(change, _AGAINST, number), variant.prompt, *texts, rows, pair.row)]
            if change.expectation != "lower":
                other = rows.rows[pair.row].responses[places[1 - side][1]]
                texts = (other, variant.changed)
                lines += [_line(_name(change, _TURNED, number), variant.prompt, *texts, rows, pair.row)]
        cases.append(_Case(number, side, places[side], each, lines))
    return _Plan(change, cases, not_applied)


def _side(change: Change, rows: Rows, pair: PairPlace, found: Label | None) -> int:
    preferred = None if found is None else found.overall.preference
    if change.expectation == "lower":
        known = [side for side, place in enumerate(pair.places) if place in rows.better(pair.row)]
        return known[0] if len(known) == 1 else int(preferred == "b")
    return int(preferred == "a")


def _probabilities(found: Label | None, objectives: Sequence[str]) -> Floats:
    """P(a is better), (rewards,), the overall one last; nan where it is not known."""
    if found is None:
        return np.full(len(objectives) + 1, np.nan)
    known = [found.labels[name].p_a if name in found.labels else None for name in objectives]
    return np.array([math.nan if p is None else p for p in (*known, found.overall.p_a)])


def _turns(before: Floats, after: Floats, side: int | None) -> Floats:
    """Whether preferences turn, (rewards,); nan where there is none, or where it is not the loser that was changed.

    Args:
        before: P(a is better) of the pair as it is.
        after: P(a is better) of both changed; with a `side`, P(the other response is better than the changed one).
        side: which response was changed; `None` for both.
    """
    margin = before - 0.5
    if side is None:
        told, turned = np.abs(margin) > _EVEN, (after - 0.5) * np.sign(margin) < -_EVEN
    else:
        told, turned = (margin > _EVEN) if side else (margin < -_EVEN), after < 0.5 - _EVEN
    told = told & np.isfinite(before) & np.isfinite(after)
    found: Floats = np.where(told, np.where(turned, 1.0, 0.0), np.nan)
    return found
