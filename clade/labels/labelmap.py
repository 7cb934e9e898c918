"""The label map: integer ids from end to end, never one-hot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from clade.errors import LabelError
from clade.labels.labelspace import outside_error
from clade.labels.positions import positions as icpe_positions

_ARE_IDS = (
    "Label maps, arrays and tensors hold ids; numbers as label files hold them become ids by LabelSpace.encode (of a "
    "Synthesizer: encode_numbers)."
)


class LabelMap:
    """A batch of label maps, with what else is known of their pixels.

    Args:
        ids: class of each pixel, (N, H, W) integers (uint8 .. int64); (H, W) and (N, 1, H, W) are taken too.
        instances: object number of each pixel, same shape; only where it changes matters.
        positions: offset of each pixel from its object's centre, (N, 2, H, W) float, (y, x), each in [-1, 1]. Left out,
            it is computed from ``ids`` where a model asks for it (``clade.positions``), in the way that it asks for.
            Positions that are given are every model's.

    Raises:
        LabelError: not integers, several channels, empty, or sizes that differ.
    """

    __slots__ = ("_extent", "_skipped", "ids", "instances", "positions")

    def __init__(self, ids: Any, instances: Any = None, positions: Any = None) -> None:
        self.ids = _integers(ids, "A label map")
        self.instances = None if instances is None else _integers(instances, "An instance map")
        if self.instances is not None and self.instances.shape != self.ids.shape:
            raise LabelError(
                f"The instance map is {_size(self.instances)}, but the label map is {_size(self.ids)}. "
                "Both must have one number per pixel of the same picture."
            )
        self.positions = None
        if positions is not None:
            self.positions = torch.as_tensor(positions)
            n, h, w = self.ids.shape
            if self.positions.ndim == 3:
                self.positions = self.positions[None]
            if tuple(self.positions.shape) != (n, 2, h, w) or not self.positions.is_floating_point():
                raise LabelError(
                    f"positions has shape {tuple(self.positions.shape)} and type {self.positions.dtype}; "
                    f"needed is a floating-point ({n}, 2, {h}, {w}), (y, x) offsets as clade.positions makes them."
                )
        self._extent: tuple[int, int] | None = None
        self._skipped: tuple[int | None, ...] = ()  # the skip_class that positions were computed with, if they were

    @property
    def height(self) -> int:
        return self.ids.shape[1]

    @property
    def width(self) -> int:
        return self.ids.shape[2]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)"""
        return self.height, self.width

    @property
    def device(self) -> torch.device:
        return self.ids.device

    def __len__(self) -> int:
        return self.ids.shape[0]

    def __getitem__(self, index: int | slice) -> LabelMap:
        """One map (still with N = 1) or several."""
        if isinstance(index, int):
            if not -len(self) <= index < len(self):
                raise IndexError(index)
            index = slice(index, None if index == -1 else index + 1)
        part = LabelMap(*(None if part is None else part[index] for part in self._parts()))
        part._skipped = self._skipped
        return part

    def __iter__(self) -> Iterator[LabelMap]:
        return (self[k] for k in range(len(self)))

    def __repr__(self) -> str:
        extras = [name for name in ("instances", "positions") if getattr(self, name) is not None]
        return (
            f"LabelMap({len(self)} x {self.height} x {self.width}, {self.ids.dtype}{''.join(', ' + e for e in extras)})"
        )

    def to(self, device: torch.device | str, non_blocking: bool = False) -> LabelMap:
        """The same map on another device. What :meth:`check` learned comes along: nothing is read back from a GPU."""
        return self._with(None if p is None else p.to(device, non_blocking=non_blocking) for p in self._parts())

    def pin_memory(self) -> LabelMap:
        """Page-locked copy; a DataLoader calls this."""
        return self._with(None if p is None else p.pin_memory() for p in self._parts())

    def check(self, num_rows: int, source: str | None = None) -> LabelMap:
        """Make sure that every id lies in ``[0, num_rows)``; the smallest and largest id are read once per map.

        Args:
            num_rows: number of ids, the unknown class included.
            source: the file that they were read from, for the error.

        Raises:
            LabelError: ids outside, with their pixel counts.
        """
        if self._extent is None:
            low, high = torch.aminmax(self.ids)
            self._extent = (int(low), int(high))
        if self._extent[0] < 0 or self._extent[1] >= num_rows:
            values, counts = torch.unique(self.ids.long().cpu(), return_counts=True)
            outside = {int(v): int(c) for v, c in zip(values, counts, strict=True) if not 0 <= v < num_rows}
            extent = f"{num_rows} classes (0..{num_rows - 1}, the unknown one included)"
            raise outside_error(source or "label map", outside, extent, None if source else _ARE_IDS)
        return self

    def with_positions(self, skip_class: int | None = None) -> LabelMap:
        """The same map with positions computed from its ids (``clade.positions``).

        Itself where it has them: given to it, or computed before with this ``skip_class``.
        """
        if self.positions is not None and self._skipped in ((), (skip_class,)):
            return self
        out = self._with((self.ids, self.instances, icpe_positions(self.ids, skip_class)))
        out._skipped = (skip_class,)
        return out

    def padded(self, multiple: int) -> LabelMap:
        """Repeat the last row and column until height and width are multiples of ``multiple``; itself if they are."""
        bottom, right = -self.height % multiple, -self.width % multiple
        if not bottom and not right:
            return self

        def pad(part: Tensor | None) -> Tensor | None:
            if part is None:
                return None
            rows = torch.arange(part.shape[-2] + bottom, device=part.device).clamp_(max=part.shape[-2] - 1)
            columns = torch.arange(part.shape[-1] + right, device=part.device).clamp_(max=part.shape[-1] - 1)
            return part[..., rows[:, None], columns]

        return self._with(pad(part) for part in self._parts())

    @classmethod
    def stack(cls, maps: Sequence[LabelMap]) -> LabelMap:
        """One batch out of several; all of one size, all or none with instances, all or none with positions.

        Raises:
            LabelError: sizes differ, or only some maps have instances or positions, or positions of different kinds.
        """
        if not maps:
            raise LabelError("No label map came to stack; at least one is needed.")
        sizes = sorted({m.size for m in maps})
        if len(sizes) > 1:
            raise LabelError(f"Label maps of different sizes cannot be stacked: {sizes}. Resize or crop them first.")
        parts = []
        for name in ("ids", "instances", "positions"):
            column = [getattr(m, name) for m in maps]
            missing = sum(part is None for part in column)
            if 0 < missing < len(column):
                raise LabelError(
                    f"{missing} of {len(column)} label maps have no {name}. Give {name} for all, or for none."
                )
            parts.append(None if missing else torch.cat(column))
        kinds = {m._skipped for m in maps if m.positions is not None}
        if len(kinds) > 1:
            raise LabelError(
                "Label maps whose positions were computed with different skip_class, or given, cannot be stacked. "
                "Stack them before positions are computed."
            )
        out = cls(*parts)
        out._skipped = kinds.pop() if kinds else ()
        return out

    def _with(self, parts: Iterable[Tensor | None]) -> LabelMap:
        """These parts of the same map, with what is known of it."""
        out = LabelMap(*parts)
        out._extent, out._skipped = self._extent, self._skipped
        return out

    def _parts(self) -> Iterable[Tensor | None]:
        return (self.ids, self.instances, self.positions)


