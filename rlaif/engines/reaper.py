"""Ends child processes when this process is killed.

vLLM's engine lives in a child. When its parent gets SIGKILL the child goes on and holds the model's memory, and the run
that is to continue finds none left.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable

_WATCH = """
import os, signal, sys
sys.stdin.buffer.read()
for pid in map(int, sys.argv[1:]):
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        pass
"""


class Reaper:
    """Waits, in a process of its own, for this one to vanish, then kills the processes given."""

    def __init__(self, pids: Iterable[int]) -> None:
        # Its standard input closes when this process ends, however it ends.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _WATCH, *map(str, pids)], stdin=subprocess.PIPE, start_new_session=True
        )

    def release(self) -> None:
        """Stop watching: the processes have ended, and their numbers may name others by now."""
        self._process.kill()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()
