"""YAML as a tree that knows where everything stands, across files; nothing in a file can run or grow without bound.

Only plain YAML makes a constitution: texts, numbers, true and false, lists and mappings (YAML 1.2, so `yes` is a text),
with anchors, aliases and merge keys. The tree is made from the reader's events, in one pass, without recursion.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from rlaif.characters import hidden_characters
from rlaif.constitution.findings import finding
from rlaif.findings import Finding, Place

MAX_VALUES = 10_000
MAX_DEPTH = 50
_PLAIN = "the file must be plain YAML"
_QUOTE = "put a text that begins with {0} in quotes"
# What the YAML reader says, and what it means to somebody who writes a constitution.
_MEANT = (
    (
        re.compile("mapping values are not allowed"),
        "a colon where no key can stand; put a text that holds ': ' in quotes, and start the keys of a mapping in one "
        "column",
    ),
    (re.compile(r"character '\\t'"), "a tab where YAML takes spaces only; put spaces"),
    (re.compile(r"character '(.)' that cannot start"), f"a value cannot begin with {{0}}; {_QUOTE}"),
    (re.compile("end of stream"), "a quote is opened here and never closed; close it"),
    (
        re.compile("expected <block end>"),
        "this line fits none above it; start the keys of a mapping, or the dashes of a list, in one column",
    ),
    (re.compile(r"expected ',' or '(.)'"), "{0} or a comma is missing; close what is opened on line {line}"),
    (re.compile("unknown escape character '(.)'"), "\\{0} means nothing in double quotes; use single quotes"),
    (re.compile("sequence entries are not allowed"), "a dash where no list can begin; begin the list on the next line"),
    (re.compile("could not find expected ':'"), "a line without a colon; write key: value, or put the text in quotes"),
    (re.compile("alphabetic or numeric character"), "& and * stand for anchors; put a text that begins so in quotes"),
)
# YAML readers refuse these, or take them for line ends; all are findings, and the rest of the file is still read.
_UNREADABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")

Scalar = str | int | float | bool | None


@dataclass(slots=True, eq=False)
class Node:
    """A value and where it stands.

    `place` is that of its key in a mapping, else its own. `first` and `last` are the lines of the value, in `lines`,
    the file's. `size` counts the values in it, aliases unfolded; `depth` is 1 for a scalar.
    """

    value: Scalar | dict[str, Node] | list[Node]
    place: Place
    lines: list[str]
    first: int
    last: int
    size: int = 1
    depth: int = 1

    @property
    def entries(self) -> dict[str, Node]:
        """What a mapping holds; empty for anything else."""
        return self.value if isinstance(self.value, dict) else {}

    @property
    def items(self) -> list[Node]:
        """What a list holds; empty for anything else."""
        return self.value if isinstance(self.value, list) else []

    @property
    def text(self) -> str | None:
        """The value if it is a text."""
        return self.value if isinstance(self.value, str) else None

    def plain(self) -> Any:
        """The value without places."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def at(self, *path: str | int) -> Node | None:
        """The value at a path of keys and numbers, or `None`."""
        deepest, found_all = self.deepest(path)
        return deepest if found_all else None

    def deepest(self, path: tuple[str | int, ...]) -> tuple[Node, bool]:
        """The last value on the path that is there, and whether it is the path's end."""
        node = self
        for part in path:
            if isinstance(node.value, dict) and part in node.value:
                node = node.value[str(part)]
            elif isinstance(node.value, list) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
            else:
                return node, False
        return node, True

    def spot(self, piece: str) -> Place:
        """Where a piece of this text stands: its line in the file, or that of the value."""
        for number in range(self.first, min(self.last, len(self.lines)) + 1):
            column = self.lines[number - 1].find(piece)
            if column >= 0:
                return Place(self.place.file, number, column + 1)
        return self.place


class _Stop(Exception):
    """The rest of the file cannot be read."""


@dataclass(slots=True)
class _Open:
    """A list or mapping that is being read."""

    node: Node
    anchor: str | None
    key: tuple[str, Place] | None = None
    merging: bool = False
    merged: list[tuple[Node, Place]] = field(default_factory=list)


def parse_tree(text: str, file: str) -> tuple[Node | None, list[Finding]]:
    """Read YAML; `file` names it in findings.

    Returns:
        The tree, `None` if there is none, and what is wrong with the text as YAML.
    """
    return _Reader(text, file).read()


