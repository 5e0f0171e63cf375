"""LABELS, written from the study whenever it has changed, beside the work of the page."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

from rlaif.errors import RlaifError
from rlaif.files import replacing
from rlaif.review.schema import export_rows

# Of the time, writing takes a twentieth at most: a large file is written less often.
_REST = 20.0
_LEAST_SECONDS = 0.2


def export_labels(study: Path, labels: Path) -> int:
    """Write a study's labels whole or not at all, and return how many; without any, no new file is made.

    Raises:
        RunError: the study cannot be read, or the file cannot be written.
    """
    rows = export_rows(study)
    first = next(rows, None)
    if first is None and not labels.exists():
        return 0
    count = 0
    with replacing(labels) as file:
        row = first
        while row is not None:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
            row = next(rows, None)
    return count


class Exporter:
    """Writes LABELS in a thread of its own: at once after an answer, then no more often than a large file bears.

    The study holds every answer, so a failure here loses none: `fault` says what it was until a later try succeeds.
    """

    def __init__(self, study: Path, labels: Path) -> None:
        self.fault: str | None = None
        self._study, self._labels = study, labels
        self._changed, self._ended = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="export", daemon=True)
        self._thread.start()

    def changed(self) -> None:
        """Say that there is something new to write."""
        self._changed.set()

    def close(self) -> int:
        """Stop, write once more, and return the number of labels.

        Raises:
            RunError: as `export_labels`.
        """
        self._ended.set()
        self._changed.set()
        self._thread.join()
        return export_labels(self._study, self._labels)

    def _work(self) -> None:
        while True:
            self._changed.wait()
            if self._ended.is_set():
                return
            self._changed.clear()
            begun = time.monotonic()
            try:
                export_labels(self._study, self._labels)
                self.fault = None
            except RlaifError as error:
                self.fault = str(error)
            self._ended.wait(max(_LEAST_SECONDS, _REST * (time.monotonic() - begun)))
