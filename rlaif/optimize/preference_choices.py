"""Which response of a pair is the better one: by labels, or by the scores of candidates."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from rlaif.agreement.table import OVERALL
from rlaif.data.pairs import Reject
from rlaif.data.sources import Row, Source, open_source
from rlaif.errors import InputError, nearest
from rlaif.optimize.preference_formats import Preferred
from rlaif.rewards.preferences import Preferences
from rlaif.rewards.score import Candidates, read_candidates
from rlaif.rewards.source_labels import EQUAL, UNUSABLE
from rlaif.rewards.source_text import FORM, SourceText, parse_source
from rlaif.rewards.sources import read_preferences

TIES = "ties"
ALONE = "fewer than two scored responses"
NO_SCORE = "prompts without scores"
NO_TEXT = "scores without a response"
# Of labels the mean of several may miss a half, and of scores a rounded digit, by no more.
_ROUNDING = 1e-9
# How many rows may be broken before a file is taken for labels, whose reader says what is wrong.
_LOOK_AT = 100


@dataclass
class Choices:
    """Pairs with the better response first, in the order of the data, ties among them.

    `numbers` are the names in each pair's own; `left_out` counts what is no pair to choose from, by reason; `merged`
    the labels of pairs that several sources have.
    """

    pairs: Iterable[Preferred]
    numbers: tuple[str, ...]
    objective: str
    left_out: Counter[str] = field(default_factory=Counter)
    merged: int = 0
    notes: list[str] = field(default_factory=list)


def is_tie(pair: Preferred) -> bool:
    """Whether neither response is better."""
    return abs(pair.gap) < _ROUNDING


def read_choices(sources: Sequence[str], objective: str | None, columns: Mapping[str, str], *, spill: Path) -> Choices:
    """Read labels, or the scores of candidates, of which the best and the worst of each prompt make a pair.

    Args:
        sources: labels as `read_preferences` takes them, any number; or one file of scored candidates, as
            `rlaif reward best-of-n` writes it (`responses` and `scores`), or `DATA+SCORES` with the scores that
            `rlaif score` wrote of the data.
        objective: the one to choose by; without it the overall label, or the only objective; of scores the reward.
        columns: names of columns in pairs, candidates and preference data, ours to theirs.
        spill: the folder of an unnamed file that holds the texts of labelled pairs, of which there may be millions; it
            needs room for them twice.

    Raises:
        InputError: a source cannot be used, lacks the objective, or has several and none is named.
        RunError: a run's labels cannot be read, or `spill` cannot be written to.
    """
    if not sources:
        raise InputError(f"no labels are given; expected one source or more, {FORM}.")
    texts = [parse_source(source) for source in sources]
    scored = [text for text in texts if _holds_scores(text)]
    if not scored:
        return _by_labels(_preferences(sources, objective, columns or None, spill))
    if len(texts) > 1:
        raise InputError(f"{scored[0].text}: scores of candidates; expected them alone. Export each file by itself.")
    (text,) = texts
    if text.weight != 1:
        raise InputError(f"{text.text}: scores have no weight. Leave out the @{text.weight:g}.")
    return _by_scores(text, _named(text, objective), columns)


def _by_labels(found: Preferences) -> Choices:
    left_out: Counter[str] = Counter()
    for source in found.sources:
        left_out.update(source.left_out)

    def pairs() -> Iterator[Preferred]:
        rows = zip(found.pairs, found.target[:, 0].tolist(), found.weight[:, 0].tolist(), strict=True)
        for pair, p_a, weight in rows:
            # Of a tie the first response comes first.
            better = p_a > 0.5 - _ROUNDING
            responses = (pair.response_a, pair.response_b) if better else (pair.response_b, pair.response_a)
            numbers = {"p_chosen": max(p_a if better else 1 - p_a, 0.5), "weight": weight}
            yield Preferred(pair.id, pair.prompt, *responses, numbers)

    merged = sum(source.pairs for source in found.sources) - len(found)
    return Choices(pairs(), ("p_chosen", "weight"), found.objectives[0], left_out, merged, list(found.notes))


def _preferences(
    sources: Sequence[str], objective: str | None, columns: Mapping[str, str] | None, spill: Path
) -> Preferences:
    if objective is not None:
        return read_preferences(sources, objectives=[objective], columns=columns, spill=spill)
    with suppress(InputError):
        return read_preferences(sources, objectives=[OVERALL], columns=columns, spill=spill)
    # Either there are no overall labels, or this says again what is wrong; the texts of the first try are gone.
    found = read_preferences(sources, columns=columns, spill=spill)
    if len(found.objectives) == 1:
        return found
    names = ", ".join(name[:80] for name in found.objectives[:8])
    raise InputError(f"{', '.join(sources)}: no overall labels; the objectives are {names}. Choose one by --objective.")


def _holds_scores(text: SourceText) -> bool:
    place = text.labels or text.pairs
    if not Path(place).is_file():
        return False
    for row in islice(open_source(place).read(), _LOOK_AT):
        if row.fault is None and isinstance(row.value, Mapping):
            names = row.value.keys()
            if text.labels is None and {"response", "reward"} <= names:
                raise InputError(
                    f"{text.text}: scores of one response a line; give the data that was scored as well, as "
                    f"DATA+{text.text}, or the candidates of rlaif reward best-of-n."
                )
            return ({"responses", "scores"} if text.labels is None else {"response", "reward"}) <= names
    return False


def _named(text: SourceText, objective: str | None) -> str | None:
    """The objective that either the source's text or the option names."""
    if text.names is None:
        return objective
    names = [old for old, _ in text.names]
    if len(names) > 1 or (objective is not None and objective not in text.names[0]):
        raise InputError(f"{text.text}: scores are chosen by one objective; name one, as in {text.pairs}:{names[0]}.")
    return names[0]


