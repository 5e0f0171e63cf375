"""What a linter says: one finding a problem, each with its file, its line and a code that stays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

from rlaif.types import Frozen

Severity = Literal["error", "warning"]
_LONGEST = 600


class Place(NamedTuple):
    """Where something stands; line and column start at 1."""

    file: str
    line: int
    column: int | None = None


class Finding(Frozen):
    """One problem of one file. An error stops the file from being used, a warning does not.

    `code` is short, stable and kebab-case (`unknown-key`): scripts and people can rely on it.
    """

    file: str
    line: int
    column: int | None = None
    severity: Severity
    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.severity}: {self.message} [{self.code}]"

    @property
    def github(self) -> str:
        """The finding as a workflow command, which GitHub shows beside the line of a change."""
        place = {"file": self.file, "line": self.line, **({"col": self.column} if self.column else {})}
        named = ",".join(f"{key}={_property(str(value))}" for key, value in {**place, "title": self.code}.items())
        return f"::{self.severity} {named}::{_data(self.message)}"


def codes(errors: Mapping[str, str], warnings: Mapping[str, str]) -> Mapping[str, tuple[Severity, str]]:
    """A linter's codes, each with how severe it is and what it is about."""
    return MappingProxyType(
        {code: ("error", text) for code, text in errors.items()}
        | {code: ("warning", text) for code, text in warnings.items()}
    )


def found(severity: Severity, code: str, place: Place, message: str) -> Finding:
    """Make a finding; what would break a line or command a terminal is escaped."""
    message = printable(" ".join(message.split()) if "\n" in message else message)
    if len(message) > _LONGEST:
        message = message[:_LONGEST] + "…"
    return Finding(
        file=printable(place.file),
        line=place.line,
        column=place.column,
        severity=severity,
        code=code,
        message=message,
    )


def ordered(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Each finding once; files in the order in which they come first, each from top to bottom."""
    once = {(each.file, each.line, each.code, each.message): each for each in findings}
    files = {name: number for number, name in enumerate(dict.fromkeys(each.file for each in once.values()))}
    return tuple(sorted(once.values(), key=lambda each: (files[each.file], each.line, each.severity, each.column or 0)))


def printable(text: str) -> str:
    """The text with all that does not print (line ends too) as escapes."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
