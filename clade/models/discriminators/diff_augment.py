"""Differentiable augmentation of what the discriminator sees (Zhao et al. 2020, arXiv 2006.10738)."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from clade.errors import RecipeError
from clade.labels import LabelMap, LabelPyramid
from clade.registry import near_match

_NUMBERS = 7  # random numbers per picture: brightness, saturation, contrast, shift (y, x), hole (y, x)


class DiffAugment:
    """Random changes of one batch of images: the same for fake and real, differentiable.

    u are uniform random numbers in [0, 1), other ones for every picture. In the order of the policy:

        color        x + (u - 0.5),  then  2 u (x - m) + m with m the mean over channels at each pixel,
                     then  (u + 0.5) (x - m) + m  with m the mean of the picture
        translation  x moved by up to 1/8 of its height and width, zeros where nothing comes from
        cutout       zeros in a rectangle of half the height and width around a random point

    A conditional discriminator judges whether an image belongs to its labels. So the labels and the instances move
    along with a translation. Where nothing comes from they repeat their edge: any id there would do, for fake and real
    are the same zeros, and this one always exists, stays integer and draws no border.

    Args:
        policy: as :func:`parse_policy` gives it.
        numbers: u, (N, 7); :func:`augmentation_numbers`.
    """

    def __init__(self, policy: tuple[str, ...], numbers: np.ndarray) -> None:
        assert numbers.shape[1:] == (_NUMBERS,)
        self.policy = policy
        self._color, self._shift, self._hole = numbers[:, :3], numbers[:, 3:5], numbers[:, 5:]

    def images(self, x: Tensor) -> Tensor:
        """Images (N, 3, H, W) in about [-1, 1], changed. Computed in float32 or wider, returned in the type of x."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        for name in self.policy:
            wide = _CHANGES[name](self, wide)
        return wide.to(x.dtype)

    def labels(self, labels: LabelPyramid) -> LabelPyramid:
        """The labels of the changed images; itself where nothing is moved."""
        if "translation" not in self.policy:
            return labels
        height, width = labels.size
        offsets = torch.tensor(self._shifts(height, width), device=labels.label_map.device)
        rows = (torch.arange(height, device=offsets.device) + offsets[:, :1]).clamp_(0, height - 1)
        columns = (torch.arange(width, device=offsets.device) + offsets[:, 1:]).clamp_(0, width - 1)
        places = (torch.arange(len(offsets), device=offsets.device)[:, None, None], rows[:, :, None], columns[:, None])
        # A copy keeps the checked range of the ids, which no shift widens: nothing is read back from a GPU.
        moved: LabelMap = copy.copy(labels.label_map)
        moved.ids = moved.ids[places]
        moved.instances = None if moved.instances is None else moved.instances[places]
        moved.positions = None  # of the whole objects; no discriminator asks for them
        return LabelPyramid(moved, labels.num_rows)

    def visible(self, labels: LabelPyramid) -> Tensor | None:
        """True where a changed image shows something, not zeros of a translation or cutout: (N, 1, H, W).

        None where nothing is hidden. Colours that come later may change the zeros, but show nothing there.
        """
        moves = [name for name in self.policy if name != "color"]
        if not moves:
            return None
        x = torch.ones(len(self._hole), 1, *labels.size, device=labels.label_map.device)
        for name in moves:
            x = _CHANGES[name](self, x)
        return x > 0

    def _colored(self, x: Tensor) -> Tensor:
        brightness, saturation, contrast = torch.from_numpy(self._color).to(x).T[..., None, None, None]
        x = x + (brightness - 0.5)
        mean = x.mean(1, keepdim=True)
        x = (x - mean) * (2 * saturation) + mean
        mean = x.mean((1, 2, 3), keepdim=True)
        return (x - mean) * (contrast + 0.5) + mean

    def _moved(self, x: Tensor) -> Tensor:
        # Negative padding cuts off.
        shifts = self._shifts(x.shape[2], x.shape[3])
        return torch.stack([F.pad(image, (-b, b, -a, a)) for image, (a, b) in zip(x, shifts, strict=True)])

    def _cut(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        mask = x.new_ones(len(x), 1, height, width)
        for k, (u, v) in enumerate(self._hole):
            mask[k, 0, _hole(u, height), _hole(v, width)] = 0
        return x * mask

    def _shifts(self, height: int, width: int) -> list[tuple[int, int]]:
        """For each picture (a, b): the pixel (i, j) is taken from (i + a, j + b)."""
        most = np.array([height // 8, width // 8])
        drawn = np.floor(self._shift * (2 * most + 1)).astype(int) - most
        return [(int(a), int(b)) for a, b in drawn]


_CHANGES: dict[str, Callable[[DiffAugment, Tensor], Tensor]] = {
    "color": DiffAugment._colored,
    "translation": DiffAugment._moved,
    "cutout": DiffAugment._cut,
}


def _hole(u: float, length: int) -> slice:
    """Where a side is cut out: half of it, around any of its pixels (of its ends, where the half is even)."""
    size = length // 2
    first = int(u * (length + 1 - size % 2)) - size // 2
    return slice(max(first, 0), max(first + size, 0))


def parse_policy(text: str) -> tuple[str, ...]:
    """ "color,translation,cutout" -> its names, in their order; "" for none.

    Raises:
        RecipeError: a name that is not known, or comes twice.
    """
    names = tuple(name.strip() for name in text.split(",")) if text.strip() else ()
    for name in names:
        if name not in _CHANGES:
            raise RecipeError(
                f"discriminator.diff_augment is {text!r}: there is no {name!r}.{near_match(name, _CHANGES)} "
                f"Known: {', '.join(_CHANGES)}, separated by commas; '' for none."
            )
        if names.count(name) > 1:
            raise RecipeError(f"discriminator.diff_augment is {text!r}: {name!r} comes twice. Name it once.")
    return names


def augmentation_numbers(seed: int, batch_number: int, count: int, rank: int, world_size: int) -> np.ndarray:
    """The random numbers (count, 7) of one micro-batch and rank, from the training's seed and the batch's number alone.

    Drawn for all ranks together and cut, so that several processes draw what one would.
    """
    # The spawn key keeps this apart from the shuffling of the pictures, which has (0,).
    source = np.random.SeedSequence((seed, batch_number), spawn_key=(1,))
    numbers = np.random.default_rng(source).random((count * world_size, _NUMBERS))
    return numbers[rank * count : (rank + 1) * count]
