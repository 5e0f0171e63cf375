"""`rlaif select`: scores and reasons by hand, diversity, the random share, and what cannot be used."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlaif.agreement.diversity import choose_diverse
from rlaif.agreement.embedding import Lexical, make_embedder
from rlaif.agreement.select import SelectSummary, select
from rlaif.agreement.select_input import members_differ
from rlaif.agreement.worth import Known, Table, Worth
from rlaif.data.pairs import read_pairs
from rlaif.data.sources import open_source
from rlaif.errors import InputError
from rlaif.starter import checkpoint
from rlaif.types import Message, Pair
from tests.conftest import Cli, made_pairs, read_lines, write_lines

PROVENANCE = {"judge": "j@1", "constitution": "c@1", "template": "t@1", "rlaif": "0"}


def said(p_a: float | None, gap: float | None = None, verdicts: int = 2, abstained: int = 0) -> dict[str, Any]:
    """One objective's label."""
    preference = None if p_a is None else "tie" if p_a == 0.5 else "a" if p_a > 0.5 else "b"
    counts = {"verdicts": verdicts, "abstained": abstained}
    return {"p_a": p_a, "preference": preference, "order_gap": gap, **counts}


def labels(path: Path, said_of: Sequence[Mapping[str, Any]], pairs: Sequence[dict[str, Any]] | None = None) -> Path:
    """Write a line of `labels.jsonl` for each mapping from objectives to labels."""
    rows = pairs or made_pairs(len(said_of))
    overall = {"p_a": None, "preference": None, "method": "weighted", "pareto": None}
    lines = []
    for row, by_objective in zip(rows, said_of, strict=True):
        prompt = [{"role": "user", "content": row["prompt"]}]
        lines.append({**row, "prompt": prompt, "labels": by_objective, "overall": overall, "provenance": PROVENANCE})
    return write_lines(path, lines)


def worth_of(*known: Mapping[str, Known], weights: Mapping[str, float] | None = None) -> Worth:
    """The worth of pairs of which this is known."""
    table = Table()
    for number, each in enumerate(known):
        table.add(f"p{number}", number + 1, each)
    return Worth(table, table.objectives, weights or {})


def told(worth: Worth, pair: int = 0) -> list[str]:
    """The reasons in words."""
    return [reason.text for reason in worth.reasons(pair)]


def pair_of(text: str) -> Pair:
    """A pair that holds one text three times."""
    return Pair(id=text, prompt=(Message(role="user", content=text),), response_a=text, response_b=text)


@pytest.mark.parametrize(
    ("known", "score", "reasons"),
    [
        # 2 min(p, 1 - p) = 0.96 and a gap of 0.1: 1 - 0.04 x 0.9.
        (Known(0.52, 0.1, 2), 0.964, ["near 0.5 in honesty (p_a 0.52)"]),
        # 0.2 and 0.4: 1 - 0.8 x 0.6.
        (Known(0.9, 0.4, 2), 0.52, ["order gap in honesty (0.40)"]),
        (Known(0.45, 0.95, 2), 1 - 0.1 * 0.05, ["order gap in honesty (0.95)", "near 0.5 in honesty (p_a 0.45)"]),
        (Known(None, None, 0, 2), 1.0, ["abstained in honesty (2 of 2 verdicts not read)"]),
        (Known(None), 1.0, ["abstained in honesty (no label)"]),
        # 0.1 and one of two not read: 1 - 0.9 x 0.5.
        (Known(0.95, None, 1, 1), 0.55, ["abstained in honesty (1 of 2 verdicts not read)"]),
        # 2 x 0.06 x 1 and 2 x 0.3 of the members: 1 - 0.88 x 0.4.
        (
            Known(0.94, verdicts=1, members_differ=0.3),
            0.648,
            ["heads disagree in honesty (two of them differ with probability 0.30)"],
        ),
        (Known(0.97, 0.02, 2), 0.0788, ["the most in doubt of what is left: unsure in honesty (p_a 0.97)"]),
        (Known(1.0, 0.0, 2), 0.0, []),
    ],
)
def test_score_and_reasons_of_one_objective(known: Known, score: float, reasons: list[str]) -> None:
    worth = worth_of({"honesty": known})
    assert worth.scores[0] == pytest.approx(score, abs=1e-12)
    assert told(worth) == reasons


