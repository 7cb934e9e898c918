"""Images as a published pipeline reads them from a file: 8 bits, RGB; and the inputs that it makes of them."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clade.errors import CladeError

Images = Tensor | np.ndarray
"""Floats (N, 3, H, W) in [-1, 1], as generated; or uint8 photos, (N, 3, H, W) or (N, H, W, 3). N may be left out."""


def as_pixels(images: Images) -> Tensor:
    """Images -> (N, 3, H, W) uint8, quantised as ``clade.io.images.to_uint8`` does for a file.

    Raises:
        CladeError: another shape, other numbers than floats or uint8, floats outside [-1, 1].
    """
    x = torch.as_tensor(images)
    if x.ndim == 3:
        x = x[None]
    if x.ndim == 4 and x.dtype == torch.uint8 and x.shape[1] != 3 and x.shape[3] == 3:
        x = x.movedim(3, 1)
    if x.ndim != 4 or x.shape[1] != 3 or not x.numel():
        raise CladeError(
            f"Images of shape {tuple(torch.as_tensor(images).shape)} came; a judge needs (N, 3, H, W) in [-1, 1], or "
            "uint8 photos, (N, 3, H, W) or (N, H, W, 3)."
        )
    if x.dtype == torch.uint8:
        return x
    if not x.is_floating_point():
        raise CladeError(f"Images of type {x.dtype} came; a judge needs floats in [-1, 1] or uint8.")
    low, high = (value.item() for value in x.detach().float().aminmax())
    if not (low >= -1.01 and high <= 1.01):  # also false for NaN
        raise CladeError(
            f"The images' values go from {low:.4g} to {high:.4g}; a judge needs floats in [-1, 1], or uint8."
        )
    return ((x.detach().float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def bilinear_pixels(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, 3, H, W) uint8 -> (N, 3, *size) uint8 by Pillow's bilinear filter, and so on the CPU."""
    if tuple(pixels.shape[-2:]) == tuple(size):
        return pixels
    height, width = size
    pictures = [
        np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR))
        for picture in np.ascontiguousarray(pixels.movedim(1, 3).cpu().numpy())
    ]
    return torch.from_numpy(np.stack(pictures)).movedim(3, 1)


def nearest(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(..., H, W) -> (..., *size), each pixel the one that Pillow's nearest filter takes."""
    for dim, length in zip((-2, -1), size, strict=True):
        if x.shape[dim] != length:
            # Pillow's own answer: it sums steps in floating point, so that a tie can fall to either side.
            places = Image.fromarray(np.arange(x.shape[dim], dtype=np.int32)[None])
            taken = np.array(places.resize((length, 1), Image.Resampling.NEAREST))[0]
            x = x.index_select(dim, torch.from_numpy(taken).to(x.device))
    return x


def normalized(pixels: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(pixels / 255 - mean) / std, per channel, float32."""
    x = pixels.float() / 255
    return (x - x.new_tensor(mean).view(3, 1, 1)) / x.new_tensor(std).view(3, 1, 1)
