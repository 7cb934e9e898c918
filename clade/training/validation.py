"""What a training looks at now and then: the error on validation pictures, and a sheet of samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from clade.data import Batch, Dataset, Sample
from clade.images import sheet, to_uint8
from clade.labels import LabelSpace
from clade.models import Generator

Draw = Callable[[Batch], Tensor]


@torch.no_grad()
def draw_mean(generator: Generator, batch: Batch, seed: int = 0) -> Tensor:
    """Images (N, 3, H, W) float32 of a batch.

    A latent generator draws the mean of the prior, SEAN the style of the photo; what else is random follows the seed.
    """
    assert batch.image is not None
    z = generator.validation_latent(batch.label_map, batch.image)
    if not generator.stochastic:
        return generator(batch.label_map, z=z).float()
    # One by one, so that a picture does not depend on the others in its batch.
    images = []
    for k in range(len(batch)):
        torch.manual_seed(seed)
        images.append(generator(batch.label_map[k : k + 1], z=None if z is None else z[k : k + 1]))
    return torch.cat(images).float()


def absolute_error(draw: Draw, batches: Iterable[Batch]) -> Tensor:
    """Mean absolute differences of drawn images to photos, both in [-1, 1]: (their sum over pictures, their number)."""
    total = torch.zeros(2, dtype=torch.float64)
    for batch in batches:
        assert batch.image is not None
        error = (draw(batch) - batch.image).abs().mean((1, 2, 3)).double()
        total += torch.stack([error.sum().cpu(), torch.tensor(len(batch), dtype=torch.float64)])
    return total


def sample_sheet(draw: Draw, batches: Iterable[Batch], space: LabelSpace) -> np.ndarray | None:
    """Rows of label, drawn image and photo: (H, W, 3) uint8; None without batches."""
    rows = []
    for batch in batches:
        assert batch.image is not None
        labels = space.colorize(batch.label_map.ids.cpu().numpy())
        for row in zip(labels, to_uint8(draw(batch)), to_uint8(batch.image), strict=True):
            rows.append(row)
    return sheet(rows) if rows else None


def spread(dataset: Dataset, count: int) -> Dataset:
    """At most ``count`` pictures, evenly spread over a dataset."""
    count = min(count, len(dataset))
    return _Chosen(dataset, [k * len(dataset) // count for k in range(count)])


class _Chosen(Dataset):
    def __init__(self, dataset: Dataset, indices: list[int]) -> None:
        self.dataset, self.indices, self.label_space = dataset, indices, dataset.label_space

    def __len__(self) -> int:
        return len(self.indices)

    def name(self, index: int) -> str:
        return self.dataset.name(self.indices[index])

    def read(self, index: int) -> Sample:
        return self.dataset.read(self.indices[index])
