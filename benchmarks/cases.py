"""The shipped constitutions' own cases, asked of the built-in judge; writes the table of `docs/cases.md`.

python -m benchmarks.cases
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

import rlaif
from benchmarks.common import ROOT, keep, print_table, table_lines
from rlaif import CasesReport
from rlaif.cli.cases import passed_line
from rlaif.constitution import Case, Constitution, load_constitution
from rlaif.labeling.cases import CaseResult, Rate, rate
from rlaif.shipped import shipped_folder
from rlaif.starter.judging import SHIPPED, Principle, decide
from rlaif.starter.responses import kinds_of, make_pair
from rlaif.starter.world import World

PAGE = ROOT / "docs" / "cases.md"
WORLD_CASES = 8  # of each principle
HEAD = ("constitution", "objective", "cases", "passed", "95% interval", "passed in both places", "order gap")
_INTRO = """\
# Cases of the shipped constitutions

Each principle of a shipped constitution has cases: a prompt, a better response and a worse one. The built-in judge, the
starter, is asked about each, with that principle alone and the better response in either place. A case passes where
p(better), the mean of both places, is above 0.5; guessing passes half.

The starter knows a small constructed world. Most of these cases lie outside it, so the table measures how far the
starter reaches, not whether a principle is well put: for that, ask a judge that you would label with.

```console
$ python -m benchmarks.cases    # measures again and writes this page
$ rlaif constitution test hhh --base-url http://127.0.0.1:8000 --rationales
```
"""


def shipped_names() -> list[str]:
    """The shipped constitutions, by name."""
    return sorted(file.stem for file in shipped_folder("constitutions").glob("*.yaml"))


def measure() -> CasesReport:
    """Ask the starter every case of every shipped constitution."""
    return rlaif.check_constitution(*shipped_names(), engine="transformers")


def world_constitution() -> Constitution:
    """The shipped hhh with cases of the small world: pairs that the principle's own family decides."""
    world = World("test", random.Random("cases"))
    constitution = load_constitution("hhh")
    objectives = {}
    for name, objective in constitution.objectives.items():
        rules = []
        for rule in objective.principles:
            made = Principle(*SHIPPED[rule.id])
            cases: list[Case] = []
            while len(cases) < WORLD_CASES:
                pair = make_pair(world, made.family, world.rng.choice(kinds_of(made.family)))
                if None in pair.marks(made.family) or len(pair.scene.prompt) > 1:
                    continue
                _, _, better = decide(pair, [made])
                row = pair.pair("case")
                texts = {"A": (row.response_a, row.response_b), "B": (row.response_b, row.response_a)}
                if better is not None:
                    cases.append(Case(prompt=row.prompt[0].content, better=texts[better][0], worse=texts[better][1]))
            rules.append(rule.model_copy(update={"cases": tuple(cases)}))
        objectives[name] = objective.model_copy(update={"principles": tuple(rules)})
    return Constitution(name="world", objectives=objectives)


def measure_in_world() -> Rate:
    """Ask the starter cases of its own world."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "world.yaml"
        path.write_text(world_constitution().model_dump_json(), encoding="utf-8")  # JSON is YAML
        return rlaif.check_constitution(path, engine="transformers").total


def table_rows(report: CasesReport) -> list[tuple[str, ...]]:
    """A row for each objective of each constitution, and one for all."""
    rows = []
    for each in report.constitutions:
        for name in each.objectives:
            rows.append(_row(each.name, name, [case for case in each.cases if case.objective == name]))
        rows.append(_row(f"**{each.name}**", "all", each.cases))
    return [*rows, _row("**all**", "all", report.cases)]


def _row(constitution: str, objective: str, cases: Sequence[CaseResult]) -> tuple[str, ...]:
    found = rate(cases)
    in_both = sum(case.result == "pass" and not case.by_place for case in cases)
    low, high = found.interval
    gap = "-" if found.mean_order_gap is None else f"{found.mean_order_gap:.2f}"
    counts = (str(found.cases), f"{found.passed} ({found.share:.0%})", f"{low:.0%} to {high:.0%}", str(in_both), gap)
    return (constitution, objective, *counts)


def page(report: CasesReport, world: Rate) -> str:
    """The text of `docs/cases.md`."""
    read = f"{report.total.unread} of {report.total.cases} cases were not read."
    made = f"Judge `{report.judge}`, template `{report.template}`, rlaif {rlaif.__version__}. {read}"
    inside = (
        f"With cases from inside its world, {WORLD_CASES} for each principle of `hhh`, of names, topics and wordings "
        f"that its training never had:\n{passed_line(world)}."
    )
    return "\n".join([_INTRO, made, "", *table_lines(HEAD, table_rows(report)), "", inside, ""])


def main() -> None:
    """Measure, write the page, and keep the figures."""
    report, world = measure(), measure_in_world()
    PAGE.write_text(page(report, world), encoding="utf-8")
    print_table(HEAD, table_rows(report))
    print(f"in its world: {passed_line(world)}")
    rates = {
        each.name: {name: found.model_dump() for name, found in [*each.objectives.items(), ("all", each.total)]}
        for each in report.constitutions
    }
    made = {"judge": report.judge, "template": report.template}
    keep("cases", {**made, "all": report.total.model_dump(), "world": world.model_dump(), "constitutions": rates})


if __name__ == "__main__":
    main()
