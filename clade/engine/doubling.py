"""Doubled pictures whose 2x2 pixels are mostly alike."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

MOST_OTHERS = 0.25  # of the pixels; with more of them it takes longer than all pixels one by one


@dataclass(frozen=True)
class Doubling:
    """Where a doubled picture has one row of a table for 2x2 pixels, and where it has several.

    What is looked up for nearest-upsampled features is then the same for the 2x2 pixels, and is computed once for them;
    the pixels whose row is not that of the first of their 2x2, the others, are computed apart.

    Args:
        index: row of each pixel, (N, 2 h, 2 w) int32.
        first: row of the first pixel of each 2x2, (N, h, w) int32.
        others: flat numbers in ``index`` of the pixels that differ from it, (m,) int64.
        parents: flat number in ``first`` of each of these, (m,) int32.
        parts: which of ``first`` each pixel is, flat, or N h w + k for the k-th other, (4 N h w,) int32.
    """

    index: Tensor
    first: Tensor
    others: Tensor
    parents: Tensor
    parts: Tensor

    @classmethod
    def of(cls, index: Tensor) -> Doubling | None:
        """None where more than :data:`MOST_OTHERS` of the pixels differ."""
        n, height, width = index.shape
        first = index[:, ::2, ::2].contiguous()
        differ = index.view(n, height // 2, 2, width // 2, 2) != first[:, :, None, :, None]
        others = differ.flatten().nonzero().flatten()
        if len(others) > MOST_OTHERS * index.numel():
            return None
        own = torch.arange(first.numel(), dtype=torch.int32, device=index.device).view(first.shape)
        # Flattened without a copy where a single pixel becomes 2x2: all four would be one place in memory.
        parts = own[:, :, None, :, None].expand(differ.shape).flatten().contiguous()
        parents = parts[others]
        parts[others] = torch.arange(own.numel(), own.numel() + len(others), dtype=torch.int32, device=index.device)
        return cls(index, first, others, parents, parts)

    @property
    def rows(self) -> Tensor:
        """Row of each of the others, (m,) int32."""
        return self.index.flatten()[self.others]

    @cached_property
    def reached(self) -> tuple[Tensor, Tensor]:
        """What a 3x3 convolution adds for the others: the pixels that have some beside them, and which.

        Returns:
            flat numbers of these pixels (a,) int64; for each, 9 k + t of the others k at its nine places t, m for
            none, (a, 9) int32.
        """
        n, height, width = self.index.shape
        none = len(self.others)
        numbers = (self.parts.view(n, height, width) - self.first.numel()).masked_fill_(
            (self.parts < self.first.numel()).view(n, height, width), none
        )
        padded = F.pad(numbers, [1, 1, 1, 1], value=none)
        near = padded < none
        near = near[:, :-2] | near[:, 1:-1] | near[:, 2:]
        near = near[:, :, :-2] | near[:, :, 1:-1] | near[:, :, 2:]
        pixels = near.flatten().nonzero().flatten()
        row = torch.div(pixels, width, rounding_mode="floor")  # of all pictures together
        corner = (row + 2 * torch.div(row, height, rounding_mode="floor")) * (width + 2) + pixels % width
        places = torch.tensor([i * (width + 2) + j for i in range(3) for j in range(3)], device=pixels.device)
        taps = torch.arange(9, dtype=torch.int32, device=pixels.device)
        return pixels, padded.flatten()[corner[:, None] + places] * 9 + taps
