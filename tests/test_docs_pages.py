"""Every code block of every page in docs/ is run, read, or listed here with the reason why it is not.

`RLAIF_REWRITE_DOCS=1 pytest tests/test_docs_pages.py -k PAGE` writes what a page's commands print now into the page.
"""

from __future__ import annotations

import ast
import json
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from rlaif.cli.main import cli
from rlaif.constitution.load import parse_constitution
from tests.conftest import ROOT
from tests.console import Console
from tests.docs_pages import Block, blocks_of, follow_page, rlaif_commands

DOCS = ROOT / "docs"
PAGES = {path.relative_to(DOCS).as_posix(): path for path in sorted(DOCS.rglob("*.md"))}

_MORE = "shown in part, as an illustration; "
_HEADS = "trained heads on data that this repository does not hold"
# Page and first line of each block that is not run, and why. Their commands and names are checked all the same.
NOT_RUN: dict[tuple[str, str], str] = {
    ("tutorial.md", "$ python3 -m venv .venv && . .venv/bin/activate"): "installs into a new environment",
    ("labeling.md", "$ pip install vllm && vllm serve Qwen/Qwen3-8B"): "needs a GPU and a model from a hub",
    ("labeling.md", "$ rlaif label pairs.jsonl --judge Qwen/Qwen3-8B --engine vllm --out runs/local"): "needs a GPU",
    ("people.md", "$ rlaif review to-label.jsonl --constitution hhh --out human.jsonl"): (
        "serves until Ctrl-C; tests/test_review.py and tests/browser start it"
    ),
    ("architecture.md", "Pair --plan--> JudgeRequest --engine--> Completion --read--> Verdict"): "a picture",
    ("scaling.md", "requests   = pairs x objectives x orders x samples"): "formulas; the programs below compute them",
    ("cascade.md", "rlaif label examples/pairs.jsonl --cascade direct,pairwise-cot --out runs/cascade"): (
        "3,278 judgments; tests/test_cascade.py runs small ones"
    ),
    ("cascade.md", "300 pairs labelled, 0 rows rejected -> runs/cascade/labels.jsonl"): "the output of the block above",
    ("cascade.md", "300 pairs, 0 rows that cannot be used"): "the output of the block above, with --dry-run",
    ("cases.md", "$ python -m benchmarks.cases    # measures again and writes this page"): (
        "writes the page itself; tests/test_shipped_cases.py holds the page against the cases"
    ),
    ("comparing-rewards.md", "rlaif reward compare heads/one heads/two --data pairs.jsonl"): _MORE + _HEADS,
    (
        "comparing-rewards.md",
        "rlaif train-heads hh-rlhf.jsonl+hh-human.jsonl --backbone starter --mode frozen --ensemble 3 --max-length 256 "
        "--out heads-hh",
    ): _HEADS,
    ("comparing-rewards.md", "heads-hh and heads-pandalm prefer the same response on 37.5% of 200 pairs (30.5%"): (
        _HEADS
    ),
    ("comparing-rewards.md", "The new responses have drifted from the reference (energy distance 0.072, by"): _HEADS,
    ("comparing-rewards.md", "from rlaif.optimize.compare_rewards import compare_rewards"): _HEADS,
    (
        "heads.md",
        "accelerate launch --num_processes 8 -m rlaif train-heads runs/first --mode full --backbone Qwen/Qwen3-0.6B "
        "--out heads",
    ): "needs eight GPUs; tests/test_many_processes.py trains with two processes on a CPU",
    ("overoptimization.md", "$ rlaif generate prompts.jsonl --policy MODEL --n 64 --out responses.jsonl"): (
        "64 responses a prompt of a model of yours; tests/test_optimize_overoptimize.py runs it"
    ),
    ("probes.md", "rlaif reward probe pairs.jsonl --heads heads --html probe.html"): "data and a judge of yours",
    (
        "ray.md",
        "sbatch --nodes=4 examples/cluster/label.sbatch pairs.jsonl --judge /shared/judge --out /shared/runs/first",
    ): "needs Slurm; tests/test_cluster_examples.py runs the script beside stand-ins",
    ("ray.md", "kubectl apply -f examples/cluster/rayjob.yaml"): (
        "needs Kubernetes; tests/test_cluster_examples.py checks the file and its command"
    ),
    ("rl.md", "from trl import GRPOConfig, GRPOTrainer"): "trains a policy; tests/test_examples_rl.py trains one so",
    ("rl.md", 'heads = rlaif.RewardHeads.load("heads")'): "trains a policy; tests/test_trl.py trains one so",
    ("rl.md", 'floors = rlaif.trl.Lagrangian({"harmlessness": -0.2}, rate=0.5)'): "part of the training above it",
    ("serving.md", "$ rlaif reward serve heads"): "serves until Ctrl-C; tests/test_serving_server.py starts it",
    ("serving.md", "$ curl -s http://127.0.0.1:8100/score -H 'Content-Type: application/json' \\"): (
        "asks the server above; tests/test_serving_server.py asks so"
    ),
    ("serving.md", "--remote_rm_url http://127.0.0.1:8100/get_reward"): "an option of OpenRLHF",
}

