"""The generator that SPADE and CLADE share: residual blocks that read the label map, from coarse to fine."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clade.errors import CladeError
from clade.labels import LabelPyramid
from clade.models.base import Generator
from clade.models.encoders import ConvEncoder
from clade.nn import NormLayer, ResidualBlock, conv2d, linear, upsample2
from clade.registry import near_match

# upsampling -> (log2 of the coarsest scale, blocks that come after an upsampling)
LAYOUTS: dict[str, tuple[int, frozenset[int]]] = {
    "normal": (5, frozenset({1, 3, 4, 5, 6})),
    "more": (6, frozenset({1, 2, 3, 4, 5, 6})),
    "most": (7, frozenset({1, 2, 3, 4, 5, 6, 7})),
}


class SpadeShapedGenerator(Generator):
    """Residual blocks of 16-16-16-8-4-2-1 times ``width`` channels, LeakyReLU, 3x3 convolution, tanh.

    It starts from a 3x3 convolution of the one-hot labels at 1/32 (``normal``), 1/64 (``more``) or 1/128 (``most``, one
    block more) of the size, or from a linear layer of a latent vector (section 3.5, figure 7).

    Args:
        norm: builds a normalization layer for a channel count.
        num_classes, unknown_class: see :class:`Generator`.
        instance_edges: the network sees the borders between objects; a map without instances shows class borders.
        width: channels of the last block (the official ``ngf``).
        upsampling: ``normal``, ``more`` or ``most``.
        z_dim: length of the latent vector that the network starts from, None for the labels.
        size: (height, width) that the latent vector's layer is made for; another size resizes its result smoothly.
            No effect without z_dim.
        encoder: add a style encoder (photo -> z) with ``encoder_width`` channels at its first layer.
    """

    def __init__(
        self,
        norm: Callable[[int], NormLayer],
        *,
        num_classes: int,
        unknown_class: bool = False,
        instance_edges: bool = False,
        width: int = 64,
        upsampling: str = "normal",
        z_dim: int | None = None,
        size: tuple[int, int] = (256, 256),
        encoder: bool = False,
        encoder_width: int = 64,
    ) -> None:
        super().__init__(num_classes, unknown_class)
        if upsampling not in LAYOUTS:
            hint = near_match(upsampling, LAYOUTS)
            raise CladeError(f"There is no upsampling '{upsampling}'.{hint} Known: {', '.join(LAYOUTS)}.")
        if width < 1 or (upsampling == "most" and width % 2):
            raise CladeError(
                f"width is {width}; needed is a number of at least 1, and an even one for upsampling='most'."
            )
        depth, self._upsample_before = LAYOUTS[upsampling]
        self.multiple = 2**depth
        self.instance_edges = self.uses_instances = instance_edges
        self.z_dim = z_dim
        channels = [16 * width] * 4 + [8 * width, 4 * width, 2 * width, width]
        if upsampling == "most":
            channels.append(width // 2)
        self.stem: nn.Module
        if z_dim is None:
            self.stem = conv2d(self.num_rows + instance_edges, channels[0], 3)
        else:
            self._grid = (math.ceil(size[0] / self.multiple), math.ceil(size[1] / self.multiple))
            self.stem = linear(z_dim, channels[0] * self._grid[0] * self._grid[1])
        self.blocks = nn.ModuleList(ResidualBlock(channels[k], channels[k + 1], norm) for k in range(len(channels) - 1))
        self.to_image = conv2d(channels[-1], 3, 3)
        if encoder:
            if z_dim is None:
                raise CladeError(
                    "encoder=True needs z_dim (256 in the paper): the encoder's style is the latent vector."
                )
            self.encoder = ConvEncoder(width=encoder_width, z_dim=z_dim)
        first = self.blocks[0]
        assert isinstance(first, ResidualBlock)
        self.uses_positions = first.norm1.uses_positions

    def synthesize(self, labels: LabelPyramid, z: Tensor | None) -> Tensor:
        x = self._start(labels, z)
        for k, block in enumerate(self.blocks):
            if k in self._upsample_before:
                x = upsample2(x)
            x = block(x, labels)
        return torch.tanh(self.to_image(F.leaky_relu(x, 0.2)))

    def _start(self, labels: LabelPyramid, z: Tensor | None) -> Tensor:
        grid = (labels.size[0] // self.multiple, labels.size[1] // self.multiple)
        if z is None:
            return self.stem(labels.semantics(grid, self.instance_edges, self.to_image.weight.dtype))
        x = self.stem(z).view(len(z), -1, *self._grid)
        if grid != self._grid:
            x = F.interpolate(x, size=grid, mode="bilinear", align_corners=False)
        return x
