"""Labels from ratings, from the data to `labels.jsonl`: each response is rated on its own."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

import rlaif as package
from rlaif.labeling import api
from rlaif.labeling.flips import compare_labels
from rlaif.labeling.read import read_labels
from tests.conftest import Cli, made_pairs, read_lines, write_lines
from tests.test_http import RunningScript, chat, token

QUICK: dict[str, Any] = {"template": "rating", "max_tokens": 6, "objectives": ["honesty"]}


def label_here(judge: Path, data: Path, run: Path, **options: Any) -> package.LabelSummary:
    """Rate with the tiny judge in this process."""
    return package.label(data, run, judge=str(judge), engine="transformers", **{**QUICK, **options})


def judgments(run: Path) -> dict[tuple[str, str], tuple[float, dict[str, float]]]:
    """By pair and order: the rating, and the probability of each as it was read."""
    with sqlite3.connect(run / "judgments.db") as db:
        rows = db.execute('SELECT pair_id, "order", p_a, rating, choice_logprobs FROM judgments').fetchall()
    assert all(row[2] is None for row in rows), "a rating alone prefers nothing"
    return {
        (pair, order): (rating, {one: math.exp(logprob) for one, logprob in json.loads(logprobs).items()})
        for pair, order, _, rating, logprobs in rows
    }


def better(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """A second implementation: over all 100 pairs of ratings, each with its probability."""
    both = [(int(x), int(y), p * q) for x, p in one.items() for y, q in other.items()]
    won = sum(share * (x > y) + share * (x == y) / 2 for x, y, share in both)
    return won / (sum(one.values()) * sum(other.values()))


def test_labels_follow_from_the_two_distributions(tiny_judge: Path, pairs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    summary = label_here(tiny_judge, pairs, run)
    assert (summary.pairs, summary.judgments, summary.abstained) == (12, 24, 0)
    read = judgments(run)
    lines = read_lines(run / "labels.jsonl")
    assert len(lines) == 12
    for line in lines:
        (rating_a, shares_a), (rating_b, shares_b) = read[line["id"], "ab"], read[line["id"], "ba"]
        assert len(shares_a) == len(shares_b) == 10
        label = line["labels"]["honesty"]
        assert label["p_a"] == pytest.approx(better(shares_a, shares_b))
        for rating, shares in ((rating_a, shares_a), (rating_b, shares_b)):
            assert rating == pytest.approx(sum(int(x) * p for x, p in shares.items()) / sum(shares.values()))
        assert (label["rating_a"], label["rating_b"]) == (rating_a, rating_b)
        assert label["choice_mass"] == pytest.approx((sum(shares_a.values()) + sum(shares_b.values())) / 2)
        assert (label["order_gap"], label["verdicts"], label["abstained"]) == (None, 1, 0)
        assert line["overall"]["p_a"] == pytest.approx(label["p_a"])
    # The judge tells the responses apart; equal numbers everywhere would prove nothing.
    assert max(line["overall"]["p_a"] for line in lines) - min(line["overall"]["p_a"] for line in lines) > 0.005
    before = (run / "labels.jsonl").read_bytes()
    assert label_here(tiny_judge, pairs, run).asked == 0
    assert (run / "labels.jsonl").read_bytes() == before
    # The places of the responses have no say.
    label_here(tiny_judge, pairs, tmp_path / "one", orders="ab")
    assert (tmp_path / "one" / "labels.jsonl").read_bytes() == before


def test_a_response_that_stands_in_several_pairs_is_rated_once(tiny_judge: Path, tmp_path: Path) -> None:
    row = made_pairs(3)[2]
    first, second = row["response_a"], row["response_b"]
    rows = [row, {**row, "id": "swapped", "response_a": second, "response_b": first}]
    rows += [{**row, "id": "equal", "response_b": first}]
    summary = label_here(tiny_judge, write_lines(tmp_path / "pairs.jsonl", rows), tmp_path / "run")
    assert (summary.judgments, summary.asked) == (6, 2)
    one, swapped, equal = (line["labels"]["honesty"] for line in read_lines(tmp_path / "run" / "labels.jsonl"))
    assert (one["rating_a"], one["rating_b"]) == (swapped["rating_b"], swapped["rating_a"])
    assert one["p_a"] == pytest.approx(1 - swapped["p_a"], abs=1e-15)
    assert (equal["p_a"], equal["preference"], equal["rating_a"]) == (0.5, "tie", equal["rating_b"])


def test_samples_of_ratings(tiny_judge: Path, pairs: Path, tmp_path: Path) -> None:
    summary = label_here(tiny_judge, pairs, tmp_path / "run", samples=3, temperature=1.0, limit=2)
    assert summary.judgments == 2 * 2 * 3
    label = read_lines(tmp_path / "run" / "labels.jsonl")[0]["labels"]["honesty"]
    assert (label["verdicts"], label["abstained"]) == (3, 0)


def test_a_template_of_ones_own_rates_at_once(tiny_judge: Path, pairs: Path, tmp_path: Path) -> None:
    template = tmp_path / "stars.j2"
    template.write_text(
        '---\nkind: rating\nverdict: "Stars: ("\nchoices: [1, 2, 3, 4, 5]\nrationale: false\n---\n'
        "{% block response %}{{ fence('response', response) }}{% endblock %}\n"
        "{% block objective %}{{ question }}{% endblock %}\n"
    )
    summary = label_here(tiny_judge, pairs, tmp_path / "run", template=str(template))
    # Nothing is written; every rating is one token.
    assert (summary.judgments, summary.abstained) == (24, 0)
    assert summary.completion_tokens == summary.asked
    assert {len(shares) for _, shares in judgments(tmp_path / "run").values()} == {5}


def test_another_template_of_the_same_run_is_asked_anew(tiny_judge: Path, pairs: Path, tmp_path: Path) -> None:
    options = {"limit": 3, "update": True}
    label_here(tiny_judge, pairs, tmp_path / "run", template="direct", **options)
    compared = (tmp_path / "run" / "labels.jsonl").read_bytes()
    assert b"rating_a" not in compared
    assert label_here(tiny_judge, pairs, tmp_path / "run", **options).asked == 6
    assert (tmp_path / "run" / "labels.jsonl").read_bytes().count(b"rating_a") == 3
    # Back again: the comparisons are still there, to the same bytes.
    assert label_here(tiny_judge, pairs, tmp_path / "run", template="direct", **options).asked == 0
    assert (tmp_path / "run" / "labels.jsonl").read_bytes() == compared


def test_a_dry_run_counts_every_token_of_a_rating(tiny_judge: Path, pairs: Path, tmp_path: Path) -> None:
    options = {"judge": str(tiny_judge), "engine": "transformers", "template": "rating", "max_tokens": 30}
    planned = api.dry_run(pairs, tmp_path / "run", **options)
    assert (planned.requests, planned.to_ask, planned.tokens_exact) == (72, 72, True)
    # The rationale, the rating, and what follows a 1.
    assert planned.most_new_tokens == 72 * (30 + 2)
    one_order = api.dry_run(pairs, tmp_path / "run", orders="ab", **options)
    assert one_order == planned


def rating_server(rate: Callable[[str], str | None], *, listed: bool = False) -> RunningScript:
    """A server that writes a rating of the response in one text: what `rate` says of the user's message."""

    def reply(body: dict[str, Any]) -> web.Response:
        rating = rate(body["messages"][-1]["content"])
        if rating is None:
            return chat("I would rather not.")
        positions = [token("Fine. "), token("Rating: ["), token(rating, 0.8, _9=0.1), token("]")]
        return chat(f"Fine. Rating: [{rating}]", positions if listed else None)

    return RunningScript(reply)


