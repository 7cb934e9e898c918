"""The arithmetic between two convolutions in one pass: upsample, scale and shift by a table, activate."""

from __future__ import annotations

import types
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from clade.engine.doubling import Doubling
from clade.errors import first_line
from clade.nn.modulation_plain import look_up_plain, scaled_plain

_PIECE = 1 << 16  # numbers of a temporary, which then stays in the cache


@dataclass(frozen=True)
class Lookup:
    """What a normalization layer comes to for one label map at one size.

        y = scale[k] * x + shift[k],   k = index[n, i, j]

    and with ``offsets`` d = (y, x) of each pixel, for positions (equation 15):

        y = f * scale[k] * (x - mean) + g * shift[k],   (f, g) = v[:, 0] d[0] + v[:, 1] d[1] + v[:, 2]

    Args:
        index: row of each pixel, (N, H, W) int32.
        scale, shift: (rows, C) float32.
        mean: (C,) float32.
        offsets: (N, 2, H, W) float32.
        weights: v, (2, 3) float32.
    """

    index: Tensor
    scale: Tensor
    shift: Tensor
    mean: Tensor | None = None
    offsets: Tensor | None = None
    weights: Tensor | None = None

    @property
    def factors(self) -> Tensor | None:
        """f and g of every pixel, (2, N H W), where there are offsets"""
        if self.offsets is None:
            return None
        assert self.weights is not None
        of_y, of_x, constant = self.weights.view(2, 3, 1, 1, 1).unbind(1)
        y, x = self.offsets.unbind(1)
        return torch.addcmul(constant, y, of_y).addcmul_(x, of_x).flatten(1)


class Kernels:
    """The passes written with torch's operators, on a CPU over pieces that stay in the cache."""

    def modulate(self, x: Tensor, lookup: Lookup, slope: float | None, upsample: bool) -> Tensor:
        """LeakyReLU(slope) of the modulated x, or without it for None.

        Args:
            x: (N, C, H, W), or (N, C, H / 2, W / 2) with ``upsample``, which doubles it (nearest).

        Returns:
            (N, C, H, W), channels last, in the type of x.
        """
        return _modulated_layers(x, [(lookup, slope)], upsample)[0]

    def modulate_rows(self, rows: Tensor, at: Tensor, lookup: Lookup, slope: float | None) -> Tensor:
        """The same of pixels that lie apart: ``at`` (N H W,) int32 says which of the rows (R, C) each one is."""
        index = lookup.index
        y = look_up_plain(rows, index.flatten(), lookup.scale, lookup.shift, lookup.mean, lookup.factors, slope, at=at)
        return picture_of(y, index)

    def modulate_pair(
        self, x: Tensor, first: Lookup, slope: float, second: Lookup, upsample: bool
    ) -> tuple[Tensor, Tensor]:
        """Two layers of the same x and index: the first activated, the second not (a block with a learned shortcut)."""
        one, two = _modulated_layers(x, [(first, slope), (second, None)], upsample)
        return one, two

    def activate(self, x: Tensor, slope: float | None, upsample: bool) -> Tensor:
        """The same without a layer."""
        if upsample:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            return x if slope is None else F.leaky_relu_(x, slope)
        return x if slope is None else F.leaky_relu(x, slope)


class CompiledKernels(Kernels):
    """The passes as single loops that ``torch.compile`` makes, for any size; its cache on disk keeps them.

    Where compiling fails (no C++ compiler, for example), it says so once, and torch's operators do the work.
    """

    def __init__(self) -> None:
        self._failed = False
        self._made: dict[tuple[Any, ...], Callable[..., Any]] = {}

    def modulate(self, x: Tensor, lookup: Lookup, slope: float | None, upsample: bool) -> Tensor:
        def write(x: Tensor, index: Tensor, *tables: Tensor) -> Tensor:
            return _modulated(x, index, tables, slope, upsample)

        eager = partial(super().modulate, x, lookup, slope, upsample)
        return self._run(("one", slope, upsample, *_form(lookup)), eager, write, x, lookup.index, *_tables(lookup))

    def modulate_rows(self, rows: Tensor, at: Tensor, lookup: Lookup, slope: float | None) -> Tensor:
        def write(rows: Tensor, at: Tensor, index: Tensor, *tables: Tensor) -> Tensor:
            x = rows[at.view(index.shape)].permute(0, 3, 1, 2)
            return _modulated(x, index, tables, slope, False)

        eager = partial(super().modulate_rows, rows, at, lookup, slope)
        return self._run(("rows", slope, *_form(lookup)), eager, write, rows, at, lookup.index, *_tables(lookup))

    def modulate_pair(
        self, x: Tensor, first: Lookup, slope: float, second: Lookup, upsample: bool
    ) -> tuple[Tensor, Tensor]:
        tables = _tables(first)

        def write(x: Tensor, index: Tensor, *both: Tensor) -> tuple[Tensor, Tensor]:
            y = _modulated(x, index, both[: len(tables)], slope, upsample)
            return y, _modulated(x, index, both[len(tables) :], None, upsample)

        eager = partial(super().modulate_pair, x, first, slope, second, upsample)
        key = ("two", slope, upsample, *_form(first), *_form(second))
        return self._run(key, eager, write, x, first.index, *tables, *_tables(second))

    def activate(self, x: Tensor, slope: float | None, upsample: bool) -> Tensor:
        if slope is None and not upsample:
            return x

        def write(x: Tensor) -> Tensor:
            y = x.permute(0, 2, 3, 1)
            if upsample:
                n, h, w, c = y.shape
                y = y[:, :, None, :, None].expand(n, h, 2, w, 2, c).reshape(n, 2 * h, 2 * w, c)
            return (y.clone() if slope is None else F.leaky_relu(y, slope)).permute(0, 3, 1, 2)

        return self._run(("none", slope, upsample), partial(super().activate, x, slope, upsample), write, x)

    def _run(
        self, key: tuple[Any, ...], eager: Callable[[], Any], write: Callable[..., Any], x: Tensor, *args: Tensor
    ) -> Any:
        """The compiled function's result; that of ``eager`` where compiling has failed."""
        if self._failed:
            return eager()
        key = (*key, x.dtype, x.device.type)
        try:
            if key not in self._made:
                self._made[key] = torch.compile(_with_own_code(write), dynamic=True)
            x = x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
            return self._made[key](x, *args)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            result = eager()  # raises what is no fault of compiling
            self._failed = True
            warnings.warn(
                f"torch.compile failed ({first_line(error)}). Pictures are drawn without it, more slowly. "
                "On a CPU it needs a C++ compiler (g++ or clang++).",
                RuntimeWarning,
                stacklevel=2,
            )
            return result


