"""What comes between an upsampling and a block's second layer, computed before the upsampling."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clade.engine.doubling import Doubling
from clade.engine.kernels import Kernels, Lookup, picture_of, pixels_of, spread
from clade.nn.modulation_plain import look_up_plain, scaled_plain

_MOST = 1 << 26  # values of the table of what the others add


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
        assert shortcut.bias is None
        self.conv = None if conv is None else UpsampledConv2d(conv)
        self.shortcut = nn.Conv2d(shortcut.in_channels, shortcut.out_channels, 1, bias=False)
        self.shortcut.weight = nn.Parameter(shortcut.weight.detach(), requires_grad=False)
        self.shortcut_of_others = nn.Linear(shortcut.in_channels, shortcut.out_channels, bias=False)
        self.shortcut_of_others.weight = nn.Parameter(shortcut.weight.detach().flatten(1), requires_grad=False)

    def doubling(self, one: Lookup | None, two: Lookup | None) -> Doubling | None:
        """Which pixels are computed apart; None where the block is to compute them all.

        That is for layers of two kinds, and for maps of which too many pixels differ, or more than there is memory for.
        """
        if one is None or two is None or one.index is not two.index or (one.offsets is None) != (two.offsets is None):
            return None
        found = Doubling.of(one.index)
        if found is not None and self.conv is not None and 9 * len(found.others) * self.conv.out_channels > _MOST:
            return None
        return found

    def forward(
        self, kernels: Kernels, x: Tensor, one: Lookup, two: Lookup, doubling: Doubling
    ) -> tuple[tuple[Tensor, Tensor] | None, Tensor]:
        """Features (N, C_in, h, w) -> what the two convolutions give.

        Args:
            one, two: the look-ups of their layers, at the size after the upsampling.

        Returns:
            rows (R, C_out) and which of them each pixel is (4 N h w,), where the first is not left to the block; the
            shortcut, (N, C_out, 2 h, 2 w).
        """
        others = torch.index_select(pixels_of(x), 0, doubling.parents)
        if self.conv is None:
            return None, self._varying_shortcut(x, others, two, doubling)
        small, small_shortcut = kernels.modulate_pair(
            x, replace(one, index=doubling.first), 0.2, replace(two, index=doubling.first), False
        )
        rows = doubling.rows
        first = self.conv(small, look_up_plain(others, rows, one.scale, one.shift, slope=0.2), doubling)
        projected = self._projected(small_shortcut, look_up_plain(others, rows, two.scale, two.shift))
        return first, picture_of(torch.index_select(projected, 0, doubling.parts), doubling.index)

    def _varying_shortcut(self, x: Tensor, others: Tensor, lookup: Lookup, doubling: Doubling) -> Tensor:
        """With positions, whose factors are those of each pixel."""
        factors = lookup.factors
        assert factors is not None
        assert lookup.mean is not None
        scaled = torch.empty_like(pixels_of(x)), torch.empty_like(others)
        scaled_plain(pixels_of(x), doubling.first.flatten(), lookup.scale, lookup.mean, out=scaled[0])
        scaled_plain(others, doubling.rows, lookup.scale, lookup.mean, out=scaled[1])
        projected = self._projected(picture_of(scaled[0], doubling.first), scaled[1])
        table = self.shortcut_of_others(lookup.shift.to(x.dtype))
        return spread(doubling, projected.float(), table.float(), factors, None, x.dtype)

    def _projected(self, small: Tensor, others: Tensor) -> Tensor:
        """(N, C_in, h, w) and (m, C_in) -> (N h w + m, C_out)"""
        return torch.cat([pixels_of(self.shortcut(small)), self.shortcut_of_others(others)])


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

    def forward(self, small: Tensor, others: Tensor, doubling: Doubling) -> tuple[Tensor, Tensor]:
        """(N, C_in, h, w) and (m, C_in) of the others -> rows (R, C_out), and which each pixel is, (4 N h w,) int32."""
        rows = pixels_of(self.phases(small)).view(-1, self.out_channels)
        at = _phase_rows(*doubling.first.shape, str(small.device))
        if len(others):
            pixels, which = doubling.reached
            difference = others - torch.index_select(pixels_of(small), 0, doubling.parents)
            difference = F.pad(difference, [0, 0, 0, 1])  # nothing comes of none
            table = self.taps(difference).view(-1, self.out_channels).float()
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