def test_objectives_in_conflict_are_a_reason_and_count_half() -> None:
    worth = worth_of({"helpfulness": Known(0.9, 0.0, 2), "honesty": Known(0.1, 0.0, 2)})
    # Each is 0.2 in doubt; both are 0.8 clear: 1 - 0.8 x (1 - 0.5 x 0.8).
    assert worth.scores[0] == pytest.approx(0.52)
    assert told(worth) == ["objectives in conflict (helpfulness for a, p_a 0.90; honesty for b, p_a 0.10)"]
    same_side = worth_of({"helpfulness": Known(0.9, 0.0, 2), "honesty": Known(0.9, 0.0, 2)})
    assert same_side.scores[0] == pytest.approx(0.2)


def test_a_pair_in_doubt_under_all_objectives_comes_before_one_in_doubt_under_one() -> None:
    worth = worth_of(
        {"x": Known(0.5, 0.0, 2), "y": Known(1.0, 0.0, 2), "z": Known(1.0, 0.0, 2)},
        {"x": Known(0.8, 0.0, 2), "y": Known(0.8, 0.0, 2), "z": Known(0.8, 0.0, 2)},
    )
    assert worth.scores.tolist() == pytest.approx([1 / 3, 0.4])


def test_weights_turn_criteria_down_and_off() -> None:
    known = {"honesty": Known(0.9, 0.4, 2)}
    assert worth_of(known, weights={"order_gap": 0.5}).scores[0] == pytest.approx(1 - 0.8 * 0.8)
    off = worth_of(known, weights={"order_gap": 0})
    assert off.scores[0] == pytest.approx(0.2)
    assert told(off) == ["the most in doubt of what is left: unsure in honesty (p_a 0.90)"]


def test_an_objective_that_comes_late_is_unknown_for_the_pairs_before() -> None:
    worth = worth_of({"x": Known(1.0, 0.0, 2)}, {"y": Known(1.0, 0.0, 2)})
    assert worth.scores.tolist() == pytest.approx([0.5, 0.5])
    assert told(worth, 0) == ["abstained in y (no label)"]
    assert told(worth, 1) == ["abstained in x (no label)"]


def test_members_differ_by_the_normal_distribution() -> None:
    assert members_differ(0.0, 1.0) == pytest.approx(0.5)
    # Phi(1) = 0.841345: 2 x 0.841345 x 0.158655.
    assert members_differ(0.5, 0.5) == pytest.approx(0.266968, abs=1e-6)
    assert members_differ(-0.5, 0.5) == pytest.approx(0.266968, abs=1e-6)
    assert members_differ(0.5, 0.0) is None


def greedy_by_comparing_all(scores: Any, vectors: Any, count: int, diversity: float) -> list[int]:
    """The same choices by the plain definition."""
    chosen: list[int] = []
    while len(chosen) < count:
        nearest = [
            max([0.0, *(float(vectors[each] @ vectors[other]) for other in chosen)]) for each in range(len(scores))
        ]
        worth = [(1 - diversity) * score - diversity * near for score, near in zip(scores, nearest, strict=True)]
        chosen.append(max((place for place in range(len(scores)) if place not in chosen), key=lambda at: worth[at]))
    return chosen


