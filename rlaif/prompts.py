"""Templates: jinja2 in a sandbox, rendered to the messages a model reads.

A template is a `.j2` file with a YAML head (`kind`, `verdict`, `choices`, `rationale`) and blocks: `system` (about the
task), then what is quoted, then what is asked. They are joined in that order, so that all questions about one text
share the longest possible prefix.

| kind         | quoted: block, its values              | asked: block, its values          | the answer       |
|--------------|----------------------------------------|-----------------------------------|------------------|
| `comparison` | `pair`: prompt, response_a, response_b | `objective`: question, principles | one of `choices` |
| `rating`     | `response`: prompt, response           | `objective`: question, principles | one of `choices` |
| `critique`   | `response`: prompt, response           | `principle`: principle            | its text         |
| `revision`   | `response`: prompt, response           | `critique`: principle, critique   | its text         |

Quoted texts are data: they stand between marker lines that carry the pair's nonce, and whatever in them could pass
for a marker line, for the verdict or for a control token of a chat format is broken up with an invisible character.
"""

from __future__ import annotations

import hashlib
import re
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from jinja2 import TemplateSyntaxError
from pydantic import StringConstraints, ValidationError, ValidationInfo, field_validator, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from rlaif.errors import InputError
from rlaif.prompts_sandbox import Sandbox, TooMuch
from rlaif.shipped import find_shipped
from rlaif.types import Frozen, Message, Pair, nonce_of

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
Kind = Literal["comparison", "rating", "critique", "revision"]
# The block that quotes, and the block that asks.
BLOCKS: dict[Kind, tuple[str, str]] = {
    "comparison": ("pair", "objective"),
    "rating": ("response", "objective"),
    "critique": ("response", "principle"),
    "revision": ("response", "critique"),
}
_CHOICES = {"comparison": ("A", "B"), "rating": tuple(map(str, range(1, 11)))}
_VALUES = {
    "pair": "it is given prompt, response_a, response_b, fence(label, text) and conversation(prompt).",
    "response": "it is given prompt, response, fence(label, text) and conversation(prompt).",
    "objective": "it is given objective, question and principles.",
    "principle": "it is given principle.",
    "critique": "it is given principle, critique and fence(label, text).",
}


