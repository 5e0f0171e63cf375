"""The pairs on which judge and people differ, with their texts and rationales, read when the figures are done."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif.agreement.results import Disagreement
from rlaif.data.human import PREFERENCES, HumanVotes
from rlaif.data.quick import quick_rows
from rlaif.labeling.read import labels_file
from rlaif.store import read_judgments
from rlaif.types import Message, Preference

if TYPE_CHECKING:
    from rlaif.agreement.table import JudgeLabels


@dataclass(frozen=True)
class Shown:
    """The disagreements of one objective to be shown, in order; preferences as codes."""

    objective: str
    ids: list[str]
    human: list[int]
    judge: list[int]
    p_a: list[float]


def find_examples(
    judge: JudgeLabels, shown: Sequence[Shown], votes: HumanVotes, pairs: str | Path | None
) -> tuple[Disagreement, ...]:
    """Read what there is to show of these disagreements: texts, everybody's votes and the judge's rationales.

    Args:
        judge: whose labels they are.
        shown: which.
        votes: all human labels.
        pairs: the file of the pairs, where the labels do not hold their texts.
    """
    wanted = {name for each in shown for name in each.ids}
    if not wanted:
        return ()
    rows: dict[str, Mapping[str, Any]] = {}
    for row in _text_rows(judge, pairs):
        if row["id"] in wanted:
            rows.setdefault(row["id"], row)
    recorded = _recorded(judge, wanted) if judge.provenance is None else {}
    voices = _votes(votes, wanted)
    found = []
    for each in shown:
        for name, human, said, p_a in zip(each.ids, each.human, each.judge, each.p_a, strict=True):
            row = rows.get(name, {})
            rationales = recorded.get((name, each.objective), {})
            if judge.run is not None:
                rationales = _of_run(judge.run, name, each.objective)
            found.append(
                Disagreement(
                    id=name,
                    objective=each.objective,
                    judge=judge.name,
                    prompt=_messages(row.get("prompt")),
                    response_a=row.get("response_a"),
                    response_b=row.get("response_b"),
                    human=PREFERENCES[human],
                    votes=voices.get((name, each.objective), {}),
                    preference=PREFERENCES[said],
                    p_a=None if math.isnan(p_a) else p_a,
                    rationales=rationales,
                    tags=row.get("tags") or {},
                )
            )
    return tuple(found)


def _text_rows(judge: JudgeLabels, pairs: str | Path | None) -> Iterator[Mapping[str, Any]]:
    if judge.provenance is not None:
        yield from (row for _, row in quick_rows(str(labels_file(Path(judge.labels)))))
    elif pairs is not None:
        from rlaif.agreement.texts import pair_rows

        yield from pair_rows(str(pairs))


def _recorded(judge: JudgeLabels, wanted: set[str]) -> dict[tuple[str, str], dict[str, str]]:
    found: dict[tuple[str, str], dict[str, str]] = {}
    for _, row in quick_rows(judge.labels):
        name, rationale = str(row["id"]), row.get("rationale")
        if name in wanted and row["judge"] == judge.recorded_as and isinstance(rationale, str) and rationale:
            found.setdefault((name, row["objective"]), {})[row.get("order") or ""] = rationale
    return found


def _of_run(run: Path, pair_id: str, objective: str) -> dict[str, str]:
    """The first sample's rationale of each order."""
    found: dict[str, str] = {}
    for judgment in read_judgments(run / "judgments.db", pair_id):
        if judgment.objective == objective and judgment.rationale.strip():
            found.setdefault(judgment.order, judgment.rationale)
    return found


def _votes(votes: HumanVotes, wanted: set[str]) -> dict[tuple[str, str], dict[str, Preference]]:
    names, annotators, objectives = list(votes.ids), list(votes.annotators), list(votes.objectives)
    places = {votes.ids[name] for name in wanted}
    found: dict[tuple[str, str], dict[str, Preference]] = {}
    columns = zip(votes.pair, votes.annotator, votes.objective, votes.preference, strict=True)
    for pair, annotator, objective, code in columns:
        if pair in places:
            key = names[pair], objectives[objective]
            found.setdefault(key, {})[annotators[annotator]] = PREFERENCES[code]
    return found


def _messages(prompt: Any) -> tuple[Message, ...] | None:
    if prompt is None:
        return None
    if isinstance(prompt, str):
        return (Message(role="user", content=prompt),)
    return tuple(Message.model_validate(turn) for turn in prompt)
