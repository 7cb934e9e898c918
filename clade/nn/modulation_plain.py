"""The primitives of :mod:`clade.nn.modulation` in plain torch, and the reference of the CUDA kernels.

They go through the pixels piece by piece, so that temporaries stay in the cache and take no fresh pages.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

_PIECE = 1 << 16
"""Numbers of a temporary: 256 KB in float32, several fit a core's own cache; smaller ones cost more calls."""
_PIECE_ELSEWHERE = 1 << 25
"""The same off the CPU, where there is no such cache and launches cost."""


def apply_plain(
    x: Tensor,
    ids: Tensor,
    gamma: Tensor,
    beta: Tensor,
    mean: Tensor,
    rstd: Tensor,
    scales: Tensor | None = None,
    slope: float | None = None,
) -> Tensor:
    """y (P, C) in the type of x, computed in at least float32.

    Args:
        x: pixels (P, C).
        ids: class of each (P,).
        gamma, beta: (K, C).
        mean, rstd: (C,); rstd is 1 / standard deviation.
        scales: (2, P), s_g and s_b; None for 1.
        slope: of LeakyReLU; None for the identity.
    """
    return _applied(_Normalizing(x, ids, gamma, beta, mean, rstd, scales), slope)


def look_up_plain(
    x: Tensor,
    ids: Tensor,
    scale: Tensor,
    shift: Tensor,
    mean: Tensor | None = None,
    scales: Tensor | None = None,
    slope: float | None = None,
    out: Tensor | None = None,
    at: Tensor | None = None,
) -> Tensor:
    """The same with what does not depend on the picture multiplied out: y = act(scale[k] x + shift[k]).

    With ``scales``, y = act(s_g scale[k] (x - mean) + s_b shift[k]). ``out`` (P, C), of the type of x or of what is
    computed in, is where y goes. ``at`` (P,) says which row of x, then (rows, C), each pixel is.
    """
    return _applied(_Work(x, ids, scale, shift, mean, scales, at), slope, out)


def scaled_plain(x: Tensor, ids: Tensor, scale: Tensor, mean: Tensor, out: Tensor) -> Tensor:
    """scale[k] (x - mean), written to ``out`` (P, C) of the type of ``scale``."""
    work = _Work(x, ids, scale, scale, mean, None)
    for piece in work.pieces():
        torch.mul(work.centred(piece), work.table_of(piece), out=out[piece])
    return out


def _applied(work: _Work, slope: float | None, out: Tensor | None = None) -> Tensor:
    y = work.x.new_empty(len(work.ids), work.x.shape[1]) if out is None else out
    direct = y.dtype == work.wide
    for piece in work.pieces():
        pre = work.before_activation(piece, out=y[piece] if direct else work.buffer(2, piece))
        if slope is not None:
            F.leaky_relu_(pre, slope)
        if not direct:
            y[piece].copy_(pre)
    return y


