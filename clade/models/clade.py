"""The CLADE generators (sections 3.2 to 3.5)."""

from __future__ import annotations

from functools import partial
from typing import Any

from clade.models.base import GENERATORS
from clade.models.spade_shaped import SpadeShapedGenerator
from clade.nn import CLADE


@GENERATORS.register("clade")
class CladeGenerator(SpadeShapedGenerator):
    """The SPADE-shaped generator with class-adaptive normalization (section 3.2).

    Args:
        normalization: inside every layer, ``batch`` (synchronised under DDP) or ``instance``.
        options: ``width``, ``upsampling``, ``z_dim``, ``size``, ``encoder``, ``encoder_width``; see
            :class:`SpadeShapedGenerator`.
    """

    _positions = False

    def __init__(
        self,
        *,
        num_classes: int,
        unknown_class: bool = False,
        instance_edges: bool = False,
        normalization: str = "batch",
        **options: Any,
    ) -> None:
        norm = partial(
            CLADE,
            num_rows=num_classes + unknown_class,
            instance_edges=instance_edges,
            positions=self._positions,
            normalization=normalization,
        )
        classes = {"num_classes": num_classes, "unknown_class": unknown_class, "instance_edges": instance_edges}
        super().__init__(norm, **classes, **options)


@GENERATORS.register("clade-icpe")
class CladeIcpeGenerator(CladeGenerator):
    """CLADE whose scale and shift also depend on where in its object a pixel lies (section 3.4).

    Args:
        skip_class: class whose pixels get the position 0. The published weights were trained so: with 0 on COCO-Stuff
            (person) and Cityscapes; on ADE20K with the unlabelled pixels, which here are the unknown class, 150.
        options: see :class:`CladeGenerator`.
    """

    _positions = True

    def __init__(self, *, num_classes: int, skip_class: int | None = None, **options: Any) -> None:
        super().__init__(num_classes=num_classes, **options)
        self.skip_class = skip_class
