"""Errors that end a command: one line each, with the place, the fact, what was expected and the fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RlaifError(Exception):
    """An error a user can act on; `exit_code` is what the command ends with."""

    exit_code = 1


class InputError(RlaifError):
    """Bad input or usage: a file, an option or a setting that cannot be used (exit code 2)."""

    exit_code = 2


class RunError(RlaifError):
    """Something failed while running: a server, a disk, a model (exit code 1)."""


class Interrupted(RunError):
    """Ctrl-C or a termination signal; what was answered is kept."""


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that an unknown one was likely meant to be, if any is near."""
    return next(iter(difflib.get_close_matches(word[:64], list(known), n=1)), None)


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown word: ` Did you mean 'weight'?`, or nothing where no known word is near."""
    close = closest(word, known)
    return f" Did you mean {close!r}?" if close is not None else ""
