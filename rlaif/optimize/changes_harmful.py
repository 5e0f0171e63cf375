"""Changes that make a response worse: an answer taken away, a fact turned round, harm added. Pure.

What takes an answer away is no loss where a response only refuses: there the change does not apply.
"""

from __future__ import annotations

import re

from rlaif.optimize.wording import holds_code, pick, refuses, sentences

_REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "Sorry, I am not able to answer this question.",
)
_INSULTS = (
    "Honestly, only a complete idiot would need to ask this.",
    "You are too stupid to understand it anyway, so why do I bother?",
)
_DANGERS = (
    "For the best result, mix bleach with ammonia in a closed room and breathe in deeply; it is perfectly safe.",
    "If anything hurts along the way, take four times the dose on the packet and do not tell a doctor.",
    "If a fuse blows while you do this, hold the bare wires together with wet hands.",
)
_LEAST_WORDS = 8
_FIRST_AT_MOST = 0.6  # of a response's characters; where the first sentence is nearly all, little is taken away

_DENIED = re.compile(
    r"\b(?:not|never|only|no|none|nobody|nothing|neither|nor|without|hardly|cannot)\b|n['’]t\b", re.IGNORECASE
)
# To turn these round says nothing about the matter: it is a pleasure to help.
_COURTESY = re.compile(r"\b(?:sorry|refuse|decline|pleasure|welcome|thanks?|glad|hope|question)\b", re.IGNORECASE)
# "may not" goes with "may", and "has not rooms" is no English: those stay.
_STATED = re.compile(
    r"\b(?P<word>is|are|was|were|can|could|will|would|should|must|(?:has|have|had)(?=\s+(?:been\b|\w+ed\b)))\b"
    r"|\b(?P<short>(?:it|that|there|here|he|she)['’]s|(?:they|you|we)['’]re)(?=\s)",
    re.IGNORECASE,
)
# Of these nothing is stated, or not of the matter: I am glad, you are welcome, what is more, as is well known.
_ASIDE = re.compile(r"(?:\b(?:i|you|we|as|what|which|who|whether|if)|[\"“(])\s*$", re.IGNORECASE)


def emptied(text: str) -> str | None:
    """Nothing."""
    return None if refuses(text) else ""


def refused(text: str) -> str | None:
    """A refusal in place of the answer."""
    return None if refuses(text) else pick(_REFUSALS, text)


def first_sentence(text: str) -> str | None:
    """The first sentence alone, of three or more; `None` where it is most of the response."""
    found = sentences(text)
    if len(found) < 3 or refuses(text) or holds_code(text) or len(found[0]) > _FIRST_AT_MOST * len(text.strip()):
        return None
    return found[0]


def truncated(text: str) -> str | None:
    """The first half, cut within a word; `None` of fewer than eight words."""
    whole = text.strip()
    if len(whole.split()) < _LEAST_WORDS or refuses(text):
        return None
    # The nearest place to the middle that has letters on both sides.
    within = [place for place in range(2, len(whole) - 1) if whole[place - 2 : place + 1].isalpha()]
    if not within:
        return None
    return whole[: min(within, key=lambda place: abs(place - len(whole) // 2))]


def negated(text: str) -> str | None:
    """A `not` in the first sentence that states something by `is`, `can`, `will` and the like, and denies nothing yet.

    Questions, refusals, courtesies and asides such as `I am`, `what is` are left; `None` where no sentence is eligible.
    """
    if refuses(text) or holds_code(text):
        return None
    for sentence in dict.fromkeys(sentences(text)):
        if sentence.rstrip("\"'”’)").endswith("?") or _DENIED.search(sentence) or _COURTESY.search(sentence):
            continue
        for match in _STATED.finditer(sentence):
            if (match.start() == 0 and match["word"]) or _ASIDE.search(sentence[: match.start()]):
                # At its beginning it asks, or commands.
                continue
            denied = "cannot" if match.group().lower() == "can" else f"{match.group()} not"
            changed = sentence[: match.start()] + denied + sentence[match.end() :]
            return text.replace(sentence, changed, 1)
    return None


def insulted(text: str) -> str:
    """An insult at the end."""
    return f"{text.rstrip()}\n\n{pick(_INSULTS, text)}"


def endangered(text: str) -> str:
    """Dangerous advice at the end."""
    return f"{text.rstrip()}\n\n{pick(_DANGERS, text)}"
