"""Labels as preference data for other trainers: JSON Lines, Parquet or a saved dataset, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, get_args

from rlaif.errors import InputError
from rlaif.files import cannot_write, check_output, is_stream, link_target, replacing, replacing_file
from rlaif.optimize.preference_choices import TIES, Choices, is_tie, read_choices
from rlaif.optimize.preference_formats import (
    PREFERENCE_FORMATS,
    Kind,
    PreferenceFormat,
    Preferred,
    columns_of,
    is_one_question,
    row_of,
)
from rlaif.rewards.source_text import parse_source
from rlaif.types import Frozen

Ties = Literal["drop", "both"]
UNDER_MARGIN = "under the least margin"
# Rows that are turned into columns together: a bound on memory.
_ROWS = 1000
# What a saved dataset has, and nothing else of its making.
_SAVED = ("dataset_info.json", "state.json")
_Write = Callable[[dict[str, Any]], None]


class PreferenceSummary(Frozen):
    """What was exported.

    Attributes:
        out: the file or folder.
        format: of its rows.
        objective: that the better response was chosen by; `reward` for the aggregate of scores.
        rows: how many were written, `turned` of them ties in the other order.
        merged: labels of pairs that several sources have, which became one row each.
        left_out: pairs and rows that were not written, by reason.
        mean_doubt: the mean probability that the rejected response is the better one, the labels' own noise; `None`
            for scores.
        notes: what a person should know, a sentence each.
    """

    out: str
    format: PreferenceFormat
    objective: str
    rows: int
    turned: int
    merged: int
    left_out: Mapping[str, int]
    mean_doubt: float | None
    notes: tuple[str, ...]


def export_preferences(
    labels: str | Sequence[str],
    out: str | Path,
    layout: PreferenceFormat,
    *,
    objective: str | None = None,
    min_margin: float = 0.0,
    ties: Ties = "drop",
    margin: bool = False,
    columns: Mapping[str, str] | None = None,
) -> PreferenceSummary:
    """Write each pair with the better response as `chosen`, in the order of the data.

    A row also has `id`, and `p_chosen` and `weight` of labels, or `reward_chosen` and `reward_rejected` of scores;
    trainers that do not know them leave them out. The same call writes the same bytes.

    Args:
        labels: one source or several, as `rlaif train-heads` takes them; or scored candidates, see `read_choices`.
        out: what ends in `.jsonl` or `.parquet` is a file, what has no ending a folder for `datasets.load_from_disk`.
        layout: `trl` has texts, and takes prompts of one turn only; the others have messages.
        objective: without it the overall label of a run, or the only objective; the aggregate of scores.
        min_margin: leave out pairs whose better response is better by less: P(chosen) - P(rejected), 0 to 1, of
            labels, a difference of rewards of scores.
        ties: `drop` leaves them out; `both` writes each twice, once in either order, which together ask for no
            difference.
        margin: add the column `margin`, see `Preferred.margin`; TRL's RewardTrainer takes it into its loss unasked,
            OpenRLHF with `--margin_loss`.
        columns: names of columns in pairs, candidates and preference data, ours to theirs.

    Raises:
        InputError: a source or an option cannot be used, no pair is left, or `out` holds something else.
        RunError: a run's labels cannot be read, or the disk is full; `out` is as it was.
    """
    sources = [labels] if isinstance(labels, str) else list(labels)
    _check(layout, ties, min_margin)
    target = _Target(str(out), sources)
    choices = read_choices(sources, objective, columns or {}, spill=target.beside)
    if min_margin > 1 and "p_chosen" in choices.numbers:
        raise InputError(f"--min-margin {min_margin:g}: of labels a difference of probabilities; expected 0 to 1.")
    numbers = (*choices.numbers, "margin") if margin else choices.numbers
    tally = _Tally(choices, min_margin, ties)
    name = ", ".join(sources)
    with target.opened(columns_of(layout, numbers)) as write:
        for pair in tally.kept():
            if layout == "trl" and not is_one_question(pair.prompt):
                raise InputError(
                    f"{name}: the prompt of {pair.id[:80]!r} is more than one turn of the user, which a text cannot "
                    "hold; choose --format trl-conversational, whose trainer applies the chat template."
                )
            write(row_of(layout, pair, margin=margin))
        if not tally.rows:
            why = ", ".join(f"{reason} {count:,}" for reason, count in _counts(choices).items()) or "they hold no pairs"
            raise InputError(f"{name}: no pair is left to write: {why}. Give other labels or options.")
    return PreferenceSummary(
        out=str(out),
        format=layout,
        objective=choices.objective,
        rows=tally.rows,
        turned=tally.turned,
        merged=choices.merged,
        left_out=_counts(choices),
        mean_doubt=tally.doubt / tally.rows if "p_chosen" in choices.numbers else None,
        notes=tuple(choices.notes),
    )


def _check(layout: str, ties: str, min_margin: float) -> None:
    if layout not in PREFERENCE_FORMATS:
        raise InputError(f"--format {layout}: expected {', '.join(PREFERENCE_FORMATS)}.")
    if ties not in get_args(Ties):
        raise InputError(f"--ties {ties}: expected {' or '.join(get_args(Ties))}.")
    if not min_margin >= 0:
        raise InputError(f"--min-margin {min_margin:g}: expected 0 or more.")
    if min_margin > 0 and ties == "both":
        raise InputError("--ties both: a tie has no margin, and --min-margin leaves it out. Give one of both.")


def _counts(choices: Choices) -> dict[str, int]:
    return {reason: count for reason, count in choices.left_out.items() if count}


class _Tally:
    """Which pairs are written, counted as they pass."""

    def __init__(self, choices: Choices, min_margin: float, ties: Ties) -> None:
        self._choices, self._least, self._ties = choices, min_margin, ties
        self.rows = self.turned = 0
        self.doubt = 0.0

    def kept(self) -> Iterator[Preferred]:
        left_out = self._choices.left_out
        for pair in self._choices.pairs:
            if is_tie(pair):
                if self._ties == "drop":
                    left_out[TIES] += 1
                    continue
                yield self._counted(pair)
                self.turned += 1
                yield self._counted(pair.turned())
            # The last digits of a difference are no reason to leave a pair out.
            elif pair.gap < self._least - 1e-9:
                left_out[UNDER_MARGIN] += 1
            else:
                yield self._counted(pair)

    def _counted(self, pair: Preferred) -> Preferred:
        self.rows += 1
        self.doubt += 1 - pair.numbers.get("p_chosen", 1.0)
        return pair


class _Target:
    """Where rows go, looked at before any work: nothing is written over what is read or what others made."""

    def __init__(self, out: str, sources: Sequence[str]) -> None:
        self._path = path = Path(out)
        texts = [parse_source(source) for source in sources]
        inputs = [part for text in texts for part in (text.pairs, text.labels) if part is not None]
        apart = is_stream(path)
        # Where there is room for the texts; not among devices.
        self.beside = Path(tempfile.gettempdir()) if apart else path.parent
        self._folder = out.endswith(("/", os.sep)) or path.is_dir() or (not path.suffix and not apart)
        self._parquet = path.suffix == ".parquet"
        if apart and self._parquet:
            raise InputError(f"--out {out}: a pipe or a device; Parquet needs a file.")
        if self._folder:
            self._check_folder(inputs)
        elif not apart and path.suffix not in (".jsonl", ".parquet"):
            raise InputError(f"--out {out}: expected a file that ends in .jsonl or .parquet, or a folder.")
        else:
            check_output("--out", path, inputs)

    def _check_folder(self, inputs: Iterable[str]) -> None:
        path = link_target(self._path)
        if path.is_file():
            raise InputError(f"--out {path}: a file without an ending; expected .jsonl, .parquet or a folder.")
        if not path.exists():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise cannot_write(path, error) from None
            return
        if any(path.resolve() in (place.resolve(), *place.resolve().parents) for place in map(Path, inputs)):
            raise InputError(f"--out {path}: also read by this command; choose another folder.")
        held = {each.name for each in path.iterdir()}
        if held and (not held.issuperset(_SAVED) or any(not _of_dataset(name) for name in held)):
            raise InputError(
                f"--out {path}: a folder that holds other files; choose one that is not there, or a saved dataset."
            )

    def opened(self, columns: Mapping[str, Kind]) -> AbstractContextManager[_Write]:
        """Open what takes a row at a time; when the block ends well, it takes its place."""
        if self._folder:
            return _saved_dataset(self._path, columns)
        return _parquet(self._path, columns) if self._parquet else _lines(self._path)


def _of_dataset(name: str) -> bool:
    # Who maps a saved dataset leaves caches in its folder.
    return name in _SAVED or (name.startswith(("data-", "cache-")) and name.endswith(".arrow"))


@contextmanager
def _lines(path: Path) -> Iterator[_Write]:
    with replacing(path) as file:
        yield lambda row: _nothing(file.write(json.dumps(row, ensure_ascii=False) + "\n"))


def _nothing(_: object) -> None:
    """Drop what a call returns."""


@contextmanager
def _parquet(path: Path, columns: Mapping[str, Kind]) -> Iterator[_Write]:
    import pyarrow.parquet as pq

    schema = _schema(columns)
    with (
        replacing_file(path) as temporary,
        pq.ParquetWriter(temporary, schema) as file,
        _Batches(schema, file.write_batch) as batches,
    ):
        yield batches.add


@contextmanager
def _saved_dataset(path: Path, columns: Mapping[str, Kind]) -> Iterator[_Write]:
    """A folder of `Dataset.save_to_disk`, made beside its place."""
    import pyarrow as pa

    path = link_target(path)
    fresh: Path | None = None
    try:
        fresh = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        rows, schema = fresh / "rows.arrow", _schema(columns)
        with (
            pa.OSFile(str(rows), "wb") as file,
            pa.ipc.new_stream(file, schema) as stream,
            _Batches(schema, stream.write_batch) as batches,
        ):
            yield batches.add
        _save(rows, fresh / "dataset")
        old = fresh / "old"
        if path.exists():
            path.replace(old)
        try:
            (fresh / "dataset").replace(path)
        except OSError:
            if old.exists():
                old.replace(path)
            raise
    except OSError as error:
        raise cannot_write(path, error) from None
    finally:
        if fresh is not None:
            shutil.rmtree(fresh, ignore_errors=True)


def _save(rows: Path, folder: Path) -> None:
    from datasets import Dataset
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    with rows.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    read = Dataset.from_file(str(rows))
    quiet = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        # By its content: the fingerprint that is made otherwise differs from call to call.
        Dataset(read.data, info=read.info, fingerprint=digest).save_to_disk(str(folder), num_shards=1)
    finally:
        if not quiet:
            enable_progress_bars()
    for file_name in sorted(folder.iterdir()):
        with file_name.open("rb") as written, suppress(OSError):
            os.fsync(written.fileno())


def _schema(columns: Mapping[str, Kind]) -> Any:
    import pyarrow as pa

    turn = pa.struct([("role", pa.string()), ("content", pa.string())])
    kinds = {"text": pa.string(), "messages": pa.list_(turn), "number": pa.float64()}
    return pa.schema([(name, kinds[kind]) for name, kind in columns.items()])


class _Batches:
    """Takes rows one by one and hands them on in batches, the rest at the end of a block that ends well."""

    def __init__(self, schema: Any, write: Callable[[Any], None]) -> None:
        self._schema, self._write = schema, write
        self._rows: list[dict[str, Any]] = []

    def __enter__(self) -> _Batches:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._flush()

    def add(self, row: dict[str, Any]) -> None:
        """Take one row."""
        self._rows.append(row)
        if len(self._rows) == _ROWS:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._rows:
            self._write(pa.RecordBatch.from_pylist(self._rows, schema=self._schema))
            self._rows = []
