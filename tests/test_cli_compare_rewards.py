"""`rlaif reward compare`: heads and files of scores against each other, from the command line to the figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlaif.cli.compare_rewards_report import comparison_shown
from rlaif.errors import InputError
from rlaif.optimize.compare_rewards import compare_rewards
from rlaif.optimize.compare_rewards_report import comparison_page
from rlaif.optimize.compare_rewards_words import short_names
from rlaif.report.page import render_page
from rlaif.rewards.heads import RewardHeads
from rlaif.rewards.score import score_file
from tests.conftest import Cli, made_pairs, write_lines
from tests.heads_examples import OBJECTIVES, make_heads


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Heads of a tiny Llama."""
    return make_heads(tmp_path_factory.mktemp("compared"))


@pytest.fixture
def pairs_file(tmp_path: Path) -> str:
    """Forty pairs with a tag of two values."""
    rows = [{**row, "tags": {"even": number % 2 == 0}} for number, row in enumerate(made_pairs(40))]
    return str(write_lines(tmp_path / "pairs.jsonl", rows))


def scores(path: Path, margins: list[float], objective: str = "helpfulness", ids: str = "pair-") -> str:
    """A file of scores as `rlaif score` writes it: response a has the margin, response b nought."""
    rows = [
        {"id": f"{ids}{number}", "response": name, "rewards": {objective: reward}, "std": None, "reward": reward}
        for number, margin in enumerate(margins)
        for name, reward in (("a", margin), ("b", 0.0))
    ]
    return str(write_lines(path, [{**row, "pareto_rank": None} for row in rows]))


def human(path: Path, sides: list[str], objective: str = "overall") -> str:
    """One person's labels."""
    rows = [
        {"id": f"pair-{number}", "annotator": "x", "objective": objective, "preference": side}
        for number, side in enumerate(sides)
    ]
    return str(write_lines(path, rows))


def two_files(tmp_path: Path) -> tuple[str, str]:
    """Two models on eight pairs: they part on two, on one of which the margins are large."""
    return (
        scores(tmp_path / "one.jsonl", [1, 2, -1, 3, 1, -2, 4, 0]),
        scores(tmp_path / "two.jsonl", [1, 2, 1, 3, 1, -2, -4, 1]),
    )


def test_figures_by_hand_from_files_of_scores(tmp_path: Path) -> None:
    found = compare_rewards(two_files(tmp_path), resamples=50).comparison
    [pair] = found.compared
    one = pair.objectives["helpfulness"]
    assert one == pair.reward.model_copy(update={"not_defined": one.not_defined})
    # The same on 0, 1, 3, 4 and 5; the other one on 2 and 6; on 7 the first prefers none.
    assert (one.n, one.same.value, one.parting) == (8, 5.5 / 8, 2)
    # 1 + 4 - 1 + 9 + 1 + 4 - 16 over the root of 36 by 37.
    assert one.pearson.value == pytest.approx(2 / (36 * 37) ** 0.5)
    # In units of the models' margins: the larger margins are on 6, 3, 1 and 5.
    assert (one.clear, one.same_clear.value) == (4, 3 / 4)
    assert [(each.id, each.first_margin, each.second_margin) for each in one.parted] == [
        ("pair-6", 4, -4),
        ("pair-2", -1, 1),
    ]
    assert one.within_rows is None
    assert one.first_longer is None
    assert one.not_defined == {
        "probabilities": "a file of scores has no calibration; give the heads",
        "first_longer": "the texts are not known; give --data",
    }
    assert found.conclusion.startswith("one.jsonl and two.jsonl prefer the same response on 68.8% of 8 pairs")


