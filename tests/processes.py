"""Commands in the background, watched while they work."""

from __future__ import annotations

import random
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from tests.conftest import environment


def start(*arguments: object, limit_bytes: int | None = None) -> subprocess.Popen[str]:
    """Start the command line in the background, in a process group of its own."""

    def limit() -> None:
        if limit_bytes is not None:
            # A file that may not grow fails as one on a full disk does, on any machine and for any user.
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))

    command = [sys.executable, "-m", "rlaif", *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(), preexec_fn=limit
    )


def answered(run: Path) -> int:
    """How many answers a run holds by now, or the ledger of a file that is being made."""
    ledger = run / "judgments.db" if run.is_dir() else run.with_name(f"{run.name}.db")
    try:
        db = sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)
    except sqlite3.Error:
        return 0
    try:
        return int(db.execute("SELECT count(*) FROM judgments").fetchone()[0])
    except sqlite3.Error:
        return 0
    finally:
        db.close()


def wait_for(run: Path, count: int, process: subprocess.Popen[str], timeout: float = 60) -> None:
    """Wait until a run or a file holds `count` answers, or its process has ended."""
    deadline = time.monotonic() + timeout
    while answered(run) < count and process.poll() is None:
        assert time.monotonic() < deadline, "the run makes no progress"
        time.sleep(0.005)


def kill_and_continue(run: Path, arguments: tuple[object, ...], total: int, seed: int) -> tuple[int, str]:
    """Kill a command at five random moments, continuing each time, then let it end.

    Returns how many kills met it at work, and what it printed in the end.
    """
    draws = random.Random(seed)
    met = 0
    for moment in sorted(draws.randrange(total) for _ in range(5)):
        process = start(*arguments)
        wait_for(run, moment, process)
        time.sleep(draws.uniform(0, 0.05))
        met += process.poll() is None
        process.kill()
        process.communicate()
    process = start(*arguments)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return met, out


def interrupt(process: subprocess.Popen[str], number: int = signal.SIGINT) -> tuple[float, str]:
    """Send a signal that ends a run; seconds until the command was gone, and what it said.

    It must end as a failure that says how to go on.
    """
    process.send_signal(number)
    sent = time.monotonic()
    _, err = process.communicate(timeout=60)
    took = time.monotonic() - sent
    assert process.returncode == 1
    assert "Give the same command to continue." in err
    assert "Traceback" not in err
    return took, err
