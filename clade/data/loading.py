"""Datasets -> batches: an endless stream that can be resumed anywhere, and one pass over everything."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from clade.data.base import Batch, Dataset, Sample
from clade.data.sampling import Key, Stream, require_numbers
from clade.data.transforms import Augment, Fit, Size, plain_resize, to_batch
from clade.errors import CladeError, DataError

OnSkip = Callable[[str], object]
"""Is told, in the loader's own process, what is wrong with a file that is skipped; the message names it."""


_RUNNING: weakref.WeakSet[Any] = weakref.WeakSet()
"""Iterators over loaders, which have the worker processes."""


class WorkerLoader(DataLoader[Any]):
    """A DataLoader whose workers, which ignore the signals that end a process, end with this one all the same.

    Whoever keeps an iterator, or an error by whose traceback it is kept, would else keep the process waiting for them.

    Args:
        workers: reading processes; 0 reads in this one.
    """

    def __init__(self, dataset: TorchDataset[Any], *, workers: int, pin_memory: bool = False, **options: Any) -> None:
        super().__init__(
            dataset,
            num_workers=workers,
            persistent_workers=workers > 0,
            worker_init_fn=_start_worker,
            pin_memory=pin_memory,
            # Torch draws a seed for the workers from this. Nothing uses it, but drawn from the global random numbers
            # it would shift those of a resumed training.
            generator=torch.Generator(),
            **options,
        )

    def __iter__(self) -> Any:
        batches = super().__iter__()
        _RUNNING.add(batches)
        return batches


def _end_workers(running: Iterable[Any]) -> None:
    for batches in running:
        if hasattr(batches, "_shutdown_workers"):  # none without workers
            batches._shutdown_workers()


# Registered after torch's own function for the end, it runs before that: workers cannot be ended any more then.
atexit.register(lambda: _end_workers(list(_RUNNING)))


class Loader(WorkerLoader):
    """A loader of :class:`Batch`. A CladeError in a worker comes out as it was raised, without a traceback."""

    on_skip: OnSkip | None = None

    def __iter__(self) -> Any:
        batches = super().__iter__()
        try:
            for made in batches:
                if isinstance(made, CladeError):
                    try:
                        raise made
                    finally:
                        del made  # holds this frame by its traceback
                batch, skipped = made
                for message in skipped:
                    assert self.on_skip is not None
                    self.on_skip(message)
                if batch is not None:
                    yield batch
        except BaseException:
            self._iterator = None  # which would be used again
            _end_workers([batches])
            raise


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
    weights: np.ndarray | None = None,
    on_skip: OnSkip | None = None,
) -> Loader:
    """Augmented batches ``start`` to ``stop`` of a :class:`Stream`.

    A picture's augmentation is seeded with (seed, epoch, index), and with how often it came before where it comes again
    in an epoch: how many workers there are, and which of them reads what, changes nothing.

    Args:
        size: (height, width) of the batches.
        weights: how often each picture comes (:class:`Stream`); None for once per epoch.
        on_skip: told of each file that cannot be used, every time that one is met. The next picture of the dataset that
            can be used then takes the place, with the augmentation of the place. None stops at the first.
        with_positions, skip_class: compute ICPE positions, in the workers.
        instances: hand on instance maps where the dataset has them.
        workers: reading processes; 0 reads in this one.

    Raises:
        CladeError: from the first file that cannot be used, while iterating; with ``on_skip``, where none can.
    """
    stream = Stream(len(dataset), batch_size, seed, rank, world_size, start, stop, weights)
    loader = Loader(
        _Augmented(dataset, size, augment, seed, skip=on_skip is not None),
        batch_sampler=stream,  # pyright: ignore[reportArgumentType]  # torch wants a Sampler, and uses an iterable
        collate_fn=_Collate(dataset.label_space.num_rows, with_positions, instances, skip_class),
        workers=workers,
        pin_memory=pin_memory,
    )
    loader.on_skip = on_skip
    return loader


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
    on_skip: OnSkip | None = None,
) -> Loader:
    """Every picture once, in order, without augmentation; the last batch may be smaller.

    Rank r of w gets the pictures r, r + w, r + 2w, ...: together the ranks see each picture exactly once.

    Args:
        size: (height, width), or None to keep each picture's own, one picture per batch.
        fit: how a picture of another shape is made to fit (:func:`clade.data.transforms.plain_resize`).
        with_positions, skip_class, instances, workers: as in :func:`train_loader`.
        on_skip: told of each file that cannot be used, whose picture is then left out: a batch may be smaller, or not
            come at all. None stops at the first.

    Raises:
        DataError: several pictures per batch without a size.
        CladeError: from the first file that cannot be used, while iterating, without ``on_skip``.
    """
    require_numbers(len(dataset), batch_size, rank, world_size)
    if size is None and batch_size != 1:
        raise DataError(
            f"Pictures of their own sizes cannot share a batch of {batch_size}: set a size, or batch_size 1."
        )
    loader = Loader(
        _Plain(dataset, size, fit, skip=on_skip is not None),
        sampler=range(rank, len(dataset), world_size),
        batch_size=batch_size,
        collate_fn=_Collate(dataset.label_space.num_rows, with_positions, instances, skip_class),
        workers=workers,
        pin_memory=pin_memory,
    )
    loader.on_skip = on_skip
    return loader


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

    def classes(self, index: int) -> np.ndarray:
        return self.dataset.classes(index)

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
class _Item:
    """A place of a batch: its sample, None where it stays empty, and what was skipped on the way."""

    sample: Sample | None
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Augmented(TorchDataset[Any]):
    dataset: Dataset
    size: Size
    augment: Augment
    seed: int
    skip: bool

    def __getitem__(self, key: Key) -> _Item | CladeError:
        epoch, index, repeat = key
        place = (self.seed, epoch, index, repeat) if repeat else (self.seed, epoch, index)

        def augmented(sample: Sample) -> Sample:
            return self.augment(sample, self.size, np.random.default_rng(place))

        def make() -> _Item:
            if self.skip:
                return _Item(*first_usable(self.dataset, index, augmented))
            return _Item(augmented(self.dataset.read(index)))

        return _caught(make)


