"""Class-adaptive normalization (CLADE, section 3.2), with instance edges (equation 2) and positions (equation 15)."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clade.labels import LabelPyramid
from clade.nn.modulation import can_modulate, modulate
from clade.nn.norm import NORMS, NormLayer, parameter_free


@NORMS.register("clade")
class CLADE(NormLayer):
    """Normalize, then scale and shift every pixel by its class (CLADE, section 3.2).

        y[n, c, i, j] = gamma[k, c] * x^[n, c, i, j] + beta[k, c],   k = ids[n, i, j]

    x^ is the parameter-free normalization of x. With ``positions`` the parameters vary inside an object
    (CLADE-ICPE, equation 15), d being the offset from the object's centre:

        gamma_e = gamma * (1 + C_gamma(d)),   beta_e = beta * (1 + C_beta(d))

    With ``instance_edges`` one more channel, the instance edge E modulated by two learned numbers (equation 2), is
    concatenated: ``E^ = gamma_c * E + beta_c``. With ``position_channel`` one more, a 1x1 convolution of d, is (+dist_f
    of section 4.9).

    With batch normalization all of it is one function (:func:`clade.nn.modulation.modulate`), which can be
    differentiated once; a hook on ``normalize`` brings the separate operations back.

    Args:
        channels: channels of x.
        num_rows: number of ids, the unknown class included.
        instance_edges: append the modulated edge channel; ``out_channels`` is then one more.
        positions: modulate by position.
        position_channel: append a channel made of the position; ``out_channels`` is then one more.
        normalization: ``batch`` (synchronised under DDP) or ``instance``.

    Shapes: x (N, C, H, W); labels of the same pictures at any size; y (N, out_channels, H, W).
    """

    def __init__(
        self,
        channels: int,
        *,
        num_rows: int,
        instance_edges: bool = False,
        positions: bool = False,
        position_channel: bool = False,
        normalization: str = "batch",
    ) -> None:
        super().__init__()
        self.out_channels = channels + instance_edges + position_channel
        self.modulates_by_position = positions
        self.uses_positions = positions or position_channel
        self.normalize = parameter_free(normalization, channels)
        self.num_rows = num_rows
        self.gamma = nn.Parameter(torch.rand(num_rows, channels))  # no 1 + gamma here, unlike SPADE
        self.beta = nn.Parameter(torch.zeros(num_rows, channels))
        if positions:
            # Zero, so that CLADE-ICPE starts as CLADE; the published code overwrites its zeros (docs/parity.md).
            self.position_gamma = OneChannel(2)
            self.position_beta = OneChannel(2)
        self.edge = OneChannel(1) if instance_edges else None
        self.position = OneChannel(2) if position_channel else None
        for extra in (self.edge, self.position):
            if extra is not None:
                nn.init.xavier_normal_(extra.weight, gain=0.02)

    def forward(self, x: Tensor, labels: LabelPyramid, slope: float | None = None) -> Tensor:
        """(N, C, H, W) -> (N, out_channels, H, W), with LeakyReLU(slope) at the end where a slope is given."""
        if not can_modulate(x, self.normalize):
            y = self.normalize(x)
            scale, shift = self.modulation(labels, (y.shape[2], y.shape[3]), y.dtype)
            y = self.extended(torch.addcmul(shift, y, scale), labels)
            return y if slope is None else F.leaky_relu(y, slope)
        size = (x.shape[2], x.shape[3])
        y = modulate(
            x,
            labels.ids(size),
            self.gamma,
            self.beta,
            cast(nn.BatchNorm2d, self.normalize),
            scales=self._scales(labels, size, torch.promote_types(x.dtype, torch.float32)),
            slope=slope,
        )
        return self.extended(y, labels, slope)

    def activates(self, x: Tensor) -> bool:
        takes_slope = "slope" in type(self).forward.__code__.co_varnames  # a subclass may have its own forward
        return takes_slope and can_modulate(x, self.normalize)

    def _scales(self, labels: LabelPyramid, size: tuple[int, int], dtype: torch.dtype) -> Tensor | None:
        """1 + C_gamma(d) and 1 + C_beta(d) of every pixel, (2, N H W)"""
        if not self.modulates_by_position:
            return None
        offsets = labels.positions(size, dtype)
        return torch.stack([1 + part(offsets).flatten() for part in (self.position_gamma, self.position_beta)])

    def modulation(self, labels: LabelPyramid, size: tuple[int, int], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """gamma and beta of every pixel at a size, each (N, C, *size)."""
        ids = labels.ids(size)
        gamma, beta = look_up(self.gamma, ids, dtype), look_up(self.beta, ids, dtype)
        if self.modulates_by_position:
            offsets = labels.positions(size, dtype)
            gamma = gamma * (1 + self.position_gamma(offsets))
            beta = beta * (1 + self.position_beta(offsets))
        return gamma, beta

    def extended(self, y: Tensor, labels: LabelPyramid, slope: float | None = None) -> Tensor:
        """(N, C, H, W) -> (N, out_channels, H, W): with the channels of edge and position, where there are any.

        ``slope``: of the LeakyReLU that y has had already, for these channels, too.
        """
        size = (y.shape[2], y.shape[3])
        extra = []
        if self.edge is not None:
            extra.append(self.edge(labels.edges(size, y.dtype)))
        if self.position is not None:
            extra.append(self.position(labels.positions(size, y.dtype)))
        if slope is not None:
            extra = [F.leaky_relu(channel, slope) for channel in extra]
        return beside(y, *extra) if extra else y


def beside(*parts: Tensor) -> Tensor:
    """Concatenate channels: (N, C_i, H, W) -> (N, sum of C_i, H, W), channels last where the first part is.

    Plain concatenation falls back to channels first when it meets a single channel, whose layout is ambiguous, and
    takes several times longer.
    """
    if not parts[0].is_contiguous(memory_format=torch.channels_last):
        return torch.cat(parts, dim=1)
    return torch.cat([part.permute(0, 2, 3, 1) for part in parts], dim=3).permute(0, 3, 1, 2)


class OneChannel(nn.Module):
    """A 1x1 convolution to one channel, starting at zero: (N, C, H, W) -> (N, 1, H, W) for C of 1 or 2.

    Written as arithmetic, because a convolution library takes many times longer for so few channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        y = torch.addcmul(bias, x[:, :1], weight[:, :1])
        return y if x.shape[1] == 1 else torch.addcmul(y, x[:, 1:], weight[:, 1:])


def look_up(table: Tensor, ids: Tensor, dtype: torch.dtype) -> Tensor:
    """Rows of a table (K, C) by ids (N, *size): (N, C, *size) in ``dtype``, channels last in memory."""
    return _LookUp.apply(table, ids, dtype)


class _LookUp(torch.autograd.Function):
    """Embedding that gathers in the features' type and sums its gradient in at least float32.

    A plain bfloat16 embedding would sum tens of thousands of pixels in bfloat16 and lose most of them.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, ids: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.rows, ctx.dtype = table.shape[0], table.dtype
        return F.embedding(ids, table.to(dtype)).movedim(-1, 1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (ids,) = ctx.saved_tensors
        grad = grads[0].movedim(1, -1)
        grad = grad.to(torch.promote_types(grad.dtype, torch.float32))
        if grad.is_cuda:  # sorts first: deterministic, and no contention on a few rows
            total = torch.ops.aten.embedding_dense_backward(grad, ids, ctx.rows, -1, False)
        else:
            channels = grad.shape[-1]
            total = grad.new_zeros(ctx.rows, channels).index_add_(0, ids.reshape(-1), grad.reshape(-1, channels))
        return total.to(ctx.dtype), None, None
