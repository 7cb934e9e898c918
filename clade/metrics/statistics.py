"""Mean, covariance and features of a set of pictures: what they are compared by, streamed, merged and kept on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from clade.data.base import Dataset
from clade.data.chosen import Chosen
from clade.data.datasets.drawn import ScenesDataset
from clade.data.disk_cache import Arrays, cached, files_key
from clade.data.files import FileDataset
from clade.data.loading import Cached, eval_loader
from clade.data.merged import Merged
from clade.data.prepared import PreparedDataset
from clade.data.resized import Resized
from clade.data.transforms import Fit, Size
from clade.errors import CladeError, DataError
from clade.system.progress import track

if TYPE_CHECKING:
    from clade.metrics.extractors import Extractor

_VERSION = 2
"""Part of the cache's key: raise it when the same pictures give other numbers."""


def no_moments(dim: int) -> Tensor:
    """The moments of nothing: (dim + 2, dim) float64, rows = count, mean, scatter (sum of outer products)."""
    return torch.zeros(dim + 2, dim, dtype=torch.float64)


def add_to_moments(moments: Tensor, features: Tensor) -> None:
    """Take features (N, D) into moments (D + 2, D), in place; see :func:`merged`."""
    if not len(features):
        return
    x = features.double()
    mean = x.mean(0)
    before, share = moments[0, 0].clone(), len(x) / (moments[0, 0] + len(x))
    delta = mean - moments[1]
    rows = torch.cat([x - mean, (delta * (before * share).sqrt())[None]])
    moments[2:].addmm_(rows.T, rows)  # the only pass over the whole covariance
    moments[1] += delta * share
    moments[0] += len(x)


def merged(moments: Tensor) -> Tensor:
    """Moments of several sets (K, D + 2, D) -> those of all together (Chan, Golub, LeVeque 1979).

    n = n_a + n_b,   d = mean_b - mean_a
    mean = mean_a + d n_b / n,   S = S_a + S_b + d d' n_a n_b / n
    """
    total = moments[0]
    for other in moments[1:]:
        count_a, count_b = total[0, 0], other[0, 0]
        count = count_a + count_b
        share = count_b / count.clamp(min=1)
        delta = other[1] - total[1]
        scatter = total[2:] + other[2:] + torch.outer(delta, delta) * (count_a * share)
        total = torch.cat([count.expand_as(delta)[None], (total[1] + delta * share)[None], scatter])
    return total


@dataclass(frozen=True)
class Statistics:
    """A set of pictures, as an extractor sees them.

    Args:
        moments: (D + 2, D) float64: the count in the first row, the mean, the scatter.
        features: (M, D) float32 of all pictures, or of those that were kept.
        sha256: of the photos as the extractor got them, in any order; None where they were not read here.
    """

    moments: Tensor
    features: Tensor
    sha256: str | None = None

    @classmethod
    def of(cls, features: Tensor) -> Statistics:
        """Of features (N, D)."""
        require_features(features)
        moments = no_moments(features.shape[1]).to(features.device)
        add_to_moments(moments, features.detach())
        return cls(moments, features.detach().float())

    @property
    def count(self) -> int:
        return int(self.moments[0, 0])

    @property
    def dim(self) -> int:
        return self.moments.shape[1]

    @property
    def mean(self) -> Tensor:
        """(D,) float64"""
        return self.moments[1]

    @property
    def covariance(self) -> Tensor:
        """(D, D) float64, divided by N - 1.

        Raises:
            DataError: fewer than two pictures.
        """
        require_pictures(self.count, 2, "a covariance")
        return self.moments[2:] / (self.count - 1)


def require_features(features: Tensor, dim: int | None = None) -> None:
    """Raises CladeError unless they are finite floats (N, dim)."""
    if features.ndim != 2 or not features.is_floating_point() or dim not in (None, features.shape[1]):
        raise CladeError(
            f"Features of shape {tuple(features.shape)}, {features.dtype} came; needed are floats (pictures, "
            f"{'D' if dim is None else dim}), as one extractor gives them."
        )
    if not bool(torch.isfinite(features).all()):
        raise CladeError("Features are not finite (NaN or infinity). Look at the pictures, and at the weights' file.")


def require_pictures(count: int, least: int, what: str) -> None:
    """Raises DataError for a set that is too small."""
    if count < least:
        raise DataError(f"{count} pictures came; {what} needs at least {least}. Evaluate on more pictures.")


