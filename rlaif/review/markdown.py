"""Texts that nobody vouches for, as HTML that is safe to show: markdown is rendered, HTML in it stays text.

Two walls: the renderer passes no HTML through and loads no image, and what it makes is cleaned by a parser that keeps
only the tags and attributes of `_TAGS` and `_ATTRIBUTES`.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any

import nh3
from markdown_it import MarkdownIt

from rlaif.characters import hidden_characters
from rlaif.types import Frozen

if TYPE_CHECKING:
    from markdown_it.renderer import RendererHTML
    from markdown_it.token import Token
    from markdown_it.utils import OptionsDict

# Rendering takes longer than a person waits for texts that are built to be slow; longer ones are shown as they are.
MOST_CHARACTERS = 40_000
_DEEPEST = 20
_MOST_NAMED = 5

_BLOCKS = ("p", "h1", "h2", "h3", "h4", "h5", "h6", "li", "blockquote", "td", "th")
_TAGS = {*_BLOCKS, "ul", "ol", "hr", "br", "pre", "code", "em", "strong", "s", "a", "table", "thead", "tbody", "tr"}
_ATTRIBUTES = {"a": {"href", "title"}, "ol": {"start"}, "td": {"align"}, "th": {"align"}}
# Each block runs from the right or from the left as its own first letter does.
_SET: dict[str, dict[str, str]] = {tag: {"dir": "auto"} for tag in _BLOCKS} | {
    "a": {"target": "_blank"},
    "pre": {"dir": "auto", "tabindex": "0"},
}


class Shown(Frozen):
    """A text to show: as it is, and as HTML, or `None` where it is too long or nested too deep to be rendered.

    `hidden` names characters that a reader cannot see, as `U+202E RIGHT-TO-LEFT OVERRIDE`.
    """

    raw: str
    html: str | None
    hidden: tuple[str, ...] = ()


def shown(text: str) -> Shown:
    """Make a text ready for the page."""
    return Shown(raw=text, html=_html(text), hidden=_hidden(text))


def _hidden(text: str) -> tuple[str, ...]:
    names = dict.fromkeys(hidden.name for hidden in islice(hidden_characters(text), 1000))
    return tuple(islice(names, _MOST_NAMED))


def _html(text: str) -> str | None:
    if len(text) > MOST_CHARACTERS:
        return None
    renderer = _renderer()
    notes: dict[str, Any] = {}
    try:
        tokens = renderer.parse(text, notes)
        if max((token.level for token in tokens), default=0) >= _DEEPEST - 2:
            # What is nested deeper than that the renderer leaves out, and a person must see all of it.
            return None
        rendered = renderer.renderer.render(tokens, renderer.options, notes)
    except RecursionError:
        return None
    return nh3.clean(
        str(rendered),
        tags=_TAGS,
        clean_content_tags=set(),
        attributes=_ATTRIBUTES,
        set_tag_attribute_values=_SET,
        attribute_filter=_kept,
        url_schemes={"http", "https"},
        link_rel="noopener noreferrer nofollow",
    )


def _kept(tag: str, attribute: str, value: str) -> str | None:
    # A link without a scheme would lead to this very server.
    relative = attribute == "href" and not value.lower().startswith(("http://", "https://"))
    return None if relative else value


@cache
def _renderer() -> MarkdownIt:
    # A line end is kept as one: chat texts are written with them, and a person judges what was written.
    made = MarkdownIt("commonmark", {"html": False, "breaks": True, "maxNesting": _DEEPEST})
    made.enable(["table", "strikethrough"])
    # Definitions of references (`[name]: address`) would vanish from what a person sees.
    made.disable("reference")
    made.add_render_rule("image", _image)
    made.add_render_rule("th_open", _cell)
    made.add_render_rule("td_open", _cell)
    return made


def _image(
    self: RendererHTML, tokens: Sequence[Token], idx: int, options: OptionsDict, env: MutableMapping[str, Any]
) -> str:
    """An image as text: loading it would tell a stranger who reads, and when."""
    from markdown_it.common.utils import escapeHtml

    token = tokens[idx]
    words = self.renderInlineAsText(token.children, options, env) if token.children else ""
    return f"[image: {escapeHtml(words)}] <code>{escapeHtml(str(token.attrGet('src') or ''))}</code>"


def _cell(
    self: RendererHTML, tokens: Sequence[Token], idx: int, options: OptionsDict, env: MutableMapping[str, Any]
) -> str:
    """A table's cell: the page allows no style attribute, so the alignment becomes one that is none."""
    token = tokens[idx]
    style = str(token.attrs.pop("style", ""))
    if style.startswith("text-align:"):
        token.attrSet("align", style.removeprefix("text-align:"))
    return self.renderToken(tokens, idx, options, env)
