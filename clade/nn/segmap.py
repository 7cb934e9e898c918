"""CLADE for other people's networks: called with a one-hot map as their SPADE layers are, for 1-D to 3-D features."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn

from clade.errors import CladeError
from clade.labels import nearest
from clade.labels import positions as icpe_positions
from clade.nn.clade import OneChannel, look_up


class SegmapCLADE(nn.Module):
    """Normalize, then scale and shift every pixel by its class: CLADE (section 3.2), called with a one-hot map.

        y[n, c, p] = gamma[k, c] * x^[n, c, p] + beta[k, c],   k = argmax over classes of segmap[n, :, p]

    x^ is what the replaced layer's own normalization gives. With ``positions`` gamma and beta vary inside an object
    (CLADE-ICPE, equation 15), as in :class:`clade.nn.CLADE`.

    A segmap that is not one-hot counts by its largest class, and no gradient flows back into it. Channels past
    ``num_classes`` (an instance edge) are not read.

    Args:
        param_free_norm: the normalization without scale and shift.
        gamma, beta: the tables, (rows, C); with ``unknown_class`` their last row is the unknown class's.
        segmaps: reads label maps; shared by the layers of a network.
        index: the layer's number among those that share ``segmaps``.
        positions: modulate by position; pictures only.

    Shapes: x (N, C, *size); segmap (N, >= num_classes, *any size of as many dimensions); y (N, C, *size).
    """

    def __init__(
        self,
        param_free_norm: nn.Module,
        gamma: Tensor,
        beta: Tensor,
        segmaps: SegmapReader,
        index: int = 0,
        positions: bool = False,
    ) -> None:
        super().__init__()
        self.param_free_norm = param_free_norm
        self.gamma = nn.Parameter(gamma)
        self.beta = nn.Parameter(beta)
        self.uses_positions = positions
        if positions:
            # Zero, so that CLADE-ICPE starts as CLADE.
            self.position_gamma = OneChannel(2).to(gamma)
            self.position_beta = OneChannel(2).to(gamma)
        self._segmaps = segmaps
        self._index = index

    def forward(self, x: Tensor, segmap: Tensor) -> Tensor:
        """(N, C, *size), (N, >= num_classes, *any size) -> (N, C, *size)

        Raises:
            CladeError: a segmap of too few channels or other dimensions; positions for other than pictures.
        """
        if segmap.ndim != x.ndim:
            raise CladeError(
                f"A segmap of shape {tuple(segmap.shape)} came with features of shape {tuple(x.shape)}. "
                f"Both must have {x.ndim - 2} dimensions after (N, C); integer ids are one-hot encoded first."
            )
        if self.uses_positions and x.ndim != 4:
            raise CladeError(
                f"Features of shape {tuple(x.shape)} came to a CLADE-ICPE layer, but positions are defined for "
                "pictures (N, C, H, W) only. Replace with positions=False."
            )
        size = tuple(x.shape[2:])
        labels = self._segmaps.read(segmap, self._index)
        y = self.param_free_norm(x)
        ids = labels.ids(size)
        gamma, beta = look_up(self.gamma, ids, y.dtype), look_up(self.beta, ids, y.dtype)
        if self.uses_positions:
            offsets = labels.positions(size).to(y.dtype)
            gamma = gamma * (1 + self.position_gamma(offsets))
            beta = beta * (1 + self.position_beta(offsets))
        return torch.addcmul(beta, y, gamma)

    def extra_repr(self) -> str:
        rows, channels = self.gamma.shape
        return f"{channels}, rows={rows}" + (", positions=True" if self.uses_positions else "")


class SegmapReader:
    """One-hot maps -> ids, once for all layers of a network that are given the same map.

    It remembers the last segmap only, by a weak reference, and forgets it when the segmap is gone. A segmap is read
    again where it is another tensor, where it was written to (its version), and where a layer comes that has already
    asked for it: then a new forward has begun, before which memory may have changed in ways that no version tells
    (through NumPy, ``.data``, or in inference mode).

    Args:
        num_classes: channels of a segmap that are classes.
        unknown_class: pixels of no class become one more, the last.
    """

    def __init__(self, num_classes: int, unknown_class: bool = False) -> None:
        self.num_classes = num_classes
        self.unknown_class = unknown_class
        self._last: _Labels | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return SegmapReader, (self.num_classes, self.unknown_class)  # a copy of the network remembers nothing

    def read(self, segmap: Tensor, layer: int) -> _Labels:
        labels = self._last
        if labels is None or not labels.are_of(segmap) or layer in labels.asked:
            labels = self._last = _Labels(self._ids(segmap), segmap, self._forget)
        labels.asked.add(layer)
        return labels

    def _forget(self, gone: weakref.ref[Tensor]) -> None:
        if self._last is not None and self._last.source is gone:
            self._last = None

    @torch.no_grad()
    def _ids(self, segmap: Tensor) -> Tensor:
        if segmap.shape[1] < self.num_classes:
            raise CladeError(
                f"A segmap of shape {tuple(segmap.shape)} has {segmap.shape[1]} channels; needed is one per class, "
                f"{self.num_classes}, one-hot: torch.nn.functional.one_hot(ids, {self.num_classes}).movedim(-1, 1)."
            )
        classes = segmap.detach()[:, : self.num_classes]
        if classes.dtype == torch.bool:
            classes = classes.view(torch.uint8)
        top, ids = classes.max(dim=1)
        if self.unknown_class:
            ids = torch.where(top > 0, ids, self.num_classes)
        return ids.to(torch.int32)


class _Labels:
    """What the layers ask of one segmap: ids and positions at their sizes."""

    def __init__(self, ids: Tensor, segmap: Tensor, forget: Any) -> None:
        self.asked: set[int] = set()
        self.source = weakref.ref(segmap, forget)
        self._state = _state(segmap)
        self._full = ids
        self._ids: dict[tuple[int, ...], Tensor] = {}
        self._positions: dict[tuple[int, ...], Tensor] = {}

    def are_of(self, segmap: Tensor) -> bool:
        return self.source() is segmap and self._state == _state(segmap)

    def ids(self, size: tuple[int, ...]) -> Tensor:
        """(N, *size) int32"""
        if size not in self._ids:
            self._ids[size] = nearest(self._full, size).contiguous()
        return self._ids[size]

    def positions(self, size: tuple[int, ...]) -> Tensor:
        """(N, 2, *size) float32, of the full map's objects (equations 12 to 14)"""
        full = tuple(self._full.shape[1:])
        if full not in self._positions:
            self._positions[full] = icpe_positions(self._full)
        if size not in self._positions:
            self._positions[size] = nearest(self._positions[full], size)
        return self._positions[size]


def _state(segmap: Tensor) -> tuple[int | None, bool]:
    # What inference mode makes knows no version, and cannot be used for training outside of it.
    return None if segmap.is_inference() else segmap._version, torch.is_inference_mode_enabled()
