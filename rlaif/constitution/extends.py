"""Constitutions that extend others: `extends: hhh`, `extends: ../team.yaml`, or a list of such.

A parent is the name of a shipped constitution, or a file, from the folder of the file that names it. What a file says
is put over what its parents say, of several parents the later over the earlier:

- objectives go by their name, and the keys that the child gives of one replace the parent's;
- principles go by their id: of one that the parent has, the keys that are given replace the parent's (`weight: 0` turns
  it off, `cases` replaces all its cases), and one that the parent has not is added at the end;
- in `aggregation`, `method` is replaced, and so is each entry of `floors` and of `by_tag`;
- `name`, `version` and `description` are never inherited.

The merged content is what is loaded, digested and shown. Every value keeps its own place, so a finding names the file
and line in which the value at fault stands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from rlaif.constitution.findings import finding
from rlaif.constitution.yaml_tree import MAX_VALUES, Node, parse_tree
from rlaif.errors import nearest
from rlaif.findings import Finding, Place
from rlaif.shipped import shipped_folder

# Text-heavy YAML of this size is read in half a second.
MAX_BYTES = 2**18
MAX_CHAIN = 16
MAX_FILES = 64
_OWN = ("name", "version", "description")
Merge = Callable[[Node, Node], Node]


def read_source(path: Path, place: Place, limit: int = MAX_BYTES) -> tuple[str | None, list[Finding]]:
    """Read a file as text, at most `limit` bytes of it; `place` is what a finding is about if it cannot be opened."""
    name = str(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            # Asked for its size first: a file of gigabytes is refused without being read.
            raw = file.read(limit + 1) if size <= limit else b""
    except OSError as error:
        return None, [finding("unreadable", place, f"{name} cannot be read ({error.strerror or error}).")]
    if max(size, len(raw)) > limit:
        fact = f"{max(size, len(raw)):,} bytes; a constitution, with what it extends, is at most {MAX_BYTES:,} bytes."
        return None, [finding("too-large", Place(name, 1), fact)]
    try:
        return raw.decode("utf-8-sig"), []
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        return None, [finding("not-utf8", Place(name, line), "invalid UTF-8; save the file as UTF-8.")]


def whole_tree(text: str, file: str) -> tuple[Node | None, list[Finding]]:
    """Read YAML, and put it over what it extends; the tree is `None` if any of the files cannot be read."""
    merger = _Merger(MAX_BYTES - len(text.encode("utf-8", "replace")))
    return merger.tree(text, file, (Path(file).resolve(),), (file,)), merger.findings


class _Merger:
    """Reads each file once; `left` counts the bytes that may still be read, `values` those in the trees."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.values = 0
        self.findings: list[Finding] = []
        self.known: dict[Path, Node | None] = {}
        self.shipped = {file.stem: file for file in sorted(shipped_folder("constitutions").glob("*.yaml"))}

    def tree(self, text: str, file: str, chain: tuple[Path, ...], names: tuple[str, ...]) -> Node | None:
        tree, findings = parse_tree(text, file)
        self.findings += findings
        self.values += tree.size if tree else 0
        if self.values > MAX_VALUES:
            fact = f"with the files that extend one another, over {MAX_VALUES:,} values; split it."
            self.findings.append(finding("too-large", Place(file, 1), fact))
            return None
        if tree is None or "extends" not in tree.entries:
            return tree
        references = self._references(tree.entries["extends"])
        if references is None:
            return None
        base: Node | None = None
        for reference in references:
            parent = self._parent(reference, Path(file), chain, names)
            if parent is None:
                return None
            base = parent if base is None else _over(base, parent)
        own = {key: value for key, value in tree.entries.items() if key != "extends"}
        child = replace(tree, value=own)
        return child if base is None else _over(_without(base, _OWN), child)

    def _references(self, node: Node) -> list[Node] | None:
        listed = node.items if isinstance(node.value, list) else [node]
        texts = all(isinstance(each.value, str) and each.value.strip() for each in listed)
        if texts and 1 <= len(listed) <= MAX_CHAIN:
            return listed
        fact = f"extends takes the name of a shipped constitution or a file, or a list of up to {MAX_CHAIN} of them."
        self.findings.append(finding("bad-extends", node.place, fact))
        return None

    def _parent(self, reference: Node, child: Path, chain: tuple[Path, ...], names: tuple[str, ...]) -> Node | None:
        name = (reference.text or "").strip()
        path = self._found(child.parent / name) or self.shipped.get(name)
        if path is None:
            shipped = ", ".join(self.shipped)
            fact = f"extends names {name[:80]!r}; no such file from here, and not one of the shipped: {shipped}."
            self.findings.append(finding("bad-extends", reference.place, fact + nearest(name, self.shipped)))
            return None
        resolved = path.resolve()
        if resolved in chain:
            circle = " -> ".join([*names[chain.index(resolved) :], str(path)])
            fact = f"extends goes in a circle: {circle}; remove one of these."
            self.findings.append(finding("bad-extends", reference.place, fact))
            return None
        if len(chain) >= MAX_CHAIN:
            fact = f"over {MAX_CHAIN} constitutions extend one another, from {names[0]} on; put some together."
            self.findings.append(finding("bad-extends", reference.place, fact))
            return None
        if resolved not in self.known:
            if len(self.known) >= MAX_FILES:
                fact = f"over {MAX_FILES} files in all; put some together."
                self.findings.append(finding("bad-extends", reference.place, fact))
                return None
            self.known[resolved] = self._read(path, reference, (*chain, resolved), (*names, str(path)))
        return self.known[resolved]

    def _read(self, path: Path, reference: Node, chain: tuple[Path, ...], names: tuple[str, ...]) -> Node | None:
        text, findings = read_source(path, reference.place, self.left)
        self.findings += findings
        if text is None:
            return None
        self.left -= len(text.encode())
        return self.tree(text, str(path), chain, names)

    @staticmethod
    def _found(path: Path) -> Path | None:
        try:
            return path if path.is_file() and path.resolve() else None
        except (OSError, ValueError, RuntimeError):
            # Too long, a null character, or links in a circle.
            return None


