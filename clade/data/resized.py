"""A dataset's pictures at one load size: what augmentation starts from, and what a prepared dataset stores."""

from __future__ import annotations

import numpy as np

from clade.data.base import Dataset, Sample
from clade.data.transforms import Fit, Size, plain_resize, resize
from clade.errors import RecipeError


class Resized(Dataset):
    """Every picture of a dataset, brought to the load size.

    Args:
        dataset: whose pictures.
        size: (height, width) to load at.
        fit: "stretch" makes every picture exactly ``size``; "crop" keeps its aspect ratio and makes it just cover
            ``size``, so that a later crop still chooses what is cut off.

    Raises:
        RecipeError: another ``fit``, or a size without pixels.
    """

    def __init__(self, dataset: Dataset, size: Size, fit: Fit = "stretch") -> None:
        if fit not in ("stretch", "crop"):
            raise RecipeError(f"fit is {fit!r}; it is 'stretch' or 'crop'.")
        if min(size) < 1:
            raise RecipeError(f"load_size is {size[0]} x {size[1]} (height x width); needed is at least 1 x 1.")
        self.dataset, self.size, self.fit = dataset, size, fit
        self.label_space = dataset.label_space

    def __len__(self) -> int:
        return len(self.dataset)

    def name(self, index: int) -> str:
        return self.dataset.name(index)

    def read(self, index: int) -> Sample:
        sample = self.dataset.read(index)
        if self.fit == "stretch":
            return plain_resize(sample, self.size)
        return resize(sample, covering(sample.size, self.size))

    def classes(self, index: int) -> np.ndarray:
        """Ids in the resized picture, as a prepared dataset keeps them: a small object may be gone."""
        return np.unique(self.read(index).ids)


def covering(have: Size, size: Size) -> Size:
    """The smallest size of the aspect ratio of ``have`` that has both sides of ``size`` or more."""
    if size[0] * have[1] >= size[1] * have[0]:  # the height decides
        return size[0], max(round(have[1] * size[0] / have[0]), size[1])
    return max(round(have[0] * size[1] / have[1]), size[0]), size[1]
