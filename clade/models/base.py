"""What every generator is to the rest of the library, and how one is made by name."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clade.errors import CladeError
from clade.labels import LabelMap, LabelPyramid
from clade.nn.blocks import reparameterize
from clade.registry import Registry, near_match


class Generator(nn.Module, ABC):
    """A network that turns a label map into an image.

    Sizes: the image has the label map's size. A network that upsamples k times needs multiples of 2^k (``multiple``);
    other maps are padded at the bottom and right by repeating their last row and column, and the image is cropped back.

    Args:
        num_classes: number of classes, without the unknown one.
        unknown_class: one more class, the last, for unlabelled pixels.
    """

    multiple: int = 1
    """Heights and widths are padded to a multiple of this."""
    uses_positions: bool = False
    """Whether label maps without positions get them computed (CLADE-ICPE)."""
    skip_class: int | None = None
    """Class whose pixels get the position 0, as in the published code."""
    uses_instances: bool = False
    """Whether instance maps make a difference."""
    z_dim: int | None = None
    """Length of the latent vector, None where the network starts from the label map."""
    latent_grid: bool = False
    """Whether the latent's last two dimensions are a grid; one of another size is resized."""
    regional: bool = False
    """Whether every class has a style of its own; a style photo then comes with its label map."""
    stochastic: bool = False
    """Whether a forward draws noise of its own, by torch's global random numbers."""
    encoder_is_part: bool = False
    """Whether the style encoder is a part of the published network, counted and saved with it (SEAN)."""
    plain_batch_norm: bool = False
    """Whether the published network has plain BatchNorm modules, which the paper's counting counts."""
    encoder: nn.Module | None
    """Style encoder: image -> (mu, logvar), each (N, z_dim)."""
    name: str = ""
    options: dict[str, Any]
    """What ``create_generator(name, **options)`` rebuilds this network from."""

    def __init__(self, num_classes: int, unknown_class: bool) -> None:
        super().__init__()
        if num_classes < 1:
            raise CladeError(f"num_classes is {num_classes}; a generator needs at least one class.")
        if unknown_class not in (False, True):
            raise CladeError(f"unknown_class is {unknown_class!r}; needed is true or false.")
        self.num_classes = num_classes
        self.num_rows = num_classes + unknown_class
        self.options = {}
        self.encoder = None  # not a class attribute, which would hide the module of the same name

    def forward(self, label_map: LabelMap | Tensor, z: Tensor | None = None, style: Tensor | None = None) -> Tensor:
        """Label maps -> images (N, 3, H, W) in [-1, 1].

        Args:
            label_map: a LabelMap, or its ids (N, H, W).
            z: latents (N or 1, *latent_shape), for a generator with latent input.
            style: photos (N or 1, 3, h, w) in [-1, 1] whose style to take, for a generator with an encoder. A regional
                generator takes it as the photo of this very label map; see :meth:`encode` for another one. With neither
                z nor style, z is drawn from the prior N(0, 1) by torch's global random numbers (SEAN takes the mean
                style).

        Raises:
            LabelError: ids outside the classes.
            CladeError: z or style for a generator that takes none, both at once, or of the wrong shape.
        """
        label_map = self.prepare(label_map if isinstance(label_map, LabelMap) else LabelMap(label_map))
        height, width = label_map.size
        z = self._latent(label_map, z, style)
        pyramid = LabelPyramid(label_map.padded(self.multiple), self.num_rows)
        return self.synthesize(pyramid, z)[:, :, :height, :width]

    def prepare(self, label_map: LabelMap) -> LabelMap:
        """What :meth:`forward` does first, and what is cheaper before a map goes to a GPU: check ids, add positions."""
        label_map.check(self.num_rows)
        return label_map.with_positions(self.skip_class) if self.uses_positions else label_map

    @abstractmethod
    def synthesize(self, labels: LabelPyramid, z: Tensor | None) -> Tensor:
        """Labels whose sides are multiples of ``multiple``, and latents for a latent network -> images."""

    def counted_forward(self, labels: LabelPyramid) -> Tensor:
        """The forward whose cost is the generator's: with a style encoder only where it is a part of the network."""
        shape = self.latent_shape(labels.size)
        reference = next(self.parameters())
        z = None if shape is None else torch.zeros(1, *shape, device=reference.device, dtype=reference.dtype)
        return self.synthesize(labels, z)

    def latent_shape(self, size: tuple[int, int]) -> tuple[int, ...] | None:
        """Shape of the latent of one picture of ``size`` (height, width); None without latent input."""
        return None if self.z_dim is None else (self.z_dim,)

    def prior(self, noise: Tensor) -> Tensor:
        """Standard normal noise (N, *latent_shape) -> latents as they are met in training; of 0, their mean."""
        return noise

    def default_latent(self, count: int, size: tuple[int, int]) -> Tensor | None:
        """The latents where none are given: drawn from the prior by torch's global random numbers."""
        shape = self.latent_shape(size)
        if shape is None:
            return None
        reference = next(self.parameters())
        # Drawn in float32 whatever the network's type, so that a seed means the same picture.
        return self.prior(torch.randn(count, *shape, device=reference.device)).to(reference.dtype)

    def encode(self, image: Tensor, label_map: LabelMap | None = None) -> tuple[Tensor, Tensor | None]:
        """Photos (N, 3, h, w) in [-1, 1] -> (mu, logvar) of their style, each (N, *latent_shape).

        Args:
            image: photos.
            label_map: their label maps, which a regional generator needs and others take no notice of.

        Returns:
            mu, and the log-variance, None where a photo has just one style (SEAN).

        Raises:
            CladeError: the generator has no style encoder, or needs label maps.
        """
        return self._encoder()(image)

    def mix(self, z: Tensor, other: Tensor, classes: Sequence[int]) -> Tensor:
        """Latents with those of some classes taken from others; only for regional generators.

        Args:
            z, other: latents (N or 1, *latent_shape).
            classes: ids whose style comes from ``other``.

        Raises:
            CladeError: the generator has one style for the whole picture.
        """
        raise CladeError(
            "This generator has one style for the whole picture, so a style for single classes cannot be given. "
            "sean, groupdnet and their clade variants have one per class."
        )

    def _mixed_rows(self, classes: Sequence[int], device: torch.device) -> Tensor:
        """The rows that :meth:`mix` takes from the other latents, (num_rows,) bool; CladeError for an unknown id."""
        outside = [k for k in classes if not 0 <= k < self.num_rows]
        if outside:
            raise CladeError(f"There is no class {outside[0]} to mix: classes are 0 to {self.num_rows - 1}.")
        taken = torch.zeros(self.num_rows, dtype=torch.bool, device=device)
        taken[list(classes)] = True
        return taken

    def fitted(self, z: Tensor, size: tuple[int, int]) -> Tensor:
        """Latents for label maps of ``size``: a grid of another size is resized smoothly, others are left alone."""
        needed = self.latent_shape(size)
        if needed is None or not self.latent_grid or z.shape[-2:] == needed[-2:]:
            return z
        return F.interpolate(z, size=needed[-2:], mode="bilinear", align_corners=False)

    def interpolate(self, z: Tensor, other: Tensor, part: float) -> Tensor:
        """The latents a part of the way from z to other, 0 to 1: along the sphere, as in a Gaussian prior nearly all
        lengths are alike, with the length changing evenly."""
        z, other = torch.broadcast_tensors(z, other)
        a, b = z.flatten(1), other.flatten(1)
        lengths = a.norm(dim=1, keepdim=True), b.norm(dim=1, keepdim=True)
        ends = a / lengths[0].clamp(min=1e-12), b / lengths[1].clamp(min=1e-12)
        angle = (ends[0] * ends[1]).sum(1, keepdim=True).clamp(-1, 1).acos()
        sine = angle.sin()
        arc = (torch.sin((1 - part) * angle) * ends[0] + torch.sin(part * angle) * ends[1]) / sine.clamp(min=1e-12)
        mixed = torch.lerp(lengths[0], lengths[1], part) * arc
        return torch.where(sine < 1e-4, torch.lerp(a, b, part), mixed).view_as(z)

    def training_latent(
        self, label_map: LabelMap, real: Tensor, noise: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """What a training step draws with, from the photos and standard normal noise: (z, mu, logvar)."""
        if noise is None or self.encoder is None:
            return None if noise is None else self.prior(noise), None, None
        mu, logvar = self.encode(real, label_map)
        assert logvar is not None
        return reparameterize(mu, logvar, noise), mu, logvar

    def validation_latent(self, label_map: LabelMap, real: Tensor) -> Tensor | None:
        """What a validation draws with: the mean of the prior, where there is one."""
        shape = self.latent_shape(label_map.size)
        return None if shape is None else self.prior(torch.zeros(len(label_map), *shape, device=real.device))

    def _encoder(self) -> nn.Module:
        if self.encoder is None:
            raise CladeError(
                "This generator has no style encoder, so it takes no style photo. Train one with "
                "generator.encoder=true (and generator.z_dim=256 where the latent is a vector), or give z."
            )
        return self.encoder

    def _latent(self, label_map: LabelMap, z: Tensor | None, style: Tensor | None) -> Tensor | None:
        needed = self.latent_shape(label_map.size)
        if needed is None:
            if z is not None or style is not None:
                raise CladeError(
                    f"{'z' if z is not None else 'A style'} was given, but this generator starts from the label map "
                    "and has no latent input. Build it with z_dim=256 (multi-modal synthesis), or leave it out."
                )
            return None
        if z is not None and style is not None:
            raise CladeError("z and a style were both given, and each decides the image. Give one of them.")
        count = len(label_map)
        if style is not None:
            z = self.encode(style, label_map)[0]
        if z is None:
            return self.default_latent(count, label_map.size)
        fixed = -2 if self.latent_grid else None
        if z.ndim != 1 + len(needed) or z.shape[1:fixed] != needed[:fixed] or len(z) not in (1, count):
            raise CladeError(
                f"z has shape {tuple(z.shape)}, needed is {(count, *needed)}: one latent per label map, or one for all."
            )
        z = self.fitted(z, label_map.size)
        return z.expand(count, *z.shape[1:])


GENERATORS: Registry[Callable[..., Generator]] = Registry("generator")


def create_generator(name: str, *, num_classes: int, **options: Any) -> Generator:
    """Build a generator by name.

    Args:
        name: one of :func:`list_generators`.
        num_classes: number of classes, without the unknown one.
        options: the constructor's keywords. The SPADE-shaped ones share ``unknown_class``, ``instance_edges``,
            ``width``, ``upsampling``, ``z_dim``, ``size``.

    Raises:
        CladeError: an unknown name or option, naming the nearest known one.
    """
    build = GENERATORS[name]
    if isinstance(num_classes, bool) or not isinstance(num_classes, int):
        raise CladeError(f"num_classes is {num_classes!r}; needed is a whole number.")
    known = generator_options(name)
    for option in options:
        if option not in known:
            hint = near_match(option, known)
            raise CladeError(f"Generator '{name}' has no option '{option}'.{hint} Known: {', '.join(known)}.")
    generator = build(num_classes=num_classes, **options)
    generator.name = name
    generator.options = {"num_classes": num_classes, **options}
    return generator


def list_generators() -> list[str]:
    """Names that :func:`create_generator` knows."""
    return GENERATORS.names()


def generator_options(name: str) -> list[str]:
    """The keywords that a generator takes, with those of its base classes where it hands further ones on.

    Raises:
        CladeError: an unknown name.
    """
    build = GENERATORS[name]
    names: list[str] = []
    for cls in build.__mro__ if isinstance(build, type) else [build]:
        parameters = inspect.signature(cls).parameters.values()
        names += [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in names]
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return names
