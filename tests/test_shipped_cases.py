"""The cases of the shipped constitutions, asked of the starter: each is read, and the page in docs/ is of these cases.

How many pass is measured in docs/cases.md, not asserted: most cases lie outside the starter's world. Inside it, the
starter must tell a better response from a worse one, or testing a constitution would tell nothing.
"""

from __future__ import annotations

import pytest

from benchmarks.cases import HEAD, PAGE, WORLD_CASES, measure, measure_in_world, shipped_names, table_rows
from benchmarks.common import table_lines
from rlaif import CasesReport
from rlaif.constitution import load_constitution
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def report() -> CasesReport:
    """Every shipped case, judged once; the table goes to the test's own output."""
    found = measure()
    print("\n".join(table_lines(HEAD, table_rows(found))))
    return found


def test_every_case_of_every_shipped_constitution_is_read(report: CasesReport) -> None:
    assert [each.place for each in report.constitutions] == shipped_names()
    files = {file.stem for file in (ROOT / "constitutions").glob("*.yaml")}
    assert {each.name for each in report.constitutions} == files
    unread = {case.id: case.showings for case in report.cases if case.result == "unread"}
    assert unread == {}
    for case in report.cases:
        assert {showing.shown for showing in case.showings} == {"better first", "better second"}
        assert all(showing.rationale.strip() for showing in case.showings)


def test_every_active_principle_has_its_cases_asked(report: CasesReport) -> None:
    for each in report.constitutions:
        objectives = load_constitution(each.place).objectives.values()
        held = {rule.id: len(rule.cases) for objective in objectives for rule in objective.active}
        assert each.without_cases == ()
        assert {name: rate.cases for name, rate in each.principles.items()} == held
        assert each.total.cases == sum(held.values())


def test_the_page_is_of_these_constitutions_and_cases(report: CasesReport) -> None:
    shown = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.read_text().splitlines() if "|" in line]
    assert tuple(shown[0]) == HEAD
    now = [row[:3] for row in table_rows(report)]
    assert [tuple(row[:3]) for row in shown[2:]] == now, "run python -m benchmarks.cases again"


def test_in_its_world_the_starter_passes_more_than_a_guess() -> None:
    total = measure_in_world()
    print(f"{total.passed} of {total.cases}, {total.by_place} by place")
    assert total.cases == 6 * WORLD_CASES
    assert total.interval[0] > 0.5, "a guess passes half"
