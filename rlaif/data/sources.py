"""Rows of a dataset, one at a time, whatever it is stored as.

JSON Lines, JSON arrays and CSV are read here, row by row, so that one broken row costs only itself and is
named by its line. Parquet, saved datasets and hub datasets are read through `datasets`.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn, cast

from rlaif.errors import InputError

MAX_ROW_BYTES = 64 * 2**20
_RAW_CHARS = 500
_MAX_DIGITS = 4000


@dataclass(frozen=True)
class Row:
    """One row: its 1-based line (or row number where a format has no lines), and its value.

    `fault` says why the row could not be read; `value` is then the raw text, shortened.
    """

    line: int
    value: Any
    fault: str | None = None


@dataclass(frozen=True)
class Source:
    """A dataset that can be read again and again.

    `digest` changes when the content does; `rows` is the number of rows where that is cheap to know.
    """

    name: str
    digest: str
    rows: int | None
    read: Callable[[], Iterator[Row]]


def open_source(data: str, *, split: str | None = None, config: str | None = None) -> Source:
    """Open a file, a saved `datasets` folder or a hub id.

    Raises:
        InputError: the path does not exist, is empty, or has an ending that is not known.
    """
    path = Path(data)
    if path.is_dir():
        return _saved_folder(path, split)
    if path.exists() and not path.is_file():
        raise InputError(f"{data}: not a regular file; give a file that can be read twice, since a run continues.")
    if path.is_file():
        try:
            return _file(path)
        except PermissionError:
            raise InputError(f"{data}: cannot be read (permission denied).") from None
    looks_like_file = path.suffix in {".jsonl", ".json", ".csv", ".parquet", ".gz"} or data.startswith(("/", "."))
    if looks_like_file or data.count("/") != 1:
        raise InputError(f"{data}: no such file, and not a hub dataset (owner/name).")
    return _hub(data, split, config)


def _file(path: Path) -> Source:
    suffixes = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty; expected one row a line.")
    digest, newlines = _hash_file(path)
    if suffixes.endswith(".jsonl.gz"):
        return Source(str(path), digest, None, lambda: _json_lines(path, _open_gzip))
    if suffixes == ".jsonl" or (suffixes == ".json" and not _is_array(path)):
        return Source(str(path), digest, newlines, lambda: _json_lines(path, _open_plain))
    if suffixes == ".json":
        return Source(str(path), digest, None, lambda: _json_array(path))
    if suffixes == ".csv":
        return Source(str(path), digest, None, lambda: _csv(path))
    if suffixes == ".parquet":
        return Source(str(path), digest, _parquet_rows(path), lambda: _parquet(path))
    raise InputError(f"{path}: unknown ending; expected .jsonl, .jsonl.gz, .json, .csv or .parquet.")


def _hash_file(path: Path) -> tuple[str, int]:
    digest, newlines = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
            newlines += block.count(b"\n")
    return digest.hexdigest(), newlines


def _open_plain(path: Path) -> IO[bytes]:
    return path.open("rb")


def _open_gzip(path: Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path, "rb"))


def parse_json(text: str) -> Any:
    """Parse one JSON value strictly.

    Raises:
        ValueError: not JSON, or JSON that nothing downstream could write again (NaN, too deep).
    """

    def not_json(name: str) -> NoReturn:
        raise ValueError(f"{name} is not JSON")

    try:
        return json.loads(text, parse_constant=not_json, parse_int=_whole_number)
    except json.JSONDecodeError as error:
        raise ValueError(f"invalid JSON at character {error.pos + 1}: {error.msg}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _whole_number(text: str) -> int | float:
    # Python refuses to read longer ones, which would cost more than the row; as infinity it is only no text.
    return int(text) if len(text) <= _MAX_DIGITS else float(text)


def _json_lines(path: Path, opener: Callable[[Path], IO[bytes]]) -> Iterator[Row]:
    with opener(path) as file:
        line = 0
        try:
            while raw := file.readline(MAX_ROW_BYTES + 1):
                line += 1
                if len(raw) > MAX_ROW_BYTES:
                    yield Row(line, _shorten(raw), f"the line is longer than {MAX_ROW_BYTES // 2**20} MiB")
                    while not raw.endswith(b"\n") and (raw := file.readline(MAX_ROW_BYTES)):
                        pass
                    continue
                if line == 1:
                    raw = raw.removeprefix(b"\xef\xbb\xbf")
                if raw.strip():
                    yield parse_line(line, raw)
        except (OSError, EOFError, zlib.error) as error:
            # A gzip file cut short or damaged: what came before it has been read.
            yield Row(line + 1, "", f"the file cannot be read on from here: {error}")


def parse_line(line: int, raw: bytes) -> Row:
    """Parse one line of JSON Lines strictly; what is wrong with it stands in the row's `fault`."""
    try:
        return Row(line, parse_json(raw.decode("utf-8").rstrip("\r\n")))
    except UnicodeDecodeError as error:
        return Row(line, _shorten(raw), f"invalid UTF-8 at byte {error.start + 1}")
    except ValueError as error:
        return Row(line, _shorten(raw), str(error))


def _shorten(raw: bytes) -> str:
    text = raw[: 4 * _RAW_CHARS].decode("utf-8", errors="replace").rstrip("\r\n")
    return text if len(text) <= _RAW_CHARS else text[:_RAW_CHARS] + "…"