class _Reader:
    def __init__(self, text: str, file: str) -> None:
        self.file = file
        self.findings: list[Finding] = []
        self.text = self._readable(text.replace("\r\n", "\n").replace("\r", "\n"))
        self.stack: list[_Open] = []
        self.anchors: dict[str, Node] = {}
        self.total = 0
        self.root: Node | None = None

    def read(self) -> tuple[Node | None, list[Finding]]:
        """Go through the events."""
        handlers: dict[str, Callable[[Any], None]] = {
            "DocumentStartEvent": self._document,
            "ScalarEvent": self._scalar,
            "AliasEvent": self._alias,
            "SequenceStartEvent": self._start,
            "MappingStartEvent": self._start,
            "SequenceEndEvent": self._end,
            "MappingEndEvent": self._end,
        }
        try:
            for event in self._events():
                handler = handlers.get(type(event).__name__)
                if handler is not None:
                    handler(event)
        except _Stop:
            return None, self.findings
        if self.root is None or not isinstance(self.root.value, dict):
            expected = "expected the keys name, objectives, aggregation"
            self._report("yaml-syntax", 0, 0, f"the file holds no mapping; {expected}.")
            return None, self.findings
        return self.root, self.findings

    def _events(self) -> Iterator[Any]:
        try:
            yield from YAML(typ="safe", pure=True).parse(self.text)
        except _Stop:
            raise
        except MarkedYAMLError as error:
            fact = (error.problem or error.context or "not YAML").strip()
            mark = error.problem_mark or error.context_mark
            if "end of stream" in fact and error.context_mark:
                # What was opened and never closed, not the end of the file.
                mark = error.context_mark
            self._stop("yaml-syntax", mark, _in_plain_words(fact, error.context_mark))
        except Exception as error:
            # The reader has faults of its own on broken files; none may end the command.
            fact = (str(error).splitlines() or [""])[0] or type(error).__name__
            self._stop("yaml-syntax", None, f"the YAML reader fails ({fact}); {_PLAIN}.")

    def _readable(self, text: str) -> str:
        self.lines = text.split("\n")
        if text.isascii() and not _UNREADABLE.search(text):
            return text
        # Comments too: a character that turns the text around can make one look like a rule.
        for number, line in enumerate(self.lines):
            first: dict[str, int] = {}
            for each in hidden_characters(line):
                first.setdefault(each.name, each.start)
            for name, index in first.items():
                self._report("non-printing", number, index, f"non-printing character {name}; remove it.")
        return _UNREADABLE.sub(" ", text)

    def _document(self, event: Any) -> None:
        if self.root is not None:
            self._stop("yaml-syntax", event.start_mark, f"a second document starts here; {_PLAIN}, one document.")

    def _scalar(self, event: Any) -> None:
        tag, plain = event.tag, not event.style
        self._check_tag(tag, event, ("str", "int", "float", "bool", "null", "timestamp", "value", "merge"))
        if event.style == '"' and not event.value.isascii():
            self._check_escapes(event)
        if self._wants_key():
            top = self.stack[-1]
            top.key = (event.value, self._place(event.start_mark))
            top.merging = plain and event.value == "<<" and tag is None
            self._count(1, event)
            return
        typed = (plain and tag is None) or (tag or "").rpartition(":")[2] in ("int", "float", "bool", "null")
        node = self._node(_resolve(event.value) if typed else event.value, event)
        self._count(1, event)
        self._keep(event.anchor, node)
        self._add(node)

    def _alias(self, event: Any) -> None:
        name = str(event.anchor)
        if any(each.anchor == name for each in self.stack):
            self._stop("yaml-alias", event.start_mark, f"anchor {name!r} contains itself; write the values out.")
        target = self.anchors.get(name)
        if target is None:
            self._stop("yaml-alias", event.start_mark, f"*{name} refers to no anchor; {_QUOTE.format('*')}.")
        self._count(target.size, event)
        if len(self.stack) + target.depth > MAX_DEPTH:
            self._too_deep(event)
        if self._wants_key():
            if not isinstance(target.value, str):
                self._stop("yaml-syntax", event.start_mark, f"a key must be a text; {_PLAIN}.")
            self.stack[-1].key = (target.value, self._place(event.start_mark))
        else:
            self._add(replace(target, place=self._place(event.start_mark)))

    def _start(self, event: Any) -> None:
        kind = "seq" if type(event).__name__ == "SequenceStartEvent" else "map"
        self._check_tag(event.tag, event, (kind,))
        if self._wants_key():
            self._stop("yaml-syntax", event.start_mark, f"a key must be a text, not a list or a mapping; {_PLAIN}.")
        self._count(1, event)
        if len(self.stack) >= MAX_DEPTH:
            self._too_deep(event)
        node = self._node([] if kind == "seq" else {}, event)
        if event.anchor is not None:
            self.anchors.pop(event.anchor, None)
        self.stack.append(_Open(node, event.anchor))

    def _end(self, event: Any) -> None:
        opened = self.stack.pop()
        node = opened.node
        for source, place in opened.merged:
            self._merge(node, source, place, event)
        children = [*node.items, *node.entries.values()]
        node.size = 1 + sum(child.size for child in children)
        node.depth = 1 + max((child.depth for child in children), default=0)
        node.last = event.end_mark.line + (event.end_mark.column > 0)
        self._keep(opened.anchor, node)
        self._add(node)

    def _merge(self, node: Node, source: Node, place: Place, event: Any) -> None:
        sources = source.items if isinstance(source.value, list) else [source]
        if not all(isinstance(each.value, dict) for each in sources):
            self.findings.append(finding("yaml-syntax", place, f"<< takes a mapping or a list of them; {_PLAIN}."))
            return
        for each in sources:
            for key, value in each.entries.items():
                if key not in node.entries:
                    self._count(value.size, event)
                    node.entries[key] = value

    def _add(self, node: Node) -> None:
        if not self.stack:
            self.root = node
            return
        top = self.stack[-1]
        if isinstance(top.node.value, list):
            top.node.value.append(node)
            return
        assert top.key is not None
        (key, place), top.key = top.key, None
        node = replace(node, place=place)
        if top.merging:
            top.merging = False
            top.merged.append((node, place))
        elif key in top.node.entries:
            fact = f"key {key[:60]!r} is given twice; give each key once."
            self.findings.append(finding("duplicate-key", place, fact))
        else:
            top.node.entries[key] = node

    def _wants_key(self) -> bool:
        return bool(self.stack) and isinstance(self.stack[-1].node.value, dict) and self.stack[-1].key is None

    def _keep(self, anchor: str | None, node: Node) -> None:
        if anchor is not None:
            self.anchors[anchor] = node

    def _node(self, value: Scalar | dict[str, Node] | list[Node], event: Any) -> Node:
        last = event.end_mark.line + (event.end_mark.column > 0)
        return Node(value, self._place(event.start_mark), self.lines, event.start_mark.line + 1, last)

    def _place(self, mark: Any) -> Place:
        return Place(self.file, mark.line + 1, mark.column + 1)

    def _check_tag(self, tag: str | None, event: Any, allowed: tuple[str, ...]) -> None:
        name = str(tag).removeprefix("tag:yaml.org,2002:")
        if tag is not None and tag != "!" and name not in allowed:
            shown = f"!!{name}" if name != tag else name
            fact = f"tag {shown[:60]} is not allowed; {_PLAIN}, so remove the tag."
            self.findings.append(finding("yaml-tag", self._place(event.start_mark), fact))

    def _check_escapes(self, event: Any) -> None:
        written = "\n".join(self.lines[event.start_mark.line : event.end_mark.line + 1])
        hidden = [each for each in hidden_characters(event.value) if each.char not in written]
        for name in dict.fromkeys(each.name for each in hidden):
            fact = f"non-printing character {name}, written as an escape; remove it."
            self.findings.append(finding("non-printing", self._place(event.start_mark), fact))

    def _count(self, number: int, event: Any) -> None:
        self.total += number
        if self.total > MAX_VALUES:
            fact = f"the file unfolds to over {MAX_VALUES:,} values; split it, or remove repeated YAML aliases."
            self._stop("too-large", event.start_mark, fact)

    def _too_deep(self, event: Any) -> NoReturn:
        self._stop("yaml-syntax", event.start_mark, f"nested too deeply, over {MAX_DEPTH} levels; {_PLAIN}.")

    def _report(self, code: str, line: int, column: int, message: str) -> None:
        self.findings.append(finding(code, Place(self.file, line + 1, column + 1), message))

    def _stop(self, code: str, mark: Any, message: str) -> NoReturn:
        self._report(code, mark.line if mark else 0, mark.column if mark else 0, message)
        raise _Stop


