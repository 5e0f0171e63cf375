"""Templates: jinja2 in a sandbox, rendered to the messages a judge reads.

A template is a `.j2` file with a YAML head (`verdict`, `choices`, `rationale`) and three blocks: `system` (about the
task), `pair` (the quoted conversation and responses) and `objective` (the question and principles). They are joined in
that order, so that all objectives of one pair and order share the longest possible prefix.

Quoted texts are data: they stand between marker lines that carry the pair's nonce, and whatever in them could pass
for a marker line, for the verdict or for a control token of a chat format is broken up with an invisible character.
"""

from __future__ import annotations

import hashlib
import re
import traceback
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from jinja2 import StrictUndefined, TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import Field, StringConstraints, ValidationError, field_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from rlaif.errors import InputError
from rlaif.shipped import find_shipped
from rlaif.types import Frozen, Message, Pair

BREAK = "\u200b"  # ZERO WIDTH SPACE: splits a token without changing what a reader sees

# What chat formats use as control tokens. Engines that hold the tokenizer break up its own special tokens too.
_CONTROL = re.compile(
    r"<[|｜][^<>\n]{1,48}[|｜]>"  # <|im_start|>, <|eot_id|>, <｜Assistant｜>
    r"|</?(?:s|bos|eos|pad|unk|mask|cls|sep|think|tool_call|tool_response|tools|image|video|audio)>"
    r"|</?(?:start_of_turn|end_of_turn|start_header_id|end_header_id|im_start|im_end|extra_id_\d+|unused\d+)>"
    r"|<</?SYS>>"
    r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|IMG|THINK|PAD|UNK|CLS|SEP|MASK|BOS|EOS)\]",
    re.IGNORECASE,
)


def break_up(match: re.Match[str]) -> str:
    """Put an invisible break after the first character of a match."""
    text = match.group()
    return text[0] + BREAK + text[1:]


def neutral_control(text: str) -> str:
    """Break up whatever chat formats use as control tokens."""
    return _CONTROL.sub(break_up, text) if "<" in text or "[" in text else text


Visible = Annotated[str, StringConstraints(pattern=r"\S", max_length=64)]


class TemplateHead(Frozen):
    """The YAML head of a template."""

    verdict: Visible = "Verdict:"
    choices: Annotated[tuple[Visible, ...], Field(min_length=2, max_length=2)] = ("A", "B")
    rationale: bool = True

    @field_validator("choices")
    @classmethod
    def _differ(cls, choices: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(choices)) < len(choices):
            raise ValueError("two choices are the same")
        return choices


