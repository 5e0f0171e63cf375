"""The documentation as a site: it builds without a warning, links resolve, and nothing is missing from it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import click
import pytest
from ruamel.yaml import YAML

import rlaif
from rlaif.cli.main import cli
from tests.conftest import ROOT, environment
from tests.docs_pages import blocks_of, rlaif_commands

DOCS = ROOT / "docs"
SETTINGS: dict[str, Any] = YAML(typ="safe").load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
PAGES = {path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8") for path in sorted(DOCS.rglob("*.md"))}
REFERENCE = "reference/cli.md"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    # The theme prints a notice about its future, which is nothing to mend here.
    variables = {**environment(), "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=300, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "WARNING" not in said, said
    return folder


class Elements(HTMLParser):
    """Every element of a page with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep one."""
        self.found.append((tag, {name: value or "" for name, value in attrs}))


@pytest.fixture(scope="module")
def elements(site: Path) -> dict[Path, list[tuple[str, dict[str, str]]]]:
    """What each page of the site is made of."""
    return {path: Elements(path.read_text(encoding="utf-8")).found for path in site.rglob("*.html")}


def test_every_page_is_built(site: Path) -> None:
    assert {path.relative_to(site).as_posix() for path in site.rglob("*.html")} == {
        "404.html",
        *(re.sub(r"\.md$", ".html", name) for name in PAGES),
    }


def test_links_and_anchors_of_the_site_resolve(site: Path, elements: dict[Path, list[tuple[str, Any]]]) -> None:
    names = {path: {attrs["id"] for _, attrs in found if "id" in attrs} for path, found in elements.items()}
    broken, followed = [], 0
    for path, found in elements.items():
        # Links of the page for "not found" start at the root of wherever the site is put.
        links = [attrs["href"] for tag, attrs in found if tag == "a" and "href" in attrs and path.name != "404.html"]
        for link in (link for link in links if "://" not in link and not link.startswith("mailto:")):
            file, _, anchor = link.partition("#")
            target = (path.parent / file).resolve() if file else path
            target = target / "index.html" if target.is_dir() else target
            followed += 1
            if not target.exists() or (anchor and target in names and anchor not in names[target]):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert broken == []
    assert followed > 500


def test_a_page_loads_nothing_from_elsewhere(elements: dict[Path, list[tuple[str, dict[str, str]]]]) -> None:
    loaded = [
        address
        for found in elements.values()
        for tag, attrs in found
        if tag != "a"
        for address in (attrs.get("src"), attrs.get("href"))
        if address
    ]
    assert loaded
    assert [address for address in loaded if "//" in address] == []


def test_warnings_are_errors_and_every_check_is_on() -> None:
    assert SETTINGS["strict"] is True
    assert {value for part in SETTINGS["validation"].values() for value in part.values()} == {"warn"}
    assert {"omitted_files", "not_found"} <= SETTINGS["validation"]["nav"].keys()
    assert {"anchors", "not_found", "unrecognized_links"} <= SETTINGS["validation"]["links"].keys()
    assert SETTINGS["theme"]["font"] is False


def in_nav(entries: list[Any]) -> Iterator[str]:
    """The files of a nav, in order."""
    for entry in entries:
        for below in entry.values() if isinstance(entry, dict) else [entry]:
            yield from in_nav(below) if isinstance(below, list) else [below]


def test_every_page_is_in_the_menu_once() -> None:
    assert sorted(in_nav(SETTINGS["nav"])) == sorted(PAGES)


def leaves(command: click.Command, context: click.Context, path: str) -> Iterator[str]:
    """`rlaif label`, `rlaif reward probe` and so on."""
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from leaves(below, click.Context(below, parent=context), f"{path} {name}")
    else:
        yield path


COMMANDS = list(leaves(cli, click.Context(cli), "rlaif"))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_shown_on_a_page_and_in_the_reference(command: str) -> None:
    shown = [
        name
        for name, page in PAGES.items()
        for block in blocks_of(page)
        for line in rlaif_commands(block.text)
        if f"{line} ".startswith(f"{command} ")
    ]
    assert REFERENCE in shown
    assert set(shown) - {REFERENCE}, f"no page tells how to use {command}"


def test_the_reference_has_the_commands_in_their_order() -> None:
    assert re.findall(r"^## (.+)$", PAGES[REFERENCE], re.MULTILINE) == COMMANDS


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    page = (site / "reference" / "python.html").read_text(encoding="utf-8")
    missing = [
        name
        for name in rlaif.__all__
        if name != "__version__" and f'id="{getattr(rlaif, name).__module__}.{name}"' not in page
    ]
    assert missing == []
    # Google-style sections were read as such, not as text.
    assert page.count("Raises:") > 5
    assert not re.search(r"<p>(Args|Raises|Attributes):", page)
