"""Read a constitution from YAML; every problem is reported at once, with its file and line."""

from __future__ import annotations

from pathlib import Path

from rlaif.constitution.check import Checked, check_file, check_text
from rlaif.constitution.extends import MAX_BYTES
from rlaif.constitution.schema import Constitution
from rlaif.errors import InputError
from rlaif.shipped import find_shipped

__all__ = ["MAX_BYTES", "load_constitution", "parse_constitution"]


def load_constitution(name: str | Path) -> Constitution:
    """Load a constitution by the name of a shipped one (`hhh`) or by file, put over what it `extends`.

    Raises:
        InputError: one line for each problem found, as `FILE:LINE: fact; expectation. Fix.`
    """
    return _usable(check_file(find_shipped("constitutions", str(name), ".yaml")))


def parse_constitution(text: str, place: str) -> Constitution:
    """Parse and check the YAML `text`; `place` names its file in errors, and `extends` is looked for from there.

    Raises:
        InputError: one line for each problem found.
    """
    return _usable(check_text(text, place))


def _usable(checked: Checked) -> Constitution:
    if checked.constitution is None:
        raise InputError("\n".join(f"{each.file}:{each.line}: {each.message}" for each in checked.errors))
    return checked.constitution
