"""Images between networks, files and eyes."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clade.io.atomic import atomic_path


def to_uint8(image: Tensor) -> np.ndarray:
    """(N, 3, H, W) or (3, H, W) in [-1, 1] -> (..., H, W, 3) uint8."""
    scaled = ((image.detach().float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return scaled.movedim(-3, -1).cpu().numpy()


def save_png(pixels: np.ndarray, path: str | Path) -> None:
    """(H, W, 3) uint8 -> a PNG file, all or nothing."""
    with atomic_path(path) as temporary:
        # Looking for runs only is 3 to 5 times as fast as zlib's default; files are 0 to 9 % larger.
        Image.fromarray(pixels).save(temporary, format="PNG", compress_type=zlib.Z_RLE)


def sheet(rows: Sequence[Sequence[np.ndarray]], gap: int = 4) -> np.ndarray:
    """Pictures in a grid on white: each (H, W, 3) uint8, placed at the top left of its cell."""
    columns = max(len(row) for row in rows)
    heights = [max(picture.shape[0] for picture in row) for row in rows]
    widths = [max(row[k].shape[1] for row in rows if k < len(row)) for k in range(columns)]
    page = np.full((sum(heights) + gap * (len(rows) + 1), sum(widths) + gap * (columns + 1), 3), 255, np.uint8)
    top = gap
    for row, height in zip(rows, heights, strict=True):
        left = gap
        for picture, width in zip(row, widths, strict=False):
            page[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
            left += width + gap
        top += height + gap
    return page