def nearest(part: Tensor, size: tuple[int, ...]) -> Tensor:
    """Nearest-neighbour resize of the last dimensions (two for pictures, three for volumes), any dtype.

    Takes the same source pixels as ``torch.nn.functional.interpolate(mode="nearest")``, with which published weights
    were trained: ``floor(i * in / out)``.
    """
    present = tuple(part.shape[-len(size) :])
    if present == tuple(size):
        return part
    if all(n % m == 0 for n, m in zip(present, size, strict=True)):
        return part[(..., *(slice(None, None, n // m) for n, m in zip(present, size, strict=True)))]
    if part.dtype == torch.float32 and part.ndim == len(size) + 2:  # float64 would be placed by another rounding
        return F.interpolate(part, size=size, mode="nearest")
    sources = [_nearest_source(n, m, part.device) for n, m in zip(present, size, strict=True)]
    return part[(..., *(source.view(-1, *[1] * (len(size) - 1 - k)) for k, source in enumerate(sources)))]


def _nearest_source(length: int, out: int, device: torch.device) -> Tensor:
    # In float32 on purpose: torch computes the source index so, and a rounding apart picks the neighbour.
    step = torch.tensor(length, dtype=torch.float32) / torch.tensor(out, dtype=torch.float32)
    return (torch.arange(out, dtype=torch.float32) * step).long().clamp_(max=length - 1).to(device)


def _integers(value: Any, what: str) -> Tensor:
    if isinstance(value, np.ndarray):
        value = value.astype(value.dtype.newbyteorder("="), copy=False)  # big-endian, as some 16-bit readers give it
        if value.dtype in (np.uint16, np.uint32, np.uint64):  # torch can hardly compute with these
            value = value.astype(np.int32 if value.dtype == np.uint16 else np.int64)
        value = np.require(value, requirements=["C", "W"])  # torch warns of read-only memory, as Pillow gives it
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise LabelError(f"{what} is an array of whole numbers, got {type(value).__name__}: {error}") from error
    if tensor.dtype in (torch.uint16, torch.uint32, torch.uint64):
        tensor = tensor.to(torch.int32 if tensor.dtype == torch.uint16 else torch.int64)
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise LabelError(
            f"{what} holds whole numbers (uint8 to int64), got {tensor.dtype}. "
            "If these are ids, cast them (`.long()`); if it is one-hot or scores, take the arg-max over classes; if it "
            "was divided by 255, read the file again without scaling."
        )
    if tensor.ndim == 2:
        tensor = tensor[None]
    elif tensor.ndim == 4 and tensor.shape[1] == 1:
        tensor = tensor[:, 0]
    if tensor.ndim != 3:
        channels = tensor.ndim == 4 or (tensor.ndim > 0 and tensor.shape[-1] in (3, 4))
        hint = (
            " A colour picture is decoded with LabelSpace.decode_colors, a one-hot map with argmax." if channels else ""
        )
        raise LabelError(f"{what} has the shape (N, H, W) or (H, W), got {tuple(tensor.shape)}.{hint}")
    if tensor.shape[-1] in (3, 4) and min(tensor.shape[:2]) > 16:
        raise LabelError(
            f"{what} of shape {tuple(tensor.shape)} looks like a colour picture (H, W, channels). "
            "Decode it with LabelSpace.decode_colors, or pass (N, H, W)."
        )
    if tensor.numel() == 0:
        raise LabelError(f"{what} is empty: its shape is {tuple(tensor.shape)}. At least one pixel is needed.")
    return tensor


def _size(part: Tensor) -> str:
    return " x ".join(str(n) for n in part.shape)