def _by_scores(text: SourceText, objective: str | None, columns: Mapping[str, str]) -> Choices:
    choices = Choices([], ("reward_chosen", "reward_rejected"), objective or "reward")
    if text.labels is None:
        rows = _scored_rows(open_source(text.pairs), objective, columns)
    else:
        rows = _scored_data(open_source(text.pairs), open_source(text.labels), objective, columns, choices.left_out)
    choices.pairs = _best_and_worst(text, rows, choices)
    return choices


_Scored = tuple[Candidates | Reject, Sequence[float | None]]


def _best_and_worst(text: SourceText, rows: Iterable[_Scored], choices: Choices) -> Iterator[Preferred]:
    first = ""
    for row, rewards in rows:
        if isinstance(row, Reject):
            choices.left_out[UNUSABLE] += 1
            first = first or f"{text.pairs}:{row.line}: {row.reason}"
            continue
        known = [(reward, place) for place, reward in enumerate(rewards) if reward is not None]
        if len(known) < 2:
            choices.left_out[ALONE if known else NO_SCORE] += 1
            continue
        # Of equal rewards the first place counts.
        most, best = max(known, key=lambda each: each[0])
        least = min(reward for reward, _ in known)
        others = [place for reward, place in known if reward == least and _differ(row, place, best)]
        if not others:
            choices.left_out[EQUAL] += 1
            continue
        numbers = {"reward_chosen": most, "reward_rejected": least}
        yield Preferred(row.id, row.prompt, row.responses[best], row.responses[others[0]], numbers)
    for reason in (UNUSABLE, ALONE, NO_SCORE, NO_TEXT, EQUAL):
        count = choices.left_out[reason]
        if count:
            told = f"; the first is {first}" if reason == UNUSABLE else ""
            choices.notes.append(f"{text.text}: {reason}: {count:,}, left out{told}.")


def _differ(row: Candidates, place: int, other: int) -> bool:
    return row.responses[place].strip() != row.responses[other].strip()


def _scored_rows(source: Source, objective: str | None, columns: Mapping[str, str]) -> Iterator[_Scored]:
    """Candidates from rows that hold the responses to a prompt, and the score of each."""
    waiting: list[list[float | None]] = []

    def rows() -> Iterator[Row]:
        for row in source.read():
            fault, rewards = _rewards_of(row, objective, source.name)
            waiting.append(rewards)
            yield Row(row.line, row.value, fault)

    # One value comes back for each row, before the next is asked for.
    for found in read_candidates(Source(source.name, source.digest, None, rows), columns):
        yield found, waiting.pop()


def _rewards_of(row: Row, objective: str | None, name: str) -> tuple[str | None, list[float | None]]:
    """What is wrong with a row, and the reward of each of its responses."""
    if row.fault is not None:
        return row.fault, []
    value = row.value if isinstance(row.value, Mapping) else {}
    scores, responses = value.get("scores"), value.get("responses")
    if not isinstance(scores, list | tuple) or not isinstance(responses, list | tuple) or len(scores) != len(responses):
        return "responses and scores are no lists of one length; expected a score for each response", []
    rewards: list[float | None] = []
    for place, score in enumerate(scores):
        try:
            rewards.append(_reward(score, objective, f"{name}:{row.line}"))
        except ValueError as error:
            return f"scores: score {place + 1}: {error}", []
    return None, rewards


def _reward(score: Any, objective: str | None, place: str) -> float:
    """The reward that a line or an entry of scores holds.

    Raises:
        ValueError: it holds none.
        InputError: it has no such objective.
    """
    found = score.get("reward" if objective is None else "rewards") if isinstance(score, Mapping) else None
    if objective is not None:
        if not isinstance(found, Mapping):
            raise ValueError("rewards is missing; expected the reward of each objective")
        if objective not in found:
            there = ", ".join(str(name)[:80] for name in list(found)[:8])
            raise InputError(
                f"{place}: no reward of {objective[:80]!r}; the objectives are {there}. Choose one by "
                f"--objective.{nearest(objective, map(str, found))}"
            )
        found = found[objective]
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        raise ValueError("the reward is no number; expected what rlaif score writes")
    return float(found)


def _scored_data(
    data: Source, scores: Source, objective: str | None, columns: Mapping[str, str], left_out: Counter[str]
) -> Iterator[_Scored]:
    """Candidates of the data with the scores that stand in a file of their own, by id and name of the response."""
    of: dict[tuple[str, str | int], float] = {}
    for row in scores.read():
        try:
            name, reward = _score_line(row, objective, scores.name)
            if name in of:
                raise ValueError(f"a second score of response {name[1]!r} of {name[0][:80]!r}; expected one")
        except ValueError as error:
            raise InputError(f"{scores.name}:{row.line}: {error}. Score the data again with rlaif score.") from None
        of[name] = reward
    for found in read_candidates(data, columns):
        if isinstance(found, Reject):
            yield found, ()
        else:
            yield found, [of.pop((found.id, name), None) for name in found.names]
    left_out[NO_TEXT] = len(of)


def _score_line(row: Row, objective: str | None, name: str) -> tuple[tuple[str, str | int], float]:
    """Id and response that a line of `rlaif score` is of, and the reward."""
    value = row.value if row.fault is None and isinstance(row.value, Mapping) else {}
    which, response = value.get("id"), value.get("response")
    if not isinstance(which, str) or isinstance(response, bool) or not isinstance(response, str | int):
        raise ValueError(row.fault or "expected the id of a row, and its response as a, b or a number")
    return (which, response), _reward(value, objective, f"{name}:{row.line}")
