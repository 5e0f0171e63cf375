"""`rlaif constitution new`: answers from flags or from a terminal become a file that loads and lints clean."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlaif import load_constitution
from rlaif.constitution.draft import equal_weights, principle_from
from rlaif.constitution.json_schema import schema_text
from tests.conftest import ROOT, Cli, environment

SCHEMA_LINE = "# yaml-language-server: $schema=constitution.schema.json"
KIND = ("--name", "kind", "--objective", "kindness:1:Which response is kinder?")


def new(rlaif: Cli, file: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return rlaif("constitution", "new", file, *arguments)


def lines_of(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines()


def test_all_defaults_make_a_clean_file(rlaif: Cli, tmp_path: Path) -> None:
    file = tmp_path / "team rules.yaml"
    done = new(rlaif, file, "--yes")
    assert done.returncode == 0, done.stderr
    made = load_constitution(file)
    assert (made.name, made.version) == ("team-rules", "0.1.0")
    assert {name: each.weight for name, each in made.objectives.items()} == {
        "helpfulness": 0.4,
        "harmlessness": 0.4,
        "honesty": 0.2,
    }
    assert all(len(rule.cases) == 1 for each in made.objectives.values() for rule in each.principles)
    assert lines_of(file)[0] == SCHEMA_LINE
    assert (tmp_path / "constitution.schema.json").read_text(encoding="utf-8") == schema_text()
    assert f"Wrote {file}: {made.reference}, helpfulness, harmlessness, honesty, 3 principles" in done.stdout
    for step in ("lint", "test"):
        assert f"rlaif constitution {step} {file}" in done.stdout
    assert "rlaif label DATA --constitution" in done.stdout
    lint = rlaif("constitution", "lint", file, "--strict")
    assert lint.returncode == 0, lint.stdout


def test_every_answer_can_be_given(rlaif: Cli, tmp_path: Path) -> None:
    file = tmp_path / "kind.yaml"
    done = new(
        rlaif,
        file,
        *("--name", "kind", "--description", "For people who are sad: it listens."),
        *("--objective", "kindness:0.75:Which response is kinder?", "--objective", "truth:0.25:Which is truer?"),
        *("--principle", "kindness:listens:Prefer the response that takes the person's feelings up."),
        *("--principle", "truth:no-lie:Prefer the response that holds no lie: none at all."),
        *("--case", "listens|I failed.|I am sorry, that hurts.|So what?", "--case", "no-lie|Is 2 + 2 five?|No.|Yes."),
    )
    assert done.returncode == 0, done.stderr
    made = load_constitution(file)
    assert made.description == "For people who are sad: it listens."
    assert {name: each.weight for name, each in made.objectives.items()} == {"kindness": 0.75, "truth": 0.25}
    listens, lie = (each.principles[0] for each in made.objectives.values())
    assert (listens.id, listens.cases[0].worse) == ("listens", "So what?")
    assert lie.text == "Prefer the response that holds no lie: none at all."
    lint = rlaif("constitution", "lint", file, "--strict")
    assert lint.returncode == 0, lint.stdout


def test_a_principle_is_made_from_the_question(rlaif: Cli, tmp_path: Path) -> None:
    file = tmp_path / "kind.yaml"
    assert new(rlaif, file, *KIND).returncode == 0
    (rule,) = load_constitution(file).objectives["kindness"].principles
    assert (rule.id, rule.text) == ("kinder", "Prefer the response that is kinder.")
    assert principle_from("Which response does less harm?") == "Prefer the response that does less harm."
    assert principle_from("What is better?") is None
    refused = new(rlaif, tmp_path / "other.yaml", "--name", "x", "--objective", "a:1:What is better?")
    assert refused.returncode == 2
    assert "give --principle a:ID:TEXT." in refused.stderr
    lint = rlaif("constitution", "lint", file)
    assert (lint.returncode, lint.stdout.count("[no-cases]"), lint.stdout.count("warning:")) == (0, 1, 1)


def test_weights_that_are_not_given_are_shared_out(rlaif: Cli, tmp_path: Path) -> None:
    file = tmp_path / "three.yaml"
    arguments = [text for name in ("brief", "kind", "true") for text in ("--objective", name)]
    assert new(rlaif, file, "--name", "three", *arguments).returncode == 0
    assert [each.weight for each in load_constitution(file).objectives.values()] == [0.34, 0.33, 0.33]
    for count in (1, 3, 6, 7):
        assert round(sum(equal_weights(count)), 9) == 1


def test_a_copy_keeps_the_comments(rlaif: Cli, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    arguments = ("--name", "mine", "--from", "hhh", "--objective", "honesty:0.3", "--objective", "brevity:0.1")
    assert new(rlaif, file, *arguments).returncode == 0
    source = lines_of(ROOT / "constitutions" / "hhh.yaml")
    made = lines_of(file)
    assert made[:2] == [SCHEMA_LINE, "# Started as a copy of hhh 1.0.0."]
    changed = {"name: hhh", "version: 1.0.0", "    weight: 0.2", source[0]}
    kept = iter(made)
    assert [line for line in source if line not in changed and line not in kept] == []
    mine = load_constitution(file)
    assert (mine.version, mine.objectives["honesty"].weight, mine.objectives["brevity"].weight) == ("0.1.0", 0.3, 0.1)
    assert mine.description == load_constitution("hhh").description


def test_one_that_extends_holds_only_what_differs(rlaif: Cli, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    assert new(rlaif, file, "--name", "mine", "--extends", "hhh", "--description", "Ours.").returncode == 0
    assert load_constitution(file).objectives == load_constitution("hhh").objectives
    assert "#       - id: answers-the-request" in lines_of(file)
    # A file is named by the way from the new one's folder.
    (tmp_path / "below").mkdir()
    child = tmp_path / "below" / "child.yaml"
    arguments = ("--name", "child", "--extends", str(file), "--objective", "honesty:0.6")
    assert new(rlaif, child, *arguments, "--principle", "honesty:own:Prefer our own.").returncode == 0
    assert "extends: ../mine.yaml" in lines_of(child)
    made = load_constitution(child)
    assert made.objectives["honesty"].weight == 0.6
    assert [rule.id for rule in made.objectives["honesty"].principles] == ["no-falsehood", "admits-doubt", "own"]
    copied = tmp_path / "copied.yaml"
    assert new(rlaif, copied, "--name", "copied", "--from", str(child)).returncode == 0
    assert "extends: mine.yaml" in lines_of(copied)
    assert load_constitution(copied).objectives == made.objectives


def test_the_schema_beside_the_file_is_used(rlaif: Cli, tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text(schema_text(), encoding="utf-8")
    assert new(rlaif, tmp_path / "kind.yaml", *KIND).returncode == 0
    assert lines_of(tmp_path / "kind.yaml")[0].endswith("$schema=schema.json")
    assert new(rlaif, tmp_path / "far.yaml", *KIND, "--schema", "https://example.org/s.json").returncode == 0
    assert lines_of(tmp_path / "far.yaml")[0].endswith("$schema=https://example.org/s.json")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["far.yaml", "kind.yaml", "schema.json"]
    (tmp_path / "schema.json").write_text("{}", encoding="utf-8")
    (tmp_path / "constitution.schema.json").write_text("{}", encoding="utf-8")
    refused = new(rlaif, tmp_path / "more.yaml", *KIND)
    assert (refused.returncode, (tmp_path / "more.yaml").exists()) == (2, False)
    assert "is no schema of rlaif's" in refused.stderr


def test_a_file_is_replaced_only_by_force(rlaif: Cli, tmp_path: Path) -> None:
    file = tmp_path / "kind.yaml"
    file.write_text("precious\n", encoding="utf-8")
    refused = new(rlaif, file, *KIND)
    assert refused.returncode == 2
    assert refused.stderr == f"Error: {file}: is there already; give another name, or --force to replace it.\n"
    assert file.read_text(encoding="utf-8") == "precious\n"
    assert new(rlaif, file, *KIND, "--force").returncode == 0
    assert load_constitution(file).name == "kind"


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        ((), "missing --name and one of --from, --extends and --objective; there is no terminal to ask on"),
        (("--name", "x"), "missing one of --from, --extends and --objective;"),
        (("--name", "my own", "--from", "hhh"), "--name: 'my own' is no name; use letters, digits, - and _ only"),
        (("--name", "x", "--from", "hh"), "Did you mean hhh?"),
        (("--name", "x", "--from", "hhh", "--extends", "hhh"), "--from and --extends are both given"),
        (("--name", "x", "--objective", "kind:heavy"), "--objective 'kind:heavy': 'heavy' is no weight"),
        (("--name", "x", "--objective", "kind:-1"), "'-1' is no weight; expected a number that is 0 or more"),
        (("--name", "x", "--objective", "a b:1"), "--objective 'a b:1': 'a b' is no name"),
        (("--name", "x", "--objective", "a:1", "--objective", "a:2"), "a is given twice"),
        (("--name", "x", "--objective", "a:0"), "every objective has weight 0"),
        ((*KIND, "--principle", "kind:x:Prefer x."), "names 'kind'; there are kindness."),
        ((*KIND, "--principle", "kindness:x"), "expected OBJECTIVE:ID:TEXT"),
        ((*KIND, "--case", "kindr|p|b|w"), "names 'kindr'; there are kinder."),
        ((*KIND, "--case", "kinder|p|b"), "expected ID|PROMPT|BETTER|WORSE."),
        ((*KIND, "--case", "kinder|p|same|Same"), "the same but for spaces and capitals"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_line(
    arguments: tuple[str, ...], fact: str, rlaif: Cli, tmp_path: Path
) -> None:
    done = new(rlaif, tmp_path / "mine.yaml", *arguments)
    assert done.returncode == 2
    assert fact in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("file", "fact"), [("mine", "add the ending"), ("none/mine.yaml", "in a folder that exists"), ("d.yaml", "exists")]
)
def test_places_where_no_file_can_be(file: str, fact: str, rlaif: Cli, tmp_path: Path) -> None:
    (tmp_path / "d.yaml").mkdir()
    done = new(rlaif, tmp_path / file, *KIND)
    assert done.returncode == 2
    assert fact in done.stderr


class Terminal:
    """The command on a real terminal, with answers typed as its questions come."""

    def __init__(self, *arguments: str) -> None:
        ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "rlaif", "constitution", "new", *arguments]
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment(), start_new_session=True
        )
        os.close(theirs)
        self.screen, self.text = ours, ""

    def until(self, question: str) -> None:
        limit = time.monotonic() + 60
        while question not in self.text:
            assert time.monotonic() < limit, self.text
            self.text += os.read(self.screen, 4096).decode()
        self.text = self.text.partition(question)[2]

    def answer(self, question: str, text: str = "") -> None:
        self.until(question)
        os.write(self.screen, f"{text}\n".encode())

    def interrupted(self) -> int:
        # A signal just before the command waits for the answer is seen with the next one.
        while self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            time.sleep(0.1)
        return self.end()

    def end(self) -> int:
        code = self.process.wait(timeout=60)
        os.close(self.screen)
        return code


def test_questions_on_a_terminal(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    terminal = Terminal(str(file))
    # What cannot be used is refused at once and asked for again.
    terminal.answer("Name [mine]:", "my own")
    terminal.until("Error: 'my own' is no name")
    terminal.answer("Name [mine]:", "ours")
    terminal.answer("What is the assistant for?", "It helps cooks.")
    terminal.answer("Start blank", "")
    terminal.answer("Objectives [", "helpfulness, brevity")
    terminal.answer("Weight [0.5]:", "-2")
    terminal.until("Error: '-2' is no weight")
    terminal.answer("Weight [0.5]:", "0.7")
    terminal.answer("Question [Which response helps the person more?]:")
    terminal.answer("First principle [", "")
    terminal.answer("Its id [answers-the-request]:")
    terminal.answer("A prompt to test it with (- for none) [What is 12 x 9?]:")
    terminal.answer("The better response [12 x 9 is 108.]:")
    terminal.answer("The worse response [I like numbers.]:")
    terminal.answer("Weight [0.5]:", "0.3")
    terminal.answer("Question [", "Which response is shorter?")
    terminal.answer("First principle [Prefer the response that is shorter.]:")
    terminal.answer("Its id [shorter]:", "answers-the-request")
    terminal.until("is the id of another principle")
    terminal.answer("Its id [shorter]:")
    terminal.answer("A prompt to test it with (- for none) [-]:", "Salt?")
    terminal.answer("The better response:", "Yes.")
    terminal.answer("The worse response:", "yes.")
    terminal.until("that is the better response again")
    terminal.answer("The worse response:", "Yes, I would add some salt.")
    terminal.until("Next:")
    assert terminal.end() == 0
    made = load_constitution(file)
    assert (made.name, made.description) == ("ours", "It helps cooks.")
    assert {name: each.weight for name, each in made.objectives.items()} == {"helpfulness": 0.7, "brevity": 0.3}
    (rule,) = made.objectives["brevity"].principles
    assert (rule.id, rule.cases[0].better) == ("shorter", "Yes.")


def test_a_terminal_can_extend(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    terminal = Terminal(str(file), "--name", "mine")
    terminal.answer("What is the assistant for?")
    terminal.answer("Start blank", "extend")
    terminal.answer("Which one (", "hhhh")
    terminal.until("Did you mean hhh?")
    terminal.answer("Which one (", "hhh")
    terminal.answer("Weight of helpfulness [0.4]:")
    terminal.answer("Weight of harmlessness [0.4]:", "0.5")
    terminal.answer("Weight of honesty [0.2]:", "0.1")
    terminal.until("Next:")
    assert terminal.end() == 0
    text = file.read_text(encoding="utf-8")
    assert "objectives:\n  harmlessness:\n    weight: 0.5\n  honesty:\n    weight: 0.1\n" in text
    assert load_constitution(file).objectives["honesty"].weight == 0.1


def test_an_interruption_leaves_nothing_behind(tmp_path: Path) -> None:
    terminal = Terminal(str(tmp_path / "mine.yaml"))
    terminal.answer("Name [mine]:")
    terminal.until("What is the assistant for?")
    assert terminal.interrupted() == 1
    assert list(tmp_path.iterdir()) == []