def says_8_legs(text: str) -> bool:
    return " legs." in text.partition("response]\n")[2]


def test_ratings_without_log_probabilities_are_certain(pairs: Path, tmp_path: Path) -> None:
    with rating_server(lambda text: "10" if says_8_legs(text) else "7") as stub:
        summary = package.label(pairs, tmp_path / "run", base_url=stub.url, **QUICK)
    assert (summary.judgments, summary.mean_choice_mass) == (24, None)
    for line in read_lines(tmp_path / "run" / "labels.jsonl"):
        label = line["labels"]["honesty"]
        assert (label["p_a"], label["rating_a"], label["rating_b"]) == (1.0, 10.0, 7.0)
        assert (label["preference"], label["choice_mass"]) == ("a", None)
    with rating_server(lambda text: "7") as stub:
        package.label(pairs, tmp_path / "ties", base_url=stub.url, **QUICK)
    assert {line["labels"]["honesty"]["preference"] for line in read_lines(tmp_path / "ties" / "labels.jsonl")} == {
        "tie"
    }


def test_a_rating_that_is_not_given_is_no_number(pairs: Path, tmp_path: Path) -> None:
    with rating_server(lambda text: "7" if says_8_legs(text) else None) as stub:
        summary = package.label(pairs, tmp_path / "run", base_url=stub.url, **QUICK)
    assert (summary.judgments, summary.abstained) == (24, 12)
    assert summary.reasons == [("the judge gave no rating from 1 to 10", 12)]
    label = read_lines(tmp_path / "run" / "labels.jsonl")[0]["labels"]["honesty"]
    assert (label["p_a"], label["preference"], label["verdicts"], label["abstained"]) == (None, None, 0, 1)
    assert (label["rating_a"], "rating_b" in label, label["reasons"]) == (7.0, False, {"unread": 1})


