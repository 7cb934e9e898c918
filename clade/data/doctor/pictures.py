"""Small pictures of a dataset for the doctor's page."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from clade.data.doctor.splits import SplitReport
from clade.errors import CladeError
from clade.labels.files import open_image
from clade.labels.labelspace import LabelSpace, distinct_colors

SIDE = 220
"""Longer side of a picture, in pixels."""
ALARM = (255, 0, 200)
"""Colour of pixels whose id is outside the label space."""

_MISSING = (128, 128, 128)


def photo(split: SplitReport, name: str) -> np.ndarray | None:
    """(h, w, 3) uint8, small; None where there is none that can be read."""
    images = split.files.images
    if images is None or name not in images:
        return None
    pixels = _try(lambda: split.files.photo(name))
    return None if pixels is None else _small(pixels, Image.Resampling.BOX)


def label(split: SplitReport, name: str, space: LabelSpace | None) -> np.ndarray | None:
    """The label map in the colours of its classes, (h, w, 3) uint8, small; ids outside the space in ``ALARM``."""
    numbers = _try(lambda: split.files.numbers(name))
    if numbers is None:  # perhaps a colour picture, which shows itself
        colors = _try(lambda: np.asarray(open_image(split.files.labels[name]).convert("RGB")))
        return None if colors is None else _small(colors, Image.Resampling.NEAREST)
    values = np.unique(numbers)
    if space is None:
        table = np.array(distinct_colors(len(values)), np.uint8)
    else:
        outside = space.unmapped(values)
        table = np.array(
            [ALARM if n in outside else space.colorize(space.encode(np.array(n))) for n in values.tolist()]
        )
    small = _small(numbers.astype(np.int32), Image.Resampling.NEAREST)
    return table.astype(np.uint8)[np.searchsorted(values, small)]


def overlay(below: np.ndarray | None, labels: np.ndarray | None, alarm: bool = False) -> np.ndarray:
    """Labels over the photo, half of each; with ``alarm`` only pixels of that colour, over a grey photo."""
    if labels is None:
        return below if below is not None else np.full((SIDE // 2, SIDE, 3), _MISSING, np.uint8)
    if below is None:
        return labels
    if below.shape != labels.shape:
        below = np.asarray(Image.fromarray(below).resize((labels.shape[1], labels.shape[0]), Image.Resampling.BOX))
    if not alarm:
        return ((below.astype(np.uint16) + labels) // 2).astype(np.uint8)
    grey = np.repeat(below.mean(axis=-1, keepdims=True), 3, axis=-1) * 0.6 + labels * 0.2 + 30
    wrong = (labels == ALARM).all(axis=-1, keepdims=True)
    return np.where(wrong, ALARM, grey).clip(0, 255).astype(np.uint8)


def data_uri(pixels: np.ndarray) -> str:
    """(h, w, 3) uint8 -> the text of a JPEG, or of a PNG where that is smaller."""
    texts = []
    for kind, options in (("jpeg", {"quality": 80}), ("png", {"optimize": True})):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, kind, **options)
        texts.append(f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode('ascii')}")
    return min(texts, key=len)


def _try(read: Callable[[], np.ndarray | None]) -> np.ndarray | None:
    try:
        return read()
    except CladeError:  # the page says in words what is wrong with it
        return None


def _small(pixels: np.ndarray, resample: Image.Resampling) -> np.ndarray:
    scale = min(1.0, SIDE / max(pixels.shape[:2]))
    size = max(round(pixels.shape[1] * scale), 1), max(round(pixels.shape[0] * scale), 1)
    return np.asarray(Image.fromarray(pixels).resize(size, resample))