class Template:
    """A judge's prompt template.

    Args:
        source: the text of the `.j2` file.
        place: its name in errors.

    Raises:
        InputError: the head, the syntax or a block is wrong, with the line.
    """

    def __init__(self, source: str, place: str) -> None:
        self.place = place
        self.digest = hashlib.sha256(source.encode()).hexdigest()
        head, body, self._offset = _split_head(source, place)
        self.head = head
        environment = ImmutableSandboxedEnvironment(
            undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=False
        )
        try:
            self._template = environment.from_string(body)
        except TemplateSyntaxError as error:
            raise InputError(
                f"{place}:{error.lineno + self._offset}: {error.message}; fix the jinja2 syntax."
            ) from None
        missing = [name for name in ("pair", "objective") if name not in self._template.blocks]
        if missing:
            raise InputError(
                f"{place}:1: no block {' and '.join(missing)}; a template needs both (and may have system)."
            )
        self._marker = re.compile(re.escape(head.verdict), re.IGNORECASE)
        self._cached_objective: Callable[..., str] = lru_cache(maxsize=4096)(self._render_objective)

    def system(self) -> str:
        """Render the system message; empty when the template has none."""
        return self._render("system", {}) if "system" in self._template.blocks else ""

    def pair(self, pair: Pair) -> str:
        """Render the quoted part; `pair.response_a` is what is shown first."""
        nonce = pair.nonce

        def fence(label: str, text: str) -> str:
            quoted = text if text.strip() else "(empty)"
            return f"[{nonce} {label}]\n{quoted}\n[{nonce} end of {label}]"

        def conversation(turns: Sequence[Message]) -> str:
            lines = [f"[{nonce} {turn.role}]\n{turn.content}" for turn in turns]
            return "\n".join([*lines, f"[{nonce} end of conversation]"])

        def safe(text: str) -> str:
            return self._neutral(text, nonce)

        turns = [Message.model_construct(role=turn.role, content=safe(turn.content)) for turn in pair.prompt]
        values = {
            "prompt": turns,
            "response_a": safe(pair.response_a),
            "response_b": safe(pair.response_b),
            "fence": fence,
            "conversation": conversation,
        }
        return self._render("pair", values)

    def objective(self, name: str, question: str, principles: tuple[str, ...]) -> str:
        """Render the question and the principles to decide it by."""
        return self._cached_objective(name, question, principles)

    def messages(self, system: str, pair_text: str, objective_text: str) -> tuple[Message, ...]:
        """Join the rendered blocks into chat messages."""
        user = Message.model_construct(role="user", content=f"{pair_text}\n\n{objective_text}")
        if not system:
            return (user,)
        return (Message.model_construct(role="system", content=system), user)

    def _neutral(self, text: str, nonce: str) -> str:
        text = neutral_control(text)
        if nonce in text:
            text = text.replace(nonce, nonce[0] + BREAK + nonce[1:])
        return self._marker.sub(break_up, text)

    def _render_objective(self, name: str, question: str, principles: tuple[str, ...]) -> str:
        return self._render("objective", {"objective": name, "question": question, "principles": principles})

    def _render(self, block: str, values: dict[str, Any]) -> str:
        try:
            context = self._template.new_context(values)
            return "".join(self._template.blocks[block](context)).strip()
        except Exception as error:
            fact = str(error).rstrip(".") or type(error).__name__
            raise InputError(f"{self.place}:{self._line_of(error)}: block {block}: {fact}; {_known(block)}") from None

    def _line_of(self, error: Exception) -> int:
        line = 1
        for frame, number in traceback.walk_tb(error.__traceback__):
            if frame.f_code.co_filename == self._template.filename:
                line = self._template.get_corresponding_lineno(number) + self._offset
        return line


def _known(block: str) -> str:
    values = {
        "pair": "it is given prompt, response_a, response_b, fence(label, text) and conversation(prompt).",
        "objective": "it is given objective, question and principles.",
    }
    return values.get(block, "it is given nothing.")


def _split_head(source: str, place: str) -> tuple[TemplateHead, str, int]:
    match = re.match(r"---[ \t]*\r?\n(.*?)^---[ \t]*\r?\n", source, re.DOTALL | re.MULTILINE)
    if not match:
        raise InputError(f"{place}:1: no head; start with --- lines around verdict, choices and rationale.")
    try:
        head = TemplateHead.model_validate(YAML(typ="safe").load(match.group(1)) or {})
    except YAMLError as error:
        mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
        fact = (error.problem if isinstance(error, MarkedYAMLError) else None) or str(error).splitlines()[0]
        raise InputError(f"{place}:{mark.line + 2 if mark else 1}: the head is not YAML ({fact}).") from None
    except ValidationError as errors:
        first = errors.errors()[0]
        known = ", ".join(TemplateHead.model_fields)
        where = ".".join(map(str, first["loc"])) or "all of it"
        keys = [line.partition(":")[0].strip("\"' ") for line in match.group().splitlines()]
        line = keys.index(str(first["loc"][0])) + 1 if first["loc"] and first["loc"][0] in keys else 1
        raise InputError(f"{place}:{line}: head, {where}: {first['msg']}; known keys are {known}.") from None
    return head, source[match.end() :], source[: match.end()].count("\n")


def load_template(name: str | Path) -> Template:
    """Load a template by the name of a shipped one (`pairwise-cot`) or by file.

    Raises:
        InputError: no such template, or it is not usable.
    """
    path = find_shipped("prompts", str(name), ".j2")
    try:
        return Template(path.read_text(encoding="utf-8-sig"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}).") from None
