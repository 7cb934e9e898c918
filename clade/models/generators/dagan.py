"""The DAGAN generator (Tang et al. 2020): SPADE with attention before the image layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clade.labels import LabelPyramid
from clade.models.base import GENERATORS
from clade.models.generators.spade import SpadeGenerator
from clade.nn import conv2d


@GENERATORS.register("dagan")
class DaganGenerator(SpadeGenerator):
    """SPADE whose last features are weighted by channel and by pixel (dual-attention, section 3.3).

        t = conv(u),   x = block(u),   y = tanh(conv(act(a_c * x + t + a_s * x)))

    u is the input of the last block, a_c the attention of each channel (:class:`ChannelAttention`) and a_s that of each
    pixel (:class:`SpatialAttention`).

    Args:
        upsampling: ``normal`` or ``more``.
        options: see :class:`MixedGenerator`.
    """

    upsamplings = ("normal", "more")

    def __init__(self, *, num_classes: int, width: int = 64, **options: Any) -> None:
        super().__init__(num_classes=num_classes, width=width, **options)
        self.to_attended = conv2d(2 * width, width, 3)
        self.channel_attention = ChannelAttention(2 * width, width)
        self.spatial_attention = SpatialAttention()

    def _draw(self, x: Tensor, labels: LabelPyramid) -> Tensor:
        last = len(self.blocks) - 1
        for k in range(last):
            x = self.blocks[k](self._upsampled(x, k), labels)
        u = self._upsampled(x, last)
        t = self.to_attended(u)
        x = self.blocks[last](u, labels)
        x = self.channel_attention(torch.cat([t, x], dim=1)) * x + t + self.spatial_attention(x) * x
        return torch.tanh(self.to_image(F.leaky_relu(x, 0.2)))


class ChannelAttention(nn.Module):
    """sigmoid(excite(relu(squeeze(mean over pixels)))): a weight in (0, 1) for each channel.

    Args:
        channels_in: channels of the features that decide.
        channels_out: channels that get a weight.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.squeeze = conv2d(channels_in, channels_out, 1)
        self.excite = conv2d(channels_out, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels_in, H, W) -> (N, channels_out, 1, 1)"""
        return torch.sigmoid(self.excite(F.relu(self.squeeze(self.pool(x)))))


class SpatialAttention(nn.Module):
    """sigmoid(conv([mean, maximum over channels])): a weight in (0, 1) for each pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv2d(2, 1, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 1, H, W)"""
        return torch.sigmoid(self.conv(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)))