def test_people_say_who_is_right_where_models_part(tmp_path: Path) -> None:
    labels = human(tmp_path / "human.jsonl", ["a", "a", "a", "b", "tie", "b", "b", "a"])
    found = compare_rewards(two_files(tmp_path), labels=labels, resamples=50).comparison
    told = found.compared[0].reward.labels
    assert told is not None
    # The tie counts for neither. The first is right on 0, 1 and 5 and has half of 7; the second on 2, 6 and 7 too.
    assert told.n == 7
    assert told.first.value == pytest.approx(3.5 / 7)
    assert told.second.value == pytest.approx(6 / 7)
    assert told.difference.value == pytest.approx(-2.5 / 7)
    assert (told.parting, told.first_right.value) == (2, 0.0)
    # Two of two: both outcomes are as far out, each half a quarter by the mid-p rule.
    assert told.p_value == pytest.approx(0.25)
    assert "people's labels do not tell who is right there" in found.conclusion
    parted = found.compared[0].reward.parted
    assert [each.people for each in parted] == ["b", "a"]
    many = human(tmp_path / "many.jsonl", ["a"] * 20)
    sides = [scores(tmp_path / name, [margin] * 20) for name, margin in (("yes.jsonl", 1.0), ("no.jsonl", -1.0))]
    sentence = compare_rewards(sides, labels=many, resamples=50).comparison.conclusion
    assert sentence.endswith("people side with yes.jsonl there (100% of 20).")


def test_labels_of_one_objective_are_held_against_it_and_the_aggregate(tmp_path: Path) -> None:
    labels = human(tmp_path / "human.jsonl", ["a"] * 8, objective="helpfulness")
    pair = compare_rewards(two_files(tmp_path), labels=labels, resamples=0).comparison.compared[0]
    assert pair.objectives["helpfulness"].labels is not None
    assert pair.reward.labels is not None


def test_heads_and_their_own_file_of_scores_are_one(folder: Path, pairs_file: str, tmp_path: Path) -> None:
    scored = tmp_path / "scores.jsonl"
    score_file(folder, pairs_file, scored)
    found = compare_rewards([folder, str(scored)], pairs_file, resamples=20).comparison
    [pair] = found.compared
    assert list(pair.objectives) == list(OBJECTIVES)
    for one in (*pair.objectives.values(), pair.reward):
        assert (one.n, one.same.value, one.parting, one.parted) == (40, 1.0, 0, ())
        for measure in (one.kendall, one.spearman, one.pearson):
            assert measure.value == pytest.approx(1)
        assert [group.n for group in one.by_tag] == [20, 20]
        assert sum(group.n for group in one.by_length) == 40
    assert [(model.name, model.kind) for model in found.models] == [(str(folder), "heads"), (str(scored), "scores")]


