"""The shards of one split: which pictures go into which, which are there already, and making the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset as TorchDataset

from clade.data.base import Dataset, Sample
from clade.data.loading import WorkerLoader
from clade.data.prepared.manifest import Shard, Split
from clade.data.prepared.shards import describe, shard_facts, write_shard
from clade.errors import CladeError, DataError


@dataclass
class _Contents:
    """What the header of a shard says."""

    names: list[str] = field(default_factory=list)
    classes: list[list[int]] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


class Plan:
    """Shards of one split, beginning with what an earlier call finished; what is damaged is removed.

    Shard k takes the same number of places in the dataset as any other, so that it does not depend on the ones before.
    """

    def __init__(
        self, out: Path, split: str, dataset: Dataset, shard_bytes: int, on_error: str, hashes: Mapping[str, str]
    ) -> None:
        self.out, self.name, self.dataset, self.on_error = out, split, dataset, on_error
        self.picture_bytes = _stored_bytes(dataset, on_error)
        step = max(shard_bytes // self.picture_bytes, 1)
        self.ranges = [range(k, min(k + step, len(dataset))) for k in range(0, len(dataset), step)]
        self.ready: dict[int, tuple[Shard, _Contents]] = {}
        for k in range(len(self.ranges)):
            found = _usable(self._path(k), hashes)
            if found is None:
                self._path(k).unlink(missing_ok=True)
            else:
                self.ready[k] = found
        self.kept = len(self.ready)

    @property
    def kept_pictures(self) -> int:
        return sum(len(self.ranges[k]) for k in self.ready)

    @property
    def missing_bytes(self) -> int:
        return (len(self.dataset) - self.kept_pictures) * self.picture_bytes

    def write(self, workers: int) -> Iterator[None]:
        """Make the missing shards; yields after each picture."""
        missing = [k for k in range(len(self.ranges)) if k not in self.ready]
        if not missing:
            return
        loader = WorkerLoader(
            _Read(self.dataset),
            sampler=[index for k in missing for index in self.ranges[k]],
            batch_size=None,
            collate_fn=_as_is,
            workers=min(workers, sum(len(self.ranges[k]) for k in missing)),
        )
        items = iter(loader)
        try:
            for k in missing:
                samples: list[Sample] = []
                contents = _Contents()
                for index in self.ranges[k]:
                    item = next(items)
                    if isinstance(item, Sample):
                        samples.append(item)
                        contents.names.append(item.name)
                        contents.classes.append(np.unique(item.ids).tolist())
                    elif self.on_error == "skip":
                        contents.skipped[self.dataset.name(index)] = str(item)
                    else:
                        raise item
                    yield
                write_shard(self._path(k), samples, vars(contents))
                self.ready[k] = (describe(self._path(k), len(samples)), contents)
        finally:
            del items, loader  # an error's traceback would keep them, and with them the workers

    def split(self) -> Split:
        split = Split()
        for _, (shard, contents) in sorted(self.ready.items()):
            split.names.extend(contents.names)
            split.classes.extend(contents.classes)
            split.skipped.update(contents.skipped)
            split.shards.append(shard)
        return split

    def _path(self, k: int) -> Path:
        return self.out / f"{self.name}-{k:05d}.safetensors"


@dataclass(frozen=True)
class _Read(TorchDataset[Any]):
    dataset: Dataset

    def __getitem__(self, index: int) -> Sample | CladeError:
        try:
            return self.dataset.read(index)
        except CladeError as error:
            return error


def _as_is(item: Any) -> Any:
    return item


def _usable(path: Path, hashes: Mapping[str, str]) -> tuple[Shard, _Contents] | None:
    """A shard that an earlier call finished; None where it is missing, damaged, or not what the manifest says."""
    if not path.exists():
        return None
    try:
        contents = _Contents(**shard_facts(path))
    except (DataError, TypeError):
        return None
    shard = describe(path, len(contents.names))
    return None if hashes.get(path.name, shard.sha256) != shard.sha256 else (shard, contents)


def _stored_bytes(dataset: Dataset, on_error: str) -> int:
    """Of the first picture that can be read; the others are about as large."""
    problem: CladeError | None = None
    for index in range(len(dataset)):
        try:
            sample = dataset.read(index)
        except CladeError as error:
            if on_error != "skip":
                raise
            problem = problem or error
            continue
        return sum(part.nbytes for part in (sample.image, sample.ids, sample.instances) if part is not None)
    raise DataError(f"None of the {len(dataset)} pictures can be used. {problem or 'The dataset is empty.'}")
