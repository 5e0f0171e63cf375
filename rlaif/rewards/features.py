"""Features of conversations, computed once and kept on the disk: what heads on a frozen backbone are trained on."""

from __future__ import annotations

import fcntl
import hashlib
import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from zlib import crc32

import numpy as np
import torch

from rlaif.errors import RunError
from rlaif.files import cannot_write
from rlaif.rewards.forward import each_batch
from rlaif.rewards.logistic import Rows, Singles
from rlaif.rewards.model import Backbone
from rlaif.rewards.preferences import Floats, Ints
from rlaif.rewards.tokens import EncodedPair

Watch = Callable[[int, int], None]

_CACHE = "RLAIF_CACHE"
_FORMAT = 1
_BLOCK = 4096  # pairs that are put into batches together
_KEY = 16  # bytes
_ENTRY = np.dtype([("key", f"V{_KEY}"), ("checksum", "<u4")])
_IN_MEMORY = 4 * 2**30  # bytes of differences: beyond them they are read from the disk as they are asked for
_CHUNK = 8192


def default_cache() -> Path:
    """Where features are kept: `RLAIF_CACHE`, else the user's cache folder."""
    given = os.environ.get(_CACHE)
    if given:
        return Path(given) / "features"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rlaif" / "features"


@dataclass(frozen=True)
class FeatureTable:
    """Features of pairs, as the backbone's head gets them.

    Attributes:
        features: of every conversation in the cache, (conversations, width), memory-mapped.
        places: of the conversations with response a and with response b, (pairs, 2).
        computed: how many conversations were not in the cache.
    """

    features: Singles
    places: Ints
    computed: int

    def __len__(self) -> int:
        return len(self.places)

    @property
    def a(self) -> Singles:
        """Features of the conversations with response a, (pairs, width), read into memory."""
        return self.features[self.places[:, 0]]

    @property
    def b(self) -> Singles:
        """The same with response b."""
        return self.features[self.places[:, 1]]

    @property
    def difference(self) -> Rows:
        """Features with response a less those with b, (pairs, width); in memory where they are not too many."""
        lazy = Difference(self.features, self.places)
        return lazy[:] if 4 * lazy.shape[0] * lazy.shape[1] <= _IN_MEMORY else lazy

    def scores(self, heads: Floats | Singles) -> Floats:
        """Scores of both responses by linear heads, (..., width) -> (pairs, 2, ...)."""
        flat = np.asarray(heads, dtype=np.float64).reshape(-1, heads.shape[-1])
        scores = np.empty((*self.places.shape, len(flat)))
        for start in range(0, len(self), _CHUNK):
            piece = slice(start, start + _CHUNK)
            scores[piece] = self.features[self.places[piece]].astype(np.float64) @ flat.T
        return scores.reshape(*self.places.shape, *heads.shape[:-1])


class Difference:
    """Differences of features that are computed from the mapped file as they are asked for."""

    def __init__(self, features: Singles, places: Ints) -> None:
        self._features, self._places = features, places

    @property
    def shape(self) -> tuple[int, ...]:
        """Pairs and width."""
        return len(self._places), self._features.shape[1]

    def __getitem__(self, rows: slice | Ints, /) -> Singles:
        """The differences of some pairs."""
        places = self._places[rows]
        difference = self._features[places[:, 0]]
        difference -= self._features[places[:, 1]]
        return difference


def read_or_make_features(
    backbone: Backbone,
    encoded: Sequence[EncodedPair],
    *,
    cache: Path,
    batch_tokens: int,
    watch: Watch | None = None,
) -> FeatureTable:
    """Get the features of pairs, each conversation computed once and never again while the cache is there.

    A conversation is known by its tokens and a backbone by its digest, so that other pairs, another order and other
    labels find what is there, and a tuned backbone finds nothing. What was computed when the process was killed is
    kept; what is damaged is computed again. Several processes may share a cache.

    Args:
        cache: a folder; it is made. Two files a backbone lie in it: 4 bytes a number, and 20 bytes a conversation.
        batch_tokens: of one batch, padding counted.
        watch: called with the conversations that are there and all there are.

    Raises:
        RunError: the disk is full, or the backbone gives numbers that are not finite.
    """
    store = _Store(cache, backbone.digest, backbone.hidden)
    keys = [tuple(map(_key, pair.conversations)) for pair in encoded]
    total = len({key for pair in keys for key in pair})
    found = store.find({key for pair in keys for key in pair})
    before = len(found)
    for start in range(0, len(encoded), _BLOCK):
        if watch is not None:
            watch(len(found), total)
        missing, conversations, prompts = _missing(encoded[start : start + _BLOCK], keys[start : start + _BLOCK], found)
        for places, features in each_batch(backbone, conversations, prompts, budget=batch_tokens):
            rows = features.to(device="cpu", dtype=torch.float32).numpy()
            if not np.isfinite(rows).all():
                raise RunError(
                    f"{backbone.name}: features are not finite numbers for {int((~np.isfinite(rows)).any(1).sum())} of "
                    f"{len(rows)} conversations; expected finite ones. Use a backbone with sound weights, or float32."
                )
            found.update(store.add([missing[place] for place in places], rows))
            if watch is not None:
                watch(len(found), total)
    places_of_pairs = np.array([[found[a], found[b]] for a, b in keys], dtype=np.int64).reshape(-1, 2)
    return FeatureTable(store.rows(), places_of_pairs, len(found) - before)


