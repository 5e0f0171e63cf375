"""Check constitutions: every error and every warning at once, each with its file, line and code.

`CODES` in `rlaif.constitution.findings` lists what is looked for. Errors keep a file from being loaded; warnings say
what is probably not meant, and are found in files with errors too, as far as these can be read.
"""

from __future__ import annotations

import difflib
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from itertools import combinations
from pathlib import Path

from rlaif.characters import look_alikes
from rlaif.constitution.check import Checked, bare, check_file, check_text, there
from rlaif.constitution.findings import CODES, finding
from rlaif.constitution.views import CaseView, ObjectiveView, PrincipleView, number_in, objectives_of
from rlaif.constitution.wording import against, meaning, relation
from rlaif.constitution.yaml_tree import Node
from rlaif.findings import Finding, Place, ordered

__all__ = ["CODES", "CONTEXT", "estimate_tokens", "lint_constitution", "lint_text"]

CONTEXT = 8192
_MANY = 12
# Every two principles are compared; a file with more than this is told to have too many anyway.
_MOST_COMPARED = 300
_SUM_ROUNDING = 1e-3
_TAG_ALIKE = 0.8
_MARKERS = (
    ("verdict marker", re.compile(r"\bverdict\s*:", re.IGNORECASE)),
    ("marker line of a quoted part", re.compile(r"\[[0-9a-f]{8} [^\]\n]{1,60}\]")),
    ("control token", re.compile(r"<[|｜][^<>|｜\n]{1,48}[|｜]>|\[/?INST\]|<</?SYS>>|</?(?:start|end)_of_turn>")),
)
_PLACEHOLDER = re.compile(r"\s*(?:TODO|FIXME|TBD|XXX)\b|\s*(?:\.\.\.|…|<[^<>]*>)\s*$")


def lint_constitution(
    name: str | Path, *, context: int = CONTEXT, count_tokens: Callable[[str], int] | None = None
) -> tuple[Finding, ...]:
    """Find all that is wrong with a constitution, by the name of a shipped one or by file; nothing raises.

    Args:
        context: the judge's context, in tokens.
        count_tokens: the judge's own way of counting; else four characters count as one token.
    """
    return _all_findings(check_file(name), context, count_tokens)


def lint_text(
    text: str, file: str, *, context: int = CONTEXT, count_tokens: Callable[[str], int] | None = None
) -> tuple[Finding, ...]:
    """Find all that is wrong with the YAML `text`; `file` names it in findings."""
    return _all_findings(check_text(text, file), context, count_tokens)


def estimate_tokens(text: str) -> int:
    """About how many tokens a text takes: one for four characters, and one for each character of double width."""
    wide = 0 if text.isascii() else sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return wide + math.ceil((len(text) - wide) / 4)


def _all_findings(checked: Checked, context: int, count: Callable[[str], int] | None) -> tuple[Finding, ...]:
    if checked.tree is None:
        return checked.errors
    objectives = objectives_of(checked.tree)
    half = context // 2
    warnings = [
        *_weights(checked.tree, objectives),
        *_tags(checked.tree, objectives),
        *_lengths(objectives, half, count or estimate_tokens),
        *_readings(objectives),
        *_principles(objectives),
        *(warning for node, where in _texts(checked.tree, objectives) for warning in _characters(node, where)),
    ]
    return ordered([*checked.errors, *warnings])


def _weights(tree: Node, objectives: tuple[ObjectiveView, ...]) -> Iterator[Finding]:
    shares = {each.name: each.share for each in objectives}
    place = tree.entries["objectives"].place if "objectives" in tree.entries else tree.place
    # Objectives that are all without a weight count the same, which is clear enough.
    if any(each.weight is not None for each in objectives) and not _is_whole(shares.values()):
        yield _sum_warning("the objectives' weights", sum(shares.values()), place)
    by_tag, floors = tree.at("aggregation", "by_tag"), tree.at("aggregation", "floors")
    counted: set[str] = set()
    for tag, weights in (by_tag.entries if by_tag else {}).items():
        values = {name: number_in(weights, name) or 0.0 for name in weights.entries}
        counted.update(name for name, value in values.items() if value > 0)
        if weights.entries and not _is_whole(values.values()):
            yield _sum_warning(f"the weights of tag {tag!r}", sum(values.values()), weights.place)
    floored = set(floors.entries if floors else ())
    for each in objectives:
        if each.share == 0 and each.name not in counted | floored:
            held = each.node.at("weight")
            fact = f"{each.name} has weight 0: it is labelled and never counts; remove it, or give it a weight."
            yield finding("zero-weight", held.place if held else each.node.place, fact)
    yield from _floors(tree, floors, {name: share for name, share in shares.items() if name not in counted})


