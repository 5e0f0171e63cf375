"""Gold of a judge: each candidate is compared with the first of its prompt, and scored by the log-odds of winning."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlaif.agreement.calibration import log_odds
from rlaif.files import cannot_write, replacing
from rlaif.labeling.api import label
from rlaif.labeling.ask import Watcher
from rlaif.labeling.read import read_labels
from rlaif.optimize.gold import Gold
from rlaif.optimize.pair_gold import overall_p
from rlaif.rewards.score import Candidates

# A judge that is certain says no more than that it is, and would outweigh all others: log-odds end at 4.6.
LEAST_P = 0.01


def judge_gold(
    judge: str,
    rows: Sequence[Candidates],
    folder: Path,
    *,
    watch: Watcher | None = None,
    **settings: Any,
) -> Gold:
    """Compare every candidate with the first of its prompt; the same call again continues.

    The first candidate has gold 0, and so have those with the same text; what the judge does not say is nan. Each text
    is asked about once.

    Args:
        judge: as of `rlaif label`.
        rows: the candidates.
        folder: of the run, made where it is not there: the pairs asked about and the run of `rlaif label`.
        watch: called with a tally as answers come.
        settings: of `rlaif.label`: `constitution`, `engine`, `base_url`, `template`, `orders` and so on.

    Raises:
        InputError: bad settings, or other ones than those that the folder holds answers of.
        RunError: a server, disk or model failed; what was answered is kept.
    """
    asked = [
        (place, text)
        for place, row in enumerate(rows)
        for text in dict.fromkeys(row.responses)
        if text != row.responses[0]
    ]
    pairs = folder / "pairs.jsonl"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from None
    with replacing(pairs) as file:
        for number, (place, text) in enumerate(asked):
            row = rows[place]
            line = {
                "id": str(number),
                "prompt": [turn.model_dump() for turn in row.prompt],
                "response_a": text,
                "response_b": row.responses[0],
                "tags": dict(row.tags),
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    found: dict[str, dict[tuple[int, str], float]] = {"overall": {}}
    unread = 0
    if asked:
        run = folder / "labels"
        label(pairs, run, judge=judge, watch=watch, **settings)
        for _, each in read_labels(run / "labels.jsonl"):
            key = asked[int(each.id)]
            given = {name: one.p_a for name, one in each.labels.items()} | {"overall": overall_p(each)}
            unread += given["overall"] is None
            for name, p in given.items():
                if p is not None:
                    found.setdefault(name, {})[key] = float(log_odds(p, LEAST_P))
    columns = {name: _column(rows, mine) for name, mine in found.items()}
    notes = ["Gold is a judge's: log-odds of being preferred to the first candidate of the prompt."]
    if unread:
        notes.append(f"{unread:,} of {len(asked):,} comparisons have no verdict; their candidates are left out.")
    overall = columns.pop("overall")
    return Gold(judge, "judge", overall, columns, tuple(notes))


def _column(rows: Sequence[Candidates], found: Mapping[tuple[int, str], float]) -> Any:
    return np.array(
        [
            0.0 if text == row.responses[0] else found.get((place, text), math.nan)
            for place, row in enumerate(rows)
            for text in row.responses
        ]
    )
