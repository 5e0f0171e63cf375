"""Rows of label files, fast: a million short lines in seconds, and the strict reader's words for what is wrong."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import orjson

from rlaif.data.sources import open_source, parse_line
from rlaif.errors import InputError


def quick_rows(data: str) -> Iterator[tuple[int, Any]]:
    """Yield `(line, value)` for each row of a file in any format that pairs come in.

    Raises:
        InputError: the file cannot be read or is empty, or a row cannot be parsed.
    """
    path = Path(data)
    if path.is_file() and path.name.endswith((".jsonl", ".jsonl.gz")) and path.stat().st_size:
        yield from _json_lines(path)
        return
    for row in open_source(data).read():
        if row.fault is not None:
            _refuse(data, row.line, row.fault)
        yield row.line, row.value


def _json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    loads, number = orjson.loads, 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                try:
                    value = loads(raw)
                except ValueError:
                    if not raw.strip():
                        continue
                    value = _strictly(path, number, raw)
                yield number, value
    except (OSError, EOFError, zlib.error) as error:
        fact = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path}:{number + 1}: the file cannot be read on from here: {fact}") from None


def _strictly(path: Path, number: int, raw: bytes) -> Any:
    """Read a line that the fast parser refuses: a byte order mark or a very long number is no fault."""
    row = parse_line(number, raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw)
    if row.fault is not None:
        _refuse(str(path), number, row.fault)
    try:
        json.dumps(row.value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        _refuse(str(path), number, "a text holds half a surrogate pair, which is no character")
    return row.value


def _refuse(name: str, line: int, fault: str) -> NoReturn:
    raise InputError(f"{name}:{line}: {fault}; fix or remove the line.")