def _missing(
    encoded: Sequence[EncodedPair], keys: Sequence[tuple[bytes, ...]], found: dict[bytes, int]
) -> tuple[list[bytes], list[list[int]], list[int]]:
    """Keys, tokens and prompts of the conversations that are not there, each once.

    Pairs with a conversation in common are of one prompt: of three pairs among three responses, two conversations go
    through the backbone together.
    """
    seen: dict[bytes, int] = {}
    missing: list[bytes] = []
    conversations: list[list[int]] = []
    prompts: list[int] = []
    for number, (pair, both) in enumerate(zip(encoded, keys, strict=True)):
        prompt = next((seen[key] for key in both if key in seen), number)
        for key, conversation in zip(both, pair.conversations, strict=True):
            if key not in seen and key not in found:
                missing.append(key)
                conversations.append(conversation)
                prompts.append(prompt)
            seen.setdefault(key, prompt)
    return missing, conversations, prompts


def _key(conversation: list[int]) -> bytes:
    return hashlib.blake2b(array("I", conversation).tobytes(), digest_size=_KEY).digest()


class _Store:
    """Features of one backbone on the disk: rows in one file; their keys and checksums, in the same order, in another.

    Both only grow. Rows are written before their keys, and what a killed process left without a key is written over.
    """

    def __init__(self, folder: Path, digest: str, width: int) -> None:
        name = hashlib.sha256(f"{_FORMAT} {width} {digest}".encode()).hexdigest()[:32]
        self._index, self._data = folder / f"{name}.keys", folder / f"{name}.rows"
        self._width = width
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for path in (self._index, self._data):
                path.touch()
        except OSError as error:
            raise cannot_write(folder, error) from None

    def find(self, wanted: set[bytes]) -> dict[bytes, int]:
        """Where the rows of some keys are, as far as they are there and whole."""
        entries = np.fromfile(self._index, dtype=_ENTRY, count=self._index.stat().st_size // _ENTRY.itemsize)
        rows = self.rows()
        found = {}
        # A key that was written again is good where it was written last.
        for place, (key, checksum) in enumerate(entries[: len(rows)].tolist()):
            if key in wanted and checksum == _checksum(key, rows[place]):
                found[key] = place
        return found

    def rows(self) -> Singles:
        """All rows that are there, mapped, (rows, width)."""
        count = self._data.stat().st_size // (4 * self._width)
        if not count:
            return np.empty((0, self._width), np.float32)
        return np.asarray(np.memmap(self._data, np.dtype("<f4"), "r", shape=(count, self._width)))

    def add(self, keys: Sequence[bytes], rows: Singles) -> dict[bytes, int]:
        """Write rows with their keys; returns where they are."""
        rows = np.ascontiguousarray(rows, dtype="<f4")
        entries = np.array([(key, _checksum(key, row)) for key, row in zip(keys, rows, strict=True)], dtype=_ENTRY)
        try:
            with self._locked() as (index, data):
                ends = index.seek(0, 2) // _ENTRY.itemsize, data.seek(0, 2) // (4 * self._width)
                first = min(ends)
                _write(data, first * 4 * self._width, rows.tobytes())
                _write(index, first * _ENTRY.itemsize, entries.tobytes())
        except OSError as error:
            raise cannot_write(self._data, error) from None
        return {key: first + number for number, key in enumerate(keys)}

    @contextmanager
    def _locked(self) -> Iterator[tuple[FileIO, FileIO]]:
        """Both files for writing, by one process at a time; unbuffered, so that rows are there before their keys."""
        with self._index.open("r+b", buffering=0) as index, self._data.open("r+b", buffering=0) as data:
            fcntl.flock(index, fcntl.LOCK_EX)
            yield index, data


def _write(file: FileIO, place: int, payload: bytes) -> None:
    """Write all of it: a disk that runs full takes a part without a word, and fails at the next byte."""
    file.seek(place)
    left = memoryview(payload)
    while left:
        left = left[file.write(left) :]


def _checksum(key: bytes, row: Singles) -> int:
    return crc32(row.tobytes(), crc32(key))
