"""`rlaif reward probe`: change responses and see whether the rewards of trained heads move as they should."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import ValidationError

from rlaif.errors import InputError, nearest
from rlaif.labeling.api import explain_settings
from rlaif.optimize.candidates import read_pool_rows, score_pool
from rlaif.optimize.changes import Change, Variant, choose_changes
from rlaif.optimize.picking import before_floors
from rlaif.optimize.probe_figures import Measured, aggregate_deviation, change_result
from rlaif.optimize.probe_plan import Place, Rows, count_not_applied, gather, worst_examples
from rlaif.optimize.probe_results import ProbeExample, ProbeReport, ProbeRule
from rlaif.rewards.preferences import Floats
from rlaif.rewards.score import Candidates, Rejects
from rlaif.types import Message

if TYPE_CHECKING:
    from rlaif.rewards.heads import RewardHeads

AGGREGATE = "reward"
_UNIT = "deviations"
_ROUNDING = 1e-9
Turns = tuple[Message, ...]


def probe_rule(**limits: float | int) -> ProbeRule:
    """The rule with these limits.

    Raises:
        InputError: one is out of its range.
    """
    try:
        return ProbeRule.model_validate(limits)
    except ValidationError as errors:
        raise InputError(explain_settings(errors)) from None


def probe_heads(
    pairs: str,
    heads: str | Path | RewardHeads,
    *,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    objectives: Sequence[str] = (),
    max_shift: float = 0.25,
    max_flips: float = 0.1,
    max_missed: float = 0.25,
    min_prompts: int = 20,
    columns: str | None = None,
    split: str | None = None,
    config: str | None = None,
    limit: int | None = None,
    batch_tokens: int | None = None,
    device: str | None = None,
    watch: Callable[[int, int], None] | None = None,
) -> ProbeReport:
    """Change responses in ways that must not matter, or must, and measure what the heads make of it.

    Shifts are in standard deviations of the reward over the responses trained on; see `aggregate_deviation` for the
    aggregate's, which is taken before floors. Whether a pair turns or a response loses goes by the reward with them.

    Args:
        pairs: data in any shape that `rlaif score` takes; single responses have shifts, and no pairs to turn.
        heads: a folder or hub id, or loaded ones.
        only: names of changes; empty for all.
        skip: names of changes to leave out.
        objectives: whose rewards are shown and decide, beside the aggregate; empty for all.
        max_shift, max_flips, max_missed, min_prompts: see `ProbeRule`.
        watch: told how many responses are scored, and of how many.

    Raises:
        InputError: bad heads, data or options, or fewer prompts than can be measured.
        RunError: a GPU's memory is too small.
    """
    from rlaif.rewards.heads import RewardHeads

    rule = probe_rule(max_shift=max_shift, max_flips=max_flips, max_missed=max_missed, min_prompts=min_prompts)
    changes = choose_changes(only, skip)
    usable, rejects = read_pool_rows(pairs, columns, split, config, limit)
    rows = gather(usable, rejects, pairs, rule.min_prompts)
    loaded = heads if isinstance(heads, RewardHeads) else RewardHeads.load(heads, device=device)
    shown = _shown(loaded, objectives)
    started = time.monotonic()
    variants = {change.name: rows.variants(change) for change in changes}
    scores = _Scores(loaded, shown, rows, variants, batch_tokens, watch)
    results, examples = [], []
    for change in changes:
        found, worst = _measured(change, rows, variants[change.name], scores)
        results.append(change_result(change, found, (*shown, AGGREGATE), rule))
        examples += worst
    return ProbeReport(
        of="heads",
        name=str(loaded.path),
        data=pairs,
        objectives=shown,
        aggregate=AGGREGATE,
        unit=_UNIT,
        rule=rule,
        rule_line=rule.line(_UNIT),
        prompts=len(set(rows.prompt_of)),
        responses=rows.responses,
        pairs=len(rows.pairs),
        rejected=rows.rejected + scores.refused,
        changes=tuple(results),
        examples=tuple(examples),
        truncated=scores.truncated,
        seconds=time.monotonic() - started,
    )


def _shown(heads: RewardHeads, objectives: Sequence[str]) -> tuple[str, ...]:
    known = heads.spec.objectives
    for name in objectives:
        if name not in known:
            raise InputError(
                f"--objective {name}: no such head; the heads are {', '.join(known)}.{nearest(name, known)}"
            )
    return tuple(name for name in known if not objectives or name in objectives)


class _Scores:
    """Rewards of all originals and all changed responses, each scored once.

    Attributes:
        nothing: nan for each reward, (rewards,).
        unit: what a shift of each is measured in, (rewards,).
        truncated: conversations that were cut to the longest length.
        refused: rows whose own responses the chat template does not take.
    """

    def __init__(
        self,
        heads: RewardHeads,
        shown: Sequence[str],
        rows: Rows,
        variants: Mapping[str, Mapping[Place, Variant]],
        batch_tokens: int | None,
        watch: Callable[[int, int], None] | None,
    ) -> None:
        texts: dict[tuple[int, Turns, bool], dict[str, None]] = {}

        def ask(row: int, prompt: Turns, text: str) -> None:
            # A template may refuse an empty turn; that is not to take the row's other responses with it.
            texts.setdefault((row, prompt, not text.strip()), {})[text] = None

        for row, each in enumerate(rows.rows):
            for text in each.responses:
                ask(row, each.prompt, text)
        for made in variants.values():
            for (row, _), variant in made.items():
                ask(row, variant.prompt, variant.original)
                ask(row, variant.changed_prompt, variant.changed)
        asked = [
            Candidates(number, str(number), prompt, tuple(held), tuple(range(len(held))), rows.rows[row].tags)
            for number, ((row, prompt, _), held) in enumerate(texts.items())
        ]
        total = sum(len(each.responses) for each in asked)
        rejects = Rejects(None)
        pool = score_pool(
            heads,
            asked,
            batch_tokens=batch_tokens,
            watch=None if watch is None else lambda done: watch(done, total),
            rejects=rejects,
        )
        columns = [pool.objectives.index(name) for name in shown]
        self._values: Floats = np.column_stack([pool.rewards[:, columns], pool.reward])
        self._levels: Floats = np.column_stack([pool.rewards[:, columns], before_floors(pool, heads.spec)])
        keys = list(texts)
        self._place: dict[tuple[int, Turns, str], int] = {}
        for candidate, (number, text) in enumerate(
            (int(name), text) for name, held in zip(pool.ids, pool.responses, strict=True) for text in held
        ):
            row, prompt, _ = keys[number]
            self._place[row, prompt, text] = candidate
        self.nothing: Floats = np.full(len(shown) + 1, np.nan)
        self.truncated = pool.truncated
        own = [(row, each.prompt, text) for row, each in enumerate(rows.rows) for text in each.responses]
        self.refused = len({key[0] for key in own if key not in self._place})
        # An objective's reward is in deviations already.
        self.unit: Floats = np.ones(len(shown) + 1)
        known = [self._place[key] for key in own if key in self._place]
        if known:
            weights = pool.row_weights(heads.spec)[known].mean(axis=0)
            self.unit[-1] = aggregate_deviation(pool.rewards[known], weights)

    def of(self, row: int, prompt: Turns, text: str) -> Floats:
        """Rewards of a response, (rewards,), the aggregate last; nan where it was not scored."""
        place = self._place.get((row, prompt, text))
        return self.nothing if place is None else self._values[place]

    def level(self, row: int, prompt: Turns, text: str) -> Floats:
        """The same with the aggregate before floors: of this a mean says something."""
        place = self._place.get((row, prompt, text))
        return self.nothing if place is None else self._levels[place]


def _measured(
    change: Change, rows: Rows, variants: Mapping[Place, Variant], scores: _Scores
) -> tuple[Measured, list[ProbeExample]]:
    """What a change did to the rewards, and the worst cases."""
    shifts, turned, turned_prompt = [], [], []
    shifted: list[tuple[Place, Variant, float, float]] = []
    for place, variant in variants.items():
        before = scores.of(place[0], variant.prompt, variant.original)
        after = scores.of(place[0], variant.changed_prompt, variant.changed)
        moved = scores.level(place[0], variant.changed_prompt, variant.changed)
        shifts.append((moved - scores.level(place[0], variant.prompt, variant.original)) / scores.unit)
        if np.isfinite(after[-1] - before[-1]):
            shifted.append((place, variant, float(before[-1]), float(after[-1])))
        if change.expectation == "lower":
            missed = np.where(after >= before - _ROUNDING, 1.0, 0.0)
            turned.append(np.where(np.isfinite(after - before), missed, np.nan))
            turned_prompt.append(rows.prompt_of[place[0]])
    if change.expectation != "lower":
        for pair in rows.pairs:
            both = [variants.get(place) for place in pair.places]
            texts = [rows.rows[pair.row].responses[place] for _, place in pair.places]
            turned.append(_turned(pair.row, texts, both, scores, at_once=change.both))
            turned_prompt.append(rows.prompt_of[pair.row])
    width = len(scores.unit)
    measured = Measured(
        applied=len(variants),
        not_applied=count_not_applied(rows, change, variants),
        shifts=np.array(shifts).reshape(-1, width),
        shift_prompt=np.array([rows.prompt_of[row] for row, _ in variants], dtype=np.int64),
        turned=np.array(turned).reshape(-1, width),
        turned_prompt=np.array(turned_prompt, dtype=np.int64),
    )
    return measured, worst_examples(change, rows, shifted)


def _turned(
    row: int, texts: Sequence[str], variants: Sequence[Variant | None], scores: _Scores, *, at_once: bool
) -> Floats:
    """Whether a pair's preference turns, 1 or 0, (rewards,); nan where there is none, or its loser is not changed."""
    known = next((variant for variant in variants if variant is not None), None)
    if known is None:
        return scores.nothing
    before = np.array([scores.of(row, known.prompt, text) for text in texts])  # (2, rewards)
    after = np.array(
        [scores.nothing if each is None else scores.of(row, each.changed_prompt, each.changed) for each in variants]
    )
    margin = before[0] - before[1]
    # Of the loser: how far it is ahead of the winner once it is changed, or once both are.
    ahead_first = after[0] - (after[1] if at_once else before[1])
    ahead_second = after[1] - (after[0] if at_once else before[0])
    ahead = np.where(margin < 0, ahead_first, ahead_second)
    told = np.isfinite(ahead) & (np.abs(margin) > _ROUNDING)
    found: Floats = np.where(told, np.where(ahead > _ROUNDING, 1.0, 0.0), np.nan)
    return found
