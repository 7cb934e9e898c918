"""Convolutions as these networks use them, and the residual block that the SPADE-shaped generators share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clade.labels import LabelPyramid
from clade.nn.norm import NormLayer, activated
from clade.nn.spectral import spectral_norm


def conv2d(
    channels_in: int,
    channels_out: int,
    kernel: int,
    *,
    stride: int = 1,
    padding: int | None = None,
    bias: bool = True,
    groups: int = 1,
    spectral: bool = False,
) -> nn.Conv2d:
    """A convolution with Xavier-normal weights of gain 0.02, zero bias, and spectral norm where asked for.

    ``padding`` defaults to half the kernel, so that a stride of 1 keeps the size.
    """
    padding = kernel // 2 if padding is None else padding
    conv = nn.Conv2d(channels_in, channels_out, kernel, stride, padding, groups=groups, bias=bias)
    _initialize(conv)
    return spectral_norm(conv) if spectral else conv


def conv_transpose2d(
    channels_in: int, channels_out: int, kernel: int, *, bias: bool = True, spectral: bool = False
) -> nn.ConvTranspose2d:
    """A transposed convolution of stride 2 that doubles the size, with the same initialisation."""
    conv = nn.ConvTranspose2d(
        channels_in, channels_out, kernel, stride=2, padding=kernel // 2, output_padding=1, bias=bias
    )
    _initialize(conv)
    return spectral_norm(conv) if spectral else conv


def linear(features_in: int, features_out: int) -> nn.Linear:
    """A linear layer with the same initialisation."""
    layer = nn.Linear(features_in, features_out)
    _initialize(layer)
    return layer


def _initialize(layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear) -> None:
    if layer.weight.is_meta:  # nothing to draw, over which torch takes its time
        return
    nn.init.xavier_normal_(layer.weight, gain=0.02)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


class ResidualBlock(nn.Module):
    """Two times norm, LeakyReLU(0.2), 3x3 convolution; a learned shortcut where the channel count changes.

        y = s(x) + conv2(act(norm2(conv1(act(norm1(x))))))

    where s is the identity or norm -> 1x1 convolution without bias. The middle width is min(in, out)
    (SPADE, figure 4; CLADE, section 3.5).

    Args:
        channels_in: channels of x.
        channels_out: channels of y.
        norm: builds a normalization layer for a channel count; its ``out_channels`` feed the convolution after it.
        spectral: spectral norm on the convolutions.
        groups: groups of the convolutions (GroupDNet).
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        norm: Callable[[int], NormLayer],
        spectral: bool = True,
        groups: int = 1,
    ) -> None:
        super().__init__()
        middle = min(channels_in, channels_out)
        self.norm1 = norm(channels_in)
        self.conv1 = conv2d(self.norm1.out_channels, middle, 3, groups=groups, spectral=spectral)
        self.norm2 = norm(middle)
        self.conv2 = conv2d(self.norm2.out_channels, channels_out, 3, groups=groups, spectral=spectral)
        self.norm_shortcut: NormLayer | None = None
        if channels_in != channels_out:
            self.norm_shortcut = norm(channels_in)
            self.conv_shortcut = conv2d(
                self.norm_shortcut.out_channels, channels_out, 1, bias=False, groups=groups, spectral=spectral
            )

    def forward(self, x: Tensor, labels: LabelPyramid) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H, W)"""
        shortcut = x if self.norm_shortcut is None else self.conv_shortcut(self.norm_shortcut(x, labels))
        y = self.conv1(activated(self.norm1, x, labels))
        y = self.conv2(activated(self.norm2, y, labels))
        return y + shortcut  # in the memory layout of y, which is channels-last behind CLADE


def upsample2(x: Tensor) -> Tensor:
    """Nearest upsampling by 2."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def reparameterize(mu: Tensor, logvar: Tensor, noise: Tensor) -> Tensor:
    """z = mu + exp(logvar / 2) * noise"""
    return mu + torch.exp(0.5 * logvar) * noise
