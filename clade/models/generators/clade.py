"""The CLADE generators (sections 3.2 to 3.5)."""

from __future__ import annotations

from typing import Any

from clade.models.base import GENERATORS
from clade.models.generators.mixed import MixedGenerator


@GENERATORS.register("clade")
class CladeGenerator(MixedGenerator):
    """The SPADE-shaped generator with class-adaptive normalization (section 3.2).

    Args:
        options: see :class:`MixedGenerator`.
    """


@GENERATORS.register("clade-icpe")
class CladeIcpeGenerator(MixedGenerator):
    """CLADE whose scale and shift also depend on where in its object a pixel lies (section 3.4).

    Args:
        options: see :class:`MixedGenerator`.
    """

    def __init__(self, *, num_classes: int, positions: str | None = "modulation", **options: Any) -> None:
        super().__init__(num_classes=num_classes, positions=positions, **options)
