"""Ctrl-C and SIGTERM while an event loop runs.

An exception that a signal handler raises inside a callback of the loop may be swallowed there. So the loop is told of
the signal, and ends what it waits for.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def interrupts_call(loop: asyncio.AbstractEventLoop, cancel: Callable[[], None]) -> Iterator[None]:
    """While the block runs, let SIGINT, and SIGTERM where the program handles it, call `cancel` on the loop."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    taken = {number: handler for number, handler in before.items() if callable(handler)}
    for number in taken:
        loop.add_signal_handler(number, cancel)
    try:
        yield
    finally:
        for number, handler in taken.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
