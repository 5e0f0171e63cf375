"""Wordings turned round: "insults the person" becomes "never insults the person", "does not insult the person" …

A few dozen clauses by hand teach a model the subject of a principle, not how negation works: for that it must see the
same clause with and without.
"""

from __future__ import annotations

import random
import re

# Turned round once more, these would be hard to read, or would no longer say the contrary.
_UNFIT = re.compile(
    r"\b(not|never|no|none|nobody|nothing|nowhere|neither|nor|without|rather|instead|only|little|few|hardly|any|anyone"
    r"|anything|whatsoever|even|but|unless|least|most|always|at all|as \w+ as)\b|n't\b"
)
_IRREGULAR = {"has": "have", "lies": "lie", "ties": "tie", "goes": "go", "does": "do"}
_DOUBLED = {"get": "gett", "admit": "admitt", "slip": "slipp", "set": "sett", "drop": "dropp", "put": "putt"}
_ES = ("sses", "ches", "shes", "xes", "zzes")


def base_form(verb: str) -> str | None:
    """The base form of a verb in the third person; `None` where the word is none."""
    if verb in _IRREGULAR:
        return _IRREGULAR[verb]
    if not verb.isalpha() or not verb.endswith("s") or verb.endswith(("ss", "us", "is")) or len(verb) < 4:
        return None
    if verb.endswith("ies"):
        return verb[:-3] + "y"
    return verb[:-2] if verb.endswith(_ES) else verb[:-1]


def gerund(phrase: str) -> str:
    """Its first word, a verb, with "-ing"."""
    verb, _, rest = phrase.partition(" ")
    stem = verb[:-1] if verb.endswith("e") and verb != "be" and not verb.endswith("ee") else verb
    return f"{_DOUBLED.get(verb, stem)}ing {rest}"


def contrary(clause: str, rng: random.Random) -> str | None:
    """A clause that says the contrary; `None` where that would be hard to read."""
    verb, _, rest = clause.partition(" ")
    base = base_form(verb)
    if _UNFIT.search(clause) or not rest or (base is None and verb != "is"):
        return None
    article = re.match("(an?|the) (?=[a-z])", rest)
    if article and rng.random() < 0.3:
        return f"{verb} no {rest[article.end() :]}"
    frames = (f"never {clause}", f"never {clause}", f"at no point {clause}", f"is not one that {clause}")
    if rng.random() < 0.5:
        return rng.choice(frames)
    return f"is not {rest}" if base is None else f"does not {base} {rest}"


def insistent(clause: str, rng: random.Random) -> str | None:
    """A clause that says the same by two negations; `None` where that would be hard to read."""
    verb, _, rest = clause.partition(" ")
    base = base_form(verb)
    if _UNFIT.search(clause) or not rest or base is None:
        return None
    return f"{rng.choice(('never fails to', 'does not fail to', 'does not forget to'))} {base} {rest}"


_NEGATIONS = re.compile(r"\b(never|not|at no point)\b|n't\b")


def is_turned(text: str) -> bool:
    """Whether a text's negations, an odd number, turn round what the rest of it says."""
    return len(_NEGATIONS.findall(text)) % 2 == 1
