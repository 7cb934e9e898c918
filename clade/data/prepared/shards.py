"""One shard: a safetensors file with the arrays of some pictures, and their names and classes in its header.

The tensors of picture k are ``00000k.image`` (H, W, 3) uint8, ``00000k.ids`` (H, W) and ``00000k.instances`` (H, W) of
the smallest integers that hold them; what a picture does not have is left out. Random reads of such a file run at
thousands of pictures a second (benchmarks/results, loading), those of PNGs in a tar file at some two hundred.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from clade.data.base import Sample
from clade.data.prepared.manifest import AGAIN, Shard
from clade.errors import DataError, first_line
from clade.io.atomic import atomic_path
from clade.io.hashing import file_hash


def write_shard(path: Path, samples: Sequence[Sample], facts: dict[str, Any]) -> None:
    """The same samples and facts give the same bytes.

    Args:
        facts: plain values; :func:`shard_facts` reads them back.
    """
    tensors: dict[str, np.ndarray] = {}
    for k, sample in enumerate(samples):
        tensors[_key(k, "ids")] = np.ascontiguousarray(sample.ids)
        if sample.image is not None:
            tensors[_key(k, "image")] = np.ascontiguousarray(sample.image)
        if sample.instances is not None:
            tensors[_key(k, "instances")] = np.ascontiguousarray(_smallest(sample.instances))
    with atomic_path(path) as temporary:
        # One key only: safetensors writes several in a random order.
        try:
            save_file(tensors, temporary, metadata={"clade": json.dumps(facts)})
        except SafetensorError as error:
            raise DataError(f"{path}: cannot be written ({first_line(error)}). Is the disk full?") from error


def shard_facts(path: Path) -> dict[str, Any]:
    """What was given to :func:`write_shard`; DataError for a damaged file."""
    try:
        with safe_open(path, framework="np") as file:
            return json.loads(file.metadata()["clade"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error


def describe(path: Path, pictures: int) -> Shard:
    """The manifest's entry of a shard; reads it whole."""
    return Shard(file=path.name, pictures=pictures, bytes=path.stat().st_size, sha256=file_hash(path))


class ShardFile:
    """An open shard; the file is mapped into memory and a picture is copied out of it.

    Raises:
        DataError: missing, damaged, or of another length than ``shard`` says; the message names the file.
    """

    def __init__(self, path: Path, shard: Shard) -> None:
        self.path = path
        try:
            size = path.stat().st_size
            if size != shard.bytes:  # a mapped file that is too short would end the process, not the reading
                raise DataError(
                    f"{path}: is {size} bytes long, but {shard.bytes} bytes were written: it is cut off or changed. "
                    f"{AGAIN}"
                )
            self._file: Any = safe_open(path, framework="np")
            self._keys = frozenset(self._file.keys())
        except FileNotFoundError as error:
            raise DataError(f"{path}: no such file, but the prepared dataset needs it. {AGAIN}") from error
        except (OSError, SafetensorError) as error:
            raise _damaged(path, error) from error

    def read(self, k: int, name: str) -> Sample:
        """Picture k of the shard."""
        ids, image, instances = (self._tensor(k, part) for part in ("ids", "image", "instances"))
        if ids is None or ids.ndim != 2 or (image is not None and image.shape != (*ids.shape, 3)):
            raise DataError(f"{self.path}: picture {k} ({name}) is not there, or not of the known form. {AGAIN}")
        return Sample(name, image, ids, None if instances is None else instances.astype(np.int32, copy=False))

    def _tensor(self, k: int, part: str) -> np.ndarray | None:
        key = _key(k, part)
        try:
            return self._file.get_tensor(key) if key in self._keys else None
        except (OSError, SafetensorError) as error:
            raise _damaged(self.path, error) from error


def _key(k: int, part: str) -> str:
    return f"{k:06d}.{part}"


def _smallest(numbers: np.ndarray) -> np.ndarray:
    low, high = int(numbers.min()), int(numbers.max())
    if low < 0:
        return numbers.astype(np.int32)
    return numbers.astype(np.uint8 if high < 1 << 8 else np.uint16 if high < 1 << 16 else np.int32)


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: is damaged, or no shard of a prepared dataset ({first_line(error)}). {AGAIN}")