def _in_plain_words(fact: str, opened: Any) -> str:
    """A syntax error of the YAML reader, with its fix; `opened` is where what it was reading began."""
    for pattern, meant in _MEANT:
        found = pattern.search(fact)
        if found:
            return f"{meant.format(*found.groups(), line=opened.line + 1 if opened else 1)}."
    return f"{fact}; {_PLAIN}."


_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?P<real>\.[0-9]*)?|(?P<point>\.[0-9]+))(?P<power>[eE][-+]?[0-9]+)?")
_BASED = re.compile(r"0o[0-7]{1,20}|0x[0-9a-fA-F]{1,16}")
_SPECIAL = re.compile(r"(?P<sign>[-+]?)\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_WORDS = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
}
_LONGEST_INT = 300


def _resolve(text: str) -> Scalar:
    """What a plain scalar means, by the core schema of YAML 1.2."""
    if text in _WORDS:
        return _WORDS[text]
    match = _NUMBER.fullmatch(text)
    if match:
        whole = match["real"] is None and match["point"] is None and match["power"] is None
        return int(text) if whole and len(text) <= _LONGEST_INT else float(text)
    if _BASED.fullmatch(text):
        return int(text, 0)
    special = _SPECIAL.fullmatch(text)
    if special:
        return float(text.lower().replace(".", ""))
    return text
