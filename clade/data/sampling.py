"""Which picture comes when: an endless stream without a state, uniform or balanced over the classes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from clade.data.base import Dataset
from clade.errors import CladeError, DataError
from clade.system.progress import track

Key = tuple[int, int, int]
"""(epoch, index of the picture, how often it came before in this epoch)"""


class Stream:
    """Which pictures make up which batch: an endless series of shuffled epochs, without a state.

    The place p of the series holds the picture ``order(seed, p // n)[p % n]`` of n. Micro-batch m takes the places from
    ``m * batch_size * world_size`` on, and rank r the r-th ``batch_size`` of them. So a batch depends on its number
    alone (resuming is starting at that number), and several processes together see what one process would with their
    batches joined. Without weights, no picture is ever more than one time ahead of another.

    Args:
        dataset_len: number of pictures.
        batch_size: pictures per micro-batch and process.
        seed: shuffles.
        rank, world_size: which process this is, of how many.
        start, stop: the micro-batches to yield; without ``stop`` there is no end.
        weights: how often each picture comes, relative to the others (:func:`repeat_factors`): of the n places of an
            epoch, picture i gets ``n * weights[i] / sum(weights)``, rounded down or up at random. None: one each.

    Yields:
        A list of (epoch, index, repeat) for each micro-batch.

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
        weights: np.ndarray | None = None,
    ) -> None:
        require_numbers(dataset_len, batch_size, rank, world_size)
        if seed < 0 or start < 0:
            raise DataError(f"seed is {seed} and the first batch is {start}; both must be at least 0.")
        if weights is not None and (len(weights) != dataset_len or not np.all(weights > 0) or np.isinf(weights).any()):
            raise DataError(
                f"{len(weights)} weights came for {dataset_len} pictures; needed is one for each, above 0 and finite."
            )
        self.dataset_len, self.batch_size, self.seed = dataset_len, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.start, self.stop = start, stop
        self.weights = weights
        self._orders: dict[int, tuple[np.ndarray, np.ndarray]] = {}

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
        return [self._key(*divmod(place, self.dataset_len)) for place in range(first, first + self.batch_size)]

    def _key(self, epoch: int, at: int) -> Key:
        order, repeats = self._order(epoch)
        return epoch, int(order[at]), int(repeats[at])

    def _order(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The pictures of an epoch, and how often each came before in it."""
        if epoch not in self._orders:
            # A spawn key keeps this apart from the augmentation of picture 0, which is seeded with (seed, epoch, 0).
            rng = np.random.default_rng(np.random.SeedSequence((self.seed, epoch), spawn_key=(0,)))
            if self.weights is None:
                made = rng.permutation(self.dataset_len), np.zeros(self.dataset_len, np.intp)
            else:
                order = rng.permutation(systematic(self.weights, self.dataset_len, rng))
                made = order, _repeats(order)
            self._orders = {epoch: made}
        return self._orders[epoch]


def systematic(weights: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """``count`` indices, each as often as ``count * weights / sum(weights)`` says, rounded down or up at random.

    Systematic resampling (Kitagawa 1996): the weights lie end to end on a line of length ``count``, and every whole
    number plus one common offset in [0, 1) picks the index that it falls on. Of all unbiased ways to draw, none has
    counts nearer to their expectation. The indices are laid out in random order, so that neighbours in the dataset
    (frames of one film) do not share their luck.
    """
    laid = rng.permutation(len(weights))
    ends = np.cumsum(weights[laid], dtype=np.float64)
    points = np.arange(count) + rng.random()
    found = np.searchsorted(ends * (count / ends[-1]), points, side="right")
    return laid[np.minimum(found, len(weights) - 1)]  # the last end may be a rounding below count


def _repeats(order: np.ndarray) -> np.ndarray:
    """How many equal entries stand before each."""
    by_value = np.argsort(order, kind="stable")
    ordered = order[by_value]
    repeats = np.empty(len(order), np.intp)
    repeats[by_value] = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    return repeats


def repeat_factors(present: Sequence[np.ndarray], num_classes: int, threshold: float | None = None) -> np.ndarray:
    """Repeat factor of every picture (Gupta, Dollar and Girshick 2019, LVIS, arXiv 1908.03195).

        f_c = share of the pictures that hold class c
        r_c = max(1, sqrt(t / f_c))
        r_i = max over the classes c in picture i of r_c

    Args:
        present: the ids in each picture. Those from ``num_classes`` on (unlabelled pixels) do not count.
        num_classes: number of classes, without the unknown one.
        threshold: t; by default the median f_c of the classes that occur. LVIS takes 0.001 for its 1203 classes, which
            would change nothing in a dataset whose rarest class is in more than one of 1000 pictures. With the median
            half of the classes are rare, whatever the dataset (as in the median frequency balancing of Eigen and
            Fergus 2015).

    Returns:
        (len(present),) float64, 1 or more.
    """
    counts = np.zeros(num_classes, np.int64)
    kept = [np.unique(ids[(ids >= 0) & (ids < num_classes)]) for ids in map(np.asarray, present)]
    for ids in kept:
        counts[ids] += 1
    shares = counts / max(len(kept), 1)
    if threshold is None:
        threshold = float(np.median(shares[counts > 0])) if counts.any() else 0.0
    of_class = np.sqrt(np.maximum(threshold / np.where(counts > 0, shares, np.inf), 1))
    return np.array([of_class[ids].max(initial=1.0) for ids in kept])


def read_classes(dataset: Dataset, *, skip: bool = False, progress: bool = False) -> list[np.ndarray]:
    """The ids in each picture, read once, on several threads.

    Args:
        skip: a picture that cannot be read counts as one without classes.
        progress: show a bar.

    Raises:
        CladeError: the first picture that cannot be read, without ``skip``.
    """

    def classes(index: int) -> np.ndarray:
        try:
            return dataset.classes(index)
        except CladeError:
            if skip:
                return np.zeros(0, np.intp)
            raise

    # The readers silence Pillow's warnings; done in several threads, that could outlive them.
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        made = threads.map(classes, range(len(dataset)))
        try:
            return list(track(made, "classes", len(dataset), quiet=not progress))
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def require_numbers(dataset_len: int, batch_size: int, rank: int, world_size: int) -> None:
    """Raises DataError for numbers of pictures and processes that make no sense."""
    if dataset_len < 1:
        raise DataError("The dataset is empty; at least one picture is needed.")
    if batch_size < 1:
        raise DataError(f"batch_size is {batch_size}; at least 1 is needed.")
    if not 0 <= rank < world_size:
        raise DataError(f"rank is {rank} of world_size {world_size}; needed is 0 <= rank < world_size.")
