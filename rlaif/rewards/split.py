"""Training pairs and held-out pairs: never the same conversation on both sides, and stable when data grows."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from rlaif.data.conversations import conversation_digest
from rlaif.errors import InputError
from rlaif.rewards.preferences import Floats, Ints, Preferences

Bools = npt.NDArray[np.bool_]


def split_preferences(preferences: Preferences, *, fraction: float, seed: int) -> tuple[Preferences, Preferences]:
    """Split into training and held-out pairs by conversation.

    Each conversation has a number from 0 to 1 that follows from its text and the seed alone, and is held out where that
    is below the fraction: a pair stays on its side whatever is added to the data. The fraction holds on average. Two
    exceptions, since a head needs both: every objective keeps a labelled conversation in training, and has one held out
    where it has two or more; the conversations whose numbers come nearest to that are moved.

    Args:
        preferences: what to split.
        fraction: how much to hold out, 0 or more and less than 1; 0 holds out nothing.
        seed: another seed, another split.

    Raises:
        InputError: the fraction is out of its range.
    """
    if not (math.isfinite(fraction) and 0 <= fraction < 1):
        raise InputError(f"--eval {fraction}: expected a fraction of 0 or more and less than 1, or a file.")
    first, row_group = np.unique(preferences.group, return_index=True, return_inverse=True)[1:]
    number = np.array([_number(preferences, int(row), seed) for row in first], dtype=np.float64)
    held: Bools = number < fraction
    if fraction > 0 and len(number):
        # Which groups have a label of which objective, (groups, objectives).
        labelled = np.zeros((len(number), len(preferences.objectives)), dtype=np.bool_)
        np.logical_or.at(labelled, row_group, preferences.weight > 0)
        held = _with_both_sides(held, number, labelled)
    rows = held[row_group] if len(number) else np.zeros(0, dtype=np.bool_)
    return preferences.take(np.flatnonzero(~rows)), preferences.take(np.flatnonzero(rows))


def _number(preferences: Preferences, row: int, seed: int) -> float:
    """From 0 to 1, by the conversation's text and the seed."""
    conversation = conversation_digest(preferences.pairs[row].prompt)
    digest = hashlib.blake2b(conversation + str(seed).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _with_both_sides(held: Bools, number: Floats, labelled: Bools) -> Bools:
    """Move single groups so that each objective has some on both sides; training comes first where one has only one."""
    held = held.copy()
    for mine in labelled.T:
        groups = np.flatnonzero(mine)
        if len(groups) > 1 and not held[groups].any():
            held[groups[number[groups].argmin()]] = True
    # What the first round moved may be all that another objective has.
    for mine in labelled.T:
        groups = np.flatnonzero(mine)
        if len(groups) and held[groups].all():
            held[groups[number[groups].argmax()]] = False
    return held


def separate(training: Preferences, held_out: Preferences) -> tuple[Preferences, int]:
    """Take the conversations of a held-out file out of the training pairs, and tell how many pairs went.

    Raises:
        InputError: nothing is left to train on.
    """
    theirs = {conversation_digest(pair.prompt) for pair in held_out.pairs}
    groups, first = np.unique(training.group, return_index=True)
    shared = [
        group
        for group, row in zip(groups.tolist(), first.tolist(), strict=True)
        if conversation_digest(training.pairs[row].prompt) in theirs
    ]
    kept: Ints = np.flatnonzero(~np.isin(training.group, shared))
    removed = len(training) - len(kept)
    if not removed:
        return training, 0
    if not len(kept):
        raise InputError(
            "--eval: its conversations are all that the labels have, so that nothing is left to train on; hold out "
            "other data, or a fraction."
        )
    left = training.take(kept)
    note = f"{removed:,} pairs share their conversation with the held-out file and are not trained on."
    return replace(left, notes=(*left.notes, note)), removed
