"""SEAN (Zhu et al. 2020): a style per class, taken from a photo; and SEAN with CLADE's label part (section 4.10)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from clade.errors import CladeError
from clade.labels import LabelMap, LabelPyramid
from clade.models.base import GENERATORS
from clade.models.encoders.region import RegionEncoder
from clade.models.generators.spade_shaped import SpadeShapedGenerator, block_count
from clade.nn import ACE, parameter_free

STYLED_BLOCKS = 6
"""Blocks above these have no style part."""
MOMENTUM = 0.01


class SeanShapedGenerator(SpadeShapedGenerator):
    """The SPADE-shaped generator with ACE layers, and the encoder that makes one style code per class of a photo.

    Its latents are style codes (N, num_rows, style_dim). A class that the photo does not have takes ``style_mean``, the
    mean of its codes over training, as all classes do where neither codes nor a photo are given; ``style_var`` is their
    variance.

    Args:
        label: label part of the ACE layers, ``spade`` or ``clade``.
        num_classes, unknown_class, instance_edges, width, upsampling: see :class:`SpadeShapedGenerator`.
        style_dim: length of a style code.
        style_layers: see :class:`clade.nn.ACE`; published weights have 19.
        encoder_width: channels of the style encoder's first layer.
        normalization: inside every layer, ``batch`` (synchronised under DDP) or ``instance``.
    """

    regional = True
    stochastic = True
    encoder_is_part = True
    encoder: RegionEncoder
    style_mean: Tensor
    style_var: Tensor
    style_count: Tensor

    def __init__(
        self,
        label: str,
        hidden: int = 128,
        *,
        num_classes: int,
        unknown_class: bool = False,
        instance_edges: bool = False,
        width: int = 64,
        upsampling: str = "normal",
        style_dim: int = 512,
        style_layers: int | None = None,
        encoder_width: int = 32,
        normalization: str = "batch",
    ) -> None:
        if min(style_dim, encoder_width) < 1:
            raise CladeError(
                f"style_dim is {style_dim} and encoder_width {encoder_width}; needed are numbers of at least 1."
            )
        plain = partial(
            ACE,
            num_rows=num_classes + unknown_class,
            instance_edges=instance_edges,
            normalization=normalization,
            label=label,
            hidden=hidden,
        )
        styled = partial(plain, style_dim=style_dim, style_layers=style_layers)
        super().__init__(
            [styled if k < STYLED_BLOCKS else plain for k in range(block_count(upsampling))],
            num_classes=num_classes,
            unknown_class=unknown_class,
            instance_edges=instance_edges,
            width=width,
            upsampling=upsampling,
        )
        self.style_dim = style_dim
        self.encoder = RegionEncoder(width=encoder_width, style_dim=style_dim)
        self.register_buffer("style_mean", torch.zeros(self.num_rows, style_dim))
        self.register_buffer("style_var", torch.ones(self.num_rows, style_dim))
        self.register_buffer("style_count", torch.zeros(self.num_rows, dtype=torch.long))

    def synthesize(self, labels: LabelPyramid, z: Tensor | None) -> Tensor:
        labels.style = z
        return super().synthesize(labels, None)

    def counted_forward(self, labels: LabelPyramid) -> Tensor:
        reference = self.to_image.weight
        photo = torch.zeros(1, 3, *labels.size, device=reference.device, dtype=reference.dtype)
        return self.synthesize(labels, self._with_mean(*self.encoder(photo, labels)))

    def latent_shape(self, size: tuple[int, int]) -> tuple[int, ...]:
        return (self.num_rows, self.style_dim)

    def prior(self, noise: Tensor) -> Tensor:
        return self.style_mean + self.style_var.sqrt() * noise

    def default_latent(self, count: int, size: tuple[int, int]) -> Tensor:
        return self.style_mean.expand(count, *self.style_mean.shape)

    def encode(self, image: Tensor, label_map: LabelMap | None = None) -> tuple[Tensor, None]:
        """Photos (N, 3, h, w) in [-1, 1] and their own label maps -> (style codes (N, num_rows, style_dim), None).

        Raises:
            CladeError: no label maps, or another number of them than photos.
            LabelError: ids outside the classes.
        """
        return self._with_mean(*self._regions(image, label_map)), None

    def mix(self, z: Tensor, other: Tensor, classes: Sequence[int]) -> Tensor:
        shape = self.latent_shape((1, 1))
        for codes in (z, other):
            if codes.shape[1:] != shape:
                raise CladeError(
                    f"Style codes of shape {tuple(codes.shape)} came; needed is (N, {shape[0]}, {shape[1]}), "
                    "as encode() makes them."
                )
        if len(z) != len(other) and 1 not in (len(z), len(other)):
            raise CladeError(f"{len(z)} and {len(other)} style codes cannot be mixed. Give as many, or one of them.")
        return torch.where(self._mixed_rows(classes, z.device)[:, None], other, z)

    def interpolate(self, z: Tensor, other: Tensor, part: float) -> Tensor:
        """Along the straight line: codes are means of features, not samples of a Gaussian."""
        return torch.lerp(z, other, part)

    def training_latent(self, label_map: LabelMap, real: Tensor, noise: Tensor | None) -> tuple[Tensor, None, None]:
        """The codes of the real photos; in train mode they also enter ``style_mean`` and ``style_var``."""
        codes, pixels = self._regions(real, label_map)
        if self.training:
            self._observe(codes.detach(), pixels > 0)
        return self._with_mean(codes, pixels), None, None

    def validation_latent(self, label_map: LabelMap, real: Tensor) -> Tensor:
        """The codes of the real photos."""
        return self.encode(real, label_map)[0]

    def _regions(self, image: Tensor, label_map: LabelMap | None) -> tuple[Tensor, Tensor]:
        if label_map is None:
            raise CladeError(
                "A style photo came without its label map, which tells where in the photo each class is. "
                "Give it: generator.encode(photo, label_map)."
            )
        if len(label_map) != len(image):
            raise CladeError(
                f"{len(image)} style photos came with {len(label_map)} label maps. Give every photo its own label map; "
                "to draw other maps with the style of one photo, encode() it and give its codes as z."
            )
        return self.encoder(image, LabelPyramid(label_map, self.num_rows))

    def _with_mean(self, codes: Tensor, pixels: Tensor) -> Tensor:
        return torch.where(pixels > 0, codes, self.style_mean)

    @torch.no_grad()
    def _observe(self, codes: Tensor, present: Tensor) -> None:
        """Mean and variance over all photos seen so far, and later, when these are many, over the latest ones."""
        present = present.to(codes.dtype)  # (N, num_rows, 1)
        totals = _over_processes(torch.cat([(codes * present).sum(0), present.sum(0)], dim=1))
        photos = totals[:, -1:]
        mean = totals[:, :-1] / photos.clamp(min=1)
        squares = _over_processes((codes - mean).square().mul(present).sum(0))
        var = squares / photos.clamp(min=1)
        self.style_count += photos[:, 0].long()
        share = photos / self.style_count[:, None].clamp(min=1)
        share = torch.where(photos > 0, share.clamp(min=MOMENTUM), share)
        step = mean - self.style_mean
        self.style_var.copy_((1 - share) * self.style_var + share * var + share * (1 - share) * step.square())
        self.style_mean += share * step


def _over_processes(value: Tensor) -> Tensor:
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(value)
    return value


@GENERATORS.register("sean")
class SeanGenerator(SeanShapedGenerator):
    """SEAN: noise, a style per class from a photo, and SPADE's modulation by the label map.

    Args:
        hidden: channels inside the modulation networks.
        options: see :class:`SeanShapedGenerator`.
    """

    def __init__(self, *, num_classes: int, hidden: int = 128, **options: Any) -> None:
        super().__init__("spade", hidden, num_classes=num_classes, **options)
        # What published files hold besides, and nothing uses; frozen, so that training misses no gradient.
        normalization = options.get("normalization", "batch")
        for layer in self.modules():
            if isinstance(layer, ACE):
                layer.label.normalize = parameter_free(normalization, len(layer.noise_var))
                if layer.style_dim is None:
                    layer.blending_gamma = nn.Parameter(torch.zeros(1), requires_grad=False)
                    layer.blending_beta = nn.Parameter(torch.zeros(1), requires_grad=False)


@GENERATORS.register("sean-clade")
class SeanCladeGenerator(SeanShapedGenerator):
    """SEAN whose modulation by the label map is CLADE's: a table look-up instead of a network (section 4.10).

    Args:
        options: see :class:`SeanShapedGenerator`.
    """

    def __init__(self, *, num_classes: int, **options: Any) -> None:
        super().__init__("clade", num_classes=num_classes, **options)