def _is_array(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"["


def _json_array(path: Path) -> Iterator[Row]:
    """Stream the elements of a JSON array; `line` is where an element starts.

    An array has no row to skip to once its syntax is broken, so what follows a fault is given up in one reject.
    """
    decoder = json.JSONDecoder(parse_int=_whole_number)
    with path.open("r", encoding="utf-8-sig", errors="surrogateescape") as file:
        buffer, line, step, first = file.read(2**16), 1, 2**16, True
        line += buffer[: buffer.index("[")].count("\n")
        buffer = buffer[buffer.index("[") + 1 :]
        while True:
            body = buffer.lstrip(" \t\r\n")
            if not first and body.startswith(","):
                body = body[1:].lstrip(" \t\r\n")
            elif body.startswith("]"):
                return
            line_here = line + buffer[: len(buffer) - len(body)].count("\n")
            try:
                value, end = decoder.raw_decode(body) if body else (None, 0)
                # A number or a value at the buffer's end may go on in the next block.
                complete = bool(body[end : end + 1])
            except RecursionError:
                yield Row(line_here, _shorten(body[:2000].encode(errors="replace")), "nested too deeply")
                return
            except ValueError as error:
                complete, value, end = False, error, 0
            if complete:
                yield Row(line_here, value)
                line, buffer, first, step = line_here + body[:end].count("\n"), body[end:], False, 2**16
                continue
            block = file.read(step)
            step = min(step * 2, MAX_ROW_BYTES)
            if not block or len(body) > MAX_ROW_BYTES:
                text = _shorten(body[:2000].encode(errors="replace"))
                yield Row(line_here, text, "invalid JSON from here to the end of the array")
                return
            buffer += block


def _csv(path: Path) -> Iterator[Row]:
    """Read CSV with every cell as text: `108` is a response, not a number."""
    csv.field_size_limit(MAX_ROW_BYTES)
    with path.open("r", encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Row(line, "", f"invalid CSV: {error}")
                continue
            if not cells:
                continue
            value: dict[str, Any] = dict(zip(header, cells, strict=False))
            if len(cells) != len(header):
                yield Row(line, value, f"{len(cells)} cells; the header has {len(header)}")
            elif any("\udc80" <= char <= "\udcff" for cell in cells for char in cell if char >= "\udc80"):
                yield Row(line, _repaired(value), "invalid UTF-8")
            else:
                yield Row(line, {key: _csv_cell(key, cell) for key, cell in value.items()})


def _csv_cell(column: str, cell: str) -> Any:
    # A chat or tags in CSV are written as JSON in the cell; a text that only looks like JSON stays a text.
    if column == "tags" and cell == "":
        return None
    if cell[:1] in {"[", "{"} and column not in {"response_a", "response_b"}:
        with contextlib.suppress(ValueError):
            value = parse_json(cell)
            if column == "tags" or _is_chat(value):
                return value
    return cell


def _is_chat(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(t, dict) and "role" in t for t in value)


def _repaired(value: dict[str, Any]) -> dict[str, Any]:
    return {key: str(cell).encode("utf-8", "replace").decode() for key, cell in value.items()}


def _parquet_rows(path: Path) -> int:
    import pyarrow.parquet as pq

    try:
        return int(pq.ParquetFile(path).metadata.num_rows)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a Parquet file ({str(error).splitlines()[0]}).") from None


def _parquet(path: Path) -> Iterator[Row]:
    from datasets import load_dataset

    with _quiet():
        rows = load_dataset("parquet", data_files=str(path), split="train", streaming=True)
    for number, value in enumerate(rows, start=1):
        yield Row(number, value)


def _saved_folder(path: Path, split: str | None) -> Source:
    from datasets import DatasetDict, load_from_disk

    if not any((path / name).exists() for name in ("state.json", "dataset_dict.json")):
        raise InputError(f"{path}: not a saved dataset (no state.json); expected a folder of Dataset.save_to_disk.")
    try:
        loaded = load_from_disk(str(path))
    except Exception as error:
        raise InputError(f"{path}: the saved dataset cannot be read ({str(error).splitlines()[0]}).") from None
    if isinstance(loaded, DatasetDict):
        if split is None and len(loaded) == 1:
            split = next(iter(loaded))
        if split not in loaded:
            raise InputError(f"{path}: holds the splits {', '.join(loaded)}; choose one with --split.")
        loaded = loaded[split]
    # The fingerprint follows from content and transforms, but not from a file edited in place.
    files = sorted((str(f.relative_to(path)), f.stat().st_size) for f in path.rglob("*") if f.is_file())
    digest = hashlib.sha256(json.dumps([loaded._fingerprint, files]).encode()).hexdigest()

    def read() -> Iterator[Row]:
        for number, value in enumerate(loaded, start=1):
            yield Row(number, value)

    return Source(str(path), digest, len(loaded), read)


def _hub(name: str, split: str | None, config: str | None) -> Source:
    from datasets import load_dataset

    def stream() -> Any:
        try:
            with _quiet():
                return load_dataset(name, config, split=split or "train", streaming=True)
        except Exception as error:
            fact = str(error).splitlines()[0]
            raise InputError(f"{name}: not a file here, and the hub dataset cannot be opened ({fact}).") from None

    first = stream()
    revision = next(iter(first.info.download_checksums or {}), "") if first.info else ""
    digest = hashlib.sha256(f"{name}\0{config}\0{split}\0{revision}".encode()).hexdigest()

    def read() -> Iterator[Row]:
        for number, value in enumerate(stream(), start=1):
            yield Row(number, value)

    return Source(name, digest, None, read)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    from datasets.utils import disable_progress_bars, enable_progress_bars

    with contextlib.redirect_stdout(io.StringIO()):
        disable_progress_bars()
        try:
            yield
        finally:
            enable_progress_bars()
