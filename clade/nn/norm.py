"""Parameter-free normalization, and the registry of the layers that modulate it by the label map."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from clade.errors import CladeError, LabelError
from clade.labels import LabelMap, LabelPyramid
from clade.registry import Registry


class NormLayer(nn.Module, ABC):
    """A normalization layer that reads the label map.

    ``out_channels`` is what the following convolution gets: the input's channels, plus the edge channel of CLADE.
    ``uses_positions`` says whether it asks the pyramid for positions. ``num_rows`` is the number of ids that it knows.

    It is called with the pyramid that a network makes once for all its layers. Where it stands by itself, a label map,
    or ids (N, H, W), will do (``layer(x, ids)``), and become one for this call.
    """

    out_channels: int
    num_rows: int | None = None
    uses_positions: bool = False
    stochastic: bool = False
    """Whether it draws random numbers in every forward, as a generator with such a layer then does."""

    def __call__(self, x: Tensor, labels: LabelPyramid | LabelMap | Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not isinstance(labels, LabelPyramid) and self.num_rows is not None:
            label_map = labels if isinstance(labels, LabelMap) else LabelMap(labels)
            if len(label_map) != len(x):
                raise LabelError(
                    f"{len(label_map)} label maps came with features of {len(x)} pictures; needed is one for each."
                )
            labels = LabelPyramid(label_map.to(x.device), self.num_rows)
        return super().__call__(x, labels, *args, **kwargs)

    @abstractmethod
    def forward(self, x: Tensor, labels: LabelPyramid) -> Tensor:
        """(N, C, H, W), labels of the same pictures at any size -> (N, out_channels, H, W)"""

    def activates(self, x: Tensor) -> bool:
        """Whether ``forward`` also takes a ``slope`` for these features, and applies LeakyReLU in the same pass."""
        return False


def activated(layer: nn.Module, x: Tensor, labels: LabelPyramid, slope: float = 0.2) -> Tensor:
    """LeakyReLU of what a layer gives: (N, C, H, W) -> (N, out_channels, H, W)"""
    if isinstance(layer, NormLayer) and layer.activates(x):
        return layer(x, labels, slope)
    return F.leaky_relu(layer(x, labels), slope)


NORMS: Registry[type[NormLayer]] = Registry("normalization layer")


def parameter_free(kind: str, channels: int) -> nn.Module:
    """Equation 1's normalization step without scale and shift: ``batch`` (synchronised under DDP) or ``instance``."""
    if kind == "batch":
        return BatchNorm(channels)
    if kind == "instance":
        return InstanceNorm(channels)
    raise CladeError(f"There is no normalization '{kind}' to put inside a layer. Known: batch, instance.")


class Unnormalized(NormLayer):
    """No layer at all: y = x. The backbone that a layer's cost is measured against."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out_channels = channels

    def forward(self, x: Tensor, labels: LabelPyramid) -> Tensor:
        return x


class BatchNorm(nn.BatchNorm2d):
    """BatchNorm, by default without scale and shift, whose statistics span all processes of a distributed training.

    Unlike ``torch.nn.SyncBatchNorm`` it also works on the CPU (gloo), so that two processes train like one with the
    doubled batch there too. Running statistics keep torch's conventions (momentum 0.1, unbiased variance).
    """

    def __init__(self, channels: int, affine: bool = False) -> None:
        super().__init__(channels, affine=affine)

    def forward(self, input: Tensor) -> Tensor:
        if not (self.training and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        x = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        n, c, h, w = x.shape
        totals = _AllReduceSum.apply(torch.cat([x.sum((0, 2, 3)), x.new_tensor([n * h * w])]))
        count = totals[-1]
        mean = totals[:-1] / count
        centred = x - mean.view(1, c, 1, 1)
        # A second pass over centred values: sum(x^2) - mean^2 would cancel in float32.
        variance = _AllReduceSum.apply(centred.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            momentum = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
            unbiased = variance * (count / (count - 1).clamp(min=1))
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum)
        y = centred * torch.rsqrt(variance + self.eps).view(1, c, 1, 1)
        if self.affine:
            y = y * self.weight.view(1, c, 1, 1) + self.bias.view(1, c, 1, 1)
        return y.to(input.dtype)


class InstanceNorm(nn.InstanceNorm2d):
    """InstanceNorm without scale and shift. A map of a single pixel, which torch refuses, equals its mean: 0."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=False)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) if input.shape[2] * input.shape[3] > 1 else input - input


class _AllReduceSum(torch.autograd.Function):
    """Sum over processes; its gradient is the sum of all processes' gradients."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        value = value.clone()
        dist.all_reduce(value)
        return value

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        grad = grads[0].clone()
        dist.all_reduce(grad)
        return grad