def _over(base: Node, child: Node) -> Node:
    """Put one constitution over another, key by key."""
    return _merged(base, child, {"objectives": _objectives, "aggregation": _aggregation})


def _objectives(base: Node, child: Node) -> Node:
    return _merged(base, child, dict.fromkeys(child.entries, _objective))


def _objective(base: Node, child: Node) -> Node:
    return _merged(base, child, {"principles": _principles})


def _aggregation(base: Node, child: Node) -> Node:
    return _merged(base, child, {"floors": _entries, "by_tag": _entries})


def _entries(base: Node, child: Node) -> Node:
    return _merged(base, child, {})


def _principles(base: Node, child: Node) -> Node:
    if not isinstance(base.value, list) or not isinstance(child.value, list):
        return child
    places = {_id(each): number for number, each in reversed(list(enumerate(base.value))) if _id(each)}
    merged = list(base.value)
    for each in child.value:
        # An id that the child gives twice is added the second time, and found to be used twice.
        number = places.pop(_id(each), None)
        if number is None:
            merged.append(each)
        else:
            merged[number] = _entries(merged[number], each)
    return replace(child, value=merged)


def _id(node: Node) -> str:
    name = node.at("id")
    return (name.text or "").strip() if name else ""


def _merged(base: Node, child: Node, inner: Mapping[str, Merge]) -> Node:
    """Put a mapping over another; `inner` says how the values at a key are merged, else the child's replaces."""
    if not isinstance(base.value, dict) or not isinstance(child.value, dict):
        return child
    values = dict(base.value)
    for key, value in child.value.items():
        merge = inner.get(key)
        values[key] = merge(values[key], value) if merge and key in values else value
    return replace(child, value=values)


def _without(node: Node, keys: tuple[str, ...]) -> Node:
    return replace(node, value={key: value for key, value in node.entries.items() if key not in keys})
