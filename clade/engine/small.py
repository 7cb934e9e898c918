"""What comes between an upsampling and a block's second layer, computed before the upsampling."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clade.engine.doubling import Doubling
from clade.engine.kernels import Lookup, look_up_parts, picture_of, pixels_of, scale_parts, spread

_SIDE = 16  # of the pictures as which rows are convolved: for others oneDNN chooses another order of the weights


class SmallFirst(nn.Module):
    """A block's first convolution and its shortcut's, computed on the features before the upsampling.

    The modulation is one for 2x2 pixels of one row of the table, and so is all that follows from it. With positions it
    varies from pixel to pixel, and an activation follows before the first convolution, which is left to the block then;
    the shortcut has none, and its 1x1 convolution W leaves the factors of a pixel where they are:

        W (f A[k] (x - mean) + g s[k]) = f W A[k] (x - mean) + g W s[k]

    Args:
        conv: the first convolution, 3x3; None to leave it to the block.
        shortcut: the shortcut's, 1x1 without bias.
    """

    def __init__(self, conv: nn.Conv2d | None, shortcut: nn.Conv2d) -> None:
        super().__init__()
        self.conv = None if conv is None else UpsampledConv2d(conv)
        self.projection = nn.Conv2d(shortcut.in_channels, shortcut.out_channels, 1, bias=False)
        self.projection.weight = shortcut.weight
        vars(self.projection)["packed_for"] = (1, _SIDE, _SIDE)

    def shortcut(self, x: Tensor, lookup: Lookup, doubling: Doubling) -> Tensor:
        """Features (N, C_in, h, w) -> what the shortcut gives, (N, C_out, 2 h, 2 w)."""
        factors = lookup.factors
        if factors is None:
            computed = self._projected(look_up_parts(x, doubling, lookup, None))
            return picture_of(torch.index_select(computed, 0, doubling.parts), doubling.index)
        parts = scale_parts(x, doubling, lookup)
        projected = self._projected(torch.cat([parts, lookup.shift]).to(x.dtype)).float()
        computed, table = projected.split([len(parts), len(lookup.shift)])
        return spread(doubling, computed, table, factors, None, x.dtype)

    def _projected(self, rows: Tensor) -> Tensor:
        """(R, C_in) -> (R, C_out)"""
        whole = F.pad(rows, [0, 0, 0, -len(rows) % _SIDE**2])
        pictures = whole.view(-1, _SIDE, _SIDE, rows.shape[1]).permute(0, 3, 1, 2)
        return pixels_of(self.projection(pictures))[: len(rows)]


class UpsampledConv2d(nn.Module):
    """A 3x3 convolution of nearest-upsampled features, on the small ones: 4/9 of the multiply-adds.

    Two of the three rows of its kernel w, and two of its columns, fall on the same small pixel, so that each of the 2x2
    pixels of a small one is a 2x2 convolution. In one dimension,

        (w * up(x))[2 i] = w_0 x[i - 1] + (w_1 + w_2) x[i],   (w * up(x))[2 i + 1] = (w_0 + w_1) x[i] + w_2 x[i + 1]

    It is linear: pixels that are not those of their small pixel (:class:`Doubling`) add w * (y - up(x)), which is
    computed for these alone.

    Args:
        conv: 3x3, of stride 1, zero-padded by 1.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.in_channels, self.out_channels = conv.in_channels, conv.out_channels
        weight = conv.weight.detach()
        self.phases = nn.Conv2d(self.in_channels, 4 * self.out_channels, 2, padding=1, bias=conv.bias is not None)
        kernels = [columns for rows in _folded(weight, 2) for columns in _folded(rows, 3)]
        self.phases.weight = nn.Parameter(torch.cat(kernels), requires_grad=False)
        if conv.bias is not None:
            assert self.phases.bias is not None
            self.phases.bias = nn.Parameter(conv.bias.detach().repeat(4), requires_grad=False)
        # 9 k + t: what an other at place t of a pixel's nine adds to it.
        self.taps = nn.Linear(self.in_channels, 9 * self.out_channels, bias=False)
        rows = weight.permute(2, 3, 0, 1).reshape(9 * self.out_channels, self.in_channels)
        self.taps.weight = nn.Parameter(rows.contiguous(), requires_grad=False)

    def forward(self, x: Tensor, doubling: Doubling) -> tuple[Tensor, Tensor]:
        """The small pixels and the others, (N h w + m, C_in) -> rows (R, C_out), and which each pixel is, (4 N h w,)"""
        small, others = x.split([doubling.first.numel(), len(doubling.others)])
        rows = pixels_of(self.phases(picture_of(small, doubling.first))).view(-1, self.out_channels)
        at = _phase_rows(*doubling.first.shape, str(x.device))
        if len(others):
            pixels, which = doubling.reached
            difference = others - torch.index_select(small, 0, doubling.parents)
            table = self.taps(difference).view(-1, self.out_channels).float()
            table = F.pad(table, [0, 0, 0, 9])  # of none
            rows.index_add_(0, at[pixels], F.embedding_bag(which, table, mode="sum").to(rows.dtype))
        return rows, at


def _folded(weight: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """A kernel's three rows (or columns) -> the two that the first, and the second, of two pixels needs."""
    first, second, third = weight.unbind(dim)
    return torch.stack([first, second + third], dim), torch.stack([first + second, third], dim)


@lru_cache(maxsize=16)
def _phase_rows(count: int, height: int, width: int, device: str) -> Tensor:
    """Which of the pixels (N, h + 1, w + 1, 4) of four 2x2 convolutions each of (N, 2 h, 2 w) is: flat, int32."""
    n = torch.arange(count, dtype=torch.int32)[:, None, None]
    i = torch.arange(2 * height, dtype=torch.int32)[:, None]
    j = torch.arange(2 * width, dtype=torch.int32)
    place = (n * (height + 1) + (i + 1) // 2) * (width + 1) + (j + 1) // 2
    return (place * 4 + i % 2 * 2 + j % 2).flatten().to(device)
