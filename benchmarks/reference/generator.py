"""The published generator and its normalization layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import spectral_norm

KINDS = ("clade", "clade-icpe", "spade")
_HIDDEN = 128  # of SPADE's modulation network, whatever the width


def one_hot(ids: Tensor, rows: int) -> Tensor:
    """Class of each pixel (N, H, W) -> (N, rows, H, W) float32, the published input."""
    n, height, width = ids.shape
    return torch.zeros(n, rows, height, width, device=ids.device).scatter_(1, ids.long()[:, None], 1.0)


def initialize(network: nn.Module) -> None:
    """Xavier normal of gain 0.02 for every convolution, zero biases; the published start."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.xavier_normal_(getattr(layer, "weight_orig", layer.weight), gain=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class ReferenceGenerator(nn.Module):
    """Blocks of 16-16-16-8-4-2-1 times ``width`` channels, from 1/32 of the size up (``normal`` upsampling).

    Args:
        kind: ``clade``, ``clade-icpe`` or ``spade``.
        rows: classes, the unknown one included.
        width: channels of the last block (the official ``ngf``).

    Shapes: labels one-hot (N, rows, H, W) float32, H and W multiples of 32; positions (N, 2, H, W) for ``clade-icpe``;
        image (N, 3, H, W) in [-1, 1].
    """

    def __init__(self, kind: str, rows: int, width: int = 64) -> None:
        super().__init__()
        assert kind in KINDS
        wide = 16 * width
        self.fc = nn.Conv2d(rows, wide, 3, padding=1)
        self.head_0 = _Block(kind, rows, wide, wide)
        self.G_middle_0 = _Block(kind, rows, wide, wide)
        self.G_middle_1 = _Block(kind, rows, wide, wide)
        self.up_0 = _Block(kind, rows, wide, wide // 2)
        self.up_1 = _Block(kind, rows, wide // 2, wide // 4)
        self.up_2 = _Block(kind, rows, wide // 4, wide // 8)
        self.up_3 = _Block(kind, rows, wide // 8, wide // 16)
        self.conv_img = nn.Conv2d(width, 3, 3, padding=1)
        self.up = nn.Upsample(scale_factor=2)
        initialize(self)

    def forward(self, labels: Tensor, positions: Tensor | None = None) -> Tensor:
        height, width = labels.shape[2:]
        x = self.fc(F.interpolate(labels, size=(height // 32, width // 32)))
        x = self.head_0(x, labels, positions)
        x = self.G_middle_0(self.up(x), labels, positions)
        x = self.G_middle_1(x, labels, positions)
        for block in (self.up_0, self.up_1, self.up_2, self.up_3):
            x = block(self.up(x), labels, positions)
        return torch.tanh(self.conv_img(F.leaky_relu(x, 0.2)))


class _Block(nn.Module):
    """Twice norm, LeakyReLU, 3x3 convolution; norm and 1x1 convolution as the shortcut where the channels change."""

    def __init__(self, kind: str, rows: int, channels_in: int, channels_out: int) -> None:
        super().__init__()
        middle = min(channels_in, channels_out)
        self.learned = channels_in != channels_out
        self.conv_0 = spectral_norm(nn.Conv2d(channels_in, middle, 3, padding=1))
        self.conv_1 = spectral_norm(nn.Conv2d(middle, channels_out, 3, padding=1))
        self.norm_0 = _norm(kind, rows, channels_in)
        self.norm_1 = _norm(kind, rows, middle)
        if self.learned:
            self.conv_s = spectral_norm(nn.Conv2d(channels_in, channels_out, 1, bias=False))
            self.norm_s = _norm(kind, rows, channels_in)

    def forward(self, x: Tensor, labels: Tensor, positions: Tensor | None) -> Tensor:
        shortcut = self.conv_s(self.norm_s(x, labels, positions)) if self.learned else x
        y = self.conv_0(F.leaky_relu(self.norm_0(x, labels, positions), 0.2))
        y = self.conv_1(F.leaky_relu(self.norm_1(y, labels, positions), 0.2))
        return shortcut + y


def _norm(kind: str, rows: int, channels: int) -> nn.Module:
    return _SPADE(rows, channels) if kind == "spade" else _CLADE(rows, channels, kind == "clade-icpe")


class _CLADE(nn.Module):
    def __init__(self, rows: int, channels: int, by_position: bool) -> None:
        super().__init__()
        # Published as synchronised BatchNorm, which on a single device is this.
        self.param_free_norm = nn.BatchNorm2d(channels, affine=False)
        self.class_specified_affine = _ClassAffine(rows, channels, by_position)

    def forward(self, x: Tensor, labels: Tensor, positions: Tensor | None) -> Tensor:
        normalized = self.param_free_norm(x)
        return self.class_specified_affine(normalized, F.interpolate(labels, size=x.shape[2:]), positions)


class _ClassAffine(nn.Module):
    def __init__(self, rows: int, channels: int, by_position: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(rows, channels))
        self.bias = nn.Parameter(torch.zeros(rows, channels))
        self.by_position = by_position
        if by_position:
            self.dist_conv_w = nn.Conv2d(2, 1, 1)
            self.dist_conv_b = nn.Conv2d(2, 1, 1)

    def forward(self, x: Tensor, labels: Tensor, positions: Tensor | None) -> Tensor:
        ids = labels.argmax(dim=1)
        gamma = F.embedding(ids, self.weight).permute(0, 3, 1, 2)
        beta = F.embedding(ids, self.bias).permute(0, 3, 1, 2)
        if self.by_position:
            assert positions is not None
            offsets = F.interpolate(positions, size=x.shape[2:])
            gamma = gamma * (1 + self.dist_conv_w(offsets))
            beta = beta * (1 + self.dist_conv_b(offsets))
        return x * gamma + beta


class _SPADE(nn.Module):
    def __init__(self, rows: int, channels: int) -> None:
        super().__init__()
        self.param_free_norm = nn.BatchNorm2d(channels, affine=False)
        self.mlp_shared = nn.Sequential(nn.Conv2d(rows, _HIDDEN, 3, padding=1), nn.ReLU())
        self.mlp_gamma = nn.Conv2d(_HIDDEN, channels, 3, padding=1)
        self.mlp_beta = nn.Conv2d(_HIDDEN, channels, 3, padding=1)

    def forward(self, x: Tensor, labels: Tensor, positions: Tensor | None) -> Tensor:
        normalized = self.param_free_norm(x)
        hidden = self.mlp_shared(F.interpolate(labels, size=x.shape[2:]))
        gamma, beta = self.mlp_gamma(hidden), self.mlp_beta(hidden)
        return normalized * (1 + gamma) + beta
