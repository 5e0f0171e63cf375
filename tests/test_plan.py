"""The plan: which questions a pair gives rise to, and what their keys depend on."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest

from rlaif.constitution import Constitution, load_constitution
from rlaif.labeling.plan import Planner, policy_key
from rlaif.prompts import Template, load_template
from rlaif.shipped import shipped_folder
from rlaif.types import JudgeRequest, Message, Pair

HHH = load_constitution("hhh")
COT, DIRECT, RATING = load_template("pairwise-cot"), load_template("direct"), load_template("rating")
Place = tuple[str, str, int]


def pair_of(number: int = 0, **changed: Any) -> Pair:
    prompt = (Message(role="user", content=f"Question {number}?"),)
    return Pair(id=f"pair-{number}", prompt=prompt, response_a="Yes.", response_b="No.").model_copy(update=changed)


def planner(constitution: Constitution = HHH, template: Template = COT, judge: str = "j1", **settings: Any) -> Planner:
    return Planner(constitution, template, judge, objectives=tuple(constitution.objectives), **settings)


def keys(plan: Planner, pair: Pair | None = None) -> dict[Place, str]:
    return {place(request): request.key for request in plan.requests(pair or pair_of())}


def place(request: JudgeRequest) -> Place:
    return request.objective, request.order, request.sample


def edited(template: str, old: str, new: str) -> Template:
    source = (shipped_folder("prompts") / f"{template}.j2").read_text(encoding="utf-8")
    assert old in source
    return Template(source.replace(old, new), "edited.j2")


def edited_rules(objective: str, number: int, **changed: Any) -> Constitution:
    """`hhh` with one principle changed."""
    values = HHH.model_dump()
    principles = list(values["objectives"][objective]["principles"])
    principles[number] = {**principles[number], **changed}
    values["objectives"][objective]["principles"] = principles
    return Constitution.model_validate(values)


def test_every_question_is_asked_once_and_pairs_stay_together() -> None:
    plan = planner(samples=2, temperature=1.0)
    requests = plan.requests(pair_of())
    objectives = ("helpfulness", "harmlessness", "honesty")
    assert [place(request) for request in requests] == [
        (objective, order, sample) for order in ("ab", "ba") for sample in (0, 1) for objective in objectives
    ]
    assert plan.requests_per_pair == len(requests) == 12
    assert len({request.key for request in requests}) == 12
    assert {request.pair_id for request in requests} == {"pair-0"}
    # Whatever the objective, one order shares its messages up to the question; the orders differ before it.
    shared = {(r.order, r.messages[-1].content.partition("Question: W")[0]) for r in requests}
    assert len(shared) == 2


@pytest.mark.parametrize(("orders", "count"), [("both", 2), ("ab", 1)])
def test_orders_and_objectives(orders: str, count: int) -> None:
    one = Planner(HHH, COT, "j", objectives=("honesty",), orders=orders)  # type: ignore[arg-type]
    assert [place(request) for request in one.requests(pair_of())] == [("honesty", "ab", 0), ("honesty", "ba", 0)][
        :count
    ]
    assert one.requests_per_pair == count


def test_what_a_request_holds() -> None:
    first, *_ = planner(temperature=0.7, max_tokens=99).requests(pair_of())
    assert (first.verdict_prefix, first.choices, first.rationale, first.principle) == (
        "Verdict:",
        ("A", "B"),
        None,
        None,
    )
    assert (first.temperature, first.max_tokens) == (0.7, 99)
    assert first.messages[1].content.index("Yes.") < first.messages[1].content.index("No.")
    last = planner(template=DIRECT, temperature=0.7, max_tokens=99).requests(pair_of())[-1]
    assert last.order == "ba"
    assert (last.rationale, last.temperature, last.max_tokens) == ("", 0.0, 0)
    assert last.messages[1].content.index("No.") < last.messages[1].content.index("Yes.")
    assert len(first.key) == 64
    # 31 bits of the key.
    assert first.seed == int(first.key[:8], 16) % 2**31


def test_a_principle_of_weight_0_is_not_shown() -> None:
    text = HHH.objectives["honesty"].principles[0].text
    rules = edited_rules("honesty", 0, weight=0)
    assert any(text in request.messages[1].content for request in planner().requests(pair_of()))
    assert not any(text in request.messages[1].content for request in planner(rules).requests(pair_of()))


SAME: dict[str, tuple[Planner, Pair]] = {
    "the same again": (planner(), pair_of()),
    "the pair's id and tags": (planner(), pair_of(id="other", tags={"medical": True})),
    "weights and floors": (planner(HHH.model_copy(update={"version": "2", "aggregation": {}})), pair_of()),
    "a principle's id": (planner(edited_rules("honesty", 0, id="renamed")), pair_of()),
    "a comment in the template's head": (
        planner(template=edited("pairwise-cot", "# The judge", "# A judge")),
        pair_of(),
    ),
    "the seed, where nothing is drawn": (planner(seed=1), pair_of()),
}
OTHER: dict[str, tuple[Planner, Pair]] = {
    "the judge": (planner(judge="j2"), pair_of()),
    "the prompt": (planner(), pair_of(1)),
    "a role": (planner(), pair_of(prompt=(Message(role="assistant", content="Question 0?"),))),
    "response a": (planner(), pair_of(response_a="Yes!")),
    "response b": (planner(), pair_of(response_b="No!")),
    "the system message": (planner(template=edited("pairwise-cot", "You compare", "Compare")), pair_of()),
    "the wording of the question": (planner(template=edited("pairwise-cot", "Question:", "Asked:")), pair_of()),
    "the verdict's prefix": (planner(template=edited("pairwise-cot", 'verdict: "V', 'verdict: "My v')), pair_of()),
    "the choices": (planner(template=edited("pairwise-cot", "[A, B]", "[First, Second]")), pair_of()),
    "whether it reasons": (planner(template=edited("pairwise-cot", "rationale: true", "rationale: false")), pair_of()),
    "temperature": (planner(temperature=0.5), pair_of()),
    "max_tokens": (planner(max_tokens=511), pair_of()),
}  # fmt: skip


@pytest.mark.parametrize("change", SAME)
def test_what_does_not_change_a_key(change: str) -> None:
    assert keys(*SAME[change]) == keys(planner())


@pytest.mark.parametrize("change", OTHER)
def test_what_changes_every_key(change: str) -> None:
    before, after = keys(planner()), keys(*OTHER[change])
    assert before.keys() == after.keys()
    assert set(before.values()) & set(after.values()) == set()


def test_sampling_settings_do_not_touch_a_template_without_a_rationale() -> None:
    changed = planner(template=DIRECT, temperature=0.9, max_tokens=64, seed=5)
    assert keys(changed) == keys(planner(template=DIRECT))


def test_another_seed_draws_other_rationales() -> None:
    before, after = keys(planner(temperature=1.0)), keys(planner(temperature=1.0, seed=1))
    assert set(before.values()) & set(after.values()) == set()


def test_more_samples_keep_the_first_ones() -> None:
    one, three = keys(planner(temperature=1.0)), keys(planner(temperature=1.0, samples=3))
    assert len(three) == 3 * len(one) == len(set(three.values()))
    assert {where: three[where] for where in one} == one


def test_equal_responses_are_asked_about_once() -> None:
    both = keys(planner(), pair_of(response_b="Yes."))
    assert len(both) == 6
    assert len(set(both.values())) == 3


def test_swapping_a_pair_exchanges_its_orders() -> None:
    forth, back = keys(planner()), keys(planner(), pair_of().swap())
    assert {(name, "ba" if order == "ab" else "ab", n): key for (name, order, n), key in back.items()} == forth


def test_editing_a_principle_asks_only_its_objective_again() -> None:
    before = keys(planner())
    after = keys(planner(edited_rules("harmlessness", 1, text="Prefer the response that mocks nobody.")))
    changed = {where[0] for where in before if before[where] != after[where]}
    assert changed == {"harmlessness"}
    assert all(before[where] != after[where] for where in before if where[0] == "harmlessness")


PAIRS = [pair_of(number) for number in range(2000)]


def test_editing_a_drawn_principle_asks_again_only_where_it_was_drawn() -> None:
    rules = edited_rules("honesty", 0, text="Prefer the response without a lie.")
    before, after = planner(principles="sample"), planner(rules, principles="sample")
    edited_id = HHH.objectives["honesty"].principles[0].id
    counts = Counter[tuple[bool, bool]]()
    for pair in PAIRS[:200]:
        for old, new in zip(before.requests(pair), after.requests(pair), strict=True):
            assert (place(old), old.principle) == (place(new), new.principle)
            counts[old.principle == edited_id, old.key != new.key] += 1
    assert counts.keys() == {(True, True), (False, False)}
    # One of two principles, in one objective of three.
    assert 100 < counts[True, True] < 300


def test_one_principle_is_drawn_for_both_orders() -> None:
    by_id = {rule.id: rule.text for objective in HHH.objectives.values() for rule in objective.principles}
    plan = planner(principles="sample", samples=2, temperature=1.0)
    for pair in PAIRS[:50]:
        drawn: dict[tuple[str, int], set[str | None]] = {}
        for request in plan.requests(pair):
            assert request.principle is not None
            shown = [name for name, text in by_id.items() if text in request.messages[1].content]
            assert shown == [request.principle]
            drawn.setdefault((request.objective, request.sample), set()).add(request.principle)
        assert len(drawn) == 6
        assert all(len(names) == 1 for names in drawn.values())


def draws(rules: Constitution, objective: str, **settings: Any) -> list[str]:
    plan = Planner(rules, DIRECT, "j", objectives=(objective,), principles="sample", orders="ab", **settings)
    return [request.principle or "" for pair in PAIRS for request in plan.requests(pair)]


@pytest.mark.parametrize("seed", [0, 1])
def test_principles_are_drawn_in_proportion_to_their_weights(seed: int) -> None:
    rules = edited_rules("honesty", 0, weight=3)
    first = HHH.objectives["honesty"].principles[0].id
    counts = Counter(draws(rules, "honesty", seed=seed))
    # 3 of 4; the standard deviation of 2,000 draws is sqrt(2000 x 0.75 x 0.25) = 19.4.
    assert abs(counts[first] - 1500) < 4 * math.sqrt(2000 * 0.75 * 0.25)
    assert counts.total() == 2000
    assert len(counts) == 2


def test_draws_of_pairs_objectives_samples_and_seeds_are_independent() -> None:
    def agree(one: list[str], two: list[str]) -> int:
        return sum(a == b for a, b in zip(one, two, strict=True))

    first = {name: objective.principles[0].id for name, objective in HHH.objectives.items()}
    honesty = draws(HHH, "honesty")
    helpful = [name == first["helpfulness"] for name in draws(HHH, "helpfulness")]
    samples = draws(HHH, "honesty", samples=2, temperature=1.0)
    # Two fair coins agree in half of 2,000 throws; the standard deviation is 22.4.
    assert abs(agree(honesty, draws(HHH, "honesty", seed=1)) - 1000) < 90
    assert abs(agree(samples[::2], samples[1::2]) - 1000) < 90
    assert abs(sum((a == first["honesty"]) == b for a, b in zip(honesty, helpful, strict=True)) - 1000) < 90
    assert abs(sum(a == b for a, b in pairwise(honesty)) - 1000) < 90
    assert honesty == draws(HHH, "honesty")
    assert samples[::2] == honesty


def test_weight_0_is_never_drawn() -> None:
    rules = edited_rules("honesty", 0, weight=0)
    assert set(draws(rules, "honesty")) == {HHH.objectives["honesty"].principles[1].id}


@pytest.mark.parametrize("orders", ["both", "ab"])
def test_a_rating_shows_one_response_and_always_asks_both(orders: Any) -> None:
    plan = planner(template=RATING, orders=orders, samples=2, temperature=1.0)
    requests = plan.requests(pair_of())
    assert plan.requests_per_pair == len(requests) == 12
    assert [place(request) for request in requests] == [
        (objective, order, sample) for order in ("ab", "ba") for sample in (0, 1) for objective in HHH.objectives
    ]
    for request in requests:
        text = request.messages[1].content
        assert ("response]\nYes.\n" in text) == (request.order == "ab")
        assert ("response]\nNo.\n" in text) == (request.order == "ba")
        assert (request.verdict_prefix, request.choices[::9], request.rationale) == ("Rating: [", ("1", "10"), None)
    # The place has no say in it, and keys do not either.
    assert keys(plan) == keys(planner(template=RATING, samples=2, temperature=1.0))


def test_a_response_is_rated_once_in_whatever_pair_it_stands() -> None:
    plan = planner(template=RATING)
    first, second = keys(plan), keys(plan, pair_of(response_b="Maybe."))
    for name in HHH.objectives:
        assert first[name, "ab", 0] == second[name, "ab", 0]
        assert first[name, "ba", 0] != second[name, "ba", 0]
        assert first[name, "ba", 0] == keys(plan, pair_of().swap())[name, "ab", 0]
    assert len(set(keys(plan, pair_of(response_b="Yes.")).values())) == 3
    # After another prompt it is another question.
    assert not set(first.values()) & set(keys(plan, pair_of(1)).values())


def test_both_responses_are_rated_by_the_principle_that_was_drawn() -> None:
    plan = planner(template=RATING, principles="sample")
    for pair in PAIRS[:30]:
        drawn = {request.objective: request.principle for request in plan.requests(pair)}
        assert all(request.principle == drawn[request.objective] for request in plan.requests(pair))


@pytest.mark.parametrize("kind", ["comparison", "rating"])
def test_what_a_key_is_made_of(kind: str) -> None:
    """Answers that were paid for are found again by every later version: its parts, each after its length."""
    block = "pair" if kind == "comparison" else "response"
    choices = ("A", "B") if kind == "comparison" else ("1", "2", "3")
    head = f"---\nkind: {kind}\nverdict: So\nchoices: [{', '.join(choices)}]\n---\n"
    body = f"{{% block system %}}S{{% endblock %}}{{% block {block} %}}Shown{{% endblock %}}"
    template = Template(head + body + "{% block objective %}{{ question }}{% endblock %}", "t.j2")
    found = keys(planner(template=template, max_tokens=99))["honesty", "ab", 0]
    parts = ["rlaif-request-1", "j1", "So", *choices, "True", "0.0", "99", "S", "Shown"]
    parts += [HHH.objectives["honesty"].question, "0"]
    raw = b"".join(len(part.encode()).to_bytes(8) + part.encode() for part in parts)
    assert found == hashlib.sha256(raw).hexdigest()


def test_keys_of_responses() -> None:
    turns = (("user", "Hi"),)
    variants = [
        policy_key("p", turns, 0, "s"),
        policy_key("q", turns, 0, "s"),
        policy_key("p", turns, 1, "s"),
        policy_key("p", turns, 0, "t"),
        policy_key("p", (("user", "H"), ("i", "")), 0, "s"),
        policy_key("p", (("userH", "i"),), 0, "s"),
    ]
    assert len(set(variants)) == len(variants)
    assert policy_key("p", turns, 0, "s") == variants[0]
