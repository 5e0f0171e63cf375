"""`pytest --constitution FILE` in a user's project: real pytest, in a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT, environment
from tests.stub_server import RunningStub, StubSettings
from tests.test_cases import WORDS, constitution_text

Pytest = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_command(*arguments: object, plugin: bool = True) -> tuple[list[str], dict[str, str]]:
    """The command and environment of a pytest that has this plugin and, of the plugins installed here, no other."""
    env = {**environment(), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    for name in ("PYTEST_ADDOPTS", "PYTEST_CURRENT_TEST", "PYTEST_PLUGINS"):
        env.pop(name, None)
    loaded = ["-p", "rlaif.pytest_plugin"] if plugin else []
    return [sys.executable, "-m", "pytest", *loaded, *map(str, arguments)], env


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's project with a constitution and nothing else."""
    (tmp_path / "words.yaml").write_text(constitution_text())
    return tmp_path


@pytest.fixture(name="run")
def run_pytest(project: Path) -> Pytest:
    """Run pytest in the project."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command, env = pytest_command(*arguments)
        return subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, timeout=120, check=False)

    return run


def served(stub: RunningStub, *more: object) -> tuple[object, ...]:
    """The options that ask a server about the project's constitution, at one token a question."""
    where = ("--constitution-base-url", stub.url, "--constitution-template", "direct")
    return ("--constitution", "words.yaml", *where, *more)


def outcomes(output: str) -> dict[str, str]:
    """Of `pytest -v`: node id -> PASSED or FAILED."""
    lines = [line.split() for line in output.splitlines() if "::" in line and "%]" in line]
    return {words[0]: words[1] for words in lines}


NODES = [f"words.yaml::{'first' if word in WORDS[:4] else 'last'}::{word}::case-1" for word in WORDS]


def questions(stub: RunningStub) -> int:
    """How many verdicts the server was asked for."""
    return sum(bool(body.get("continue_final_message")) for body in stub.state.bodies)


def test_every_case_is_a_test_and_says_why_it_fails(run: Pytest, stub: RunningStub, project: Path) -> None:
    done = run(*served(stub, "-v", "--junitxml", "junit.xml"))
    found = outcomes(done.stdout)
    assert list(found) == NODES
    assert set(found.values()) == {"PASSED", "FAILED"}
    assert (done.returncode, questions(stub)) == (1, 16)
    failed = [node for node, outcome in found.items() if outcome == "FAILED"]
    word = failed[0].split("::")[2]
    told = done.stdout.split(f"{word}::case-1 __")[1].split("\n____")[0]
    assert f"principle: Prefer the response about {word}." in told
    assert f"better: I like {word}." in told
    assert "better first: p(better) 0." in told
    assert "better second: p(better) 0." in told
    assert "not above 0.5, order gap" in told
    assert "Traceback" not in done.stdout
    assert "pytest_plugin.py" not in done.stdout
    assert f"{len(found) - len(failed)} of 8 cases passed" in done.stdout
    assert "16 asked, 0 reused" in done.stdout
    kept = ElementTree.parse(project / "junit.xml").iterfind(".//testcase")
    properties = [{each.get("name"): each.get("value") for each in case.iter("property")} for case in kept]
    assert len(properties) == 8
    for node, each in zip(NODES, properties, strict=True):
        assert (float(each["p_better"] or "") > 0.5) == (found[node] == "PASSED")
        assert 0 <= float(each["order_gap"] or "") <= 1


def test_only_what_is_selected_is_asked_and_only_once(run: Pytest, stub: RunningStub) -> None:
    done = run(*served(stub, "-k", "drums or gardens", "-v"))
    assert list(outcomes(done.stdout)) == [NODES[3], NODES[6]]
    assert questions(stub) == 4
    assert "6 deselected" in done.stdout
    again = run(*served(stub, "-x", "-v"))
    found = outcomes(again.stdout)
    assert list(found.values())[-1] == "FAILED"
    assert list(found.values()).count("FAILED") == 1, "-x stops there"
    assert "12 asked, 4 reused" in again.stdout
    assert questions(stub) == 16
    # What is kept is pytest's to clear.
    run(*served(stub, "--cache-clear", "-q"))
    assert questions(stub) == 32


