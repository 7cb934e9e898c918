"""Convolutions whose weights are predicted from the label map at every pixel (CC-FPSE, Liu et al. 2019)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clade.labels import LabelPyramid
from clade.nn.blocks import conv2d
from clade.nn.norm import BatchNorm, NormLayer


def conditional_conv(x: Tensor, weights: Tensor) -> Tensor:
    """Depthwise 3x3 convolution with weights of its own at every pixel (CC-FPSE, section 3.1).

        y[n, c, i, j] = sum_t weights[n, 9 c + t, i, j] * x[n, c, i + t // 3 - 1, j + t % 3 - 1],   t = 0 .. 8

    x is 0 outside the map.

    Args:
        x: features, (N, C, H, W).
        weights: (N, 9 C, H, W).

    Returns:
        (N, C, H, W)
    """
    height, width = x.shape[2:]
    taps = weights.unflatten(1, (x.shape[1], 9)).unbind(2)
    # Nine shifted multiply-adds: F.unfold would copy the features nine times, and takes ten times as long.
    padded = F.pad(x.to(weights.dtype), [1, 1, 1, 1])
    y = padded[:, :, :height, :width] * taps[0]
    for t in range(1, 9):
        i, j = divmod(t, 3)
        y = y.addcmul_(padded[:, :, i : i + height, j : j + width], taps[t])
    return y


class ConditionalBlock(nn.Module):
    """Two times BatchNorm, conditional convolution, 1x1 convolution, attention, LeakyReLU(0.2), beside a shortcut.

        h = act(a1(m) * conv1(norm1(x) (*) w1(m)))
        y = s(x) + act(a2(m) * conv2(norm2(h) (*) w2(m)))

    (*) is :func:`conditional_conv`. w1, w2 and the attentions a1, a2 in (0, 1) are each predicted by two 3x3
    convolutions of the conditions m. s is the identity, or norm -> 1x1 convolution without bias where the channel count
    changes. The middle width is min(in, out).

    Args:
        channels_in: channels of x.
        channels_out: channels of y.
        norm: builds the normalization layer of the shortcut.
        condition_channels: channels of m, the pyramid's semantics.
        instance_edges: whether the edge is among them.
        hidden: channels between the two convolutions of a prediction.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        norm: Callable[[int], NormLayer],
        *,
        condition_channels: int,
        instance_edges: bool = False,
        hidden: int = 128,
    ) -> None:
        super().__init__()
        middle = min(channels_in, channels_out)
        self.instance_edges = instance_edges
        self.weights1, self.attention1, self.weights2, self.attention2 = (
            nn.Sequential(conv2d(condition_channels, hidden, 3), nn.ReLU(), conv2d(hidden, channels, 3))
            for channels in (9 * channels_in, middle, 9 * middle, channels_out)
        )
        self.norm1 = BatchNorm(channels_in, affine=True)
        self.conv1 = conv2d(channels_in, middle, 1)
        self.norm2 = BatchNorm(middle, affine=True)
        self.conv2 = conv2d(middle, channels_out, 1)
        self.norm_shortcut: NormLayer | None = None
        if channels_in != channels_out:
            self.norm_shortcut = norm(channels_in)
            self.conv_shortcut = conv2d(channels_in, channels_out, 1, bias=False, spectral=True)
        # The published network has three layers that nothing goes through. They are kept, so that its weights come back
        # from an import as they were, and its parameters are as many.
        widths = {"norm": middle, "conditional1": channels_in, "conditional2": middle}
        self.unused = nn.ModuleDict({key: BatchNorm(width, affine=True) for key, width in widths.items()})
        self.unused.requires_grad_(False)

    def forward(self, x: Tensor, labels: LabelPyramid) -> Tensor:
        """(N, channels_in, H, W) -> (N, channels_out, H, W)"""
        conditions = labels.semantics((x.shape[2], x.shape[3]), self.instance_edges, x.dtype)
        shortcut = x if self.norm_shortcut is None else self.conv_shortcut(self.norm_shortcut(x, labels))
        y = self.conv1(conditional_conv(self.norm1(x), self.weights1(conditions)))
        y = F.leaky_relu(y * torch.sigmoid(self.attention1(conditions)), 0.2)
        y = self.conv2(conditional_conv(self.norm2(y), self.weights2(conditions)))
        y = F.leaky_relu(y * torch.sigmoid(self.attention2(conditions)), 0.2)
        return shortcut + y