def _with_own_code(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function with a code object of its own: torch.compile allows each of them few variants."""
    code = function.__code__.replace()
    return types.FunctionType(code, function.__globals__, function.__name__, None, function.__closure__)


def _form(lookup: Lookup) -> tuple[bool]:
    return (lookup.offsets is not None,)


def _tables(lookup: Lookup) -> tuple[Tensor, ...]:
    if lookup.offsets is None:
        return lookup.scale, lookup.shift
    assert lookup.mean is not None
    assert lookup.weights is not None
    return lookup.scale, lookup.shift, lookup.mean, lookup.offsets, lookup.weights


def _factors(offsets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """f and g of :class:`Lookup`, each (N, H, W)."""
    y, x = offsets.unbind(1)
    f, g = (row[0] * y + row[1] * x + row[2] for row in weights.unbind(0))
    return f, g


def _modulated(x: Tensor, index: Tensor, tables: tuple[Tensor, ...], slope: float | None, upsample: bool) -> Tensor:
    dtype = x.dtype
    n, h, w = index.shape
    x = x.permute(0, 2, 3, 1)
    if upsample:
        x = x[:, :, None, :, None].expand(n, h // 2, 2, w // 2, 2, x.shape[-1])
        index = index.view(n, h // 2, 2, w // 2, 2)
    scale, shift = tables[0][index], tables[1][index]
    if len(tables) == 2:
        y = x.float() * scale + shift
    else:
        f, g = (part.view(*index.shape, 1) for part in _factors(tables[3], tables[4]))
        y = f * scale * (x.float() - tables[2]) + g * shift
    if slope is not None:
        y = F.leaky_relu(y, slope)
    return y.to(dtype).reshape(n, h, w, -1).permute(0, 3, 1, 2)


def _modulated_layers(x: Tensor, layers: list[tuple[Lookup, float | None]], upsample: bool) -> list[Tensor]:
    """Layers of the same x and index, each with the slope behind it."""
    doubling = Doubling.of(layers[0][0].index) if upsample and x.device.type == "cpu" else None
    if doubling is not None:
        return [_doubled(x, doubling, *layer) for layer in layers]
    if upsample:
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
    pixels, index = pixels_of(x), layers[0][0].index
    return [
        picture_of(
            look_up_plain(pixels, index.flatten(), lookup.scale, lookup.shift, lookup.mean, lookup.factors, slope),
            index,
        )
        for lookup, slope in layers
    ]


def _doubled(x: Tensor, doubling: Doubling, lookup: Lookup, slope: float | None) -> Tensor:
    """Features doubled and modulated. Where 2x2 pixels have one row of the table, it is computed once for them."""
    pixels, factors = pixels_of(x), lookup.factors
    sizes = [len(pixels), len(doubling.others)]
    computed = x.new_empty(sum(sizes), pixels.shape[1], dtype=None if factors is None else lookup.scale.dtype)
    of = (pixels, doubling.first.flatten()), (torch.index_select(pixels, 0, doubling.parents), doubling.rows)
    for (part, rows), out in zip(of, computed.split(sizes), strict=True):
        if factors is None:
            look_up_plain(part, rows, lookup.scale, lookup.shift, slope=slope, out=out)
        else:
            assert lookup.mean is not None
            scaled_plain(part, rows, lookup.scale, lookup.mean, out=out)
    if factors is None:
        return picture_of(torch.index_select(computed, 0, doubling.parts), doubling.index)
    return spread(doubling, computed, lookup.shift, factors, slope, x.dtype)


def spread(
    doubling: Doubling, computed: Tensor, table: Tensor, factors: Tensor, slope: float | None, dtype: torch.dtype
) -> Tensor:
    """f * computed + g * table[index] of every pixel, activated: what depends on positions, (N, C, 2 h, 2 w).

    Args:
        computed: of the small pixels and the others, (N h w + m, C) float32.
        table: (rows, C) float32.
        factors: f and g, (2, 4 N h w).
    """
    index = doubling.index.flatten()
    y = computed.new_empty(len(index), computed.shape[1], dtype=dtype)
    step = max(1, _PIECE // y.shape[1])
    for begin in range(0, len(y), step):
        piece = slice(begin, begin + step)
        f, g = factors[:, piece, None]
        z = torch.index_select(table, 0, index[piece]).mul_(g)
        z.addcmul_(torch.index_select(computed, 0, doubling.parts[piece]), f)
        y[piece] = z if slope is None else F.leaky_relu_(z, slope)
    return picture_of(y, doubling.index)


def picture_of(pixels: Tensor, index: Tensor) -> Tensor:
    """(N H W, C) -> (N, C, H, W), of the same memory"""
    return pixels.view(*index.shape, -1).permute(0, 3, 1, 2)


def pixels_of(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N H W, C), of the same memory where it is channels last"""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


EAGER = Kernels()
