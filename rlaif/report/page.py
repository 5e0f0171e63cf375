"""What a report page is made of, and how it becomes one file: no network, no style or script but its own.

A page is a verdict, then sections of blocks: pictures, tables, notes and examples. All text is escaped, and characters
that a reader cannot see are named (`[U+202E]`), whoever wrote them. Without scripts everything is still there to read;
with them tables sort and examples filter.
"""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from rlaif.characters import hidden_characters
from rlaif.files import replacing
from rlaif.types import Frozen

if TYPE_CHECKING:
    from jinja2 import Template

DASH = "—"
Tone = Literal["good", "bad", "open"]


class Cell(Frozen):
    """One cell of a table: a text, an interval or a remark in small print below it, and what it sorts by.

    A figure that is not defined is a dash with the reason as its remark; it sorts behind all others either way.
    """

    text: str
    remark: str = ""
    sort: float | None = None


class Column(Frozen):
    """The head of a column; figures stand to the right and sort as numbers."""

    label: str
    figures: bool = True


class Table(Frozen):
    """A table that sorts by any column; the first cell of a row names it."""

    kind: Literal["table"] = "table"
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""


class Picture(Frozen):
    """A picture with its title and how to read it; without `svg`, `reason` stands in place of both.

    `svg` is markup that `rlaif.report.figures` made, and goes into the page as it is.
    """

    kind: Literal["picture"] = "picture"
    title: str
    caption: str
    svg: str | None = None
    reason: str = ""


class Gallery(Frozen):
    """Pictures side by side where there is room."""

    kind: Literal["gallery"] = "gallery"
    pictures: tuple[Picture, ...]


class Fact(Frozen):
    """One figure in large print."""

    label: str
    value: str
    remark: str = ""


class Facts(Frozen):
    """A few figures in large print."""

    kind: Literal["facts"] = "facts"
    facts: tuple[Fact, ...]


class Notes(Frozen):
    """Warnings, or other lines that belong together."""

    kind: Literal["notes"] = "notes"
    title: str
    lines: tuple[str, ...]


class Details(Frozen):
    """Blocks that open and close on demand."""

    kind: Literal["details"] = "details"
    summary: str
    blocks: tuple[Block, ...]
    opened: bool = False


class Definitions(Frozen):
    """Words and what they mean."""

    kind: Literal["definitions"] = "definitions"
    terms: tuple[tuple[str, str], ...]


class Passage(Frozen):
    """A text of the data with its heading; `left_out` counts the characters that were cut off its end.

    A `wide` passage takes a line of its own, others stand side by side; a `marked` one is what people prefer.
    """

    label: str
    text: str
    left_out: int = 0
    wide: bool = False
    marked: bool = False


class Example(Frozen):
    """One case of the data: a line that sums it up, then its passages. `picks[i]` are its options of filter `i`."""

    id: str
    summary: str
    passages: tuple[Passage, ...]
    picks: tuple[tuple[int, ...], ...] = ()


class Filter(Frozen):
    """A choice that narrows the examples down."""

    label: str
    options: tuple[str, ...]


class Examples(Frozen):
    """Cases to read and to filter; `more` says how many there are beside them, and where."""

    kind: Literal["examples"] = "examples"
    noun: str
    filters: tuple[Filter, ...]
    examples: tuple[Example, ...]
    more: str = ""


Block = Annotated[
    Table | Picture | Gallery | Facts | Notes | Details | Definitions | Examples, Field(discriminator="kind")
]


class Section(Frozen):
    """A part of the page with a heading; `name` is its anchor: letters, digits and hyphens."""

    name: str
    title: str
    blocks: tuple[Block, ...]
    lead: str = ""


def reading_section(terms: tuple[tuple[str, str], ...]) -> Section:
    """The last section of a report: its words and what they mean."""
    words = Details(summary="What the words mean", blocks=(Definitions(terms=terms),))
    return Section(name="reading", title="How to read this page", blocks=(words,))


class Verdict(Frozen):
    """What the page comes to, in one sentence; `label` says its tone in two or three words."""

    tone: Tone
    label: str
    sentence: str
    remark: str = ""


class Page(Frozen):
    """A whole report; `facts` are lines about what it was made from."""

    title: str
    verdict: Verdict
    sections: tuple[Section, ...]
    facts: tuple[tuple[str, str], ...] = ()


Details.model_rebuild()
Section.model_rebuild()


def readable(text: str) -> str:
    """Name each character that a reader cannot see, or that turns the text around it: `[U+0000]`, `[U+202E]`."""
    parts, end = [], 0
    for hidden in hidden_characters(text):
        parts += [text[end : hidden.start], f"[U+{ord(hidden.char):04X}]"]
        end = hidden.start + 1
    return "".join([*parts, text[end:]]) if parts else text


def render_page(page: Page) -> str:
    """Render a page to HTML: the same page gives the same bytes."""
    style, script = _file("page.css"), _file("page.js")
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    text = _template().render(page=page, style=_trusted(style), script=_trusted(script), policy=policy)
    return text.lstrip()


def save_page(page: Page, path: Path) -> None:
    """Write a page whole or not at all.

    Raises:
        RunError: the file cannot be written.
    """
    text = render_page(page)
    with replacing(path) as file:
        file.write(text)


@lru_cache(maxsize=1)
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    # All that a template prints goes through `finalize` and is escaped, so that no text can be forgotten.
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, finalize=_finalize, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["trusted"] = _trusted
    return environment.from_string(_file("page.html.j2"))


def _finalize(given: Any) -> Any:
    from markupsafe import Markup

    return readable(given) if isinstance(given, str) and not isinstance(given, Markup) else given


def _trusted(text: str) -> str:
    from markupsafe import Markup

    return Markup(text)


def _file(name: str) -> str:
    text = resources.files("rlaif.report").joinpath(name).read_text(encoding="utf-8")
    # Browsers hash what stands between the tags with bare line feeds.
    return text.replace("\r\n", "\n")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
