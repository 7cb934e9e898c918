"""Resizing, cropping, mirroring: always the photo, its labels and its instances together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageEnhance

from clade.data.base import Batch, Sample
from clade.errors import DataError, RecipeError
from clade.labels.labelmap import LabelMap

Size = tuple[int, int]
"""(height, width)"""
Box = tuple[float, float, float, float]
"""(top, left, bottom, right) of a part of a picture, in its pixels; need not be whole."""
Fit = Literal["stretch", "crop"]
"""How a picture of another shape is made to fit: "stretch" changes its aspect ratio, "crop" cuts off the rest."""


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Random zoom, crop, mirroring and colour change of a training picture.

    One resampling does the work of the usual two steps (resize a little too large, cut out the size at random), which
    leaves the photo sharper. The photo is resampled bicubically with antialiasing. A label is taken from the nearest
    pixel of the same grid, so that an edge in the labels stays on the edge in the photo.
    """

    flip: bool = True
    """Mirror every other picture, left to right."""
    max_zoom: float = 1.117
    """The picture is enlarged by a factor between 1 and this before the crop; the published code takes 286 / 256."""
    crop: Literal["zoom", "pixels"] = "zoom"
    """ "pixels" cuts out the size pixel for pixel, from pictures that are larger (a load size of 286 for 256, as the
    published code does); there is no zoom then."""
    jitter: float = 0.0
    """Brightness, contrast and saturation are each multiplied by a factor in [1 - jitter, 1 + jitter]."""
    fit: Fit = "stretch"
    """ "stretch" changes the aspect ratio, as the published code and :func:`plain_resize` do; "crop" keeps it and cuts
    out a random part."""

    def __post_init__(self) -> None:
        if not 1 <= self.max_zoom < float("inf"):
            raise RecipeError(f"max_zoom is {self.max_zoom}; needed is a factor of at least 1, where 1 means no zoom.")
        if not 0 <= self.jitter < 1:
            raise RecipeError(f"jitter is {self.jitter}; needed is a share in [0, 1), where 0 means no colour change.")
        if self.crop not in ("zoom", "pixels"):
            raise RecipeError(f"crop is {self.crop!r}; it is 'zoom' or 'pixels'.")
        _require_fit(self.fit)

    def __call__(self, sample: Sample, size: Size, rng: np.random.Generator) -> Sample:
        """The picture at ``size``; the same generator state gives the same picture."""
        out = self._pixels(sample, size, rng) if self.crop == "pixels" else self._zoomed(sample, size, rng)
        return color_jitter(out, self.jitter, rng) if self.jitter else out

    def _pixels(self, sample: Sample, size: Size, rng: np.random.Generator) -> Sample:
        out = random_crop(sample, size, rng)
        return flip(out) if self.flip and rng.random() < 0.5 else out

    def _zoomed(self, sample: Sample, size: Size, rng: np.random.Generator) -> Sample:
        height, width = _fitting(sample.size, size, self.fit)
        zoom = rng.uniform(1, self.max_zoom)
        height, width = height / zoom, width / zoom
        top = rng.uniform(0, sample.size[0] - height)
        left = rng.uniform(0, sample.size[1] - width)
        mirror = bool(self.flip and rng.random() < 0.5)
        return resize(sample, size, (top, left, top + height, left + width), mirror)


def plain_resize(sample: Sample, size: Size, fit: Fit = "stretch") -> Sample:
    """For validation: the whole picture at ``size``, or with "crop" the largest part from its middle."""
    _require_fit(fit)
    height, width = _fitting(sample.size, size, fit)
    top, left = (sample.size[0] - height) / 2, (sample.size[1] - width) / 2
    return resize(sample, size, (top, left, top + height, left + width))


def resize(sample: Sample, size: Size, box: Box | None = None, mirror: bool = False) -> Sample:
    """The picture, or the part of it in ``box``, resampled to ``size``; with ``mirror`` what :func:`flip` makes of it.

    Output pixel i lies at ``top + (i + 0.5) * (bottom - top) / height`` of the source. The photo is filtered there
    (bicubic, antialiased), labels and instances are those of the source pixel that holds the point.

    Raises:
        DataError: a size without pixels.
    """
    height, width = _positive(size)
    box = box or (0.0, 0.0, *sample.size)
    if box == (0, 0, height, width) == (0, 0, *sample.size):
        return flip(sample) if mirror else sample
    top, left = max(box[0], 0), max(box[1], 0)
    bottom, right = min(box[2], sample.size[0]), min(box[3], sample.size[1])  # sums of floats may end a hair outside
    rows, columns = _sources(top, bottom, height, sample.size[0]), _sources(left, right, width, sample.size[1])
    columns = columns[::-1] if mirror else columns

    def take(part: np.ndarray | None) -> np.ndarray | None:
        return None if part is None else part.take(rows, axis=0).take(columns, axis=1)

    image = sample.image
    if image is not None:
        photo = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC, box=(left, top, right, bottom))
        # Ten times faster than reversing the columns of an array, which the batch would have to copy in reverse.
        image = np.asarray(photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirror else photo)
    ids = sample.ids.take(rows, axis=0).take(columns, axis=1)
    return replace(sample, image=image, ids=ids, instances=take(sample.instances))


