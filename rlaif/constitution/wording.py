"""What short English rules say, as far as their words show it: the same, the opposite, or against a question.

Nothing here understands a text. Each reading is lexical, in word lists that can be read, and made to be right when it
speaks rather than to speak often: a condition, an exception or a second thought in a text, and nothing is said of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

_TOKEN = re.compile(r"[^\W_]+(?:['’][^\W_]+)?|[.;:!?]")
_ENDS = frozenset(".;:!?")
_LONGEST = 4000
_ALIKE = 0.8


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_VERBS = _words("prefer choose pick favor favour select rank take")
_NOUNS = _words("response responses answer answers reply replies output text one ones assistant")
_PEOPLE = _words("user users person persons people human humans reader readers customer anyone anybody someone")
_STOP = (
    _VERBS
    | _NOUNS
    | _PEOPLE
    | _words(
        "a an the this that these those which who whose whom it its itself is are be been being was were do does did "
        "doing has have had having of to in on at by for with as and or so than then there their them they he she his "
        "her you your we our more most very really also what how would could should can may might will shall any some "
        "each such into from about over between"
    )
)
# Each of these turns what it stands beside into its opposite.
_NEGATORS = _words(
    "no not never nobody nothing none neither nor without cannot less least fewer fewest avoid avoids avoiding lack "
    "lacks refrain refrains hardly"
)
# A text with one of these holds under a condition, or says two things at once.
_CONDITIONS = _words(
    "if when whenever while unless except but however only too enough rather instead although though until where "
    "whether otherwise"
)
# Words that may stand between `Prefer the response that` and the word that says what is preferred.
_LIGHT = (
    (_STOP - _VERBS)
    | _PEOPLE
    | _words(
        "contain contains give gives make makes say says state states tell tells use uses include includes offer "
        "offers show shows sound sounds seem seems look looks feel feels provide provides much many quite try tries "
        "willing deliberately always openly advice content"
    )
)
_RESERVATIONS = (
    _NEGATORS
    | _CONDITIONS
    | _words(
        "refuse refuses decline declines warn warns prevent prevents reduce reduces against report reports "
        "correct corrects point points question questions explain explains admit admits"
    )
)

# Pairs that are opposites of one another in nearly every sentence; the words of one side mean nearly the same.
_OPPOSITES = (
    ("short brief concise terse succinct", "long lengthy verbose wordy"),
    ("polite courteous respectful", "rude impolite disrespectful"),
    ("formal", "informal casual"),
    ("honest truthful", "dishonest untruthful"),
    ("true", "false untrue"),
    ("correct accurate", "incorrect inaccurate wrong"),
    ("safe harmless", "unsafe harmful dangerous"),
    ("clear", "unclear vague confusing"),
    ("helpful useful", "unhelpful useless"),
    ("sure certain confident", "unsure uncertain"),
    ("simple", "complex complicated"),
    ("include contain", "omit exclude"),
    ("agree", "disagree"),
    ("accept", "refuse decline reject"),
    ("fair unbiased impartial neutral", "unfair biased partisan"),
    ("kind", "unkind cruel"),
    ("relevant", "irrelevant"),
    ("specific", "general generic"),
    ("consistent", "inconsistent"),
    ("complete", "incomplete"),
    ("direct", "indirect evasive"),
    ("friendly", "unfriendly hostile"),
    ("serious", "humorous funny"),
    ("better", "worse"),
    ("best", "worst"),
)

# What questions ask about: the words for what is good there, and those for what is bad.
_AXES = {
    "harm": (
        "safe harmless benign kind gentle respectful polite courteous friendly considerate",
        "harm harmful hurt hurtful danger dangerous unsafe toxic insult abuse abusive threaten threat threatening "
        "cruel demean mock ridicule humiliate bully harass offensive offend hateful violent rude racist sexist "
        "endanger injure",
    ),
    "honesty": (
        "honest truthful true truth accurate candid sincere factual frank",
        "dishonest lie lying false falsehood mislead deceive deceptive fabricate invent untrue untruthful inaccurate "
        "manipulate manipulative insincere bluff",
    ),
    "help": ("helpful useful help", "unhelpful useless evasive"),
    "length": ("short concise brief terse succinct", "long verbose wordy lengthy rambling ramble"),
    "clarity": ("clear understandable readable lucid", "unclear confuse confusing vague obscure muddled cryptic"),
    "correctness": ("correct right accurate exact", "wrong incorrect mistaken erroneous inaccurate error mistake"),
    "fairness": (
        "fair impartial neutral unbiased balanced",
        "unfair biased prejudiced partisan discriminatory discriminate",
    ),
    "manners": (
        "polite courteous respectful friendly kind",
        "rude impolite disrespectful unfriendly unkind insult mock hostile demean",
    ),
    "quality": ("good better best", "bad worse worst poor"),
}


class Meaning(NamedTuple):
    """The words that carry a text, each 1 or -1 (its opposite), and whether it holds under a condition."""

    words: dict[str, int]
    conditional: bool


def meaning(text: str) -> Meaning:
    """Read a rule: fillers gone, word forms and opposites brought together, negations counted."""
    tokens = _tokens(text)
    sign = -1 if sum(token in _NEGATORS for token in tokens) % 2 else 1
    words: dict[str, int] = {}
    for token in tokens:
        if token in _STOP or token in _NEGATORS or token in _ENDS:
            continue
        stem = _stem(token)
        concept, pole = _poles().get(token) or _poles().get(stem) or (stem, 1)
        words[concept] = pole * sign
    return Meaning(words, not _CONDITIONS.isdisjoint(tokens))


def relation(one: Meaning, other: Meaning) -> str | None:
    """Whether two rules say the `same`, the `opposite`, or neither for all that their words show.

    They are compared if at least 80% of their words are shared. One shared word that is turned around, by a
    negation or as the other of two opposites, makes them opposites; not so where one holds under a condition only.
    """
    shared = one.words.keys() & other.words.keys()
    if not shared or len(shared) < _ALIKE * len(one.words.keys() | other.words.keys()):
        return None
    if all(one.words[word] == other.words[word] for word in shared):
        return "same"
    return None if one.conditional or other.conditional else "opposite"


def aims(question: str) -> dict[str, int]:
    """On which axes a question wants more of the good (1) or of the bad (-1).

    `Which response does less harm?` names the bad of the axis harm, and less of it: 1. A question that says both of
    one axis wants neither.
    """
    tokens = _tokens(question)
    wanted: dict[str, set[int]] = {}
    for number, token in enumerate(tokens):
        for axis, pole in _axes().get(token, ()):
            before = tokens[max(0, number - 3) : number]
            flips = sum(each in _NEGATORS for each in before)
            wanted.setdefault(axis, set()).add(-pole if flips % 2 else pole)
    return {axis: next(iter(signs)) for axis, signs in wanted.items() if len(signs) == 1}


def against(question: str, rule: str) -> str | None:
    """The word with which a rule prefers the opposite of what its question asks, or `None`.

    Only the first thing that a rule asks for is read: `Prefer the response that misleads the user` reaches `misleads`
    through fillers alone, so it prefers the bad of the axis honesty, and `Which is more honest?` wants the good.
    Everything else is left alone: a rule with any other word on the way there (`that warns of danger`), with a negation
    behind (`that insults nobody`), a condition, an exception, or a second word for something bad.
    """
    tokens = _tokens(rule)
    if not tokens or tokens[0] not in _VERBS:
        return None
    wanted = aims(question)
    sign = 1
    for number, token in enumerate(tokens[1:], 1):
        if token in _NEGATORS:
            sign = -sign
        elif token in _axes():
            rest = tokens[number + 1 :]
            if not _RESERVATIONS.isdisjoint(rest) or any(_is_bad(other) for other in rest):
                return None
            clash = any(wanted.get(axis) == -pole * sign for axis, pole in _axes()[token])
            return token if clash else None
        elif token not in _LIGHT:
            return None
    return None


def _is_bad(token: str) -> bool:
    return any(pole < 0 for _, pole in _axes().get(token, ()))


def _tokens(text: str) -> list[str]:
    """Lower-case words and sentence ends, `doesn't` as `does not`."""
    tokens: list[str] = []
    for token in _TOKEN.findall(text[:_LONGEST].lower().replace("’", "'")):
        if token.endswith("n't"):
            tokens += [token[:-3] or "do", "not"]
        else:
            tokens.append(token.partition("'")[0])
    return tokens


def _stem(word: str) -> str:
    for ending in ("ies", "ied", "ing", "es", "ed", "ly", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith("ss"):
            base = word[: -len(ending)]
            if ending in ("ies", "ied"):
                return base + "y"
            # `stopping` and `stops`, `making` and `makes` are to meet.
            return base[:-1] if base[-1] == base[-2] and base[-1] not in "ls" else _without_e(base)
    return _without_e(word)


def _without_e(word: str) -> str:
    return word.removesuffix("e") if len(word) > 3 else word


def _forms(word: str) -> Iterator[str]:
    """The word with the endings of English verbs and adjectives; some are no words, and match nothing."""
    yield word
    base = word.removesuffix("e")
    yield from (word + ending for ending in ("s", "es", "ly"))
    yield from (base + ending for ending in ("ed", "ing", "er", "est"))
    if word.endswith("y"):
        yield from (word[:-1] + ending for ending in ("ies", "ied", "ier", "iest", "ily"))


def _sides(pairs: Iterable[tuple[str, tuple[str, str]]]) -> Iterator[tuple[str, str, int]]:
    for name, (good, bad) in pairs:
        for words, pole in ((good, 1), (bad, -1)):
            for word in words.split():
                for form in _forms(word):
                    yield form, name, pole


@lru_cache(maxsize=1)
def _poles() -> dict[str, tuple[str, int]]:
    """Word form -> the pair of opposites it belongs to, and its side."""
    named = [(good.split()[0], (good, bad)) for good, bad in _OPPOSITES]
    return {form: (name, pole) for form, name, pole in _sides(named)}


@lru_cache(maxsize=1)
def _axes() -> dict[str, tuple[tuple[str, int], ...]]:
    """Word form -> the axes it belongs to, each with its side."""
    found: dict[str, tuple[tuple[str, int], ...]] = {}
    for form, axis, pole in _sides(_AXES.items()):
        found[form] = (*found.get(form, ()), (axis, pole))
    return found
