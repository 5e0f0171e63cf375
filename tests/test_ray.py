"""Replicas on Ray label as one process does, whatever ends in the middle; and what is said where they cannot."""

from __future__ import annotations

import os
import re
import signal
import socket
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from rlaif.engines.base import Cluster, EngineArgs, answer_groups, identify
from rlaif.engines.factory import choose_engine, make_engine
from rlaif.engines.ray_cluster import Share, gpus_of, share_of
from rlaif.engines.transformers import TransformersEngine
from rlaif.errors import InputError, RunError
from rlaif.types import JudgeRequest, Message
from tests.conftest import Cli, made_pairs, write_lines
from tests.processes import answered, start, wait_for

psutil: Any = pytest.importorskip("psutil")
pytest.importorskip("ray")

# A judge that answers in gibberish writes to the limit, so this is also how long a run takes.
SLOW = ("--max-tokens", "32", "--objective", "honesty", "--objective", "helpfulness")
DONE = "192 judgments: 192 asked, 0 reused, 0 abstained"
RAY = ("--engine", "ray", "--replicas", "2")


@pytest.fixture(autouse=True)
def no_cluster_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray takes a cluster's address from the environment."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def replicas_of(driver: int) -> list[int]:
    """The processes in which the replicas of a command run."""
    found = []
    for process in psutil.Process(driver).children(recursive=True):
        try:
            if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::Replica"):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def alive(process: Any) -> bool:
    """Whether it still runs; one that has ended may wait for a parent that never asks."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def wait_until_gone(processes: list[Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while left := [process for process in processes if alive(process)]:
        assert time.monotonic() < deadline, f"still running: {left}"
        time.sleep(0.05)


def counted(run: Path) -> tuple[int, int]:
    """Completions in a ledger, and how many keys they are of."""
    with sqlite3.connect(run / "judgments.db") as db:
        rows, keys = db.execute("SELECT count(*), count(DISTINCT key) FROM completions").fetchone()
    return int(rows), int(keys)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory, tiny_judge: Path) -> tuple[tuple[object, ...], bytes]:
    """What is to be labelled, and the labels of one process."""
    folder = tmp_path_factory.mktemp("one")
    common = (write_lines(folder / "pairs.jsonl", made_pairs(48)), "--judge", tiny_judge, *SLOW)
    process = start("label", *common, "--engine", "transformers", "--out", folder / "run")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return common, (folder / "run" / "labels.jsonl").read_bytes()


def test_a_replica_killed_in_the_middle_changes_no_byte(
    tmp_path: Path, labelled: tuple[tuple[object, ...], bytes]
) -> None:
    common, labels = labelled
    run = tmp_path / "run"
    process = start("label", *common, *RAY, "--out", run)
    wait_for(run, 64, process, timeout=300)
    killed = replicas_of(process.pid)
    assert killed, process.communicate()
    os.kill(killed[0], signal.SIGKILL)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    # 48 pairs, two objectives, both orders: nothing is lost, and nothing is in the ledger twice.
    assert out == f"48 pairs labelled, 0 rows rejected -> {run}/labels.jsonl\n{DONE}\n"
    assert counted(run) == (192, 192)
    assert re.search(r"Note: replica [12] ended \(.+\); it is started again\.", err)
    assert "Traceback" not in err
    assert (run / "labels.jsonl").read_bytes() == labels


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_command_that_is_ended_leaves_no_process_and_goes_on_without_ray(
    number: int, tmp_path: Path, labelled: tuple[tuple[object, ...], bytes], rlaif: Cli
) -> None:
    common, labels = labelled
    run = tmp_path / "run"
    process = start("label", *common, *RAY, "--out", run)
    wait_for(run, 64, process, timeout=300)
    started = psutil.Process(process.pid).children(recursive=True)
    assert len(started) > 2
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    wait_until_gone(started)
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 1
        assert f"answers so far are kept in {run}. Give the same command to continue." in err
        assert "Traceback" not in err
    kept = answered(run)
    assert kept >= 64
    # Batches are committed whole.
    assert kept % 64 == 0
    done = rlaif("label", *common, "--engine", "transformers", "--out", run, timeout=300)
    assert f"192 judgments: {192 - kept} asked, {kept} reused" in done.stdout, done.stderr
    assert (run / "labels.jsonl").read_bytes() == labels


def requests(count: int) -> list[JudgeRequest]:
    return [
        JudgeRequest(
            key=f"{n:064x}",
            pair_id=f"pair-{n}",
            messages=(Message(role="user", content=f"Which of {n} and {n + 1} is larger?" + " Think." * (n % 7)),),
            verdict_prefix="Verdict:",
            choices=("A", "B"),
            rationale="",
        )
        for n in range(count)
    ]


def test_groups_and_streams_are_answered_as_by_one_engine(tiny_judge: Path) -> None:
    """Groups of any size are batches of their own; a stream is cut into the engine's own batches."""
    asked = requests(150)
    groups = [asked[:64], asked[64:67], asked[67:]]
    model = identify(str(tiny_judge))
    one = TransformersEngine(model, EngineArgs({}))
    by_group = {done.key: done for answers in answer_groups(one, groups) for done in answers}
    by_stream = {done.key: done for done in one.complete(asked)}
    replicas = make_engine("transformers", model, {}, cluster=Cluster(replicas=2))
    try:
        assert replicas.name == "transformers"
        assert replicas.details["replicas"] == 2
        told = list(answer_groups(replicas, iter(groups)))
        assert sorted(map(len, told)) == [3, 64, 83]
        assert {done.key: done for answers in told for done in answers} == by_group
        assert {done.key: done for done in replicas.complete(iter(asked))} == by_stream
        assert list(replicas.complete([])) == []
    finally:
        replicas.close()


