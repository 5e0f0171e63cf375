"""A Ray cluster to run replicas on: one that is there, or one of this machine for as long as it is needed."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rlaif.engines.base import Cluster, EngineKind
from rlaif.engines.reaper import Reaper
from rlaif.errors import InputError, RunError

_REACHED_S = 5.0
# Machines of a cluster that was started just now may still be joining it.
_JOINED_S = 30.0


@dataclass(frozen=True)
class Share:
    """What one replica takes of one machine; `threads` are what torch gets."""

    cpus: int
    gpus: int
    threads: int


class RayCluster:
    """Connects to a cluster, or starts one; `share` is what each replica gets.

    Raises:
        InputError: Ray is not installed, or the cluster has no room for so many replicas.
        RunError: nobody answers at the address.
    """

    def __init__(self, cluster: Cluster, kind: EngineKind, args: Mapping[str, Any]) -> None:
        try:
            import ray
        except ImportError as error:
            raise InputError(f"--engine ray: Ray cannot be imported ({error}); pip install 'rlaif[ray]'.") from None
        self._ray = ray
        self._reaper: Reaper | None = None
        # Ray's own convention: inside a job of a cluster the variable names that cluster.
        address = cluster.address or os.environ.get("RAY_ADDRESS") or "local"
        if ray.is_initialized():
            # The program that calls rlaif has its own connection, and keeps it.
            self._owned = False
        else:
            self._owned = True
            if address == "local":
                self._start(cluster.replicas)
            else:
                self._connect(address)
        try:
            here = self._owned and address == "local"
            share = self._room(cluster.replicas, kind, args, wait_s=0.0 if here else _JOINED_S)
            self.share = replace(share, threads=max(1, _cores() // cluster.replicas)) if here else share
        except BaseException:
            self.close()
            raise

    def _start(self, replicas: int) -> None:
        import psutil

        before = set(psutil.Process().children(recursive=True))
        # Ray has its processes yield to all others; here the replicas are the work.
        os.environ.setdefault("RAY_worker_niceness", "0")
        try:
            with _as_it_was():
                # One a replica: Ray starts as many idle processes as it is told that there are processors.
                self._ray.init(address="local", num_cpus=min(replicas, _cores()), include_dashboard=False, **_QUIET)
        except Exception as error:
            raise RunError(f"--engine ray: Ray cannot be started here ({_fact(error)}).") from None
        started = [child for child in psutil.Process().children(recursive=True) if child not in before]
        # Where this process is killed, Ray ends most of its own, but not its agents.
        self._reaper = Reaper(child.pid for child in started)

    def _connect(self, address: str) -> None:
        if "://" in address:
            raise InputError(
                f"--address {address}: expected HOST:PORT or auto; run the command on a machine of the cluster, "
                "as with ray job submit, and not through a Ray client."
            )
        if address != "auto":
            host, _, port = address.rpartition(":")
            if not host or not port.isdigit():
                raise InputError(f"--address {address}: expected HOST:PORT, as in 10.0.0.1:6379, or auto.")
            try:
                with socket.create_connection((host.strip("[]"), int(port)), timeout=_REACHED_S) as connection:
                    speaks = os.environ.get("RAY_USE_TLS") == "1" or _speaks_grpc(connection)
            except OSError as error:
                fact = error.strerror or str(error)
                raise RunError(f"--address {address}: {_CANNOT} ({fact}); {_START_ONE}") from None
            if not speaks:
                raise RunError(f"--address {address}: {_CANNOT} (something else answers); {_START_ONE}")
        try:
            with _as_it_was():
                self._ray.init(address=address, **_QUIET)
        except Exception as error:
            token = "if it asks for a token, set RAY_AUTH_MODE=token or give --address auto; else"
            raise RunError(f"--address {address}: {_CANNOT} ({_fact(error)}); {token} {_START_ONE}") from None

    def _room(self, replicas: int, kind: EngineKind, args: Mapping[str, Any], wait_s: float) -> Share:
        until = time.monotonic() + wait_s
        while True:
            nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
            share = share_of(nodes, replicas, gpus_of(kind, args) if _most(nodes, "GPU") else 0)
            if share is not None:
                return share
            if time.monotonic() > until:
                raise InputError(_no_room(nodes, replicas, gpus_of(kind, args)))
            time.sleep(1)

    def close(self) -> None:
        """Stop the cluster that was started here, or let go of the one that was there."""
        if self._owned and self._ray.is_initialized():
            self._ray.shutdown()
        if self._reaper is not None:
            self._reaper.release()
            self._reaper = None


_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
# A frame of HTTP/2: a length of three bytes, its kind (4 for settings), flags, and the stream's number.
_SETTINGS = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_CANNOT = "no Ray cluster can be reached there"
_START_ONE = "start one with ray start --head, or leave --address out to use this machine alone."


def _keep_off_stdout() -> None:
    # Ray prints on stdout, where results go, that a process died; no option of ray.init stops it. We tell it ourselves.
    with contextlib.suppress(ImportError):
        from ray._private import worker

        worker._worker_logs_enabled = False


@contextlib.contextmanager
def _as_it_was() -> Iterator[None]:
    """Keep Ray quiet, and what SIGTERM does: Ray would have it end the process without a word."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    logging.getLogger("ray").setLevel(logging.ERROR)
    _keep_off_stdout()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            # Outside of the main thread neither Ray nor this can set one.
            signal.signal(signal.SIGTERM, handler)


