"""Where in its object a pixel lies: the positional encoding of CLADE-ICPE (section 3.4, equations 12-14)."""

from __future__ import annotations

import cc3d
import numpy as np
import torch

from clade.errors import LabelError

_EPSILON = 1e-5
# Above this share of runs per pixel a map is noise, and handling it pixel by pixel is faster (benchmarks/positions.py).
_MAX_RUN_SHARE = 0.125
_PIXELS_AT_A_TIME = 1 << 15  # small enough for the cache


def positions(ids: torch.Tensor | np.ndarray, skip_class: int | None = None) -> torch.Tensor:
    """Offset of every pixel from the centre of its object, in units of the object's largest offset.

    An object o is an 8-connected component of equal class, (cy, cx) the mean row and column of its pixels:

        d[n, 0, i, j] = (i - cy) / (max over o of |i' - cy| + 1e-5)
        d[n, 1, i, j] = (j - cx) / (max over o of |j' - cx| + 1e-5),   (i, j) in o

    A pixel that is an object of its own gets 0. Computed on the CPU, one map after the other, from the map as it is:
    give it the map that the generator sees, after all augmentation.

    Args:
        ids: class of each pixel, (N, H, W) or (H, W), any integer type and any values.
        skip_class: pixels of this class get 0. The published position maps skip class 0; see docs/parity.md.

    Returns:
        (y, x) offsets, each in [-1, 1], (N, 2, H, W) float32 on the device of ``ids``.

    Raises:
        LabelError: ``ids`` are not integers, have another shape, or are empty.
    """
    batch = ids.cpu().numpy() if isinstance(ids, torch.Tensor) else np.asarray(ids)
    _check(batch, ndims=(2, 3))
    batch = batch if batch.ndim == 3 else batch[None]
    count, height, width = batch.shape
    offsets = np.empty((count, 2, height, width), np.float32)
    for i in range(count):
        _write(batch[i], skip_class, offsets[i])
    result = torch.from_numpy(offsets)
    return result.to(ids.device) if isinstance(ids, torch.Tensor) else result


def positions_of(ids: np.ndarray, skip_class: int | None = None) -> np.ndarray:
    """:func:`positions` of one map without torch: (H, W) integers -> (2, H, W) float32."""
    ids = np.asarray(ids)
    _check(ids, ndims=(2,))
    offsets = np.empty((2, *ids.shape), np.float32)
    _write(ids, skip_class, offsets)
    return offsets


def _check(ids: np.ndarray, ndims: tuple[int, ...]) -> None:
    if ids.dtype.kind not in "iu":
        raise LabelError(
            f"A label map of type {ids.dtype} has no positions: classes must be integers. "
            "Convert it, for example with .long() on a tensor or .astype(np.uint8) on an array."
        )
    if ids.ndim not in ndims:
        needed = " or ".join({2: "(H, W)", 3: "(N, H, W)"}[n] for n in ndims)
        raise LabelError(
            f"A label map of shape {ids.shape} has no positions: {needed} is needed. "
            "Drop a channel axis with ids[:, 0]; take the argmax of a one-hot map."
        )
    if ids.size == 0:
        raise LabelError(
            f"A label map of shape {ids.shape} has no positions: it has no pixels. "
            "Give at least one map of at least one pixel; an empty crop or an empty batch is the usual cause."
        )


def _write(ids: np.ndarray, skip_class: int | None, out: np.ndarray) -> None:
    """Positions of one map into ``out``, (2, H, W)."""
    components = _components(ids, skip_class)
    starts = np.ones(components.shape, bool)  # where in a row another component begins
    np.not_equal(components[:, 1:], components[:, :-1], out=starts[:, 1:])
    if np.count_nonzero(starts) <= _MAX_RUN_SHARE * starts.size:
        _write_by_runs(components, np.flatnonzero(starts), out)
    else:
        _write_by_pixels(components, out)


