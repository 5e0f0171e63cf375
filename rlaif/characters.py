"""Characters that a reader cannot see, or takes for others: what a judge is shown must be what a person reads."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

_CANDIDATES = re.compile(
    "[\x00-\x08\x0b-\x0d\x0e-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\u2800\u3164\ud800-\udfff\ue000-\uf8ff\ufdd0-\ufdef\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff"
    "\U0001d173-\U0001d17a\U000e0000-\U0010ffff]"
)
# The flags of England, Scotland and Wales are written with characters that are invisible everywhere else.
_FLAG = re.compile("\U0001f3f4[\U000e0020-\U000e007e]{2,7}\U000e007f")
_JOINERS = "\u200c\u200d"
_MARKS = "\u200e\u200f\u061c"
_SAME_SCRIPT = ("LATIN", "GREEK", "CYRILLIC", "ARMENIAN")

# Letters that look like a Latin one in common fonts. Those with a use of their own beside Latin letters (mu, pi, Delta)
# are not here, since they look like themselves.
_LIKE_LATIN = {
    "CYRILLIC": "аеорсухіјѕԁԛԝһӏАВЕЗІЈКМНОРСТУХЅԌӀ",
    "GREEK": "αινοργυκΑΒΕΖΗΙΚΜΝΟΡΤΥΧ",
    "ARMENIAN": "օոսհցԼՕՍ",
    "CHEROKEE": "ᎠᎡᎢᎥᎩᎪᎫᎬᎳᎷᎻᎽᏀᏃᏎᏏᏒᏔᏙᏚᏞᏟᏢᏴ",
}
_LIKE_OTHER = frozenset("aceopxyijsABCEHIKMOPTXYZ")
_FOREIGN = {char: script for script, chars in _LIKE_LATIN.items() for char in chars}
_WORD = re.compile(r"[^\W\d_]+")


class Hidden(NamedTuple):
    """A character that does not print: the character, where it stands in the text, and how to name it."""

    char: str
    start: int
    name: str


class LookAlike(NamedTuple):
    """A word in which a letter of another script stands for one that looks the same."""

    word: str
    char: str
    start: int
    name: str


def hidden_characters(text: str) -> Iterator[Hidden]:
    """Find control characters, direction overrides, zero-width characters, surrogates and private characters.

    Those with a use stay: joiners within emoji and within scripts that join, direction marks in text that runs from
    right to left, variation selectors behind what they vary, and flags.
    """
    if text.isascii() and text.isprintable():
        return
    flags = [match.span() for match in _FLAG.finditer(text)]
    from_right: bool | None = None
    for match in _CANDIDATES.finditer(text):
        char, index = match.group(), match.start()
        if any(start <= index < end for start, end in flags):
            continue
        if char == "\r" and text[index + 1 : index + 2] == "\n":
            continue
        if char in _MARKS:
            if from_right is None:
                from_right = any(
                    unicodedata.bidirectional(other) in ("R", "AL") for other in text if other not in _MARKS
                )
            if from_right:
                continue
        before, after = text[index - 1 : index] if index else "", text[index + 1 : index + 2]
        if char in _JOINERS and _joins(before) and _joins(after):
            continue
        if _varies(char, before):
            continue
        yield Hidden(char, index, character_name(char))


def look_alikes(text: str) -> Iterator[LookAlike]:
    """Find words that mix scripts so that one letter passes for another, and lone words that pass for Latin ones.

    Text in one script is left alone, whichever it is, and so are symbols such as the m of micrometre.
    """
    if text.isascii():
        return
    words = [(match.group(), match.start()) for match in _WORD.finditer(text)]
    letters = [char for word, _ in words for char in word]
    mostly_latin = sum(char.isascii() or _script(char) == "LATIN" for char in letters) > 0.8 * len(letters)
    for word, start in words:
        if word.isascii():
            continue
        odd = _odd_one(word, mostly_latin)
        if odd is not None:
            yield LookAlike(word, word[odd], start + odd, character_name(word[odd]))


def character_name(char: str) -> str:
    """`U+200B ZERO WIDTH SPACE`."""
    return f"U+{ord(char):04X} {unicodedata.name(char, '')}".strip()


def _odd_one(word: str, mostly_latin: bool) -> int | None:
    scripts = [_script(char) for char in word]
    latin = scripts.count("LATIN")
    foreign = [number for number, char in enumerate(word) if char in _FOREIGN]
    styled = [number for number, char in enumerate(word) if 0x1D400 <= ord(char) <= 0x1D7FF]
    if latin >= 2 and (foreign or styled):
        return (foreign or styled)[0]
    if foreign and len(foreign) == len(word) >= 2 and mostly_latin:
        return 0
    if latin == 1 and len(word) - latin >= 2 and foreign and scripts.count(_FOREIGN[word[foreign[0]]]) >= 2:
        number = scripts.index("LATIN")
        return number if word[number] in _LIKE_OTHER else None
    return None


def _script(char: str) -> str:
    return "LATIN" if char.isascii() else unicodedata.name(char, "").partition(" ")[0]


def _joins(char: str) -> bool:
    """Whether a joiner beside this character can change how it looks."""
    if not char or char.isascii():
        return False
    if char.isalpha():
        return _script(char) not in _SAME_SCRIPT
    return unicodedata.category(char) in ("So", "Sk", "Mn", "Mc", "Po")


def _varies(char: str, before: str) -> bool:
    """Whether this is a variation selector behind something that has variants."""
    if not before or _CANDIDATES.match(before):
        return False
    if "\ufe00" <= char <= "\ufe0f":
        return before in "0123456789#*" or not (before.isascii() or _script(before) in _SAME_SCRIPT)
    return "\U000e0100" <= char <= "\U000e01ef" and "CJK" in unicodedata.name(before, "")