def random_crop(sample: Sample, size: Size, rng: np.random.Generator) -> Sample:
    """A part of ``size`` from a random place, pixel for pixel.

    Raises:
        DataError: the picture is smaller than ``size``.
    """
    height, width = _positive(size)
    if height > sample.size[0] or width > sample.size[1]:
        raise DataError(
            f"{sample.name} is {sample.size[0]} x {sample.size[1]} (height x width), so {height} x {width} cannot be "
            "cut out of it. Resize it first, or crop less."
        )
    top = int(rng.integers(sample.size[0] - height + 1))
    left = int(rng.integers(sample.size[1] - width + 1))
    return _map(sample, lambda part: part[top : top + height, left : left + width])


def flip(sample: Sample) -> Sample:
    """The mirror image, left to right."""
    return _map(sample, lambda part: part[:, ::-1])


def color_jitter(sample: Sample, strength: float, rng: np.random.Generator) -> Sample:
    """Brightness, contrast and saturation of the photo, each times a factor in [1 - strength, 1 + strength]."""
    factors = rng.uniform(1 - strength, 1 + strength, 3)
    if sample.image is None:
        return sample
    photo = Image.fromarray(np.ascontiguousarray(sample.image))
    for enhance, factor in zip(
        (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), factors, strict=True
    ):
        photo = enhance(photo).enhance(float(factor))
    return replace(sample, image=np.asarray(photo))


def to_batch(samples: Sequence[Sample], with_positions: bool, instances: bool, skip_class: int | None = None) -> Batch:
    """Samples of one size -> tensors.

    Args:
        with_positions: compute the ICPE positions here, from the labels as they are after augmentation.
        skip_class: see :func:`clade.positions`.
        instances: hand on the instance maps. Where a sample has none, the batch has none, and a model that wants object
            borders takes the class borders.

    Raises:
        DataError: no sample, or sizes that differ.
    """
    sizes = sorted({sample.size for sample in samples})
    if len(sizes) != 1:
        raise DataError(f"A batch needs samples of one size, got {sizes or 'none'}. Resize them, or use batch_size 1.")
    ids = torch.from_numpy(np.stack([sample.ids for sample in samples]))
    label_map = LabelMap(ids, _stack([sample.instances if instances else None for sample in samples]))
    if with_positions:
        label_map = label_map.with_positions(skip_class)
    photos = _stack([sample.image for sample in samples])
    image = None
    if photos is not None:
        image = photos.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        image = image.div_(127.5).sub_(1)  # [0, 255] -> [-1, 1]
    return Batch(image, label_map, tuple(sample.name for sample in samples))


def _stack(parts: Sequence[np.ndarray | None]) -> torch.Tensor | None:
    there = [part for part in parts if part is not None]
    return torch.from_numpy(np.stack(there)) if len(there) == len(parts) else None


def _map(sample: Sample, change: Callable[[np.ndarray], np.ndarray]) -> Sample:
    image, instances = (None if part is None else change(part) for part in (sample.image, sample.instances))
    return replace(sample, image=image, ids=change(sample.ids), instances=instances)


def _fitting(have: Size, size: Size, fit: Fit) -> tuple[float, float]:
    """(height, width) of the largest part of a picture that is resized to ``size``."""
    height, width = _positive(size)
    if fit == "stretch":
        return have
    scale = max(height / have[0], width / have[1])
    return min(height / scale, have[0]), min(width / scale, have[1])


def _sources(start: float, stop: float, count: int, length: int) -> np.ndarray:
    """The source pixel below the centre of each of ``count`` output pixels that divide [start, stop)."""
    centres = start + (np.arange(count) * 2 + 1) * (stop - start) / (2 * count)
    return np.minimum(centres.astype(np.intp), length - 1)


def _positive(size: Size) -> Size:
    height, width = size
    if height < 1 or width < 1:
        raise DataError(f"A picture of {height} x {width} (height x width) has no pixels; needed is at least 1 x 1.")
    return height, width


def _require_fit(fit: str) -> None:
    if fit not in ("stretch", "crop"):
        raise RecipeError(f"fit is {fit!r}; it is 'stretch' or 'crop'.")
