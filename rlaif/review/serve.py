"""Put pairs before people: read them, serve the page on this machine, and write the labels."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from rlaif.constitution import load_constitution
from rlaif.data.pairs import Reject, holds_only_prompts, read_pairs
from rlaif.data.sources import Source, open_source
from rlaif.errors import InputError, RunError
from rlaif.files import cannot_write, replacing
from rlaif.labeling.generate import first_usable, rejects_beside
from rlaif.labeling.read import labels_file
from rlaif.labeling.settings import DataSettings
from rlaif.labeling.write import reject_line
from rlaif.review.app import Asked, Name, make_app
from rlaif.review.export import Exporter, export_labels
from rlaif.review.guard import Door
from rlaif.review.store import Study
from rlaif.types import Frozen, Pair
from rlaif.web import server_config

HOST = "127.0.0.1"
USUAL_PORT = 8710
_OVERALL = {"overall": Asked("Which response is better?")}


class ReviewSettings(Frozen):
    """Everything `rlaif review` takes; see its `--help`. `port` 0 is any free one, `None` the one of last time."""

    source: DataSettings
    out: Path
    annotator: Name | None = None
    constitution: str | None = None
    objectives: tuple[str, ...] = ()
    port: Annotated[int, Field(ge=0, le=65535)] | None = None
    seed: int = 0
    strict: bool = False


class Opened(Frozen):
    """What the page offers, once it is there."""

    pairs: int
    rejected: int
    rejects_file: str
    questions: int
    labels: int
    out: str
    database: str


class ReviewSummary(Frozen):
    """What the labels file holds at the end."""

    labels: int
    annotators: int
    pairs: int
    rejected: int
    out: str
    database: str


@dataclass
class _Rows:
    """Counts the rows as they are read."""

    pairs: int = 0
    rejected: int = 0
    first: Reject | None = None


def review(settings: ReviewSettings, opened: Callable[[Opened], None], address: Callable[[str], None]) -> ReviewSummary:
    """Serve the page until Ctrl-C or SIGTERM.

    Args:
        opened: told what there is to label, before the first address.
        address: told the page's address, each good for one browser; a new one when that was used.

    Raises:
        InputError: the data, the objectives or the port cannot be used, or the answers of `out` are to other pairs.
        RunError: the disk fails, or another process serves the same file.
    """
    asked = _questions(settings)
    source = _open(settings)
    _refuse_foreign(settings)
    with closing(Study(settings.out)) as study:
        rows = _take_in(study, source, settings, {name: each.question for name, each in asked.items()})
        labels = export_labels(study.path, settings.out)
        listener = _listen(study, settings.port)
        with listener:
            opened(
                Opened(
                    pairs=rows.pairs,
                    rejected=rows.rejected,
                    rejects_file=str(rejects_beside(settings.out)),
                    questions=rows.pairs * len(asked),
                    labels=labels,
                    out=str(settings.out),
                    database=str(study.path),
                )
            )
            port = listener.getsockname()[1]
            exporter = Exporter(study.path, settings.out)
            try:
                door = Door(study, lambda token: address(f"http://{HOST}:{port}/?token={token}"))
                app = make_app(
                    study,
                    door,
                    asked,
                    port=port,
                    annotator=settings.annotator,
                    labels=settings.out.name,
                    changed=exporter.changed,
                    fault=lambda: exporter.fault,
                )
                _serve(app, listener)
            finally:
                labels = exporter.close()
        return ReviewSummary(
            labels=labels,
            annotators=len(study.annotators()),
            pairs=rows.pairs,
            rejected=rows.rejected,
            out=str(settings.out),
            database=str(study.path),
        )


def _questions(settings: ReviewSettings) -> dict[str, Asked]:
    if settings.constitution is None:
        known = _OVERALL
    else:
        constitution = load_constitution(settings.constitution)
        known = {
            name: Asked(objective.question, tuple(rule.text for rule in objective.active))
            for name, objective in constitution.objectives.items()
        }
    for name in settings.objectives:
        if name not in known:
            hint = " Name its constitution with --constitution." if settings.constitution is None else ""
            raise InputError(f"--objective {name}: not one of {', '.join(known)}.{hint}")
    return {name: each for name, each in known.items() if name in settings.objectives or not settings.objectives}


def _open(settings: ReviewSettings) -> Source:
    data = settings.source
    path = Path(data.data)
    # A run's folder stands for its labels, of which only the pairs are read.
    saved = any((path / name).exists() for name in ("state.json", "dataset_dict.json"))
    if path.is_dir() and not saved:
        path = labels_file(path)
        return open_source(str(path))
    source = open_source(data.data, split=data.split, config=data.config)
    if holds_only_prompts(source, data.columns):
        raise InputError(
            f"{source.name}: holds prompts and no responses; expected pairs. "
            "Sample two responses each with rlaif generate --n 2 first."
        )
    return source


def _refuse_foreign(settings: ReviewSettings) -> None:
    out = settings.out
    if out.suffix != ".jsonl" or out.is_dir():
        raise InputError(f"--out {out}: expected a file that ends in .jsonl, which rlaif compare reads.")
    if out.exists() and not out.with_name(f"{out.name}.db").exists():
        raise InputError(
            f"{out}: exists, and {out.name}.db, from which rlaif review writes it, does not; "
            "move it away, or choose another --out."
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(out, error) from None


def _take_in(study: Study, source: Source, settings: ReviewSettings, questions: Mapping[str, str]) -> _Rows:
    """Read the pairs into the study, and write what cannot be used to the rejects."""
    rows = _Rows()
    read = first_usable(read_pairs(source, settings.source.columns), settings.source.limit)
    with contextlib.ExitStack() as files:
        rejects = None

        def usable() -> Iterator[Pair]:
            nonlocal rejects
            for row in read:
                if not isinstance(row, Reject):
                    rows.pairs += 1
                    yield row[1]
                    continue
                if settings.strict:
                    raise InputError(f"{source.name}:{row.line}: {row.reason}; fix the row, or drop --strict.")
                rows.rejected += 1
                rows.first = rows.first or row
                rejects = rejects or files.enter_context(replacing(rejects_beside(settings.out)))
                rejects.write(reject_line(row))
            if not rows.pairs:
                raise InputError(_no_pair(source, rows.first))

        study.load(usable(), source.name, questions, settings.seed)
    if not rows.rejected:
        rejects_beside(settings.out).unlink(missing_ok=True)
    return rows


def _no_pair(source: Source, first: Reject | None) -> str:
    reason = f"; line {first.line}: {first.reason}" if first else ""
    return f"{source.name}: no pair can be used{reason}."


def _listen(study: Study, port: int | None) -> socket.socket:
    """Bind this machine's own address. Without a wish the port is that of last time: a page left open goes on."""
    wanted = [int(study.setting("port", str(USUAL_PORT))), 0] if port is None else [port]
    for number in wanted:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((HOST, number))
            listener.listen(64)
        except OSError as error:
            listener.close()
            if number == wanted[-1]:
                fact = (
                    "in use by another program"
                    if error.errno == errno.EADDRINUSE
                    else f"not to be had ({error.strerror})"
                )
                raise InputError(f"--port {number}: {fact}; choose another, or 0 for any free one.") from None
            continue
        study.keep("port", str(listener.getsockname()[1]))
        return listener
    raise AssertionError("the last port is tried or refused")


def _serve(app: Any, listener: socket.socket) -> None:
    import uvicorn

    config = server_config(
        app,
        limit_concurrency=100,
        h11_max_incomplete_event_size=32 * 2**10,
        timeout_graceful_shutdown=3,
    )
    server = uvicorn.Server(config)
    # It ends by the signal that it was given, after what was begun is done.
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
    if not server.started:
        raise RunError("the page's server did not start; set RLAIF_DEBUG=1 to see why.")


def checked_name(text: str) -> str:
    """A person's name as the labels hold it.

    Raises:
        InputError: empty, longer than 80 characters, or with characters that do not print.
    """
    try:
        return TypeAdapter(Name).validate_python(text)
    except ValidationError as errors:
        fact = errors.errors()[0]["msg"].removeprefix("Value error, ")
        raise InputError(f"--annotator {text[:80]!r}: {fact[:1].lower()}{fact[1:]}; give a short name.") from None
