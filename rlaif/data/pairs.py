"""Rows to pairs and prompts, every shape that preference data comes in."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from rlaif.data.sources import Row, Source
from rlaif.errors import InputError
from rlaif.types import Message, Pair, Prompt, Role, TagValue

COLUMNS = ("id", "prompt", "response_a", "response_b", "chosen", "rejected", "response", "tags")
_ROLES = frozenset(get_args(Role))
_ROLE_NAMES = {"human": "user", "gpt": "assistant", "model": "assistant", "bot": "assistant"}
_TURN = re.compile(r"\n\n(Human|Assistant):")


@dataclass(frozen=True)
class Reject:
    """A row that cannot be used, and why; a line of `rejects.jsonl`."""

    line: int
    reason: str
    row: Any


class RowError(ValueError):
    """Why one row cannot be used."""


def parse_columns(text: str | None) -> dict[str, str]:
    """Read `prompt=question,response_a=first` into a mapping from our names to the dataset's.

    Raises:
        InputError: not `name=column`, or a name that is not one of ours.
    """
    columns: dict[str, str] = {}
    for part in filter(None, (text or "").split(",")):
        name, equals, column = (piece.strip() for piece in part.partition("="))
        if not equals or not column or name not in COLUMNS:
            raise InputError(f"--columns {part.strip()}: expected NAME=COLUMN with NAME one of {', '.join(COLUMNS)}.")
        columns[name] = column
    return columns


class _Ids:
    """Ids seen so far: refuses a second use, and names rows that have none by their content.

    They are kept in a temporary SQLite file, so that memory does not grow with the data.
    """

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -4000;")
        self._db.execute("CREATE TABLE ids (digest BLOB PRIMARY KEY, line INTEGER, copies INTEGER) WITHOUT ROWID")
        # One transaction that never ends: the file goes when the connection does.
        self._db.execute("BEGIN")

    def take(self, given: str | None, content: tuple[object, ...], line: int) -> str:
        if given is not None:
            if not self._free(given, line):
                query = "SELECT line FROM ids WHERE digest = ?"
                (first,) = self._db.execute(query, (_short_digest(given),)).fetchone()
                raise RowError(f"duplicate id {given[:80]!r}, first on line {first}")
            return given
        digest = hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()[:16]
        name = digest
        while not self._free(name, line):
            # Counted, so that a dataset of equal rows takes one step a row.
            query = "UPDATE ids SET copies = copies + 1 WHERE digest = ? RETURNING copies"
            ((copies,),) = self._db.execute(query, (_short_digest(digest),)).fetchall()
            name = f"{digest}-{copies}"
        return name

    def _free(self, name: str, line: int) -> bool:
        # Many rows may stand on one line, so the line does not tell whether an id is new.
        return self._db.execute("INSERT OR IGNORE INTO ids VALUES (?, ?, 1)", (_short_digest(name), line)).rowcount == 1


def _short_digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=12).digest()


def read_pairs(source: Source, columns: Mapping[str, str]) -> Iterator[tuple[int, Pair] | Reject]:
    """Yield `(line, pair)` for each usable row, and a `Reject` for each other one."""
    ids = _Ids()
    for row in source.read():
        try:
            value = _checked(row, columns)
            prompt, a, b, tags = _responses(value)
            content = (tuple((turn.role, turn.content) for turn in prompt), a, b)
            name = ids.take(_id(value), content, row.line)
            yield row.line, Pair(id=name, prompt=prompt, response_a=a, response_b=b, tags=tags)
        except RowError as error:
            yield Reject(row.line, str(error), _printable(row.value))


def read_prompts(
    source: Source, columns: Mapping[str, str], *, responses: bool = False
) -> Iterator[tuple[int, Prompt] | Reject]:
    """Yield `(line, prompt)` for each usable row, and a `Reject` for each other one.

    With `responses` a prompt also holds the row's `response`, where it has one: a text, or one assistant turn.
    """
    ids = _Ids()
    for row in source.read():
        try:
            value = _checked(row, columns)
            if "prompt" not in value:
                raise RowError(_missing(value, "prompt"))
            messages = _messages(value["prompt"], "prompt")
            content: tuple[object, ...] = tuple((turn.role, turn.content) for turn in messages)
            response = _response(value.get("response")) if responses else None
            name = ids.take(_id(value), content if response is None else (content, response), row.line)
            yield row.line, Prompt(id=name, messages=messages, response=response, tags=_tags(value.get("tags")))
        except RowError as error:
            yield Reject(row.line, str(error), _printable(row.value))


def holds_only_prompts(source: Source, columns: Mapping[str, str], look_at: int = 100) -> bool:
    """Tell whether the first usable rows have a prompt and no responses at all."""
    responses = {"response_a", "response_b", "chosen", "rejected"}
    seen = False
    for count, row in enumerate(source.read()):
        if count >= look_at:
            break
        with contextlib.suppress(RowError):
            value = _checked(row, columns)
            if responses & value.keys():
                return False
            seen = seen or "prompt" in value
    return seen


def _checked(row: Row, columns: Mapping[str, str]) -> dict[str, Any]:
    if row.fault is not None:
        raise RowError(row.fault)
    if not isinstance(row.value, Mapping):
        raise RowError(f"the row is {_kind(row.value)}; expected an object with columns")
    return _renamed(row.value, columns)


def _renamed(value: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    named = dict(value)
    for name, column in columns.items():
        if column in value:
            named[name] = value[column]
        elif name not in ("id", "tags"):
            raise RowError(_missing(value, f"column {column[:40]!r} (--columns {name}={column[:40]})"))
    return named


def _responses(value: dict[str, Any]) -> tuple[tuple[Message, ...], str, str, dict[str, TagValue]]:
    tags = _tags(value.get("tags"))
    if "response_a" in value or "response_b" in value:
        for name in ("prompt", "response_a", "response_b"):
            if value.get(name) is None:
                raise RowError(_missing(value, name))
        prompt = _messages(value["prompt"], "prompt")
        return (
            prompt,
            _text(value["response_a"], "response_a"),
            _text(value["response_b"], "response_b"),
            tags,
        )
    for name in ("chosen", "rejected"):
        if value.get(name) is None:
            raise RowError(_missing(value, "response_a and response_b" if "chosen" not in value else name))
    prompt, chosen, rejected = _chosen_rejected(value)
    if side_of(chosen, rejected) == "b":
        return prompt, rejected, chosen, {**tags, "chosen": "b"}
    return prompt, chosen, rejected, {**tags, "chosen": "a"}


def side_of(better: str, worse: str) -> Literal["a", "b"]:
    """Which response of a pair the one that is meant to be better becomes.

    Always the same place would let "always a" look like agreement, so the side follows from the content: fixed for a
    pair, even over a dataset, and told in the tags.
    """
    return "b" if hashlib.sha256(f"{better}\x00{worse}".encode()).digest()[0] % 2 else "a"


def _response(value: Any) -> str | None:
    if value is None:
        return None
    text = (
        _only_reply(_messages(value, "response"), "response") if isinstance(value, list) else _text(value, "response")
    )
    if not text.strip():
        raise RowError("response is empty")
    return text


def _chosen_rejected(value: dict[str, Any]) -> tuple[tuple[Message, ...], str, str]:
    chosen, rejected = value["chosen"], value["rejected"]
    if type(chosen) is not type(rejected):
        raise RowError(f"chosen is {_kind(chosen)} and rejected is {_kind(rejected)}; expected the same kind")
    if value.get("prompt") is not None:
        prompt = _messages(value["prompt"], "prompt")
        if isinstance(chosen, str):
            return prompt, _text(chosen, "chosen"), _text(rejected, "rejected")
        first, second = _messages(chosen, "chosen"), _messages(rejected, "rejected")
        # Some datasets repeat the prompt at the head of both conversations.
        first = first[len(prompt) :] if first[: len(prompt)] == prompt else first
        second = second[len(prompt) :] if second[: len(prompt)] == prompt else second
        return prompt, _only_reply(first, "chosen"), _only_reply(second, "rejected")
    if isinstance(chosen, str):
        first, second = _transcript(chosen, "chosen"), _transcript(_text(rejected, "rejected"), "rejected")
    else:
        first, second = _messages(chosen, "chosen"), _messages(rejected, "rejected")
    if first[:-1] != second[:-1]:
        raise RowError("chosen and rejected differ before the last turn; expected one conversation, two last replies")
    if len(first) < 2:
        raise RowError("chosen holds no prompt before its last turn")
    return first[:-1], _only_reply(first[-1:], "chosen"), _only_reply(second[-1:], "rejected")


def _only_reply(turns: tuple[Message, ...], name: str) -> str:
    if len(turns) != 1 or turns[0].role != "assistant":
        raise RowError(f"{name} must end with exactly one assistant turn after the prompt")
    return turns[0].content


def _transcript(text: str, name: str) -> tuple[Message, ...]:
    r"""Split a `\n\nHuman: … \n\nAssistant: …` transcript; the roles must alternate from Human."""
    pieces = _TURN.split("\n\n" + _text(text, name).lstrip("\n"))
    if len(pieces) < 3:
        raise RowError(f"{name} is a text without a prompt; expected a prompt column, or Human:/Assistant: turns")
    speakers, texts = pieces[1::2], pieces[2::2]
    if pieces[0].strip() or any(who != ("Human", "Assistant")[n % 2] for n, who in enumerate(speakers)):
        raise RowError(f"{name}: Human and Assistant turns do not alternate, starting with Human")
    turns = [
        Message(role="user" if who == "Human" else "assistant", content=words.strip())
        for who, words in zip(speakers, texts, strict=True)
    ]
    if turns[-1].role != "assistant" or not turns[-1].content:
        raise RowError(f"{name} has no last reply from the assistant")
    return tuple(turns)


def _messages(value: Any, name: str) -> tuple[Message, ...]:
    if isinstance(value, str):
        if not value.strip():
            raise RowError(f"{name} is empty")
        return (Message(role="user", content=_text(value, name)),)
    if not isinstance(value, (list, tuple)) or not value:
        raise RowError(f"{name} is {_kind(value)}; expected a text or a list of chat messages")
    turns = []
    for number, turn in enumerate(value, start=1):
        if not isinstance(turn, Mapping) or "role" not in turn or turn.get("content") is None:
            raise RowError(f"{name}: message {number} needs a role and a content")
        role = _ROLE_NAMES.get(str(turn["role"]).lower(), str(turn["role"]).lower())
        if role not in _ROLES:
            raise RowError(f"{name}: message {number} has role {str(turn['role'])[:40]!r}; known: user, assistant, …")
        turns.append(Message(role=role, content=_content(turn["content"], f"{name}: message {number}")))
    return tuple(turns)


def _content(value: Any, place: str) -> str:
    if isinstance(value, list):
        # The multi-part form; only text can be judged.
        if not all(isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in value):
            raise RowError(f"{place} has parts that are not text")
        value = "".join(part["text"] for part in value)
    return _text(value, place)


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise RowError(f"{name} is {_kind(value)}; expected a text")
    if "\x00" in value:
        raise RowError(f"{name} holds a NUL character at position {value.index(chr(0)) + 1}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RowError(f"{name} holds a lone surrogate at position {error.start + 1}") from None
    return value


def _id(value: dict[str, Any]) -> str | None:
    given = value.get("id")
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, (str, int)) or given == "":
        raise RowError(f"id is {_kind(given)}; expected a text or a whole number")
    return _text(str(given), "id")


def _tags(value: Any) -> dict[str, TagValue]:
    if value is None:
        return {}
    if isinstance(value, str):
        value = [value]
    if isinstance(value, (list, tuple)):
        if not all(isinstance(tag, (str, int)) for tag in value):
            raise RowError("tags is a list that holds more than texts and whole numbers")
        value = {str(tag): True for tag in value}
    if not isinstance(value, Mapping):
        raise RowError(f"tags is {_kind(value)}; expected an object of plain values")
    for name, tag in value.items():
        _text(str(name), "tags")
        if isinstance(tag, str):
            _text(tag, f"tags.{name}")
        elif isinstance(tag, (int, float)):
            if not abs(tag) < 2**63:
                raise RowError(f"tags.{str(name)[:40]} is not a number under 2^63")
        elif tag is not None:
            raise RowError(f"tags.{str(name)[:40]} is {_kind(tag)}; expected a plain value")
    return {str(name): tag for name, tag in value.items()}


def _missing(value: Mapping[str, Any], name: str) -> str:
    columns = ", ".join(sorted(_printable(str(column)[:40]) for column in value)[:8]) or "none"
    return f"no {name}; the row has the columns {columns}"


def _kind(value: Any) -> str:
    names = {type(None): "missing", bool: "true or false", int: "a number", float: "a number", str: "a text"}
    if value == "" and isinstance(value, str):
        return "empty"
    if isinstance(value, (list, tuple)):
        return "a list" if value else "an empty list"
    return names.get(type(value), "an object" if isinstance(value, Mapping) else type(value).__name__)


def _printable(value: Any, depth: int = 0) -> Any:
    """Copy a row so that it can be written as JSON: no lone surrogates, NaN, bottomless nesting or megabytes."""
    if depth > 6:
        return "…"
    if isinstance(value, str):
        text = value.encode("utf-8", "replace").decode()
        return text if len(text) <= 2000 else text[:2000] + "…"
    if isinstance(value, Mapping):
        return {_printable(str(key)): _printable(item, depth + 1) for key, item in list(value.items())[:50]}
    if isinstance(value, (list, tuple)):
        return [_printable(item, depth + 1) for item in value[:50]]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)
