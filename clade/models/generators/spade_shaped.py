"""The generator that SPADE and CLADE share: residual blocks that read the label map, from coarse to fine."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clade.errors import CladeError
from clade.labels import LabelPyramid
from clade.models.base import Generator
from clade.models.encoders.style import ConvEncoder
from clade.nn import NormLayer, ResidualBlock, conv2d, linear, upsample2
from clade.registry import near_match

# upsampling -> (log2 of the coarsest scale, blocks that come after an upsampling)
LAYOUTS: dict[str, tuple[int, frozenset[int]]] = {
    "normal": (5, frozenset({1, 3, 4, 5, 6})),
    "more": (6, frozenset({1, 2, 3, 4, 5, 6})),
    "most": (7, frozenset({1, 2, 3, 4, 5, 6, 7})),
}


Builder = Callable[[int], NormLayer]


def require_upsampling(upsampling: str, known: Collection[str] = LAYOUTS) -> None:
    """Raises CladeError for an unknown layout."""
    if upsampling not in known:
        hint = near_match(upsampling, known)
        has = "There is" if upsampling not in LAYOUTS else "This generator has"
        raise CladeError(f"{has} no upsampling '{upsampling}'.{hint} Known: {', '.join(known)}.")


def block_count(upsampling: str) -> int:
    """Number of residual blocks of a layout."""
    require_upsampling(upsampling)
    return 8 if upsampling == "most" else 7


class SpadeShapedGenerator(Generator):
    """Residual blocks of 16-16-16-8-4-2-1 times ``width`` channels, LeakyReLU, 3x3 convolution, tanh.

    It starts from a 3x3 convolution of the one-hot labels at 1/32 (``normal``), 1/64 (``more``) or 1/128 (``most``, one
    block more) of the size, or from a linear layer of a latent vector (section 3.5, figure 7).

    Args:
        norm: builds a normalization layer for a channel count; or one such per block, from coarse to fine.
        input_positions: the positions are two more channels of what the network starts from (+dist_i, section 4.9).
        block: builds a block: (channels in, channels out, builder of its normalization layers).
        num_classes, unknown_class: see :class:`Generator`.
        instance_edges: the network sees the borders between objects; a map without instances shows class borders.
        width: channels of the last block (the official ``ngf``).
        upsampling: ``normal``, ``more`` or ``most``.
        z_dim: length of the latent vector that the network starts from, None for the labels.
        size: (height, width) that the latent vector's layer is made for; another size resizes its result smoothly.
            No effect without z_dim.
        encoder: add a style encoder (photo -> z) with ``encoder_width`` channels at its first layer.
    """

    upsamplings: Sequence[str] = tuple(LAYOUTS)
    """The layouts that it can have."""

    def __init__(
        self,
        norm: Builder | Sequence[Builder],
        input_positions: bool = False,
        block: Callable[[int, int, Builder], nn.Module] = ResidualBlock,
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
        require_upsampling(upsampling, self.upsamplings)
        if z_dim is not None and (z_dim < 1 or min(size) < 1):
            raise CladeError(f"z_dim is {z_dim} and size {tuple(size)}; needed are numbers of at least 1.")
        if encoder and encoder_width < 1:
            raise CladeError(f"encoder_width is {encoder_width}; needed is a number of at least 1.")
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
            self.stem = conv2d(self.num_rows + instance_edges + 2 * input_positions, channels[0], 3)
        elif input_positions:
            raise CladeError(
                "Positions at the input need a network that starts from the label map; this one starts from a latent "
                "vector. Leave z_dim out, or choose positions='modulation'."
            )
        else:
            self._grid = (math.ceil(size[0] / self.multiple), math.ceil(size[1] / self.multiple))
            self.stem = linear(z_dim, channels[0] * self._grid[0] * self._grid[1])
        builders = [norm] * (len(channels) - 1) if callable(norm) else norm
        assert len(builders) == len(channels) - 1
        self.blocks = nn.ModuleList(block(channels[k], channels[k + 1], build) for k, build in enumerate(builders))
        self.to_image = conv2d(channels[-1], 3, 3)
        if encoder:
            if z_dim is None:
                raise CladeError(
                    "encoder=True needs z_dim (256 in the paper): the encoder's style is the latent vector."
                )
            self.encoder = ConvEncoder(width=encoder_width, z_dim=z_dim)
        self._input_positions = input_positions

    @property
    def uses_positions(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the stem or a layer asks for positions; layers may be replaced."""
        return self._input_positions or any(
            layer.uses_positions for layer in self.modules() if isinstance(layer, NormLayer)
        )

    def synthesize(self, labels: LabelPyramid, z: Tensor | None) -> Tensor:
        return self._draw(self._start(labels, z), labels)

    def _draw(self, x: Tensor, labels: LabelPyramid) -> Tensor:
        """The first features -> images."""
        for k in range(len(self.blocks)):
            x = self.blocks[k](self._upsampled(x, k), labels)
        return torch.tanh(self.to_image(F.leaky_relu(x, 0.2)))

    def _upsampled(self, x: Tensor, k: int) -> Tensor:
        """The input of block ``k``."""
        return upsample2(x) if k in self._upsample_before else x

    def _start(self, labels: LabelPyramid, z: Tensor | None) -> Tensor:
        grid = (labels.size[0] // self.multiple, labels.size[1] // self.multiple)
        if z is None:
            dtype = self.to_image.weight.dtype
            start = labels.semantics(grid, self.instance_edges, dtype)
            if self._input_positions:
                start = torch.cat([start, labels.positions(grid, dtype)], dim=1)
            return self.stem(start)
        x = self.stem(z.to(self.to_image.weight.dtype)).view(len(z), -1, *self._grid)
        if grid != self._grid:
            x = F.interpolate(x, size=grid, mode="bilinear", align_corners=False)
        return x
