"""The SPADE generator (Park et al. 2019), the baseline."""

from __future__ import annotations

from functools import partial
from typing import Any

from clade.models.base import GENERATORS
from clade.models.spade_shaped import SpadeShapedGenerator
from clade.nn import SPADE


@GENERATORS.register("spade")
class SpadeGenerator(SpadeShapedGenerator):
    """The SPADE-shaped generator with spatially-adaptive normalization.

    Args:
        hidden: channels inside every modulation network.
        normalization: inside every layer, ``batch`` (synchronised under DDP) or ``instance``.
        options: ``width``, ``upsampling``, ``z_dim``, ``size``, ``encoder``, ``encoder_width``; see
            :class:`SpadeShapedGenerator`.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        unknown_class: bool = False,
        instance_edges: bool = False,
        hidden: int = 128,
        normalization: str = "batch",
        **options: Any,
    ) -> None:
        norm = partial(
            SPADE,
            num_rows=num_classes + unknown_class,
            instance_edges=instance_edges,
            hidden=hidden,
            normalization=normalization,
        )
        classes = {"num_classes": num_classes, "unknown_class": unknown_class, "instance_edges": instance_edges}
        super().__init__(norm, **classes, **options)