@pytest.mark.parametrize("diversity", [0.1, 0.5, 0.9])
def test_lazy_choices_are_those_of_comparing_all(diversity: float) -> None:
    generator = np.random.default_rng(3)
    vectors = generator.normal(size=(120, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = generator.random(120)
    chosen = choose_diverse(scores, vectors, 40, diversity)
    assert [each.candidate for each in chosen] == greedy_by_comparing_all(scores, vectors, 40, diversity)
    assert chosen[0].similarity == 0
    first, second = (vectors[each.candidate] for each in chosen[:2])
    assert chosen[1].similarity == pytest.approx(max(0.0, float(first @ second)), abs=1e-6)


def test_words_in_common_make_pairs_alike_and_rare_words_more_so() -> None:
    texts = ["the whales swim in the sea", "the whales swim in the ocean", "the judge reads in the court", ""]
    vectors = Lexical().embed(map(pair_of, texts))
    alike = vectors @ vectors.T
    assert np.diag(alike).tolist() == pytest.approx([1, 1, 1, 0], abs=1e-5)
    assert alike[0, 1] > 0.4
    assert alike[0, 2] < 0.2
    assert Lexical().embed(map(pair_of, ["same words", "same words"]))[0].any(), "equal texts are alike, not empty"


def test_texts_without_spaces_are_compared_by_character() -> None:
    vectors = Lexical().embed(map(pair_of, ["鲸鱼在海里游泳", "鲸鱼在大海游泳", "法官阅读卷宗"]))
    assert vectors[0] @ vectors[1] > 0.3 > vectors[0] @ vectors[2]


def test_a_transformer_averages_its_states_whatever_the_padding() -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    texts = ["A short one.", "A much longer text, so that the first one is padded in the batch of both of them."]
    vectors = make_embedder(str(checkpoint())).embed(map(pair_of, texts))
    tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint())
    model: Any = AutoModel.from_pretrained(checkpoint(), dtype=torch.float32).eval()
    with torch.inference_mode():
        alone = [tokenizer("\n".join([text] * 3), return_tensors="pt")["input_ids"] for text in texts]
        first, second = (model(input_ids=ids).last_hidden_state[0].mean(dim=0).numpy() for ids in alone)
    # What both have in common is taken off: half of the difference is left, of length 1.
    expected = (first - second) / np.linalg.norm(first - second)
    assert np.abs(vectors[0] - expected).max() < 1e-3
    assert np.abs(vectors[1] + expected).max() < 1e-3


def selected(out: Path) -> list[dict[str, Any]]:
    """What was said of each pair, in order, with its id."""
    return [{"id": row["id"], **row["select"]} for row in read_lines(out)]


def test_a_run_through_the_command(tmp_path: Path, rlaif: Cli) -> None:
    probabilities = [0.99, 0.51, 0.02, 0.7, 0.97, 0.4]
    run = tmp_path / "run"
    run.mkdir()
    labels(run / "labels.jsonl", [{"honesty": said(p, 0.0)} for p in probabilities])
    out = tmp_path / "new" / "chosen.jsonl"
    done = rlaif("select", run, "--n", 3, "--random", 0, "--diversity", 0, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["pool"], summary["chosen"], summary["random"]) == (6, 3, 0)
    assert summary["by_reason"] == {"uncertain": 2, "remainder": 1}
    assert summary["mean_score_chosen"] == pytest.approx((0.98 + 0.8 + 0.6) / 3)
    assert selected(out) == [
        {
            "id": name,
            "rank": rank,
            "kind": "chosen",
            "score": pytest.approx(score),
            "reasons": [reason],
            "inclusion_probability": None,
        }
        for rank, (name, score, reason) in enumerate(
            [
                ("pair-1", 0.98, "near 0.5 in honesty (p_a 0.51)"),
                ("pair-5", 0.8, "near 0.5 in honesty (p_a 0.40)"),
                ("pair-3", 0.6, "the most in doubt of what is left: unsure in honesty (p_a 0.70)"),
            ],
            1,
        )
    ]
    # The judge's labels do not go to the people, and the file is one of pairs as any other.
    assert read_lines(out)[0].keys() == {"id", "prompt", "response_a", "response_b", "tags", "select"}
    read = [row[1] for row in read_pairs(open_source(str(out)), {}) if isinstance(row, tuple)]
    assert [pair.tags for pair in read] == [{"number": 1}, {"number": 5}, {"number": 3}]
    text = rlaif("select", run, "--n", 9, "--random", 0.2, "--out", out)
    assert text.stdout.startswith(f"6 pairs of 6 -> {out}: 5 chosen, 1 drawn at random\nmean score ")
    assert "drawn at random\n" in text.stdout
    assert "only 6 pairs to select from" in text.stderr


def test_near_duplicates_give_way_to_what_is_unlike_them(tmp_path: Path) -> None:
    texts = ["How do whales sleep at night?"] * 3 + ["Write a poem on copper kettles."]
    rows = [{"id": f"{n}", "prompt": text, "response_a": text, "response_b": "no"} for n, text in enumerate(texts)]
    source = labels(
        tmp_path / "labels.jsonl",
        [{"x": said(p, 0.0)} for p in (0.5, 0.49, 0.48, 0.4)],
        [{**r, "tags": {}} for r in rows],
    )
    out = tmp_path / "out.jsonl"
    select(source, out, n=2, random=0, diversity=0)
    assert [row["id"] for row in selected(out)] == ["0", "1"]
    summary = select(source, out, n=2, random=0, diversity=0.5)
    assert [row["id"] for row in selected(out)] == ["0", "3"]
    assert summary.by_reason == {"uncertain": 2, "diverse": 1}
    assert selected(out)[1]["reasons"][1].startswith("unlike the pairs chosen before it (similarity at most 0.")
    # Looking at two candidates only, there is nothing else to choose.
    select(source, out, n=2, random=0, diversity=0.5, candidates=2)
    assert [row["id"] for row in selected(out)] == ["0", "1"]


def test_the_random_share_is_even_and_says_its_chance(tmp_path: Path) -> None:
    source = labels(tmp_path / "labels.jsonl", [{"x": said(n / 100, 0.0)} for n in range(100)])
    out = tmp_path / "out.jsonl"
    summary = select(source, out, n=20, random=0.1)
    assert (summary.chosen, summary.random, summary.inclusion_probability) == (18, 2, 0.02)
    rows = selected(out)
    assert [row["rank"] for row in rows if row["kind"] == "random"] == [6, 16]
    assert {row["inclusion_probability"] for row in rows if row["kind"] == "random"} == {0.02}
    assert rows[5]["reasons"] == ["drawn at random, as each pair was with probability 0.02"]
    first = out.read_bytes()
    select(source, out, n=20, random=0.1)
    assert out.read_bytes() == first
    select(source, out, n=20, random=0.1, seed=1)
    assert out.read_bytes() != first
    assert len({row["id"] for row in rows}) == 20


def test_every_pair_is_drawn_equally_often_whatever_its_score(tmp_path: Path) -> None:
    source = labels(tmp_path / "labels.jsonl", [{"x": said(n / 10, 0.0)} for n in range(10)])
    out, drawn = tmp_path / "out.jsonl", dict.fromkeys((f"pair-{n}" for n in range(10)), 0)
    for seed in range(100):
        select(source, out, n=5, random=0.4, diversity=0, seed=seed)
        for row in selected(out):
            drawn[row["id"]] += row["kind"] == "random"
    # 100 times 2 of 10: 20 each, with a standard deviation of 4.
    assert sum(drawn.values()) == 200
    assert all(4 <= count <= 36 for count in drawn.values()), drawn


def test_of_equal_scores_the_first_of_the_file_are_not_favoured(tmp_path: Path) -> None:
    source = labels(tmp_path / "labels.jsonl", [{"x": said(0.8, 0.0)} for _ in range(200)])
    out = tmp_path / "out.jsonl"
    summary = select(source, out, n=50, random=0, diversity=0)
    assert summary.by_reason == {"remainder": 50}
    places = [int(row["id"].removeprefix("pair-")) for row in selected(out)]
    assert 70 < sum(places) / 50 < 130


@pytest.mark.parametrize("given", [said(None, None, 0, 2), said(1.0, 0.0), said(0.5)])
@pytest.mark.parametrize("count", [1, 7])
def test_runs_of_one_kind_are_selected_from(given: dict[str, Any], count: int, tmp_path: Path) -> None:
    source = labels(tmp_path / "labels.jsonl", [{"x": given, "y": given}] * count)
    summary = select(source, tmp_path / "out.jsonl", n=4)
    expected = {1: (1, 1, 0), 7: (4, 4, 0)}[count]
    assert (summary.selected, summary.chosen, summary.random) == expected
    assert all(0 <= row["score"] <= 1 for row in selected(tmp_path / "out.jsonl"))


def test_all_may_be_drawn_at_random(tmp_path: Path) -> None:
    source = labels(tmp_path / "labels.jsonl", [{"x": said(0.5)}] * 9)
    summary = select(source, tmp_path / "out.jsonl", n=4, random=1)
    assert (summary.chosen, summary.random, summary.mean_score_chosen) == (0, 4, None)
    assert summary.inclusion_probability == pytest.approx(4 / 9)


def voted(path: Path, *of: tuple[str, str]) -> Path:
    """Human labels of pairs and objectives."""
    rows = [{"id": name, "annotator": "ann", "objective": objective, "preference": "a"} for name, objective in of]
    return write_lines(path, rows)


def test_pairs_with_human_labels_are_left_out(tmp_path: Path) -> None:
    source = labels(tmp_path / "labels.jsonl", [{"x": said(0.5), "y": said(0.9)}] * 4)
    human = voted(tmp_path / "human.jsonl", ("pair-0", "x"), ("pair-1", "y"), ("elsewhere", "x"))
    out = tmp_path / "out.jsonl"
    summary = select(source, out, n=9, human=[human])
    assert (summary.already_labelled, summary.unknown_labelled, summary.pool) == (2, 1, 2)
    assert {row["id"] for row in selected(out)} == {"pair-2", "pair-3"}
    select(source, out, n=9, human=[human], objectives=["x"])
    assert {row["id"] for row in selected(out)} == {"pair-1", "pair-2", "pair-3"}
    assert {row["score"] for row in selected(out)} == {1.0}, "only the objective asked for counts"
    rest = voted(tmp_path / "rest.jsonl", ("pair-2", "x"), ("pair-3", "x"))
    with pytest.raises(InputError, match="people have labelled all 4 pairs; there is none left to select"):
        select(source, out, n=9, human=[human, rest])


def scored(path: Path, *margins: tuple[float, float]) -> Path:
    """Scores of pairs with these margins and standard deviations of response a; response b has a reward of 1."""
    rows = []
    for number, (margin, std) in enumerate(margins):
        for side, reward, spread in (("b", 1.0, 0.0), ("a", 1.0 + margin, std)):
            rewards = {"rewards": {"x": reward}, "std": {"x": spread}, "reward": reward}
            rows.append({"id": f"pair-{number}", "response": side, **rewards, "pareto_rank": 1})
    return write_lines(path, rows)


def test_scores_are_compared_and_their_texts_come_from_the_pairs(pairs: Path, tmp_path: Path, rlaif: Cli) -> None:
    source = scored(tmp_path / "scores.jsonl", (2.0, 0.0), (0.1, 0.0), (2.0, 2.0))
    lost = source.read_text().replace("pair-0", "gone")
    source.write_text(source.read_text() + "".join(line + "\n" for line in lost.splitlines() if "gone" in line))
    out = tmp_path / "out.jsonl"
    options = ("--pairs", pairs, "--n", 3, "--random", 0, "--diversity", 0, "--out", out)
    done = rlaif("select", source, *options)
    assert done.returncode == 0, done.stderr
    assert "Left out: 1 pair with scores, not in --pairs." in done.stderr
    rows = selected(out)
    assert [row["id"] for row in rows] == ["pair-1", "pair-2", "pair-0"]
    p_small, p_large = 1 / (1 + math.exp(-0.1)), 1 / (1 + math.exp(-2))
    differ = 2 * 0.8413447 * 0.1586553
    expected = [2 * (1 - p_small), 1 - (1 - 2 * (1 - p_large)) * (1 - 2 * differ), 2 * (1 - p_large)]
    assert [row["score"] for row in rows] == pytest.approx(expected, abs=1e-5)
    assert rows[1]["reasons"] == ["heads disagree in x (two of them differ with probability 0.27)"]
    assert read_lines(out)[0]["response_b"] == made_pairs(2)[1]["response_b"]


def test_a_missing_reward_is_an_abstention(pairs: Path, tmp_path: Path) -> None:
    rows = read_lines(scored(tmp_path / "scores.jsonl", (2.0, 0.0), (3.0, 0.0)))
    rows[0]["rewards"]["x"] = None
    source, out = write_lines(tmp_path / "scores.jsonl", rows), tmp_path / "out.jsonl"
    select(source, out, pairs=pairs, n=1, random=0)
    assert selected(out)[0]["reasons"] == ["abstained in x (no label)"]


def test_a_transformer_tells_what_is_alike(tmp_path: Path) -> None:
    source = labels(tmp_path / "labels.jsonl", [{"x": said(0.5)}] * 5)
    summary = select(source, tmp_path / "out.jsonl", n=2, embedder=str(checkpoint()))
    assert (summary.embedder, summary.candidates, summary.selected) == (str(checkpoint()), 5, 2)


LINE = '{"id": "pair-0", "response": "a", "rewards": {"x": 1}, "std": {"x": 0.1}}\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LINE, "in:1: id 'pair-0' has a line for response a and none for b"),
        (LINE + LINE, "in:2: id 'pair-0' has another line for response a"),
        (LINE.replace('"a"', "3"), 'in:1: response is 3; expected "a" or "b"'),
        (LINE.replace("1}", '"high"}', 1), 'in:1: rewards.x is "high"; expected a number'),
        (LINE.replace("1}", "true}", 1), "in:1: rewards.x is true; expected a number"),
        (LINE.replace("0.1", "-1"), "in:1: std holds a number below 0"),
        (LINE.replace('{"x": 1}', "{}"), "in:1: rewards is empty"),
        (LINE.replace('"pair-0"', "null"), "in:1: id is missing"),
        (LINE + "[]\n", "in:2: not an object"),
        (LINE + "{\n", "in:2: invalid JSON"),
        (LINE.replace("pair-0", "other") + LINE.replace("pair-0", "other").replace('"a"', '"b"'), "none of the pairs"),
    ],
)
def test_scores_that_cannot_be_used_are_one_clear_line(text: str, message: str, pairs: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(text)
    with pytest.raises(InputError) as error:
        select(source, tmp_path / "out.jsonl", n=1, pairs=pairs)
    assert message in str(error.value).replace(".jsonl", "")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n": 0}, "--n 0: Input should be greater than or equal to 1"),
        ({"n": 1, "diversity": 1.5}, "--diversity 1.5: "),
        ({"n": 1, "weights": {"mood": 1}}, "^--weight: mood is not a criterion; expected one of uncertain, order_gap"),
        ({"n": 1, "weights": {"conflict": "x"}}, "^--weight x: "),
        ({"n": 1, "weights": {"conflict": 2}}, "the weight of conflict is 2; expected 0 to 1"),
        ({"n": 1, "objectives": ["wit"]}, "--objective wit: not in .*, which has x."),
        ({"n": 1, "pairs": "pairs.jsonl"}, "holds its own texts; drop --pairs"),
        ({"n": 1, "embedder": "./no-such-model"}, "no such model folder"),
    ],
)
def test_settings_that_cannot_be_used_are_one_clear_line(
    settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    source = labels(tmp_path / "labels.jsonl", [{"x": said(0.5)}] * 3)
    with pytest.raises(InputError, match=message):
        select(source, tmp_path / "out.jsonl", **settings)


def test_what_is_read_is_not_written_over(tmp_path: Path, rlaif: Cli) -> None:
    source = labels(tmp_path / "labels.jsonl", [{"x": said(0.5)}] * 3)
    before = source.read_bytes()
    for given in (tmp_path, source):
        done = rlaif("select", given, "--n", 1, "--out", source)
        assert (done.returncode, done.stdout) == (2, "")
        assert "also read by this command; choose another file." in done.stderr
    assert source.read_bytes() == before
    recorded = {"id": "1", "judge": "j", "objective": "x", "preference": "a"}
    other = write_lines(tmp_path / "recorded.jsonl", [recorded])
    done = rlaif("select", other, "--n", 1, "--out", tmp_path / "out.jsonl")
    assert done.returncode == 2
    assert "recorded.jsonl:1: a recorded judge label, which does not tell how sure the judge was" in done.stderr
    assert rlaif("select", source, "--n", 1, "--out", tmp_path).returncode == 2
    assert rlaif("select", source, "--n", 1, "--weight", "order_gap", "--out", tmp_path / "o").returncode == 2


def test_scores_without_pairs_say_what_to_add(tmp_path: Path) -> None:
    source = scored(tmp_path / "scores.jsonl", (1.0, 0.1))
    with pytest.raises(InputError, match="scores hold no texts; add --pairs FILE"):
        select(source, tmp_path / "out.jsonl", n=1)


def shares_of_errors(out: Path, summary: SelectSummary, wrong: set[str], pool: int) -> tuple[float, float]:
    """The share of pairs that the judge got wrong, among the chosen and among all."""
    chosen = [row["id"] for row in selected(out) if row["kind"] == "chosen"]
    assert len(chosen) == summary.chosen
    return sum(name in wrong for name in chosen) / len(chosen), len(wrong) / pool


def test_the_chosen_hold_more_of_a_judges_errors_than_random_ones(tmp_path: Path) -> None:
    """A judge that sees each pair's true log-odds with noise, and leans to the first place."""
    rng = random.Random(5)
    given, wrong = [], set()
    for number in range(2000):
        log_odds = rng.gauss(0, 3)
        people = "a" if rng.random() < 1 / (1 + math.exp(-log_odds)) else "b"
        seen = [log_odds + rng.gauss(0, 1.0) + lean for lean in (0.7, -0.7)]
        ab, ba = (1 / (1 + math.exp(-each)) for each in seen)
        p_a = (ab + ba) / 2
        given.append({"x": said(p_a, abs(ab - ba))})
        if (p_a > 0.5) != (people == "a"):
            wrong.add(f"pair-{number}")
    source, out = labels(tmp_path / "labels.jsonl", given), tmp_path / "out.jsonl"
    summary = select(source, out, n=200)
    chosen, all_pairs = shares_of_errors(out, summary, wrong, 2000)
    assert chosen > 2 * all_pairs, (chosen, all_pairs)


def test_the_chosen_hold_more_errors_of_a_published_judge(shared: Path, tmp_path: Path) -> None:
    """ChatGPT on LLMBar-Natural: people are asked first where its first verdict is most often wrong."""
    folder = shared / "llmbar-natural"
    gold = {row["id"]: row["preference"] for row in read_lines(folder / "human_labels.jsonl")}
    by_order: dict[str, dict[str, str]] = {name: {} for name in gold}
    for row in read_lines(folder / "ai_labels_chatgpt_vanilla.jsonl"):
        by_order[row["id"]][row["order"]] = row["preference"]
    rows = [row for row in read_lines(folder / "pairs.jsonl") if len(by_order[row["id"]]) == 2]
    given = []
    for row in rows:
        ab, ba = (float(by_order[row["id"]][order] == "a") for order in ("ab", "ba"))
        given.append({"overall": said((ab + ba) / 2, abs(ab - ba))})
    wrong = {row["id"] for row in rows if by_order[row["id"]]["ab"] != gold[row["id"]]}
    source, out = labels(tmp_path / "labels.jsonl", given, rows), tmp_path / "out.jsonl"
    summary = select(source, out, n=20)
    chosen, all_pairs = shares_of_errors(out, summary, wrong, len(rows))
    assert chosen > 1.5 * all_pairs, (chosen, all_pairs)
