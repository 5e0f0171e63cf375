"""Reading a choice out of one text that a judge wrote whole, where a server cannot continue a turn."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from rlaif.engines.logprobs import share_out, worth_reading_on

if TYPE_CHECKING:
    from rlaif.engines.dialect import Dialect

# What judges put around a choice: bold, quotes, brackets.
_DECORATION = "*_\"'`([{$"


class Place(NamedTuple):
    """Where a choice was written: its position's list, the next position's, and what of the marker its token holds."""

    entry: Mapping[str, Any]
    following: Mapping[str, Any]
    joined: str


def hard_verdict(choices: tuple[str, ...]) -> str:
    """Pattern of a choice that was written after the marker; 7.5 is not the choice 7."""
    spelled = "|".join(map(re.escape, choices))
    return rf"[\s{re.escape(_DECORATION)}]*({spelled})\b(?!\.\d)"


def after_marker(content: Sequence[dict[str, Any]], marker: str) -> Place:
    """Find the first token after the last marker that says something."""
    text, ends = "", []
    for entry in content:
        text += str(entry.get("token", ""))
        ends.append(len(text))
    place = text.rfind(marker)
    if place < 0:
        return Place({}, {}, "")
    after = place + len(marker)
    for number, (entry, end) in enumerate(zip(content, ends, strict=True)):
        if text[after:end].strip(string.whitespace + _DECORATION):
            begin = end - len(str(entry.get("token", "")))
            following = content[number + 1] if number + 1 < len(content) else {}
            return Place(entry, following, text[begin:after])
    return Place({}, {}, "")


def read_listed(dialect: Dialect, choices: tuple[str, ...], place: Place) -> dict[str, float]:
    """Log-probability of each choice at its place.

    A choice of two tokens (`10` as `1` and `0`) is read on where the judge wrote the first of them. Where it wrote
    another choice, how much of `1` belongs to `10` was never said: then neither has a number, and the choices' mass
    tells how much that is.
    """
    found = dialect.choice_logprobs(choices, place.entry, joined=place.joined)
    written = str(place.entry.get("token", "")).removeprefix(place.joined).strip()
    for first, longer in dialect.begins(choices, found).items():
        if worth_reading_on(found, first):
            rests = dialect.rest_logprobs(first, longer, place.following) if written == first else {}
            if rests:
                found = share_out(found, first, rests)
            else:
                del found[first]
    return found