def gpus_of(kind: EngineKind, args: Mapping[str, Any]) -> int:
    """How many GPUs one replica takes, where there are any."""
    if kind == "vllm":
        sizes = []
        for name in ("tensor_parallel_size", "pipeline_parallel_size"):
            text = str(args.get(name, 1))
            if not text.isdigit() or int(text) < 1:
                raise InputError(f"--engine-arg {name}={text}: expected a number of GPUs, 1 or more.")
            sizes.append(int(text))
        return sizes[0] * sizes[1]
    return 0 if str(args.get("device", "auto")) == "cpu" else 1


def share_of(nodes: Sequence[Mapping[str, float]], replicas: int, gpus: int) -> Share | None:
    """The most processors that each of so many replicas can have, none of them over two machines; `None`: no room.

    A replica on GPUs asks for one processor only: more would keep others off machines with few.
    """
    most = 1 if gpus else int(_most(nodes, "CPU"))
    for cpus in range(most, 0, -1):
        fits = sum(
            min(int(node.get("CPU", 0) // cpus), int(node.get("GPU", 0) // gpus) if gpus else replicas)
            for node in nodes
        )
        if fits >= replicas:
            return Share(cpus, gpus, threads=cpus)
    return None


def _no_room(nodes: Sequence[Mapping[str, float]], replicas: int, gpus: int) -> str:
    def there(name: str) -> str:
        return " + ".join(f"{int(node.get(name, 0))}" for node in nodes) or "0"

    if _most(nodes, "GPU"):
        takes = f"{gpus} GPU{'s' if gpus > 1 else ''} of one machine, and there are {there('GPU')}"
        return f"--replicas {replicas}: each takes {takes}; lower --replicas or tensor_parallel_size, or add machines."
    return (
        f"--replicas {replicas}: each takes a processor core, and there are {there('CPU')}; lower --replicas, or add "
        "machines."
    )


def _most(nodes: Sequence[Mapping[str, float]], name: str) -> float:
    return max((node.get(name, 0.0) for node in nodes), default=0.0)


def _speaks_grpc(connection: socket.socket) -> bool:
    """Whether a server of HTTP/2 is there, which sends its settings first; Ray itself would wait for minutes."""
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _SETTINGS)
    head = b""
    while len(head) < len(_SETTINGS) and (more := connection.recv(len(_SETTINGS))):
        head += more
    return head[3:4] == _SETTINGS[3:4]


def _fact(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".")


def _cores() -> int:
    # Those that this process may use, where the system can tell.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def this_machine() -> str:
    """What this machine is called, for an error that is read on another one."""
    return socket.gethostname()
