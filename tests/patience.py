"""A limit on work that must not grow without bound. It is wide: how fast things are is for `benchmarks/`."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def ends(within: float = 30) -> Iterator[None]:
    """Fail when the block takes more than `within` seconds of this process's processor time."""

    def late(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"not done after {within} seconds of work")

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, within)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