def test_probabilities_are_those_of_the_calibrated_heads(
    folder: Path, pairs_file: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = make_heads(tmp_path_factory.mktemp("other"), "qwen3")
    [pair] = compare_rewards([folder, other], pairs_file, resamples=0).comparison.compared
    rows = made_pairs(40)
    prompts = [row["prompt"] for row in rows for _ in "ab"]
    texts = [text for row in rows for text in (row["response_a"], row["response_b"])]
    raw = [RewardHeads.load(each).raw(prompts, texts).scores.reshape(40, 2, 3) for each in (folder, other)]
    for place, name in enumerate(OBJECTIVES):
        # make_spec gives temperatures 0.5, 1.5 and 2.5.
        p, q = (1 / (1 + 2.718281828459045 ** -((each[:, 0] - each[:, 1])[:, place] / (0.5 + place))) for each in raw)
        told = pair.objectives[name].probabilities
        assert told is not None
        assert told.difference.value == pytest.approx(abs(p - q).mean(), abs=1e-4)
        assert told.first_sure == pytest.approx(2 * abs(p - 0.5).mean(), abs=1e-4)
    assert pair.reward.probabilities is None


def test_longer_rows_are_ranked_within(tmp_path: Path) -> None:
    def write(name: str, rewards: list[list[float]]) -> str:
        rows = [
            {"id": f"p{number}", "response": place, "rewards": {"kind": reward}, "reward": reward}
            for number, row in enumerate(rewards)
            for place, reward in enumerate(row)
        ]
        return str(write_lines(tmp_path / name, rows))

    one = write("one.jsonl", [[1, 2, 3], [3, 2, 1]])
    two = write("two.jsonl", [[1, 2, 3], [3, 1, 2]])
    found = compare_rewards([one, two], resamples=0).comparison
    within = found.compared[0].reward.within_rows
    assert within is not None
    # Tau 1 and 1/3, Spearman 1 and 1 - 6 * 2 / 24.
    assert within.rows == 2
    assert within.kendall.value == pytest.approx(2 / 3)
    assert within.spearman.value == pytest.approx(0.75)
    assert found.pairs == 6
    assert found.compared[0].reward.same.value == pytest.approx(5 / 6)


def test_length_and_tags_tell_where_models_part(pairs_file: str, tmp_path: Path) -> None:
    rows = made_pairs(40)
    longer = [1.0 if len(row["response_a"]) > len(row["response_b"]) else -1.0 for row in rows]
    # The second goes by length on odd pairs only.
    turned = [-side if number % 2 == 0 else side for number, side in enumerate(longer)]
    files = [scores(tmp_path / name, each) for name, each in (("long.jsonl", longer), ("odd.jsonl", turned))]
    found = compare_rewards(files, pairs_file, resamples=50).comparison
    one = found.compared[0].reward
    assert one.first_longer is not None
    assert (one.first_longer.n, one.first_longer.value) == (20, 1.0)
    assert {(group.tag, group.value): group.same.value for group in one.by_tag} == {
        ("even", True): 0.0,
        ("even", False): 1.0,
    }
    assert "where they part long.jsonl takes the longer response (100%)" in found.conclusion


def test_three_models_make_three_comparisons_and_a_matrix(tmp_path: Path) -> None:
    files = [*two_files(tmp_path), scores(tmp_path / "three.jsonl", [-1, -2, 1, -3, -1, 2, 4, 1])]
    found = compare_rewards(files, resamples=20)
    pairs = [(Path(pair.first).stem, Path(pair.second).stem) for pair in found.comparison.compared]
    assert pairs == [("one", "two"), ("one", "three"), ("two", "three")]
    assert "Of 3 reward models one.jsonl and two.jsonl are most alike" in found.comparison.conclusion
    html = render_page(comparison_page(found))
    assert html.count("Same preference, aggregate</h3>") == 1
    assert "one.jsonl and three.jsonl" in html


def test_the_command_writes_json_and_a_page(folder: Path, pairs_file: str, tmp_path: Path, rlaif: Cli) -> None:
    other = scores(tmp_path / "<b>odd.jsonl", [(-1.0) ** number * (1 + number) for number in range(40)])
    labels = human(tmp_path / "human.jsonl", ["a", "b"] * 20)
    reference = write_lines(tmp_path / "reference.jsonl", made_pairs(60)[30:])
    page = tmp_path / "out" / "page.html"
    options = ("--data", pairs_file, "--labels", labels, "--reference", reference, "--html", page)
    few = ("--resamples", 20, "--permutations", 49)
    # On a machine with much else to do loading torch alone takes minutes.
    done = rlaif("reward", "compare", folder, other, *options, *few, "--json", timeout=600)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["compared"][0]["reward"]["n"] == 40
    assert list(found["compared"][0]["objectives"]) == ["helpfulness"]
    assert found["compared"][0]["reward"]["labels"]["second"]["value"] == 1.0
    [drift] = found["drift"]
    assert (drift["reference"], drift["new"], drift["matched"]) == (30, 40, 10)
    assert set(drift["rewards"][str(folder)]) == {*OBJECTIVES, "reward"}
    html = page.read_text(encoding="utf-8")
    assert "&lt;b&gt;odd.jsonl" in html
    assert "<b>odd" not in html
    for text in ("Margins, aggregate", "Where they part the most", "Who people side with", "Energy distance"):
        assert text in html
    assert html.count('<details class="example"') == sum(
        len(one["parted"]) for one in (*found["compared"][0]["objectives"].values(), found["compared"][0]["reward"])
    )


def test_the_terminal_shows_lines_of_80_columns(tmp_path: Path) -> None:
    labels = human(tmp_path / "human.jsonl", ["a"] * 8)
    found = compare_rewards(two_files(tmp_path), labels=labels, resamples=20).comparison
    lines = list(comparison_shown(found))
    assert max(map(len, lines)) <= 80
    [row] = [line for line in lines if line.startswith("  helpfulness  ")]
    assert row.split()[1:3] == ["8", "68.8%"]
    assert any("pair-6" in line and "+4.00" in line and "-4.00" in line for line in lines)


def test_what_not_every_model_scored_is_left_out_and_told(tmp_path: Path) -> None:
    one = scores(tmp_path / "one.jsonl", [1.0] * 10)
    fewer = scores(tmp_path / "fewer.jsonl", [1.0] * 6)
    pairs = str(write_lines(tmp_path / "pairs.jsonl", made_pairs(10)))
    found = compare_rewards([one, fewer], pairs, resamples=0).comparison
    assert (found.pairs, found.responses, found.left_out) == (6, 12, 8)
    assert found.notes == ("8 responses that not every model scored are left out.",)


def test_input_that_cannot_be_compared_is_refused_in_one_line(folder: Path, pairs_file: str, tmp_path: Path) -> None:
    one, two = two_files(tmp_path)
    kind = scores(tmp_path / "kind.jsonl", [1.0] * 8, objective="kind")
    other = scores(tmp_path / "other.jsonl", [1.0] * 8, ids="other-")
    broken = write_lines(tmp_path / "broken.jsonl", [{"id": "p", "response": "a", "rewards": {"x": None}, "reward": 1}])
    (tmp_path / "twice.jsonl").write_text(Path(one).read_text(encoding="utf-8") * 2, encoding="utf-8")
    labels = human(tmp_path / "human.jsonl", ["tie"] * 8)
    cases: list[tuple[list[str | Path], dict[str, Any], str]] = [
        ([one], {}, "1 reward model; expected two or more"),
        ([one, str(tmp_path / "." / "one.jsonl")], {}, "given twice"),
        ([folder, one], {}, "heads have nothing to score; give --data"),
        ([one, two], {"reference": pairs_file}, "--reference: drift is told by the features of heads"),
        ([one, broken], {}, r"broken.jsonl:1: a reward is no finite number"),
        ([one, tmp_path / "twice.jsonl"], {}, "twice.jsonl:17: response 'a' of 'pair-0' is scored above"),
        ([one, pairs_file], {}, r"pairs.jsonl:1: no line of rlaif score"),
        ([one, other], {}, "scores none of the responses to compare"),
        ([one, other], {"data": pairs_file}, "other.jsonl: scores none of the responses to compare; the ids of the"),
        ([one, kind], {"objectives": ["kinds"]}, "--objective kinds: fewer than two .* Did you mean 'kind'?"),
        ([one, two], {"labels": labels}, "none of the compared pairs has a label for a side"),
    ]
    for models, options, message in cases:
        with pytest.raises(InputError, match=message) as caught:
            compare_rewards(models, **{"resamples": 0, **options})
        assert "\n" not in str(caught.value)
    notes = compare_rewards([one, kind], resamples=0).comparison.notes
    assert notes == (f"{one} and {kind} share no objective; only their aggregates are compared.",)


def test_short_names_tell_models_apart() -> None:
    assert short_names(["runs/a/heads", "runs/b/heads"]) == {
        "runs/a/heads": "a/heads",
        "runs/b/heads": "b/heads",
    }
    assert short_names(["x/one", "y/two/"]) == {"x/one": "one", "y/two/": "two"}