def test_flips_of_ratings(pairs: Path, tmp_path: Path) -> None:
    def rates(best: str) -> Callable[[str], str]:
        return lambda text: best if says_8_legs(text) else "7"

    for name, best in (("old", "8"), ("new", "6")):
        with rating_server(rates(best), listed=True) as stub:
            package.label(pairs, tmp_path / name, base_url=stub.url, **QUICK)
    old, new = ([label for _, label in read_labels(tmp_path / name / "labels.jsonl")] for name in ("old", "new"))
    assert old[0].labels["honesty"].rating_a is not None
    flips = compare_labels(old, new)
    assert (flips.objectives["honesty"].flipped, flips.objectives["honesty"].decided) == (12, 12)


@pytest.mark.parametrize("name", ["critique", "revision"])
def test_a_template_that_is_not_for_a_judge_is_refused(rlaif: Cli, pairs: Path, tmp_path: Path, name: str) -> None:
    done = rlaif("label", pairs, "--out", tmp_path / "run", "--template", name)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert f"template {name}: is for a {name}, not for a judge; give one that compares or rates" in line
    assert not (tmp_path / "run").exists()


def test_looking_at_ratings(rlaif: Cli, tiny_judge: Path, pairs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    label_here(tiny_judge, pairs, run, limit=2)
    label = read_lines(run / "labels.jsonl")[0]["labels"]["honesty"]
    shown = rlaif("show", run, "pair-0").stdout
    assert "rating a" in shown
    assert "order gap" not in shown
    assert "honesty, response a" in shown
    assert "honesty, response b" in shown
    assert f"rating {label['rating_a']:.1f}," in shown
    found = json.loads(rlaif("show", run, "pair-0", "--json").stdout)
    assert [one["rating"] for one in found["judgments"]] == [label["rating_a"], label["rating_b"]]
    assert found["label"]["labels"]["honesty"]["rating_b"] == label["rating_b"]


def test_the_prompt_of_a_rating(rlaif: Cli, pairs: Path) -> None:
    for order, mine, other in (("ab", "0 legs.", "I do not know."), ("ba", "I do not know.", "0 legs.")):
        done = rlaif("prompt", "show", "rating", "--pair", pairs, "--objective", "honesty", "--order", order)
        assert done.returncode == 0, done.stderr
        assert f"response]\n{mine}\n[" in done.stdout
        assert other not in done.stdout
        assert "Rating: [ 1 or 2 or" in done.stdout
