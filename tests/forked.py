"""Commands without their imports: a process that has loaded what `rlaif` loads, and forks one for each command.

Importing torch and transformers takes most of a small command's time. A command still has a process of its own, which
begins where another one has finished importing; tests of how a command starts run `python -m rlaif`, and so do those
that need what forks share to differ: the seed of strings' hashes, and files beyond the first three.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy
import torch

_MODULES = ("rlaif.cli.main", "rlaif.labeling.api", "rlaif.engines.transformers", "rlaif.rewards.train", "rlaif.trl")

# Has a command run in a fork, with this program's arguments, folder, environment, mask and first three files, and ends
# as it does. A signal that comes too early waits.
_CLIENT = """
import json, os, signal, socket, sys
signals = signal.SIGINT, signal.SIGTERM
signal.pthread_sigmask(signal.SIG_BLOCK, signals)
connection = socket.socket(socket.AF_UNIX)
connection.connect({address!r})
socket.send_fds(connection, [b"0"], [0, 1, 2])
mask = os.umask(0)
asked = {{"arguments": sys.argv[1:], "folder": os.getcwd(), "environment": dict(os.environ), "mask": mask}}
connection.sendall(json.dumps(asked).encode() + b"\\n")
answer = connection.makefile()
process = int(answer.readline())
for number in signals:
    signal.signal(number, lambda number, frame: os.kill(process, number))
signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
status = int(answer.readline())
if status < 0:
    if -status != signal.SIGKILL:
        signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
sys.exit(status)
"""


@cache
def rlaif_program() -> list[str]:
    """How a command line begins that is `rlaif`; the server behind it ends with this process."""
    from tests.conftest import environment

    if sys.platform != "linux":
        return [sys.executable, "-m", "rlaif"]
    # A socket's name is of 107 characters at most, so it is not put where temporary files may be.
    address = str(Path(tempfile.mkdtemp(prefix="rlaif-", dir="/tmp")) / "socket")
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.forked", address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # Arrow's allocator has a thread of its own, which would not be in a fork.
        env={**environment(), "JE_ARROW_MALLOC_CONF": "background_thread:false"},
        cwd=Path(__file__).parent.parent,
    )
    atexit.register(_end, server)
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n", "the server of forks did not start"
    return [sys.executable, "-IS", "-c", _CLIENT.format(address=address)]


def _end(server: subprocess.Popen[bytes]) -> None:
    assert server.stdin is not None
    server.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        server.wait(timeout=10)


def serve(address: str) -> None:
    """Load everything, then fork for whoever connects, until the input ends."""
    for module in _MODULES:
        import_module(module)
    # A fork has the thread that forked and no other: whatever another one held would be held for ever.
    assert [each.name for each in Path("/proc/self/task").iterdir()] == [str(os.getpid())]
    gc.freeze()
    owner, mine = sys.stdin.fileno(), os.getpid()
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(address)
            listener.listen(64)
            print("ready", flush=True)
            door = listener.fileno()
            while owner not in (ready := select.select([door, owner], [], [], 5.0)[0]):
                if door in ready:
                    connection, _ = listener.accept()
                    if os.fork() == 0:
                        listener.close()
                        _one(connection)
                        return
                    connection.close()
                while _reaped():
                    pass
    finally:
        if os.getpid() == mine:
            shutil.rmtree(Path(address).parent)


def _reaped() -> bool:
    """Whether a fork had ended, and no longer counts as a process now."""
    try:
        return os.waitpid(-1, os.WNOHANG)[0] > 0
    except ChildProcessError:
        return False


def _one(connection: socket.socket) -> None:
    """Run one command in another fork, which returns from here as the command does, and tell how it ended."""
    _, files, _, _ = socket.recv_fds(connection, 1, 3)
    asked = json.loads(connection.makefile().readline())
    process = os.fork()
    if process:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        with suppress(OSError):
            connection.sendall(f"{process}\n".encode())
        if connection.fileno() in select.select([connection.fileno(), os.pidfd_open(process)], [], [])[0]:
            # Whoever asked was killed: the command is too.
            os.kill(process, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        with suppress(OSError):
            connection.sendall(f"{status}\n".encode())
        os._exit(0)
    connection.close()
    for place, file in enumerate(files):
        os.dup2(file, place)
        os.close(file)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.umask(asked["mask"])
    tempfile.tempdir = None
    # Two commands are not to be alike because they were forked from one process.
    random.seed()
    numpy.random.seed()
    torch.seed()
    sys.argv = ["rlaif", *asked["arguments"]]
    # Else the program's name would be that of this module.
    sys.modules["__main__"].__package__ = None
    from rlaif.cli.main import main

    main()


if __name__ == "__main__":
    serve(sys.argv[1])