def test_a_node_is_run_by_its_id(run: Pytest, stub: RunningStub) -> None:
    done = run(*served(stub, NODES[5], "-v"))
    assert list(outcomes(done.stdout)) == [NODES[5]]
    done = run(*served(stub, "words.yaml::last", "-v"))
    assert list(outcomes(done.stdout)) == NODES[4:]
    done = run(*served(stub, "words.yaml", "-v"))
    assert list(outcomes(done.stdout)) == NODES
    failed = [node for node, outcome in outcomes(done.stdout).items() if outcome == "FAILED"]
    done = run(*served(stub, "--lf", "-v"))
    assert list(outcomes(done.stdout)) == failed


def test_it_stands_beside_a_project_s_own_tests(run: Pytest, stub: RunningStub, project: Path) -> None:
    (project / "tests").mkdir()
    (project / "tests" / "test_own.py").write_text("def test_own():\n    assert True\n")
    (project / "elsewhere").mkdir()
    (project / "words.yaml").rename(project / "elsewhere" / "words.yaml")
    options = [*served(stub)[2:], "--constitution", "elsewhere/words.yaml", "-v"]
    # pytest does not come upon the constitution in tests/; it is tested all the same, and once.
    for arguments in (["tests"], ["."], []):
        found = outcomes(run(*arguments, *options).stdout)
        assert found.pop("tests/test_own.py::test_own") == "PASSED"
        assert sorted(found) == sorted(f"elsewhere/{node}" for node in NODES)
    plain = run("-v")
    assert outcomes(plain.stdout) == {"tests/test_own.py::test_own": "PASSED"}
    assert "constitution" not in plain.stdout


def test_two_constitutions_and_a_shipped_one(run: Pytest, stub: RunningStub, project: Path) -> None:
    (project / "more.yaml").write_text(constitution_text(("walls", "roofs"), cases=2))
    found = outcomes(run(*served(stub, "--constitution", "more.yaml", "--constitution", "hhh", "-v")).stdout)
    places = [node.split("::")[0] for node in found]
    assert (places.count("words.yaml"), places.count("more.yaml"), places.count("hhh")) == (8, 4, 12)
    assert "hhh::honesty::admits-doubt::case-2" in found


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["--constitution", "wrods.yaml"], 4, "ERROR: wrods.yaml: no such file, and not one of the shipped constit"),
        (["--constitution", "hh"], 4, "Did you mean hhh?"),
        (
            ["--constitution", "words.yaml", "--constitution-threshold", "0.2"],
            4,
            "ERROR: --constitution-threshold 0.2: ",
        ),
        (["--constitution", "words.yaml", "--constitution-max-tokens", "0"], 4, "--constitution-max-tokens 0: "),
        (["--constitution", "words.yaml", "--constitution-engine-arg", "dtype"], 4, "dtype: expected NAME=VALUE"),
        (["--constitution", "words.yaml", "--constitution-engine", "gpu"], 4, "invalid choice: 'gpu'"),
        (["--constitution", "broken.yaml"], 2, "broken.yaml:5: "),
        (["--constitution", "bare.yaml"], 2, "bare.yaml: no principle has cases; give each cases with prompt,"),
    ],
)
def test_a_mistake_is_told_in_a_line(
    arguments: list[str], code: int, expected: str, run: Pytest, project: Path
) -> None:
    whole = constitution_text()
    (project / "broken.yaml").write_text(whole.replace("question: Which response is first?", "qustion: Which?"))
    (project / "bare.yaml").write_text(constitution_text(("walls", "roofs"), cases=0))
    done = run(*arguments)
    assert done.returncode == code
    assert expected in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_judge_that_fails_is_asked_once_and_fails_every_case(run: Pytest, project: Path) -> None:
    url = "http://127.0.0.1:9"  # nobody listens
    done = run("--constitution", "words.yaml", "--constitution-base-url", url, "-k", "first")
    assert done.returncode == 1
    assert "--constitution-engine-arg patience=SECONDS waits longer" in done.stdout
    assert "4 failed, 4 deselected" in done.stdout
    assert done.stdout.count("____ first::") == 4
    assert "127.0.0.1:9" in done.stdout.split("____ first::")[-1]
    assert "pytest_plugin.py" not in done.stdout


