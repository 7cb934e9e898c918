"""Normalization layers for inference: whatever does not depend on the picture is multiplied out beforehand."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from clade.engine.kernels import EAGER, Kernels, Lookup
from clade.labels import LabelPyramid
from clade.nn import CLADE, BatchNorm, NormLayer
from clade.nn.clade import beside

Size = tuple[int, int]


class TableNorm(NormLayer):
    """A layer that comes to a look-up per pixel; see :class:`Lookup`. ``channels`` are those of the features."""

    channels: int
    kernels: Kernels = EAGER

    def activates(self, x: Tensor) -> bool:
        return True

    @abstractmethod
    def lookup(self, labels: LabelPyramid, size: Size) -> Lookup:
        """What to do with features of that size."""

    def extra(self, labels: LabelPyramid, size: Size, dtype: torch.dtype) -> Tensor | None:
        """Channels that come after the features, (N, channels, *size), where the layer has some."""
        return None

    def forward(self, x: Tensor, labels: LabelPyramid, slope: float | None = None) -> Tensor:
        size = (x.shape[2], x.shape[3])
        y = self.kernels.modulate(x, self.lookup(labels, size), slope, False)
        extra = self.extra(labels, size, y.dtype)
        if extra is None:
            return y
        extra = extra if slope is None else nn.functional.leaky_relu(extra, slope)
        return beside(y, extra)


class CladeTable(TableNorm):
    """A trained CLADE layer: batch statistics and class parameters are one scale and one shift per class and channel.

        y = A[k] x + B[k],   A = gamma / sqrt(var + eps),   B = beta - A mean

    With positions, which vary gamma and beta apart: y = f A[k] (x - mean) + g beta[k] (equation 15).
    """

    scale: Tensor
    shift: Tensor
    mean: Tensor
    weights: Tensor

    def __init__(self, layer: CLADE) -> None:
        super().__init__()
        self.out_channels, self.channels = layer.out_channels, layer.gamma.shape[1]
        self.uses_positions = layer.uses_positions
        mean, rstd = statistics(layer.normalize)
        scale = layer.gamma.detach().float() * rstd
        shift = layer.beta.detach().float()
        if not layer.modulates_by_position:
            shift = shift - scale * mean
        self.modulates_by_position = layer.modulates_by_position
        # Not parameters: torch.compile would make its loops for each one's size.
        for name, value in {"scale": scale, "shift": shift, "mean": mean}.items():
            self.register_buffer(name, value.contiguous())
        if layer.modulates_by_position:
            parts = (layer.position_gamma, layer.position_beta)
            rows = [torch.cat([part.weight.flatten(), 1 + part.bias]) for part in parts]
            self.register_buffer("weights", torch.stack(rows).detach().float())
        self.edge, self.position = layer.edge, layer.position

    def lookup(self, labels: LabelPyramid, size: Size) -> Lookup:
        if not self.modulates_by_position:
            return Lookup(labels.ids(size), self.scale, self.shift)
        offsets = labels.positions(size)
        return Lookup(labels.ids(size), self.scale, self.shift, self.mean, offsets, self.weights)

    def extra(self, labels: LabelPyramid, size: Size, dtype: torch.dtype) -> Tensor | None:
        channels = []
        if self.edge is not None:
            channels.append(self.edge(labels.edges(size, dtype)))
        if self.position is not None:
            channels.append(self.position(labels.positions(size, dtype)))
        return torch.cat(channels, dim=1) if channels else None


def statistics(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Mean and 1 / sqrt(var + eps) of a batch normalization in eval mode, each (C,) float32."""
    assert isinstance(norm, BatchNorm)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean.float(), torch.rsqrt(norm.running_var.double() + norm.eps).float()
