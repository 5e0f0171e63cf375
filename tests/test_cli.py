"""What a user types and reads: help, errors of one line, the other commands."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rlaif import load_constitution
from rlaif.cli.main import cli
from tests.conftest import Cli, environment, made_pairs, write_lines
from tests.stub_server import RunningStub

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "tests" / "data" / "pairs.jsonl"


def leaf_commands() -> list[tuple[str, ...]]:
    """Every command that does something."""
    return [
        ("label",),
        ("generate",),
        ("revise",),
        ("select",),
        ("review",),
        ("compare",),
        ("train-heads",),
        ("evaluate",),
        ("score",),
        ("export",),
        ("show",),
        ("runs", "shard"),
        ("runs", "merge"),
        ("constitution", "show"),
        ("constitution", "diff"),
        ("constitution", "test"),
        ("constitution", "new"),
        ("constitution", "set"),
        ("constitution", "schema"),
        ("prompt", "show"),
        ("reward", "best-of-n"),
        ("reward", "overoptimize"),
        ("reward", "probe"),
        ("reward", "compare"),
        ("reward", "serve"),
    ]


def test_the_commands_are_those_of_the_contract() -> None:
    assert set(cli.commands) == set()  # all lazy
    assert {name for name, *_ in leaf_commands()} == set(cli.list_commands(None))  # type: ignore[arg-type]


@pytest.mark.parametrize("command", leaf_commands())
def test_every_command_has_help_with_an_example(command: tuple[str, ...], rlaif: Cli) -> None:
    done = rlaif(*command, "--help")
    assert done.returncode == 0
    assert "Example" in done.stdout
    assert f"rlaif {' '.join(command)}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["label", "missing.jsonl", "--out", "x"], "missing.jsonl: no such file"),
        (["label", str(EXAMPLES), "--out", "x", "--constitution", "hh"], "Did you mean hhh?"),
        (["label", str(EXAMPLES), "--out", "x", "--template", "directt"], "Did you mean direct?"),
        (["label", str(EXAMPLES), "--out", "x", "--objective", "beauty"], "has the objectives helpfulness"),
        (["label", str(EXAMPLES), "--out", "x", "--judge", "./none"], "no such model folder"),
        (["label", str(EXAMPLES), "--out", "x", "--judge", str(ROOT / "docs")], "no config.json"),
        (["label", str(EXAMPLES), "--out", "x", "--engine", "server"], "needs --base-url"),
        (["label", str(EXAMPLES), "--out", "x", "--columns", "answer=x"], "expected NAME=COLUMN"),
        (["label", str(EXAMPLES), "--out", "x", "--engine-arg", "dtype"], "expected NAME=VALUE"),
        (["label", str(EXAMPLES), "--out", "x", "--samples", "0"], "--samples"),
        (
            ["label", str(EXAMPLES), "--out", "x", "--columns", "prompt=nope", "--base-url", "{stub}"],
            "no column 'nope' (--columns prompt=nope); the row has the columns id, prompt,",
        ),
        (["show", "nowhere"], "no manifest.json"),
        (["nonsense"], "nonsense"),
    ],
)
def test_a_mistake_is_answered_by_one_line(
    arguments: list[str], expected: str, rlaif: Cli, stub: RunningStub, tmp_path: Path
) -> None:
    out = str(tmp_path / "x")
    done = rlaif(*(stub.url if word == "{stub}" else out if word == "x" else word for word in arguments))
    assert done.returncode == 2
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_constitution_s_problems_are_told_with_their_lines(stub: RunningStub, rlaif: Cli, tmp_path: Path) -> None:
    text = (ROOT / "constitutions" / "hhh.yaml").read_text()
    broken = tmp_path / "mine.yaml"
    broken.write_text(text.replace("weight: 0.2", "wieght: 0.2").replace("floors: {harmlessness", "floors: {harm"))
    done = rlaif("label", EXAMPLES, "--out", tmp_path / "x", "--base-url", stub.url, "--constitution", broken)
    assert done.returncode == 2
    lines = broken.read_text().splitlines()
    wrong_key = next(n for n, line in enumerate(lines, 1) if "wieght" in line)
    wrong_floor = next(n for n, line in enumerate(lines, 1) if "floors" in line)
    assert f"{broken}:{wrong_key}: unknown key wieght" in done.stderr
    assert "Did you mean 'weight'?" in done.stderr
    assert f"{broken}:{wrong_floor}: floors names 'harm'" in done.stderr


def test_show_prints_a_pair_side_by_side(stub: RunningStub, rlaif: Cli, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert rlaif("label", EXAMPLES, "--base-url", stub.url, "--out", run).returncode == 0
    shown = rlaif("show", run, "tides").stdout
    for text in ("Why are there tides?", "helpfulness, a shown first", "helpfulness, b shown first", "overall"):
        assert text in shown
    value = json.loads(rlaif("show", run, "tides", "--json").stdout)
    assert value["label"]["id"] == "tides"
    assert len(value["judgments"]) == 6
    assert "judgments: 36" in rlaif("show", run).stdout
    missing = rlaif("show", run, "nobody")
    assert missing.returncode == 2
    assert "holds no pair 'nobody'" in missing.stderr


def test_prompt_show_prints_what_the_judge_is_sent(stub: RunningStub, rlaif: Cli, tmp_path: Path) -> None:
    arguments = ("prompt", "show", "direct", "--constitution", "hhh", "--pair", EXAMPLES, "--json")
    shown = json.loads(rlaif(*arguments).stdout)
    assert [request["objective"] for request in shown] == ["helpfulness", "harmlessness", "honesty"]
    data = write_lines(tmp_path / "one.jsonl", [json.loads(EXAMPLES.read_text().splitlines()[0])])
    assert (
        rlaif("label", data, "--base-url", stub.url, "--template", "direct", "--out", tmp_path / "run").returncode == 0
    )
    sent = [body["messages"] for body in stub.state.bodies if body.get("continue_final_message")]
    for request in shown:
        assert [*request["messages"], {"role": "assistant", "content": "Verdict:"}] in sent
    text = rlaif(*arguments[:-1], "--order", "ba", "--objective", "honesty").stdout
    assert "=== honesty, order ba" in text
    assert text.index("Because the wind blows") < text.index("Mostly because the Moon")


def test_prompt_show_prints_critiques_and_revisions(rlaif: Cli) -> None:
    pair = json.loads(EXAMPLES.read_text().splitlines()[0])
    arguments = ("--pair", EXAMPLES, "--json")
    critiques = json.loads(rlaif("prompt", "show", "critique", *arguments).stdout)
    rules = [(name, rule) for name, each in load_constitution("hhh").objectives.items() for rule in each.principles]
    assert [(row["objective"], row["principle"]) for row in critiques] == [(name, rule.id) for name, rule in rules]
    for row, (_, rule) in zip(critiques, rules, strict=True):
        assert pair["response_a"] in row["messages"][-1]["content"]
        assert row["messages"][-1]["content"].endswith(f"Principle: {rule.text}")
    (other,) = json.loads(
        rlaif("prompt", "show", "critique", *arguments, "--order", "ba", "--principle", "no-cruelty").stdout
    )
    assert pair["response_b"] in other["messages"][-1]["content"]
    assert pair["response_a"] not in other["messages"][-1]["content"]
    revision = ("prompt", "show", "revision", "--pair", EXAMPLES, "--principle", "no-cruelty")
    text = rlaif(*revision, "--critique", "It mocks.").stdout
    assert "=== revision by no-cruelty (harmlessness)\n--- system\n" in text
    assert "critique]\nIt mocks.\n[" in text
    assert "(the judge's critique; give one with --critique)" in rlaif(*revision).stdout


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        (("critique", "--principle", "no-cruely"), "Did you mean 'no-cruelty'?"),
        (("critique", "--critique", "Bad."), "--critique: a critique shows none; leave it out"),
        (("direct", "--critique", "Bad."), "--critique: a comparison shows none; leave it out"),
        (("rating", "--principle", "no-cruelty"), "--principle: a rating shows all of an objective; give --objective."),
        (("revision", "--objective", "honsty"), "Did you mean honesty?"),
    ],
)
def test_prompt_show_refuses_in_one_line(arguments: tuple[str, ...], fact: str, rlaif: Cli) -> None:
    done = rlaif("prompt", "show", *arguments, "--pair", EXAMPLES)
    assert done.returncode == 2
    assert fact in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_results_go_to_stdout_and_nothing_else_does(stub: RunningStub, rlaif: Cli, tmp_path: Path) -> None:
    data = write_lines(tmp_path / "pairs.jsonl", made_pairs(3))
    done = rlaif("label", data, "--base-url", stub.url, "--template", "direct", "--out", tmp_path / "run", "--json")
    summary = json.loads(done.stdout)
    assert (summary["pairs"], summary["judgments"]) == (3, 18)
    assert done.stderr == ""  # no progress where stderr is no terminal


def test_streams_that_are_closed(stub: RunningStub, tmp_path: Path) -> None:
    """A service may start without stdout and stderr: the exit code tells what it always tells."""
    data = write_lines(tmp_path / "pairs.jsonl", made_pairs(1))
    command = f"{sys.executable} -m rlaif label --base-url {stub.url} --template direct --out {tmp_path / 'run'}"
    for arguments, code in ((data, 0), (tmp_path / "absent.jsonl", 2)):
        done = subprocess.run(["sh", "-c", f"{command} {arguments} >&- 2>&-"], env=environment(), check=False)
        assert done.returncode == code


def test_the_id_of_show_is_optional(rlaif: Cli) -> None:
    assert "RUN [ID]" in rlaif("show", "--help").stdout
