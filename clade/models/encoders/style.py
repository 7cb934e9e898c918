"""The style encoder of multi-modal synthesis (section 3.5)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from clade.nn import conv2d, linear


class ConvEncoder(nn.Module):
    """A photo -> mean and log-variance of its style.

    Six 3x3 convolutions of stride 2 with spectral and instance norm and LeakyReLU(0.2), and two linear layers. The
    photo is resized to 256x256 first, whatever its size.

    Args:
        width: channels of the first layer; the others have 2, 4, 8, 8, 8 times as many.
        z_dim: length of the style vector.
    """

    side = 256

    def __init__(self, *, width: int = 64, z_dim: int = 256) -> None:
        super().__init__()
        channels = [3, width, 2 * width, 4 * width, 8 * width, 8 * width, 8 * width]
        self.convs = nn.ModuleList(
            conv2d(channels[k], channels[k + 1], 3, stride=2, bias=False, spectral=True) for k in range(6)
        )
        features = channels[-1] * (self.side // 2**6) ** 2
        self.to_mu = linear(features, z_dim)
        self.to_logvar = linear(features, z_dim)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, h, w) in [-1, 1] -> mu, logvar, each (N, z_dim)"""
        x = image
        if x.shape[2:] != (self.side, self.side):
            x = F.interpolate(x, size=(self.side, self.side), mode="bilinear", align_corners=False)
        for conv in self.convs:
            x = F.leaky_relu(F.instance_norm(conv(x)), 0.2)
        x = x.flatten(1)
        return self.to_mu(x), self.to_logvar(x)
