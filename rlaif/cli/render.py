"""How a pair and its judgments look in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from rlaif.store import Judgment

_PLACES = {"ab": "a shown first", "ba": "b shown first"}
_RATED = {"ab": "response a", "ba": "response b"}


def render_pair(pair_id: str, label: dict[str, Any] | None, judgments: Sequence[Judgment]) -> None:
    """Print one pair: what was said, its labels, and the rationales of both orders beside each other."""
    console = Console()
    console.print(Rule(Text(pair_id)))
    if label is not None:
        turns = [Text.assemble((f"{turn['role']}: ", "bold"), turn["content"]) for turn in label["prompt"]]
        console.print(Panel(Group(*turns), title="prompt", title_align="left"))
        responses = (("response a", label["response_a"]), ("response b", label["response_b"]))
        # Text, not markup: a response with [brackets] is shown as it is.
        panels = [Panel(Text(text or "(empty)"), title=title, title_align="left") for title, text in responses]
        console.print(_side_by_side(panels))
        console.print(_labels(label))
    places = _RATED if any(judgment.rating is not None for judgment in judgments) else _PLACES
    asked = dict.fromkeys(judgment.objective for judgment in judgments)
    for objective in [name for name in label["labels"] if name in asked] if label else asked:
        mine = [judgment for judgment in judgments if judgment.objective == objective]
        for sample in dict.fromkeys(judgment.sample for judgment in mine):
            console.print(_side_by_side([_judgment(one, places) for one in mine if one.sample == sample]))


def _side_by_side(panels: Sequence[RenderableType]) -> RenderableType:
    table = Table.grid(expand=True)
    for _ in panels:
        table.add_column(ratio=1)
    table.add_row(*panels)
    return table


def _labels(label: dict[str, Any]) -> RenderableType:
    values = label["labels"].values()
    rated = any(key in value for value in values for key in ("rating_a", "rating_b"))
    told = ("rating a", "rating b") if rated else ("order gap",)
    # Of a cascade, which stage decided each objective.
    stages = [str(value["stage"]) for value in values if "stage" in value]
    # Further columns leave less room in a terminal of 80.
    table = Table(box=None, padding=(0, 1 if rated or stages else 2))
    for column in ("objective", "p_a", "preference", *told, "verdicts", "abstained", *(("stage",) if stages else ())):
        table.add_column(column, justify="left" if column in ("objective", "preference", "stage") else "right")
    for name, value in label["labels"].items():
        ratings = [_rating(value.get(key)) for key in ("rating_a", "rating_b")]
        counts = str(value["verdicts"]), str(value["abstained"])
        between = ratings if rated else [_number(value["order_gap"])]
        decided = [Text(str(value.get("stage", "-")))] if stages else []
        table.add_row(name, _number(value["p_a"]), value["preference"] or "-", *between, *counts, *decided)
    overall = label["overall"]
    table.add_row("overall", _number(overall["p_a"]), overall["preference"] or "-", style="bold")
    calibration = label["provenance"].get("calibration")
    # Without this line p_a would look like a wrong mean of the verdicts below it.
    return table if calibration is None else Group(table, Text(f"p_a as calibrated by {calibration}"))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _rating(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _judgment(judgment: Judgment, places: Mapping[str, str]) -> RenderableType:
    place = places.get(judgment.order, judgment.order)
    title = f"{judgment.objective}, {place}" + (f", sample {judgment.sample}" if judgment.sample else "")
    read = f"rating {_rating(judgment.rating)}" if places is _RATED else f"p_a {_number(judgment.p_a)}"
    notes = [read, judgment.status]
    if judgment.choice_mass is not None:
        notes.append(f"choice mass {judgment.choice_mass:.3f}")
    if judgment.principle:
        notes.append(f"principle {judgment.principle}")
    body = judgment.rationale.strip() or judgment.error or "(no rationale)"
    return Panel(
        Text(body),
        title=Text(title),
        subtitle=Text(", ".join(notes)),
        title_align="left",
        subtitle_align="left",
    )