# Pages that begin where heads were trained, in a folder `heads`.
WITH_HEADS = {"export.md", "heads.md", "probes.md", "scoring.md"}
# Pages whose numbers with decimals follow from trained weights or samples, which move with the processor.
ANY_DECIMALS = {*WITH_HEADS, "best-of-n.md", "tutorial.md", "generating.md"}


def skipped(name: str) -> set[str]:
    """First lines of a page's blocks that are not run."""
    return {line for page, line in NOT_RUN if page == name}


def block_ids() -> Iterator[tuple[str, Block]]:
    """Every block with its page."""
    for name, path in PAGES.items():
        yield from ((name, block) for block in blocks_of(path.read_text(encoding="utf-8")))


BLOCKS = list(block_ids())
FOLLOWED = [
    name
    for name in PAGES
    if any(
        page == name and block.language in ("console", "python") and block.first_line not in skipped(name)
        for page, block in BLOCKS
    )
]


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Heads as the pages train them."""
    console = Console.fresh(tmp_path_factory.mktemp("heads"))
    labels = "examples/pairs.jsonl+examples/reference.jsonl"
    said = console.run(f"rlaif train-heads {labels} --constitution hhh --eval 0.3 --out heads")
    assert console.status == 0, said
    return console.folder / "heads"


@pytest.mark.parametrize("name", FOLLOWED)
def test_a_page_prints_what_it_shows(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    console = Console.fresh(tmp_path)
    if name in WITH_HEADS:
        shutil.copytree(request.getfixturevalue("heads"), console.folder / "heads")
    if name == "scaling.md":
        shutil.copytree(ROOT / "benchmarks" / "results", console.folder / "benchmarks" / "results")
    follow_page(PAGES[name], console, skip=skipped(name), any_decimals=name in ANY_DECIMALS)


def test_every_block_is_run_or_read_or_listed_with_its_reason() -> None:
    unlisted = []
    shown = {
        (name, block.line) for name, block in BLOCKS if block.language == "text" and follows_a_program(name, block)
    }
    for name, block in BLOCKS:
        if block.first_line in skipped(name) or block.language in ("console", "python", "yaml", "json"):
            continue
        if (name, block.line) not in shown:
            unlisted.append(f"docs/{name}:{block.line}: {block.language or 'no language'}: {block.first_line}")
    assert not unlisted, "run these blocks, or give the reason in NOT_RUN:\n" + "\n".join(unlisted)


def follows_a_program(name: str, block: Block) -> bool:
    """Whether the block above this one on its page is a program."""
    page = [each for other, each in BLOCKS if other == name]
    place = page.index(block)
    return place > 0 and page[place - 1].language == "python"


def test_what_is_listed_as_not_run_is_there_once_and_is_little() -> None:
    named = [(name, block.first_line) for name, block in BLOCKS]
    assert [key for key in NOT_RUN if named.count(key) != 1] == []
    assert all(NOT_RUN.values())
    assert len(NOT_RUN) < len(BLOCKS) / 5


@pytest.mark.parametrize(("name", "first_line"), NOT_RUN, ids=lambda value: value[:40])
def test_commands_and_names_that_are_not_run_exist(name: str, first_line: str) -> None:
    (block,) = [block for page, block in BLOCKS if page == name and block.first_line == first_line]
    for command in rlaif_commands(block.text):
        options_exist(command)
    if block.language == "python":
        names_exist(block.text)


def options_exist(command: str) -> None:
    """Read a command line as click does, without running it."""
    words = shlex.split(command, comments=True)[1:]
    found: click.Command = cli
    context = click.Context(found, info_name="rlaif")
    while isinstance(found, click.Group):
        below = found.get_command(context, words.pop(0))
        assert below is not None, command
        found, context = below, click.Context(below, parent=context)
    found.make_parser(context).parse_args(words)


def names_exist(program: str) -> None:
    """Compile a program, and look up every name that it takes from rlaif."""
    tree = ast.parse(program)
    bound: dict[str, object] = {}
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    ours = [node for node in imports if "rlaif" in ast.unparse(node)]
    exec(compile(ast.Module(body=[*ours], type_ignores=[]), "a page", "exec"), bound)
    if "rlaif." in program:
        bound.setdefault("rlaif", __import__("rlaif"))
    for node in ast.walk(tree):
        called = any(isinstance(part, ast.Call) for part in ast.walk(node))
        if isinstance(node, ast.Attribute) and not called and ast.unparse(node).startswith("rlaif."):
            eval(ast.unparse(node), bound)


def test_an_option_or_a_name_that_does_not_exist_is_found() -> None:
    options_exist("rlaif reward best-of-n prompts.jsonl --n 4  # a comment")
    with pytest.raises(click.UsageError):
        options_exist("rlaif label pairs.jsonl --objectives honesty")
    names_exist("import rlaif\nrlaif.trl.reward_functions('heads').weights")
    with pytest.raises(AttributeError):
        names_exist("import rlaif\nrlaif.labels('pairs.jsonl')")


@pytest.mark.parametrize(
    ("name", "block"),
    [(name, block) for name, block in BLOCKS if block.language in ("yaml", "json")],
    ids=lambda value: value if isinstance(value, str) else value.first_line[:30],
)
def test_constitutions_and_json_on_pages_are_such(name: str, block: Block) -> None:
    if block.language == "yaml":
        assert parse_constitution(block.text, f"docs/{name}").objectives
    else:
        assert json.loads(block.text)