def test_a_model_that_does_not_load_is_one_error(tiny_judge: Path, tmp_path: Path) -> None:
    broken = tmp_path / "judge"
    broken.mkdir()
    for file in tiny_judge.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    (broken / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match=r"the model cannot be loaded"):
        make_engine("transformers", identify(str(broken)), {}, cluster=Cluster(replicas=1))


def test_what_runs_in_replicas_is_what_a_run_names() -> None:
    assert choose_engine("ray", None, {"engine": "transformers"}) == "transformers"
    assert choose_engine("ray", None, {"engine": "vllm"}) == "vllm"
    with pytest.raises(InputError, match="engine=server: expected vllm or transformers"):
        choose_engine("ray", None, {"engine": "server"})
    with pytest.raises(InputError, match="--base-url goes with --engine server, not with --engine ray"):
        choose_engine("ray", "http://127.0.0.1:1")


@pytest.mark.parametrize(
    ("nodes", "replicas", "gpus", "expected"),
    [
        # Sixteen cores in two: eight each; in three: five each.
        ([{"CPU": 16.0}], 2, 0, Share(8, 0, 8)),
        ([{"CPU": 16.0}], 3, 0, Share(5, 0, 5)),
        # Three replicas on 8 + 4 cores: four each, two of them on the larger machine.
        ([{"CPU": 8.0}, {"CPU": 4.0}], 3, 0, Share(4, 0, 4)),
        ([{"CPU": 2.0}], 3, 0, None),
        # Tensor parallelism is within one machine: 4 + 4 GPUs hold one replica of four twice, and none of eight.
        ([{"CPU": 32.0, "GPU": 4.0}] * 2, 2, 4, Share(1, 4, 1)),
        ([{"CPU": 32.0, "GPU": 4.0}] * 2, 1, 8, None),
        # The head of a cluster often has no GPU.
        ([{"CPU": 64.0}, {"CPU": 8.0, "GPU": 2.0}], 2, 1, Share(1, 1, 1)),
        ([{"CPU": 64.0}, {"CPU": 8.0, "GPU": 2.0}], 3, 1, None),
    ],
)
def test_what_a_replica_takes(nodes: list[dict[str, float]], replicas: int, gpus: int, expected: Share | None) -> None:
    assert share_of(nodes, replicas, gpus) == expected


def test_a_replica_of_vllm_takes_the_gpus_of_its_parallel_sizes() -> None:
    assert gpus_of("vllm", {}) == 1
    assert gpus_of("vllm", {"tensor_parallel_size": "4"}) == 4
    assert gpus_of("vllm", {"tensor_parallel_size": "4", "pipeline_parallel_size": "2"}) == 8
    assert gpus_of("transformers", {"device": "cpu"}) == 0
    with pytest.raises(InputError, match="tensor_parallel_size=two: expected a number of GPUs"):
        gpus_of("vllm", {"tensor_parallel_size": "two"})


@pytest.mark.parametrize(
    ("options", "code", "expected"),
    [
        (["--replicas", "2"], 2, "--replicas has a meaning only with --engine ray; add it, or drop --replicas."),
        (["--engine", "vllm", "--address", "auto"], 2, "--address has a meaning only with --engine ray"),
        (["--engine", "ray", "--replicas", "0"], 2, "0 is not in the range x>=1"),
        (["--engine", "ray", "--engine-arg", "batch=3"], 2, "batch: not an option of transformers, which the replicas"),
        (["--engine", "ray", "--engine-arg", "engine=server"], 2, "engine=server: expected vllm or transformers"),
        (["--engine", "ray", "--address", "ray://127.0.0.1:10001"], 2, "expected HOST:PORT or auto"),
        (["--engine", "ray", "--address", "somewhere"], 2, "expected HOST:PORT, as in 10.0.0.1:6379, or auto"),
        (["--engine", "ray", "--address", "127.0.0.1:{closed}"], 1, "no Ray cluster can be reached there (Connection"),
        (["--engine", "ray", "--replicas", "4096"], 2, "--replicas 4096: each takes a"),
    ],
)
def test_a_mistake_is_answered_by_one_line(
    options: list[str], code: int, expected: str, tmp_path: Path, tiny_judge: Path, rlaif: Cli
) -> None:
    data = write_lines(tmp_path / "pairs.jsonl", made_pairs(2))
    with socket.socket() as taken:
        # Bound, and not listened on: nobody answers there.
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
        given = [option.replace("{closed}", port) for option in options]
        done = rlaif("label", data, "--judge", tiny_judge, "--out", tmp_path / "run", *given)
    assert done.returncode == code, done.stderr
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tiny_judge: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(InputError, match=r"Ray cannot be imported .*pip install 'rlaif\[ray\]'"):
        make_engine("transformers", identify(str(tiny_judge)), {}, cluster=Cluster())


def test_an_address_where_something_else_answers(tiny_judge: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(RunError, match=f"--address {address}: no Ray cluster can be reached there \\(timed out"):
            make_engine("transformers", identify(str(tiny_judge)), {}, cluster=Cluster(address=address))
