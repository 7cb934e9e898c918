"""The style encoder of SEAN: one style code per class, the mean of a photo's features over that class's pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clade.labels import LabelPyramid
from clade.nn import InstanceNorm, conv2d, conv_transpose2d


class RegionEncoder(nn.Module):
    """A photo and its label map -> the style code of every class (SEAN, section 3.1).

        s[n, k] = mean of f[n, :, i, j] over the pixels (i, j) with ids[n, i, j] = k

    f is what five 3x3 convolutions make of the photo, at half its size: two of stride 2 down, a transposed one up, with
    instance norm and LeakyReLU(0.2) after all but the last, and tanh after that. The label map is nearest-resized.

    Args:
        width: channels of the first layer.
        style_dim: length of a style code.
    """

    def __init__(self, *, width: int = 32, style_dim: int = 512) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            [
                conv2d(3, width, 3, padding=0),
                conv2d(width, 2 * width, 3, stride=2),
                conv2d(2 * width, 4 * width, 3, stride=2),
                conv_transpose2d(4 * width, 8 * width, 3),
            ]
        )
        self.norms = nn.ModuleList(InstanceNorm(k * width) for k in (1, 2, 4, 8))
        self.activations = nn.ModuleList(nn.LeakyReLU(0.2) for _ in range(4))  # modules, which the paper's FLOPs count
        self.to_style = conv2d(8 * width, style_dim, 3, padding=0)

    def forward(self, image: Tensor, labels: LabelPyramid) -> tuple[Tensor, Tensor]:
        """Photos (N, 3, h, w) in [-1, 1], their labels at any size -> (codes (N, num_rows, style_dim), pixels).

        ``pixels`` (N, num_rows, 1) is how many pixels of the features each class has; where it has none, its code is 0.
        """
        return region_means(self.features(image), labels)

    def features(self, image: Tensor) -> Tensor:
        """(N, 3, h, w) -> (N, style_dim, about h / 2, about w / 2) in [-1, 1]"""
        x = _mirror_border(image)
        for conv, norm, activation in zip(self.convs, self.norms, self.activations, strict=True):
            x = activation(norm(conv(x)))
        return torch.tanh(self.to_style(_mirror_border(x)))


def region_means(features: Tensor, labels: LabelPyramid) -> tuple[Tensor, Tensor]:
    """Features (N, D, h, w) -> (their means over each class (N, num_rows, D), its pixels (N, num_rows, 1))"""
    # In float32 also under autocast, because tens of thousands of pixels are summed; as a matrix product rather than by
    # index, because its order is always the same.
    dtype = torch.promote_types(features.dtype, torch.float32)
    with torch.autocast("cpu" if features.is_meta else features.device.type, enabled=False):
        regions = labels.one_hot((features.shape[2], features.shape[3]), dtype).flatten(2)
        pixels = regions.sum(2, keepdim=True)
        sums = torch.bmm(regions, features.to(dtype).flatten(2).transpose(1, 2))
        return sums / pixels.clamp(min=1), pixels


def _mirror_border(x: Tensor) -> Tensor:
    """One more row and column on each side, mirrored; repeated where there is only one to mirror."""
    for pad, length in (((1, 1, 0, 0), x.shape[3]), ((0, 0, 1, 1), x.shape[2])):
        x = F.pad(x, pad, mode="reflect" if length > 1 else "replicate")
    return x