def reduce_plain(
    grad: Tensor,
    x: Tensor,
    ids: Tensor,
    gamma: Tensor,
    beta: Tensor,
    mean: Tensor,
    rstd: Tensor,
    scales: Tensor | None = None,
    slope: float | None = None,
    *,
    kept: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """All sums that the gradients need, with g = grad * act' and the gradient of x^, d = g * gamma[k] * s_g:

        dgamma[k] = sum of g * s_g * x^ and dbeta[k] = sum of g * s_b over the pixels of class k
        inner = [sum of d, sum of d * x^] over all pixels
        dscales = [sum of g * gamma[k] * x^, sum of g * beta[k]] over channels

    Args:
        kept: memory (P, C) that g is written to, for :func:`input_plain` to take with ``slope=None``.

    Returns:
        (dgamma (K, C), dbeta (K, C), inner (2, C), dscales (2, P) or None), in at least float32
    """
    work = _Normalizing(x, ids, gamma, beta, mean, rstd, scales)
    dgamma, dbeta = torch.zeros_like(work.gamma), torch.zeros_like(work.gamma)
    scaled = dbeta if scales is None else torch.zeros_like(work.gamma)  # sum of g * s_g
    dscales = None if work.scales is None else torch.empty_like(work.scales)
    for piece in work.pieces():
        of = ids[piece]
        into = kept[piece] if kept is not None and kept.dtype == work.wide else None
        g = work.after_activation(grad, piece, slope, into)
        if kept is not None and g is not into:
            kept[piece].copy_(g)
        centred, product = work.centred(piece), work.buffer(4, piece)
        if work.scales is not None and dscales is not None:
            of_gamma, of_beta = work.scales[:, piece, None]
            torch.sum(torch.mul(centred, work.table_of(piece), out=product).mul_(g), 1, out=dscales[0, piece])
            torch.sum(torch.mul(g, work.shift_of(piece), out=product), 1, out=dscales[1, piece])
            dbeta.index_add_(0, of, torch.mul(g, of_beta, out=product))
            g = torch.mul(g, of_gamma, out=work.buffer(3, piece))
        scaled.index_add_(0, of, g)
        dgamma.index_add_(0, of, torch.mul(g, centred, out=product))
    dgamma.mul_(work.rstd)
    inner = torch.stack([(work.gamma * scaled).sum(0), (work.gamma * dgamma).sum(0)])
    return dgamma, dbeta, inner, dscales


def input_plain(
    grad: Tensor,
    x: Tensor,
    ids: Tensor,
    gamma: Tensor,
    beta: Tensor,
    mean: Tensor,
    rstd: Tensor,
    scales: Tensor | None,
    slope: float | None,
    inner_mean: Tensor,
    *,
    out: Tensor | None = None,
) -> Tensor:
    """dx = rstd * (d - inner_mean[0] - x^ * inner_mean[1]), (P, C) in the type of x; d as in :func:`reduce_plain`.

    Args:
        inner_mean: ``inner`` by the number of pixels (2, C); zeros where the statistics do not depend on x.
        out: where dx goes; it may be ``grad``.
    """
    work = _Normalizing(x, ids, gamma, beta, mean, rstd, scales)
    factor = -work.rstd.square() * inner_mean[1]
    offset = torch.addcmul(-work.rstd * inner_mean[0], work.mean, factor, value=-1)
    dx = x.new_empty(x.shape) if out is None else out
    direct = x.dtype == work.wide
    for piece in work.pieces():
        g = work.after_activation(grad, piece, slope)
        if work.scales is not None:
            g = torch.mul(g, work.scales[0, piece, None], out=work.buffer(3, piece))
        d = torch.addcmul(offset, g, work.table_of(piece), out=dx[piece] if direct else work.buffer(4, piece))
        d.addcmul_(work.wide_part(x, piece), factor)
        if not direct:
            dx[piece].copy_(d)
    return dx


class _Work:
    """The tables, and memory for what is computed of one piece of pixels: buffers that every piece uses again.

    y = table[k] x + shift[k]; with scales, y = s_g table[k] (x - mean) + s_b shift[k].
    """

    def __init__(
        self,
        x: Tensor,
        ids: Tensor,
        table: Tensor,
        shift: Tensor,
        mean: Tensor | None,
        scales: Tensor | None,
        at: Tensor | None = None,
    ) -> None:
        self.wide = widened(x.dtype)
        self.x, self.ids, self.table, self.shift, self.mean, self.at = x, ids, table, shift, mean, at
        self.scales = None if scales is None else scales.detach().to(self.wide)
        channels = table.shape[1]
        piece = _PIECE if x.device.type == "cpu" else _PIECE_ELSEWHERE
        self.step = max(1, piece // channels)
        self.buffers = [part.view(-1, channels) for part in _memory(x, self.wide, self.step * channels)]

    def pieces(self) -> Iterator[slice]:
        pixels = len(self.ids)
        for start in range(0, pixels, self.step):
            yield slice(start, min(start + self.step, pixels))

    def buffer(self, number: int, piece: slice) -> Tensor:
        pixels = piece.stop - piece.start
        return self.buffers[number] if pixels == self.step else self.buffers[number][:pixels]

    def wide_part(self, x: Tensor, piece: slice) -> Tensor:
        if self.at is not None and x.dtype == self.wide:
            return torch.index_select(x, 0, self.at[piece], out=self.buffer(0, piece))
        part = x[piece] if self.at is None else torch.index_select(x, 0, self.at[piece])
        return part if part.dtype == self.wide else self.buffer(0, piece).copy_(part)

    def centred(self, piece: slice) -> Tensor:
        """x - mean"""
        assert self.mean is not None
        return torch.sub(self.wide_part(self.x, piece), self.mean, out=self.buffer(0, piece))

    def table_of(self, piece: slice) -> Tensor:
        """table[k]"""
        return torch.index_select(self.table, 0, self.ids[piece], out=self.buffer(1, piece))

    def shift_of(self, piece: slice) -> Tensor:
        """shift[k]"""
        return torch.index_select(self.shift, 0, self.ids[piece], out=self.buffer(2, piece))

    def before_activation(self, piece: slice, out: Tensor) -> Tensor:
        table, shift = self.table_of(piece), self.shift_of(piece)
        if self.scales is None:
            return torch.addcmul(shift, self.wide_part(self.x, piece), table, out=out)
        of_gamma, of_beta = self.scales[:, piece, None]
        return torch.mul(shift, of_beta, out=out).addcmul_(table.mul_(self.centred(piece)), of_gamma)

    def after_activation(self, grad: Tensor, piece: slice, slope: float | None, into: Tensor | None = None) -> Tensor:
        """g, in ``into`` (buffer 3 where None is given) or in ``grad`` itself"""
        part = grad[piece]
        g = part if part.dtype == self.wide else self.buffer(3, piece).copy_(part)
        if slope is None:
            return g
        pre = self.before_activation(piece, out=self.buffer(4, piece))
        into = self.buffer(3, piece) if into is None else into
        return torch.ops.aten.leaky_relu_backward.grad_input(g, pre, slope, False, grad_input=into)


class _Normalizing(_Work):
    """y = gamma[k] s_g (x - mean) rstd + beta[k] s_b: the table is gamma * rstd.

    The shift is beta; without scales, less what the mean takes away.
    """

    mean: Tensor

    def __init__(
        self, x: Tensor, ids: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, rstd: Tensor, scales: Tensor | None
    ) -> None:
        wide = widened(x.dtype)
        self.gamma, shift, mean, self.rstd = (t.detach().to(wide) for t in (gamma, beta, mean, rstd))
        table = self.gamma * self.rstd
        if scales is None:
            shift = torch.addcmul(shift, table, mean, value=-1)
        super().__init__(x, ids, table, shift, mean, scales)


_kept = threading.local()


def _memory(x: Tensor, dtype: torch.dtype, numbers: int) -> list[Tensor]:
    """Five times (numbers,), kept for the next call: fresh pages would take longer than what is computed on them."""
    if x.device.type != "cpu":
        return list(x.new_empty((5, numbers), dtype=dtype))
    memory = getattr(_kept, "memory", None)
    if memory is None or memory.dtype != dtype or memory.shape[1] < numbers:
        with torch.inference_mode(False):  # else nothing outside of inference mode could write to it
            _kept.memory = memory = torch.empty((5, max(numbers, _PIECE)), dtype=dtype)
    return list(memory[:, :numbers])


def widened(dtype: torch.dtype) -> torch.dtype:
    """What is computed in: at least float32."""
    return torch.promote_types(dtype, torch.float32)