@dataclass(frozen=True)
class _Plain(TorchDataset[Any]):
    dataset: Dataset
    size: Size | None
    fit: Fit
    skip: bool

    def __getitem__(self, index: int) -> _Item | CladeError:
        def make() -> _Item:
            sample = self.dataset.read(index)
            return _Item(sample if self.size is None else plain_resize(sample, self.size, self.fit))

        made = _caught(make)
        return _Item(None, (str(made),)) if self.skip and isinstance(made, CladeError) else made


def first_usable(
    dataset: Dataset, index: int, prepare: Callable[[Sample], Sample] = lambda sample: sample
) -> tuple[Sample, tuple[str, ...]]:
    """Picture ``index``, or the first one after it that can be read and prepared (after the last comes the first).

    Returns:
        (prepared sample, what is wrong with each one before it)

    Raises:
        DataError: none can be used.
    """
    skipped: list[str] = []
    for k in range(len(dataset)):
        try:
            return prepare(dataset.read((index + k) % len(dataset))), tuple(skipped)
        except CladeError as error:
            skipped.append(str(error))
    raise DataError(f"None of the {len(dataset)} pictures can be used. The first one tried: {skipped[0]}")


@dataclass(frozen=True)
class _Collate:
    num_rows: int
    with_positions: bool
    instances: bool
    skip_class: int | None

    def __call__(self, items: Sequence[_Item | CladeError]) -> tuple[Batch | None, tuple[str, ...]] | CladeError:
        good, skipped = [], []
        for item in items:
            if isinstance(item, CladeError):
                return item
            skipped += item.skipped
            if item.sample is not None:
                good.append(item.sample)

        def make() -> tuple[Batch | None, tuple[str, ...]]:
            if not good:
                return None, tuple(skipped)
            batch = to_batch(good, self.with_positions, self.instances, self.skip_class)
            # Read the range of the ids here, so that a pyramid need not read it back from a GPU.
            return replace(batch, label_map=batch.label_map.check(self.num_rows)), tuple(skipped)

        return _caught(make)


def _caught(make: Callable[[], Any]) -> Any:
    """The result, or the user's error as a value: torch would turn a raised one into the text of a traceback."""
    try:
        return make()
    except CladeError as error:
        return error


def _start_worker(_: int) -> None:
    torch.set_num_threads(1)
    # Both reach the whole process group; they are for the main process, which saves and then ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Torch's own watch looks at who started the worker. Of a fork server, that is not the main process.
    threading.Thread(target=_end_with_the_main_process, daemon=True).start()


def _end_with_the_main_process() -> None:
    main = multiprocessing.parent_process()
    if main is not None:
        main.join()
        os._exit(1)
