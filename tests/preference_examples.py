"""Labels of a run, made by hand, for the tests of what is exported for other trainers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlaif.optimize.preference_files import PreferenceSummary, export_preferences
from rlaif.optimize.preference_formats import PreferenceFormat
from tests.conftest import read_lines, write_lines

PROVENANCE = {"judge": "starter@11", "constitution": "hhh@22", "template": "pairwise-cot@33", "rlaif": "0"}
MOON, DUNNO = "The moon pulls the water.", "I do not know."
QUESTION = [{"role": "user", "content": "How do tides work?"}]
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Name a river."},
    {"role": "assistant", "content": "The Danube."},
    {"role": "user", "content": "Another one?"},
]


def label_row(
    name: str,
    overall: float | None,
    helpfulness: float | None = 0.5,
    *,
    prompt: list[dict[str, str]] = QUESTION,
    a: str = MOON,
    b: str = DUNNO,
) -> dict[str, Any]:
    """A line of a run's labels, with its overall label and one objective."""
    whole = {key: value for key, value in _judged(overall).items() if key in ("p_a", "preference")}
    return {
        "id": name,
        # Each pair is of a prompt of its own.
        "prompt": [*prompt[:-1], {**prompt[-1], "content": f"{prompt[-1]['content']} ({name})"}],
        "response_a": a,
        "response_b": b,
        "tags": {},
        "labels": {"helpfulness": _judged(helpfulness)},
        "overall": {**whole, "method": "weighted", "pareto": None},
        "provenance": PROVENANCE,
    }


def _judged(p_a: float | None) -> dict[str, Any]:
    side = None if p_a is None else "tie" if p_a == 0.5 else "a" if p_a > 0.5 else "b"
    return {"p_a": p_a, "preference": side, "order_gap": None, "verdicts": 2, "abstained": 0}


def make_run(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """A run's folder with these labels."""
    folder.mkdir()
    write_lines(folder / "labels.jsonl", rows)
    return folder


def exported(
    source: Path | str, folder: Path, layout: PreferenceFormat = "trl", **options: Any
) -> tuple[PreferenceSummary, list[dict[str, Any]]]:
    """The summary and the rows of an export as JSON Lines."""
    out = folder / "out.jsonl"
    summary = export_preferences(str(source), out, layout, **options)
    return summary, read_lines(out)
