"""Prompts only: sampling a policy's responses, and labelling them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import rlaif as package
from rlaif.errors import InputError
from tests.conftest import Cli, read_lines, write_lines
from tests.stub_server import RunningStub

EXAMPLES = Path(__file__).parent / "data" / "prompts.jsonl"


def test_responses_are_sampled_and_continued(tiny_judge: Path, tmp_path: Path) -> None:
    out = tmp_path / "responses.jsonl"
    options = {"policy": str(tiny_judge), "engine": "transformers", "max_tokens": 12}
    summary = package.generate(EXAMPLES, out, n=3, **options)  # type: ignore[arg-type]
    assert (summary.prompts, summary.responses, summary.asked, summary.failed) == (4, 12, 12, 0)
    lines = read_lines(out)
    assert [line["id"] for line in lines] == ["rainbow", "letter", "lottery", "shop"]
    assert all(len(set(line["responses"])) == 3 for line in lines), "samples at temperature 1 differ"
    assert "response_a" not in lines[0]
    assert lines[3]["prompt"][1] == {"role": "assistant", "content": "Hello, how can I help?"}
    first = out.read_bytes()
    again = package.generate(EXAMPLES, out, n=3, **options)  # type: ignore[arg-type]
    assert (again.asked, again.reused) == (0, 12)
    assert out.read_bytes() == first
    more = package.generate(EXAMPLES, out, n=4, **options)  # type: ignore[arg-type]
    assert (more.asked, more.reused) == (4, 12)


def test_prompts_are_labelled_through_a_policy(tiny_judge: Path, tmp_path: Path, rlaif: Cli) -> None:
    options = ("--policy", tiny_judge, "--policy-max-tokens", "12", "--judge", tiny_judge, "--engine", "transformers")
    run = tmp_path / "run"
    done = rlaif("label", EXAMPLES, *options, "--template", "direct", "--out", run)
    assert done.returncode == 0, done.stderr
    assert "4 pairs labelled, 0 rows rejected" in done.stdout
    responses = {line["id"]: line for line in read_lines(run / "responses.jsonl")}
    for line in read_lines(run / "labels.jsonl"):
        assert line["response_a"] == responses[line["id"]]["response_a"]
        assert line["response_a"] != line["response_b"]
    again = rlaif("label", EXAMPLES, *options, "--template", "direct", "--out", run)
    assert "24 judgments: 0 asked, 24 reused" in again.stdout


def test_policy_and_judge_on_a_server(stub: RunningStub, tmp_path: Path) -> None:
    """A policy that always answers the same makes equal pairs; they are labelled, as what they are."""
    prompts = write_lines(tmp_path / "prompts.jsonl", [{"prompt": f"Question {n}?"} for n in range(5)])
    summary = package.label(prompts, tmp_path / "run", policy="stub", base_url=stub.url, template="direct")
    assert (summary.pairs, summary.judgments) == (5, 30)
    policy_bodies = [body for body in stub.state.bodies if "seed" in body]
    assert len(policy_bodies) == 10
    assert {body["messages"][0]["role"] for body in policy_bodies} == {"user"}
    # Equal responses make both orders one prompt: the probabilities mirror each other and the label is a tie.
    for line in read_lines(tmp_path / "run" / "labels.jsonl"):
        assert line["response_a"] == line["response_b"]
        assert {label["preference"] for label in line["labels"].values()} == {"tie"}


def test_prompts_without_a_policy_say_what_to_add(stub: RunningStub, tmp_path: Path, rlaif: Cli) -> None:
    done = rlaif("label", EXAMPLES, "--base-url", stub.url, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "holds prompts and no responses; add --policy MODEL" in done.stderr


def test_one_response_at_temperature_zero_is_fine_two_are_not(tiny_judge: Path, tmp_path: Path) -> None:
    options = {"policy": str(tiny_judge), "engine": "transformers", "max_tokens": 4, "temperature": 0.0}
    assert package.generate(EXAMPLES, tmp_path / "one.jsonl", n=1, **options).responses == 4  # type: ignore[arg-type]
    with pytest.raises(InputError, match="gives the same response 2 times"):
        package.generate(EXAMPLES, tmp_path / "two.jsonl", n=2, **options)  # type: ignore[arg-type]


def test_prompts_that_cannot_be_used_are_rejected_with_a_policy_too(stub: RunningStub, tmp_path: Path) -> None:
    prompts = write_lines(tmp_path / "prompts.jsonl", [{"prompt": "One?"}, {"prompt": 5}, {"prompt": "Two?"}])
    options: dict[str, Any] = {"policy": "stub", "base_url": stub.url, "template": "direct"}
    with pytest.raises(InputError, match=r"jsonl:2: prompt is a number.*\n1 row cannot be used"):
        package.label(prompts, tmp_path / "strict", strict=True, **options)
    assert not (tmp_path / "strict").exists()
    summary = package.label(prompts, tmp_path / "run", **options)
    assert (summary.pairs, summary.rejected) == (2, 1)
    assert [reject["line"] for reject in read_lines(tmp_path / "run" / "rejects.jsonl")] == [2]
    assert package.label(EXAMPLES, tmp_path / "all", strict=True, **options).rejected == 0


def test_a_policy_does_not_replace_the_responses_of_the_data(stub: RunningStub, pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds responses already; drop --policy"):
        package.label(pairs, tmp_path / "run", policy="stub", base_url=stub.url)
    assert not (tmp_path / "run").exists()


def test_a_first_try_that_asked_nothing_can_be_corrected(stub: RunningStub, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(InputError, match="serves stub, not stubb"):
        package.label(EXAMPLES, run, policy="stubb", base_url=stub.url, template="direct")
    assert package.label(EXAMPLES, run, policy="stub", base_url=stub.url, template="direct").pairs == 4
    with pytest.raises(InputError, match="made with other settings"):
        package.label(EXAMPLES, run, policy="stub", base_url=stub.url, template="pairwise-cot")


def test_a_file_of_another_making_is_not_overwritten(stub: RunningStub, tmp_path: Path) -> None:
    prompts = write_lines(tmp_path / "prompts.jsonl", [{"prompt": "One?"}])
    before = prompts.read_bytes()
    with pytest.raises(InputError, match="exists and was not made by rlaif generate"):
        package.generate(prompts, prompts, policy="stub", base_url=stub.url)
    assert prompts.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["prompts.jsonl"]
