"""Turn matplotlib's SVG into markup for a page: colours as CSS variables, text as text, no style, no stray ids.

A page's content security policy forbids style attributes, and a page with several pictures needs ids that differ.
"""

from __future__ import annotations

import io
import re
import warnings
import xml.etree.ElementTree as ElementTree
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Colours to draw with. Each stands for a CSS variable, and becomes `var(--NAME)` in the page.
INK, SOFT, LINE, EDGE = "#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04"
PAPER, FIRST, SECOND, THIRD = "#0a0b05", "#0a0b06", "#0a0b07", "#0a0b08"
_VARIABLES = {
    INK: "ink",
    SOFT: "soft",
    LINE: "line",
    EDGE: "edge",
    PAPER: "paper",
    FIRST: "first",
    SECOND: "second",
    THIRD: "third",
}
_SVG, _XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_REFERENCE = re.compile(r"url\(#([^)]*)\)")
_TURNED_BY_NOTHING = re.compile(r"rotate\(-?0(?:\.0+)? ")
# The page sets the font, and the words of a title say what the picture is.
_DROPPED = frozenset({"font-family", "font-style", "font-variant", "font-stretch"})


def to_markup(figure: Figure, name: str, title: str, description: str) -> str:
    """Render a figure, drawn at 72 dots an inch, to an `<svg>` element.

    Screen readers read its title and description. `name` starts every id within and is to be unique in the page. The
    same figure gives the same text.
    """
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}), warnings.catch_warnings():
        # matplotlib measures with a font of its own; that it lacks some scripts does not matter, since browsers do not.
        warnings.simplefilter("ignore", UserWarning)
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    root = ElementTree.fromstring(buffer.getvalue())
    _tidy(root)
    _rename(root, name)
    _head(root, name, title, description)
    return ElementTree.tostring(root, encoding="unicode")


def _tidy(root: ElementTree.Element) -> None:
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{_SVG}metadata", f"{_SVG}style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        if element.tag != "text":
            element.text = None
        element.tail = None
        for key, given in _presentation(element.attrib.pop("style", "")):
            element.set(key, given)
        if element.tag == "text":
            element.set("fill", element.get("fill", f"var(--{_VARIABLES[INK]})"))
        for key in ("d", "x", "y", "transform", "width", "height"):
            if key in element.attrib:
                element.set(key, " ".join(_LONG_NUMBER.sub(_short, element.attrib[key]).split()))
        if _TURNED_BY_NOTHING.match(element.get("transform", "")):
            del element.attrib["transform"]


def _presentation(style: str) -> list[tuple[str, str]]:
    """What a style attribute says, as attributes of their own."""
    pairs = (part.split(":", 1) for part in style.split(";") if ":" in part)
    named = ((key.strip(), given.strip()) for key, given in pairs)
    return [
        (key, f"var(--{_VARIABLES[given]})" if given in _VARIABLES else given)
        for key, given in named
        if key not in _DROPPED
    ]


def _short(match: re.Match[str]) -> str:
    short = f"{float(match.group()):.2f}".rstrip("0").rstrip(".")
    return "0" if short == "-0" else short


def _rename(root: ElementTree.Element, name: str) -> None:
    """Give ids that something refers to a name of this picture's, and drop all others."""
    used: dict[str, str] = {}
    for element in root.iter():
        target = element.attrib.pop(f"{_XLINK}href", None)
        if target is not None:
            element.set("href", f"#{used.setdefault(target.removeprefix('#'), f'{name}-{len(used)}')}")
        clip = _REFERENCE.fullmatch(element.get("clip-path", ""))
        if clip:
            element.set("clip-path", f"url(#{used.setdefault(clip.group(1), f'{name}-{len(used)}')})")
    for element in root.iter():
        old = element.attrib.pop("id", None)
        if old in used:
            element.set("id", used[old])


def _head(root: ElementTree.Element, name: str, title: str, description: str) -> None:
    view = root.get("viewBox", "")
    root.attrib.clear()
    root.attrib |= {
        "viewBox": view,
        "role": "img",
        "aria-labelledby": f"{name}-title {name}-description",
        "stroke-linejoin": "round",
    }
    for place, (tag, text) in enumerate((("title", title), ("desc", description))):
        element = ElementTree.Element(tag, {"id": f"{name}-{'title' if tag == 'title' else 'description'}"})
        element.text = text
        root.insert(place, element)
