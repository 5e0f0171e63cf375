"""Which principle a rationale leans on: an estimate from its words, for runs that show all principles at once. Pure.

What is looked at, the surest first:

| method     | what is read                                                                                           |
|------------|--------------------------------------------------------------------------------------------------------|
| `only`     | the objective has one principle: it decides, whatever is said                                          |
| `named`    | the conclusion names one principle, by its number ("the second principle") or its id                   |
| `numbered` | the rationale goes through the principles by number (First, Second, … or 1., 2., …): its last step     |
| `overlap`  | the conclusion shares words with one principle and clearly fewer with the others; rare ones count more |

A last step decides only in a judge that stops there. One that always lists every principle would have the last one
decide everything; so `numbered` is used where the rationales of a run end at different steps (`stops_at_decider`).
Where nothing stands out, and where the last step says that the responses are equal, no principle is named: an estimate
that always answers would be a guess.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

Method = Literal["only", "named", "numbered", "overlap"]

_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_ORDINAL = "|".join(_ORDINALS)
# A number that starts a line or a sentence, with what may stand around it in Markdown.
_STEP = re.compile(
    rf"(?:^|\n|(?<=[.!?:;])[ \t])[ \t]*(?:[-*>#]+[ \t]*)*"
    rf"(?:(?:principle|criterion|step|point)[ \t]+)?(?:\*\*)?\(?(?:({_ORDINAL})(?:ly)?\b|#?(\d{{1,2}})[.):])",
    re.IGNORECASE,
)
_NAMED = re.compile(
    rf"\b(?:({_ORDINAL})\s+principle|principle\s+(?:no\.?\s*|number\s+|#\s*)?(\d{{1,2}}))\b", re.IGNORECASE
)
_EQUAL = re.compile(r"\b(?:equal(?:ly)?|tied?|the same|alike|no difference|neither is better)\b", re.IGNORECASE)
_CONCLUDES = re.compile(r"\b(?:better|prefer\w*|wins?|favou?r\w*|stronger|worse|weaker|verdict)\b", re.IGNORECASE)
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_WORD = re.compile(r"[^\W\d_]+")
_ENDINGS = ("ingly", "edly", "less", "ness", "ing", "ful", "ed", "ly", "es", "s", "e")
# Words of any principle and any rationale.
_COMMON_WORDS = """
a an the of to in on at by for from with into about over and or but nor as than so if then that this these those it its
is are be was were been has have had do does did can will would should could may might not no also only just too very
what which who whom how why when while where there here her they them their he she his him you your we our i my me
one two other others both each any all some more most less least much many even still such same
response responses answer answers output assistant principle principles question criterion judge judgment verdict
better best worse worst good prefer prefers preferred choose chooses pick favour favours favor favors overall
therefore thus hence because since reason matters matter weigh weighs
"""
_CONCLUDING_SENTENCES = 2
_LEAD = 1.5
_SHARED_WORDS = 2
_COVERED = 0.25
_LEAST_SHARE = 0.05


class Reader:
    """Reads which of an objective's principles a rationale leans on.

    Args:
        principles: (id, text) of each principle that the judge was shown, in that order.
    """

    def __init__(self, principles: Sequence[tuple[str, str]]) -> None:
        self._ids = [name for name, _ in principles]
        stems = [set(_stems(text)) for _, text in principles]
        held = Counter(stem for each in stems for stem in each)
        # What all of them say tells none of them apart.
        self._weights = [{stem: math.log(len(stems) / held[stem]) for stem in each} for each in stems]
        # An id of one plain word is a word before it is a name.
        self._names = {name: re.compile(rf"\b{re.escape(name)}\b") for name in self._ids if "-" in name or "_" in name}

    def lean(self, rationale: str, *, stops: bool) -> tuple[str, Method] | None:
        """Name the principle and how it was found; `None` where none stands out.

        Args:
            stops: whether this judge's rationales stop at the step that decides.
        """
        if len(self._ids) == 1:
            return self._ids[0], "only"
        step, tail = self._last_step(rationale)
        if _EQUAL.search(tail) and not _CONCLUDES.search(tail):
            return None
        conclusion = _conclusion(rationale)
        named = self._named(conclusion)
        if len(named) == 1:
            return self._ids[named.pop()], "named"
        if stops and step is not None:
            return self._ids[step], "numbered"
        nearest = self._nearest(conclusion)
        return None if nearest is None else (self._ids[nearest], "overlap")

    def last_step(self, rationale: str) -> int | None:
        """Place of the last numbered step, with which the rationale ends.

        `None` unless the steps go 1, 2, … and there is a principle for each; and where a conclusion of its own follows
        in another line.
        """
        return self._last_step(rationale)[0]

    def _last_step(self, rationale: str) -> tuple[int | None, str]:
        """The last step's place, and the text from there on (all of it without steps)."""
        reached, start = 0, 0
        for match in _STEP.finditer(rationale):
            word, digits = match.groups()
            number = _ORDINALS.index(word.lower()) + 1 if word else int(digits)
            if number == reached + 1:
                reached, start = number, match.start()
        tail = rationale[start:].strip()
        if not 1 <= reached <= len(self._ids):
            return None, rationale
        return (None if "\n" in tail else reached - 1), tail

    def _named(self, conclusion: str) -> set[int]:
        numbers = {
            _ORDINALS.index(word.lower()) if word else int(digits) - 1 for word, digits in _NAMED.findall(conclusion)
        }
        by_id = {self._ids.index(name) for name, pattern in self._names.items() if pattern.search(conclusion)}
        return {place for place in numbers if 0 <= place < len(self._ids)} | by_id

    def _nearest(self, conclusion: str) -> int | None:
        said = set(_stems(conclusion))
        shared = [{stem: weight for stem, weight in one.items() if stem in said and weight} for one in self._weights]
        # By the root of all that the principle says, so that a long one is not near to everything.
        scores = [
            sum(found.values()) / math.sqrt(sum(one.values()) or 1.0)
            for found, one in zip(shared, self._weights, strict=True)
        ]
        best, second = sorted(range(len(scores)), key=lambda place: -scores[place])[:2]
        covered = sum(shared[best].values()) / (sum(self._weights[best].values()) or 1.0)
        enough = len(shared[best]) >= _SHARED_WORDS or covered >= _COVERED
        return best if scores[best] > 0 and enough and scores[best] >= _LEAD * scores[second] else None


