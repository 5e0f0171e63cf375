"""What an engine is, and how a model is named and fingerprinted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from pydantic import Field

from rlaif.errors import InputError
from rlaif.types import Completion, Frozen, JudgeRequest

EngineKind = Literal["transformers", "vllm", "server"]
EngineName = Literal["auto", "ray"] | EngineKind
# One server, or several that serve the same model.
BaseUrl = str | Sequence[str]
_SAMPLED_BYTES = 2**20


class ModelIdentity(Frozen):
    """A model and what fixes its weights: `name` is shown, `digest` stands for it in every key.

    `folder` is where its files are when the name does not say so.
    """

    name: str
    digest: str
    folder: Path | None = None

    @property
    def source(self) -> str:
        """What it is loaded from: a folder or a hub id."""
        return self.name if self.folder is None else str(self.folder)


class Cluster(Frozen):
    """Where replicas of a model run: on a Ray cluster, or on one of this machine alone where `address` is `None`."""

    replicas: int = Field(default=1, ge=1)
    address: str | None = None


class Engine(Protocol):
    """Where a model runs.

    `atomic_batch` is how many requests of the plan must be asked together and committed together to get
    the same digits again (padding and batch size move the last ones); `None` where batching is the engine's own
    affair. `details` goes into the manifest.
    """

    name: str
    atomic_batch: int | None
    details: Mapping[str, Any]

    def complete(self, requests: Iterable[JudgeRequest]) -> Iterator[Completion]:
        """Answer each request once, in any order, drawing requests lazily and holding few at a time.

        Raises:
            RunError: the engine cannot go on; what was yielded stands.
        """
        ...

    def close(self) -> None:
        """Free what the engine holds, at once."""
        ...


@runtime_checkable
class GroupEngine(Protocol):
    """An engine that answers several groups at a time."""

    def complete_groups(self, groups: Iterable[Sequence[JudgeRequest]]) -> Iterator[list[Completion]]:
        """Answer each group as one batch, in any order of the groups; see `Engine.complete`."""
        ...


def answer_groups(engine: Engine, groups: Iterable[Sequence[JudgeRequest]]) -> Iterator[list[Completion]]:
    """Have each group answered as one batch, several at a time where the engine can."""
    if isinstance(engine, GroupEngine):
        yield from engine.complete_groups(groups)
    else:
        for group in groups:
            yield list(engine.complete(group))


def identify(model: str, revision: str | None = None) -> ModelIdentity:
    """Fingerprint a local checkpoint, or name a hub model and its revision.

    Small files are hashed whole; of a file of weights its size, first and last MiB, which hold the tensor index.

    Raises:
        InputError: a path that is no checkpoint.
    """
    path = Path(model)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise InputError(f"{model}: no config.json; a model folder holds config.json, weights and tokenizer files.")
        return ModelIdentity(name=model, digest=digest_of(path.iterdir()))
    if model.startswith((".", "/", "~")) or model.count("/") > 1 or path.is_file():
        raise InputError(f"{model}: no such model folder; give a folder with config.json, or a hub id (owner/name).")
    commit = revision or _cached_commit(model) or "main"
    return ModelIdentity(name=model, digest=hashlib.sha256(f"{model}@{commit}".encode()).hexdigest())


def digest_of(files: Iterable[Path]) -> str:
    """Fingerprint the files of a checkpoint, whatever folder they are in; documents and folders do not count."""
    digest = hashlib.sha256()
    for file in sorted(files):
        if not file.is_file() or (file.suffix in {".md", ".txt", ".html"} and file.name != "merges.txt"):
            continue
        size = file.stat().st_size
        digest.update(json.dumps([file.name, size]).encode())
        with file.open("rb") as stream:
            if size <= 64 * _SAMPLED_BYTES:
                while block := stream.read(_SAMPLED_BYTES):
                    digest.update(block)
            else:
                digest.update(stream.read(_SAMPLED_BYTES))
                stream.seek(-_SAMPLED_BYTES, 2)
                digest.update(stream.read(_SAMPLED_BYTES))
    return digest.hexdigest()


def _cached_commit(model: str) -> str | None:
    """Commit of a hub model that is already in the local cache."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(model, "config.json")
    return Path(found).parent.name if isinstance(found, str) else None


class EngineArgs:
    """The `--engine-arg K=V` options: each is taken once, and what nobody took is an error."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._left = dict(values)

    def take(self, name: str, default: Any) -> Any:
        """Take one option, read as the type of `default` (JSON otherwise)."""
        if name not in self._left:
            return default
        text = self._left.pop(name)
        value = _parse(text)
        if isinstance(default, bool) and not isinstance(value, bool):
            raise InputError(f"--engine-arg {name}={text}: expected true or false.")
        if isinstance(default, (int, float)) and not isinstance(default, bool):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
                raise InputError(f"--engine-arg {name}={text}: expected a number, 0 or more.")
            return type(default)(value)
        return text if isinstance(default, str) else value

    def take_all(self) -> dict[str, Any]:
        """Take what is left, for an engine with options of its own."""
        left, self._left = {name: _parse(text) for name, text in self._left.items()}, {}
        return left

    def none_left(self, engine: str, known: tuple[str, ...]) -> None:
        """Refuse options that the engine does not know."""
        if self._left:
            unknown = ", ".join(sorted(self._left))
            raise InputError(f"--engine-arg {unknown}: not an option of {engine}; known are {', '.join(known)}.")


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return {"True": True, "False": False, "None": None}.get(text, text)
