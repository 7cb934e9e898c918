"""The residual block for inference: upsampling, normalization and activation in one pass, sums inside convolutions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clade.engine.convolutions import convolve
from clade.engine.kernels import EAGER, Kernels, Lookup, picture_of
from clade.engine.small import SmallFirst
from clade.engine.tables import TableNorm
from clade.labels import LabelPyramid
from clade.nn import NormLayer, ResidualBlock, Unnormalized


class FusedBlock(nn.Module):
    """A residual block whose layers are look-ups, with the upsampling before it.

    Both layers that read the block's input (the first and the shortcut's) do so in one pass; the convolutions' sums are
    made inside the convolutions; and a layer's further channels (edges) get a small convolution of their own instead of
    being copied beside the features.

    ``small``, where it is set, computes the first convolution and the shortcut's before the upsampling, for maps that
    allow it.

    Args:
        block: its convolutions' weights are shared where they are not cut.
        upsample: double the input first (nearest).
    """

    def __init__(self, block: ResidualBlock, upsample: bool) -> None:
        super().__init__()
        self.upsample = upsample
        self.kernels: Kernels = EAGER
        self.small: SmallFirst | None = None
        self.norm1, self.norm2, self.norm_shortcut = block.norm1, block.norm2, block.norm_shortcut
        self.conv1, self.extra1 = _cut(block.conv1, block.norm1)
        self.conv2, self.extra2 = _cut(block.conv2, block.norm2)
        self.conv_shortcut = self.extra_shortcut = None
        if block.norm_shortcut is not None:
            self.conv_shortcut, self.extra_shortcut = _cut(block.conv_shortcut, block.norm_shortcut)

    def forward(self, x: Tensor, labels: LabelPyramid) -> Tensor:
        """(N, C_in, h, w) -> (N, C_out, H, W), which are twice h and w with ``upsample``."""
        factor = 2 if self.upsample else 1
        size = (factor * x.shape[2], factor * x.shape[3])
        norms = (self.norm1, self.norm_shortcut, self.norm2)
        one, two, three = (norm.lookup(labels, size) if isinstance(norm, TableNorm) else None for norm in norms)
        add = self._extra(self.extra1, self.norm1, labels, size, x.dtype)
        add_shortcut = self._extra(self.extra_shortcut, self.norm_shortcut, labels, size, x.dtype, None)
        doubling = None if self.small is None else self.small.doubling(one, two)
        if self.small is None or doubling is None:
            y, shortcut = self._inputs(x, one, two)
            y = self._modulated(convolve(self.conv1, y, add), three, 0.2, upsample=False)
            if self.conv_shortcut is not None:
                shortcut = convolve(self.conv_shortcut, shortcut, add_shortcut)
        else:
            assert one is not None
            assert two is not None
            first, shortcut = self.small(self.kernels, x, one, two, doubling)
            shortcut = shortcut if add_shortcut is None else shortcut + add_shortcut
            if first is None:
                y = convolve(self.conv1, self._modulated(x, one, 0.2, self.upsample), add)
                y = self._modulated(y, three, 0.2, upsample=False)
            else:
                rows, at = first
                if add is None and three is not None:
                    y = self.kernels.modulate_rows(rows, at, three, 0.2)
                else:
                    y = picture_of(torch.index_select(rows, 0, at), doubling.index)
                    y = self._modulated(y if add is None else y + add, three, 0.2, upsample=False)
        extra = self._extra(self.extra2, self.norm2, labels, size, y.dtype)
        return convolve(self.conv2, y, shortcut if extra is None else shortcut + extra)

    def _inputs(self, x: Tensor, one: Lookup | None, two: Lookup | None) -> tuple[Tensor, Tensor]:
        """What the first convolution and the shortcut get."""
        if one is not None and two is not None and one.index is two.index:  # not where layers of two kinds meet
            return self.kernels.modulate_pair(x, one, 0.2, two, self.upsample)
        return self._modulated(x, one, 0.2, self.upsample), self._modulated(x, two, None, self.upsample)

    def _modulated(self, x: Tensor, lookup: Lookup | None, slope: float | None, upsample: bool) -> Tensor:
        if lookup is None:
            return self.kernels.activate(x, slope, upsample)
        return self.kernels.modulate(x, lookup, slope, upsample)

    def _extra(
        self,
        conv: nn.Module | None,
        norm: nn.Module | None,
        labels: LabelPyramid,
        size: tuple[int, int],
        dtype: torch.dtype,
        slope: float | None = 0.2,
    ) -> Tensor | None:
        """What a layer's further channels add to the convolution after it."""
        if conv is None:
            return None
        assert isinstance(norm, TableNorm)
        channels = norm.extra(labels, size, dtype)
        assert channels is not None
        return conv(channels if slope is None else nn.functional.leaky_relu(channels, slope))


def fusable(block: nn.Module) -> bool:
    """Whether a :class:`FusedBlock` can stand in for a block: its layers are look-ups, or none at all."""
    if type(block) is not ResidualBlock or block.conv1.groups > 1:
        return False
    norms = [block.norm1, block.norm2, *([] if block.norm_shortcut is None else [block.norm_shortcut])]
    return all(isinstance(norm, (TableNorm, Unnormalized)) for norm in norms)


def _cut(conv: nn.Conv2d, norm: NormLayer) -> tuple[nn.Module, nn.Module | None]:
    """A convolution of features and further channels -> one of the features, with the bias, and one of the rest."""
    channels = norm.channels if isinstance(norm, TableNorm) else conv.in_channels
    if channels == conv.in_channels:
        return conv, None
    parts = []
    for weight, bias in ((conv.weight[:, :channels], conv.bias), (conv.weight[:, channels:], None)):
        kernel = weight.shape[2]
        part = nn.Conv2d(weight.shape[1], conv.out_channels, kernel, padding=kernel // 2, bias=bias is not None)
        part.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
        if bias is not None:
            part.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
        parts.append(part)
    return parts[0], parts[1]
