"""Whether new responses are unlike a reference, by the features of the heads' backbone and the rewards on it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rlaif.agreement.bias import rate
from rlaif.data.conversations import conversation_digest
from rlaif.errors import InputError
from rlaif.optimize import drift
from rlaif.optimize.compare_inputs import tag_groups
from rlaif.optimize.compare_rewards_results import REWARD, Drift, FarExample, Measure, Shift, TagDrift
from rlaif.rewards.features import default_cache, read_or_make_features
from rlaif.rewards.heads import RawScores, RewardHeads
from rlaif.rewards.preferences import Floats, Ints
from rlaif.rewards.score import Candidates
from rlaif.rewards.tokens import EncodedPair

MOST = 1500
"""Responses of each side: the distances between all of them are 9 million numbers."""

PERMUTATIONS = 999
LEAST = 20
"""Responses of each side below which there is no test."""

SIGNIFICANT = 0.05
_FARTHEST = 10
_Z = 1.959963984540054


@dataclass(frozen=True)
class Sampled:
    """One response a prompt, since responses to one prompt are alike and no two cases: its row, its place in it.

    `digests` tell the prompts apart; the same prompts of two data sets are drawn together.
    """

    digests: Sequence[bytes]
    rows: Sequence[Candidates]
    places: Sequence[int]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def texts(self) -> list[str]:
        """The responses."""
        return [row.responses[place] for row, place in zip(self.rows, self.places, strict=True)]


def sample(rows: Sequence[Candidates], most: int = MOST, seed: int = 0) -> Sampled:
    """Draw `most` prompts and a response to each; which ones depends on the texts and the seed, not on their order."""
    held: dict[bytes, list[tuple[Candidates, int]]] = {}
    for row in rows:
        held.setdefault(conversation_digest(row.prompt), []).extend((row, place) for place in range(len(row.names)))

    def drawn(digest: bytes) -> bytes:
        return hashlib.blake2b(digest, digest_size=16, key=seed.to_bytes(8, "big")).digest()

    kept = sorted(held, key=drawn)[:most]
    chosen = [held[digest][int.from_bytes(drawn(digest), "big") % len(held[digest])] for digest in kept]
    return Sampled(kept, [row for row, _ in chosen], [place for _, place in chosen])


class DriftMeter:
    """Holds new responses against a reference by the features of heads, as one after the other is loaded.

    Heads on one backbone share their features and so their distances; what became of the rewards is told of each.
    Features are kept as those of training are, and so are there at once where frozen heads were trained on the
    reference.

    Args:
        reference: what the heads were trained on, or the data of before.
        new: what to hold against it.
        source: what the reference is, for the reader.
        permutations: of the test, one at least.
        seed: of draws and permutations.
        batch_tokens: tokens of a batch, padding counted.

    Raises:
        InputError: fewer than `LEAST` prompts on either side.
    """

    def __init__(
        self,
        reference: Sequence[Candidates],
        new: Sequence[Candidates],
        *,
        source: str,
        permutations: int = PERMUTATIONS,
        seed: int = 0,
        batch_tokens: int | None = None,
    ) -> None:
        self._before, self._after = sample(reference, seed=seed), sample(new, seed=seed)
        for name, one in (("the reference", self._before), ("the data", self._after)):
            if len(one) < LEAST:
                raise InputError(
                    f"--reference {source}: {name} has {len(one)} different prompts; a test of drift takes {LEAST} or "
                    "more. Give more data, or leave --reference out."
                )
        self._source, self._permutations, self._seed = source, permutations, seed
        self._batch_tokens = batch_tokens
        self._measured: dict[str, Drift] = {}

    def add(self, name: str, heads: RewardHeads) -> None:
        """Measure by some heads.

        Raises:
            RunError: a feature is not a number, or the memory is too small.
        """
        digest = heads.backbone.digest
        features = np.concatenate([_features(heads, each, self._batch_tokens) for each in (self._before, self._after)])
        shifts = dict(_shifts(heads, self._before, self._after, features))
        known = self._measured.get(digest) or self._of_features(features)
        self._measured[digest] = known.model_copy(
            update={"models": (*known.models, name), "rewards": {**known.rewards, name: shifts}}
        )

    def found(self) -> tuple[Drift, ...]:
        """What was measured, by backbone."""
        return tuple(each.model_copy(update={"conclusion": _concluded(each)}) for each in self._measured.values())

    def _of_features(self, features: Floats) -> Drift:
        before, after = self._before, self._after
        distances = drift.pairwise_distances(features)
        is_new = np.repeat([False, True], [len(before), len(after)])
        matched = _matched(before, after)
        found = drift.energy(distances, is_new, permutations=self._permutations, seed=self._seed, matched=matched)
        far = drift.outliers(distances, is_new)
        return Drift(
            models=(),
            source=self._source,
            reference=len(before),
            new=len(after),
            matched=int((matched >= 0).sum()) // 2,
            width=features.shape[1],
            energy=found.share,
            statistic=found.statistic,
            by_chance=found.by_chance,
            p_value=found.p_value,
            permutations=found.permutations,
            outside=rate(int((far.distance > far.edge).sum()), len(after)),
            rewards={},
            by_tag=_by_tag(before, after, distances, matched, self._permutations, self._seed),
            farthest=tuple(_farthest(after, far)),
            conclusion="",
        )


def _features(heads: RewardHeads, sampled: Sampled, batch_tokens: int | None) -> Floats:
    """Last features of the sampled conversations, (conversations, width)."""
    rows = [row.prompt for row in sampled.rows]
    encoded = heads.backbone.encoder.conversations(zip(rows, sampled.texts, strict=True))
    # A pair of equal conversations is computed once.
    pairs = [EncodedPair(ids[:-1], ids[-1:], ids[-1:]) for ids in encoded]
    budget = batch_tokens or heads.batch_tokens
    return read_or_make_features(heads.backbone, pairs, cache=default_cache(), batch_tokens=budget).a.astype(np.float64)


def _matched(before: Sampled, after: Sampled) -> Ints:
    """Numbers of the prompts that are in both, -1 for others, (reference + new,)."""
    both = {digest: number for number, digest in enumerate(set(before.digests) & set(after.digests))}
    return np.array([both.get(digest, -1) for digest in (*before.digests, *after.digests)], dtype=np.int64)


def _shifts(heads: RewardHeads, before: Sampled, after: Sampled, features: Floats) -> Iterator[tuple[str, Shift]]:
    head = heads.backbone.head
    scores = features @ head.weight.detach().double().cpu().numpy().T
    if head.bias is not None:
        scores = scores + head.bias.detach().double().cpu().numpy()
    rows = [*before.rows, *after.rows]
    found = heads.rewards([row.prompt for row in rows], RawScores(scores, None, 0), tags=[row.tags for row in rows])
    count = len(before)
    columns = {name: np.array([each.rewards[name] for each in found]) for name in heads.spec.objectives}
    for name, column in {**columns, REWARD: np.array([each.reward for each in found])}.items():
        yield name, _shift(column[:count], column[count:])


def _shift(old: Floats, new: Floats) -> Shift:
    change = float(new.mean() - old.mean())
    half = _Z * float(np.sqrt(old.var(ddof=1) / len(old) + new.var(ddof=1) / len(new)))
    return Shift(
        reference_mean=float(old.mean()),
        reference_std=float(old.std(ddof=1)),
        new_mean=float(new.mean()),
        new_std=float(new.std(ddof=1)),
        change=Measure(value=change, ci=(change - half, change + half)),
    )


def _by_tag(
    before: Sampled, after: Sampled, distances: Floats, matched: Ints, permutations: int, seed: int
) -> tuple[TagDrift, ...]:
    """Each value of a tag with enough new responses; p-values are Holm's."""
    old = {(tag, type(value), value): places for tag, value, places in tag_groups([row.tags for row in before.rows])}
    found: list[TagDrift] = []
    for tag, value, places in tag_groups([row.tags for row in after.rows]):
        if not LEAST <= len(places) < len(after):
            continue
        like = old.get((tag, type(value), value))
        same = like is not None and len(like) >= LEAST
        against = like if like is not None and same else np.arange(len(before))
        kept = np.concatenate([against, len(before) + places])
        is_new = np.arange(len(kept)) >= len(against)
        numbers, which, counts = np.unique(matched[kept], return_inverse=True, return_counts=True)
        # A prompt whose other side is not among these stands alone.
        pairs = np.where((counts[which] == 2) & (numbers[which] >= 0), matched[kept], -1)
        one = drift.energy(distances[np.ix_(kept, kept)], is_new, permutations=permutations, seed=seed, matched=pairs)
        found.append(
            TagDrift(
                tag=tag,
                value=value,
                n=len(places),
                reference=len(against),
                same_tag=same,
                energy=one.share,
                by_chance=one.by_chance,
                p_value=one.p_value,
            )
        )
    adjusted = holm([one.p_value for one in found])
    told = [one.model_copy(update={"p_value": p}) for one, p in zip(found, adjusted, strict=True)]
    return tuple(sorted(told, key=lambda one: -one.energy))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values that hold for all together: 0.01, 0.04 and 0.03 become 0.03, 0.06 and 0.06.

    Source: Holm (1979), A simple sequentially rejective multiple test procedure.
    """
    order = np.argsort(p_values, kind="stable")
    found, least = [0.0] * len(p_values), 0.0
    for place, index in enumerate(order.tolist()):
        least = max(least, min(1.0, (len(p_values) - place) * p_values[index]))
        found[index] = least
    return found


def _farthest(after: Sampled, far: drift.Outliers) -> Iterator[FarExample]:
    for place in np.argsort(-far.distance, kind="stable")[:_FARTHEST].tolist():
        row = after.rows[place]
        yield FarExample(
            id=row.id,
            response=row.names[after.places[place]],
            distance=float(far.distance[place]),
            rank=float(far.rank[place]),
        )


def _concluded(found: Drift) -> str:
    figures = f"energy distance {found.energy:.3f}, by chance {found.by_chance:.3f}, p {_p(found.p_value)}"
    if found.p_value > SIGNIFICANT:
        return (
            f"No drift is told: the new responses are as far from the reference as chance alone puts them ({figures})."
        )
    outside = "" if found.outside.value is None else f"; {found.outside.value:.0%} lie farther out than 95% of it"
    moved = _moved(found.rewards)
    return f"The new responses have drifted from the reference ({figures}){outside}{moved}."


def _moved(rewards: Mapping[str, Mapping[str, Shift]]) -> str:
    """Which reward moved the most, in deviations of the reference, if any moved for sure."""
    moved = [
        (shift.change.value / shift.reference_std, name, model)
        for model, each in rewards.items()
        for name, shift in each.items()
        if shift.change.value is not None and shift.change.ci is not None and shift.reference_std > 0
        if shift.change.ci[0] > 0 or shift.change.ci[1] < 0
    ]
    if not moved:
        return "; no reward moved for sure"
    size, name, model = max(moved, key=lambda each: abs(each[0]))
    what = "the aggregate reward" if name == REWARD else f"the reward for {name}"
    who = f" of {model}" if len(rewards) > 1 else ""
    return f"; {what}{who} moved by {size:+.2f} deviations"


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "below 0.001"