def stops_at_decider(steps: Iterable[tuple[str, int | None]]) -> bool:
    """Tell whether a judge's rationales stop at the step that decides, from where they end.

    Args:
        steps: (objective, place of the last step or `None`) of each rationale of objectives with several principles.

    In some objective at least two steps must each be the last of one rationale in twenty: a judge that goes through a
    fixed list ends at the same step every time.
    """
    ends: dict[str, Counter[int]] = {}
    for objective, step in steps:
        if step is not None:
            ends.setdefault(objective, Counter())[step] += 1
    return any(sum(count >= _LEAST_SHARE * found.total() for count in found.values()) >= 2 for found in ends.values())


def _conclusion(rationale: str) -> str:
    """The last sentences that say anything: "So B is better." names no reason."""
    found: list[str] = []
    for sentence in reversed(_SENTENCE.split(rationale.strip())):
        if any(_stems(sentence)) or _NAMED.search(sentence):
            found.append(sentence)
        if len(found) == _CONCLUDING_SENTENCES:
            break
    return " ".join(reversed(found))


def _stems(text: str) -> Iterator[str]:
    """The words that carry meaning, without their commonest endings: "harmful" and "harms" are one."""
    return (stem for stem in map(_stem, _WORD.findall(text.lower())) if len(stem) > 1 and stem not in _COMMON)


def _stem(word: str) -> str:
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word.removesuffix(ending)
    return word


_COMMON = frozenset(map(_stem, _COMMON_WORDS.split()))
