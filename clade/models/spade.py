"""The SPADE generator (Park et al. 2019), the baseline."""

from __future__ import annotations

from functools import partial

from clade.models.base import GENERATORS
from clade.models.spade_shaped import SpadeShapedGenerator
from clade.nn import SPADE


@GENERATORS.register("spade")
class SpadeGenerator(SpadeShapedGenerator):
    """The SPADE-shaped generator with spatially-adaptive normalization.

    Args:
        hidden: channels inside every modulation network.
        normalization: inside every layer, ``batch`` (synchronised under DDP) or ``instance``.
        Others: see :class:`SpadeShapedGenerator`.
    """

    def __init__(
        self,
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
        hidden: int = 128,
        normalization: str = "batch",
    ) -> None:
        norm = partial(
            SPADE,
            num_rows=num_classes + unknown_class,
            instance_edges=instance_edges,
            hidden=hidden,
            normalization=normalization,
        )
        super().__init__(
            norm,
            num_classes=num_classes,
            unknown_class=unknown_class,
            instance_edges=instance_edges,
            width=width,
            upsampling=upsampling,
            z_dim=z_dim,
            size=size,
            encoder=encoder,
            encoder_width=encoder_width,
        )
