"""The examples for clusters, as far as one machine can tell: their fields are known, their commands are accepted."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.conftest import ROOT, Cli, made_pairs, write_lines

CLUSTER = ROOT / "examples" / "cluster"

# Of KubeRay's RayJob (ray.io/v1) and of a pod's template, what the example may use, named as in the reference.
POD = {
    "containers": [
        {
            "name": str,
            "image": str,
            "resources": {"requests": {}, "limits": {}},
            "volumeMounts": [{"name": str, "mountPath": str, "readOnly": bool}],
        }
    ],
    "volumes": [
        {
            "name": str,
            "persistentVolumeClaim": {"claimName": str, "readOnly": bool},
            "emptyDir": {"medium": str, "sizeLimit": str},
        }
    ],
}
JOB = {
    "apiVersion": str,
    "kind": str,
    "metadata": {"name": str},
    "spec": {
        "entrypoint": str,
        "backoffLimit": int,
        "shutdownAfterJobFinishes": bool,
        "ttlSecondsAfterFinished": int,
        "rayClusterSpec": {
            "rayVersion": str,
            "headGroupSpec": {"rayStartParams": {}, "template": {"spec": POD}},
            "workerGroupSpecs": [
                {
                    "groupName": str,
                    "replicas": int,
                    "minReplicas": int,
                    "maxReplicas": int,
                    "rayStartParams": {},
                    "template": {"spec": POD},
                }
            ],
        },
    },
}


def unknown(value: Any, known: Any, place: str = "") -> list[str]:
    """Where a value departs from what is known: `{}` takes any field, a type a value of it."""
    if isinstance(known, type):
        return [] if isinstance(value, known) else [f"{place}: {value!r} is no {known.__name__}"]
    if isinstance(known, list):
        return [fault for n, each in enumerate(value) for fault in unknown(each, known[0], f"{place}[{n}]")]
    if not known:
        return []
    found = []
    for name, each in value.items():
        here = f"{place}.{name}"
        found += unknown(each, known[name], here) if name in known else [f"{here}: not a field"]
    return found


@pytest.fixture(scope="module")
def job() -> dict[str, Any]:
    """The RayJob, as Kubernetes reads it."""
    loaded: dict[str, Any] = YAML(typ="safe").load(CLUSTER / "rayjob.yaml")
    return loaded


def test_the_job_has_known_fields_of_the_right_types(job: dict[str, Any]) -> None:
    assert unknown(job, JOB) == []
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    # So does the check itself tell what is wrong.
    assert unknown({"spec": {"entrypoints": "rlaif"}}, JOB) == [".spec.entrypoints: not a field"]
    assert unknown({"spec": {"backoffLimit": "3"}}, JOB) == [".spec.backoffLimit: '3' is no int"]


def test_the_job_has_room_for_its_replicas_and_what_they_mount(job: dict[str, Any]) -> None:
    spec = job["spec"]["rayClusterSpec"]
    (workers,) = spec["workerGroupSpecs"]
    pods = [spec["headGroupSpec"]["template"]["spec"], workers["template"]["spec"]]
    for pod in pods:
        volumes = {volume["name"] for volume in pod["volumes"]}
        mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
        assert mounted == volumes
        for container in pod["containers"]:
            assert container["resources"]["requests"] == container["resources"]["limits"]
    assert pods[0]["containers"][0]["image"] == pods[1]["containers"][0]["image"]
    gpus = pods[1]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]
    words = shlex.split(job["spec"]["entrypoint"])
    replicas = int(words[words.index("--replicas") + 1])
    assert "tensor_parallel_size=2" in words
    assert replicas * 2 == workers["replicas"] * gpus


def accepted(words: list[str], run: Path, data: Path, judge: Path, rlaif: Cli) -> None:
    """A command line is taken as it stands, with data and judge of this machine; nothing is asked."""
    assert words[:2] == ["rlaif", "label"]
    words[2] = str(data)
    words[words.index("--judge") + 1] = str(judge)
    words[words.index("--out") + 1] = str(run)
    done = rlaif(*words[1:], "--dry-run")
    assert done.returncode == 0, done.stderr
    # Two pairs, three objectives, both orders.
    assert "12 requests, 0 answered already, 12 to ask" in done.stdout


def test_the_job_s_command_is_accepted(job: dict[str, Any], tmp_path: Path, tiny_judge: Path, rlaif: Cli) -> None:
    data = write_lines(tmp_path / "pairs.jsonl", made_pairs(2))
    accepted(shlex.split(job["spec"]["entrypoint"]), tmp_path / "run", data, tiny_judge, rlaif)


@pytest.mark.parametrize(
    ("settings", "replicas"),
    [
        # Two nodes of four GPUs: one replica a GPU, or a pair of GPUs; without GPUs one a node.
        ({"SLURM_GPUS_PER_TASK": "4"}, "8"),
        ({"SLURM_GPUS_PER_TASK": "4", "TENSOR_PARALLEL": "2"}, "4"),
        ({}, "2"),
        ({"REPLICAS": "3"}, "3"),
    ],
)
def test_the_slurm_script_starts_what_it_says(
    settings: dict[str, str], replicas: str, tmp_path: Path, tiny_judge: Path, rlaif: Cli
) -> None:
    """With a `srun` that prints the command that it is to run on each node."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, body in {"srun": "printf '%s\\n' \"$@\"", "scontrol": "printf 'node-1\\nnode-2\\n'"}.items():
        (tools / name).write_text(f"#!/bin/bash\n{body}\n")
        (tools / name).chmod(0o755)
    job = {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_NODELIST": "node-[1-2]",
        "SLURM_JOB_ID": "10042",
        "SLURM_CPUS_PER_TASK": "32",
    }
    given = ["pairs.jsonl", "--judge", "/shared/judge", "--out", "/shared/run"]
    script = str(CLUSTER / "label.sbatch")
    done = subprocess.run(
        ["bash", script, *given], env={**job, **settings}, capture_output=True, text=True, check=True, timeout=60
    )
    words = done.stdout.splitlines()
    before, command = words[: words.index("--")], words[words.index("--") + 1 :]
    assert before[:4] == ["--nodes=2", "--ntasks=2", "ray", "symmetric-run"]
    # 20000 + 10042 % 10000
    assert before[before.index("--address") + 1] == "node-1:20042"
    assert command[command.index("--address") + 1] == "auto"
    assert command[command.index("--replicas") + 1] == replicas
    assert ("tensor_parallel_size=2" in command) is ("TENSOR_PARALLEL" in settings)
    if replicas == "4":
        data = write_lines(tmp_path / "pairs.jsonl", made_pairs(2))
        command += ["--engine-arg", "engine=vllm"]
        accepted(command, tmp_path / "run", data, tiny_judge, rlaif)


def test_the_slurm_script_asks_for_one_task_a_node() -> None:
    text = (CLUSTER / "label.sbatch").read_text()
    assert "#SBATCH --ntasks-per-node=1\n" in text
    # Slurm reads no directive behind the first command.
    assert text.rindex("#SBATCH") < text.index("set -euo pipefail")
