"""Datasets -> batches: an endless stream that can be resumed anywhere, and one pass over everything."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from clade.data.base import Batch, Dataset, Sample
from clade.data.transforms import Augment, Fit, Size, plain_resize, to_batch
from clade.errors import CladeError, DataError

Key = tuple[int, int]
"""(epoch, index of the picture)"""


class Stream:
    """Which pictures make up which batch: an endless series of shuffled epochs, without a state.

    The place p of the series holds the picture ``order(seed, p // n)[p % n]`` of n. Micro-batch m takes the places from
    ``m * batch_size * world_size`` on, and rank r the r-th ``batch_size`` of them. So a batch depends on its number
    alone (resuming is starting at that number), several processes together see what one process would with their
    batches joined, and no picture is ever more than one time ahead of another.

    Args:
        dataset_len: number of pictures.
        batch_size: pictures per micro-batch and process.
        seed: shuffles.
        rank, world_size: which process this is, of how many.
        start, stop: the micro-batches to yield; without ``stop`` there is no end.

    Yields:
        A list of (epoch, index) for each micro-batch.

    Raises:
        DataError: a number that makes no sense.
    """

    def __init__(
        self,
        dataset_len: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        start: int = 0,
        stop: int | None = None,
    ) -> None:
        _require_numbers(dataset_len, batch_size, rank, world_size)
        if seed < 0 or start < 0:
            raise DataError(f"seed is {seed} and the first batch is {start}; both must be at least 0.")
        self.dataset_len, self.batch_size, self.seed = dataset_len, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.start, self.stop = start, stop
        self._orders: dict[int, np.ndarray] = {}

    def __iter__(self) -> Iterator[list[Key]]:
        number = self.start
        while self.stop is None or number < self.stop:
            yield self.batch(number)
            number += 1

    def __len__(self) -> int:
        """Number of batches; raises TypeError for a stream without end."""
        if self.stop is None:
            raise TypeError("A stream without 'stop' has no length.")
        return max(self.stop - self.start, 0)

    def batch(self, number: int) -> list[Key]:
        """Micro-batch ``number`` of this rank."""
        first = (number * self.world_size + self.rank) * self.batch_size
        places = (divmod(place, self.dataset_len) for place in range(first, first + self.batch_size))
        return [(epoch, int(self._order(epoch)[at])) for epoch, at in places]

    def _order(self, epoch: int) -> np.ndarray:
        if epoch not in self._orders:
            # A spawn key keeps this apart from the augmentation of picture 0, which is seeded with (seed, epoch, 0).
            source = np.random.SeedSequence((self.seed, epoch), spawn_key=(0,))
            self._orders = {epoch: np.random.default_rng(source).permutation(self.dataset_len)}
        return self._orders[epoch]


class Loader(DataLoader[Any]):
    """A DataLoader of :class:`Batch`. A CladeError in a worker comes out as it was raised, without a traceback."""

    def __iter__(self) -> Any:
        for batch in super().__iter__():
            if isinstance(batch, CladeError):
                try:
                    raise batch
                finally:
                    del batch  # holds this frame by its traceback: left to the collector, the workers end 5 s later
            yield batch


def train_loader(
    dataset: Dataset,
    *,
    size: Size,
    batch_size: int,
    augment: Augment,
    seed: int,
    with_positions: bool,
    instances: bool,
    skip_class: int | None = None,
    rank: int = 0,
    world_size: int = 1,
    start: int = 0,
    stop: int | None = None,
    workers: int = 0,
    pin_memory: bool = False,
) -> Loader:
    """Augmented batches ``start`` to ``stop`` of a :class:`Stream`.

    A picture's augmentation is seeded with (seed, epoch, index): how many workers there are, and which of them reads
    what, changes nothing.

    Args:
        size: (height, width) of the batches.
        with_positions, skip_class: compute ICPE positions, in the workers.
        instances: hand on instance maps where the dataset has them.
        workers: reading processes; 0 reads in this one.

    Raises:
        CladeError: from the first file that cannot be used, while iterating.
    """
    stream = Stream(len(dataset), batch_size, seed, rank, world_size, start, stop)
    return Loader(
        _Augmented(dataset, size, augment, seed),
        batch_sampler=stream,  # pyright: ignore[reportArgumentType]  # torch wants a Sampler, and uses an iterable
        collate_fn=_Collate(dataset.label_space.num_rows, with_positions, instances, skip_class),
        **_processes(workers, pin_memory),
    )


def eval_loader(
    dataset: Dataset,
    *,
    size: Size | None,
    batch_size: int,
    with_positions: bool,
    instances: bool,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
    fit: Fit = "stretch",
    skip_class: int | None = None,
) -> Loader:
    """Every picture once, in order, without augmentation; the last batch may be smaller.

    Rank r of w gets the pictures r, r + w, r + 2w, ...: together the ranks see each picture exactly once.

    Args:
        size: (height, width), or None to keep each picture's own, one picture per batch.
        fit: how a picture of another shape is made to fit (:func:`clade.data.transforms.plain_resize`).
        with_positions, skip_class, instances, workers: as in :func:`train_loader`.

    Raises:
        DataError: several pictures per batch without a size.
        CladeError: from the first file that cannot be used, while iterating.
    """
    _require_numbers(len(dataset), batch_size, rank, world_size)
    if size is None and batch_size != 1:
        raise DataError(
            f"Pictures of their own sizes cannot share a batch of {batch_size}: set a size, or batch_size 1."
        )
    return Loader(
        _Plain(dataset, size, fit),
        sampler=range(rank, len(dataset), world_size),
        batch_size=batch_size,
        collate_fn=_Collate(dataset.label_space.num_rows, with_positions, instances, skip_class),
        **_processes(workers, pin_memory),
    )


class Cached(Dataset):
    """Keeps decoded pictures in memory, for small datasets that are read many times.

    First come, first kept, until ``limit`` bytes are full; the rest is read each time. Each worker process of a loader
    keeps its own, so that ``workers`` times the limit may be needed.

    Args:
        dataset: what to keep.
        limit: bytes of pixels, labels and instances.
    """

    def __init__(self, dataset: Dataset, limit: int = 1 << 30) -> None:
        self.dataset = dataset
        self.label_space = dataset.label_space
        self.limit = limit
        self.used = 0
        self._kept: dict[int, Sample] = {}

    def __len__(self) -> int:
        return len(self.dataset)

    def name(self, index: int) -> str:
        return self.dataset.name(index)

    def read(self, index: int) -> Sample:
        """As the dataset's own ``read``; the arrays are read-only."""
        if index in self._kept:
            return self._kept[index]
        sample = self.dataset.read(index)
        size = sum(part.nbytes for part in (sample.image, sample.ids, sample.instances) if part is not None)
        if self.used + size <= self.limit:
            self.used += size
            for part in (sample.image, sample.ids, sample.instances):
                if part is not None:
                    part.flags.writeable = False
            self._kept[index] = sample
        return sample


@dataclass(frozen=True)
class _Augmented(TorchDataset[Any]):
    dataset: Dataset
    size: Size
    augment: Augment
    seed: int

    def __getitem__(self, key: Key) -> Sample | CladeError:
        epoch, index = key
        rng = np.random.default_rng((self.seed, epoch, index))
        return _caught(lambda: self.augment(self.dataset.read(index), self.size, rng))


@dataclass(frozen=True)
class _Plain(TorchDataset[Any]):
    dataset: Dataset
    size: Size | None
    fit: Fit

    def __getitem__(self, index: int) -> Sample | CladeError:
        def make() -> Sample:
            sample = self.dataset.read(index)
            return sample if self.size is None else plain_resize(sample, self.size, self.fit)

        return _caught(make)


@dataclass(frozen=True)
class _Collate:
    num_rows: int
    with_positions: bool
    instances: bool
    skip_class: int | None

    def __call__(self, samples: Sequence[Sample | CladeError]) -> Batch | CladeError:
        good = []
        for sample in samples:
            if isinstance(sample, CladeError):
                return sample
            good.append(sample)

        def make() -> Batch:
            batch = to_batch(good, self.with_positions, self.instances, self.skip_class)
            # Read the range of the ids here, so that a pyramid need not read it back from a GPU.
            return replace(batch, label_map=batch.label_map.check(self.num_rows))

        return _caught(make)


def _caught(make: Callable[[], Any]) -> Any:
    """The result, or the user's error as a value: torch would turn a raised one into the text of a traceback."""
    try:
        return make()
    except CladeError as error:
        return error


def _processes(workers: int, pin_memory: bool) -> dict[str, Any]:
    return {
        "num_workers": workers,
        "persistent_workers": workers > 0,
        "worker_init_fn": _start_worker,
        "pin_memory": pin_memory,
        # Torch draws a seed for the workers from this. Nothing uses it, but drawn from the global random numbers it
        # would shift those of a resumed training.
        "generator": torch.Generator(),
    }


def _start_worker(_: int) -> None:
    torch.set_num_threads(1)
    # Both reach the whole process group; they are for the main process, which saves and then ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _require_numbers(dataset_len: int, batch_size: int, rank: int, world_size: int) -> None:
    if dataset_len < 1:
        raise DataError("The dataset is empty; at least one picture is needed.")
    if batch_size < 1:
        raise DataError(f"batch_size is {batch_size}; at least 1 is needed.")
    if not 0 <= rank < world_size:
        raise DataError(f"rank is {rank} of world_size {world_size}; needed is 0 <= rank < world_size.")
