"""Ctrl-C and SIGTERM while an event loop runs.

An exception that a signal handler raises inside a callback of the loop may be swallowed there. So the handler raises
nothing: it has the loop cancel what it waits for. The loop's own signal handlers would not do, since a signal that
comes while the loop stands still, as when answers are being written to disk, is lost to some loops.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupts_call(loop: asyncio.AbstractEventLoop, cancel: Callable[[], None]) -> Iterator[None]:
    """While the block runs, let SIGINT, and SIGTERM where the program handles it, call `cancel` on the loop.

    Raises:
        KeyboardInterrupt: a signal came, and the loop did not run again to be told.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came = told = False

    def tell() -> None:
        nonlocal told
        told = True
        cancel()

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = True
        loop.call_soon_threadsafe(tell)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    taken = {number: handler for number, handler in before.items() if callable(handler)}
    for number in taken:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in taken.items():
            signal.signal(number, handler)
    if came and not told:
        raise KeyboardInterrupt
