"""The starter as a judge and a policy: found wherever rlaif is, named what it is, and never passed off as more.

What it answers is measured elsewhere; here any weights do.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import pytest

import rlaif.starter
from rlaif.engines.base import identify
from rlaif.engines.factory import resolve_model
from rlaif.errors import RunError
from rlaif.starter import CHECKPOINT_FILES, JUDGE_NOTE, POLICY_NOTE, checkpoint
from tests.conftest import Cli, made_pairs, read_lines, write_lines
from tests.stub_server import RunningStub

SHORT = ("--max-tokens", "24")


@pytest.fixture
def two_pairs(tmp_path: Path) -> Path:
    """A file of two small pairs."""
    return write_lines(tmp_path / "two.jsonl", made_pairs(2))


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """A file of three prompts."""
    texts = ("What is a lighthouse?", "Please explain how bread is baked.", "Give me two facts about cats.")
    return write_lines(tmp_path / "prompts.jsonl", [{"prompt": text} for text in texts])


def digest() -> str:
    """The starter's digest, as a run finds it."""
    return resolve_model("starter", "transformers", None, {})[1].digest


def test_the_default_judge_labels_and_is_named_everywhere(two_pairs: Path, tmp_path: Path, rlaif: Cli) -> None:
    run = tmp_path / "run"
    done = rlaif("label", two_pairs, "--out", run, *SHORT)
    assert done.returncode == 0, done.stderr
    assert "2 pairs labelled, 0 rows rejected" in done.stdout
    assert "12 judgments: 12 asked, 0 reused, 0 abstained" in done.stdout
    assert done.stderr.splitlines()[0] == JUDGE_NOTE
    assert done.stderr.count(JUDGE_NOTE) == 1
    name = f"starter@{digest()[:12]}"
    lines = read_lines(run / "labels.jsonl")
    assert [line["provenance"]["judge"] for line in lines] == [name, name]
    assert all(label["p_a"] is not None for line in lines for label in line["labels"].values())
    manifest = json.loads((run / "manifest.json").read_text())
    assert (manifest["settings"]["judge"], manifest["settings"]["judge_digest"]) == ("starter", digest())
    assert "  judge: starter\n" in rlaif("show", run).stdout
    # A run may be given to others: nothing in it says where rlaif is on this machine.
    with sqlite3.connect(run / "judgments.db") as db:
        held = "\n".join(db.iterdump())
    held += "".join((run / name).read_text() for name in ("manifest.json", "labels.jsonl"))
    assert str(checkpoint()) not in held
    again = rlaif("label", two_pairs, "--out", run, *SHORT)
    assert "12 judgments: 0 asked, 12 reused" in again.stdout


def test_the_dry_run_says_it_too(two_pairs: Path, tmp_path: Path, rlaif: Cli) -> None:
    done = rlaif("label", two_pairs, "--out", tmp_path / "run", "--dry-run", "--json")
    plan = json.loads(done.stdout)
    assert (plan["pairs"], plan["requests"], plan["tokens_exact"]) == (2, 12, True)
    assert done.stderr == f"{JUDGE_NOTE}\n"


def test_an_error_stays_one_line(tmp_path: Path, rlaif: Cli) -> None:
    done = rlaif("label", tmp_path / "absent.jsonl", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert done.stderr.startswith(f"Error: {tmp_path / 'absent.jsonl'}: no such file")
    assert done.stderr.count("\n") == 1


def test_other_judges_are_not_spoken_of_so(
    two_pairs: Path, tiny_judge: Path, stub: RunningStub, tmp_path: Path, rlaif: Cli
) -> None:
    """On a server `starter` stands for the model that it serves."""
    for number, judge in enumerate((("--judge", tiny_judge, "--engine", "transformers"), ("--base-url", stub.url))):
        done = rlaif("label", two_pairs, "--template", "direct", *judge, "--out", tmp_path / f"run-{number}")
        assert done.returncode == 0, done.stderr
        assert "starter" not in done.stderr
        assert "starter@" not in (tmp_path / f"run-{number}" / "labels.jsonl").read_text()
    assert read_lines(tmp_path / "run-1" / "labels.jsonl")[0]["provenance"]["judge"].startswith("stub@")


def test_the_help_says_what_it_is(rlaif: Cli) -> None:
    text = " ".join(rlaif("label", "--help").stdout.split())
    assert "--judge starter|HUB_ID|PATH" in text
    assert "it is not for real labels. [default: starter]" in text


def test_the_starter_answers_prompts(prompts: Path, tmp_path: Path, rlaif: Cli) -> None:
    out = tmp_path / "responses.jsonl"
    done = rlaif("generate", prompts, "--policy", "starter", *SHORT, "--out", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("6 responses to 3 prompts")
    assert done.stderr == f"{POLICY_NOTE}\n"
    lines = read_lines(out)
    assert all(text.strip() for line in lines for text in line["responses"])
    assert [line["policy"] for line in lines] == [{"name": "starter", "digest": digest()}] * 3


def test_its_answers_are_labelled(prompts: Path, tiny_judge: Path, tmp_path: Path, rlaif: Cli) -> None:
    policy = ("--policy", "starter", "--policy-max-tokens", "24", "--template", "direct", "--engine", "transformers")
    done = rlaif("label", prompts, *policy, "--out", tmp_path / "both")
    assert "3 pairs labelled, 0 rows rejected" in done.stdout, done.stderr
    assert done.stderr.splitlines()[0] == JUDGE_NOTE
    assert POLICY_NOTE not in done.stderr, "one line is enough"
    assert all(line["response_a"] and line["response_b"] for line in read_lines(tmp_path / "both" / "labels.jsonl"))
    done = rlaif("label", prompts, *policy, "--judge", tiny_judge, "--out", tmp_path / "policy")
    assert "3 pairs labelled, 0 rows rejected" in done.stdout, done.stderr
    assert done.stderr.splitlines()[0] == POLICY_NOTE
    assert JUDGE_NOTE not in done.stderr


def test_the_checkpoint_holds_what_its_digest_covers() -> None:
    # A model card may be there too; documents do not count.
    assert {file.name for file in checkpoint().iterdir()} - {"README.md"} == set(CHECKPOINT_FILES)
    assert sum(file.stat().st_size for file in checkpoint().iterdir()) <= 25e6
    assert digest() == identify(str(checkpoint())).digest


def test_the_digest_is_of_the_checkpoint_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest()
    folder = Path(shutil.copytree(checkpoint(), tmp_path / "elsewhere" / "checkpoint"))
    monkeypatch.setattr(rlaif.starter, "_FOLDER", folder)
    (folder / "__pycache__").mkdir()
    for name in (".DS_Store", "config.json~", "__pycache__/left.pyc", "training_args.bin"):
        (folder / name).write_text("left by something else")
    assert digest() == before
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"model_type": "llama"', '"model_type":  "llama"'))
    assert digest() != before


def test_an_installation_without_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rlaif.starter, "_FOLDER", tmp_path)
    with pytest.raises(RunError, match=r"chat_template\.jinja: missing, .* no starter model; install rlaif again, or"):
        resolve_model("starter", "transformers", None, {})