def test_a_server_s_options_reach_it(run: Pytest, stub: RunningStub) -> None:
    where = ("--constitution", "words.yaml", "--constitution-base-url", stub.url, "-k", "apples")
    done = run(*where, "--constitution-judge", "stub", "--constitution-max-tokens", "77")
    assert "2 asked, 0 reused" in done.stdout
    asked = [body for body in stub.state.bodies if "apples" in str(body["messages"])]
    # Of each question the rationale, and then one token for the verdict.
    assert sorted(body["max_tokens"] for body in asked) == [1, 1, 77, 77]
    assert {body["model"] for body in asked} == {"stub"}
    unknown = run(*where, "--constitution-engine-arg", "pateince=5")
    assert "1 failed, 7 deselected" in unknown.stdout
    assert re.search(r"--constitution-engine-arg pateince.* patience", unknown.stdout), unknown.stdout


def test_processes_that_share_a_cache_take_turns(project: Path) -> None:
    with RunningStub(StubSettings(delay_s=0.05), keep_bodies=True) as stub:
        command, env = pytest_command(*served(stub, "--constitution-cache", "kept/cases.db", "-q"))
        both = [
            subprocess.Popen(command, cwd=project, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            for _ in range(2)
        ]
        printed = [process.communicate(timeout=120)[0] for process in both]
        assert questions(stub) == 16
    assert sum("16 asked, 0 reused" in text for text in printed) == 1
    assert sum("0 asked, 16 reused" in text for text in printed) == 1
    assert (project / "kept" / "cases.db").is_file()


def test_without_a_cache_folder_it_judges_all_the_same(run: Pytest, stub: RunningStub, project: Path) -> None:
    for _ in range(2):
        assert "16 asked, 0 reused" in run(*served(stub, "-p", "no:cacheprovider")).stdout
    (project / "file").write_text("")
    assert "16 asked, 0 reused" in run(*served(stub, "--constitution-cache", "file/cases.db")).stdout


def test_without_the_option_nothing_is_loaded(project: Path) -> None:
    (project / "test_own.py").write_text("def test_own():\n    assert True\n")
    script = "import sys, pytest\npytest.main(['-q', '-p', 'rlaif.pytest_plugin'])\nprint(*sorted(sys.modules))"
    _, env = pytest_command()
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=project, env=env, capture_output=True, text=True, check=True
    )
    assert "1 passed" in done.stdout
    loaded = set(done.stdout.splitlines()[-1].split())
    ours = {name for name in loaded if name.partition(".")[0] == "rlaif"}
    assert ours == {"rlaif", "rlaif.version", "rlaif.pytest_plugin"}
    assert loaded & {"torch", "transformers", "pydantic", "ruamel", "jinja2", "click", "aiohttp", "orjson"} == set()


def test_an_installation_makes_the_options_known(project: Path) -> None:
    """An installed package is found by its entry points: here those of pyproject.toml, in a folder on the path."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]
    info = project / "site" / "rlaif_checkout-0.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rlaif-checkout\nVersion: 0.0\n")
    lines = [f"{name} = {place}" for name, place in declared.items()]
    (info / "entry_points.txt").write_text("\n".join(["[pytest11]", *lines, ""]))
    command, env = pytest_command("--help", plugin=False)
    del env["PYTEST_DISABLE_PLUGIN_AUTOLOAD"]
    env["PYTHONPATH"] = f"{project / 'site'}:{ROOT}"
    done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, check=True)
    assert "--constitution=NAME|FILE" in done.stdout
    assert "--constitution-judge" in done.stdout


def test_the_starter_judges_and_a_second_run_asks_nothing(run: Pytest) -> None:
    options = ("--constitution", "words.yaml", "-k", "apples or bridges", "-v")
    done = run(*options)
    assert done.returncode in (0, 1)
    assert "judge: starter (a demonstration judge for its own small world)" in done.stdout
    assert list(outcomes(done.stdout)) == NODES[:2]
    assert "4 asked, 0 reused" in done.stdout
    again = run(*options)
    assert "0 asked, 4 reused" in again.stdout
    assert outcomes(again.stdout) == outcomes(done.stdout)
