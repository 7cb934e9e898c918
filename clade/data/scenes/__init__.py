"""Drawn street and landscape scenes with labels: the built-in data, made on the fly and free of any licence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clade.data.scenes import objects
from clade.data.scenes.places import landscape, street
from clade.errors import CladeError

NAMES: tuple[str, ...] = (
    "sky",
    "cloud",
    "mountain",
    "tree",
    "grass",
    "water",
    "road",
    "pavement",
    "building",
    "window",
    "car",
    "person",
)
"""Class names; the place in the tuple is the class id."""

COLORS: tuple[tuple[int, int, int], ...] = (
    (70, 130, 180),
    (200, 220, 245),
    (140, 120, 150),
    (34, 110, 34),
    (140, 220, 120),
    (30, 70, 200),
    (128, 64, 128),
    (244, 35, 232),
    (90, 80, 80),
    (250, 200, 60),
    (0, 0, 142),
    (220, 20, 60),
)
"""A colour per class to show label maps in."""

UNKNOWN = objects.UNKNOWN
"""Raw id of pixels without a label."""

UNKNOWN_COLOR = (0, 0, 0)

SMALLEST = 16

# How far a pixel strays from its drawn colour, per class; the last entry is for unlabelled pixels.
_TEXTURE = np.array((2, 2.5, 5, 9, 9, 4, 5, 4, 4, 4, 3, 4, 4), dtype=np.float32)


@dataclass(frozen=True)
class Scene:
    """A picture with its labels.

    Attributes:
        image: (H, W, 3) uint8.
        ids: class of each pixel, (H, W) uint8, 0..11 or ``UNKNOWN``.
        instances: (H, W) int32. Each tree, building, window, car and person has its own number > 0; all else is 0.
    """

    image: np.ndarray
    ids: np.ndarray
    instances: np.ndarray


def draw_scene(index: int, *, seed: int = 0, height: int = 128, width: int = 128) -> Scene:
    """Scene ``index`` of the endless series ``seed``: about half streets, half landscapes.

    The same (seed, index) gives the same scene at every size, stretched to fit; only the fine texture differs.

    Args:
        index: which scene, >= 0.
        seed: which series, >= 0.
        height, width: size in pixels, each at least 16.

    Raises:
        CladeError: a size below 16, a negative index or seed, or any of them not a whole number.
    """
    _check_whole("index", index, 0)
    _check_whole("seed", seed, 0)
    _check_whole("height", height, SMALLEST)
    _check_whole("width", width, SMALLEST)
    dice = objects.Dice(seed, index)
    draw = street if dice.chance(0.5) else landscape
    canvas = objects.Canvas(height, width, dice)
    draw(canvas, dice)
    return Scene(_finish(canvas, dice), canvas.ids, canvas.instances)


def _check_whole(name: str, value: int, smallest: int) -> None:
    if not isinstance(value, (int, np.integer)) or value < smallest:
        raise CladeError(
            f"Cannot draw a scene with {name} {value!r}. It must be a whole number, {smallest} or more; set {name} so."
        )


def _finish(canvas: objects.Canvas, dice: objects.Dice) -> np.ndarray:
    """Add the fine texture and round to (H, W, 3) uint8."""
    # Last of all, because the count of random numbers depends on the size.
    strength = _TEXTURE[np.minimum(canvas.ids, len(NAMES))]
    canvas.image += dice.field(canvas.height, canvas.width) * strength
    return np.clip(np.rint(canvas.image), 0, 255).astype(np.uint8).transpose(1, 2, 0).copy()
