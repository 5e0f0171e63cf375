"""The house's rules that a program can check: layers, lazy imports, file lengths, docstrings, annotations."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

import rlaif
from tests.conftest import ROOT, environment

PACKAGE = ROOT / "rlaif"
MODULES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
    for file in sorted(PACKAGE.rglob("*.py"))
}

# Lowest first. A module imports from its own layer or a lower one; "rlaif" itself only names what is loaded on use.
# "x.*" is what a package holds, without the package itself: rlaif.starter only says where the checkpoint is, and the
# modules that made it stand above all that they use.
LAYERS = (
    ("rlaif.version", "rlaif.errors"),
    ("rlaif.types", "rlaif.characters", "rlaif.stats", "rlaif.shipped", "rlaif.files", "rlaif.starter", "rlaif.web"),
    ("rlaif.findings", "rlaif.prompts_sandbox"),
    ("rlaif.data", "rlaif.constitution", "rlaif.store", "rlaif.prompts"),
    ("rlaif.prompts_probe", "rlaif.prompts_lint"),
    ("rlaif.engines",),
    ("rlaif.labeling",),
    ("rlaif.starter.*", "rlaif.agreement"),
    ("rlaif.report", "rlaif.review"),
    ("rlaif.rewards",),
    ("rlaif.optimize", "rlaif.serving"),
    ("rlaif.trl",),
    ("rlaif.cli", "rlaif.pytest_plugin", "rlaif", "rlaif.__main__"),
)
# Packages of one layer that know nothing of each other.
SIBLINGS = ("rlaif.data", "rlaif.constitution", "rlaif.store", "rlaif.prompts")

HEAVY = frozenset(
    {"torch", "transformers", "vllm", "ray", "datasets", "aiohttp", "rich", "pandas", "pyarrow", "numpy", "scipy"}
    | {"matplotlib", "starlette", "uvicorn", "nh3", "markdown_it"}
)
# These stand for one heavy package each, and are themselves imported only inside functions, or by each other.
LAZY: dict[str, set[str]] = {
    "rlaif.engines.transformers": {"torch", "transformers"},
    "rlaif.engines.kv_cache": {"torch", "transformers"},
    "rlaif.engines.http": {"aiohttp"},
    "rlaif.engines.dialect": set(),
    "rlaif.engines.served": set(),
    "rlaif.engines.servers": set(),
    "rlaif.engines.server": set(),
    "rlaif.cli.render": {"rich"},
    "rlaif.starter.model": {"torch", "transformers"},
    "rlaif.starter.guides": {"torch"},
    "rlaif.starter.train": {"torch"},
    # The page on which people label.
    "rlaif.review.app": {"starlette"},
    "rlaif.review.markdown": {"markdown_it", "nh3"},
    "rlaif.review.serve": set(),
    # What rlaif select computes.
    "rlaif.agreement.diversity": {"numpy"},
    "rlaif.agreement.embedding": {"numpy"},
    "rlaif.agreement.select": {"numpy"},
    "rlaif.agreement.select_input": set(),
    "rlaif.agreement.worth": {"numpy"},
    # Columns and the statistics of agreement.
    "rlaif.agreement.alt_test": {"numpy"},
    "rlaif.agreement.bootstrap": {"numpy"},
    "rlaif.agreement.calibration": {"numpy"},
    "rlaif.agreement.metrics": {"numpy"},
    "rlaif.agreement.ppi": {"numpy"},
    "rlaif.agreement.regression": {"numpy"},
    "rlaif.agreement.align": {"numpy"},
    "rlaif.agreement.bias": {"numpy"},
    "rlaif.agreement.compare": {"numpy"},
    "rlaif.agreement.disagreements": set(),
    "rlaif.agreement.judges": {"numpy"},
    "rlaif.agreement.ledger": {"numpy"},
    "rlaif.agreement.objective": {"numpy"},
    "rlaif.agreement.people": {"numpy"},
    "rlaif.agreement.table": {"numpy"},
    "rlaif.agreement.texts": {"numpy"},
    # Reward heads.
    "rlaif.rewards.preferences": {"numpy"},
    "rlaif.rewards.sources": {"numpy"},
    "rlaif.rewards.source_labels": {"numpy"},
    "rlaif.rewards.start": {"numpy"},
    "rlaif.rewards.source_pairs": set(),
    "rlaif.rewards.split": {"numpy"},
    "rlaif.rewards.tokens": {"transformers"},
    "rlaif.rewards.pads": {"transformers"},
    "rlaif.rewards.batches": set(),
    "rlaif.rewards.plainpass": {"torch", "transformers"},
    "rlaif.rewards.model": {"torch", "transformers"},
    "rlaif.rewards.onepass": {"torch", "transformers"},
    "rlaif.rewards.features": {"torch", "numpy"},
    "rlaif.rewards.frozen": {"torch", "numpy"},
    "rlaif.rewards.logistic": {"torch", "numpy"},
    "rlaif.rewards.losses": {"torch", "numpy"},
    "rlaif.rewards.schedule": {"numpy"},
    "rlaif.rewards.scoring_model": {"torch", "numpy"},
    "rlaif.rewards.checkpoints": {"torch"},
    "rlaif.rewards.head_trainer": {"torch", "transformers"},
    "rlaif.rewards.finetune": {"torch", "transformers", "numpy"},
    "rlaif.rewards.finetune_settings": {"transformers"},
    "rlaif.rewards.pareto_training": {"torch", "numpy", "scipy"},
    "rlaif.rewards.calibrate": {"numpy"},
    "rlaif.rewards.aggregate": {"numpy"},
    "rlaif.rewards.weights": {"numpy"},
    "rlaif.rewards.gate": {"numpy"},
    "rlaif.rewards.forward": {"torch"},
    "rlaif.rewards.heads": {"torch", "numpy"},
    "rlaif.rewards.heads_files": {"torch"},
    "rlaif.rewards.export": {"torch"},
    "rlaif.rewards.evaluate": {"numpy"},
    "rlaif.rewards.evaluate_heads": {"numpy"},
    "rlaif.rewards.evaluate_one": {"numpy"},
    "rlaif.rewards.combine": {"numpy"},
    "rlaif.rewards.forgetting": {"numpy"},
    "rlaif.rewards.settings": set(),
    "rlaif.rewards.train_data": set(),
    "rlaif.rewards.train": {"torch", "numpy"},
    # Rewards in use.
    "rlaif.optimize.probe": {"numpy"},
    "rlaif.optimize.probe_figures": {"numpy"},
    "rlaif.optimize.probe_judge": {"numpy"},
    "rlaif.optimize.compare_agreement": {"numpy"},
    "rlaif.optimize.compare_inputs": {"numpy"},
    "rlaif.optimize.compare_rewards": {"numpy"},
    "rlaif.optimize.drift": {"numpy"},
    "rlaif.optimize.feature_drift": {"numpy"},
    "rlaif.optimize.rank_agreement": {"numpy"},
    "rlaif.optimize.preference_choices": set(),
    "rlaif.optimize.preference_files": set(),
    "rlaif.optimize.candidates": {"numpy"},
    "rlaif.optimize.picking": {"numpy"},
    "rlaif.optimize.best_of_n": set(),
    "rlaif.optimize.gains": {"numpy"},
    "rlaif.serving.app": {"starlette"},
    "rlaif.serving.run": {"uvicorn"},
    "rlaif.optimize.best_of": {"numpy"},
    "rlaif.optimize.gao": {"numpy"},
    "rlaif.optimize.gold": {"numpy"},
    "rlaif.optimize.judge_gold": {"numpy"},
    "rlaif.optimize.pair_gold": {"numpy"},
    "rlaif.optimize.overoptimize": {"numpy"},
    "rlaif.optimize.overoptimize_curves": {"numpy"},
    "rlaif.optimize.guard": {"numpy"},
    "rlaif.optimize.lagrange": {"numpy"},
    "rlaif.optimize.reference": {"numpy"},
    "rlaif.optimize.shaping": {"numpy"},
    "rlaif.trl": {"torch", "transformers", "numpy"},
}


def layer_of(module: str) -> int:
    """Index of the layer whose entry is the longest prefix of the module's name."""
    matches = [
        (len(entry), index)
        for index, layer in enumerate(LAYERS)
        for entry in layer
        if module == entry or (module.startswith(f"{entry.removesuffix('.*')}.") and entry != "rlaif")
    ]
    return max(matches, default=(0, -1))[1]


