"""Some pictures of a dataset."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clade.data.base import Dataset, Sample


class Chosen(Dataset):
    """Some pictures of a dataset, by their indices there; the others are not read."""

    def __init__(self, dataset: Dataset, indices: Sequence[int]) -> None:
        self.dataset, self.indices, self.label_space = dataset, indices, dataset.label_space

    def __len__(self) -> int:
        return len(self.indices)

    def name(self, index: int) -> str:
        return self.dataset.name(self.indices[index])

    def read(self, index: int) -> Sample:
        return self.dataset.read(self.indices[index])

    def classes(self, index: int) -> np.ndarray:
        return self.dataset.classes(self.indices[index])
