"""Check templates: every error and every warning at once, each with its file, line and code.

What a template says is read from its syntax tree; what it shows is seen by rendering it with texts that can be found
again, in both orders. `CODES` lists what is looked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from jinja2 import TemplateSyntaxError, meta, nodes
from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from rlaif.characters import hidden_characters
from rlaif.errors import InputError, nearest
from rlaif.findings import Finding, Place, codes, found, ordered
from rlaif.prompts import BLOCKS, Template, TemplateHead, neutral_control
from rlaif.prompts_probe import QUOTED, probes
from rlaif.prompts_sandbox import Sandbox
from rlaif.shipped import find_shipped

MAX_BYTES = 2**18
_LONGEST_HEAD = 8_000
_MOST_BRACKETS = 50
_ERRORS = {
    "not-found": "there is no such file, and no shipped template of this name",
    "unreadable": "the file cannot be opened, is too large, or is not UTF-8",
    "non-printing": "a character that nobody sees: control, direction override, zero width, private",
    "head": "the head is missing, is not YAML or has a value that is not allowed",
    "unknown-key": "a key that a head does not have",
    "syntax": "the text is not jinja2, or uses a filter or test that is not there",
    "other-file": "a template that takes text from another file; a template is one file",
    "missing-block": "a block that this kind of template must have is not there",
    "unknown-block": "a block that this kind of template does not have: its text is never shown",
    "undefined-variable": "a block uses what it is not given",
    "render": "the template fails on an ordinary pair",
    "not-shown": "a response, the question, a principle or the critique is never shown",
    "no-fence": "quoted text is shown outside a fence, where it can pass for the prompt itself",
    "order-leak": "the prompt changes with the order of the responses by more than the responses",
    "no-verdict": "a judge that writes a rationale is never told to write the verdict marker",
    "same-start": "one choice begins with the other, so that they cannot be told apart",
}
_WARNINGS = {
    "no-conversation": "the conversation is never shown",
    "changed": "quoted text is not shown as it is: cut off, or in other letters",
    "depends-on-response": "what is shown depends on what a response says",
    "no-choices": "the prompt does not name the choices, so the judge does not know what to write",
    "same-letter": "both choices start with one letter, and may with one token",
    "outside-blocks": "text outside the blocks is never shown",
    "control-token": "the template holds what a chat format uses as a control token",
}
CODES = codes(_ERRORS, _WARNINGS)
_HEAD = re.compile(r"---[ \t]*\r?\n(.*?)^---[ \t]*\r?\n", re.DOTALL | re.MULTILINE)
# What each block is given, and so must show; a prompt or conversation that is left out is only warned of.
_GIVEN: dict[str, tuple[str, ...]] = {
    "pair": ("prompt", "response_a", "response_b"),
    "response": ("prompt", "response"),
    "objective": ("question", "principles"),
    "principle": ("principle",),
    "critique": ("principle", "critique"),
}
_HELPERS = {
    "pair": ("fence", "conversation"),
    "response": ("fence", "conversation"),
    "objective": ("objective",),
    "critique": ("fence",),
}
_SPOKEN = {"prompt": "the conversation", "response_a": "response_a", "response_b": "response_b"}


def lint_template(name: str | Path) -> tuple[Finding, ...]:
    """Find all that is wrong with a template, by the name of a shipped one or by file; nothing raises."""
    try:
        path = find_shipped("prompts", str(name), ".j2")
    except (InputError, OSError, ValueError) as error:
        return (_finding("not-found", Place(str(name), 1), str(error).removeprefix(f"{name}: ")),)
    place = Place(str(path), 1)
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        text = raw.decode("utf-8-sig")
    except OSError as error:
        return (_finding("unreadable", place, f"the file cannot be read ({error.strerror or error})."),)
    except UnicodeDecodeError as error:
        place = Place(str(path), raw[: error.start].count(b"\n") + 1)
        return (_finding("unreadable", place, "invalid UTF-8; save the file as UTF-8."),)
    if len(raw) > MAX_BYTES:
        return (_finding("unreadable", place, f"over {MAX_BYTES:,} bytes; no judge reads so long a template."),)
    return lint_template_text(text, str(path))


def lint_template_text(source: str, file: str) -> tuple[Finding, ...]:
    """Find all that is wrong with the text of a template; `file` names it in findings."""
    return ordered(_Linter(source, file).findings())


def _finding(code: str, place: Place, message: str) -> Finding:
    return found(CODES[code][0], code, place, message)


class _Linter:
    def __init__(self, source: str, file: str) -> None:
        self.source, self.file = source, file
        match = _HEAD.match(source)
        self.head_text = match.group(1) if match else None
        self.body = source[match.end() :] if match else source
        self.offset = source[: match.end()].count("\n") if match else 0
        self.environment = Sandbox()

    def findings(self) -> list[Finding]:
        """All of them; what needs a sound template is asked of one only."""
        told = [*self._characters(), *self._head()]
        head = self._usable_head()
        try:
            tree = self.environment.parse(self.body)
            self.environment.from_string(self.body)
        except TemplateSyntaxError as error:
            return [*told, self._at("syntax", error.lineno, f"{error.message}; fix the jinja2 syntax.")]
        except Exception as error:
            # Too deep for jinja2's parser, or for Python's compiler: it refuses, say, 30 loops in one another.
            fact = f"the template cannot be compiled ({str(error)[:100] or type(error).__name__}); make it simpler."
            return [*told, self._at("syntax", 1, fact)]
        told += self._tree(tree, head)
        if any(each.severity == "error" for each in told if each.code not in ("no-verdict", "no-fence", "not-shown")):
            return told
        try:
            template = Template(self.source, self.file)
        except InputError as error:
            return [*told, self._refused("syntax", error)]
        return [*told, *self._shown(template, tree, told)]

    def _at(self, code: str, line: int, message: str) -> Finding:
        """A finding at a line of the body."""
        return _finding(code, Place(self.file, line + self.offset), message)

    def _refused(self, code: str, error: InputError) -> Finding:
        line, _, fact = str(error).removeprefix(f"{self.file}:").partition(": ")
        return _finding(code, Place(self.file, int(line) if line.isdecimal() else 1), fact)

    def _characters(self) -> Iterator[Finding]:
        for number, line in enumerate(self.source.split("\n"), 1):
            for name in dict.fromkeys(each.name for each in hidden_characters(line.removesuffix("\r"))):
                yield _finding("non-printing", Place(self.file, number), f"non-printing character {name}; remove it.")
            broken = neutral_control(line)
            if broken != line:
                start = next(place for place, char in enumerate(broken) if line[place : place + 1] != char) - 1
                token = re.split(r"(?<=[>\]])", line[start:], maxsplit=1)[0]
                fact = f"{token[:60]!r} is a control token of chat formats, which are added by the engine; remove it."
                yield _finding("control-token", Place(self.file, number, start + 1), fact)

    def _head_values(self) -> Any:
        text = self.head_text or ""
        # The YAML reader takes seconds for brackets in brackets in brackets.
        if len(text) > _LONGEST_HEAD or text.count("[") + text.count("{") > _MOST_BRACKETS:
            raise ValueError("too long or too deep")
        return YAML(typ="safe", pure=True).load(text) or {}

    def _usable_head(self) -> TemplateHead:
        try:
            return TemplateHead.model_validate(self._head_values())
        except Exception:
            # Said by _head; the body is read as that of the kind it says it is, or of a comparison.
            kind = re.search(r"^kind:[ \t]*[\"']?(\w+)", self.head_text or "", re.MULTILINE)
            return TemplateHead.model_validate({"kind": kind[1] if kind and kind[1] in BLOCKS else "comparison"})

    def _head(self) -> Iterator[Finding]:
        if self.head_text is None:
            fact = "no head; start with --- lines around kind, verdict, choices and rationale."
            yield _finding("head", Place(self.file, 1), fact)
            return
        try:
            TemplateHead.model_validate(self._head_values())
        except ValidationError as errors:
            for error in errors.errors(include_url=False):
                yield self._head_finding(cast("dict[str, Any]", error))
        except MarkedYAMLError as error:
            line = error.problem_mark.line + 2 if error.problem_mark else 1
            fact = str(error.problem or error.context or "not YAML").partition(" with value ")[0]
            yield _finding("head", Place(self.file, line), f"the head is not YAML ({fact}).")
        except Exception as error:
            # The YAML reader has faults of its own on broken text.
            fact = (str(error).splitlines() or [type(error).__name__])[0]
            yield _finding("head", Place(self.file, 1), f"the head is not YAML ({fact[:100]}).")

    def _head_finding(self, error: dict[str, Any]) -> Finding:
        key = str(error["loc"][0]) if error["loc"] else ""
        known = list(TemplateHead.model_fields)
        if error["type"] == "extra_forbidden":
            hint = nearest(key, known)
            return self._of_head("unknown-key", key, f"unknown key {key}; known keys are {', '.join(known)}.{hint}")
        where = ".".join(map(str, error["loc"])) or "all of it"
        return self._of_head("head", key, f"head, {where}: {error['msg']}.")

    def _of_head(self, code: str, key: str, fact: str) -> Finding:
        """A finding at the line of a key of the head, or at the top where it is not given."""
        keys = [line.partition(":")[0].strip("\"' ") for line in (self.head_text or "").splitlines()]
        return _finding(code, Place(self.file, keys.index(key) + 2 if key in keys else 1), fact)

    def _tree(self, tree: nodes.Template, head: TemplateHead) -> Iterator[Finding]:
        needed = BLOCKS[head.kind]
        known = ("system", *needed)
        blocks = {block.name: block for block in tree.find_all(nodes.Block)}
        outer = [node for node in tree.body if isinstance(node, nodes.Block)]
        for name in needed:
            if name not in blocks:
                fact = f"no block {name}; a {head.kind} needs {' and '.join(needed)} (and may have system)."
                yield _finding("missing-block", Place(self.file, 1), fact)
        for block in outer:
            if block.name not in known:
                fact = f"block {block.name} is never shown; a {head.kind} has {', '.join(known)}."
                yield self._at("unknown-block", block.lineno, fact + nearest(block.name, list(known)))
        yield from self._outside(tree)
        for node in tree.find_all((nodes.Extends, nodes.Include, nodes.Import, nodes.FromImport)):
            fact = f"{type(node).__name__.lower()} takes text from another file; write it into this one."
            yield self._at("other-file", node.lineno, fact)
        for block in outer:
            if block.name in known:
                yield from self._block(block)
        shown = "\n".join(_own_text(block) for block in outer if block.name in known)
        if head.choices:
            yield from self._verdict(head, shown)

    def _outside(self, tree: nodes.Template) -> Iterator[Finding]:
        for node in tree.body:
            if isinstance(node, nodes.Block):
                continue
            text = "".join(data.data for data in node.find_all(nodes.TemplateData)).strip()
            if text or any(not isinstance(one, nodes.TemplateData) for one in node.iter_child_nodes()):
                first = next(iter(node.find_all(nodes.TemplateData)), None)
                # The lines that a text starts with are empty ones, up to what is meant.
                blank = re.match(r"\s*", first.data) if first is not None else None
                line = node.lineno + (blank.group().count("\n") if blank else 0)
                yield self._at(
                    "outside-blocks", line, "what stands outside the blocks is never shown; move it into one."
                )

    def _block(self, block: nodes.Block) -> Iterator[Finding]:
        given = _GIVEN.get(block.name, ())
        known = {*given, *_HELPERS.get(block.name, ())}
        inside = nodes.Template(block.body, lineno=block.lineno).set_environment(self.environment)
        assert isinstance(inside, nodes.Template)
        unknown = meta.find_undeclared_variables(inside) - known - self.environment.globals.keys() - {"self", "super"}
        names = [node for node in block.find_all(nodes.Name) if node.ctx == "load"]
        for name in sorted(unknown):
            lines = [node.lineno for node in names if node.name == name]
            gives = f"block {block.name} is given {', '.join(sorted(known)) or 'nothing'}"
            for line in dict.fromkeys(lines):
                fact = f"{name!r} is undefined; {gives}.{nearest(name, sorted(known))}"
                yield self._at("undefined-variable", line, fact)
        used = {node.name for node in names}
        for name in given:
            if name not in used:
                code = "no-conversation" if name == "prompt" else "not-shown"
                fact = f"block {block.name} never shows {_SPOKEN.get(name, 'the ' + name)}; the judge has to see it."
                yield self._at(code, block.lineno, fact)
        quoted = [name for name in given if name in QUOTED]
        for name, line, place in _uses(block, tuple(quoted), None):
            if place == "test":
                fact = f"what is shown depends on {name}; a judge is to see the same prompt around every response."
                yield self._at("depends-on-response", line, fact)
            elif place == "bare":
                call = "conversation(prompt)" if name == "prompt" else f'fence("…", {name})'
                fact = (
                    f"{name} is shown outside a fence, where it can pass for the prompt itself; use {{{{ {call} }}}}."
                )
                yield self._at("no-fence", line, fact)

    def _verdict(self, head: TemplateHead, shown: str) -> Iterator[Finding]:
        if head.rationale and _bare(head.verdict) not in _bare(shown):
            fact = f"the judge is never told to write {head.verdict!r}, so its rationale has no end; say it in system."
            yield self._of_head("no-verdict", "verdict", fact)
        asked = (head.choices[0], head.choices[-1])
        absent = [one for one in asked if not re.search(rf"(?<!\w){re.escape(one)}(?!\w)", shown)]
        if absent:
            fact = f"the prompt never names the choice {' or '.join(absent)}; say in system what the judge may choose."
            yield self._of_head("no-choices", "choices", fact)
        if head.kind != "comparison":
            return
        one, other = (choice.strip().casefold() for choice in head.choices)
        if one.startswith(other) or other.startswith(one):
            fact = f"one of the choices {head.choices[0]!r} and {head.choices[1]!r} begins with the other; use A and B."
            yield self._of_head("same-start", "choices", fact)
        elif one[:1] == other[:1]:
            fact = f"the choices {head.choices[0]!r} and {head.choices[1]!r} start alike, and may share a token."
            yield self._of_head("same-letter", "choices", fact)

    def _shown(self, template: Template, tree: nodes.Template, told: list[Finding]) -> Iterator[Finding]:
        lines = {block.name: block.lineno for block in tree.find_all(nodes.Block)}
        codes = {each.code for each in told}
        tests = [each.line for each in told if each.code == "depends-on-response"]
        try:
            problems = list(dict.fromkeys(probes(template)))
        except InputError as error:
            yield self._refused("render", error)
            return
        for code, block, fact in problems:
            # Where the tree names the very line, the rendering has nothing to add.
            if code == "order-leak" and tests:
                yield _finding(code, Place(self.file, tests[0]), fact)
            elif code not in codes:
                yield self._at(code, lines.get(block, 1), fact)


def _own_text(block: nodes.Block) -> str:
    """What the template itself says in a block."""
    data = [node.data for node in block.find_all(nodes.TemplateData)]
    return "\n".join(data + [node.value for node in block.find_all(nodes.Const) if isinstance(node.value, str)])


def _uses(node: nodes.Node, names: tuple[str, ...], place: str | None) -> Iterator[tuple[str, int, str]]:
    """Where quoted values are used other than in a fence: name, line, and `bare` or `test`."""
    if isinstance(node, nodes.Name):
        if node.name in names and node.ctx == "load" and place:
            yield node.name, node.lineno, place
        return
    if (
        isinstance(node, nodes.Call)
        and isinstance(node.node, nodes.Name)
        and node.node.name in ("fence", "conversation")
    ):
        return
    for field, value in node.iter_fields():
        inner = place
        counts = isinstance(node, nodes.Filter) and node.name in ("length", "count", "wordcount")
        if counts or (isinstance(node, nodes.If | nodes.CondExpr) and field == "test"):
            inner = "test"
        elif isinstance(node, nodes.Output):
            inner = "bare"
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, nodes.Node):
                yield from _uses(child, names, inner)


def _bare(text: str) -> str:
    return " ".join(text.casefold().split())