def imports_of(tree: ast.AST, *, at_import: bool = False) -> Iterator[str]:
    """Full names of what a module imports; with `at_import` only what runs when it is imported."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else node.module
        elif not at_import or not _put_off(node):
            yield from imports_of(node, at_import=at_import)


def _put_off(node: ast.AST) -> bool:
    """Whether a node's body does not run when its module is imported."""
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.dump(node.test)
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


TREES = {module: ast.parse(file.read_text(encoding="utf-8")) for module, file in MODULES.items()}
EDGES = {
    module: {name for name in imports_of(tree) if name == "rlaif" or name.startswith("rlaif.")} - {module}
    for module, tree in TREES.items()
}


def test_every_module_has_a_layer() -> None:
    assert {"rlaif", "rlaif.labeling.run", "rlaif.engines.base"} <= MODULES.keys()
    assert {module for module in MODULES if layer_of(module) < 0} == set()


def test_imports_go_downwards_only() -> None:
    upwards = [
        f"{module} imports {name}"
        for module, names in EDGES.items()
        for name in sorted(names)
        if layer_of(name) > layer_of(module)
    ]
    assert upwards == []


def test_siblings_do_not_know_each_other() -> None:
    def home(module: str) -> str | None:
        return next((each for each in SIBLINGS if module == each or module.startswith(f"{each}.")), None)

    crossing = [
        f"{module} imports {name}"
        for module, names in EDGES.items()
        for name in sorted(names)
        if home(module) and home(name) and home(module) != home(name)
    ]
    assert crossing == []


