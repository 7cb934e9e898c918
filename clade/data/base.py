"""What a dataset is, what it hands out, and the batch that a network is fed."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clade.errors import CladeError
from clade.labels.labelmap import LabelMap
from clade.labels.labelspace import LabelSpace
from clade.registry import Registry, near_match


@dataclass(frozen=True)
class Sample:
    """One picture with its labels. The arrays may be read-only.

    Args:
        name: what to call it in files and messages; unique in its dataset.
        image: photo, (H, W, 3) uint8; None where there is none to learn from or to compare with.
        ids: class of each pixel, (H, W) integers in ``[0, num_rows)`` of the dataset's label space.
        instances: object number of each pixel, (H, W) int32, or None.
    """

    name: str
    image: np.ndarray | None
    ids: np.ndarray
    instances: np.ndarray | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)"""
        height, width = self.ids.shape
        return height, width


class Dataset(ABC):
    """Pictures by index, always in the same order. A subclass also sets ``label_space``."""

    label_space: LabelSpace

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def name(self, index: int) -> str:
        """Name of a picture, without reading it."""

    @abstractmethod
    def read(self, index: int) -> Sample:
        """A picture as it is stored, neither resized nor augmented.

        Raises:
            CladeError: a file that cannot be used; the message names it.
        """

    def classes(self, index: int) -> np.ndarray:
        """The ids that occur in a picture, ascending; reads no more than it must.

        Raises:
            CladeError: as :meth:`read`.
        """
        return np.unique(self.read(index).ids)


DATASETS: Registry[Callable[..., Dataset]] = Registry("dataset")


def create_dataset(name: str, **options: Any) -> Dataset:
    """Build a registered dataset.

    Raises:
        CladeError: no such dataset, an option it does not have or one that it needs, or what the dataset itself finds.
    """
    builder = DATASETS[name]
    parameters = inspect.signature(builder).parameters
    for option in options:
        if option not in parameters:
            hint = near_match(option, parameters)
            raise CladeError(f"Dataset '{name}' has no option '{option}'.{hint} Known: {', '.join(parameters)}.")
    missing = [key for key, p in parameters.items() if p.default is p.empty and key not in options]
    if missing:
        raise CladeError(
            f"Dataset '{name}' needs the option '{missing[0]}', which did not come. Set data.{missing[0]}."
        )
    return builder(**options)


@dataclass(frozen=True)
class Batch:
    """What a network is fed in one step.

    Args:
        image: (N, 3, H, W) float32 in [-1, 1], or None where there are no photos.
        label_map: N maps of the same size.
        names: name of each picture.
    """

    image: Tensor | None
    label_map: LabelMap
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same batch on another device."""
        image = None if self.image is None else self.image.to(device, non_blocking=non_blocking)
        return replace(self, image=image, label_map=self.label_map.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """Page-locked copy; a DataLoader calls this."""
        image = None if self.image is None else self.image.pin_memory()
        return replace(self, image=image, label_map=self.label_map.pin_memory())