def dataset_key(dataset: Dataset) -> str | None:
    """Tells the photos of datasets apart without reading them; None for a dataset of an unknown kind.

    Files count by path, size and time of change, shards of a prepared dataset by their hashes.
    """
    if isinstance(dataset, (Cached, Merged)):
        return dataset_key(dataset.dataset)
    if isinstance(dataset, Resized):
        inner = dataset_key(dataset.dataset)
        return None if inner is None else files_key([], inner, dataset.size, dataset.fit)
    if isinstance(dataset, Chosen):
        inner = dataset_key(dataset.dataset)
        return None if inner is None else files_key([], inner, list(dataset.indices))
    if isinstance(dataset, FileDataset) and dataset.files.images is not None:
        kind = type(dataset.files)
        return files_key(
            [dataset.files.images[dataset.name(k)] for k in range(len(dataset))],
            f"{kind.__module__}.{kind.__qualname__}",
        )
    if isinstance(dataset, PreparedDataset):
        return files_key([], [shard.sha256 for shard in dataset.split.shards])
    if isinstance(dataset, ScenesDataset):
        return files_key([], "scenes", dataset._scenes, dataset._drawing)
    return None


def real_statistics(
    dataset: Dataset,
    extractor: Extractor,
    size: Size,
    fit: Fit = "stretch",
    *,
    batch_size: int = 16,
    workers: int = 0,
    keep: int = 10_000,
    device: torch.device | str | None = None,
    progress: bool = False,
    cache: bool = True,
) -> Statistics:
    """Statistics of a dataset's photos, from the user's cache folder where they are there.

    The cache's key is made of the photos' files (:func:`dataset_key`), size, fit, ``keep`` and ``extractor.key``; where
    it is found, no photo is read. Datasets of an unknown kind are read every time.

    Args:
        size: (height, width) of the photos, as they are generated.
        fit: how a photo of another shape is made to fit.
        keep: features of at most this many photos are kept, evenly spread over the dataset, for the scores that
            compare picture by picture; mean and covariance are of all.
        device: where to compute; None: where the extractor is.
        workers: reading processes.
        progress: show a bar on stderr.

    Raises:
        DataError: no photos, fewer than two, or one that cannot be read.
    """
    require_pictures(len(dataset), 2, "a comparison with real photos")
    if keep < 1:
        raise CladeError(f"keep is {keep}; needed is the number of photos to keep features of, at least 1.")

    def make() -> Arrays:
        batches = _features(dataset, extractor, size, fit, batch_size, workers, device, progress)
        return _collect(batches, len(dataset), extractor.dim, keep)

    identity = dataset_key(dataset) if cache else None
    if identity is None:
        arrays = make()
    else:
        arrays = cached("real-statistics", files_key([], _VERSION, identity, size, fit, keep, extractor.key), make)
    sha256 = arrays["sha256"].tobytes().hex()
    return Statistics(torch.from_numpy(arrays["moments"]), torch.from_numpy(arrays["features"]), sha256)


def _features(
    dataset: Dataset,
    extractor: Extractor,
    size: Size,
    fit: Fit,
    batch_size: int,
    workers: int,
    device: torch.device | str | None,
    progress: bool,
) -> Iterator[tuple[Tensor, int]]:
    """Features of a batch, and the sum of its photos' SHA-256."""
    if device is not None:
        extractor.to(device)
    loader: Any = eval_loader(
        dataset,
        size=size,
        batch_size=batch_size,
        with_positions=False,
        instances=False,
        workers=workers,
        fit=fit,
        pin_memory=extractor.device.type == "cuda",
    )
    for batch in track(loader, "reading real photos", len(loader), quiet=not progress):
        if batch.image is None:
            raise DataError(
                f"'{batch.names[0]}' has no photo to compare with. Read the dataset with photos (labels_only=False)."
            )
        photos = ((batch.image + 1) * 127.5).round().byte().numpy()
        total = sum(int.from_bytes(hashlib.sha256(photo.tobytes()).digest(), "big") for photo in photos)
        yield extractor(batch.image.to(extractor.device, non_blocking=True)).cpu(), total


def _collect(batches: Iterator[tuple[Tensor, int]], count: int, dim: int, keep: int) -> Arrays:
    kept = torch.zeros(count, dtype=torch.bool)
    kept[np.linspace(0, count - 1, min(keep, count)).round().astype(np.int64)] = True
    moments, features, start, digest = no_moments(dim), [], 0, 0
    for batch, total in batches:
        add_to_moments(moments, batch)
        features.append(batch[kept[start : start + len(batch)]])
        start += len(batch)
        digest = (digest + total) % (1 << 256)
    sha256 = np.frombuffer(digest.to_bytes(32, "big"), np.uint8)
    return {"moments": moments.numpy(), "features": torch.cat(features).numpy(), "sha256": sha256}