def test_importing_goes_in_no_circles() -> None:
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path, module))
        if module not in done:
            for name in sorted(set(imports_of(TREES[module], at_import=True)) & MODULES.keys()):
                visit(name, (*path, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())
    assert done >= MODULES.keys()


@pytest.mark.parametrize("module", MODULES)
def test_heavy_packages_are_imported_where_they_are_used(module: str) -> None:
    names = set(imports_of(TREES[module], at_import=True))
    heavy = {name.partition(".")[0] for name in names} & HEAVY
    assert heavy == LAZY.get(module, set())
    if module not in LAZY:
        assert names & LAZY.keys() == set(), "import it inside the function that uses it"


@pytest.mark.parametrize("module", MODULES)
def test_no_file_is_longer_than_400_lines(module: str) -> None:
    assert len(MODULES[module].read_text(encoding="utf-8").splitlines()) <= 400


def loaded_by(code: str) -> set[str]:
    """Top-level packages that are loaded after a new Python has run `code`."""
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment(), check=True)
    return set(json.loads(done.stdout))


@pytest.mark.parametrize(
    ("code", "not_loaded"),
    [
        ("import rlaif, rlaif.cli.main", HEAVY | {"pydantic", "jinja2", "ruamel"}),
        ("import rlaif; rlaif.load_constitution('hhh')", HEAVY | {"jinja2"}),
        ("import rlaif; rlaif.label", HEAVY),
        ("import rlaif.starter", HEAVY | {"pydantic", "jinja2", "ruamel"}),
        ("import rlaif.cli.label, rlaif.cli.generate, rlaif.cli.show, rlaif.cli.prompt", HEAVY | {"pydantic"}),
        ("import rlaif.cli.revise", HEAVY | {"pydantic"}),
        ("import rlaif.cli.constitution", HEAVY | {"pydantic", "ruamel"}),
        ("import rlaif.constitution.diff, rlaif.labeling.flips", HEAVY | {"jinja2"}),
    ],
)
def test_importing_stays_light(code: str, not_loaded: set[str]) -> None:
    loaded = loaded_by(code)
    assert "rlaif" in loaded
    assert loaded & not_loaded == set()


def test_help_imports_no_model_library() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "rlaif", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=True)
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "click" in imported
    assert imported & (HEAVY | {"pydantic"}) == set()
    assert "rlaif label pairs.jsonl" in done.stdout


def test_public_names_load_and_are_few() -> None:
    assert len(rlaif.__all__) <= 30
    for name in rlaif.__all__:
        assert getattr(rlaif, name) is not None
    with pytest.raises(AttributeError, match="module 'rlaif' has no attribute 'labels'"):
        _ = rlaif.labels


Function = ast.FunctionDef | ast.AsyncFunctionDef


def definitions(
    tree: ast.AST, path: str = "", public: bool = True
) -> Iterator[tuple[str, ast.ClassDef | Function, bool]]:
    """Every class and function, its dotted name, and whether it is public; nested functions are nobody's business."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            mine = public and not node.name.startswith("_")
            yield f"{path}{node.name}", node, mine
            if isinstance(node, ast.ClassDef):
                yield from definitions(node, f"{path}{node.name}.", mine)
        elif isinstance(node, ast.If | ast.Try):
            yield from definitions(node, path, public)


@pytest.mark.parametrize("module", MODULES)
def test_what_is_public_has_a_docstring(module: str) -> None:
    found = [name for name, node, public in definitions(TREES[module]) if public and not ast.get_docstring(node)]
    assert found == []
    assert ast.get_docstring(TREES[module]) or not TREES[module].body, "a module says what it is"


@pytest.mark.parametrize("module", MODULES)
def test_everything_is_annotated(module: str) -> None:
    found = []
    for name, node, _ in definitions(TREES[module]):
        if isinstance(node, ast.ClassDef):
            continue
        given = node.args
        arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs]
        arguments += [extra for extra in (given.vararg, given.kwarg) if extra is not None]
        bare = [each.arg for each in arguments if each.annotation is None and each.arg not in ("self", "cls")]
        if bare or node.returns is None:
            found.append(f"{name}({', '.join(bare)})")
    assert found == []