def _floors(tree: Node, floors: Node | None, shares: dict[str, float]) -> Iterator[Finding]:
    if floors is None or not floors.entries:
        return
    method = tree.at("aggregation", "method")
    if method is not None and method.value == "pareto":
        fact = "floors change nothing with method pareto; remove them, or use method weighted."
        yield finding("idle-floor", floors.place, fact)
        return
    for name, node in floors.entries.items():
        least = number_in(floors, name)
        if least is not None and 0.5 < least <= 1:
            fact = f"floor {least:g} for {name} is above 0.5: of two responses near each other it bars both."
            yield finding("high-floor", node.place, fact)
    if all(shares.get(name) == 0 for name in floors.entries):
        fact = "the objectives with floors all have weight 0; give at least one a weight above 0."
        yield finding("idle-floor", floors.place, fact)


def _is_whole(weights: Collection[float]) -> bool:
    return not weights or abs(sum(weights) - 1) <= _SUM_ROUNDING


def _sum_warning(what: str, total: float, place: Place) -> Finding:
    why = "only their ratios count, so make them add up to 1 to show the shares" if total else "nothing decides"
    fact = f"{what} add up to {total:.4g}; {why}."
    return finding("weights-sum", place, fact)


def _tags(tree: Node, objectives: tuple[ObjectiveView, ...]) -> Iterator[Finding]:
    """Tags that no one can have meant: on one principle only and nowhere else, or nearly the same as another tag."""
    held = tree.at("aggregation", "by_tag")
    by_tag = held.entries if held else {}
    nodes = [node for each in objectives for principle in each.principles for node in principle.tags]
    counts = Counter(node.text or "" for node in nodes)
    for node in nodes[:_MOST_COMPARED]:
        name = node.text or ""
        if counts[name] > 1 or name in by_tag:
            continue
        near = difflib.get_close_matches(name[:64], [*by_tag, *(other for other in counts if other != name)][:99], 1)
        hint = f"is it {near[0]!r}?" if near else "give it to another principle too, or remove it."
        yield finding("unused-tag", node.place, f"tag {name!r} is on this principle only and groups nothing; {hint}")
    for number, (name, node) in enumerate(list(by_tag.items())[:_MOST_COMPARED]):
        others = [other for other in [*by_tag][:number][:99] if _bare_tag(other) == _bare_tag(name)]
        others += difflib.get_close_matches(name[:64], [tag for tag in counts if tag not in by_tag][:99], 1, _TAG_ALIKE)
        if others and name not in counts:
            fact = f"tag {name!r} of by_tag is nearly {others[0]!r}; a pair's tag must match to the letter."
            yield finding("unused-tag", node.place, fact)


def _bare_tag(name: str) -> str:
    return re.sub(r"[\W_]", "", name.casefold()).removesuffix("s")


def _lengths(objectives: tuple[ObjectiveView, ...], half: int, count: Callable[[str], int]) -> Iterator[Finding]:
    for each in objectives:
        question = (each.question.text or "") if each.question else ""
        lines = [f"Question: {question}", *(f"- {principle.words}" for principle in each.active)]
        tokens = count("\n".join(lines))
        if tokens > half:
            fact = f"the question and principles of {each.name} take about {tokens:,} tokens"
            yield finding("too-long", each.node.place, f"{fact}, more than half of the judge's context ({half:,}).")
        if len(each.active) > _MANY:
            fact = f"{each.name} has {len(each.active)} principles; judges lose track of over {_MANY}: split it."
            yield finding("many-principles", each.node.place, fact)
        for principle in each.principles:
            for case in principle.cases:
                tokens = count("\n".join(node.text or "" for node in case.texts))
                if tokens > half:
                    fact = f"a case of {principle.label!r} takes about {tokens:,} tokens"
                    fact += f", more than half of the judge's context ({half:,})."
                    yield finding("too-long", case.node.place, fact)


