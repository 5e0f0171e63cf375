"""A signal is never lost, whatever the loop was doing when it came."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from rlaif.engines.interrupts import interrupts_call
from rlaif.engines.server import _new_loop


class Waits:
    """A loop that runs one task after the other, as the server engine's does."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.task: asyncio.Task[Any] | None = None

    def run(self, work: Coroutine[Any, Any, Any]) -> None:
        self.task = self.loop.create_task(work)
        try:
            self.loop.run_until_complete(self.task)
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None

    def cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()


def soon(number: signal.Signals) -> None:
    threading.Timer(0.05, lambda: os.kill(os.getpid(), number)).start()


def waits_in_the_loop(waits: Waits, number: signal.Signals) -> None:
    soon(number)
    waits.run(asyncio.sleep(20))


def works_between_two_waits(waits: Waits, number: signal.Signals) -> None:
    waits.run(asyncio.sleep(0))
    soon(number)
    time.sleep(0.2)
    waits.run(asyncio.sleep(20))


def is_done_with_the_loop(waits: Waits, number: signal.Signals) -> None:
    waits.run(asyncio.sleep(0))
    soon(number)
    time.sleep(0.2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("busy", [waits_in_the_loop, works_between_two_waits, is_done_with_the_loop])
@pytest.mark.parametrize("make_loop", [_new_loop, asyncio.new_event_loop])
def test_a_signal_interrupts(
    make_loop: Callable[[], asyncio.AbstractEventLoop],
    busy: Callable[[Waits, signal.Signals], None],
    number: signal.Signals,
) -> None:
    def handled(number: int, frame: Any) -> None:
        raise AssertionError("the program's own handler is not to be called meanwhile")

    before = {one: signal.signal(one, handled) for one in (signal.SIGINT, signal.SIGTERM)}
    loop = make_loop()
    waits = Waits(loop)
    try:
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt), interrupts_call(loop, waits.cancel):
            busy(waits, number)
        assert time.monotonic() - start < 10
        assert signal.getsignal(number) is handled
    finally:
        loop.close()
        for one, handler in before.items():
            signal.signal(one, handler)
