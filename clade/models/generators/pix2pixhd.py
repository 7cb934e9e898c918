"""The pix2pixHD generator (Wang et al. 2018), with the norms that the SPADE code gives it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clade.errors import CladeError
from clade.labels import LabelPyramid
from clade.models.base import GENERATORS, Generator
from clade.nn import InstanceNorm, conv2d, conv_transpose2d

_ENHANCER_BLOCKS = 3


@GENERATORS.register("pix2pixhd")
class Pix2PixHDGenerator(Generator):
    """An encoder, residual blocks and a decoder on the one-hot labels, which it sees at its input alone.

    With ``enhancers`` the coarse-to-fine generator of section 3.1: the k-th network works on the labels halved
    ``enhancers - k`` times, with half the channels of the one before, whose last features it adds to its own:

        f_0 = G_0(pool^e(m)),   f_k = B_k(D_k(pool^(e-k)(m)) + f_(k-1)),   y = tanh(conv(f_e))

    G_0 is the global generator, and D_k and B_k are the down- and upsampling half of the k-th local enhancer.

    Args:
        num_classes, unknown_class: see :class:`Generator`.
        instance_edges: the borders between objects are one more input channel.
        width: channels at full size (the official ``ngf``; with e enhancers the global generator starts with
            ``width * 2^e``, so the paper's network of one enhancer has a width of 32).
        downsamplings: strided convolutions of the global generator.
        blocks: its residual blocks.
        kernel: side of the residual blocks' convolutions, odd.
        first_kernel: side of each network's first convolution, odd.
        enhancers: local enhancers; each doubles the size that the network is made for.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        unknown_class: bool = False,
        instance_edges: bool = False,
        width: int = 64,
        downsamplings: int = 4,
        blocks: int = 9,
        kernel: int = 3,
        first_kernel: int = 7,
        enhancers: int = 0,
    ) -> None:
        super().__init__(num_classes, unknown_class)
        counts = {"width": (width, 1), "downsamplings": (downsamplings, 0), "blocks": (blocks, 0)}
        for option, (value, least) in {**counts, "enhancers": (enhancers, 0)}.items():
            if value < least:
                raise CladeError(f"{option} is {value}; needed is a number of at least {least}.")
        for option, side in {"kernel": kernel, "first_kernel": first_kernel}.items():
            if side < 1 or side % 2 == 0:
                raise CladeError(f"{option} is {side}; needed is an odd number, so that the size stays as it is.")
        self.instance_edges = self.uses_instances = instance_edges
        self.multiple = 2 ** (downsamplings + enhancers)
        channels_in = self.num_rows + instance_edges
        self.networks = nn.ModuleList(
            Hourglass(
                channels_in,
                width * 2 ** (enhancers - k),
                downsamplings=1 if k else downsamplings,
                blocks=_ENHANCER_BLOCKS if k else blocks,
                kernel=kernel,
                first_kernel=first_kernel,
            )
            for k in range(enhancers + 1)
        )
        self.to_image = conv2d(width, 3, 7, padding=0)

    def synthesize(self, labels: LabelPyramid, z: Tensor | None) -> Tensor:
        inputs = [labels.semantics(labels.size, self.instance_edges, self.to_image.weight.dtype)]
        for _ in self.networks[1:]:
            inputs.append(F.avg_pool2d(inputs[-1], 3, stride=2, padding=1, count_include_pad=False))
        features = None
        for network, semantics in zip(self.networks, reversed(inputs), strict=True):
            features = network(semantics, features)
        assert features is not None
        return torch.tanh(self.to_image(mirror_border(features, 3)))


class Hourglass(nn.Module):
    """Convolution, strided convolutions, residual blocks, transposed convolutions, each with ReLU after it.

    Args:
        channels_in: channels of the labels.
        width: channels at full size, doubled by each of ``downsamplings``.
        blocks: residual blocks at the smallest size.
        kernel, first_kernel: sides of the residual blocks' convolutions and of the first one.
    """

    def __init__(
        self, channels_in: int, width: int, *, downsamplings: int, blocks: int, kernel: int, first_kernel: int
    ) -> None:
        super().__init__()
        widths = [width * 2**k for k in range(downsamplings + 1)]
        self.first = _mirrored(channels_in, width, first_kernel)
        self.downs = nn.ModuleList(
            NormedConv(conv2d(widths[k], widths[k + 1], 3, stride=2, bias=False, spectral=True))
            for k in range(downsamplings)
        )
        self.blocks = nn.ModuleList(PlainResidualBlock(widths[-1], kernel) for _ in range(blocks))
        self.ups = nn.ModuleList(
            NormedConv(conv_transpose2d(widths[k], widths[k - 1], 3, bias=False, spectral=True))
            for k in range(downsamplings, 0, -1)
        )

    def forward(self, semantics: Tensor, coarser: Tensor | None = None) -> Tensor:
        """Labels (N, channels_in, H, W), features of a coarser network -> (N, width, H, W)"""
        x = F.relu(self.first(semantics))
        for down in self.downs:
            x = F.relu(down(x))
        if coarser is not None:
            x = x + coarser
        for block in self.blocks:
            x = block(x)
        for up in self.ups:
            x = F.relu(up(x))
        return x


class PlainResidualBlock(nn.Module):
    """y = x + conv2(relu(conv1(x))), with no activation after the sum."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.conv1 = _mirrored(channels, channels, kernel)
        self.conv2 = _mirrored(channels, channels, kernel)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)"""
        return x + self.conv2(F.relu(self.conv1(x)))


class NormedConv(nn.Module):
    """A convolution and instance norm; ``border`` pixels are mirrored around its input first."""

    def __init__(self, conv: nn.Conv2d | nn.ConvTranspose2d, border: int = 0) -> None:
        super().__init__()
        self.conv = conv
        self.normalize = InstanceNorm(conv.out_channels)
        self.border = border

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H', W')"""
        return self.normalize(self.conv(mirror_border(x, self.border)))


def _mirrored(channels_in: int, channels_out: int, kernel: int) -> NormedConv:
    return NormedConv(conv2d(channels_in, channels_out, kernel, padding=0, bias=False, spectral=True), kernel // 2)


def mirror_border(x: Tensor, border: int) -> Tensor:
    """Reflection padding; a map too small to be mirrored has its border pixels repeated."""
    if border == 0:
        return x
    return F.pad(x, [border] * 4, mode="reflect" if min(x.shape[2:]) > border else "replicate")
