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

from clade.errors import first_line

_CHUNK = 1 << 20  # values at a time: temporaries of 4 MiB stay in the cache


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


class Kernels:
    """The passes written with torch's operators, over blocks of rows that stay in the cache."""

    def modulate(self, x: Tensor, lookup: Lookup, slope: float | None, upsample: bool) -> Tensor:
        """LeakyReLU(slope) of the modulated x, or without it for None.

        Args:
            x: (N, C, H, W), or (N, C, H / 2, W / 2) with ``upsample``, which doubles it (nearest).

        Returns:
            (N, C, H, W), channels last, in the type of x.
        """
        x = x.permute(0, 2, 3, 1)
        count, height, width = lookup.index.shape
        y = torch.empty(count, height, width, x.shape[-1], dtype=x.dtype, device=x.device)
        step = height + height % 2
        maps = [slice(None)]
        if x.device.type == "cpu":
            step = max(2, _CHUNK // (width * x.shape[-1]) // 2 * 2)
            maps = [slice(n, n + 1) for n in range(count)]
        for of in maps:
            for top in range(0, height, step):
                rows = slice(top, top + step)
                part = x[of, top // 2 : (top + step) // 2] if upsample else x[of, rows]
                offsets = None if lookup.offsets is None else lookup.offsets[of, :, rows]
                self._write(y[of, rows], part, lookup.index[of, rows], lookup, offsets, slope, upsample)
        return y.permute(0, 3, 1, 2)

    @staticmethod
    def _write(
        y: Tensor,
        x: Tensor,
        index: Tensor,
        lookup: Lookup,
        offsets: Tensor | None,
        slope: float | None,
        upsample: bool,
    ) -> None:
        n, h, w, c = x.shape
        shape = (n, h, 2, w, 2, c) if upsample else (n, h, w, c)
        if upsample:
            x = x[:, :, None, :, None].expand(shape)
        scale = F.embedding(index, lookup.scale).view(shape)
        shift = F.embedding(index, lookup.shift).view(shape)
        x = x.to(scale.dtype)
        if offsets is None:
            z = torch.addcmul(shift, x, scale)
        else:
            assert lookup.mean is not None
            assert lookup.weights is not None
            f, g = (part.reshape(*shape[:-1], 1) for part in _factors(offsets, lookup.weights))
            z = shift.mul_(g).addcmul_(x - lookup.mean, scale.mul_(f))
        if slope is not None:
            F.leaky_relu_(z, slope)
        y.view(shape).copy_(z)

    def modulate_pair(
        self, x: Tensor, first: Lookup, slope: float, second: Lookup, upsample: bool
    ) -> tuple[Tensor, Tensor]:
        """Two layers of the same x and index: the first activated, the second not (a block with a learned shortcut)."""
        return self.modulate(x, first, slope, upsample), self.modulate(x, second, None, upsample)

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
            return self._made[key](x.contiguous(memory_format=torch.channels_last), *args)
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


EAGER = Kernels()
