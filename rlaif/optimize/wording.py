"""Sentences, words and first names of a response, for changes that leave the rest of a text as it is. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import TypeVar

_T = TypeVar("_T")

# A full stop ends a sentence where a space and no small letter follow; in Chinese and Japanese nothing has to follow.
_END = re.compile(r"[.!?…]+[\"'”’)\]*_]*(?=\s+[^a-z\s]|\s*$)|[。！？]+[」』”’）]*", re.MULTILINE)
_SHORT = re.compile(
    r"(?:^|[\s(\"“])(?:e\.g|i\.e|etc|vs|cf|al|ca|no|fig|mr|mrs|ms|dr|prof|st|jr|sr|inc|u\.s|[a-z]|\d{1,2})\.$",
    re.IGNORECASE,
)
# Code, tables, headings, quotations and lists: their lines are not plain sentences.
_FENCE = re.compile(r"```|~~~|^(?: {4}|\t)\S|^\s*\|.*\|\s*$", re.MULTILINE)
_MARKUP = re.compile(r"^\s*(?:[-*+•]|\d+[.)]|#{1,6}|>)\s|\*\*|__|<[a-z]+>", re.MULTILINE | re.IGNORECASE)
_ITEM = re.compile(r"^(\s*)[-*+•]\s+\S")

# Sentences with any of these lean on another one, say where they stand, or open or close an answer.
_LEANING_WORDS = """
this that these those it its he him his she her hers they them their theirs one ones such same other others
another both former latter above below following previous next then thus hence therefore so however but and or
yet also too again instead otherwise still besides moreover furthermore additionally consequently meanwhile
nevertheless nonetheless likewise similarly accordingly afterwards after before later earlier first firstly
second secondly third thirdly fourth finally lastly last once now since because although though while whereas if
until when step steps example instance conclusion summary overall short either neither rest remaining more less
most least there here which who hello welcome thank thanks sorry wishes regards hope please question ask
pleasure
"""
_LEANING = frozenset(_LEANING_WORDS.split())
# A text without any of these is hardly English, and its leaning words are others.
_ENGLISH = frozenset(("the", "of", "to", "is", "are", "with", "for", "and"))
_REFUSES = re.compile(
    r"^\W*(?:(?:i['’]?m|i am|we['’]?re|we are)\s+(?:(?:very|so|really)\s+)?(?:sorry|afraid|not able|unable)|sorry\b"
    r"|(?:i|we)\s+(?:cannot|can['’]?t|can not|won['’]?t|will not|must refuse|must decline|refuse|decline)\b"
    r"|as an ai\b|that is something i must refuse|i do not (?:want|wish) to (?:help|answer))",
    re.IGNORECASE,
)
_LONG_REFUSAL = 60  # words; a longer one goes on to say something of use

# Names that are no words, months, places or brands, in two rows so that pronouns stay right.
_HER_NAMES = """
Anna Clara Emma Greta Karin Maria Olga Tara Wanda Zoe Bella Dina Fatima Hana Julia Lena Nadia Petra Alma Celia
Elsa Gina Irena Katya Mina Aisha Amara Carmen Chloe Emily Hannah Ingrid Jessica Lakshmi Laura Leila Mei Michelle
Naomi Ngozi Olivia Priya Rachel Sarah Sofia Sophie Yuki Zainab Alice Megan Lucy Helen Susan
"""
_HIS_NAMES = """
Ben David Felix Henry Jonas Leo Nils Paul Simon Victor Yusuf Amir Carlos Erik George Ivan Kofi Marco Oscar Ravi
Boris Dario Farid Hugo Jorge Lars Tomas Ahmed Andrew Arjun Brian Chinedu Daniel Diego Ethan Hassan Hiroshi James
Jamal John Kenji Kevin Liam Luis Matthew Michael Mohammed Peter Robert Sanjay Thomas Wei Tom Tim
"""
_NAMES = (tuple(_HER_NAMES.split()), tuple(_HIS_NAMES.split()))
_ROW_OF = {name: row for row in _NAMES for name in row}
_NAME = re.compile(r"\b(?:" + "|".join(sorted(_ROW_OF, key=len, reverse=True)) + r")\b")
# Beside another capitalised word it may be the name of one certain person: Marie Curie, Saint Paul, George VI.
_CAPITAL_BEFORE = re.compile(r"(?:^|[^.!?:\s])\s*(?<![\w.])[A-Z][\w’'.]*\s$")
_CAPITAL_AFTER = re.compile(r"^(?:\s[A-Z]\w|-[A-Za-z]|\s(?:the|of|von|van|de|di|al)\s[A-Z])")


def seed(*parts: str) -> int:
    """A number that follows from texts alone."""
    digest = hashlib.sha256("\x00".join(parts).encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:8])


def pick(options: Sequence[_T], *parts: str) -> _T:
    """One of several, by content: the same texts always get the same."""
    return options[seed(*parts) % len(options)]


def shuffled(items: Sequence[_T], *parts: str) -> list[_T]:
    """Items in another order, by content; never in the one they have, where there are two or more."""
    order = sorted(range(len(items)), key=lambda place: seed(*parts, str(place)))
    if order == sorted(order):
        order = order[1:] + order[:1]
    return [items[place] for place in order]


def sentences(text: str) -> list[str]:
    """The sentences of a text, without the spaces around them; a line's end ends one too."""
    return [part for line in text.splitlines() for part in _of_line(line)]


