"""The shipped constitutions: what each promises, and that no shortcut finds the better responses of their cases."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping

import pytest

from rlaif import load_constitution
from rlaif.constitution import Constitution
from rlaif.constitution.schema import Case, Principle
from rlaif.shipped import shipped_folder

NAMES = (
    "child-safe", "coding", "concise", "customer-support", "harmless-first", "helpful-first", "hhh", "honesty",
    "medical", "summarization",
)  # fmt: skip
LIBRARY: Mapping[str, Constitution] = {name: load_constitution(name) for name in NAMES}


def principles(name: str) -> Iterator[Principle]:
    """Every principle of a shipped constitution."""
    for objective in LIBRARY[name].objectives.values():
        yield from objective.principles


def every_principle() -> list[Principle]:
    """Every principle of the library; one that two files share comes twice."""
    return [principle for name in NAMES for principle in principles(name)]


def every_case() -> list[Case]:
    """Every case of the library."""
    return [case for principle in every_principle() for case in principle.cases]


def bare(text: str) -> str:
    """A text without case and layout, so that a response cannot differ from another by these alone."""
    return " ".join(text.lower().split())


def test_the_library_holds_these_and_no_others() -> None:
    assert tuple(sorted(file.stem for file in shipped_folder("constitutions").glob("*.yaml"))) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_constitution_names_itself_and_weighs_its_objectives(name: str) -> None:
    constitution = LIBRARY[name]
    assert constitution.name == name
    assert constitution.version == "1.0.0"
    assert constitution.description.endswith(".")
    weights = {key: objective.weight for key, objective in constitution.objectives.items()}
    assert min(weights.values()) > 0
    assert sum(weights.values()) == pytest.approx(1)
    for tag, replaced in constitution.aggregation.by_tag.items():
        # An objective that is left out would silently weigh nothing for the tag.
        assert set(replaced) == set(weights), tag
        assert sum(replaced.values()) == pytest.approx(1), tag
    floors = constitution.aggregation.floors
    # Where nothing is traded (pareto), there is nothing for a floor to hold.
    assert bool(floors) == (constitution.aggregation.method == "weighted")
    assert set(floors) <= set(weights)
    # At 0.5 or more, a floor would bar both of two responses that are equally good.
    assert all(0 < floor < 0.5 for floor in floors.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_file_opens_with_whom_it_is_for(name: str) -> None:
    lines = (shipped_folder("constitutions") / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    before_the_name = lines[: lines.index(f"name: {name}")]
    assert len(before_the_name) >= 2
    assert all(line.startswith("# ") for line in before_the_name)
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize("name", NAMES)
def test_ids_are_unique_in_a_file_and_objectives_are_short(name: str) -> None:
    constitution = LIBRARY[name]
    counted = Counter(principle.id for principle in principles(name))
    assert set(counted.values()) == {1}
    # A judge keeps a handful of principles in mind; `hhh` is the smallest example and has two an objective.
    least = 2 if name == "hhh" else 3
    assert all(least <= len(objective.principles) <= 6 for objective in constitution.objectives.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_principle_is_one_sentence_of_one_form(name: str) -> None:
    for objective in LIBRARY[name].objectives.values():
        assert re.fullmatch(r"Which response [^.?!]+\?", objective.question)
    for principle in principles(name):
        assert re.fullmatch(r"Prefer the response (that|with) [^.?!]+\.", principle.text), principle.id
        assert len(principle.text.split()) <= 20, principle.id
        assert principle.weight == 1, principle.id
        assert principle.source is None or re.search(r"\b(19|20)\d\d\b|CWE|PEP|AHRQ", principle.source), principle.id


@pytest.mark.parametrize("name", NAMES)
def test_a_principle_has_cases_that_can_be_told_apart(name: str) -> None:
    for principle in principles(name):
        assert len(principle.cases) >= 2, principle.id
        for case in principle.cases:
            assert bare(case.better) != bare(case.worse), principle.id
            assert all(1 <= len(text.split()) <= 80 for text in (case.better, case.worse)), principle.id


def test_a_principle_that_files_share_is_the_same_in_each() -> None:
    texts, ids = defaultdict(set), defaultdict(set)
    for principle in every_principle():
        texts[principle.id].add(principle.text)
        ids[bare(principle.text)].add(principle.id)
    assert [name for name, found in texts.items() if len(found) > 1] == []
    assert [found for found in ids.values() if len(found) > 1] == []


def test_no_case_is_used_twice() -> None:
    cases = every_case()
    texts = Counter(bare(text) for case in cases for text in (case.prompt, case.better, case.worse))
    assert [text for text, count in texts.items() if count > 1] == []


def characters(response: str) -> float:
    return len(response)


def words(response: str) -> float:
    return len(response.split())


def sentences(response: str) -> float:
    return len(re.findall(r"[.!?](?:\s|$)", response))


def refuses(response: str) -> float:
    return len(re.findall(r"\bI (?:can't|cannot|won't|will not|must decline|must say no|have to decline)\b", response))


def negates(response: str) -> float:
    return len(re.findall(r"\b(?:no|not|nobody|nothing|never|none)\b|n't\b", response, re.IGNORECASE))


@pytest.mark.parametrize(
    ("measure", "least", "most"),
    [
        (characters, 0.35, 0.65),
        (words, 0.35, 0.65),
        (sentences, 0.35, 0.65),
        # Honest and careful responses do say no more often; a rule made of it must stay far from right.
        (refuses, 0.25, 0.75),
        (negates, 0.25, 0.75),
    ],
)
def test_no_shortcut_finds_the_better_response(measure: Callable[[str], float], least: float, most: float) -> None:
    gaps = [measure(case.better) - measure(case.worse) for case in every_case()]
    told_apart = [gap for gap in gaps if gap]
    assert len(told_apart) >= 15
    assert least <= sum(gap > 0 for gap in told_apart) / len(told_apart) <= most


def test_half_of_the_cases_are_of_like_length() -> None:
    cases = every_case()
    alike = [case for case in cases if 0.8 <= len(case.better) / len(case.worse) <= 1.25]
    assert len(alike) / len(cases) >= 0.5
