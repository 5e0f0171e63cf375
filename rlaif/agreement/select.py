"""`rlaif select`: choose the pairs most worth a person's time, and a random share beside them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, field_validator

from rlaif.agreement.diversity import choose_diverse
from rlaif.agreement.embedding import LEXICAL, make_embedder
from rlaif.agreement.select_input import Pool, read_pool
from rlaif.agreement.worth import CRITERIA, Reason, Worth
from rlaif.data.human import HumanLabels, read_human_labels
from rlaif.errors import InputError
from rlaif.files import check_output, replacing
from rlaif.labeling.api import explain_settings
from rlaif.types import Frozen, Pair

Watch = Callable[[int, int], None]
Kind = Literal["chosen", "random"]

# Diversity looks at so many of the best pairs for each one that is chosen, and at this many at least.
_CANDIDATES_EACH = 10
_LEAST_CANDIDATES = 1000


class SelectSettings(Frozen):
    """What decides which pairs are selected."""

    n: int = Field(ge=1)
    objectives: tuple[str, ...] = ()
    diversity: float = Field(default=0.3, ge=0, le=1)
    random: float = Field(default=0.1, ge=0, le=1)
    embedder: str = LEXICAL
    candidates: int | None = Field(default=None, ge=1)
    weights: Mapping[str, float] = Field(default_factory=dict)
    seed: int = Field(default=0, ge=0)

    @field_validator("weights")
    @classmethod
    def _known_weights(cls, weights: Mapping[str, float]) -> Mapping[str, float]:
        for name, weight in weights.items():
            if name not in CRITERIA:
                raise ValueError(f"{name} is not a criterion; expected one of {', '.join(CRITERIA)}")
            if not 0 <= weight <= 1:
                raise ValueError(f"the weight of {name} is {weight:g}; expected 0 to 1")
        return weights


class SelectSummary(Frozen):
    """What was selected from what.

    `pool` counts the pairs that could be selected, without the `already_labelled` ones. `inclusion_probability` is the
    chance that each pair of the pool had to be drawn at random. `by_reason` counts the selected pairs that have a
    reason of each kind: a criterion, `remainder`, `diverse` or `random`. The mean scores tell how much more the chosen
    pairs are in doubt than the pool.
    """

    out: str
    objectives: tuple[str, ...]
    pool: int
    selected: int
    chosen: int
    random: int
    inclusion_probability: float
    by_reason: Mapping[str, int]
    mean_score_chosen: float | None
    mean_score_pool: float
    already_labelled: int
    unknown_labelled: int
    without_texts: int
    candidates: int
    embedder: str | None
    seed: int


@dataclass(frozen=True)
class _Selected:
    place: int
    kind: Kind
    reasons: Sequence[Reason]


def select(
    source: str | Path,
    out: str | Path,
    *,
    pairs: str | Path | None = None,
    human: Sequence[str | Path] = (),
    watch: Watch | None = None,
    **settings: Any,
) -> SelectSummary:
    """Write the pairs of a run, or of scores, that are most worth a person's time, the most worthy first.

    First a share of `n` is drawn from the whole pool, each pair with equal chance; then the others are chosen from the
    rest by score and diversity. The pairs drawn stand evenly among the chosen ones, so whoever stops early still has
    labelled a random sample of the pool.

    Args:
        source: a run's folder, a `labels.jsonl`, or scores of `rlaif score`.
        out: JSON Lines of pairs, each with a key `select`; replaced where it exists.
        pairs: the texts, for scores.
        human: files of human labels; a pair that has one is left out. With `objectives` only those count.
        watch: called with pairs embedded and to embed.
        settings: `n`, `objectives`, `diversity`, `random`, `embedder`, `candidates`, `weights`, `seed`.

    Raises:
        InputError: a file or a setting cannot be used, or there is nothing to select from.
        RunError: `out` cannot be written.
    """
    try:
        wanted = SelectSettings.model_validate(settings)
    except ValidationError as errors:
        raise InputError(explain_settings(errors)) from None
    target = Path(out)
    check_output("--out", target, [source, *human, *([] if pairs is None else [pairs])])
    labels = [read_human_labels(str(file)) for file in human]
    pool = read_pool(str(source), None if pairs is None else str(pairs))
    objectives = _objectives(pool, wanted, str(source))
    worth = Worth(pool.table, objectives, wanted.weights)
    labelled, unknown = _labelled(pool, labels, wanted.objectives)
    free = np.flatnonzero(~labelled)
    if not len(free):
        raise InputError(f"{source}: people have labelled all {len(labelled):,} pairs; there is none left to select.")
    generator = np.random.default_rng(wanted.seed)
    count = min(wanted.n, len(free))
    # Half of a pair is a pair: of 5 with a share of 0.1 one is drawn.
    drawn = generator.choice(free, size=int(count * wanted.random + 0.5), replace=False)
    rest = np.setdiff1d(free, drawn)
    # Pairs of equal score are in random order: the first of the file are not better than the others.
    rest = generator.permutation(rest)
    rest = rest[np.argsort(-worth.scores[rest], kind="stable")]
    chosen, looked_at = _choose(pool, worth, rest, count - len(drawn), wanted, watch)
    chance = len(drawn) / len(free)
    random = [_Selected(int(place), "random", [_random_reason(chance)]) for place in drawn]
    selected = _spread(random, chosen)
    _write(target, pool, worth, selected, chance)
    return SelectSummary(
        out=str(target),
        objectives=objectives,
        pool=len(free),
        selected=len(selected),
        chosen=len(chosen),
        random=len(random),
        inclusion_probability=chance,
        by_reason=_counts(selected),
        mean_score_chosen=float(worth.scores[[each.place for each in chosen]].mean()) if chosen else None,
        mean_score_pool=float(worth.scores[free].mean()),
        already_labelled=int(labelled.sum()),
        unknown_labelled=unknown,
        without_texts=pool.without_texts,
        candidates=looked_at,
        embedder=wanted.embedder if looked_at else None,
        seed=wanted.seed,
    )


def _objectives(pool: Pool, settings: SelectSettings, source: str) -> tuple[str, ...]:
    known = pool.table.objectives
    if not known:
        raise InputError(f"{source}: no pair is labelled under an objective; give a run that is.")
    for name in settings.objectives:
        if name not in known:
            raise InputError(f"--objective {name}: not in {source}, which has {', '.join(known)}.")
    return tuple(dict.fromkeys(settings.objectives)) or known


def _labelled(pool: Pool, labels: Sequence[HumanLabels], objectives: Sequence[str]) -> tuple[NDArray[np.bool_], int]:
    """Which pairs have a label that counts, and how many labelled pairs the table does not hold."""
    ids = {pair_id for each in labels for pair_id, name in each.majority if not objectives or name in objectives}
    labelled = np.array([pair_id in ids for pair_id in pool.table.ids], dtype=np.bool_)
    return labelled, len(ids) - int(labelled.sum())


def _choose(
    pool: Pool,
    worth: Worth,
    ranked: NDArray[np.int64],
    count: int,
    settings: SelectSettings,
    watch: Watch | None,
) -> tuple[list[_Selected], int]:
    """Choose from pairs in order of score; also tells how many were compared for diversity."""
    if settings.diversity == 0 or count in (0, len(ranked)):
        return [_Selected(int(place), "chosen", worth.reasons(int(place))) for place in ranked[:count]], 0
    most = settings.candidates or max(_CANDIDATES_EACH * count, _LEAST_CANDIDATES)
    best = ranked[: max(most, count)]
    in_file = np.sort(best)
    texts = (pair for _, pair in pool.texts(set(in_file.tolist())))
    vectors = make_embedder(settings.embedder).embed(_watched(texts, len(best), watch))
    vectors = vectors[np.searchsorted(in_file, best)]
    chosen = []
    for candidate, similarity in choose_diverse(worth.scores[best], vectors, count, settings.diversity):
        place = int(best[candidate])
        reasons = worth.reasons(place)
        if candidate >= count:
            # By score alone it would not have been chosen.
            text = f"unlike the pairs chosen before it (similarity at most {similarity:.2f})"
            reasons.append(Reason("diverse", 1 - similarity, text))
        chosen.append(_Selected(place, "chosen", reasons))
    return chosen, len(best)


def _watched(pairs: Iterator[Pair], total: int, watch: Watch | None) -> Iterator[Pair]:
    for done, pair in enumerate(pairs, 1):
        yield pair
        if watch is not None:
            watch(done, total)


def _random_reason(chance: float) -> Reason:
    return Reason("random", 0.0, f"drawn at random, as each pair was with probability {chance:.4g}")


def _spread(random: Sequence[_Selected], chosen: Sequence[_Selected]) -> list[_Selected]:
    """Place the random ones evenly among the chosen ones, whose order stays."""
    total = len(random) + len(chosen)
    places = {(2 * number + 1) * total // (2 * len(random)) for number in range(len(random))}
    left, right = iter(random), iter(chosen)
    return [next(left) if place in places else next(right) for place in range(total)]


def _counts(selected: Sequence[_Selected]) -> dict[str, int]:
    counts = Counter(name for each in selected for name in {reason.criterion for reason in each.reasons})
    return {name: counts[name] for name in (*CRITERIA, "remainder", "diverse", "random") if counts[name]}


def _write(out: Path, pool: Pool, worth: Worth, selected: Sequence[_Selected], chance: float) -> None:
    pairs = dict(pool.texts({each.place for each in selected}))
    with replacing(out) as file:
        for rank, each in enumerate(selected, 1):
            why = {
                "rank": rank,
                "kind": each.kind,
                "score": round(float(worth.scores[each.place]), 6),
                "reasons": [reason.text for reason in each.reasons],
                "inclusion_probability": chance if each.kind == "random" else None,
            }
            row = {**pairs[each.place].model_dump(mode="json"), "select": why}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
