"""GroupDNet (Zhu et al. 2020), a style of its own for every class, and its CLADE variant (section 4.10)."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clade.errors import CladeError
from clade.labels import LabelMap, LabelPyramid
from clade.models.base import GENERATORS, Generator
from clade.models.encoders.group import GroupEncoder
from clade.models.generators.group_arrangements import GroupedBlock, arrange, unused_block
from clade.models.generators.spade_shaped import LAYOUTS, Builder, require_upsampling
from clade.nn import GroupCLADE, GroupSPADE, ResidualBlock, conv2d, upsample2


class GroupedGenerator(Generator):
    """Residual blocks with grouped convolutions, from a group per class at the coarse end to one at the fine end.

    The latent is a grid of codes, ``code_channels`` per class. A grouped 3x3 convolution of it gives the first
    features, in which classes stay apart until groups merge; so the style of a class can be changed by itself.

    Args:
        num_classes, unknown_class: see :class:`Generator`.
        instance_edges: the network sees the borders between objects; a map without instances shows class borders.
        width: channels of the last block (the official ``ngf``; twice as many in the ADE20K arrangement).
        upsampling: ``normal`` (starts at 1/32 of the size) or ``more`` (at 1/64).
        arrangement: channels and groups as published for ``deepfashion`` (needs a multiple of 8 classes),
            ``cityscapes`` or ``ade20k`` (any number of classes); None for the first that fits, cityscapes only with
            instance_edges.
        code_channels: channels of one class's code.
        encoder: add a style encoder (photo and label map -> codes).
        encoder_width: channels of its first layer, a multiple of the number of classes; None for about 256.
        encoder_layers: its convolutions; 6, or 5.
        normalization: inside every layer, ``batch`` (synchronised under DDP) or ``instance``.
    """

    regional = True
    latent_grid = True
    upsamplings = ("normal", "more")

    def __init__(
        self,
        *,
        num_classes: int,
        unknown_class: bool = False,
        instance_edges: bool = False,
        width: int = 64,
        upsampling: str = "more",
        arrangement: str | None = None,
        code_channels: int = 8,
        encoder: bool = False,
        encoder_width: int | None = None,
        encoder_layers: int = 6,
        normalization: str = "batch",
    ) -> None:
        super().__init__(num_classes, unknown_class)
        require_upsampling(upsampling, self.upsamplings)
        for option, value in (("width", width), ("code_channels", code_channels)):
            if value < 1:
                raise CladeError(f"{option} is {value}; needed is a number of at least 1.")
        depth, self._upsample_before = LAYOUTS[upsampling]
        self.multiple = 2**depth
        self.instance_edges = self.uses_instances = instance_edges
        self.code_channels = code_channels
        self.arrangement, shapes = arrange(arrangement, self.num_rows, width, instance_edges)
        self.stem = conv2d(code_channels * self.num_rows, shapes[0].channels_in, 3, groups=self.num_rows)
        self.blocks = nn.ModuleList(self.block(shape, normalization) for shape in shapes)
        self.to_image = conv2d(shapes[-1].channels_out, 3, 3)
        if encoder:
            self.encoder = GroupEncoder(
                num_rows=self.num_rows, width=encoder_width, code_channels=code_channels, layers=encoder_layers
            )

    @abstractmethod
    def norm(self, shape: GroupedBlock, normalization: str) -> Builder:
        """What builds a block's normalization layers."""

    def block(self, shape: GroupedBlock, normalization: str) -> ResidualBlock:
        """One residual block."""
        norm = self.norm(shape, normalization)
        return ResidualBlock(shape.channels_in, shape.channels_out, norm, groups=shape.groups)

    def synthesize(self, labels: LabelPyramid, z: Tensor | None) -> Tensor:
        assert z is not None
        x = self.stem(z.to(self.stem.weight.dtype))
        for k, block in enumerate(self.blocks):
            x = block(upsample2(x) if k in self._upsample_before else x, labels)
        return torch.tanh(self.to_image(F.leaky_relu(x, 0.2)))

    def latent_shape(self, size: tuple[int, int]) -> tuple[int, ...]:
        """(code_channels * num_rows, height, width of the coarsest scale), class after class."""
        return self.code_channels * self.num_rows, *(math.ceil(side / self.multiple) for side in size)

    def encode(self, image: Tensor, label_map: LabelMap | None = None) -> tuple[Tensor, Tensor | None]:
        """Photos and their label maps -> (mu, logvar), each (N, *latent_shape); see :class:`GroupEncoder`.

        A class that a photo does not have gets the code of an empty picture, the same for all photos.

        Raises:
            CladeError: no label map, or another number of photos; a generator without encoder.
            LabelError: ids outside the classes.
        """
        encoder = self._encoder()
        if label_map is None:
            raise CladeError(
                "The style of each class is read where that class is in the photo, so a style photo needs its "
                "label map. Call encode(image, label_map)."
            )
        height, width = self.latent_shape(label_map.size)[1:]
        return encoder(image, label_map, (height, width))

    def mix(self, z: Tensor, other: Tensor, classes: Sequence[int]) -> Tensor:
        """Codes ``z`` with those of ``classes`` taken from ``other``; see :meth:`Generator.mix`.

        A code grid of another size is resized to that of ``z``.

        Raises:
            CladeError: codes of another network, or a class that there is not.
        """
        channels = self.code_channels * self.num_rows
        for codes in (z, other):
            if codes.ndim != 4 or codes.shape[1] != channels:
                raise CladeError(
                    f"Codes have shape {tuple(codes.shape)}; needed is (N, {channels}, height, width): "
                    f"{self.code_channels} channels for each of {self.num_rows} classes."
                )
        if len(z) != len(other) and 1 not in (len(z), len(other)):
            raise CladeError(f"{len(z)} latents cannot be mixed with {len(other)}: needed are as many, or one for all.")
        taken = self._mixed_rows(classes, z.device)
        if other.shape[2:] != z.shape[2:]:
            other = F.interpolate(other, size=z.shape[2:], mode="bilinear", align_corners=False)
        return torch.where(taken.repeat_interleave(self.code_channels)[:, None, None], other, z)


@GENERATORS.register("groupdnet")
class GroupDNetGenerator(GroupedGenerator):
    """GroupDNet: grouped blocks with grouped SPADE.

    Args:
        options: see :class:`GroupedGenerator`.
    """

    def __init__(self, *, num_classes: int, width: int = 64, normalization: str = "batch", **options: Any) -> None:
        super().__init__(num_classes=num_classes, width=width, normalization=normalization, **options)
        if self.arrangement == "ade20k":
            # The published network holds one block more, which its forward never runs: for its weights to fit.
            self.unused = self.block(unused_block(self.num_rows, width), normalization).requires_grad_(False)

    def norm(self, shape: GroupedBlock, normalization: str) -> Builder:
        return partial(
            GroupSPADE,
            num_rows=self.num_rows,
            instance_edges=self.instance_edges,
            hidden=shape.hidden,
            groups=shape.modulation_groups,
            shared_groups=shape.shared_groups,
            normalization=normalization,
        )


@GENERATORS.register("groupdnet-clade")
class GroupDNetCladeGenerator(GroupedGenerator):
    """GroupDNet with class-adaptive normalization in place of grouped SPADE (section 4.10).

    Args:
        options: see :class:`GroupedGenerator`.
    """

    def norm(self, shape: GroupedBlock, normalization: str) -> Builder:
        return partial(
            GroupCLADE,
            num_rows=self.num_rows,
            instance_edges=self.instance_edges,
            groups=shape.groups,
            normalization=normalization,
        )
