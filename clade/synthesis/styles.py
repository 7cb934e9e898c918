"""Style photos in any form -> what a generator encodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clade.data import read_photo
from clade.data.datasets.folder import IMAGES, LABELS
from clade.data.files import LABEL_SUFFIXES
from clade.errors import CladeError
from clade.labels import LabelMap

FORMS = "a path, a PIL image, an (h, w, 3) uint8 array, or a float (3, h, w) tensor in [-1, 1]"


@dataclass(frozen=True)
class StylePhoto:
    """A photo whose style is wanted.

    Args:
        image: (N, 3, h, w) float32 in [-1, 1].
        label_map: what is where in it, of the same size; None where nobody said.
        name: its file, for messages.
    """

    image: Tensor
    label_map: LabelMap | None
    name: str = ""

    def filled_with(self, class_id: int) -> StylePhoto:
        """The photo as if all of it were one class, where its labels are not known."""
        if self.label_map is not None:
            return self
        shape = (len(self.image), *self.image.shape[-2:])
        return StylePhoto(self.image, LabelMap(torch.full(shape, class_id, dtype=torch.int32)), self.name)


def read_style(style: Any, read_labels: Callable[[Any], LabelMap], *, labels_needed: bool) -> StylePhoto:
    """A photo in any form, or a pair (photo, its label map), -> a StylePhoto; which itself is left as it is.

    Args:
        style: a path, a PIL image, an (h, w, 3) uint8 array, a float (3, h, w) or (N, 3, h, w) tensor in [-1, 1]; or
            (one of these, a label map in any form that ``read_labels`` takes).
        read_labels: any form of label map -> LabelMap.
        labels_needed: look for the label file of a photo in images/, beside it in labels/.

    Raises:
        CladeError: none of these forms.
    """
    if isinstance(style, StylePhoto):
        return style
    labels = None
    if isinstance(style, tuple) and len(style) == 2:
        style, labels = style
    elif labels_needed and isinstance(style, (str, Path)):
        labels = labels_beside(Path(style))
    image = _photo(style)
    label_map = None if labels is None else read_labels(labels)
    name = str(style) if isinstance(style, (str, Path)) else ""
    if label_map is not None and (len(label_map), *label_map.size) != (len(image), *image.shape[2:]):
        raise CladeError(
            f"The label map of the style photo {name} is {_size(len(label_map), label_map.size)}, the photo is "
            f"{_size(len(image), tuple(image.shape[2:]))} (height x width). Give the label map of this very photo."
        )
    return StylePhoto(image, label_map, name)


def labels_beside(photo: Path) -> Path | None:
    """``images/x.jpg`` -> ``labels/x.png`` where that is there."""
    images = next((parent for parent in photo.parents if parent.name == IMAGES), None)
    if images is None:
        return None
    stem = images.with_name(LABELS) / photo.relative_to(images)
    candidates = (stem.with_suffix(suffix) for suffix in sorted(LABEL_SUFFIXES))
    return next((path for path in candidates if path.is_file()), None)


def _size(count: int, size: tuple[int, ...]) -> str:
    return (f"{count} of " if count > 1 else "") + f"{size[0]}x{size[1]}"


def _photo(style: Any) -> Tensor:
    if isinstance(style, (str, Path)):
        style = read_photo(style)
    if isinstance(style, Image.Image):
        style = np.asarray(style.convert("RGB"))
    if isinstance(style, np.ndarray):
        if style.dtype != np.uint8 or style.ndim != 3 or style.shape[2] != 3:
            raise CladeError(f"A style array is (h, w, 3) uint8, got {style.shape} {style.dtype}.")
        style = torch.from_numpy(style.copy()).movedim(2, 0).float() / 127.5 - 1
    is_photo = isinstance(style, Tensor) and style.ndim in (3, 4) and style.shape[-3] == 3
    if not is_photo or not style.is_floating_point():
        raise CladeError(f"A style is {FORMS}; or one of these and its label map, as a pair.")
    return (style if style.ndim == 4 else style[None]).float()