def _readings(objectives: tuple[ObjectiveView, ...]) -> Iterator[Finding]:
    active = [principle for each in objectives for principle in each.active if principle.words][:_MOST_COMPARED]
    meanings = [meaning(principle.words) for principle in active]
    for (one, read), (other, read_other) in combinations(zip(active, meanings, strict=True), 2):
        related = relation(read, read_other)
        if related is None or other.text is None or one.text is None:
            continue
        first = f"{one.label!r} {there(one.text.place, other.text.place)}"
        if related == "opposite":
            fact = f"principle {other.label!r} says the opposite of {first}; a judge cannot follow both."
            yield finding("contradiction", other.text.place, fact)
        elif " ".join(one.words.split()) != " ".join(other.words.split()):
            fact = f"principle {other.label!r} says nearly the same as {first}; it counts twice, so keep one."
            yield finding("near-duplicate", other.text.place, fact)
    for each in objectives:
        question = (each.question.text or "") if each.question else ""
        for principle in each.active:
            word = against(question, principle.words)
            if word is not None and principle.text is not None:
                fact = f"principle {principle.label!r} asks for {word!r}, the opposite of the question of {each.name}"
                yield finding("against-question", principle.text.spot(word), f"{fact}: {question.strip()!r}.")


def _principles(objectives: tuple[ObjectiveView, ...]) -> Iterator[Finding]:
    cases: dict[tuple[str, ...], tuple[CaseView, PrincipleView]] = {}
    for objective in objectives:
        if objective.question is not None:
            yield from _lines(objective.question, f"the question of {objective.name}")
        for principle in objective.principles:
            if principle.text is not None:
                yield from _lines(principle.text, f"principle {principle.label!r}")
            if not principle.cases and principle.weight > 0:
                fact = f"principle {principle.label!r} has no cases; without one nothing shows that a judge follows it."
                yield finding("no-cases", principle.node.place, fact)
            prompts: dict[str, Node] = {}
            for case in principle.cases:
                if case.prompt is None:
                    continue
                prompt = bare(case.prompt.text or "")
                whole = tuple(bare(node.text or "") for node in case.texts)
                if prompt in prompts:
                    first = there(prompts[prompt].place, case.prompt.place)
                    fact = f"this prompt stands in a case of {principle.label!r} {first} too; use another one."
                    yield finding("same-prompt", case.prompt.place, fact)
                elif whole in cases:
                    other, owner = cases[whole]
                    first = there(other.node.place, case.prompt.place)
                    fact = f"this is the case of {owner.label!r} {first}; a case is to test one principle."
                    yield finding("same-prompt", case.prompt.place, fact)
                prompts.setdefault(prompt, case.prompt)
                cases.setdefault(whole, (case, principle))


def _lines(node: Node, where: str) -> Iterator[Finding]:
    lines = (node.text or "").strip().splitlines()
    if len(lines) > 1:
        fact = f"{where} has {len(lines)} lines; a judge reads it as one line of a list: write it in one (>- folds it)."
        yield finding("several-lines", node.place, fact)


def _texts(tree: Node, objectives: tuple[ObjectiveView, ...]) -> Iterator[tuple[Node, str]]:
    description = tree.at("description")
    if description is not None:
        yield description, "the description"
    for objective in objectives:
        if objective.question is not None:
            yield objective.question, f"the question of {objective.name}"
        for principle in objective.principles:
            if principle.text is not None:
                yield principle.text, f"principle {principle.label!r}"
            yield from ((node, f"a case of {principle.label!r}") for case in principle.cases for node in case.texts)


def _characters(node: Node, where: str) -> Iterator[Finding]:
    text = node.text or ""
    for each in look_alikes(text):
        fact = f"{where} holds {each.word!r} with {each.name}, which looks like another letter; type the word anew."
        yield finding("look-alike", node.spot(each.word), fact)
    for what, pattern in _MARKERS:
        match = pattern.search(text)
        if match:
            fact = f"{where} holds {match.group()!r}, a {what}; prompts use it for themselves, so say it otherwise."
            yield finding("marker", node.spot(match.group()), fact)
    if _PLACEHOLDER.match(text):
        yield finding("placeholder", node.place, f"{where} is still to be written: {text.strip()[:40]!r}.")
