"""Over-optimisation from candidates to advice: constructed proxies that turn down, and the command on real heads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlaif.errors import InputError
from rlaif.optimize.best_of import best_of_each
from rlaif.optimize.gold import Gold
from rlaif.optimize.overoptimize import all_rules, largest_n, merged, overoptimization, overoptimize
from rlaif.optimize.overoptimize_report import overoptimization_page
from rlaif.optimize.overoptimize_results import OverOptimization, RuleCurve
from rlaif.report.page import render_page
from rlaif.rewards.preferences import Floats
from rlaif.rewards.score import Candidates
from rlaif.types import Message
from tests.conftest import Cli, write_lines
from tests.heads_examples import RESPONSES, make_heads
from tests.overoptimize_examples import exploited, pool_of
from tests.reward_examples import spec_of


@pytest.fixture(scope="module")
def turned() -> OverOptimization:
    """A weak proxy that a trick fools."""
    return overoptimization(*exploited(), proxy="heads")


def rule(found: OverOptimization, name: str) -> RuleCurve:
    return next(each for each in found.rules if each.rule == name)


def test_gold_of_a_fooled_proxy_turns_down_and_the_worst_member_later(turned: OverOptimization) -> None:
    weighted, worst = rule(turned, "weighted"), rule(turned, "worst-member")
    assert weighted.course == "falls"
    assert weighted.peak is not None
    assert 2 < weighted.peak.n < 16
    assert weighted.peak.n_ci[0] < weighted.peak.n
    assert weighted.stop_n in (int(weighted.peak.n), int(weighted.peak.n) + 1)
    assert weighted.fall > 0
    # The proxy itself never turns down.
    assert np.all(np.diff([point.proxy for point in weighted.points]) > 0)
    assert worst.course == "rises"
    assert worst.later_ci is not None
    assert worst.later_ci[0] > 0
    assert rule(turned, "objective:helpful").stop_n < weighted.stop_n
    assert turned.advice == (
        f"Stop at n = {weighted.stop_n} (KL {weighted.stop_kl:.1f}): beyond it gold falls, by {weighted.fall:.2f} "
        "standard deviations at n = 64; worst-member still rises at n = 64; helpful is being gamed."
    )


def test_objective_that_is_gamed_is_named_and_the_other_not(turned: OverOptimization) -> None:
    told = {(each.rule, each.objective): each.gold_does for each in turned.objectives}
    assert told["weighted", "helpful"] == "falls"
    assert told["weighted", "true"] == "rises"
    # Picked by the one alone, the other's proxy does not rise.
    assert told["objective:true", "helpful"] == "idle"
    assert turned.gamed == ("helpful",)


def test_curves_are_means_over_prompts_in_deviations_within_them() -> None:
    pool, spec, gold = exploited(prompts=12, candidates=16)
    found = rule(overoptimization(pool, spec, gold, resamples=0), "objective:helpful")
    values = gold.overall.reshape(12, 16)
    unit = np.sqrt(((values - values.mean(axis=1, keepdims=True)) ** 2).sum() / (12 * 15))
    sizes = [point.n for point in found.points]
    starts = np.arange(0, 12 * 16 + 1, 16)
    each = best_of_each(pool.rewards[:, 0], gold.overall[:, None], starts, sizes)[..., 0]
    expected = (each - each[:, :1]).mean(axis=0) / unit
    assert [point.gold for point in found.points] == pytest.approx(expected.tolist(), abs=1e-4)
    assert (found.points[0].gold, found.points[0].kl) == (0, 0)
    assert (found.best_n_ci, found.later_ci) == (None, None)


def test_shift_and_scale_of_gold_change_nothing() -> None:
    pool, spec, gold = exploited(prompts=30, candidates=16)
    shifts = np.repeat(np.random.default_rng(0).normal(size=30) * 50, 16)
    moved = Gold("moved", "given", 7 * gold.overall + shifts)
    plain, other = overoptimization(pool, spec, gold), overoptimization(pool, spec, moved)
    assert other.gold_std == pytest.approx(7 * plain.gold_std)
    for one, two in zip(plain.rules, other.rules, strict=True):
        assert (one.alpha, one.beta) == pytest.approx((two.alpha, two.beta))
        assert one.course == two.course


def test_proxy_that_is_gold_has_no_peak() -> None:
    random = np.random.default_rng(4)
    pool, spec = pool_of(random.normal(size=(60, 32, 1)))
    found = overoptimization(pool, spec, Gold("same", "given", pool.rewards[:, 0], {"helpful": pool.rewards[:, 0]}))
    only = found.rules[0]
    assert only.course == "rises"
    assert only.peak is None
    assert found.gamed == ()
    # In its own deviations: 32 normal values have a mean largest of 2.07.
    assert only.points[-1].gold == pytest.approx(2.07, abs=0.15)
    assert found.advice.startswith("No peak up to n = 32 (KL 2.5): picking by weighted still raises gold")


def test_gold_that_has_nothing_to_do_with_the_proxy_is_not_sure() -> None:
    random = np.random.default_rng(5)
    pool, spec = pool_of(random.normal(size=(60, 16, 1)))
    noise = random.normal(size=960)
    found = overoptimization(pool, spec, Gold("noise", "given", noise, {"helpful": noise}))
    assert found.rules[0].course == "open"
    assert "cannot be told from chance" in found.advice
    assert found.objectives[0].gold_does in ("stays", "open")


def test_gold_against_the_proxy_says_not_to_pick() -> None:
    random = np.random.default_rng(6)
    pool, spec = pool_of(random.normal(size=(60, 16, 1)))
    found = overoptimization(pool, spec, Gold("against", "given", -pool.rewards[:, 0]))
    assert found.rules[0].stop_n == 1
    assert found.advice.startswith("Do not pick by weighted: gold falls from n = 2 on")


def test_curve_that_is_no_parabola_goes_by_what_was_measured() -> None:
    # Gold rises with the proxy up to 2.2 and drops off a cliff there.
    random = np.random.default_rng(8)
    pool, spec = pool_of(random.normal(size=(200, 64, 1)))
    proxy = pool.rewards[:, 0]
    found = overoptimization(pool, spec, Gold("cliff", "given", np.where(proxy > 2.2, -4.0, proxy)))
    only = found.rules[0]
    assert not only.fits
    assert only.course == "falls"
    assert only.stop_n == only.best_n
    assert only.best_n_ci is not None
    assert only.best_n_ci[0] <= only.best_n <= only.best_n_ci[1]
    assert "The law does not fit; the dot is the highest point measured." in render_page(overoptimization_page(found))


def test_candidates_without_gold_and_short_prompts_are_left_out_and_told() -> None:
    pool, spec, gold = exploited(prompts=40, candidates=16)
    overall = gold.overall.copy()
    # The first candidate of prompt 0, and all but two of prompt 1; one of the objective's alone.
    overall[0] = np.nan
    overall[18:32] = np.nan
    helpful = gold.objectives["helpful"].copy()
    helpful[100] = np.nan
    found = overoptimization(pool, spec, Gold("g", "given", overall, {"helpful": helpful}))
    assert (found.max_n, found.prompts, found.left_out, found.without_gold) == (16, 38, 2, 15)
    assert overoptimization(pool, spec, Gold("g", "given", overall), max_n=15).prompts == 39
    assert any("15 candidates without gold" in note for note in found.notes)
    assert any("nothing of true" in note for note in found.notes)
    assert {each.objective for each in found.objectives} == {"helpful"}


def test_floors_pick_and_are_not_told_as_rewards() -> None:
    random = np.random.default_rng(7)
    rewards: Floats = random.normal(size=(40, 16, 2))
    spec = spec_of(("helpful", "true"))
    floored = spec.model_copy(
        update={"aggregation": spec.aggregation.model_copy(update={"floors": {"true": 0.4}, "method": "weighted"})}
    )
    pool, _ = pool_of(rewards, spec=floored)
    found = overoptimization(pool, floored, Gold("g", "given", pool.rewards[:, 0]), rules=["weighted"])
    # Without the floors' penalty of 10 the best of 16 of a mean of two is under 4 deviations up.
    assert 0 < found.rules[0].points[-1].proxy < 4


def test_gold_that_tells_nothing_apart_is_refused() -> None:
    pool, spec, gold = exploited(prompts=5, candidates=8)
    with pytest.raises(InputError, match="the same for all candidates"):
        overoptimization(pool, spec, Gold("flat", "given", np.repeat(np.arange(5.0), 8)))
    with pytest.raises(InputError, match="worst-member: the heads have no ensemble"):
        overoptimization(*pool_of(np.ones((5, 8, 1))), gold, rules=["worst-member"])


def test_one_prompt_gives_curves_and_nothing_sure() -> None:
    found = overoptimization(*exploited(prompts=1))
    assert found.rules[0].alpha_ci is None
    assert {each.course for each in found.rules} == {"open"}
    assert {each.gold_does for each in found.objectives} == {"open"}
    assert "few for intervals" in found.notes[0]
    assert "nan" not in found.model_dump_json().lower()
    render_page(overoptimization_page(found))


def test_largest_n_is_what_nine_of_ten_prompts_have() -> None:
    assert largest_n([16] * 9 + [2], None) == 16
    assert largest_n([16] * 8 + [4, 2], None) == 4
    assert largest_n([16, 2], None) == 16
    assert largest_n([16, 20], 18) == 18
    for counts, wanted, message in (
        ([2, 2], None, "at most 2 a prompt; expected 3 or more, and"),
        ([8], 16, "at most 8 a prompt; expected 16 or more for --max-n"),
        ([8], 2, "--max-n 2: a curve needs 3"),
    ):
        with pytest.raises(InputError, match=message):
            largest_n(counts, wanted)


def test_rows_with_one_response_each_become_one_prompt() -> None:
    turns = (Message(role="user", content="Ask"),)
    rows = [Candidates(place, "p", turns, (f"r{place}",), (0,), {}) for place in (1, 2)]
    rows.append(Candidates(3, "q", turns, ("r3",), (0,), {}))
    found = merged(rows)
    assert [(row.id, row.responses, row.names) for row in found] == [("p", ("r1", "r2"), (0, 1)), ("q", ("r3",), (0,))]


def test_rules_begin_with_the_heads_own() -> None:
    assert all_rules(spec_of(("a",))) == ["weighted", "pareto"]
    both = spec_of(("a", "b"), members=3)
    assert all_rules(both) == [
        "weighted",
        "pareto",
        "lower-bound",
        "worst-member",
        "objective:a",
        "objective:b",
    ]
    pareto = both.model_copy(update={"aggregation": both.aggregation.model_copy(update={"method": "pareto"})})
    assert all_rules(pareto)[0] == "pareto"


def test_page_shows_every_rule_and_the_advice(turned: OverOptimization) -> None:
    page = render_page(overoptimization_page(turned))
    assert turned.advice in page
    # A panel a rule, and one an objective.
    assert page.count("<svg") == len(turned.rules) + 2
    for name in ("weighted", "pareto", "lower-bound", "worst-member", "only helpful", "only true"):
        assert f"Picked by {name}" in page
    assert "gamed: gold falls" in page
    assert render_page(overoptimization_page(turned)) == page


def data_of(path: Path, candidates: int = 8) -> str:
    """Candidates of some prompts, made of the example responses."""
    rows = [
        {
            "id": f"p{number}",
            "prompt": f"Question {number}?",
            "responses": [
                f"{RESPONSES[each % 4]} {number * each % 7} {'more ' * (each % 5)}" for each in range(candidates)
            ],
        }
        for number in range(6)
    ]
    return str(write_lines(path, rows))


def test_command_tells_prints_and_writes(tmp_path: Path, rlaif: Cli) -> None:
    data = data_of(tmp_path / "candidates.jsonl")
    proxy = make_heads(tmp_path / "one", members=3)
    gold = make_heads(tmp_path / "two", "bert")
    command = ["reward", "overoptimize", data, "--proxy", proxy, "--gold", gold, "--resamples", "50"]
    done = rlaif(*command, "--html", tmp_path / "deep" / "page.html", timeout=600)
    assert done.returncode == 0, done.stderr
    assert "48 candidates of 6 prompts, n up to 8:" in " ".join(done.stdout.split())
    assert all(len(line) <= 80 for line in done.stdout.splitlines() if str(tmp_path) not in line)
    assert "<svg" in (tmp_path / "deep" / "page.html").read_text(encoding="utf-8")
    told = rlaif(*command, "--json", "--rules", "worst-member,honesty", "--max-n", "5", timeout=600)
    found: dict[str, Any] = json.loads(told.stdout)
    assert [each["rule"] for each in found["rules"]] == ["worst-member", "objective:honesty"]
    assert [point["n"] for point in found["rules"][0]["points"]] == [1, 2, 3, 4, 5]
    assert found["gold_kind"] == "heads"
    # The same from Python.
    again = overoptimize(data, proxy=proxy, gold=gold, rules=["worst-member", "honesty"], max_n=5, resamples=50)
    assert again.rules[0].alpha == pytest.approx(found["rules"][0]["alpha"], abs=1e-4)


def test_same_heads_as_proxy_and_gold_are_noted(tmp_path: Path) -> None:
    heads = make_heads(tmp_path)
    found = overoptimize(data_of(tmp_path / "candidates.jsonl"), proxy=heads, gold=str(heads), resamples=0)
    assert "Proxy and gold are the same heads" in found.notes[0]
    assert found.rules[0].points[-1].gold == pytest.approx(found.rules[0].points[-1].proxy)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gold": "missing.jsonl"}, "--gold missing.jsonl: no such file or folder"),
        ({"rules": ["worst-member"]}, "--rules worst-member: the heads have no ensemble"),
        ({"rules": ["best"]}, "--rules best: no such rule or objective"),
        ({"max_n": 99}, "at most 8 a prompt; expected 99 or more for --max-n"),
        ({"k": -1.0}, "--k -1.0: expected 0 or more"),
        ({"gold": "starter"}, "a judge's answers need a folder"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    data, heads = data_of(tmp_path / "candidates.jsonl"), make_heads(tmp_path)
    with pytest.raises(InputError, match=message) as error:
        overoptimize(data, **{"proxy": heads, "gold": heads, **options})
    assert len(str(error.value).splitlines()) == 1


def test_mistake_ends_the_command_with_2(tmp_path: Path, rlaif: Cli) -> None:
    data = data_of(tmp_path / "candidates.jsonl")
    done = rlaif("reward", "overoptimize", data, "--proxy", tmp_path, "--gold", tmp_path / "none.jsonl", timeout=600)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert "no such file or folder" in done.stderr
