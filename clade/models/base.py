"""What every generator is to the rest of the library, and how one is made by name."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from clade.errors import CladeError
from clade.labels import LabelMap, LabelPyramid
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
    encoder: nn.Module | None
    """Style encoder: image -> (mu, logvar), each (N, z_dim)."""
    name: str = ""
    options: dict[str, Any]
    """What ``create_generator(name, **options)`` rebuilds this network from."""

    def __init__(self, num_classes: int, unknown_class: bool) -> None:
        super().__init__()
        if num_classes < 1:
            raise CladeError(f"num_classes is {num_classes}; a generator needs at least one class.")
        self.num_classes = num_classes
        self.num_rows = num_classes + unknown_class
        self.options = {}
        self.encoder = None  # not a class attribute, which would hide the module of the same name

    def forward(self, label_map: LabelMap | Tensor, z: Tensor | None = None, style: Tensor | None = None) -> Tensor:
        """Label maps -> images (N, 3, H, W) in [-1, 1].

        Args:
            label_map: a LabelMap, or its ids (N, H, W).
            z: latent vectors (N, z_dim), for a generator with ``z_dim``.
            style: photos (N or 1, 3, h, w) in [-1, 1] whose style to take, for a generator with an encoder. With
                neither z nor style, z is drawn from the prior N(0, 1) by torch's global random numbers.

        Raises:
            LabelError: ids outside the classes.
            CladeError: z or style for a generator that takes none, both at once, or of the wrong shape.
        """
        label_map = self.prepare(label_map if isinstance(label_map, LabelMap) else LabelMap(label_map))
        height, width = label_map.size
        pyramid = LabelPyramid(label_map.padded(self.multiple), self.num_rows)
        image = self.synthesize(pyramid, self._latent(len(label_map), z, style))
        return image[:, :, :height, :width]

    def prepare(self, label_map: LabelMap) -> LabelMap:
        """What :meth:`forward` does first, and what is cheaper before a map goes to a GPU: check ids, add positions."""
        label_map.check(self.num_rows)
        return label_map.with_positions(self.skip_class) if self.uses_positions else label_map

    @abstractmethod
    def synthesize(self, labels: LabelPyramid, z: Tensor | None) -> Tensor:
        """Labels whose sides are multiples of ``multiple``, and z (N, z_dim) for a latent network -> images."""

    def encode(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Photos (N, 3, h, w) in [-1, 1] -> (mu, logvar) of their style, each (N, z_dim).

        Raises:
            CladeError: the generator has no style encoder.
        """
        if self.encoder is None:
            raise CladeError(
                "This generator has no style encoder, so it takes no style photo. "
                "Train one with generator.z_dim=256 and generator.encoder=true, or give z."
            )
        return self.encoder(image)

    def _latent(self, count: int, z: Tensor | None, style: Tensor | None) -> Tensor | None:
        if self.z_dim is None:
            if z is not None or style is not None:
                raise CladeError(
                    f"{'z' if z is not None else 'A style'} was given, but this generator starts from the label map "
                    "and has no latent input. Build it with z_dim=256 (multi-modal synthesis), or leave it out."
                )
            return None
        if z is not None and style is not None:
            raise CladeError("z and a style were both given, and each decides the image. Give one of them.")
        if style is not None:
            z = self.encode(style)[0]
        if z is None:
            reference = next(self.parameters())
            z = torch.randn(count, self.z_dim, device=reference.device)
        if z.shape == (1, self.z_dim):
            z = z.expand(count, -1)
        if z.shape != (count, self.z_dim):
            raise CladeError(
                f"z has shape {tuple(z.shape)}, needed is ({count}, {self.z_dim}): one vector per label map."
            )
        return z


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
