"""The SPADE generator (Park et al. 2019), the baseline, and its small variant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clade.models.base import GENERATORS
from clade.models.generators.mixed import MixedGenerator


@GENERATORS.register("spade")
class SpadeGenerator(MixedGenerator):
    """The SPADE-shaped generator with spatially-adaptive normalization.

    Args:
        options: see :class:`MixedGenerator`.
    """

    def __init__(self, *, num_classes: int, norm: str | Sequence[str] = "spade", **options: Any) -> None:
        super().__init__(num_classes=num_classes, norm=norm, **options)


@GENERATORS.register("spade-light")
class SpadeLightGenerator(SpadeGenerator):
    """SPADE with so few channels that it costs what CLADE costs (table 4); its modulation networks stay as they are.

    Args:
        width: 8 as on ADE20K and COCO-Stuff; the paper's network for Cityscapes has 32.
        options: see :class:`MixedGenerator`.
    """

    def __init__(self, *, num_classes: int, width: int = 8, **options: Any) -> None:
        super().__init__(num_classes=num_classes, width=width, **options)
