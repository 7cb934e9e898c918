"""Outlines -> pixels.

COCO's polygons and run lengths go through pycocotools, so that they cover the very pixels that COCO's own tools count.
Labelme's and YOLO's go through PIL.ImageDraw, as Labelme itself draws them: a pixel that the outline touches belongs to
the object.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from clade.errors import CladeError, DataError

Point = tuple[float, float]


def points_of(value: Any, width: int, height: int, source: str) -> list[Point]:
    """[[x, y], ...] with finite numbers not far outside the picture; raises DataError."""
    try:
        points = [(float(x), float(y)) for x, y in value]
    except (TypeError, ValueError) as error:
        raise DataError(f"{source}: points are pairs of numbers [[x, y], ...], got {str(value)[:80]}.") from error
    for x, y in points:
        if not (-width <= x <= 2 * width and -height <= y <= 2 * height):  # also NaN
            raise DataError(
                f"{source}: the point ({x}, {y}) lies far outside of the picture of {width} x {height} pixels. "
                "Was it made for another size?"
            )
    return points


def polygon(points: Sequence[Point], width: int, height: int) -> np.ndarray:
    """Inside and outline of a polygon, (H, W) bool."""
    return _drawn(width, height, lambda draw: draw.polygon(list(points), fill=1, outline=1))


def rectangle(points: Sequence[Point], width: int, height: int) -> np.ndarray:
    """From two opposite corners."""
    (x0, y0), (x1, y1) = points
    box = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
    return _drawn(width, height, lambda draw: draw.rectangle(box, fill=1, outline=1))


def circle(points: Sequence[Point], width: int, height: int) -> np.ndarray:
    """From its centre and a point on it."""
    (x, y), (rim_x, rim_y) = points
    radius = math.hypot(rim_x - x, rim_y - y)
    box = (x - radius, y - radius, x + radius, y + radius)
    return _drawn(width, height, lambda draw: draw.ellipse(box, fill=1, outline=1))


def _drawn(width: int, height: int, draw) -> np.ndarray:
    canvas = Image.new("L", (width, height))
    draw(ImageDraw.Draw(canvas))
    return np.asarray(canvas) > 0


def pycocotools_mask() -> Any:
    """The module pycocotools.mask; raises CladeError where it is not installed."""
    try:
        from pycocotools import mask
    except ImportError as error:
        raise CladeError("COCO annotations need pycocotools: `pip install pycocotools`.") from error
    return mask


def coco_rle(segmentation: Any, width: int, height: int, source: str) -> dict[str, Any]:
    """A COCO segmentation (polygons, plain or compressed run lengths) -> compressed run lengths.

    Raises:
        DataError: none of the three, or for another size of picture.
    """
    mask = pycocotools_mask()
    if isinstance(segmentation, list) and segmentation:
        polygons = [_flat(points, width, height, source) for points in segmentation]
        return mask.merge(mask.frPyObjects(polygons, height, width))
    if not isinstance(segmentation, dict) or "counts" not in segmentation:
        raise DataError(f"{source}: has no segmentation ({str(segmentation)[:60]}), only a box perhaps. Remove it.")
    if segmentation.get("size") != [height, width]:
        raise DataError(
            f"{source}: run lengths are for the size {segmentation.get('size')}, the picture's is [{height}, {width}]."
        )
    counts = segmentation["counts"]
    if isinstance(counts, list):
        if not all(isinstance(n, int) and n >= 0 for n in counts) or sum(counts) != height * width:
            raise DataError(f"{source}: run lengths must add up to {height} x {width}.")
        return mask.frPyObjects(segmentation, height, width)
    if not isinstance(counts, str) or sum(run_lengths(counts, source)) != height * width:
        raise DataError(f"{source}: the compressed run lengths do not add up to {height} x {width}. Damaged?")
    return {"size": [height, width], "counts": counts.encode()}


def run_lengths(counts: str, source: str) -> list[int]:
    """COCO's compressed run lengths -> numbers (rleFrString of maskApi.c); pycocotools does not check them itself."""
    runs: list[int] = []
    at = 0
    while at < len(counts):
        number, shift, more = 0, 0, True
        while more:
            code = ord(counts[at]) - 48 if at < len(counts) else -1
            if not 0 <= code < 64 or shift > 30:
                raise DataError(f"{source}: the compressed run lengths are damaged at character {at}.")
            number |= (code & 31) << shift
            more = bool(code & 32)
            at, shift = at + 1, shift + 5
            if not more and code & 16:
                number |= -1 << shift
        runs.append(number + (runs[-2] if len(runs) > 2 else 0))
        if runs[-1] < 0:
            raise DataError(f"{source}: a run length is negative. Is it damaged?")
    return runs


def _flat(points: Any, width: int, height: int, source: str) -> list[float]:
    if not isinstance(points, list) or len(points) < 6 or len(points) % 2:
        raise DataError(
            f"{source}: a polygon is a list [x1, y1, x2, y2, ...] of at least 3 points, got {points!s:.60}."
        )
    return [v for pair in points_of(zip(points[::2], points[1::2], strict=True), width, height, source) for v in pair]


def paint_largest_first(
    objects: Sequence[tuple[int, int, np.ndarray, int]], height: int, width: int, background: int
) -> tuple[np.ndarray, np.ndarray]:
    """Objects -> ids and object numbers (H, W), larger ones first, so that none hides a smaller one.

    Args:
        objects: (class, object number or 0, its pixels (H, W) bool, rank); lower ranks are painted first.
        background: id where no object lies.
    """
    ids, instances = np.full((height, width), background, np.int32), np.zeros((height, width), np.int32)
    for row, number, pixels, _ in sorted(objects, key=lambda o: (o[3], -int(np.count_nonzero(o[2])))):
        ids[pixels] = row
        instances[pixels] = number
    return ids, instances
