"""Discriminators: they see the label map and the image together and return features of every layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clade.errors import CladeError
from clade.labels import LabelPyramid
from clade.nn import conv2d
from clade.registry import Registry

Features = list[list[Tensor]]


class PatchDiscriminator(nn.Module):
    """4x4 convolutions with LeakyReLU(0.2), strides 2 but for the last two; inner ones have spectral and instance norm.

    Args:
        channels_in: channels of labels and image together.
        width: channels of the first layer, doubled at each further one up to 512.
        layers: convolutions before the one that scores.
        last_stride: stride of the last of them; 1 as published by all but SEAN, which has 2.
    """

    def __init__(self, channels_in: int, *, width: int = 64, layers: int = 4, last_stride: int = 1) -> None:
        super().__init__()
        if last_stride not in (1, 2) or min(width, layers) < 1:
            raise CladeError(
                f"width is {width}, layers {layers} and last_stride {last_stride}; needed are at least 1, at least 1, "
                "and 1 or 2."
            )
        widths = [min(width * 2**k, 512) if k else width for k in range(layers)]
        first = conv2d(channels_in, width, 4, stride=2, padding=2)
        inner = [
            conv2d(
                widths[k - 1],
                widths[k],
                4,
                stride=last_stride if k == layers - 1 else 2,
                padding=2,
                bias=False,
                spectral=True,
            )
            for k in range(1, layers)
        ]
        self.convs = nn.ModuleList([first, *inner])
        self.score = conv2d(widths[-1], 1, 4, padding=2)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for k, conv in enumerate(self.convs):
            x = conv(x)
            x = F.leaky_relu(F.instance_norm(x) if k else x, 0.2)
            features.append(x)
        return [*features, self.score(x)]


DISCRIMINATORS: Registry[type[nn.Module]] = Registry("discriminator")


@DISCRIMINATORS.register("multiscale")
class MultiscaleDiscriminator(nn.Module):
    """Patch discriminators on the input and on its halves (pix2pixHD; SPADE's choice of norms).

    Args:
        channels_in: channels of labels, edge where used, and image together.
        width: channels of the first layer (the official ``ndf``).
        scales: number of discriminators; the k-th sees the input halved k times.
        layers: convolutions of each before the one that scores.
        last_stride: stride of the last of them; 1 as published by all but SEAN, which has 2.
    """

    def __init__(
        self, channels_in: int, *, width: int = 64, scales: int = 2, layers: int = 4, last_stride: int = 1
    ) -> None:
        super().__init__()
        self.scales = nn.ModuleList(
            PatchDiscriminator(channels_in, width=width, layers=layers, last_stride=last_stride) for _ in range(scales)
        )

    def forward(self, x: Tensor) -> Features:
        """Labels and image concatenated (N, channels_in, H, W) -> per scale, features of every layer, scores last."""
        out = []
        for k, scale in enumerate(self.scales):
            if k:
                x = F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)
            out.append(scale(x))
        return out


def discriminate(
    discriminator: nn.Module, labels: LabelPyramid, fake: Tensor, real: Tensor, instance_edges: bool
) -> tuple[Features, Features]:
    """Features of fake and of real images, seen in one batch, as published.

    Args:
        labels: the maps that both belong to.
        fake, real: (N, 3, H, W) in [-1, 1].
        instance_edges: whether the discriminator gets the edge channel.

    Returns:
        (features of fake, features of real)
    """
    semantics = labels.semantics((fake.shape[2], fake.shape[3]), instance_edges, fake.dtype)
    both = torch.cat([torch.cat([semantics, semantics]), torch.cat([fake, real.to(fake.dtype)])], dim=1)
    features = discriminator(both)
    return [[f[: len(fake)] for f in scale] for scale in features], [
        [f[len(fake) :] for f in scale] for scale in features
    ]
