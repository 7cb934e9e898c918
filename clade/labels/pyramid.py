"""Everything that a network asks of a label map, at any scale, made once and only when asked for."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch
from torch import Tensor

from clade.labels.labelmap import LabelMap, nearest
from clade.labels.positions import positions as icpe_positions

Size = tuple[int, int]
T = TypeVar("T")


class LabelPyramid:
    """A label map at the scales of a network; one is built per forward.

    Args:
        label_map: ids in ``[0, num_rows)``.
        num_rows: number of ids, the unknown class included.
        edges: instance edges (N, 1, H, W) given instead of computed from ``label_map.instances``.

    ``style`` is where a network with a style per class leaves its codes (N, num_rows, D) for its layers.

    Raises:
        LabelError: ids outside ``[0, num_rows)``.
    """

    def __init__(self, label_map: LabelMap, num_rows: int, edges: Tensor | None = None) -> None:
        self.label_map = label_map.check(num_rows)
        self.num_rows = num_rows
        self.style: Tensor | None = None
        self._given_edges = edges
        self._made: dict[tuple[str, Size | None, torch.dtype | None], Tensor] = {}
        self._others: dict[Hashable, Any] = {}

    @property
    def size(self) -> Size:
        """(height, width) of the full map."""
        return self.label_map.size

    def ids(self, size: Size) -> Tensor:
        """Class of each pixel, (N, h, w), int32, nearest-resized."""
        return self._once("ids", size, None, lambda: nearest(self.label_map.ids, size).to(torch.int32).contiguous())

    def edges(self, size: Size, dtype: torch.dtype = torch.float32) -> Tensor:
        """1 where a 4-neighbour belongs to another instance (at full resolution), else 0; (N, 1, h, w).

        A map without instances falls back to class borders: where classes differ, objects do.
        """
        return self._once("edges", size, dtype, lambda: nearest(self._full_edges(), size).to(dtype))

    def positions(self, size: Size, dtype: torch.dtype = torch.float32) -> Tensor:
        """Offsets from the object's centre, (N, 2, h, w), (y, x), each in [-1, 1] (equations 12 to 14)."""
        return self._once(
            "positions", size, dtype, lambda: nearest(self._full_positions(), size).to(dtype).contiguous()
        )

    def one_hot(self, size: Size, dtype: torch.dtype = torch.float32) -> Tensor:
        """(N, num_rows, h, w). Only for what truly needs it: the first convolution of SPADE and of a discriminator."""

        def make() -> Tensor:
            ids = self.ids(size).long()[:, None]
            shape = (len(ids), self.num_rows, *size)
            return torch.zeros(shape, dtype=dtype, device=ids.device).scatter_(1, ids, 1)

        return self._once("one_hot", size, dtype, make)

    def semantics(self, size: Size, instance_edges: bool, dtype: torch.dtype = torch.float32) -> Tensor:
        """One-hot labels and, where asked for, the edge as one more channel: (N, num_rows (+ 1), h, w)."""
        if not instance_edges:
            return self.one_hot(size, dtype)

        def make() -> Tensor:
            return torch.cat([self.one_hot(size, dtype), self.edges(size, dtype)], dim=1)

        return self._once("semantics", size, dtype, make)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What else is made of these labels: made at the first call with a key, the same at all later ones."""
        if key not in self._others:
            self._others[key] = make()
        return self._others[key]

    def _full_edges(self) -> Tensor:
        if self._given_edges is not None:
            return self._given_edges
        parts = self.label_map.instances if self.label_map.instances is not None else self.label_map.ids
        return self._once("edges", None, None, lambda: instance_edges(parts)[:, None])

    def _full_positions(self) -> Tensor:
        if self.label_map.positions is not None:
            return self.label_map.positions
        return self._once("positions", None, None, lambda: icpe_positions(self.label_map.ids))

    def _once(self, what: str, size: Size | None, dtype: torch.dtype | None, make: Callable[[], Tensor]) -> Tensor:
        key = (what, size, dtype)
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


def instance_edges(instances: Tensor) -> Tensor:
    """Pixels with a 4-neighbour of another number, both sides marked: (N, H, W) integers -> (N, H, W) uint8."""
    edge = torch.zeros(instances.shape, dtype=torch.bool, device=instances.device)
    across = instances[:, :, 1:] != instances[:, :, :-1]
    down = instances[:, 1:] != instances[:, :-1]
    edge[:, :, 1:] |= across
    edge[:, :, :-1] |= across
    edge[:, 1:] |= down
    edge[:, :-1] |= down
    return edge.to(torch.uint8)
