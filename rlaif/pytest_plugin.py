"""`pytest --constitution FILE`: the cases of a constitution as tests, one each, beside a project's own.

Without the option this adds its lines to `pytest --help` and nothing else. With it, the cases that are left after `-k`
and the like are asked in one go when the first of them runs; answers are kept in pytest's cache, so that the next run
asks only what an edit touched.
"""

from __future__ import annotations

import fcntl
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from rlaif.constitution import Constitution
    from rlaif.errors import RlaifError
    from rlaif.labeling.cases import CaseResult, ChosenCase
    from rlaif.labeling.check import Answers, CaseSettings

_FILES = "rlaif_constitutions"
_NAME = "rlaif-cases"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("rlaif", "constitutions as tests")
    group.addoption(
        "--constitution",
        action="append",
        default=[],
        dest=_FILES,
        metavar="NAME|FILE",
        help="Test each case of this constitution with a judge; repeatable.",
    )
    group.addoption(
        "--constitution-judge",
        default="starter",
        metavar="starter|HUB_ID|PATH",
        help="The judge (default: starter, which knows its own small world only).",
    )
    group.addoption(
        "--constitution-base-url",
        action="append",
        default=[],
        metavar="URL",
        help="An OpenAI-compatible server of the judge; given several times, the load is spread.",
    )
    group.addoption(
        "--constitution-template",
        default="pairwise-cot",
        metavar="NAME|FILE",
        help="Prompt template (default: pairwise-cot).",
    )
    group.addoption(
        "--constitution-engine",
        choices=["auto", "transformers", "vllm", "server"],
        default="auto",
        help="Where the judge runs (default: auto).",
    )
    group.addoption(
        "--constitution-engine-arg",
        action="append",
        default=[],
        metavar="K=V",
        help="An engine's own option, as in rlaif constitution test --engine-arg; repeatable.",
    )
    group.addoption(
        "--constitution-concurrency",
        type=int,
        default=128,
        metavar="N",
        help="Requests in flight, to all servers together (default: 128).",
    )
    group.addoption(
        "--constitution-max-tokens",
        type=int,
        default=512,
        metavar="N",
        help="Longest rationale; a judge that thinks first needs more (default: 512).",
    )
    group.addoption(
        "--constitution-threshold",
        type=float,
        default=0.5,
        metavar="P",
        help="A case passes where p(better), the mean of both places, is above this (default: 0.5).",
    )
    group.addoption(
        "--constitution-cache",
        metavar="FILE",
        help="Keep the judge's answers in this file (default: in pytest's cache).",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Look for the constitutions that were named, if any."""
    named = config.getoption(_FILES)
    if not named:
        return
    from rlaif.errors import InputError
    from rlaif.labeling.api import case_settings
    from rlaif.shipped import find_shipped

    option = config.getoption
    args = {}
    for given in option("--constitution-engine-arg"):
        name, equals, value = given.partition("=")
        if not (name and equals):
            raise pytest.UsageError(f"--constitution-engine-arg {given}: expected NAME=VALUE, as in dtype=float32.")
        args[name.strip().replace("-", "_")] = value
    try:
        paths = {find_shipped("constitutions", name, ".yaml").resolve(): name for name in named}
        settings = case_settings(
            named,
            judge=option("--constitution-judge"),
            engine=option("--constitution-engine"),
            base_url=option("--constitution-base-url"),
            template=option("--constitution-template"),
            threshold=option("--constitution-threshold"),
            cache=option("--constitution-cache"),
            concurrency=option("--constitution-concurrency"),
            max_tokens=option("--constitution-max-tokens"),
            engine_args=args,
        )
    except InputError as error:
        raise pytest.UsageError(_in_these_options(str(error))) from None
    config.pluginmanager.register(CasesPlugin(config, paths, settings), _NAME)


def _in_these_options(text: str) -> str:
    """A message of `rlaif constitution test`, with the options named as they are here."""
    names = "judge|engine|engine-arg|base-url|template|threshold|cache|concurrency|max-tokens"
    return re.sub(rf"(?<![\w-])--(?=(?:{names})(?![\w-]))", "--constitution-", text)


class CaseFailed(Exception):
    """A case that did not pass; the text says why."""


@dataclass
class CasesPlugin:
    """What one session of pytest knows of the constitutions: registered only where one is named."""

    config: pytest.Config
    paths: Mapping[Path, str]
    settings: CaseSettings
    _collected: set[Path] = field(default_factory=set)
    _answers: Answers | None = None
    _results: dict[str, CaseResult] = field(default_factory=dict)
    _failure: RlaifError | None = None

    def pytest_report_header(self) -> str:
        """Say what is tested, and by whom."""
        from rlaif.starter import STARTER

        url = self.settings.engine.base_url
        note = " (a demonstration judge for its own small world)" if self.settings.judge == STARTER else ""
        urls = f"server at {url}" if isinstance(url, str) else f"servers at {', '.join(url or ())}"
        judge = f"the {urls}" if url else f"{self.settings.judge}{note}"
        return f"constitution: {', '.join(self.paths.values())}; judge: {judge}"

    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> ConstitutionFile | None:
        """Collect a constitution where pytest comes upon it, also by `FILE::objective::principle::case-1`."""
        path = file_path.resolve()
        if path not in self.paths:
            return None
        self._collected.add(path)
        return ConstitutionFile.from_parent(parent, path=file_path)

    # First of all: what selects among the items (-k, --lf, shuffling) comes after.
    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        """Add the constitutions that pytest did not come upon: shipped ones, and files outside what it searched."""
        for path, name in self.paths.items():
            if path not in self._collected:
                node = ConstitutionFile.from_parent(session, path=path, name=name, nodeid=name)
                items.extend(session.genitems(node))

    def result_of(self, item: CaseItem) -> CaseResult:
        """The result of one case; the first call asks the judge about all that are to run."""
        if self._failure is not None:
            raise self._failure
        if item.case.id not in self._results:
            self._judge([each.case for each in item.session.items if isinstance(each, CaseItem)])
        return self._results[item.case.id]

    def _judge(self, cases: list[ChosenCase]) -> None:
        from rlaif.errors import Interrupted, RlaifError
        from rlaif.labeling.api import ask_chosen

        try:
            with self._cache() as cache:
                self._answers = ask_chosen(cases, self.settings.model_copy(update={"cache": cache}))
        except Interrupted:
            raise KeyboardInterrupt from None
        except RlaifError as error:
            # Asking again for each of the items would fail, and wait, as often.
            self._failure = error
            raise
        self._results = {result.id: result for result in self._answers.results}

    @contextmanager
    def _cache(self) -> Iterator[Path | None]:
        """The file that keeps the answers; of several processes that share it, the first asks and the others read."""
        path = self.settings.cache
        kept = getattr(self.config, "cache", None)
        try:
            if path is None and kept is not None:
                path = Path(kept.mkdir("rlaif")) / "cases.db"
            elif path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            turn = None if path is None else path.with_suffix(".turn").open("w")
        except OSError:
            # A folder that cannot be written costs the cache and no more.
            path, turn = None, None
        if turn is None:
            yield path
            return
        with turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            yield path

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Tell the rate of what was judged, with its interval."""
        if self._answers is None:
            return
        from rlaif.cli.cases import passed_line
        from rlaif.labeling.cases import rate

        tally = self._answers.tally
        terminalreporter.section("constitution")
        terminalreporter.write_line(f"{passed_line(rate(self._answers.results))}, judge {self._answers.judge}")
        terminalreporter.write_line(f"{tally.asked:,} asked, {tally.reused:,} reused")


def _plugin_of(node: pytest.Collector | pytest.Item) -> CasesPlugin:
    plugin = node.config.pluginmanager.get_plugin(_NAME)
    assert isinstance(plugin, CasesPlugin)
    return plugin


class ConstitutionFile(pytest.File):
    """A constitution: its objectives hold the principles, and these the cases."""

    def collect(self) -> Iterable[CaseGroup]:
        """Load the file and group its cases by objective."""
        from rlaif.constitution import load_constitution
        from rlaif.errors import InputError
        from rlaif.labeling.cases import choose_cases

        place = _plugin_of(self).paths[self.path.resolve()]
        try:
            constitution: Constitution = load_constitution(place)
        except InputError as error:
            raise self.CollectError(str(error)) from None
        cases = choose_cases(place, constitution)
        if not cases:
            raise self.CollectError(f"{place}: no principle has cases; give each cases with prompt, better and worse.")
        for name in dict.fromkeys(case.objective for case in cases):
            mine = [case for case in cases if case.objective == name]
            yield CaseGroup.from_parent(self, name=name, cases=mine)


class CaseGroup(pytest.Collector):
    """The cases of an objective, by principle; or of a principle."""

    def __init__(self, *, cases: list[ChosenCase], **given: Any) -> None:
        super().__init__(**given)
        self.cases = cases

    def collect(self) -> Iterable[CaseGroup | CaseItem]:
        """Split an objective into its principles, and a principle into its cases."""
        if isinstance(self.parent, CaseGroup):
            for case in self.cases:
                yield CaseItem.from_parent(self, name=f"case-{case.number}", case=case)
            return
        for name in dict.fromkeys(case.principle.id for case in self.cases):
            mine = [case for case in self.cases if case.principle.id == name]
            yield CaseGroup.from_parent(self, name=name, cases=mine)


class CaseItem(pytest.Item):
    """One case: passes where the judge finds the better response better."""

    def __init__(self, *, case: ChosenCase, **given: Any) -> None:
        super().__init__(**given)
        self.case = case

    def runtest(self) -> None:
        """Look the case up among the answers."""
        plugin = _plugin_of(self)
        result = plugin.result_of(self)
        self.user_properties += [("p_better", result.p_better), ("order_gap", result.order_gap)]
        if result.result != "pass":
            from rlaif.cli.cases import explain

            raise CaseFailed("\n".join(explain(result, plugin.settings.threshold)))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The reason, without a traceback through this file."""
        from rlaif.errors import RlaifError

        if isinstance(excinfo.value, RlaifError):
            return _in_these_options(str(excinfo.value))
        if isinstance(excinfo.value, CaseFailed):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, None, str]:
        """Where the case stands, as the heading of a failure names it."""
        return self.path, None, f"{self.case.objective}::{self.case.principle.id}::{self.name}"