def _components(ids: np.ndarray, skip_class: int | None) -> np.ndarray:
    """Number of the component of each pixel, from 1 on; 0 where the class is skipped."""
    # cc3d takes 0 for background: count classes from 1, in the smallest type that holds them. Unsigned numbers wrap
    # around, so that the shift is right for negative and for huge ids too.
    low, high = int(ids.min()), int(ids.max())
    if high - low < 2**63 - 1:  # cc3d fails on some maps with larger numbers
        kind = np.min_scalar_type(high - low + 1)
        classes = ids.astype(kind, order="C")
        classes -= kind.type((low - 1) % 2 ** (8 * kind.itemsize))
    else:
        classes = np.unique(ids, return_inverse=True)[1].reshape(ids.shape) + 1
    if skip_class is not None:
        classes *= ids != skip_class
    return cc3d.connected_components(classes, connectivity=8)


def _write_by_runs(components: np.ndarray, starts: np.ndarray, out: np.ndarray) -> None:
    """For maps with objects: sums and extents over horizontal runs, of which there are far fewer than pixels.

    Args:
        starts: flat index of the first pixel of every run; a run ends with its row.
    """
    height, width = components.shape
    length = np.diff(starts, append=components.size)
    row, first = np.divmod(starts, width)
    last = first + length - 1
    of = components.ravel()[starts].astype(np.intp)

    area = np.maximum(np.bincount(of, length), 1)
    cy = np.bincount(of, length * row) / area
    cx = np.bincount(of, length * (first + last)) / (2 * area)
    scale_y = _scale(cy, *_extent(of, row, row, len(area)))
    scale_x = _scale(cx, *_extent(of, first, last, len(area)))
    scale_y[0] = scale_x[0] = 0  # skipped pixels

    # Differences in float64: far from the corner, a float32 centre is too coarse for an object of a few pixels.
    y, x = out
    y[...] = np.repeat(((row - cy[of]) * scale_y[of]).astype(np.float32), length).reshape(height, width)
    np.subtract(np.arange(width), np.repeat(cx[of], length).reshape(height, width), out=x, casting="same_kind")
    x *= np.repeat(scale_x.astype(np.float32)[of], length).reshape(height, width)


def _write_by_pixels(components: np.ndarray, out: np.ndarray) -> None:
    """For noise, where a run is hardly longer than a pixel: bounded, however many components there are."""
    statistics = cc3d.statistics(components, no_slice_conversion=True)
    centres = np.ascontiguousarray(statistics["centroids"]).ravel()  # y, x, y, x, ...
    boxes = np.ascontiguousarray(statistics["bounding_boxes"]).ravel()  # first and last y, first and last x, ...
    scale = _scale(centres, boxes[::2], boxes[1::2]).view(complex)  # y + ix: one look-up for both
    centre = centres.view(complex)
    scale[0] = 0  # skipped pixels

    height, width = components.shape
    y, x = np.ogrid[:height, :width]
    step = max(1, _PIXELS_AT_A_TIME // width)
    for rows in (slice(top, top + step) for top in range(0, height, step)):
        of = components[rows].astype(np.intp)
        c, s = centre[of], scale[of]
        out[0, rows] = (y[rows] - np.real(c)) * np.real(s)
        out[1, rows] = (x - np.imag(c)) * np.imag(s)


def _extent(of: np.ndarray, first: np.ndarray, last: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Lowest ``first`` and highest ``last`` of the runs of each component."""
    low, high = np.full(count, np.iinfo(np.intp).max), np.zeros(count, np.intp)
    np.minimum.at(low, of, first)
    np.maximum.at(high, of, last)
    return low, high


def _scale(centre: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """1 / largest offset (equations 13 and 14): the pixel that is farthest from the centre lies on the bounding box."""
    largest = centre - low
    np.maximum(largest, high - centre, out=largest)
    largest += _EPSILON
    return np.divide(1, largest, out=largest)