class TemplateHead(Frozen):
    """The YAML head of a template; `verdict`, `choices` and `rationale` are a judge's only.

    A comparison has two choices, the response shown first and the other one. The choices of a rating are whole numbers
    that rise, three or more.
    """

    kind: Kind = "comparison"
    verdict: Visible = "Verdict:"
    choices: tuple[Visible, ...] = ()
    rationale: bool = True

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, head: Any) -> Any:
        if not isinstance(head, dict):
            return head
        kind = head.get("kind", "comparison")
        if kind == "rating" and isinstance(head.get("choices"), list):
            head = {**head, "choices": [str(one) if type(one) is int else one for one in head["choices"]]}
        return {"choices": _CHOICES.get(kind, ()), **head}

    @field_validator("choices")
    @classmethod
    def _fit(cls, choices: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        kind = info.data.get("kind")
        if len(set(choices)) < len(choices):
            raise ValueError("two choices are the same")
        if kind == "comparison" and len(choices) != 2:
            raise ValueError("a comparison has two choices, as [A, B]")
        if kind == "rating":
            numbers = [int(one) if one.isdecimal() else -1 for one in choices]
            if len(numbers) < 3 or -1 in numbers or numbers != sorted(numbers):
                raise ValueError("a rating has three or more whole numbers that rise, as [1, 2, 3]")
        return choices

    @model_validator(mode="after")
    def _asks_for_a_text(self) -> TemplateHead:
        if self.kind in ("critique", "revision") and (self.choices or self.model_fields_set - {"kind", "choices"}):
            raise ValueError(f"a {self.kind} has no verdict, choices or rationale")
        return self


class Template:
    """A prompt template.

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
        self._sandbox = Sandbox()
        try:
            self._template = self._sandbox.from_string(body)
        except TemplateSyntaxError as error:
            raise InputError(
                f"{place}:{error.lineno + self._offset}: {error.message}; fix the jinja2 syntax."
            ) from None
        self._quotes, self._asks = BLOCKS[head.kind]
        missing = [name for name in BLOCKS[head.kind] if name not in self._template.blocks]
        if missing:
            what = "a template" if head.kind == "comparison" else f"a {head.kind}"
            raise InputError(f"{place}:1: no block {' and '.join(missing)}; {what} needs both (and may have system).")
        judges = head.kind in ("comparison", "rating")
        self._marker = re.compile(re.escape(head.verdict), re.IGNORECASE) if judges else None
        self._cached_objective: Callable[..., str] = lru_cache(maxsize=4096)(self._render_objective)

    def system(self) -> str:
        """Render the system message; empty when the template has none."""
        return self._render("system", {}) if "system" in self._template.blocks else ""

    def pair(self, pair: Pair) -> str:
        """Render the quoted part of a comparison; `pair.response_a` is what is shown first."""
        values = {"response_a": pair.response_a, "response_b": pair.response_b}
        return self._quoted(pair.prompt, values, pair.nonce)

    def response(self, prompt: Sequence[Message], response: str) -> str:
        """Render the quoted part of a template that shows one response."""
        return self._quoted(prompt, {"response": response}, nonce_of(prompt, [response]))

    def request(
        self, prompt: Sequence[Message], response: str, principle: str, critique: str = ""
    ) -> tuple[Message, ...]:
        """Render all of a critique or a revision; the critique is quoted, as the response is."""
        nonce = nonce_of(prompt, [response])
        values: dict[str, Any] = {"principle": principle}
        if self.head.kind == "revision":
            values |= {"critique": self._neutral(critique, nonce), "fence": _fence_with(nonce)}
        return self.messages(self.system(), self.response(prompt, response), self._render(self._asks, values))

    def _quoted(self, prompt: Sequence[Message], responses: Mapping[str, str], nonce: str) -> str:
        def conversation(turns: Sequence[Message]) -> str:
            lines = [f"[{nonce} {turn.role}]\n{turn.content}" for turn in turns]
            return "\n".join([*lines, f"[{nonce} end of conversation]"])

        turns = [Message.model_construct(role=turn.role, content=self._neutral(turn.content, nonce)) for turn in prompt]
        safe = {name: self._neutral(text, nonce) for name, text in responses.items()}
        values = {"prompt": turns, **safe, "fence": _fence_with(nonce), "conversation": conversation}
        return self._render(self._quotes, values)

    def objective(self, name: str, question: str, principles: tuple[str, ...]) -> str:
        """Render the question and the principles to decide it by."""
        return self._cached_objective(name, question, principles)

    def messages(self, system: str, quoted: str, asked: str) -> tuple[Message, ...]:
        """Join the rendered blocks into chat messages."""
        user = Message.model_construct(role="user", content=f"{quoted}\n\n{asked}")
        if not system:
            return (user,)
        return (Message.model_construct(role="system", content=system), user)

    def _neutral(self, text: str, nonce: str) -> str:
        text = neutral_control(text)
        if nonce in text:
            text = text.replace(nonce, nonce[0] + BREAK + nonce[1:])
        return self._marker.sub(break_up, text) if self._marker else text

    def _render_objective(self, name: str, question: str, principles: tuple[str, ...]) -> str:
        return self._render("objective", {"objective": name, "question": question, "principles": principles})

    def _render(self, block: str, values: dict[str, Any]) -> str:
        try:
            with self._sandbox.rendering(values):
                context = self._template.new_context(values)
                return "".join(self._template.blocks[block](context)).strip()
        except TooMuch as error:
            raise InputError(f"{self.place}:{self._line_of(error)}: block {block}: {error}.") from None
        except Exception as error:
            fact = str(error).rstrip(".") or type(error).__name__
            raise InputError(f"{self.place}:{self._line_of(error)}: block {block}: {fact}; {_known(block)}") from None

    def _line_of(self, error: Exception) -> int:
        line = 1
        for frame, number in traceback.walk_tb(error.__traceback__):
            if frame.f_code.co_filename == self._template.filename:
                line = self._template.get_corresponding_lineno(number) + self._offset
        return line


def _fence_with(nonce: str) -> Callable[[str, str], str]:
    def fence(label: str, text: str) -> str:
        quoted = text if text.strip() else "(empty)"
        return f"[{nonce} {label}]\n{quoted}\n[{nonce} end of {label}]"

    return fence


def _known(block: str) -> str:
    return _VALUES.get(block, "it is given nothing.")


def _split_head(source: str, place: str) -> tuple[TemplateHead, str, int]:
    match = re.match(r"---[ \t]*\r?\n(.*?)^---[ \t]*\r?\n", source, re.DOTALL | re.MULTILINE)
    if not match:
        raise InputError(f"{place}:1: no head; start with --- lines around kind, verdict, choices and rationale.")
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
