"""`rlaif.label` from data to labels, against a server that is instant and deterministic."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

import rlaif as package
from rlaif.errors import InputError
from rlaif.labeling import api
from tests.conftest import Cli, made_pairs, read_lines, write_lines
from tests.stub_server import RunningStub, StubSettings, probability_of


def test_labels_follow_from_the_server_s_probabilities(stub: RunningStub, pairs: Path, tmp_path: Path) -> None:
    summary = package.label(pairs, tmp_path / "run", base_url=stub.url, template="direct")
    assert (summary.pairs, summary.judgments, summary.asked, summary.abstained) == (12, 72, 72, 0)
    # A second implementation: every request the server saw, by pair, objective and order.
    seen: dict[tuple[str, str, str], float] = {}
    questions = {"helps the person more": "helpfulness", "does less harm": "harmlessness", "more honest": "honesty"}
    for body in stub.state.bodies:
        if not body.get("continue_final_message"):
            continue
        user = next(turn["content"] for turn in body["messages"] if turn["role"] == "user")
        number = user.split("legs have ")[1].split(" ")[0]
        order = "ab" if user.index(" legs.") < user.index("I do not know.") else "ba"
        objective = next(name for text, name in questions.items() if text in user)
        seen[f"pair-{number}", objective, order] = probability_of(body["messages"])
    assert len(seen) == 72
    for line in read_lines(tmp_path / "run" / "labels.jsonl"):
        for objective, label in line["labels"].items():
            ab, ba = seen[line["id"], objective, "ab"], 1 - seen[line["id"], objective, "ba"]
            assert label["p_a"] == pytest.approx((ab + ba) / 2, abs=1e-9)
            assert label["order_gap"] == pytest.approx(abs(ab - ba), abs=1e-9)
            assert label["choice_mass"] == pytest.approx(0.9, abs=1e-9)
            assert label["verdicts"] == 2
        weights = {"helpfulness": 0.4, "harmlessness": 0.4, "honesty": 0.2}
        overall = sum(weight * line["labels"][name]["p_a"] for name, weight in weights.items())
        if not line["overall"]["floors"]:
            assert line["overall"]["p_a"] == pytest.approx(overall, abs=1e-9)


def test_a_line_of_labels_has_the_keys_of_the_contract(stub: RunningStub, pairs: Path, tmp_path: Path) -> None:
    package.label(pairs, tmp_path / "run", base_url=stub.url, template="direct")
    line = read_lines(tmp_path / "run" / "labels.jsonl")[3]
    assert line["id"] == "pair-3"
    assert line["tags"] == {"number": 3}
    assert line["response_b"] == "I do not know."
    assert {"p_a", "preference", "order_gap", "verdicts", "abstained"} <= line["labels"]["honesty"].keys()
    assert {"p_a", "preference", "method", "pareto"} <= line["overall"].keys()
    assert line["provenance"].keys() == {"judge", "constitution", "template", "rlaif"}
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["state"] == "done"
    assert manifest["counts"]["judgments"] == 72
    with sqlite3.connect(tmp_path / "run" / "judgments.db") as db:
        assert db.execute("SELECT count(*), count(p_a), count(DISTINCT key) FROM judgments").fetchone() == (72, 72, 72)


def test_rationales_are_written_then_read(stub: RunningStub, pairs: Path, tmp_path: Path) -> None:
    package.label(pairs, tmp_path / "run", base_url=stub.url, objectives=["honesty"])
    writes = [body for body in stub.state.bodies if body.get("stop")]
    reads = [body for body in stub.state.bodies if body.get("continue_final_message")]
    assert (len(writes), len(reads)) == (24, 24)
    assert all(body["messages"][-1]["content"].endswith("\n\nVerdict:") for body in reads)
    with sqlite3.connect(tmp_path / "run" / "judgments.db") as db:
        rationales = [row[0] for row in db.execute("SELECT rationale FROM judgments")]
    assert all(text.startswith("Response A and response B differ") for text in rationales)
    assert not any("Verdict" in text for text in rationales)


def test_the_same_command_again_asks_nothing(stub: RunningStub, pairs: Path, tmp_path: Path) -> None:
    package.label(pairs, tmp_path / "run", base_url=stub.url, template="direct")
    first = (tmp_path / "run" / "labels.jsonl").read_bytes()
    again = package.label(pairs, tmp_path / "run", base_url=stub.url, template="direct")
    assert (again.asked, again.reused) == (0, 72)
    assert (tmp_path / "run" / "labels.jsonl").read_bytes() == first


def test_other_settings_are_refused_by_name(stub: RunningStub, pairs: Path, tmp_path: Path) -> None:
    package.label(pairs, tmp_path / "run", base_url=stub.url, template="direct")
    with pytest.raises(InputError, match=r"principles: all -> sample.*--update"):
        package.label(pairs, tmp_path / "run", base_url=stub.url, template="direct", principles="sample")
    # What does not move the labels may change freely.
    again = package.label(pairs, tmp_path / "run", base_url=stub.url + "/v1", template="direct", concurrency=3)
    assert again.asked == 0


def test_update_asks_only_what_an_edited_principle_touches(stub: RunningStub, pairs: Path, tmp_path: Path) -> None:
    constitution = tmp_path / "mine.yaml"
    text = (Path(__file__).parent.parent / "constitutions" / "hhh.yaml").read_text()
    constitution.write_text(text)
    package.label(pairs, tmp_path / "run", base_url=stub.url, template="direct", constitution=constitution)
    before = {line["id"]: line["labels"] for line in read_lines(tmp_path / "run" / "labels.jsonl")}
    constitution.write_text(text.replace("insults, mocks or demeans nobody", "mocks nobody"))
    asked_before = len(stub.state.bodies)
    options: dict[str, Any] = {"base_url": stub.url, "template": "direct", "constitution": constitution, "update": True}
    summary = package.label(pairs, tmp_path / "run", **options)
    # 12 pairs, 2 orders, 1 objective of 3 shows the principle.
    assert (summary.asked, summary.reused, summary.judgments) == (24, 48, 72)
    new = [body for body in stub.state.bodies[asked_before:] if body.get("continue_final_message")]
    assert len(new) == 24
    assert all("mocks nobody" in body["messages"][-2]["content"] for body in new)
    after = {line["id"]: line["labels"] for line in read_lines(tmp_path / "run" / "labels.jsonl")}
    assert all(after[pair]["honesty"] == before[pair]["honesty"] for pair in before)
    assert all(after[pair]["harmlessness"] != before[pair]["harmlessness"] for pair in before)
    # Back to the old text: the old answers are still there.
    constitution.write_text(text)
    assert package.label(pairs, tmp_path / "run", **options).asked == 0
    assert {line["id"]: line["labels"] for line in read_lines(tmp_path / "run" / "labels.jsonl")} == before


def test_update_with_sampled_principles_asks_what_drew_the_edited_one(stub: RunningStub, tmp_path: Path) -> None:
    data = write_lines(tmp_path / "pairs.jsonl", made_pairs(40))
    constitution = tmp_path / "mine.yaml"
    text = (Path(__file__).parent.parent / "constitutions" / "hhh.yaml").read_text()
    constitution.write_text(text)
    options: dict[str, Any] = {
        "base_url": stub.url,
        "template": "direct",
        "constitution": constitution,
        "principles": "sample",
    }
    package.label(data, tmp_path / "run", **options)
    with sqlite3.connect(tmp_path / "run" / "judgments.db") as db:
        drawn = dict(db.execute("SELECT principle, count(*) FROM judgments GROUP BY principle").fetchall())
    assert sum(drawn.values()) == 240
    assert 0 < drawn["no-cruelty"] < 80
    constitution.write_text(text.replace("insults, mocks or demeans nobody", "mocks nobody"))
    summary = package.label(data, tmp_path / "run", update=True, **options)
    assert (summary.asked, summary.reused) == (drawn["no-cruelty"], 240 - drawn["no-cruelty"])


def test_removed_objectives_leave_the_judgments(stub: RunningStub, pairs: Path, tmp_path: Path) -> None:
    package.label(pairs, tmp_path / "run", base_url=stub.url, template="direct")
    options: dict[str, Any] = {"base_url": stub.url, "template": "direct", "update": True}
    summary = package.label(pairs, tmp_path / "run", objectives=["honesty"], **options)
    assert (summary.asked, summary.judgments) == (0, 24)
    assert read_lines(tmp_path / "run" / "labels.jsonl")[0]["labels"].keys() == {"honesty"}


def test_samples_are_separate_questions(stub: RunningStub, pairs: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"base_url": stub.url, "samples": 3, "temperature": 0.7, "objectives": ["honesty"]}
    summary = package.label(pairs, tmp_path / "run", **options)
    assert summary.judgments == 12 * 2 * 3
    seeds = {body["seed"] for body in stub.state.bodies if body.get("stop")}
    assert len(seeds) == 72
    assert read_lines(tmp_path / "run" / "labels.jsonl")[0]["labels"]["honesty"]["verdicts"] == 6
    with pytest.raises(InputError, match="temperature 0 asks the same thing again"):
        package.label(pairs, tmp_path / "other", base_url=stub.url, samples=3)


def test_one_order(stub: RunningStub, pairs: Path, tmp_path: Path) -> None:
    summary = package.label(pairs, tmp_path / "run", base_url=stub.url, template="direct", orders="ab", limit=5)
    assert (summary.pairs, summary.judgments) == (5, 15)
    label = read_lines(tmp_path / "run" / "labels.jsonl")[0]["labels"]["honesty"]
    assert (label["order_gap"], label["verdicts"]) == (None, 1)


def test_equal_pairs_are_asked_once(stub: RunningStub, tmp_path: Path) -> None:
    row = made_pairs(3)[2]
    data = write_lines(tmp_path / "pairs.jsonl", [{**row, "id": "one"}, {**row, "id": "two"}])
    summary = package.label(data, tmp_path / "run", base_url=stub.url, template="direct")
    assert (summary.pairs, summary.judgments, summary.asked) == (2, 12, 6)
    one, two = read_lines(tmp_path / "run" / "labels.jsonl")
    assert one["labels"] == two["labels"]


def test_dry_run_asks_nothing(stub: RunningStub, pairs: Path, tmp_path: Path, tiny_judge: Path) -> None:
    planned = api.dry_run(pairs, tmp_path / "run", judge=str(tiny_judge), engine="transformers", template="direct")
    assert (planned.pairs, planned.requests, planned.to_ask, planned.tokens_exact) == (12, 72, 72, True)
    assert planned.prompt_tokens > 72 * 100
    assert planned.most_new_tokens == 72
    served = api.dry_run(pairs, tmp_path / "run", base_url=stub.url)
    assert (served.requests, served.tokens_exact) == (72, False)
    assert stub.state.count == 0
    assert not (tmp_path / "run").exists()


def test_strict_stops_before_any_work(stub: RunningStub, rlaif: Cli, tmp_path: Path) -> None:
    data = write_lines(tmp_path / "pairs.jsonl", [*made_pairs(3), {"id": "x", "prompt": "p", "response_a": "only one"}])
    run = tmp_path / "run"
    done = rlaif("label", data, "--base-url", stub.url, "--out", run, "--strict")
    assert done.returncode == 2
    assert f"{data}:4: no response_b" in done.stderr
    assert not run.exists()
    assert stub.state.count == 0
    done = rlaif("label", data, "--base-url", stub.url, "--out", run, "--template", "direct")
    assert done.returncode == 0
    assert "3 pairs labelled, 1 row rejected" in done.stdout
    (reject,) = read_lines(run / "rejects.jsonl")
    assert (reject["line"], reject["row"]["id"]) == (4, "x")


def test_pairs_longer_than_the_context_are_rejected_with_their_line(tmp_path: Path) -> None:
    rows = made_pairs(5)
    rows[2]["response_a"] = "word " * 2000
    data = write_lines(tmp_path / "pairs.jsonl", rows)
    with RunningStub(StubSettings(max_model_len=1500)) as stub:
        summary = package.label(data, tmp_path / "run", base_url=stub.url, template="direct")
    assert (summary.pairs, summary.rejected, summary.abstained) == (4, 1, 6)
    (reject,) = read_lines(tmp_path / "run" / "rejects.jsonl")
    assert reject["line"] == 3
    assert "maximum context length is 1500" in reject["reason"]


def test_nothing_usable_is_an_error(stub: RunningStub, rlaif: Cli, tmp_path: Path) -> None:
    data = write_lines(tmp_path / "pairs.jsonl", [{"prompt": "p", "response_a": 1, "response_b": "b"}])
    done = rlaif("label", data, "--base-url", stub.url, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "no row can be used; line 1: response_a is a number" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_newer_question_does_not_reach_older_pairs(stub: RunningStub, pairs: Path, tmp_path: Path) -> None:
    """Growing the data and updating asks only the new rows."""
    package.label(pairs, tmp_path / "run", base_url=stub.url, template="direct")
    write_lines(pairs, made_pairs(15))
    with pytest.raises(InputError, match="data: "):
        package.label(pairs, tmp_path / "run", base_url=stub.url, template="direct")
    summary = package.label(pairs, tmp_path / "run", base_url=stub.url, template="direct", update=True)
    assert (summary.pairs, summary.asked, summary.reused) == (15, 18, 72)


def test_a_notebook_with_a_running_loop(stub: RunningStub, pairs: Path, tmp_path: Path) -> None:
    async def cell() -> int:
        return package.label(pairs, tmp_path / "run", base_url=stub.url, template="direct").judgments

    assert asyncio.run(cell()) == 72


def test_a_folder_with_labels_of_another_making_is_left_alone(stub: RunningStub, pairs: Path, tmp_path: Path) -> None:
    labels = write_lines(tmp_path / "labels.jsonl", [{"id": "mine"}])
    with pytest.raises(InputError, match=r"holds labels\.jsonl but no manifest\.json; choose another --out"):
        package.label(pairs, tmp_path, base_url=stub.url, template="direct")
    assert read_lines(labels) == [{"id": "mine"}]


@pytest.mark.parametrize(("text", "fact"), [("{bad", "Invalid JSON: "), ("{}", "settings: Field required")])
def test_a_damaged_manifest_says_what_is_wrong(
    stub: RunningStub, pairs: Path, tmp_path: Path, text: str, fact: str
) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=rf"manifest\.json: not a manifest \({fact}"):
        package.label(pairs, tmp_path, base_url=stub.url, template="direct")
