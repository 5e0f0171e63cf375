"""Choose and make the engine that the settings ask for; each brings its own heavy imports."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

from rlaif.engines.base import (
    BaseUrl,
    Cluster,
    Engine,
    EngineArgs,
    EngineKind,
    EngineName,
    ModelIdentity,
    digest_of,
    identify,
)
from rlaif.errors import InputError
from rlaif.starter import CHECKPOINT_FILES, STARTER, checkpoint


def choose_engine(name: EngineName, base_url: BaseUrl | None, args: Mapping[str, str] | None = None) -> EngineKind:
    """Resolve `auto`: a server when one is named, vLLM when it is installed and can run here, else transformers.

    `ray` is where replicas run; they run vLLM where it is installed, else transformers, or what the engine argument
    `engine` says. What computes is what a run names: it may go on without Ray.

    Raises:
        InputError: the options contradict each other.
    """
    if name == "server" and not base_url:
        raise InputError("--engine server needs --base-url, as in --base-url http://127.0.0.1:8000.")
    if base_url and name not in ("auto", "server"):
        raise InputError(f"--base-url goes with --engine server, not with --engine {name}; drop one of the two.")
    if name == "ray":
        return _of_replicas((args or {}).get("engine"))
    if name != "auto":
        return name
    if base_url:
        return "server"
    return "vllm" if vllm_can_run() else "transformers"


def _of_replicas(asked: str | None) -> EngineKind:
    if asked in ("vllm", "transformers"):
        return asked  # type: ignore[return-value]
    if asked is not None:
        raise InputError(f"--engine-arg engine={asked}: expected vllm or transformers.")
    # Whether vLLM can run is a matter of the machines that it will run on, not of this one.
    return "transformers" if importlib.util.find_spec("vllm") is None else "vllm"


def vllm_can_run() -> bool:
    """Tell whether vLLM is installed and finds a platform here that it supports."""
    if importlib.util.find_spec("vllm") is None:
        return False
    try:
        from rlaif.engines.vllm import quiet_vllm

        quiet_vllm()
        from vllm.platforms import current_platform

        return bool(current_platform.device_type)
    except Exception:
        # A vLLM that cannot even be imported cannot run here.
        return False


def resolve_model(
    model: str, engine: EngineName, base_url: BaseUrl | None, args: Mapping[str, str], option: str = "--judge"
) -> tuple[EngineKind, ModelIdentity]:
    """Choose the engine, and fingerprint the model without loading it.

    `starter` is the checkpoint that comes with rlaif; of a server, whatever it serves. Several servers serve the same.

    Raises:
        InputError: no such model, or options that contradict each other.
        RunError: the server does not answer, or the starter is not installed.
    """
    chosen = choose_engine(engine, base_url, args)
    if chosen == "server":
        from rlaif.engines.served import identify_served

        assert base_url is not None, "choose_engine takes server only with a base URL"
        return chosen, identify_served(base_url, None if model == STARTER else model, option=option)
    if model == STARTER:
        folder = checkpoint()
        digest = digest_of(folder / name for name in CHECKPOINT_FILES)
        return chosen, ModelIdentity(name=STARTER, digest=digest, folder=folder)
    return chosen, identify(model, args.get("revision"))


def make_engine(
    name: EngineKind,
    model: ModelIdentity,
    args: Mapping[str, str],
    *,
    base_url: BaseUrl | None = None,
    concurrency: int = 128,
    cluster: Cluster | None = None,
) -> Engine:
    """Load the model, here or in replicas on a cluster, or connect to its server.

    Raises:
        InputError: the model cannot be loaded, or an option is not the engine's.
    """
    if cluster is not None:
        from rlaif.engines.ray import RayEngine

        return RayEngine(name, model, args, cluster)
    if name == "server":
        from rlaif.engines.server import ServerEngine

        assert base_url is not None, "choose_engine takes server only with a base URL"
        return ServerEngine(model, base_url, EngineArgs(args), concurrency=concurrency)
    if name == "vllm":
        from rlaif.engines.vllm import VllmEngine

        if model.name == STARTER:
            # In vLLM's default, bf16, one rationale in fifteen takes another turn.
            args = {"dtype": "float32", **args}
        return VllmEngine(model, EngineArgs(args))
    from rlaif.engines.transformers import TransformersEngine

    return TransformersEngine(model, EngineArgs(args))


def atomic_batch_of(name: EngineKind) -> int | None:
    """How many planned requests an engine answers as one, known before it is loaded."""
    if name != "transformers":
        return None
    from rlaif.engines.transformers import TransformersEngine

    return TransformersEngine.atomic_batch
