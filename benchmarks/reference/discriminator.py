"""The published multi-scale discriminator."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import spectral_norm

from benchmarks.reference.generator import initialize


class ReferenceDiscriminator(nn.Module):
    """Two patch discriminators of four layers, the second on the halved input.

    Args:
        channels_in: channels of one-hot labels and image together.
        width: channels of the first layer (the official ``ndf``).

    Returns per scale the features of every layer, scores last.
    """

    def __init__(self, channels_in: int, width: int = 64) -> None:
        super().__init__()
        self.discriminator_0 = _Patches(channels_in, width)
        self.discriminator_1 = _Patches(channels_in, width)
        initialize(self)

    def forward(self, x: Tensor) -> list[list[Tensor]]:
        halved = F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)
        return [self.discriminator_0(x), self.discriminator_1(halved)]


class _Patches(nn.Module):
    def __init__(self, channels_in: int, width: int) -> None:
        super().__init__()
        self.model0 = nn.Sequential(nn.Conv2d(channels_in, width, 4, stride=2, padding=2), nn.LeakyReLU(0.2))
        widths = [min(width * 2**k, 512) if k else width for k in range(4)]
        self.model1 = _layer(widths[0], widths[1], stride=2)
        self.model2 = _layer(widths[1], widths[2], stride=2)
        self.model3 = _layer(widths[2], widths[3], stride=1)
        self.model4 = nn.Sequential(nn.Conv2d(widths[3], 1, 4, padding=2))

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for layer in self.children():
            x = layer(x)
            features.append(x)
        return features


def _layer(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    conv = spectral_norm(nn.Conv2d(channels_in, channels_out, 4, stride=stride, padding=2, bias=False))
    normalized = nn.Sequential(conv, nn.InstanceNorm2d(channels_out))
    return nn.Sequential(normalized, nn.LeakyReLU(0.2))