def _of_line(line: str) -> Iterator[str]:
    start = 0
    for end in _END.finditer(line):
        if end.group() == "." and _SHORT.search(line[start : end.end()]) and end.end() < len(line.rstrip()):
            continue
        if part := line[start : end.end()].strip():
            yield part
        start = end.end()
    if rest := line[start:].strip():
        yield rest


def is_prose(text: str) -> bool:
    """Whether a text is plain sentences, without code, tables, lists or other markup."""
    return not (_FENCE.search(text) or _MARKUP.search(text))


def holds_code(text: str) -> bool:
    """Whether a text has code or a table in it."""
    return _FENCE.search(text) is not None


def bullets(text: str) -> tuple[list[str], list[str], list[str]] | None:
    """Lines before a text's only bulleted list, its items of a line each, and the lines after; `None` without one."""
    lines = text.splitlines()
    places = [place for place, line in enumerate(lines) if _ITEM.match(line)]
    if len(places) < 3 or places != list(range(places[0], places[-1] + 1)):
        return None
    items = lines[places[0] : places[-1] + 1]
    if len({len(line) - len(line.lstrip()) for line in items}) > 1:
        return None
    return lines[: places[0]], items, lines[places[-1] + 1 :]


def is_english(text: str) -> bool:
    """Whether a text has any of the most common English words."""
    return not _ENGLISH.isdisjoint(re.findall(r"[a-z]+", text.lower()))


def stands_alone(sentence: str) -> bool:
    """Whether a sentence can stand anywhere: it points at no other one, and nothing in it tells its place."""
    words = re.findall(r"[A-Za-z']+", sentence.lower())
    return len(words) > 1 and not sentence.endswith(("?", ":")) and not _LEANING.intersection(words)


def refuses(text: str) -> bool:
    """Whether a response does no more than refuse."""
    return _REFUSES.search(text) is not None and len(text.split()) <= _LONG_REFUSAL


def renamed(texts: Sequence[str], *parts: str) -> list[str] | None:
    """Texts with other first names, alike in all of them; `None` where they hold none that can be changed.

    A name is left alone where it stands beside another capitalised word, and so may be one certain person's.
    """
    found: dict[str, None] = {}
    fixed: set[str] = set()
    for text in texts:
        for match in _NAME.finditer(text):
            found.setdefault(match.group())
            before, after = text[max(0, match.start() - 40) : match.start()], text[match.end() : match.end() + 12]
            if _CAPITAL_BEFORE.search(before) or _CAPITAL_AFTER.match(after):
                fixed.add(match.group())
    taken = set(found)
    other: dict[str, str] = {}
    for name in found:
        if name not in fixed:
            row = [each for each in _ROW_OF[name] if each not in taken]
            other[name] = pick(row, *parts, name)
            taken.add(other[name])
    if not other:
        return None
    return [_NAME.sub(lambda match: other.get(match.group(), match.group()), text) for text in texts]
